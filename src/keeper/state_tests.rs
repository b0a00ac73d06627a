//! Tests of the keeper's state: round trips, other versions, damage.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::keeper::protocol::SpawnStep;

/// One of everything. The fds are numbers.
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
        table.restore(WorkerId(id), Child { pid, tag, started_ms: id * 7, state }).unwrap();
    }
    table.hold("listen/web/*:80#0".into(), 10).unwrap();
    table.hold("".into(), 11).unwrap();
    table.note("v1/deployment".into(), b"{}".to_vec()).unwrap();
    table.note("v1/app/0".into(), vec![0, 255]).unwrap();
    let signal = |signal| Notice::Signal { signal, value: Some(-1) };
    table.restore_waiting(signal(15)).unwrap();
    State {
        file_limit: (1024, u64::MAX),
        null: 3,
        binary: 4,
        watch: WatchMemory {
            incarnation: 3,
            started_ms: 1_000,
            backoff_ms: 400,
            stops_asked: 1,
            stop_now_until_ms: Some(99_000),
        },
        master_pid: 77,
        ours: 5,
        theirs: 6,
        news: VecDeque::from([signal(1), Notice::Exited { worker: WorkerId(4), status: 256, at_ms: 5 }]),
        table,
        reports: BTreeMap::from([(WorkerId(1), 12)]),
    }
}

fn bytes(state: &State<i32>) -> Vec<u8> {
    encode(&state.view(), |fd| *fd).unwrap()
}

/// The bytes with their records changed: (kind, payload).
fn edited(edit: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> Vec<u8> {
    let all = bytes(&full());
    let head = MARK.len() + 2;
    let mut from = Reader { rest: &all[head..] };
    let mut records = Vec::new();
    while let Ok(kind) = from.kind() {
        records.push((kind, from.bytes("record", KEEPER_PACKET_BYTES_MAX).unwrap()));
    }
    edit(&mut records);
    let mut out = Writer::default();
    out.put(&all[..head]);
    for (kind, payload) in &records {
        out.kind(*kind).bytes("record", payload, usize::MAX).unwrap();
    }
    out.bytes
}

fn part_of(result: Result<State<i32>, StateError>) -> &'static str {
    match result {
        Err(StateError::Damaged { part, .. }) => part,
        other => panic!("{other:?}"),
    }
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
fn a_newer_version_may_add_fields_and_records_and_an_older_one_lack_them() {
    let newer = edited(|records| {
        for (_, payload) in records.iter_mut().filter(|(kind, _)| !matches!(kind, 7 | 8)) {
            payload.extend_from_slice(b"fields of tomorrow");
        }
        records.insert(1, (200, b"a record of tomorrow".to_vec()));
        let count = records.len() as u32 - 1;
        records.last_mut().unwrap().1[..4].copy_from_slice(&count.to_le_bytes());
    });
    assert_eq!(bytes(&decode(&newer).unwrap()), bytes(&full()));
    let older = edited(|records| records[1].1.truncate(12));
    let watch = decode(&older).unwrap().watch;
    assert_eq!((watch.backoff_ms, watch.stops_asked, watch.stop_now_until_ms), (0, 0, None));
    let mut incompatible = bytes(&full());
    incompatible[MARK.len()] = VERSION as u8 + 1;
    let error = decode(&incompatible).unwrap_err();
    assert_eq!(error, StateError::Newer(VERSION + 1));
    assert!(error.to_string().contains("version 2; this binary reads up to 1"), "{error}");
}

#[test]
fn what_is_missing_or_there_twice_is_damage_that_is_named() {
    for kind in [1, 2, 3] {
        let without = edited(|records| {
            records.retain(|(is, _)| *is != kind);
            let count = records.len() as u32 - 1;
            records.last_mut().unwrap().1 = count.to_le_bytes().to_vec();
        });
        assert_eq!(part_of(decode(&without)), "all of it");
    }
    for (kind, part) in [(4, "child"), (5, "held file")] {
        let twice = edited(|records| {
            let record = records.iter().find(|(is, _)| *is == kind).unwrap().clone();
            records.insert(4, record);
        });
        assert_eq!(part_of(decode(&twice)), part);
    }
    assert_eq!(part_of(decode(&edited(|records| drop(records.remove(4))))), "last record");
    // The same pid for two that live; the master's pid for a worker; an fd for two things; stdio for one.
    let mut state = full();
    state.table = Table::default();
    for id in [1, 2] {
        let child = Child { pid: 100 + id, tag: vec![], started_ms: 0, state: Life::Running };
        state.table.restore(WorkerId(id as u64), child).unwrap();
    }
    let same = bytes(&state);
    let at = same.windows(4).position(|window| window == 102_i32.to_le_bytes()).unwrap();
    let mut same_pid = same.clone();
    same_pid[at] = 101;
    assert_eq!(part_of(decode(&same_pid)), "child");
    let mut masters = same.clone();
    masters[at] = 77;
    assert_eq!(part_of(decode(&masters)), "all of it");
    let mut init = same;
    init[at] = 1;
    assert_eq!(part_of(decode(&init)), "child");
    assert_eq!(part_of(decode(&bytes(&State { null: 10, ..full() }))), "all of it");
    assert_eq!(part_of(decode(&bytes(&State { null: 2, ..full() }))), "all of it");
}

#[test]
fn cut_and_foreign_bytes_are_errors() {
    let all = bytes(&full());
    assert_eq!(decode(b"").unwrap_err(), StateError::Foreign);
    assert_eq!(decode(b"#!/bin/sh\n").unwrap_err(), StateError::Foreign);
    for end in MARK.len()..all.len() {
        part_of(decode(&all[..end]));
    }
    assert!(decode(&[&all[..], b"later"].concat()).is_ok());
}

#[test]
fn the_bounds_hold_in_both_directions() {
    let mut state = full();
    for n in 0..KEEPER_STATE_BYTES_MAX / NOTE_BYTES_MAX + 1 {
        state.table.note(n.to_string(), vec![b'x'; NOTE_BYTES_MAX]).unwrap();
    }
    assert!(matches!(encode(&state.view(), |fd| *fd), Err(CodecError::TooLong { field: "state", .. })));
    assert_eq!(part_of(decode(&vec![b'c'; KEEPER_STATE_BYTES_MAX + 1])), "all of it");
    let mut largest = full();
    let (key, value) = ("k".repeat(crate::limits::KEEPER_NAME_BYTES_MAX), vec![1; NOTE_BYTES_MAX]);
    largest.table.note(key, value).unwrap();
    assert_eq!(bytes(&decode(&bytes(&largest)).unwrap()), bytes(&largest));
}
