//! A steady load on kept connections: each client asks, waits for the whole answer, pauses, asks again. A connection that
//! the server has closed is opened again within the same request, as HTTP clients do; its time counts.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request without an answer after this is given up.
const HUNG: Duration = Duration::from_secs(5);
/// No load runs longer.
const LOAD_MAX: Duration = Duration::from_secs(120);

/// Clients until they are finished.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What they saw.
#[derive(Default)]
pub(crate) struct Tally {
    /// Latencies of whole answers in microseconds.
    latencies_us: Vec<u32>,
    pub(crate) failed: u64,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, clients: usize, keep: bool, pause: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let (mut tally, mut kept, start) = (Tally::default(), None, Instant::now());
                    while !stop.load(Ordering::Relaxed) && start.elapsed() < LOAD_MAX {
                        let from = Instant::now();
                        if ask(address, keep, &mut kept) {
                            tally.latencies_us.push(from.elapsed().as_micros() as u32);
                        } else {
                            tally.failed += 1;
                        }
                        std::thread::sleep(pause);
                    }
                    tally
                })
            })
            .collect();
        Load { stop, clients }
    }

    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let one = client.join().expect("a client");
            all.latencies_us.extend(one.latencies_us);
            all.failed += one.failed;
        }
        all.latencies_us.sort_unstable();
        all
    }
}

impl Tally {
    /// Whole answers.
    pub(crate) fn count(&self) -> usize {
        self.latencies_us.len()
    }

    /// The latency that this share (0 to 1) of the answers did not exceed, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let at = (self.latencies_us.len().saturating_sub(1) as f64 * share) as usize;
        self.latencies_us.get(at).map_or(f64::NAN, |&us| f64::from(us) / 1000.0)
    }
}

/// One request; whether it got a whole answer.
pub(crate) fn ask(address: SocketAddr, keep: bool, kept: &mut Option<TcpStream>) -> bool {
    if let Some(stream) = kept.take()
        && let Some(stream) = exchange(stream, keep)
    {
        *kept = stream;
        return true;
    }
    let Ok(stream) = TcpStream::connect_timeout(&address, HUNG) else { return false };
    match exchange(stream, keep) {
        Some(stream) => {
            *kept = stream;
            true
        }
        None => false,
    }
}

/// The connection where it may be used again; `None` without a whole answer.
fn exchange(mut stream: TcpStream, keep: bool) -> Option<Option<TcpStream>> {
    stream.set_read_timeout(Some(HUNG)).ok()?;
    stream.set_nodelay(true).ok()?;
    let connection = if keep { "keep-alive" } else { "close" };
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: bench\r\nconnection: {connection}\r\n\r\n").as_bytes()).ok()?;
    let mut got = Vec::new();
    let mut buffer = [0u8; 2048];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.trim().parse::<usize>().ok()?;
        if body.len() >= length {
            return Some((keep && !head.contains("connection: close")).then_some(stream));
        }
    }
}
