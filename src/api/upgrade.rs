//! Asks a binary whether it could take over the deployment. It runs as a child with a snapshot as its standard input,
//! and never touches the deployment itself.
use crate::limits;
use crate::os::process;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Time limit for a new binary to say whether it can take over, in milliseconds.
const UPGRADE_CHECK_MS: u64 = 10_000;

/// Pause between two checks whether it has exited, in milliseconds.
const UPGRADE_CHECK_STEP_MS: u64 = 5;

/// argv\[0\] by which clusterd recognizes the question.
pub const UPGRADE_ARGV0: &str = "clusterd: can you take over?";
/// The start of a positive answer.
pub const CAN_TAKE_OVER: &str = "clusterd";

/// Why a binary cannot take over.
#[derive(Debug, Error)]
pub(super) enum UpgradeError {
    #[error("{0} is not an absolute path")]
    NotAbsolute(String),
    #[error("cannot open {path}: {source}")]
    Open { path: String, source: io::Error },
    #[error("cannot open the snapshot: {0}")]
    Snapshot(#[source] io::Error),
    #[error("cannot run {path}: {source}")]
    Run { path: String, source: io::Error },
    #[error("{path} gave no answer in {s} s", s = UPGRADE_CHECK_MS / 1000)]
    Silent { path: String },
    #[error("{path} cannot be waited for: {source}")]
    Wait { path: String, source: io::Error },
    /// The binary is clusterd, but refuses; `why` begins with a colon.
    #[error("{path} cannot take over{why}")]
    Unable { path: String, why: String },
    #[error("{path} is not a clusterd that can take over ({status})")]
    Foreign { path: String, status: ExitStatus },
}

/// Opens the binary and asks it. Its fd identifies it from then on, whatever its path names later.
///
/// # Errors
/// It cannot be opened or run, is not clusterd, cannot read the snapshot, or gives no answer.
pub(super) fn check(path: &str, snapshot: &OwnedFd) -> Result<OwnedFd, UpgradeError> {
    let owned = || path.to_owned();
    if !Path::new(path).is_absolute() {
        return Err(UpgradeError::NotAbsolute(owned()));
    }
    let binary =
        process::open_program(Path::new(path)).map_err(|source| UpgradeError::Open { path: owned(), source })?;
    // A file description of its own: the position is not shared with other readers of the snapshot.
    let input =
        File::open(format!("/proc/self/fd/{}", snapshot.as_fd().as_raw_fd())).map_err(UpgradeError::Snapshot)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0(UPGRADE_ARGV0)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| UpgradeError::Run { path: owned(), source })?;
    let status = end_of(&mut child, path)?;
    let mut said = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        // It has ended, so the pipe has its whole output, at most the capacity of a pipe.
        let _ = out.by_ref().take(limits::UPGRADE_ANSWER_BYTES_MAX).read_to_end(&mut said);
    }
    let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).collect();
    match said.strip_prefix(CAN_TAKE_OVER) {
        Some(_) if status.success() => Ok(binary),
        Some(why) => Err(UpgradeError::Unable { path: owned(), why: why.to_owned() }),
        None => Err(UpgradeError::Foreign { path: owned(), status }),
    }
}

/// Waits for its exit, for a bounded time.
fn end_of(child: &mut Child, path: &str) -> Result<ExitStatus, UpgradeError> {
    let deadline = Instant::now() + Duration::from_millis(UPGRADE_CHECK_MS);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(UPGRADE_CHECK_STEP_MS));
            }
            Ok(None) => {
                // It may exit by itself at this moment; either way it is gone after the wait.
                let _ = child.kill();
                let _ = child.wait();
                return Err(UpgradeError::Silent { path: path.to_owned() });
            }
            Err(source) => return Err(UpgradeError::Wait { path: path.to_owned(), source }),
        }
    }
}
