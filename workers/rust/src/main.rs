//! A web server in Rust that runs under clusterd in two ways, and answers every request with its pid.
//!
//!     clusterd -w 4 --port 8080 -- ./worker                       takes its listening sockets (`LISTEN_FDS`)
//!     clusterd -w 4 --port 8080 --protocol node -- ./worker       takes its connections, one by one, over the channel
//!
//! `sockets` and `channel` are these two ways; copy one of them. `server` is what an app does with connections, and how it ends
//! without losing one.
mod channel;
mod server;
mod sockets;

use server::Server;
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let server = Arc::new(Server::default());
    match std::env::var("NODE_CHANNEL_FD") {
        Ok(fd) => channel::serve(&server, fd.parse()?)?,
        Err(_) => sockets::serve(&server)?,
    }
    server.finish();
    Ok(())
}
