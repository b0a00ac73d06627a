//! Recovery from a checkpoint with unreadable or missing records. An app with such records is set up again from other
//! sources: its living processes, each with a tag (app, slot, generation) from its spawn, and the configuration,
//! resolved again. What only the checkpoint knew is lost: failure counts, a reload half done. Apps with complete
//! records keep them. Pure: time is an argument, and nothing is looked up.
use super::checkpoint::records::{
    APP, AppRecord, DEPLOYMENT, DeploymentRecord, GenerationRecord, LISTENER, ListenerRecord, SERVES, SLOT,
    ServesRecord, WORKER, check, numbers, read, served_by,
};
use super::{listener, spawn};
use crate::config::{self, Config};
use crate::ids::{Generation, Slot, WorkerId};
use crate::keeper::link::ChildInfo;
use crate::limits;
use crate::record::{self, Value};
use crate::supervisor::{AgentSnapshot, AppSnapshot, BeforeSnapshot, Phase, SlotPhase, SlotSnapshot, WorkerSnapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Sentences logged per recovery; further ones are only counted.
pub(super) const REPAIRS_LOGGED_MAX: usize = 20;

type Records = BTreeMap<String, Vec<u8>>;

/// What is known without the checkpoint.
pub(super) struct Ground<'a> {
    /// The keeper's children.
    pub(super) children: &'a [ChildInfo],
    /// Names of the fds that the keeper holds.
    pub(super) held: BTreeSet<String>,
    /// The readable configurations, by the number of their sources.
    pub(super) configs: BTreeMap<u32, Config>,
    /// Number of usable CPUs.
    pub(super) cpus: u32,
    /// The current time, in milliseconds.
    pub(super) now_ms: u64,
}

/// The result of a recovery.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Recovered {
    /// One sentence for each repair.
    pub(super) repairs: Vec<String>,
    /// Keys of records that were added, changed or deleted.
    pub(super) changed: BTreeSet<String>,
}

/// What a process was spawned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) app: String,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// The number of its socket, where that is not its slot.
    pub(super) socket: Option<u32>,
}

impl Tag {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let socket = self.socket.map_or_else(String::new, |socket| format!(".{socket}"));
        format!("{}/{}{socket}/{}", self.generation.0, self.slot.0, self.app).into_bytes()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Tag> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '/');
        let generation = parts.next()?.parse().ok()?;
        let place = parts.next()?;
        let (slot, socket) = place.split_once('.').map_or((place, None), |(slot, socket)| (slot, Some(socket)));
        let slot = slot.parse().ok().filter(|slot| *slot < limits::WORKERS_MAX)?;
        let socket = match socket {
            Some(socket) => Some(socket.parse().ok().filter(|socket| *socket < limits::GROUP_SOCKETS_MAX)?),
            None => None,
        };
        let app = parts.next().filter(|app| !app.is_empty())?.to_owned();
        Some(Tag { app, slot: Slot(slot), generation: Generation(generation), socket })
    }
}

/// The tag of a process beside the workers: of an agent, or of the command before them.
pub(super) fn beside_tag_bytes(slot: Slot, app: &str, generation: Generation) -> Vec<u8> {
    format!("{}/{slot}/{app}", generation.0).into_bytes()
}

/// The generation in the tag of such a process of this app; `None` for other tags.
fn beside_tag(bytes: &[u8], slot: Slot, app: &str) -> Option<Generation> {
    let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, '/');
    let generation = parts.next()?.parse().ok().map(Generation)?;
    (parts.next()? == slot.to_string() && parts.next()? == app).then_some(generation)
}

/// Completes `records`. `deployment` makes the deployment's record from the number of the last configuration and the
/// lowest unused worker id.
pub(super) fn recover(
    records: &mut Records,
    ground: &Ground<'_>,
    deployment: impl FnOnce(u32, u64) -> DeploymentRecord,
) -> Recovered {
    let living = ground.children.iter().filter(|child| child.status.is_none());
    let living = living.filter_map(|child| Some((child, Tag::read(&child.tag)?))).collect();
    let mut work = Recovery { records, ground, living, lost: BTreeSet::new(), out: Recovered::default() };
    work.take_out_the_unreadable();
    work.deployment(deployment);
    work.listeners();
    for ix in 0..work.app_count() {
        if !work.app(ix) {
            break;
        }
    }
    work.serves();
    work.out
}

struct Recovery<'a> {
    records: &'a mut Records,
    ground: &'a Ground<'a>,
    /// Living workers with their tags.
    living: Vec<(&'a ChildInfo, Tag)>,
    /// Keys of unreadable records.
    lost: BTreeSet<String>,
    out: Recovered,
}

