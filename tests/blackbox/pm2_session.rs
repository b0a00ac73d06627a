//! A session as PM2's users type it, from its quick start to the end of the day, with another program's name in front.
use super::background::{Home, address};
use super::client::{Load, get};
use super::cluster::{alive, command, wait_until};
use std::fs;
use std::io::Write;
use std::process::Stdio;

const APP: &str = "console.log('up'); require('http').createServer((q, a) => a.end(JSON.stringify({ pid: process.pid, \
                   slot: process.env.NODE_APP_INSTANCE, mode: process.env.MODE }))).listen(process.env.PORT, '127.0.0.1')";

/// The first row of `ls` with this word in it.
fn row(home: &Home, word: &str) -> String {
    let (code, table, said) = home.run(&["ls"]);
    assert_eq!(code, 0, "{said}");
    table.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word}: {table}")).to_owned()
}

#[test]
#[ignore = "long: a whole session with PM2's verbs"]
fn a_pm2_session_typed_from_pm2s_quick_start_runs_verb_by_verb() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    let port = super::common::ports::free_port().to_string();
    let port_of_app = format!("PORT={port}");

    // start, and what there is.
    let said = home.ok(&["start", "app.js", "--name", "api", "-i", "max", "-e", &port_of_app]);
    let workers = home.app("api").workers_wanted;
    assert!(workers >= 1 && said.contains("api: ") && said.contains("ready"), "{said}");
    let at = address(&home.app("api"));
    assert_eq!(at.port().to_string(), port, "the port that the app asks for");
    assert!(get(at, "/").unwrap().contains("\"slot\":"));
    for verb in ["ls", "list", "status"] {
        let (code, table, _) = home.run(&[verb]);
        assert!(code == 0 && table.contains("[0] api") && table.contains("ready"), "{table}");
    }
    let (_, list, _) = home.run(&["jlist"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!((list[0]["name"].as_str(), list[0]["pm_id"].as_u64()), (Some("api"), Some(0)));
    assert_eq!(list[0]["pm2_env"]["status"], "online");
    assert_eq!(home.run(&["prettylist"]).0, 0);
    for [verb, target] in [["describe", "api"], ["show", "0"]] {
        let (code, card, _) = home.run(&[verb, target]);
        assert!(code == 0 && card.contains("app.js") && card.contains("running"), "{card}");
    }
    let (_, env, _) = home.run(&["env", "0"]);
    assert!(env.lines().any(|line| line == port_of_app) && env.contains("NODE_APP_INSTANCE=0"), "{env}");
    assert!(home.fails(&["monit"]).contains("wants a terminal"));

    // logs: the last lines, then no more; flushed they are gone.
    wait_until("its first line", || home.run(&["logs", "api", "--lines", "5", "--nostream"]).1.contains("up"));
    home.ok(&["reloadLogs"]);
    home.ok(&["flush", "api"]);
    assert!(!home.run(&["logs", "api", "--nostream"]).1.contains("up"));

    // scale, reload and restart, under load where nothing may be lost.
    home.ok(&["scale", "api", "2"]);
    wait_until("two workers", || home.app("api").workers_ready == 2);
    let load = Load::start(at, 4, false);
    home.ok(&["scale", "api", "+1"]);
    wait_until("three workers", || home.app("api").workers_ready == 3);
    home.ok(&["scale", "api", "-1"]);
    wait_until("two again", || home.app("api").workers.len() == 2);
    home.ok(&["scale", "api", "3"]);
    wait_until("three again", || home.app("api").workers_ready == 3);
    home.ok(&["reload", "api"]);
    home.ok(&["gracefulReload", "all"]);
    load.wait_more(20);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    let before = home.app("api").workers[0].pid;
    home.ok(&["restart", "api"]);
    assert_ne!(home.app("api").workers[0].pid, before);
    assert_eq!(home.app("api").workers_ready, 3, "nothing but another scale changes that");
    let mode = |word: &str| command(&home.folder).env("MODE", word).args(["restart", "api", "--update-env"]).status();
    assert!(mode("night").unwrap().success());
    assert!(get(at, "/").unwrap().contains("night"));
    home.ok(&["restart", "/^ap/"]);
    assert!(get(at, "/").unwrap().contains("night"), "the environment stays as it was");

    // stop, start again; a script is a target too.
    home.ok(&["stop", "app.js"]);
    assert!(row(&home, "api").contains("stopped"));
    assert!(get(at, "/").is_err());
    home.ok(&["start", "api"]);
    assert!(get(at, "/").is_ok());
    // One that Node ignores reaches who gets it.
    assert!(home.ok(&["sendSignal", "SIGWINCH", "api"]).contains("sent to 3 workers"));

    // The machine starts again: what was saved is there again, what was stopped stays so.
    home.ok(&["start", "-n", "job", "-i", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    home.ok(&["stop", "1"]);
    home.ok(&["save"]);
    let pid = home.app("api").workers[0].pid.unwrap();
    home.ok(&["kill"]);
    assert!(!alive(pid) && home.run(&["ls"]).1.contains("nothing runs here"));
    home.ok(&["resurrect"]);
    assert!(get(at, "/").unwrap().contains("night"));
    assert_eq!((home.app("job").status.as_str(), home.app("api").workers_ready), ("stopped", 3));
    home.ok(&["start", "all"]);
    assert_eq!(home.app("job").workers_ready, 1);
    home.ok(&["stop", "job", "0"]);
    assert!(home.deployments().iter().flat_map(|d| &d.apps).all(|app| app.status == "stopped"));
    let (code, unit, said) = home.run(&["startup", "--print"]);
    assert!(code == 0 && unit.contains("resurrect"), "{unit}{said}");
    assert!(home.run(&["unstartup", "--print"]).1.contains("disable"));
    home.ok(&["delete", "job"]);
    home.ok(&["del", "all"]);
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
}

#[test]
#[ignore = "long: a whole session with PM2's verbs"]
fn an_ecosystem_is_written_started_in_production_and_told_by_its_file() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    // init writes a file of ours; one of PM2's is taken as it is.
    home.ok(&["ecosystem", "our.toml"]);
    assert!(fs::read_to_string(home.folder.path().join("our.toml")).unwrap().contains("[[app]]"));
    let apps = "module.exports = { apps: [{ name: 'web', script: './app.js', instances: 2, exec_mode: 'cluster', env: { \
                PORT: 0, MODE: 'dev' }, env_production: { MODE: 'live' } }, { name: 'tick', script: 'tick.sh', autorestart: \
                false }] }";
    home.folder.write("ecosystem.config.js", apps);
    home.folder.write("tick.sh", "sleep 1000");
    let said = home.ok(&["start", "ecosystem.config.js", "--env", "production"]);
    assert!(said.contains("web: 2 workers ready"), "{said}");
    let mode = || get(address(&home.app("web")), "/").unwrap();
    assert!(mode().contains("live"));
    home.ok(&["reload", "ecosystem.config.js"]);
    assert!(mode().contains("live"), "the table that was chosen stays chosen");
    home.ok(&["stop", "ecosystem.config.js"]);
    assert_eq!((home.app("web").status.as_str(), home.app("tick").status.as_str()), ("stopped", "stopped"));
    home.ok(&["start", "ecosystem.config.js", "--only", "web"]);
    assert!(mode().contains("dev"));
    assert_eq!(home.app("tick").status, "stopped");
    assert!(home.fails(&["stop", "none.config.js"]).contains("nothing here is called"));
    home.ok(&["delete", "ecosystem.config.js"]);
    assert!(home.deployments().is_empty());
}

#[test]
fn apps_come_on_standard_input_and_outlive_their_master() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    let mut start = command(&home.folder);
    start.args(["start", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut start = start.spawn().unwrap();
    let json =
        "{ \"apps\": [{ \"name\": \"piped\", \"script\": \"app.js\", \"env\": { \"PORT\": 0, \"MODE\": \"in\" } }] }";
    start.stdin.take().unwrap().write_all(json.as_bytes()).unwrap();
    let output = start.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let says = || get(address(&home.app("piped")), "/").unwrap().contains("\"mode\":\"in\"");
    assert!(says());
    home.ok(&["reload", "piped"]);
    home.ok(&["restart", "piped"]);
    assert!(says() && home.app("piped").generation == 3);
    let (code, _, said) = home.run(&["start", "-"]);
    assert!(code != 0 && said.contains("no app is configured"), "{said}");
}

#[test]
fn scripts_run_by_their_ending() {
    let home = Home::new();
    let runs = [("a.mjs", "node"), ("b.cjs", "node"), ("c.py", "python3"), ("d.sh", "bash")];
    for (name, program) in runs {
        let text = match program {
            "node" => "setInterval(() => {}, 1000)",
            "python3" => "import time\ntime.sleep(1000)\n",
            _ => "sleep 1000",
        };
        home.folder.write(name, text);
        home.ok(&["start", name, "-i", "1", "--ready", "1ms"]);
        assert_eq!(home.app(name.split('.').next().unwrap()).command, [program, name], "{name}");
    }
    // Of those whose program is not here, what would run is told.
    for (name, program) in [("e.ts", "node"), ("f.rb", "ruby"), ("g.php", "php"), ("h", "./h")] {
        home.folder.write(name, "");
        let (_, _, said) = home.run(&["start", name, "-i", "1", "--ready", "1ms", "--ready-timeout", "1ms"]);
        let started = home.deployments().iter().flat_map(|d| &d.apps).any(|app| app.command[0] == program);
        assert!(started || said.contains(program), "{name}: {said}");
    }
    // 0 and numbers below it count from the CPUs.
    for (name, instances) in [("every", "0"), ("less", "-1")] {
        home.ok(&["start", "-n", name, "-i", instances, "--ready", "1ms", "--", "sleep", "1000"]);
    }
    assert_eq!(home.app("less").workers_wanted, home.app("every").workers_wanted.saturating_sub(1).max(1));
}
