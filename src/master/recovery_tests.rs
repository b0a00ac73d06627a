//! Tests of recovery: whichever record is damaged, running processes keep serving.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::resolve::resolve;
use crate::config::sources::{FileSource, Sources};
use crate::master::checkpoint::records::ScaleRecord;
use crate::supervisor::{self, Action, AgentSnapshot, Cx, FALLBACK_POLICY, Policy};

const NOW_MS: u64 = 100_000;

/// Two apps in one file: `web` with three workers, `api` with one.
fn config() -> Config {
    let text = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"a.js\"]\nworkers = 3\nlisten = \"127.0.0.1:8080\"\n\
                [[app]]\nname = \"api\"\ncommand = [\"true\"]\nprotocol = \"none\"\nworkers = 1\n";
    let file = Some(FileSource { path: "/c.toml".to_owned(), text: text.to_owned(), ..FileSource::default() });
    resolve(&Sources { start_folder: "/".to_owned(), file, ..Sources::default() }).unwrap()
}

fn policy() -> Policy {
    FALLBACK_POLICY.clone()
}

/// A checkpoint, and the keeper's processes and fds.
struct Left {
    notes: Records,
    children: Vec<ChildInfo>,
    held: BTreeSet<String>,
    configs: BTreeMap<u32, Config>,
}

impl Left {
    fn note<T: Value>(&mut self, key: &str, note: &T) {
        self.notes.insert(key.to_owned(), record::to_document(note).unwrap());
    }

    fn worker(&mut self, app: (usize, &str), id: u64, slot: u32, generation: u32, phase: Phase) {
        let (worker, pid, slot, generation) = (WorkerId(id), 1_000 + id as i32, Slot(slot), Generation(generation));
        let (pid_known, by_itself) = (Some(pid), false);
        let memory = WorkerSnapshot {
            id: worker,
            slot,
            generation,
            pid: pid_known,
            spawned_at_ms: 500,
            phase,
            by_itself,
            spare: false,
        };
        self.note(&format!("worker/{}/{id}", app.0), &memory);
        let tag = Tag { app: app.1.to_owned(), slot, generation, socket: None }.to_bytes();
        self.children.push(ChildInfo { worker, pid, tag, started_ms: 500, status: None, out_of_memory: false });
        if app.1 == "web" {
            self.held.insert(format!("channel/{id}"));
            let (keys, goodbye) = (vec!["127.0.0.1:8080#0".to_owned()], phase.is_leaving());
            let keys = if matches!(phase, Phase::Starting { .. }) { Vec::new() } else { keys };
            if !keys.is_empty() {
                self.note(&format!("serves/{id}"), &ServesRecord { keys, goodbye, ..ServesRecord::default() });
            }
        }
    }

    fn slot(&mut self, app: usize, index: u32, generation: u32, current: Option<u64>, incoming: Option<u64>) {
        let memory = SlotSnapshot {
            index,
            generation: Generation(generation),
            phase: SlotPhase::Filled,
            current: current.map(WorkerId),
            incoming: incoming.map(WorkerId),
            failures: Vec::new(),
            consecutive: 0,
            restarts: 4,
            runs: 0,
            proven: false,
            replace_after_ms: 0,
        };
        self.note(&format!("slot/{app}/{index}"), &memory);
    }

    fn app(&mut self, ix: usize, name: &str, generation: u32, slots: u32, reload: Option<supervisor::ReloadSnapshot>) {
        let last = reload.as_ref().map_or(Generation(generation), |reload| reload.to);
        let memory = AppSnapshot {
            generation: Generation(generation),
            slots,
            wanted: slots,
            reload,
            queued: None,
            queued_scale: None,
            stopping: None,
            then_start: None,
            reported_ready: true,
            agent: AgentSnapshot::default(),
            before: Default::default(),
            held: None,
        };
        let known = [Generation(generation), last];
        let note = AppRecord {
            name: name.to_owned(),
            rules: memory,
            last_generation: last,
            generations: known.map(|it| (it, GenerationRecord { source: 1, ..GenerationRecord::default() })).into(),
            deleted: false,
            restarts: 9,
            spawned: 9,
            history: vec![9],
            scale: ScaleRecord::default(),
            stops_at_ms: None,
        };
        self.note(&format!("app/{ix}"), &note);
    }

