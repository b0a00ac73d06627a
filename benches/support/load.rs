//! The load: C clients at once, each from an address of its own. A short client connects, asks, reads the whole answer to
//! its end; a kept one asks again on the same connection. One thread, one epoll, no allocation per request, so that the
//! load costs little of the machine that it shares with what it measures. Loopback only; it ends when its time is up.
use super::stats::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A request without a whole answer after this is given up.
const HUNG: Duration = Duration::from_secs(5);
/// A client that got no answer asks again after this; one that rests on its connection does so as long.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the clients are looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(5);
/// An answer is never longer.
const ANSWER_BYTES_MAX: usize = 1024;
/// An answer of "worker 1" is told apart from all others: no worker has that pid.
const APART: u32 = 1;
/// So many clients have addresses of their own.
const CLIENTS_MAX: usize = 250;

/// What the clients do.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) clients: usize,
    pub(crate) path: &'static str,
    /// Ask again on the same connection.
    pub(crate) kept: bool,
    /// Rest before the next request, as people do.
    pub(crate) rest: bool,
}

impl Plan {
    /// Short connections to the least that answers.
    pub(crate) fn short(address: SocketAddr, clients: usize) -> Plan {
        Plan { address, clients, path: "/", kept: false, rest: false }
    }

    /// Runs it for `time`.
    pub(crate) fn run(&self, time: Duration) -> Tally {
        self.run_until(time, &AtomicBool::new(false))
    }

    /// Runs it until `stop`, for at most `time`; then waits for the answers that are still to come.
    pub(crate) fn run_until(&self, time: Duration, stop: &AtomicBool) -> Tally {
        let mut load = Load::new(*self).expect("an epoll");
        load.turn(time, stop).expect("epoll_wait");
        load.tally
    }
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Whole answers, late ones too.
    pub(crate) whole: u64,
    /// Whole answers until the time was up.
    pub(crate) in_time: u64,
    /// Nobody listened.
    pub(crate) refused: u64,
    /// The connection was reset before an answer began.
    pub(crate) reset: u64,
    /// It ended before the answer was whole.
    pub(crate) cut: u64,
    /// No whole answer in `HUNG`.
    pub(crate) hung: u64,
    /// A kept connection that had served ended instead of an answer: HTTP clients ask again, and so did this one.
    pub(crate) closed: u64,
    /// Time that the run took, without the wait for late answers.
    pub(crate) seconds: f64,
    pub(crate) latencies: Histogram,
    /// Of the worker that is told apart.
    pub(crate) apart: Histogram,
    /// Answers by worker.
    pub(crate) served: BTreeMap<u32, u64>,
    /// Longest time without a whole answer, over all clients.
    pub(crate) longest_gap: Duration,
    /// Time without one at the end.
    pub(crate) last_gap: Duration,
}

impl Tally {
    /// Whole answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.in_time as f64 / self.seconds
    }

    /// Requests that were not answered.
    pub(crate) fn failed(&self) -> u64 {
        self.refused + self.reset + self.cut + self.hung
    }

    /// Adds what was seen in another run.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.whole += other.whole;
        self.in_time += other.in_time;
        self.refused += other.refused;
        self.reset += other.reset;
        self.cut += other.cut;
        self.hung += other.hung;
        self.closed += other.closed;
        self.seconds += other.seconds;
        self.latencies.merge(&other.latencies);
        self.apart.merge(&other.apart);
        for (worker, count) in &other.served {
            *self.served.entry(*worker).or_default() += count;
        }
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        self.last_gap = self.last_gap.max(other.last_gap);
    }
}

struct Client {
    stream: TcpStream,
    /// When the present request began; `None` while it rests.
    since: Option<Instant>,
    sent: bool,
    answer: [u8; ANSWER_BYTES_MAX],
    got: usize,
    /// Length of the whole answer, and who gives it, once its head is there.
    head: Option<(usize, u32)>,
    /// Answers that came on this connection.
    served: u64,
}

