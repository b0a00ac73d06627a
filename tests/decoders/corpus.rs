//! Valid inputs, as builders: what Node, keeper, master, programs and people really write.
use clusterd::ids::WorkerId;
use clusterd::keeper::codec;
use clusterd::keeper::protocol::{About, Credentials, GroupLimits, Notice, Order, OwnUpgrade, SpawnSpec, SpawnStep};
use clusterd::keeper::state::{self, GroupState, GroupsState, State};
use clusterd::keeper::table::{Child, State as Life, Table};
use clusterd::keeper::watchdog::WatchdogState;
use clusterd::record;
use std::collections::{BTreeMap, VecDeque};

pub(crate) const JSON_WORDS: &[&[u8]] = &[
    b"\"cmd\":",
    b"\"NODE_CLUSTER\"",
    b"\"NODE_HANDLE\"",
    b"\"act\":\"queryServer\"",
    b"\"ack\":",
    b"\"accepted\":true",
    b"\"seq\":",
    b"\"addressType\":",
    b"\"data\":",
    b"\"key\":",
    b"null",
    b"{}",
    b"[[[[",
    b"\\u2028",
    b"\\ud800",
];
pub(crate) const NOTIFY_WORDS: &[&[u8]] = &[b"READY=1\n", b"STOPPING=1", b"STATUS=", b"\nSTATUS=", b"7", b"128", b"+7"];
pub(crate) const CONFIG_WORDS: &[&[u8]] = &[
    b"[[app]]\n",
    b"[app.env]\n",
    b"[app.restart]\n",
    b"command = \"sleep 5\"\n",
    b"name = \"web\"\n",
    b"listen = \"8080\"\n",
    b"workers = 2\n",
    b"env.A = 1\n",
    b"\"\"\"",
    b"'''",
    b"{ a = 1 }",
    b"[1, 2]",
    b"0x7f",
    b"0o27",
    b"1979-05-27T07:32:00Z",
    b"unix:",
    b"[::1]:",
    b"*:",
    b"30s",
    b"max-",
    b"%",
    b"--inspect=",
    b"65536",
];
pub(crate) const ENV_WORDS: &[&[u8]] =
    &[b"export ", b"\"", b"'", b" #", b"\\n", b"\\\"", b"\n# no\n", b"LISTEN_FDS=", b"PASSWORD=hunter2hunter2\n"];

fn query(address: &str, address_type: &str, more: &str) -> String {
    format!(
        "{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"index\":0,\"data\":null,\"address\":{address},\
         \"port\":8080,\"addressType\":{address_type},\"fd\":null,\"flags\":0,\"backlog\":511{more},\"seq\":2}}"
    )
}

/// Every line that Node's child sends, and users' messages.
pub(crate) fn node_lines() -> Vec<Vec<u8>> {
    let mut lines: Vec<String> = [
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":1}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"listening\",\"address\":null,\"port\":8080,\"addressType\":4,\"fd\":null,\"seq\":3}",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":4294967297,\"accepted\":true,\"seq\":7}",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":12,\"accepted\":false,\"seq\":8}",
        "{\"cmd\":\"NODE_CLUSTER\",\"ack\":1,\"seq\":4}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"close\",\"key\":\"null:8080:4::0\",\"seq\":5}",
        "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"exitedAfterDisconnect\",\"seq\":6}",
        "{\"cmd\":\"NODE_HANDLE_ACK\"}",
        "{\"cmd\":\"NODE_HANDLE_NACK\"}",
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"a\":1},\"key\":\"x\"}",
        "{\"cmd\":\"NODE_SOCKET_NOTIFY_CLOSE\",\"key\":\"x\"}",
        "\"ready\"",
        "\"ready\u{2028}\u{2029}\"",
        "{\"type\":\"log\",\"text\":\"a\\nb\u{2028}c\",\"n\":[1,2.5,-3e10,true,null,{}]}",
        "{\"cmd\":\"restart\",\"data\":{\"cmd\":\"NODE_CLUSTER\"}}",
        "{\"cmd\":{\"cmd\":\"NODE_CLUSTER\"}}",
        "[1,[2,[3]]]",
        "null",
        "false",
        "-12.5e-3",
    ]
    .map(str::to_owned)
    .to_vec();
    lines.push(query("null", "4", ""));
    lines.push(query("\"::1\"", "6", ",\"data\":{\"keys\":[\"a\u{2028}\",\"\\\"\"]}").replace("\"data\":null,", ""));
    lines.push(query("\"/run/app.sock\"", "-1", "").replace("8080", "-1"));
    lines.push(query("\"0.0.0.0\"", "\"udp4\"", ""));
    lines.push(query("\"::\"", "\"udp6\"", "").replace("8080", "\"8080\""));
    // What an app gives listen() as its backlog is passed on as it is; for listen(port, host, callback) it is false.
    for backlog in ["false", "true", "1.5", "\"7\"", "{\"a\":1}", "null"] {
        lines.push(query("\"127.0.0.1\"", "4", "").replace("511", backlog));
    }
    lines.push(query("null", "null", "").replace("8080", "null").replace("\"fd\":null", "\"fd\":3"));
    lines.push(query("\"0.0.0.0\"", "\"udp4\"", "").replace("8080", "true"));
    lines.into_iter().map(String::into_bytes).collect()
}

