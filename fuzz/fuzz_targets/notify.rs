//! Fuzz target: datagrams of the notify socket, and systemd's socket passing.
#![no_main]
#[path = "../bodies.rs"]
mod bodies;
libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::notify(data));
