//! What the test programs share: the built binary with a home of its own, the strict client, the sample apps, and a runner
//! for programs that are more than their tests. Each uses what it needs.
#![allow(dead_code, unused_imports, unused_macros)]
pub(crate) mod api;
pub(crate) mod apps;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod files;
pub(crate) mod flooding;
pub(crate) mod http;
pub(crate) mod openmetrics;
pub(crate) mod packages;
pub(crate) mod ports;
pub(crate) mod promtool;
pub(crate) mod runner;
pub(crate) mod turns;
pub(crate) mod users;
pub(crate) mod wait;
