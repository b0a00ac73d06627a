//! Adds memory and CPU time of the deployment's processes to the master's answer. They are read on the API's thread:
//! for many workers that takes longer than the master's loop may spend.
use crate::api::types::Deployment;
use crate::os::procfs;

/// Fills in memory and CPU time of every living worker and agent.
pub(super) fn fill(deployment: &mut Deployment) {
    for app in &mut deployment.apps {
        for worker in &mut app.workers {
            worker.memory_bytes = worker.pid.and_then(procfs::memory_bytes);
            worker.cpu_ms = worker.pid.and_then(procfs::cpu_ms);
        }
        if let Some(agent) = &mut app.agent {
            agent.memory_bytes = agent.pid.and_then(procfs::memory_bytes);
            agent.cpu_ms = agent.pid.and_then(procfs::cpu_ms);
        }
    }
}
