//! Workers that are replaced by themselves: files that change, times that come, programs that run so often and no more.
use super::background::{Home, address};
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, wait_until};
use super::common::api;
use std::net::SocketAddr;

fn server(word: &str) -> String {
    format!("require('http').createServer((q, a) => a.end('{word}')).listen(process.env.PORT, '127.0.0.1')")
}

/// One worker of `app.js`, watched.
fn watched(folder: Folder, options: &[&str]) -> Cluster {
    let mut args = vec!["-w", "1", "--host", "127.0.0.1", "-p", "0", "--watch", "--watch-delay", "100ms"];
    args.extend(options);
    args.extend(["--", "node", "app.js"]);
    Cluster::start_in(folder, &args, |_| {})
}

fn says(at: SocketAddr, word: &str) {
    wait_until(word, || get(at, "/").is_ok_and(|answer| answer.contains(word)));
}

#[test]
fn a_file_that_changes_has_its_workers_replaced_and_one_that_is_ignored_does_not() {
    let folder = Folder::new();
    folder.write("app.js", &server("one"));
    folder.write(".gitignore", "*.log\n");
    let cluster = watched(folder, &["--watch-ignore", "data/"]);
    cluster.wait_line("app: watching 1 folder");
    let at = cluster.address();
    says(at, "one");
    for name in ["a.log", "data/x.json", "node_modules/y/index.js", ".cache", "app.js~"] {
        cluster.folder.write(name, "x");
    }
    cluster.folder.write("app.js", &server("two"));
    cluster.wait_line("app.js changed; reloading");
    says(at, "two");
    cluster.wait_line("generation 2 serves alone");
    // What does not come up changes nothing, until it is right.
    cluster.folder.write("app.js", "throw new Error('half typed')");
    cluster.wait_line("reload to generation 3 failed");
    says(at, "two");
    cluster.folder.write("lib/new.js", "");
    cluster.folder.write("app.js", &server("three"));
    says(at, "three");
    let said = cluster.stderr().join("\n");
    for ignored in ["a.log", "x.json", "index.js", ".cache", "app.js~"] {
        assert!(!said.contains(&format!("{ignored} changed")) && !said.contains(&format!("{ignored} and")), "{said}");
    }
    cluster.stop();
}

#[test]
fn one_that_gave_up_comes_back_when_its_file_is_right() {
    let folder = Folder::new();
    folder.write("app.js", "throw new Error('typo')");
    let cluster = watched(folder, &["--max-restarts", "1"]);
    cluster.wait_line("nothing serves any more");
    cluster.wait_line("watching");
    cluster.folder.write("app.js", &server("fixed"));
    cluster.wait_line("starting it again");
    says(cluster.address(), "fixed");
    cluster.stop();
}

#[test]
fn a_watch_goes_on_after_the_master_has_died_and_ends_with_a_stop() {
    let home = Home::new();
    home.folder.write("src/app.js", &server("one"));
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"src/app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n\
                  watch = [\"src\"]\nwatch_delay = \"100ms\"\n";
    home.folder.write("c.toml", config);
    home.ok(&["start", "c.toml"]);
    let at = address(&home.app("web"));
    super::cluster::kill(home.deployments()[0].master_pid, "KILL");
    wait_until("the next master", || home.deployments().first().is_some_and(|d| d.master_restarts == 1));
    let log = || std::fs::read_to_string(home.folder.path().join("home/logs/web.clusterd.log")).unwrap_or_default();
    wait_until("both watch", || log().matches("web: watching 1 folder").count() == 2);
    home.folder.write("src/app.js", &server("two"));
    says(at, "two");
    wait_until("its end", || home.app("web").status == "running");
    home.ok(&["stop", "web"]);
    home.folder.write("src/app.js", &server("three"));
    // A second later whatever was to follow would have begun; a start shows that none of it did.
    home.ok(&["start", "web"]);
    assert_eq!(home.app("web").generation, 3);
    says(address(&home.app("web")), "three");
}

