//! What is true of the deployment as a whole: its name and home, the configurations that it came from, whether it is to
//! end. Data that several mechanisms read; who changes it also saves it.
use crate::config::sources::Sources;
use crate::home::Home;
use crate::limits;
use std::collections::BTreeMap;
use std::fs;

/// The deployment.
#[derive(Default)]
pub(super) struct Deployment {
    /// Its name; its control socket is `NAME.sock`.
    pub(super) name: String,
    /// It stays when its apps have stopped, until they are deleted.
    pub(super) background: bool,
    /// Where its socket and entry are.
    pub(super) home: Option<Home>,
    /// Ids of the apps, by name.
    pub(super) ids: BTreeMap<String, u32>,
    /// When its first master started (absolute milliseconds).
    pub(super) started_ms: u64,
    /// What was typed, per reload: what the settings of each generation came from.
    pub(super) sources: BTreeMap<u32, Sources>,
    /// The sources of the configuration that counts.
    pub(super) last_source: u32,
    /// It is to end.
    pub(super) stop_asked: bool,
    /// What the keeper ends with.
    pub(super) exit_code: u8,
    /// The keeper was told that everything is done.
    pub(super) finished: bool,
    /// Counts the masters of this keeper, from 1.
    pub(super) incarnation: u32,
    pub(super) keeper_pid: i32,
    /// Our stderr is a terminal: a person reads what workers say.
    pub(super) on_terminal: bool,
}

impl Deployment {
    /// The configuration that the next reload begins with.
    pub(super) fn current_sources(&self) -> Option<&Sources> {
        self.sources.get(&self.last_source)
    }

    /// Numbers of hand-offs start above any that an earlier master may still be answered for.
    pub(super) fn first_seq(&self) -> u64 {
        // Node keeps them in a double: 2^53 leaves room for 2^21 masters of 2^32 hand-offs each.
        (u64::from(self.incarnation) << 32) % (1 << 53) + 1
    }

    /// Keeps what we ourselves say in the background from growing for ever: the file begins again, and the old one stays
    /// beside it. (Keeper and master share the file, and append to it.)
    pub(super) fn bound_own_log(&self) {
        let Some(path) = self.home.as_ref().and_then(|home| home.log_path(&self.name).ok()) else { return };
        let too_large = fs::metadata(&path).is_ok_and(|file| file.len() > limits::OWN_LOG_BYTES_MAX);
        if !self.background || !too_large {
            return;
        }
        let kept = fs::copy(&path, path.with_extension("log.1")).map(drop);
        let emptied = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
        if let Err(e) = kept.and(emptied) {
            log::warn!("cannot rotate {}: {e}", path.display());
        }
    }
}
