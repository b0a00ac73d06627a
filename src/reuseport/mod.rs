//! Kernel mode (`balance = "kernel"`): every slot has its own listening socket in one SO_REUSEPORT group, and a program
//! in the kernel chooses among the sockets whose workers accept.
//!
//! [`selection`] (the sockets to choose from) and [`program`] (the BPF programs, as data) are pure. [`turns`] and
//! [`group`] hold sockets and programs, over `os::reuseport` and `os::bpf`. What needs the master's tables (which
//! worker is ready, who rescues connections behind a blocked worker) is in `master/kernel_mode`.
pub mod group;
pub mod program;
pub mod selection;
pub mod turns;

#[cfg(test)]
mod tests;
