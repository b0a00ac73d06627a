//! Maps reports of the supervisor to hooks and the variables that they get. `crate::hooks` runs them.
use super::context::Context;
use super::environment::base_environment;
use super::system::System;
use super::timers::Timer;
use crate::config::hooks::HookEvent;
use crate::config::{self};
use crate::hooks::{Command, HOOKS_LOOK_MS, HOOKS_RUNNING_MAX, Hooks};
use crate::ids::{AppIx, Generation, WorkerId};
use crate::keeper::protocol::Credentials;
use crate::limits;
use crate::os::signal;
use crate::os::user::Account;
use crate::program::{self, ProgramError};
use crate::supervisor::{Cause, ExitStatus, Report};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

/// How long the end of the deployment waits for running and queued hooks, in milliseconds.
const HOOKS_END_WAIT_MS: u64 = 3_000;

/// The variables that describe an event to its hook. None of them is inherited from the environment.
const VARIABLES: [&str; 10] = [
    "CLUSTERD_EVENT",
    "CLUSTERD_APP",
    "CLUSTERD_SLOT",
    "CLUSTERD_WORKER",
    "CLUSTERD_PID",
    "CLUSTERD_GENERATION",
    "CLUSTERD_EXIT_CODE",
    "CLUSTERD_SIGNAL",
    "CLUSTERD_UPTIME_MS",
    "CLUSTERD_REASON",
];

/// The hooks of one generation of one app.
pub(super) type Prepared = BTreeMap<HookEvent, Arc<Command>>;

/// The identity of an app's processes.
pub(super) struct RunsAs<'a> {
    /// `None`: clusterd's own.
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) account: Option<&'a Account>,
    pub(super) no_new_privs: bool,
}

/// Looks up the command of every hook. Hooks whose command is missing are left out, with a sentence each.
pub(super) fn prepare(config: &config::App, cwd: &Path, path: &OsStr, runs_as: &RunsAs<'_>) -> (Prepared, Vec<String>) {
    let (mut prepared, mut problems) = (Prepared::new(), Vec::new());
    for (event, words) in &config.hooks {
        match command(config, &format!("hook {}", event.key()), words, cwd, path, runs_as) {
            Ok(command) => drop(prepared.insert(*event, Arc::new(command))),
            Err(error) => problems.push(format!("hook {} will not run: {error}", event.key())),
        }
    }
    (prepared, problems)
}

/// Looks up a command that runs beside the workers with their rights, but without the variables that are about one event.
///
/// # Errors
/// There is no such program.
pub(super) fn command(
    config: &config::App,
    name: &str,
    words: &[String],
    cwd: &Path,
    path: &OsStr,
    runs_as: &RunsAs<'_>,
) -> Result<Command, ProgramError> {
    let found = program::find(&words[0], path, Some(cwd))?;
    let mut env = base_environment(config, runs_as.account);
    env.retain(|name, _| !VARIABLES.iter().any(|own| name == own));
    let env = env.into_iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect();
    Ok(Command {
        label: format!("{}: {name}", config.name),
        program: found.path.into_os_string().into_vec(),
        args: words.iter().map(|word| word.clone().into_bytes()).collect(),
        env,
        cwd: cwd.as_os_str().as_bytes().to_vec(),
        umask: config.umask,
        credentials: runs_as.credentials.cloned(),
        no_new_privs: runs_as.no_new_privs,
    })
}

/// The master's side of the hook thread.
#[derive(Default)]
pub(super) struct HookRuns {
    /// Started for the first hook.
    hooks: Option<Hooks>,
    start_failed: bool,
    /// The generation of every worker whose exit has no hook yet; the supervisor may already have dropped the worker.
    generations: BTreeMap<WorkerId, Generation>,
    /// Why a worker was given up, until its process is gone.
    reasons: BTreeMap<WorkerId, String>,
    /// Until when the end waits for hooks that are still running.
    end_at_ms: Option<u64>,
}

impl HookRuns {
    fn push(&mut self, system: &impl System, command: Arc<Command>, variables: Vec<Vec<u8>>) {
        if self.hooks.is_none() && !self.start_failed {
            let begin = |name, stack_bytes, runner| system.in_background(name, stack_bytes, runner);
            match Hooks::start(HOOKS_RUNNING_MAX, begin) {
                Ok(hooks) => self.hooks = Some(hooks),
                Err(e) => {
                    self.start_failed = true;
                    log::error!("cannot start the thread that runs hooks: {e}; no hook will run");
                }
            }
        }
        if let Some(hooks) = &mut self.hooks {
            hooks.push(command, variables);
        }
    }

