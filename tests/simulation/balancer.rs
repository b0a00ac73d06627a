//! Properties of the balancer over seeded sequences: fairness, windows, what becomes of a dead worker's connections,
//! stickiness. `ledger` has it against a model.
use clusterd::balance::*;
use clusterd::limits;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

const SEEDS: u32 = 200;
/// The same for what takes long, in the quick test command.
const SEEDS_QUICK: u32 = 50;

/// The same numbers on every run: the balancer's own hash, counted up.
struct Random {
    seed: u64,
    turn: u32,
}

impl Random {
    fn new(seed: u32) -> Random {
        Random { seed: u64::from(seed), turn: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.turn += 1;
        (sticky::weight(self.seed, self.turn) % bound as u64) as usize
    }
}

/// A balancer with so many eligible workers, one for each slot, in one group.
fn workers(mode: Mode, count: u32) -> (Balancer, GroupIx, Vec<MemberIx>) {
    let mut balancer = Balancer::new(mode, 1);
    let group = balancer.add_group();
    let members = (0..count).map(|slot| worker(&mut balancer, group, slot)).collect();
    (balancer, group, members)
}

fn worker(balancer: &mut Balancer, group: GroupIx, slot: u32) -> MemberIx {
    let member = balancer.add_member(slot);
    balancer.join(group, member);
    balancer.set_eligible(member, true);
    member
}

fn client(n: u32) -> Option<u64> {
    Some(sticky::hash_ip(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()))
}

/// A hand-off that is answered at once.
fn serve(balancer: &mut Balancer, group: GroupIx, now_us: u64) -> Option<MemberIx> {
    let member = balancer.pick(group, None, now_us)?;
    let seq = balancer.opened(member, ConnIx(0), now_us);
    assert_eq!(balancer.answered(member, seq, now_us), Some((ConnIx(0), 0)));
    Some(member)
}

#[test]
fn whoever_comes_and_goes_idle_workers_get_the_same() {
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let (mut balancer, group, members) = workers(Mode::RoundRobin, 1 + random.below(7) as u32);
        let mut ready: BTreeSet<MemberIx> = members.iter().copied().collect();
        let mut idle = BTreeSet::new();
        for change in 0..40 {
            match random.below(4) {
                0 => drop(ready.insert(worker(&mut balancer, group, change))),
                kind => {
                    let all: Vec<MemberIx> = ready.union(&idle).copied().collect();
                    if let Some(&member) = all.get(random.below(all.len().max(1))) {
                        match kind {
                            1 => {
                                balancer.remove_member(member, &mut Vec::new());
                                ready.remove(&member);
                                idle.remove(&member);
                            }
                            2 => {
                                balancer.set_eligible(member, false);
                                ready.remove(&member);
                                idle.insert(member);
                            }
                            _ => {
                                balancer.set_eligible(member, true);
                                idle.remove(&member);
                                ready.insert(member);
                            }
                        }
                    }
                }
            }
            // In every stretch of as many hand-offs as there are workers each has one.
            let served: Vec<_> = (0..3 * ready.len()).map(|n| serve(&mut balancer, group, n as u64).unwrap()).collect();
            for stretch in served.windows(ready.len().max(1)) {
                assert_eq!(stretch.iter().copied().collect::<BTreeSet<_>>(), ready, "seed {seed}");
            }
            assert_eq!(balancer.can_take(group, 0), !ready.is_empty());
        }
    }
}

