//! Clients that keep their connection, straight or behind a proxy: each asks, waits for the whole answer, and asks again at its
//! pace. What is not a whole answer with status 200 is counted by what it was.
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request without an answer after this is given up.
const HUNG: Duration = Duration::from_secs(10);
/// No load runs longer.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// What the clients saw.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answers: u64,
    /// Whole answers with another status.
    pub(crate) not_200: u64,
    /// Connections that ended between two requests, or before anything of an answer.
    pub(crate) closed: u64,
    /// Answers that ended in the middle, and requests without one.
    pub(crate) cut: u64,
    /// Answers of each worker since `recount`.
    pub(crate) by_worker: BTreeMap<u32, u64>,
}

/// Clients until they are finished.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    recount: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// So many clients; each asks every `pace` at most (zero: without a pause). Every second one sends POSTs.
    pub(crate) fn start(address: SocketAddr, clients: usize, pace: Duration) -> Load {
        let (stop, recount) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let clients = (0..clients)
            .map(|n| {
                let (stop, recount) = (Arc::clone(&stop), Arc::clone(&recount));
                let body = if n % 2 == 0 { "abcdef" } else { "" };
                std::thread::spawn(move || one(address, body, pace, &stop, &recount))
            })
            .collect();
        Load { stop, recount, clients }
    }

    /// Counts the answers by worker from now on.
    pub(crate) fn recount(&self) {
        self.recount.store(true, Ordering::Relaxed);
    }

    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let one = client.join().expect("a client");
            all.answers += one.answers;
            all.not_200 += one.not_200;
            all.closed += one.closed;
            all.cut += one.cut;
            for (worker, count) in one.by_worker {
                *all.by_worker.entry(worker).or_default() += count;
            }
        }
        all
    }
}

fn one(address: SocketAddr, body: &str, pace: Duration, stop: &AtomicBool, recount: &AtomicBool) -> Tally {
    let (mut tally, mut kept, start) = (Tally::default(), None, Instant::now());
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) && start.elapsed() < LOAD_MAX {
        let stream = match kept.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect_timeout(&address, HUNG),
        };
        match stream.map_err(|_| End::Cut).and_then(|stream| exchange(stream, body)) {
            Ok(answer) => {
                tally.answers += 1;
                tally.not_200 += u64::from(!answer.is_good);
                if recount.load(Ordering::Relaxed) {
                    *tally.by_worker.entry(answer.worker).or_default() += 1;
                }
                kept = answer.kept;
            }
            Err(End::Closed) => tally.closed += 1,
            Err(End::Cut) => tally.cut += 1,
        }
        next += pace;
        let now = Instant::now();
        // A client that is late does not make up for it in a burst.
        next = next.max(now);
        std::thread::sleep(next - now);
    }
    tally
}

enum End {
    Closed,
    Cut,
}

struct Answer {
    is_good: bool,
    worker: u32,
    /// The connection, where it may be used again.
    kept: Option<TcpStream>,
}

fn exchange(mut stream: TcpStream, body: &str) -> Result<Answer, End> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = format!("{method} / HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let prepared = stream.set_read_timeout(Some(HUNG)).and_then(|()| stream.set_nodelay(true));
    if prepared.is_err() || stream.write_all(request.as_bytes()).is_err() {
        return Err(End::Closed);
    }
    let (mut got, mut buffer) = (Vec::new(), [0u8; 2048]);
    loop {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => got.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(End::Cut),
            Ok(_) | Err(_) if got.is_empty() => return Err(End::Closed),
            Ok(_) | Err(_) => return Err(End::Cut),
        }
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| head.split(name).nth(1)?.split("\r\n").next()?.trim().parse::<usize>().ok();
        if field("content-length: ").is_some_and(|length| rest.len() >= length) {
            let worker = field("x-worker: ").unwrap_or(0) as u32;
            let kept = (!head.contains("connection: close")).then_some(stream);
            return Ok(Answer { is_good: head.starts_with("http/1.1 200"), worker, kept });
        }
    }
}
