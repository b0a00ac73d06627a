//! Kernel mode (`balance = "kernel"`): every slot has a listening socket of its own in one SO_REUSEPORT group, and a
//! program in the kernel chooses among those whose workers take connections.
//!
//! [`selection`] (which sockets may be chosen) and [`program`] (the BPF programs, as data) are pure. [`turns`] and [`group`]
//! hold sockets and programs, over `os::reuseport` and `os::bpf`. What needs the master's tables (which worker is ready, who
//! rescues what waits behind a blocked worker) is in `master/kernel_mode`.
pub mod group;
pub mod program;
pub mod selection;
pub mod turns;

#[cfg(test)]
mod tests;
