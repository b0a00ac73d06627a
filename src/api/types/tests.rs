//! The wire format, field by field. Fields may be added to a text here; existing ones never change.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::sources::{FileSource, Overrides};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// The value has this text, and the text this value.
#[track_caller]
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
    assert_eq!(serde_json::to_string_pretty(value).unwrap(), text);
    assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
}

fn worker() -> Worker {
    Worker {
        slot: 1,
        id: Some(7),
        pid: Some(4001),
        state: WorkerState::Draining,
        generation: 2,
        uptime_ms: Some(65_000),
        restarts: 3,
        open_handoffs: 4,
        handoffs: 500,
        time_left_ms: Some(29_000),
        steered: Some(6),
        memory_bytes: Some(50_000_000),
        cpu_ms: Some(1_200),
        loop_delay_ms: Some(1.5),
        messages_lost: 8,
        actions: vec!["clean".to_owned()],
        custom_metrics: BTreeMap::from([("Users".to_owned(), CustomMetric { value: 3.into(), unit: "u".to_owned() })]),
        not_yet: Some("GET /healthz was answered with 503".to_owned()),
        note: Some("exited with code 1 after 12 s".to_owned()),
    }
}

const WORKER: &str = r#"{
  "slot": 1,
  "id": 7,
  "pid": 4001,
  "state": "draining",
  "generation": 2,
  "uptime_ms": 65000,
  "restarts": 3,
  "open_handoffs": 4,
  "handoffs": 500,
  "time_left_ms": 29000,
  "steered": 6,
  "memory_bytes": 50000000,
  "cpu_ms": 1200,
  "loop_delay_ms": 1.5,
  "messages_lost": 8,
  "actions": [
    "clean"
  ],
  "custom_metrics": {
    "Users": {
      "value": 3,
      "unit": "u"
    }
  },
  "not_yet": "GET /healthz was answered with 503",
  "note": "exited with code 1 after 12 s"
}"#;

const EMPTY_SLOT: &str = r#"{
  "slot": 1,
  "id": null,
  "pid": null,
  "state": "waiting",
  "generation": 2,
  "uptime_ms": null,
  "restarts": 3,
  "open_handoffs": 0,
  "handoffs": 0,
  "time_left_ms": null,
  "steered": null,
  "memory_bytes": null,
  "cpu_ms": null,
  "loop_delay_ms": null,
  "note": null
}"#;

#[test]
fn a_worker_and_a_slot_without_one() {
    same(&worker(), WORKER);
    let empty = Worker {
        id: None,
        pid: None,
        state: WorkerState::Waiting,
        uptime_ms: None,
        open_handoffs: 0,
        handoffs: 0,
        time_left_ms: None,
        steered: None,
        memory_bytes: None,
        cpu_ms: None,
        loop_delay_ms: None,
        messages_lost: 0,
        actions: Vec::new(),
        custom_metrics: BTreeMap::new(),
        not_yet: None,
        note: None,
        ..worker()
    };
    same(&empty, EMPTY_SLOT);
}

fn agent() -> Agent {
    Agent {
        command: vec!["node".to_owned(), "agent.js".to_owned()],
        protocol: Protocol::Node,
        id: Some(9),
        pid: Some(4002),
        state: AgentState::Ready,
        generation: 2,
        uptime_ms: Some(70_000),
        restarts: 1,
        time_left_ms: None,
        memory_bytes: Some(30_000_000),
        cpu_ms: Some(400),
        messages_lost: 0,
        note: Some("counting".to_owned()),
    }
}

const AGENT: &str = r#"{
  "command": [
    "node",
    "agent.js"
  ],
  "protocol": "node",
  "id": 9,
  "pid": 4002,
  "state": "ready",
  "generation": 2,
  "uptime_ms": 70000,
  "restarts": 1,
  "time_left_ms": null,
  "memory_bytes": 30000000,
  "cpu_ms": 400,
  "messages_lost": 0,
  "note": "counting"
}"#;

