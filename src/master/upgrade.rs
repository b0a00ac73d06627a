//! Upgrade in place: another binary takes over the sockets, the workers and the notes. First the new binary says whether
//! it can (`check`, run by itself as a child of the API's thread), then this master hands over and ends; the keeper
//! goes back to the former binary when the new one does not serve.
use super::Master;
use super::memory::{AppNote, UpgradeNote, reads_as_its_kind};
use super::{notes, reload};
use crate::api::types as wire;
use crate::api::{Answer, CAN_TAKE_OVER};
use crate::config::sources::Sources;
use crate::keeper::protocol::{About, OwnUpgrade};
use crate::limits;
use crate::os::memfd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// What a successor will find, for a binary that is asked whether it could be one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Snapshot {
    notes: BTreeMap<String, String>,
    sources: BTreeMap<u32, Sources>,
}

impl Master {
    /// A copy of everything that a successor will find.
    pub(super) fn snapshot(&self) -> Answer {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let notes = self.notes.iter().map(|(key, value)| (key.clone(), text(value))).collect();
        let snapshot = Snapshot { notes, sources: self.cx.deployment.sources.clone() };
        let made = serde_json::to_vec(&snapshot)
            .map_err(std::io::Error::other)
            .and_then(|json| memfd::with_contents("snapshot", &json));
        match made {
            Ok(fd) => Answer::Snapshot(Arc::new(fd)),
            Err(e) => Answer::Refused(format!("cannot make a snapshot: {e}")),
        }
    }

    /// A binary that said that it can is to take over. It does as soon as nothing is in hand.
    pub(super) fn upgrade_asked(&mut self, path: String, binary: &OwnedFd) -> Answer {
        if self.cx.deployment.stop_asked {
            return Answer::Refused(format!("{} is stopping", self.cx.deployment.name));
        }
        if self.handing_over_since_ms.is_some() {
            return Answer::Refused("an upgrade is under way".to_owned());
        }
        let file = binary.try_clone().map(std::fs::File::from).and_then(|file| file.metadata());
        let metadata = match file {
            Ok(metadata) => metadata,
            Err(e) => return Answer::Refused(format!("cannot look at {path}: {e}")),
        };
        self.upgrade = UpgradeNote {
            number: self.upgrade.number + 1,
            path: path.clone(),
            device: metadata.dev(),
            inode: metadata.ino(),
            outcome: None,
            keeper: None,
        };
        self.note_deployment();
        self.cx.keeper.upgrade(binary.as_fd());
        self.handing_over_since_ms = Some(self.cx.now_ms);
        log::info!("handing over to {path}");
        Answer::Done(format!("handing over to {path}"))
    }

    /// Whether this master is to end now: the next one takes over. It waits a moment for what it has in hand.
    pub(super) fn has_handed_over(&self) -> bool {
        let Some(since_ms) = self.handing_over_since_ms else { return false };
        let in_hand =
            self.cx.apps.iter().any(|app| !app.homeless.is_empty()) || self.open_handoffs > 0 || self.has_cut_lines();
        !in_hand || self.cx.now_ms >= since_ms + limits::HAND_OVER_MAX_MS
    }

    /// The first thing that a successor learns: whether it is the new binary, or the former one again.
    pub(super) fn resume_upgrade(&mut self, note: UpgradeNote, previous_end: &str) {
        self.upgrade = note;
        let own = std::fs::metadata("/proc/self/exe").ok();
        let is_new = own.is_some_and(|own| (own.dev(), own.ino()) == (self.upgrade.device, self.upgrade.inode));
        // It serves on, or was taken back before; also a binary that served for a moment and died is taken back.
        let known = self.upgrade.outcome.as_ref().is_some_and(|outcome| outcome.is_ok() == is_new);
        if self.upgrade.number == 0 || known {
            return;
        }
        let path = &self.upgrade.path;
        self.upgrade.outcome = Some(if is_new {
            log::info!("upgraded: {path} (version {}) serves", env!("CARGO_PKG_VERSION"));
            Ok(format!("{path} (version {}) serves", env!("CARGO_PKG_VERSION")))
        } else {
            log::error!("the upgrade failed: {path} did not serve on ({previous_end}); the former binary does");
            Err(format!("{path} did not serve on ({previous_end}); the former binary does"))
        });
        self.note_deployment();
    }

    /// What the keeper says of itself. It takes its own part in an upgrade a moment after the master.
    pub(super) fn keeper_is(&mut self, about: About) {
        self.about_keeper = about;
        let serves = self.upgrade.outcome.as_ref().is_some_and(Result::is_ok);
        if !serves || self.upgrade.keeper.is_some() || self.handing_over_since_ms.is_some() {
            return;
        }
        let version = &self.about_keeper.version;
        self.upgrade.keeper = Some(match &self.about_keeper.upgrade {
            OwnUpgrade::Open if version.is_empty() => Err("it is of a version that cannot change".to_owned()),
            OwnUpgrade::Open => return,
            OwnUpgrade::Done => {
                log::info!("upgraded: the keeper too is of {} (version {version})", self.upgrade.path);
                Ok(version.clone())
            }
            // The keeper itself has said so.
            OwnUpgrade::Stays { why } => Err(why.clone()),
        });
        self.note_deployment();
    }

