//! Fuzz target: what a worker answers when it is asked whether it is ready.
#![no_main]
#[path = "../bodies.rs"]
mod bodies;
libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::http(data));
