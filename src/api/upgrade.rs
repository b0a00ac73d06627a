//! Asks a binary whether it could take over from what runs. It is run as a child, with a snapshot as its standard input,
//! and has to say so; it never touches what runs.
use crate::limits;
use crate::os::process;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// argv\[0\] by which a clusterd knows that it is asked.
pub const UPGRADE_ARGV0: &str = "clusterd: can you take over?";
/// First word of the answer of one that can.
pub const CAN_TAKE_OVER: &str = "clusterd";

/// Opens the binary and asks it. It is held by its fd from then on, whatever its path names later.
///
/// # Errors
/// A sentence: it cannot be opened or run, is no clusterd, cannot read the snapshot, or gives no answer.
pub(super) fn ask(path: &str, snapshot: &OwnedFd) -> Result<OwnedFd, String> {
    if !Path::new(path).is_absolute() {
        return Err(format!("{path} is no absolute path"));
    }
    let binary = process::open_program(Path::new(path)).map_err(|e| format!("cannot open {path}: {e}"))?;
    // A file of its own: its position is not shared with anybody who reads the snapshot too.
    let input = File::open(format!("/proc/self/fd/{}", snapshot.as_fd().as_raw_fd()))
        .map_err(|e| format!("cannot open the snapshot: {e}"))?;
    let mut child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0(UPGRADE_ARGV0)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot run {path}: {e}"))?;
    let status = end_of(&mut child).map_err(|why| format!("{path} {why}"))?;
    let mut said = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        // It has ended, so the pipe holds all that it will: no more than a pipe holds.
        let _ = out.by_ref().take(limits::UPGRADE_ANSWER_BYTES_MAX).read_to_end(&mut said);
    }
    let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).collect();
    match said.strip_prefix(CAN_TAKE_OVER) {
        Some(_) if status.success() => Ok(binary),
        Some(why) => Err(format!("{path} cannot take over{why}")),
        None => Err(format!("{path} is not a clusterd that can take over ({status})")),
    }
}

/// Waits for its end, for a bounded time.
fn end_of(child: &mut Child) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + Duration::from_millis(limits::UPGRADE_CHECK_MS);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(limits::UPGRADE_CHECK_STEP_MS));
            }
            Ok(None) => {
                // It may end by itself at this moment; either way it is gone after the wait.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("gave no answer in {} s", limits::UPGRADE_CHECK_MS / 1000));
            }
            Err(e) => return Err(format!("cannot be waited for: {e}")),
        }
    }
}
