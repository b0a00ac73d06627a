//! The bodies of the fuzz targets: bytes in, properties checked, panic when one does not hold. The targets in
//! `fuzz_targets/` and the seeded test `tests/decoders` run the same functions.
#![allow(dead_code)] // Each target includes all of them and runs one.
#![allow(clippy::unwrap_used)]
#[path = "more_bodies.rs"]
mod more_bodies;

pub(crate) use more_bodies::{http, inspector, keeper_state, messages};

use clusterd::config::problem::{Place, Problem};
use clusterd::config::resolve::{env_files_wanted, resolve};
use clusterd::config::sources::{FileSource, Overrides, Sources};
use clusterd::config::{App, Listen, address, env_file, inspect, name, parse};
use clusterd::ids::WorkerId;
use clusterd::keeper::codec::{self, RecordError};
use clusterd::keeper::protocol::{About, Credentials, GroupLimits, Notice, Order, OwnUpgrade, SpawnSpec, SpawnStep};
use clusterd::limits;
use clusterd::record;
use clusterd::worker::node::framing::{LineBuffer, Outbox, shown};
use clusterd::worker::node::lines::{self, FromWorker, NewconnLine, Reply, SockName};
use clusterd::worker::{listen_fds, notify};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What an error message may have beyond the piece of the line that it shows, in characters.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// Values made from bytes; zeros when they are used up.
struct Taken<'a>(&'a [u8]);

impl<'a> Taken<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u64 {
        let taken = self.bytes(8);
        let mut all = [0; 8];
        all[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(all)
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn i32(&mut self) -> i32 {
        self.number() as i32
    }

    fn some_bytes(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte());
        self.bytes(count).to_vec()
    }

    fn text(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.some_bytes()).into_owned();
        text.chars().take(limits::KEEPER_NAME_BYTES_MAX / 4).collect()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % 8).map(|_| read(self)).collect()
    }
}

// ---- lines ----

/// The first 8 bytes say how the rest, a stream, is cut: its lines must not depend on that.
pub(crate) fn framing(data: &[u8]) {
    let mut from = Taken(data);
    let cuts = from.number();
    let stream = from.0;
    let mut expected: Vec<&[u8]> = stream.split(|&b| b == b'\n').collect();
    let unfinished = expected.pop().unwrap_or_default();

    let mut buffer = if cuts & 1 == 1 { LineBuffer::resumed() } else { LineBuffer::new() };
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let (mut rest, mut turn) = (stream, cuts);
    while !rest.is_empty() {
        turn = turn.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
        let room = 1 + (turn >> 40) as usize % 97;
        // A read may bring less than there was room for.
        let (chunk, later) = rest.split_at((1 + (turn >> 20) as usize % room).min(rest.len()));
        let spare = buffer.spare(room);
        assert_eq!(spare.len(), room);
        spare[..chunk.len()].copy_from_slice(chunk);
        buffer.filled(chunk.len());
        rest = later;
        // Sometimes several reads come before anybody looks.
        if turn & 0x300 != 0 || rest.is_empty() {
            take_lines(&mut buffer, cuts & 1 == 1, &mut lines);
        }
    }
    assert_eq!(lines, expected, "cut with {cuts:#x}");
    // What is left is the beginning of a line.
    buffer.spare(1)[0] = b'\n';
    buffer.filled(1);
    assert_eq!(buffer.next_line().unwrap().unwrap().bytes, unfinished);
    assert_eq!(buffer.next_line(), Ok(None));
    outbox(&expected, cuts);
}

fn take_lines(buffer: &mut LineBuffer, resumed: bool, lines: &mut Vec<Vec<u8>>) {
    while let Some(line) = buffer.next_line().expect("no line here is long") {
        assert_eq!(line.resumed, resumed && lines.is_empty(), "only the first line may be a piece of one");
        lines.push(line.bytes.to_vec());
    }
}

