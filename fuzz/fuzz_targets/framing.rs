//! Fuzz target: lines on a worker's channel, and lines that wait for one.
#![no_main]
#[path = "../bodies.rs"]
mod bodies;
libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::framing(data));
