//! The deployment that is tormented: two apps of one file, each in a release folder behind a link, and what has to be
//! true of it whenever it was left alone for a moment.
use super::client::ask;
use super::cluster::{Cluster, Folder, alive};
use clusterd::api::types::{App, Deployment};
use clusterd::os::sock_diag;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const WEB: usize = 0;
pub(crate) const API: usize = 1;
pub(crate) const NAMES: [&str; 2] = ["web", "api"];
/// Workers as the file has them.
pub(crate) const CONFIGURED: [u32; 2] = [3, 2];
/// Everything has to be whole again in this time. It covers a starved machine, a master that the watchdog has to find
/// hung, and a slot that waits for its next try.
const BACK: Duration = Duration::from_secs(40);

/// One app as it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) workers: u32,
    pub(crate) version: u32,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    pub(crate) fds: usize,
    pub(crate) kib: u64,
}

pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) addresses: [SocketAddr; 2],
    pub(crate) expected: [Expected; 2],
    last_version: u32,
    /// Every pid that was ever below the keeper.
    pub(crate) family: BTreeSet<i32>,
}

impl Site {
    pub(crate) fn start() -> Site {
        let folder = Folder::new();
        for app in [WEB, API] {
            release(folder.path(), app, 1, "", "");
        }
        write_file(&folder, "30s");
        let cluster = Cluster::start_in(folder, &["-c", "chaos.toml"], |_| {});
        let view = cluster.wait_view("two whole apps", |view| view.apps.len() == 2 && whole(view).is_ok());
        let address = |app: usize| view.apps[app].listen[0].parse().unwrap();
        let expected = CONFIGURED.map(|workers| Expected { workers, version: 1 });
        Site { addresses: [address(WEB), address(API)], cluster, expected, last_version: 1, family: BTreeSet::new() }
    }

    /// A new release of an app, not yet reloaded to. Extra code stands before (`head`) and after (`tail`) the app's own.
    pub(crate) fn release(&mut self, app: usize, head: &str, tail: &str) -> u32 {
        self.last_version += 1;
        release(self.cluster.folder.path(), app, self.last_version, head, tail);
        self.last_version
    }

    /// Points an app's link at the release that it is to run.
    pub(crate) fn link_expected(&self, app: usize) {
        link(self.cluster.folder.path(), app, self.expected[app].version);
    }

    pub(crate) fn ready_timeout(&self, time: &str) {
        write_file(&self.cluster.folder, time);
    }

