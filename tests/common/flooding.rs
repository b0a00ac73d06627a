//! A deployment of two apps: an honest one, and one that says more than clusterd can take.
use super::apps::{hello, misbehave};
use super::cluster::{Cluster, Folder, wait_until};
use std::path::PathBuf;

/// An agent that reads its messages.
const AGENT: &str = "process.on('message', () => {}); process.send('ready');";

/// An honest app, and one whose workers flood their channels in this way once [`begin`] says so.
pub(crate) fn beside(flood: &str, workers: usize, more: &str) -> Cluster {
    let more = format!("protocol = \"node\"\nlisten = \"127.0.0.1:0\"\nenv.FLOOD = \"{flood}\"\n{more}");
    beside_script("flood.py", workers, &more)
}

pub(crate) fn beside_script(script: &str, workers: usize, more: &str) -> Cluster {
    let folder = Folder::new();
    let (honest, script) = (hello(), misbehave(script));
    folder.write("agent.js", AGENT);
    folder.write(
        "c.toml",
        &format!(
            "[[app]]\nname = \"honest\"\ncommand = [\"node\", {honest:?}]\nworkers = 1\nlisten = \"127.0.0.1:0\"\n\
             [[app]]\nname = \"flood\"\ncommand = [\"python3\", {script:?}]\nworkers = {workers}\n\
             drain_timeout = \"1s\"\nkill_timeout = \"500ms\"\n{more}"
        ),
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_view("both apps", |view| {
        view.apps.len() == 2 && view.apps[0].workers_ready == 1 && view.apps[1].workers_ready as usize == workers
    });
    cluster
}

/// Lets the workers of the second app begin, and waits until they have.
pub(crate) fn begin(cluster: &Cluster) {
    let workers = cluster.wait_view("the workers", |_| true).apps.remove(1).workers;
    cluster.folder.write("go", "");
    for pid in workers.iter().filter_map(|worker| worker.pid) {
        let file = cluster.folder.path().join(format!("flooding-{pid}"));
        wait_until("the flood", || file.exists());
    }
}

/// Memory of the master at its worst, in KiB: 32 MiB. Where the program is built for debugging, its code alone takes 26.
pub(crate) const MASTER_KIB_MAX: u64 = if cfg!(debug_assertions) { 40 * 1024 } else { 32 * 1024 };

/// What a flood may add to it, in KiB, with the code that runs for the first time.
pub(crate) const FLOOD_KIB_MAX: u64 = 8 * 1024;

/// Most memory that a process ever had, in KiB.
pub(crate) fn peak_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The control socket of a deployment.
pub(crate) fn control_socket(cluster: &Cluster) -> PathBuf {
    let run = cluster.folder.path().join("home").join("run");
    let names = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    names.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "sock")).unwrap()
}
