//! `[app.agent]`: one process beside the workers of an app. What was typed of it is in `raw`.
use super::problem::Found;
use super::raw::RawAgent;
use super::{Protocol, Ready, defaults};
use std::time::Duration;

/// An app's agent. Environment, folder and user are the workers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// `Node`: it gets a channel. `None`: it does not. `Auto`: by its program.
    pub protocol: Protocol,
    /// What makes it ready. `None`: the protocol's own default.
    pub ready: Option<Ready>,
    /// One that is not ready after this has failed.
    pub ready_timeout: Duration,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout: Duration,
    /// Wait between its death and the next one; it doubles while it dies young.
    pub restart_delay: Duration,
}

/// What makes an agent ready, once it is known whether it is Node's.
///
/// # Errors
/// The typed rule can never come true.
pub fn ready(is_node: bool, typed: Option<&Ready>) -> Result<Ready, String> {
    let never = |rule: &Ready, way_out: &str| Err(format!("agent.ready \"{rule}\" never comes here: {way_out}"));
    match typed {
        None if is_node => Ok(Ready::Message),
        None => Ok(Ready::After(defaults::READY_AFTER)),
        Some(Ready::After(time)) => Ok(Ready::After(*time)),
        Some(rule @ Ready::Or(said, _)) => ready(is_node, Some(&said.alone())).map(|_| rule.clone()),
        Some(rule @ Ready::Message) if is_node => Ok(rule.clone()),
        Some(rule @ Ready::Notify) if !is_node => Ok(rule.clone()),
        Some(rule) if is_node => never(rule, "a Node agent says \"message\" (process.send('ready')), or use a time"),
        Some(rule) => never(rule, "an agent that is no Node program says \"notify\" (READY=1), or use a time"),
    }
}

/// The agent with every default decided; `None` where there is none, or problems leave none.
pub(super) fn decide(raw: Option<RawAgent>, found: &mut Found) -> Option<Agent> {
    let raw = raw?;
    let protocol = raw.protocol.as_ref().map_or(Protocol::Auto, |at| at.value);
    if let Some(typed) = raw.protocol.as_ref().filter(|at| at.value == Protocol::ListenFds) {
        found.add(typed.spot, "an agent gets no sockets: its protocol is \"auto\", \"node\" or \"none\"");
    }
    if let Some(typed) = &raw.ready {
        let checked = match protocol {
            Protocol::Auto => ready(true, Some(&typed.value)).or_else(|_| ready(false, Some(&typed.value))),
            Protocol::Node | Protocol::ListenFds | Protocol::None => {
                ready(protocol == Protocol::Node, Some(&typed.value))
            }
        };
        if let Err(why) = checked {
            found.add(typed.spot, why);
        }
    }
    let Some(command) = raw.command else {
        if !raw.command_bad {
            let hint =
                "command is missing in [app.agent]: say what to run, for example command = [\"node\", \"agent.js\"]";
            found.add(raw.spot, hint);
        }
        return None;
    };
    Some(Agent {
        command: command.value,
        protocol,
        ready: raw.ready.map(|at| at.value),
        ready_timeout: raw.ready_timeout.map_or(defaults::READY_TIMEOUT, |at| at.value),
        kill_timeout: raw.kill_timeout.map_or(defaults::KILL_TIMEOUT, |at| at.value),
        restart_delay: raw.restart_delay.map_or(defaults::AGENT_RESTART_DELAY, |at| at.value),
    })
}
