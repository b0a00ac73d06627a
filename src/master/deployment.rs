//! What is true of the deployment as a whole: its name and home, the configurations that it came from, whether it is to
//! end. Data that several mechanisms read; who changes it also saves it.
use crate::config::sources::Sources;
use crate::home::Home;
use std::collections::BTreeMap;

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
}