fn before() -> Before {
    Before {
        command: vec!["npm".to_owned(), "run".to_owned(), "migrate".to_owned()],
        state: BeforeState::Running,
        generation: 3,
        id: Some(12),
        pid: Some(4003),
        uptime_ms: Some(2_000),
        time_left_ms: Some(598_000),
        note: None,
    }
}

const BEFORE: &str = r#"{
  "command": [
    "npm",
    "run",
    "migrate"
  ],
  "state": "running",
  "generation": 3,
  "id": 12,
  "pid": 4003,
  "uptime_ms": 2000,
  "time_left_ms": 598000,
  "note": null
}"#;

fn releases() -> Releases {
    let release = Release {
        generation: 4,
        at_ms: 1_764_000_000_000,
        folder: "/srv/web/releases/2".to_owned(),
        command: "node app.js".to_owned(),
        state: ReleaseState::Failed,
        back_to: Some(2),
        reason: Some("the new worker exited with code 1".to_owned()),
    };
    Releases { releases: vec![release] }
}

const RELEASES: &str = r#"{
  "releases": [
    {
      "generation": 4,
      "at_ms": 1764000000000,
      "folder": "/srv/web/releases/2",
      "command": "node app.js",
      "state": "failed",
      "back_to": 2,
      "reason": "the new worker exited with code 1"
    }
  ]
}"#;

fn app() -> App {
    App {
        name: "web".to_owned(),
        id: Some(3),
        namespace: "default".to_owned(),
        cwd: "/srv/web".to_owned(),
        status: AppStatus::Reloading,
        command: vec!["node".to_owned(), "app.js".to_owned()],
        workers_wanted: 4,
        workers_ready: 3,
        scale: Some(Autoscale {
            min: 2,
            max: 8,
            by: ScaleBy::Cpu,
            target: 0.7,
            load: Some(0.5),
            by_hand: false,
            last_change: Some("from 2 to 4 workers: cpu use 93%, target 70%".to_owned()),
            last_change_ms_ago: Some(1_500),
        }),
        spares_wanted: 1,
        spares_ready: 1,
        generation: 2,
        balance: Balance::Kernel,
        balance_typed: Balance::Auto,
        balance_why: Some("each worker has a socket".to_owned()),
        steering: Some(Steering::Turns),
        protocol: Protocol::ListenFds,
        ready: "http:/healthz".to_owned(),
        listen: vec!["*:8080".to_owned()],
        restarts: 5,
        handoffs: 600,
        moved: 7,
        counters: Counters {
            accepted: 700,
            refused: 2,
            rescued: 1,
            waiting: 4,
            handover: Some(Histogram { bounds_us: vec![64], counts: vec![3, 1], sum_us: 200 }),
            loop_delay: Some(Histogram { bounds_us: vec![64], counts: vec![5, 0], sum_us: 90 }),
            log_bytes: 1_000,
            restarts: BTreeMap::from([("exit".to_owned(), 5)]),
            replaced: BTreeMap::from([("memory".to_owned(), 1)]),
            reloads: BTreeMap::from([("done".to_owned(), 1)]),
        },
        user: Some(User { uid: 33, gid: 33, groups: vec![33, 4] }),
        watch: Some(vec!["/srv/lib".to_owned()]),
        cron_restart: Some("0 3 * * *".to_owned()),
        memory_limit_bytes: Some(300_000_000),
        stdin: true,
        limits: Limits {
            lifetime_ms: Some(3_600_000),
            max_connections: Some(5_000),
            hang_ms: Some(10_000),
            max_restarts: Some(16),
        },
        warning: Some("web/0: worker 3 (pid 4002) exited with code 1".to_owned()),
        log: Log {
            out: Some("/var/log/web-out.log".to_owned()),
            err: Some("NULL".to_owned()),
            both: None,
            per_worker: true,
            format: LogFormat::Json,
            time: Some("%F".to_owned()),
        },
        log_lines_dropped: 1,
        workers: Vec::new(),
        agent: None,
        before: None,
        depends_on: Vec::new(),
        waits_for: Vec::new(),
    }
}

