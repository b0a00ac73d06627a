//! The balancer against a naive model: thousands of random sequences of hand-offs, answers, refusals and deaths.
use super::random::Random;
use clusterd::balance::backoff;
use clusterd::balance::starvation::{STARVED_AFTER_US, Starvation};
use clusterd::balance::{Balancer, ConnIx, GroupIx, MemberIx, Mode};
use clusterd::limits;
use std::collections::BTreeMap;

/// What the model knows of one worker.
#[derive(Default)]
struct Model {
    open: BTreeMap<u64, ConnIx>,
    eligible: bool,
    /// Refusals since it last took one, and until when it is offered nothing for that.
    refused: u32,
    aside_until_us: u64,
}

struct Run {
    random: Random,
    balancer: Balancer,
    group: GroupIx,
    workers: BTreeMap<MemberIx, Model>,
    next_conn: u32,
    now_us: u64,
    /// Connections that were given to somebody and have not ended.
    living: BTreeMap<ConnIx, MemberIx>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut balancer = Balancer::new(Mode::RoundRobin, 1 << 32);
        let group = balancer.add_group();
        Run {
            random: Random::new(seed),
            balancer,
            group,
            workers: BTreeMap::new(),
            next_conn: 0,
            now_us: 0,
            living: BTreeMap::new(),
        }
    }

    fn some_worker(&mut self) -> Option<MemberIx> {
        let count = self.workers.len() as u64;
        if count == 0 {
            return None;
        }
        let nth = self.random.between(0, count - 1) as usize;
        self.workers.keys().nth(nth).copied()
    }

    fn step(&mut self) {
        self.now_us += self.random.between(0, 2_000);
        self.balancer.end_backoff(self.now_us);
        match self.random.between(0, 19) {
            0 => {
                let slot = self.random.between(0, 7) as u32;
                let member = self.balancer.add_member(slot);
                assert!(self.workers.insert(member, Model { eligible: true, ..Model::default() }).is_none());
                self.balancer.join(self.group, member);
                self.balancer.set_eligible(member, true);
            }
            1 => self.kill(),
            2 => {
                let eligible = self.random.percent(60);
                if let Some(member) = self.some_worker() {
                    self.balancer.set_eligible(member, eligible);
                    self.workers.get_mut(&member).unwrap().eligible = eligible;
                }
            }
            3 => {
                self.now_us += self.random.between(0, 2 * limits::HANDOFF_SLOW_US);
                self.balancer.end_backoff(self.now_us);
            }
            4..=11 => self.accept(),
            _ => self.answer(),
        }
        let open: usize = self.workers.values().map(|w| w.open.len()).sum();
        assert_eq!(self.balancer.total_open(), open);
        assert_eq!(self.living.len(), open);
    }

    fn accept(&mut self) {
        let can = self.balancer.can_take(self.group, self.now_us);
        let picked = self.balancer.pick(self.group, None, self.now_us);
        assert_eq!(can, picked.is_some(), "pick and can_take disagree");
        let Some(member) = picked else { return };
        let worker = &self.workers[&member];
        assert!(worker.eligible, "a worker that may not have it got it");
        assert!(self.now_us >= worker.aside_until_us, "one that has just refused was asked again");
        assert!(worker.open.len() < limits::HANDOFF_WINDOW_MAX as usize, "over the window");
        let oldest = self.balancer.oldest_open_us(member);
        assert!(oldest.is_none_or(|at| self.now_us - at <= limits::HANDOFF_SLOW_US), "a stuck worker got more");
        let now_us = self.now_us;
        let idle = self.workers.values().any(|w| w.eligible && w.open.is_empty() && now_us >= w.aside_until_us);
        assert!(!idle || worker.open.is_empty(), "an idle worker was passed over");
        let conn = ConnIx(self.next_conn);
        self.next_conn += 1;
        let seq = self.balancer.next_seq(member);
        assert_eq!(self.balancer.opened(member, conn, self.now_us), seq);
        assert!(seq > 1 << 31);
        self.workers.get_mut(&member).unwrap().open.insert(seq, conn);
        self.living.insert(conn, member);
    }

    fn answer(&mut self) {
        let Some(member) = self.some_worker() else { return };
        let open: Vec<u64> = self.workers[&member].open.keys().copied().collect();
        if open.is_empty() {
            assert_eq!(self.balancer.answered(member, 7, self.now_us), None, "an unknown number means nothing");
            return;
        }
        // Mostly in order, as Node answers; sometimes not.
        let at = if self.random.percent(90) { 0 } else { self.random.between(0, open.len() as u64 - 1) as usize };
        let conn = self.workers.get_mut(&member).unwrap().open.remove(&open[at]).unwrap();
        let (answered, _) = self.balancer.answered(member, open[at], self.now_us).unwrap();
        assert_eq!(answered, conn);
        assert_eq!(self.balancer.answered(member, open[at], self.now_us), None, "a number is answered once");
        self.living.remove(&conn);
        let worker = self.workers.get_mut(&member).unwrap();
        if self.random.percent(80) {
            self.balancer.taken(member);
            worker.refused = 0;
            return;
        }
        self.balancer.refused(self.group, member, self.now_us);
        if self.now_us >= worker.aside_until_us {
            let doubled = backoff::PAUSE_MIN_US << worker.refused.min(10);
            worker.aside_until_us = self.now_us + doubled.min(backoff::PAUSE_MAX_US);
            worker.refused += 1;
        }
    }

    fn kill(&mut self) {
        let Some(member) = self.some_worker() else { return };
        let model = self.workers.remove(&member).unwrap();
        let mut back = Vec::new();
        self.balancer.remove_member(member, &mut back);
        assert_eq!(
            back,
            model.open.values().copied().collect::<Vec<_>>(),
            "exactly what was open comes back, in order"
        );
        for conn in back {
            self.living.remove(&conn);
        }
    }
}