#[test]
fn the_next_connection_goes_to_the_fewest_open() {
    // No answer here is slow, so that nobody is full below the first window.
    let full = limits::HANDOFF_WINDOW_START as usize;
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let (mut balancer, group, members) = workers(Mode::RoundRobin, 2 + random.below(6) as u32);
        let mut open: BTreeMap<MemberIx, Vec<u64>> = members.iter().map(|&m| (m, Vec::new())).collect();
        for _ in 0..300 {
            if random.below(5) < 3 {
                let fewest = open.values().map(Vec::len).min().unwrap();
                let Some(member) = balancer.pick(group, None, 0) else {
                    assert!(fewest >= full, "seed {seed}");
                    continue;
                };
                assert!(open[&member].len() == fewest || fewest >= full, "seed {seed}");
                let seq = balancer.opened(member, ConnIx(0), 0);
                open.get_mut(&member).unwrap().push(seq);
            } else {
                let member = members[random.below(members.len())];
                let waiting = open.get_mut(&member).unwrap();
                if !waiting.is_empty() {
                    let seq = waiting.remove(random.below(waiting.len()));
                    assert!(balancer.answered(member, seq, 0).is_some());
                }
            }
        }
    }
}

#[test]
fn a_full_worker_gets_nothing_until_it_answers() {
    let (mut balancer, group, members) = workers(Mode::RoundRobin, 2);
    let mut open: VecDeque<(MemberIx, u64)> = VecDeque::new();
    while let Some(member) = balancer.pick(group, None, 0) {
        open.push_back((member, balancer.opened(member, ConnIx(open.len() as u32), 0)));
    }
    assert_eq!(open.len(), 2 * limits::HANDOFF_WINDOW_START as usize);
    assert!(!balancer.can_take(group, 0), "accepting pauses");
    // Each answer makes room with the one who answered, and with nobody else.
    for _ in 0..50 {
        let (member, seq) = open.pop_back().unwrap();
        assert!(balancer.answered(member, seq, 0).is_some());
        assert!(balancer.can_take(group, 0), "accepting continues");
        while let Some(picked) = balancer.pick(group, None, 0) {
            assert_eq!(picked, member);
            open.push_front((picked, balancer.opened(picked, ConnIx(0), 0)));
        }
    }
    let count = |member| open.iter().filter(|(m, _)| *m == member).count();
    for member in members {
        assert_eq!(balancer.open_count(member) as usize, count(member));
        assert!(count(member) <= limits::HANDOFF_WINDOW_MAX as usize);
    }
}

#[test]
fn a_window_grows_to_its_bound_and_no_further() {
    let (mut balancer, group, members) = workers(Mode::RoundRobin, 1);
    let mut widest = 0;
    for _ in 0..200 {
        let mut open = Vec::new();
        while balancer.pick(group, None, 0).is_some() {
            open.push(balancer.opened(members[0], ConnIx(0), 0));
        }
        widest = widest.max(open.len());
        for seq in open {
            assert!(balancer.answered(members[0], seq, limits::HANDOFF_SLOW_US).is_some(), "just fast enough");
        }
    }
    assert_eq!(widest, limits::HANDOFF_WINDOW_MAX as usize);
    // One slow answer, and it is trusted with one.
    let seq = balancer.opened(members[0], ConnIx(0), 0);
    assert!(balancer.answered(members[0], seq, limits::HANDOFF_SLOW_US + 1).is_some());
    balancer.opened(members[0], ConnIx(0), 0);
    assert!(!balancer.can_take(group, 0));
}

#[test]
fn a_worker_has_one_window_over_all_its_listeners() {
    let (mut balancer, web, members) = workers(Mode::RoundRobin, 2);
    let admin = balancer.add_group();
    let nobody = balancer.add_group();
    balancer.join(admin, members[0]);
    balancer.join(admin, members[0]);
    assert_eq!(balancer.pick(nobody, None, 0), None);
    for _ in 0..limits::HANDOFF_WINDOW_START {
        assert_eq!(balancer.pick(admin, None, 0), Some(members[0]));
        balancer.opened(members[0], ConnIx(0), 0);
    }
    assert!(!balancer.can_take(admin, 0) && balancer.can_take(web, 0));
    assert_eq!(balancer.pick(web, None, 0), Some(members[1]));
    // It closes one server: what it has open stays its own, and it serves the other.
    balancer.leave(admin, members[0]);
    balancer.leave(admin, members[0]);
    assert_eq!(balancer.open_count(members[0]), limits::HANDOFF_WINDOW_START);
    assert!(balancer.answered(members[0], 1, 0).is_some());
    assert!(!balancer.can_take(admin, 0));
    assert_eq!(balancer.pick(web, None, 0), Some(members[1]), "the other has fewer open");
    balancer.set_eligible(members[1], false);
    assert_eq!(balancer.pick(web, None, 0), Some(members[0]));
}

