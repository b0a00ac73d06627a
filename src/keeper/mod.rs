//! The keeper: parent of the master and of every worker. It spawns, reaps, signals, holds fds and notes, watches the
//! master and forwards signals. It parses no configuration, opens no socket to the outside, starts no thread.
pub mod codec;
pub mod protocol;
pub mod table;
pub mod watch;
