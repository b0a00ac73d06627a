//! The master's state as the keeper holds it for a successor: record by record, as it changes. The cost of a change
//! does not depend on the number of workers. `records` defines the records, `resume` takes over from them, `recovery`
//! handles those that cannot be read.
pub(super) mod records;

use super::context::Context;
use super::drains::Goodbye;
use super::keeper::Keeper;
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::master::system::System;
use crate::record::{self, Value};
use crate::reuseport::group::Group;
use records::{APP, DEPLOYMENT, LISTENER, RELEASES, SERVES, SLOT, UPGRADE, WORKER};
use records::{
    AppRecord, DeploymentRecord, GenerationRecord, ListenerRecord, ReleasesRecord, ServesRecord, UpgradeRecord,
};
use std::collections::{HashMap, HashSet};

/// A copy of the records that the keeper holds, so that nothing is sent twice.
#[derive(Default)]
pub(super) struct Checkpoint {
    last: HashMap<String, Vec<u8>>,
    /// Keys of records that were too large to save; reported once, however often a worker changes them.
    too_large: HashSet<String>,
    /// Worker ids below this are saved as reserved.
    reserved_workers: u64,
}

impl Checkpoint {
    /// Saves a record, unless the saved one is identical.
    fn save<T: Value>(&mut self, keeper: &mut Keeper<impl System>, key: String, value: &T) {
        let bytes = match record::to_document(value) {
            Ok(bytes) => bytes,
            Err(e) => return log::error!("cannot save the checkpoint record {key}: {e}"),
        };
        if self.last.get(&key) == Some(&bytes) {
            return;
        }
        self.last.insert(key.clone(), bytes.clone());
        if bytes.len() > limits::NOTE_BYTES_MAX {
            // The keeper would refuse a record of this size, and a worker's text must not break the link.
            let (is, max) = (bytes.len(), limits::NOTE_BYTES_MAX);
            if self.too_large.insert(key.clone()) {
                log::error!("cannot save the checkpoint record {key}: it has {is} bytes, the limit is {max}");
            }
            return;
        }
        self.too_large.remove(&key);
        keeper.send(Order::Note { key, value: bytes });
    }