impl Recovery<'_> {
    fn get<T: Value>(&self, key: &str) -> Option<T> {
        read(self.records.get(key)?).ok()
    }

    fn put<T: Value>(&mut self, key: String, value: &T) {
        // A record that cannot be written stays missing.
        if let Ok(bytes) = record::to_document(value) {
            self.out.changed.insert(key.clone());
            self.records.insert(key, bytes);
        }
    }

    fn remove(&mut self, key: &str) {
        self.records.remove(key);
        self.out.changed.insert(key.to_owned());
    }

    fn take_out_the_unreadable(&mut self) {
        let unreadable = self.records.iter().filter_map(|(key, bytes)| Some((key.clone(), check(key, bytes).err()?)));
        for (key, why) in unreadable.collect::<Vec<_>>() {
            self.out.repairs.push(format!("cannot read the checkpoint record {key}: {why}"));
            self.remove(&key);
            self.lost.insert(key);
        }
    }

    /// The current configuration, with its number: the saved one, else the last readable one.
    fn last_config(&self) -> Option<(u32, &Config)> {
        let saved = self.get::<DeploymentRecord>(DEPLOYMENT);
        let saved = saved.and_then(|record| self.ground.configs.get_key_value(&record.last_source));
        let found = saved.or_else(|| self.ground.configs.iter().next_back());
        found.map(|(number, config)| (*number, config))
    }

    fn configured(&self, name: &str) -> Option<&config::App> {
        self.last_config()?.1.apps.iter().find(|app| app.name == name)
    }

    // ---- the deployment ----

    fn deployment(&mut self, make: impl FnOnce(u32, u64) -> DeploymentRecord) {
        let last = self.last_config().map_or(0, |(number, _)| number);
        let record = match self.get::<DeploymentRecord>(DEPLOYMENT) {
            Some(record) if self.ground.configs.contains_key(&record.last_source) => return,
            Some(record) => DeploymentRecord { last_source: last, ..record },
            None => {
                let known = self.ground.children.iter().map(|child| child.worker.0);
                let saved = self.records.keys().filter_map(|key| numbers(key, WORKER)).map(|(_, id)| id);
                make(last, known.chain(saved).max().map_or(1, |id| id + 1))
            }
        };
        self.put(DEPLOYMENT.to_owned(), &record);
        self.out.repairs.push("recovered the deployment from its control socket and configuration".to_owned());
    }

    // ---- apps ----

    fn app_key(ix: usize) -> String {
        format!("{APP}{ix}")
    }

    /// App indices have no gaps, and are never freed.
    fn app_count(&self) -> usize {
        let last = |key: &String| key.strip_prefix(APP)?.parse::<usize>().ok();
        let saved = self.records.keys().chain(&self.lost).filter_map(last).map(|ix| ix + 1).max();
        let configured = self.last_config().map_or(0, |(_, config)| config.apps.len());
        saved.unwrap_or(0).max(configured).min(limits::APPS_MAX)
    }

    /// Completes the records of an app. `false` if the app's name is unknown.
    fn app(&mut self, ix: usize) -> bool {
        let key = Self::app_key(ix);
        let saved = self.get::<AppRecord>(&key).filter(|app| !self.is_taken(&app.name, ix));
        let Some(name) = saved.as_ref().map(|app| app.name.clone()).or_else(|| self.name_of(ix)) else {
            // It is in no configuration, and has no process.
            self.remove(&key);
            return false;
        };
        let before = saved.clone();
        match saved.and_then(|app| self.with_sources(app)) {
            Some(app) if self.is_whole(ix, &app) => {
                if before.as_ref() != Some(&app) {
                    self.put(key, &app);
                    self.out.repairs.push(format!("{name}: resolved its configuration again"));
                }
            }
            app => self.set_up(ix, &name, app),
        }
        true
    }

    fn is_taken(&self, name: &str, below: usize) -> bool {
        (0..below).filter_map(|ix| self.get::<AppRecord>(&Self::app_key(ix))).any(|app| app.name == name)
    }

    /// The app with a configuration for each of its generations: where the right one is lost, another one that contains
    /// the app.
    fn with_sources(&self, mut app: AppRecord) -> Option<AppRecord> {
        let has = |config: &Config| config.apps.iter().any(|known| known.name == app.name);
        let last = self.last_config().filter(|(_, config)| has(config)).map(|(number, _)| number);
        let any = || self.ground.configs.iter().rev().find(|(_, config)| has(config)).map(|(number, _)| *number);
        let fallback = last.or_else(any)?;
        let lost = |generation: &&mut GenerationRecord| !self.ground.configs.get(&generation.source).is_some_and(has);
        app.generations.values_mut().filter(lost).for_each(|generation| generation.source = fallback);
        Some(app).filter(|app| !app.generations.is_empty())
    }

    /// Whether all records of an app are readable, and each of its processes has one.
    fn is_whole(&self, ix: usize, app: &AppRecord) -> bool {
        let touched = |key: &String| [SLOT, WORKER].iter().any(|kind| numbers(key, kind).is_some_and(|n| n.0 == ix));
        let known = |(child, tag): &(&ChildInfo, Tag)| {
            let saved = self.get::<WorkerSnapshot>(&format!("{WORKER}{ix}/{}", child.worker));
            saved.is_some_and(|worker| (worker.slot, worker.generation) == (tag.slot, tag.generation))
        };
        !self.lost.iter().any(touched) && self.living.iter().filter(|(_, tag)| tag.app == app.name).all(known)
    }

    /// The name of the app with this index: from its workers' tags, else the next app of the configuration without an
    /// index.
    fn name_of(&self, ix: usize) -> Option<String> {
        let free = |name: &String| !self.is_taken(name, limits::APPS_MAX) && self.configured(name).is_some();
        let workers = self.records.keys().chain(&self.lost).filter_map(|key| numbers(key, WORKER));
        let ids: BTreeSet<u64> = workers.filter(|(app, _)| *app == ix).map(|(_, id)| id).collect();
        let by_worker = self.living.iter().filter(|(child, _)| ids.contains(&child.worker.0));
        let by_config = self.last_config().into_iter().flat_map(|(_, config)| &config.apps).map(|app| app.name.clone());
        by_worker.map(|(_, tag)| tag.app.clone()).chain(by_config).find(free)
    }

    /// Sets an app up from its processes.
    fn set_up(&mut self, ix: usize, name: &str, saved: Option<AppRecord>) {
        let of_app = |key: &&String| [SLOT, WORKER].iter().any(|kind| numbers(key, kind).is_some_and(|n| n.0 == ix));
        let keys: Vec<String> = self.records.keys().chain(&self.lost).filter(of_app).cloned().collect();
        let slots: Vec<SlotSnapshot> =
            keys.iter().filter(|key| key.starts_with(SLOT)).filter_map(|key| self.get(key)).collect();
        let known_slots = keys.iter().filter_map(|key| numbers(key, SLOT)).map(|(_, index)| index as u32 + 1).max();
        keys.iter().for_each(|key| self.remove(key));
        let ours = self.living.iter().filter(|(_, tag)| tag.app == name);
        let ours: Vec<(ChildInfo, Tag)> = ours.map(|(child, tag)| (ChildInfo::clone(child), tag.clone())).collect();
        // The app has no process and needs none: it was stopped.
        let stopped = ours.is_empty() && !slots.is_empty() && slots.iter().all(|s| s.phase == SlotPhase::Stopped);
        let stopping = saved.as_ref().map_or(stopped.then_some(false), |app| app.rules.stopping);
        let places = self.places(name, &ours, stopping.is_some());
        let serving: Vec<&WorkerSnapshot> = places.iter().filter(|worker| !worker.phase.is_leaving()).collect();
        let generation = serving.iter().map(|worker| worker.generation).max();
        let generation = generation.or(saved.as_ref().map(|app| app.rules.generation)).unwrap_or(Generation(1));
        let count = saved.as_ref().map(|app| app.rules.slots).or(known_slots);
        let count = count.max(serving.iter().map(|worker| worker.slot.0 + 1).max());
        let spares = self.configured(name).map_or(0, |app| app.spares);
        let configured = || self.configured(name).map_or(1, |app| app.workers.count(self.ground.cpus) + spares);
        let count = count.unwrap_or_else(configured).clamp(1, limits::WORKERS_MAX);
        let wanted = saved.as_ref().map(|app| app.rules.wanted).filter(|wanted| (1..=count).contains(wanted));
        let wanted = wanted.unwrap_or(count.saturating_sub(spares).max(1));
        let seen: BTreeSet<Generation> = places.iter().map(|worker| worker.generation).chain([generation]).collect();
        let source = self.last_config().map_or(0, |(number, _)| number);
        let mut generations = saved.as_ref().map(|app| app.generations.clone()).unwrap_or_default();
        for generation in &seen {
            generations.entry(*generation).or_insert(GenerationRecord { source, ..GenerationRecord::default() });
        }
        let last = saved.as_ref().map_or(generation, |app| app.last_generation);
        let newest = self.ground.children.iter().map(|child| child.worker.0).max().unwrap_or(0);
        let app = AppRecord {
            name: name.to_owned(),
            rules: AppSnapshot {
                generation,
                slots: count,
                wanted,
                reload: None,
                queued: None,
                queued_scale: None,
                stopping,
                then_start: None,
                reported_ready: !serving.is_empty(),
                agent: saved.as_ref().map_or_else(|| self.agent_of(name, &seen), |app| app.rules.agent.clone()),
                before: saved.as_ref().map_or_else(|| self.before_of(name, &places), |app| app.rules.before.clone()),
                held: None,
            },
            last_generation: seen.last().map_or(last, |seen| last.max(*seen)),
            generations,
            deleted: saved.as_ref().is_some_and(|app| app.deleted),
            restarts: saved.as_ref().map_or(0, |app| app.restarts),
            // Never lower than what was spawned: ids of all apps count together.
            spawned: saved.as_ref().map_or(newest, |app| app.spawned),
            scale: saved.as_ref().map(|app| app.scale.clone()).unwrap_or_default(),
            stops_at_ms: saved.as_ref().and_then(|app| app.stops_at_ms),
            history: saved.map(|app| app.history).unwrap_or_default(),
        };
        self.put(Self::app_key(ix), &app);
        for index in 0..count {
            let current = serving.iter().find(|worker| worker.slot.0 == index);
            let slot = SlotSnapshot {
                index,
                generation: current.map_or(generation, |worker| worker.generation),
                phase: if stopping.is_some() { SlotPhase::Stopped } else { SlotPhase::Filled },
                current: current.map(|worker| worker.id),
                incoming: None,
                failures: Vec::new(),
                consecutive: 0,
                restarts: 0,
                runs: 0,
                proven: current.is_some_and(|worker| matches!(worker.phase, Phase::Ready { .. })),
                replace_after_ms: 0,
            };
            self.put(format!("{SLOT}{ix}/{index}"), &slot);
        }
        let mut ready: Vec<&WorkerSnapshot> =
            places.iter().filter(|worker| matches!(worker.phase, Phase::Ready { .. })).collect();
        ready.sort_by_key(|worker| worker.slot);
        let spares: BTreeSet<WorkerId> = ready.iter().skip(wanted as usize).map(|worker| worker.id).collect();
        for worker in &places {
            let worker = WorkerSnapshot { spare: spares.contains(&worker.id), ..*worker };
            self.put(format!("{WORKER}{ix}/{}", worker.id), &worker);
        }
        let adopted = places.len();
        self.out.repairs.push(format!("{name}: recovered {adopted} processes, and resolved its configuration again"));
    }

    /// The place of each process of an app. If a slot has several, the youngest ready one stays (else the youngest);
    /// the others drain.
    fn places(&self, name: &str, ours: &[(ChildInfo, Tag)], stopping: bool) -> Vec<WorkerSnapshot> {
        let said = |worker| self.get::<ServesRecord>(&format!("{SERVES}{worker}"));
        let leaves = |worker| stopping || said(worker).is_some_and(|said| said.goodbye);
        let is_ready = |worker| {
            let is_node = self.ground.held.contains(&spawn::channel_name(worker));
            let unknown = self.lost.contains(&format!("{SERVES}{worker}"));
            !is_node || unknown || said(worker).is_some_and(|said| !said.keys.is_empty())
        };
        let rank = |worker: WorkerId| (is_ready(worker), worker);
        let times = self.configured(name).map(|app| (app.ready_timeout, app.drain_timeout));
        let after = |time: fn(&(Duration, Duration)) -> Duration| {
            let time = times.as_ref().map_or(Duration::ZERO, time);
            self.ground.now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(0))
        };
        let place = |(child, tag): &(ChildInfo, Tag)| {
            let rivals = ours.iter().filter(|(_, other)| other.slot == tag.slot).map(|(child, _)| child.worker);
            let first = rivals.filter(|rival| !leaves(*rival)).max_by_key(|rival| rank(*rival));
            let phase = if first != Some(child.worker) {
                Phase::Draining { deadline_ms: after(|times| times.1) }
            } else if is_ready(child.worker) {
                Phase::Ready { since_ms: child.started_ms, idle_since_ms: None, severed_at_ms: None }
            } else {
                let deadline_ms = after(|times| times.0);
                let (ready_at_ms, severed_at_ms, warming) = (None, None, None);
                Phase::Starting { deadline_ms, ready_at_ms, online: false, severed_at_ms, warming }
            };
            WorkerSnapshot {
                id: child.worker,
                slot: tag.slot,
                generation: tag.generation,
                pid: Some(child.pid),
                spawned_at_ms: child.started_ms,
                phase,
                by_itself: false,
                spare: false,
            }
        };
        ours.iter().map(place).collect()
    }

    /// The app's agent, if it lives. A generation that has workers had its agent.
    fn agent_of(&self, name: &str, seen: &BTreeSet<Generation>) -> AgentSnapshot {
        let ready =
            |child: &ChildInfo| Phase::Ready { since_ms: child.started_ms, idle_since_ms: None, severed_at_ms: None };
        let process = self.beside(name, Slot::AGENT, ready);
        AgentSnapshot { ready_in: seen.clone(), process, ..AgentSnapshot::default() }
    }

    /// The command before the app's workers, if it runs. It has ended well in a generation that has workers; in another one it
    /// runs again where nobody knows how it ended.
    fn before_of(&self, name: &str, places: &[WorkerSnapshot]) -> BeforeSnapshot {
        let time = self.configured(name).map_or(Duration::ZERO, |app| app.before_timeout);
        let deadline_ms = self.ground.now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(0));
        let (ready_at_ms, severed_at_ms, warming) = (None, None, None);
        let starting = Phase::Starting { deadline_ms, ready_at_ms, online: false, severed_at_ms, warming };
        let process = self.beside(name, Slot::BEFORE, |_| starting);
        let done = places.iter().map(|worker| worker.generation).collect();
        BeforeSnapshot { done, process, ..BeforeSnapshot::default() }
    }

    /// The living process of the app in this slot beside its workers.
    fn beside(&self, name: &str, slot: Slot, phase: impl Fn(&ChildInfo) -> Phase) -> Option<WorkerSnapshot> {
        let living = self.ground.children.iter().filter(|child| child.status.is_none());
        let those = living.filter_map(|child| Some((child, beside_tag(&child.tag, slot, name)?)));
        those.max_by_key(|(child, _)| child.worker).map(|(child, generation)| WorkerSnapshot {
            id: child.worker,
            slot,
            generation,
            pid: Some(child.pid),
            spawned_at_ms: child.started_ms,
            phase: phase(child),
            by_itself: false,
            spare: false,
        })
    }

    // ---- listeners, and the workers that serve them ----

    fn listeners(&mut self) {
        for name in &self.ground.held {
            let Some((app, key)) = listener::names_in(name) else { continue };
            let record_key = format!("{LISTENER}{app}/{key}");
            if !self.records.contains_key(&record_key) {
                let record = self.make_listener(app, key);
                self.put(record_key, &record);
                self.out.repairs.push(format!("{app}: recovered the listener {key} from its socket"));
            }
        }
    }

    /// The key of a configured listener contains address and number.
    fn make_listener(&self, app: &str, key: &str) -> ListenerRecord {
        let addresses = self.configured(app).map_or_else(Vec::new, |app| app.listen.clone());
        let found = key.rsplit_once('#').and_then(|(address, number)| {
            let address = addresses.iter().map(ToString::to_string).find(|known| known == address)?;
            Some((address, number.parse::<usize>().ok()?))
        });
        let (configured, order) =
            found.map_or((None, limits::LISTENER_KEYS_PER_APP_MAX), |(address, order)| (Some(address), order));
        // The keeper holds the sockets of a group one by one, the first as the listener itself.
        let more = (1..).take_while(|slot| self.ground.held.contains(&listener::slot_name(app, key, *slot))).count();
        let sockets = if more == 0 { 0 } else { more as u32 + 1 };
        ListenerRecord {
            key: key.to_owned(),
            configured,
            data: None,
            order,
            sockets,
            full: false,
            given: false,
            places: Vec::new(),
        }
    }

    /// Assumes that a worker serves every listener: it refuses a connection for a server that it does not have, and
    /// another worker gets the connection. A leaving worker was told to leave.
    fn serves(&mut self) {
        let lost: Vec<WorkerId> = self.lost.iter().filter_map(|key| served_by(key)).collect();
        let leaving: BTreeSet<WorkerId> = self
            .records
            .keys()
            .filter(|key| key.starts_with(WORKER))
            .filter_map(|key| self.get::<WorkerSnapshot>(key))
            .filter(|worker| worker.phase.is_leaving())
            .map(|worker| worker.id)
            .collect();
        for id in lost {
            let Some((_, tag)) = self.living.iter().find(|(child, _)| child.worker == id) else { continue };
            let prefix = format!("{LISTENER}{}/", tag.app);
            let keys = self.records.keys().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect();
            let goodbye = leaving.contains(&id);
            let record = ServesRecord { keys, goodbye, greeted: true, ..ServesRecord::default() };
            self.put(format!("{SERVES}{id}"), &record);
        }
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
