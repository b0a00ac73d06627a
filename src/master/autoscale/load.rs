//! The load of an app's workers: the CPU time of each between two readings, and the connections that wait.
use crate::ids::{AppIx, WorkerId};
use crate::master::app::App;
use crate::master::context::Context;
use crate::master::listener::Listener;
use crate::master::system::System;
use crate::supervisor::{LoadSample, Measure, Phase, SlotPhase, WorkerView};
use std::collections::BTreeMap;

/// A hand-off that was not answered for this time waits for its worker, in microseconds: answers come in batches.
const HANDOFF_WAITS_US: u64 = 10_000;

/// CPU time of the workers of an app.
#[derive(Default)]
pub(super) struct Meters(BTreeMap<WorkerId, Meter>);

struct Meter {
    total_ms: u64,
    at_us: u64,
    /// Thousandths of a CPU between the last two readings.
    used_milli: Option<u64>,
    /// The last reading was lower than the one before.
    fell: bool,
}

impl Meter {
    /// `most_milli`: what the machine has.
    fn note(&mut self, total_ms: u64, now_us: u64, most_milli: u64) {
        if total_ms < self.total_ms && !self.fell {
            // A child ended between the readings of its own time and its parent's: it will be counted.
            (self.fell, self.used_milli) = (true, None);
            return;
        }
        let since_us = now_us.saturating_sub(self.at_us).max(1);
        let is_lower = total_ms < self.total_ms;
        let used_milli = total_ms.saturating_sub(self.total_ms) * 1_000_000 / since_us;
        self.used_milli = (!is_lower).then_some(used_milli.min(most_milli));
        (self.total_ms, self.at_us, self.fell) = (total_ms, now_us, false);
    }
}

impl Meters {
    /// Forgets all but these workers.
    pub(super) fn keep(&mut self, workers: &[WorkerId]) {
        self.0.retain(|id, _| workers.contains(id));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Reads what a worker has used; the second reading tells of a load.
    pub(super) fn read(&mut self, system: &impl System, by: Measure, id: WorkerId, pid: i32, cpus: u32) {
        let total_ms = match by {
            Measure::Cpu | Measure::Queue => system.tree_cpu_ms(pid),
            Measure::Loop => system.main_thread_cpu_ms(pid),
        };
        let now_us = system.now_us();
        match (total_ms, self.0.get_mut(&id)) {
            (None, _) => drop(self.0.remove(&id)),
            (Some(total_ms), Some(meter)) => meter.note(total_ms, now_us, u64::from(cpus) * 1_000),
            (Some(total_ms), None) => {
                self.0.insert(id, Meter { total_ms, at_us: now_us, used_milli: None, fell: false });
            }
        }
    }
}

/// Whether a worker's load counts.
pub(super) fn serves(worker: &WorkerView) -> bool {
    matches!(worker.phase, Phase::Ready { .. }) && !worker.spare
}

/// The load as it was read last.
pub(super) fn sample(cx: &Context<impl System>, ix: AppIx, meters: &Meters, by: Measure) -> LoadSample {
    let app = &cx.apps[ix];
    let mut sample = LoadSample::default();
    for worker in app.supervisor.workers().filter(serves) {
        if let Some(used_milli) = meters.0.get(&worker.id).and_then(|meter| meter.used_milli) {
            sample.measured += 1;
            sample.cpu_milli += used_milli;
        }
    }
    sample.load_milli = match by {
        Measure::Cpu | Measure::Loop => sample.cpu_milli,
        Measure::Queue => waiting(cx, app) * 1_000,
    };
    let given_up = app.supervisor.slots().filter(|s| matches!(s.phase, SlotPhase::Errored | SlotPhase::Stopped));
    let missing = app.supervisor.wanted_count().saturating_sub(sample.measured);
    sample.unsettled = missing.saturating_sub(given_up.count() as u32) + u32::from(app.supervisor.is_replacing());
    sample
}

/// Connections that wait: in the accept queues, in the master, and at workers that are slow to take them.
fn waiting<S: System>(cx: &Context<S>, app: &App) -> u64 {
    let listeners = app.listeners.iter().filter(|listener| !listener.datagram && !listener.is_retired());
    let queued: u64 =
        listeners.flat_map(Listener::sockets).map(|socket| u64::from(cx.system.accept_queue(socket).waiting)).sum();
    let late = |member: &_| {
        let oldest_us = app.balancer.oldest_open_us(*member);
        oldest_us.is_some_and(|at| cx.now_us.saturating_sub(at) > HANDOFF_WAITS_US)
    };
    let workers = app.supervisor.workers().filter_map(|worker| cx.workers.get(cx.workers.find(worker.id)?)?.member);
    let unanswered: u64 = workers.filter(late).map(|member| u64::from(app.balancer.open_count(member))).sum();
    queued + app.waiting.len() as u64 + unanswered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter { total_ms: 1_000, at_us: 0, used_milli: None, fell: false }
    }

    #[test]
    fn use_is_cpu_time_by_wall_time() {
        let mut meter = meter();
        meter.note(1_250, 500_000, 8_000);
        assert_eq!(meter.used_milli, Some(500));
        meter.note(1_250, 1_000_000, 8_000);
        assert_eq!(meter.used_milli, Some(0));
        meter.note(9_999_999, 1_500_000, 8_000);
        assert_eq!(meter.used_milli, Some(8_000), "no more than the machine has");
    }

    #[test]
    fn a_child_that_ends_between_two_readings_does_not_count() {
        let mut meter = meter();
        meter.note(400, 500_000, 8_000);
        assert_eq!(meter.used_milli, None);
        meter.note(1_100, 1_000_000, 8_000);
        assert_eq!(meter.used_milli, Some(100), "from the reading before");
        // A child that nobody waits for takes its time with it.
        meter.note(400, 1_500_000, 8_000);
        meter.note(500, 2_000_000, 8_000);
        assert_eq!(meter.used_milli, None);
        meter.note(600, 2_500_000, 8_000);
        assert_eq!(meter.used_milli, Some(200));
    }
}
