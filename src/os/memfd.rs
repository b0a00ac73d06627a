//! Anonymous files: for messages between two processes that are larger than a packet.
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Creates an anonymous file that holds `bytes`.
///
/// # Errors
/// As memfd_create(2) and write(2): out of fds or memory.
pub fn with_contents(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
    let file = File::from(fd);
    file.write_all_at(bytes, 0)?;
    Ok(file.into())
}

/// Reads the whole file behind `fd` from its start; the file position is neither used nor changed.
///
/// # Errors
/// `FileTooLarge` over `bytes_max`; errors of pread(2) when `fd` is not a file.
pub fn contents(fd: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = File::from(fd.try_clone_to_owned()?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let length = usize::try_from(metadata.len()).ok().filter(|length| *length <= bytes_max);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know memfd_create")]
    fn what_goes_in_comes_out_and_the_bound_holds() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let fd = with_contents("test", &bytes).unwrap();
        assert_eq!(contents(fd.as_fd(), bytes.len()).unwrap(), bytes);
        assert_eq!(contents(fd.as_fd(), bytes.len()).unwrap(), bytes);
        assert_eq!(contents(fd.as_fd(), bytes.len() - 1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know memfd_create")]
    fn a_pipe_is_refused_and_never_waited_for() {
        let (read, _write) = io::pipe().unwrap();
        assert_eq!(contents(read.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