/// Why a request got no answer.
enum Loss {
    Refused,
    Reset,
    Cut,
}

enum Step {
    Wait,
    Whole,
    Lost(Loss),
}

struct Load {
    plan: Plan,
    request: Vec<u8>,
    poll: Poll,
    clients: Vec<Option<Client>>,
    /// Clients that continue at this time, in order.
    resting: VecDeque<(Instant, usize)>,
    last_answer: Instant,
    tally: Tally,
}

impl Load {
    fn new(plan: Plan) -> io::Result<Load> {
        assert!(plan.clients <= CLIENTS_MAX && plan.address.ip().is_loopback(), "a load for loopback only");
        let connection = if plan.kept { "keep-alive" } else { "close" };
        let request = format!("GET {} HTTP/1.1\r\nhost: bench\r\nconnection: {connection}\r\n\r\n", plan.path);
        Ok(Load {
            plan,
            request: request.into_bytes(),
            poll: Poll::new()?,
            clients: (0..plan.clients).map(|_| None).collect(),
            resting: VecDeque::new(),
            last_answer: Instant::now(),
            tally: Tally::default(),
        })
    }

    fn turn(&mut self, time: Duration, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(self.plan.clients);
        let start = Instant::now();
        let mut over = None;
        (0..self.plan.clients).for_each(|n| self.connect(n));
        loop {
            match self.poll.poll(&mut events, Some(LOOK)) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                self.work_on(event.token().0, over.is_none());
            }
            let now = Instant::now();
            if over.is_none() && (now - start >= time || stop.load(Ordering::Relaxed)) {
                over = Some(now);
                self.tally.seconds = (now - start).as_secs_f64();
                self.tally.in_time = self.tally.whole;
                self.tally.last_gap = now - self.last_answer;
                self.tally.longest_gap = self.tally.longest_gap.max(self.tally.last_gap);
            }
            self.give_up_hung(now, over.is_none());
            if over.is_none() {
                self.wake(now);
            } else if !self.clients.iter().flatten().any(|client| client.since.is_some()) {
                return Ok(());
            }
        }
    }

    fn connect(&mut self, n: usize) {
        self.clients[n] = match connect(self.plan.address, n, &self.poll) {
            Ok(stream) => Some(Client {
                stream,
                since: Some(Instant::now()),
                sent: false,
                answer: [0; ANSWER_BYTES_MAX],
                got: 0,
                head: None,
                served: 0,
            }),
            Err(_) => {
                self.tally.refused += 1;
                self.rest(n);
                None
            }
        };
    }

    /// It continues after a pause.
    fn rest(&mut self, n: usize) {
        self.resting.push_back((Instant::now() + PAUSE, n));
    }

    /// Those whose pause is over.
    fn wake(&mut self, now: Instant) {
        while let Some(&(at, n)) = self.resting.front()
            && at <= now
        {
            self.resting.pop_front();
            match &mut self.clients[n] {
                Some(client) => {
                    client.begin();
                    self.work_on(n, true);
                }
                None => self.connect(n),
            }
        }
    }

    fn work_on(&mut self, n: usize, more: bool) {
        loop {
            let Some(client) = &mut self.clients[n] else { return };
            if client.since.is_none() {
                // Nobody asked, so this is the end of a connection that rests: its next request gets another one.
                if client.has_ended() {
                    self.clients[n] = None;
                }
                return;
            }
            match client.step(&self.request, self.plan.kept) {
                Step::Wait => return,
                Step::Whole => {
                    self.answered(n);
                    if !more {
                        self.clients[n] = None;
                    } else if self.plan.rest {
                        match &mut self.clients[n] {
                            Some(client) if self.plan.kept => client.since = None,
                            ended => *ended = None,
                        }
                        return self.rest(n);
                    } else if !self.plan.kept {
                        return self.connect(n);
                    } else {
                        self.clients[n].as_mut().expect("it was answered").begin();
                    }
                }
                Step::Lost(loss) => return self.lost(n, &loss, more),
            }
        }
    }

    fn answered(&mut self, n: usize) {
        let Some(client) = &mut self.clients[n] else { return };
        let now = Instant::now();
        let took = client.since.map_or(Duration::ZERO, |since| now - since);
        client.served += 1;
        self.tally.whole += 1;
        let worker = client.head.map_or(0, |(_, worker)| worker);
        let latencies = if worker == APART { &mut self.tally.apart } else { &mut self.tally.latencies };
        latencies.add(took.as_micros() as u32);
        *self.tally.served.entry(worker).or_default() += 1;
        self.tally.longest_gap = self.tally.longest_gap.max(now - self.last_answer);
        self.last_answer = now;
    }

    fn lost(&mut self, n: usize, loss: &Loss, more: bool) {
        let again = self.clients[n].take().is_some_and(|client| client.served > 0 && client.got == 0);
        match loss {
            _ if again => self.tally.closed += 1,
            Loss::Refused => self.tally.refused += 1,
            Loss::Reset => self.tally.reset += 1,
            Loss::Cut => self.tally.cut += 1,
        }
        if more && again {
            self.connect(n);
        } else if more {
            self.rest(n);
        }
    }

    fn give_up_hung(&mut self, now: Instant, more: bool) {
        for n in 0..self.clients.len() {
            let since = self.clients[n].as_ref().and_then(|client| client.since);
            if since.is_some_and(|since| now - since > HUNG) {
                self.tally.hung += 1;
                self.clients[n] = None;
                if more {
                    self.connect(n);
                }
            }
        }
    }
}

