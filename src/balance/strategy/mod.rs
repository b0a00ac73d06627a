//! Balancing strategies: the trait, the data that it may use, and the list of strategies. A new strategy is a file in
//! this folder, its module and a line of `strategies!` below.
//!
//! Dispatch is a match over a closed enum, so that a hand-off makes no virtual call.
mod round_robin;
pub mod sticky;

use super::{GroupIx, Member, MemberIx, Pool};
use crate::limits;
use round_robin::RoundRobin;
use sticky::Sticky;

/// A way to choose among the workers that can take a connection.
pub(in crate::balance) trait Strategy {
    /// Whether [`Strategy::pick`] needs the client. The shell asks the system for its address only then.
    const WANTS_CLIENT: bool = false;

    /// The worker for the next connection of `client`; `None` if no worker that the strategy accepts can take it now.
    /// `client` is a hash of the client's address, if that is known.
    fn pick(&mut self, candidates: &mut Candidates<'_>, client: Option<u64>) -> Option<MemberIx>;
}

/// The workers that serve one listener, at the time of a choice.
pub(in crate::balance) struct Candidates<'a> {
    pool: &'a mut Pool,
    group: GroupIx,
    now_us: u64,
}

/// An eligible worker.
#[derive(Clone, Copy)]
pub(in crate::balance) struct Candidate<'a> {
    pub(in crate::balance) member: MemberIx,
    entry: &'a Member,
}

impl Candidate<'_> {
    #[inline]
    pub(in crate::balance) fn slot(self) -> u32 {
        self.entry.slot
    }
}

impl<'a> Candidates<'a> {
    #[inline]
    pub(in crate::balance) fn new(pool: &'a mut Pool, group: GroupIx, now_us: u64) -> Candidates<'a> {
        Candidates { pool, group, now_us }
    }

    /// The listener's group.
    #[inline]
    pub(in crate::balance) fn group(&self) -> GroupIx {
        self.group
    }

    /// The next in turn among the least busy workers that can take a connection; advances the turn. The cost does not
    /// depend on the number of workers.
    #[inline]
    pub(in crate::balance) fn take_turn(&mut self) -> Option<MemberIx> {
        let member = match self.pool.found.take() {
            Some((of, at_us, member)) if (of, at_us) == (self.group, self.now_us) => member,
            _ => self.pool.find_in_turn(self.group, self.now_us)?,
        };
        self.pool.groups.get_mut(self.group.0 as usize)?.turn = member.0 + 1;
        Some(member)
    }

    /// Whether this worker has fewer open hand-offs than any may have, busy as it is; `None` unless it is eligible,
    /// serves the listener, and is in this slot.
    #[inline]
    pub(in crate::balance) fn has_room_in_slot(&self, member: MemberIx, slot: u32) -> Option<bool> {
        let entry = self.pool.member(member).filter(|entry| entry.eligible && entry.slot == slot)?;
        let serves = self.pool.groups.get(self.group.0 as usize)?.members.contains(member.0);
        serves.then_some(entry.open.len() < limits::HANDOFF_WINDOW_MAX as usize)
    }

    /// Calls `with` for every eligible worker that serves the listener, including those that cannot take a connection now. Costs
    /// time for each.
    #[inline]
    pub(in crate::balance) fn for_each_eligible<'b>(&'b self, mut with: impl FnMut(Candidate<'b>)) {
        let Some(group) = self.pool.groups.get(self.group.0 as usize) else { return };
        group.members.for_each(|ix| {
            if let Some(entry) = self.pool.member(MemberIx(ix)).filter(|member| member.eligible) {
                with(Candidate { member: MemberIx(ix), entry });
            }
        });
    }
}

/// One line for each strategy: the common name of its mode and type, and its word.
macro_rules! strategies {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// The strategy of an app.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mode {
            $($(#[$doc])* $name,)+
        }

        impl Mode {
            pub const ALL: &[Mode] = &[$(Mode::$name),+];

            /// The word in configuration and command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mode::$name => $word,)+
                }
            }
        }

        /// The strategy in use.
        #[derive(Clone, Debug)]
        pub(in crate::balance) enum Chosen {
            $($name($name),)+
        }

        impl Chosen {
            pub(in crate::balance) fn new(mode: Mode) -> Chosen {
                match mode {
                    $(Mode::$name => Chosen::$name($name::default()),)+
                }
            }

            pub(in crate::balance) fn mode(&self) -> Mode {
                match self {
                    $(Chosen::$name(_) => Mode::$name,)+
                }
            }

            pub(in crate::balance) fn wants_client(&self) -> bool {
                match self {
                    $(Chosen::$name(_) => $name::WANTS_CLIENT,)+
                }
            }
        }

        impl Strategy for Chosen {
            #[inline]
            fn pick(&mut self, candidates: &mut Candidates<'_>, client: Option<u64>) -> Option<MemberIx> {
                match self {
                    $(Chosen::$name(strategy) => strategy.pick(candidates, client),)+
                }
            }
        }
    };
}

strategies! {
    /// The fewest open hand-offs, ties in turn.
    RoundRobin = "round-robin",
    /// By the client's address.
    Sticky = "sticky",
}
