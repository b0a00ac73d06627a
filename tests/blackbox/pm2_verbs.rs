//! Verbs, options and habits of PM2's users, each by what it does. `src/cli/pm2` has a row for every one of them.
use super::background::{Home, address};
use super::client::get;
use super::cluster::{Cluster, Folder, alive, command, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

/// An app that is ready at once and says which one it is.
const APP: &str = "console.log('up ' + (process.env.MODE || '')); require('http').createServer((q, a) => \
                   a.end(process.env.MODE || 'none')).listen(0, '127.0.0.1')";

fn json(home: &Home, args: &[&str]) -> serde_json::Value {
    let (code, out, err) = home.run(args);
    assert_eq!(code, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}\n{out}"))
}

#[test]
fn several_scripts_lines_and_programs_are_started() {
    let home = Home::new();
    home.folder.write("one.js", APP);
    home.folder.write("two.js", APP);
    home.folder.write("package.json", r#"{ "scripts": { "start": "node one.js" } }"#);
    home.ok(&["start", "one.js", "two.js"]);
    assert_eq!((home.app("one").workers_ready, home.app("two").workers_ready), (1, 1));
    home.ok(&["start", "node two.js", "-n", "line"]);
    assert_eq!(home.app("line").command, ["node", "two.js"]);
    home.ok(&["start", "--ready", "1ms", "-n", "shell", "sleep 1000; true"]);
    assert_eq!(home.app("shell").command[..2], ["bash", "-c"]);
    home.ok(&["start", "--ready", "1ms", "-n", "program", "sleep", "--", "1000"]);
    assert_eq!(home.app("program").command, ["sleep", "1000"]);
    assert!(home.fails(&["start", "three.js"]).contains("no such file"));
}

#[test]
fn a_script_means_its_app_until_another_one_is_forced() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    home.ok(&["start", "job.js"]);
    let pid = home.app("job").workers[0].pid;
    assert!(home.ok(&["start", "job.js"]).contains("-f starts another"));
    assert_eq!(home.app("job").workers[0].pid, pid);
    home.ok(&["stop", "job"]);
    home.ok(&["start", "./job.js"]);
    assert_eq!((home.app("job").workers_ready, home.deployments().len()), (1, 1));
    home.ok(&["start", "-f", "job.js"]);
    assert_eq!(home.app("job-2").workers_ready, 1);
}

#[test]
#[ignore = "long: a whole session with PM2's verbs"]
fn a_process_file_is_found_started_renewed_and_completed() {
    let home = Home::new();
    home.folder.write("web.js", APP);
    let file = |mode: &str, more: &str| {
        let web =
            format!("{{ name: 'web', script: 'web.js', env: {{ MODE: '{mode}' }}, env_live: {{ MODE: 'live' }} }}");
        home.folder.write("ecosystem.config.js", &format!("module.exports = {{ apps: [{web}{more}] }}"));
    };
    let says = || get(address(&home.app("web")), "/").unwrap();
    file("one", "");
    home.ok(&["start"]);
    assert!(says().contains("one"));
    file("two", ", { name: 'more', script: 'web.js' }");
    home.ok(&["reload", "ecosystem.config.js"]);
    assert!(says().contains("two") && home.app("more").workers_ready == 1);
    let generation = home.app("web").generation;
    file("three", "");
    let before = home.app("web").workers[0].pid;
    home.ok(&["restart", "ecosystem.config.js", "--only", "web"]);
    assert!(says().contains("three") && home.app("web").workers[0].pid != before);
    home.ok(&["startOrReload", "ecosystem.config.js", "--env", "live"]);
    assert!(says().contains("live") && home.app("web").generation > generation);
    home.ok(&["startOrRestart", "ecosystem.config.js"]);
    assert!(says().contains("three"));
}

#[test]
fn a_restart_of_one_app_of_a_file_leaves_the_others_theirs() {
    let home = Home::new();
    let app = |name: &str| format!("{{ name: '{name}', script: 'sleep', args: '1000', env_live: {{ MODE: 'live' }} }}");
    let file = |name: &str, apps: &[&str]| {
        let apps: Vec<String> = apps.iter().map(|name| app(name)).collect();
        home.folder.write(name, &format!("module.exports = {{ apps: [{}] }}", apps.join(", ")));
    };
    file("ecosystem.config.js", &["web", "job"]);
    home.ok(&["start", "ecosystem.config.js"]);
    home.ok(&["restart", "ecosystem.config.js", "--only", "web", "--env", "live"]);
    home.ok(&["reload", "job"]);
    file("other.config.js", &["web"]);
    let said = home.fails(&["start", "other.config.js"]);
    assert!(said.contains("shares its configuration with job") && said.contains("clusterd delete job"), "{said}");
    home.ok(&["save"]);
    home.ok(&["kill"]);
    home.ok(&["resurrect"]);
    assert_eq!((home.app("web").workers_ready, home.app("job").workers_ready), (1, 1));
}

#[test]
fn options_change_one_app_for_good() {
    let home = Home::new();
    home.folder.write("web.js", APP);
    home.ok(&["start", "web.js"]);
    home.ok(&["restart", "web", "-e", "MODE=given", "--max-memory-restart", "500M"]);
    for _ in 0..2 {
        assert!(get(address(&home.app("web")), "/").unwrap().contains("given"));
        assert_eq!(home.app("web").memory_limit_bytes, Some(500 << 20));
        home.ok(&["stop", "web"]);
        home.ok(&["start", "web"]);
    }
    home.ok(&["restart", "web", "--cron", "0 3 * * *"]);
    assert_eq!(home.app("web").cron_restart.as_deref(), Some("0 3 * * *"));
    home.ok(&["restart", "web", "--cron-restart", "0"]);
    assert_eq!(home.app("web").cron_restart, None);
    assert!(home.fails(&["restart", "web", "--name", "other"]).contains("clusterd delete web"));
    assert_eq!(home.run(&["restart", "web", "--", "x"]).0, 2);
    assert_eq!(home.app("web").workers_ready, 1);
}

#[test]
fn numbers_and_lists_are_as_scripts_know_them() {
    let home = Home::new();
    home.folder.write("web.js", APP);
    home.ok(&["start", "web.js", "-i", "2", "--cron", "0 3 * * *", "--watch", "--", "--one"]);
    home.ok(&["start", "-n", "job", "-i", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let pids: Vec<i32> = home.run(&["pid", "web"]).1.lines().map(|line| line.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| alive(*pid)));
    assert_eq!(home.run(&["pid"]).1.lines().count(), 3);
    assert_eq!(home.run(&["id", "job"]).1, "[ 1 ]\n");
    assert!(home.run(&["ping"]).1.contains("pong: 2 of 2"));
    let list = json(&home, &["jlist"]);
    let of_web: Vec<_> = list.as_array().unwrap().iter().filter(|one| one["name"] == "web").collect();
    assert_eq!(of_web.len(), 2);
    for (slot, one) in of_web.iter().enumerate() {
        assert!(pids.contains(&i32::try_from(one["pid"].as_i64().unwrap()).unwrap()));
        let env = &one["pm2_env"];
        assert_eq!((env["status"].as_str(), env["NODE_APP_INSTANCE"].as_u64()), (Some("online"), Some(slot as u64)));
        assert!(env["pm_exec_path"].as_str().unwrap().ends_with("/web.js"));
        assert_eq!(env["args"], serde_json::json!(["--one"]));
        assert!(env["pm_out_log_path"].as_str().unwrap().ends_with("web-out.log"));
        assert_eq!((env["watch"].as_bool(), env["cron_restart"].as_str()), (Some(true), Some("0 3 * * *")));
    }
    home.ok(&["stop", "job"]);
    let list = json(&home, &["prettylist"]);
    let job = list.as_array().unwrap().iter().find(|one| one["name"] == "job").unwrap();
    assert_eq!((job["pm2_env"]["status"].as_str(), job["pid"].as_i64()), (Some("stopped"), Some(0)));
    let (_, table, _) = home.run(&["ls", "job"]);
    assert!(table.contains("job") && !table.contains("web"), "{table}");
    for (order, first) in [("name", "job"), ("name:desc", "web"), ("memory:desc", "web"), ("id", "web")] {
        for short in [&[][..], &["-m"][..]] {
            let (_, table, _) = home.run(&[&["ls", "--sort", order], short].concat());
            let at = |name: &str| table.find(&format!(" {name} ")).unwrap();
            let other = if first == "web" { "job" } else { "web" };
            assert!(at(first) < at(other), "{order}: {table}");
        }
    }
    assert_eq!(home.run(&["ls", "--sort", "colour"]).0, 2);
    let (code, report, _) = home.run(&["report"]);
    assert!(code == 0 && report.contains("web: running, 2/2 ready") && !report.contains("web.js"), "{report}");
}

#[test]
fn restarts_are_counted_from_zero_again() {
    let home = Home::new();
    let counted = home.folder.path().join("count");
    let app =
        "const fs = require('fs'); if (!fs.existsSync('count')) { fs.writeFileSync('count', ''); process.exit(1) }";
    home.folder.write("job.js", &format!("{app}; {APP}"));
    let (_, _, said) = home.run(&["start", "job.js", "-i", "1"]);
    wait_until("it runs", || counted.exists() && home.app("job").workers_ready == 1);
    assert_eq!((home.app("job").restarts, home.app("job").workers[0].restarts), (1, 1), "{said}");
    home.ok(&["reset", "job"]);
    assert_eq!((home.app("job").restarts, home.app("job").workers[0].restarts), (0, 0));
}

#[test]
fn output_goes_where_the_options_say() {
    let home = Home::new();
    home.folder.write("job.js", &format!("console.error('bad'); {APP}"));
    let text = |name: &str| fs::read_to_string(home.folder.path().join(name)).unwrap_or_default();
    home.ok(&["start", "job.js", "-n", "two", "-o", "out.log", "-e", "./err.log", "--time"]);
    wait_until("both lines", || text("out.log").contains(": up") && text("err.log").contains(": bad"));
    home.ok(&["start", "job.js", "-n", "one", "--log", "all.log", "--log-type", "json", "--merge-logs"]);
    wait_until("both lines", || text("all.log").contains("\"up ") && text("all.log").contains("\"bad"));
    let said = home.ok(&["start", "job.js", "-n", "three", "-o", "o.log", "-e", "./e.log", "-l", "./three.log"]);
    assert!(said.contains("both in ") && said.contains("three.log"), "{said}");
    wait_until("both lines in the third file", || {
        text("three.log").contains("up") && text("three.log").contains("bad")
    });
    assert!((text("o.log"), text("e.log")) == ("up \n".to_owned(), "bad\n".to_owned()));
    let (_, shown, _) = home.run(&["logs", "three", "--raw", "--nostream"]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    home.ok(&["flush", "three"]);
    assert_eq!(text("three.log"), "");
    home.ok(&["start", "job.js", "-n", "none", "--disable-logs"]);
    assert_eq!(home.app("none").log.out.as_deref(), Some("NULL"));
    assert!(home.run(&["describe", "two"]).1.contains("out.log"));
}

#[test]
fn what_is_left_out_is_said_and_what_is_silent_is_not() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    let said = home.ok(&["start", "job.js", "--no-vizion", "--no-treekill"]);
    assert!(said.contains("--no-vizion is left out") && said.contains("--no-treekill is left out"), "{said}");
    assert_eq!(home.ok(&["restart", "job", "-s"]), "");
    let filtered = command(&home.folder)
        .env("MY_SECRET", "x")
        .env("MODE", "kept")
        .args(["start", "job.js", "-n", "filtered", "--filter-env", "SECRET"])
        .status()
        .unwrap();
    assert!(filtered.success());
    let (_, env, _) = home.run(&["env", "filtered"]);
    assert!(env.contains("MODE=kept") && !env.contains("MY_SECRET"), "{env}");
    home.ok(&["start", "job.js", "-n", "later", "--no-autostart"]);
    assert_eq!(home.app("later").status, "stopped");
    home.ok(&["start", "later"]);
    assert_eq!(home.app("later").workers_ready, 1);
}

#[test]
fn an_app_without_autostart_is_started_by_name_alone() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    let entry = |name: &str, status: &str| {
        let path = home.folder.path().join("job.js");
        format!(
            "{{ \"name\": \"{name}\", \"pm_exec_path\": {path:?}, \"status\": \"{status}\", \"exec_mode\": \"fork_mode\" }}"
        )
    };
    home.folder.write("dump.pm2", &format!("[{}, {}]", entry("web", "online"), entry("later", "stopped")));
    let state = || (home.app("web").status.to_string(), home.app("later").status.to_string());
    let is = |web: &str, later: &str| assert_eq!(state(), (web.to_owned(), later.to_owned()));
    assert!(home.ok(&["start", "dump.pm2"]).contains("start it: clusterd start later"));
    is("running", "stopped");
    home.ok(&["save"]);
    home.ok(&["kill"]);
    home.ok(&["resurrect"]);
    is("running", "stopped");
    // Its file again is a reload of what runs, and nothing else.
    home.ok(&["reload", "dump.pm2"]);
    is("running", "stopped");
    home.ok(&["start", "later"]);
    is("running", "running");
}

#[test]
fn a_foreground_run_leaves_out_what_is_not_started_with_its_file() {
    let app = |name: &str, more: &str| {
        format!("[[app]]\nname = \"{name}\"\ncommand = [\"sleep\", \"1000\"]\nready = \"1ms\"\n{more}\n")
    };
    let folder = Folder::new();
    let (code, _, said) = {
        folder.write("cluster.toml", &app("later", "autostart = false"));
        super::cluster::run(&folder, &["-c", "cluster.toml"])
    };
    assert!(code == 2 && said.contains("autostart is false for every app"), "{code} {said}");
    folder.write("cluster.toml", &format!("{}{}", app("job", ""), app("later", "autostart = false")));
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(1);
    let pids = || String::from_utf8(cluster.cli(&["pid", "later"]).stdout).unwrap();
    assert_eq!(pids(), "");
    assert!(cluster.cli(&["start", "later"]).status.success());
    assert!(pids().trim().parse::<u32>().is_ok());
    cluster.stop();
}

#[test]
fn a_run_in_the_foreground_is_typed_as_one_of_pm2() {
    for args in [&["start", "job.js", "-i", "2", "--no-daemon"][..], &["ecosystem.config.js", "--env", "live"]] {
        let folder = Folder::new();
        folder.write("job.js", APP);
        folder.write(
            "ecosystem.config.js",
            "module.exports = { apps: [{ script: 'job.js', instances: 2, env_live: { MODE: 'live' } }] }",
        );
        let cluster = Cluster::start_in(folder, args, |_| {});
        cluster.wait_ready(2);
        cluster.wait_out("up");
        assert_eq!(cluster.cli(&["pid", "job"]).stdout.iter().filter(|byte| **byte == b'\n').count(), 2);
        cluster.stop();
    }
}

#[test]
fn an_attached_start_shows_what_is_printed() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    let log = home.folder.path().join("shown");
    let mut start = command(&home.folder)
        .args(["start", "job.js", "--attach"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    wait_until("its first line", || fs::read_to_string(&log).unwrap().contains("up"));
    start.kill().unwrap();
    start.wait().unwrap();
    assert_eq!(home.app("job").workers_ready, 1);
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn an_inspector_is_opened_where_it_is_said() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    home.ok(&["start", "job.js", "--node-args", "--inspect-port=0"]);
    let (code, said, err) = home.run(&["inspect", "job"]);
    assert_eq!(code, 0, "{err}");
    let at = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    let mut inspector = TcpStream::connect(format!("127.0.0.1:{at}")).unwrap();
    inspector.write_all(b"GET /json/version HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = [0; 17];
    inspector.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.0 200 OK"), "{answer:?} {said}");
    assert!(home.fails(&["inspect", "job"]).contains("open already"));
}

#[test]
fn what_was_saved_is_forgotten() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    home.ok(&["start", "job.js"]);
    assert!(home.ok(&["save"]).contains("saved 1 app in"));
    home.ok(&["kill"]);
    home.ok(&["cleardump"]);
    home.run(&["resurrect"]);
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let home = Home::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = command(&home.folder).args(["ls"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("cannot print"), "{said}");
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_handler_of_pm2s_signal_runs_at_stop_and_reload_whether_the_worker_would_end_or_not() {
    let home = Home::new();
    let app = "const fs = require('fs'); const tell = (text) => fs.appendFileSync('told', text + '\\n'); \
               process.on('SIGINT', () => { tell('bye'); process.exit(0) }); process.on('exit', () => tell('exit')); \
               process.on('SIGTERM', () => tell('term')); require('http').createServer((q, a) => a.end()).listen(0);";
    let told = || fs::read_to_string(home.folder.path().join("told")).unwrap_or_default();
    for (round, more) in ["", "setInterval(() => {}, 1000)"].into_iter().enumerate() {
        home.folder.write("job.js", &format!("{app} {more}"));
        home.folder.write("ecosystem.config.js", "module.exports = { apps: [{ name: 'job', script: 'job.js' }] }");
        home.ok(&["start", "ecosystem.config.js"]);
        home.ok(&["reload", "job"]);
        home.ok(&["stop", "job"]);
        let rounds = round + 1;
        assert_eq!(told(), "bye\nexit\nbye\nexit\n".repeat(rounds), "{more}");
        home.ok(&["delete", "job"]);
    }
}

#[test]
fn who_never_sends_the_message_of_wait_ready_counts_as_ready_with_a_warning_and_the_own_rule_is_strict() {
    let home = Home::new();
    home.folder.write("mute.js", APP);
    home.folder.write("says.js", &format!("{APP}; process.send('ready')"));
    let warning = "has not called process.send('ready') within 300 ms and counts as ready";
    let said = home.ok(&["start", "mute.js", "-i", "2", "--wait-ready", "--listen-timeout", "300"]);
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    wait_until("it listens", || !home.app("mute").listen.is_empty());
    assert!(get(address(&home.app("mute")), "/").unwrap().contains("none"));
    let said = home.ok(&["start", "says.js", "--wait-ready", "--listen-timeout", "60000"]);
    assert!(!said.contains("process.send"), "{said}");
    let strict = ["start", "mute.js", "-f", "-n", "strict", "--wait-ready", "--ready-timeout", "300ms"];
    assert!(home.fails(&strict).contains("it never called process.send('ready')"));
    home.folder
        .write("pm2.json", r#"{ "name": "file", "script": "mute.js", "wait_ready": true, "listen_timeout": 300 }"#);
    // A time that was typed counts, also where ready_timeout is shorter.
    let rule = ["start", "mute.js", "-f", "-n", "late", "--ready", "message or 400ms", "--ready-timeout", "200ms"];
    assert!(home.ok(&rule).contains("within 400 ms"));
    let said = home.ok(&["start", "pm2.json"]);
    assert!(said.contains(warning), "{said}");
    // A reload replaces the workers all the same, and warns again.
    let said = home.ok(&["reload", "file"]);
    assert!(said.contains(warning) && home.app("file").generation == 2, "{said}");
}

#[test]
fn filter_env_of_a_process_file_leaves_variables_out() {
    let home = Home::new();
    home.folder.write("job.js", APP);
    let app = r#"{ "name": "job", "script": "job.js", "filter_env": ["SECRET"], "env": { "OWN_SECRET": "x" } }"#;
    home.folder.write("pm2.json", app);
    let started = command(&home.folder).env("MY_SECRET", "x").args(["start", "pm2.json"]).status().unwrap();
    assert!(started.success());
    let (_, env, _) = home.run(&["env", "job"]);
    assert!(env.contains("OWN_SECRET=x") && !env.contains("MY_SECRET"), "{env}");
}
