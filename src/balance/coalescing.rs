//! Computes how long the accept loop may nap while every worker is busy, so that one wake-up takes several connections.
//! Pure.
//!
//! A nap is half of the time that the least busy worker needs for its hand-offs, so that no worker runs dry. That time
//! differs by a factor of a hundred between apps and machines, so it is learnt from answers: from the worker that sent
//! most of them since the last nap, as long as it has more to send.

/// Initial estimate of a worker's time per hand-off, in microseconds.
const EACH_START_US: u64 = 160;
/// Lower bound of the estimate, in microseconds.
const EACH_MIN_US: u64 = 20;
/// Answers over a longer time than this do not measure the workers, in microseconds.
const SAMPLE_MAX_US: u64 = 100_000;
/// Longest nap before the next accept while every worker has hand-offs to answer, in microseconds.
pub const NAP_MAX_US: u64 = 3_000;
/// The same where connections of other apps would wait for it.
pub const NAP_BESIDE_OTHERS_MAX_US: u64 = 1_000;

/// The workers' speed, and the hand-offs since the last nap.
#[derive(Clone, Debug)]
pub struct Coalescing {
    /// Time of a fast worker per hand-off, in microseconds; a moving average.
    each_us: u64,
    /// When the last nap began, or would have begun.
    since_us: u64,
    /// Most answers of one worker since then.
    most: u64,
    /// A worker has answered everything that it had.
    ran_dry: bool,
    /// Open hand-offs of the least busy worker at the last hand-off: the next connection would wait behind as many.
    behind: u64,
}

impl Coalescing {
    #[must_use]
    pub fn new() -> Coalescing {
        Coalescing { each_us: EACH_START_US, since_us: 0, most: 0, ran_dry: false, behind: 0 }
    }

    /// A connection was handed off, and the least busy worker had this many open hand-offs.
    pub fn gave(&mut self, fewest: u32) {
        self.behind = u64::from(fewest);
    }

    /// A worker's answers were read: their number, and the number still to come.
    pub fn read(&mut self, answers: u64, left: u32) {
        if answers == 0 {
            return;
        }
        if left == 0 {
            // How long the worker has been idle is not known.
            self.ran_dry = true;
        } else {
            self.most = self.most.max(answers);
        }
    }

    /// The nap that is due, in microseconds; 0: none. `most_us` is its limit.
    pub fn nap_us(&mut self, now_us: u64, most_us: u64) -> u64 {
        let past_us = now_us.saturating_sub(self.since_us);
        self.since_us = now_us;
        let most = std::mem::take(&mut self.most);
        if std::mem::take(&mut self.ran_dry) {
            self.each_us -= self.each_us / 4;
        } else if most > 0 && past_us <= SAMPLE_MAX_US {
            self.each_us = (self.each_us * 7 + past_us / most) / 8;
        }
        self.each_us = self.each_us.max(EACH_MIN_US);
        (std::mem::take(&mut self.behind) * self.each_us / 2).min(most_us)
    }
}

impl Default for Coalescing {
    fn default() -> Coalescing {
        Coalescing::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs naps with two workers of this service time, and clients that reconnect at once. Returns the number of naps
    /// in the last of two seconds, and of those in which a worker ran dry.
    fn naps(service_us: u64, clients: u64) -> (u64, u64) {
        const TURN_US: u64 = 100;
        let mut coalescing = Coalescing::new();
        let (mut now_us, mut free_us, mut open) = (0, [0_u64; 2], [0_u64; 2]);
        let (mut naps, mut dry) = (0, 0);
        while now_us < 2_000_000 {
            let mut some_dry = false;
            for (open, free_us) in open.iter_mut().zip(&mut free_us) {
                let mut answers = 0;
                while *open > 0 && *free_us + service_us <= now_us {
                    (*open, *free_us, answers) = (*open - 1, *free_us + service_us, answers + 1);
                }
                some_dry |= *open == 0 && answers > 0;
                coalescing.read(answers, *open as u32);
            }
            while open[0] + open[1] < clients {
                let to = usize::from(open[1] < open[0]);
                if open[to] == 0 {
                    free_us[to] = free_us[to].max(now_us);
                }
                coalescing.gave(open[to] as u32);
                open[to] += 1;
            }
            now_us += TURN_US;
            let nap_us = coalescing.nap_us(now_us, NAP_MAX_US);
            now_us += nap_us;
            if now_us > 1_000_000 {
                naps += u64::from(nap_us > 0);
                dry += u64::from(some_dry);
            }
        }
        (naps, dry)
    }

    #[test]
    fn workers_of_any_speed_have_something_to_do_and_the_master_naps_for_long() {
        for service_us in [20, 60, 300, 5_000] {
            let (naps, dry) = naps(service_us, 64);
            assert_eq!(dry, 0, "{service_us} us each: a worker ran dry in {dry} of {naps} naps");
            // Half of what 31 others take, up to the bound, plus the time of a turn.
            let expected = 1_000_000 / (31 * service_us / 2).min(NAP_MAX_US);
            assert!(naps <= expected * 3 / 2, "{service_us} us each: {naps} naps");
        }
    }

    #[test]
    fn an_idle_worker_is_never_napped_for() {
        let mut coalescing = Coalescing::new();
        coalescing.gave(0);
        assert_eq!(coalescing.nap_us(1_000, NAP_MAX_US), 0);
        // Nothing was handed off since.
        coalescing.gave(3);
        assert!(coalescing.nap_us(2_000, NAP_MAX_US) > 0);
        assert_eq!(coalescing.nap_us(3_000, NAP_MAX_US), 0);
    }

    #[test]
    fn workers_that_run_dry_make_naps_shorter_down_to_a_bound() {
        let mut coalescing = Coalescing::new();
        for turn in 0..100 {
            coalescing.read(4, 0);
            coalescing.gave(10);
            coalescing.nap_us(turn * 1_000, NAP_MAX_US);
        }
        coalescing.gave(10);
        assert_eq!(coalescing.nap_us(100_000, NAP_MAX_US), 10 * EACH_MIN_US / 2);
    }

    #[test]
    fn a_long_silence_says_nothing_about_the_workers() {
        let mut coalescing = Coalescing::new();
        coalescing.nap_us(1_000, NAP_MAX_US);
        coalescing.read(1, 5);
        coalescing.gave(2);
        let nap_us = coalescing.nap_us(60_000_000, NAP_MAX_US);
        assert_eq!(nap_us, EACH_START_US);
    }
}