    pub(super) fn upgrade_view(&self) -> Option<wire::Upgrade> {
        let UpgradeNote { number, path, outcome, keeper, .. } = &self.upgrade;
        let message = match (outcome, keeper) {
            (None, _) => format!("handing over to {path}"),
            (Some(Ok(text)), Some(Ok(version))) => format!("{text}; the keeper too has version {version}"),
            (Some(Ok(text)), Some(Err(why))) => match self.about_keeper.version.as_str() {
                "" => format!("{text}; the keeper stays what it was: {why}"),
                version => format!("{text}; the keeper stays at version {version}: {why}"),
            },
            (Some(Ok(text) | Err(text)), _) => text.clone(),
        };
        let (ok, keeper) = (outcome.as_ref().map(Result::is_ok), keeper.as_ref().map(Result::is_ok));
        (*number > 0).then_some(wire::Upgrade { number: *number, ok, keeper, message })
    }
}

/// The new binary's own answer: whether it could go on from the snapshot that is its standard input.
///
/// # Errors
/// What it cannot read.
pub fn check() -> Result<String, String> {
    let mut bytes = Vec::new();
    let most = limits::SNAPSHOT_BYTES_MAX as u64;
    std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(|e| format!("cannot read the snapshot: {e}"))?;
    let apps = check_snapshot(&bytes)?;
    Ok(format!("{CAN_TAKE_OVER} {} can take over {apps}", env!("CARGO_PKG_VERSION")))
}

/// How many apps the snapshot holds, in words.
fn check_snapshot(bytes: &[u8]) -> Result<String, String> {
    let snapshot: Snapshot = serde_json::from_slice(bytes).map_err(|e| format!("the snapshot is damaged: {e}"))?;
    if !snapshot.notes.contains_key(notes::DEPLOYMENT) {
        return Err("the snapshot is damaged: it names no deployment".to_owned());
    }
    let mut configs = BTreeMap::new();
    for (number, sources) in &snapshot.sources {
        configs.insert(*number, reload::resolve(sources));
    }
    let mut apps = 0;
    for (key, text) in &snapshot.notes {
        let mut read = reads_as_its_kind(key, text.as_bytes());
        if read.is_ok() && key.starts_with(notes::APP) {
            apps += 1;
            read = serde_json::from_str::<AppNote>(text).map_err(|e| e.to_string()).and_then(|app| {
                app.generations.values().try_for_each(|generation| match configs.get(&generation.source) {
                    None => Err(format!("source {} of its configuration is missing", generation.source)),
                    Some(Err(why)) => Err(format!("its configuration is not understood: {why}")),
                    Some(Ok(config)) if config.apps.iter().any(|a| a.name == app.name) => Ok(()),
                    Some(Ok(_)) => Err(format!("{} is not in its configuration", app.name)),
                })
            });
        }
        read.map_err(|why| format!("the note {key}: {why}"))?;
    }
    if apps == 0 {
        return Err("the snapshot is damaged: it names no app".to_owned());
    }
    Ok(format!("{apps} {}", super::tell::plural(apps, "app")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::sources::FileSource;

    /// As the first version writes it: no field that came later.
    fn first_version() -> BTreeMap<String, String> {
        let notes = [
            ("v1/deployment", r#"{"name":"web","started_ms":5,"worker_ids_below":300,"last_source":1}"#),
            (
                "v1/app/0",
                r#"{"name":"web","generation":1,"last_generation":1,"slots":1,
                    "generations":{"1":{"source":1,"cwd":"/","program":"/bin/true"}}}"#,
            ),
            ("v1/slot/0/0", r#"{"index":0,"generation":1,"phase":"Filled","current":1,"incoming":null}"#),
            (
                "v1/worker/0/1",
                r#"{"id":1,"slot":0,"generation":1,"pid":77,"spawned_at_ms":6,"phase":{"Ready":{"since_ms":9}}}"#,
            ),
            ("v1/serves/1", r#"{"keys":["*:80#0"]}"#),
        ];
        notes.map(|(key, text)| (key.to_owned(), text.to_owned())).into()
    }

    fn snapshot(notes: &BTreeMap<String, String>) -> Vec<u8> {
        let text = "[[app]]\nname = \"web\"\ncommand = [\"true\"]\n";
        let file = Some(FileSource { path: "/cluster.toml".to_owned(), text: text.to_owned(), notes: Vec::new() });
        let sources = Sources { start_folder: "/".to_owned(), file, ..Sources::default() };
        serde_json::to_vec(&serde_json::json!({ "notes": notes, "sources": { "1": sources } })).unwrap()
    }

    #[test]
    fn the_snapshot_of_the_first_version_can_be_taken_over() {
        assert_eq!(check_snapshot(&snapshot(&first_version())), Ok("1 app".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let refused = |key: &str, text: &str| {
            let mut notes = first_version();
            notes.insert(key.to_owned(), text.to_owned());
            check_snapshot(&snapshot(&notes)).unwrap_err()
        };
        assert!(refused("v1/worker/0/1", "{}").contains("the note v1/worker/0/1: missing field"));
        assert!(refused("v2/worker/0/1", "{}").contains("older than what runs"));
        assert!(refused("v1/app/1", r#"{"name":"api","generation":1,"last_generation":1,"slots":1,"generations":{"1":{"source":7,"cwd":"/","program":"/x"}}}"#).contains("source 7"));
        assert!(check_snapshot(b"{").unwrap_err().contains("damaged"));
        assert!(check_snapshot(b"{}").unwrap_err().contains("damaged"));
    }
}
