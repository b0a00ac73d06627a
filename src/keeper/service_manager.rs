//! What the keeper tells the service manager that started it, as sd_notify(3) has it: systemd, or whoever sets `NOTIFY_SOCKET`.
//!
//! Where it offers a store for files (`FDSTORE`), listening sockets are put there, with those of slots: when the keeper itself is
//! killed, it passes them to the next one, and connections wait meanwhile.
use super::INHERITED_PREFIX;
use super::system::System;
use super::table::Table;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

/// Held files that are put into the store: listening sockets, and the further ones of reuseport groups.
const STORED_PREFIXES: [&str; 2] = ["listen/", "slot/"];
/// systemd takes no longer name, in bytes.
const STORED_NAME_BYTES_MAX: usize = 255;
/// Messages that wait until it reads: some for each file that it may store.
const UNSENT_MAX: usize = 4096;
/// Pause before they are sent again, in milliseconds.
const SEND_AGAIN_MS: u64 = 20;

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
    store: Option<Store>,
    watchdog: Option<Watchdog>,
    unsent: VecDeque<Message>,
    /// It has not read what was sent before: the next try.
    send_at_ms: Option<u64>,
    /// It was said that messages are lost.
    is_loss_said: bool,
}

/// What it is told.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Text(String),
    /// To store the file that is held under this name, if it still is.
    Store(String),
}

/// What it stores.
#[derive(Debug)]
struct Store {
    /// It takes no more files.
    files_max: usize,
    /// The names of those that it has, as they are held here.
    names: BTreeSet<String>,
    /// It was said that it takes no more.
    is_full_said: bool,
    /// A file was removed under the name that an earlier keeper gave it. It may be held under another name here, for which the
    /// service manager ignored it, because it had it already.
    is_renamed: bool,
}

/// It expects a sign of life.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every_ms: u64,
    next_ms: u64,
}

impl ServiceManager {
    /// Reads `FDSTORE`, `WATCHDOG_USEC` and `WATCHDOG_PID` of this process. The files of the table were stored before this process
    /// became the keeper.
    pub(super) fn new<S: System>(system: &S, table: &Table<S::Fd>) -> ServiceManager {
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
        let files_max = variable("FDSTORE").filter(|files| is_there && *files > 0);
        let store = files_max.map(|files| {
            let files_max = usize::try_from(files).unwrap_or(usize::MAX);
            // Where there are more than fit in, it is not known which ones were left out. They are removed once too often.
            let held = table.held().map(|(name, _)| name).filter(|name| is_stored(name));
            let names = held.take(files_max).map(str::to_owned).collect();
            Store { files_max, names, is_full_said: false, is_renamed: false }
        });
        // What the keeper before could not send any more. The service manager ignores what it has.
        let names = store.iter().flat_map(|store: &Store| &store.names);
        let unsent = names.map(|name| Message::Store(name.clone())).collect();
        ServiceManager { store, watchdog, unsent, send_at_ms: None, is_loss_said: false }
    }

    /// Whether it keeps listening sockets for the next start.
    pub(super) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Whether it stores files that are held under such a name.
    pub(super) fn stores(&self, name: &str) -> bool {
        self.has_store() && is_stored(name)
    }

    /// A file is held under this name now, perhaps in the place of another one.
    pub(super) fn store(&mut self, system: &impl System, name: &str, replaces: bool) {
        let Some(store) = self.store.as_mut().filter(|_| is_stored(name)) else { return };
        let is_known = store.names.contains(name);
        if is_known && !replaces {
            return;
        }
        let stored = stored_name(name);
        if stored.len() > STORED_NAME_BYTES_MAX {
            return system.say(&format!("clusterd: cannot store {name} with the service manager: its name is longer than {STORED_NAME_BYTES_MAX} bytes"));
        }
        if !is_known && store.names.len() >= store.files_max {
            if !std::mem::replace(&mut store.is_full_said, true) {
                system.say(&format!(
                    "clusterd: cannot store {name} with the service manager: it takes no more than {} files (FileDescriptorStoreMax=, FDSTORE)",
                    store.files_max
                ));
            }
            return;
        }
        store.names.insert(name.to_owned());
        if replaces {
            self.push(system, Message::Text(format!("FDSTOREREMOVE=1\nFDNAME={stored}")));
        }
        self.push(system, Message::Store(name.to_owned()));
    }