#[test]
#[ignore = "a long load"]
fn a_time_that_comes_replaces_every_worker_and_loses_nothing() {
    let _turn = super::common::turns::turn();
    let folder = Folder::new();
    folder.write("app.js", &format!("const pid = JSON.stringify({{pid: process.pid}});{}", server("' + pid + '")));
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n\
                  cron_restart = \"* * * * * *\"\n";
    folder.write("c.toml", config);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_line("web: ready, 2 workers");
    let load = Load::start(cluster.address(), 4, false);
    cluster.wait_line("web: cron_restart (* * * * * *) is due; reloading");
    // What its file says meanwhile has to wait for somebody who looks.
    cluster.folder.write("c.toml", "[[app]]\nbroken");
    cluster.wait_line("generation 3 serves alone");
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    cluster.stop();
}

#[test]
fn a_program_that_ends_runs_at_its_times_and_waits_in_between() {
    let folder = Folder::new();
    folder.write("job.sh", "echo run");
    let args = ["-w", "1", "-n", "job", "--no-autorestart", "--cron-restart", "* * * * * *", "--", "sh", "job.sh"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_line("not restarted: max_runs is 1");
    cluster.wait_line("job: cron_restart (* * * * * *) is due; starting it again");
    wait_until("three runs", || cluster.stdout().len() >= 3);
    cluster.stop();
}

/// Two of them at a time would collide, or do the work twice.
#[test]
fn one_that_holds_nothing_of_ours_is_replaced_by_one_after_the_other() {
    let home = Home::new();
    let bot = |word: &str| {
        format!(
            "const fs = require('fs'); fs.openSync('lock', 'wx'); console.log('{word}'); process.send('ready'); setInterval(() => {{}}, 1000);\
             for (const s of ['disconnect', 'SIGTERM']) process.on(s, () => {{ fs.rmSync('lock', {{ force: true }}); process.exit() }})"
        )
    };
    home.folder.write("bot.js", &bot("one"));
    home.ok(&["start", "bot.js", "-i", "1", "--ready", "message", "--max-restarts", "10"]);
    home.folder.write("bot.js", &bot("two"));
    home.ok(&["reload", "bot"]);
    let app = home.app("bot");
    assert_eq!((app.restarts, app.generation, app.workers_ready), (0, 2, 1), "the lock was free");
    // Code that does not come up leaves the old one at work.
    home.folder.write("bot.js", "process.exit(1)");
    home.fails(&["reload", "bot"]);
    home.folder.write("bot.js", &bot("three"));
    wait_until("a worker", || home.app("bot").workers_ready == 1);
}

/// Whoever asks late learns how the start ended too: a command may be slower than the job that it started.
#[test]
fn a_start_that_has_ended_before_anybody_asks_is_told_all_the_same() {
    for (script, status, told) in [("exit 0", 200, "job: finished"), ("exit 3", 409, "exited with code 3")] {
        let home = Home::new();
        let args = ["-n", "job", "-w", "1", "--no-autorestart", "--", "sh", "-c", script];
        home.run(&[&["start"][..], &args].concat());
        let (got, said) = api::post(&home.folder.path().join("home"), "/v1/ready");
        assert!(got == status && said.contains(told), "{script}: {got} {said}");
    }
}

/// The exit of a worker may be known before its output was read. A child that has its stderr open makes that certain.
#[test]
fn the_last_words_of_a_start_that_fails_are_waited_for() {
    let home = Home::new();
    // In a session of its own the child outlives the worker; the fifo says that it has one.
    let child = "setsid sh -c 'echo >own; sleep 0.3; echo no database >&2'";
    home.folder.write("badly.sh", &format!("mkfifo own; {child} & read line <own; exit 3"));
    let said = home.fails(&["start", "badly.sh", "-i", "1", "--no-autorestart"]);
    assert!(said.contains("exited with code 3") && said.contains("| no database"), "{said}");
}

#[test]
fn a_job_that_was_started_is_done_or_has_failed() {
    let home = Home::new();
    home.folder.write("well.sh", "echo well");
    home.folder.write("badly.sh", "echo no database >&2; exit 3");
    let said = home.ok(&["start", "well.sh", "-i", "1", "--no-autorestart"]);
    assert!(said.contains("well: finished"), "{said}");
    assert_eq!(home.app("well").status, "stopped");
    let said = home.fails(&["start", "badly.sh", "-i", "1", "--no-autorestart"]);
    assert!(said.contains("exited with code 3") && said.contains("no database") && !said.contains("again"), "{said}");
    assert_eq!(home.app("badly").status, "errored");
    home.ok(&["start", "well"]);
    assert!(home.run(&["start", "x.sh", "--cron-restart", "soon"]).2.contains("not a cron expression"));
}
