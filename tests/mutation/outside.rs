//! One test for each way in.
use super::apps::{hello, misbehave};
use super::client::get;
use super::cluster::{Cluster, Folder};
use super::{corpus, inputs};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Most memory that the master ever has, in KiB.
const MASTER_KIB_MAX: u64 = 48 * 1024;
/// Longest silence of the control API, and longest run of a command.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Threads that ask the control API, or run commands.
const THREADS: usize = 4;

const JSON_WORDS: &[&[u8]] = &[b"null", b"true", b"{", b"}", b"[", b",", b"\"cmd\":\"NODE_CLUSTER\",", b"\"seq\":-1,"];

/// An honest app beside one whose workers send the inputs of a file over `way`, each in its turn, whoever of them lives.
fn with_senders(way: &str, workers: usize, inputs: &[Vec<u8>], more: &str) -> Cluster {
    let folder = Folder::new();
    let mut file = Vec::new();
    for input in inputs {
        file.extend((input.len() as u32).to_le_bytes());
        file.extend(input);
    }
    std::fs::write(folder.path().join("inputs"), file).unwrap();
    let (honest, script) = (hello(), misbehave("sends_inputs.py"));
    folder.write(
        "c.toml",
        &format!(
            "[[app]]\nname = \"honest\"\ncommand = [\"node\", {honest:?}]\nworkers = 1\nlisten = \"127.0.0.1:0\"\n\
             [[app]]\nname = \"sends\"\ncommand = [\"python3\", \"-I\", \"-S\", {script:?}, \"{way}\"]\nworkers = {workers}\n\
             drain_timeout = \"100ms\"\nkill_timeout = \"100ms\"\n{more}\n[app.restart]\nmin_uptime = \"0s\"\n\
             max_restarts = \"never\"\nbackoff_min = \"1ms\"\nbackoff_max = \"1ms\"\n"
        ),
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_view("both apps", |view| view.apps.len() == 2 && view.apps[0].workers_ready == 1);
    cluster
}

/// How many inputs were sent.
fn sent(cluster: &Cluster) -> usize {
    let text = std::fs::read_to_string(cluster.folder.path().join("next")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// All inputs are sent while the honest app answers; then master and keeper are what they were.
fn until_all_are_sent(cluster: Cluster, count: usize, master: i32) {
    let mut last = (0, Instant::now());
    while sent(&cluster) < count {
        get(cluster.address(), "/").unwrap();
        let now = sent(&cluster);
        if now > last.0 {
            last = (now, Instant::now());
        }
        assert!(last.1.elapsed() < ANSWER_MAX, "nothing was sent after input {now}: {:#?}", cluster.try_view());
        std::thread::sleep(Duration::from_millis(50));
    }
    is_unharmed(cluster, master);
}

fn is_unharmed(mut cluster: Cluster, master: i32) {
    get(cluster.address(), "/").unwrap();
    assert_eq!(cluster.master_pid(), master, "the master did not live");
    let status = std::fs::read_to_string(format!("/proc/{master}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak_kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < MASTER_KIB_MAX, "the master had {peak_kib} KiB");
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    let said = cluster.stderr();
    assert!(!said.iter().any(|line| line.contains("panicked")), "{said:#?}");
}

#[test]
#[ignore = "takes a minute"]
fn lines_of_a_channel() {
    let inputs = inputs("channel", 3_000, &corpus::node_lines(), JSON_WORDS);
    let cluster = with_senders("channel", 8, &inputs, "protocol = \"node\"\nlisten = \"127.0.0.1:0\"");
    let master = cluster.master_pid();
    until_all_are_sent(cluster, inputs.len(), master);
}

#[test]
#[ignore = "takes a minute"]
fn datagrams_of_a_notify_socket() {
    let words: &[&[u8]] = &[b"READY=1\n", b"STATUS=", b"STOPPING=1\n", b"MAINPID=1\n", b"EXTEND_TIMEOUT_USEC="];
    let inputs = inputs("notify", 6_000, &corpus::datagrams(), words);
    let cluster = with_senders("notify", 2, &inputs, "ready = \"notify\"\nlisten = \"127.0.0.1:0\"");
    let master = cluster.master_pid();
    until_all_are_sent(cluster, inputs.len(), master);
}

/// Requests that act on nothing but logs and views.
fn requests() -> Vec<Vec<u8>> {
    let gets = [
        "/v1/apps",
        "/v1/apps/honest",
        "/v1/apps/honest/env",
        "/v1/logs?lines=3",
        "/livez",
        "/readyz",
        "/metrics",
        "/nope",
    ];
    let posts = [
        ("/v1/logs/reopen", ""),
        ("/v1/logs/flush", ""),
        ("/v1/apps/honest/scale", "{\"workers\":\"1\"}"),
        ("/v1/apps/honest/signal", "{\"signal\":\"SIGWINCH\"}"),
        ("/v1/ready", ""),
        ("/v1/upgrade", "{\"binary\":\"/nonexistent\"}"),
    ];
    let get = |path: &&str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let post = |(path, body): &(&str, &str)| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    gets.iter().map(get).chain(posts.iter().map(post)).collect()
}

#[test]
#[ignore = "takes a minute"]
fn requests_to_the_control_api() {
    let words: &[&[u8]] = &[
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"ffffffffffffffff\r\n",
        b"Expect: 100-continue\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"%00",
        b"../",
        b"lines=99999999999&",
        b"follow=true&",
        b"HTTP/9.9",
    ];
    let mut inputs = inputs("control", 12_000, &requests(), words);
    // These would end what the test asks.
    inputs
        .retain(|input| ![&b"/stop"[..], b"/delete"].iter().any(|word| input.windows(word.len()).any(|w| w == *word)));
    let folder = Folder::new();
    let app = hello();
    let text =
        format!("[[app]]\nname = \"honest\"\ncommand = [\"node\", {app:?}]\nworkers = 1\nlisten = \"127.0.0.1:0\"\n");
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    let master = cluster.master_pid();
    let run = cluster.folder.path().join("home/run");
    let mut files = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let socket = files.find(|path| path.extension().is_some_and(|ending| ending == "sock")).unwrap();
    let (next, silent) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_answered(&socket, input) {
                        silent.lock().unwrap().push(input.escape_ascii().to_string());
                    }
                }
            });
        }
    });
    let silent = silent.into_inner().unwrap();
    assert!(silent.is_empty(), "no answer to {} requests, the first: {}", silent.len(), silent[0]);
    is_unharmed(cluster, master);
}

