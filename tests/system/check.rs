//! What must be true of a world at its end: what became of each client, and what is left of the processes. An exception is allowed only
//! with a reason that is named here, and is counted.
use crate::client::{Client, Fortune};
use crate::told;
use crate::world::{LetGo, State};

/// The end of a process that was killed, or of a worker that did not end well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) at_us: u64,
    pub(crate) pid: i32,
    pub(crate) is_master: bool,
    /// The machine was short of something.
    pub(crate) in_need: bool,
    /// It was a master with a guard.
    pub(crate) guarded: bool,
}

/// Why a client may have lost its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// A worker ended with the connection.
    HeldByTheDead,
    /// A worker gave it back or refused it, and the master that had it then was killed before another worker had it.
    ReturnedToTheDead,
    /// A worker that left closed the connection at rest.
    ClosedAtRest,
    /// A client had stopped the app.
    AppStopped,
    /// Nobody had read its request when the deployment was stopped.
    AfterTheStop,
    /// A worker had taken the connection and did not say so.
    TakenByTheMute,
    /// Two deaths: the worker to which a master had handed it, and that master, before anybody else had it.
    HandedByTheDead,
    /// It waited in the socket of a slot whose worker was killed or stopped, and the slot got no other one there.
    StrandedByTheDead,
    /// Its master was killed and had no guard: the system had refused one.
    WithoutGuard,
    /// A master had accepted it, could not hand it on because the machine was short of something, and was killed.
    HeldInNeed,
}

/// So long before a client came its slot's worker may have died.
const STRANDED_US: u64 = 2_000_000;

/// Whether a process of that kind was killed in this time.
fn any_death(state: &State, from_us: u64, to_us: u64, fits: impl Fn(&Death) -> bool) -> bool {
    state.deaths.iter().any(|death| (from_us..=to_us).contains(&death.at_us) && fits(death))
}

/// Why this client may have lost its connection; `None`: there is no reason.
fn reason(state: &State, client: &Client) -> Option<Reason> {
    let (since_us, end_us) = (client.since_us(), client.ended_us());
    let readers = state.reads.get(&client.last_request()).cloned().unwrap_or_default();
    match client.local().and_then(|local| state.let_go.get(local)) {
        Some(LetGo::Died) => return Some(Reason::HeldByTheDead),
        Some(LetGo::Closed) if client.has_been_served() && readers.is_empty() => return Some(Reason::ClosedAtRest),
        Some(LetGo::Mute) => return Some(Reason::TakenByTheMute),
        Some(LetGo::Returned) if readers.is_empty() && any_death(state, since_us, end_us, |death| death.is_master) => {
            return Some(Reason::ReturnedToTheDead);
        }
        Some(LetGo::Closed | LetGo::Returned) | None => {}
    }
    if !readers.is_empty() {
        return None;
    }
    if state.stopped_us.is_some_and(|at_us| at_us <= end_us) {
        return Some(Reason::AfterTheStop);
    }
    if state.commands.has_stopped(since_us, end_us) {
        return Some(Reason::AppStopped);
    }
    let was_stranded = state.counts.happened.contains_key(told::STRANDED);
    // Who is stopped takes nothing from its socket, and nobody else can.
    let was_stopped = state.counts.happened.contains_key(told::STOPPED);
    let any_died = any_death(state, since_us.saturating_sub(STRANDED_US), end_us, |death| !death.is_master);
    if was_stranded && (any_died || was_stopped) {
        return Some(Reason::StrandedByTheDead);
    }
    let of_master = state.deaths.iter().filter(|death| death.is_master && (since_us..=end_us).contains(&death.at_us));
    for master in of_master {
        if master.in_need {
            return Some(Reason::HeldInNeed);
        }
        if !master.guarded {
            return Some(Reason::WithoutGuard);
        }
        if any_death(state, since_us, end_us, |death| !death.is_master) {
            return Some(Reason::HandedByTheDead);
        }
    }
    None
}

/// Looks at the clients of a world that is over.
pub(crate) fn clients(state: &mut State, clients: &[Client]) {
    for client in clients {
        match client.fortune {
            Fortune::Served | Fortune::Left => {}
            Fortune::Refused if state.commands.has_stopped(client.since_us(), client.ended_us()) => {
                *state.counts.reasons.entry(Reason::AppStopped).or_default() += 1;
            }
            Fortune::Refused if state.stopped_us.is_some_and(|at_us| at_us <= client.ended_us()) => {
                *state.counts.reasons.entry(Reason::AfterTheStop).or_default() += 1;
            }
            // The world was over before it came, or before its answer could.
            Fortune::Waits if state.stopped_us.is_some() && !client.is_waiting() => {}
            Fortune::Hung if reason(state, client) == Some(Reason::TakenByTheMute) => {}
            Fortune::Cut | Fortune::Closed => match reason(state, client) {
                Some(reason) => *state.counts.reasons.entry(reason).or_default() += 1,
                None => {
                    let readers = state.reads.get(&client.last_request()).cloned().unwrap_or_default();
                    let let_go = client.local().and_then(|local| state.let_go.get(local).copied());
                    let (name, fortune, request) = (client.name, client.fortune, client.last_request());
                    state.violated(format!(
                        "client {name} is {fortune:?} without a reason: {request:?} was read by {readers:?}, let go: {let_go:?}"
                    ));
                }
            },
            other => state.violated(format!("client {} is {other:?}", client.name)),
        }
    }
    let twice = state.reads.iter().filter(|(_, readers)| readers.len() > 1);
    let twice: Vec<String> = twice.map(|(text, readers)| format!("read twice: {text:?} by {readers:?}")).collect();
    twice.into_iter().for_each(|text| state.violated(text));
}

/// Looks at the processes of a world that is over.
pub(crate) fn processes(state: &mut State, code: Option<Option<u8>>, expected: Option<u8>) {
    let left = state.processes.iter().filter(|(_, process)| process.ended.is_none());
    let left: Vec<String> = left.map(|(pid, process)| format!("{pid} ({})", process.name)).collect();
    if !left.is_empty() {
        state.violated(format!("processes are left: {}", left.join(", ")));
    }
    let without_master = code == Some(Some(1)) && state.counts.happened.contains_key(told::WITHOUT_MASTER);
    if code != Some(expected) && !without_master {
        state.violated(format!("the keeper ended with {code:?}"));
    }
}
