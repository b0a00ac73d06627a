//! Connections, a thread for each, and the end of a worker: who is being answered gets the whole answer, who has not sent a
//! request yet may send one, and connections at rest are closed.
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long clients may take for a request, and how long the end of the worker waits for them.
const PATIENCE: Duration = Duration::from_secs(20);

/// The connections that are open.
#[derive(Default)]
struct Open {
    streams: HashMap<u64, Connection>,
    taken: u64,
    /// No connection is kept after its answer.
    is_ending: bool,
}

struct Connection {
    stream: TcpStream,
    /// It was kept after an answer.
    is_kept: bool,
}

#[derive(Default)]
pub(crate) struct Server {
    open: Mutex<Open>,
    closed: Condvar,
}

impl Server {
    /// Answers what comes over this connection, on a thread of its own.
    ///
    /// # Errors
    /// There are no threads or file descriptors left.
    pub(crate) fn take(self: &Arc<Server>, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let copy = stream.try_clone()?;
        let number = {
            let mut open = self.lock();
            open.taken += 1;
            let number = open.taken;
            open.streams.insert(number, Connection { stream: copy, is_kept: false });
            number
        };
        let server = Arc::clone(self);
        let answering = move || {
            // A client that went away, or sent what is not HTTP, is nobody's trouble.
            let _ = server.answer_all(number, stream);
            server.forget(number);
        };
        thread::Builder::new().spawn(answering).map(drop).inspect_err(|_| self.forget(number))
    }

    /// Waits until everybody has the answer.
    pub(crate) fn finish(&self) {
        let mut open = self.lock();
        open.is_ending = true;
        for connection in open.streams.values().filter(|connection| connection.is_kept) {
            // What has arrived is read and answered; after that comes the end.
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
        let is_waiting = |open: &mut Open| !open.streams.is_empty();
        let _ = self.closed.wait_timeout_while(open, PATIENCE, is_waiting);
    }

    fn answer_all(&self, number: u64, mut stream: TcpStream) -> io::Result<()> {
        let mut received = Vec::new();
        while let Some(head) = read_head(&mut stream, &mut received)? {
            let is_kept = !head.contains("connection: close") && self.keeps(number);
            let connection = if is_kept { "keep-alive" } else { "close" };
            let body = format!("pid={}\n", std::process::id());
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes())?;
            if !is_kept {
                break;
            }
        }
        Ok(())
    }

    /// Whether a connection stays open after the answer that comes now.
    fn keeps(&self, number: u64) -> bool {
        let mut open = self.lock();
        let keeps = !open.is_ending;
        if let Some(connection) = open.streams.get_mut(&number) {
            connection.is_kept = keeps;
        }
        keeps
    }

    fn forget(&self, number: u64) {
        self.lock().streams.remove(&number);
        self.closed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next head, in small letters. `None`: the client has closed.
fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<String>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut piece = [0; 4096];
    loop {
        if let Some(at) = received.windows(END.len()).position(|window| window == END) {
            let head = received.drain(..at + END.len()).collect::<Vec<u8>>();
            return Ok(Some(String::from_utf8_lossy(&head).to_ascii_lowercase()));
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            count => received.extend_from_slice(&piece[..count]),
        }
    }
}
