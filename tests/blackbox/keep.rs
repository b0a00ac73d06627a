//! What survives: save and resurrect, units for systemd, an explained configuration, completions and the manual page.
use super::apps::hello;
use super::background::Home;
use super::cluster::{kill, run, wait_end};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

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

#[test]
fn units_for_systemd_are_right() {
    let home = Home::new();
    for (name, args) in [
        ("clusterd.service", &["startup", "--print"][..]),
        ("clusterd-root.service", &["startup", "--print", "--system", "root"]),
    ] {
        let (code, unit, err) = home.run(args);
        assert_eq!(code, 0, "{err}");
        assert!(unit.contains("resurrect --home"), "{unit}");
        let path = home.folder.write(name, &unit);
        let output = Command::new("systemd-analyze").args(["verify", "--man=no", &path]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(name), "{said}\n{unit}");
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
