//! The built binary as monitoring sees it: metrics, events, the control address over TCP, the page.
#![allow(clippy::unwrap_used)]
mod agent_check;
mod app_metrics;
#[path = "../common/mod.rs"]
mod common;
mod docs;
mod events;
mod metrics;
mod page;
mod tcp;
mod tls;

use common::{client, cluster};