impl Client {
    /// The next request on the same connection.
    fn begin(&mut self) {
        self.since = Some(Instant::now());
        (self.sent, self.got, self.head) = (false, 0, None);
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.stream.read(&mut self.answer), Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    fn step(&mut self, request: &[u8], kept: bool) -> Step {
        if !self.sent {
            match self.stream.write(request) {
                // A request of 60 bytes goes into an empty socket whole.
                Ok(_) => self.sent = true,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Step::Wait,
                Err(e) => return Step::Lost(self.loss(&e)),
            }
        }
        loop {
            match self.stream.read(&mut self.answer[self.got..]) {
                // A short answer ends with its connection.
                Ok(0) if self.is_whole() => return Step::Whole,
                Ok(0) => return Step::Lost(Loss::Cut),
                Ok(n) => self.got += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Wait,
                Err(_) if self.is_whole() => return Step::Whole,
                Err(e) => return Step::Lost(self.loss(&e)),
            }
            if self.head.is_none() {
                self.head = head(&self.answer[..self.got]);
            }
            if kept && self.is_whole() {
                return Step::Whole;
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.head.is_some_and(|(length, _)| self.got >= length)
    }

    fn loss(&self, error: &io::Error) -> Loss {
        match error.kind() {
            ErrorKind::ConnectionRefused => Loss::Refused,
            _ if self.got > 0 => Loss::Cut,
            _ => Loss::Reset,
        }
    }
}

/// Length of an answer and the worker that it names, once the head is complete.
pub(crate) fn head(bytes: &[u8]) -> Option<(usize, u32)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let field = |name: &[u8]| -> Option<u32> {
        let value = &bytes[memchr::memmem::find(&bytes[..end], name)? + name.len()..end];
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |n, byte| n * 10 + u32::from(byte - b'0')))
    };
    Some((end + field(b"content-length: ")? as usize, field(b"x-worker: ").unwrap_or(0)))
}

/// A client's own address lets a server that goes by it tell clients apart.
pub(crate) fn connect(address: SocketAddr, n: usize, poll: &Poll) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    let own = Ipv4Addr::new(127, 0, 1, n as u8 + 1);
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    match socket.connect(&address.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut stream = TcpStream::from_std(socket.into());
    poll.registry().register(&mut stream, Token(n), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}
