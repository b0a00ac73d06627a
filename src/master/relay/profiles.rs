//! Profiles of Node workers for clients of the control API: has the preload of one worker take it and write it to a file, and
//! answers when it is written. Nothing of a profile goes through the master. `worker::node::profiles` has the messages.
use super::{Relay, can_read};
use crate::api::{Answer, ReplySender};
use crate::ids::{AppIx, WorkerId, WorkerIx};
use crate::limits::{PROFILE_BYTES_MAX, PROFILE_CPU_MS_MAX, PROFILE_WRITE_MS, PROFILES_OPEN_MAX};
use crate::master::context::Context;
use crate::master::system::System;
use crate::master::timers::Timer;
use crate::worker::node::profiles::{self, Kind, Profiled};

/// A profile to take.
pub(in crate::master) struct Wanted {
    pub(in crate::master) app: AppIx,
    /// The worker's slot; `None`: the only worker of the app.
    pub(in crate::master) slot: Option<u32>,
    pub(in crate::master) kind: Kind,
    /// Absolute path of the file; `None`: in the worker's folder for temporary files.
    pub(in crate::master) file: Option<String>,
}

/// Profiles that workers are taking.
#[derive(Default)]
pub(in crate::master) struct Profiles {
    last: u64,
    open: Vec<Open>,
}

struct Open {
    number: u64,
    worker: WorkerId,
    /// `web/0`.
    name: String,
    until_ms: u64,
    reply: Option<ReplySender>,
}

impl Relay {
    /// Begins a profile. The client is answered once the file is written, or after a time.
    pub(in crate::master) fn profile(&mut self, cx: &mut Context<impl System>, wanted: &Wanted, reply: ReplySender) {
        match self.begin_profile(cx, wanted) {
            Ok(open) => self.profiles.open.push(Open { reply: Some(reply), ..open }),
            // The client may have left.
            Err(why) => drop(reply.send(Answer::Refused(why))),
        }
        self.profiles.finish(cx);
    }

    fn begin_profile(&mut self, cx: &mut Context<impl System>, wanted: &Wanted) -> Result<Open, String> {
        let Wanted { app, slot, kind, ref file } = *wanted;
        let time_ms = match kind {
            Kind::Cpu { time_ms } if !(1..=PROFILE_CPU_MS_MAX).contains(&time_ms) => {
                return Err(format!("a profile takes 1 ms to {} s", PROFILE_CPU_MS_MAX / 1_000));
            }
            Kind::Cpu { time_ms } => time_ms,
            Kind::Heap => 0,
        };
        if file.as_ref().is_some_and(|file| !file.starts_with('/')) {
            return Err("the path of the file is not absolute".to_owned());
        }
        let (ix, slot) = one_worker(cx, app, slot)?;
        let name = format!("{}/{slot}", cx.apps[app].name);
        let Some(worker) = cx.workers.get(ix) else { return Err(format!("{name} has no worker")) };
        let id = worker.id;
        if !worker.has_preload {
            return Err(format!("{name} has not loaded clusterd's preload, which takes profiles (preload = false)"));
        }
        if !can_read(worker) {
            return Err(format!("{name} is leaving"));
        }
        if self.profiles.open.iter().any(|open| open.worker == id) {
            return Err(format!("a profile of {name} is being taken already"));
        }
        if self.profiles.open.len() >= PROFILES_OPEN_MAX {
            return Err(format!("{PROFILES_OPEN_MAX} profiles are being taken already"));
        }
        let number = cx.deployment.first_seq() + self.profiles.last;
        self.profiles.last += 1;
        let mut line = Vec::new();
        profiles::ask(&mut line, number, kind, file.as_deref(), &name.replace('/', "-"), PROFILE_BYTES_MAX);
        if !self.send(cx, ix, &line) {
            return Err(format!("{name} does not read its messages"));
        }
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.custom.writes_snapshot = kind == Kind::Heap;
        }
        Ok(Open { number, worker: id, name, until_ms: cx.now_ms + time_ms + PROFILE_WRITE_MS, reply: None })
    }

    /// A worker says what became of a profile.
    pub(in crate::master) fn hear_profile(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, said: Profiled) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        worker.custom.writes_snapshot = false;
        let id = worker.id;
        let Some(open) = self.profiles.open.iter_mut().find(|open| open.worker == id && open.number == said.number)
        else {
            return;
        };
        let name = &open.name;
        let answer = match said.written {
            Ok(file) => Answer::Done(format!("{name}: {file}")),
            Err(why) => Answer::Refused(format!("{name}: {why}")),
        };
        if let Some(reply) = open.reply.take() {
            // The client may have left.
            let _ = reply.send(answer);
        }
        self.profiles.finish(cx);
    }
}

