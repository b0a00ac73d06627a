//! More of what goes wrong with a machine, in some of the plans: errors of all kinds, full disks, reads and writes that end early, a wall
//! clock that is set, processes that are stopped for a while.
use crate::errors::Lack;
use crate::plan::{BEGIN_US, CALM_US, Deed, LENGTH_US, Plan};
use crate::random::Random;

/// Makes the choices here independent of those of `plan`.
const SALT: u64 = 0x7206_b1e5;
/// The most that a clock is set, in seconds.
const CLOCK_S_MAX: u64 = 400 * 86_400;
/// A master that is stopped for longer is killed by the keeper.
const PAUSE_US_MAX: u64 = 12_000_000;

pub(crate) fn vary(plan: &mut Plan, seed: u64) {
    let mut random = Random::new(seed ^ SALT);
    if random.percent(30) {
        plan.faults.short_percent = random.between(1, 40);
    }
    if random.percent(25) {
        for _ in 0..random.between(1, 3) {
            let lack = if random.percent(60) { Lack::Anything } else { Lack::Disk };
            let length_us = random.between(1_000, 4_000_000);
            add(plan, &mut random, Deed::Lack(lack, length_us));
        }
    }
    if random.percent(15) {
        for _ in 0..random.between(1, 3) {
            let seconds = random.between(1, CLOCK_S_MAX) as i64;
            let deed = Deed::SetClock(if random.percent(50) { seconds } else { -seconds });
            add(plan, &mut random, deed);
        }
    }
    if random.percent(15) {
        let length_us = random.between(1_000, PAUSE_US_MAX);
        let deed = if random.percent(60) { Deed::PauseMaster(length_us) } else { Deed::PauseKeeper(length_us) };
        // A master that is stopped cannot end when its keeper was killed.
        if !plan.kills_keeper || matches!(deed, Deed::PauseKeeper(_)) {
            add(plan, &mut random, deed);
        }
    }
    plan.deeds.sort_by_key(|(at_us, _)| *at_us);
}

fn add(plan: &mut Plan, random: &mut Random, deed: Deed) {
    plan.deeds.push((BEGIN_US + random.between(1_500_000, LENGTH_US - CALM_US), deed));
}
