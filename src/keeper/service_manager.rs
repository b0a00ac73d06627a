//! What the keeper tells the service manager that started it, as sd_notify(3) has it: systemd, or whoever sets `NOTIFY_SOCKET`.
//!
//! Where it offers a store for files (`FDSTORE`), listening sockets are put there: when the keeper itself is killed, it
//! passes them to the next one, and connections wait meanwhile.
use super::INHERITED_PREFIX;
use super::system::System;
use super::table::Table;
use std::fmt::Write as _;

/// Held files that are put into the store: listening sockets.
const STORED_PREFIX: &str = "listen/";
/// systemd takes no longer name, in bytes.
const STORED_NAME_BYTES_MAX: usize = 255;

/// What happens, in the words of the protocol and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News<'a> {
    /// Every app serves: after the start, and at the end of a reload.
    Serving,
    /// A reload begins, by a signal.
    Reloading,
    /// Everything drains and ends.
    Stopping,
    /// The master has ended; this is how. Its successor says again that everything serves.
    WithoutMaster(&'a str),
}

/// The service manager.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// It stores files.
    has_store: bool,
    watchdog: Option<Watchdog>,
}

/// It expects a sign of life.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every_ms: u64,
    next_ms: u64,
}

impl ServiceManager {
    /// Reads `FDSTORE`, `WATCHDOG_USEC` and `WATCHDOG_PID` of this process.
    pub(super) fn new(system: &impl System) -> ServiceManager {
        let variables = system.environment();
        let variable = |wanted: &str| {
            let (_, value) = variables.iter().find(|(name, _)| name == wanted)?;
            value.to_str()?.parse::<u64>().ok()
        };
        let for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(system.own_pid()));
        let time_us = variable("WATCHDOG_USEC").filter(|time_us| *time_us > 0 && for_us);
        // As sd_watchdog_enabled(3) advises: twice in its time.
        let watchdog = time_us.map(|us| Watchdog { every_ms: (us / 2_000).max(1), next_ms: 0 });
        let is_there = variables.iter().any(|(name, at)| name == "NOTIFY_SOCKET" && !at.is_empty());
        let has_store = is_there && variable("FDSTORE").is_some_and(|files| files > 0);
        ServiceManager { has_store, watchdog }
    }

    /// Whether it keeps listening sockets for the next start.
    pub(super) fn has_store(&self) -> bool {
        self.has_store
    }

    /// A file is held under this name now, perhaps in the place of another one.
    pub(super) fn store<S: System>(&self, system: &S, name: &str, fd: &S::Fd, replaces: bool) {
        if !self.has_store || !name.starts_with(STORED_PREFIX) {
            return;
        }
        let stored = stored_name(name);
        if stored.len() > STORED_NAME_BYTES_MAX {
            return system.say(&format!("clusterd: cannot store {name} with the service manager: its name is longer than {STORED_NAME_BYTES_MAX} bytes"));
        }
        if replaces {
            system.tell_service_manager(&format!("FDSTOREREMOVE=1\nFDNAME={stored}"));
        }
        system.tell_service_manager_with(&format!("FDSTORE=1\nFDNAME={stored}"), fd);
    }

    /// The file of this name was released.
    pub(super) fn remove<S: System>(&self, system: &S, table: &Table<S::Fd>, name: &str) {
        if !self.has_store {
            return;
        }
        // What came out of the store has the name that it had there, and is in use again under its own.
        let inherited = name.strip_prefix(INHERITED_PREFIX).and_then(|rest| rest.split_once('/'));
        let stored = match inherited {
            Some((_, stored)) if table.held().any(|(held, _)| stored_name(held) == stored) => return,
            Some((_, stored)) => stored.to_owned(),
            None if name.starts_with(STORED_PREFIX) => stored_name(name),
            None => return,
        };
        if !stored.is_empty() {
            system.tell_service_manager(&format!("FDSTOREREMOVE=1\nFDNAME={stored}"));
        }
    }

    /// When [`ServiceManager::beat`] is due.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.watchdog.map(|watchdog| watchdog.next_ms)
    }

    /// Gives a sign of life, if one is due.
    pub(super) fn beat(&mut self, system: &impl System, now_ms: u64) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now_ms >= watchdog.next_ms) {
            watchdog.next_ms = now_ms + watchdog.every_ms;
            system.tell_service_manager("WATCHDOG=1");
        }
    }

    /// Tells what happens.
    pub(super) fn tell(&self, system: &impl System, news: News<'_>) {
        let text = match news {
            News::Serving => "READY=1\nSTATUS=Serving".to_owned(),
            // The time tells systemd that its own signal caused this reload.
            News::Reloading => {
                format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", system.now_us())
            }
            News::Stopping => "STOPPING=1\nSTATUS=Finishing open connections, then ending".to_owned(),
            News::WithoutMaster(how) => format!("STATUS=The master {how}; starting another one"),
        };
        system.tell_service_manager(&text);
    }
}

/// The name of a held file in the store: without what systemd refuses there (`:`, and what is not printable ASCII).
fn stored_name(name: &str) -> String {
    let mut stored = String::new();
    for byte in name.bytes() {
        match byte {
            b'%' | b':' | ..=b' ' | 0x7f.. => {
                let _ = write!(stored, "%{byte:02X}");
            }
            _ => stored.push(char::from(byte)),
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_store_are_such_as_systemd_takes() {
        assert_eq!(stored_name("listen/web/127.0.0.1:80#0"), "listen/web/127.0.0.1%3A80#0");
        assert_eq!(stored_name("listen/a b/\u{e4}%"), "listen/a%20b/%C3%A4%25");
    }
}
