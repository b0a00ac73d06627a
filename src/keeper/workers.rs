//! Children of the keeper: starts them by order of the master, handles their reports, reaps and signals them.
use super::codec::{self, RecordError};
use super::event_loop::Keeper;
use super::protocol::{Notice, SpawnSpec, SpawnStep};
use super::system::System;
use super::table::{Reaped, Refusal};
use crate::ids::WorkerId;
use crate::limits::SPAWN_SPEC_BYTES_MAX;
use crate::os::attributes::Attributes;
use crate::os::cgroup::Entry;
use crate::os::process::{self, RLIMIT_NOFILE};
use crate::os::signal;
use crate::os::spawn::{
    self, E2BIG, EAGAIN, EEXIST, EINVAL, Identity, Intercept, Plan, Program, Report, Started, Step, Terminal,
};
use std::collections::VecDeque;
use std::io;

/// Copies of connections that one process has not read.
const UNTOUCHED_MAX: usize = 1_024;

impl<S: System> Keeper<S> {
    /// Starts a process. The master is told about a failure.
    pub(super) fn spawn(&mut self, worker: WorkerId, mut fds: VecDeque<S::Fd>, now_ms: u64) {
        let described = self.describe(worker, &mut fds);
        let started = described.and_then(|spec| {
            let cgroup = self.groups.entry(&self.system, &spec.app);
            match self.fork_worker(&spec, &fds, cgroup.as_ref()) {
                Ok(started) => Ok((spec, started)),
                Err(failure) => Err((step_of(failure.step), failure.errno)),
            }
        });
        match started {
            Ok((SpawnSpec { tag, app, .. }, started)) => {
                self.table.started(worker, started.pid, tag, app, now_ms);
                self.reports.insert(worker, started.report);
            }
            Err((step, errno)) => self.notify_master(Notice::SpawnFailed { worker, step, errno }),
        }
    }

    /// Takes the spec from the front of `fds` and checks it.
    fn describe(&mut self, worker: WorkerId, fds: &mut VecDeque<S::Fd>) -> Result<SpawnSpec, (SpawnStep, i32)> {
        let refused = |errno| (SpawnStep::Description, errno);
        self.table.may_start(worker).map_err(|refusal| match refusal {
            Refusal::Full { .. } => refused(EAGAIN),
            Refusal::InUse(_) => refused(EEXIST),
        })?;
        let description = fds.pop_front().ok_or(refused(EINVAL))?;
        let bytes = self.system.contents(&description, SPAWN_SPEC_BYTES_MAX).map_err(|error| {
            refused(if error.kind() == io::ErrorKind::FileTooLarge { E2BIG } else { spawn::errno_of(&error) })
        })?;
        let spec = codec::decode_spawn_spec(&bytes).map_err(|error| {
            self.complain(&format!("the description of worker {worker} is damaged: {error}"));
            refused(if matches!(error, RecordError::TooLong { .. }) { E2BIG } else { EINVAL })
        })?;
        self.app_starts(&spec);
        if spec.placements.len() != fds.len() {
            let (wanted, came) = (spec.placements.len(), fds.len());
            self.complain(&format!("worker {worker} needs {wanted} file descriptors, but {came} arrived"));
            return Err(refused(EINVAL));
        }
        Ok(spec)
    }

    fn fork_worker(
        &self,
        spec: &SpawnSpec,
        attached: &VecDeque<S::Fd>,
        cgroup: Option<&Entry<S::Fd>>,
    ) -> Result<Started<S::Fd>, spawn::Failure> {
        let mut fds: Vec<(&S::Fd, i32)> = attached.iter().zip(spec.placements.iter().copied()).collect();
        if !spec.placements.contains(&0) {
            fds.push((&self.null, 0));
        }
        // First restore what the keeper raised for itself, then apply the spec.
        let mut rlimits = vec![(RLIMIT_NOFILE, self.file_limit.soft, self.file_limit.hard)];
        rlimits.extend_from_slice(&spec.rlimits);
        self.system.start(&Plan {
            program: Program::Path(&spec.program),
            args: &spec.args,
            env: &spec.env,
            listen_pid: spec.listen_pid,
            cwd: spec.cwd.as_deref(),
            terminal: Terminal::None,
            identity: spec.credentials.as_ref().map(|who| Identity { uid: who.uid, gid: who.gid, groups: &who.groups }),
            attributes: Attributes {
                umask: spec.umask,
                nice: spec.nice,
                oom_score_adj: spec.oom_score_adj.or(self.original_oom_score_adj),
                cpus: &spec.cpus,
                rlimits: &rlimits,
                no_new_privs: spec.no_new_privs,
            },
            intercept: spec
                .intercept
                .map(|socket| Intercept { socket, may_give_up_privileges: spec.may_give_up_privileges }),
            cgroup,
            fds: &fds,
        })
    }

    /// Reads the report of a starting child, if it is complete.
    pub(super) fn settle_report(&mut self, worker: WorkerId) {
        let Some(report) = self.reports.get(&worker) else { return };
        match self.system.report(report) {
            Report::Pending => return,
            Report::Executed => self.ran(worker),
            // The master is told when the process is gone: "nothing of it is left" must be true.
            Report::Failed(failure) => self.table.failing(worker, step_of(failure.step), failure.errno),
        }
        self.reports.remove(&worker);
    }

    fn ran(&mut self, worker: WorkerId) {
        if let Some(pid) = self.table.executed(worker) {
            self.notify_master(Notice::Spawned { worker, pid });
        }
    }

