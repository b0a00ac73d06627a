//! Carries out what a key ordered: the verbs of the command line, each on a thread of its own.
use super::model::{Order, Verb};
use crate::api::Request;
use crate::api::request::{Scale, StopMode};
use crate::api::types::Change;
use crate::cli::{act, client, start};
use crate::home::Home;

/// Does it, however long that takes; what came of it, for a person.
pub(super) fn run(home: &Home, order: &Order) -> Result<String, String> {
    let found = &order.target;
    let app = || found.app.clone();
    let as_it_was = Change::default();
    let scale = |to| client::command(&found.socket, &Request::Scale { app: app(), to });
    match (order.verb, &found.view) {
        (Verb::Reload, _) => act::reload_one(found, as_it_was),
        (Verb::More, _) => scale(Scale::Up(1)),
        (Verb::Less, _) => scale(Scale::Down(1)),
        (Verb::Stop, _) => act::stop_one(home, found, StopMode::Drain),
        (Verb::Restart, Some(_)) => start::ask(found, &Request::Restart { app: app(), change: as_it_was }),
        (Verb::Start, Some(_)) => start::ask(found, &Request::Start { app: app(), change: as_it_was }),
        (Verb::Restart | Verb::Start, None) => start::revive(home, &found.deployment, Some(&found.app), as_it_was),
    }
}
