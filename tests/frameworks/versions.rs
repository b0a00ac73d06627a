//! The same sample app under every supported version of Node.
use super::apps::hello;
use super::client::{get, who};
use super::cluster::{Cluster, Folder};
use super::install;
use super::support::{kill_one, reload, start};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Even ones are the long-term versions.
pub(crate) const MAJORS: [u32; 5] = [18, 20, 22, 24, 26];

fn works(major: u32) {
    let cluster = start(&[], &[&install::node(major), &hello()]);
    assert_eq!(cluster.app().protocol, "node");
    let both_answer = || {
        let workers: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
        let answered: BTreeSet<i32> = (0..4).map(|_| who(cluster.address())).collect();
        assert_eq!(answered, workers);
    };
    both_answer();
    kill_one(&cluster);
    both_answer();
    reload(&cluster);
    both_answer();
    cluster.stop();
}

/// The connection with our question reaches the worker that is meant, whoever accepts.
fn is_asked(major: u32) {
    for balance in ["round-robin", "shared"] {
        let cluster = start(&["--ready", "http:/", "-b", balance], &[&install::node(major), &hello()]);
        assert_eq!((cluster.app().ready.as_str(), cluster.app().restarts), ("http:/", 0));
        who(cluster.address());
        reload(&cluster);
        who(cluster.address());
        cluster.stop();
    }
}

/// The answer of an inspector to whoever asks for its targets.
fn told_by(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /json/list HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The report of a hung worker is asked for through an inspector that tells others nothing.
fn leaves_a_report(major: u32) {
    let folder = Folder::new();
    folder.write(
        "app.js",
        "function blockingHandler() { for (;;); }\n\
         require('node:http').createServer((q, s) => { if (q.url === '/hang') blockingHandler(); s.end(); }).listen(process.env.PORT);",
    );
    let node = install::node(major);
    folder.write(
        "c.toml",
        &format!(
            "[[app]]\nname = \"web\"\ncommand = [{node:?}, \"app.js\"]\nworkers = 1\nlisten = \"127.0.0.1:0\"\n\
             [app.limits]\nhang = \"1s\"\nhang_report = true\n"
        ),
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let ready = |view: &clusterd::api::types::Deployment| {
        view.apps[0].workers_ready == 1 && view.apps[0].workers[0].pid.is_some()
    };
    let pid = cluster.wait_view("a ready worker", ready).apps[0].workers[0].pid.unwrap();
    let address = cluster.address();
    let client = std::thread::spawn(move || get(address, "/hang"));
    let asked = std::cell::RefCell::new(BTreeSet::new());
    cluster.wait_view("another worker", |view| {
        // It may be gone between the look and the question.
        for port in clusterd::os::procfs::listening_ports(pid) {
            asked.borrow_mut().extend(told_by(port));
        }
        view.apps[0].workers_ready == 1 && view.apps[0].workers.iter().all(|worker| worker.pid != Some(pid))
    });
    let line = cluster.wait_line("was stuck in blockingHandler (");
    assert!(line.contains("; its report: "), "Node {major}: {line}");
    let asked = asked.into_inner();
    assert!(!asked.iter().any(|answer| answer.contains("webSocketDebuggerUrl")), "Node {major}: {asked:?}");
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn every_version_of_node_leaves_a_report() {
    for major in MAJORS {
        leaves_a_report(major);
    }
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn node_18_works() {
    works(18);
    is_asked(18);
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn node_20_works() {
    works(20);
    is_asked(20);
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn node_22_works() {
    works(22);
    is_asked(22);
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn node_24_works() {
    works(24);
    is_asked(24);
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn node_26_works() {
    works(26);
    is_asked(26);
}
