//! Tests of the keeper's state: round trips, other versions, damage.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::keeper::protocol::SpawnStep;

/// A state with one of everything. The fds are numbers.
fn full() -> State<i32> {
    let mut table = Table::default();
    let states = [
        Life::Starting,
        Life::Failing { step: SpawnStep::Exec, errno: 2 },
        Life::Running,
        Life::Ended { status: 256, at_ms: u64::MAX },
    ];
    for (id, state) in (1_u64..).zip(states) {
        let (pid, tag) = (100 + id as i32, vec![id as u8, 0xff]);
        table
            .restore(
                WorkerId(id),
                Child { pid, tag, app: "web".to_owned(), out_of_memory: true, started_ms: id * 7, state },
            )
            .unwrap();
    }
    table.hold("listen/web/*:80#0".into(), 10).unwrap();
    table.hold("".into(), 11).unwrap();
    table.note("v1/deployment".into(), b"{}".to_vec()).unwrap();
    table.note("v1/app/0".into(), vec![0, 255]).unwrap();
    let signal = |signal| Notice::Signal { signal, value: Some(-1) };
    table.restore_waiting(signal(15)).unwrap();
    State {
        file_limit: (1024, u64::MAX),
        original_oom_score_adj: Some(-17),
        groups: GroupsState {
            base: "clusterd-web-1f".into(),
            apps: vec![GroupState {
                app: "web".into(),
                limits: GroupLimits { pids_max: Some(20), ..GroupLimits::default() },
                oom_kills: 2,
            }],
        },
        null: 3,
        binary: 4,
        watchdog: WatchdogState {
            incarnation: 3,
            started_ms: 1_000,
            backoff_ms: 400,
            stops_asked: 1,
            stop_now_until_ms: Some(99_000),
        },
        master_pid: 77,
        ours: 5,
        theirs: 6,
        news: VecDeque::from([
            signal(1),
            Notice::Exited { worker: WorkerId(4), status: 256, at_ms: 5, out_of_memory: false },
        ]),
        table,
        reports: BTreeMap::from([(WorkerId(1), 12)]),
    }
}

fn bytes(state: &State<i32>) -> Vec<u8> {
    encode(&state.view(), |fd| *fd).unwrap()
}