    fn recover(&mut self) -> Recovered {
        let ground = Ground {
            children: &self.children,
            held: self.held.clone(),
            configs: self.configs.clone(),
            cpus: 2,
            now_ms: NOW_MS,
        };
        recover(&mut self.notes, &ground, |last_source, worker_ids_below| DeploymentRecord {
            name: "made".to_owned(),
            last_source,
            worker_ids_below,
            ..DeploymentRecord::default()
        })
    }

    /// The first actions of a new master for each app.
    fn restore(&self) -> Vec<(AppRecord, supervisor::App, Vec<Action>)> {
        let prefix = |prefix: &str, ix: usize| format!("{prefix}{ix}/");
        let mut restored = Vec::new();
        for ix in 0.. {
            let Some(bytes) = self.notes.get(&format!("app/{ix}")) else { break };
            let app: AppRecord = read(bytes).unwrap();
            let of = |prefix: String| self.notes.iter().filter(move |(key, _)| key.starts_with(&prefix));
            let slots = of(prefix(SLOT, ix)).map(|(_, b)| read::<SlotSnapshot>(b).unwrap());
            let workers = of(prefix(WORKER, ix)).map(|(_, b)| read::<WorkerSnapshot>(b).unwrap());
            let policies = app.generations.keys().map(|generation| (*generation, policy())).collect();
            let (mut next_worker, mut actions) = (1_000, Vec::new());
            let mut cx = Cx { now_ms: NOW_MS, next_worker: &mut next_worker, actions: &mut actions };
            let pids: BTreeMap<WorkerId, i32> = self.children.iter().map(|child| (child.worker, child.pid)).collect();
            let known = |id: WorkerId| pids.get(&id).copied();
            let rules = supervisor::App::restore(
                app.rules.clone(),
                slots.collect(),
                workers.collect(),
                policies,
                &known,
                &mut cx,
            );
            restored.push((app, rules, actions));
        }
        restored
    }

    /// Asserts that every living process has a place in its own app.
    fn everybody_is_known(&self) {
        let restored = self.restore();
        for child in self.children.iter().filter(|child| child.status.is_none()) {
            let tag = Tag::read(&child.tag).unwrap();
            let (_, rules, _) = restored.iter().find(|(note, ..)| note.name == tag.app).expect("its app");
            let worker = rules.worker(child.worker).expect("its worker");
            assert_eq!((worker.slot, worker.pid), (tag.slot, Some(child.pid)));
        }
    }
}

fn ready() -> Phase {
    Phase::Ready { since_ms: 600, idle_since_ms: None, severed_at_ms: None }
}

/// Nothing is under way, except that one old worker of `web` drains.
fn at_rest() -> Left {
    let mut left = Left {
        notes: Records::new(),
        children: Vec::new(),
        held: ["listen/web/127.0.0.1:8080#0", "listen/web/null:9:4::0", "slot/web/null:9:4::0/1"]
            .map(str::to_owned)
            .into(),
        configs: BTreeMap::from([(1, config())]),
    };
    let deployment = DeploymentRecord { name: "c".into(), worker_ids_below: 257, last_source: 1, ..Default::default() };
    left.note(DEPLOYMENT, &deployment);
    let listener = |key: &str, configured: Option<&str>, order, sockets| ListenerRecord {
        key: key.to_owned(),
        configured: configured.map(str::to_owned),
        data: None,
        order,
        sockets,
        full: false,
        given: false,
        places: Vec::new(),
    };
    left.note("listener/web/127.0.0.1:8080#0", &listener("127.0.0.1:8080#0", Some("127.0.0.1:8080"), 0, 0));
    left.note("listener/web/null:9:4::0", &listener("null:9:4::0", None, 1, 2));
    for (slot, id) in [(0, 1), (1, 2), (2, 3)] {
        left.worker((0, "web"), id, slot, 1, ready());
        left.slot(0, slot, 1, Some(id), None);
    }
    left.worker((0, "web"), 5, 1, 1, Phase::Draining { deadline_ms: NOW_MS + 5 });
    left.app(0, "web", 1, 3, None);
    left.worker((1, "api"), 4, 0, 1, ready());
    left.slot(1, 0, 1, Some(4), None);
    left.app(1, "api", 1, 1, None);
    left
}

