//! Worlds with a configuration file: several apps with settings of all kinds, the file's later versions, and signals.
use crate::client::{Style, Target};
use crate::plan::{BEGIN_US, CALM_US, Deed, LENGTH_US, Order, Plan};
use crate::random::Random;
use clusterd::os::signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Makes the choices here independent of those of `plan`.
const SALT: u64 = 0x5e77_1465;
/// Between the addresses of two apps.
const HOSTS: u8 = 64;

/// The folder of a world's file; it is removed with the world.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The text with which a world begins.
    first: String,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody needs it any more.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Folder {
    pub(crate) fn new(seed: u64, text: &str) -> Folder {
        let path = Folder::path_of(seed);
        // What is wrong with it shows when the file is written.
        let _ = std::fs::create_dir_all(&path);
        Folder { path, first: text.to_owned() }
    }

    fn path_of(seed: u64) -> PathBuf {
        std::env::temp_dir().join(format!("clusterd-system-{}-{seed}", std::process::id()))
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path.join("cluster.toml")
    }

    /// The file as it is when a world begins.
    pub(crate) fn begin(&self) {
        // Of the world that was here before.
        let _ = std::fs::remove_dir_all(self.home());
        self.write(&self.first);
    }

    /// Replaces the file as a whole.
    pub(crate) fn write(&self, text: &str) {
        let draft = self.path.join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.file()).unwrap();
    }
}

/// One app of the file.
#[derive(Clone, Debug)]
struct App {
    name: &'static str,
    protocol: &'static str,
    address: Option<SocketAddr>,
    /// It listens there instead.
    path: Option<PathBuf>,
    workers: u64,
    /// More than `workers`, where their number follows the load.
    most: u64,
    spares: u64,
    /// Workers are replaced while nothing is wrong.
    replaces: bool,
    has_sticky: bool,
    must_say_ready: bool,
    keys: Vec<String>,
    tables: Vec<String>,
}

impl App {
    fn web(random: &mut Random, address: SocketAddr, seed: u64) -> App {
        let path = random.percent(15).then(|| Folder::path_of(seed).join("web.sock"));
        let workers = random.between(1, 4);
        let protocol = match random.between(0, 9) {
            0..=5 => "node",
            6..=7 => "listen-fds",
            _ if path.is_none() => "bind",
            _ => "node",
        };
        let is_node = protocol == "node";
        let balances: &[&str] =
            if is_node { &["round-robin", "round-robin", "sticky", "shared", "kernel"] } else { &["shared", "kernel"] };
        // Sockets in the file system have no groups, and their clients no addresses.
        let balances = if path.is_some() { &["round-robin", "shared"][usize::from(!is_node)..] } else { balances };
        let balance = balances[random.between(0, balances.len() as u64 - 1) as usize];
        let master_accepts = balance == "round-robin" || balance == "sticky";
        let mut app = App {
            name: "web",
            protocol,
            address: Some(address),
            path,
            workers,
            most: workers,
            spares: 0,
            replaces: false,
            has_sticky: balance == "sticky",
            must_say_ready: false,
            keys: vec![format!("balance = \"{balance}\"")],
            tables: Vec::new(),
        };
        let has_spares = if is_node { balance != "shared" } else { balance == "kernel" };
        if has_spares && random.percent(25) {
            app.spares = random.between(1, 2);
            app.keys.push(format!("spares = {}", app.spares));
        }
        app.times(random);
        app.readiness(random, is_node, balance);
        app.reload(random, master_accepts && is_node);
        app.limits(random, is_node, master_accepts);
        if app.spares == 0 && random.percent(15) {
            app.most = workers + random.between(1, 3);
            let by = ["cpu", "queue", "loop"][random.between(0, if is_node { 2 } else { 1 }) as usize];
            let target = if by == "queue" { "1" } else { "\"5%\"" };
            let grow = random.between(0, 2_000);
            app.tables.push(format!(
                "[app.scale]\nby = \"{by}\"\ntarget = {target}\ngrow_after = \"{grow}ms\"\ncooldown = \"{}s\"",
                random.between(1, 10)
            ));
        }
        if random.percent(8) {
            app.keys.push(format!("cron_restart = \"*/{} * * * * *\"", random.between(5, 50)));
            app.replaces = true;
        }
        if is_node && random.percent(20) {
            app.keys.push("preload = false".to_owned());
        }
        if is_node && random.percent(20) {
            app.keys.push("rebalance = false".to_owned());
        }
        app
    }

