//! The chaos run: two apps of one deployment under load from strict clients, and seeded random harm to workers, master,
//! releases and the control socket. After each action everything has to be whole again in bounded time; at the end
//! nobody may have been refused, kept hanging or answered wrongly, cut connections need a kill that explains them, and
//! nothing may be left: no fd, no memory, no process, no file.
//!
//! `cargo test --release --test chaos -- --ignored` runs for 20 s; `CHAOS_SECONDS=600` makes it ten minutes, `CHAOS_SEED=n`
//! does the same actions again, `CHAOS_ONLY="part of a name"` only those, and `CHAOS_BALANCE=kernel` the same with another
//! balance.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
mod actions;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod ledger;
mod proxy;
#[path = "../simulation/random.rs"]
mod random;
mod site;

use client::{Clients, Incident, Way, Wrong};
use clusterd::api::types::Deployment;
use common::cluster::{alive, ends_within, kill};
use common::runner::Kind;
use common::{apps, cluster};
use ledger::Ledger;
use random::Random;
use site::{API, Holdings, NAMES, Site, WEB, children, holdings, left_over};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const SECONDS: u64 = 20;
const KIND: Kind = Kind::Ignored("loads the machine");
/// Clients of each app that open a connection for every request, and clients that keep theirs.
const SHORT: usize = 6;
const KEPT: usize = 4;
/// Clients of the web app behind nginx, where that is there.
const PROXIED: usize = 4;
/// Connections that one worker may have at once, at most.
pub(crate) const CLIENTS: usize = SHORT + KEPT + PROXIED;
/// Longest wait for a single step.
const PATIENCE: Duration = Duration::from_secs(30);
/// What keeper and master may have grown by at the end, in KiB of their own memory.
const KEEPER_GROWTH_KIB: u64 = 4 * 1024;
const MASTER_GROWTH_KIB: u64 = 16 * 1024;

/// Everything that an action works on.
pub(crate) struct Chaos {
    pub(crate) random: Random,
    pub(crate) site: Site,
    pub(crate) ledger: Ledger,
    /// The deployment's folder, for threads.
    pub(crate) folder: Arc<PathBuf>,
}

