//! The servers under measurement: the floor, and the same app behind the least primary, Node's own cluster, PM2, nginx and
//! clusterd. One at a time; it is ended by pid, with everything below it, when it is dropped.
use super::{floor, least, processes};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a server to start or to have reloaded.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at one.
const LOOK: Duration = Duration::from_millis(10);

/// What hands connections out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Floor,
    Least,
    NodeRoundRobin,
    NodeShared,
    Pm2,
    Nginx,
    RoundRobin,
    Sticky,
    Shared,
    Kernel,
}

impl Tool {
    pub(crate) const ALL: [Tool; 10] = [
        Tool::Floor,
        Tool::Least,
        Tool::NodeRoundRobin,
        Tool::NodeShared,
        Tool::Pm2,
        Tool::Nginx,
        Tool::RoundRobin,
        Tool::Sticky,
        Tool::Shared,
        Tool::Kernel,
    ];

    /// For people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Tool::Floor => "floor (bare loop)",
            Tool::Least => "least primary for Node",
            Tool::NodeRoundRobin => "Node cluster, round-robin",
            Tool::NodeShared => "Node cluster, shared",
            Tool::Pm2 => "PM2, cluster mode",
            Tool::Nginx => "nginx stream",
            Tool::RoundRobin => "clusterd, round-robin",
            Tool::Sticky => "clusterd, sticky",
            Tool::Shared => "clusterd, shared",
            Tool::Kernel => "clusterd, kernel",
        }
    }

    /// For the command line and for files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Floor => "floor",
            Tool::Least => "least",
            Tool::NodeRoundRobin => "node",
            Tool::NodeShared => "node-shared",
            Tool::Pm2 => "pm2",
            Tool::Nginx => "nginx",
            Tool::RoundRobin => "clusterd",
            Tool::Sticky => "clusterd-sticky",
            Tool::Shared => "clusterd-shared",
            Tool::Kernel => "clusterd-kernel",
        }
    }

    /// clusterd's `--balance`.
    fn balance(self) -> Option<&'static str> {
        match self {
            Tool::RoundRobin => Some("round-robin"),
            Tool::Sticky => Some("sticky"),
            Tool::Shared => Some("shared"),
            Tool::Kernel => Some("kernel"),
            Tool::Floor | Tool::Least | Tool::NodeRoundRobin | Tool::NodeShared | Tool::Pm2 | Tool::Nginx => None,
        }
    }

    /// Whether this build of clusterd knows it. The others' absence shows when they are started.
    pub(crate) fn in_this_build(self) -> bool {
        self.balance().is_none_or(|way| clusterd::config::parse::balance(way).is_ok())
    }
}

/// Where the programs are that do not come with the machine; why not, where they are not.
pub(crate) struct Programs {
    pub(crate) pm2: Result<PathBuf, String>,
    pub(crate) nginx: Result<Nginx, String>,
}

/// nginx and its module for streams, where that is not built in.
#[derive(Clone, Debug)]
pub(crate) struct Nginx {
    pub(crate) program: PathBuf,
    pub(crate) module: Option<PathBuf>,
}

impl Programs {
    /// None of them.
    pub(crate) fn none() -> Programs {
        Programs { pm2: Err("not looked for".to_owned()), nginx: Err("not looked for".to_owned()) }
    }
}

/// One server.
pub(crate) struct Server {
    pub(crate) tool: Tool,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    /// What was started: keeper, primary, daemon, nginx's master.
    root: i32,
    pm2: Option<PathBuf>,
    /// The app's environment besides the rest.
    env: &'static [(&'static str, &'static str)],
    /// Lines of clusterd's configuration for the app.
    settings: &'static str,
}

