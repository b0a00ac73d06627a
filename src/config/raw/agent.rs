//! `[app.agent]`, as typed.
use super::super::parse;
use super::super::problem::{At, Spot};
use super::super::{Protocol, Ready};
use super::{AGENT_KEYS, Entry, Walk, entries};
use std::time::Duration;

/// `[app.agent]`.
#[derive(Debug)]
pub(crate) struct RawAgent {
    /// Its place.
    pub(crate) spot: Spot,
    pub(crate) command: Option<At<Vec<String>>>,
    pub(crate) protocol: Option<At<Protocol>>,
    pub(crate) ready: Option<At<Ready>>,
    pub(crate) ready_timeout: Option<At<Duration>>,
    pub(crate) kill_timeout: Option<At<Duration>>,
    pub(crate) restart_delay: Option<At<Duration>>,
    /// `command` was there but unusable: that it is missing is not said as well.
    pub(crate) command_bad: bool,
}

impl Walk<'_> {
    pub(super) fn agent(&mut self, entry: &Entry<'_>) -> Option<RawAgent> {
        let table = self.table(entry)?;
        let mut agent = RawAgent {
            spot: entry.key_spot,
            command: None,
            protocol: None,
            ready: None,
            ready_timeout: None,
            kill_timeout: None,
            restart_delay: None,
            command_bad: false,
        };
        for entry in entries(table) {
            match entry.key {
                "command" => {
                    agent.command = self.command(&entry);
                    agent.command_bad = agent.command.is_none();
                }
                "protocol" => agent.protocol = self.text(&entry, "a string", parse::protocol),
                "ready" => agent.ready = self.text(&entry, "a string", parse::ready),
                "ready_timeout" => agent.ready_timeout = self.duration(&entry, parse::duration_not_zero),
                "kill_timeout" => agent.kill_timeout = self.duration(&entry, parse::duration),
                "restart_delay" => agent.restart_delay = self.duration(&entry, parse::duration_not_zero),
                _ => self.unknown(&entry, AGENT_KEYS, " in [app.agent]"),
            }
        }
        Some(agent)
    }
}
