//! What survives: save and resurrect, units for systemd, an explained configuration, completions and the manual page.
use super::apps::hello;
use super::background::Home;
use super::cluster::{PATIENCE, command, kill, run, wait_end, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

#[test]
fn what_was_saved_comes_back_as_it_was() {
    let home = Home::new();
    home.web("web", "1");
    home.ok(&["scale", "web", "2"]);
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--namespace", "back", "--", "sleep", "1000"]);
    home.ok(&["stop", "job"]);
    assert!(home.ok(&["save"]).contains("saved 2 apps"));
    let file = home.folder.path().join("home/saved.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    home.ok(&["kill"]);
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
    home.ok(&["resurrect"]);
    let (web, job) = (home.app("web"), home.app("job"));
    assert_eq!((web.id, web.status.as_str(), web.workers_ready), (Some(0), "running", 2));
    assert_eq!((job.id, job.status.as_str(), job.namespace.as_str()), (Some(1), "stopped", "back"));
    assert!(home.ok(&["resurrect"]).contains("web runs already"));
    home.ok(&["start", "job"]);
    // A damaged list: the one before it, and a word about it.
    home.ok(&["save"]);
    fs::write(&file, "{\"version\": 1, \"deploy").unwrap();
    home.ok(&["delete", "job"]);
    let said = home.ok(&["resurrect"]);
    assert!(said.contains("saved.json is damaged") && said.contains("used instead"), "{said}");
    assert_eq!(home.app("job").status, "stopped", "as the list before says");
    fs::write(home.folder.path().join("home/saved.before.json"), "").unwrap();
    assert!(home.fails(&["resurrect"]).contains("saved.json"));
}

#[test]
fn a_machine_that_lost_its_power_gets_everything_back() {
    let home = Home::new();
    home.web("web", "1");
    home.ok(&["save"]);
    let (keeper, worker) = (home.deployments()[0].keeper_pid, home.app("web").workers[0].pid.unwrap());
    kill(keeper, "KILL");
    wait_end(worker);
    wait_end(keeper);
    home.ok(&["resurrect"]);
    assert_eq!((home.app("web").id, home.app("web").workers_ready), (Some(0), 1));
}

/// `resurrect --stay`, ended with the test.
struct Watcher(Child);

impl Watcher {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn whoever_stays_after_a_resurrect_brings_back_what_lost_its_keeper() {
    let home = Home::new();
    home.web("web", "1");
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    home.ok(&["save"]);
    home.ok(&["kill"]);
    let path = home.folder.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut watcher = command(&home.folder);
    watcher.args(["resurrect", "--stay"]).env("NOTIFY_SOCKET", &path).stdin(Stdio::null()).stderr(Stdio::null());
    let mut watcher = Watcher(watcher.spawn().unwrap());
    let mut said = [0; 64];
    let length = notify.recv(&mut said).unwrap();
    assert_eq!(&said[..length], b"READY=1");
    home.ok(&["stop", "job"]);
    let keeper_of = |name: &str| {
        let all = home.deployments();
        all.into_iter().find(|d| d.name == name).map(|d| (d.keeper_pid, d.apps[0].workers_ready))
    };
    let (first, _) = keeper_of("web").unwrap();
    kill(first, "KILL");
    wait_until("web is back", || keeper_of("web").is_some_and(|(pid, ready)| pid != first && ready == 1));
    // What was stopped comes back stopped; what was ended by a command does not come back.
    let (second, _) = keeper_of("job").unwrap();
    kill(second, "KILL");
    wait_until("job is back", || keeper_of("job").is_some_and(|(pid, _)| pid > 0 && pid != second));
    wait_until("job is known", || home.app("job").status == "stopped");
    assert_eq!(home.app("job").workers_ready, 0);
    home.ok(&["delete", "job"]);
    let (third, _) = keeper_of("web").unwrap();
    kill(third, "KILL");
    wait_until("web is back again", || keeper_of("web").is_some_and(|(pid, ready)| pid != third && ready == 1));
    assert!(keeper_of("job").is_none(), "it was deleted");
    watcher.end();
    assert!(keeper_of("web").is_some(), "the end of the watcher ends nothing");
}

#[test]
fn units_for_systemd_are_right() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not here");
        return;
    }
    let home = Home::new();
    for (name, args) in [
        ("clusterd.service", &["startup", "--print"][..]),
        ("clusterd-root.service", &["startup", "--print", "--system", "root"]),
    ] {
        let (code, unit, err) = home.run(args);
        assert_eq!(code, 0, "{err}");
        assert!(unit.contains("resurrect --stay --home"), "{unit}");
        let path = home.folder.write(name, &unit);
        let output = Command::new("systemd-analyze").args(["verify", "--man=no", &path]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // systemd before 254 ignores this line.
        let is_wrong = |line: &str| line.contains(name) && !line.contains("DelegateSubgroup");
        assert!(output.status.success() && !said.lines().any(is_wrong), "{said}\n{unit}");
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=39", &path])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "its exposure is 4.0 or more: {said}\n{unit}");
    }
    assert!(home.fails(&["startup", "--print", "--system", "nobody-of-this-name"]).contains("no user called"));
}

#[test]
fn an_explained_configuration_is_written_once_and_runs() {
    let home = Home::new();
    fs::copy(hello(), home.folder.path().join("app.js")).unwrap();
    let said = home.ok(&["init"]);
    assert!(said.contains("it runs node app.js"), "{said}");
    let (code, out, err) = run(&home.folder, &["check", "-c", "cluster.toml"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(home.fails(&["init"]).contains("--force"));
    home.ok(&["init", "--force"]);
    home.ok(&["start", "cluster.toml", "-w", "1", "-l", "127.0.0.1:0"]);
    assert_eq!(home.deployments()[0].apps[0].workers_ready, 1);
}

#[test]
fn completions_and_the_manual_page_are_well_formed() {
    let home = Home::new();
    let bash = home.folder.write("complete.bash", &home.run(&["completions", "bash"]).1);
    let check = format!(
        "source {bash} && complete -p clusterd && COMP_WORDS=(clusterd rel) COMP_CWORD=1 && \
                         _clusterd clusterd rel clusterd && echo \"${{COMPREPLY[*]}}\""
    );
    let output = Command::new("bash").args(["--norc", "-c", &check]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("reload"), "{output:?}");
    for shell in ["zsh", "fish"] {
        assert!(home.run(&["completions", shell]).1.contains("resurrect"), "{shell}");
    }
    assert!(home.run(&["man"]).1.contains(".TH clusterd 1"));
}
