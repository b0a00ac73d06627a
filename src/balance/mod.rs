//! Who gets the next connection, and the ledger of open hand-offs. Pure: time is an argument (microseconds), sockets
//! are indices of the shell.
//!
//! The rule (round-robin): among the workers that serve the listener and may be given something, the one with the
//! fewest open hand-offs, ties in turn: strict round-robin when idle, and a worker whose event loop is stuck gets no
//! more. Sticky: the same client goes to the same slot (`sticky`).
//!
//! Every worker has a window, the number of hand-offs that it may leave open. It grows while answers come fast and falls
//! to one when they do not, so that a worker that just got stuck strands few. Where all are slow, windows open for what has
//! waited for long (`patience`). One that refuses a connection is put aside for a moment (`refusals`).
pub mod pace;
pub mod patience;
mod refusals;
pub mod selection;
mod standings;
pub mod steering;
pub mod sticky;

use crate::limits;
use refusals::Refusals;
use standings::{Bits, Standings};
use std::collections::{BTreeSet, VecDeque};

/// Index of a worker in the balancer; used again after [`Balancer::remove_member`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIx(pub u32);

/// Index of a listener's group of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIx(pub u32);

/// Index of a connection that the shell keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnIx(pub u32);

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The fewest open hand-offs, ties in turn.
    RoundRobin,
    /// By the client's address.
    Sticky,
}

/// One hand-off without an answer.
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
    /// Its oldest hand-off was seen to be late: nothing more before it answers.
    late: bool,
    /// Its level in `Balancer::ready`.
    standing: Option<u32>,
    /// Connections that it refused since it last took one; those that were under way meanwhile do not count.
    refused: u32,
    groups: BTreeSet<GroupIx>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// Those that serve it, but for those that are aside.
    members: Bits,
    /// The member with whom the next turn begins.
    turn: u32,
}

/// The balancer of one app. Nothing takes longer with more workers, but the choice by address (`sticky`)
/// for a client that is new, or whose worker cannot take it.
#[derive(Clone, Debug)]
pub struct Balancer {
    mode: Mode,
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    groups: Vec<Group>,
    /// Those that could take a connection now, unless time has shown their oldest hand-off to be late.
    ready: Standings,
    homes: sticky::Homes,
    refusals: Refusals,
    /// Who was found for a group at this time (microseconds), while nothing has changed since: who asks whether somebody
    /// can take a connection is about to give one.
    found: Option<(GroupIx, u64, MemberIx)>,
    /// No window is smaller while connections have waited for long; else 0.
    window_least: u32,
    next_seq: u64,
    total_open: usize,
}

impl Balancer {
    /// An empty one. Hand-offs are numbered from `first_seq`.
    pub fn new(mode: Mode, first_seq: u64) -> Balancer {
        Balancer {
            mode,
            members: Vec::new(),
            free: Vec::new(),
            groups: Vec::new(),
            ready: Standings::new(),
            homes: sticky::Homes::default(),
            refusals: Refusals::default(),
            found: None,
            window_least: 0,
            next_seq: first_seq,
            total_open: 0,
        }
    }

    /// Changes the way to choose.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// A new group, for a new listener.
    pub fn add_group(&mut self) -> GroupIx {
        self.groups.push(Group::default());
        GroupIx(self.groups.len() as u32 - 1)
    }

    /// A new worker; it is not eligible yet.
    pub fn add_member(&mut self, slot: u32) -> MemberIx {
        let member = Member {
            slot,
            eligible: false,
            window: limits::HANDOFF_WINDOW_START,
            open: VecDeque::new(),
            late: false,
            standing: None,
            refused: 0,
            groups: BTreeSet::new(),
        };
        match self.free.pop() {
            Some(ix) => {
                self.members[ix as usize] = Some(member);
                MemberIx(ix)
            }
            None => {
                self.members.push(Some(member));
                MemberIx(self.members.len() as u32 - 1)
            }
        }
    }

    /// Takes a worker out; the connections that it had not answered for are added to `taken_back`, oldest first.
    pub fn remove_member(&mut self, member: MemberIx, taken_back: &mut Vec<ConnIx>) {
        let Some(gone) = self.members.get_mut(member.0 as usize).and_then(Option::take) else { return };
        self.homes.forget();
        self.found = None;
        self.refusals.forget_member(member);
        self.total_open -= gone.open.len();
        taken_back.extend(gone.open.iter().map(|open| open.conn));
        if let Some(level) = gone.standing {
            self.ready.leave(level, member.0);
        }
        for group in gone.groups {
            self.groups[group.0 as usize].members.remove(member.0);
        }
        self.free.push(member.0);
    }

