//! The strict client: every request must get one whole answer. It counts what happened instead, and hides nothing.
use super::wait::PATIENCE;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request without a whole answer after this counts as hung.
const HUNG: Duration = Duration::from_secs(5);
/// No load runs longer, whatever the test forgets.
const LOAD_MAX: Duration = Duration::from_secs(180);
/// Each client of a load pauses so long for every client that there is: together they ask at most 1,400 times a second. A
/// load that takes every CPU measures the machine, and workers that start beside it take ten times as long.
const PAUSE: Duration = Duration::from_micros(700);

/// What the clients saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) ok: u64,
    /// The connection was refused.
    pub(crate) refused: u64,
    /// The connection ended, or was reset, before the answer was whole.
    pub(crate) cut: u64,
    /// No whole answer in time.
    pub(crate) hung: u64,
    /// A whole answer that is not the wanted one.
    pub(crate) wrong: u64,
    /// Kept-alive connections that the server closed between two requests; the request was then sent again on a new
    /// connection, as HTTP clients do, and counted by what came of it.
    pub(crate) idle_closed: u64,
    /// Answers by the pid that gave them.
    pub(crate) by_pid: BTreeMap<i32, u64>,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ok(i32),
    Refused,
    Cut,
    /// As `Cut`, and not a byte of the answer had come.
    CutAtStart,
    Hung,
    Wrong,
}

/// The tally that all clients of a load keep, and the news that it grew.
#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    grew: Condvar,
}

/// A load that runs until it is finished.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `clients` at once; each on short connections, or on one that is kept alive.
    pub(crate) fn start(address: SocketAddr, clients: usize, keep_alive: bool) -> Load {
        Load::start_patient(HUNG, address, clients, keep_alive)
    }

    /// The same with clients that wait this long for an answer.
    pub(crate) fn start_patient(hung: Duration, address: SocketAddr, clients: usize, keep_alive: bool) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = PAUSE * clients as u32;
        let tally = Arc::new(Shared::default());
        let clients = (0..clients)
            .map(|_| {
                let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
                std::thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn(move || {
                        let start = Instant::now();
                        let mut kept = None;
                        while !stop.load(Ordering::Relaxed) && start.elapsed() < LOAD_MAX {
                            one(hung, address, keep_alive, &mut kept, &tally.tally);
                            tally.grew.notify_all();
                            std::thread::sleep(pause);
                        }
                    })
                    .unwrap()
            })
            .collect();
        Load { stop, tally, clients }
    }

    /// Waits until so many more answers have come.
    pub(crate) fn wait_more(&self, answers: u64) {
        let tally = self.tally.tally.lock().unwrap();
        let goal = tally.ok + answers;
        let waited = self.tally.grew.wait_timeout_while(tally, PATIENCE, |tally| tally.ok < goal).unwrap();
        assert!(
            !waited.1.timed_out(),
            "{answers} more answers did not come, {} missing: {:?}",
            goal - waited.0.ok,
            waited.0
        );
    }

    /// Ends it and tells.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let tally = self.tally.tally.lock().unwrap().clone();
        eprintln!("the clients saw {tally:?}");
        tally
    }
}

fn one(hung: Duration, address: SocketAddr, keep_alive: bool, kept: &mut Option<TcpStream>, tally: &Mutex<Tally>) {
    let reused = kept.is_some();
    let mut end = request(hung, address, "/", keep_alive, kept);
    if reused && end == End::CutAtStart {
        tally.lock().unwrap().idle_closed += 1;
        end = request(hung, address, "/", keep_alive, kept);
    }
    let mut tally = tally.lock().unwrap();
    match end {
        End::Ok(pid) => {
            tally.ok += 1;
            *tally.by_pid.entry(pid).or_default() += 1;
        }
        End::Refused => tally.refused += 1,
        End::Cut | End::CutAtStart => tally.cut += 1,
        End::Hung => tally.hung += 1,
        End::Wrong => tally.wrong += 1,
    }
    drop(tally);
    if end == End::Refused {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn request(hung: Duration, address: SocketAddr, path: &str, keep_alive: bool, kept: &mut Option<TcpStream>) -> End {
    let mut stream = match kept.take().map_or_else(|| TcpStream::connect_timeout(&address, hung), Ok) {
        Ok(stream) => stream,
        Err(e) if e.kind() == ErrorKind::TimedOut => return End::Hung,
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => return End::Refused,
        Err(_) => return End::Cut,
    };
    stream.set_read_timeout(Some(hung)).unwrap();
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: {connection}\r\n\r\n");
    if stream.write_all(head.as_bytes()).is_err() {
        return End::CutAtStart;
    }
    match read_answer(&mut stream) {
        Ok((body, may_keep)) => {
            if keep_alive && may_keep {
                *kept = Some(stream);
            }
            pid_in(&body).map_or(End::Wrong, End::Ok)
        }
        Err(end) => end,
    }
}

/// A whole answer: its body, and whether the connection may be used again.
fn read_answer(stream: &mut TcpStream) -> Result<(String, bool), End> {
    let mut got = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        if let Some(whole) = parse(&got) {
            return whole;
        }
        match stream.read(&mut buffer) {
            Ok(0) if got.is_empty() => return Err(End::CutAtStart),
            Ok(0) => return Err(End::Cut),
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            // A child of this process ended, which the kernel tells a read that has a time-out. No connection is hurt.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(End::Hung),
            Err(_) if got.is_empty() => return Err(End::CutAtStart),
            Err(_) => return Err(End::Cut),
        }
    }
}

/// `None` while it is not whole. Content-Length or chunked.
fn parse(got: &[u8]) -> Option<Result<(String, bool), End>> {
    let text = String::from_utf8_lossy(got);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") && !head.starts_with("http/1.0 200") {
        return Some(Err(End::Wrong));
    }
    let may_keep = head.starts_with("http/1.1") && !head.contains("connection: close");
    if head.contains("transfer-encoding: chunked") {
        let whole = body.ends_with("0\r\n\r\n");
        return whole.then(|| Ok((body.to_owned(), may_keep)));
    }
    let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.trim().parse().ok()?;
    (body.len() >= length).then(|| Ok((body.to_owned(), may_keep)))
}

