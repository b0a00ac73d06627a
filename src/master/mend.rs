//! Notes of a former master that cannot be read, or are not there: what they said is made up from what is left, which is
//! the other notes, what the keeper says of its children, the names of the files that it holds, and the configuration.
//! What runs goes on; what nobody remembers (how often a slot was refilled, a reload half done) begins anew. Pure: the
//! time is an argument, and nothing is looked up.
use super::memory::{
    AppNote, DeploymentNote, GenerationNote, ListenerNote, ServesNote, SlotNote, WorkerNote, reads_as_its_kind,
};
use super::{listener, notes, spawn};
use crate::config::{self, Config};
use crate::ids::{Generation, Slot, WorkerId};
use crate::keeper::link::ChildInfo;
use crate::limits;
use crate::supervisor::{AgentMemory, AgentPhase, AgentProcess, AppMemory, Phase, SlotMemory, SlotPhase, WorkerMemory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Notes = BTreeMap<String, Vec<u8>>;

/// What is known without the notes.
pub(super) struct Ground<'a> {
    /// The keeper's children.
    pub(super) children: &'a [ChildInfo],
    /// Names of the files that it holds.
    pub(super) held: BTreeSet<String>,
    /// The configurations that can be read, by the number of their sources.
    pub(super) configs: BTreeMap<u32, Config>,
    /// CPUs that may be used.
    pub(super) cpus: u32,
    /// Now, in milliseconds.
    pub(super) now_ms: u64,
}

/// What had to be done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mended {
    /// One sentence for each note.
    pub(super) told: Vec<String>,
    /// Keys of notes that are new or other ones now, and of those that are gone.
    pub(super) changed: BTreeSet<String>,
}

/// What a process was spawned for, as its tag says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) app: String,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

impl Tag {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        format!("{}/{}/{}", self.generation.0, self.slot.0, self.app).into_bytes()
    }

    fn read(bytes: &[u8]) -> Option<Tag> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '/');
        let generation = parts.next()?.parse().ok()?;
        let slot = parts.next()?.parse().ok().filter(|slot| *slot < limits::WORKERS_MAX)?;
        let app = parts.next().filter(|app| !app.is_empty())?.to_owned();
        Some(Tag { app, slot: Slot(slot), generation: Generation(generation) })
    }
}

/// What the process of an app's agent was spawned for.
pub(super) fn agent_tag_bytes(app: &str, generation: Generation) -> Vec<u8> {
    format!("{}/agent/{app}", generation.0).into_bytes()
}

/// The generation of an agent of this app, where the tag is one's.
fn agent_tag(bytes: &[u8], app: &str) -> Option<Generation> {
    let (generation, rest) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
    let own = rest.strip_prefix("agent/").is_some_and(|name| name == app);
    generation.parse().ok().filter(|_| own).map(Generation)
}

/// Puts notes that can be read in the place of those that cannot. `deployment` makes one for the deployment as a whole;
/// it gets the number of the last configuration and one above every worker id that is known.
pub(super) fn mend(
    notes: &mut Notes,
    ground: &Ground<'_>,
    deployment: impl FnOnce(u32, u64) -> DeploymentNote,
) -> Mended {
    let tags = ground.children.iter().filter_map(|child| Some((child.worker, (child, Tag::read(&child.tag)?))));
    let mut work = Work { notes, ground, tags: tags.collect(), bad: BTreeMap::new(), out: Mended::default() };
    work.take_out_what_is_bad();
    work.deployment(deployment);
    work.listeners();
    for ix in 0..work.app_count() {
        let Some((app, made)) = work.app(ix) else { break };
        work.workers(ix, &app);
        work.slots(ix, &app, made);
    }
    work.serves();
    work.tell();
    work.out
}

struct Work<'a> {
    notes: &'a mut Notes,
    ground: &'a Ground<'a>,
    tags: BTreeMap<WorkerId, (&'a ChildInfo, Tag)>,
    /// Notes that could not be read, and why.
    bad: BTreeMap<String, String>,
    out: Mended,
}

