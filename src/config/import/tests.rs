//! Every key of PM2's by itself, the shapes of a file, and that whatever comes out can be resolved.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::log::{self, Target};
use crate::config::resolve::resolve;
use crate::config::sources::{FileSource, Overrides, Sources};
use crate::config::{App, Config, Ready, Said, Workers};
use serde_json::json;
use std::time::Duration;

/// A machine with these scripts in the folder of every app.
fn look(_: Option<&str>, script: &str) -> Script {
    match script {
        "npm" | "next" => Script::InPath,
        "./server" | "server" => Script::Binary,
        "bin/tool" => Script::Itself,
        "bin/www" | "./worker" | "my app.js" => Script::Text,
        _ => Script::Missing,
    }
}

fn import(value: &Value) -> Result<Converted, Vec<String>> {
    let env = BTreeMap::from([("HOME".to_owned(), "/home/app".to_owned()), ("LANG".to_owned(), "C".to_owned())]);
    convert(value, &Surroundings { file: "ecosystem.config.js", env: &env, program: "/usr/bin/clusterd", look: &look })
}

fn config(toml: &str, env_names: &[&str]) -> Config {
    let file = FileSource { path: "/srv/ecosystem.config.js".into(), text: toml.into(), notes: Vec::new() };
    let overrides =
        Overrides { env_names: env_names.iter().map(|name| (*name).to_owned()).collect(), ..Overrides::default() };
    let sources = Sources { start_folder: "/srv".into(), file: Some(file), overrides, ..Sources::default() };
    resolve(&sources).unwrap_or_else(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}\n{toml}", all.join("\n"))
    })
}

/// One app with these keys, converted and resolved; and what was noted.
fn app(keys: Value) -> (App, Vec<String>) {
    let mut whole = json!({ "script": "app.js" });
    whole.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let converted = import(&json!({ "apps": [whole] })).unwrap();
    (config(&converted.toml, &[]).apps.remove(0), converted.notes)
}

/// The same where nothing may be lost.
fn whole(keys: Value) -> App {
    let (app, notes) = app(keys);
    assert!(notes.is_empty(), "{notes:?}");
    app
}

#[test]
fn a_file_holds_its_apps_in_any_of_four_shapes() {
    let one = json!({ "name": "web", "script": "app.js" });
    for shape in [json!({ "apps": [one] }), json!({ "apps": one }), json!({ "pm2": [one] }), json!([one]), one.clone()]
    {
        let converted = import(&shape).unwrap();
        assert_eq!(config(&converted.toml, &[]).apps[0].name, "web", "{shape}");
    }
    assert_eq!(import(&json!({ "apps": [] })).unwrap_err(), ["it has no apps"]);
    assert!(import(&json!("text")).unwrap_err()[0].contains("an app is an object"));
    assert_eq!(import(&json!({ "expo": {} })).unwrap_err(), ["app 1: script is missing: say what to run"]);
    let package =
        import(&json!({ "name": "shop", "version": "1.0.0", "scripts": { "start": "node app.js" } })).unwrap_err();
    assert!(package[0].starts_with("shop: script is missing") && package[0].ends_with("clusterd start -- npm start"));
    let many: Vec<Value> = (0..=APPS_MAX).map(|n| json!({ "script": format!("a{n}.js") })).collect();
    assert!(import(&json!(many)).unwrap_err()[0].contains("too many"));
}

#[test]
fn every_app_that_is_wrong_is_told_at_once() {
    let problems = import(&json!([{ "name": "a" }, { "script": "b.js", "instances": 100_000 }])).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("a: script is missing") && problems[1].starts_with("b: instances: 100000"));
}

