//! What an honest app has from a neighbour that floods: its slowest answers beside one, as a ratio to those beside the same
//! neighbour at rest. The two are measured in turns, on the same processes, so that what else happens on the machine hits both.
use super::client::get;
use super::cluster::{Cluster, kill};
use super::common::flooding::{MASTER_KIB_MAX, begin, beside, beside_script, control_socket, peak_kib};
use super::page;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MARK: &str = "the table of neighbours";
/// Turns of each side, unless `FLOOD_TURNS` says how many.
const TURNS: usize = 2;
/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(1_000);
/// Between the end of a flood and the next measurement: what waits in sockets is read.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two requests of the client.
const PAUSE: Duration = Duration::from_millis(2);
/// Clients that ask the control API without end.
const ASKERS: usize = 8;

/// Kinds of `workers/misbehave/flood.py`, how many workers flood, and what they do, for people.
const CHANNEL: [(&str, usize, &str); 14] = [
    ("ready", 1, "`\"ready\"`"),
    ("listening", 1, "`listening`"),
    ("online", 1, "`online`"),
    ("unknown", 1, "unknown internal lines"),
    ("number", 1, "numbers"),
    ("message", 2, "messages to nobody"),
    ("relay", 2, "messages to the agent"),
    ("answers", 1, "answers to nothing"),
    ("servers", 1, "servers that open and close"),
    ("mixed", 2, "lines of many kinds"),
    ("writes", 2, "a line at a time"),
    ("long", 2, "lines of 60 MiB"),
    ("unfinished", 3, "lines that never end"),
    ("addresses", 1, "requests for more addresses"),
];

/// Answers of the honest app.
#[derive(Default)]
struct Answers {
    latencies: Vec<Duration>,
    failed: usize,
}

impl Answers {
    fn collect(&mut self, address: SocketAddr) {
        let begun = Instant::now();
        while begun.elapsed() < TURN {
            let asked = Instant::now();
            match get(address, "/") {
                Ok(_) => self.latencies.push(asked.elapsed()),
                Err(_) => self.failed += 1,
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn p99(&self) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[sorted.len() * 99 / 100]
    }
}

/// A row of the table.
struct Row {
    what: &'static str,
    idle: Answers,
    beside: Answers,
    master_kib: u64,
    master_restarts: u64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.beside.p99().as_secs_f64() / self.idle.p99().as_secs_f64()
    }

    fn text(&self) -> String {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let (idle, beside, mib) = (ms(self.idle.p99()), ms(self.beside.p99()), self.master_kib.div_ceil(1024));
        let failed = self.idle.failed + self.beside.failed;
        format!(
            "| {} | {idle} | {beside} | {:.1} | {failed} | {mib} MiB | {} |\n",
            self.what,
            self.ratio(),
            self.master_restarts
        )
    }
}

const HEAD: &str = "| the neighbour sends | p99 at rest | p99 beside it | ratio | failed | master at most | master restarts |\n\
                    |---|---|---|---|---|---|---|\n";

fn measure(what: &'static str, cluster: &Cluster, flood: impl Fn(bool)) -> Row {
    let turns = std::env::var("FLOOD_TURNS").map_or(TURNS, |text| text.parse().expect("a number of turns"));
    let (address, master) = (cluster.address(), cluster.master_pid());
    let (mut idle, mut beside) = (Answers::default(), Answers::default());
    for _ in 0..turns {
        flood(false);
        std::thread::sleep(SETTLE);
        idle.collect(address);
        flood(true);
        std::thread::sleep(SETTLE);
        beside.collect(address);
    }
    flood(true);
    let master_restarts = cluster.wait_view("the control API", |_| true).master_restarts as u64;
    let master_kib = if master_restarts == 0 { peak_kib(master) } else { 0 };
    let row = Row { what, idle, beside, master_kib, master_restarts };
    eprint!("{}", row.text());
    row
}

/// A neighbour whose workers flood; at rest they are stopped.
fn beside_workers(what: &'static str, cluster: Cluster) -> Row {
    let flooders = || cluster.wait_view("the flooders", |_| true).apps.remove(1).workers;
    begin(&cluster);
    let row = measure(what, &cluster, |on| {
        let signal = if on { "CONT" } else { "STOP" };
        flooders().iter().filter_map(|worker| worker.pid).for_each(|pid| kill(pid, signal));
    });
    assert_eq!(
        cluster.wait_view("the flooders", |_| true).apps[1].restarts,
        0,
        "{what}: they are read later, and live"
    );
    cluster.stop();
    row
}

/// Clients of the control API that ask without end.
fn beside_clients() -> Row {
    let cluster = Cluster::hello(1);
    let socket = control_socket(&cluster);
    let (on, over, answers) = (Arc::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let (socket, on, over, answers) =
                (socket.clone(), Arc::clone(&on), Arc::clone(&over), Arc::clone(&answers));
            std::thread::spawn(move || {
                while !over.load(Ordering::Acquire) {
                    if AtomicBool::load(&on, Ordering::Acquire) {
                        answers.fetch_add(u64::from(ask(&socket)), Ordering::Relaxed);
                    } else {
                        std::thread::sleep(PAUSE);
                    }
                }
            })
        })
        .collect();
    let row = measure("requests to the control API", &cluster, |flood| on.store(flood, Ordering::Release));
    over.store(true, Ordering::Release);
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    assert!(answers.load(Ordering::Relaxed) > 0, "nobody was answered");
    cluster.stop();
    row
}

fn ask(socket: &Path) -> bool {
    let mut client = UnixStream::connect(socket).unwrap();
    let mut answer = String::new();
    client.write_all(b"GET /v1/apps HTTP/1.1\r\nhost: test\r\n\r\n").is_ok()
        && client.read_to_string(&mut answer).is_ok()
        && answer.contains("200 OK")
}

#[test]
#[ignore = "takes minutes"]
fn neighbours_that_flood() {
    let only = std::env::var("FLOOD").ok();
    let is_wanted = |kind: &str| only.as_deref().is_none_or(|only| only == kind);
    let mut rows = Vec::new();
    for (kind, workers, what) in CHANNEL.into_iter().filter(|(kind, ..)| is_wanted(kind)) {
        let more = if kind == "relay" { "[app.agent]\ncommand = [\"node\", \"agent.js\"]\n" } else { "" };
        rows.push(beside_workers(what, beside(kind, workers, more)));
    }
    if is_wanted("notify") {
        let more = "protocol = \"listen-fds\"\nlisten = \"127.0.0.1:0\"\nready = \"notify\"\n";
        rows.push(beside_workers("datagrams to the notify socket", beside_script("shouts.py", 2, more)));
    }
    if is_wanted("api") {
        rows.push(beside_clients());
    }
    let table = HEAD.to_owned() + &rows.iter().map(Row::text).collect::<String>();
    eprintln!("\n{table}");
    if only.is_none() {
        page::update(MARK, &table);
    }
    let ratio_max: Option<f64> = std::env::var("FLOOD_RATIO_MAX").ok().map(|text| text.parse().expect("a ratio"));
    for row in &rows {
        assert_eq!((row.idle.failed + row.beside.failed, row.master_restarts), (0, 0), "{}", row.what);
        assert!(row.master_kib < MASTER_KIB_MAX, "{}: the master had {} KiB", row.what, row.master_kib);
        assert!(ratio_max.is_none_or(|max| row.ratio() <= max), "{}: {:.1}", row.what, row.ratio());
    }
}
