//! Kernel mode (`balance = "kernel"`), as far as it needs the master's tables: [`groups`] gives slots their sockets and tells
//! the kernel among which to choose, [`monitor`] looks at what waits in them. Groups of sockets, the selection among them and
//! the programs are in `crate::reuseport`; which worker takes connections is computed in `eligibility`.
pub(super) mod groups;
pub(super) mod monitor;

use groups::Groups;
use monitor::AcceptQueueMonitor;

/// What the master keeps for kernel mode.
#[derive(Default)]
pub(super) struct KernelMode {
    pub(super) groups: Groups,
    pub(super) monitor: AcceptQueueMonitor,
}