#[test]
fn every_handoff_ends_exactly_once() {
    for seed in 0..400 {
        let mut run = Run::new(seed);
        for _ in 0..500 {
            run.step();
        }
    }
}

fn of_four(mode: Mode) -> (Balancer, GroupIx, Vec<MemberIx>) {
    let mut balancer = Balancer::new(mode, 1);
    let group = balancer.add_group();
    let members: Vec<MemberIx> = (0..4).map(|slot| balancer.add_member(slot)).collect();
    for &member in &members {
        balancer.join(group, member);
        balancer.set_eligible(member, true);
    }
    (balancer, group, members)
}

#[test]
fn idle_workers_take_strict_turns() {
    let (mut balancer, group, members) = of_four(Mode::RoundRobin);
    for n in 0..40 {
        let member = balancer.pick(group, None, n).unwrap();
        assert_eq!(member, members[n as usize % 4]);
        let seq = balancer.opened(member, ConnIx(n as u32), n);
        balancer.answered(member, seq, n + 1).unwrap();
    }
}

#[test]
fn a_stuck_worker_strands_few_and_the_window_opens_again_when_it_answers() {
    let (mut balancer, group, members) = of_four(Mode::RoundRobin);
    for &other in &members[1..] {
        balancer.set_eligible(other, false);
    }
    let mut stranded = Vec::new();
    while let Some(member) = balancer.pick(group, None, 0) {
        stranded.push(balancer.opened(member, ConnIx(stranded.len() as u32), 0));
    }
    assert_eq!(stranded.len(), limits::HANDOFF_WINDOW_START as usize);
    let late = 3 * limits::HANDOFF_SLOW_US;
    for seq in stranded {
        balancer.answered(members[0], seq, late).unwrap();
    }
    // It has proved slow: one at a time, and more as it answers fast again.
    let mut widths = Vec::new();
    let mut now = late;
    for _ in 0..4 {
        let mut open = Vec::new();
        while let Some(member) = balancer.pick(group, None, now) {
            open.push(balancer.opened(member, ConnIx(0), now));
        }
        widths.push(open.len());
        now += 100;
        for seq in open {
            balancer.answered(members[0], seq, now).unwrap();
        }
    }
    assert_eq!(widths[0], 1);
    assert!(widths[3] > widths[1], "{widths:?}");
}

