//! An open load: requests begin at times that were drawn beforehand, whether or not the ones before them have been
//! answered, and a latency counts from the time at which its request was to begin. So a server that stands still is
//! charged for everybody who came meanwhile (no coordinated omission). One thread, one epoll; loopback only; bounded.
use crate::support::load::{connect, head};
use crate::support::stats::Histogram;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// A request without a whole answer after this is given up.
const HUNG: Duration = Duration::from_secs(5);
/// Connections at once; a request that finds them all busy waits, and its time counts.
const CONNECTIONS_MAX: usize = 250;
/// Connections that a kept load opens, as the pool of a proxy does.
const POOL: usize = 64;
/// Requests of one run.
const REQUESTS_MAX: usize = 1_000_000;
const ANSWER_BYTES_MAX: usize = 1024;
const TIMER: Token = Token(CONNECTIONS_MAX);

/// What the handler does for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mix {
    /// The least that answers.
    Even,
    /// 1 in 10 takes 20 ms of CPU, 1 in 100 waits for 200 ms.
    Uneven,
    /// 5 ms of CPU each.
    Job,
}

impl Mix {
    pub(crate) const ALL: [Mix; 3] = [Mix::Even, Mix::Uneven, Mix::Job];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Mix::Even => "even (hello)",
            Mix::Uneven => "uneven (1 in 10 takes 20 ms of CPU, 1 in 100 waits 200 ms)",
            Mix::Job => "5 ms of CPU each",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mix::Even => "even",
            Mix::Uneven => "uneven",
            Mix::Job => "job",
        }
    }

    fn path(self, random: &mut Random) -> &'static str {
        match self {
            Mix::Even => "/",
            Mix::Job => "/job",
            Mix::Uneven => match random.below(100) {
                0 => "/wait",
                1..=10 => "/job20",
                _ => "/",
            },
        }
    }
}

/// One run at one rate.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) mix: Mix,
    pub(crate) kept: bool,
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    /// Equal seeds draw equal times and handlers, so that all servers get the same load.
    pub(crate) seed: u64,
}

/// What the clients saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) latencies: Histogram,
    /// Refused, reset, cut or hung.
    pub(crate) failed: u64,
    /// Kept connections that ended between two requests.
    pub(crate) closed: u64,
}

impl Plan {
    /// # Errors
    /// What the system refused.
    pub(crate) fn run(&self) -> io::Result<Seen> {
        assert!(self.address.ip().is_loopback(), "a load for loopback only");
        Run::new(*self)?.turn()
    }

    /// When each request begins, since the start, and its path: exponential gaps, as independent clients make them.
    fn arrivals(&self) -> VecDeque<(Duration, &'static str)> {
        let (mut random, mut at, mut all) = (Random(self.seed), 0.0, VecDeque::new());
        loop {
            at += -(1.0 - random.unit()).ln() / self.rate;
            if at >= self.time.as_secs_f64() || all.len() >= REQUESTS_MAX {
                return all;
            }
            all.push_back((Duration::from_secs_f64(at), self.mix.path(&mut random)));
        }
    }
}

