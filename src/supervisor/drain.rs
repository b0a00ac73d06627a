//! What becomes of the connections that a draining worker keeps between two requests.
use super::App;
use super::slot::SlotPhase;

/// What a worker that is told to leave does with its kept connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptConnections {
    /// They move to other workers, one by one, as their requests are answered.
    Move,
    /// They end: no other worker will serve.
    End,
}

impl App {
    /// What the workers that leave now do with their kept connections.
    pub fn kept_connections(&self) -> KeptConnections {
        if self.has_future() { KeptConnections::Move } else { KeptConnections::End }
    }

    /// Whether a worker serves, or one will without a command.
    pub fn has_future(&self) -> bool {
        let is_open = |phase| matches!(phase, SlotPhase::Filled | SlotPhase::Waiting { .. });
        self.stopping.is_none() && (self.ready_count() > 0 || self.slots().any(|slot| is_open(slot.phase)))
    }
}
