//! Moves between workers over the real ledger, with deaths of workers and masters at any step. A connection is an object of the
//! kernel that lives while anybody holds it: a process, or a message in a channel, which the keeper keeps open.
use super::random::Random;
use clusterd::balance::{Balancer, ConnIx, GroupIx, MemberIx, Mode, kept};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Connections of a run.
const CONNECTIONS: u32 = 24;

/// A worker: what its code holds, and what is in its channel, in both directions.
#[derive(Default)]
struct Worker {
    holds: BTreeSet<u32>,
    /// Connections between two requests; the others have a request under way.
    rests: BTreeSet<u32>,
    drains: bool,
    /// What it gave back last is not acknowledged: Node sends no other handle.
    waits_for_ack: bool,
    inbox: VecDeque<(u64, u32)>,
    outbox: VecDeque<Said>,
}

#[derive(Clone, Copy)]
enum Said {
    Moved(u32),
    Accepted(u64),
}

struct Run {
    random: Random,
    balancer: Balancer,
    group: GroupIx,
    workers: BTreeMap<MemberIx, Worker>,
    /// Copies of the master, by the ledger's index, and those that wait for a worker.
    copies: BTreeMap<ConnIx, u32>,
    waiting: VecDeque<ConnIx>,
    next_conn: u32,
    masters: u64,
    now_us: u64,
    /// Connections that died with whoever held them, and had to.
    lost: BTreeSet<u32>,
    moved: u32,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut run = Run {
            random: Random::new(seed),
            balancer: Balancer::new(Mode::RoundRobin, 1),
            group: GroupIx(0),
            workers: BTreeMap::new(),
            copies: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_conn: 0,
            masters: 1,
            now_us: 0,
            lost: BTreeSet::new(),
            moved: 0,
        };
        run.group = run.balancer.add_group();
        for _ in 0..3 {
            run.spawn();
        }
        for connection in 0..CONNECTIONS {
            run.queue(connection);
        }
        run
    }

    fn spawn(&mut self) {
        let member = self.balancer.add_member(0);
        self.balancer.join(self.group, member);
        self.balancer.set_eligible(member, true);
        assert!(self.workers.insert(member, Worker::default()).is_none());
    }

    fn queue(&mut self, connection: u32) {
        let conn = ConnIx(self.next_conn);
        self.next_conn += 1;
        self.copies.insert(conn, connection);
        self.waiting.push_back(conn);
    }

    /// Hands what waits to workers that can take it, as the master does before it sleeps.
    fn hand_off(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some(member) = self.balancer.pick(self.group, None, self.now_us) else { return };
            let conn = self.waiting.pop_front().unwrap();
            let seq = self.balancer.opened(member, conn, self.now_us);
            self.workers.get_mut(&member).unwrap().inbox.push_back((seq, self.copies[&conn]));
        }
    }

    fn some_worker(&mut self) -> MemberIx {
        let nth = self.random.between(0, self.workers.len() as u64 - 1) as usize;
        *self.workers.keys().nth(nth).unwrap()
    }

    fn step(&mut self) {
        self.now_us += self.random.between(0, 3_000);
        let member = self.some_worker();
        match self.random.between(0, 99) {
            0..=1 => self.kill(member),
            2..=4 => self.drain(member),
            5 => self.kill_master(),
            6..=30 => self.turn(member),
            31..=45 => self.give(member),
            46..=60 => self.ask_or_answer(member),
            _ => self.read(member),
        }
        self.hand_off();
        self.check();
    }

    /// The worker's event loop: it takes what is in its channel.
    fn turn(&mut self, member: MemberIx) {
        while let Some((seq, connection)) = self.workers.get_mut(&member).unwrap().inbox.pop_front() {
            let elsewhere = self.workers.values().any(|worker| worker.holds.contains(&connection));
            assert!(!elsewhere, "two workers have connection {connection}");
            let worker = self.workers.get_mut(&member).unwrap();
            worker.holds.insert(connection);
            worker.rests.insert(connection);
            worker.outbox.push_back(Said::Accepted(seq));
        }
    }

    /// The preload of a worker that drains gives back what rests.
    fn give(&mut self, member: MemberIx) {
        let worker = self.workers.get_mut(&member).unwrap();
        if let Some(connection) = worker.rests.first().copied().filter(|_| worker.drains && !worker.waits_for_ack) {
            worker.waits_for_ack = true;
            worker.rests.remove(&connection);
            worker.holds.remove(&connection);
            worker.outbox.push_back(Said::Moved(connection));
        }
    }

    /// A request begins on some connection, or its answer ends.
    fn ask_or_answer(&mut self, member: MemberIx) {
        let connection = self.random.between(0, u64::from(CONNECTIONS) - 1) as u32;
        let worker = self.workers.get_mut(&member).unwrap();
        if worker.holds.contains(&connection) && !worker.rests.remove(&connection) {
            worker.rests.insert(connection);
        }
    }

    /// The master reads one line of the channel.
    fn read(&mut self, member: MemberIx) {
        match self.workers.get_mut(&member).unwrap().outbox.pop_front() {
            Some(Said::Moved(connection)) => {
                self.moved += 1;
                self.workers.get_mut(&member).unwrap().waits_for_ack = false;
                self.queue(connection);
            }
            Some(Said::Accepted(seq)) => {
                if let Some((conn, _)) = self.balancer.answered(member, seq, self.now_us) {
                    self.balancer.taken(member);
                    self.copies.remove(&conn);
                }
            }
            None => {}
        }
    }

    fn drain(&mut self, member: MemberIx) {
        let serving = self.workers.values().filter(|worker| !worker.drains).count();
        if serving > 1 && !self.workers[&member].drains {
            self.workers.get_mut(&member).unwrap().drains = true;
            self.balancer.set_eligible(member, false);
            self.spawn();
        }
    }

    /// The master reads a dead worker's last words first, then gives what it had not taken to others.
    fn kill(&mut self, member: MemberIx) {
        while !self.workers[&member].outbox.is_empty() {
            self.read(member);
        }
        let gone = self.workers.remove(&member).unwrap();
        self.lost.extend(&gone.holds);
        // Of what an earlier master gave it, and it never read, nobody has a copy.
        let is_of_another = |seq: u64| self.masters > 1 && seq < self.masters << 32;
        let earlier = gone.inbox.iter().filter(|(seq, _)| is_of_another(*seq));
        self.lost.extend(earlier.map(|(_, connection)| *connection));
        let mut taken_back = Vec::new();
        self.balancer.remove_member(member, &mut taken_back);
        self.waiting.extend(taken_back);
        if self.workers.values().all(|worker| worker.drains) || self.workers.len() < 3 {
            self.spawn();
        }
    }

    /// Only what was between its hands is lost: what it had read and nobody else holds. Channels stay. Its successor reads
    /// them to their ends, and says so: what a worker then waits for was read and never acknowledged.
    fn kill_master(&mut self) {
        let member = self.some_worker();
        let worker = self.workers.get_mut(&member).unwrap();
        if let Some(Said::Moved(connection)) = worker.outbox.front() {
            self.lost.insert(*connection);
            worker.outbox.pop_front();
        }
        for conn in std::mem::take(&mut self.waiting) {
            self.lost.insert(self.copies[&conn]);
        }
        self.copies.clear();
        self.masters += 1;
        self.balancer = Balancer::new(Mode::RoundRobin, self.masters << 32);
        self.group = self.balancer.add_group();
        let living: Vec<Worker> = std::mem::take(&mut self.workers).into_values().collect();
        for worker in living {
            let member = self.balancer.add_member(0);
            self.balancer.join(self.group, member);
            self.balancer.set_eligible(member, !worker.drains);
            self.workers.insert(member, worker);
            while !self.workers[&member].outbox.is_empty() {
                self.read(member);
            }
            self.workers.get_mut(&member).unwrap().waits_for_ack = false;
        }
    }

    /// Nothing dies any more: whoever drains gives back all that rests.
    fn come_to_rest(&mut self) {
        let members: Vec<MemberIx> = self.workers.keys().copied().collect();
        for member in members {
            for _ in 0..CONNECTIONS {
                while !self.workers[&member].outbox.is_empty() {
                    self.read(member);
                }
                self.turn(member);
                self.give(member);
                self.check();
            }
            let worker = &self.workers[&member];
            assert!(
                !worker.drains || worker.rests.is_empty(),
                "a worker waits with {:?} until its time is up",
                worker.rests
            );
        }
    }

    /// Every connection lives in exactly one place, beside the master's copies of what is under way, or died for a reason.
    fn check(&self) {
        let mut places: BTreeMap<u32, u32> = BTreeMap::new();
        for worker in self.workers.values() {
            let in_channel = worker.inbox.iter().map(|(_, connection)| *connection);
            let back = worker.outbox.iter().filter_map(|said| match said {
                Said::Moved(connection) => Some(*connection),
                Said::Accepted(_) => None,
            });
            worker.holds.iter().copied().chain(in_channel).chain(back).for_each(|c| *places.entry(c).or_default() += 1);
        }
        self.waiting.iter().for_each(|conn| *places.entry(self.copies[conn]).or_default() += 1);
        for connection in 0..CONNECTIONS {
            let count = places.get(&connection).copied().unwrap_or(0);
            let wanted = u32::from(!self.lost.contains(&connection));
            assert_eq!(count, wanted, "connection {connection}");
        }
    }
}

#[test]
fn a_moving_connection_is_in_one_place_whoever_dies() {
    let mut moved = 0;
    for seed in 0..400 {
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.step();
        }
        run.come_to_rest();
        moved += run.moved;
    }
    assert!(moved > 3_000, "only {moved} moves");
}

#[test]
fn shares_come_together_whatever_they_were() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let workers = random.between(1, 16);
        let mut shares: Vec<u32> = (0..workers).map(|_| random.between(0, 900) as u32).collect();
        let (total, mut rounds) = (shares.iter().sum::<u32>(), 0);
        loop {
            let gives = kept::gives(&shares.iter().copied().enumerate().collect::<Vec<_>>());
            if gives.is_empty() {
                break;
            }
            for (from, count) in gives {
                for _ in 0..count {
                    shares[from] -= 1;
                    let least = (0..shares.len()).filter(|&to| to != from).min_by_key(|&to| shares[to]).unwrap();
                    shares[least] += 1;
                }
            }
            rounds += 1;
            assert!(rounds <= 20, "{shares:?}");
        }
        let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        assert!(least * 100 >= most * 90 || most - least < 2, "{shares:?}");
        assert_eq!(shares.iter().sum::<u32>(), total);
    }
}
