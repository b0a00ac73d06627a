//! How clusterd talks to a worker: Node's cluster protocol, socket passing as systemd does it (`listen_fds`, with `notify` for
//! what the program says of itself), and HTTP as far as it shows whether a worker is ready. What came in is decided on in
//! the master.
pub mod http;
pub mod listen_fds;
pub mod node;
pub mod notify;