/// Whether an answer begins, or the connection ends, in time.
fn is_answered(socket: &Path, input: &[u8]) -> bool {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    // It may have been refused before all of it was written.
    let _ = stream.write_all(input).and_then(|()| stream.shutdown(Shutdown::Write));
    match stream.read(&mut [0; 4096]) {
        Ok(0..) => true,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Runs a command; it ends by itself, with one of the exit codes that are documented.
fn runs(folder: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.args(args).current_dir(folder).env("CLUSTERD_HOME", folder.join("home"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = stderr.read_to_string(&mut said);
        said
    });
    let begun = Instant::now();
    while begun.elapsed() < ANSWER_MAX && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    // What has not ended by itself is killed, which no exit code says. Whoever has ended is not harmed.
    let _ = child.kill();
    let status = child.wait().unwrap();
    let said = reader.join().unwrap();
    assert!(matches!(status.code(), Some(0..=2)), "{args:?} ended with {status:?}: {said}");
}

fn run_all(folder: &Folder, inputs: &[Vec<u8>], run: impl Fn(&Path, &[u8]) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (next, run) = (&next, &run);
            let place = folder.path().join(number.to_string());
            std::fs::create_dir(&place).unwrap();
            scope.spawn(move || {
                while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(&place, input);
                }
            });
        }
    });
}

#[test]
#[ignore = "takes a minute"]
fn configurations_and_files_of_pm2() {
    let folder = Folder::new();
    let words: &[&[u8]] =
        &[b"[[app]]\n", b"[app.limits]\n", b"listen = ", b"{ address = \"unix:/a\", mode = \"0660\" }", b"[[["];
    let inputs = inputs("configuration", 300, &corpus::configurations(), words);
    run_all(&folder, &inputs, |place, input| {
        std::fs::write(place.join("c.toml"), input).unwrap();
        runs(place, &["check", "-c", "c.toml"]);
    });
    let pm2: Vec<Vec<u8>> = vec![
        b"{\"apps\":[{\"name\":\"a\",\"script\":\"a.js\",\"instances\":\"max\",\"exec_mode\":\"cluster\",\"env\":{\"A\":1}}]}".to_vec(),
        b"{\"apps\":[{\"script\":\"a.js\",\"watch\":[\"src\"],\"max_memory_restart\":\"100M\",\"cron_restart\":\"0 0 * * *\"}]}".to_vec(),
        b"apps:\n  - script: a.js\n    instances: 4\n    env: &e\n      A: b\n    env_production: *e\n".to_vec(),
    ];
    let inputs = super::inputs("import", 300, &pm2, &[b"*e", b"&a ", b"- ", b"{", b"[", b"\"script\":", b"1e999"]);
    let other = folder.path().join("import");
    std::fs::create_dir(&other).unwrap();
    let folders = Folder::new();
    run_all(&folders, &inputs, |place, input| {
        let name = if input.starts_with(b"apps") { "app.yaml" } else { "app.json" };
        std::fs::write(place.join(name), input).unwrap();
        runs(place, &["import", name]);
    });
}

#[test]
#[ignore = "takes a minute"]
fn words_of_the_command_line() {
    let folder = Folder::new();
    let lines: Vec<Vec<u8>> = [
        "check|--workers|max-1|--port|8080|--env|A=b|--|node|app.js",
        "check|-i|",
        "ls|--json",
        "describe|/web.*/",
        "logs|all|--lines|3|--nostream",
        "scale|web|+2",
        "signal|web|SIGHUP",
        "reload|all|--env-file|x",
        "check|-l|[::1]:80|-b|kernel|--ready|http:/|--|x",
        "completions|bash",
        "import|x.json",
        "stop|all|--timeout|1s",
    ]
    .iter()
    .map(|line| line.replace('|', "\0").into_bytes())
    .collect();
    let words: &[&[u8]] = &[b"\0--", b"\0-", b"\0--user\0", b"\0--only\0", b"=", b"\0all\0", b"\0\0"];
    let inputs = inputs("command line", 600, &lines, words);
    let verbs = ["check", "ls", "describe", "logs", "scale", "signal", "reload", "completions", "import", "stop"];
    run_all(&folder, &inputs, |place, input| {
        let text = String::from_utf8_lossy(input);
        let mut args: Vec<&str> = text.split('\0').collect();
        // Nothing is started, and nothing waits for more.
        if !verbs.contains(&args[0]) {
            args[0] = "check";
        }
        if args[0] == "logs" {
            args.push("--nostream");
        }
        runs(place, &args);
    });
}