#[test]
fn a_place_that_is_used_again_knows_nothing_of_its_former_worker() {
    let (mut balancer, group, members) = workers(Mode::RoundRobin, 1);
    let old = balancer.opened(members[0], ConnIx(5), 0);
    let mut back = Vec::new();
    balancer.remove_member(members[0], &mut back);
    balancer.remove_member(members[0], &mut back);
    assert_eq!((back, balancer.total_open()), (vec![ConnIx(5)], 0));
    balancer.set_eligible(members[0], true);
    balancer.join(group, members[0]);
    assert_eq!(balancer.pick(group, None, 0), None, "nobody is there");
    balancer.leave(group, members[0]);
    let again = worker(&mut balancer, group, 0);
    assert_eq!(again, members[0]);
    assert_eq!(balancer.answered(again, old, 0), None, "an answer of the dead one");
    let new = balancer.opened(again, ConnIx(6), 0);
    assert!(new > old);
    assert_eq!(balancer.answered(again, new, 0), Some((ConnIx(6), 0)));
    let unknown = MemberIx(99);
    assert_eq!((balancer.open_count(unknown), balancer.oldest_open_us(unknown)), (0, None));
    assert_eq!(balancer.answered(unknown, new, 0), None);
    assert_eq!(balancer.pick(GroupIx(99), None, 0), None);
    assert!(!balancer.can_take(GroupIx(99), 0));
}

/// The master's part in small: accepts while somebody can take and nobody waits; what a worker dies with or refuses
/// waits for another, in order.
struct Shell {
    balancer: Balancer,
    group: GroupIx,
    waiting: VecDeque<ConnIx>,
    open: Vec<(MemberIx, u64, ConnIx)>,
    accepted: u32,
    served: BTreeSet<ConnIx>,
}

impl Shell {
    fn new(mode: Mode, count: u32) -> (Shell, Vec<MemberIx>) {
        let (balancer, group, members) = workers(mode, count);
        let (waiting, open, served) = (VecDeque::new(), Vec::new(), BTreeSet::new());
        (Shell { balancer, group, waiting, open, accepted: 0, served }, members)
    }

    fn accept(&mut self) {
        if self.waiting.is_empty() && self.balancer.can_take(self.group, 0) {
            let conn = ConnIx(self.accepted);
            self.accepted += 1;
            if !self.hand_off(conn) {
                assert!(
                    self.balancer.wants_client(),
                    "what was accepted is taken, or waits for the worker of its client"
                );
                self.waiting.push_back(conn);
            }
        }
    }

    fn hand_off(&mut self, conn: ConnIx) -> bool {
        let Some(member) = self.balancer.pick(self.group, client(conn.0), 0) else { return false };
        let seq = self.balancer.opened(member, conn, 0);
        self.open.push((member, seq, conn));
        true
    }

