//! Faults of the program that its system calls can imitate: each world has to show such a fault, or it proves nothing. The program has no
//! switches; what a fault would do to its calls is done to them here.
use crate::random::Random;
use clusterd::keeper::codec;
use clusterd::keeper::protocol::{Notice, Order};
use std::fmt;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Readiness is forgotten before it is handled, or its edge is not armed again.
    LostEdge,
    /// A note reaches the keeper after the order that it describes.
    NoteAfterOrder,
    /// One message of the keeper is read in a turn, and the rest waits for another wake-up.
    StarvedBudget,
    /// A file is not closed.
    FileKept,
    /// A process is signalled after it was reaped, when its pid may be another's.
    ReusedPid,
    /// The end of a worker is read by a master that dies before it has done anything about it, and is not told again.
    ExitLost,
    /// An order to start a worker is lost.
    SpawnLost,
    /// A connection in hand is not guarded.
    Unguarded,
}

pub(crate) const ALL: [Bug; 8] = [
    Bug::LostEdge,
    Bug::NoteAfterOrder,
    Bug::StarvedBudget,
    Bug::FileKept,
    Bug::ReusedPid,
    Bug::ExitLost,
    Bug::SpawnLost,
    Bug::Unguarded,
];

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bug::LostEdge => "an edge that is not armed again",
            Bug::NoteAfterOrder => "a note behind the order that it describes",
            Bug::StarvedBudget => "a budget that lets messages starve",
            Bug::FileKept => "a file that is kept open",
            Bug::ReusedPid => "a signal to a pid that may be another process's",
            Bug::ExitLost => "a worker's end that was read and not handled",
            Bug::SpawnLost => "an order to start a worker that is lost",
            Bug::Unguarded => "a connection in hand without a guard",
        })
    }
}

/// Chances in a hundred, where a fault does not always show.
const EDGES_LOST_PERCENT: u64 = 5;
const FILES_KEPT_PERCENT: u64 = 20;
const SPAWNS_LOST_PERCENT: u64 = 20;
const EXITS_LOST_PERCENT: u64 = 30;
/// Packets that overtake a note.
pub(crate) const NOTE_DELAY: usize = 12;
const PIDS_REUSED_PERCENT: u64 = 50;

impl Bug {
    pub(crate) fn loses_edge(self, random: &mut Random) -> bool {
        self == Bug::LostEdge && random.percent(EDGES_LOST_PERCENT)
    }

    pub(crate) fn keeps_file(self, random: &mut Random) -> bool {
        self == Bug::FileKept && random.percent(FILES_KEPT_PERCENT)
    }

    pub(crate) fn signals_reused_pid(self, random: &mut Random) -> bool {
        self == Bug::ReusedPid && random.percent(PIDS_REUSED_PERCENT)
    }

    /// Whether this packet to the keeper is lost.
    pub(crate) fn loses(self, random: &mut Random, bytes: &[u8]) -> bool {
        self == Bug::SpawnLost
            && matches!(codec::decode_order(bytes), Ok(Order::Spawn { .. }))
            && random.percent(SPAWNS_LOST_PERCENT)
    }

    /// Whether this packet to the keeper waits for later ones.
    pub(crate) fn delays(self, bytes: &[u8]) -> bool {
        self == Bug::NoteAfterOrder && matches!(codec::decode_order(bytes), Ok(Order::Note { .. }))
    }

    /// What is sent to the keeper in place of handling this, which is lost.
    pub(crate) fn loses_notice(self, random: &mut Random, bytes: &[u8]) -> Option<Vec<u8>> {
        match codec::decode_notice(bytes) {
            Ok(Notice::Exited { worker, .. }) if self == Bug::ExitLost && random.percent(EXITS_LOST_PERCENT) => {
                codec::encode_order(&Order::ExitSeen { worker }).ok()
            }
            _ => None,
        }
    }
}