impl Server {
    /// Starts it and waits until every worker listens.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn start(tool: Tool, workers: usize, programs: &Programs) -> Result<Server, String> {
        Server::start_with(tool, workers, programs, &[])
    }

    /// The same, with more in the app's environment.
    pub(crate) fn start_with(
        tool: Tool,
        workers: usize,
        programs: &Programs,
        env: &'static [(&'static str, &'static str)],
    ) -> Result<Server, String> {
        Server::start_set(tool, workers, programs, env, "")
    }

    /// The same, with lines of clusterd's configuration: keys of the app that no flag sets.
    pub(crate) fn start_set(
        tool: Tool,
        workers: usize,
        programs: &Programs,
        env: &'static [(&'static str, &'static str)],
        settings: &'static str,
    ) -> Result<Server, String> {
        if !tool.in_this_build() {
            return Err("not in this build".to_owned());
        }
        let folder = new_folder()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut server = Server { tool, address, folder, root: 0, pm2: None, env, settings };
        let mut child = server.spawn(workers, programs)?;
        server.root = child.id() as i32;
        if tool == Tool::Pm2 {
            server.await_daemon(&mut child)?;
        }
        server.await_workers(workers, &mut child)?;
        Ok(server)
    }

    fn spawn(&mut self, workers: usize, programs: &Programs) -> Result<Child, String> {
        let port = self.address.port();
        let (app, count) = (app("web.js"), workers.to_string());
        let mut command = match self.tool {
            Tool::Floor => floor::command(port, workers),
            Tool::Least => least::command(port, workers, &app),
            Tool::NodeRoundRobin | Tool::NodeShared => {
                let mut command = Command::new("node");
                let policy = if self.tool == Tool::NodeShared { "shared" } else { "round-robin" };
                command.arg(self::app("primary.js")).args([&count, policy]);
                command
            }
            Tool::Pm2 => {
                let pm2 = programs.pm2.clone()?;
                self.pm2 = Some(pm2.clone());
                let mut command = self.pm2(&pm2);
                command.arg("start").arg(app).args(["--name", "bench", "-i", &count]);
                command
            }
            Tool::Nginx => {
                let nginx = programs.nginx.clone()?;
                let ports = self.start_nodes(workers)?;
                self.nginx(&nginx, &ports)?
            }
            Tool::RoundRobin | Tool::Sticky | Tool::Shared | Tool::Kernel => {
                let mut command = self.clusterd();
                if !self.settings.is_empty() {
                    command.arg("-c").arg(self.settings_file(&app)?);
                }
                command.args(["-w", &count, "--host", "127.0.0.1", "--port", &port.to_string()]);
                command.args(["--balance", self.tool.balance().unwrap_or_default()]);
                if self.settings.is_empty() {
                    command.args(["--name", "bench", "--", "node"]).arg(app);
                }
                command
            }
        };
        command.env("PORT", port.to_string());
        self.spawn_quietly(command)
    }

    fn settings_file(&self, app: &Path) -> Result<PathBuf, String> {
        let path = self.folder.join("bench.toml");
        let text = format!("[[app]]\nname = \"bench\"\ncommand = [\"node\", {:?}]\n{}\n", app, self.settings);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    fn spawn_quietly(&self, mut command: Command) -> Result<Child, String> {
        let file = |name: &str| File::options().append(true).create(true).open(self.folder.join(name));
        let (out, err) = (file("stdout"), file("stderr"));
        let (out, err) = (out.map_err(|e| e.to_string())?, err.map_err(|e| e.to_string())?);
        command
            .env("READY_FILE", self.ready_file())
            .envs(self.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().map_err(|e| format!("cannot run {program}: {e}"))
    }

    fn pm2(&self, pm2: &Path) -> Command {
        let mut command = Command::new("node");
        command.arg(pm2).env("PM2_HOME", &self.folder).env("PM2_DISABLE_VERSION_CHECK", "true");
        command
    }

    fn clusterd(&self) -> Command {
        clusterd(&self.folder)
    }

    /// Node processes, each with a port of its own, for nginx.
    fn start_nodes(&self, count: usize) -> Result<Vec<u16>, String> {
        let mut ports = Vec::new();
        for _ in 0..count {
            let port = free_port();
            let mut command = Command::new("node");
            command.arg(app("web.js")).env("PORT", port.to_string());
            // Ended with everything else.
            drop(self.spawn_quietly(command)?);
            ports.push(port);
        }
        Ok(ports)
    }

    fn nginx(&self, nginx: &Nginx, ports: &[u16]) -> Result<Command, String> {
        let module = nginx.module.as_ref().map(|path| format!("load_module {};\n", path.display()));
        let nodes: String = ports.iter().map(|port| format!("    server 127.0.0.1:{port};\n")).collect();
        let (folder, address) = (self.folder.display(), self.address);
        let text = format!(
            "{}worker_processes auto;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\nevents {{ \
             worker_connections 4096; }}\nstream {{\n  upstream nodes {{\n{nodes}  }}\n  server {{ listen {address}; \
             proxy_pass nodes; }}\n}}\n",
            module.unwrap_or_default()
        );
        let path = self.folder.join("nginx.conf");
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut command = Command::new(&nginx.program);
        command.arg("-p").arg(&self.folder).arg("-c").arg(path);
        Ok(command)
    }

    /// PM2's command starts a daemon and ends.
    fn await_daemon(&mut self, command: &mut Child) -> Result<(), String> {
        let status = wait_for("pm2 start", || command.try_wait().ok().flatten())?;
        if !status.success() {
            return Err(format!("pm2 start: {}", self.last_words()));
        }
        let pid = fs::read_to_string(self.folder.join("pm2.pid")).unwrap_or_default();
        self.root = pid.trim().parse().map_err(|_| "PM2 tells no pid of its daemon".to_owned())?;
        Ok(())
    }

    fn await_workers(&self, workers: usize, child: &mut Child) -> Result<(), String> {
        let ready = || {
            if self.tool != Tool::Pm2
                && let Ok(Some(status)) = child.try_wait()
            {
                return Some(Err(format!("it ended at once ({status}): {}", self.last_words())));
            }
            let up = match self.tool {
                Tool::Floor => processes::children(self.root).len() >= workers,
                _ => self.workers().len() >= workers,
            };
            (up && TcpStream::connect(self.address).is_ok()).then_some(Ok(()))
        };
        wait_for(self.tool.label(), ready)?
    }

    fn last_words(&self) -> String {
        let text = ["stdout", "stderr"].map(|name| fs::read_to_string(self.folder.join(name)).unwrap_or_default());
        let mut lines = text.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty());
        lines.next_back().unwrap_or("it said nothing").trim().to_owned()
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.join("ready")
    }

    /// Pids of the workers that listen and live.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.ready_file()).unwrap_or_default();
        let pids: BTreeSet<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        pids.into_iter().filter(|&pid| processes::alive(pid)).collect()
    }

    /// Waits until as many workers listen.
    pub(crate) fn wait_for_workers(&self, count: usize) -> Result<(), String> {
        wait_for("workers", || (self.workers().len() >= count).then_some(()))
    }

    /// The processes between clients and workers: what they cost is the price of a connection.
    pub(crate) fn masters(&self) -> Vec<i32> {
        let below = processes::children(self.root);
        let more: Vec<i32> = match self.tool {
            Tool::Floor | Tool::Least | Tool::NodeRoundRobin | Tool::NodeShared | Tool::Pm2 => Vec::new(),
            Tool::Nginx => below,
            // The master, and its guard.
            Tool::RoundRobin | Tool::Sticky | Tool::Shared | Tool::Kernel => {
                self.master().into_iter().flat_map(|pid| [vec![pid], processes::children(pid)].concat()).collect()
            }
        };
        [vec![self.root], more].concat()
    }

    /// The process that the person has started (PM2: its daemon).
    pub(crate) fn root(&self) -> i32 {
        self.root
    }

    /// The process that hands connections out, while there is one.
    pub(crate) fn master(&self) -> Option<i32> {
        match self.tool.balance() {
            Some(_) => processes::children(self.root).into_iter().find(|&pid| processes::is_master(pid)),
            None => processes::alive(self.root).then_some(self.root),
        }
    }

    /// Starts so many more workers, and waits until `all` of them listen.
    pub(crate) fn scale_up(&self, more: usize, all: usize) -> Result<(), String> {
        let count = format!("+{more}");
        let mut command = match self.tool {
            Tool::Pm2 => self.pm2(self.pm2.as_deref().unwrap_or(Path::new("pm2"))),
            Tool::RoundRobin | Tool::Sticky | Tool::Shared | Tool::Kernel => self.clusterd(),
            Tool::Floor | Tool::Least | Tool::Nginx | Tool::NodeRoundRobin | Tool::NodeShared => {
                return Err("no such thing".to_owned());
            }
        };
        command.args(["scale", "bench", &count]);
        let done = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot scale: {e}"))?;
        if !done.status.success() {
            return Err(format!("the scale failed: {}", String::from_utf8_lossy(&done.stderr).trim()));
        }
        self.wait_for_workers(all)
    }

    /// Replaces every worker, as the tool does it; returns when it says that this is done.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let mut command = match self.tool {
            Tool::Floor | Tool::Least | Tool::Nginx => return Err("no such thing".to_owned()),
            Tool::NodeRoundRobin | Tool::NodeShared => {
                let said = || fs::read_to_string(self.folder.join("stdout")).unwrap_or_default().lines().count();
                let before = said();
                processes::send(self.root, Signal::SIGHUP);
                return wait_for("a reload", || (said() > before).then_some(()));
            }
            Tool::Pm2 => {
                let mut command = self.pm2(self.pm2.as_deref().unwrap_or(Path::new("pm2")));
                command.args(["reload", "bench"]);
                command
            }
            Tool::RoundRobin | Tool::Sticky | Tool::Shared | Tool::Kernel => {
                let mut command = self.clusterd();
                command.args(["reload", "bench"]);
                command
            }
        };
        let done = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot reload: {e}"))?;
        let said = String::from_utf8_lossy(&done.stderr);
        if done.status.success() { Ok(()) } else { Err(format!("the reload failed: {}", said.trim())) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        processes::end_all();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// clusterd with this home.
pub(crate) fn clusterd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.env("CLUSTERD_HOME", home).stdin(Stdio::null());
    command
}

/// A folder of its own for one server.
pub(crate) fn new_folder() -> Result<PathBuf, String> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("clusterd-bench-{}-{n}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// Looks until there is something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("{what}: nothing after {} s", PATIENCE.as_secs()))
}

fn app(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps").join(name)
}

/// A free port of the loopback.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}