#[test]
fn the_command_is_what_pm2_would_run() {
    let command = |keys| app(keys).0.command.join(" ");
    assert_eq!(command(json!({})), "node app.js");
    assert_eq!(command(json!({ "args": "--port 3 'a b'" })), "node app.js --port 3 a b");
    assert_eq!(whole(json!({ "args": ["a b", 3] })).command, ["node", "app.js", "a b", "3"]);
    assert_eq!(command(json!({ "node_args": "--inspect -r x" })), "node --inspect -r x app.js");
    assert_eq!(command(json!({ "interpreterArgs": ["--inspect"] })), "node --inspect app.js");
    assert_eq!(command(json!({ "script": "app.py" })), "python3 app.py");
    assert_eq!(command(json!({ "script": "./run.sh" })), "bash ./run.sh");
    assert_eq!(
        command(json!({ "script": "app.py", "interpreter": "/opt/py/bin/python" })),
        "/opt/py/bin/python app.py"
    );
    assert_eq!(command(json!({ "script": "bin/www" })), "node bin/www");
    assert_eq!(command(json!({ "script": "./server", "node_args": "--x" })), "./server");
    assert_eq!(command(json!({ "script": "server" })), "./server");
    assert_eq!(command(json!({ "script": "bin/tool" })), "bin/tool");
    assert_eq!(command(json!({ "script": "my app.js" })), "node my app.js");
    assert_eq!(command(json!({ "script": "app.js", "interpreter": "none" })), "./app.js");
    assert_eq!(command(json!({ "script": "npm", "args": "start" })), "npm start");
    assert_eq!(command(json!({ "source_map_support": true })), "node --enable-source-maps app.js");
    let (shell, notes) = app(json!({ "script": "npm run start:prod", "args": "lost" }));
    assert_eq!(shell.command, ["bash", "-c", "npm run start:prod"]);
    assert!(notes[0].contains("a shell stands between"), "{notes:?}");
    assert!(app(json!({ "interpreter": "node@18.1.0" })).1[0].contains("nvm"));
    assert!(import(&json!({ "script": "a\u{0}b" })).is_err());
}

#[test]
fn names_are_made_to_fit() {
    assert_eq!(whole(json!({})).name, "app");
    assert_eq!(whole(json!({ "script": "dist/mail.worker.js" })).name, "mail.worker");
    let (spaced, notes) = app(json!({ "name": "@shop/my app" }));
    assert_eq!(spaced.name, "shop-my-app");
    assert!(notes[0].contains("@shop/my app"), "{notes:?}");
    let twins =
        import(&json!([{ "script": "a.js" }, { "script": "a.js" }, { "name": "a", "script": "b.js" }])).unwrap();
    let names: Vec<String> = config(&twins.toml, &[]).apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["a", "a-2", "a-3"]);
    assert!(twins.notes.iter().any(|note| note.starts_with("a-3: name:")), "{:?}", twins.notes);
    assert_eq!(whole(json!({ "namespace": "back" })).namespace, "back");
    assert!(app(json!({ "namespace": "a b" })).1[0].contains("namespace"));
}

#[test]
fn instances_are_workers() {
    let workers = |keys| whole(keys).workers;
    assert_eq!(workers(json!({})), Workers::Exactly(1));
    assert_eq!(workers(json!({ "instances": 4 })), Workers::Exactly(4));
    assert_eq!(workers(json!({ "instances": "4" })), Workers::Exactly(4));
    assert_eq!(workers(json!({ "instances": 0 })), Workers::MaxMinus(0));
    assert_eq!(workers(json!({ "instances": "max", "exec_mode": "cluster" })), Workers::MaxMinus(0));
    assert_eq!(workers(json!({ "instances": -1 })), Workers::MaxMinus(1));
    assert!(app(json!({ "exec_mode": "thread" })).1[0].contains("exec_mode"));
}

#[test]
fn readiness_is_listening_or_a_message_and_in_fork_mode_a_moment() {
    let ready = |keys| whole(keys).ready;
    assert_eq!(ready(json!({ "exec_mode": "cluster" })), None);
    assert_eq!(ready(json!({ "instances": 2 })), None);
    let seconds = |n| Some(Ready::Or(Said::Listening, Duration::from_secs(n)));
    assert_eq!(ready(json!({})), seconds(3));
    assert_eq!(ready(json!({ "instances": 2, "exec_mode": "fork_mode", "listen_timeout": 8000 })), seconds(8));
    assert_eq!(ready(json!({ "exec_mode": "cluster", "listen_timeout": 10_000 })), seconds(10));
    assert_eq!(ready(json!({ "script": "a.py" })), None);
    assert_eq!(whole(json!({ "script": "a.py", "listen_timeout": 90_000 })).ready_timeout, Duration::from_secs(90));
}

