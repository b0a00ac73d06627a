//! Frameworks, runtimes and wrappers as people use them, unmodified, under the built binary: the rows of docs/frameworks.md
//! (`table`), egg, WebSockets, proxies, and every supported version of Node. The first run installs them below the target folder (`install`);
//! later ones need no network.
#![allow(clippy::unwrap_used)]
mod agent_check;
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod egg;
mod install;
mod metrics;
mod page;
mod pm2;
mod socketio;
mod support;
mod table;

mod node;
mod programs_proxied;
mod proxies;
mod python;
mod versions;
mod web;
mod websocket;
mod websocket_moves;

use common::{apps, client, cluster};
