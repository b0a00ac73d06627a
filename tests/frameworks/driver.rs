//! Does to one row of the table what the page says of it: two workers answer, a reload under load cuts nothing but what the
//! program cuts itself, and a worker that is killed comes back while clients are served.
use super::apps::project;
use super::client::who_from;
use super::cluster::{Cluster, Folder, wait_until};
use super::common::ports::free_port;
use super::install;
use super::support::{Clients, NODE, kill_one, reload, under_load_of};
use super::table::{Cuts, Needs, Row};
use super::web;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A light load. A queue that waits for the next worker waits for as long as that takes to start on a machine that is busy.
const FEW: Clients = Clients { short: 3, kept: 2, patience: Duration::from_secs(25) };
/// Longest way from a process that answers up to its worker.
const ANCESTORS_MAX: usize = 16;

/// Runs a row. Where something that it needs is missing it says so, and nothing is checked.
pub(crate) fn check(row: &Row) {
    let Some(cluster) = launch(row, &[]) else { return };
    all_workers_answer(&cluster);
    let seen = under_load_of(FEW, &cluster, || reload(&cluster));
    match row.reload {
        Cuts::Nothing => seen.nobody_hurt(),
        Cuts::InHand => seen.cut_at_most_in_hand_of(2),
    }
    all_workers_answer(&cluster);
    under_load_of(FEW, &cluster, || kill_one(&cluster)).cut_at_most_in_hand_of(1);
    all_workers_answer(&cluster);
    cluster.stop();
}

/// Two workers of a row's program, ready. `None`: something that it needs is missing.
pub(crate) fn launch(row: &Row, more: &[&str]) -> Option<Cluster> {
    let folder = Folder::new();
    let Prepared { programs, cwd } = prepare(row.needs, &folder)?;
    let port = free_port();
    let (host_port, command) = (port.to_string(), row.command.replace("8080", &port.to_string()));
    let mut args = vec!["--workers", "2", "--port", &host_port];
    args.extend(row.options.split_whitespace());
    args.extend(more);
    if let Some(cwd) = &cwd {
        args.extend(["--cwd", cwd.to_str().unwrap()]);
    }
    args.push("--");
    args.extend(command.split_whitespace());
    let cluster = Cluster::start_in(folder, &args, |command| {
        command.env("PATH", web::path(&programs));
    });
    if row.protocol == "bind" && is_refused(&cluster) {
        eprintln!("skipped: the system refuses the filter");
        return None;
    }
    cluster.wait_ready(2);
    assert_eq!(cluster.app().protocol, row.protocol);
    Some(cluster)
}

/// What a row needs is there.
struct Prepared {
    /// The folders of its programs.
    programs: Vec<PathBuf>,
    /// Where the command is typed, when it is not the folder with the sample apps.
    cwd: Option<PathBuf>,
}

/// The sample apps in a folder, with what they need. `None`: something is not there.
fn prepare(needs: Needs, folder: &Folder) -> Option<Prepared> {
    if let Needs::Built(project) = needs {
        let (cwd, programs) = web::built(project);
        return Some(Prepared { programs, cwd: Some(cwd) });
    }
    let programs = prepare_samples(needs, folder)?;
    Some(Prepared { programs, cwd: None })
}

fn prepare_samples(needs: Needs, folder: &Folder) -> Option<Vec<PathBuf>> {
    let apps = project("tests/frameworks/apps");
    for file in fs::read_dir(&apps).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let npm = || {
        std::os::unix::fs::symlink(install::npm(), folder.path().join("node_modules")).unwrap();
        install::npm_programs(NODE)
    };
    match needs {
        Needs::Npm => Some(npm()),
        Needs::Both(program) => there(program).then(npm),
        Needs::Python => Some(vec![Path::new(&install::python()).parent().unwrap().to_owned()]),
        Needs::System(program) => there(program).then(Vec::new),
        Needs::Compiled(source) => {
            let server = compiled(source)?;
            super::cluster::copy_program(&server, &folder.path().join("server"));
            Some(Vec::new())
        }
        Needs::Worker => {
            super::cluster::copy_program(&install::worker(), &folder.path().join("worker"));
            Some(Vec::new())
        }
        Needs::Built(_) => None,
    }
}

fn compiled(source: &str) -> Option<PathBuf> {
    let static_c: &[&str] = &["cc", "-O1", "-static", "-o"];
    let (name, command): (_, &[&str]) = match source {
        "main.go" => ("go", &["go", "build", "-o"]),
        "server.rs" => ("rust", &["rustc", "-O", "-o"]),
        _ => ("c", static_c),
    };
    let server = install::compiled(name, source, command, &[("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")]);
    if server.is_none() {
        eprintln!("skipped: there is no {}", command[0]);
    }
    server
}

fn there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

fn is_refused(cluster: &Cluster) -> bool {
    let refused = || cluster.stderr().iter().any(|line| line.contains("the system refuses the filter"));
    cluster.wait_view("ready, or a refusal", |view| view.apps[0].workers_ready == 2 || refused());
    refused()
}

/// Waits until each of the workers has answered, by itself or by a process below it. Each client has another address.
fn all_workers_answer(cluster: &Cluster) {
    let workers: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
    assert_eq!(workers.len(), 2);
    let mut answered = BTreeSet::new();
    let mut clients = (1..=u8::MAX).cycle().map(|last| Ipv4Addr::new(127, 0, 0, last));
    wait_until("an answer of each worker", || {
        let worker = worker_of(who_from(clients.next().unwrap(), cluster.address()), &workers);
        answered.insert(worker.expect("an answer from a process of a worker"));
        answered == workers
    });
}

fn worker_of(mut pid: i32, workers: &BTreeSet<i32>) -> Option<i32> {
    for _ in 0..ANCESTORS_MAX {
        if workers.contains(&pid) {
            return Some(pid);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    }
    None
}
