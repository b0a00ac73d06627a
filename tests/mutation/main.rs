//! Damaged inputs from outside, through the built binary: lines of a channel, requests to the control API, datagrams of a
//! notify socket, configurations, files of PM2, words of the command line. (`tests/decoders` gives the decoders alone far
//! more of them.) Nothing panics, nothing hangs, the master stays the same process in bounded memory, and an honest app in
//! the same deployment answers.
//!
//! The seed of a run is printed; `MUTATION_SEED=n` repeats it, `MUTATION_PART=n` runs one input of n.
#![allow(clippy::unwrap_used)]
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../decoders/corpus.rs"]
mod corpus;
#[path = "../decoders/mutate.rs"]
mod mutate;
mod outside;
#[path = "../simulation/random.rs"]
mod random;

use common::{apps, client, cluster};
use random::Random;
use std::time::{SystemTime, UNIX_EPOCH};

/// The inputs of one kind, from the seed of this run.
pub(crate) fn inputs(what: &str, count: usize, corpus: &[Vec<u8>], words: &[&[u8]]) -> Vec<Vec<u8>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = number("MUTATION_SEED").unwrap_or_else(now);
    let count = count / number("MUTATION_PART").unwrap_or(1) as usize;
    eprintln!("{what}: {count} inputs; to repeat them: MUTATION_SEED={seed}");
    let mut random = Random::new(seed);
    (0..count).map(|_| mutate::mutated(&mut random, corpus, words)).collect()
}
