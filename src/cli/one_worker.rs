//! The replacement of one worker (`restart web/0`, `reload web/0`), and the wait for its end.
use super::apply::Outcome;
use super::client::{self, Answered, PROGRESS_EVERY_MS};
use super::error::CommandError;
use super::progress::{Progress, Wait};
use super::target::Found;
use crate::api::Request;
use crate::api::types::{Worker, WorkerState};
use std::time::Duration;

/// Replaces the worker in a slot of a running app: the new one first, where two may run beside each other.
pub(super) fn replace(found: &Found, slot: u32) -> Outcome {
    let mut progress = Progress::new(Wait::Ready, &found.app);
    let request = Request::Replace { app: found.app.clone(), slot };
    match client::send_watched(&found.socket, &request, &mut progress) {
        Answered::Master(answer) => Ok(answer?),
        Answered::Lost => follow_successor(found, slot, &mut progress),
    }
}

/// The master with the request died: its successor continues the replacement, so wait for that.
fn follow_successor(found: &Found, slot: u32, progress: &mut Progress) -> Outcome {
    let before: Vec<u64> = found.workers().filter_map(|worker| worker.id).collect();
    loop {
        let now = client::look(&found.socket)?;
        progress.look(Ok(&now));
        let app = now.apps.iter().find(|app| app.name == found.app).ok_or(CommandError::Gone)?;
        let is_new = |worker: &&Worker| {
            worker.slot == slot && worker.id.is_some_and(|id| !before.contains(&id)) && worker.pid.is_some()
        };
        match app.workers.iter().find(is_new) {
            Some(new) if new.state == WorkerState::Ready => {
                return Ok(format!("{}/{slot}: worker {} serves now", found.app, new.id.unwrap_or_default()));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(PROGRESS_EVERY_MS)),
            None => return Err(CommandError::NotReloaded),
        }
    }
}
