//! Node workers that listen on sockets of their own: with `exclusive` or `reusePort`, or in worker threads. Node tells the
//! primary nothing of them, so they are looked for from outside.
use crate::config::inspect;
use crate::ids::{WorkerId, WorkerIx};
use crate::master::context::Context;
use crate::master::system::System;
use crate::supervisor::{Event, Evidence, Phase};
use std::collections::BTreeMap;

/// Pause before the first look at a worker's sockets, in milliseconds. It doubles.
const FIRST_LOOK_MS: u64 = 250;

/// Longest pause between two looks at a worker, in milliseconds: a look reads all its fds.
const LOOK_MS_MAX: u64 = 4_000;

/// When the starting workers are looked at next (milliseconds).
#[derive(Default)]
pub(super) struct OwnListeners {
    next_ms: BTreeMap<WorkerId, u64>,
}

impl OwnListeners {
    /// Looks at these workers, each when it is due. Returns when the next look is due.
    pub(super) fn look(&mut self, cx: &mut Context<impl System>, starting: &[WorkerIx]) -> Option<u64> {
        let id = |ix: &WorkerIx| cx.workers.get(*ix).map(|worker| worker.id);
        let ids: Vec<WorkerId> = starting.iter().filter_map(id).collect();
        self.next_ms.retain(|id, _| ids.contains(id));
        for ix in starting {
            self.look_at(cx, *ix);
        }
        self.next_ms.values().min().copied()
    }

    fn look_at(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get(ix) else { return };
        let (app, id, pid) = (worker.app, worker.id, worker.pid);
        let (Some(view), Some(pid)) = (cx.apps[app].supervisor.worker(id), pid) else { return };
        let due_ms = self.next_ms.entry(id).or_insert(view.spawned_at_ms + FIRST_LOOK_MS);
        if *due_ms > cx.now_ms {
            return;
        }
        let lived_ms = cx.now_ms.saturating_sub(view.spawned_at_ms);
        *due_ms = cx.now_ms + lived_ms.clamp(FIRST_LOOK_MS, LOOK_MS_MAX);
        let ours: Vec<Option<u16>> = cx.apps[app].listeners.iter().map(|listener| listener.port()).collect();
        // A socket of ours that it was given listens already; Node tells when it serves.
        if cx.system.listening_ports(pid).into_iter().any(|port| !ours.contains(&Some(port))) {
            cx.push_news(app, Event::Evidence { worker: id, evidence: Evidence::Listening });
        }
    }
}

/// Whether it is a worker that starts, is ready when it listens, and may do so wherever it wants.
pub(super) fn is_awaited(cx: &Context<impl System>, ix: WorkerIx) -> bool {
    let Some(worker) = cx.workers.get(ix).filter(|worker| !worker.is_beside && worker.channel.is_some()) else {
        return false;
    };
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    settings.config.listen.is_empty()
        && settings.policy().ready.evidence == Some(Evidence::Listening)
        // The inspector listens, too.
        && !inspect::is_open(&settings.config.command, &settings.node_options())
        && app.supervisor.worker(worker.id).is_some_and(|view| matches!(view.phase, Phase::Starting { .. }))
}
