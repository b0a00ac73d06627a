//! One deployment of two apps, what is done to it while a fault lasts, and how long each step took.
use super::client::{Load, Tally, get_within};
use super::cluster::{Folder, alive, command, ends_within, kill};
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a worker or a master to come back, and for a stop.
const STEP_MAX: Duration = Duration::from_secs(15);
/// Clients with short connections.
const CLIENTS: usize = 2;
/// How long they are served before anything else happens.
const LOAD: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A deployment, with the load on its first app.
pub(crate) struct Site {
    pub(crate) child: Child,
    pub(crate) folder: Folder,
    pub(crate) address: SocketAddr,
}

/// How long a step took; `None`: longer than [`STEP_MAX`].
pub(crate) type Took = Option<Duration>;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) fault: &'static str,
    pub(crate) seen: Tally,
    pub(crate) worker: Took,
    pub(crate) master: Took,
    pub(crate) stops: [Took; 2],
    pub(crate) end: Took,
    pub(crate) exit_code: Option<i32>,
}

pub(crate) const APPS: [&str; 2] = ["web", "other"];

/// Two apps of two workers each that log to files in `logs`.
pub(crate) fn configuration(app: &str) -> String {
    let one = |name: &str| {
        format!(
            "[[app]]\nname = \"{name}\"\ncommand = [\"node\", \"{app}\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n\
             drain_timeout = \"2s\"\nkill_timeout = \"1s\"\nlog.file = \"logs/{name}.log\"\n"
        )
    };
    APPS.map(one).concat()
}

impl Site {
    /// Starts it and waits until both apps are ready. `touch` changes the command.
    pub(crate) fn start(folder: Folder, stderr: Stdio, touch: impl FnOnce(&mut Command)) -> Site {
        let app = "require('node:http').createServer((q, s) => { console.log(q.url); \
                   s.end(JSON.stringify({ pid: process.pid })); }).listen(process.env.PORT);";
        let app = folder.write("app.js", app);
        folder.write("c.toml", &configuration(&app));
        let mut command = command(&folder);
        command.args(["-c", "c.toml"]).stdin(Stdio::null());
        touch(&mut command);
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut site = Site { child, folder, address: ([127, 0, 0, 1], 1).into() };
        let address = site.within(Duration::from_secs(30), |site| {
            let view = super::common::api::deployment(&site.folder.path().join("home"))?;
            let ready = view.apps.len() == 2 && view.apps.iter().all(|app| app.workers_ready == 2);
            ready.then(|| view.apps[0].listen[0].parse().unwrap())
        });
        site.address = address.expect("two ready apps").0;
        site
    }

    pub(crate) fn keeper(&self) -> i32 {
        self.child.id() as i32
    }

    /// The keeper's children, with their names.
    fn children(&self) -> Vec<(i32, String)> {
        let keeper = self.keeper();
        let all = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap_or_default();
        let pids = all.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        let named = |pid: i32| Some((pid, fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned()));
        pids.filter_map(named).filter(|(pid, _)| alive(*pid)).collect()
    }

    pub(crate) fn master(&self) -> Option<i32> {
        self.children().into_iter().find(|(_, name)| name == "clusterd-master").map(|(pid, _)| pid)
    }

    /// Workers of the first app; of both, if asked for.
    pub(crate) fn workers(&self, app: Option<&str>) -> Vec<i32> {
        let is_of = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let wanted = app.map(|app| format!("CLUSTERD_APP={app}").into_bytes());
            wanted.is_none_or(|wanted| environment.split(|byte| *byte == 0).any(|entry| entry == wanted))
        };
        let all = self.children().into_iter().filter(|(_, name)| name != "clusterd-master" && name != "clusterd");
        all.map(|(pid, _)| pid).filter(is_of).collect()
    }

    /// What `find` finds within this time, and how long it took.
    fn within<T>(&self, time: Duration, mut find: impl FnMut(&Site) -> Option<T>) -> Option<(T, Duration)> {
        let start = Instant::now();
        loop {
            if let Some(found) = find(self) {
                return Some((found, start.elapsed()));
            }
            if start.elapsed() >= time {
                return None;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Goes through all steps under a fault that has begun.
    pub(crate) fn suffer(mut self, fault: &'static str) -> Row {
        let load = Load::start(self.address, CLIENTS, false);
        std::thread::sleep(LOAD);
        let seen = load.finish();
        let worker = self.lose_worker();
        let other = self.stop_app(APPS[1]);
        let master = self.lose_master();
        let stops = [self.stop_app(APPS[0]), other];
        let (end, exit_code) = self.end();
        Row { fault, seen, worker, master, stops, end, exit_code }
    }

    /// Kills a worker; how long until another one runs.
    fn lose_worker(&self) -> Took {
        let before = self.workers(Some(APPS[1]));
        kill(*before.last().expect("a worker"), "KILL");
        let is_new = |site: &Site| site.workers(Some(APPS[1])).iter().any(|pid| !before.contains(pid)).then_some(());
        self.within(STEP_MAX, is_new).map(|(_, took)| took)
    }

    /// Kills the master; how long until a client is answered again.
    fn lose_master(&self) -> Took {
        let before = self.master().expect("a master");
        kill(before, "KILL");
        let serves = |site: &Site| {
            let new = site.master().is_some_and(|master| master != before);
            (new && get_within(Duration::from_secs(1), site.address, "/").is_ok()).then_some(())
        };
        self.within(STEP_MAX, serves).map(|(_, took)| took)
    }

    /// Stops an app by the command line; how long until none of its workers is left.
    fn stop_app(&self, app: &str) -> Took {
        let mut stop = command(&self.folder);
        stop.args(["stop", app]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut stop = stop.spawn().unwrap();
        let took = self.within(STEP_MAX, |site| site.workers(Some(app)).is_empty().then_some(()));
        // It waits for the answer a moment longer; one that nobody answers is ended.
        let _ = ends_within(stop.id() as i32, if took.is_some() { Duration::from_secs(5) } else { Duration::ZERO });
        let _ = stop.kill();
        stop.wait().unwrap();
        took.map(|(_, took)| took)
    }

    /// SIGTERM; how long until everything has ended, and the exit code.
    fn end(&mut self) -> (Took, Option<i32>) {
        kill(self.keeper(), "TERM");
        let start = Instant::now();
        if !ends_within(self.keeper(), STEP_MAX) {
            return (None, None);
        }
        (Some(start.elapsed()), self.child.wait().unwrap().code())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
