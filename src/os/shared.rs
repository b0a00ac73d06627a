//! Memory that outlives the process: a mapped anonymous file. Another process that holds its fd keeps the content.
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A mapped anonymous file of a fixed size. Only touched pages use memory.
#[derive(Debug)]
pub struct Shared {
    fd: OwnedFd,
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping belongs to this value and is unmapped when it is dropped; nothing about it is bound to a thread.
unsafe impl Send for Shared {}
// SAFETY: through a shared reference only atomics are handed out, and bytes by those who uphold `bytes`' contract.
unsafe impl Sync for Shared {}

impl Shared {
    /// Creates a file of `bytes` bytes, all zero.
    ///
    /// # Errors
    /// Out of fds or memory.
    pub fn new(name: &str, bytes: usize) -> io::Result<Shared> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = File::from(fd);
        file.set_len(bytes as u64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Shared::map(file.into(), bytes)
    }

    /// Maps a file that another process created.
    ///
    /// # Errors
    /// `InvalidInput`: it is not such a file, or of another size.
    pub fn adopt(fd: OwnedFd, bytes: usize) -> io::Result<Shared> {
        let file = File::from(fd);
        let sealed = fcntl(&file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| seals & libc::F_SEAL_SHRINK != 0);
        if !sealed || file.metadata()?.len() != bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no shared memory of this size"));
        }
        Shared::map(file.into(), bytes)
    }

    fn map(fd: OwnedFd, bytes: usize) -> io::Result<Shared> {
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses. The file has this size and is sealed against
        // shrinking, so no access faults.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, &fd, 0)? };
        Ok(Shared { fd, start, bytes })
    }

    /// The content as numbers that any process may change.
    #[must_use]
    pub fn cells(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and every bit pattern is a valid number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes.get() / size_of::<AtomicU64>()) }
    }

    /// The content as bytes.
    ///
    /// # Safety
    /// While the slice lives nobody changes these bytes, in whatever process.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as `self`; that nothing changes is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes.get()) }
    }

    /// The content as mutable bytes.
    ///
    /// # Safety
    /// While the slice lives nobody else looks at or changes these bytes, in whatever process.
    pub(super) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped as long as `self`; that nobody else has it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes.get()) }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping; every slice of it borrowed from it and is gone.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know mmap of files")]
    fn what_one_writes_another_who_has_the_fd_reads() {
        let first = Shared::new("test", 8192).unwrap();
        first.cells()[1000].store(7, Ordering::Release);
        let second = Shared::adopt(first.as_fd().try_clone_to_owned().unwrap(), 8192).unwrap();
        drop(first);
        assert_eq!(second.cells()[1000].load(Ordering::Acquire), 7);
        assert!(Shared::adopt(second.as_fd().try_clone_to_owned().unwrap(), 4096).is_err());
        assert!(Shared::adopt(File::open("/dev/null").unwrap().into(), 4096).is_err());
    }
}