#[test]
fn who_never_sends_the_message_of_wait_ready_counts_as_ready_in_the_end_as_in_pm2() {
    let ready = |keys| whole(keys).ready;
    let message = |ms| Some(Ready::Or(Said::Message, Duration::from_millis(ms)));
    assert_eq!(ready(json!({ "wait_ready": true })), message(30_000));
    assert_eq!(ready(json!({ "wait_ready": true, "listen_timeout": 500 })), message(500));
    assert_eq!(
        ready(json!({ "wait_ready": "true", "listen_timeout": 90_000, "exec_mode": "cluster" })),
        message(90_000)
    );
    assert!(app(json!({ "script": "a.py", "wait_ready": true })).1[0].contains("wait_ready"));
}

#[test]
fn time_to_end() {
    let app = whole(json!({ "kill_timeout": 2500, "shutdown_with_message": true }));
    assert_eq!((app.kill_timeout, app.drain_timeout), (Duration::from_millis(2500), Duration::from_secs(30)));
    assert_eq!(app.stop_signal, None, "the message alone");
    assert_eq!(whole(json!({})).stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(whole(json!({ "script": "job.py" })).stop_signal, None);
    let app = whole(json!({ "kill_timeout": "2m" }));
    assert_eq!((app.kill_timeout, app.drain_timeout), (Duration::from_secs(120), Duration::from_secs(120)));
}

#[test]
fn restarts_and_memory() {
    let app = whole(json!({ "min_uptime": "10s", "max_restarts": 5, "stop_exit_codes": [0, "3"],
        "exp_backoff_restart_delay": 250, "max_memory_restart": "300M" }));
    assert_eq!(app.restart.min_uptime, Duration::from_secs(10));
    assert_eq!((app.restart.max_restarts, app.restart.stop_exit_codes), (Some(5), vec![0, 3]));
    assert_eq!(app.restart.backoff_min, Duration::from_millis(250));
    assert_eq!(app.limits.memory, Some(300 << 20));
    assert_eq!(whole(json!({ "max_restarts": 1_000_000 })).restart.max_restarts, None);
    assert_eq!(whole(json!({ "stop_exit_codes": 0 })).restart.stop_exit_codes, [0]);
    assert_eq!(whole(json!({ "max_memory_restart": 1_500_000 })).limits.memory, Some(1465 << 10));
    assert_eq!(whole(json!({ "exp_backoff_restart_delay": 60_000 })).restart.backoff_max, Duration::from_secs(60));
}

#[test]
fn what_starts_it_again() {
    let once = whole(json!({ "autorestart": false, "cron_restart": "0 3 * * *", "restart_delay": 4000 }));
    assert_eq!((once.restart.max_runs, once.restart.delay), (Some(1), Duration::from_secs(4)));
    assert_eq!(once.cron_restart.as_deref(), Some("0 3 * * *"));
    assert_eq!(whole(json!({ "cron_restart": 0, "restart_delay": 0 })).cron_restart, None);
    let refused = import(&json!([{ "name": "web", "script": "a.js", "cron_restart": "soon" }])).unwrap_err();
    assert!(refused.len() == 1 && refused[0].starts_with("web: cron_restart: "), "{refused:?}");
    assert!(refused[0].contains("not a cron expression"), "{refused:?}");
    let watch =
        whole(json!({ "watch": true, "ignore_watch": ["node_modules", "./tmp", "*.log"], "watch_delay": 1000 }));
    let watch = watch.watch.unwrap();
    assert_eq!(
        (watch.paths.len(), watch.ignore, watch.delay.as_secs()),
        (0, vec!["node_modules".into(), "/tmp".into(), "*.log".into()], 1)
    );
    let paths = whole(json!({ "watch": ["server", "client"] })).watch.unwrap().paths;
    assert_eq!(paths, [std::path::Path::new("/srv/server"), std::path::Path::new("/srv/client")]);
    assert_eq!(whole(json!({ "watch": false, "ignore_watch": "x", "watch_delay": 5 })).watch, None);
    let (watched, notes) = app(json!({ "watch": "src", "ignore_watch": ["[\\/\\\\]\\./"] }));
    assert!(watched.watch.is_some() && notes[0].contains("regular expression"), "{notes:?}");
}

#[test]
fn variables_are_text_and_tables_wait_for_their_name() {
    let converted = import(&json!({ "script": "a.js", "port": 9000,
        "env": { "N": 3, "B": true, "O": { "a": 1 }, "NONE": null, "Q": "a\"b\nc" },
        "env_production": { "N": 4 }, "env_very-odd.name": { "X": "1" } }))
    .unwrap();
    assert!(converted.notes.is_empty(), "{:?}", converted.notes);
    let env = &config(&converted.toml, &[]).apps[0].env;
    let pairs = [("N", "3"), ("B", "true"), ("O", "{\"a\":1}"), ("Q", "a\"b\nc"), ("PORT", "9000")];
    for (name, value) in pairs {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(env.len(), pairs.len());
    assert_eq!(config(&converted.toml, &["production", "very-odd.name"]).apps[0].env["N"], "4");
    let (_, notes) = app(json!({ "env": { "NODE_APP_INSTANCE": 1, "A B": 2, "production": 1 }, "env_production": {} }));
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(app(json!({ "env": "NODE_ENV=x" })).1[0].contains("not a list of variables"));
}

#[test]
fn variables_of_each_slot() {
    let first = |keys| whole(keys).first_of_increment().map(|(name, first)| (name.to_owned(), first));
    assert_eq!(whole(json!({ "instance_var": "SLOT" })).instance_var, "SLOT");
    assert_eq!(whole(json!({ "instance_var": "NODE_APP_INSTANCE" })).instance_var, "NODE_APP_INSTANCE");
    assert_eq!(first(json!({ "increment_var": "PORT", "port": 3000 })), Some(("PORT".into(), 3000)));
    assert_eq!(first(json!({ "increment_var": "N", "env": { "N": "x" } })), Some(("N".into(), 0)));
    let (app, notes) = app(json!({ "instance_var": "S", "increment_var": "LISTEN_FDS", "env": { "S": 1 } }));
    assert_eq!((app.env.len(), app.increment_var, notes.len()), (0, None, 2), "{notes:?}");
}

#[test]
fn variables_that_an_app_is_not_to_have() {
    assert_eq!(whole(json!({ "filter_env": ["SECRET", "AWS_"] })).filter_env, ["SECRET", "AWS_"]);
    assert!(whole(json!({ "filter_env": "SECRET" })).leaves_out("MY_SECRET_KEY"));
    assert!(whole(json!({ "filter_env": false })).filter_env.is_empty());
    for unusable in [json!(true), json!(3), json!([1])] {
        let (app, notes) = app(json!({ "filter_env": unusable }));
        assert!(app.filter_env.is_empty() && !app.clean_env && notes[0].contains("filter_env: "), "{notes:?}");
    }
}

#[test]
fn who_and_where() {
    let app = whole(json!({ "uid": 1000, "gid": "www-data", "cwd": "/srv/shop" }));
    assert_eq!((app.user.as_deref(), app.group.as_deref()), (Some("1000"), Some("www-data")));
    assert_eq!(app.cwd.unwrap().to_str(), Some("/srv/shop"));
    assert_eq!(whole(json!({ "user": "www-data" })).user.as_deref(), Some("www-data"));
}

#[test]
fn what_has_no_counterpart_is_named_with_a_way_out() {
    for (key, _) in keys::LOST {
        let (_, notes) = app(json!({ *key: "x y" }));
        assert!(notes.iter().any(|note| note.starts_with("app: ") && note.contains(key)), "{key}: {notes:?}");
    }
    let notes = import(&json!({ "apps": [{ "script": "a.js" }], "deploy": {} })).unwrap().notes;
    assert!(notes[0].starts_with("deploy: "), "{notes:?}");
    let (_, notes) =
        app(json!({ "wacth": true, "max_memory_restart": [], "stop_exit_codes": ["x"], "out": "logs/", "pid": "p" }));
    for word in [
        "wacth: PM2 has no such key",
        "max_memory_restart: [] is not",
        "stop_exit_codes: [\"x\"] is not",
        "out_file: \"logs/\" names a folder",
        "pid: clusterd writes no pid files",
    ] {
        assert!(notes.iter().any(|note| note.contains(word)), "{word}: {notes:?}");
    }
}

#[test]
fn log_files_and_what_their_lines_look_like_are_taken_over() {
    let app = whole(json!({ "cwd": "/srv", "out_file": "o.log", "error_file": "/dev/null", "merge_logs": false,
        "log_date_format": "YYYY-MM-DD HH:mm", "log_type": "json" }));
    assert_eq!((app.log.out, app.log.err), (Target::File("/srv/o.log".into()), Target::Null));
    assert_eq!((app.log.per_worker, app.log.format), (true, log::Format::Json));
    assert_eq!(app.log.time.as_deref(), Some("%Y-%m-%d %H:%M"));
    let app = whole(json!({ "cwd": "/srv", "log": "all.log", "time": true }));
    assert_eq!((&app.log.out, &app.log.err), (&Target::File("/srv/all.log".into()), &app.log.out));
    assert_eq!(app.log.time.as_deref(), Some(crate::config::log_time::DEFAULT));
    let app = whole(json!({ "cwd": "/srv", "log_file": "all.log", "out_file": "NULL", "error_file": "/dev/null" }));
    assert_eq!((&app.log.out, &app.log.err), (&Target::File("/srv/all.log".into()), &app.log.out));
    let app = whole(json!({ "cwd": "/srv", "log_file": "all.log", "out_file": "o.log", "error_file": "NULL" }));
    assert_eq!(
        (&app.log.out, &app.log.err),
        (&Target::File("/srv/o.log".into()), &Target::File("/srv/all.log".into()))
    );
    assert_eq!(app.log.both.as_deref(), Some("/srv/all.log".as_ref()));
    let app = whole(json!({ "cwd": "/srv", "out_file": "NULL", "error_file": "e.log" }));
    assert_eq!((app.log.out, app.log.err), (Target::Null, Target::File("/srv/e.log".into())));
    assert_eq!(whole(json!({ "disable_logs": true, "out_file": "x" })).log.out, Target::Null);
    assert_eq!(whole(json!({ "time": true })).log.out, Target::Inherit);
}

#[test]
fn what_means_nothing_is_not_made_a_fuss_of() {
    for key in keys::HARMLESS {
        whole(json!({ *key: true }));
    }
    whole(json!({ "watch": false, "merge_logs": false, "autostart": true, "trace": false, "autorestart": true,
        "namespace": "default", "source_map_support": false, "name": null }));
}

#[test]
fn a_dump_is_its_apps_again() {
    let entry = |name: &str, id: u32| {
        json!({ "name": name, "namespace": "default", "pm_exec_path": "/srv/a.js", "pm_cwd": "/srv", "args": ["x y"],
            "exec_interpreter": "node", "exec_mode": "cluster_mode", "node_args": [], "instance_var": "NODE_APP_INSTANCE",
            "status": "online", "pm_uptime": 1, "axm_monitor": {}, "pm_out_log_path": "/home/app/.pm2/logs/a-out.log",
            "max_memory_restart": 314_572_800, "env_production": { "A": "2" }, "vizion": true, "km_link": false,
            "env": { "A": 1, "HOME": "/home/app", "LANG": "de", "PM2_HOME": "/home/app/.pm2", "SSH_TTY": "x", "unique_id": id,
                "NODE_APP_INSTANCE": id, name: {} } })
    };
    let converted = import(&json!([entry("web", 0), entry("job", 1), entry("web", 2)])).unwrap();
    assert!(converted.notes.is_empty(), "{:?}", converted.notes);
    let apps = config(&converted.toml, &[]).apps;
    assert_eq!(apps.len(), 2);
    let web = &apps[0];
    assert_eq!((web.name.as_str(), web.workers), ("web", Workers::Exactly(2)));
    assert_eq!(web.command, ["node", "/srv/a.js", "x y"]);
    assert_eq!(web.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["A=1", "LANG=de"]);
    assert_eq!((web.limits.memory, web.cwd.as_deref()), (Some(300 << 20), Some("/srv".as_ref())));
    let stopped = |name: &str, id: u32| {
        let mut entry = entry(name, id);
        entry["status"] = json!("stopped");
        entry
    };
    // Of the workers of an app, one that runs is enough.
    let list = json!([stopped("web", 0), stopped("job", 1), entry("web", 2), entry("both", 3), stopped("both", 4)]);
    let apps = config(&import(&list).unwrap().toml, &[]).apps;
    let starts: Vec<_> = apps.iter().map(|app| (app.name.as_str(), app.autostart)).collect();
    assert_eq!(starts, [("web", true), ("job", false), ("both", true)]);
}

#[test]
fn the_file_server_of_pm2_is_that_of_clusterd() {
    let keys = json!({ "script": "serve", "env": { "PM2_SERVE_PATH": "dist", "PM2_SERVE_PORT": 8081, "PM2_SERVE_SPA": "true" } });
    let app = whole(keys);
    assert_eq!(app.command, ["/usr/bin/clusterd", "--serve-files"]);
    assert_eq!(app.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["*:8081"]);
    assert_eq!(app.env.get("PM2_SERVE_PATH").map(String::as_str), Some("dist"));
    // A script of that name is one.
    assert_eq!(whole(json!({ "script": "./serve" })).command, ["node", "./serve"]);
    // Without settings it is the folder of the app, on port 8080.
    let app = whole(json!({ "script": "serve", "cwd": "/srv/dist" }));
    assert_eq!(app.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["*:8080"]);
    let host = whole(json!({ "script": "serve", "env": { "PM2_SERVE_HOST": "::1", "PM2_SERVE_PORT": "81" } }));
    assert_eq!(host.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::1]:81"]);
}

#[test]
fn folders_of_static_are_apps_beside_the_others() {
    let folders = json!([
        { "path": "./dist", "port": 8082, "spa": true, "basic_auth": { "username": "me", "password": "x" } },
        { "name": "docs", "host": "127.0.0.1" },
    ]);
    for (file, others) in
        [(json!({ "static": folders }), 0), (json!({ "apps": [{ "script": "a.js" }], "static": folders }), 1)]
    {
        let converted = import(&file).unwrap();
        assert!(converted.notes.is_empty(), "{:?}", converted.notes);
        let apps = config(&converted.toml, &[]).apps.split_off(others);
        assert_eq!(apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>(), ["static-page-server-8082", "docs"]);
        assert_eq!(apps[1].listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:8080"]);
        let env = &apps[0].env;
        assert_eq!([env["PM2_SERVE_PATH"].as_str(), env["PM2_SERVE_SPA"].as_str()], ["./dist", "true"]);
        assert_eq!(env["PM2_SERVE_BASIC_AUTH_PASSWORD"], "x");
    }
    assert!(import(&json!({ "static": ["dist"] })).unwrap_err()[0].contains("path and port"));
}

#[test]
fn an_app_that_is_not_started_with_its_file_stays_that() {
    assert!(!whole(json!({ "autostart": false })).autostart);
    assert!(whole(json!({ "autostart": true })).autostart && whole(json!({})).autostart);
}

#[test]
fn formats_are_told_by_the_path() {
    for (path, format) in [
        ("/a.b/cluster.toml", Format::Toml),
        ("/dev/stdin", Format::Toml),
        ("ecosystem.config.js", Format::Script),
        ("x.CJS", Format::Script),
        ("x.mjs", Format::Script),
        ("ecosystem.config.ts", Format::Script),
        ("app.json", Format::Json),
        ("dump.pm2", Format::Json),
        ("p.yml", Format::Yaml),
    ] {
        assert_eq!(Format::of(path), format, "{path}");
    }
    for (path, is) in [
        ("app.js", false),
        ("server.mjs", false),
        ("ecosystem.config.js", true),
        ("ecosystem.config.mts", true),
        ("server.ts", false),
        ("conf/pm2.config.cjs", true),
        ("ecosystem.js", true),
        ("app.json", true),
        ("pm2.yaml", true),
        ("cluster.toml", true),
        ("a.config.d/app.js", false),
        ("run.sh", false),
    ] {
        assert_eq!(is_configuration(path), is, "{path}");
    }
}
