//! Kernel mode (`balance = "kernel"`), as far as it needs the master's tables: [`groups`] gives slots their sockets and
//! the kernel its selections, [`deferral`] says when connections enter them, [`monitor`] checks what waits in the sockets.
//! Groups, selections and BPF programs are in `crate::reuseport`; `eligibility` computes which workers take connections.
pub(super) mod accept_probe;
pub(super) mod deferral;
pub(super) mod groups;
pub(super) mod monitor;
mod own_listeners;

use super::bind::Interception;
use accept_probe::AcceptProbes;
use groups::Groups;
use monitor::AcceptQueueMonitor;

/// State of kernel mode.
#[derive(Default)]
pub(super) struct KernelMode {
    pub(super) groups: Groups,
    pub(super) monitor: AcceptQueueMonitor,
    /// Workers that are asked whether they accept.
    pub(super) accept_probes: AcceptProbes,
    /// Workers that bind the addresses of these sockets by themselves.
    pub(super) interception: Interception,
}
