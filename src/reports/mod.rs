//! Asks a Node worker whose event loop is stuck to leave a report, on a thread of its own: SIGUSR1 (which the keeper
//! sends) has Node open its inspector also while JavaScript runs; through it the program is stopped where it is, and
//! writes the report there. Bounded in time; what is done about the worker afterwards is not known here.
use crate::ids::WorkerId;
use crate::limits;
use crate::os::procfs;
use crate::protocol::inspector::{self, Answer, Frame, Frames, Said, Written};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its id.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// Where the report goes; `None`: where Node puts it by itself.
    pub directory: Option<String>,
    /// Ports that are the app's: no inspector is there.
    pub not_ports: Vec<u16>,
}

/// What came of it: the report, or why there is none.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who was asked.
    pub worker: WorkerId,
    /// What it left.
    pub left: Result<Written, String>,
}

/// Asks on a thread of its own; `done` is called there, in [`limits::HANG_REPORT_MS`] at the latest.
///
/// # Errors
/// There can be no thread.
pub fn start(ask: Ask, done: impl FnOnce(Told) + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("clusterd-report".to_owned());
    let thread = thread.stack_size(limits::HANG_REPORT_STACK_BYTES);
    thread.spawn(move || done(Told { worker: ask.worker, left: report_of(&ask) })).map(|_| ())
}

fn report_of(ask: &Ask) -> Result<Written, String> {
    let until = Instant::now() + Duration::from_millis(limits::HANG_REPORT_MS);
    let (port, target) = inspector_of(ask, until)?;
    let broke = |error: io::Error| format!("its inspector: {error}");
    let mut session = Session::open(port, &target, until).map_err(broke)?;
    session.send(&inspector::pause()).map_err(broke)?;
    loop {
        match session.next().map_err(broke)? {
            Said::Paused(call) => {
                session.send(&inspector::write_report(&call, ask.directory.as_deref())).map_err(broke)?;
            }
            Said::Report(written) => return Ok(written),
            Said::Refused(why) => return Err(format!("its inspector refused: {why}")),
            Said::Other => {}
        }
    }
}

/// Waits until the worker listens on a port that is an inspector's.
fn inspector_of(ask: &Ask, until: Instant) -> Result<(u16, String), String> {
    let mut tried = ask.not_ports.clone();
    let mut pause = Duration::from_millis(limits::HANG_LOOK_MIN_MS);
    while Instant::now() < until {
        let here: Vec<u16> = procfs::listening_ports(ask.pid).into_iter().filter(|p| !tried.contains(p)).collect();
        for port in here.into_iter().take(limits::INSPECTOR_PORTS_MAX.saturating_sub(tried.len())) {
            tried.push(port);
            let shows = until.min(Instant::now() + Duration::from_millis(limits::INSPECTOR_SHOWS_MS));
            if let Ok(target) = target_at(port, shows) {
                return Ok((port, target));
            }
        }
        std::thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_millis(limits::HANG_LOOK_MAX_MS));
    }
    Err("it opened no inspector: what blocks it is not JavaScript".to_owned())
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

/// The time that is left; an error when none is.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")) } else { Ok(left) }
}

/// Reads some bytes more.
fn read_some(stream: &mut TcpStream, until: Instant, buffer: &mut [u8]) -> io::Result<usize> {
    stream.set_read_timeout(Some(left(until)?))?;
    match stream.read(buffer) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"))
        }
        read => read,
    }
}

/// Reads an answer over HTTP; what came behind it too.
fn read_answer<T>(
    stream: &mut TcpStream,
    until: Instant,
    parse: impl Fn(&[u8]) -> Answer<T>,
) -> io::Result<(T, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; limits::INSPECTOR_READ_BYTES]);
    loop {
        let read = read_some(stream, until, &mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        match parse(&bytes) {
            Answer::More => {}
            Answer::Whole(value, length) => return Ok((value, bytes.split_off(length))),
            Answer::Foreign => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no inspector")),
        }
    }
}

/// A conversation with the debugger.
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
        Ok(Session { stream, frames, buffer: vec![0; limits::INSPECTOR_READ_BYTES], until })
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
