//! Chooses the worker for each connection, and keeps the ledger of open hand-offs. Pure: time is an argument
//! (microseconds), sockets are indices of the shell.
//!
//! Which of the workers that can take a connection gets it is decided by a `strategy`: [`Mode::RoundRobin`] or
//! [`Mode::Sticky`]. Whether a worker can take one is decided here, the same for every strategy:
//!
//! - Every worker has a window, the number of hand-offs that it may leave open. The window grows while answers come fast
//!   and falls to one when they do not, so that a worker that just got stuck strands few.
//! - Where all workers are slow, windows open for connections that have waited for long (`starvation`).
//! - A worker that refuses a connection gets none of the same listener for a moment (`backoff`).
pub mod backoff;
pub mod coalescing;
pub mod kept;
mod ready_set;
pub mod starvation;
mod strategy;
pub mod upgraded;

pub use strategy::{Mode, sticky};

use crate::limits;
use backoff::Backoff;
use ready_set::{Bits, ReadySet};
use std::collections::{BTreeSet, VecDeque};
use strategy::{Candidates, Chosen, Strategy};

/// Index of a worker in the balancer; reused after [`Balancer::remove_member`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIx(pub u32);

/// Index of a listener's group of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIx(pub u32);

/// Index of a connection of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnIx(pub u32);

/// An open hand-off.
#[derive(Clone, Copy, Debug)]
struct Open {
    seq: u64,
    conn: ConnIx,
    since_us: u64,
}

#[derive(Clone, Debug)]
struct Member {
    slot: u32,
    eligible: bool,
    window: u32,
    /// Oldest first: workers answer in order.
    open: VecDeque<Open>,
    /// Its oldest hand-off is late: it gets no more until it answers.
    late: bool,
    /// Its level in `Pool::ready`.
    level: Option<u32>,
    /// Connections refused since it last took one; refusals of hand-offs already under way do not count.
    refused: u32,
    groups: BTreeSet<GroupIx>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// The members that serve it and are not paused.
    members: Bits,
    /// The member at which the next turn begins.
    turn: u32,
}

/// The workers of an app, for the strategies.
#[derive(Clone, Debug)]
struct Pool {
    members: Vec<Option<Member>>,
    groups: Vec<Group>,
    /// The members that could take a connection, except those whose oldest hand-off turns out to be late.
    ready: ReadySet,
    /// The member found for a group at this time (microseconds), until something changes: a caller that asks whether a
    /// worker can take a connection usually hands one off next.
    found: Option<(GroupIx, u64, MemberIx)>,
    /// Lower bound of all windows while connections starve; else 0.
    window_least: u32,
}

/// The balancer of one app. The time of an operation does not depend on the number of workers, except for a strategy's
/// choice where its file says so.
#[derive(Clone, Debug)]
pub struct Balancer {
    strategy: Chosen,
    pool: Pool,
    free: Vec<u32>,
    backoff: Backoff,
    first_seq: u64,
    next_seq: u64,
    total_open: usize,
}

impl Balancer {
    /// An empty balancer. Hand-offs are numbered from `first_seq`.
    pub fn new(mode: Mode, first_seq: u64) -> Balancer {
        Balancer {
            strategy: Chosen::new(mode),
            pool: Pool {
                members: Vec::new(),
                groups: Vec::new(),
                ready: ReadySet::new(),
                found: None,
                window_least: 0,
            },
            free: Vec::new(),
            backoff: Backoff::default(),
            first_seq,
            next_seq: first_seq,
            total_open: 0,
        }
    }

    /// Changes the strategy, and drops the state of the old one.
    pub fn set_mode(&mut self, mode: Mode) {
        if self.strategy.mode() != mode {
            self.strategy = Chosen::new(mode);
        }
    }

    /// Whether [`Balancer::pick`] needs the client's hash.
    pub fn wants_client(&self) -> bool {
        self.strategy.wants_client()
    }

