//! The clients that are always there. Each asks for a path of its own and takes nothing but the answer to just that;
//! whatever else happens is written down with its time, so that the ledger can say whether it was allowed.
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request without a whole answer after this counts as hung, whatever was done to the servers.
pub(crate) const HUNG: Duration = Duration::from_secs(20);
/// An answer that took longer than this is written down; it needs a reason.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// Pause of a client between two requests: the machine is for the chaos.
const PAUSE: Duration = Duration::from_millis(8);
/// A kept connection that the client itself left idle for so long may be closed by any server.
const IDLE: Duration = Duration::from_secs(3);

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On a new connection for each request.
    Short,
    /// On one that it keeps.
    Kept,
    /// On one that it keeps to a proxy, which keeps some to the app. Nobody knows whose connection was cut.
    Proxied,
}

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wrong {
    Refused,
    /// The connection ended before the answer was whole.
    Cut,
    Hung,
    /// A whole answer came, late.
    Slow,
    /// An answer that is not the wanted one, or an error that no server makes.
    Other(String),
    /// A kept connection was closed between two requests. The request was sent again, as HTTP clients do.
    IdleClosed,
}

/// One thing that went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) app: usize,
    pub(crate) what: Wrong,
    /// Whose connection it was, where the client knows.
    pub(crate) pid: Option<i32>,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// What all clients of one app saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) short: AtomicU64,
    pub(crate) kept: AtomicU64,
    pub(crate) incidents: Mutex<Vec<Incident>>,
}

/// Clients of one app, until they are finished.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    pub(crate) seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) pid: i32,
    pub(crate) version: u32,
}

struct Kept {
    stream: TcpStream,
    pid: i32,
    since: Instant,
}

impl Clients {
    pub(crate) fn start(app: usize, address: SocketAddr, clients: &[(Way, usize)]) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Seen::default());
        let ways = clients.iter().flat_map(|&(way, count)| std::iter::repeat_n(way, count));
        let threads = ways
            .enumerate()
            .map(|(n, way)| {
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                let client = move || {
                    let mut held = None;
                    for turn in 0u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        one(app, address, &format!("/{n}-{turn}"), way, &mut held, &seen);
                        std::thread::sleep(PAUSE);
                    }
                };
                std::thread::Builder::new().stack_size(128 * 1024).spawn(client).unwrap()
            })
            .collect();
        Clients { stop, seen, threads }
    }

    pub(crate) fn answers(&self) -> u64 {
        self.seen.short.load(Ordering::Relaxed) + self.seen.kept.load(Ordering::Relaxed)
    }

    /// Ends them all; their connections are closed then.
    pub(crate) fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn one(app: usize, address: SocketAddr, path: &str, way: Way, held: &mut Option<Kept>, seen: &Seen) {
    let keep = way != Way::Short;
    let from = Instant::now();
    let old = held.take();
    let known = old.as_ref().map(|kept| kept.pid);
    let idle = old.as_ref().is_some_and(|kept| kept.since.elapsed() > IDLE);
    let note = |what, pid| {
        seen.incidents.lock().unwrap().push(Incident { app, what, pid, from, to: Instant::now() });
    };
    let mut pid = known;
    let mut end = exchange(address, path, keep, old.map(|kept| kept.stream));
    if known.is_some() && matches!(end, Err((Wrong::Cut, true))) {
        if !idle {
            note(Wrong::IdleClosed, known);
        }
        pid = None;
        end = exchange(address, path, keep, None);
    }
    match end {
        Ok((answer, stream)) => {
            if from.elapsed() > SLOW {
                note(Wrong::Slow, Some(answer.pid));
            }
            *held = stream.map(|stream| Kept { stream, pid: answer.pid, since: Instant::now() });
            let count = if keep { &seen.kept } else { &seen.short };
            count.fetch_add(1, Ordering::Relaxed);
        }
        // What a proxy says of a connection to the app that ended.
        Err((Wrong::Other(text), _)) if way == Way::Proxied && text.starts_with("HTTP/1.1 502 ") => {
            note(Wrong::Cut, None)
        }
        Err((what, _)) => note(what, pid),
    }
}

/// One request on a connection of its own, as a person's.
pub(crate) fn ask(address: SocketAddr, path: &str) -> Result<Answer, String> {
    exchange(address, path, false, None).map(|(answer, _)| answer).map_err(|(what, _)| format!("{what:?}"))
}

/// The answer, and the connection where it may be used again. With an error: whether nothing at all had come.
fn exchange(
    address: SocketAddr,
    path: &str,
    keep: bool,
    stream: Option<TcpStream>,
) -> Result<(Answer, Option<TcpStream>), (Wrong, bool)> {
    let mut stream = match stream.map_or_else(|| TcpStream::connect_timeout(&address, HUNG), Ok) {
        Ok(stream) => stream,
        Err(e) => {
            let what = match e.kind() {
                ErrorKind::TimedOut => Wrong::Hung,
                ErrorKind::ConnectionRefused => Wrong::Refused,
                ErrorKind::ConnectionReset => Wrong::Cut,
                _ => Wrong::Other(format!("connect: {e}")),
            };
            return Err((what, true));
        }
    };
    stream.set_read_timeout(Some(HUNG)).unwrap();
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!("GET {path} HTTP/1.1\r\nhost: chaos\r\nconnection: {connection}\r\n\r\n");
    if stream.write_all(head.as_bytes()).is_err() {
        return Err((Wrong::Cut, true));
    }
    let mut got = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        match whole(&got, path) {
            Some(Ok((answer, may_keep))) => return Ok((answer, (keep && may_keep).then_some(stream))),
            Some(Err(what)) => return Err((what, false)),
            None => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err((Wrong::Cut, got.is_empty())),
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            // A child of this process ended, which the kernel tells a read that has a time-out.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err((Wrong::Hung, got.is_empty()));
            }
            Err(_) => return Err((Wrong::Cut, got.is_empty())),
        }
    }
}

/// `None` while it is not whole. Both apps say how long their answers are.
fn whole(got: &[u8], path: &str) -> Option<Result<(Answer, bool), Wrong>> {
    let text = String::from_utf8_lossy(got);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let wrong = || Wrong::Other(text.clone().into_owned());
    if !head.starts_with("http/1.1 200") {
        return Some(Err(wrong()));
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
    let Some(length) = length else { return Some(Err(wrong())) };
    let length: usize = length;
    if body.len() < length {
        return None;
    }
    let answer = (body.len() == length && body.ends_with(&format!("\"path\":\"{path}\"}}")))
        .then(|| Some(Answer { pid: number(body, "\"pid\":")?, version: number(body, "\"version\":")? }))
        .flatten();
    Some(answer.map(|answer| (answer, !head.contains("connection: close"))).ok_or_else(wrong))
}

fn number<T: std::str::FromStr>(body: &str, key: &str) -> Option<T> {
    let digits: String = body.split(key).nth(1)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
