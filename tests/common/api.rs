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
    let (status, body) = request(&sockets(home).into_iter().next()?, "GET", "/v1/apps", "*/*")?;
    (status == 200).then(|| serde_json::from_slice(&body).ok()).flatten()
}

/// The status and the body of what the first deployment of a home has at this path.
pub(crate) fn get(home: &Path, path: &str) -> (u16, String) {
    get_as(home, path, "*/*")
}

/// The same in this form.
pub(crate) fn get_as(home: &Path, path: &str, accept: &str) -> (u16, String) {
    let socket = sockets(home).into_iter().next().expect("a control socket");
    let (status, body) = request(&socket, "GET", path, accept).expect("an answer");
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Asks the first deployment of a home for something; the status and the body.
pub(crate) fn post(home: &Path, path: &str) -> (u16, String) {
    let socket = sockets(home).into_iter().next().expect("a control socket");
    let (status, body) = request(&socket, "POST", path, "*/*").expect("an answer");
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The control sockets of a home, in the order of their names.
fn sockets(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("run")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "sock")).collect();
    found.sort();
    found
}

/// The status and the body of an answer that came whole.
fn request(socket: &Path, method: &str, path: &str, accept: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: clusterd\r\naccept: {accept}\r\nconnection: close\r\n\r\n")
        .ok()?;
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
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((status, answer.split_off(head + 4)))
}
