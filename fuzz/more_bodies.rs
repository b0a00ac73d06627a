//! More bodies: what a keeper hands over, what Node's inspector says, answers about readiness, messages between agent and
//! workers.
use super::{Taken, make_limits, make_notice, plain_error};
use clusterd::ids::WorkerId;
use clusterd::keeper::protocol::SpawnStep;
use clusterd::keeper::state::{self, GroupState, GroupsState, State};
use clusterd::keeper::table::{Child, State as Life, Table};
use clusterd::keeper::watchdog::WatchdogState;
use clusterd::limits;
use clusterd::record;
use clusterd::worker::http;
use clusterd::worker::node::framing::Outbox;
use clusterd::worker::node::inspector::{self, Answer, Frame, Frames, INSPECTOR_FRAMES_TOLD_MAX, Said, Written};
use clusterd::worker::node::lines::{self, FromWorker};
use clusterd::worker::node::messages::{self, From};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a keeper hands to another binary: as it is, and as made from the bytes.
pub(crate) fn keeper_state(data: &[u8]) {
    for data in [data, &record::seal(data).unwrap()] {
        match state::decode(data) {
            Ok(state) => state_comes_back(&state),
            Err(error) => plain_error(&error, b"x"),
        }
    }
    state_comes_back(&make_state(&mut Taken(data)));
}

fn state_comes_back(state: &State<i32>) {
    let bytes = state::encode(&state.view(), |fd| *fd).unwrap();
    assert_eq!(state::decode(&bytes).as_ref(), Ok(state));
    let fds: Vec<i32> = state.view().fds().copied().collect();
    assert!(fds.iter().all(|fd| *fd > 2), "stdio would get a second owner: {fds:?}");
    assert_eq!(fds.iter().collect::<BTreeSet<_>>().len(), fds.len(), "two owners of one file: {fds:?}");
    assert!(state.table.unreaped_pids().all(|pid| pid > 1 && pid != state.master_pid));
    let step = bytes.len() / 64 + 1;
    for end in (0..bytes.len()).step_by(step) {
        assert!(state::decode(&bytes[..end]).is_err(), "cut at {end} of {}", bytes.len());
    }
}

fn make_state(from: &mut Taken<'_>) -> State<i32> {
    // Everything that must differ is counted.
    let mut next = 2;
    let mut number = || {
        next += 1;
        next
    };
    let (mut table, mut reports) = (Table::default(), BTreeMap::new());
    for _ in 0..from.byte() % 8 {
        let (worker, pid) = (WorkerId(number() as u64), number());
        let state = match from.byte() % 4 {
            0 => Life::Starting,
            1 => Life::Failing { step: SpawnStep::User, errno: from.i32() },
            2 => Life::Running,
            _ => Life::Ended { status: from.i32(), at_ms: from.number() },
        };
        if from.flag() {
            reports.insert(worker, number());
        }
        let child = Child {
            pid,
            tag: from.some_bytes(),
            app: from.text(),
            started_ms: from.number(),
            out_of_memory: from.flag(),
            state,
        };
        table.restore(worker, child).unwrap();
    }
    for name in from.list(Taken::text) {
        let at = number();
        table.hold(format!("{at}{name}"), at).unwrap();
    }
    for key in from.list(Taken::text) {
        table.note(key, from.some_bytes()).unwrap();
    }
    for notice in from.list(make_notice) {
        table.restore_waiting(notice).unwrap();
    }
    let watchdog = WatchdogState {
        incarnation: from.number() as u32,
        started_ms: from.number(),
        backoff_ms: from.number(),
        stops_asked: from.number() as u32,
        stop_now_until_ms: from.flag().then(|| from.number()),
    };
    State {
        file_limit: (from.number(), from.number()),
        original_oom_score_adj: from.flag().then(|| from.i32()),
        null: number(),
        binary: number(),
        watchdog,
        master_pid: number(),
        ours: number(),
        theirs: number(),
        news: from.list(make_notice).into(),
        table,
        reports,
        groups: GroupsState {
            base: from.text(),
            apps: from.list(|from| GroupState {
                app: from.text(),
                limits: make_limits(from),
                oom_kills: from.number(),
            }),
        },
    }
}

// ---- Node's inspector ----

