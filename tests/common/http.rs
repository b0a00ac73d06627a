//! A client with one kept connection, that sends what a test wants and reads one answer at a time.
use super::wait::{PATIENCE, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// What the app of a test answered: `{"pid": 1, "body": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) pid: i32,
    pub(crate) body: String,
}

/// One kept connection.
pub(crate) struct Kept {
    pub(crate) stream: TcpStream,
    /// What came after the last answer.
    got: Vec<u8>,
}

impl Kept {
    pub(crate) fn connect(address: SocketAddr) -> Kept {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Kept { stream, got: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    /// A POST and its answer.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(&request(path, body));
        self.read()
    }

    /// The same; `None` where the connection ended.
    pub(crate) fn try_post(&mut self, path: &str, body: &str) -> Option<Answer> {
        self.stream.write_all(request(path, body).as_bytes()).ok()?;
        self.try_read()
    }

    /// Reads one answer with status 200. Panics when the connection ends before.
    pub(crate) fn read(&mut self) -> Answer {
        self.try_read().unwrap_or_else(|| panic!("no whole answer, only {:?}", String::from_utf8_lossy(&self.got)))
    }

    fn try_read(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = self.take_answer() {
                return Some(answer);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.got.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn take_answer(&mut self) -> Option<Answer> {
        let text = String::from_utf8_lossy(&self.got).into_owned();
        let (head, rest) = text.split_once("\r\n\r\n")?;
        if head.starts_with("HTTP/1.1 100") {
            self.got.drain(..head.len() + 4);
            return self.take_answer();
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let length = head.to_ascii_lowercase().split("content-length: ").nth(1)?.split("\r\n").next()?.parse().unwrap();
        let json = rest.as_bytes().get(..length)?;
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        self.got.drain(..head.len() + 4 + length);
        let pid = i32::try_from(value["pid"].as_i64().unwrap()).unwrap();
        Some(Answer { pid, body: value["body"].as_str().unwrap_or_default().to_owned() })
    }
}

fn request(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Waits until the server at this address has read everything that clients of IPv4 have sent it.
pub(crate) fn wait_all_read(address: SocketAddr) {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", address.port());
    wait_until("a server that has read everything", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // Number, local address, remote address, state, bytes that wait to be sent and to be read.
        let rows = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let mut server = rows.filter(|row| row[1].ends_with(&port) && row[3] == ESTABLISHED);
        server.all(|row| row[4].ends_with(":00000000"))
    });
}
