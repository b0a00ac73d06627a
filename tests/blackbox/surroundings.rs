//! What the processes of an app have besides program and files: priority, limits, CPUs, rights to gain.
use super::cluster::{Cluster, Folder, run, wait_until};
use super::common::users::{NOBODY, is_root, through_setpriv};
use std::fs;

fn configured(keys: &str) -> Folder {
    let folder = Folder::new();
    let head = "[[app]]\nname = \"web\"\ncommand = [\"sleep\", \"1000\"]\nworkers = 1\nready = \"50ms\"\n";
    folder.write("cluster.toml", &format!("{head}{keys}"));
    folder
}

fn started(keys: &str) -> Cluster {
    Cluster::start_in(configured(keys), &["-c", "cluster.toml"], |_| {})
}

fn proc_file(pid: i32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap()
}

fn status_of(pid: i32, field: &str) -> String {
    let status = proc_file(pid, "status");
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

fn limit_of(pid: i32, name: &str) -> Vec<String> {
    let limits = proc_file(pid, "limits");
    let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
}

/// Whether a process of ours may: root in a container may not always.
fn may_lower_oom_score() -> bool {
    let lower = ["-c", "echo -900 > /proc/self/oom_score_adj"];
    std::process::Command::new("sh").args(lower).stderr(std::process::Stdio::null()).status().unwrap().success()
}

/// The 19th field, counted after the name, which may hold anything.
fn nice_of(pid: i32) -> i32 {
    proc_file(pid, "stat").rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
}

#[test]
fn a_worker_has_the_attributes_that_are_configured() {
    let keys = "umask = \"027\"\nnice = 7\noom_score_adj = 300\ncpu_affinity = \"0\"\nnew_privileges = false\n\
                [app.rlimits]\nnofile = [64, 128]\ncore = 0\nstack = \"4M\"\n";
    let cluster = started(keys);
    let pid = cluster.wait_ready(1)[0].pid.unwrap();
    assert_eq!(nice_of(pid), 7);
    assert_eq!(proc_file(pid, "oom_score_adj").trim(), "300");
    assert_eq!(status_of(pid, "Cpus_allowed_list"), "0");
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    assert_eq!(status_of(pid, "Umask"), "0027");
    assert_eq!(limit_of(pid, "Max open files"), ["64", "128"]);
    assert_eq!(limit_of(pid, "Max core file size"), ["0", "0"]);
    assert_eq!(limit_of(pid, "Max stack size"), ["4194304", "4194304"]);
    cluster.stop();
}

#[test]
fn what_is_not_configured_stays_and_only_the_keeper_is_spared_by_the_oom_killer() {
    let ours = proc_file(std::process::id() as i32, "oom_score_adj");
    let cluster = started("");
    let pid = cluster.wait_ready(1)[0].pid.unwrap();
    assert_eq!(status_of(pid, "NoNewPrivs"), "0");
    for child in [pid, cluster.master_pid()] {
        assert_eq!(proc_file(child, "oom_score_adj"), ours);
    }
    if may_lower_oom_score() {
        assert_eq!(proc_file(cluster.keeper_pid(), "oom_score_adj").trim(), "-900");
    } else {
        eprintln!("skipped: without CAP_SYS_RESOURCE the keeper's oom_score_adj stays");
    }
    cluster.stop();
}

#[test]
fn workers_of_another_user_gain_no_privileges_unless_they_are_given() {
    if !is_root() {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    for (key, is_kept) in [("", "1"), ("new_privileges = true\n", "0")] {
        let folder = configured(&format!("user = {NOBODY}\ngroup = {NOBODY}\n{key}"));
        let opened = std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()).status().unwrap();
        assert!(opened.success());
        let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
        let pid = cluster.wait_ready(1)[0].pid.unwrap();
        assert_eq!(status_of(pid, "NoNewPrivs"), is_kept, "{key}");
        cluster.stop();
    }
}

#[test]
fn an_attribute_that_cannot_be_set_is_named() {
    let cases = [
        ("oom_score_adj = -1000\n", "cannot set oom_score_adj = -1000: Permission denied"),
        ("nice = -20\n", "cannot set nice = -20: Permission denied"),
        ("cpu_affinity = \"8191\"\n", "cannot set cpu_affinity: Invalid argument"),
        ("[app.rlimits]\ncore = 0\nnofile = 1073741824\n", "cannot set rlimits.nofile: Operation not permitted"),
    ];
    for (keys, said) in cases {
        let cluster = Cluster::start_in(configured(keys), &["-c", "cluster.toml"], |command| {
            through_setpriv(command, NOBODY);
        });
        cluster.wait_line(said);
        let pid = cluster.keeper_pid();
        drop(cluster);
        wait_until("its end", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn a_wrong_attribute_is_refused_with_its_place() {
    let cases = [
        ("nice = 20", "nice must be a number from -20 to 19, not 20"),
        ("cpu_affinity = \"3-1\"", "cpu_affinity must be numbers of CPUs"),
        ("[app.rlimits]\nfiles = 3", "rlimits knows no resource \"files\""),
        ("[app.rlimits]\nnofile = [9, 3]", "rlimits.nofile: the soft limit is above the hard one"),
        ("[app.rlimits]\ncore = 512", "rlimits.core must be a size"),
    ];
    for (keys, said) in cases {
        let (code, out, err) = run(&configured(keys), &["check", "-c", "cluster.toml"]);
        assert!(code != 0 && format!("{out}{err}").contains(said), "{keys}: {out}{err}");
    }
}
