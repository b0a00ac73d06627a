//! Workers' output on its way to people, on threads of its own, so that a slow reader (a terminal, a full disk) holds
//! up the workers that write and never the master: `pump` passes it on to our own stdout and stderr, `writer` writes it
//! to files, `reading` reads it back.
mod archive;
mod batch_delay;
#[cfg(test)]
mod crash_tests;
mod engine;
mod file;
mod journal;
mod line_count;
mod lines;
mod path;
mod pump;
pub mod reading;
mod render;
mod rotation;
mod stamp;
mod storage;
mod tail;
mod writer;

pub use engine::{Source, SourceLook};
pub use line_count::LineCount;
pub use path::LogPath;
pub use pump::{PassedOn, Pump, Stream};
pub use tail::Tail;
pub use writer::{Reply, Writer, WriterError};
