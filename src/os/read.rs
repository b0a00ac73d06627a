//! Reads whole files that others may have put there: bounded in size, and in time if they are not regular files (a pipe
//! without a writer, a terminal).
use super::poll;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// The whole content. A file that is not regular may deliver it in pieces, for at most `time_ms` milliseconds.
///
/// # Errors
/// Those of open(2) and read(2); `IsADirectory`; `FileTooLarge` over `bytes_max`; `TimedOut`.
pub fn whole(path: &Path, bytes_max: u64, time_ms: u64) -> io::Result<Vec<u8>> {
    whole_file(open(path)?, bytes_max, time_ms)
}

/// A file to read, whatever stands there: without O_NONBLOCK, opening a pipe would wait for its writer.
///
/// # Errors
/// Those of open(2).
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// As [`whole`], of a file that was opened with O_NONBLOCK.
///
/// # Errors
/// As [`whole`].
pub fn whole_file(file: File, bytes_max: u64, time_ms: u64) -> io::Result<Vec<u8>> {
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    if found.is_file() {
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    } else {
        read_pieces(file, bytes_max, time_ms, &mut bytes)?;
    }
    if bytes.len() as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn read_pieces(mut file: File, bytes_max: u64, time_ms: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let until = Instant::now() + Duration::from_millis(time_ms);
    let is_pipe = file.metadata()?.file_type().is_fifo();
    let mut piece = [0_u8; 4096];
    while bytes.len() as u64 <= bytes_max {
        match file.read(&mut piece) {
            // A pipe without a writer reads as if it had ended: a writer may still come.
            Ok(0) if !is_pipe || !bytes.is_empty() || poll::is_hung_up(file.as_fd()) => return Ok(()),
            Ok(0) => std::thread::sleep(Duration::from_millis(1)),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left_ms = until.saturating_duration_since(Instant::now()).as_millis();
                let mut interests = [poll::Interest::new(file.as_fd(), false)];
                poll::wait(&mut interests, Some(u64::try_from(left_ms).unwrap_or(0).max(1)))?;
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    fn fifo(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("clusterd-read-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes and poll")]
    fn a_pipe_that_nobody_writes_to_ends_the_wait() {
        let path = fifo("silent");
        assert_eq!(whole(&path, 100, 50).unwrap_err().kind(), io::ErrorKind::TimedOut);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes and poll")]
    fn a_pipe_with_a_writer_is_read_to_its_end() {
        let path = fifo("written");
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
                for piece in [b"A=1\n", b"B=2\n"] {
                    pipe.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        assert_eq!(whole(&path, 100, 20_000).unwrap(), b"A=1\nB=2\n");
        writer.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes and poll")]
    fn folders_and_endless_files_are_refused() {
        assert_eq!(whole(Path::new("/"), 100, 50).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(whole(Path::new("/dev/zero"), 100, 5_000).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(whole(Path::new("/dev/null"), 100, 5_000).unwrap(), b"");
    }
}
