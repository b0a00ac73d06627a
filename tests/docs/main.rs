//! The pages for readers: that links lead somewhere, that what they type is right and prints what they show, that the figures of the
//! README are those that were measured, and the recording on it.
#![allow(clippy::unwrap_used)]
mod figures;
mod lines;
mod machine;
mod markdown;
mod pages;
#[path = "../common/ports.rs"]
#[allow(dead_code)]
mod ports;
mod recording;
mod sessions;
mod shell;
