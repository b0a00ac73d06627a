//! The bodies of the fuzz targets (`fuzz/bodies.rs`) on seeded mutations of valid inputs, and what the decoders promise
//! at their bounds. A failing seed is printed; run it alone with `DECODER_SEED=n cargo test --test decoders NAME`, and
//! more of them with `DECODER_CASES=n`. The quick test command plays a part of the cases.
#![allow(clippy::unwrap_used)]
#[path = "../../fuzz/bodies.rs"]
mod bodies;
mod bounds;
mod corpus;
mod memory;
mod mutate;
#[path = "../simulation/random.rs"]
mod random;

use random::Random;
use std::process::Command;

/// One of this many cases is played in the quick test command, and all of them where `DECODER_SHARE` is 1.
const QUICK_SHARE: u64 = 4;

/// Runs a body on every valid input, then on mutations of them, one for each seed.
fn run(name: &str, cases: u64, corpus: &[Vec<u8>], words: &[&[u8]], body: fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = |what: &str, input: &[u8]| {
        let held = std::panic::catch_unwind(|| body(input));
        let shown = input[..input.len().min(2_000)].escape_ascii();
        assert!(held.is_ok(), "{name}: {what} fails, with {} bytes beginning \"{shown}\"", input.len());
    };
    let seeds = match number("DECODER_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            for (n, input) in corpus.iter().enumerate() {
                one(&format!("valid input {n}"), input);
            }
            let share = number("DECODER_SHARE").unwrap_or(QUICK_SHARE);
            0..number("DECODER_CASES").unwrap_or(cases / share)
        }
    };
    for seed in seeds {
        let input = mutate::mutated(&mut Random::new(seed), corpus, words);
        one(&format!("seed {seed} (replay: DECODER_SEED={seed} cargo test --test decoders {name})"), &input);
    }
}

#[test]
#[ignore = "long: all cases of every decoder"]
fn every_decoder_plays_all_its_cases() {
    let played = Command::new(std::env::current_exe().unwrap()).env("DECODER_SHARE", "1").status().unwrap();
    assert!(played.success(), "{played}");
}

#[test]
fn framing() {
    run("framing", 8_000, &corpus::streams(), corpus::JSON_WORDS, bodies::framing);
}

#[test]
fn node() {
    run("node", 30_000, &corpus::node_lines(), corpus::JSON_WORDS, bodies::node);
}

#[test]
fn keeper() {
    run("keeper", 20_000, &corpus::keeper_messages(), &[&[0xff; 4], &[0; 8], &[1], &[4, 0, 0, 0]], bodies::keeper);
}

#[test]
fn keeper_state() {
    run(
        "keeper_state",
        5_000,
        &corpus::keeper_states(),
        &[&[0xff; 4], &[0; 8], &[255, 4, 0, 0, 0]],
        bodies::keeper_state,
    );
}

#[test]
fn inspector() {
    let words: &[&[u8]] =
        &[&[0x81, 126], &[0x88, 0], b"\r\n\r\n", b"content-length: 9\r\n", b"\"id\":3", b"\"callFrames\":"];
    run("inspector", 10_000, &corpus::inspector_streams(), words, bodies::inspector);
}

#[test]
fn http() {
    let words: &[&[u8]] = &[b"HTTP/1.1 ", b"103 ", b"200 OK\r\n", b"\r\n\r\n", b"HTTP/1.0 "];
    run("http", 10_000, &corpus::http_answers(), words, bodies::http);
}

#[test]
fn messages() {
    run("messages", 20_000, &corpus::messages(), corpus::JSON_WORDS, bodies::messages);
}

#[test]
fn notify() {
    run("notify", 20_000, &corpus::datagrams(), corpus::NOTIFY_WORDS, bodies::notify);
}

#[test]
fn config() {
    run("config", 3_000, &corpus::configurations(), corpus::CONFIG_WORDS, bodies::config);
}

#[test]
fn typed_values() {
    run("typed_values", 8_000, &corpus::typed_values(), corpus::CONFIG_WORDS, bodies::config);
}

#[test]
fn env_file() {
    run("env_file", 15_000, &corpus::env_files(), corpus::ENV_WORDS, bodies::env_file);
}