/// Ways to damage a record.
fn damages(bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut changed = bytes.to_vec();
    *changed.last_mut().unwrap() ^= 0x55;
    let mut newer = bytes.to_vec();
    newer[8] = record::VERSION as u8 + 1;
    vec![
        Some(b"no record".to_vec()),
        Some(bytes[..bytes.len() / 2].to_vec()),
        Some(Vec::new()),
        Some(changed),
        Some(newer),
        // A valid record of another type.
        Some(record::seal(&[1, 3, 9, 9, 9]).unwrap()),
    ]
}

#[test]
fn sound_notes_stay_as_they_are() {
    let mut left = at_rest();
    let before = left.notes.clone();
    assert_eq!(left.recover(), Recovered::default());
    assert_eq!(left.notes, before);
}

#[test]
fn whichever_note_is_damaged_everybody_goes_on_serving() {
    let sound = at_rest();
    for (key, bytes) in &sound.notes {
        for damage in damages(bytes) {
            let mut left = at_rest();
            left.notes.insert(key.clone(), damage.unwrap());
            if left.notes[key] == *bytes {
                continue;
            }
            let repairs = left.recover().repairs;
            left.everybody_is_known();
            assert!(repairs.iter().any(|line| line.contains(key.as_str())), "{key}: {repairs:?}");
            let wanted = [vec![1, 2, 3], vec![4]];
            for ((note, _, actions), wanted) in left.restore().into_iter().zip(wanted) {
                let serve: Vec<u64> = actions
                    .iter()
                    .filter_map(|a| if let Action::Serve { worker } = a { Some(worker.0) } else { None })
                    .collect();
                assert_eq!(serve, wanted, "{key} of {}: {actions:?}", note.name);
                let drain = Action::Drain { worker: WorkerId(5) };
                let rest: Vec<&Action> = actions
                    .iter()
                    .filter(|a| !matches!(a, Action::Serve { .. } | Action::Report(_)) && **a != drain)
                    .collect();
                assert!(rest.is_empty(), "{key} of {}: {rest:?}", note.name);
            }
        }
    }
}

#[test]
fn what_is_made_up_says_what_it_said_as_far_as_anybody_knows() {
    let sound = at_rest();
    let mut left = at_rest();
    for key in ["listener/web/127.0.0.1:8080#0", "listener/web/null:9:4::0", "serves/1", "serves/5"] {
        left.notes.insert(key.to_owned(), b"?".to_vec());
    }
    assert_eq!(left.recover().changed.len(), 4);
    let listener = "listener/web/127.0.0.1:8080#0";
    assert_eq!(left.notes[listener], sound.notes[listener]);
    let serves: ServesRecord = read(&left.notes["serves/1"]).unwrap();
    assert_eq!((serves.keys.len(), serves.goodbye), (2, false));
    let serves: ServesRecord = read(&left.notes["serves/5"]).unwrap();
    assert!(serves.goodbye, "a draining worker was told, and must not be told twice");
    let mut left = at_rest();
    left.notes.insert(DEPLOYMENT.to_owned(), b"{".to_vec());
    left.recover();
    let note: DeploymentRecord = read(&left.notes[DEPLOYMENT]).unwrap();
    assert_eq!((note.name.as_str(), note.last_source, note.worker_ids_below), ("made", 1, 6));
    // A tag that only another version knows is left out, so that a later version never takes it for its own.
    let mut left = at_rest();
    left.notes.insert("moves/0".to_owned(), b"{}".to_vec());
    let recovered = left.recover();
    assert!(!left.notes.contains_key("moves/0") && recovered.changed.contains("moves/0"));
    assert!(recovered.repairs[0].contains("does not know"), "{recovered:?}");
}

#[test]
fn with_no_note_at_all_the_tags_say_who_is_where() {
    let mut left = at_rest();
    left.notes.clear();
    left.recover();
    left.everybody_is_known();
    let restored = left.restore();
    let names: Vec<&str> = restored.iter().map(|(note, ..)| note.name.as_str()).collect();
    assert_eq!(names, ["web", "api"]);
    let mut left = at_rest();
    left.notes.values_mut().for_each(|note| *note = b"\0".to_vec());
    left.recover();
    left.everybody_is_known();
    // It is unknown which of the two in one slot drains: the younger one stays.
    let serving = [vec![1, 3, 5], vec![4]];
    for ((_, _, actions), serving) in left.restore().into_iter().zip(serving) {
        assert!(serving.iter().all(|id| actions.contains(&Action::Serve { worker: WorkerId(*id) })), "{actions:?}");
        let hurts = |a: &Action| matches!(a, Action::Kill { .. } | Action::Terminate { .. } | Action::Spawn { .. });
        assert!(!actions.iter().any(hurts), "{actions:?}");
    }
}

