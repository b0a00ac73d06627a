//! Tests of the keeper's encoding: round trips, other versions, damage.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::ids::WorkerId;
use crate::keeper::protocol::Credentials;

fn orders() -> Vec<Order> {
    let worker = WorkerId(u64::MAX - 1);
    vec![
        Order::Hold { name: "listener/0.0.0.0:80".into() },
        Order::Release { name: String::new() },
        Order::Note { key: "ü".into(), value: vec![0, 255, 10] },
        Order::Forget { key: "k".into() },
        Order::Spawn { worker },
        Order::Signal { worker, signal: 9, group: true },
        Order::ExitSeen { worker },
        Order::CopyUntouched { worker, name: "untouched/7".to_owned() },
        Order::Look { worker, call: u64::MAX, tid: 7, address: 1 << 47, bytes: 128 },
        Order::Heartbeat,
        Order::Ready,
        Order::Finish { code: 255 },
        Order::Upgrade,
        Order::OwnLog,
        Order::Serving,
        Order::AppEnded { app: "web".into() },
        Order::Group {
            base: "clusterd-web-1f".into(),
            app: "web".into(),
            limits: GroupLimits {
                memory_max: Some(64 << 20),
                memory_high: None,
                cpu_max: Some(150_000),
                pids_max: Some(20),
            },
        },
    ]
}

fn hello(incarnation: u32, previous_end: &str, upgrade: OwnUpgrade) -> Notice {
    let about = About { version: "1.2.3".into(), upgrade, has_store: false };
    Notice::Hello { version: record::VERSION, incarnation, previous_end: previous_end.into(), about }
}

fn notices() -> Vec<Notice> {
    let worker = WorkerId(7);
    let mut all = vec![
        hello(3, "was killed by SIGKILL", OwnUpgrade::Open),
        hello(1, "", OwnUpgrade::Stays { why: "too old".into() }),
        Notice::Keeper { about: About { version: "2.0.1".into(), upgrade: OwnUpgrade::Done, has_store: true } },
        Notice::Keeper {
            about: About {
                version: String::new(),
                upgrade: OwnUpgrade::Stays { why: String::new() },
                has_store: false,
            },
        },
        Notice::Child { worker, pid: 12, tag: vec![1, 2], started_ms: 99, status: None, out_of_memory: false },
        Notice::Child { worker, pid: 12, tag: vec![], started_ms: 99, status: Some(-1), out_of_memory: false },
        Notice::Held { name: "n".into() },
        Notice::Noted { key: "k".into(), value: vec![9; 1000] },
        Notice::Begin,
        Notice::Spawned { worker, pid: i32::MAX },
        Notice::Exited { worker, status: 256, at_ms: u64::MAX, out_of_memory: false },
        Notice::Looked { worker, call: 1, bytes: vec![2, 0], errno: 0 },
        Notice::Looked { worker, call: 1, bytes: vec![], errno: 14 },
        Notice::Signal { signal: 12, value: Some(-4) },
        Notice::Signal { signal: 15, value: None },
    ];
    all.extend([SpawnStep::Description, SpawnStep::Exec].map(|step| Notice::SpawnFailed { worker, step, errno: 2 }));
    all
}

fn spec() -> SpawnSpec {
    SpawnSpec {
        tag: b"web/3".to_vec(),
        app: "web".into(),
        program: b"/usr/bin/node".to_vec(),
        args: vec![b"node".to_vec(), b"".to_vec(), vec![0xff, 0xfe]],
        env: vec![b"A=1".to_vec()],
        listen_pid: true,
        cwd: Some(b"/srv".to_vec()),
        umask: Some(0o22),
        credentials: Some(Credentials { uid: 1, gid: 2, groups: vec![3, u32::MAX] }),
        rlimits: vec![(7, 1024, u64::MAX)],
        nice: Some(-20),
        oom_score_adj: Some(-1000),
        cpus: vec![0, 63],
        no_new_privs: true,
        intercept: Some(1),
        may_give_up_privileges: true,
        placements: vec![3, 1, PLACED_FD_NUMBER_MAX],
    }
}

#[test]
fn everything_comes_back_as_it_was() {
    for order in orders() {
        assert_eq!(decode_order(&encode_order(&order).unwrap()), Ok(order));
    }
    for notice in notices() {
        assert_eq!(decode_notice(&encode_notice(&notice).unwrap()), Ok(notice));
    }
    for spec in [spec(), SpawnSpec::default()] {
        assert_eq!(decode_spawn_spec(&encode_spawn_spec(&spec).unwrap()), Ok(spec));
    }
}

/// A field with tag 200, of another version.
const FIELD_OF_TOMORROW: &[u8] = &[200, 3, 1, 2, 3];

#[test]
fn a_newer_version_may_add_fields_and_kinds() {
    for order in orders() {
        let mut bytes = encode_order(&order).unwrap();
        bytes.extend_from_slice(FIELD_OF_TOMORROW);
        assert_eq!(decode_order(&bytes), Ok(order));
    }
    for notice in notices() {
        let mut bytes = encode_notice(&notice).unwrap();
        bytes.extend_from_slice(FIELD_OF_TOMORROW);
        assert_eq!(decode_notice(&bytes), Ok(notice));
    }
    let mut spec_record = record::encode(&spec()).unwrap();
    spec_record.extend_from_slice(FIELD_OF_TOMORROW);
    assert_eq!(decode_spawn_spec(&record::seal(&spec_record).unwrap()), Ok(spec()));
    assert_eq!(decode_order(&[200, 1, 2]), Err(RecordError::Unknown(200)));
    assert_eq!(decode_notice(&[200]), Err(RecordError::Unknown(200)));
    let newer_step = [7, 1, 1, 1, 2, 1, 99, 3, 1, 4];
    let expected = Notice::SpawnFailed { worker: WorkerId(1), step: SpawnStep::Exec, errno: 2 };
    assert_eq!(decode_notice(&newer_step), Ok(expected));
}

