//! Connections that cannot move: with TLS or HTTP/2 in the worker, clients learn that it leaves, and nothing is cut. And programs
//! that end on SIGTERM get it after `drain_delay`.
use super::apps::project;
use super::cluster::{Cluster, Folder, PATIENCE};
use clusterd::api::types::WorkerState;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// HTTPS, or HTTP/2 where H2 is set.
const APP: &str = r"
const fs = require('fs');
const keys = { key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') };
const answer = (request, response) => response.end('pid=' + process.pid);
const server = process.env.H2 ? require('http2').createSecureServer(keys, answer) : require('https').createServer(keys, answer);
server.keepAliveTimeout = 120_000;
server.listen(process.env.PORT);
";

/// Two connections: `idle` asks once, `busy` once and again when it is told to. Prints what happens to them.
const CLIENT: &str = r"
const port = process.argv[2];
const say = (...words) => console.log(words.join(' '));
for (const name of ['idle', 'busy']) {
  if (process.env.H2) {
    const session = require('http2').connect('https://localhost:' + port, { rejectUnauthorized: false });
    const ask = () => {
      const stream = session.request({ ':path': '/' });
      stream.setEncoding('utf8').on('data', (text) => say(name, text));
    };
    session.on('goaway', () => say(name, 'goaway')).on('error', (error) => say(name, error.code));
    ask();
  } else {
    const socket = require('tls').connect({ port, host: 'localhost', rejectUnauthorized: false });
    const ask = () => socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    socket.setEncoding('utf8').on('data', (text) => {
      const pid = /pid=\d+/.exec(text);
      if (pid) say(name, pid[0], /connection: close/i.test(text) ? 'close' : 'keep');
    });
    socket.on('close', () => say(name, 'closed')).on('error', (error) => say(name, error.code));
    ask();
    if (name === 'busy') process.stdin.on('data', ask);
  }
}
";

/// The client, ended when dropped.
struct Client {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    fn start(cluster: &Cluster, h2: &str) -> Client {
        let file = cluster.folder.write("client.js", CLIENT);
        let mut command = Command::new("node");
        command.args([file, cluster.address().port().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if !h2.is_empty() {
            command.env("H2", h2);
        }
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Client { child, to, from }
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next two lines, in either order.
    fn hear_two(&mut self) -> Vec<String> {
        let mut two = vec![self.hear(), self.hear()];
        two.sort();
        two
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One worker with a certificate of its own; `None` where there is no openssl to make it.
fn start(h2: &str) -> Option<Cluster> {
    let folder = Folder::new();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: openssl is missing");
        return None;
    }
    folder.write("app.js", APP);
    let mode = format!("H2={h2}");
    let args = ["-w", "1", "--host", "127.0.0.1", "--port", "0", "--name", "web", "--drain-timeout", "3s", "-e", &mode];
    let cluster = Cluster::start_in(folder, &[&args[..], &["--", "node", "app.js"]].concat(), |_| {});
    cluster.wait_ready(1);
    Some(cluster)
}

fn begin_reload(cluster: &Cluster) {
    cluster.signal("HUP");
    cluster.wait_view("a drain", |view| view.apps[0].workers.iter().any(|w| w.state == WorkerState::Draining));
}

#[test]
fn tls_clients_are_told_with_the_next_answer_and_idle_ones_are_not_cut_before_the_end() {
    let Some(cluster) = start("") else { return };
    let old = cluster.worker_pids()[0];
    let mut client = Client::start(&cluster, "");
    assert_eq!(client.hear_two(), [format!("busy pid={old} keep"), format!("idle pid={old} keep")]);
    let from = Instant::now();
    begin_reload(&cluster);
    client.to.write_all(b"ask\n").unwrap();
    assert_eq!(client.hear(), format!("busy pid={old} close"));
    assert_eq!(client.hear(), "busy closed");
    assert_eq!(client.hear(), "idle closed");
    assert!(from.elapsed() >= Duration::from_secs(3), "{:?}", from.elapsed());
    cluster.stop();
}

#[test]
fn http2_clients_get_goaway() {
    let Some(cluster) = start("1") else { return };
    let old = cluster.worker_pids()[0];
    let mut client = Client::start(&cluster, "1");
    assert_eq!(client.hear_two(), [format!("busy pid={old}"), format!("idle pid={old}")]);
    // The drain may be over before anybody could see it.
    cluster.signal("HUP");
    assert_eq!(client.hear_two(), ["busy goaway", "idle goaway"]);
    cluster.stop();
}

#[test]
fn a_program_gets_sigterm_only_after_drain_delay() {
    let script = project("workers/python/listen_fds.py").display().to_string();
    let fixed = ["-w", "2", "--host", "127.0.0.1", "--port", "0", "--name", "web", "--ready", "notify", "-b", "kernel"];
    let cluster = Cluster::start(&[&fixed[..], &["--drain-delay", "1500ms", "--", "python3", &script]].concat());
    cluster.wait_ready(2);
    let from = Instant::now();
    assert!(cluster.cli(&["scale", "web", "1"]).status.success());
    cluster.wait_view("one worker", |view| view.apps[0].workers.len() == 1);
    assert!(from.elapsed() >= Duration::from_millis(1500) && from.elapsed() < PATIENCE, "{:?}", from.elapsed());
    cluster.stop();
}
