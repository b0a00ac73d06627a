//! The same sample app under every supported version of Node.
use super::apps::hello;
use super::client::who;
use super::install;
use super::support::{kill_one, reload, start};
use std::collections::BTreeSet;

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