/// Virtual time until workers whose event loops turn only every `turn_us` have taken `waiting` connections, handed to them
/// by the rules; the master looks every 10 ms.
fn taken_after_us(workers: usize, turn_us: u64, waiting: u32) -> u64 {
    let mut balancer = Balancer::new(Mode::RoundRobin, 1);
    let group = balancer.add_group();
    let members: Vec<MemberIx> = (0..workers as u32).map(|slot| balancer.add_member(slot)).collect();
    for &member in &members {
        balancer.join(group, member);
        balancer.set_eligible(member, true);
    }
    let (mut left, mut taken, mut now) = (waiting, 0, 0);
    let mut open: Vec<Vec<u64>> = vec![Vec::new(); workers];
    let mut starvation = Starvation::default();
    while taken < waiting {
        now += 10_000;
        assert!(now < 120_000_000, "{taken} of {waiting} were taken");
        for (n, member) in members.iter().enumerate() {
            // They turn one after the other.
            if (now + n as u64 * turn_us / workers as u64).is_multiple_of(turn_us) {
                for seq in open[n].drain(..) {
                    balancer.answered(*member, seq, now).unwrap();
                    taken += 1;
                }
            }
        }
        while left > 0 {
            let can = balancer.can_take(group, now)
                || (starvation.is_reached(now) && balancer.open_windows(group, left) && balancer.can_take(group, now));
            if !can {
                break;
            }
            let member = balancer.pick(group, None, now).unwrap();
            let n = members.iter().position(|m| *m == member).unwrap();
            open[n].push(balancer.opened(member, ConnIx(left), now));
            left -= 1;
        }
        if left == 0 {
            balancer.close_windows();
        }
    }
    now
}

#[test]
fn slow_workers_are_given_what_has_waited_for_long() {
    // One by one, 100 connections would take a minute and a half with two workers of a second each.
    for (workers, turn_us) in [(1, 300_000), (1, 1_000_000), (2, 300_000), (2, 1_000_000), (5, 400_000)] {
        let took_us = taken_after_us(workers, turn_us, 100);
        assert!(took_us <= 5 * turn_us + 2 * STARVED_AFTER_US, "{workers} of {turn_us}: {took_us}");
    }
}

#[test]
fn nobody_is_given_more_because_others_wait_while_it_does_not_answer() {
    let (mut balancer, group, members) = of_four(Mode::RoundRobin);
    members[1..].iter().for_each(|&other| balancer.set_eligible(other, false));
    let seq = balancer.opened(members[0], ConnIx(0), 0);
    let now = limits::HANDOFF_SLOW_US + 1;
    assert!(!balancer.can_take(group, now));
    assert!(balancer.open_windows(group, 500));
    assert!(!balancer.can_take(group, now), "it may be stuck");
    balancer.answered(members[0], seq, now).unwrap();
    assert!(balancer.open_windows(group, 500));
    let mut given = 0;
    while balancer.pick(group, None, now).is_some_and(|member| {
        assert_eq!(member, members[0], "who may have none gets none");
        given += 1;
        balancer.opened(member, ConnIx(given), now) > 0
    }) {}
    assert_eq!(given, limits::HANDOFF_WINDOW_MAX);
    balancer.set_eligible(members[0], false);
    balancer.close_windows();
    assert!(!balancer.open_windows(group, 500), "there is nobody");
}