/// The numbers at the end of a key, such as `3/7` of `v1/slot/3/7`.
fn numbers(key: &str, prefix: &str) -> Option<(usize, u64)> {
    let (first, second) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

impl Work<'_> {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_slice(self.notes.get(key)?).ok()
    }

    fn put<T: Serialize>(&mut self, key: String, note: &T) {
        // What cannot be written would be missing, as it was.
        if let Ok(bytes) = serde_json::to_vec(note) {
            self.out.changed.insert(key.clone());
            self.notes.insert(key, bytes);
        }
    }

    fn take_out_what_is_bad(&mut self) {
        for (key, bytes) in self.notes.iter() {
            if let Err(why) = reads_as_its_kind(key, bytes) {
                self.bad.insert(key.clone(), why);
            }
        }
        for key in self.bad.keys() {
            self.notes.remove(key);
            self.out.changed.insert(key.clone());
        }
    }

    fn tell(&mut self) {
        for (key, why) in &self.bad {
            let became = if self.notes.contains_key(key) { "made up from what else is known" } else { "left out" };
            self.out.told.push(format!("the former master's note {key} cannot be read ({why}); it was {became}"));
        }
        let new = self.out.changed.iter().filter(|key| !self.bad.contains_key(*key) && self.notes.contains_key(*key));
        self.out.told.extend(new.map(|key| format!("the former master left no note {key} that fits; it was made up")));
    }

    /// The configuration that counts, with its number: the noted one, else the last one that can be read.
    fn last_config(&self) -> Option<(u32, &Config)> {
        let noted = self.get::<DeploymentNote>(notes::DEPLOYMENT);
        let noted = noted.and_then(|note| self.ground.configs.get_key_value(&note.last_source));
        let found = noted.or_else(|| self.ground.configs.iter().next_back());
        found.map(|(number, config)| (*number, config))
    }

    fn configured(&self, name: &str) -> Option<&config::App> {
        self.last_config()?.1.apps.iter().find(|app| app.name == name)
    }

    // ---- the whole ----

    fn deployment(&mut self, make: impl FnOnce(u32, u64) -> DeploymentNote) {
        let last = self.last_config().map_or(0, |(number, _)| number);
        match self.get::<DeploymentNote>(notes::DEPLOYMENT) {
            Some(note) if self.ground.configs.contains_key(&note.last_source) => {}
            Some(mut note) => {
                note.last_source = last;
                self.put(notes::DEPLOYMENT.to_owned(), &note);
            }
            None => {
                let known = self.ground.children.iter().map(|child| child.worker.0);
                let noted = self.notes.keys().filter_map(|key| numbers(key, notes::WORKER)).map(|(_, id)| id);
                let above = known.chain(noted).max().map_or(1, |id| id + 1);
                self.put(notes::DEPLOYMENT.to_owned(), &make(last, above));
            }
        }
    }

    // ---- apps ----

    fn app_key(ix: usize) -> String {
        format!("{}{ix}", notes::APP)
    }

    /// Apps are numbered without a gap, and none ever goes.
    fn app_count(&self) -> usize {
        let last = |key: &String| key.strip_prefix(notes::APP)?.parse::<usize>().ok();
        let noted = self.notes.keys().chain(self.bad.keys()).filter_map(last).map(|ix| ix + 1).max();
        let configured = self.last_config().map_or(0, |(_, config)| config.apps.len());
        noted.unwrap_or(0).max(configured).min(limits::APPS_MAX)
    }

    /// The note of an app, and whether it was made up.
    fn app(&mut self, ix: usize) -> Option<(AppNote, bool)> {
        let key = Self::app_key(ix);
        if let Some(note) = self.get::<AppNote>(&key) {
            match self.with_sources(ix, note.clone()) {
                Ok(mended) => {
                    if mended != note {
                        self.put(key, &mended);
                    }
                    return Some((mended, false));
                }
                Err(why) => {
                    self.notes.remove(&key);
                    self.bad.insert(key.clone(), why);
                }
            }
        }
        let name = self.name_of(ix)?;
        let note = self.make_app(ix, name);
        self.put(key, &note);
        Some((note, true))
    }

    /// The note with a configuration for each of its generations: where the right one is lost, one that has the app.
    fn with_sources(&self, ix: usize, mut note: AppNote) -> Result<AppNote, String> {
        if (0..ix).any(|n| self.get::<AppNote>(&Self::app_key(n)).is_some_and(|other| other.name == note.name)) {
            return Err(format!("{} is there twice", note.name));
        }
        let has = |config: &Config| config.apps.iter().any(|app| app.name == note.name);
        let fallback = self.last_config().filter(|(_, config)| has(config)).map(|(number, _)| number);
        let any = || self.ground.configs.iter().rev().find(|(_, config)| has(config)).map(|(number, _)| *number);
        let fallback = fallback.or_else(any).ok_or_else(|| format!("no configuration has an app {}", note.name))?;
        for generation in note.generations.values_mut() {
            if !self.ground.configs.get(&generation.source).is_some_and(has) {
                generation.source = fallback;
            }
        }
        if note.generations.is_empty() {
            return Err("it has no generation".to_owned());
        }
        Ok(note)
    }

    /// Which app had this number: its workers know; else the next one in the configuration that nobody is.
    fn name_of(&self, ix: usize) -> Option<String> {
        let all = 0..self.app_count();
        let taken: Vec<String> =
            all.filter_map(|n| self.get::<AppNote>(&Self::app_key(n))).map(|note| note.name).collect();
        let keys = self.notes.keys().chain(self.bad.keys());
        let ids = keys.filter_map(|key| numbers(key, notes::WORKER)).filter(|(app, _)| *app == ix);
        let by_worker = ids.filter_map(|(_, id)| self.tags.get(&WorkerId(id))).map(|(_, tag)| tag.app.clone());
        let by_config = self.last_config().into_iter().flat_map(|(_, config)| &config.apps).map(|app| app.name.clone());
        by_worker.chain(by_config).find(|name| !taken.contains(name) && self.configured(name).is_some())
    }

    fn make_app(&self, ix: usize, name: String) -> AppNote {
        let slot_keys = self.notes.keys().chain(self.bad.keys()).filter_map(|key| numbers(key, notes::SLOT));
        let indices: BTreeSet<u64> = slot_keys.filter(|(app, _)| *app == ix).map(|(_, index)| index).collect();
        let slots: Vec<SlotMemory> = self.slots_of(ix);
        let noted = self.workers_of(ix);
        let leaving = |id: &WorkerId| noted.iter().any(|worker| worker.id == *id && worker.phase.is_leaving());
        let alive: Vec<&Tag> = self
            .tags
            .iter()
            .filter(|(id, (child, tag))| tag.app == name && child.status.is_none() && !leaving(id))
            .map(|(_, (_, tag))| tag)
            .collect();
        let noted_generations = noted.iter().map(|w| w.generation).chain(slots.iter().map(|slot| slot.generation));
        let seen: BTreeSet<Generation> = alive.iter().map(|tag| tag.generation).chain(noted_generations).collect();
        let generation = alive.iter().map(|tag| tag.generation).max().or(seen.last().copied());
        let generation = generation.unwrap_or(Generation(1));
        let configured = self.configured(&name).map_or(1, |app| app.workers.count(self.ground.cpus));
        let known = indices.iter().copied().chain(alive.iter().map(|tag| u64::from(tag.slot.0))).max();
        let count = known.map_or(configured, |last| u32::try_from(last + 1).unwrap_or(1));
        // Nobody works there and nobody is to: it had been stopped.
        let stopped = alive.is_empty() && !slots.is_empty() && slots.iter().all(|s| s.phase == SlotPhase::Stopped);
        let memory = AppMemory {
            generation,
            slots: count.clamp(1, limits::WORKERS_MAX),
            reload: None,
            queued: None,
            queued_scale: None,
            stopping: stopped.then_some(false),
            then_start: None,
            told_ready: !alive.is_empty(),
            agent: self.agent_of(&name, &seen),
        };
        let mut note = AppNote::new(&name, &memory, seen.last().copied().unwrap_or(generation).max(generation), 0);
        let source = self.last_config().map_or(0, |(number, _)| number);
        let generations = seen.into_iter().chain([generation]);
        note.generations =
            generations.map(|generation| (generation.0, GenerationNote::looked_up_anew(source))).collect();
        note
    }

    /// The agent of an app, where one lives. Whoever has workers of a generation had its agent.
    fn agent_of(&self, name: &str, seen: &BTreeSet<Generation>) -> AgentMemory {
        let living = self.ground.children.iter().filter(|child| child.status.is_none());
        let agents = living.filter_map(|child| Some((child, agent_tag(&child.tag, name)?)));
        let process = agents.max_by_key(|(child, _)| child.worker).map(|(child, generation)| AgentProcess {
            id: child.worker,
            generation,
            pid: Some(child.pid),
            spawned_at_ms: child.started_ms,
            phase: AgentPhase::Ready { since_ms: child.started_ms },
        });
        AgentMemory { ready_in: seen.clone(), process, ..AgentMemory::default() }
    }

    // ---- listeners ----

    fn listeners(&mut self) {
        for name in &self.ground.held {
            let Some((app, key)) = listener::names_in(name) else { continue };
            let note_key = format!("{}{app}/{key}", notes::LISTENER);
            if !self.notes.contains_key(&note_key) {
                let note = self.make_listener(app, key);
                self.put(note_key, &note);
            }
        }
    }

    /// A configured one has its address and its number in its key.
    fn make_listener(&self, app: &str, key: &str) -> ListenerNote {
        let addresses = self.configured(app).map_or_else(Vec::new, |app| app.listen.clone());
        let found = key.rsplit_once('#').and_then(|(address, number)| {
            let address = addresses.iter().map(ToString::to_string).find(|known| known == address)?;
            Some((address, number.parse::<usize>().ok()?))
        });
        let (configured, order) =
            found.map_or((None, limits::LISTENER_KEYS_PER_APP_MAX), |(address, order)| (Some(address), order));
        // The sockets of a group are held one by one, its first as the listener itself.
        let more = (1..).take_while(|slot| self.ground.held.contains(&listener::slot_name(app, key, *slot))).count();
        let sockets = if more > 0 { more as u32 + 1 } else { 0 };
        ListenerNote { key: key.to_owned(), configured, data: None, order, sockets, full: false }
    }

    // ---- workers ----

    fn workers_of(&self, ix: usize) -> Vec<WorkerMemory> {
        let prefix = format!("{}{ix}/", notes::WORKER);
        let keys = self.notes.keys().filter(|key| key.starts_with(&prefix));
        keys.filter_map(|key| self.get::<WorkerNote>(key)).map(Into::into).collect()
    }

    fn workers(&mut self, ix: usize, app: &AppNote) {
        let ours = self.tags.values().filter(|(child, tag)| tag.app == app.name && child.status.is_none());
        let ours: Vec<(ChildInfo, Tag)> = ours.map(|(child, tag)| (ChildInfo::clone(child), tag.clone())).collect();
        for (child, tag) in ours {
            let key = format!("{}{ix}/{}", notes::WORKER, child.worker);
            if let Some(noted) = self.get::<WorkerNote>(&key).map(WorkerMemory::from) {
                if (noted.slot, noted.generation) == (tag.slot, tag.generation) {
                    continue;
                }
                self.bad.insert(key.clone(), "its process was started for another slot or generation".to_owned());
            }
            let worker = WorkerMemory {
                id: child.worker,
                slot: tag.slot,
                generation: tag.generation,
                pid: Some(child.pid),
                spawned_at_ms: child.started_ms,
                phase: self.phase_of(ix, app, &child, &tag),
            };
            self.put(key, &WorkerNote::from(&worker));
        }
    }

    /// Where a worker stands, from what it said over its channel and whether its slot counts on it.
    fn phase_of(&self, ix: usize, app: &AppNote, child: &ChildInfo, tag: &Tag) -> Phase {
        let now_ms = self.ground.now_ms;
        let times = self.configured(&app.name).map(|app| (app.ready_timeout, app.drain_timeout));
        let after = |time: fn(&(Duration, Duration)) -> Duration| {
            let time = times.as_ref().map_or(Duration::ZERO, time);
            now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(0))
        };
        let key = format!("{}{}", notes::SERVES, child.worker);
        let said: Option<ServesNote> = self.get(&key);
        let slot = self.get::<SlotNote>(&format!("{}{ix}/{}", notes::SLOT, tag.slot)).map(SlotMemory::from);
        let wanted = slot.is_none_or(|slot| [slot.current, slot.incoming].contains(&Some(child.worker)));
        if app.stopping.is_some() || !wanted || said.as_ref().is_some_and(|said| said.goodbye) {
            return Phase::Draining { deadline_ms: after(|times| times.1) };
        }
        let is_node = self.ground.held.contains(&spawn::channel_name(child.worker));
        let serves = said.is_some_and(|said| !said.keys.is_empty()) || self.bad.contains_key(&key);
        if is_node && !serves {
            let deadline_ms = after(|times| times.0);
            return Phase::Starting { deadline_ms, ready_at_ms: None, online: false, severed_at_ms: None };
        }
        Phase::Ready { since_ms: child.started_ms, idle_since_ms: None, severed_at_ms: None }
    }

    // ---- slots ----

    fn slots_of(&self, ix: usize) -> Vec<SlotMemory> {
        let prefix = format!("{}{ix}/", notes::SLOT);
        let keys = self.notes.keys().filter(|key| key.starts_with(&prefix));
        keys.filter_map(|key| self.get::<SlotNote>(key)).map(Into::into).collect()
    }

    fn slots(&mut self, ix: usize, app: &AppNote, made: bool) {
        let workers = self.workers_of(ix);
        let slots = app.slots.min(limits::WORKERS_MAX);
        for index in 0..slots {
            let key = format!("{}{ix}/{index}", notes::SLOT);
            // One that is not there, beside an app that can be read, is about to be filled or to go.
            if self.notes.contains_key(&key) || !(made || self.bad.contains_key(&key)) {
                continue;
            }
            let here = || workers.iter().filter(|w| w.slot.0 == index && !w.phase.is_leaving());
            let is_ready = |w: &&WorkerMemory| matches!(w.phase, Phase::Ready { .. });
            let ready = here().filter(is_ready).max_by_key(|w| w.id);
            let starting = here().filter(|w| !is_ready(w)).max_by_key(|w| w.id);
            let current = ready.or(starting);
            let replaced = app.reload_starts(index);
            let phase = if app.stopping.is_some() { SlotPhase::Stopped } else { SlotPhase::Filled };
            let slot = SlotMemory {
                index,
                generation: current.map_or(Generation(app.generation), |w| w.generation),
                phase,
                current: current.map(|w| w.id),
                incoming: starting.filter(|_| replaced && ready.is_some()).map(|w| w.id),
                failures: Vec::new(),
                consecutive: 0,
                restarts: 0,
                runs: 0,
                replace_after_ms: 0,
            };
            self.put(key, &SlotNote::from(&slot));
        }
    }

    // ---- what workers serve ----

    /// It is taken to serve all that there is: a worker refuses a connection of a server that it has not, and another
    /// one gets it. One that leaves was told so.
    fn serves(&mut self) {
        let bad: Vec<String> = self.bad.keys().filter(|key| key.starts_with(notes::SERVES)).cloned().collect();
        for key in bad {
            let id = key.strip_prefix(notes::SERVES).and_then(|id| id.parse().ok()).map(WorkerId);
            let Some((id, app)) = id.and_then(|id| Some((id, self.tags.get(&id)?.1.app.clone()))) else { continue };
            let prefix = format!("{}{app}/", notes::LISTENER);
            let of_app = self.notes.keys().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect();
            let workers = (0..self.app_count()).flat_map(|ix| self.workers_of(ix));
            let goodbye = workers.into_iter().any(|worker| worker.id == id && worker.phase.is_leaving());
            self.put(key, &ServesNote { keys: of_app, goodbye, taken: 0, greeted: true });
        }
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
