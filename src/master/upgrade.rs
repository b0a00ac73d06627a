//! Upgrade in place: another binary takes over sockets, workers and checkpoint. The new binary first checks whether it
//! can (`check`, run as a child of the API's thread); then this master hands over and exits. The keeper returns to the
//! previous binary if the new one does not serve.
use super::checkpoint::records::{
    APP, AppRecord, CheckpointError, DEPLOYMENT, UpgradeRecord, check as check_record, read,
};
use super::context::Context;
use super::system::System;
use super::timers::Timer;
use super::{checkpoint, reload};
use crate::api::types as wire;
use crate::api::{Answer, CAN_TAKE_OVER};
use crate::config::sources::Sources;
use crate::keeper::protocol::{About, OwnUpgrade};
use crate::record::{self, RecordError, record};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use thiserror::Error;

/// How long a master that hands over waits for workers' answers, in milliseconds.
const HAND_OVER_MAX_MS: u64 = 500;

/// Limit on the size of a snapshot, in bytes.
const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a successor will find, for a binary that checks whether it could take over.
#[derive(Debug, Default)]
struct Snapshot {
    /// The checkpoint, by key.
    records: BTreeMap<String, Vec<u8>>,
    /// The sources of the configurations as the keeper holds them: JSON.
    sources: BTreeMap<u32, Vec<u8>>,
}

record! { Snapshot { 1 records; 2 sources; } }