    /// Records a worker that exists or is about to.
    pub(super) fn register(&mut self, worker: WorkerId, generation: Generation) {
        self.generations.insert(worker, generation);
        if self.generations.len() > limits::CHILDREN_MAX {
            self.generations.pop_first();
        }
    }

    /// Whether the deployment may end: every hook is done, or has had its time.
    pub(super) fn may_end(&mut self, cx: &mut Context<impl System>) -> bool {
        let may_end = !self.hooks.as_ref().is_some_and(Hooks::is_busy)
            || cx.now_ms >= *self.end_at_ms.get_or_insert(cx.now_ms + HOOKS_END_WAIT_MS);
        cx.timers.set_or_cancel(Timer::Hooks, (!may_end).then_some(cx.now_ms + HOOKS_LOOK_MS));
        may_end
    }

    /// The deployment does not end: something is running again.
    pub(super) fn cancel_end(&mut self, cx: &mut Context<impl System>) {
        self.end_at_ms = None;
        cx.timers.cancel(Timer::Hooks);
    }

    pub(super) fn finish(&mut self, system: &impl System) {
        if let Some(hooks) = self.hooks.take() {
            hooks.finish(|ended, ms| system.await_background(ended, ms));
        }
    }
}

/// What a hook is details besides event and app.
#[derive(Default)]
struct Details {
    slot: Option<u32>,
    worker: Option<WorkerId>,
    pid: Option<i32>,
    generation: Option<Generation>,
    status: Option<ExitStatus>,
    uptime_ms: Option<u64>,
    reason: Option<String>,
}

impl Details {
    fn variables(&self, event: HookEvent, app: &str) -> Vec<Vec<u8>> {
        let (mut code, mut end_signal) = (None, None);
        match self.status {
            Some(ExitStatus::Code(number)) => code = Some(number.to_string()),
            Some(ExitStatus::Signal(number)) => end_signal = Some(signal::name(number).into_owned()),
            Some(ExitStatus::OutOfMemory) => end_signal = Some(signal::name(signal::KILL).into_owned()),
            None => {}
        }
        let values = [
            Some(event.key().to_owned()),
            Some(app.to_owned()),
            self.slot.map(|n| n.to_string()),
            self.worker.map(|n| n.to_string()),
            self.pid.map(|n| n.to_string()),
            self.generation.map(|n| n.to_string()),
            code,
            end_signal,
            self.uptime_ms.map(|n| n.to_string()),
            self.reason.as_deref().map(one_line),
        ];
        let set = VARIABLES.iter().zip(values).filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        set.map(String::into_bytes).collect()
    }
}