/// Lines that are written piece by piece arrive as they were, each attachment with its first byte and once.
fn outbox(lines: &[&[u8]], cuts: u64) {
    let mut outbox = Outbox::new();
    let (mut whole, mut attachments) = (Vec::new(), Vec::new());
    for (n, line) in lines.iter().enumerate() {
        let line = [line, &b"\n"[..]].concat();
        let attachment = ((cuts >> (n % 64)) & 1 == 1).then_some(n as u32);
        let pushed = outbox.push(&line, attachment);
        assert_eq!(pushed.is_ok(), n < limits::CHANNEL_OUTBOX_LINES_MAX);
        if pushed.is_ok() {
            attachments.extend(attachment.map(|a| (whole.len(), a)));
            whole.extend_from_slice(&line);
        }
    }
    let (mut written, mut went, mut turn) = (Vec::new(), Vec::new(), cuts);
    while let Some((bytes, attachment)) = outbox.front() {
        turn = turn.rotate_left(9).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
        let count = (turn >> 33) as usize % (bytes.len() + 1);
        if count > 0 {
            went.extend(attachment.map(|a| (written.len(), a)));
            written.extend_from_slice(&bytes[..count]);
        }
        outbox.written(count);
    }
    assert!(outbox.is_empty());
    assert_eq!(written, whole);
    assert_eq!(went, attachments);
}

// ---- Node's channel ----

/// One line of a worker.
pub(crate) fn node(data: &[u8]) {
    let line = data.split(|&b| b == b'\n').next().unwrap_or_default();
    let decoded = lines::decode(line);
    assert_eq!(decoded, lines::decode(line));
    let value = serde_json::from_slice::<Value>(line).ok();
    match &decoded {
        Err(bad) => {
            let message = bad.to_string();
            assert!(message.contains(&shown(line)), "the line's beginning is lost: {message}");
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{} characters", message.chars().count());
            assert!(!message.chars().any(char::is_control), "not fit for a terminal: {message:?}");
            if let Some(value) = &value {
                assert!(is_internal(value), "a user's message is refused: {message}");
            }
        }
        Ok(FromWorker::Answer { ack, accepted }) => {
            if let Some(value) = value {
                assert_eq!(value["ack"].as_u64(), Some(*ack));
                assert_eq!(value["accepted"].as_bool(), *accepted);
            }
        }
        Ok(FromWorker::QueryServer { seq, query }) => {
            assert!(query.address.as_ref().map_or(0, String::len) <= limits::LISTENER_KEY_BYTES_MAX);
            assert!(query.data.as_ref().map_or(0, String::len) <= limits::LISTENER_DATA_BYTES_MAX);
            answers_are_json(*seq, &query.key(), query.data.as_deref());
        }
        Ok(FromWorker::User | FromWorker::Ready) => {
            if let Some(value) = value
                && line.starts_with(b"{")
                && !line.contains(&b'\\')
            {
                assert!(!is_internal(&value), "an internal message is taken for a user's");
            }
        }
        Ok(FromWorker::Close { seq, key }) => answers_are_json(*seq, key, None),
        Ok(_) => {
            if let Some(value) = value {
                assert!(is_internal(&value), "a user's message is taken for an internal one");
            }
        }
    }
    said_to_a_worker(&String::from_utf8_lossy(line));
}

fn is_internal(value: &Value) -> bool {
    value["cmd"].as_str().is_some_and(|cmd| cmd.starts_with("NODE_"))
}

/// What we write with a worker's own words in it is one line of JSON that says what it should.
fn answers_are_json(seq: u64, key: &str, data: Option<&str>) {
    let name = SockName { address: [127, 0, 0, 1].into(), port: 80 };
    for handle in [None, Some("net.Native")] {
        let mut out = Vec::new();
        lines::reply(&mut out, seq, 9, &Reply { errno: 0, key, data, sockname: Some(&name) }, handle);
        let (end, line) = out.split_last().unwrap();
        assert!(*end == b'\n' && !line.contains(&b'\n'));
        serde_json::from_slice::<serde::de::IgnoredAny>(line).unwrap();
        let Ok(data) = serde_json::from_str::<Value>(data.unwrap_or("null")) else { continue };
        let value: Value = serde_json::from_slice(line).unwrap();
        let message = if handle.is_some() { &value["msg"] } else { &value };
        assert_eq!((message["key"].as_str(), message["ack"].as_u64()), (Some(key), Some(seq)));
        assert_eq!(message["data"], data);
    }
    let mut out = b"what was there".to_vec();
    NewconnLine::new(key).render(seq, &mut out);
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((value["msg"]["key"].as_str(), value["msg"]["seq"].as_u64()), (Some(key), Some(seq)));
    assert_eq!(out.iter().position(|&b| b == b'\n'), Some(out.len() - 1));
}