    /// The worker serves this listener.
    pub fn join(&mut self, group: GroupIx, member: MemberIx) {
        let (Some(entry), Some(who)) =
            (self.groups.get_mut(group.0 as usize), self.members.get_mut(member.0 as usize).and_then(Option::as_mut))
        else {
            return;
        };
        self.homes.forget();
        self.found = None;
        self.refusals.forget(group, member);
        entry.members.insert(member.0);
        who.groups.insert(group);
    }

    /// The worker serves this listener no more.
    pub fn leave(&mut self, group: GroupIx, member: MemberIx) {
        self.homes.forget();
        self.found = None;
        self.refusals.forget(group, member);
        if let Some(entry) = self.groups.get_mut(group.0 as usize) {
            entry.members.remove(member.0);
        }
        if let Some(who) = self.member_mut(member) {
            who.groups.remove(&group);
        }
    }

    /// Whether the worker may be given connections (ready, reading its channel, not draining).
    pub fn set_eligible(&mut self, member: MemberIx, eligible: bool) {
        if let Some(who) = self.member_mut(member)
            && who.eligible != eligible
        {
            who.eligible = eligible;
            self.homes.forget();
            self.stand(member);
        }
    }

    /// Puts a worker where it belongs in `ready`.
    fn stand(&mut self, ix: MemberIx) {
        let least = self.window_least;
        let Some(member) = self.members.get_mut(ix.0 as usize).and_then(Option::as_mut) else { return };
        let open = member.open.len() as u32;
        let may = member.eligible && !member.late && (open == 0 || open < member.window.max(least));
        let standing = may.then_some(open);
        if member.standing == standing {
            return;
        }
        self.found = None;
        if let Some(former) = std::mem::replace(&mut member.standing, standing) {
            self.ready.leave(former, ix.0);
        }
        if let Some(level) = standing {
            self.ready.enter(level, ix.0);
        }
    }

    /// The worker for the next connection; `None` when nobody can take it now.
    pub fn pick(&mut self, group: GroupIx, client_hash: Option<u64>, now_us: u64) -> Option<MemberIx> {
        match (self.mode, client_hash) {
            (Mode::Sticky, Some(hash)) => self.pick_sticky(group, hash, now_us),
            (Mode::Sticky, None) | (Mode::RoundRobin, _) => self.pick_in_turn(group, now_us),
        }
    }

    /// Whether somebody could take a connection now.
    pub fn can_take(&mut self, group: GroupIx, now_us: u64) -> bool {
        let found = self.find_in_turn(group, now_us);
        self.found = found.map(|member| (group, now_us, member));
        found.is_some()
    }

    /// Open hand-offs of the worker that has the fewest, among those that could take a connection of this group.
    pub fn fewest_open(&mut self, group: GroupIx, now_us: u64) -> Option<u32> {
        self.find_in_turn(group, now_us).map(|member| self.open_count(member))
    }

    /// So many connections of a group have waited for long. Until [`Balancer::close_windows`] every worker may have its share
    /// of them open; one that is late still gets nothing. Whether anybody may be given something at all.
    pub fn open_windows(&mut self, group: GroupIx, waiting: u32) -> bool {
        let Some(entry) = self.groups.get(group.0 as usize) else { return false };
        let may = |ix: &u32| self.member(MemberIx(*ix)).is_some_and(|member| member.eligible);
        let count = entry.members.iter().filter(may).count() as u32;
        if count > 0 {
            let share = waiting.div_ceil(count);
            self.set_window_least(share.clamp(limits::HANDOFF_WINDOW_START, limits::HANDOFF_WINDOW_MAX));
        }
        count > 0
    }

    /// They have been given out.
    pub fn close_windows(&mut self) {
        self.set_window_least(0);
    }

    fn set_window_least(&mut self, window: u32) {
        if std::mem::replace(&mut self.window_least, window) != window {
            (0..self.members.len() as u32).for_each(|ix| self.stand(MemberIx(ix)));
        }
    }

    fn pick_in_turn(&mut self, group: GroupIx, now_us: u64) -> Option<MemberIx> {
        let member = match self.found.take() {
            Some((of, at_us, member)) if (of, at_us) == (group, now_us) => member,
            _ => self.find_in_turn(group, now_us)?,
        };
        self.groups.get_mut(group.0 as usize)?.turn = member.0 + 1;
        Some(member)
    }

    /// The first in turn among those with the fewest open hand-offs. Who is late is met once, and not again before it
    /// answers.
    fn find_in_turn(&mut self, group: GroupIx, now_us: u64) -> Option<MemberIx> {
        loop {
            let entry = self.groups.get(group.0 as usize)?;
            let found = MemberIx(self.ready.next(&entry.members, entry.turn)?);
            let member = self.member_mut(found)?;
            if member.can_take(now_us) {
                return Some(found);
            }
            member.late = true;
            self.stand(found);
        }
    }

