//! `clusterd` runs N copies of a program behind one listening socket and keeps them running.
//!
//! The library exists for the program, its tests, its fuzz targets and its benches; it promises no stable API.
//! `docs/architecture.md` is the map: which module may know what, and why.
#![deny(unsafe_code)] // `os` alone opts out.

pub mod api;
pub mod balance;
pub mod cli;
pub mod config;
pub mod home;
pub mod hooks;
pub mod ids;
pub mod keeper;
pub mod limits;
pub mod loader;
pub mod logs;
pub mod master;
pub mod os;
pub mod program;
pub mod record;
pub mod reports;
pub mod reuseport;
pub mod serve;
pub mod supervisor;
pub mod text;
pub mod watch;
pub mod worker;
