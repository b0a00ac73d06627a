//! The cgroup of an app: what it limits, what is told of it, and that nothing leaves it alive. Needs the right to make
//! cgroups; who has none is told what does not hold, and runs without.
use super::background::{self, Home};
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, alive, kill, wait_end, wait_for, wait_until};
use super::common::users::{NOBODY, through_setpriv};
use clusterd::os::cgroup::{Base, Limits};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Answers with its pid; `/eat` takes memory until it is killed.
const APP: &str = "require('node:http').createServer((q, s) => {
  if (q.url === '/eat') { const all = []; setInterval(() => all.push(Buffer.alloc(8 << 20, 1)), 1); }
  s.end(JSON.stringify({ pid: process.pid }));
}).listen(process.env.PORT);";

/// Whether this process may make a cgroup with these limits. Says so if not.
fn can_limit(limits: Limits) -> bool {
    let name = format!("clusterd-probe-{}", std::process::id());
    let made = Base::find(&name).and_then(|mut base| {
        let unmet = base.make("probe", &limits, &Limits::default());
        base.end("probe");
        base.remove();
        unmet
    });
    let can = made.as_ref().is_ok_and(Vec::is_empty);
    if !can {
        eprintln!("skipped: no cgroup with such limits can be made here: {made:?}");
    }
    can
}

fn can_make_groups() -> bool {
    can_limit(Limits::default())
}

/// An app of one worker.
fn app(name: &str, command: &str, more: &str) -> String {
    format!("[[app]]\nname = \"{name}\"\ncommand = {command}\nworkers = 1\n{more}")
}

fn web(name: &str, limits: &str) -> String {
    app(name, "[\"node\", \"app.js\"]", &format!("listen = \"127.0.0.1:0\"\n[app.limits]\n{limits}\n"))
}

/// Two web apps in the background, of which one is limited.
fn two(limits: &str) -> Home {
    let home = Home::new();
    home.folder.write("app.js", APP);
    home.folder.write("site.toml", &(web("bad", limits) + &web("good", "")));
    home.ok(&["start", "site.toml"]);
    home
}

/// The files of a process's cgroups with this name, in every hierarchy.
fn group_files(pid: i32, file: &str) -> Vec<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let points = points.map(|line| line.split(' ').nth(4).unwrap().to_owned());
    let paths: Vec<&str> = groups.lines().map(|line| line.splitn(3, ':').nth(2).unwrap()).collect();
    let all = points.flat_map(|point| paths.iter().map(move |path| Path::new(&point).join(&path[1..]).join(file)));
    let all: BTreeSet<PathBuf> = all.filter(|path| path.exists() && path.to_str().unwrap().contains("/app-")).collect();
    all.into_iter().collect()
}

fn group_file(pid: i32, file: &str) -> String {
    let files = group_files(pid, file);
    fs::read_to_string(files.first().unwrap_or_else(|| panic!("no {file}"))).unwrap().trim().to_owned()
}

#[test]
fn an_app_that_takes_too_much_memory_loses_its_worker_and_no_other_does() {
    if !can_limit(Limits { memory_max: Some(100 << 20), ..Limits::default() }) {
        return;
    }
    let home = two("memory_max = \"160M\"");
    let (bad, good) = (home.app("bad"), home.app("good"));
    let load = Load::start(background::address(&good), 4, false);
    let _ = get(background::address(&bad), "/eat");
    let lost = bad.workers[0].pid.unwrap();
    wait_end(lost);
    wait_until("its successor", || {
        home.app("bad").workers.first().is_some_and(|worker| worker.state == "ready" && worker.pid != Some(lost))
    });
    load.wait_more(100);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(home.app("good").workers[0].pid, good.workers[0].pid);
    let told = "was killed by the kernel: the app reached limits.memory_max";
    let (_, described, _) = home.run(&["describe", "bad"]);
    assert!(described.contains(told), "{described}");
    let log = fs::read_to_string(home.folder.path().join("home/logs/site.clusterd.log")).unwrap();
    assert!(log.lines().any(|line| line.contains(&format!("(pid {lost}) {told}"))), "{log}");
    // One that somebody kills is not told as that.
    let next = home.app("bad").workers[0].pid.unwrap();
    kill(next, "KILL");
    wait_end(next);
    wait_until("how it ended", || home.run(&["describe", "bad"]).1.contains("was killed by SIGKILL"));
    home.ok(&["kill"]);
}

