//! Fuzz target: messages between an app's agent and its workers.
#![no_main]
#[path = "../bodies.rs"]
mod bodies;
libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::messages(data));
