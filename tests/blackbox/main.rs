//! Black-box tests: the built binary, real node and python, and a strict client for which every request must get one
//! whole answer. Each test has its own home and port; they wait for events, never for luck.
#![allow(clippy::unwrap_used)]
mod addresses;
mod again;
mod agent;
mod asked;
mod background;
mod bind;
mod blocked;
mod cgroups;
#[path = "../common/mod.rs"]
mod common;
mod control;
mod deployments;
mod errors;
mod faults;
mod floods;
mod folders;
mod forever;
mod full;
mod homes;
mod hooks;
mod import;
mod in_reach;
mod jobs;
mod keep;
mod kernel;
mod keys;
mod kills;
mod limits;
mod logs;
mod logs_verb;
mod moves;
mod moves_tls;
mod peers;
mod pm2_session;
mod pm2_verbs;
mod progress;
mod readiness;
mod refusal;
mod refusals;
mod reload;
mod rights;
mod scarce;
mod serve;
mod signals;
mod spares;
mod starved;
mod sticky;
mod strays;
mod supervise;
mod surroundings;
mod top;
mod upgrade;
mod verbs;
mod warnings;

use common::{apps, client, cluster};
