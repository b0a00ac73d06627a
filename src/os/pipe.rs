//! Pipes: for workers' output, and for waking a thread.
use nix::fcntl::OFlag;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A pipe: the reading end (non-blocking) and the writing end. Both CLOEXEC. The writing end blocks when the pipe is
/// full, so that a worker that prints faster than it is read is slowed down.
///
/// # Errors
/// Out of fds.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let flags = OFlag::from_bits_truncate(nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Writes one byte, to wake the reader.
pub fn write_byte(pipe: BorrowedFd<'_>) {
    // A full pipe has woken its reader already.
    let _ = nix::unistd::write(pipe, b"x");
}

/// A pipe for a process's stdin: the reading end, which blocks, and the writing end, which does not. Both CLOEXEC.
/// `capacity`: how many bytes may wait in it, as far as the kernel allows it.
///
/// # Errors
/// Out of fds.
pub fn for_input(capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let flags = OFlag::from_bits_truncate(nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // A user with many pipes gets smaller ones.
    let _ = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(capacity.try_into().unwrap_or(i32::MAX)));
    Ok((read, write))
}

/// Writes into a pipe that does not block, all of it or nothing.
///
/// # Errors
/// WouldBlock: there is not enough room. BrokenPipe: nobody has the reading end. InvalidInput: longer than PIPE_BUF, which the
/// kernel might cut.
pub fn write_whole(pipe: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > libc::PIPE_BUF {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Up to PIPE_BUF, a write is never partial.
    nix::unistd::write(pipe, bytes)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes")]
    fn a_pipe_for_input_takes_whole_lines_until_it_is_full_and_ends_with_its_reader() {
        let (read, write) = for_input(65_536).unwrap();
        let line = [b'x'; libc::PIPE_BUF];
        let full = (0..1_000).find_map(|count| write_whole(write.as_fd(), &line).err().map(|e| (count, e.kind())));
        let (count, kind) = full.unwrap();
        assert!(kind == io::ErrorKind::WouldBlock && count > 0 && count <= 16, "{count} {kind}");
        let mut taken = [0; libc::PIPE_BUF];
        assert_eq!(nix::unistd::read(&read, &mut taken), Ok(libc::PIPE_BUF));
        write_whole(write.as_fd(), &line).unwrap();
        let too_long = write_whole(write.as_fd(), &[b'x'; libc::PIPE_BUF + 1]).unwrap_err();
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidInput);
        drop(read);
        assert_eq!(write_whole(write.as_fd(), b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
