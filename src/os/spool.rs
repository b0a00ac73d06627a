//! Buffers for bytes from pipes that outlive the process. The fill position is kept by the kernel (the file position),
//! and advanced by the same system call that takes the bytes, so that it is exact even if the process dies right
//! afterwards.
use super::shared::Shared;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A spool of a fixed size. One process uses it at a time: other holders of its fd leave it alone.
#[derive(Debug)]
pub struct Spool {
    memory: Shared,
}

impl Spool {
    /// Creates an empty spool.
    ///
    /// # Errors
    /// Out of fds or memory.
    pub fn new(name: &str, bytes: usize) -> io::Result<Spool> {
        Ok(Spool { memory: Shared::new(name, bytes)? })
    }

    /// Takes over the spool of a previous process.
    ///
    /// # Errors
    /// As [`Shared::adopt`].
    pub fn adopt(fd: OwnedFd, bytes: usize) -> io::Result<Spool> {
        Ok(Spool { memory: Shared::adopt(fd, bytes)? })
    }

    /// Moves at most `bytes_max` bytes from the pipe to the position, and advances it. `Some(0)`: no writer is left and
    /// the pipe is empty. `None`: nothing now.
    ///
    /// # Errors
    /// As splice(2).
    pub fn take(&mut self, pipe: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Option<usize>> {
        let to = self.memory.as_fd().as_raw_fd();
        loop {
            // SAFETY: no offsets are passed. The kernel writes into the file, which only `&mut self` may change.
            let moved = unsafe {
                let none = std::ptr::null_mut();
                libc::splice(pipe.as_raw_fd(), none, to, none, bytes_max, libc::SPLICE_F_NONBLOCK)
            };
            match Errno::result(moved) {
                Ok(moved) => return Ok(Some(moved.unsigned_abs())),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The fill position.
    ///
    /// # Errors
    /// As lseek(2).
    pub fn position(&self) -> io::Result<u64> {
        Ok(lseek(&self.memory, 0, Whence::SeekCur)?.unsigned_abs())
    }

    /// Sets the fill position.
    ///
    /// # Errors
    /// As lseek(2).
    pub fn seek(&mut self, to: u64) -> io::Result<()> {
        lseek(&self.memory, i64::try_from(to).map_err(io::Error::other)?, Whence::SeekSet)?;
        Ok(())
    }

    /// The whole content, filled or not.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: in this process only `&mut self` changes it, and no other process does (see the type).
        unsafe { self.memory.bytes() }
    }

    /// Copies a piece of another spool to this place.
    pub fn put(&mut self, at: usize, from: &Spool, piece: Range<usize>) {
        // SAFETY: `&mut self`, and no other process looks (see the type).
        let own = unsafe { self.memory.bytes_mut() };
        own[at..at + piece.len()].copy_from_slice(&from.bytes()[piece]);
    }

    /// Returns the memory after `from` to the system; it reads as zeros then.
    pub fn release(&mut self, from: u64) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let length = (self.bytes().len() as u64).saturating_sub(from);
        // SAFETY: takes no pointers. Without it the memory stays in use, no more.
        unsafe { libc::fallocate64(self.memory.as_fd().as_raw_fd(), mode, from.cast_signed(), length.cast_signed()) };
    }
}

impl AsFd for Spool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::pipe;
    use std::fs::File;
    use std::io::Write;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know memfd_create")]
    fn what_was_taken_is_known_to_whoever_has_the_fd() {
        let (read, write) = pipe::pair().unwrap();
        let mut write = File::from(write);
        let mut spool = Spool::new("test", 256 * 1024).unwrap();
        assert_eq!(spool.take(read.as_fd(), 1000).unwrap(), None);
        write.write_all(b"hello").unwrap();
        assert_eq!(spool.take(read.as_fd(), 3).unwrap(), Some(3));
        let mut next = Spool::adopt(spool.as_fd().try_clone_to_owned().unwrap(), 256 * 1024).unwrap();
        drop(spool);
        assert_eq!(next.position().unwrap(), 3);
        assert_eq!(next.take(read.as_fd(), 1000).unwrap(), Some(2));
        assert_eq!(&next.bytes()[..6], b"hello\0");
        drop(write);
        assert_eq!(next.take(read.as_fd(), 1000).unwrap(), Some(0));
        next.seek(1).unwrap();
        assert_eq!(next.position().unwrap(), 1);
        let mut other = Spool::new("other", 4096).unwrap();
        other.put(10, &next, 0..5);
        assert_eq!(&other.bytes()[9..16], b"\0hello\0");
        other.release(0);
        assert_eq!(&other.bytes()[9..16], &[0; 7]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know memfd_create")]
    fn nothing_is_taken_beyond_its_end() {
        let (read, write) = pipe::pair().unwrap();
        File::from(write).write_all(&[b'x'; 5000]).unwrap();
        let mut spool = Spool::new("test", 4096).unwrap();
        assert_eq!(spool.take(read.as_fd(), 5000).unwrap(), Some(4096));
        assert!(spool.take(read.as_fd(), 5000).is_err());
    }
}