    /// Reaps everything that has ended: the master, children, and unknown processes that were reparented to PID 1.
    pub(super) fn reap(&mut self, now_ms: u64) {
        loop {
            let pid = match self.system.ended_child() {
                Ok(Some(pid)) => pid,
                Ok(None) => return,
                Err(error) => return self.complain(&format!("cannot wait for child processes: {error}")),
            };
            let worker = self.table.worker_of(pid);
            let asked = self.asked_pid() == Some(pid);
            if self.is_master(pid) {
                self.await_guard();
            }
            if worker.is_some() || asked || self.is_master(pid) {
                // While the leader is not reaped, no other group can have this number. ESRCH: the leader was alone.
                let _ = self.system.kill_group(pid, signal::KILL);
            }
            let status = match self.system.reap(pid) {
                Ok(Some(status)) => status,
                Ok(None) => return,
                Err(error) => return self.complain(&format!("cannot reap process {pid}: {error}")),
            };
            if self.is_master(pid) {
                self.master_ended(status, now_ms);
                continue;
            }
            if asked {
                self.answered(status);
                continue;
            }
            if let Some(worker) = worker {
                self.settle_report(worker);
                // The child is dead: a pipe without a report was never written to.
                if self.reports.remove(&worker).is_some() {
                    self.ran(worker);
                }
                self.account_for_oom_kills(worker, status, now_ms);
            }
            match self.table.reaped(pid, status, now_ms) {
                Reaped::Exited { worker, status, at_ms, out_of_memory } => {
                    self.notify_master(Notice::Exited { worker, status, at_ms, out_of_memory })
                }
                Reaped::NeverRan { worker, step, errno } => {
                    self.notify_master(Notice::SpawnFailed { worker, step, errno })
                }
                Reaped::Stranger => self.end_strays(),
            }
        }
    }

    /// A worker has ended: finds out whether the kernel killed it, or a process that it had started, for lack of memory.
    fn account_for_oom_kills(&mut self, worker: WorkerId, status: i32, now_ms: u64) {
        let Some(app) = self.table.app_of(worker) else { return };
        if process::exit_code(status) == Some(0) || !self.groups.take_oom_kill(&self.system, app, now_ms) {
            return;
        }
        if process::end_signal(status) == Some(signal::KILL) {
            return self.table.out_of_memory(worker);
        }
        // A wrapper (npm, a shell) that only passes on how its program ended.
        let text = format!(
            "clusterd: {app}: the kernel killed a process of worker {worker}: the app reached limits.memory_max"
        );
        self.system.say(&text);
    }

    /// Looks into the memory of a process, as its parent.
    pub(super) fn look(&mut self, worker: WorkerId, call: u64, tid: i32, address: u64, bytes: u32) {
        let (bytes, errno) = match self.system.read_memory(tid, address, bytes as usize) {
            Ok(bytes) => (bytes, 0),
            Err(error) => (Vec::new(), spawn::errno_of(&error)),
        };
        self.notify_master(Notice::Looked { worker, call, bytes, errno });
    }

    /// Holds copies of what a child has not read a byte of, as its parent.
    pub(super) fn copy_untouched(&mut self, worker: WorkerId, name: &str) {
        let Some(pid) = self.table.signal_target(worker) else { return };
        let copies = match self.system.copy_untouched(pid, UNTOUCHED_MAX) {
            Ok(copies) => copies,
            Err(error) if error.raw_os_error() == Some(spawn::ESRCH) => return,
            Err(error) => {
                let text = format!(
                    "clusterd: cannot keep the connections that worker {worker} never read: {error}; they are closed"
                );
                return self.system.say(&text);
            }
        };
        for (number, copy) in copies.into_iter().enumerate() {
            let name = format!("{name}/{number}");
            match self.table.hold(name.clone(), copy) {
                Ok(before) => before.into_iter().for_each(|fd| self.system.close(fd)),
                Err(refusal) => return self.complain(&format!("cannot hold \"{name}\": {refusal}")),
            }
            self.notify_master(Notice::Held { name });
        }
    }

    /// Signals a child, if it is not reaped. Otherwise its `Exited` is on its way.
    pub(super) fn signal(&mut self, worker: WorkerId, number: i32, group: bool) {
        let Some(pid) = self.table.signal_target(worker) else { return };
        let sent = if group { self.system.kill_group(pid, number) } else { self.system.kill(pid, number) };
        // It has no group before its first steps.
        let sent = match sent {
            Err(error) if group && error.raw_os_error() == Some(spawn::ESRCH) => self.system.kill(pid, number),
            sent => sent,
        };
        if let Err(error) = sent
            && error.raw_os_error() != Some(spawn::ESRCH)
        {
            self.complain(&format!("cannot send {} to worker {worker}: {error}", signal::name(number)));
        }
    }
}

fn step_of(step: Step) -> SpawnStep {
    match step {
        Step::Description => SpawnStep::Description,
        Step::Fork => SpawnStep::Fork,
        Step::Cgroup => SpawnStep::Cgroup,
        Step::ProcessGroup => SpawnStep::ProcessGroup,
        Step::FileDescriptors => SpawnStep::FileDescriptors,
        Step::Signals => SpawnStep::Signals,
        Step::ResourceLimits => SpawnStep::ResourceLimits,
        Step::OomScoreAdj => SpawnStep::OomScoreAdj,
        Step::Nice => SpawnStep::Nice,
        Step::CpuAffinity => SpawnStep::CpuAffinity,
        Step::NoNewPrivileges => SpawnStep::NoNewPrivileges,
        Step::SupplementaryGroups => SpawnStep::SupplementaryGroups,
        Step::Group => SpawnStep::Group,
        Step::User => SpawnStep::User,
        Step::WorkingDirectory => SpawnStep::WorkingDirectory,
        Step::ParentDeath => SpawnStep::ParentDeath,
        Step::Exec => SpawnStep::Exec,
    }
}
