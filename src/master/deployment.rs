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
    /// Connections that the keeper got to hold while they waited; the number is the name of the next one.
    pub(super) kept_count: u64,
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

    /// The id that the events of this master follow: above those of its predecessors, and far from those of another run with the same name
    /// (`started_ms` tells the runs apart), so that a client does not go on in one run after an event of another.
    pub(super) fn events_follow(&self) -> u64 {
        // The upper 31 bits of a multiplication by the golden ratio: neighbours land far apart.
        self.first_seq() + (self.started_ms.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33)
    }

    /// The number of the hand-off by which this master asks whether the one before it arrived (`in_hand`).
    pub(super) fn question_seq(&self) -> u64 {
        self.first_seq() - 1
    }

    /// The number of the next connection that the keeper holds while it waits.
    pub(super) fn next_kept(&mut self) -> u64 {
        self.kept_count += 1;
        self.kept_count
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_events_grow_from_master_to_master_and_differ_from_those_of_another_run() {
        let ids =
            |incarnation, started_ms| Deployment { incarnation, started_ms, ..Deployment::default() }.events_follow();
        for started_ms in [0, 1, 60_000, u64::MAX] {
            assert!(ids(2, started_ms) - ids(1, started_ms) == 1 << 32);
            assert!(ids(2, 0) > ids(1, started_ms), "also where the time is lost");
            for later_ms in 1..1_000 {
                let other = ids(1, started_ms.wrapping_add(later_ms));
                assert!(other.abs_diff(ids(1, started_ms)) > 100_000, "{started_ms} and {later_ms} ms later");
            }
        }
        assert!(ids((1 << 21) - 1, u64::MAX) < 1 << 53, "JavaScript has them as numbers");
    }
}
