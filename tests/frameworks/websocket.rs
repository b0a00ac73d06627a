//! WebSockets: connections that live long, held by a real client in a process of its own.
use super::client::who;
use super::cluster::{Cluster, alive};
use super::install;
use super::support::{NODE, app, kill_master, node_app, reload, under_load};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Connections that one client holds.
const COUNT: usize = 6;

/// `apps/ws-client.js` with its connections open. Ended when dropped.
struct Client {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    fn open(cluster: &Cluster) -> Client {
        let mut child = Command::new(install::node(NODE))
            .args([app("ws-client.js"), format!("ws://{}/", cluster.address()), COUNT.to_string()])
            .env("NODE_PATH", install::npm())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut client = Client { child, to, from };
        assert_eq!(client.hear(), "open");
        client
    }

    fn say(&mut self, word: &str) {
        writeln!(self.to, "{word}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Every connection echoes; the pids that do.
    fn echo(&mut self) -> Vec<i32> {
        self.say("echo");
        let said = self.hear();
        let pids = said.strip_prefix("echoed ").unwrap_or_else(|| panic!("no echo: {said}"));
        pids.split(' ').map(|pid| pid.parse().unwrap()).collect()
    }

    /// The codes with which all of them were closed.
    fn closed(&mut self) -> Vec<u32> {
        let said = self.hear();
        let codes = said.strip_prefix("closed ").unwrap_or_else(|| panic!("not closed: {said}"));
        codes.split(' ').map(|code| code.parse().unwrap()).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn websockets_do_not_notice_a_dead_master_and_may_finish_during_a_reload() {
    let cluster = node_app("ws.js", &[]);
    let before = cluster.worker_pids();
    let mut client = Client::open(&cluster);
    let held_by = client.echo();
    assert_eq!(held_by.iter().copied().collect::<BTreeSet<_>>(), before.iter().copied().collect());
    kill_master(&cluster);
    assert_eq!(client.echo(), held_by);
    // The new code serves while the old one still talks to those who stay, as long as they do.
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| reload(&cluster));
        cluster.wait_view("new workers beside the old", |view| {
            let new = view.apps[0].workers.iter().filter(|w| w.generation == 2 && w.state == "ready");
            new.count() == 2 && view.apps[0].workers.len() == 4
        });
        assert_eq!(client.echo(), held_by);
        assert!(!before.contains(&who(cluster.address())));
        client.say("close");
        assert_eq!(client.closed(), [1005; COUNT]);
        reload.join().unwrap();
    });
    assert!(before.iter().all(|&pid| !alive(pid)));
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn websockets_that_stay_are_closed_when_their_time_is_up() {
    let cluster = node_app("ws.js", &["--drain-timeout", "500ms"]);
    let mut client = Client::open(&cluster);
    client.echo();
    under_load(&cluster, || reload(&cluster)).nobody_hurt();
    assert_eq!(client.closed(), [1006; COUNT]);
    cluster.stop();
}
