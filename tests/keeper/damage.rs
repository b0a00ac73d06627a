//! The notes of a real deployment are damaged from outside: this binary comes in as an upgrade, damages what it finds with
//! the keeper, and dies; the previous master has to continue from that.
use crate::client::Load;
use crate::cluster::{Cluster, Folder, alive, command, kill, wait_until};
use clusterd::api::UPGRADE_ARGV0;
use clusterd::keeper::link::Link;
use clusterd::keeper::protocol::Order;
use clusterd::os::memfd;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ExitCode, Stdio};

const SABOTEUR: &str = "saboteur";
/// What stands for every note, and no file.
const ALL_NOTES: &str = "*";
/// Ways to damage a note.
const WAYS: [&str; 4] = ["garbage", "half", "other version", "forget"];

pub(crate) fn is_saboteur() -> bool {
    std::env::current_exe().unwrap().file_name().unwrap() == SABOTEUR
}

/// Does what the file `plan` beside it says: what to damage (the beginning of names), and how.
pub(crate) fn sabotage(role: &OsStr) -> ExitCode {
    if role == UPGRADE_ARGV0 {
        println!("clusterd can");
        return ExitCode::SUCCESS;
    }
    let plan = fs::read_to_string(std::env::current_exe().unwrap().with_file_name("plan")).unwrap();
    let mut link = Link::from_inherited().unwrap();
    let inherited = link.adopt().unwrap();
    for line in plan.lines() {
        let (what, how) = line.split_once(' ').unwrap();
        for (key, value) in inherited.notes.iter().filter(|(key, _)| what == ALL_NOTES || key.starts_with(what)) {
            let key = key.clone();
            let value = match how {
                "garbage" => b"\xff no record".to_vec(),
                "half" => value[..value.len() / 2].to_vec(),
                "other version" => [&b"\x93cluster\x63\0"[..], &value[10..]].concat(),
                _ => {
                    link.order(&Order::Forget { key }, &[]).unwrap();
                    continue;
                }
            };
            link.order(&Order::Note { key, value }, &[]).unwrap();
        }
        for name in inherited.fds.keys().filter(|name| name.starts_with(what)) {
            let garbage = memfd::with_contents("garbage", b"{\"start").unwrap();
            link.order(&Order::Hold { name: name.clone() }, &[garbage.as_fd()]).unwrap();
        }
    }
    link.flush().unwrap();
    ExitCode::from(4)
}

/// Damages what is held under names that begin like this, and waits until the previous master is there again, or tries.
fn damage(cluster: &Cluster, plan: &str, serves_again: bool) {
    let folder = cluster.folder.path();
    let saboteur = folder.join(SABOTEUR);
    if !saboteur.exists() {
        fs::copy(std::env::current_exe().unwrap(), &saboteur).unwrap();
    }
    cluster.folder.write("plan", plan);
    let tries = || cluster.stderr().iter().filter(|line| line.contains("going back to the previous binary")).count();
    let before = tries();
    let master = serves_again.then(|| cluster.master_pid());
    let mut upgrade = command(&cluster.folder);
    upgrade.args(["upgrade", "--binary", &saboteur.display().to_string()]).stderr(Stdio::null());
    let mut upgrade = upgrade.spawn().unwrap();
    wait_until("the end of the saboteur", || tries() > before);
    if let Some(master) = master {
        cluster.wait_view("the previous master", |view| view.master_pid != master);
    }
    // It waits for word of its upgrade, of which nobody may know any more.
    let _ = upgrade.kill();
    let _ = upgrade.wait();
}

