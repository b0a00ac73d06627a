//! Carries out what a key ordered: the verbs of the command line, each on a thread of its own.
use super::model::{Order, Verb};
use crate::api::types::{ChangeRequest, ScaleRequest};
use crate::cli::{act, start};
use crate::home::Home;

/// Does it, however long that takes; what came of it, for a person.
pub(super) fn run(home: &Home, order: &Order) -> Result<String, String> {
    let found = &order.target;
    let as_it_was = ChangeRequest::default();
    let scale = |by: &str| act::command(found, "scale", &ScaleRequest { workers: by.to_owned() });
    match (order.verb, &found.view) {
        (Verb::Reload, _) => act::reload_one(found, &as_it_was),
        (Verb::More, _) => scale("+1"),
        (Verb::Less, _) => scale("-1"),
        (Verb::Stop, _) => act::end_one(home, found, "stop", false),
        (Verb::Restart, Some(_)) => start::ask(found, "restart", &as_it_was),
        (Verb::Start, Some(_)) => start::ask(found, "start", &as_it_was),
        (Verb::Restart | Verb::Start, None) => start::revive(home, &found.deployment, Some(&found.app), as_it_was),
    }
}