#[test]
fn an_older_version_may_lack_fields_but_no_identifier() {
    let worker = WorkerId(1);
    let id = [1, 1, 1];
    let signal = [&[6][..], &id, &[2, 1, 30]].concat();
    assert_eq!(decode_order(&signal), Ok(Order::Signal { worker, signal: 15, group: false }));
    assert_eq!(decode_order(&[10]), Ok(Order::Finish { code: 1 }));
    let child = [&[2][..], &id, &[2, 1, 10]].concat();
    let expected = Notice::Child { worker, pid: 5, tag: vec![], started_ms: 0, status: None, out_of_memory: false };
    assert_eq!(decode_notice(&child), Ok(expected));
    let about = About::default();
    let expected = Notice::Hello { version: 1, incarnation: 1, previous_end: String::new(), about: about.clone() };
    assert_eq!(decode_notice(&[1, 1, 1, 1]), Ok(expected));
    assert_eq!(decode_notice(&[10]), Ok(Notice::Keeper { about }));
    let minimal = record::seal(&[2, 1, b'p']).unwrap();
    let expected = SpawnSpec { program: b"p".to_vec(), ..SpawnSpec::default() };
    assert_eq!(decode_spawn_spec(&minimal), Ok(expected));
    assert_eq!(decode_order(&[5]), Err(RecordError::Missing("worker")));
    assert_eq!(decode_notice(&[6, 1, 1, 7]), Err(RecordError::Missing("pid")));
}

#[test]
fn bounds_hold_in_both_directions() {
    let long = "x".repeat(KEEPER_NAME_BYTES_MAX + 1);
    assert!(matches!(encode_order(&Order::Hold { name: long.clone() }), Err(RecordError::TooLong { .. })));
    let note = Order::Note { key: "k".into(), value: vec![0; NOTE_BYTES_MAX + 1] };
    assert!(matches!(encode_order(&note), Err(RecordError::TooLong { .. })));
    let largest = Order::Note { key: "k".repeat(KEEPER_NAME_BYTES_MAX), value: vec![0; NOTE_BYTES_MAX] };
    assert_eq!(decode_order(&encode_order(&largest).unwrap()), Ok(largest));
    let text = "é".repeat(KEEPER_NAME_BYTES_MAX);
    let cut = "é".repeat(KEEPER_NAME_BYTES_MAX / 2);
    let hello_back = decode_notice(&encode_notice(&hello(1, &text, OwnUpgrade::Stays { why: text.clone() })).unwrap());
    assert_eq!(hello_back, Ok(hello(1, &cut, OwnUpgrade::Stays { why: cut.clone() })));
    let big = SpawnSpec { env: vec![vec![b'x'; SPAWN_SPEC_BYTES_MAX]], ..SpawnSpec::default() };
    assert!(matches!(encode_spawn_spec(&big), Err(RecordError::TooLong { .. })));
    // More arguments than the kernel accepts.
    let many = SpawnSpec { args: vec![Vec::new(); record::LIST_ITEMS_MAX + 1], ..SpawnSpec::default() };
    assert!(matches!(encode_spawn_spec(&many), Err(RecordError::TooLong { .. })));
    for placements in [vec![3, 3], vec![-1], vec![PLACED_FD_NUMBER_MAX + 1]] {
        let bytes = encode_spawn_spec(&SpawnSpec { placements, ..SpawnSpec::default() }).unwrap();
        assert_eq!(decode_spawn_spec(&bytes), Err(RecordError::Bad("placements")));
    }
}

/// xorshift64*: the same bytes on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[test]
fn truncated_and_random_bytes_are_errors_and_never_panics() {
    let mut samples: Vec<Vec<u8>> = orders().iter().map(|order| encode_order(order).unwrap()).collect();
    samples.extend(notices().iter().map(|notice| encode_notice(notice).unwrap()));
    samples.push(encode_spawn_spec(&spec()).unwrap());
    let mut random = Random(0x5eed);
    let feed = |bytes: &[u8]| {
        let _ = decode_order(bytes);
        let _ = decode_notice(bytes);
        let _ = decode_spawn_spec(bytes);
    };
    for sample in &samples {
        for end in 0..sample.len() {
            feed(&sample[..end]);
        }
        for _ in 0..500 {
            let mut bytes = sample.clone();
            for _ in 0..=random.next() % 3 {
                let at = random.next() as usize % bytes.len();
                bytes[at] = random.next() as u8;
            }
            feed(&bytes);
        }
    }
    for _ in 0..20_000 {
        let length = random.next() as usize % 64;
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        feed(&bytes);
    }
    assert_eq!(decode_order(&[]), Err(RecordError::Short("kind")));
    let cut = encode_order(&Order::Hold { name: "name".into() }).unwrap();
    assert_eq!(decode_order(&cut[..cut.len() - 1]), Err(RecordError::Short("last field")));
}