const APP: &str = r#"{
  "name": "web",
  "id": 3,
  "namespace": "default",
  "cwd": "/srv/web",
  "status": "reloading",
  "command": [
    "node",
    "app.js"
  ],
  "workers_wanted": 4,
  "workers_ready": 3,
  "scale": {
    "min": 2,
    "max": 8,
    "by": "cpu",
    "target": 0.7,
    "load": 0.5,
    "by_hand": false,
    "last_change": "from 2 to 4 workers: cpu use 93%, target 70%",
    "last_change_ms_ago": 1500
  },
  "spares_wanted": 1,
  "spares_ready": 1,
  "generation": 2,
  "balance": "kernel",
  "balance_typed": "auto",
  "balance_why": "each worker has a socket",
  "steering": "turns",
  "protocol": "listen-fds",
  "ready": "http:/healthz",
  "listen": [
    "*:8080"
  ],
  "restarts": 5,
  "handoffs": 600,
  "moved": 7,
  "user": {
    "uid": 33,
    "gid": 33,
    "groups": [
      33,
      4
    ]
  },
  "counters": {
    "accepted": 700,
    "refused": 2,
    "rescued": 1,
    "waiting": 4,
    "handover": {
      "bounds_us": [
        64
      ],
      "counts": [
        3,
        1
      ],
      "sum_us": 200
    },
    "loop_delay": {
      "bounds_us": [
        64
      ],
      "counts": [
        5,
        0
      ],
      "sum_us": 90
    },
    "log_bytes": 1000,
    "restarts": {
      "exit": 5
    },
    "replaced": {
      "memory": 1
    },
    "reloads": {
      "done": 1
    }
  },
  "watch": [
    "/srv/lib"
  ],
  "cron_restart": "0 3 * * *",
  "memory_limit_bytes": 300000000,
  "stdin": true,
  "limits": {
    "lifetime_ms": 3600000,
    "max_connections": 5000,
    "hang_ms": 10000,
    "max_restarts": 16
  },
  "warning": "web/0: worker 3 (pid 4002) exited with code 1",
  "log": {
    "out": "/var/log/web-out.log",
    "err": "NULL",
    "both": null,
    "per_worker": true,
    "format": "json",
    "time": "%F"
  },
  "log_lines_dropped": 1,
  "workers": []
}"#;

/// `ls --json` for an app whose keeper was killed.
const GONE: &str = r#"{
  "name": "web",
  "id": null,
  "namespace": "",
  "cwd": "",
  "status": "gone",
  "command": [],
  "workers_wanted": 0,
  "workers_ready": 0,
  "spares_wanted": 0,
  "spares_ready": 0,
  "generation": 0,
  "balance": "",
  "balance_typed": "",
  "steering": null,
  "protocol": "",
  "ready": "",
  "listen": [],
  "restarts": 0,
  "handoffs": 0,
  "moved": 0,
  "counters": {
    "accepted": 0,
    "refused": 0,
    "rescued": 0,
    "waiting": 0,
    "handover": null,
    "loop_delay": null,
    "log_bytes": 0,
    "restarts": {},
    "replaced": {},
    "reloads": {}
  },
  "log": {
    "out": null,
    "err": null,
    "both": null,
    "per_worker": false,
    "format": "",
    "time": null
  },
  "log_lines_dropped": 0,
  "workers": []
}"#;

