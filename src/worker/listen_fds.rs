//! systemd's socket passing (sd_listen_fds(3)), in both directions: workers that inherit their sockets, and the
//! variables by which clusterd itself gets sockets.
use super::{Environment, Inherited, Spawn, WorkerProtocol};
use crate::config::ProtocolKind;
use crate::limits;
use thiserror::Error;

/// Programs that take listening sockets from `LISTEN_FDS` and accept by themselves.
#[derive(Debug)]
pub struct ListenFds;

impl WorkerProtocol for ListenFds {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::ListenFds
    }

    fn inherited(&self) -> Inherited {
        Inherited::Listeners
    }

    fn variables(&self) -> &'static [&'static str] {
        &["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"]
    }

    fn environment(&self, spawn: &Spawn<'_>, env: &mut Environment) {
        let mut set = |name: &str, value: String| env.insert(name.into(), value.into());
        if !spawn.listen_names.is_empty() {
            set("LISTEN_FDS", spawn.listen_names.len().to_string());
            set("LISTEN_FDNAMES", spawn.listen_names.join(":"));
        }
        if let Some(notify) = spawn.notify {
            set("NOTIFY_SOCKET", notify.to_owned());
        }
    }

    fn needs_listen_pid(&self) -> bool {
        true
    }
}

/// clusterd's own `LISTEN_PID` or `LISTEN_FDS` is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadListenFds {
    /// Not a process id.
    #[error("LISTEN_PID is {0:?}, not a process id")]
    Pid(String),
    /// Not a number.
    #[error("LISTEN_FDS is {0:?}, not a number")]
    Count(String),
    /// More than any app may listen on.
    #[error("LISTEN_FDS is {0}; at most {max} are taken", max = limits::LISTENERS_PER_APP_MAX)]
    TooMany(usize),
}

/// A name for `LISTEN_FDNAMES`: colons separate names there, so that they and control characters become `_`.
pub fn escape_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c == ':' || c.is_control() { '_' } else { c }).take(255).collect();
    if clean.is_empty() { "unknown".to_owned() } else { clean }
}

/// The number of sockets passed to the process `own_pid`, from the values of `LISTEN_PID` and `LISTEN_FDS`. `None` if
/// they were meant for another process.
///
/// # Errors
/// The values are not numbers, or out of range.
pub fn count(listen_pid: Option<&str>, listen_fds: Option<&str>, own_pid: u32) -> Result<usize, BadListenFds> {
    let (Some(pid), Some(fds)) = (listen_pid, listen_fds) else { return Ok(0) };
    let pid: u32 = pid.parse().map_err(|_| BadListenFds::Pid(pid.to_owned()))?;
    let count: usize = fds.parse().map_err(|_| BadListenFds::Count(fds.to_owned()))?;
    if pid != own_pid {
        return Ok(0);
    }
    if count > limits::LISTENERS_PER_APP_MAX {
        return Err(BadListenFds::TooMany(count));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_by_the_process_that_was_meant() {
        assert_eq!(count(Some("7"), Some("2"), 7), Ok(2));
        assert_eq!(count(Some("8"), Some("2"), 7), Ok(0));
        assert_eq!(count(None, Some("2"), 7), Ok(0));
        assert!(count(Some("7"), Some("many"), 7).is_err());
        assert!(count(Some("7"), Some("100000"), 7).is_err());
    }

    #[test]
    fn names_hold_no_colon() {
        assert_eq!(escape_name("127.0.0.1:80"), "127.0.0.1_80");
        assert_eq!(escape_name(""), "unknown");
    }
}