/// The worker that is meant, with its slot.
///
/// # Errors
/// It is not said, or is not there, or cannot be asked.
fn one_worker(cx: &Context<impl System>, app: AppIx, slot: Option<u32>) -> Result<(WorkerIx, u32), String> {
    let of_app = &cx.apps[app];
    let name = &of_app.name;
    let protocol = of_app.settings().protocol;
    if !protocol.has_preload() {
        return Err(format!(
            "{name} has protocol \"{}\": only workers with protocol \"node\" can be asked for a profile",
            protocol.kind()
        ));
    }
    let workers = of_app.supervisor.workers().filter(|w| !w.phase.is_leaving() && slot.is_none_or(|s| s == w.slot.0));
    let all: Vec<(WorkerIx, u32)> = workers.filter_map(|w| Some((cx.workers.find(w.id)?, w.slot.0))).collect();
    match (all.as_slice(), slot) {
        ([], None) => Err(format!("{name} has no worker that serves")),
        ([], Some(slot)) => Err(format!("{name}/{slot} has no worker that serves")),
        // The new one of a slot comes last.
        ([.., last], Some(_)) | ([last], None) => Ok(*last),
        ([(_, first), ..], None) => {
            Err(format!("{name} has {} workers; choose one of them, as {name}/{first}", all.len()))
        }
    }
}

impl Profiles {
    /// A worker is gone: nobody waits for its profile any more.
    pub(in crate::master) fn worker_gone(&mut self, cx: &mut Context<impl System>, worker: WorkerId) {
        if self.open.iter().any(|open| open.worker == worker) {
            self.give_up(|open| open.worker == worker, "it ended before its profile was written");
            self.finish(cx);
        }
    }

    /// Ends those whose time is over.
    pub(in crate::master) fn look(&mut self, cx: &mut Context<impl System>) {
        if cx.timers.take_due(Timer::Profiles, cx.now_ms) {
            let now_ms = cx.now_ms;
            for open in self.open.iter().filter(|open| open.until_ms <= now_ms) {
                // Whether it hangs is looked at again.
                if let Some(worker) = cx.workers.find(open.worker).and_then(|ix| cx.workers.get_mut(ix)) {
                    worker.custom.writes_snapshot = false;
                }
            }
            self.give_up(|open| open.until_ms <= now_ms, "it has not written its profile in time");
            self.finish(cx);
        }
    }

    fn give_up(&mut self, which: impl Fn(&Open) -> bool, why: &str) {
        for open in self.open.iter_mut().filter(|open| which(open)) {
            if let Some(reply) = open.reply.take() {
                // The client may have left.
                let _ = reply.send(Answer::Refused(format!("{}: {why}", open.name)));
            }
        }
    }

    /// Forgets those that were answered, and sets the timer.
    fn finish(&mut self, cx: &mut Context<impl System>) {
        self.open.retain(|open| open.reply.is_some());
        cx.timers.set_or_cancel(Timer::Profiles, self.open.iter().map(|open| open.until_ms).min());
    }
}