    /// The file of this name was released.
    pub(super) fn remove<S: System>(&mut self, system: &S, table: &Table<S::Fd>, name: &str) {
        let Some(store) = &mut self.store else { return };
        // What came out of the store has the name that it had there, and is in use again under its own.
        let inherited = name.strip_prefix(INHERITED_PREFIX).and_then(|rest| rest.split_once('/'));
        let stored = match inherited {
            Some((_, stored)) if table.held().any(|(held, _)| stored_name(held) == stored) => return,
            Some((_, stored)) => {
                store.is_renamed = true;
                stored.to_owned()
            }
            None if store.names.remove(name) => stored_name(name),
            None => return,
        };
        if !stored.is_empty() {
            self.push(system, Message::Text(format!("FDSTOREREMOVE=1\nFDNAME={stored}")));
        }
    }

    /// A master serves, so that all files have their names here: has those stored whose earlier names were removed.
    pub(super) fn store_renamed(&mut self, system: &impl System) {
        let Some(store) = self.store.as_mut().filter(|store| store.is_renamed) else { return };
        store.is_renamed = false;
        let names: Vec<String> = store.names.iter().cloned().collect();
        names.into_iter().for_each(|name| self.push(system, Message::Store(name)));
    }

    /// When [`ServiceManager::beat`] or [`ServiceManager::send`] is due.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        [self.watchdog.map(|watchdog| watchdog.next_ms), self.send_at_ms].into_iter().flatten().min()
    }

    /// Gives a sign of life, if one is due.
    pub(super) fn beat(&mut self, system: &impl System, now_ms: u64) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now_ms >= watchdog.next_ms) {
            watchdog.next_ms = now_ms + watchdog.every_ms;
            // One that waits is enough.
            if self.unsent.is_empty() {
                self.push(system, Message::Text("WATCHDOG=1".to_owned()));
            }
        }
    }

    fn push(&mut self, system: &impl System, message: Message) {
        if self.unsent.len() < UNSENT_MAX {
            self.unsent.push_back(message);
        } else if !std::mem::replace(&mut self.is_loss_said, true) {
            system.say(&format!("clusterd: the service manager does not read; {UNSENT_MAX} messages wait for it, and further ones are lost"));
        }
    }

    /// Sends what it was not told yet, as far as it reads.
    pub(super) fn send<S: System>(&mut self, system: &S, table: &Table<S::Fd>, now_ms: u64) {
        if self.send_at_ms.is_some_and(|at_ms| now_ms < at_ms) {
            return;
        }
        self.send_at_ms = None;
        while let Some(message) = self.unsent.front() {
            let told = match message {
                Message::Text(text) => system.tell_service_manager(text, None),
                Message::Store(name) => match table.held_as(name) {
                    Some(fd) => {
                        let text = format!("FDSTORE=1\nFDNAME={}", stored_name(name));
                        system.tell_service_manager(&text, Some(fd))
                    }
                    None => true,
                },
            };
            if !told {
                self.send_at_ms = Some(now_ms + SEND_AGAIN_MS);
                return;
            }
            self.unsent.pop_front();
        }
    }

    /// Tells what happens.
    pub(super) fn tell(&mut self, system: &impl System, news: News<'_>) {
        let text = match news {
            News::Serving => "READY=1\nSTATUS=Serving".to_owned(),
            // The time tells systemd that its own signal caused this reload.
            News::Reloading => {
                format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", system.now_us())
            }
            News::Stopping => "STOPPING=1\nSTATUS=Finishing open connections, then ending".to_owned(),
            News::WithoutMaster(how) => format!("STATUS=The master {how}; starting another one"),
        };
        self.push(system, Message::Text(text));
    }
}

fn is_stored(held: &str) -> bool {
    STORED_PREFIXES.iter().any(|prefix| held.starts_with(prefix))
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
