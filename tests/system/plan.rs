//! What happens in a world, chosen by its seed: the deployment, its clients, and what is done to it when.
use crate::client::{Client, Style, Target};
use crate::commands::{self, Command};
use crate::errors::Lack;
use crate::faults::Faults;
use crate::random::Random;
use crate::settings::{self, Folder};
use crate::trouble;
use clusterd::os::signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// When a world begins, in microseconds.
pub(crate) const BEGIN_US: u64 = 1_000_000_000;
/// Its length, without the stop.
pub(crate) const LENGTH_US: u64 = 60_000_000;
/// Nothing bad happens in the last part, so that all that is to come can come.
pub(crate) const CALM_US: u64 = 40_000_000;

/// Deeds that `Plan::busier` adds.
const DEEDS_MORE: u64 = 12;
/// The variable of a release that does not work.
pub(crate) const BAD_RELEASE: &str = "SIM_BAD";
/// Distinguishes the random choices of `Plan::busier` from those of the plan.
const BUSIER: u64 = 0xb0b5;

/// What is done to the deployment.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    KillMaster,
    /// The master is killed at this call from now on.
    KillMasterAfter(u64),
    KillWorker(usize),
    /// SIGSTOP, and SIGCONT some time later.
    StopWorker(usize),
    ContinueWorker(i32),
    /// So many short clients at once.
    Burst(u64),
    /// The machine is short of something for so long, in microseconds.
    Lack(Lack, u64),
    /// A signal to the keeper.
    Signal(i32),
    /// The file of the deployment is replaced.
    Configure(String),
    /// So many datagrams to each notify socket.
    Attack(u64),
    /// A client of the control API gives this command.
    Command(Command),
    /// SIGSTOP for the master.
    StopMaster,
    /// The same, and SIGCONT after so many microseconds.
    PauseMaster(u64),
    PauseKeeper(u64),
    /// The wall clock goes so many seconds forward, or back.
    SetClock(i64),
    KillKeeper,
    /// No faults from now on.
    Calm,
    Stop,
    /// The stop has not ended in time.
    GiveUp,
}

impl Deed {
    fn any(random: &mut Random) -> Deed {
        match random.between(0, 11) {
            0..=1 => Deed::KillMaster,
            2..=4 => Deed::KillMasterAfter(random.between(1, 300)),
            5..=6 => Deed::KillWorker(random.between(0, 3) as usize),
            7 => Deed::StopWorker(random.between(0, 3) as usize),
            8 => Deed::Signal(signal::HUP),
            9..=10 => {
                let lack = [Lack::Files, Lack::Memory, Lack::Flight][random.between(0, 2) as usize];
                Deed::Lack(lack, random.between(1_000, 5_000_000))
            }
            _ => Deed::Burst(random.between(5, 60)),
        }
    }
}

/// A client to come.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) name: u64,
    pub(crate) at_us: u64,
    pub(crate) to: Target,
    pub(crate) requests: u64,
    pub(crate) pause_us: u64,
    pub(crate) style: Style,
    /// Its address.
    pub(crate) from: Option<IpAddr>,
}

impl Order {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.name, self.at_us, self.to.clone(), self.requests, self.pause_us).with(self.style, self.from)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) args: Vec<String>,
    pub(crate) address: SocketAddr,
    /// Where bursts of clients come to.
    pub(crate) target: Target,
    /// The least and the most.
    pub(crate) workers_at_end: (usize, usize),
    /// Starts of workers in a hundred that fail.
    pub(crate) bad_starts_percent: u64,
    /// Workers in a hundred that do something wrong.
    pub(crate) quirks_percent: u64,
    pub(crate) apps: usize,
    /// Memory that each request leaves.
    pub(crate) leak_bytes: u64,
    /// Programs are ready only when they say so.
    pub(crate) must_say_ready: bool,
    pub(crate) kills_keeper: bool,
    /// It is stopped while clients come and things go wrong.
    pub(crate) stops_early: bool,
    /// What stops the deployment at the end.
    pub(crate) stop_signal: i32,
    /// Where its file is, if it has one.
    pub(crate) folder: Option<Arc<Folder>>,
    pub(crate) clients: Vec<Order>,
    /// In the order of their dates.
    pub(crate) deeds: Vec<(u64, Deed)>,
    pub(crate) faults: Faults,
}

impl Plan {
    /// The same with more deaths of masters and more reloads: each is a chance for a fault to show.
    pub(crate) fn busier(mut self, seed: u64) -> Plan {
        let mut random = Random::new(seed ^ BUSIER);
        for _ in 0..DEEDS_MORE {
            let at_us = BEGIN_US + random.between(1_500_000, LENGTH_US - CALM_US);
            let deed = match random.between(0, 3) {
                0 => Deed::Signal(signal::HUP),
                1 => Deed::KillWorker(random.between(0, 3) as usize),
                _ => Deed::KillMasterAfter(random.between(1, 60)),
            };
            self.deeds.push((at_us, deed));
        }
        self.deeds.sort_by_key(|(at_us, _)| *at_us);
        self
    }