/// A linear congruential generator; its high bits are good enough to draw times.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From 0 to 1, without 1.
    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1_u64 << 31) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Connection {
    stream: TcpStream,
    /// When the present request was to begin, and what it asks; `None` while it rests.
    request: Option<(Instant, &'static str)>,
    sent: bool,
    answer: [u8; ANSWER_BYTES_MAX],
    got: usize,
    length: Option<usize>,
    served: bool,
}

enum Step {
    Wait,
    Whole,
    Lost,
}

struct Run {
    plan: Plan,
    poll: Poll,
    timer: TimerFd,
    connections: Vec<Option<Connection>>,
    /// Places without a connection.
    free: Vec<usize>,
    /// Connections at rest; the one that has rested longest is used first.
    resting: VecDeque<usize>,
    arrivals: VecDeque<(Duration, &'static str)>,
    /// Requests whose time has come and that found no connection.
    waiting: VecDeque<(Instant, &'static str)>,
    busy: usize,
    seen: Seen,
}

impl Run {
    fn new(plan: Plan) -> io::Result<Run> {
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let places = if plan.kept { POOL } else { CONNECTIONS_MAX };
        Ok(Run {
            plan,
            poll,
            timer,
            connections: (0..places).map(|_| None).collect(),
            free: (0..places).rev().collect(),
            resting: VecDeque::new(),
            arrivals: plan.arrivals(),
            waiting: VecDeque::new(),
            busy: 0,
            seen: Seen::default(),
        })
    }

    fn turn(mut self) -> io::Result<Seen> {
        if self.plan.kept {
            self.fill_pool()?;
        }
        let (start, mut events) = (Instant::now(), Events::with_capacity(CONNECTIONS_MAX + 1));
        let end = start + self.plan.time + HUNG;
        loop {
            let now = Instant::now();
            while let Some(&(at, path)) = self.arrivals.front()
                && start + at <= now
            {
                self.arrivals.pop_front();
                self.waiting.push_back((start + at, path));
            }
            self.begin_waiting();
            match self.arrivals.front() {
                Some(&(at, _)) => self.wake_at(start + at)?,
                None if self.busy == 0 && self.waiting.is_empty() => return Ok(self.seen),
                None if now > end => {
                    self.seen.failed += (self.busy + self.waiting.len()) as u64;
                    return Ok(self.seen);
                }
                None => {}
            }
            match self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                match event.token() {
                    TIMER => drop(self.timer.wait()),
                    Token(n) => self.work_on(n),
                }
            }
        }
    }

    /// Connections are there before the first request, as a proxy's are in its second minute.
    fn fill_pool(&mut self) -> io::Result<()> {
        while let Some(n) = self.free.pop() {
            self.connections[n] = Some(Connection::new(connect(self.plan.address, n, &self.poll)?));
            self.resting.push_back(n);
        }
        Ok(())
    }

    fn wake_at(&self, at: Instant) -> io::Result<()> {
        // A time of zero would disarm it.
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        Ok(())
    }

    fn begin_waiting(&mut self) {
        while let Some(&request) = self.waiting.front() {
            let n = if let Some(n) = self.resting.pop_front() {
                n
            } else if let Some(n) = self.free.pop() {
                match connect(self.plan.address, n, &self.poll) {
                    Ok(stream) => self.connections[n] = Some(Connection::new(stream)),
                    Err(_) => {
                        self.waiting.pop_front();
                        self.free.push(n);
                        self.seen.failed += 1;
                        continue;
                    }
                }
                n
            } else {
                return;
            };
            self.waiting.pop_front();
            if let Some(connection) = &mut self.connections[n] {
                connection.begin(request);
                self.busy += 1;
                self.work_on(n);
            }
        }
    }

    fn work_on(&mut self, n: usize) {
        let Some(connection) = self.connections.get_mut(n).and_then(Option::as_mut) else { return };
        let Some(request) = connection.request else {
            if connection.has_ended() {
                self.seen.closed += 1;
                self.resting.retain(|&resting| resting != n);
                self.drop_connection(n);
            }
            return;
        };
        match connection.step(self.plan.kept) {
            Step::Wait => {}
            Step::Whole => {
                self.seen.latencies.add(request.0.elapsed().as_micros() as u32);
                self.busy -= 1;
                if self.plan.kept {
                    (connection.request, connection.served) = (None, true);
                    self.resting.push_back(n);
                } else {
                    self.drop_connection(n);
                }
            }
            Step::Lost => {
                self.busy -= 1;
                // What a server closes between two requests is asked again elsewhere, as HTTP clients do.
                if connection.served && connection.got == 0 {
                    self.seen.closed += 1;
                    self.waiting.push_front(request);
                } else {
                    self.seen.failed += 1;
                }
                self.drop_connection(n);
            }
        }
    }

    fn drop_connection(&mut self, n: usize) {
        self.connections[n] = None;
        self.free.push(n);
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        let answer = [0; ANSWER_BYTES_MAX];
        Connection { stream, request: None, sent: false, answer, got: 0, length: None, served: false }
    }

    fn begin(&mut self, request: (Instant, &'static str)) {
        (self.request, self.sent, self.got, self.length) = (Some(request), false, 0, None);
    }

    fn has_ended(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.peek(&mut byte) {
            Ok(n) => n == 0,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
        }
    }

    fn step(&mut self, kept: bool) -> Step {
        if !self.sent {
            let path = self.request.map_or("/", |(_, path)| path);
            let connection = if kept { "keep-alive" } else { "close" };
            let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: {connection}\r\n\r\n");
            match self.stream.write(request.as_bytes()) {
                Ok(_) => self.sent = true,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Step::Wait,
                Err(_) => return Step::Lost,
            }
        }
        loop {
            match self.stream.read(&mut self.answer[self.got..]) {
                Ok(0) | Err(_) if !kept && self.is_whole() => return Step::Whole,
                Ok(0) => return Step::Lost,
                Ok(n) => self.got += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Step::Wait,
                Err(_) => return Step::Lost,
            }
            if self.length.is_none() {
                self.length = head(&self.answer[..self.got]).map(|(length, _)| length);
            }
            if self.is_whole() {
                return Step::Whole;
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.length.is_some_and(|length| self.got >= length)
    }
}