    /// Adds a group, for a new listener.
    pub fn add_group(&mut self) -> GroupIx {
        self.pool.groups.push(Group::default());
        GroupIx(self.pool.groups.len() as u32 - 1)
    }

    /// Adds a worker, not eligible yet.
    pub fn add_member(&mut self, slot: u32) -> MemberIx {
        let member = Member {
            slot,
            eligible: false,
            window: limits::HANDOFF_WINDOW_START,
            open: VecDeque::new(),
            late: false,
            level: None,
            refused: 0,
            groups: BTreeSet::new(),
        };
        match self.free.pop() {
            Some(ix) => {
                self.pool.members[ix as usize] = Some(member);
                MemberIx(ix)
            }
            None => {
                self.pool.members.push(Some(member));
                MemberIx(self.pool.members.len() as u32 - 1)
            }
        }
    }

    /// Removes a worker; appends the connections of its open hand-offs to `taken_back`, oldest first.
    pub fn remove_member(&mut self, member: MemberIx, taken_back: &mut Vec<ConnIx>) {
        let Some(gone) = self.pool.members.get_mut(member.0 as usize).and_then(Option::take) else { return };
        self.members_changed();
        self.backoff.forget_member(member);
        self.total_open -= gone.open.len();
        taken_back.extend(gone.open.iter().map(|open| open.conn));
        if let Some(level) = gone.level {
            self.pool.ready.leave(level, member.0);
        }
        for group in gone.groups {
            self.pool.groups[group.0 as usize].members.remove(member.0);
        }
        self.free.push(member.0);
    }

    /// The worker serves this listener.
    pub fn join(&mut self, group: GroupIx, member: MemberIx) {
        let Some((entry, who)) = self.pool.group_and_member(group, member) else { return };
        entry.members.insert(member.0);
        who.groups.insert(group);
        self.members_changed();
        self.backoff.forget(group, member);
    }

    /// The worker stops serving this listener.
    pub fn leave(&mut self, group: GroupIx, member: MemberIx) {
        self.members_changed();
        self.backoff.forget(group, member);
        if let Some(entry) = self.pool.groups.get_mut(group.0 as usize) {
            entry.members.remove(member.0);
        }
        if let Some(who) = self.pool.member_mut(member) {
            who.groups.remove(&group);
        }
    }

    fn members_changed(&mut self) {
        self.pool.found = None;
    }

    /// Whether the worker may be given connections (ready, reading its channel, not draining).
    pub fn set_eligible(&mut self, member: MemberIx, eligible: bool) {
        if let Some(who) = self.pool.member_mut(member)
            && who.eligible != eligible
        {
            who.eligible = eligible;
            self.pool.update_level(member);
        }
    }

    /// The worker for the next connection; `None` if no worker can take it now.
    #[inline]
    pub fn pick(&mut self, group: GroupIx, client_hash: Option<u64>, now_us: u64) -> Option<MemberIx> {
        self.strategy.pick(&mut Candidates::new(&mut self.pool, group, now_us), client_hash)
    }

    /// Whether a worker could take a connection now.
    #[inline]
    pub fn can_take(&mut self, group: GroupIx, now_us: u64) -> bool {
        let found = self.pool.find_in_turn(group, now_us);
        self.pool.found = found.map(|member| (group, now_us, member));
        found.is_some()
    }

    /// Whether this worker may be handed a connection that is meant for it, beyond its window.
    pub fn may_take(&self, group: GroupIx, member: MemberIx, now_us: u64) -> bool {
        self.pool.member(member).is_some_and(|who| {
            let is_few = (who.open.len() as u32) < limits::HANDOFF_WINDOW_MAX;
            who.eligible && is_few && who.groups.contains(&group) && !who.is_late(now_us)
        })
    }

    /// Open hand-offs of the least busy worker that could take a connection of this group.
    pub fn fewest_open(&mut self, group: GroupIx, now_us: u64) -> Option<u32> {
        self.pool.find_in_turn(group, now_us).map(|member| self.open_count(member))
    }