#[test]
fn a_sticky_client_keeps_its_slot_when_others_come_and_go() {
    let (mut balancer, group, _) = of_four(Mode::Sticky);
    let hash = |n: u64| clusterd::balance::sticky::hash_ip(std::net::Ipv4Addr::from(n as u32 * 7919).into());
    let before: Vec<MemberIx> = (0..1000).map(|n| balancer.pick(group, Some(hash(n)), 0).unwrap()).collect();
    let new = balancer.add_member(4);
    balancer.join(group, new);
    balancer.set_eligible(new, true);
    let known = |n: u64| balancer.clone().pick(group, Some(hash(n)), 0).unwrap();
    let kept = before.iter().enumerate().filter(|(n, was)| known(*n as u64) == **was).count();
    // Places in the memory of clients are shared, so a few are forgotten; those may move to the new slot.
    assert!(kept > 850, "{kept} of 1000 stay");
    // For whoever comes new, or to a master that remembers nobody, only the share of the new slot differs.
    let (mut fresh, group, _) = of_four(Mode::Sticky);
    let natural: Vec<MemberIx> = (0..1000).map(|n| fresh.pick(group, Some(hash(n + 5_000)), 0).unwrap()).collect();
    let mut moved = 0;
    for (n, was) in natural.into_iter().enumerate() {
        let is = balancer.pick(group, Some(hash(n as u64 + 5_000)), 0).unwrap();
        assert!(is == was || is == new, "a client moved between two old slots");
        moved += u32::from(is == new);
    }
    assert!((100..350).contains(&moved), "{moved} of 1000 have the fifth slot");
}

/// Offers one connection for a second to workers that all refuse it, until `taker` is asked at or after this time. How often
/// it was offered, and when it was taken (microseconds).
fn offer_for_a_second(workers: u32, taker: MemberIx, from_us: u64) -> (u32, Option<u64>) {
    let mut balancer = Balancer::new(Mode::RoundRobin, 1);
    let group = balancer.add_group();
    for slot in 0..workers {
        let member = balancer.add_member(slot);
        balancer.join(group, member);
        balancer.set_eligible(member, true);
    }
    let mut offers = 0;
    for now_us in (0..1_000_000).step_by(100) {
        balancer.end_backoff(now_us);
        let Some(member) = balancer.pick(group, None, now_us) else {
            assert!(balancer.next_backoff_end_us().unwrap() > now_us, "there is something to wake up for");
            continue;
        };
        offers += 1;
        let seq = balancer.opened(member, ConnIx(0), now_us);
        balancer.answered(member, seq, now_us).unwrap();
        if member == taker && now_us >= from_us {
            balancer.taken(member);
            return (offers, Some(now_us));
        }
        balancer.refused(group, member, now_us);
    }
    (offers, None)
}

#[test]
fn a_connection_that_every_worker_refuses_does_not_go_round_and_round() {
    let never = u64::MAX;
    for workers in [1, 4] {
        let (offers, taken) = offer_for_a_second(workers, MemberIx(0), never);
        let most = workers * (8 + 1_000_000 / backoff::PAUSE_MAX_US as u32);
        assert!(taken.is_none() && offers <= most && offers > most / 2, "{workers} workers: {offers} offers");
        // Whoever can take it again has it soon.
        let (_, taken) = offer_for_a_second(workers, MemberIx(0), 500_000);
        assert!(taken.is_some_and(|at| at <= 500_000 + backoff::PAUSE_MAX_US), "{taken:?}");
    }
}

#[test]
fn a_worker_that_listens_anew_is_not_aside_and_one_that_left_does_not_come_back() {
    let mut balancer = Balancer::new(Mode::RoundRobin, 1);
    let (web, other) = (balancer.add_group(), balancer.add_group());
    let member = balancer.add_member(0);
    balancer.join(web, member);
    balancer.join(other, member);
    balancer.set_eligible(member, true);
    balancer.refused(web, member, 0);
    assert!(!balancer.can_take(web, 0) && balancer.can_take(other, 0), "one listener's refusal is not another's");
    balancer.join(web, member);
    assert!(balancer.can_take(web, 0));
    assert_eq!(balancer.next_backoff_end_us(), None);
    // One that has left does not come back by itself, nor does a later worker with its index.
    balancer.refused(web, member, 0);
    balancer.leave(web, member);
    balancer.refused(other, member, 0);
    balancer.remove_member(member, &mut Vec::new());
    assert_eq!(balancer.add_member(0), member);
    balancer.set_eligible(member, true);
    balancer.end_backoff(1_000_000);
    assert!(!balancer.can_take(web, 1_000_000) && !balancer.can_take(other, 1_000_000));
}