#[test]
fn an_app_that_forks_without_end_is_stopped_and_its_neighbour_serves() {
    if !can_limit(Limits { pids_max: Some(20), ..Limits::default() }) {
        return;
    }
    let home = Home::new();
    home.folder.write("app.js", APP);
    let bomb = "import os, signal\ncount = 0\ntry:\n    while count < 200:\n        if os.fork() == 0:\n            signal.pause()\n\
                \x20       count += 1\nexcept OSError:\n    pass\n\
                with open('count.new', 'w') as file: file.write(str(count))\nos.rename('count.new', 'count')\nsignal.pause()\n";
    home.folder.write("bomb.py", bomb);
    let limited = app("bad", "[\"python3\", \"bomb.py\"]", "ready = \"1ms\"\n[app.limits]\npids_max = 20\n");
    home.folder.write("site.toml", &(limited + &web("good", "")));
    home.ok(&["start", "site.toml"]);
    let count = home.folder.path().join("count");
    wait_until("the end of its forks", || count.exists());
    let count: u32 = fs::read_to_string(count).unwrap().parse().unwrap();
    assert!((1..20).contains(&count), "{count}");
    let good = home.app("good");
    let load = Load::start(background::address(&good), 4, false);
    load.wait_more(100);
    let pid = home.app("bad").workers[0].pid.unwrap();
    home.ok(&["stop", "bad"]);
    assert!(!alive(pid));
    load.wait_more(100);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    home.ok(&["kill"]);
}

/// Leaves a process in a session of its own, with nothing in its environment, whose parent has ended.
const HIDES: &str = "env -i setsid sh -c 'sleep 1000 & echo $! > left.new; mv left.new left'\nexec sleep 1000\n";

fn hidden(folder: &Path) -> i32 {
    let file = folder.join("left");
    wait_until("a process is left", || file.exists());
    let pid = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    fs::remove_file(file).unwrap();
    pid
}

#[test]
fn a_process_that_hid_ends_with_its_app() {
    if !can_make_groups() {
        return;
    }
    for way in ["TERM", "QUIT"] {
        let folder = Folder::new();
        folder.write("app.sh", HIDES);
        let mut cluster = Cluster::start_in(folder, &["-w", "1", "--ready", "1ms", "--", "sh", "app.sh"], |_| {});
        cluster.wait_ready(1);
        let left = hidden(cluster.folder.path());
        let groups = group_files(left, "cgroup.procs");
        assert!(alive(left) && !groups.is_empty());
        // The groups outlive a master.
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("the next master", |view| view.master_restarts == 1);
        cluster.signal(way);
        cluster.wait_exit();
        assert!(!alive(left), "{way}");
        assert!(groups.iter().all(|file| !file.parent().unwrap().parent().unwrap().exists()), "{groups:?}");
    }
}

#[test]
fn a_process_that_hid_ends_when_its_app_is_stopped_or_deleted_and_no_other_does() {
    if !can_make_groups() {
        return;
    }
    let home = Home::new();
    let mut site = String::new();
    for name in ["one", "two"] {
        home.folder.write(&format!("{name}/app.sh"), HIDES);
        site += &app(name, "[\"sh\", \"app.sh\"]", &format!("cwd = \"{name}\"\nready = \"1ms\"\n"));
    }
    home.folder.write("site.toml", &site);
    home.ok(&["start", "site.toml"]);
    let [one, two] = ["one", "two"].map(|name| hidden(&home.folder.path().join(name)));
    home.ok(&["stop", "one"]);
    wait_until("its end", || !alive(one));
    // Started again it has a group again.
    home.ok(&["start", "one"]);
    let one = hidden(&home.folder.path().join("one"));
    home.ok(&["delete", "one"]);
    wait_until("its end", || !alive(one));
    assert!(alive(two));
    home.ok(&["kill", "--now"]);
    wait_until("its end", || !alive(two));
}

#[test]
fn what_a_killed_keeper_left_is_ended_by_the_next_start() {
    if !can_make_groups() {
        return;
    }
    let home = Home::new();
    home.folder.write("app.sh", HIDES);
    let start = ["start", "-w", "1", "--ready", "1ms", "-n", "web", "--", "sh", "app.sh"];
    home.ok(&start);
    let left = hidden(home.folder.path());
    let before = home.deployments().remove(0);
    // The master would end it as well: it dies first, and the keeper brings no other one.
    kill(before.keeper_pid, "STOP");
    kill(before.master_pid, "KILL");
    kill(before.keeper_pid, "KILL");
    wait_end(before.keeper_pid);
    wait_end(before.apps[0].workers[0].pid.unwrap());
    assert!(alive(left));
    home.ok(&["start", "web"]);
    assert!(!alive(left));
    let log = fs::read_to_string(home.folder.path().join("home/logs/web.clusterd.log")).unwrap();
    assert!(log.contains("killed 1 process left behind by an earlier clusterd"), "{log}");
    // Of one that runs, nothing is touched.
    let second = hidden(home.folder.path());
    home.ok(&["start", "-w", "1", "--ready", "1ms", "-n", "other", "--", "sh", "app.sh"]);
    assert!(alive(second));
    home.ok(&["kill"]);
}

#[test]
fn a_killed_keeper_leaves_nothing_that_hid_in_a_cgroup() {
    if !can_make_groups() {
        return;
    }
    let home = Home::new();
    home.folder.write("app.sh", HIDES);
    home.ok(&["start", "-w", "1", "--ready", "1ms", "-n", "web", "--", "sh", "app.sh"]);
    let left = hidden(home.folder.path());
    let before = home.deployments().remove(0);
    kill(before.keeper_pid, "KILL");
    wait_end(left);
    wait_end(before.master_pid);
}

