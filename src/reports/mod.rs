//! Obtains a report from a Node worker with a stuck event loop, on a thread of its own: SIGUSR1 (sent by the keeper)
//! makes Node open its inspector even while JavaScript runs; through it the program is paused and writes the report. Other
//! users of the machine reach the port too: who wants to use the inspector has to know its target, a random number that Node
//! tells on the worker's stderr alone.
//! Bounded in time. The caller decides what happens to the worker afterwards.
use crate::ids::WorkerId;
use crate::limits;
use crate::logs::Tail;
use crate::os::procfs;
use crate::worker::node::inspector::{self, Answer, Frame, Frames, Said, Written};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// First pause between two checks whether a worker has opened its inspector, in milliseconds. It doubles.
const HANG_LOOK_MIN_MS: u64 = 10;

/// Longest such pause, in milliseconds.
const HANG_LOOK_MAX_MS: u64 = 200;

/// Time for one of a worker's ports to prove that it is an inspector, in milliseconds.
const INSPECTOR_SHOWS_MS: u64 = 500;

/// Listening ports of a worker that are tried.
const INSPECTOR_PORTS_MAX: usize = 16;

/// Bytes per read from an inspector.
const INSPECTOR_READ_BYTES: usize = 16 * 1024;

/// Stack of a report thread, in bytes.
const HANG_REPORT_STACK_BYTES: usize = 256 * 1024;

/// A request for a report.
#[derive(Debug)]
pub struct Ask {
    pub worker: WorkerId,
    pub pid: i32,
    /// Directory of the report; `None`: Node's own choice.
    pub directory: Option<String>,
    /// What the worker prints to stderr from now on.
    pub said: Arc<Tail>,
    /// The user had the inspector opened to all: it can be asked for its target. The app's ports are not an inspector.
    pub open: Option<OpenInspector>,
}

/// An inspector that tells everybody its target.
#[derive(Debug)]
pub struct OpenInspector {
    /// The app's ports, which are not an inspector.
    pub not_ports: Vec<u16>,
}

/// The result: the report, or why there is none.
#[derive(Debug)]
pub struct Outcome {
    /// The worker's id.
    pub worker: WorkerId,
    /// The report, or why there is none.
    pub left: Result<Written, NoReport>,
}

/// Why a worker left no report.
#[derive(Debug, Error)]
pub enum NoReport {
    /// Node opens the inspector as soon as JavaScript runs, or the event loop turns.
    #[error("it opened no inspector: what blocks it is not JavaScript")]
    NotJavaScript,
    /// The cause of the hang is unknown.
    #[error("it opened no inspector in {} s, in which it waited for a CPU most of the time", limits::HANG_REPORT_MS / 1000)]
    NoCpu,
    /// The port is open, and does not answer.
    #[error("its inspector on port {0} did not answer in time")]
    Silent(u16),
    /// The connection failed.
    #[error("its inspector: {0}")]
    Broken(#[from] io::Error),
    /// Node refused.
    #[error("its inspector refused: {0}")]
    Refused(String),
}

/// Requests a report on a thread of its own, which calls `done` within [`limits::HANG_REPORT_MS`].
///
/// # Errors
/// No thread is available.
pub fn start(ask: Ask, done: impl FnOnce(Outcome) + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("clusterd-report".to_owned());
    let thread = thread.stack_size(HANG_REPORT_STACK_BYTES);
    thread.spawn(move || done(Outcome { worker: ask.worker, left: report_of(&ask) })).map(|_| ())
}

fn report_of(ask: &Ask) -> Result<Written, NoReport> {
    let until = Instant::now() + Duration::from_millis(limits::HANG_REPORT_MS);
    let (port, target) = inspector_of(ask, until)?;
    let silent = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => NoReport::Silent(port),
        _ => NoReport::Broken(error),
    };
    let mut session = Session::open(port, &target, until).map_err(silent)?;
    session.send(&inspector::pause())?;
    loop {
        match session.next()? {
            Said::Paused(call) => session.send(&inspector::write_report(&call, ask.directory.as_deref()))?,
            Said::Report(written) => return Ok(written),
            Said::Refused(why) => return Err(NoReport::Refused(why)),
            Said::Other => {}
        }
    }
}