/// A reason as one line of bounded length: scripts read it, and an environment cannot hold a zero byte.
fn one_line(text: &str) -> String {
    text.chars().take(limits::HOOK_REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl HookRuns {
    /// Runs the hook for this report, if there is one.
    pub(super) fn run(&mut self, cx: &Context<impl System>, app: AppIx, report: &Report) {
        match report {
            Report::WorkerReady { worker, slot, after_ms, spare: _, by: _ } => {
                let details = Details {
                    slot: Some(slot.0),
                    pid: cx.workers.pid_of(*worker),
                    uptime_ms: Some(*after_ms),
                    ..self.details_of(*worker)
                };
                self.push_event(cx, app, HookEvent::WorkerReady, &details);
            }
            Report::WorkerDied { worker, slot, pid, cause, lived_ms, next: _ } => match cause {
                Cause::Ended(status) => {
                    let details = Details {
                        slot: Some(slot.0),
                        pid: *pid,
                        status: Some(*status),
                        uptime_ms: Some(*lived_ms),
                        reason: Some(cause.to_string()),
                        ..self.details_of(*worker)
                    };
                    self.push_exit(cx, app, *worker, &details);
                }
                Cause::NotStarted { .. } => {
                    let details =
                        Details { slot: Some(slot.0), reason: Some(cause.to_string()), ..self.details_of(*worker) };
                    self.push_exit(cx, app, *worker, &details);
                }
                // The process is being killed; its hook runs when it is gone.
                Cause::NotReady { .. } | Cause::Misbehaved(_) | Cause::Hung(_) | Cause::Overran(_) => {
                    self.reasons.insert(*worker, cause.to_string());
                }
            },
            Report::WorkerLeft { worker, slot, pid, status, killed, lived_ms, by_itself: _ } => {
                let why = self.reasons.remove(worker).unwrap_or_else(|| {
                    let overdue = if *killed { " (it did not end by itself)" } else { "" };
                    format!("was asked to leave and {status}{overdue}")
                });
                let details = Details {
                    slot: Some(slot.0),
                    pid: *pid,
                    status: Some(*status),
                    uptime_ms: Some(*lived_ms),
                    reason: Some(why),
                    ..self.details_of(*worker)
                };
                self.push_exit(cx, app, *worker, &details);
            }
            Report::ReloadDone { to } => {
                self.push_event(
                    cx,
                    app,
                    HookEvent::ReloadDone,
                    &Details { generation: Some(*to), ..Details::default() },
                );
            }
            Report::ReloadFailed { to, reason } => {
                let details = Details { generation: Some(*to), reason: Some(reason.clone()), ..Details::default() };
                self.push_event(cx, app, HookEvent::ReloadFailed, &details);
            }
            // Hooks are for workers and reloads; the log has the state of what is beside the workers.
            Report::AgentReady { .. }
            | Report::AgentDied { .. }
            | Report::AgentLeft { .. }
            | Report::AgentOverdue { .. }
            | Report::Held { .. }
            | Report::BeforeStarted { .. }
            | Report::BeforeDone { .. }
            | Report::BeforeFailed { .. }
            | Report::AppReady { .. }
            | Report::SpareServes { .. }
            | Report::WorkerLeaving { .. }
            | Report::Overdue { .. }
            | Report::ReloadStarted { .. }
            | Report::CanaryWatched { .. }
            | Report::Replacing { .. }
            | Report::ReloadSuperseded { .. }
            | Report::Scaled { .. }
            | Report::AppErrored
            | Report::AppFinished
            | Report::AppStopped
            | Report::Started { .. }
            | Report::StartDropped { .. }
            | Report::StartSuperseded { .. } => {}
        }
    }

    /// Runs the hook for a reload that was refused before it began.
    pub(super) fn run_for_refusal(&mut self, cx: &Context<impl System>, app: AppIx, reason: &str) {
        self.push_event(
            cx,
            app,
            HookEvent::ReloadFailed,
            &Details { reason: Some(reason.to_owned()), ..Details::default() },
        );
    }

    fn details_of(&self, worker: WorkerId) -> Details {
        let generation = self.generations.get(&worker).copied();
        Details { worker: Some(worker), generation, ..Details::default() }
    }

    /// Runs the hook for a worker's exit.
    fn push_exit(&mut self, cx: &Context<impl System>, app: AppIx, worker: WorkerId, details: &Details) {
        self.push_event(cx, app, HookEvent::WorkerExit, details);
        self.generations.remove(&worker);
    }

    /// A worker's events run the hooks of its own generation.
    fn push_event(&mut self, cx: &Context<impl System>, app: AppIx, event: HookEvent, details: &Details) {
        let app = &cx.apps[app];
        let own = details.worker.and(details.generation).and_then(|generation| app.generations.get(&generation));
        if let Some(command) = own.unwrap_or_else(|| app.settings()).hooks.get(&event) {
            let variables = details.variables(event, &app.name);
            self.push(&cx.system, Arc::clone(command), variables);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_told_what_is_known_and_nothing_else() {
        let details = Details {
            slot: Some(2),
            worker: Some(WorkerId(7)),
            status: Some(ExitStatus::Signal(9)),
            reason: Some("two\nlines\0".to_owned()),
            ..Details::default()
        };
        let said: Vec<String> = details
            .variables(HookEvent::WorkerExit, "web")
            .into_iter()
            .map(|entry| String::from_utf8_lossy(&entry).into_owned())
            .collect();
        let wanted = [
            "CLUSTERD_EVENT=worker_exit",
            "CLUSTERD_APP=web",
            "CLUSTERD_SLOT=2",
            "CLUSTERD_WORKER=7",
            "CLUSTERD_SIGNAL=SIGKILL",
            "CLUSTERD_REASON=two lines ",
        ];
        assert_eq!(said, wanted);
        assert_eq!(one_line(&"x".repeat(5_000)).len(), limits::HOOK_REASON_CHARS_MAX);
    }
}
