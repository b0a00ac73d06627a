//! The control API as a test asks it: over the socket, without the command line in between.
use clusterd::api::types::Deployment;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest silence before an answer is whole. A master that died in between is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the first deployment of a home says of itself, if it answers.
pub(crate) fn deployment(home: &Path) -> Option<Deployment> {
    serde_json::from_slice(&get(&sockets(home).into_iter().next()?, "/v1/apps")?).ok()
}

/// The control sockets of a home, in the order of their names.
fn sockets(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("run")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "sock")).collect();
    found.sort();
    found
}

/// The body of an answer that came whole and well.
fn get(socket: &Path, path: &str) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: clusterd\r\nconnection: close\r\n\r\n").ok()?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    answer.starts_with(b"HTTP/1.1 200").then(|| answer.split_off(head + 4))
}
