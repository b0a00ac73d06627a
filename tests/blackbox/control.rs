//! The control socket from outside: verbs, and clients that misbehave.
use super::client::who;
use super::cluster::{Cluster, Folder, kill, wait_until};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

fn socket(cluster: &Cluster) -> PathBuf {
    cluster.folder.path().join("home/run/hello.sock")
}

/// Sends bytes as they are; the answer until the end.
fn raw(cluster: &Cluster, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(cluster)).unwrap();
    // A server that has heard enough closes while we still write.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn verbs_change_what_runs() {
    let mut cluster = Cluster::hello(2);
    let said = |args: &[&str]| {
        let output = cluster.cli(args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(said(&["scale", "hello", "+1"]).0, Some(0));
    cluster.wait_ready(3);
    assert_eq!(said(&["scale", "hello", "-2"]).0, Some(0));
    cluster.wait_ready(1);
    let (code, text) = said(&["scale", "hello", "-1"]);
    assert!(code == Some(1) && text.contains("at least 1"), "{text}");
    let (code, text) = said(&["reload", "helo"]);
    assert!(code == Some(1) && text.contains("hello"), "{text}");
    assert_eq!(said(&["reload", "all"]).0, Some(0));
    assert_eq!(said(&["stop", "hello"]).0, Some(0));
    assert_eq!(cluster.wait_exit(), 0);
    let listed = cluster.cli(&["ls"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("nothing runs"));
    assert_eq!(cluster.cli(&["ls", "--json"]).stdout, b"[]\n");
}

#[test]
fn requests_that_make_no_sense_get_a_clear_answer_and_disturb_nobody() {
    let cluster = Cluster::hello(1);
    let worker = who(cluster.address());
    let cases: [(Vec<u8>, &[&str]); 8] = [
        (request("GET", "/nothing", ""), &["404", "/v1/apps"]),
        (request("DELETE", "/v1/apps", ""), &["405", "allow: GET"]),
        (request("GET", "/v1/apps/other", ""), &["404", "hello"]),
        (request("POST", "/v1/apps/hello/scale", "{\"workers\": 3"), &["400", "line 1"]),
        (request("POST", "/v1/apps/hello/scale", "{\"workers\": \"3\", \"x\": 1}"), &["400", "unknown field"]),
        (request("POST", "/v1/apps/hello/scale", "{\"workers\": \"zero\"}"), &["409", "zero"]),
        (request("POST", "/v1/apps/hello/stop", &"x".repeat(4_200_000)), &["413"]),
        (b"\x16\x03\x01 not http at all\r\n\r\n".to_vec(), &["400"]),
    ];
    for (bytes, words) in cases {
        let answer = raw(&cluster, &bytes);
        for word in words {
            assert!(
                answer.contains(word),
                "{} should get {word}: {answer}",
                String::from_utf8_lossy(&bytes[..40.min(bytes.len())])
            );
        }
    }
    // Half a body, and then nothing: it costs the sender its connection, and nobody else anything.
    let half = b"POST /v1/apps/hello/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{".to_vec();
    assert!(raw(&cluster, &half).contains("408"));
    let head = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 300_000]].concat();
    assert!(!raw(&cluster, &head).contains("200 OK"));
    assert_eq!(who(cluster.address()), worker);
    assert_eq!(cluster.wait_ready(1)[0].restarts, 0);
    assert!(raw(&cluster, &request("GET", "/livez", "")).contains("200 OK"));
    assert!(raw(&cluster, &request("GET", "/readyz", "")).contains("200 OK"));
    cluster.stop();
}

#[test]
fn what_each_process_uses_is_told() {
    let folder = Folder::new();
    folder.write("app.js", "require('node:http').createServer((q, s) => s.end()).listen(process.env.PORT)");
    folder.write("agent.js", "setInterval(() => {}, 1000)");
    folder.write(
        "cluster.toml",
        "[[app]]\nname = \"hello\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = [\"127.0.0.1:0\"]\n\
         agent = { command = [\"node\", \"agent.js\"], ready = \"100ms\" }\n",
    );
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    let apps = cluster.try_view().unwrap().apps;
    let agent = apps[0].agent.as_ref().unwrap();
    let mut told: Vec<_> = apps[0].workers.iter().map(|w| (w.pid, w.memory_bytes, w.cpu_ms)).collect();
    told.push((agent.pid, agent.memory_bytes, agent.cpu_ms));
    assert_eq!(told.len(), 3);
    for (pid, memory, cpu_ms) in told {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.unwrap())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let most: u64 = most.trim().trim_end_matches(" kB").trim().parse().unwrap();
        let memory = memory.unwrap();
        assert!(memory > most * 1024 / 4 && memory <= most * 1024, "{memory} of at most {most} KiB");
        assert!(cpu_ms.is_some_and(|ms| ms > 0), "{cpu_ms:?}");
    }
    // One app alone is told the same way.
    let alone = raw(&cluster, &request("GET", "/v1/apps/hello", ""));
    assert!(alone.contains("\"memory_bytes\":") && !alone.contains("\"memory_bytes\":null"), "{alone}");
    cluster.stop();
}

#[test]
fn clients_that_hold_connections_are_bounded() {
    let cluster = Cluster::hello(1);
    let held: Vec<UnixStream> = (0..80).map(|_| UnixStream::connect(socket(&cluster)).unwrap()).collect();
    // Those that say nothing are closed after a while, and then others are served again.
    wait_until("a place", || raw(&cluster, &request("GET", "/livez", "")).contains("200 OK"));
    drop(held);
    cluster.stop();
}

#[test]
fn a_deployment_that_was_stopped_leaves_no_control_socket_behind() {
    for kill_master in [false, true] {
        let mut cluster = Cluster::hello(1);
        if kill_master {
            kill(cluster.master_pid(), "KILL");
            cluster.wait_view("the next master", |view| view.master_restarts == 1);
        }
        assert!(socket(&cluster).exists());
        assert!(cluster.cli(&["stop", "hello"]).status.success());
        assert_eq!(cluster.wait_exit(), 0);
        assert!(!socket(&cluster).exists());
    }
}

#[test]
fn the_log_says_who_asked_for_a_change() {
    let cluster = Cluster::hello(1);
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert!(cluster.cli(&["scale", "hello", "2"]).status.success());
    let line = cluster.wait_line(": scale hello to 2");
    assert!(line.contains(&format!("request from uid {uid}, pid ")), "{line}");
    let looks = cluster.stderr().iter().filter(|line| line.contains("request from")).count();
    assert_eq!(looks, 1, "a look changes nothing");
    cluster.stop();
}