    /// Opens the windows for this many starving connections of a group: until [`Balancer::close_windows`] every worker
    /// may have its share of them open. A late worker still gets none. Returns whether any worker is eligible.
    pub fn open_windows(&mut self, group: GroupIx, waiting: u32) -> bool {
        let Some(entry) = self.pool.groups.get(group.0 as usize) else { return false };
        let may = |ix| self.pool.member(MemberIx(ix)).is_some_and(|member| member.eligible);
        let mut count = 0;
        entry.members.for_each(|ix| count += u32::from(may(ix)));
        if count > 0 {
            let share = waiting.div_ceil(count);
            self.pool.set_window_least(share.clamp(limits::HANDOFF_WINDOW_START, limits::HANDOFF_WINDOW_MAX));
        }
        count > 0
    }

    /// Closes the windows: no connection starves any more.
    pub fn close_windows(&mut self) {
        self.pool.set_window_least(0);
    }

    /// The number of the next hand-off to this worker.
    #[inline]
    pub fn next_seq(&self, _member: MemberIx) -> u64 {
        self.next_seq
    }

    /// A hand-off with the number [`Balancer::next_seq`] was sent.
    #[inline]
    pub fn opened(&mut self, member: MemberIx, conn: ConnIx, now_us: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        if let Some(who) = self.pool.member_mut(member) {
            who.open.push_back(Open { seq, conn, since_us: now_us });
            self.total_open += 1;
            self.pool.update_level(member);
        }
        seq
    }

    /// A hand-off of a previous master, whose number is smaller than those of this balancer: whether the worker has it is not
    /// known. It is open until the worker answers it, or [`Balancer::take_back_adopted`].
    pub fn adopt(&mut self, member: MemberIx, conn: ConnIx, seq: u64, now_us: u64) {
        if let Some(who) = self.pool.member_mut(member) {
            who.open.push_front(Open { seq, conn, since_us: now_us });
            self.total_open += 1;
            self.pool.update_level(member);
        }
    }

    /// The worker has answered something that was sent after the hand-offs that were adopted: those that are still open never
    /// reached it. Returns their connections.
    pub fn take_back_adopted(&mut self, member: MemberIx) -> Vec<ConnIx> {
        let first_seq = self.first_seq;
        let Some(who) = self.pool.member_mut(member) else { return Vec::new() };
        let (adopted, open) = who.open.drain(..).partition::<VecDeque<Open>, _>(|open| open.seq < first_seq);
        who.open = open;
        self.total_open -= adopted.len();
        self.pool.update_level(member);
        adopted.into_iter().map(|open| open.conn).collect()
    }

    /// The worker answered. Returns the connection and the latency; `None` for a number that is not open: a previous
    /// master's, or invalid.
    #[inline]
    pub fn answered(&mut self, member: MemberIx, seq: u64, now_us: u64) -> Option<(ConnIx, u64)> {
        let who = self.pool.members.get_mut(member.0 as usize)?.as_mut()?;
        let was_full = who.open.len() as u32 >= who.window;
        let open = match who.open.front() {
            Some(oldest) if oldest.seq == seq => who.open.pop_front(),
            _ => who.open.iter().position(|open| open.seq == seq).and_then(|at| who.open.remove(at)),
        }?;
        self.total_open -= 1;
        let took_us = now_us.saturating_sub(open.since_us);
        if took_us > limits::HANDOFF_SLOW_US {
            who.window = 1;
        } else if was_full || who.window == 1 {
            who.window = (who.window + 1).min(limits::HANDOFF_WINDOW_MAX);
        }
        who.late = false;
        self.pool.update_level(member);
        Some((open.conn, took_us))
    }

    /// The worker has taken a connection.
    #[inline]
    pub fn taken(&mut self, member: MemberIx) {
        if let Some(who) = self.pool.member_mut(member) {
            who.refused = 0;
        }
    }

