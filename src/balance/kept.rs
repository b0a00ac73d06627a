//! Balance of kept connections, pure: how many each worker gives up so that the shares come together. A connection that a
//! client keeps stays where it was first given, so workers that start later would stand idle.
use std::cmp::Reverse;

/// Connections that move for balance in one round, per app.
pub const MOVES_PER_ROUND_MAX: u32 = 1_000;

/// No connection moves for balance so soon after it has moved, in milliseconds.
pub const MOVES_AGAIN_MS: u64 = 10_000;

/// How often shares are compared where no worker became ready, in milliseconds.
pub const ROUND_EVERY_MS: u64 = 10_000;

/// Shares count as equal where the smallest is at least so many percent of the largest.
const EQUAL_PERCENT: u32 = 90;

/// How many connections each worker gives up, of those that the workers keep. Nobody gives where the shares are about
/// equal.
pub fn gives<K: Copy>(kept: &[(K, u32)]) -> Vec<(K, u32)> {
    let counts = || kept.iter().map(|(_, count)| *count);
    let (Some(least), Some(most)) = (counts().min(), counts().max()) else { return Vec::new() };
    let is_equal = u64::from(least) * 100 >= u64::from(most) * u64::from(EQUAL_PERCENT);
    if is_equal || most - least < 2 {
        return Vec::new();
    }
    let total: u64 = counts().map(u64::from).sum();
    let share = u32::try_from(total.div_ceil(kept.len() as u64)).unwrap_or(u32::MAX);
    let mut givers: Vec<(K, u32)> =
        kept.iter().filter(|(_, count)| *count > share).map(|&(k, n)| (k, n - share)).collect();
    // Where one round is not enough, those who have most give first.
    givers.sort_by_key(|(_, count)| Reverse(*count));
    let mut left = MOVES_PER_ROUND_MAX;
    for (_, count) in &mut givers {
        *count = (*count).min(left);
        left -= *count;
    }
    givers.retain(|(_, count)| *count > 0);
    givers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kept: &[u32]) -> Vec<(usize, u32)> {
        let mut gives = gives(&kept.iter().copied().enumerate().collect::<Vec<_>>());
        gives.sort_unstable();
        gives
    }

    #[test]
    fn workers_that_start_later_get_their_share() {
        assert_eq!(of(&[32, 32, 0, 0]), [(0, 16), (1, 16)]);
        assert_eq!(of(&[5, 0]), [(0, 2)]);
        assert_eq!(of(&[2, 0, 0]), [(0, 1)]);
        assert_eq!(of(&[9, 3, 3]), [(0, 4)]);
    }

    #[test]
    fn about_equal_shares_stay_as_they_are() {
        for equal in [&[1, 0][..], &[0, 0], &[20, 19, 18], &[7], &[], &[100, 91]] {
            assert_eq!(of(equal), [], "{equal:?}");
        }
    }

    #[test]
    fn a_round_is_bounded_and_rounds_come_to_an_end() {
        let mut kept = vec![9_000_u32, 8_000, 0, 0, 10];
        let mut rounds = 0;
        loop {
            let given = of(&kept);
            if given.is_empty() {
                break;
            }
            let all: u32 = given.iter().map(|(_, count)| count).sum();
            assert!(all <= MOVES_PER_ROUND_MAX && all > 0);
            for (from, count) in given {
                for _ in 0..count {
                    kept[from] -= 1;
                    *kept.iter_mut().min().unwrap_or(&mut 0) += 1;
                }
            }
            rounds += 1;
            assert!(rounds < 100, "{kept:?}");
        }
        assert_eq!(kept.iter().sum::<u32>(), 17_010);
        assert!(kept.iter().min() >= Some(&3_000), "{kept:?}");
    }
}