    /// The file whose program the keeper is.
    pub(crate) fn keeper_binary(&self) -> String {
        let exe = fs::read_link(format!("/proc/{}/exe", self.cluster.keeper_pid()));
        exe.map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// A copy of the program that the keeper is not.
    pub(crate) fn other_binary(&self) -> String {
        let keeper = self.keeper_binary();
        let paths = ["clusterd-a", "clusterd-b"].map(|name| self.cluster.folder.path().join(name));
        let path = paths.into_iter().find(|path| path.display().to_string() != keeper).unwrap();
        if !path.exists() {
            fs::copy(env!("CARGO_BIN_EXE_clusterd"), &path).unwrap();
        }
        path.display().to_string()
    }

    /// A verb, which must end.
    pub(crate) fn cli(&self, args: &[&str]) -> Said {
        cli_at(self.cluster.folder.path(), args)
    }

    /// Sockets that listen on the apps' addresses: one for each app, and with balance `kernel` one for each slot that ever was.
    pub(crate) fn listening_sockets(&self) -> usize {
        let of = |address: &SocketAddr| sock_diag::unconnected(address.port(), false).map_or(1, |all| all.len());
        self.addresses.iter().map(of).sum()
    }

    /// The worker of an app in a slot, by some number.
    pub(crate) fn worker(&self, app: usize, number: u64) -> i32 {
        let view = self.cluster.wait_view("a view", |_| true);
        let pids: Vec<i32> = view.apps[app].workers.iter().filter_map(|worker| worker.pid).collect();
        pids[number as usize % pids.len()]
    }

    /// Waits until everything is as it should be, looking at it from every side.
    pub(crate) fn settle(&mut self) -> Result<Deployment, String> {
        let deadline = Instant::now() + BACK;
        let view = loop {
            let why = match self.look() {
                Ok(view) => break view,
                Err(why) => why,
            };
            if Instant::now() > deadline {
                return Err(format!("not whole after {BACK:?}: {why}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        for app in [WEB, API] {
            for _ in 0..4 {
                let answer = ask(self.addresses[app], "/probe").map_err(|e| format!("{}: {e}", NAMES[app]))?;
                if answer.version != self.expected[app].version {
                    let (got, wanted) = (answer.version, self.expected[app].version);
                    return Err(format!("{}: release {got} answers, {wanted} is the one", NAMES[app]));
                }
            }
        }
        Ok(view)
    }

    fn look(&mut self) -> Result<Deployment, String> {
        let said = self.cli(&["ls", "--json"]);
        let listed: Vec<Deployment> = serde_json::from_str(&said.text).map_err(|e| format!("{e}: {said:?}"))?;
        let view = listed.into_iter().next().ok_or("nothing is listed")?;
        let mut processes = BTreeSet::from([view.master_pid]);
        for (app, expected) in view.apps.iter().zip(self.expected) {
            if app.workers_wanted != expected.workers {
                return Err(format!("{} wants {} workers, not {}", app.name, app.workers_wanted, expected.workers));
            }
            processes.extend(app.workers.iter().filter_map(|worker| worker.pid));
        }
        whole(&view)?;
        let children = children(self.cluster.keeper_pid());
        self.family.extend(&children);
        if children != processes {
            return Err(format!("below the keeper are {children:?}, of which {processes:?} are known: {view:#?}"));
        }
        if let Some(zombie) = children.iter().find(|&&pid| !alive(pid)) {
            return Err(format!("{zombie} is a zombie"));
        }
        Ok(view)
    }
}

/// Runs a verb; panics when it hangs.
pub(crate) fn cli_at(folder: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.args(args).current_dir(folder).env("CLUSTERD_HOME", folder.join("home")).env_remove("CLUSTERD_LOG");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap();
    let pid = child.id() as i32;
    let (done, waiting) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        let _ = done.send(());
        output
    });
    let hung = waiting.recv_timeout(Duration::from_secs(90)).is_err();
    if hung {
        super::cluster::kill(pid, "KILL");
    }
    let output = reader.join().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(!hung, "clusterd {args:?} does not end; it said {text:?}");
    Said { code: output.status.code(), text }
}

/// Whether every slot of every app has one ready worker of one generation, and nobody else is there.
fn whole(view: &Deployment) -> Result<(), String> {
    let good = |app: &App| {
        let workers = &app.workers;
        app.status == "running"
            && app.workers_ready == app.workers_wanted
            && workers.len() == app.workers_wanted as usize
            && workers.iter().enumerate().all(|(n, w)| w.slot == n as u32 && w.state == "ready")
            && workers.iter().all(|w| w.generation == app.generation)
    };
    view.apps.iter().find(|app| !good(app)).map_or(Ok(()), |app| Err(format!("{app:#?}")))
}

fn release(root: &Path, app: usize, version: u32, head: &str, tail: &str) {
    let file = ["web.js", "api.py"][app];
    let source = super::apps::project("tests/chaos/apps").join(file);
    let text = fs::read_to_string(source).unwrap();
    let text = match app {
        WEB => text.replace("VERSION", &version.to_string()),
        _ => text.replace("VERSION = 0", &format!("VERSION = {version}")),
    };
    let to = folder_of(root, app, version);
    fs::create_dir_all(&to).unwrap();
    fs::write(to.join(file), format!("{head}\n{text}\n{tail}\n")).unwrap();
    link(root, app, version);
}

fn folder_of(root: &Path, app: usize, version: u32) -> PathBuf {
    root.join(format!("releases/{}-{version}", NAMES[app]))
}

/// Replaces the link in one step, as deployments do.
fn link(root: &Path, app: usize, version: u32) {
    let (new, current) = (root.join("next"), root.join(NAMES[app]));
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(folder_of(root, app, version), &new).unwrap();
    fs::rename(new, current).unwrap();
}

fn write_file(folder: &Folder, ready_timeout: &str) {
    let balance = std::env::var("CHAOS_BALANCE").unwrap_or_else(|_| "round-robin".to_owned());
    let common = format!(
        "listen = \"127.0.0.1:0\"\nbalance = \"{balance}\"\nready_timeout = \"{ready_timeout}\"\n\
         restart = {{ max_restarts = \"never\", backoff_max = \"1s\" }}\n"
    );
    let [web, api] = CONFIGURED;
    folder.write(
        "chaos.toml",
        &format!(
            "[[app]]\nname = \"web\"\ncommand = [\"node\", \"web.js\"]\ncwd = \"web\"\nworkers = {web}\n{common}\
             [[app]]\nname = \"api\"\ncommand = [\"python3\", \"api.py\"]\ncwd = \"api\"\nworkers = {api}\n\
             ready = \"notify\"\n{common}"
        ),
    );
}

// ---- what the system says ----

pub(crate) fn children(pid: i32) -> BTreeSet<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

pub(crate) fn holdings(pid: i32) -> Holdings {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // Its own memory: pages of the program's file come and go with the page cache.
    let kib = status.split("RssAnon:").nth(1).and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    Holdings { fds, kib: kib.unwrap_or(0) }
}

/// What is behind each fd of a process, with how often.
pub(crate) fn open_files(pid: i32) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(fd.path()).map_or_else(|e| e.to_string(), |path| path.display().to_string());
        *all.entry(target).or_default() += 1;
    }
    all
}

/// Processes that were started below this folder's clusterd, found by what they inherited.
pub(crate) fn left_over(folder: &Path) -> Vec<i32> {
    let mark = format!("CLUSTERD_HOME={}", folder.join("home").display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    })
    .collect()
}
