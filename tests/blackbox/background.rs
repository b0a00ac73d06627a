//! `clusterd start` and the verbs of daily life: names, ids, targets, stop and start again, delete, two at once.
use super::apps::{hello, project};
use super::client::get;
use super::cluster::{Folder, alive, command, kill, run, wait_end, wait_until};
use clusterd::api::types::{App, Deployment};
use std::net::SocketAddr;
use std::process::Stdio;

/// A home in which things run in the background; everything ends with it.
pub(crate) struct Home {
    pub(crate) folder: Folder,
}

impl Home {
    pub(crate) fn new() -> Home {
        Home { folder: Folder::new() }
    }

    /// Runs a verb; its exit code, stdout and stderr.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String, String) {
        run(&self.folder, args)
    }

    /// Runs a verb that has to work; what it said on stderr.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let (code, _, err) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        err
    }

    /// Runs a verb that has to fail; what it said on stderr.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let (code, _, err) = self.run(args);
        assert_eq!(code, 1, "{args:?}: {err}");
        err
    }

    pub(crate) fn deployments(&self) -> Vec<Deployment> {
        serde_json::from_str(&self.run(&["ls", "--json"]).1).unwrap()
    }

    pub(crate) fn app(&self, name: &str) -> App {
        let all = self.deployments();
        let found = all.iter().flat_map(|d| &d.apps).find(|app| app.name == name);
        found.unwrap_or_else(|| panic!("{name} is not there: {all:#?}")).clone()
    }

    /// Starts the sample web app under this name on a port of its own.
    pub(crate) fn web(&self, name: &str, workers: &str) {
        self.ok(&["start", &hello(), "-n", name, "-i", workers, "--host", "127.0.0.1", "-p", "0"]);
    }
}

pub(crate) fn address(app: &App) -> SocketAddr {
    app.listen[0].replace('*', "127.0.0.1").parse().unwrap()
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for file in std::fs::read_dir(self.folder.path().join("home/logs")).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(file.path()).unwrap_or_default();
                eprintln!("--- {}\n{text}", file.path().display());
            }
        }
        let _ = run(&self.folder, &["kill", "--now"]);
    }
}

#[test]
fn an_app_is_started_looked_at_stopped_and_started_again() {
    let home = Home::new();
    let said = home.ok(&["start", &hello(), "-n", "web", "-i", "2", "--host", "127.0.0.1", "-p", "0", "--", "x y"]);
    assert!(said.contains("web: 2 workers ready on 127.0.0.1:"), "{said}");
    let web = home.app("web");
    assert_eq!((web.id, web.status.as_str(), web.workers_ready), (Some(0), "running", 2));
    assert_eq!(web.command.last().map(String::as_str), Some("x y"));
    assert!(get(address(&web), "/").unwrap().contains("hello"));
    let (_, card, _) = home.run(&["describe", "0"]);
    for word in ["web", "running, 2 of 2 workers ready", "background", "node"] {
        assert!(card.contains(word), "{word}: {card}");
    }
    assert!(home.ok(&["start", "web"]).contains("runs already"));
    home.ok(&["stop", "web"]);
    assert_eq!(home.app("web").status, "stopped");
    assert!(get(address(&web), "/").is_err());
    assert!(web.workers.iter().all(|worker| !alive(worker.pid.unwrap())));
    assert!(home.fails(&["reload", "web"]).contains("clusterd start web"));
    assert!(home.fails(&["scale", "web", "3"]).contains("clusterd start web"));
    home.ok(&["start", "0"]);
    let again = home.app("web");
    assert_eq!((again.id, again.workers_ready), (Some(0), 2));
    assert!(get(address(&again), "/").is_ok());
    home.ok(&["delete", "web"]);
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
    assert!(home.fails(&["start", "web"]).contains("no such file, and no app"));
}

