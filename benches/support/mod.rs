//! What the benches share: servers to measure, the load, what `/proc` says, figures.
pub(crate) mod floor;
pub(crate) mod load;
pub(crate) mod processes;
pub(crate) mod servers;
pub(crate) mod stats;
