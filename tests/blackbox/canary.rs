//! Canaries that are compared with the old workers under the same load. Those that die are in `reload`.
use super::client::Load;
use super::cluster::{Cluster, Folder, kill};

/// `WORK` is what a version does for each request.
const APP: &str = "require('node:http').createServer((q, s) => { WORK; s.end(JSON.stringify({ pid: process.pid })); })
.listen(process.env.PORT);";

const ERRORS: &str = "for (let n = 0; n < 4; n++) console.error('cannot reach db ' + n)";

fn release(folder: &Folder, work: &str) {
    folder.write("app.js", &APP.replace("WORK", work));
}

/// Two workers of a version that only answers.
fn start(canary: &str, log: &str) -> Cluster {
    let folder = Folder::new();
    release(&folder, "");
    let app = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("cluster.toml", &format!("{app}{log}[app.reload]\nsettle = \"0s\"\ncanary = \"{canary}\"\n"));
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

/// Reloads to a version that does this work, under a load of which nothing is lost. Returns whether the reload was good, and
/// what the command said.
fn reload_to(cluster: &Cluster, work: &str, meanwhile: impl FnOnce()) -> (bool, String) {
    release(&cluster.folder, work);
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(20);
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_clusterd"));
    asked.args(["reload", "web"]).env("CLUSTERD_HOME", cluster.folder.path().join("home"));
    let asked = asked.stderr(std::process::Stdio::piped()).spawn().unwrap();
    meanwhile();
    let done = asked.wait_with_output().unwrap();
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn a_release_that_logs_an_error_for_each_request_is_taken_back_with_the_figures() {
    let cluster = start("2s", "log.err = \"err.log\"\n");
    let (done, said) = reload_to(&cluster, ERRORS, || {});
    assert!(!done && said.contains("the canary printed ") && said.contains(" lines on stderr for "), "{said}");
    assert!(said.contains(", the others 0 for ") && said.contains("the old generation serves"), "{said}");
    assert!(said.contains("| cannot reach db "), "what it printed: {said}");
    assert_eq!(cluster.app().generation, 1);
    cluster.wait_ready(2);
    cluster.stop();
}

#[test]
#[ignore = "long: a canary time"]
fn a_release_as_good_as_the_one_before_passes_its_comparison() {
    let cluster = start("2s", "");
    let (done, said) = reload_to(&cluster, "", || {});
    assert!(done, "{said}");
    let line = cluster.wait_line("is no worse than 2 old workers by ");
    assert!(line.contains("lines on stderr, CPU time, refused connections"), "{line}");
    assert!(line.contains("; too little to compare by ") && line.ends_with("failed liveness probes"), "{line}");
    assert_eq!(cluster.app().generation, 2);
    cluster.stop();
}

#[test]
#[ignore = "long: a canary time that begins twice"]
fn a_canary_is_compared_by_the_next_master_too() {
    let cluster = start("2s", "");
    // The command may lose its master; the log has the figures.
    reload_to(&cluster, ERRORS, || {
        cluster.wait_line("of the new generation for 2.0 s (canary)");
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("another master", |view| view.master_restarts == 1);
        let line = cluster.wait_line("reload to generation 2 failed: the canary printed ");
        assert!(line.contains(", the others 0 for ") && line.contains("the old generation serves"), "{line}");
    });
    assert_eq!(cluster.app().generation, 1);
    cluster.wait_ready(2);
    cluster.stop();
}

#[test]
#[ignore = "long: CPU time adds up"]
fn a_release_that_needs_more_cpu_time_is_taken_back_with_the_figures() {
    let cluster = start("5s", "");
    // 70 ms of CPU time, however many others want the CPUs.
    let work = "const c = process.cpuUsage();
      for (let n = c; n.user + n.system < c.user + c.system + 70000;) n = process.cpuUsage();";
    let (done, said) = reload_to(&cluster, work, || {});
    assert!(!done && said.contains("the canary used ") && said.contains(" ms of CPU time for "), "{said}");
    assert_eq!(cluster.app().generation, 1);
    cluster.stop();
}