/// The pid in an answer: `"pid":123` or `pid=123`.
fn pid_in(body: &str) -> Option<i32> {
    let at = body.find("pid")?;
    let digits: String =
        body[at + 3..].chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// One request on a connection of its own; the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    get_within(HUNG, address, path)
}

/// As [`get`], for an answer that may take this long.
pub(crate) fn get_within(time: Duration, address: SocketAddr, path: &str) -> Result<String, String> {
    ask(time, TcpStream::connect_timeout(&address, HUNG).map_err(|e| e.to_string())?, path)
}

fn ask(time: Duration, mut stream: TcpStream, path: &str) -> Result<String, String> {
    stream.set_read_timeout(Some(time)).unwrap();
    // In one piece: a server that answers the first one that it reads may be gone before the next.
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    read_answer(&mut stream).map(|(body, _)| body).map_err(|end| format!("{end:?}"))
}

/// The pid that answers a client with this address of its own.
pub(crate) fn who_from(client: Ipv4Addr, address: SocketAddr) -> i32 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect_timeout(&address.into(), HUNG).unwrap();
    pid_in(&ask(HUNG, socket.into(), "/").unwrap()).unwrap()
}

/// The pid that answers.
pub(crate) fn who(address: SocketAddr) -> i32 {
    pid_in(&get(address, "/").unwrap()).unwrap()
}

mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that does this with every connection.
    fn server(act: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(act));
        address
    }

    fn once(address: SocketAddr) -> Tally {
        within(HUNG, address)
    }

    fn within(hung: Duration, address: SocketAddr) -> Tally {
        let tally = Mutex::new(Tally::default());
        one(hung, address, false, &mut None, &tally);
        tally.into_inner().unwrap()
    }

    fn answer(stream: &mut TcpStream, text: &str) {
        let mut head = [0; 512];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(text.as_bytes());
    }

    #[test]
    fn the_client_tells_whole_answers_from_broken_ones() {
        let good = server(|mut s| answer(&mut s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npid=7"));
        assert_eq!(once(good), Tally { ok: 1, by_pid: BTreeMap::from([(7, 1)]), ..Tally::default() });
        let half = server(|mut s| answer(&mut s, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\npid=7"));
        assert_eq!(once(half), Tally { cut: 1, ..Tally::default() });
        let early = server(drop);
        assert_eq!(once(early), Tally { cut: 1, ..Tally::default() });
        let wrong = server(|mut s| answer(&mut s, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(once(wrong), Tally { wrong: 1, ..Tally::default() });
        let silent = server(std::mem::forget);
        assert_eq!(within(Duration::from_millis(200), silent), Tally { hung: 1, ..Tally::default() });
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(once(gone), Tally { refused: 1, ..Tally::default() });
    }

    #[test]
    fn an_idle_close_of_a_kept_connection_is_counted_and_tried_again() {
        let one_each = server(|mut s| answer(&mut s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npid=7"));
        let tally = Mutex::new(Tally::default());
        let mut kept = None;
        one(HUNG, one_each, true, &mut kept, &tally);
        assert!(kept.is_some());
        one(HUNG, one_each, true, &mut kept, &tally);
        let seen = tally.into_inner().unwrap();
        assert_eq!((seen.ok, seen.idle_closed, seen.cut), (2, 1, 0));
    }
}