/// The first byte says how the rest is cut: what an inspector said must not depend on that.
pub(crate) fn inspector(data: &[u8]) {
    let (cut, stream) = data.split_first().map_or((1, data), |(cut, rest)| (usize::from(*cut) + 1, rest));
    let all = |chunk: usize| {
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for chunk in stream.chunks(chunk) {
            frames.push(chunk);
            while let Some(frame) = frames.next_frame() {
                let ended = frame == Frame::End;
                seen.push(frame);
                if ended {
                    return seen;
                }
            }
        }
        seen
    };
    let whole = all(stream.len().max(1));
    assert_eq!(whole, all(cut), "cut every {cut}");
    let messages =
        whole.iter().filter_map(|frame| if let Frame::Text(text) = frame { Some(text.as_slice()) } else { None });
    for text in messages.chain([stream]) {
        if let Said::Report(Written { file, why, stack }) = inspector::said(text) {
            assert!(stack.len() <= INSPECTOR_FRAMES_TOLD_MAX);
            let told = stack.iter().chain(&file).chain(&why);
            assert!(!told.flat_map(|text| text.chars()).any(char::is_control), "not fit for a log");
        }
    }
    for (end, answer) in
        [(stream.len(), inspector::target(stream)), (stream.len() / 2, inspector::target(&stream[..stream.len() / 2]))]
    {
        if let Answer::Whole(target, length) = answer {
            assert!(length <= end && !target.is_empty());
            assert!(
                !String::from_utf8(inspector::upgrade_request(&target)).unwrap().lines().next().unwrap().contains("  ")
            );
        }
    }
    if let Answer::Whole((), length) = inspector::upgraded(stream) {
        assert!(length <= stream.len());
    }
}

// ---- answers about readiness ----

/// What is known of an answer is known as soon as it can be, and no byte that follows changes it.
pub(crate) fn http(data: &[u8]) {
    let steps: Vec<http::Answer> = (0..=data.len()).map(|end| http::answer(&data[..end])).collect();
    let known = steps.iter().position(|said| *said != http::Answer::More).unwrap_or(steps.len());
    assert!(steps[known..].iter().all(|said| *said == steps[known]), "{:?}", &steps[known..]);
    assert!(known <= limits::READY_HEAD_BYTES_MAX + 1, "nothing is known after {known} bytes");
    match steps.last() {
        Some(http::Answer::Status(status)) => {
            assert!((100..1_000).contains(status) && (*status == 101 || *status >= 200));
            assert_eq!(http::is_well(*status), (2..=3).contains(&(status / 100)));
            let interim = data[..known].windows(4).filter(|window| *window == b"\r\n\r\n").count();
            assert!(interim > 0 || data.starts_with(b"HTTP/1."));
        }
        Some(http::Answer::Foreign | http::Answer::More) | None => {}
    }
}

// ---- messages between agent and workers ----

/// Lines, as agent and as worker: what is passed on is one line of JSON, says who sent it, and is not one of Node's own messages.
pub(crate) fn messages(data: &[u8]) {
    let mut outbox = Outbox::new();
    let (mut waiting, mut waiting_bytes) = (0, 0);
    for line in data.split(|&b| b == b'\n') {
        for from in [From::Agent, From::Worker { slot: 3, pid: 77 }] {
            let Some(out) = passed_on(line, from) else { continue };
            assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1, "{}", out.escape_ascii());
            assert!(out.ends_with(b"}\n") && out.starts_with(b"{"));
            let told = as_json(&out);
            assert!(!told["cmd"].as_str().is_some_and(|cmd| cmd.starts_with("NODE_")), "{told}");
            assert_eq!(lines::decode(&out[..out.len() - 1]), Ok(FromWorker::User), "{told}");
            if outbox.push_message(&out).is_ok() {
                (waiting, waiting_bytes) = (waiting + 1, waiting_bytes + out.len());
            }
            assert!(waiting <= limits::MESSAGES_WAITING_MAX && waiting_bytes <= limits::MESSAGES_WAITING_BYTES_MAX);
        }
    }
    // Words of the master have room whatever waits.
    outbox.push(b"x\n", None).unwrap();
    while let Some((bytes, _)) = outbox.front() {
        let count = bytes.len().min(1_000);
        outbox.written(count);
    }
    assert!(outbox.is_empty() && !outbox.is_high() && !outbox.is_cut());
}

/// JSON as it is; null where JavaScript takes it and Rust does not: half a surrogate pair is not text here.
fn as_json(bytes: &[u8]) -> Value {
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok(), "{}", bytes.escape_ascii());
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// What the receiver gets of a line, or the sender where it makes no sense.
fn passed_on(line: &[u8], from: From) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match messages::decode(line, from == From::Agent)? {
        // The channel has looked at it before.
        Ok(_) if lines::decode(line) != Ok(FromWorker::User) => None,
        Ok(message) => {
            message.render(from, &mut out);
            let told = as_json(&out);
            if told.is_null() {
                return Some(out);
            }
            let name = if message.wants_answer() { &told["clusterd"]["from"] } else { &told["from"] };
            let wanted = match (from, message.wants_answer()) {
                (From::Agent, _) => Value::from("agent"),
                (From::Worker { .. }, false) => Value::from("app"),
                (From::Worker { slot, pid }, true) => serde_json::json!({ "slot": slot, "pid": pid }),
            };
            assert_eq!(*name, wanted);
            let mut answer = Vec::new();
            message.render_undelivered(1, "a \"reason\"", &mut answer);
            assert!(as_json(&answer).is_null() || as_json(&answer)["clusterd"]["reason"].is_string());
            Some(out)
        }
        Err(bad) => {
            bad.render(&mut out);
            Some(out)
        }
    }
}
