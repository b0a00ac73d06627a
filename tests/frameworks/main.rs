//! Frameworks and runtimes as people use them, unmodified, under the built binary: Express, Fastify, Koa, egg, ws, uvicorn,
//! gunicorn, and every supported version of Node. The first run installs them below the target folder (`install`);
//! later ones need no network.
#![allow(clippy::unwrap_used)]
#[path = "../common/mod.rs"]
mod common;
mod egg;
mod install;
mod support;

mod node;
mod proxies;
mod python;
mod versions;
mod websocket;

use common::{apps, client, cluster};