    fn times(&mut self, random: &mut Random) {
        if random.percent(50) {
            self.keys.push(format!("ready_timeout = \"{}ms\"", random.between(800, 5_000)));
        }
        if random.percent(50) {
            self.keys.push(format!("drain_timeout = \"{}ms\"", random.between(0, 6_000)));
        }
        if random.percent(30) {
            self.keys.push(format!("kill_timeout = \"{}ms\"", random.between(100, 3_000)));
        }
        if random.percent(15) {
            self.keys.push(format!("drain_delay = \"{}ms\"", random.between(100, 3_000)));
        }
        let mut restart = vec!["[app.restart]".to_owned(), "max_restarts = \"never\"".to_owned()];
        if random.percent(30) {
            restart.push(format!("backoff_min = \"{}ms\"", random.between(1, 2_000)));
        }
        self.tables.push(restart.join("\n"));
    }

    fn readiness(&mut self, random: &mut Random, is_node: bool, balance: &str) {
        match (is_node, random.between(0, 5)) {
            (true, 0) => self.keys.push("ready = \"http:/healthz\"".to_owned()),
            (true, 1) if balance != "shared" => {
                self.keys.push("warmup = [\"/\", \"/b\"]".to_owned());
                self.keys.push(format!("warmup_times = {}", random.between(1, 20)));
            }
            (false, 0 | 1) => {
                self.must_say_ready = true;
                self.keys.push("ready = \"notify\"".to_owned());
            }
            _ => {}
        }
    }

    fn reload(&mut self, random: &mut Random, has_canary: bool) {
        let mut reload = vec!["[app.reload]".to_owned()];
        if random.percent(40) {
            reload.push(format!("surge = {}", random.between(1, 4)));
        }
        if random.percent(30) {
            reload.push(format!("settle = \"{}ms\"", random.between(0, 2_000)));
        }
        if random.percent(30) {
            reload.push(format!("drain_spread = \"{}ms\"", random.between(100, 3_000)));
        }
        if has_canary && random.percent(25) {
            reload.push(format!("canary = \"{}ms\"", random.between(500, 4_000)));
        }
        self.tables.push(reload.join("\n"));
    }

    fn limits(&mut self, random: &mut Random, is_node: bool, master_accepts: bool) {
        let mut limits = vec!["[app.limits]".to_owned()];
        if random.percent(15) {
            limits.push(format!("lifetime = \"{}s\"", random.between(3, 30)));
            self.replaces = true;
        }
        if master_accepts && random.percent(20) {
            limits.push(format!("max_connections = {}", random.between(3, 50)));
            self.replaces = true;
        }
        if random.percent(25) {
            limits.push("memory = \"60M\"".to_owned());
            self.replaces = true;
        }
        if is_node && random.percent(30) {
            limits.push(format!("hang = \"{}s\"", random.between(1, 4)));
        }
        self.tables.push(limits.join("\n"));
        if is_node && random.percent(30) {
            let how = if random.percent(50) { "tcp = true" } else { "http = \"/healthz\"" };
            let (every, timeout) = (random.between(500, 4_000), random.between(300, 3_000));
            self.tables.push(format!(
                "[app.alive]\n{how}\nevery = \"{every}ms\"\ntimeout = \"{timeout}ms\"\nfailures = {}",
                random.between(1, 3)
            ));
        }
    }

    fn jobs(random: &mut Random) -> App {
        let workers = random.between(1, 2);
        let keys = if random.percent(50) { vec!["depends_on = [\"web\"]".to_owned()] } else { Vec::new() };
        App::beside("jobs", "none", None, workers, keys)
    }

    fn api(random: &mut Random, web: SocketAddr) -> App {
        let SocketAddr::V4(own) = web else { unreachable!("worlds have IPv4 addresses") };
        let [net, host, third, last] = own.ip().octets();
        // Another address: ports beyond would be those that the kernel gives to clients.
        let address = SocketAddr::from((Ipv4Addr::new(net, host + HOSTS, third, last), web.port()));
        let protocol = if random.percent(50) { "node" } else { "listen-fds" };
        App::beside("api", protocol, Some(address), random.between(1, 2), Vec::new())
    }

