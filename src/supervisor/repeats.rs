//! Drops events that would change nothing, so that a process that repeats itself costs little. `app` and `agent` handle
//! events.
use super::{App, Event, Phase};

impl App {
    /// Whether [`App::handle`] would act on this event in the current state. Only checks events that a process can
    /// repeat without end; returns true for all others.
    pub fn has_effect(&self, event: &Event) -> bool {
        let Some(id) = event.worker() else { return true };
        let Some(worker) = self.workers.get(&id) else { return false };
        let is_beside = worker.is_beside();
        match (event, worker.phase) {
            (Event::Evidence { evidence, .. }, Phase::Starting { warming: None, .. }) => {
                self.policy(worker.generation).rules(worker.slot).ready.evidence == Some(*evidence)
            }
            (Event::Online { .. }, Phase::Starting { online, .. }) => !online && !is_beside,
            (Event::NotYet { why, .. }, Phase::Starting { .. }) => !is_beside && worker.not_yet.as_ref() != Some(why),
            (Event::ServersClosed { .. }, Phase::Ready { .. }) => !is_beside,
            (Event::ServersClosed { .. }, Phase::Starting { .. }) => !is_beside && worker.serves,
            (Event::ServersOpen { .. }, Phase::Starting { .. }) => !is_beside && !worker.serves,
            (Event::ServersOpen { .. }, Phase::Ready { idle_since_ms, .. }) => idle_since_ms.is_some() && !is_beside,
            (Event::Leaving { .. }, phase) => !phase.is_leaving() && !is_beside,
            (
                Event::Online { .. }
                | Event::Evidence { .. }
                | Event::NotYet { .. }
                | Event::ServersClosed { .. }
                | Event::ServersOpen { .. },
                _,
            ) => false,
            (_, _) => true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::worker::Worker;
    use super::super::{Action, Cx, Evidence, ReadyBy, snapshot};
    use super::*;
    use crate::ids::{Generation, Slot, WorkerId};

    const WORKER: WorkerId = WorkerId(7);

    fn app_with(phase: Phase, not_yet: Option<&str>) -> App {
        app_in(Slot(0), phase, not_yet)
    }

    fn app_in(slot: Slot, phase: Phase, not_yet: Option<&str>) -> App {
        let mut policy = snapshot::FALLBACK_POLICY.clone();
        policy.ready.evidence = Some(Evidence::Message);
        let mut app = App::new(Generation(1), policy, 1);
        let not_yet = not_yet.map(str::to_owned);
        let generation = Generation(1);
        app.workers.insert(Worker {
            id: WORKER,
            slot,
            generation,
            pid: Some(1),
            spawned_at_ms: 0,
            phase,
            by_itself: false,
            serves: false,
            spare: false,
            not_yet,
        });
        if !slot.is_beside() {
            app.slot_mut(0).unwrap().current = Some(WORKER);
        }
        app.set_phase(WORKER, phase);
        app.take_changes();
        app
    }

    fn apps() -> Vec<App> {
        let (deadline_ms, ready_at_ms, severed_at_ms) = (9_000, None, None);
        let starting_as =
            |online, warming| Phase::Starting { deadline_ms, ready_at_ms, online, severed_at_ms, warming };
        let starting = |online| starting_as(online, None);
        let ready = |idle_since_ms| Phase::Ready { since_ms: 1, idle_since_ms, severed_at_ms: None };
        vec![
            app_with(starting(false), None),
            app_with(starting(true), Some("it waits")),
            serving(app_with(starting(true), None)),
            app_with(starting_as(true, Some(ReadyBy::Evidence)), None),
            app_with(ready(None), None),
            app_with(ready(Some(5)), None),
            app_with(Phase::Draining { deadline_ms: 9_000 }, None),
            app_with(Phase::Stopping { kill_at_ms: 9_000 }, None),
            app_with(Phase::Killed, None),
        ]
    }

    fn serving(mut app: App) -> App {
        app.workers.get_mut(&WORKER).unwrap().serves = true;
        app
    }

    fn events(worker: WorkerId) -> Vec<Event> {
        let evidence = |evidence| Event::Evidence { worker, evidence };
        vec![
            Event::Online { worker },
            evidence(Evidence::Listening),
            evidence(Evidence::Message),
            evidence(Evidence::Notify),
            evidence(Evidence::Http),
            Event::NotYet { worker, why: "it waits".to_owned() },
            Event::ServersClosed { worker },
            Event::ServersOpen { worker },
            Event::Leaving { worker },
        ]
    }

    /// Whether handling the event changes anything.
    fn matters(app: &App, event: Event) -> bool {
        let mut after = app.clone();
        let (mut next_worker, mut actions) = (100, Vec::<Action>::new());
        after.handle(&mut Cx { now_ms: 50, next_worker: &mut next_worker, actions: &mut actions }, event);
        after.take_changes();
        !actions.is_empty() || format!("{after:?}") != format!("{app:?}")
    }

    #[test]
    fn an_event_is_news_exactly_when_the_rules_do_something_with_it() {
        let mut news = 0;
        for app in apps() {
            for event in events(WORKER) {
                let phase = app.worker(WORKER).unwrap().phase;
                assert_eq!(app.has_effect(&event), matters(&app, event.clone()), "{phase:?} {event:?}");
                news += usize::from(app.has_effect(&event));
            }
        }
        assert!(news > 8, "{news}");
    }

    #[test]
    fn what_a_worker_said_that_is_gone_is_no_news() {
        let app = &apps()[4];
        for event in events(WorkerId(8)) {
            assert!(!app.has_effect(&event) && !matters(app, event.clone()), "{event:?}");
        }
        assert!(app.has_effect(&Event::Scale { slots: 1 }));
    }
}