/// The document with changed fields: (tag, bytes).
fn edited(edit: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> Vec<u8> {
    let all = bytes(&full());
    let mut rest = record::open(&all).unwrap();
    let mut fields = Vec::new();
    while let Some((tag, bytes)) = record::next_field(&mut rest).unwrap() {
        fields.push((tag, bytes.to_vec()));
    }
    edit(&mut fields);
    let mut out = Vec::new();
    for (tag, bytes) in &fields {
        record::put(&mut out, *tag, "field", bytes, record::Bound::None).unwrap();
    }
    record::seal(&out).unwrap()
}

fn bad(result: Result<State<i32>, RecordError>, part: &str) {
    assert!(matches!(&result, Err(RecordError::Bad(is)) if is.contains(part)), "{result:?}");
}

#[test]
fn everything_comes_back_as_it_was() {
    let state = full();
    let again = decode(&bytes(&state)).unwrap();
    assert_eq!(again, state);
    assert_eq!(again.table.worker_of(101), Some(WorkerId(1)));
    assert_eq!(again.table.worker_of(104), None, "it is reaped: its pid may be anybody's");
    let moved = again.try_map(|fd| Ok::<_, ()>(i64::from(fd) * 2)).unwrap();
    let mut fds: Vec<i64> = moved.view().fds().copied().collect();
    fds.sort_unstable();
    assert_eq!(fds, [6, 8, 10, 12, 20, 22, 24]);
}

#[test]
fn a_newer_version_may_add_fields_and_kinds_and_an_older_one_lack_them() {
    let newer = edited(|fields| {
        fields.insert(1, (200, b"a field of tomorrow".to_vec()));
        // A notice of a kind that this version cannot send.
        let news = fields.iter_mut().find(|(tag, _)| *tag == 11).unwrap();
        news.1.splice(..0, [2, 200, 1]);
    });
    assert_eq!(bytes(&decode(&newer).unwrap()), bytes(&full()));
    let older = edited(|fields| fields.iter_mut().find(|(tag, _)| *tag == 5).unwrap().1 = vec![1, 1, 3, 2, 1, 9]);
    let watchdog = decode(&older).unwrap().watchdog;
    assert_eq!((watchdog.backoff_ms, watchdog.stops_asked, watchdog.stop_now_until_ms), (0, 0, None));
    let mut incompatible = bytes(&full());
    incompatible[8] = record::VERSION as u8 + 1;
    let error = decode(&incompatible).unwrap_err();
    assert_eq!(error, RecordError::Newer(record::VERSION + 1));
    assert!(error.to_string().contains("version 3; this binary reads up to 2"), "{error}");
    // A child in a state that this version does not know must not be dropped.
    let unknown_life = edited(|fields| {
        let children = fields.iter_mut().find(|(tag, _)| *tag == 7).unwrap();
        children.1 = vec![14, 1, 1, 1, 2, 9, 1, 1, 200, 3, 1, 1, 4, 1, 99];
    });
    bad(decode(&unknown_life), "state");
}

#[test]
fn what_is_missing_or_there_twice_is_damage_that_is_named() {
    for (tag, field) in [(3, "null"), (4, "binary"), (5, "watchdog"), (6, "master")] {
        let without = edited(|fields| fields.retain(|(is, _)| *is != tag));
        assert_eq!(decode(&without).unwrap_err(), RecordError::Missing(field));
    }
    for (tag, part) in [(7, "children"), (8, "files")] {
        let twice = edited(|fields| {
            let list = &mut fields.iter_mut().find(|(is, _)| *is == tag).unwrap().1;
            list.extend_from_within(..);
        });
        bad(decode(&twice), part);
    }
    let with = |first: i32, second: i32| {
        let all = bytes(&full());
        let mut saved: Saved<'_> = record::from_document(&all).unwrap();
        saved.children = [(1, first), (2, second)]
            .map(|(id, pid)| {
                let child = Child {
                    pid,
                    tag: vec![],
                    app: "web".to_owned(),
                    out_of_memory: true,
                    started_ms: 0,
                    state: Life::Running,
                };
                SavedChild { worker: WorkerId(id), child: Cow::Owned(child), report: None }
            })
            .into();
        record::to_document(&saved).unwrap()
    };
    assert!(decode(&with(101, 102)).is_ok());
    // The same pid for two living processes; the master's pid for a worker; init; one fd used twice; stdio.
    bad(decode(&with(101, 101)), "children");
    bad(decode(&with(101, 77)), "pid");
    bad(decode(&with(1, 102)), "pid");
    bad(decode(&bytes(&State { null: 10, ..full() })), "file descriptor");
    bad(decode(&bytes(&State { null: 2, ..full() })), "file descriptor");
}

#[test]
fn cut_changed_and_foreign_bytes_are_errors() {
    let all = bytes(&full());
    assert_eq!(decode(b"").unwrap_err(), RecordError::Foreign);
    assert_eq!(decode(b"#!/bin/sh\n").unwrap_err(), RecordError::Foreign);
    for end in 8..all.len() {
        assert_eq!(decode(&all[..end]).unwrap_err(), RecordError::Damaged);
    }
    assert_eq!(decode(&[&all[..], b"later"].concat()).unwrap_err(), RecordError::Damaged);
    for at in 10..all.len() {
        let mut changed = all.clone();
        changed[at] ^= 1;
        assert_eq!(decode(&changed).unwrap_err(), RecordError::Damaged, "byte {at}");
    }
}

#[test]
fn the_bounds_hold_in_both_directions() {
    let mut state = full();
    for n in 0..KEEPER_STATE_BYTES_MAX / NOTE_BYTES_MAX + 1 {
        state.table.note(n.to_string(), vec![b'x'; NOTE_BYTES_MAX]).unwrap();
    }
    assert!(matches!(encode(&state.view(), |fd| *fd), Err(RecordError::TooLong { field: "state", .. })));
    let long = decode(&vec![b'c'; KEEPER_STATE_BYTES_MAX + 1]);
    assert!(matches!(long, Err(RecordError::TooLong { field: "state", .. })), "{long:?}");
    let mut largest = full();
    let (key, value) = ("k".repeat(KEEPER_NAME_BYTES_MAX), vec![1; NOTE_BYTES_MAX]);
    largest.table.note(key, value).unwrap();
    assert_eq!(bytes(&decode(&bytes(&largest)).unwrap()), bytes(&largest));
}