    fn beside(
        name: &'static str,
        protocol: &'static str,
        address: Option<SocketAddr>,
        workers: u64,
        keys: Vec<String>,
    ) -> App {
        App {
            name,
            protocol,
            address,
            path: None,
            workers,
            most: workers,
            spares: 0,
            replaces: false,
            has_sticky: false,
            must_say_ready: false,
            keys,
            tables: vec!["[app.restart]\nmax_restarts = \"never\"".to_owned()],
        }
    }

    fn target(&self) -> Option<Target> {
        self.path.clone().map(Target::Unix).or(self.address.map(Target::Tcp))
    }

    /// Its part of the file. `bad`: a release that does not work.
    fn text(&self, workers: u64, bad: Option<&str>) -> String {
        let mut text = format!("[[app]]\nname = \"{}\"\ncommand = [\"/bin/true\"]\n", self.name);
        text.push_str(&format!("protocol = \"{}\"\n", self.protocol));
        match self.most > self.workers {
            true => text.push_str(&format!("workers = \"{workers}..{}\"\n", self.most.max(workers))),
            false => text.push_str(&format!("workers = {workers}\n")),
        }
        match self.target() {
            Some(Target::Tcp(address)) => text.push_str(&format!("listen = [\"{address}\"]\n")),
            Some(Target::Unix(path)) => text.push_str(&format!("listen = [\"unix:{}\"]\n", path.display())),
            None => {}
        }
        for key in &self.keys {
            text.push_str(&format!("{key}\n"));
        }
        let mut env: Vec<String> = bad.iter().map(|bad| format!("SIM_BAD = \"{bad}\"")).collect();
        env.extend(self.address.filter(|_| self.protocol == "bind").map(|address| format!("SIM_BIND = \"{address}\"")));
        env.extend(self.path.iter().map(|path| format!("SIM_PATH = \"{}\"", path.display())));
        if !env.is_empty() {
            text.push_str(&format!("env = {{ {} }}\n", env.join(", ")));
        }
        for table in &self.tables {
            text.push_str(&format!("{table}\n"));
        }
        text
    }
}

/// The whole file; `bad` is about the first app.
fn file(apps: &[App], first_workers: u64, bad: Option<&str>) -> String {
    let one = |(n, app): (usize, &App)| match n {
        0 => app.text(first_workers, bad),
        _ => app.text(app.workers, None),
    };
    apps.iter().enumerate().map(one).collect::<Vec<String>>().join("\n")
}

/// Adds what is here to some of the plans.
pub(crate) fn vary(plan: &mut Plan, seed: u64) {
    let mut random = Random::new(seed ^ SALT);
    if random.percent(35) {
        plan.quirks_percent = random.between(5, 60);
    }
    let target = plan.target.clone();
    clients(plan, &mut random, &[target], false);
    if random.percent(60) {
        configure(plan, seed, &mut random);
    }
    orders(plan, &mut random);
    plan.stop_signal = match random.between(0, 9) {
        0 => signal::QUIT,
        1..=3 => signal::INT,
        _ => signal::TERM,
    };
    if !plan.kills_keeper && random.percent(12) {
        let at_us = BEGIN_US + random.between(1_000_000, 30_000_000);
        plan.deeds.iter_mut().filter(|(_, deed)| matches!(deed, Deed::Stop)).for_each(|(date_us, _)| *date_us = at_us);
        plan.stops_early = true;
    }
    plan.deeds.sort_by_key(|(at_us, _)| *at_us);
}

/// A time at which things go wrong.
fn any_time(random: &mut Random) -> u64 {
    BEGIN_US + random.between(1_500_000, LENGTH_US - CALM_US)
}

