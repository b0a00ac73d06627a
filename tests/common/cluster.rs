//! The fixture: one clusterd with its own home and folder, its output collected, ended by pid when dropped. A failing
//! test prints everything it said.
use super::api;
pub(crate) use super::wait::{PATIENCE, alive, ends_within, kill, wait_end, wait_for, wait_until};
use clusterd::api::types::{App, Deployment, Worker};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two questions to the control API, unless a line on stderr says that something happened.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Lines as they come, to wait on.
#[derive(Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    news: Condvar,
}

impl Lines {
    fn collect(self: &Arc<Lines>, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                lines.lines.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
                lines.news.notify_all();
            }
            lines.lines.lock().unwrap().1 = true;
            lines.news.notify_all();
        })
    }

    /// Waits until something is found in the lines so far. `None`: no more will come, or it took too long.
    fn wait_for<T>(&self, mut find: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.lines.lock().unwrap();
        loop {
            if let Some(found) = find(&guard.0) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if guard.1 {
                return None;
            }
            guard = self.news.wait_timeout(guard, left).unwrap().0;
        }
    }

    fn wait(&self, wanted: &str) -> Option<String> {
        self.wait_for(|lines| lines.iter().find(|line| line.contains(wanted)).cloned())
    }

    fn count(&self) -> usize {
        self.lines.lock().unwrap().0.len()
    }

    /// Waits for more lines than `known`, not for longer than `most`.
    fn wait_news(&self, known: usize, most: Duration) {
        let guard = self.lines.lock().unwrap();
        drop(self.news.wait_timeout_while(guard, most, |lines| lines.0.len() <= known).unwrap());
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().0.clone()
    }
}

/// A temporary folder, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("clusterd-test-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// As [`Folder::write`], and everybody may run the file.
    pub(crate) fn write_executable(&self, name: &str, text: &str) -> String {
        let path = self.write(name, text);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One running clusterd.
pub(crate) struct Cluster {
    child: Child,
    pub(crate) folder: Folder,
    out: Arc<Lines>,
    err: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
    exit: Option<ExitStatus>,
}

impl Cluster {
    /// Starts with these arguments, in a folder of its own.
    pub(crate) fn start(args: &[&str]) -> Cluster {
        Cluster::start_in(Folder::new(), args, |_| {})
    }

    /// As [`Cluster::start`], in a folder that holds files already, with the command touched up.
    pub(crate) fn start_in(folder: Folder, args: &[&str], touch: impl FnOnce(&mut Command)) -> Cluster {
        let mut command = command(&folder);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        touch(&mut command);
        let mut child = command.spawn().unwrap();
        let (out, err) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let readers = vec![out.collect(child.stdout.take().unwrap()), err.collect(child.stderr.take().unwrap())];
        Cluster { child, folder, out, err, readers, exit: None }
    }

    /// The sample web app on `workers` workers and a port of its own, ready.
    pub(crate) fn hello(workers: u32) -> Cluster {
        Cluster::web(workers, &super::apps::hello(), &[])
    }

    /// A Node app that listens on `PORT`, ready.
    pub(crate) fn web(workers: u32, app: &str, options: &[&str]) -> Cluster {
        let count = workers.to_string();
        let mut args = vec!["-w", &count, "--host", "127.0.0.1", "--port", "0"];
        args.extend(options);
        args.extend(["--", "node", app]);
        let cluster = Cluster::start(&args);
        cluster.wait_ready(workers);
        cluster
    }

    pub(crate) fn keeper_pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// A line of its stderr with this in it. Panics when it ends or takes too long without.
    pub(crate) fn wait_line(&self, wanted: &str) -> String {
        self.err.wait(wanted).unwrap_or_else(|| panic!("no line with {wanted:?} on stderr"))
    }

    /// The same for stdout.
    pub(crate) fn wait_out(&self, wanted: &str) -> String {
        self.out.wait(wanted).unwrap_or_else(|| panic!("no line with {wanted:?} on stdout"))
    }

    /// What `find` finds in the lines of its stdout, as soon as it does. Panics as [`Cluster::wait_out`] does.
    pub(crate) fn wait_in_out<T>(&self, what: &str, find: impl FnMut(&[String]) -> Option<T>) -> T {
        self.out.wait_for(find).unwrap_or_else(|| panic!("{what} did not come on stdout"))
    }

    /// The same for stderr.
    pub(crate) fn wait_in_err<T>(&self, what: &str, find: impl FnMut(&[String]) -> Option<T>) -> T {
        self.err.wait_for(find).unwrap_or_else(|| panic!("{what} did not come on stderr"))
    }

    pub(crate) fn stderr(&self) -> Vec<String> {
        self.err.all()
    }

    pub(crate) fn stdout(&self) -> Vec<String> {
        self.out.all()
    }

    /// A verb of the CLI in the same home.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        command(&self.folder).args(args).output().unwrap()
    }

    /// What the control API says, if it answers.
    pub(crate) fn try_view(&self) -> Option<Deployment> {
        api::deployment(&self.folder.path().join("home"))
    }

    /// Asks until the deployment is as wanted.
    pub(crate) fn wait_view(&self, what: &str, wanted: impl Fn(&Deployment) -> bool) -> Deployment {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = self.err.count();
            let view = self.try_view();
            if let Some(view) = view.as_ref().filter(|view| wanted(view)) {
                return view.clone();
            }
            assert!(Instant::now() < deadline, "{what} did not come true; last seen: {view:#?}");
            self.err.wait_news(known, ASK_EVERY);
        }
    }

    pub(crate) fn app(&self) -> App {
        self.wait_view("an app", |view| !view.apps.is_empty()).apps.remove(0)
    }

    /// Waits until the first app has exactly so many ready workers and no other.
    pub(crate) fn wait_ready(&self, count: u32) -> Vec<Worker> {
        let ready = |view: &Deployment| {
            let app = &view.apps[0];
            app.workers_ready == count && app.workers.len() == count as usize
        };
        self.wait_view(&format!("{count} ready workers"), ready).apps.remove(0).workers
    }

    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        self.app().workers.iter().filter_map(|worker| worker.pid).collect()
    }

    pub(crate) fn master_pid(&self) -> i32 {
        self.wait_view("a master", |_| true).master_pid
    }

    /// Where the first app listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let app = self.wait_view("an address", |view| !view.apps[0].listen.is_empty()).apps.remove(0);
        app.listen[0].replace('*', "127.0.0.1").parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(self.keeper_pid(), signal);
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait_exit(&mut self) -> i32 {
        wait_end(self.keeper_pid());
        let status = self.child.wait().unwrap();
        self.exit = Some(status);
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status.code().unwrap_or(-1)
    }

    /// SIGTERM, and its end with this code.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.wait_exit(), 0);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // Everything below the keeper ends with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of clusterd\n{}", self.err.all().join("\n"));
            eprintln!("--- stdout of clusterd\n{}\n---", self.out.all().join("\n"));
        }
    }
}

/// The binary in a folder's home.
pub(crate) fn command(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.current_dir(folder.path()).env("CLUSTERD_HOME", folder.path().join("home")).env_remove("CLUSTERD_LOG");
    command
}

/// Runs the binary to its end.
pub(crate) fn run(folder: &Folder, args: &[&str]) -> (i32, String, String) {
    let output = command(folder).args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Copies a program that is to be run. Another process does it: a file that this one has open for writing may be passed
/// on to what a test beside it spawns just then, and such a file cannot be executed.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
}