    fn forget(&mut self, keeper: &mut Keeper<impl System>, key: String) {
        self.too_large.remove(&key);
        if self.last.remove(&key).is_some() {
            keeper.send(Order::Forget { key });
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.last.iter()
    }

    /// Takes over the records of the keeper, so that they are neither repeated nor left behind.
    pub(super) fn inherit(&mut self, records: impl Iterator<Item = (String, Vec<u8>)>) {
        self.last = records.collect();
    }

    /// Replaces a record by its recovered form; `None` deletes it.
    pub(super) fn replace(&mut self, keeper: &mut Keeper<impl System>, key: String, value: Option<Vec<u8>>) {
        match value {
            None => self.forget(keeper, key),
            Some(value) => {
                self.last.insert(key.clone(), value.clone());
                keeper.send(Order::Note { key, value });
            }
        }
    }
}

/// Saves what changed in an app since the last call.
pub(super) fn save_changes(cx: &mut Context<impl System>, app_ix: AppIx) {
    if cx.next_worker > cx.checkpoint.reserved_workers {
        cx.checkpoint.reserved_workers = cx.next_worker + limits::WORKER_IDS_RESERVED;
        save_deployment(cx);
    }
    let (slots, workers) = cx.apps[app_ix].supervisor.take_changes();
    for (index, slot) in slots {
        let key = format!("{SLOT}{app_ix}/{index}");
        match slot {
            Some(slot) => cx.checkpoint.save(&mut cx.keeper, key, &slot),
            None => cx.checkpoint.forget(&mut cx.keeper, key),
        }
    }
    for (id, worker) in workers {
        let key = format!("{WORKER}{app_ix}/{id}");
        match worker {
            Some(worker) => cx.checkpoint.save(&mut cx.keeper, key, &worker),
            None => cx.checkpoint.forget(&mut cx.keeper, key),
        }
    }
    save_app(cx, app_ix);
}

/// Saves an app, without its slots and workers.
pub(super) fn save_app(cx: &mut Context<impl System>, app_ix: AppIx) {
    let app = &mut cx.apps[app_ix];
    let generations = app.generations.iter().map(|(generation, settings)| {
        let cwd = settings.cwd.to_string_lossy().into_owned();
        let program = settings.program.to_string_lossy().into_owned();
        let agent_program = settings.agent.as_ref().map(|a| a.program.to_string_lossy().into_owned());
        let why = settings.balance.why.as_ref();
        let balance = why.map(|_| settings.balance.balance.name().to_owned());
        let balance_why = why.map(ToString::to_string).unwrap_or_default();
        let source = settings.source;
        (*generation, GenerationRecord { source, cwd, program, agent_program, balance, balance_why })
    });
    let record = AppRecord {
        name: app.name.clone(),
        rules: app.supervisor.snapshot(),
        last_generation: app.last_generation,
        generations: generations.collect(),
        deleted: app.deleted,
        restarts: app.restarts,
        spawned: app.spawned,
        history: app.history.to_record(),
        scale: app.autoscale.to_record(),
        stops_at_ms: app.stops_at_ms,
    };
    if app.saved.as_ref() != Some(&record) {
        cx.checkpoint.save(&mut cx.keeper, format!("{APP}{app_ix}"), &record);
        app.saved = Some(record);
    }
}

/// Saves the generations of an app that ran.
pub(super) fn save_releases(cx: &mut Context<impl System>, app_ix: AppIx) {
    let record = ReleasesRecord { releases: cx.apps[app_ix].releases.to_record() };
    cx.checkpoint.save(&mut cx.keeper, format!("{RELEASES}{app_ix}"), &record);
}

/// Saves the deployment's record.
pub(super) fn save_deployment(cx: &mut Context<impl System>) {
    let deployment = &cx.deployment;
    let record = DeploymentRecord {
        name: deployment.name.clone(),
        started_ms: deployment.started_ms,
        worker_ids_below: cx.checkpoint.reserved_workers,
        last_source: deployment.last_source,
        stop_asked: deployment.stop_asked,
        exit_code: deployment.exit_code,
        background: deployment.background,
        home: deployment.home.as_ref().map(|home| home.path().to_string_lossy().into_owned()),
        ids: deployment.ids.clone(),
        stop_asked_ms: deployment.stop_asked_ms,
        leaves_sockets: deployment.leaves_sockets,
    };
    cx.checkpoint.save(&mut cx.keeper, DEPLOYMENT.to_owned(), &record);
}

pub(super) fn save_upgrade(cx: &mut Context<impl System>, record: &UpgradeRecord) {
    cx.checkpoint.save(&mut cx.keeper, UPGRADE.to_owned(), record);
}

pub(super) fn save_listener(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let app = &cx.apps[app_ix];
    let listener = &app.listeners[listener_ix];
    let record = ListenerRecord {
        key: listener.key.clone(),
        configured: listener.configured.as_ref().map(ToString::to_string),
        data: listener.data.clone(),
        order: listener_ix.into(),
        sockets: listener.reuseport.as_ref().map_or(0, Group::socket_count),
        full: listener.reuseport.as_ref().is_some_and(|group| group.full),
        given: listener.given,
        places: listener.reuseport.as_ref().map(places_of).unwrap_or_default(),
    };
    let key = format!("{LISTENER}{}/{}", app.name, listener.key);
    cx.checkpoint.save(&mut cx.keeper, key, &record);
}

/// The order of a group's sockets where it is not that of their numbers.
fn places_of(group: &Group) -> Vec<u32> {
    let order = group.order();
    if order.iter().copied().eq(0..group.socket_count()) { Vec::new() } else { order.to_vec() }
}

/// Deletes the record of a listener that is closed.
pub(super) fn forget_listener(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let app = &cx.apps[app_ix];
    let key = format!("{LISTENER}{}/{}", app.name, app.listeners[listener_ix].key);
    cx.checkpoint.forget(&mut cx.keeper, key);
}

/// Saves the state of a worker's channel: the listeners that the worker serves, and whether it is leaving.
pub(super) fn save_serves(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    worker.unnoted = false;
    let app = &cx.apps[worker.app];
    let key = |&listener: &ListenerIx| app.listeners[listener].key.clone();
    let keys = worker.serves.iter().map(key).collect();
    let client_first = worker.client_first.iter().map(key).collect();
    let counts = app.generations.get(&worker.generation).is_some_and(|s| s.config.limits.max_connections.is_some());
    let taken = if counts { worker.taken_before + worker.taken } else { 0 };
    let goodbye = worker.goodbye != Goodbye::Unsaid;
    let actions = worker.custom.actions.clone();
    let record = ServesRecord { keys, goodbye, taken, greeted: worker.receiver.greeted, actions, client_first };
    let key = format!("{SERVES}{}", worker.id);
    cx.checkpoint.save(&mut cx.keeper, key, &record);
}

/// Saves that the worker was sent a goodbye, or said so itself.
pub(super) fn save_goodbye(cx: &mut Context<impl System>, ix: WorkerIx) {
    if let Some(worker) = cx.workers.get_mut(ix).filter(|w| w.goodbye == Goodbye::Unsaid) {
        worker.goodbye = Goodbye::Said;
        save_serves(cx, ix);
    }
}

/// Deletes the channel record of a worker that has ended.
pub(super) fn forget_serves(cx: &mut Context<impl System>, worker: WorkerId) {
    cx.checkpoint.forget(&mut cx.keeper, format!("{SERVES}{worker}"));
}