/// Waits until the worker has told where its inspector is, and listens there.
fn inspector_of(ask: &Ask, until: Instant) -> Result<(u16, String), NoReport> {
    if let Some(open) = &ask.open {
        return open_inspector_of(ask.pid, open, until);
    }
    let (begun, waited) = (Instant::now(), cpu_wait(ask.pid));
    let mut pause = Duration::from_millis(HANG_LOOK_MIN_MS);
    while Instant::now() < until {
        let told = ask.said.lines().iter().rev().find_map(|line| inspector::announced(line));
        // The worker may print what it likes: only a port of its own counts.
        if let Some(told) = told.filter(|(port, _)| procfs::listening_ports(ask.pid).contains(port)) {
            return Ok(told);
        }
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_millis(HANG_LOOK_MAX_MS));
    }
    Err(none_opened(ask.pid, begun, waited))
}

fn none_opened(pid: i32, begun: Instant, waited: Duration) -> NoReport {
    if cpu_wait(pid).saturating_sub(waited) * 2 > begun.elapsed() { NoReport::NoCpu } else { NoReport::NotJavaScript }
}

/// Waits until the worker listens on an inspector's port. A silent port is tried again, each time for longer: on a busy
/// machine the inspector's thread may wait for a CPU.
fn open_inspector_of(pid: i32, open: &OpenInspector, until: Instant) -> Result<(u16, String), NoReport> {
    let (begun, waited) = (Instant::now(), cpu_wait(pid));
    let mut foreign = open.not_ports.clone();
    let mut silent = None;
    let mut pause = Duration::from_millis(HANG_LOOK_MIN_MS);
    let mut shows = Duration::from_millis(INSPECTOR_SHOWS_MS);
    while Instant::now() < until {
        let mut here = procfs::listening_ports(pid);
        here.retain(|port| !foreign.contains(port));
        here.truncate(INSPECTOR_PORTS_MAX);
        for &port in &here {
            match target_at(port, until.min(Instant::now() + shows)) {
                Ok(target) => return Ok((port, target)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => foreign.push(port),
                Err(_) => silent = Some(port),
            }
        }
        if !here.is_empty() {
            shows *= 2;
        }
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_millis(HANG_LOOK_MAX_MS));
    }
    Err(match silent {
        Some(port) => NoReport::Silent(port),
        None => none_opened(pid, begun, waited),
    })
}

/// How long the worker's main thread has waited for a CPU in total.
fn cpu_wait(pid: i32) -> Duration {
    Duration::from_micros(procfs::cpu_wait_us(pid).unwrap_or(0))
}

fn target_at(port: u16, until: Instant) -> io::Result<String> {
    let mut stream = connect(port, until)?;
    stream.write_all(inspector::LIST_REQUEST)?;
    read_answer(&mut stream, until, inspector::target).map(|(target, _)| target)
}

fn connect(port: u16, until: Instant) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    Ok(stream)
}

/// The time left; an error if none is.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")) } else { Ok(left) }
}

/// Reads some more bytes.
fn read_some(stream: &mut TcpStream, until: Instant, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            // A signal that another thread handles, or the time-out: `left` distinguishes them.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            read => return read,
        }
    }
}

/// Reads an HTTP answer, and what follows it.
fn read_answer<T>(
    stream: &mut TcpStream,
    until: Instant,
    parse: impl Fn(&[u8]) -> Answer<T>,
) -> io::Result<(T, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; INSPECTOR_READ_BYTES]);
    loop {
        let read = read_some(stream, until, &mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        match parse(&bytes) {
            Answer::More => {}
            Answer::Whole(value, length) => return Ok((value, bytes.split_off(length))),
            Answer::Foreign => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not an inspector")),
        }
    }
}

/// A session with the debugger.
struct Session {
    stream: TcpStream,
    frames: Frames,
    buffer: Vec<u8>,
    until: Instant,
}

