//! State of the deployment as a whole: its name and home, its configuration sources, whether it is stopping. Several
//! mechanisms read it; whoever changes it also saves it.
use super::control::TcpAddress;
use super::system::System;
use crate::config::sources::Sources;
use crate::home::Home;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Size of clusterd's own log in the background, in bytes; then it is rotated, and the old file stays beside it.
const OWN_LOG_BYTES_MAX: u64 = 1024 * 1024;

/// What the service manager was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    Nothing,
    /// Every app serves.
    Serving,
    /// A reload has begun.
    Reloading,
}

#[derive(Default)]
pub(super) struct Deployment {
    /// Its name; its control socket is `NAME.sock`.
    pub(super) name: String,
    /// The deployment stays when its apps have stopped, until they are deleted.
    pub(super) background: bool,
    /// The home with its socket and entry.
    pub(super) home: Option<Home>,
    /// Ids of the apps, by name.
    pub(super) ids: BTreeMap<String, u32>,
    /// When its first master started (absolute milliseconds).
    pub(super) started_ms: u64,
    /// The sources of each reload, which the settings of the generations came from.
    pub(super) sources: BTreeMap<u32, Sources>,
    /// Number of the current sources.
    pub(super) last_source: u32,
    /// The deployment is stopping.
    pub(super) stop_asked: bool,
    /// Since when, in milliseconds.
    pub(super) stop_asked_ms: u64,
    /// The service manager keeps listening sockets for its next start.
    pub(super) has_store: bool,
    /// It does so at this stop, for which it has asked by a signal.
    pub(super) leaves_sockets: bool,
    /// The keeper's exit code.
    pub(super) exit_code: u8,
    /// The keeper was told that the deployment is over.
    pub(super) finished: bool,
    /// Counts the masters of this keeper, from 1.
    pub(super) incarnation: u32,
    pub(super) keeper_pid: i32,
    /// Where the control API is over TCP, and whether it has the page.
    pub(super) control: Option<TcpAddress>,
    /// What the service manager knows.
    pub(super) told: Told,
    /// It was logged that workers run without the preload.
    pub(super) told_no_preload: bool,
    /// Our stderr is a terminal, and a person reads it.
    pub(super) on_terminal: bool,
}

impl Deployment {
    /// The sources that the next reload starts from.
    pub(super) fn current_sources(&self) -> Option<&Sources> {
        self.sources.get(&self.last_source)
    }

    /// The first hand-off number of this master, above every number of earlier masters that may still be answered.
    pub(super) fn first_seq(&self) -> u64 {
        // Node keeps the numbers in a double: 2^53 leaves room for 2^21 masters of 2^32 hand-offs each.
        (u64::from(self.incarnation) << 32) % (1 << 53) + 1
    }

    /// The number of the hand-off by which this master asks whether the one before it arrived (`in_hand`).
    pub(super) fn question_seq(&self) -> u64 {
        self.first_seq() - 1
    }

    /// The path of our own log; `None` in the foreground.
    pub(super) fn own_log(&self) -> Option<PathBuf> {
        self.home.as_ref().filter(|_| self.background).and_then(|home| home.log_path(&self.name).ok())
    }

    /// Bounds our own log in the background: it is rotated once, and the old file stays beside it. (Keeper and master
    /// share the file, and append to it.)
    pub(super) fn bound_own_log(&self, system: &impl System) {
        let Some(path) = self.own_log() else { return };
        if let Err(e) = system.rotate_own_log(&path, OWN_LOG_BYTES_MAX) {
            log::warn!("cannot rotate {}: {e}", path.display());
        }
    }
}
