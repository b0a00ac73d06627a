//! Bytes to types and back, bounded and pure: Node's cluster channel and inspector, the notify socket, HTTP as far as
//! it shows whether a worker is ready.
//! No fd, no clock, no OS crate.
pub mod framing;
pub mod http;
pub mod inspector;
pub mod listen_fds;
pub mod messages;
pub mod node;
pub mod notify;
