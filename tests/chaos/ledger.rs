//! The ledger of what may go wrong: who was killed when, and which broken connections that explains. What it does not
//! explain is a bug.
use super::client::{Incident, SLOW, Wrong};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A process needs a moment to be gone after its kill, and a client to hear of it.
const NEWS: Duration = Duration::from_millis(1500);

/// Something that was done to a process, and what it may cost.
struct Blow {
    /// The app that pays; `None`: whichever.
    app: Option<usize>,
    from: Instant,
    to: Instant,
    /// Connections that may be cut.
    allowed: usize,
    taken: usize,
}

#[derive(Default)]
pub(crate) struct Ledger {
    workers: Vec<Blow>,
    masters: Vec<Blow>,
    /// Times in which no master accepted, and nobody can be asked to answer.
    stopped: Vec<(Instant, Instant)>,
    pub(crate) victims: BTreeSet<i32>,
}

/// What the judge says.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) unexplained: Vec<Incident>,
    pub(crate) cut_by_workers: usize,
    pub(crate) cut_by_masters: usize,
    pub(crate) slow: usize,
    pub(crate) idle_closed: usize,
}

impl Ledger {
    /// A worker was killed (or ended by itself without a word): each client may have had one connection there.
    pub(crate) fn worker_killed(&mut self, app: usize, pid: i32, clients: usize) {
        self.worker_killed_since(Instant::now(), app, pid, clients);
    }

    /// As [`Ledger::worker_killed`], at some moment since `from`.
    pub(crate) fn worker_killed_since(&mut self, from: Instant, app: usize, pid: i32, clients: usize) {
        self.workers.push(Blow { app: Some(app), from, to: Instant::now() + NEWS, allowed: clients, taken: 0 });
        self.victims.insert(pid);
    }

    /// A master was killed at some moment since `from`: it may have had one connection in hand.
    pub(crate) fn master_killed(&mut self, from: Instant) {
        self.masters.push(Blow { app: None, from, to: Instant::now() + NEWS, allowed: 1, taken: 0 });
    }

    /// There was no master to accept, from then until now.
    pub(crate) fn master_stopped(&mut self, from: Instant) {
        self.stopped.push((from, Instant::now()));
    }

    pub(crate) fn allowed_cuts(&self) -> usize {
        self.workers.iter().chain(&self.masters).map(|blow| blow.allowed).sum()
    }

    /// Explains what can be explained. `handed` is the app whose connections go through the master's hand; `alive` are
    /// the workers at the end, which can have closed nobody's connection.
    pub(crate) fn judge(mut self, incidents: Vec<Incident>, handed: usize, alive: &BTreeSet<i32>) -> Verdict {
        let mut verdict = Verdict::default();
        for incident in incidents {
            let explained = match incident.what {
                // A client that knows whose connection it was is believed.
                Wrong::Cut
                    if incident.pid.is_none_or(|pid| self.victims.contains(&pid))
                        && take(&mut self.workers, &incident) =>
                {
                    verdict.cut_by_workers += 1;
                    true
                }
                Wrong::Cut if incident.app == handed && take(&mut self.masters, &incident) => {
                    verdict.cut_by_masters += 1;
                    true
                }
                Wrong::Slow => {
                    verdict.slow += 1;
                    let lost: Duration = self.stopped.iter().map(|&span| overlap(span, &incident)).sum();
                    incident.app == handed && (incident.to - incident.from).saturating_sub(lost) < SLOW
                }
                Wrong::IdleClosed => {
                    verdict.idle_closed += 1;
                    incident.pid.is_some_and(|pid| !alive.contains(&pid))
                }
                Wrong::Cut | Wrong::Refused | Wrong::Hung | Wrong::Other(_) => false,
            };
            if !explained {
                verdict.unexplained.push(incident);
            }
        }
        verdict
    }
}

fn take(blows: &mut [Blow], incident: &Incident) -> bool {
    let fits = |blow: &&mut Blow| {
        blow.taken < blow.allowed
            && blow.app.is_none_or(|app| app == incident.app)
            && (blow.from..=blow.to).contains(&incident.to)
    };
    let Some(blow) = blows.iter_mut().find(fits) else { return false };
    blow.taken += 1;
    true
}

fn overlap(span: (Instant, Instant), incident: &Incident) -> Duration {
    span.1.min(incident.to).saturating_duration_since(span.0.max(incident.from))
}