fn said_to_a_worker(text: &str) {
    let mut out = Vec::new();
    lines::user_string(&mut out, text);
    let (end, line) = out.split_last().unwrap();
    assert!(*end == b'\n' && !line.contains(&b'\n'));
    assert_eq!(serde_json::from_slice::<String>(line).unwrap(), text);
    let back = lines::decode(line).unwrap();
    assert_eq!(back, if text == "ready" { FromWorker::Ready } else { FromWorker::User });
}

// ---- keeper and master ----

/// A field that no version has.
const FIELD_OF_TOMORROW: &[u8] = b"\xff\x12fields of tomorrow";

/// As a message of every sort, and as what messages are made from.
pub(crate) fn keeper(data: &[u8]) {
    match codec::decode_order(data) {
        Ok(order) => order_comes_back(&order),
        Err(RecordError::Unknown(kind)) => assert!(kind == data[0] && !(1..=11).contains(&kind)),
        Err(error) => plain_error(&error, data),
    }
    match codec::decode_notice(data) {
        Ok(notice) => notice_comes_back(&notice),
        Err(RecordError::Unknown(kind)) => assert!(kind == data[0] && !(1..=10).contains(&kind)),
        Err(error) => plain_error(&error, data),
    }
    for data in [data, &record::seal(data).unwrap()] {
        match codec::decode_spawn_spec(data) {
            Ok(spec) => spec_comes_back(&spec, data.len()),
            Err(RecordError::Foreign) => assert!(!data.starts_with(b"\x93cluster")),
            Err(error) => plain_error(&error, data),
        }
    }
    let mut from = Taken(data);
    order_comes_back(&make_order(&mut from));
    notice_comes_back(&make_notice(&mut from));
    spec_comes_back(&make_spec(&mut from), 0);
}

fn plain_error(error: &RecordError, data: &[u8]) {
    assert!(error.to_string().len() < 200);
    if let RecordError::TooLong { is, max, .. } = error {
        assert!(is > max, "{error}");
    }
    if data.is_empty() {
        assert!(matches!(error, RecordError::Short(_)), "{error}");
    }
}

fn order_comes_back(order: &Order) {
    let mut bytes = codec::encode_order(order).unwrap();
    assert!(bytes.len() <= limits::KEEPER_PACKET_BYTES_MAX);
    assert_eq!(codec::decode_order(&bytes), Ok(order.clone()));
    prefixes(&bytes, |bytes| codec::decode_order(bytes).err());
    bytes.extend_from_slice(FIELD_OF_TOMORROW);
    assert_eq!(codec::decode_order(&bytes), Ok(order.clone()));
}

fn notice_comes_back(notice: &Notice) {
    let mut bytes = codec::encode_notice(notice).unwrap();
    assert!(bytes.len() <= limits::KEEPER_PACKET_BYTES_MAX);
    assert_eq!(codec::decode_notice(&bytes), Ok(notice.clone()));
    prefixes(&bytes, |bytes| codec::decode_notice(bytes).err());
    bytes.extend_from_slice(FIELD_OF_TOMORROW);
    assert_eq!(codec::decode_notice(&bytes), Ok(notice.clone()));
}

