//! What the master has the keeper remember, piece by piece as it changes, so that a successor can go on: a note costs
//! the same for 1 and for 1,000 workers. The format is in `memory`, taking over in `start`.
use super::Master;
use super::keeper::Keeper;
use super::memory::{AppNote, DeploymentNote, GenerationNote, ListenerNote, ServesNote, SlotNote, WorkerNote};
use super::worker::Goodbye;
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::reuseport::group::Group;
use serde::Serialize;
use std::collections::HashMap;

/// Key of the deployment's note.
pub(super) const DEPLOYMENT: &str = "v1/deployment";
/// Prefix of the apps' notes: index in the deployment follows.
pub(super) const APP: &str = "v1/app/";
/// Prefix of the slots' notes: app index and slot follow.
pub(super) const SLOT: &str = "v1/slot/";
/// Prefix of the workers' notes: app index and id follow.
pub(super) const WORKER: &str = "v1/worker/";
/// Prefix of the notes on what passed over a worker's channel: its id follows.
pub(super) const SERVES: &str = "v1/serves/";
/// Prefix of the listeners' notes: app name and key follow.
pub(super) const LISTENER: &str = "v1/listener/";

/// What was noted last, for notes that are written often and change rarely.
#[derive(Default)]
pub(super) struct Notes {
    last: HashMap<String, Vec<u8>>,
    /// Worker ids below this are noted as used.
    reserved_workers: u64,
}

impl Notes {
    /// Writes a note, unless it says the same already.
    fn write<T: Serialize>(&mut self, link: &mut Keeper, key: String, value: &T) {
        let Ok(bytes) = serde_json::to_vec(value) else {
            log::error!("cannot write the note {key} down");
            return;
        };
        if self.last.get(&key) == Some(&bytes) {
            return;
        }
        self.last.insert(key.clone(), bytes.clone());
        if bytes.len() > limits::NOTE_BYTES_MAX {
            // The keeper would not take it, and a worker's words must not cost us the keeper.
            log::error!(
                "the note {key} has {} bytes and is not kept; the most is {}",
                bytes.len(),
                limits::NOTE_BYTES_MAX
            );
            return;
        }
        link.send(Order::Note { key, value: bytes });
    }

    /// Everything that is noted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.last.iter()
    }

    fn forget(&mut self, link: &mut Keeper, key: String) {
        if self.last.remove(&key).is_some() {
            link.send(Order::Forget { key });
        }
    }

    /// A note that was mended, or that is none any more.
    pub(super) fn replace(&mut self, link: &mut Keeper, key: String, value: Option<Vec<u8>>) {
        match value {
            None => self.forget(link, key),
            Some(value) => {
                self.last.insert(key.clone(), value.clone());
                link.send(Order::Note { key, value });
            }
        }
    }

    /// A worker is gone for good.
    pub(super) fn forget_serves(&mut self, link: &mut Keeper, worker: WorkerId) {
        self.forget(link, format!("{SERVES}{worker}"));
    }

    /// Takes over what the keeper already holds, so that it is neither repeated nor left behind.
    pub(super) fn inherit(&mut self, notes: impl Iterator<Item = (String, Vec<u8>)>) {
        self.last = notes.collect();
    }
}

impl Master {
    /// Notes what changed in an app since the last call.
    pub(super) fn note_changes(&mut self, app_ix: AppIx) {
        if self.next_worker > self.notes.reserved_workers {
            self.notes.reserved_workers = self.next_worker + limits::WORKER_IDS_RESERVED;
            self.note_deployment();
        }
        let app = &mut self.cx.apps[app_ix];
        let (slots, workers) = app.supervisor.take_changes();
        for (index, slot) in slots {
            let key = format!("{SLOT}{app_ix}/{index}");
            match slot {
                Some(slot) => self.notes.write(&mut self.cx.keeper, key, &SlotNote::from(&slot)),
                None => self.notes.forget(&mut self.cx.keeper, key),
            }
        }
        for (id, worker) in workers {
            let key = format!("{WORKER}{app_ix}/{id}");
            match worker {
                Some(worker) => self.notes.write(&mut self.cx.keeper, key, &WorkerNote::from(&worker)),
                None => self.notes.forget(&mut self.cx.keeper, key),
            }
        }
        self.note_app(app_ix);
    }

