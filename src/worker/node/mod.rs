//! Node's cluster protocol: one JSON value a line over a channel, with fds beside them. `lines` are those between primary and
//! worker, `preload_lines` and `profiles` those of our script in it, `messages` those of the app, `framing` cuts bytes into lines, `channel` is the socket; `inspector` asks a worker that
//! hangs where it stands; `preload` is a script of ours in the worker; `actions`, `adapter` and `prom_client` know messages of
//! libraries that apps use. Here is what a Node worker's spawn needs; what a line means for the cluster is the master's business.
pub mod actions;
pub mod adapter;
pub mod channel;
pub mod framing;
pub mod inspector;
pub mod lines;
pub mod messages;
pub mod preload;
pub mod preload_lines;
pub mod profiles;
pub mod prom_client;

use super::{Environment, FIRST_FD, Farewell, Inherited, Spawn, WorkerProtocol};
use crate::config::{self, ProtocolKind, inspect};
use std::ffi::{OsStr, OsString};

const NODE_OPTIONS: &str = "NODE_OPTIONS";
/// For the preload: the signal whose listeners are called before a worker ends, where one is configured.
const STOP_SIGNAL: &str = "CLUSTERD_STOP_SIGNAL";

/// Programs that speak it: node itself.
#[derive(Debug)]
pub struct Node;

impl WorkerProtocol for Node {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Node
    }

    fn inherited(&self) -> Inherited {
        Inherited::Channel
    }

    fn variables(&self) -> &'static [&'static str] {
        &["NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID"]
    }

    fn environment(&self, spawn: &Spawn<'_>, env: &mut Environment) {
        channel_environment(env);
        env.insert("NODE_UNIQUE_ID".into(), spawn.number.to_string().into());
        if let Some(options) = options(spawn.app, env) {
            env.insert(NODE_OPTIONS.into(), options);
        }
        if let Some(signal) = &spawn.app.stop_signal {
            env.insert(STOP_SIGNAL.into(), signal.into());
        }
        let options = env.get(OsStr::new(NODE_OPTIONS)).map_or(Some(""), |options| options.to_str());
        let with_preload = spawn.preload.zip(options);
        let with_preload = with_preload.and_then(|(path, all)| preload::options(path, &spawn.app.command, all));
        if let Some(options) = with_preload {
            env.insert(NODE_OPTIONS.into(), options.into());
        }
    }

    /// Every worker's inspector has a port of its own.
    fn arguments(&self, spawn: &Spawn<'_>, env: &Environment) -> Vec<String> {
        let mut args = inspect::inspect_args(&spawn.app.command, spawn.slot.0);
        let options = env.get(OsStr::new(NODE_OPTIONS)).map(|o| o.to_string_lossy().into_owned());
        if let Some(flag) = options.and_then(|o| inspect::inspect_flag_for_node_options(&o, spawn.slot.0)) {
            args.insert(1, flag);
        }
        args
    }

    /// libuv sets O_NONBLOCK and expects it.
    fn wants_blocking_sockets(&self) -> bool {
        false
    }

    fn leaves_hang_reports(&self) -> bool {
        true
    }

    fn has_preload(&self) -> bool {
        true
    }

    fn farewell(&self) -> Farewell {
        Farewell::Message
    }
}

/// The variables by which a Node process finds its channel at [`FIRST_FD`], as those of `child_process.fork`.
pub fn channel_environment(env: &mut Environment) {
    env.insert("NODE_CHANNEL_FD".into(), FIRST_FD.to_string().into());
    env.insert("NODE_CHANNEL_SERIALIZATION_MODE".into(), "json".into());
}

/// What `NODE_OPTIONS` has to be, where it has to be something else: a worker that is to leave a report when it hangs opens
/// its inspector on a port of its own, and tells on stderr alone how it is reached.
fn options(app: &config::App, env: &Environment) -> Option<OsString> {
    if app.limits.hang.is_none() || !app.limits.hang_report {
        return None;
    }
    let mut options = env.get(OsStr::new(NODE_OPTIONS)).cloned().unwrap_or_default();
    let flags = inspect::flags_for_reports(&app.command, &options.to_string_lossy());
    for flag in &flags {
        if !options.is_empty() {
            options.push(" ");
        }
        options.push(flag);
    }
    (!flags.is_empty()).then_some(options)
}