fn spec_comes_back(spec: &SpawnSpec, was_bytes: usize) {
    let Ok(mut bytes) = codec::encode_spawn_spec(spec) else {
        // The numbers of another writer may be shorter than ours.
        assert!(2 * was_bytes > limits::SPAWN_SPEC_BYTES_MAX);
        return;
    };
    assert_eq!(codec::decode_spawn_spec(&bytes).as_ref(), Ok(spec));
    for end in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
        let error = codec::decode_spawn_spec(&bytes[..end]).unwrap_err();
        assert!(matches!(error, RecordError::Foreign | RecordError::Damaged), "cut at {end}: {error:?}");
    }
    let mut record = record::open(&bytes).unwrap().to_vec();
    record.extend_from_slice(FIELD_OF_TOMORROW);
    bytes = record::seal(&record).unwrap();
    if bytes.len() <= limits::SPAWN_SPEC_BYTES_MAX {
        assert_eq!(codec::decode_spawn_spec(&bytes).as_ref(), Ok(spec));
    }
}

/// A message that was cut is one that lacks its last fields, or one that says so: nothing else is made of it.
fn prefixes(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<RecordError>) {
    let step = bytes.len() / 64 + 1;
    for end in (0..bytes.len()).step_by(step) {
        let error = decode(&bytes[..end]);
        let cut = matches!(error, None | Some(RecordError::Short(_) | RecordError::Missing(_)));
        assert!(cut, "cut at {end} of {}: {error:?}", bytes.len());
    }
}

fn make_order(from: &mut Taken<'_>) -> Order {
    let (kind, worker) = (from.byte() % 13, WorkerId(from.number()));
    match kind {
        0 => Order::Hold { name: from.text() },
        1 => Order::Release { name: from.text() },
        2 => Order::Note { key: from.text(), value: from.some_bytes() },
        3 => Order::Forget { key: from.text() },
        4 => Order::Spawn { worker },
        5 => Order::Signal { worker, signal: from.i32(), group: from.flag() },
        6 => Order::ExitSeen { worker },
        7 => Order::Heartbeat,
        8 => Order::Ready,
        9 => Order::Upgrade,
        10 => Order::Group { base: from.text(), app: from.text(), limits: make_limits(from) },
        11 => Order::Look {
            worker,
            call: from.number(),
            tid: from.i32(),
            address: from.number(),
            bytes: from.number() as u32,
        },
        _ => Order::Finish { code: from.byte() },
    }
}

fn make_limits(from: &mut Taken<'_>) -> GroupLimits {
    let mut some = || from.flag().then(|| from.number());
    GroupLimits { memory_max: some(), memory_high: some(), cpu_max: some(), pids_max: some() }
}

fn make_notice(from: &mut Taken<'_>) -> Notice {
    const STEPS: [SpawnStep; 4] = [SpawnStep::Description, SpawnStep::Fork, SpawnStep::User, SpawnStep::Exec];
    let (kind, worker) = (from.byte() % 11, WorkerId(from.number()));
    match kind {
        0 => Notice::Hello {
            version: from.number() as u16,
            incarnation: from.number() as u32,
            previous_end: from.text(),
            about: make_about(from),
        },
        1 => Notice::Child {
            worker,
            pid: from.i32(),
            tag: from.some_bytes(),
            started_ms: from.number(),
            status: from.flag().then(|| from.i32()),
            out_of_memory: from.flag(),
        },
        2 => Notice::Held { name: from.text() },
        3 => Notice::Noted { key: from.text(), value: from.some_bytes() },
        4 => Notice::Begin,
        5 => Notice::Spawned { worker, pid: from.i32() },
        6 => Notice::SpawnFailed { worker, step: STEPS[usize::from(from.byte() % 4)], errno: from.i32() },
        7 => Notice::Exited { worker, status: from.i32(), at_ms: from.number(), out_of_memory: from.flag() },
        8 => Notice::Keeper { about: make_about(from) },
        9 => Notice::Looked { worker, call: from.number(), bytes: from.some_bytes(), errno: from.i32() },
        _ => Notice::Signal { signal: from.i32(), value: from.flag().then(|| from.i32()) },
    }
}