    pub(super) fn note_app(&mut self, app_ix: AppIx) {
        let app = &self.cx.apps[app_ix];
        let mut note = AppNote::new(&app.name, &app.supervisor.memory(), app.last_generation, app.restarts);
        note.deleted = app.deleted;
        note.generations = app
            .generations
            .iter()
            .map(|(generation, settings)| {
                let cwd = settings.cwd.to_string_lossy().into_owned();
                let program = settings.program.to_string_lossy().into_owned();
                let agent_program = settings.agent.as_ref().map(|a| a.program.to_string_lossy().into_owned());
                (generation.0, GenerationNote { source: settings.source, cwd, program, agent_program })
            })
            .collect();
        if self.cx.apps[app_ix].noted.as_ref() == Some(&note) {
            return;
        }
        self.notes.write(&mut self.cx.keeper, format!("{APP}{app_ix}"), &note);
        self.cx.apps[app_ix].noted = Some(note);
    }

    pub(super) fn note_deployment(&mut self) {
        let note = DeploymentNote {
            name: self.cx.deployment.name.clone(),
            started_ms: self.cx.deployment.started_ms,
            worker_ids_below: self.notes.reserved_workers,
            last_source: self.cx.deployment.last_source,
            stop_asked: self.cx.deployment.stop_asked,
            exit_code: self.cx.deployment.exit_code,
            notify: self.notify.as_ref().map(|(_, name)| name.clone()),
            upgrade: self.upgrade.clone(),
            background: self.cx.deployment.background,
            home: self.cx.deployment.home.as_ref().map(|home| home.path().to_string_lossy().into_owned()),
            ids: self.cx.deployment.ids.clone(),
        };
        self.notes.write(&mut self.cx.keeper, DEPLOYMENT.to_owned(), &note);
    }

    pub(super) fn note_listener(&mut self, app_ix: AppIx, listener_ix: ListenerIx) {
        let app = &self.cx.apps[app_ix];
        let listener = &app.listeners[listener_ix];
        let configured = listener.configured.as_ref().map(ToString::to_string);
        let note = ListenerNote {
            key: listener.key.clone(),
            configured,
            data: listener.data.clone(),
            order: listener_ix.0,
            sockets: listener.reuseport.as_ref().map_or(0, Group::socket_count),
            full: listener.reuseport.as_ref().is_some_and(|group| group.full),
        };
        let key = format!("{LISTENER}{}/{}", app.name, listener.key);
        self.notes.write(&mut self.cx.keeper, key, &note);
    }

    /// Notes what a worker said or was told over its channel: the listeners that it serves, and that it leaves.
    pub(super) fn note_serves(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        worker.unnoted = false;
        let app = &self.cx.apps[worker.app];
        let keys = worker.serves.iter().map(|&l| app.listeners[l].key.clone()).collect();
        let counts = app.generations.get(&worker.generation).is_some_and(|s| s.config.limits.max_connections.is_some());
        let taken = if counts { worker.taken_before + worker.taken } else { 0 };
        let note = ServesNote { keys, goodbye: worker.goodbye != Goodbye::Unsaid, taken, greeted: worker.greeted };
        self.notes.write(&mut self.cx.keeper, format!("{SERVES}{}", worker.id), &note);
    }

    /// The worker is told now (or told us) that it leaves.
    pub(super) fn note_goodbye(&mut self, ix: WorkerIx) {
        if let Some(worker) = self.cx.workers.get_mut(ix).filter(|w| w.goodbye == Goodbye::Unsaid) {
            worker.goodbye = Goodbye::Said;
            self.note_serves(ix);
        }
    }
}