    fn rehome(&mut self) {
        while let Some(&conn) = self.waiting.front() {
            if !self.hand_off(conn) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn answer(&mut self, at: usize, accepted: bool) {
        let (member, seq, conn) = self.open.remove(at);
        assert_eq!(self.balancer.answered(member, seq, 0), Some((conn, 0)));
        if accepted {
            assert!(self.served.insert(conn), "served twice");
        } else {
            self.waiting.push_back(conn);
        }
    }

    fn die(&mut self, member: MemberIx) {
        let had: Vec<ConnIx> = self.open.iter().filter(|open| open.0 == member).map(|open| open.2).collect();
        self.open.retain(|open| open.0 != member);
        let mut back = Vec::new();
        self.balancer.remove_member(member, &mut back);
        assert_eq!(back, had, "all of them, as they were sent");
        self.waiting.extend(back);
    }
}

#[test]
fn connections_outlive_their_workers_and_each_is_served_once() {
    outlive(0..SEEDS_QUICK);
}

#[test]
#[ignore = "long: more seeds"]
fn connections_outlive_their_workers_with_more_seeds() {
    outlive(SEEDS_QUICK..SEEDS);
}

fn outlive(seeds: Range<u32>) {
    for seed in seeds {
        let mut random = Random::new(seed);
        let mode = if seed % 2 == 0 { Mode::RoundRobin } else { Mode::Sticky };
        let (mut shell, mut members) = Shell::new(mode, 4);
        for step in 0..400 {
            match random.below(20) {
                0 if !members.is_empty() => shell.die(members.swap_remove(random.below(members.len()))),
                1 => members.push(worker(&mut shell.balancer, shell.group, step % 6)),
                2..=9 if !shell.open.is_empty() => {
                    let at = random.below(shell.open.len());
                    let accepted = random.below(8) > 0;
                    shell.answer(at, accepted);
                }
                _ => shell.accept(),
            }
            shell.rehome();
            assert_eq!(shell.balancer.total_open(), shell.open.len(), "seed {seed}");
            assert_eq!(shell.open.len() + shell.waiting.len() + shell.served.len(), shell.accepted as usize);
            // A sticky client waits for its own worker, which has the most that it may.
            let is_full = |&member: &MemberIx| shell.balancer.open_count(member) == limits::HANDOFF_WINDOW_MAX;
            let waits_for_its_own = shell.balancer.wants_client() && members.iter().any(is_full);
            let nobody = waits_for_its_own || !shell.balancer.clone().can_take(shell.group, 0);
            assert!(shell.waiting.is_empty() || nobody, "somebody waits for nothing");
        }
        // In the end everything that was ever accepted is served, however long nobody was there.
        for member in members.drain(..) {
            shell.die(member);
        }
        shell.accept();
        assert_eq!(shell.waiting.len() + shell.served.len(), shell.accepted as usize, "nobody accepts for nobody");
        worker(&mut shell.balancer, shell.group, 0);
        while shell.served.len() < shell.accepted as usize {
            shell.rehome();
            shell.answer(0, true);
        }
    }
}

#[test]
fn what_a_dead_worker_had_goes_to_the_others_in_order() {
    let (mut shell, members) = Shell::new(Mode::RoundRobin, 3);
    for _ in 0..12 {
        shell.accept();
    }
    shell.die(members[1]);
    shell.answer(0, false);
    let waiting: Vec<ConnIx> = shell.waiting.iter().copied().collect();
    assert_eq!(waiting, [1, 4, 7, 10, 0].map(ConnIx), "oldest first, then what was refused later");
    let before = shell.open.len();
    shell.rehome();
    assert_eq!(shell.open[before..].iter().map(|open| open.2).collect::<Vec<_>>(), waiting);
    assert!(shell.open.iter().all(|open| open.0 != members[1]));
    assert_eq!((shell.balancer.open_count(members[0]), shell.balancer.open_count(members[2])), (6, 6));
}

#[test]
fn sticky_clients_move_only_when_they_must() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let (mut balancer, group, members) = workers(Mode::Sticky, 8);
        let place = |balancer: &mut Balancer| -> Vec<MemberIx> {
            (0..400).map(|n| balancer.pick(group, client(seed * 1_000 + n), 0).unwrap()).collect()
        };
        let before = place(&mut balancer);
        assert_eq!(place(&mut balancer), before, "nothing changed");
        // Clients of a busy worker are not moved: with some open hand-offs all stay where they were.
        let busy = members[random.below(8)];
        let open: Vec<u64> = (1..limits::HANDOFF_WINDOW_START).map(|_| balancer.opened(busy, ConnIx(0), 0)).collect();
        assert_eq!(place(&mut balancer), before, "somebody is busy");
        // They wait for it also when its window is full and its answers are late: what it knows of them is there.
        let late_us = 10 * limits::HANDOFF_SLOW_US;
        let more = limits::HANDOFF_WINDOW_MAX - open.len() as u32;
        let late: Vec<u64> = (1..more).map(|_| balancer.opened(busy, ConnIx(0), 0)).collect();
        let is: Vec<_> = (0..400).map(|n| balancer.pick(group, client(seed * 1_000 + n), late_us).unwrap()).collect();
        assert_eq!(is, before, "somebody is slow");
        // With the most that it may have open they wait outside of it, and for nobody else.
        let last = balancer.opened(busy, ConnIx(0), 0);
        for (n, &was) in (0..400).zip(&before) {
            let is = balancer.pick(group, client(seed * 1_000 + n), late_us);
            assert_eq!(is, Some(was).filter(|was| *was != busy));
        }
        for seq in open.into_iter().chain(late).chain([last]) {
            assert!(balancer.answered(busy, seq, 0).is_some());
        }
        assert_eq!(place(&mut balancer), before, "it answered");
        // A slot is lost: its clients alone move, and not all to one other.
        let gone = members[random.below(8)];
        balancer.set_eligible(gone, false);
        let is = place(&mut balancer);
        assert!(is.iter().zip(&before).all(|(is, was)| *is != gone && (is == was || *was == gone)));
        let heirs: BTreeSet<_> = is.iter().zip(&before).filter(|(_, was)| **was == gone).map(|(is, _)| *is).collect();
        assert!(heirs.len() > 3, "{heirs:?}");
        // They stay there when the slot has a worker again: that one knows nothing of them. Others find it as theirs.
        balancer.remove_member(gone, &mut Vec::new());
        let slot_of = |member: MemberIx| members.iter().position(|&m| m == member).unwrap() as u32;
        let next = worker(&mut balancer, group, slot_of(gone));
        assert_eq!(place(&mut balancer), is);
        let mut for_strangers = balancer.clone();
        let strangers: BTreeSet<_> =
            (400..800).filter_map(|n| for_strangers.pick(group, client(seed * 1_000 + n), 0)).collect();
        assert!(strangers.contains(&next), "{strangers:?}");
        // A worker that is replaced by another in its slot beside it (a reload) leaves its clients to that one.
        let old = is[0];
        let successor = worker(&mut balancer, group, slot_of(old));
        assert_eq!(place(&mut balancer), is, "as long as the old one serves");
        balancer.set_eligible(old, false);
        let expected: Vec<_> = is.iter().map(|&was| if was == old { successor } else { was }).collect();
        assert_eq!(place(&mut balancer), expected);
        // Without an address it goes in turn.
        let turns: BTreeSet<_> = (0..8).map(|_| balancer.pick(group, None, 0).unwrap()).collect();
        assert_eq!(turns.len(), 8);
    }
}

