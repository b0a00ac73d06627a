//! Workers that live and are not well: stuck event loops, and limits that replace a worker before it does harm.
use super::client::{get, who};
use super::cluster::{Cluster, Folder};
use clusterd::protocol::control::{Deployment, Worker};

/// Answers with its pid; `/block` stops its event loop until the file `go` is there.
const APP: &str = "const fs = require('node:fs');
require('node:http').createServer((q, s) => {
  if (q.url === '/block') while (!fs.existsSync('go'));
  if (q.url === '/leak') { global.leak ??= []; leak.push(Buffer.alloc(64 * 1024 * 1024, 1)); }
  s.end(JSON.stringify({ pid: process.pid }));
}).listen(process.env.PORT);";

/// Two workers of it under these limits.
fn start(limits: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("c.toml", &format!("{config}{limits}"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn delays(view: &Deployment) -> Vec<Option<f64>> {
    view.apps[0].workers.iter().map(|worker| worker.loop_delay_ms).collect()
}

fn slowest(view: &Deployment) -> Worker {
    let delay = |worker: &&Worker| worker.loop_delay_ms.unwrap_or(0.0) as u64;
    view.apps[0].workers.iter().max_by_key(delay).unwrap().clone()
}

#[test]
fn a_stuck_event_loop_shows_its_delay_and_gets_no_connections_until_it_turns() {
    let cluster = start("");
    let address = cluster.address();
    cluster
        .wait_view("delays of idle loops", |view| delays(view).iter().all(|delay| delay.is_some_and(|ms| ms < 500.0)));
    let blocked = std::thread::spawn(move || get(address, "/block"));
    // It was pinged when it was stuck, and the next ping was due.
    let view = cluster.wait_view("a stuck loop", |view| slowest(view).loop_delay_ms.unwrap() > 1_500.0);
    let stuck = slowest(&view).pid.unwrap();
    let table = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(table.contains("DELAY"), "{table}");
    for _ in 0..40 {
        assert_ne!(who(address), stuck);
    }
    let taken = |view: &Deployment| view.apps[0].workers.iter().find(|w| w.pid == Some(stuck)).unwrap().handoffs;
    assert_eq!(taken(&view), taken(&cluster.try_view().unwrap()));
    cluster.folder.write("go", "");
    assert!(blocked.join().unwrap().unwrap().contains(&stuck.to_string()));
    cluster.wait_view("its turn", |_| who(address) == stuck);
    cluster.stop();
}