#[test]
fn a_start_that_fails_says_why_and_goes_on_trying() {
    let home = Home::new();
    let bad = home.folder.write("bad.js", "console.error('no database'); process.exit(3)");
    let said = home.fails(&["start", &bad, "-i", "1"]);
    assert!(said.contains("exited with code 3") && said.contains("| no database"), "{said}");
    assert!(home.app("bad").workers.iter().any(|worker| worker.restarts > 0));
    // The cause is removed; a restart does not have to wait for the backoff.
    home.folder.write("bad.js", "setInterval(() => {}, 1000); process.send('ready')");
    home.ok(&["delete", "bad"]);
    home.ok(&["start", &bad, "-i", "1", "--ready", "message"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = home.fails(&["start", &hello(), "-n", "web", "--host", "127.0.0.1", "-p", &port]);
    assert!(said.contains("in use") && said.contains(&port), "{said}");
    let (code, _, said) = home.run(&["start", "--workers", "2", "-b", "stikcy", "--", "sleep", "9"]);
    assert_eq!(code, 2, "{said}");
    assert_eq!(home.deployments().len(), 1, "what could not start leaves nothing behind");
}

#[test]
fn names_and_ids_are_unique_also_when_many_start_at_once() {
    let home = Home::new();
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let mut start = command(&home.folder);
            start.args(["start", "--workers", "1", "--ready", "1ms", "--", "sleep", "1000"]);
            start.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for start in starts {
        let output = start.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let all = home.deployments();
    let mut names: Vec<&str> = all.iter().flat_map(|d| &d.apps).map(|app| app.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["sleep", "sleep-2", "sleep-3", "sleep-4", "sleep-5", "sleep-6"]);
    let mut ids: Vec<u32> = all.iter().flat_map(|d| &d.apps).filter_map(|app| app.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_typed_name_that_is_there_gets_the_new_configuration_by_a_reload() {
    let home = Home::new();
    home.web("web", "1");
    let before = home.app("web");
    let app =
        home.folder.write("new.js", "require('http').createServer((q, a) => a.end('new')).listen(process.env.PORT)");
    let port = address(&before).port().to_string();
    home.ok(&["start", &app, "-n", "web", "-i", "2", "--host", "127.0.0.1", "-p", &port]);
    wait_until("the second worker", || home.app("web").workers_ready == 2);
    let after = home.app("web");
    assert_eq!((after.id, after.generation, after.workers_wanted), (before.id, 2, 2));
    assert!(get(address(&after), "/").unwrap().contains("new"));
    assert_eq!(home.deployments().len(), 1);
    // A release that throws changes nothing.
    let bad = home.folder.write("bad.js", "throw new Error('of this release')");
    let said = home.fails(&["start", &bad, "-n", "web", "-i", "2", "--host", "127.0.0.1", "-p", &port]);
    assert!(said.contains("of this release"), "{said}");
    assert!(get(address(&after), "/").unwrap().contains("new"));
}

#[test]
fn words_mean_names_ids_namespaces_patterns_and_everything() {
    let home = Home::new();
    for (name, namespace) in [("api-1", "back"), ("api-2", "back"), ("web", "front")] {
        let ready = ["--ready", "1ms", "-w", "1", "--namespace", namespace, "-n", name, "--", "sleep", "1000"];
        home.ok(&[&["start"][..], &ready[..]].concat());
    }
    let stopped = || {
        let all = home.deployments();
        let stopped = all.iter().flat_map(|d| &d.apps).filter(|app| app.status == "stopped");
        stopped.map(|app| app.name.clone()).collect::<Vec<_>>()
    };
    home.ok(&["stop", "/api-[2-9]/"]);
    assert_eq!(stopped(), ["api-2"]);
    home.ok(&["stop", "back"]);
    assert_eq!(stopped(), ["api-1", "api-2"]);
    home.ok(&["start", "0", "api-2", "0"]);
    assert!(stopped().is_empty());
    home.ok(&["stop", "all"]);
    assert_eq!(stopped().len(), 3);
    assert!(home.fails(&["stop", "wbe"]).contains("did you mean \"web\""));
    assert!(home.fails(&["start", "web", "nosuch"]).contains("cannot start nosuch"));
    assert!(home.fails(&["stop", "/(/"]).contains("not a pattern"));
    assert!(home.fails(&["scale", "7", "2"]).contains("nothing here is called \"7\""));
}

#[test]
fn a_file_of_several_apps_is_one_deployment_whose_apps_come_and_go() {
    let home = Home::new();
    let app = |name: &str| {
        format!("[[app]]\nname = \"{name}\"\ncommand = [\"sleep\", \"1000\"]\nworkers = 1\nready = \"1ms\"\n")
    };
    home.folder.write("site.toml", &format!("{}{}", app("one"), app("two")));
    home.ok(&["start", "site.toml", "--only", "two"]);
    assert_eq!(home.deployments()[0].apps.len(), 1);
    // The rest of the file comes as a deployment of its own, what is there is reloaded.
    home.ok(&["start", "site.toml"]);
    assert_eq!((home.app("two").generation, home.app("one").generation), (2, 1));
    home.ok(&["delete", "all"]);
    home.ok(&["start", "site.toml"]);
    assert_eq!(home.deployments().len(), 1);
    let two = home.app("two").workers[0].pid.unwrap();
    home.ok(&["delete", "one"]);
    assert_eq!(home.deployments()[0].apps.len(), 1);
    assert!(alive(two));
    // A master that dies does not bring it back, nor does a keeper.
    kill(home.deployments()[0].master_pid, "KILL");
    wait_until("the next master", || home.deployments().first().is_some_and(|d| d.master_restarts == 1));
    assert_eq!(home.deployments()[0].apps.len(), 1);
    kill(home.deployments()[0].keeper_pid, "KILL");
    wait_end(two);
    let (_, listed, _) = home.run(&["ls"]);
    assert!(listed.contains("two") && listed.contains("gone") && !listed.contains(" one "), "{listed}");
    assert!(home.fails(&["reload", "two"]).contains("clusterd start two"));
    home.ok(&["start", "two"]);
    assert_eq!((home.deployments()[0].apps.len(), home.app("two").status.as_str()), (1, "running"));
}

#[test]
fn a_restart_keeps_the_port_and_the_environment_of_the_start() {
    let home = Home::new();
    let app = home.folder.write(
        "env.js",
        "require('http').createServer((q, a) => a.end(String(process.env.WORD))).listen(process.env.PORT)",
    );
    let with = |word: &str, args: &[&str]| {
        let output = command(&home.folder).env("WORD", word).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    with("first", &["start", &app, "-n", "web", "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
    let at = address(&home.app("web"));
    assert!(get(at, "/").unwrap().contains("first"));
    with("second", &["restart", "web"]);
    assert_eq!(address(&home.app("web")), at, "it listened on while it was restarted");
    assert!(get(at, "/").unwrap().contains("first"));
    with("third", &["restart", "web", "--update-env"]);
    assert!(get(at, "/").unwrap().contains("third"));
    with("fourth", &["reload", "web", "--update-env"]);
    assert!(get(at, "/").unwrap().contains("fourth"));
    assert!(home.run(&["env", "web"]).1.lines().any(|line| line == "WORD=fourth"));
    kill(home.deployments()[0].keeper_pid, "KILL");
    wait_until("its end", || get(at, "/").is_err());
    with("fifth", &["start", "web"]);
    assert!(get(address(&home.app("web")), "/").unwrap().contains("fourth"));
}

#[test]
fn a_signal_reaches_every_worker_and_kill_ends_everything() {
    let home = Home::new();
    let app = home.folder.write(
        "told.js",
        "process.on('SIGUSR2', () => require('fs').appendFileSync('told', process.pid + '\\n')); process.send('ready'); \
         setInterval(() => {}, 1000)",
    );
    home.ok(&["start", &app, "-i", "2", "--ready", "message"]);
    assert!(home.ok(&["signal", "SIGUSR2", "told"]).contains("sent to 2 workers"));
    let told = home.folder.path().join("told");
    wait_until("both", || std::fs::read_to_string(&told).unwrap_or_default().lines().count() == 2);
    assert!(home.fails(&["signal", "SIGNOPE", "told"]).contains("SIGNOPE"));
    let keeper = home.deployments()[0].keeper_pid;
    home.ok(&["kill"]);
    wait_end(keeper);
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
    assert!(home.ok(&["kill"]).contains("nothing runs here"));
}

#[test]
fn a_python_script_and_a_shell_command_need_no_port() {
    let home = Home::new();
    let script = project("workers/python/listen_fds.py").display().to_string();
    home.ok(&["start", &script, "-n", "py", "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
    assert_eq!(home.app("py").command[0], "python3");
    assert!(get(address(&home.app("py")), "/").is_ok());
    let own = home.folder.write("own.sh", "while :; do sleep 1; done");
    home.ok(&["start", &own, "-i", "1", "--ready", "1ms"]);
    assert_eq!(home.app("own").command[0], "bash");
}

#[test]
fn a_short_list_has_a_row_for_each_app_also_for_what_is_gone() {
    let home = Home::new();
    assert!(home.run(&["ls", "-s"]).1.contains("nothing runs here"));
    home.web("web", "2");
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--namespace", "back", "--", "sleep", "1000"]);
    let keeper = home.deployments().iter().find(|d| d.name == "job").unwrap().keeper_pid;
    kill(keeper, "KILL");
    let row = |name: &str| {
        let (_, table, _) = home.run(&["ls", "--short"]);
        let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name)).map(str::to_owned);
        row.unwrap_or_else(|| panic!("no row of {name}: {table}"))
    };
    wait_until("its end", || row("job").contains("gone"));
    let web = row("web");
    let cells: Vec<&str> = web.split_whitespace().collect();
    assert_eq!(cells[..6], ["0", "web", "default", "running", "2/2", "0"], "{web}");
    assert!(cells[6].ends_with('s') && cells[7].ends_with('M'), "{web}");
    assert_eq!(cells[8], address(&home.app("web")).to_string());
    assert!(home.run(&["ls", "--short"]).1.lines().all(|line| line.len() <= 80));
    assert_eq!(home.run(&["ls", "--short", "--json"]).0, 2);
}
