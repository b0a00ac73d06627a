//! Hooks: what they are told, that they are never in the way, and that they get nothing that is not theirs.
use super::client::get;
use super::cluster::{Cluster, Folder, alive, kill, run, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Appends what it was told as one line (a write of that size is whole).
const TELL: &str = "#!/bin/sh\necho $(env | grep ^CLUSTERD_ | tr ' ' _) >> told\n";

const APP: &str = "require('node:http').createServer((q, s) => s.end('ok')).listen(process.env.PORT);";

/// One Node app on two workers with this `[app.hooks]`, its files and the script `tell.sh`.
fn start(folder: Folder, hooks: &str) -> Cluster {
    folder.write("app.js", APP);
    folder.write("tell.sh", TELL);
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("c.toml", &format!("{config}[app.hooks]\n{hooks}"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn tell_of(events: &[&str]) -> String {
    events.iter().map(|event| format!("{event} = [\"sh\", \"tell.sh\"]\n")).collect()
}

/// What the hooks were told, one map each.
fn told(folder: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(folder.join("told")).unwrap_or_default();
    let pairs = |line: &str| {
        let words = line.split(' ').filter_map(|word| word.split_once('='));
        words.map(|(name, value)| (name.trim_start_matches("CLUSTERD_").to_owned(), value.to_owned())).collect()
    };
    text.lines().map(pairs).collect()
}

/// Waits for so many of an event.
fn wait_told(cluster: &Cluster, event: &str, count: usize) -> Vec<BTreeMap<String, String>> {
    let of_event = || {
        let all = told(cluster.folder.path());
        all.into_iter().filter(|one| one["EVENT"] == event).collect::<Vec<_>>()
    };
    wait_until(&format!("{count} times {event}"), || of_event().len() >= count);
    of_event()
}

#[test]
fn every_event_runs_its_hook_and_tells_what_happened() {
    let cluster = start(Folder::new(), &tell_of(&["worker_ready", "worker_exit", "reload_done", "reload_failed"]));
    let workers = cluster.wait_ready(2);
    let ready = wait_told(&cluster, "worker_ready", 2);
    for worker in &workers {
        let pid = worker.pid.unwrap().to_string();
        let one = ready.iter().find(|one| one["PID"] == pid).unwrap();
        assert_eq!((one["APP"].as_str(), one["GENERATION"].as_str()), ("web", "1"));
        assert_eq!((&one["SLOT"], &one["WORKER"]), (&worker.slot.to_string(), &worker.id.unwrap().to_string()));
        assert!(one["UPTIME_MS"].parse::<u64>().is_ok() && !one.contains_key("REASON"), "{one:?}");
    }
    // Killed.
    let pid = workers[0].pid.unwrap();
    kill(pid, "KILL");
    let exits = wait_told(&cluster, "worker_exit", 1);
    assert_eq!((&exits[0]["PID"], exits[0]["SIGNAL"].as_str()), (&pid.to_string(), "SIGKILL"));
    assert_eq!(exits[0]["REASON"], "was_killed_by_SIGKILL");
    assert!(!exits[0].contains_key("EXIT_CODE"), "{exits:?}");
    assert_eq!(exits[0]["GENERATION"], "1");
    wait_told(&cluster, "worker_ready", 3);
    // Replaced by a reload.
    assert!(cluster.cli(&["reload", "web"]).status.success());
    let done = wait_told(&cluster, "reload_done", 1);
    assert_eq!((done[0]["APP"].as_str(), done[0]["GENERATION"].as_str()), ("web", "2"));
    let left = wait_told(&cluster, "worker_exit", 3).pop().unwrap();
    assert!(left["REASON"].starts_with("was_asked_to_leave_and_"), "{left:?}");
    assert!(left.contains_key("EXIT_CODE") != left.contains_key("SIGNAL"), "{left:?}");
    // A reload that fails, and one that is refused.
    cluster.folder.write("app.js", "process.exit(3)");
    assert!(!cluster.cli(&["reload", "web"]).status.success());
    let failed = wait_told(&cluster, "reload_failed", 1);
    assert_eq!(failed[0]["GENERATION"], "3");
    assert!(failed[0]["REASON"].contains("exited_with_code_3"), "{failed:?}");
    let died =
        wait_told(&cluster, "worker_exit", 4).into_iter().find(|one| one.get("EXIT_CODE").is_some_and(|c| c == "3"));
    assert_eq!(died.unwrap()["REASON"], "exited_with_code_3");
    cluster.folder.write("c.toml", "[[app]]\nname = \"web\"\n");
    assert!(!cluster.cli(&["reload", "web"]).status.success());
    let refused = wait_told(&cluster, "reload_failed", 2).pop().unwrap();
    assert!(refused["REASON"].contains("command_is_missing"), "{refused:?}");
    // The end waits for the hooks of the last exits.
    let path = cluster.folder.path().to_owned();
    let (mut cluster, before) = (cluster, wait_told_exits(&path));
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(wait_told_exits(&path), before + 2);
    assert!(!cluster.stderr().iter().any(|line| line.contains("hook")), "{:?}", cluster.stderr());
}

fn wait_told_exits(folder: &Path) -> usize {
    told(folder).iter().filter(|one| one["EVENT"] == "worker_exit").count()
}

#[test]
fn a_worker_that_was_never_ready_exits_once_and_says_why() {
    let folder = Folder::new();
    folder.write("tell.sh", TELL);
    let config = "[[app]]\nname = \"late\"\ncommand = [\"sh\", \"-c\", \"exec sleep 1000\"]\nworkers = 1\n\
                  listen = \"127.0.0.1:0\"\nready = \"notify\"\nready_timeout = \"200ms\"\n\
                  [app.restart]\nmax_restarts = 1\n[app.hooks]\nworker_exit = [\"sh\", \"tell.sh\"]\n";
    folder.write("c.toml", config);
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    assert_eq!(cluster.wait_exit(), 1);
    let exits = told(cluster.folder.path());
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!((exits[0]["REASON"].as_str(), exits[0]["SIGNAL"].as_str()), ("was_not_ready_after_200_ms", "SIGTERM"));
}

#[test]
#[ignore = "long: what hangs is waited for"]
fn a_hook_that_hangs_is_killed_with_its_group_and_workers_notice_nothing() {
    let folder = Folder::new();
    folder.write("hang.sh", "sleep 1000 &\necho $$ $! >> pids\nwait\n");
    let cluster = start(folder, "worker_ready = [\"sh\", \"hang.sh\"]\nreload_failed = [\"sh\", \"-c\", \"exit 7\"]\n");
    let before = cluster.worker_pids();
    let pids = || -> Vec<i32> {
        let text = fs::read_to_string(cluster.folder.path().join("pids")).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    wait_until("two hooks with a child each", || pids().len() == 4);
    // They hang, and another hook runs, fails, and is told of.
    assert!(get(cluster.address(), "/").unwrap().contains("ok"));
    cluster.folder.write("app.js", "process.exit(1)");
    assert!(!cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_line("web: hook reload_failed: exited with code 7");
    cluster.wait_line("web: hook worker_ready: did not end within 10 s and was killed");
    wait_until("the whole groups are gone", || pids().iter().all(|pid| !alive(*pid)));
    assert!(get(cluster.address(), "/").unwrap().contains("ok"));
    assert_eq!(cluster.worker_pids(), before);
    cluster.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_hook_that_hangs() {
    let folder = Folder::new();
    let mut cluster = start(folder, "worker_ready = [\"sh\", \"-c\", \"echo $$ >> pids; exec sleep 1000\"]\n");
    let path = cluster.folder.path().join("pids");
    wait_until("two hooks", || fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 2));
    let begun = Instant::now();
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert!(begun.elapsed().as_secs() < 9, "{:?}", begun.elapsed());
    cluster.wait_line("web: hook worker_ready: still running when clusterd ended; killed");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|pid| !alive(pid.parse().unwrap())), "{text}");
}

#[test]
fn a_missing_command_is_a_warning_and_check_says_it_too() {
    let cluster = start(Folder::new(), "worker_ready = [\"no-such-hook-x\"]\n");
    let line = cluster.wait_line("hook worker_ready will not run");
    assert!(line.contains("\"no-such-hook-x\""), "{line}");
    let (code, out, err) = run(&cluster.folder, &["check", "-c", "c.toml"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("app web: warning: hook worker_ready will not run: command \"no-such-hook-x\""), "{err}");
    cluster.stop();
}

#[test]
fn a_hook_gets_no_fd_no_signal_mask_and_a_group_of_its_own() {
    let script = "[ $CLUSTERD_SLOT = 0 ] || exit 0\nls -l /proc/self/fd > fds.new\ngrep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status > signals\n\
                  echo $$ $(cut -d ' ' -f 5 /proc/$$/stat) $(ulimit -n) > group\nmv fds.new fds\n";
    let folder = Folder::new();
    folder.write("look.sh", script);
    let cluster = start(folder, "worker_ready = [\"sh\", \"look.sh\"]\n");
    let read = |name: &str| fs::read_to_string(cluster.folder.path().join(name)).unwrap_or_default();
    wait_until("the hook has looked", || !read("fds").is_empty());
    let fds = read("fds");
    let targets: BTreeMap<&str, &str> = fds
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .filter_map(|(before, target)| Some((before.split_whitespace().next_back()?, target)))
        .collect();
    assert_eq!(targets["0"], "/dev/null");
    // Above stderr: the folder that is being listed.
    let own = |n: &str, target: &str| ["0", "1", "2"].contains(&n) || target.starts_with("/proc/");
    let strange: Vec<_> = targets.iter().filter(|(n, target)| !own(n, target)).collect();
    assert!(strange.is_empty(), "{fds}");
    let signals = read("signals");
    let word = |name: &str| {
        let line = signals.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().next_back().unwrap(), 16).unwrap()
    };
    assert_eq!((word("SigBlk"), word("SigIgn")), (0, 0), "{signals}");
    let group = read("group");
    let words: Vec<&str> = group.split_whitespace().collect();
    assert_eq!(words[0], words[1], "it leads its own process group");
    assert!(words[2].parse::<u32>().unwrap() <= 1024, "{group}");
    cluster.stop();
}