fn make_about(from: &mut Taken<'_>) -> About {
    let upgrade = match from.byte() % 3 {
        0 => OwnUpgrade::Open,
        1 => OwnUpgrade::Done,
        _ => OwnUpgrade::Stays { why: from.text() },
    };
    About { version: from.text(), upgrade, has_store: from.flag() }
}

fn make_spec(from: &mut Taken<'_>) -> SpawnSpec {
    let mut placements = from.list(|from| from.i32().rem_euclid(limits::PLACED_FD_NUMBER_MAX + 1));
    placements.sort_unstable();
    placements.dedup();
    SpawnSpec {
        tag: from.some_bytes(),
        app: from.text(),
        program: from.some_bytes(),
        args: from.list(Taken::some_bytes),
        env: from.list(Taken::some_bytes),
        listen_pid: from.flag(),
        cwd: from.flag().then(|| from.some_bytes()),
        umask: from.flag().then(|| from.number() as u32),
        credentials: from.flag().then(|| Credentials {
            uid: from.number() as u32,
            gid: from.number() as u32,
            groups: from.list(|from| from.number() as u32),
        }),
        rlimits: from.list(|from| (from.i32(), from.number(), from.number())),
        nice: from.flag().then(|| from.i32()),
        oom_score_adj: from.flag().then(|| from.i32()),
        cpus: from.list(|from| from.number() as u32),
        no_new_privs: from.flag(),
        intercept: from.flag().then(|| from.i32()),
        may_give_up_privileges: from.flag(),
        placements,
    }
}

// ---- notify socket, sockets passed by systemd ----

/// One datagram; the same bytes as names and numbers of passed sockets.
pub(crate) fn notify(data: &[u8]) {
    let said = notify::parse(data);
    let lines: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
    assert_eq!(said.ready, lines.contains(&&b"READY=1"[..]));
    assert_eq!(said.stopping, lines.contains(&&b"STOPPING=1"[..]));
    assert_eq!(said.status.is_some(), lines.iter().any(|line| line.starts_with(b"STATUS=")));
    if let Some(status) = &said.status {
        assert!(status.chars().count() <= limits::STATUS_CHARS_MAX);
        assert!(!status.chars().any(char::is_control), "not fit for a terminal: {status:?}");
    }
    // What a line means depends on no other, and the last status counts.
    let mut merged = notify::Said::default();
    for line in lines {
        let one = notify::parse(line);
        merged.ready |= one.ready;
        merged.stopping |= one.stopping;
        merged.status = one.status.or(merged.status);
    }
    assert_eq!(merged, said);

    let text = String::from_utf8_lossy(data);
    let name = listen_fds::escape_name(&text);
    assert!(!name.is_empty() && name.chars().count() <= 255);
    assert!(!name.chars().any(|c| c == ':' || c.is_control()));
    assert_eq!(listen_fds::escape_name(&name), name);
    let (pid, fds) = text.split_once('\n').unwrap_or((&text, "2"));
    if let Ok(count) = listen_fds::count(Some(pid), Some(fds), 7) {
        assert!(count <= limits::LISTENERS_PER_APP_MAX);
        assert!(count == 0 || pid.trim_start_matches(['+', '0']) == "7");
    }
}

// ---- configuration ----

/// A configuration file; short texts as single typed values too.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    if text.len() <= 200 {
        typed(&text);
    }
    for (path, _) in env_files_wanted(&text, "/srv", &Overrides::default()) {
        assert!(path.starts_with('/'), "{path:?}");
    }
    let file = Some(FileSource { path: "/srv/app/cluster.toml".into(), text: text.clone(), notes: Vec::new() });
    let sources = Sources { start_folder: "/srv".into(), file, ..Sources::default() };
    let resolved = resolve(&sources);
    assert_eq!(resolved, resolve(&sources));
    match resolved {
        Ok(config) => sound(&config.apps),
        Err(problems) => told_well(&problems, &text),
    }
}