#[test]
fn an_app_that_was_about_to_be_started_is_started() {
    let mut left = at_rest();
    left.notes.retain(|key, _| key == DEPLOYMENT);
    left.children.clear();
    left.recover();
    let spawned = |actions: &[Action]| actions.iter().filter(|a| matches!(a, Action::Spawn { .. })).count();
    let counts: Vec<usize> = left.restore().iter().map(|(_, _, actions)| spawned(actions)).collect();
    assert_eq!(counts, [3, 1]);
}

#[test]
fn an_app_that_was_stopped_stays_so() {
    let mut left = at_rest();
    left.children.retain(|child| child.worker != WorkerId(4));
    left.notes.remove("worker/1/4");
    let stopped = read::<SlotSnapshot>(&left.notes["slot/1/0"]).unwrap();
    left.note("slot/1/0", &SlotSnapshot { phase: SlotPhase::Stopped, current: None, ..stopped });
    left.notes.insert("app/1".to_owned(), b"x".to_vec());
    left.recover();
    let (_, api, actions) = left.restore().remove(1);
    assert!(api.is_stopped() && !actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "{actions:?}");
}

#[test]
fn a_configuration_that_is_lost_is_replaced_by_the_one_that_is_there() {
    let mut left = at_rest();
    left.configs = BTreeMap::from([(7, config())]);
    let recovered = left.recover();
    assert_eq!(recovered.changed.len(), 3, "{recovered:?}");
    for (note, ..) in left.restore() {
        assert!(note.generations.values().all(|generation| generation.source == 7));
    }
}

/// Half of `web` is of the new generation; one worker is starting.
fn in_a_reload() -> Left {
    let mut left = at_rest();
    left.worker((0, "web"), 6, 0, 2, ready());
    left.worker((0, "web"), 1, 0, 1, Phase::Draining { deadline_ms: NOW_MS + 9 });
    left.children.pop();
    left.slot(0, 0, 2, Some(6), None);
    let (deadline_ms, ready_at_ms, severed_at_ms, warming) = (NOW_MS + 9, None, None, None);
    let starting = Phase::Starting { deadline_ms, ready_at_ms, online: true, severed_at_ms, warming };
    left.worker((0, "web"), 7, 1, 2, starting);
    left.slot(0, 1, 1, Some(2), Some(7));
    let reload = supervisor::ReloadSnapshot {
        from: Generation(1),
        to: Generation(2),
        slots: 3,
        pending: vec![2],
        starting: vec![1],
        done: vec![0],
        failed: None,
        canary_until_ms: None,
    };
    left.app(0, "web", 1, 3, Some(reload));
    left
}

#[test]
fn in_the_middle_of_a_reload_no_note_costs_a_worker_that_serves() {
    let sound = in_a_reload();
    for (key, bytes) in &sound.notes {
        for damage in damages(bytes) {
            let mut left = in_a_reload();
            left.notes.insert(key.clone(), damage.unwrap());
            left.recover();
            left.everybody_is_known();
            let (_, _, actions) = left.restore().remove(0);
            for id in [6, 2, 3] {
                let serves = actions.contains(&Action::Serve { worker: WorkerId(id) });
                assert!(serves, "{key}: worker {id} does not serve on: {actions:?}");
            }
            assert!(!actions.iter().any(|a| matches!(a, Action::Kill { .. })), "{key}: {actions:?}");
        }
    }
}

#[test]
fn any_mixture_of_damage_is_survived() {
    let mut seed = 0x5eed_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for round in 0..2_000 {
        let mut left = if round % 2 == 0 { at_rest() } else { in_a_reload() };
        for (key, bytes) in left.notes.clone() {
            match random(5) {
                0 => drop(left.notes.insert(key, damages(&bytes)[random(6)].clone().unwrap())),
                1 => drop(left.notes.remove(&key)),
                2 => {
                    let mut bytes = bytes;
                    let at = random(bytes.len());
                    bytes[at] ^= 1 << random(8);
                    left.notes.insert(key, bytes);
                }
                _ => {}
            }
        }
        left.recover();
        left.everybody_is_known();
        let after = left.notes.clone();
        let again = left.recover();
        assert_eq!((again.repairs.len(), left.notes == after), (0, true), "round {round}: {again:?}");
    }
}