/// Clients of all styles.
fn clients(plan: &mut Plan, random: &mut Random, to: &[Target], has_sticky: bool) {
    for _ in 0..random.between(0, 30) {
        let style = match random.between(0, 9) {
            0..=3 => Style::Pool,
            4 | 5 => Style::Silent(random.between(1_000, 20_000_000)),
            6 | 7 => Style::Half(random.between(0, 3_000_000)),
            _ => Style::HalfClose,
        };
        let from = has_sticky.then(|| IpAddr::from(Ipv4Addr::new(127, 32, 0, random.between(1, 9) as u8)));
        plan.clients.push(Order {
            name: plan.clients.len() as u64,
            at_us: BEGIN_US
                + if random.percent(70) { random.between(300_000, 20_000_000) } else { random.between(0, 35_000_000) },
            to: to[random.between(0, to.len() as u64 - 1) as usize].clone(),
            requests: if style == Style::Pool { random.between(2, 40) } else { 1 },
            pause_us: if random.percent(50) { 0 } else { random.between(1_000, 500_000) },
            style,
            from,
        });
    }
}

/// Puts a file in the place of the flags.
fn configure(plan: &mut Plan, seed: u64, random: &mut Random) {
    let web = App::web(random, plan.address, seed);
    if let Some(target) = web.target().filter(|_| web.path.is_some()) {
        plan.clients.iter_mut().for_each(|client| client.to = target.clone());
        plan.target = target;
    }
    let (has_sticky, replaces, first) = (web.has_sticky, web.replaces, web.workers);
    plan.must_say_ready = web.must_say_ready;
    // Others are ready when they have lived for a while, so nobody can know whether they will serve.
    let is_heard = web.protocol == "node" || web.must_say_ready;
    if web.tables.iter().any(|table| table.contains("memory")) {
        plan.leak_bytes = random.between(0, 1024 * 1024);
    }
    let mut apps = vec![web];
    if random.percent(30) {
        apps.push(App::jobs(random));
    }
    if random.percent(30) {
        apps.push(App::api(random, plan.address));
    }
    plan.configure(seed, &file(&apps, first, None));
    plan.apps = apps.len();
    let least: u64 = apps.iter().map(|app| app.workers + app.spares).sum();
    let most: u64 = apps.iter().map(|app| app.most + app.spares).sum();
    let extra = if replaces { most } else { 0 };
    plan.workers_at_end = (least as usize, (most + extra) as usize);
    let targets: Vec<Target> = apps.iter().filter_map(App::target).collect();
    clients(plan, random, &targets, has_sticky);
    for _ in 0..random.between(0, 3) {
        let at_us = any_time(random);
        match random.between(0, 2) {
            0 => {
                let nth = random.between(0, 2) as usize;
                let bad = ["exit", "never", "slow"][if is_heard { nth } else { 0 }];
                plan.deeds.push((at_us, Deed::Configure(file(&apps, first, Some(bad)))));
            }
            1 => {
                let workers = random.between(1, 5);
                plan.deeds.push((at_us, Deed::Configure(file(&apps, workers, None))));
                plan.allow_workers(first, workers);
            }
            _ => plan.deeds.push((at_us, Deed::Configure("this = is no [[file".to_owned()))),
        }
        plan.deeds.push((at_us + random.between(0, 1_000), Deed::Signal(signal::HUP)));
    }
}

/// Signals to the keeper, attacks, a hung master, the death of the keeper.
fn orders(plan: &mut Plan, random: &mut Random) {
    if random.percent(40) {
        for _ in 0..random.between(1, 4) {
            let signal = [signal::TTIN, signal::TTOU, signal::USR1, signal::USR2][random.between(0, 3) as usize];
            plan.deeds.push((any_time(random), Deed::Signal(signal)));
            let (least, most) = plan.workers_at_end;
            match signal {
                signal::TTOU => plan.workers_at_end = (least.saturating_sub(plan.apps).max(plan.apps), most),
                signal::USR1 => {}
                _ => plan.workers_at_end = (least, most + plan.apps),
            }
        }
    }
    if random.percent(25) {
        for _ in 0..random.between(1, 5) {
            plan.deeds.push((any_time(random), Deed::Attack(random.between(1, 300))));
        }
    }
    if random.percent(10) {
        plan.deeds.push((any_time(random), Deed::StopMaster));
    }
    if random.percent(8) {
        // A master that is stopped cannot end by itself.
        plan.deeds.retain(|(_, deed)| !matches!(deed, Deed::StopMaster));
        plan.deeds.push((any_time(random), Deed::KillKeeper));
        plan.kills_keeper = true;
    }
}
