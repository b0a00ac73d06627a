//! Node's cluster protocol: one JSON value a line over a channel, with fds beside them. `lines` are the ones between primary
//! and worker, `messages` those of the app, `framing` cuts bytes into lines, `channel` is the socket; `inspector` asks a worker
//! that hangs where it stands. What a line means for the cluster is the master's business.
pub mod channel;
pub mod framing;
pub mod inspector;
pub mod lines;
pub mod messages;
