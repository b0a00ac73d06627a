//! `[app.agent]`: one process beside the workers of an app. Its keys as typed are in `raw`.
use super::problem::{At, Found, Spot};
use super::rules::RuleError;
use super::schema::Raw as _;
pub use super::schema::keys::Agent;
use super::schema::keys::{AgentRest, RawAgent};
use super::{Protocol, Ready, defaults};

/// The rule for an agent's readiness, once it is known whether it runs Node.
///
/// # Errors
/// The typed rule can never be met.
pub fn ready(is_node: bool, typed: Option<&Ready>) -> Result<Ready, RuleError> {
    let never = |rule: &Ready, way_out| Err(RuleError::AgentNever { rule: rule.clone(), way_out });
    match typed {
        None if is_node => Ok(Ready::Message),
        None => Ok(Ready::After(defaults::READY_AFTER)),
        Some(Ready::After(time)) => Ok(Ready::After(*time)),
        Some(rule @ Ready::Or(said, _)) => ready(is_node, Some(&said.alone())).map(|_| rule.clone()),
        Some(rule @ Ready::Message) if is_node => Ok(rule.clone()),
        Some(rule @ Ready::Notify) if !is_node => Ok(rule.clone()),
        Some(rule) if is_node => never(rule, "a Node agent says \"message\" (process.send('ready')), or use a time"),
        Some(rule) => never(rule, "an agent that is not a Node program says \"notify\" (READY=1), or use a time"),
    }
}

/// The agent with every default filled in; `None` if there is none, or problems leave none.
pub(super) fn decide(raw: Option<At<RawAgent>>, found: &mut Found) -> Option<Agent> {
    let mut raw = raw?.value;
    let protocol = raw.protocol.as_ref().map_or(Protocol::Auto, |at| at.value);
    let unfit = |typed: Protocol| typed.exactly().is_some_and(|kind| !kind.rules().is_for_agents);
    if let Some(typed) = raw.protocol.as_ref().filter(|at| unfit(at.value)) {
        found.add(typed.spot, "an agent gets no sockets: its protocol is \"auto\", \"node\" or \"none\"");
    }
    if let Some(typed) = &raw.ready {
        let rule = typed.value.as_ref();
        let checked = match protocol {
            Protocol::Auto => ready(true, rule).or_else(|_| ready(false, rule)),
            Protocol::Exactly(kind) => ready(kind.rules().has_channel, rule),
        };
        if let Err(why) = checked {
            found.add(typed.spot, why.to_string());
        }
    }
    let Some(command) = raw.command.take() else {
        if !raw.bad.contains(&"command") {
            let hint =
                "command is missing in [app.agent]: say what to run, for example command = [\"node\", \"agent.js\"]";
            found.add(raw.spot().unwrap_or(Spot::Whole), hint);
        }
        return None;
    };
    Some(raw.decide(AgentRest { command: command.value }))
}