fn told_well(problems: &[Problem], text: &str) {
    assert!(!problems.is_empty() && problems.len() <= limits::PROBLEMS_MAX + 1);
    let lines: Vec<&str> = text.split('\n').collect();
    let mut before = (0, 0);
    for (n, problem) in problems.iter().enumerate() {
        assert!(problem.message.chars().count() <= limits::PROBLEM_CHARS_MAX + " ...".len());
        let shown = problem.to_string();
        assert!(!shown.contains(['\n', '\r']), "{shown:?}");
        let Place::File { path, line, column } = &problem.place else {
            let more = format!("more problems than these {n} are not shown");
            assert_eq!((shown, n + 1), (more, problems.len()), "without a place");
            continue;
        };
        assert_eq!(path, "app/cluster.toml");
        assert!((1..=lines.len()).contains(line), "{shown}");
        assert!((1..=lines[line - 1].chars().count() + 1).contains(column), "{shown}");
        assert!(before <= (*line, *column), "not in order: {shown}");
        before = (*line, *column);
    }
}

fn sound(apps: &[App]) {
    assert!((1..=limits::APPS_MAX).contains(&apps.len()));
    let mut bound = Vec::new();
    for app in apps {
        assert_eq!(name::check(&app.name), Ok(()));
        assert_eq!(apps.iter().filter(|other| other.name == app.name).count(), 1, "{}", app.name);
        assert_eq!(parse::command(&app.command), Ok(()));
        for cpus in [0, 1, 64, u32::MAX] {
            // "max-1" of four billion CPUs is the only way past the bound.
            assert!(app.workers.count(cpus) >= 1);
        }
        assert_eq!(parse::workers(&app.workers.to_string()), Ok(app.workers));
        assert!(app.listen.len() <= limits::LISTENERS_PER_APP_MAX);
        for listen in &app.listen {
            // A new master finds its sockets by the address as people write it.
            assert_eq!(parse::listen(&listen.to_string()).as_ref(), Ok(listen));
            assert!(!bound.iter().any(|other| address::overlap(listen, other)), "{listen} twice");
            bound.push(listen.clone());
        }
        let restart = &app.restart;
        let longest = Duration::from_millis(limits::DURATION_MS_MAX);
        for time in [app.ready_timeout, app.drain_timeout, app.kill_timeout, restart.window, restart.backoff_max] {
            assert!(time <= longest, "{time:?}");
        }
        assert!(Duration::ZERO < restart.backoff_min && restart.backoff_min <= restart.backoff_max);
        assert!(restart.max_restarts.is_none_or(|n| (1..=limits::FAILURES_REMEMBERED_MAX as u32).contains(&n)));
        assert!((1..=limits::WORKERS_MAX).contains(&app.reload.surge));
        assert!(app.umask.is_none_or(|mask| mask <= 0o777));
        assert!(app.cwd.as_ref().is_none_or(|cwd| cwd.is_absolute()));
        for (name, value) in &app.env {
            assert_eq!(env_file::check(name, value), Ok(()));
        }
    }
}

