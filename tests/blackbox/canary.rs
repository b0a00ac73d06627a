//! Canaries that are compared with the old workers under the same load. Those that die are in `reload`.
use super::client::Load;
use super::cluster::{Cluster, Folder};

/// `WORK` is what a version does for each request.
const APP: &str = "require('node:http').createServer((q, s) => { WORK; s.end(JSON.stringify({ pid: process.pid })); })
.listen(process.env.PORT);";

fn release(folder: &Folder, work: &str) {
    folder.write("app.js", &APP.replace("WORK", work));
}

/// Reloads from a version that only answers to one that does this work, under a load. Returns whether the reload was
/// good, what the command said, and the cluster.
fn reload_to(work: &str, canary: &str) -> (bool, String, Cluster) {
    let folder = Folder::new();
    release(&folder, "");
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("cluster.toml", &format!("{config}[app.reload]\nsettle = \"0s\"\ncanary = \"{canary}\"\n"));
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    release(&cluster.folder, work);
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(20);
    let done = cluster.cli(&["reload", "web"]);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned(), cluster)
}

#[test]
fn a_release_that_logs_an_error_for_each_request_is_taken_back_with_the_figures() {
    let (done, said, cluster) = reload_to("for (let n = 0; n < 4; n++) console.error('cannot reach db ' + n)", "800ms");
    assert!(!done && said.contains("the canary printed ") && said.contains(" lines on stderr for "), "{said}");
    assert!(said.contains(", the others 0 for ") && said.contains("the old generation serves"), "{said}");
    assert!(said.contains("| cannot reach db "), "what it printed: {said}");
    assert_eq!(cluster.app().generation, 1);
    cluster.wait_ready(2);
    cluster.stop();
}

#[test]
fn a_release_as_good_as_the_one_before_passes_its_comparison() {
    let (done, said, cluster) = reload_to("", "800ms");
    assert!(done, "{said}");
    let line = cluster.wait_line("is no worse than 2 old workers by ");
    assert!(line.contains("lines on stderr, CPU time, refused connections"), "{line}");
    assert!(line.contains("; too little to compare by loop delay"), "{line}");
    assert_eq!(cluster.app().generation, 2);
    cluster.stop();
}

#[test]
#[ignore = "long: CPU time adds up"]
fn a_release_that_needs_more_cpu_time_is_taken_back_with_the_figures() {
    // 30 ms of CPU time, however many wait for one.
    let (done, said, cluster) =
        reload_to("const c = process.cpuUsage(); while (process.cpuUsage(c).user < 30000);", "4s");
    assert!(!done && said.contains("the canary used ") && said.contains(" ms of CPU time for "), "{said}");
    assert_eq!(cluster.app().generation, 1);
    cluster.stop();
}
