//! Ends apps and waits for that, for the verbs `stop`, `delete` and `kill`.
use super::apply::Outcome;
use super::client::{self, Answered};
use super::error::CommandError;
use super::launch::START_LOOK_MS;
use super::progress::{Progress, Wait};
use super::target::Found;
use crate::api::Request;
use crate::api::request::{StopMode, View};
use crate::api::types::{App, AppStatus, Deployment};
use crate::cli::client::LOOK_TRIES_MAX;
use crate::home::Home;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a command waits for a keeper without apps to exit.
const END_WAIT_MS: u64 = 5_000;

/// Sends a request that ends an app, and waits. After the last app of a deployment, also waits until its name is free.
pub(super) fn end_app(home: &Home, found: &Found, mode: StopMode, request: &Request) -> Outcome {
    let mut progress = Progress::new(Wait::End { mode }, &found.app);
    let is_there = |view: &Deployment| view.apps.iter().any(|app| app.name == found.app);
    let message = send_until_ended(&found.socket, request, &mut progress, is_there)?;
    wait_for_keeper(home, found.background, &found.deployment, &found.socket, &mut progress);
    Ok(message)
}

/// Sends a request that ends something, and waits. If a master dies meanwhile, its successor is asked again: an end is
/// never undone. `is_there`: the deployment still has what was to end.
pub(super) fn send_until_ended(
    socket: &Path,
    request: &Request,
    progress: &mut Progress,
    is_there: impl Fn(&Deployment) -> bool,
) -> Outcome {
    for _ in 0..LOOK_TRIES_MAX {
        if let Answered::Master(answer) = client::send_watched(socket, request, progress) {
            return Ok(answer?);
        }
        if !is_there(&client::look(socket)?) {
            return Ok("it is gone".to_owned());
        }
    }
    Err(CommandError::MasterDies)
}

/// Waits (bounded) until a deployment without apps is gone; `background`: it stays when its apps have stopped.
pub(super) fn wait_for_keeper(home: &Home, background: bool, deployment: &str, socket: &Path, progress: &mut Progress) {
    let until = Instant::now() + Duration::from_millis(END_WAIT_MS);
    while home.is_alive(deployment) && Instant::now() < until {
        let view = client::get::<Deployment>(socket, &Request::View(View::Deployment));
        let is_over = |app: &App| !background && app.status == AppStatus::Stopped;
        if view.is_ok_and(|view| view.apps.iter().any(|app| !is_over(app))) {
            return;
        }
        progress.tell("nothing runs any more; its keeper is about to end");
        std::thread::sleep(Duration::from_millis(START_LOOK_MS));
    }
}
