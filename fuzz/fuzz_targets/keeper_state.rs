//! Fuzz target: what a keeper hands to the binary that it becomes.
#![no_main]
#[path = "../bodies.rs"]
mod bodies;
libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::keeper_state(data));
