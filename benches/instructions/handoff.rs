//! The part of the program that hands connections off, from its own files and without the rest: the rest would be
//! optimized for minutes before the first instruction is counted. Nothing is written here but where things are found.
#![allow(dead_code, unreachable_pub)] // Other parts of the program use more of it.
#[path = "../../src/balance/mod.rs"]
pub mod balance;
#[path = "../../src/worker/node/channel.rs"]
pub mod channel;
#[path = "../../src/master/connections.rs"]
pub mod connections;
#[path = "../../src/os/fdpass.rs"]
pub mod fdpass;
#[path = "../../src/worker/node/framing.rs"]
pub mod framing;
#[path = "../../src/master/handoff.rs"]
pub mod handoff;
#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/worker/node/lines.rs"]
pub mod lines;
#[path = "../../src/os/packet.rs"]
pub mod packet;
#[path = "../../src/worker/node/preload_lines.rs"]
pub mod preload_lines;
#[path = "../../src/worker/node/profiles.rs"]
pub mod profiles;
#[path = "../../src/worker/node/prom_client.rs"]
pub mod prom_client;
#[path = "../../src/master/time_counts.rs"]
pub mod time_counts;

pub mod master {
    pub use crate::{connections, handoff, time_counts};
}

pub mod os {
    pub use crate::{fdpass, packet};
}

pub mod worker {
    pub mod node {
        pub use crate::{channel, framing, lines, preload_lines};
    }
}