/// What came of one kind of action.
#[derive(Default)]
struct Done {
    count: u32,
    worst: Duration,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        println!("chaos: test");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "chaos".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    // Whoever says for how long, or with what, means this run.
    let is_meant = ["CHAOS_SECONDS", "CHAOS_SEED", "CHAOS_ONLY"].iter().any(|name| std::env::var_os(name).is_some());
    if let Some(why) = KIND.left_out(&words).filter(|_| !is_meant) {
        println!("test chaos ... ignored, {why}");
        return ExitCode::SUCCESS;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seconds = number("CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = number("CHAOS_SEED").unwrap_or(now.as_secs() % 1_000_000);
    println!("chaos: {seconds} s with CHAOS_SEED={seed}");
    if std::panic::catch_unwind(|| run(seconds, seed)).is_ok() {
        println!("chaos: passed");
        return ExitCode::SUCCESS;
    }
    println!("chaos: FAILED with CHAOS_SEED={seed}");
    ExitCode::FAILURE
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn run(seconds: u64, seed: u64) {
    let mut site = Site::start();
    site.settle().unwrap();
    let (before, listening_before) = (both_holdings(&site), site.listening_sockets());
    let folder = Arc::new(site.cluster.folder.path().to_owned());
    let mut chaos = Chaos { random: Random::new(seed), site, ledger: Ledger::default(), folder };
    let straight = [(Way::Short, SHORT), (Way::Kept, KEPT)];
    let mut clients = [WEB, API].map(|app| Clients::start(app, chaos.site.addresses[app], &straight));
    let proxy = proxy::start(chaos.site.addresses[WEB]);
    let mut proxied = proxy.as_ref().map(|proxy| Clients::start(WEB, proxy.address, &[(Way::Proxied, PROXIED)]));
    let start = Instant::now();
    let mut done: BTreeMap<&str, Done> = BTreeMap::new();
    let mut log = Vec::new();
    let failed = loop {
        if start.elapsed() > Duration::from_secs(seconds) {
            break None;
        }
        let (name, act) = choose(&mut chaos.random);
        let from = Instant::now();
        let answers = clients.each_ref().map(Clients::answers);
        log.push((from, name));
        println!("{:8.3}  {name}", (from - start).as_secs_f64());
        let outcome = act(&mut chaos).and_then(|()| chaos.site.settle());
        let entry = done.entry(name).or_default();
        entry.count += 1;
        entry.worst = entry.worst.max(from.elapsed());
        if let Err(why) = outcome {
            break Some(format!("{name}: {why}"));
        }
        let served = |now: [u64; 2]| now.iter().zip(&answers).all(|(now, before)| now > before);
        let deadline = Instant::now() + client::HUNG;
        while !served(clients.each_ref().map(Clients::answers)) {
            assert!(Instant::now() < deadline, "after {name} no client is answered");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Mostly one after the other; sometimes with a time in which everything is quiet.
        if chaos.random.percent(20) {
            let time = chaos.random.between(50, 1500);
            std::thread::sleep(Duration::from_millis(time));
        }
    };
    if let Some(why) = &failed {
        println!("{why}");
    }
    let alive = if failed.is_none() { as_configured(&mut chaos) } else { BTreeSet::new() };
    clients.iter_mut().chain(&mut proxied).for_each(Clients::finish);
    drop(proxy);
    let allowed = chaos.ledger.allowed_cuts();
    let Chaos { site, ledger, .. } = chaos;
    let all = clients.iter().chain(&proxied);
    let mut incidents: Vec<Incident> = all.flat_map(|c| c.seen.incidents.lock().unwrap().clone()).collect();
    if let Some(proxied) = &proxied {
        println!("\nbehind nginx: {} answers", proxied.answers());
        assert!(proxied.answers() > 0);
    }
    incidents.sort_by_key(|incident| incident.from);
    summary(&done, &clients, &incidents);
    let verdict = ledger.judge(incidents, WEB, &alive);
    println!(
        "cut: {} by killed workers, {} by killed masters ({allowed} allowed); kept and closed between requests: {}; \
         slow: {}; unexplained: {}",
        verdict.cut_by_workers,
        verdict.cut_by_masters,
        verdict.idle_closed,
        verdict.slow,
        verdict.unexplained.len()
    );
    for incident in &verdict.unexplained {
        let at = incident.from - start;
        let near: Vec<&str> =
            log.iter().filter(|(from, _)| *from <= incident.to).rev().take(2).map(|(_, name)| *name).collect();
        println!("{:8.3}  {incident:?} near {near:?}", at.as_secs_f64());
    }
    assert!(failed.is_none(), "{failed:?}");
    assert!(verdict.unexplained.is_empty(), "clients were hurt without a reason");
    nothing_grew(&site, before, listening_before);
    the_end(site);
}

fn choose(random: &mut Random) -> (&'static str, actions::Act) {
    let only = std::env::var("CHAOS_ONLY").unwrap_or_default();
    let wanted: Vec<_> = actions::ACTIONS.iter().filter(|(name, ..)| name.contains(&only)).collect();
    assert!(!wanted.is_empty(), "no action is called {only:?}");
    let sum: u64 = wanted.iter().map(|(_, share, _)| share).sum();
    let mut at = random.between(0, sum - 1);
    for (name, share, act) in wanted {
        if at < *share {
            return (name, *act);
        }
        at -= share;
    }
    unreachable!("the shares add up")
}

/// A last reload brings the numbers of the file back; the workers that there are then.
fn as_configured(chaos: &mut Chaos) -> BTreeSet<i32> {
    let said = chaos.site.cli(&["reload", "all"]);
    assert_eq!(said.code, Some(0), "the last reload: {said:?}");
    for app in [WEB, API] {
        chaos.site.expected[app].workers = site::CONFIGURED[app];
    }
    let view = chaos.site.settle().unwrap();
    view.apps.iter().flat_map(|app| app.workers.iter().filter_map(|worker| worker.pid)).collect()
}

fn both_holdings(site: &Site) -> [Holdings; 2] {
    let keeper = site.cluster.keeper_pid();
    [keeper, master_of(keeper).expect("a master")].map(holdings)
}

fn workers_of(site: &Site) -> usize {
    site.cluster.try_view().map_or(0, |view| view.apps.iter().map(|app| app.workers.len()).sum())
}

/// Waits a little: what clients closed is closed a moment later.
fn nothing_grew(site: &Site, before: [Holdings; 2], listening_before: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = both_holdings(site);
        let [keeper, master] = [0, 1].map(|n| (before[n], now[n]));
        // A worker that came with a reload has its output in two pipes, so that its last words can be shown; the
        // master's thread that reads them is woken by a third.
        let pipes = 2 * workers_of(site);
        // Apps that were reloaded one by one came from different readings of the file.
        let sources = NAMES.len();
        // A slot that was scaled away, or a worker beside the one that it replaced, leaves its listening socket for the next.
        let slots = site.listening_sockets().saturating_sub(listening_before);
        let good = keeper.1.fds <= keeper.0.fds + pipes + sources + slots
            && master.1.fds <= master.0.fds + pipes + 2 + slots
            && keeper.1.kib <= keeper.0.kib + KEEPER_GROWTH_KIB
            && master.1.kib <= master.0.kib + MASTER_GROWTH_KIB;
        if good || Instant::now() > deadline {
            println!("keeper: {:?} before, {:?} after; master: {:?}, {:?}", keeper.0, keeper.1, master.0, master.1);
            if !good {
                let keeper = site.cluster.keeper_pid();
                println!("the keeper holds {:#?}", site::open_files(keeper));
            }
            assert!(good, "something was not given back");
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `clusterd stop` ends it, and nothing is left.
fn the_end(site: Site) {
    let Site { mut cluster, family, .. } = site;
    let folder = cluster.folder.path().to_owned();
    let said = site::cli_at(&folder, &["stop", "chaos"]);
    assert_eq!(said.code, Some(0), "stop: {said:?}");
    assert_eq!(cluster.wait_exit(), 0);
    let living: Vec<i32> = left_over(&folder).into_iter().filter(|&pid| alive(pid)).collect();
    assert!(living.is_empty(), "{living:?} of {} processes live on", family.len());
    let run = std::fs::read_dir(folder.join("home/run"));
    let files: Vec<PathBuf> = run.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(!files.iter().any(|file| file.extension().is_some_and(|e| e == "sock")), "{files:?}");
    println!("stopped; {} processes came and went", family.len());
}

fn summary(done: &BTreeMap<&str, Done>, clients: &[Clients; 2], incidents: &[Incident]) {
    println!("\n{:36} {:>6} {:>12}", "action", "times", "longest (s)");
    for (name, done) in done {
        println!("{name:36} {:6} {:12.2}", done.count, done.worst.as_secs_f64());
    }
    println!("\n{:6} {:>10} {:>10} {:>8} {:>6} {:>6} {:>6}", "app", "short", "kept", "refused", "cut", "hung", "wrong");
    for (app, clients) in clients.iter().enumerate() {
        let count = |is: fn(&Wrong) -> bool| incidents.iter().filter(|i| i.app == app && is(&i.what)).count();
        let of = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        println!(
            "{:6} {:10} {:10} {:8} {:6} {:6} {:6}",
            NAMES[app],
            of(&clients.seen.short),
            of(&clients.seen.kept),
            count(|what| *what == Wrong::Refused),
            count(|what| *what == Wrong::Cut),
            count(|what| *what == Wrong::Hung),
            count(|what| matches!(what, Wrong::Other(_))),
        );
    }
    println!();
}

fn master_of(keeper: i32) -> Option<i32> {
    let is_master = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(clusterd::keeper::MASTER_ARGV0.as_bytes()) && alive(*pid)
    };
    children(keeper).into_iter().find(is_master)
}

impl Chaos {
    pub(crate) fn some_app(&mut self) -> usize {
        if self.random.percent(65) { WEB } else { API }
    }

    /// The present master, as soon as there is one.
    pub(crate) fn master(&self) -> Result<i32, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(pid) = master_of(self.site.cluster.keeper_pid()) {
                return Ok(pid);
            }
            if Instant::now() > deadline {
                return Err("there is no master".to_owned());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the master with this signal.
    pub(crate) fn end_master(&mut self, signal: &str) -> actions::Outcome {
        let pid = self.master()?;
        let from = Instant::now();
        kill(pid, signal);
        if signal == "SEGV" {
            // Rust's handler takes the first for a fault that comes again when it returns.
            std::thread::sleep(Duration::from_millis(20));
            let _ = std::process::Command::new("kill").args(["-SEGV", &pid.to_string()]).status();
        }
        self.wait_gone(pid)?;
        self.ledger.master_killed(from);
        self.next_master(from)
    }

    /// Waits until the keeper has started the next master. Masters that die again at once are started after a pause of
    /// up to a second; nobody accepts meanwhile, and clients may wait for so long.
    pub(crate) fn next_master(&mut self, from: Instant) -> actions::Outcome {
        self.master()?;
        self.ledger.master_stopped(from);
        Ok(())
    }

    pub(crate) fn wait_gone(&self, pid: i32) -> actions::Outcome {
        if ends_within(pid, PATIENCE) { Ok(()) } else { Err(format!("{pid} lives on")) }
    }

    /// Waits until the deployment is as wanted.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Deployment) -> bool) -> Result<Deployment, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.site.cluster.try_view();
            match view {
                Some(view) if wanted(&view) => return Ok(view),
                view if Instant::now() > deadline => return Err(format!("{what}: did not come true: {view:#?}")),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub(crate) fn generations(&self) -> Result<Vec<u32>, String> {
        self.wait("a view", |_| true).map(|view| view.apps.iter().map(|app| app.generation).collect())
    }

    /// Waits until no app is busy; the release that this one serves.
    pub(crate) fn version_that_settles(&self, app: usize) -> Result<u32, String> {
        self.count_that_settles(app)?;
        client::ask(self.site.addresses[app], "/which").map(|answer| answer.version)
    }

    /// Waits until no app is busy; the number of workers that this one wants.
    pub(crate) fn count_that_settles(&self, app: usize) -> Result<u32, String> {
        let view = self.wait("both apps at rest", |view| {
            view.apps.iter().all(|app| {
                app.status == "running"
                    && app.workers.len() == app.workers_wanted as usize
                    && app.workers.iter().all(|worker| worker.state == "ready")
            })
        })?;
        Ok(view.apps[app].workers_wanted)
    }
}