impl Session {
    fn open(port: u16, target: &str, until: Instant) -> io::Result<Session> {
        let mut stream = connect(port, until)?;
        stream.write_all(&inspector::upgrade_request(target))?;
        let ((), behind) = read_answer(&mut stream, until, inspector::upgraded)?;
        let mut frames = Frames::default();
        frames.push(&behind);
        Ok(Session { stream, frames, buffer: vec![0; INSPECTOR_READ_BYTES], until })
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn next(&mut self) -> io::Result<Said> {
        loop {
            match self.frames.next_frame() {
                Some(Frame::Text(text)) => return Ok(inspector::said(&text)),
                Some(Frame::End) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended the session")),
                None => {}
            }
            let read = read_some(&mut self.stream, self.until, &mut self.buffer)?;
            self.frames.push(&self.buffer[..read]);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    /// A process with a listening port that this test answers: it inherits the socket.
    struct Worker {
        child: Child,
        port: u16,
    }

    impl Worker {
        /// Each connection is passed to `serve` with its number, on a thread of its own.
        fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Worker {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            // The child holds the listening socket as its standard input.
            let held = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
            let child = Command::new("sleep").arg("1000").stdin(Stdio::from(held)).spawn().unwrap();
            let serve = Arc::new(serve);
            std::thread::spawn(move || {
                for (number, stream) in listener.incoming().flatten().enumerate() {
                    let serve = Arc::clone(&serve);
                    std::thread::spawn(move || serve(stream, number));
                }
            });
            Worker { child, port }
        }

        fn ask(&self, time: Duration) -> Result<(u16, String), NoReport> {
            self.ask_after(Some(OpenInspector { not_ports: vec![] }), &[], time)
        }

        /// After it has printed these lines.
        fn ask_after(
            &self,
            open: Option<OpenInspector>,
            said: &[String],
            time: Duration,
        ) -> Result<(u16, String), NoReport> {
            let tail = Tail::new(1);
            said.iter().for_each(|line| tail.push(line.as_bytes()));
            let pid = self.child.id() as i32;
            let ask = Ask { worker: WorkerId(1), pid, directory: None, said: Arc::new(tail), open };
            inspector_of(&ask, Instant::now() + time)
        }
    }

    impl Drop for Worker {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn answer(mut stream: TcpStream, text: &str) {
        let mut request = [0; 512];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(text.as_bytes());
    }

    const LIST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n[{\"id\":\"a\"}]";

    #[test]
    fn an_inspector_that_is_slow_to_answer_is_asked_again() {
        // The first two never get an answer, as on a busy machine.
        let worker = Worker::start(|stream, number| match number {
            0 | 1 => std::mem::forget(stream),
            _ => answer(stream, LIST),
        });
        let found = worker.ask(Duration::from_secs(60)).unwrap();
        assert_eq!(found, (worker.port, "a".to_owned()));
    }

    #[test]
    fn an_inspector_is_found_by_what_the_worker_prints_and_never_asked() {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let worker = Worker::start(move |stream, _| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            answer(stream, LIST);
        });
        let line = |port: u16| format!("Debugger listening on ws://127.0.0.1:{port}/0a-b");
        let said = [line(worker.port), line(1), "Debugger listening on ws://127.0.0.1:2".to_owned()];
        // The last one is of a port of somebody else.
        let left = worker.ask_after(None, &said, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(left, NoReport::NotJavaScript | NoReport::NoCpu), "{left}");
        let found = worker.ask_after(None, &said[..1], Duration::from_secs(60)).unwrap();
        assert_eq!(found, (worker.port, "0a-b".to_owned()));
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
    }

    #[test]
    fn what_keeps_silent_is_named_and_what_is_no_inspector_is_not() {
        let worker = Worker::start(|stream, _| std::mem::forget(stream));
        let left = worker.ask(Duration::from_secs(3)).unwrap_err();
        assert!(matches!(left, NoReport::Silent(port) if port == worker.port), "{left}");
        let other = Worker::start(|stream, _| answer(stream, "HTTP/1.1 404 Not Found\r\n\r\n"));
        let left = other.ask(Duration::from_secs(3)).unwrap_err();
        assert!(matches!(left, NoReport::NotJavaScript | NoReport::NoCpu), "{left}");
    }
}