#[test]
fn a_reload_changes_the_limits_of_the_group_that_is_there() {
    if !can_limit(Limits { pids_max: Some(20), ..Limits::default() }) {
        return;
    }
    let home = two("pids_max = 90");
    let pid = |home: &Home| home.app("bad").workers[0].pid.unwrap();
    let old = pid(&home);
    assert_eq!(group_file(old, "pids.max"), "90");
    let file = group_files(old, "pids.max").remove(0);
    let limit = || fs::read_to_string(&file).unwrap().trim().to_owned();
    home.folder.write("site.toml", &(web("bad", "pids_max = 80") + &web("good", "")));
    home.ok(&["reload", "bad"]);
    assert_eq!((limit().as_str(), group_files(pid(&home), "pids.max")), ("80", vec![file.clone()]));
    // A failed one changes nothing.
    home.folder.write("site.toml", &(web("bad", "pids_max = 70").replace("app.js", "missing.js") + &web("good", "")));
    home.fails(&["reload", "bad"]);
    wait_until("the old limit", || limit() == "80");
    home.folder.write("site.toml", &(web("bad", "") + &web("good", "")));
    home.ok(&["reload", "bad"]);
    assert_eq!(limit(), "max");
    home.ok(&["kill"]);
    assert!(!file.exists());
}

/// A count in a file of `NAME COUNT` lines.
fn counted(pid: i32, file: &str, name: &str) -> u64 {
    let text = group_file(pid, file);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {file}: {text}")).parse().unwrap()
}

#[test]
fn an_app_that_computes_without_end_has_its_share_of_the_cpu() {
    if !can_limit(Limits { cpu_max: Some(20_000), ..Limits::default() }) {
        return;
    }
    let home = Home::new();
    home.folder.write("busy.sh", "while :; do :; done");
    let busy = app("bad", "[\"sh\", \"busy.sh\"]", "ready = \"1ms\"\n[app.limits]\ncpu_max = \"20%\"\n");
    home.folder.write("site.toml", &busy);
    home.ok(&["start", "site.toml"]);
    let pid = home.app("bad").workers[0].pid.unwrap();
    wait_until("the kernel stops it", || counted(pid, "cpu.stat", "nr_throttled") > 0);
    home.ok(&["kill"]);
}

#[test]
fn an_app_above_memory_high_is_slowed_down_and_lives() {
    if !can_limit(Limits { memory_high: Some(100 << 20), ..Limits::default() }) {
        return;
    }
    let home = Home::new();
    home.folder.write("big.py", "import signal\nall = b'x' * (96 << 20)\nprint('big', flush=True)\nsignal.pause()\n");
    let limits = "ready = \"1ms\"\n[app.limits]\nmemory_high = \"64M\"\n";
    home.folder.write("site.toml", &app("big", "[\"python3\", \"big.py\"]", limits));
    home.ok(&["start", "site.toml"]);
    let pid = home.app("big").workers[0].pid.unwrap();
    assert_eq!(group_file(pid, "memory.high"), (64 << 20).to_string());
    wait_until("the kernel counts it", || counted(pid, "memory.events", "high") > 0);
    assert_eq!(home.app("big").workers[0].pid, Some(pid));
    home.ok(&["kill"]);
}

#[test]
fn groups_outlive_an_upgrade_of_the_keeper() {
    if !can_limit(Limits { pids_max: Some(20), ..Limits::default() }) {
        return;
    }
    let folder = Folder::new();
    folder.write("app.sh", HIDES);
    folder.write("c.toml", &app("web", "[\"sh\", \"app.sh\"]", "ready = \"1ms\"\n[app.limits]\npids_max = 30\n"));
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    let first = hidden(cluster.folder.path());
    let upgraded = cluster.cli(&["upgrade"]);
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    let old = cluster.worker_pids()[0];
    kill(old, "KILL");
    let new = wait_for("another worker", || {
        let pid = cluster.try_view()?.apps[0].workers.first()?.pid?;
        (pid != old).then_some(pid)
    });
    let second = hidden(cluster.folder.path());
    assert_eq!(group_files(new, "pids.max"), group_files(first, "pids.max"));
    assert_eq!(group_file(new, "pids.max"), "30");
    cluster.signal("TERM");
    cluster.wait_exit();
    assert!(!alive(first) && !alive(second));
}

#[test]
fn who_may_make_no_cgroup_is_told_and_runs_without() {
    if !super::common::users::is_root() && can_make_groups() {
        eprintln!("skipped: this user may make cgroups");
        return;
    }
    let folder = Folder::new();
    folder.write("app.js", APP);
    folder.write("c.toml", &web("web", "memory_max = \"1G\""));
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |command| through_setpriv(command, NOBODY));
    cluster.wait_line("clusterd: web: limits.memory_max is not enforced: cannot make a cgroup: ");
    cluster.wait_line("web: ready");
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(cluster.stderr().iter().filter(|line| line.contains("cgroup")).count(), 1, "{:?}", cluster.stderr());
}
