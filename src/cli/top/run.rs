//! Carries out what a key ordered: the verbs of the command line, each on a thread of its own.
use super::model::{Order, Verb};
use crate::api::request::{Scale, StopMode};
use crate::api::{Change, Request};
use crate::cli::apply::Outcome;
use crate::cli::commands::reload::reload_app;
use crate::cli::commands::scale::scale_app;
use crate::cli::commands::stop::stop_app;
use crate::cli::launch;
use crate::home::Home;

/// Does it, however long that takes.
pub(super) fn run(home: &Home, order: &Order) -> Outcome {
    let found = &order.target;
    let app = || found.app.clone();
    let as_it_was = Change::default();
    match (order.verb, &found.view) {
        (Verb::Reload, _) => reload_app(found, as_it_was),
        (Verb::More, _) => scale_app(found, Scale::Up(1)),
        (Verb::Less, _) => scale_app(found, Scale::Down(1)),
        (Verb::Stop, _) => stop_app(home, found, StopMode::Drain),
        (Verb::Restart, Some(_)) => launch::request_ready(found, &Request::Restart { app: app(), change: as_it_was }),
        (Verb::Start, Some(_)) => launch::request_ready(found, &Request::Start { app: app(), change: as_it_was }),
        (Verb::Restart | Verb::Start, None) => {
            launch::revive(home, &found.deployment, |app| app == found.app, as_it_was)
        }
    }
}
