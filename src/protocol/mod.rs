//! Bytes to types and back, bounded and pure: Node's cluster channel, the notify socket, the control API's JSON.
//! No fd, no clock, no OS crate.
pub mod control;
pub mod framing;
pub mod listen_fds;
pub mod node;
pub mod notify;