    /// The slot that the client belongs to among those that serve. A slot whose worker is merely busy is waited for
    /// while it may have more open; only one that cannot be given anything is passed over.
    fn pick_sticky(&mut self, group: GroupIx, hash: u64, now_us: u64) -> Option<MemberIx> {
        let known = self.homes.of(group, hash);
        if known.is_some_and(|home| self.member(home).is_some_and(|member| member.can_take(now_us))) {
            return known;
        }
        let (mut home, mut pick) = (None, None);
        for ix in self.groups.get(group.0 as usize)?.members.iter().map(MemberIx) {
            let Some(member) = self.member(ix).filter(|member| member.eligible) else { continue };
            let heavier = Some((sticky::weight(hash, member.slot), ix));
            home = home.max(heavier);
            if member.can_take(now_us) {
                pick = pick.max(heavier);
            }
        }
        if let Some((_, home)) = home {
            self.homes.remember(group, hash, home);
        }
        pick.map(|(_, ix)| ix)
    }

    /// The number that the next hand-off to this worker will have.
    pub fn next_seq(&self, _member: MemberIx) -> u64 {
        self.next_seq
    }

    /// A hand-off was sent, under [`Balancer::next_seq`].
    pub fn opened(&mut self, member: MemberIx, conn: ConnIx, now_us: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        if let Some(who) = self.member_mut(member) {
            who.open.push_back(Open { seq, conn, since_us: now_us });
            self.total_open += 1;
            self.stand(member);
        }
        seq
    }

    /// The worker answered. `None` for a number that is not open: a former master's, or nonsense. Returns the connection
    /// and how long the answer took.
    pub fn answered(&mut self, member: MemberIx, seq: u64, now_us: u64) -> Option<(ConnIx, u64)> {
        let who = self.members.get_mut(member.0 as usize)?.as_mut()?;
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
        self.stand(member);
        Some((open.conn, took_us))
    }

    /// The worker has taken a connection.
    pub fn taken(&mut self, member: MemberIx) {
        if let Some(who) = self.member_mut(member) {
            who.refused = 0;
        }
    }

    /// The worker has refused a connection of this listener: it is offered none for a moment, and then one at first.
    pub fn refused(&mut self, group: GroupIx, member: MemberIx, now_us: u64) {
        let (Some(entry), Some(who)) =
            (self.groups.get_mut(group.0 as usize), self.members.get_mut(member.0 as usize).and_then(Option::as_mut))
        else {
            return;
        };
        who.window = 1;
        if entry.members.remove(member.0) {
            who.refused = who.refused.saturating_add(1);
            self.refusals.add(group, member, who.refused, now_us);
            self.homes.forget();
        }
        self.stand(member);
        self.found = None;
    }

    /// Those who refused are offered connections again when their time is over.
    pub fn end_refusals(&mut self, now_us: u64) {
        let Balancer { refusals, groups, homes, found, .. } = self;
        refusals.end(now_us, |group, member| {
            groups[group.0 as usize].members.insert(member.0);
            homes.forget();
            *found = None;
        });
    }

    /// When [`Balancer::end_refusals`] has something to do (microseconds).
    pub fn next_refusal_end_us(&self) -> Option<u64> {
        self.refusals.next_end_us()
    }

    /// Hand-offs that this worker has not answered.
    pub fn open_count(&self, member: MemberIx) -> u32 {
        self.member(member).map_or(0, |m| m.open.len() as u32)
    }

    /// Hand-offs without an answer, over all workers.
    pub fn total_open(&self) -> usize {
        self.total_open
    }

    /// When the oldest open hand-off of a worker was sent.
    pub fn oldest_open_us(&self, member: MemberIx) -> Option<u64> {
        self.member(member)?.open.front().map(|open| open.since_us)
    }

    fn member(&self, ix: MemberIx) -> Option<&Member> {
        self.members.get(ix.0 as usize)?.as_ref()
    }

    fn member_mut(&mut self, ix: MemberIx) -> Option<&mut Member> {
        self.members.get_mut(ix.0 as usize)?.as_mut()
    }
}

impl Member {
    /// It stands among those that could, and its oldest hand-off is not late.
    fn can_take(&self, now_us: u64) -> bool {
        let is_late = |oldest: &Open| now_us.saturating_sub(oldest.since_us) > limits::HANDOFF_SLOW_US;
        self.standing.is_some() && !self.open.front().is_some_and(is_late)
    }
}

#[cfg(test)]
mod tests;