/// Streams for the framing body: 8 bytes that say how to cut, then lines.
pub(crate) fn streams() -> Vec<Vec<u8>> {
    let all = node_lines().join(&b'\n');
    let long = [b"\"".to_vec(), vec![b'x'; 9_000], b"\"\n".to_vec()].concat();
    let bodies = [all.clone(), [&all[..], b"\n"].concat(), b"\n\n\n".to_vec(), long, vec![b'\n'; 300], Vec::new()];
    bodies.iter().zip(1_u64..).map(|(body, cuts)| [&cuts.to_le_bytes()[..], body].concat()).collect()
}

fn orders() -> Vec<Order> {
    let worker = WorkerId(1 << 40);
    vec![
        Order::Hold { name: "listen/web/null:8080:4::0".into() },
        Order::Release { name: "channel/7".into() },
        Order::Note { key: "worker/7".into(), value: br#"{"id":7,"slot":0,"phase":"Killed"}"#.to_vec() },
        Order::Forget { key: "worker/7".into() },
        Order::Spawn { worker },
        Order::Signal { worker, signal: 15, group: true },
        Order::ExitSeen { worker },
        Order::Look { worker, call: 9, tid: 4711, address: 1 << 40, bytes: 16 },
        Order::Heartbeat,
        Order::Ready,
        Order::Finish { code: 1 },
        Order::Upgrade,
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

fn about(upgrade: OwnUpgrade) -> About {
    About { version: "1.2.3".into(), upgrade, has_store: true }
}

fn notices() -> Vec<Notice> {
    let worker = WorkerId(7);
    vec![
        Notice::Hello {
            version: record::VERSION,
            incarnation: 2,
            previous_end: "was killed by SIGKILL".into(),
            about: about(OwnUpgrade::Done),
        },
        Notice::Keeper { about: about(OwnUpgrade::Stays { why: "the new binary gave no answer in 5 s".into() }) },
        Notice::Child {
            worker,
            pid: 4711,
            tag: b"web/3".to_vec(),
            started_ms: 1_000,
            status: Some(256),
            out_of_memory: false,
        },
        Notice::Held { name: "source/1".into() },
        Notice::Noted { key: "app/web".into(), value: b"{}".to_vec() },
        Notice::Begin,
        Notice::Spawned { worker, pid: 4711 },
        Notice::SpawnFailed { worker, step: SpawnStep::Exec, errno: 2 },
        Notice::Exited { worker, status: 9, at_ms: 2_000, out_of_memory: false },
        Notice::Looked { worker, call: 9, bytes: vec![2, 0, 31, 144], errno: 0 },
        Notice::Signal { signal: 10, value: Some(-1) },
    ]
}

/// A message of each kind.
pub(crate) fn keeper_messages() -> Vec<Vec<u8>> {
    let spec = SpawnSpec {
        tag: b"web/3".to_vec(),
        app: "web".into(),
        program: b"/usr/bin/node".to_vec(),
        args: vec![b"node".to_vec(), b"app.js".to_vec()],
        env: vec![b"PATH=/bin".to_vec(), b"NODE_UNIQUE_ID=7".to_vec()],
        listen_pid: true,
        cwd: Some(b"/srv".to_vec()),
        umask: Some(0o27),
        credentials: Some(Credentials { uid: 33, gid: 33, groups: vec![33, 44] }),
        rlimits: vec![(7, 1024, 4096)],
        nice: Some(5),
        oom_score_adj: Some(500),
        cpus: vec![0, 3],
        no_new_privs: true,
        intercept: Some(4),
        may_give_up_privileges: true,
        placements: vec![3, 4],
    };
    let mut all: Vec<Vec<u8>> = orders().iter().map(|order| codec::encode_order(order).unwrap()).collect();
    all.extend(notices().iter().map(|notice| codec::encode_notice(notice).unwrap()));
    all.extend([spec, SpawnSpec::default()].iter().map(|spec| codec::encode_spawn_spec(spec).unwrap()));
    all
}

/// Messages in both shapes, and lines that are none.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    [
        r#"{"action":"a","data":{"x":[1,"\u0000"]},"to":"app"}"#,
        r#"{"action":"a","to":"agent","from":"master"}"#,
        r#"{"action":"a","data":"b","receiverPid":"42"}"#,
        r#"{"action":"agent-start","to":"master"}"#,
        r#"{"clusterd":{"to":"random","id":"x\"y"},"message":{"action":"a"}}"#,
        "{\"clusterd\":{\"to\":{\"slot\":3}}}\n{\"clusterd\":{\"to\":{\"pid\":9},\"id\":7},\"message\":[1]}",
        r#" {"clusterd":{"to":"all"},"message":"x" } "#,
        r#"{"clusterd":{"to":"nobody","id":1},"message":null}"#,
        r#"{"cmd":"\u004eODE_CLUSTER","act":"disconnect","action":"a","to":"app"}"#,
        r#""ready""#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

/// A byte that says how to cut, then what an inspector says over HTTP or in frames.
pub(crate) fn inspector_streams() -> Vec<Vec<u8>> {
    let frame = |text: &str| match text.len() {
        short @ 0..=125 => [&[0x81, short as u8], text.as_bytes()].concat(),
        long => [&[0x81, 126][..], &(long as u16).to_be_bytes(), text.as_bytes()].concat(),
    };
    let value = r#"{\"file\":\"report.1.json\",\"why\":null,\"stack\":\"Error\\n    at f (/a.js:1:2)\",\"directory\":\"/srv\"}"#;
    let frames = [
        frame(r#"{"id":1,"result":{"debuggerId":"7.8"}}"#),
        frame(
            r#"{"method":"Debugger.scriptParsed","params":{"scriptId":"7","url":"file:///srv/app.js","sourceMapURL":"data:x"}}"#,
        ),
        frame(
            r#"{"method":"Debugger.paused","params":{"callFrames":[{"callFrameId":"3.1.0","functionName":"f"}],"reason":"other"}}"#,
        ),
        frame(&format!(r#"{{"id":3,"result":{{"result":{{"type":"string","value":"{value}"}}}}}}"#)),
        frame(r#"{"id":2,"error":{"code":-32000,"message":"no"}}"#),
        vec![0x88, 0],
    ];
    let list = "HTTP/1.0 200 OK\r\nContent-Length: 17\r\n\r\n[{\"id\":\"a-b-1\"} ]";
    let granted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let all = [list.as_bytes().to_vec(), granted.as_bytes().to_vec(), frames.concat(), frames[3].clone()];
    all.iter().zip(0_u8..).map(|(bytes, cut)| [&[cut * 5][..], bytes].concat()).collect()
}

/// What workers answer when they are asked whether they are ready.
pub(crate) fn http_answers() -> Vec<Vec<u8>> {
    [
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nok",
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.0 204\r\n\r\n",
        "HTTP/1.1 404 Not Found\n\n",
        "220 mail.example ESMTP\r\n",
        "\u{15}\u{3}\u{1}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// What keepers hand over: one with nothing but a master, one with everything.
pub(crate) fn keeper_states() -> Vec<Vec<u8>> {
    let watchdog = WatchdogState {
        incarnation: 2,
        started_ms: 5_000,
        backoff_ms: 50,
        stops_asked: 0,
        stop_now_until_ms: Some(60_000),
    };
    let mut state = State {
        file_limit: (1024, 4096),
        original_oom_score_adj: Some(0),
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
        watchdog,
        master_pid: 4711,
        ours: 5,
        theirs: 6,
        news: VecDeque::new(),
        table: Table::default(),
        reports: BTreeMap::new(),
    };
    let empty = state::encode(&state.view(), |fd| *fd).unwrap();
    for (id, life) in (1..).zip([Life::Starting, Life::Running, Life::Ended { status: 9, at_ms: 7_000 }]) {
        let (tag, app) = (b"web/3".to_vec(), "web".to_owned());
        let child = Child { pid: 5_000 + id, tag, app, started_ms: 6_000, out_of_memory: false, state: life };
        state.table.restore(WorkerId(id as u64), child).unwrap();
    }
    state.reports.insert(WorkerId(1), 7);
    state.table.hold("listen/web/null:8080:4::0".into(), 8).unwrap();
    state.table.note("app/0".into(), b"{}".to_vec()).unwrap();
    state.table.restore_waiting(Notice::Signal { signal: 15, value: None }).unwrap();
    state.news.push_back(Notice::Exited { worker: WorkerId(3), status: 9, at_ms: 7_000, out_of_memory: false });
    vec![empty, state::encode(&state.view(), |fd| *fd).unwrap()]
}

pub(crate) fn datagrams() -> Vec<Vec<u8>> {
    let long = format!("STATUS={}", "ü".repeat(300));
    [
        "READY=1",
        "READY=1\nSTATUS=warm\x1b[0m\nMAINPID=7\n",
        "STOPPING=1\nSTATUS=bye",
        "WATCHDOG=1\n\n",
        &long,
        "7\n2",
        "8\nmany",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The samples of the project, one file with every kind of value, one with every kind of mistake.
pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut all: Vec<Vec<u8>> =
        ["cluster.toml", "minimal.toml"].map(|name| std::fs::read(samples.join(name)).unwrap()).to_vec();
    let rich = r#"
[[app]]
name = "web"
command = ["node", "--inspect", "ü.js"]
workers = "max-1"
listen = ["127.0.0.1:8080", "[::1]:8081", "localhost:9000", "unix:run/web.sock", "*:0"]
port = 8082
balance = "sticky"
ready = "2s"
env = { A = "1", B = 2, C = true, D = 1.5, production = { A = "x" } }
env_file = [".env", "more.env"]
umask = 0o027
user = 33
restart.max_restarts = "never"
restart.stop_exit_codes = [0, 3]

[[app]]
command = "sleep 5"
protocol = "none"
workers = "50%"
[app.restart]
backoff_min = "1s"
backoff_max = "1m"
"#;
    let wrong = r#"
workers = 2
[[app]]
name = "all"
workers = 0
listen = ["8080", "http://x", 8080, "::1"]
listen = "8080"
ready_timeout = 30
env = 5
instances = 4
cron_restart = "x"
umask = 27
command = text
[app.restart]
max_restarts = 0
surge = 1
"#;
    all.extend([rich, wrong].map(|text| text.as_bytes().to_vec()));
    all
}

pub(crate) fn typed_values() -> Vec<Vec<u8>> {
    [
        "4",
        "max",
        "max-1",
        "50%",
        "30s",
        "500ms",
        "2m",
        "1h",
        "8080",
        "127.0.0.1:8080",
        "[::1]:8080",
        "*:8080",
        "localhost:8080",
        "unix:/run/app.sock",
        "./app.sock",
        "027",
        "round-robin",
        "sticky",
        "shared",
        "listen-fds",
        "listening",
        "message",
        "notify",
        "http:/healthz?deep=1",
        "http://127.0.0.1/x",
        "node --inspect=0.0.0.0:9229 app.js",
        "node --inspect-port 65535 -r x.js main.js",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn env_files() -> Vec<Vec<u8>> {
    [
        "\u{feff}A=1\r\n# no\n\nexport B = two words # comment\nC='a # b'\nD=\"x\\n\\\"y\\\" \\d\" # c\nE=\nA=3\nF=a=b#c\n",
        "PASSWORD=correct-horse-battery\nURL=postgres://u:p@h/db?x=#y\n",
        "EMPTY= # nothing\nQUOTED=\"\"\n",
        "a line without a sign, which may be a secret\nLISTEN_FDS=3\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