    /// The worker has refused a connection of this listener: it is paused for the listener, and then offered a single
    /// one first.
    pub fn refused(&mut self, group: GroupIx, member: MemberIx, now_us: u64) {
        let Some((entry, who)) = self.pool.group_and_member(group, member) else { return };
        who.window = 1;
        if entry.members.remove(member.0) {
            who.refused = who.refused.saturating_add(1);
            self.backoff.add(group, member, who.refused, now_us);
        }
        self.pool.update_level(member);
        self.pool.found = None;
    }

    /// Ends pauses that are over.
    pub fn end_backoff(&mut self, now_us: u64) {
        let Balancer { backoff, pool, .. } = self;
        backoff.end(now_us, |group, member| {
            pool.groups[group.0 as usize].members.insert(member.0);
            pool.found = None;
        });
    }

    /// When [`Balancer::end_backoff`] is due (microseconds).
    pub fn next_backoff_end_us(&self) -> Option<u64> {
        self.backoff.next_end_us()
    }

    /// Open hand-offs of this worker.
    #[inline]
    pub fn open_count(&self, member: MemberIx) -> u32 {
        self.pool.member(member).map_or(0, |m| m.open.len() as u32)
    }

    /// Open hand-offs of all workers.
    pub fn total_open(&self) -> usize {
        self.total_open
    }

    /// When the oldest open hand-off of a worker was sent.
    pub fn oldest_open_us(&self, member: MemberIx) -> Option<u64> {
        self.pool.member(member)?.open.front().map(|open| open.since_us)
    }
}

impl Pool {
    /// Updates a worker's level in `ready`.
    #[inline]
    fn update_level(&mut self, ix: MemberIx) {
        let least = self.window_least;
        let Some(member) = self.members.get_mut(ix.0 as usize).and_then(Option::as_mut) else { return };
        let open = member.open.len() as u32;
        let may = member.eligible && !member.late && (open == 0 || open < member.window.max(least));
        let level = may.then_some(open);
        if member.level == level {
            return;
        }
        self.found = None;
        if let Some(before) = std::mem::replace(&mut member.level, level) {
            self.ready.leave(before, ix.0);
        }
        if let Some(level) = level {
            self.ready.enter(level, ix.0);
        }
    }

    fn set_window_least(&mut self, window: u32) {
        if std::mem::replace(&mut self.window_least, window) != window {
            (0..self.members.len() as u32).for_each(|ix| self.update_level(MemberIx(ix)));
        }
    }

    /// The next in turn among the members with the fewest open hand-offs. A late member is visited once, and not again
    /// until it answers.
    #[inline]
    fn find_in_turn(&mut self, group: GroupIx, now_us: u64) -> Option<MemberIx> {
        loop {
            let entry = self.groups.get(group.0 as usize)?;
            let found = MemberIx(self.ready.next(&entry.members, entry.turn)?);
            let member = self.member_mut(found)?;
            if member.can_take(now_us) {
                return Some(found);
            }
            member.late = true;
            self.update_level(found);
        }
    }

    #[inline]
    fn member(&self, ix: MemberIx) -> Option<&Member> {
        self.members.get(ix.0 as usize)?.as_ref()
    }

    #[inline]
    fn member_mut(&mut self, ix: MemberIx) -> Option<&mut Member> {
        self.members.get_mut(ix.0 as usize)?.as_mut()
    }

    fn group_and_member(&mut self, group: GroupIx, member: MemberIx) -> Option<(&mut Group, &mut Member)> {
        let who = self.members.get_mut(member.0 as usize)?.as_mut()?;
        Some((self.groups.get_mut(group.0 as usize)?, who))
    }
}

impl Member {
    /// It is in the ready set, and its oldest hand-off is not late.
    #[inline]
    fn can_take(&self, now_us: u64) -> bool {
        self.level.is_some() && !self.is_late(now_us)
    }

    #[inline]
    fn is_late(&self, now_us: u64) -> bool {
        let is_late = |oldest: &Open| now_us.saturating_sub(oldest.since_us) > limits::HANDOFF_SLOW_US;
        self.open.front().is_some_and(is_late)
    }
}
