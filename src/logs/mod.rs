//! Workers' output on its way to people: read from pipes line by line, on a thread of its own, so that a reader that is
//! slow (a terminal, a full disk) holds up the workers that write and never the master.
mod lines;
mod pump;
mod tail;

pub use pump::{Pump, Source, Stream};
pub use tail::Tail;