#[test]
fn an_app_its_agent_and_one_that_is_gone() {
    same(&app(), APP);
    same(&agent(), AGENT);
    same(&before(), BEFORE);
    same(&releases(), RELEASES);
    same(&RollbackRequest { to: Some(3) }, "{\n  \"to\": 3\n}");
    same(&App { name: "web".to_owned(), status: AppStatus::Gone, ..App::default() }, GONE);
    let whole = App {
        workers: vec![worker()],
        agent: Some(agent()),
        before: Some(before()),
        waits_for: vec!["api".to_owned()],
        ..app()
    };
    let text = serde_json::to_string(&whole).unwrap();
    assert!(text.contains(r#""workers":[{"slot":1,"#) && text.contains(r#"}],"agent":{"command":"#), "{text}");
    assert_eq!(serde_json::from_str::<App>(&text).unwrap(), whole);
}

const DEPLOYMENT: &str = r#"{
  "name": "site",
  "version": "0.2.0",
  "keeper_pid": 100,
  "keeper_version": "0.1.0",
  "master_pid": 101,
  "master_restarts": 2,
  "uptime_ms": 100000,
  "upgrade": {
    "number": 1,
    "ok": true,
    "keeper": null,
    "message": "upgraded"
  },
  "background": true,
  "config": "/etc/site.toml",
  "control": "http://127.0.0.1:9615",
  "page": true,
  "apps": []
}"#;

#[test]
fn a_deployment() {
    let upgrade = Upgrade { number: 1, ok: Some(true), keeper: None, message: "upgraded".to_owned() };
    let deployment = Deployment {
        name: "site".to_owned(),
        version: "0.2.0".to_owned(),
        keeper_pid: 100,
        keeper_version: "0.1.0".to_owned(),
        master_pid: 101,
        master_restarts: 2,
        uptime_ms: 100_000,
        upgrade: Some(upgrade),
        background: true,
        config: Some("/etc/site.toml".to_owned()),
        control: Some("http://127.0.0.1:9615".to_owned()),
        page: true,
        apps: Vec::new(),
    };
    same(&deployment, DEPLOYMENT);
}

#[test]
fn answers_and_bodies() {
    same(
        &Done { ok: true, message: "reloaded web".to_owned(), warnings: Vec::new() },
        "{\n  \"ok\": true,\n  \"message\": \"reloaded web\"\n}",
    );
    same(
        &Done { ok: true, message: "reloaded web".to_owned(), warnings: vec!["web: oh".to_owned()] },
        "{\n  \"ok\": true,\n  \"message\": \"reloaded web\",\n  \"warnings\": [\n    \"web: oh\"\n  ]\n}",
    );
    let failure = Failure { error: "no app is called \"x\"".to_owned(), output: Vec::new(), warnings: Vec::new() };
    same(&failure, "{\n  \"error\": \"no app is called \\\"x\\\"\"\n}");
    let failure =
        Failure { error: "it exited".to_owned(), output: vec!["no database".to_owned()], warnings: Vec::new() };
    same(&failure, "{\n  \"error\": \"it exited\",\n  \"output\": [\n    \"no database\"\n  ]\n}");
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    same(&Environment { env: env.clone() }, "{\n  \"env\": {\n    \"A\": \"1\"\n  }\n}");
    same(&ScaleRequest { workers: "+3".to_owned() }, "{\n  \"workers\": \"+3\"\n}");
    let line = "hello".to_owned();
    same(&SendRequest { line, slot: Some(1) }, "{\n  \"line\": \"hello\",\n  \"slot\": 1\n}");
    same(&SignalRequest { signal: "SIGUSR2".to_owned(), slot: None }, "{\n  \"signal\": \"SIGUSR2\"\n}");
    let one = SignalRequest { signal: "SIGUSR2".to_owned(), slot: Some(1) };
    same(&one, "{\n  \"signal\": \"SIGUSR2\",\n  \"slot\": 1\n}");
    same(&ReplaceRequest { slot: 0 }, "{\n  \"slot\": 0\n}");
    let trigger = TriggerRequest { action: "clean".to_owned(), parameter: Some("x".to_owned()), slot: None };
    same(&trigger, "{\n  \"action\": \"clean\",\n  \"parameter\": \"x\"\n}");
    let (kind, file) = (ProfileKind::Cpu, Some("/tmp/x".to_owned()));
    let profile = ProfileRequest { kind, time_ms: Some(500), slot: Some(1), file };
    same(&profile, "{\n  \"kind\": \"cpu\",\n  \"time_ms\": 500,\n  \"slot\": 1,\n  \"file\": \"/tmp/x\"\n}");
    let heap = ProfileRequest { kind: ProfileKind::Heap, time_ms: None, slot: None, file: None };
    same(&heap, "{\n  \"kind\": \"heap\"\n}");
    same(&StopRequest { now: true }, "{\n  \"now\": true\n}");
    let binary = "/usr/bin/clusterd".to_owned();
    same(&UpgradeRequest { binary }, "{\n  \"binary\": \"/usr/bin/clusterd\"\n}");
    same(&Change { env: Some(env), sources: None }, "{\n  \"env\": {\n    \"A\": \"1\"\n  },\n  \"sources\": null\n}");
}

#[test]
fn what_was_typed_goes_to_the_master_whole() {
    let overrides = Overrides { options: [("workers", "max-1"), ("port", "80")].into(), ..Overrides::default() };
    let file = FileSource { path: "/srv/c.toml".to_owned(), text: "[[app]]".to_owned(), ..FileSource::default() };
    let sources = Sources {
        start_folder: "/srv".to_owned(),
        file: Some(file),
        overrides,
        background: true,
        ..Sources::default()
    };
    let change = Change { env: None, sources: Some(Box::new(sources)) };
    let text = serde_json::to_string(&change).unwrap();
    assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
}

#[test]
fn bodies_may_be_empty_objects_but_have_no_other_fields() {
    assert_eq!(serde_json::from_str::<StopRequest>("{}").unwrap(), StopRequest { now: false });
    assert_eq!(serde_json::from_str::<Change>("{}").unwrap(), Change::default());
    assert!(serde_json::from_str::<StopRequest>("{\"nw\": true}").is_err());
    assert!(serde_json::from_str::<ScaleRequest>("{\"workers\": \"1\", \"x\": 1}").is_err());
    assert!(serde_json::from_str::<SignalRequest>("{\"signal\": \"HUP\", \"x\": 1}").is_err());
    assert!(serde_json::from_str::<SendRequest>("{\"line\": \"x\", \"x\": 1}").is_err());
    assert!(serde_json::from_str::<UpgradeRequest>("{\"binary\": \"/x\", \"x\": 1}").is_err());
    assert!(serde_json::from_str::<Change>("{\"x\": 1}").is_err());
}

#[test]
fn an_answer_of_an_older_or_newer_version_is_understood() {
    let older: Deployment = serde_json::from_str(r#"{"name": "web", "apps": []}"#).unwrap();
    assert_eq!((older.version.as_str(), older.keeper_pid, older.upgrade), ("", 0, None));
    let newer = APP
        .replace("\"reloading\"", "\"migrating\"")
        .replace("\"kernel\"", "\"p2c\"")
        .replace("\"id\"", "\"x\": 1, \"id\"");
    let newer: App = serde_json::from_str(&newer).unwrap();
    assert_eq!((newer.status, newer.balance, newer.generation), (AppStatus::Unknown, Balance::Unknown, 2));
    assert_eq!(newer.status.to_string(), "unknown");
}

#[test]
fn every_word_is_what_it_was() {
    macro_rules! words {
        ($name:ident) => {
            $name::ALL
                .iter()
                .map(|one| {
                    let text = serde_json::to_string(one).unwrap();
                    assert_eq!(serde_json::from_str::<$name>(&text).unwrap(), *one);
                    assert_eq!(text, format!("\"{}\"", one.as_str()));
                    one.as_str()
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
    }
    assert_eq!(words!(AppStatus), "starting running reloading stopping stopped errored gone");
    assert_eq!(words!(WorkerState), "starting online ready spare draining stopping waiting errored stopped");
    assert_eq!(words!(AgentState), "starting ready stopping waiting stopped");
    assert_eq!(words!(Balance), "round-robin sticky shared kernel auto");
    assert_eq!(words!(Steering), "turns random hash");
    assert_eq!(words!(Protocol), "node bind listen-fds none");
    assert_eq!(words!(LogFormat), "plain json");
}

#[test]
fn where_output_goes_survives_the_wire() {
    let log = app().log;
    assert_eq!(Log::from(&domain::Log::from(&log)), log);
    assert_eq!(Log::from(&domain::Log::default()).format, LogFormat::Plain);
}
