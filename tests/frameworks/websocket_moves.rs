//! WebSockets that move with their state (`workers/node/clusterd-ws.js`), held by clients that never pause and count every message.
use super::apps::project;
use super::cluster::{Cluster, Folder, alive};
use super::install;
use super::support::{NODE, app, kill_master, reload, start};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Reloads of one run; RELOADS sets another number.
const RELOADS: u32 = 5;
const CLIENTS: usize = 200;
const FEW: usize = 12;

/// `apps/ws-counts.js`, ended when dropped.
struct Clients {
    child: Child,
    from: BufReader<ChildStdout>,
}

/// What its clients saw.
#[derive(Debug, serde::Deserialize)]
struct Seen {
    sent: u64,
    answered: u64,
    closed: usize,
    wrong: Vec<String>,
    pids: BTreeMap<i32, u64>,
}

impl Clients {
    fn open(cluster: &Cluster, count: usize, more: &[&str]) -> Clients {
        let mut child = Command::new(install::node(NODE))
            .args([app("ws-counts.js"), format!("ws://{}", cluster.address()), count.to_string()])
            .args(more)
            .env("NODE_PATH", install::npm())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut clients = Clients { child, from };
        assert_eq!(clients.hear(), "open");
        clients
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Has them wait for their last answers.
    fn stop(mut self) -> Seen {
        writeln!(self.child.stdin.as_mut().unwrap(), "stop").unwrap();
        serde_json::from_str(&self.hear()).unwrap()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    /// No connection was closed, no message lost or counted twice.
    fn nothing(&self) {
        assert_eq!((self.closed, self.answered), (0, self.sent), "{self:?}");
        assert!(self.wrong.is_empty() && self.sent > 0, "{self:?}");
    }
}

/// Two workers, ready, with `ws` in reach.
fn websockets(app: &str, options: &[&str]) -> Cluster {
    let path = format!("NODE_PATH={}", install::npm().display());
    start(&[&["-e", &path], options].concat(), &[&install::node(NODE), app])
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn websockets_of_the_example_move_in_every_reload() {
    let cluster = websockets(&project("workers/node/websockets/app.js").display().to_string(), &[]);
    let clients = Clients::open(&cluster, CLIENTS, &[]);
    let reloads = std::env::var("RELOADS").map_or(RELOADS, |text| text.parse().unwrap());
    let mut pids = cluster.worker_pids();
    for n in 0..reloads {
        if n == 1 {
            // The next master learns which workers take WebSockets.
            kill_master(&cluster);
        }
        reload(&cluster);
        pids.extend(cluster.worker_pids());
    }
    let moved = cluster.app().moved;
    let seen = clients.stop();
    seen.nothing();
    // Those of the last reload have them all; what the first master counted is gone with it.
    assert!(
        moved >= CLIENTS as u64 && pids[pids.len() - 2..].iter().all(|pid| seen.pids.contains_key(pid)),
        "{seen:?}"
    );
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn websockets_with_permessage_deflate_move_where_it_remembers_nothing() {
    let cluster = websockets(&app("ws-deflate.js"), &[]);
    let clients = Clients::open(&cluster, FEW, &["deflate"]);
    reload(&cluster);
    reload(&cluster);
    assert!(cluster.app().moved >= FEW as u64);
    clients.stop().nothing();
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn websockets_whose_compressors_remember_messages_stay_which_is_said_once() {
    let cluster = websockets(&app("ws-deflate.js"), &["-e", "CONTEXT=kept", "--drain-timeout", "500ms"]);
    let clients = Clients::open(&cluster, FEW, &["deflate"]);
    let before = cluster.worker_pids();
    let said = |lines: &[String]| lines.iter().filter(|line| line.contains("compressor remembers")).count();
    cluster.wait_in_err("a word of each worker", |lines| (said(lines) == 2).then_some(()));
    reload(&cluster);
    let seen = clients.stop();
    assert_eq!((seen.closed, cluster.app().moved), (FEW, 0), "{seen:?}");
    assert!(seen.pids.keys().all(|pid| before.contains(pid)) && said(&cluster.stderr()) == 2, "{seen:?}");
    cluster.stop();
}

/// The example as it is, and as the next version of the code may be: without the helper.
#[test]
#[ignore = "installs frameworks and versions of Node"]
fn websockets_that_no_new_worker_takes_stay_where_they_are() {
    let folder = Folder::new();
    let helper = project("workers/node/clusterd-ws").display().to_string();
    let example = std::fs::read_to_string(project("workers/node/websockets/app.js")).unwrap();
    let example = example.replace("../clusterd-ws", &helper);
    assert!(example.contains(&helper) && example.contains("\nmoveWebSockets("));
    let file = folder.write("app.js", &example);
    let cluster = websockets(&file, &[]);
    let clients = Clients::open(&cluster, FEW, &[]);
    let before = cluster.worker_pids();
    folder.write("app.js", &example.replace("\nmoveWebSockets(", "\nvoid ("));
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| reload(&cluster));
        // The second one that leaves has what the first has given it.
        cluster.wait_view("new workers beside an old one", |view| {
            let new = view.apps[0].workers.iter().filter(|w| w.generation == 2 && w.state == "ready");
            new.count() == 2 && view.apps[0].workers.len() > 2
        });
        assert!(before.iter().any(|&pid| alive(pid)));
        let seen = clients.stop();
        seen.nothing();
        assert!(seen.pids.keys().all(|pid| before.contains(pid)), "{seen:?}");
        // The clients are gone, and the old workers with them.
        reload.join().unwrap();
    });
    assert!(before.iter().all(|&pid| !alive(pid)));
    cluster.stop();
}