fn start(text: &str, workers: u32) -> Cluster {
    let folder = Folder::new();
    folder.write("c.toml", text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(workers);
    cluster
}

fn web(workers: u32) -> String {
    let app = crate::apps::hello();
    format!("[[app]]\nname = \"web\"\ncommand = [\"node\", \"{app}\"]\nworkers = {workers}\nlisten = \"127.0.0.1:0\"\n")
}

pub(crate) fn a_damaged_note_costs_nobody_anything() {
    let cluster = start(&web(2), 2);
    let workers = cluster.worker_pids();
    let (short, kept) = (Load::start(cluster.address(), 8, false), Load::start(cluster.address(), 4, true));
    short.wait_more(50);
    let kinds = ["deployment", "app/", "slot/", "worker/", "serves/", "listener/", "releases/", "source/", "*"];
    for (n, kind) in kinds.iter().enumerate() {
        // Every kind in two ways; that nothing is there at all is not damage that a note could have.
        for way in [WAYS[n % 3], WAYS[(n + 1) % 3]] {
            damage(&cluster, &format!("{kind} {way}\n"), true);
            cluster.wait_view("two ready workers", |view| {
                let app = &view.apps[0];
                app.status == "running" && app.workers_ready == 2 && app.workers.len() == 2
            });
            short.wait_more(50);
            kept.wait_more(50);
            assert_eq!(cluster.worker_pids(), workers, "{kind} {way}");
        }
        let wanted = match *kind {
            "source/" => "cannot read source/1, a copy of the configuration".to_owned(),
            ALL_NOTES => "web: recovered 2 processes".to_owned(),
            kind => format!("cannot read the checkpoint record {kind}"),
        };
        cluster.wait_line(&wanted);
    }
    // All of it at once.
    damage(&cluster, "* garbage\nsource/ garbage\n", true);
    cluster.wait_line("loaded the configuration again");
    cluster.wait_view("two ready workers", |view| view.apps[0].workers_ready == 2);
    short.wait_more(50);
    for load in [short, kept] {
        let seen = load.finish();
        let lost = (seen.refused, seen.cut, seen.hung, seen.wrong, seen.idle_closed);
        assert_eq!(lost, (0, 0, 0, 0, 0), "{seen:?}");
    }
    assert_eq!(cluster.worker_pids(), workers);
    // And everything else works as before.
    kill(workers[0], "KILL");
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2 && app.workers.iter().all(|worker| worker.pid != Some(workers[0]))
    });
    let reloaded = cluster.cli(&["reload", "web"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.apps[0].workers_ready == 2);
    assert!(cluster.cli(&["stop", "web"]).status.success());
}

/// Everything is damaged, and the file is gone too.
fn lose_everything(cluster: &Cluster, file: &Path) {
    fs::remove_file(file).unwrap();
    damage(cluster, "* garbage\nsource/ half\n", false);
    wait_until("word of it", || {
        let lines = cluster.stderr();
        let damaged = lines.iter().rposition(|line| line.contains("going back to the previous binary")).unwrap();
        lines[damaged..].iter().any(|line| line.contains("and it cannot be loaded again"))
    });
}

pub(crate) fn a_master_that_finds_nothing_waits_for_the_way_out() {
    let mut cluster = start(&web(2), 2);
    let (workers, file) = (cluster.worker_pids(), cluster.folder.path().join("c.toml"));
    lose_everything(&cluster, &file);
    let line = cluster.wait_line("To end everything: kill -QUIT");
    assert!(line.contains(&cluster.keeper_pid().to_string()), "{line}");
    assert!(workers.iter().all(|&pid| alive(pid)));
    // Whoever asks hears who can be told to end it.
    let said = String::from_utf8(cluster.cli(&["stop", "web"]).stderr).unwrap();
    assert!(said.contains("not answering") && said.contains(&format!("kill -QUIT {}", cluster.keeper_pid())), "{said}");
    // One way out: what it needs is put back.
    cluster.folder.write("c.toml", &web(2));
    cluster.wait_view("a master again", |view| view.apps[0].workers_ready == 2);
    assert_eq!(cluster.worker_pids(), workers);
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(20);
    load.finish();
    // It tries again and again, ever more slowly.
    let starts = cluster.stderr().iter().filter(|line| line.contains("and it cannot be loaded again")).count();
    assert!(starts < 10, "{starts} tries");
    // The other: a signal.
    lose_everything(&cluster, &file);
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 1);
    assert!(workers.iter().all(|&pid| !alive(pid)));
}