/// A value of the command line or of the file, read as everything that it might be.
fn typed(text: &str) {
    if let Ok(workers) = parse::workers(text) {
        assert_eq!(parse::workers(&workers.to_string()), Ok(workers));
    }
    if let Ok(listen) = parse::listen(text) {
        assert_eq!(parse::listen(&listen.to_string()), Ok(listen.clone()));
        let any_free = !matches!(listen, Listen::Unix(_)) && listen.to_string().ends_with(":0");
        assert_eq!(address::overlap(&listen, &listen), !any_free);
    }
    let _ = parse::host_and_port(text, 80);
    for read in [parse::duration, parse::duration_not_zero] {
        assert!(
            read(text).is_ok_and(|time| time <= Duration::from_millis(limits::DURATION_MS_MAX)) || read(text).is_err()
        );
    }
    if let Ok(ready) = parse::ready(text) {
        assert!(!ready.to_string().is_empty());
    }
    if let Ok(mask) = parse::umask(text) {
        assert!(mask <= 0o777);
    }
    if let Ok(balance) = parse::balance(text) {
        assert_eq!(balance.to_string(), text);
    }
    if let Ok(protocol) = parse::protocol(text) {
        assert_eq!(protocol.to_string(), text);
    }
    if let Ok(words) = parse::command_line(text) {
        assert_eq!(parse::command(&words), Ok(()));
    }
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let given = name::from_command(&words);
    assert_eq!(name::check(&given), Ok(()));
    let second = name::unique(&given, |name| name == given);
    assert_eq!(name::check(&second), Ok(()));
    assert_ne!(second, given);
    assert_eq!(inspect::inspect_args(&words, 0), words);
    let counted = inspect::inspect_args(&words, 3);
    assert!(counted.len() <= words.len() + 1);
    let added = counted.iter().zip(words.iter().map(Some).chain([None])).position(|(is, was)| Some(is) != was);
    if let Some(at) = added {
        assert!(counted[at].starts_with("--inspect-port="), "{counted:?}");
        assert_eq!([&counted[..at], &counted[at + 1..]].concat(), words);
    }
    let _ = inspect::inspect_flag_for_node_options(text, 1);
}

/// Bad lines whose messages are looked at one by one.
const HIDDEN_MAX: usize = 20;

/// An environment file.
pub(crate) fn env_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parsed = env_file::parse(&text);
    assert_eq!(parsed, env_file::parse(&text.replace("\r\n", "\n").replace('\n', "\r\n")), "line ends mean nothing");
    match &parsed {
        Ok(pairs) => {
            for (name, value) in pairs {
                assert_eq!(env_file::check(name, value), Ok(()));
                assert!(!env_file::RESERVED.contains(&name.as_str()));
            }
            let written: String = pairs.iter().map(|(name, value)| written(name, value)).collect();
            assert_eq!(env_file::parse(&written).as_ref(), Ok(pairs), "{written:?}");
        }
        Err(bad) => {
            let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
            let mut before = 0;
            assert!(!bad.is_empty());
            for (n, (number, message)) in bad.iter().enumerate() {
                assert!(before < *number && *number <= lines.len());
                before = *number;
                // Each of these reads the whole rest of the text.
                if n < HIDDEN_MAX {
                    hides_the_value(&lines[number - 1..].join("\n"), &message.to_string());
                }
            }
        }
    }
    // A line means the same wherever it stands, unless a quoted value goes over several.
    let mut pairs = Vec::new();
    let mut all_good = true;
    for line in text.trim_start_matches('\u{feff}').lines().filter(|line| !line.starts_with('\u{feff}')) {
        match env_file::parse(line) {
            Ok(more) => pairs.extend(more),
            Err(_) => all_good = false,
        }
    }
    if let Ok(whole) = parsed
        && !text.contains("\n\u{feff}")
    {
        assert!(all_good || text.contains(['"', '\'', '`']));
        if all_good {
            assert_eq!(pairs, whole);
        }
    }
}

/// The pair as a line that can mean nothing else.
fn written(name: &str, value: &str) -> String {
    let escapes = BTreeMap::from([('\\', "\\\\"), ('"', "\\\""), ('\n', "\\n"), ('\r', "\\r"), ('\t', "\\t")]);
    let escaped: String = value.chars().map(|c| escapes.get(&c).map_or(c.to_string(), ToString::to_string)).collect();
    format!("export {name}=\"{escaped}\"\n")
}

/// Values are secrets: what is said of a line is the same when its value, which may go over the lines after it, has other
/// letters.
fn hides_the_value(text: &str, message: &str) {
    let first = text.split('\n').next().unwrap_or_default();
    let (name, value) = text.split_at(first.find('=').map_or(0, |sign| sign + 1));
    let masked: String = value.chars().map(|c| if c.is_alphanumeric() { 'x' } else { c }).collect();
    let said = env_file::parse(&format!("\n{name}{masked}"));
    let said = said.map_err(|bad| bad.first().map(|(line, why)| (*line, why.to_string())));
    assert_eq!(said, Err(Some((2, message.to_owned()))));
}
