//! The load: C clients at once, each connects, asks, reads the whole answer and closes. One thread, one epoll, no
//! allocation per connection, so that the client costs little of the machine that it shares with what it measures.
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
/// A request without a whole answer after this is given up.
const HUNG: Duration = Duration::from_secs(5);

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Whole answers.
    pub(crate) ok: u64,
    /// Everything else: refused, cut, hung.
    pub(crate) failed: u64,
    /// Time that the run took.
    pub(crate) seconds: f64,
    /// Latencies of the whole answers in microseconds, unordered.
    pub(crate) latencies_us: Vec<u32>,
}

impl Tally {
    /// Connections per second.
    pub(crate) fn rate(&self) -> f64 {
        self.ok as f64 / self.seconds
    }

    /// The latency that this share (0 to 1) of the answers did not exceed, in milliseconds.
    pub(crate) fn quantile_ms(&mut self, share: f64) -> f64 {
        if self.latencies_us.is_empty() {
            return f64::NAN;
        }
        self.latencies_us.sort_unstable();
        let at = ((self.latencies_us.len() - 1) as f64 * share) as usize;
        f64::from(self.latencies_us[at]) / 1000.0
    }
}

struct Client {
    stream: TcpStream,
    since: Instant,
    sent: bool,
    got: usize,
}

/// Runs `clients` at once for `time`.
pub(crate) fn run(address: SocketAddr, clients: usize, time: Duration) -> Tally {
    let mut poll = Poll::new().expect("an epoll");
    let mut events = Events::with_capacity(1024);
    let mut tally = Tally::default();
    let start = Instant::now();
    let mut slots: Vec<Option<Client>> = (0..clients).map(|n| connect(&poll, address, n, &mut tally)).collect();
    while start.elapsed() < time {
        poll.poll(&mut events, Some(Duration::from_millis(100))).expect("epoll_wait");
        for event in &events {
            let Token(n) = event.token();
            let Some(client) = &mut slots[n] else { continue };
            match step(client) {
                Step::Wait => continue,
                Step::Done => {
                    tally.ok += 1;
                    tally.latencies_us.push(client.since.elapsed().as_micros() as u32);
                }
                Step::Failed => tally.failed += 1,
            }
            slots[n] = connect(&poll, address, n, &mut tally);
        }
        for (n, slot) in slots.iter_mut().enumerate() {
            let hung = slot.as_ref().is_some_and(|client| client.since.elapsed() > HUNG);
            if hung || slot.is_none() {
                tally.failed += u64::from(hung);
                *slot = connect(&poll, address, n, &mut tally);
            }
        }
    }
    tally.seconds = start.elapsed().as_secs_f64();
    tally
}

enum Step {
    Wait,
    Done,
    Failed,
}

fn step(client: &mut Client) -> Step {
    if !client.sent {
        match client.stream.write(REQUEST) {
            Ok(_) => client.sent = true,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Step::Wait,
            Err(_) => return Step::Failed,
        }
    }
    let mut buffer = [0u8; 2048];
    loop {
        match client.stream.read(&mut buffer) {
            // The answer ends with the connection; one without a body was cut.
            Ok(0) => return if client.got > 19 { Step::Done } else { Step::Failed },
            Ok(n) => client.got += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Wait,
            Err(_) => return Step::Failed,
        }
    }
}

fn connect(poll: &Poll, address: SocketAddr, n: usize, tally: &mut Tally) -> Option<Client> {
    let Ok(mut stream) = TcpStream::connect(address) else {
        tally.failed += 1;
        return None;
    };
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(n), interest).expect("epoll_ctl");
    Some(Client { stream, since: Instant::now(), sent: false, got: 0 })
}