    pub(crate) fn of(seed: u64) -> Plan {
        let mut random = Random::new(seed);
        // Worlds that run at the same time have addresses of their own.
        let pid = std::process::id();
        let host = Ipv4Addr::new(127, 64 + (pid >> 16) as u8 % 64, (pid >> 8) as u8, pid as u8);
        let address = SocketAddr::from((host, 10_000 + (seed % 20_000) as u16));
        let workers = random.between(1, 4) as usize;
        let balance = ["round-robin", "round-robin", "shared", "kernel"][random.between(0, 3) as usize];
        let args = [
            "--workers",
            &workers.to_string(),
            "--listen",
            &address.to_string(),
            "--protocol",
            "node",
            "--balance",
            balance,
            "--home",
            "/proc/none",
            "--",
            "/bin/true",
        ]
        .map(str::to_owned)
        .to_vec();
        let clients = (0..random.between(10, 80)).map(|name| {
            let is_kept = random.percent(40);
            let end_us = if random.percent(80) { LENGTH_US - CALM_US } else { LENGTH_US };
            Order {
                name,
                at_us: BEGIN_US + random.between(1_500_000, end_us),
                to: Target::Tcp(address),
                requests: if is_kept { random.between(2, 20) } else { 1 },
                pause_us: random.between(1_000, 500_000),
                style: Style::Usual,
                from: None,
            }
        });
        let clients: Vec<Order> = clients.collect();
        let mut deeds = Vec::new();
        for _ in 0..random.between(0, 16) {
            let at_us = BEGIN_US + random.between(1_500_000, LENGTH_US - CALM_US);
            deeds.push((at_us, Deed::any(&mut random)));
        }
        deeds.sort_by_key(|(at_us, _)| *at_us);
        deeds.push((BEGIN_US + LENGTH_US - CALM_US, Deed::Calm));
        deeds.push((BEGIN_US + LENGTH_US + 15_000_000, Deed::Stop));
        let faults = Faults { pauses_per_thousand: random.between(0, 100), ..Faults::default() };
        let mut plan = Plan {
            args,
            address,
            target: Target::Tcp(address),
            workers_at_end: (workers, workers),
            bad_starts_percent: 0,
            quirks_percent: 0,
            apps: 1,
            leak_bytes: 0,
            must_say_ready: false,
            kills_keeper: false,
            stops_early: false,
            stop_signal: signal::TERM,
            folder: None,
            clients,
            deeds,
            faults,
        };
        settings::vary(&mut plan, seed);
        trouble::vary(&mut plan, seed);
        commands::vary(&mut plan, seed);
        plan
    }

    /// A world in which nothing happens by chance.
    pub(crate) fn quiet(seed: u64) -> Plan {
        let plan = Plan::of(seed);
        let end_us = BEGIN_US + LENGTH_US;
        let deeds = vec![(end_us - CALM_US, Deed::Calm), (end_us + 15_000_000, Deed::Stop)];
        Plan {
            deeds,
            clients: Vec::new(),
            faults: Faults::default(),
            quirks_percent: 0,
            apps: 1,
            leak_bytes: 0,
            must_say_ready: false,
            kills_keeper: false,
            stops_early: false,
            stop_signal: signal::TERM,
            target: Target::Tcp(plan.address),
            ..plan
        }
    }

    /// Has a file with this text say what runs.
    pub(crate) fn configure(&mut self, seed: u64, text: &str) {
        let home = self.home();
        // Another one would remove the folder, which has the same name.
        self.folder = None;
        let folder = Folder::new(seed, text);
        self.args = ["-c", &folder.file().to_string_lossy(), "--home", &home].map(str::to_owned).to_vec();
        self.folder = Some(Arc::new(folder));
    }

    /// Whether its file has a release at some time that does not work, or cannot be read.
    pub(crate) fn has_bad_release(&self) -> bool {
        self.deeds.iter().any(|(_, deed)| matches!(deed, Deed::Configure(text) if text.contains(BAD_RELEASE) || !text.contains("[[app]]")))
    }

    /// Whether the machine is short of something at some time.
    pub(crate) fn is_ever_short(&self) -> bool {
        self.deeds.iter().any(|(_, deed)| matches!(deed, Deed::Lack(..)))
    }

    /// The folder of the control socket.
    fn home(&self) -> String {
        let place = self.args.iter().position(|arg| arg == "--home");
        place.and_then(|n| self.args.get(n + 1)).cloned().unwrap_or_default()
    }

    /// Has it be where one can be made.
    pub(crate) fn give_home(&mut self, seed: u64) {
        let folder = self.folder.get_or_insert_with(|| Arc::new(Folder::new(seed, "")));
        let home = folder.home().to_string_lossy().into_owned();
        if let Some(n) = self.args.iter().position(|arg| arg == "--home")
            && let Some(arg) = self.args.get_mut(n + 1)
        {
            *arg = home;
        }
    }

    /// Adds what happens so long after the beginning.
    pub(crate) fn add_deed(&mut self, after_us: u64, deed: Deed) {
        let place = self.deeds.partition_point(|(at_us, _)| *at_us <= BEGIN_US + after_us);
        self.deeds.insert(place, (BEGIN_US + after_us, deed));
    }

    /// The app that had so many workers may have so many at the end.
    pub(crate) fn allow_workers(&mut self, first: u64, now: u64) {
        let (least, most) = self.workers_at_end;
        let (fewer, more) = (first.saturating_sub(now) as usize, now.saturating_sub(first) as usize);
        self.workers_at_end = (least.saturating_sub(fewer).max(1), most + more);
    }
}
