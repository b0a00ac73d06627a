//! What faults of the world around cost: a table with a row for each fault, one of neighbours that flood, and masters that are
//! killed again and again under load. All run on demand:
//!
//! `cargo test --release --test faults -- --ignored --nocapture table` prints the table and, with `UPDATE=1`, writes it to
//! docs/reliability.md; `neighbours` in place of `table` does so with that of neighbours. `MASTER_KILLS=1000 cargo test --release --test faults -- --ignored --nocapture kills` kills so many masters
//! with each balance.
#![allow(clippy::unwrap_used)]
#[path = "../common/mod.rs"]
mod common;
mod kills;
mod neighbours;
mod page;
mod site;
mod table;

use common::{apps, client, cluster};
