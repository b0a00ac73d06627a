//! Simulation of the pure parts under virtual time: thousands of seeded worlds. A failing seed is printed; run it alone
//! with `SIM_SEED=n cargo test --test simulation`, and more of them with `SIM_SEEDS=n`. `SIM_TRACE=1`
//! prints every action.
#![allow(clippy::unwrap_used)]
mod agent;
mod asked;
mod autoscale;
mod balancer;
mod before;
mod canary;
mod in_hand;
mod ledger;
mod limits;
mod moves;
mod random;
mod scenarios;
mod spares;
mod successor;
mod upgraded;
mod warm_up;
mod world;

use std::ops::Range;

/// Worlds in the quick test command, and with the long ones.
const SEEDS: u64 = 2_000;
const SEEDS_IN_ALL: u64 = 10_000;

#[test]
fn every_world_keeps_its_invariants_and_comes_to_rest() {
    worlds(0..SEEDS);
}

#[test]
#[ignore = "long: thousands of worlds more"]
fn thousands_of_worlds_more_keep_their_invariants() {
    worlds(SEEDS..SEEDS_IN_ALL);
}

fn worlds(usual: Range<u64>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => number("SIM_SEEDS").map_or(usual, |count| 0..count).collect(),
    };
    let live = |seeds: &[u64]| {
        for seed in seeds {
            let lived = std::panic::catch_unwind(|| world::live(*seed, None));
            assert!(lived.is_ok(), "seed {seed} fails; replay it with SIM_SEED={seed}");
        }
    };
    let (first, second) = seeds.split_at(seeds.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| live(first));
        live(second);
    });
}

/// Worlds in which a bug that was put in on purpose has to be found.
const SEEDS_TO_FIND: u64 = 300;

#[test]
fn bugs_put_in_on_purpose_are_found() {
    use world::Sabotage::{
        AgentReadyTooEarly, LostAgentNote, LostBeforeNote, LostExit, LostNote, NoKill, ReadyTooEarly,
    };
    for sabotage in [LostExit, LostNote, NoKill, ReadyTooEarly, AgentReadyTooEarly, LostAgentNote, LostBeforeNote] {
        let live = |seed| std::panic::catch_unwind(|| world::live(seed, Some(sabotage)));
        assert!((0..SEEDS_TO_FIND).any(|seed| live(seed).is_err()), "{sabotage:?} is not found");
    }
}
