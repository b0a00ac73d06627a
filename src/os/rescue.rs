//! Copies of the connections of a process that is about to be killed. Those of which it never read a byte can go to another
//! process when it is dead; before that it might still read.
use super::{connection, process, tracee};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Fds of a process that are looked at.
const FDS_MAX: usize = 16_384;

/// Copies the connections of a process of which no byte was read so far, at most `most`. What else was copied goes to
/// `close`: it may block there, if the process ends just then.
///
/// # Errors
/// The process is gone, or must not be traced.
pub fn copy_untouched(pid: i32, most: usize, close: impl Fn(OwnedFd)) -> io::Result<Vec<OwnedFd>> {
    let process = process::pidfd(pid)?;
    let numbers = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().take(FDS_MAX);
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = Vec::new();
    for number in numbers.filter(|number| tracee::socket_inode(pid, *number).is_some()) {
        let copy = tracee::copy_fd_of(process.as_fd(), number)?;
        if connection::look(copy.as_fd()).is_some_and(|seen| seen.is_alive && seen.is_untouched) {
            found.push(copy);
        } else {
            close(copy);
        }
        if found.len() == most {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know processes")]
    fn only_what_was_never_read_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients: Vec<TcpStream> =
            (0..2).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let mut served: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        for client in &mut clients {
            client.write_all(b"GET").unwrap();
        }
        served[0].read_exact(&mut [0; 1]).unwrap();
        let inherited = |stream: &TcpStream| Stdio::from(OwnedFd::from(stream.try_clone().unwrap()));
        let mut child =
            Command::new("sleep").arg("60").stdin(inherited(&served[0])).stdout(inherited(&served[1])).spawn().unwrap();
        let pid = child.id().cast_signed();
        drop(served);
        let taken = copy_untouched(pid, 8, drop);
        child.kill().unwrap();
        child.wait().unwrap();
        let Ok(taken) = taken else { return eprintln!("skipped: a child must not be traced here: {taken:?}") };
        assert_eq!(taken.len(), 1);
        let mut rescued = TcpStream::from(taken.into_iter().next().unwrap());
        let mut request = [0; 3];
        rescued.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"GET");
        rescued.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        clients[1].read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }
}