/// Why a binary cannot take over from a snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("cannot read the snapshot: {0}")]
    Read(io::Error),
    /// Not a snapshot, or from a later version.
    #[error("the snapshot is damaged: {0}")]
    Damaged(#[from] RecordError),
    /// A record that every snapshot has.
    #[error("the snapshot is damaged: it names no {0}")]
    Missing(&'static str),
    #[error("the record {key}: {why}")]
    Record { key: String, why: String },
}

/// The last upgrade, and the one under way.
pub(super) struct Upgrade {
    record: UpgradeRecord,
    keeper: About,
    /// Since when the keeper has the new binary (milliseconds); the master accepts nothing new from then on.
    handing_over_since_ms: Option<u64>,
}

impl Upgrade {
    /// No upgrade yet. `keeper`: the keeper's description of itself.
    pub(super) fn new(keeper: About) -> Upgrade {
        Upgrade { record: UpgradeRecord::default(), keeper, handing_over_since_ms: None }
    }

    /// Whether the master is handing over, and accepts nothing new.
    pub(super) fn is_handing_over(&self) -> bool {
        self.handing_over_since_ms.is_some()
    }

    /// When this master exits, even with open work.
    pub(super) fn ends_at_ms(&self) -> Option<u64> {
        self.handing_over_since_ms.map(|since_ms| since_ms + HAND_OVER_MAX_MS)
    }

    /// The keeper's version; empty if the keeper does not report it.
    pub(super) fn keeper_version(&self) -> &str {
        &self.keeper.version
    }

    /// Begins an upgrade to a binary that has passed the check. It takes over once no work is open.
    pub(super) fn begin(&mut self, cx: &mut Context<impl System>, path: &str, binary: &OwnedFd) -> Answer {
        if cx.deployment.stop_asked {
            return Answer::Refused(format!("{} is stopping", cx.deployment.name));
        }
        if self.is_handing_over() {
            return Answer::Refused("an upgrade is under way".to_owned());
        }
        let (device, inode) = match cx.system.file_identity(binary.as_fd()) {
            Ok(identity) => identity,
            Err(e) => return Answer::Refused(format!("cannot look at {path}: {e}")),
        };
        self.record = UpgradeRecord {
            number: self.record.number + 1,
            path: path.to_owned(),
            device,
            inode,
            outcome: None,
            keeper: None,
        };
        checkpoint::save_upgrade(cx, &self.record);
        cx.keeper.upgrade(binary.as_fd());
        self.handing_over_since_ms = Some(cx.now_ms);
        cx.timers.set(Timer::HandOver, cx.now_ms + HAND_OVER_MAX_MS);
        log::info!("handing over to {path}");
        Answer::Done(format!("handing over to {path}"))
    }

    /// Called first by a successor: is this the new binary, or the previous one again?
    pub(super) fn resume(&mut self, cx: &mut Context<impl System>, record: UpgradeRecord, previous_end: &str) {
        self.record = record;
        let own = cx.system.own_binary();
        let is_new = own.is_some_and(|own| own == (self.record.device, self.record.inode));
        // It serves already, or was taken back; a binary that served for a moment and died is taken back, too.
        let known = self.record.outcome.as_ref().is_some_and(|outcome| outcome.is_ok() == is_new);
        if self.record.number == 0 || known {
            return;
        }
        let path = &self.record.path;
        self.record.outcome = Some(if is_new {
            let serves = format!("{path} (version {}) serves", env!("CARGO_PKG_VERSION"));
            log::info!("upgraded: {serves}");
            Ok(serves)
        } else {
            let why = format!("{path} did not keep serving ({previous_end}); the previous binary serves again");
            log::error!("the upgrade failed: {why}");
            Err(why)
        });
        checkpoint::save_upgrade(cx, &self.record);
    }

    /// The keeper describes itself. Its own part of an upgrade follows shortly after the master's.
    pub(super) fn on_keeper_about(&mut self, cx: &mut Context<impl System>, about: About) {
        cx.deployment.has_store = about.has_store;
        self.keeper = about;
        let serves = self.record.outcome.as_ref().is_some_and(Result::is_ok);
        if !serves || self.record.keeper.is_some() || self.is_handing_over() {
            return;
        }
        let version = &self.keeper.version;
        self.record.keeper = Some(match &self.keeper.upgrade {
            OwnUpgrade::Open if version.is_empty() => Err("its version cannot replace itself".to_owned()),
            OwnUpgrade::Open => return,
            OwnUpgrade::Done => {
                log::info!("upgraded: the keeper runs {} (version {version}) too", self.record.path);
                Ok(version.clone())
            }
            // The keeper has logged it itself.
            OwnUpgrade::Stays { why } => Err(why.clone()),
        });
        checkpoint::save_upgrade(cx, &self.record);
    }

    /// The last upgrade, as the API shows it.
    pub(super) fn view(&self) -> Option<wire::Upgrade> {
        let UpgradeRecord { number, path, outcome, keeper, .. } = &self.record;
        let message = match (outcome, keeper) {
            (None, _) => format!("handing over to {path}"),
            (Some(Ok(text)), Some(Ok(version))) => format!("{text}; the keeper has version {version} too"),
            (Some(Ok(text)), Some(Err(why))) => match self.keeper.version.as_str() {
                "" => format!("{text}; the keeper was not upgraded: {why}"),
                version => format!("{text}; the keeper stays at version {version}: {why}"),
            },
            (Some(Ok(text) | Err(text)), _) => text.clone(),
        };
        let (ok, keeper) = (outcome.as_ref().map(Result::is_ok), keeper.as_ref().map(Result::is_ok));
        (*number > 0).then_some(wire::Upgrade { number: *number, ok, keeper, message })
    }
}

/// A copy of everything that a successor will find.
pub(super) fn snapshot(cx: &Context<impl System>) -> Answer {
    let sources = cx.deployment.sources.iter();
    let sources = sources.map(|(number, sources)| Ok((*number, serde_json::to_vec(sources)?)));
    let made = sources.collect::<serde_json::Result<_>>().map_err(io::Error::other).and_then(|sources| {
        let records = cx.checkpoint.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let bytes = record::to_document(&Snapshot { records, sources }).map_err(io::Error::other)?;
        cx.system.file_with("snapshot", &bytes)
    });
    match made {
        Ok(fd) => Answer::Snapshot(Arc::new(fd)),
        Err(e) => Answer::Refused(format!("cannot make a snapshot: {e}")),
    }
}

/// The check of a new binary: whether it could take over from the snapshot on its standard input.
///
/// # Errors
/// The part that it cannot read.
pub fn check() -> Result<String, SnapshotError> {
    let mut bytes = Vec::new();
    let most = SNAPSHOT_BYTES_MAX as u64;
    io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(SnapshotError::Read)?;
    let apps = check_snapshot(&bytes)?;
    let apps = format!("{apps} {}", super::narration::plural(apps, "app"));
    Ok(format!("{CAN_TAKE_OVER} {} can take over {apps}", env!("CARGO_PKG_VERSION")))
}

/// The number of apps in the snapshot. Records of unknown types are ignored, as the master ignores them.
fn check_snapshot(bytes: &[u8]) -> Result<u32, SnapshotError> {
    let snapshot: Snapshot = record::from_document(bytes)?;
    if !snapshot.records.contains_key(DEPLOYMENT) {
        return Err(SnapshotError::Missing("deployment"));
    }
    let mut configs = BTreeMap::new();
    for (number, json) in &snapshot.sources {
        let sources = serde_json::from_slice::<Sources>(json).map_err(|error| error.to_string());
        let config = sources.and_then(|sources| reload::resolve(&sources).map_err(|error| error.to_string()));
        configs.insert(*number, config);
    }
    let mut apps = 0;
    for (key, bytes) in &snapshot.records {
        let wrong = |why: String| SnapshotError::Record { key: key.clone(), why };
        match check_record(key, bytes) {
            Ok(()) => {}
            Err(CheckpointError::UnknownKey) => continue,
            Err(why) => return Err(wrong(why.to_string())),
        }
        if !key.starts_with(APP) {
            continue;
        }
        apps += 1;
        let app: AppRecord = read(bytes)?;
        for generation in app.generations.values() {
            match configs.get(&generation.source) {
                None => return Err(wrong(format!("source {} of its configuration is missing", generation.source))),
                Some(Err(why)) => return Err(wrong(format!("its configuration is not understood: {why}"))),
                Some(Ok(config)) if config.apps.iter().any(|a| a.name == app.name) => {}
                Some(Ok(_)) => return Err(wrong(format!("{} is not in its configuration", app.name))),
            }
        }
    }
    if apps == 0 { Err(SnapshotError::Missing("app")) } else { Ok(apps) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::sources::FileSource;
    use crate::ids::Generation;
    use crate::master::checkpoint::records::{DeploymentRecord, GenerationRecord, ScaleRecord};
    use crate::supervisor::{AgentSnapshot, AppSnapshot};

    fn app(name: &str, source: u32) -> Vec<u8> {
        let rules = AppSnapshot {
            generation: Generation(1),
            slots: 1,
            wanted: 1,
            reload: None,
            queued: None,
            queued_scale: None,
            stopping: None,
            then_start: None,
            reported_ready: false,
            agent: AgentSnapshot::default(),
            before: Default::default(),
            held: None,
        };
        let generation = GenerationRecord { source, ..GenerationRecord::default() };
        let generations = BTreeMap::from([(Generation(1), generation)]);
        let (name, last_generation) = (name.to_owned(), Generation(1));
        let app = AppRecord {
            name,
            rules,
            last_generation,
            generations,
            deleted: false,
            restarts: 0,
            spawned: 0,
            history: Vec::new(),
            scale: ScaleRecord::default(),
            stops_at_ms: None,
        };
        record::to_document(&app).unwrap()
    }

    fn snapshot(more: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let text = "[[app]]\nname = \"web\"\ncommand = [\"true\"]\n";
        let file = Some(FileSource { path: "/cluster.toml".to_owned(), text: text.to_owned(), notes: Vec::new() });
        let sources = Sources { start_folder: "/".to_owned(), file, ..Sources::default() };
        let deployment = record::to_document(&DeploymentRecord::default()).unwrap();
        let all = [(DEPLOYMENT, deployment), ("app/0", app("web", 1))].into_iter().chain(more.iter().cloned());
        record::to_document(&Snapshot {
            records: all.map(|(key, value)| (key.to_owned(), value)).collect(),
            sources: BTreeMap::from([(1, serde_json::to_vec(&sources).unwrap())]),
        })
        .unwrap()
    }

    #[test]
    fn what_can_be_taken_over_is_counted_and_records_of_another_version_are_ignored() {
        assert_eq!(check_snapshot(&snapshot(&[])).unwrap(), 1);
        assert_eq!(check_snapshot(&snapshot(&[("moves/1", b"of tomorrow".to_vec())])).unwrap(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let refused = |key, value| check_snapshot(&snapshot(&[(key, value)])).unwrap_err().to_string();
        let empty = record::seal(&[]).unwrap();
        assert_eq!(refused("worker/0/1", empty), "the record worker/0/1: it has no id");
        assert_eq!(refused("slot/0/0", b"{}".to_vec()), "the record slot/0/0: clusterd did not write it");
        assert!(refused("app/1", app("web", 7)).contains("source 7"));
        assert!(refused("app/1", app("api", 1)).contains("api is not in its configuration"));
        let mut newer = app("web", 1);
        newer[8] = record::VERSION as u8 + 1;
        assert!(refused("app/1", newer).contains("this binary reads up to"));
        assert!(check_snapshot(b"{").unwrap_err().to_string().contains("damaged"));
        let nothing = record::to_document(&Snapshot::default()).unwrap();
        assert!(check_snapshot(&nothing).unwrap_err().to_string().contains("names no deployment"));
    }
}