#[test]
fn one_busy_client_leaves_others_workers_with_the_fewest_open() {
    let (mut balancer, group, members) = workers(Mode::Sticky, 3);
    for n in 0..4 {
        let home = balancer.pick(group, client(1), 0).unwrap();
        balancer.opened(home, ConnIx(n), 0);
        assert_eq!(balancer.open_count(home), n + 1);
        assert_eq!(balancer.fewest_open(group, 0), Some(0));
    }
    for member in members {
        balancer.opened(member, ConnIx(9), 0);
    }
    assert_eq!(balancer.fewest_open(group, 0), Some(1));
}

#[test]
fn sticky_spreads_clients_evenly_and_knows_them_in_both_families() {
    let (mut balancer, group, _) = workers(Mode::Sticky, 8);
    let mut counts: BTreeMap<MemberIx, u32> = BTreeMap::new();
    for n in 0..8_000 {
        *counts.entry(balancer.pick(group, client(n), 0).unwrap()).or_default() += 1;
    }
    assert!(counts.len() == 8 && counts.values().all(|n| (850..1_150).contains(n)), "{counts:?}");
    let v4 = std::net::Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(sticky::hash_ip(v4.into()), sticky::hash_ip(v4.to_ipv6_mapped().into()));
    assert_ne!(sticky::hash_ip(v4.into()), sticky::hash_ip(v4.to_ipv6_compatible().into()));
}
