//! Moves of upgraded connections with their state, over the real rules and the real ledger: offers, hand-offs, `taken` and `stays`,
//! with deaths of either worker, of the master at each of its steps, and of the keeper. A state is a count of messages, so that an
//! old one or one that came twice is seen.
use super::random::Random;
use clusterd::balance::upgraded::{self, Fate, Taker, Waiting};
use clusterd::balance::{Balancer, ConnIx, GroupIx, MemberIx, Mode};
use clusterd::ids::Generation;
use clusterd::limits;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Clients; each opens another connection some time after its own has ended.
const CLIENTS: usize = 16;

/// A connection and its state on their way.
#[derive(Clone, Copy, Debug)]
struct Parcel {
    connection: u32,
    state: u64,
}

/// From the master to a worker.
#[derive(Clone, Copy, Debug)]
enum Told {
    Newconn(u64, Parcel),
    Taken,
    Stays,
    Resumed,
    Synced(u32),
}

/// From a worker to the master.
#[derive(Clone, Copy, Debug)]
enum Said {
    Takes,
    Upgraded(Parcel),
    Sync(u32),
    Accepted(u64),
}

/// A worker with the preload. What is in its channel outlives a master.
#[derive(Debug, Default)]
struct Worker {
    generation: u32,
    /// Its app uses the helper.
    has_helper: bool,
    /// The states of what it serves.
    serves: BTreeMap<u32, u64>,
    drains: bool,
    /// What it has sent, and keeps until it is told who has it; it does not serve it meanwhile.
    sent: Option<Parcel>,
    sends: u32,
    /// Its last question, with what it is about: the number of the question, and of what was sent.
    syncs: u32,
    asked: Option<(u32, u32)>,
    inbox: VecDeque<Told>,
    outbox: VecDeque<Said>,
    /// What this master knows of it.
    announced: bool,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// The worker that served it died, or the one in whose channel it was without a copy of this master.
    Worker,
    /// The master died between its `recvmsg` and its `sendmsg`, or while it waited there.
    Master,
    /// No worker took it in time.
    Nobody,
    Keeper,
}

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    /// The giver lets go of what it has sent as soon as a new master is there, without asking.
    LetsGoAtOnce,
    /// What a dead giver had sent is given back to it.
    BackToTheDead,
    /// The giver serves on while it waits to be told.
    ServesOn,
    /// What its receiver had not taken when it died is forgotten.
    Forgets,
}

/// Where the master dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    Received,
    Sent,
}

struct Run {
    random: Random,
    sabotage: Option<Sabotage>,
    balancer: Balancer,
    group: GroupIx,
    workers: BTreeMap<MemberIx, Worker>,
    /// The master's copies, by the ledger's index.
    copies: BTreeMap<ConnIx, Parcel>,
    waiting: Waiting,
    next_conn: u32,
    masters: u64,
    generation: u32,
    now_us: u64,
    /// Messages of each connection so far.
    counts: BTreeMap<u32, u64>,
    ended: BTreeMap<u32, Why>,
    moved: u32,
    came_back: u32,
}

impl Run {
    fn new(seed: u64, sabotage: Option<Sabotage>) -> Run {
        let mut balancer = Balancer::new(Mode::RoundRobin, 1);
        let group = balancer.add_group();
        let mut run = Run {
            random: Random::new(seed),
            sabotage,
            balancer,
            group,
            workers: BTreeMap::new(),
            copies: BTreeMap::new(),
            waiting: Waiting::default(),
            next_conn: 0,
            masters: 1,
            generation: 1,
            now_us: 0,
            counts: BTreeMap::new(),
            ended: BTreeMap::new(),
            moved: 0,
            came_back: 0,
        };
        run.begin();
        run
    }

    /// Workers, and clients that open their connections.
    fn begin(&mut self) {
        for _ in 0..3 {
            self.spawn(true);
        }
        (0..CLIENTS).for_each(|_| self.connect());
    }

    /// A client opens a connection.
    fn connect(&mut self) {
        let member = self.some_worker();
        let connection = self.counts.len() as u32;
        if self.counts.len() - self.ended.len() < CLIENTS && !self.workers[&member].drains {
            self.counts.insert(connection, 0);
            self.worker(member).serves.insert(connection, 0);
        }
    }

    fn some_connection(&mut self) -> u32 {
        let living: Vec<u32> = self.counts.keys().filter(|key| !self.ended.contains_key(key)).copied().collect();
        match living.len() as u64 {
            0 => 0,
            count => living[self.random.between(0, count - 1) as usize],
        }
    }

    fn spawn(&mut self, has_helper: bool) {
        let member = self.balancer.add_member(0);
        self.balancer.join(self.group, member);
        self.balancer.set_eligible(member, true);
        let mut worker = Worker { generation: self.generation, has_helper, ..Worker::default() };
        if has_helper {
            worker.outbox.push_back(Said::Takes);
        }
        assert!(self.workers.insert(member, worker).is_none());
    }

    fn worker(&mut self, member: MemberIx) -> &mut Worker {
        self.workers.get_mut(&member).unwrap()
    }

    fn some_worker(&mut self) -> MemberIx {
        let nth = self.random.between(0, self.workers.len() as u64 - 1) as usize;
        *self.workers.keys().nth(nth).unwrap()
    }

    fn step(&mut self) {
        self.now_us += self.random.between(0, 3_000);
        let member = self.some_worker();
        match self.random.between(0, 199) {
            0..=2 => self.kill(member),
            3..=7 => self.reload(member),
            8..=9 => self.kill_master(None),
            10 if self.random.percent(10) => self.kill_keeper(),
            11 if !self.waiting.is_empty() => self.now_us += limits::UPGRADED_WAIT_MS * 1_000,
            12..=20 => self.connect(),
            10..=60 => self.message(),
            61..=100 => self.give(member),
            101..=150 => self.hear(member),
            _ => {
                let dies = match self.random.between(0, 39) {
                    0 => Some(Dies::Received),
                    1 => Some(Dies::Sent),
                    _ => None,
                };
                self.read(member, dies);
            }
        }
        self.hand_off_waiting();
        self.check();
        self.end_those_that_are_done();
    }

    /// Workers that were told to leave, and have nothing left, end.
    fn end_those_that_are_done(&mut self) {
        let is_done = |worker: &Worker| {
            let is_empty = worker.serves.is_empty() && worker.inbox.is_empty() && worker.outbox.is_empty();
            worker.drains && worker.sent.is_none() && is_empty
        };
        let done: Vec<MemberIx> = self.workers.iter().filter(|(_, w)| is_done(w)).map(|(member, _)| *member).collect();
        done.into_iter().for_each(|member| self.kill(member));
    }

    /// A client sends a message: whoever has its connection counts it, or it waits in the kernel.
    fn message(&mut self) {
        let connection = self.some_connection();
        for worker in self.workers.values_mut() {
            if let Some(state) = worker.serves.get_mut(&connection) {
                *state += 1;
                self.counts.insert(connection, *state);
            }
        }
    }

    /// A worker that drains gives back one connection after the other.
    fn give(&mut self, member: MemberIx) {
        let serves_on = self.sabotage == Some(Sabotage::ServesOn);
        let worker = self.worker(member);
        if !worker.has_helper || !worker.drains || worker.sent.is_some() {
            return;
        }
        if let Some((&connection, &state)) = worker.serves.first_key_value() {
            if !serves_on {
                worker.serves.remove(&connection);
            }
            let parcel = Parcel { connection, state };
            worker.sent = Some(parcel);
            worker.sends += 1;
            worker.outbox.push_back(Said::Upgraded(parcel));
        }
    }

    /// A worker serves a connection from now on.
    fn adopt(&mut self, member: MemberIx, parcel: Parcel) {
        let Parcel { connection, state } = parcel;
        let elsewhere = self.workers.values().any(|worker| worker.serves.contains_key(&connection));
        assert!(!elsewhere, "two workers serve connection {connection}");
        assert_eq!(state, self.counts[&connection], "the state of connection {connection} is an old one");
        self.worker(member).serves.insert(connection, state);
    }

    /// A worker reads one line of its channel.
    fn hear(&mut self, member: MemberIx) {
        let lets_go_at_once = self.sabotage == Some(Sabotage::LetsGoAtOnce);
        let worker = self.worker(member);
        match worker.inbox.pop_front() {
            Some(Told::Newconn(seq, parcel)) => {
                worker.outbox.push_back(Said::Accepted(seq));
                self.adopt(member, parcel);
            }
            Some(Told::Taken) => worker.sent = None,
            Some(Told::Stays) => {
                if let Some(parcel) = worker.sent.take() {
                    self.came_back += 1;
                    self.adopt(member, parcel);
                }
            }
            Some(Told::Resumed) => {
                if worker.sent.is_some() {
                    if lets_go_at_once {
                        worker.sent = None;
                    }
                    worker.syncs += 1;
                    worker.asked = Some((worker.syncs, worker.sends));
                    worker.outbox.push_back(Said::Sync(worker.syncs));
                }
                if worker.has_helper {
                    worker.outbox.push_back(Said::Takes);
                }
            }
            Some(Told::Synced(nth)) if worker.asked == Some((nth, worker.sends)) => worker.sent = None,
            Some(Told::Synced(_)) | None => {}
        }
    }

    /// The master reads one line of a channel. Whether there was one.
    fn read(&mut self, member: MemberIx, dies: Option<Dies>) -> bool {
        let now_us = self.now_us;
        match self.worker(member).outbox.pop_front() {
            Some(Said::Takes) => self.worker(member).announced = true,
            Some(Said::Sync(nth)) => self.worker(member).inbox.push_back(Told::Synced(nth)),
            Some(Said::Accepted(seq)) => {
                if let Some((conn, _)) = self.balancer.answered(member, seq, now_us) {
                    self.balancer.taken(member);
                    self.copies.remove(&conn);
                }
            }
            Some(Said::Upgraded(parcel)) => self.offered(member, parcel, true, dies),
            None => return false,
        }
        true
    }

    /// The master has received a connection. `hears`: its giver lives.
    fn offered(&mut self, giver: MemberIx, parcel: Parcel, hears: bool, dies: Option<Dies>) {
        if dies == Some(Dies::Received) {
            self.ended.insert(parcel.connection, Why::Master);
            return self.kill_master(dies);
        }
        let conn = ConnIx(self.next_conn);
        self.next_conn += 1;
        let may_move = self.random.percent(97); // its client is there
        let receiver = self.receiver(Some(giver));
        match upgraded::fate(may_move, receiver, hears) {
            Fate::Goes(receiver) => {
                self.copies.insert(conn, parcel);
                self.send(conn, receiver);
                self.moved += 1;
                if dies == Some(Dies::Sent) {
                    return self.kill_master(dies);
                }
                // A giver that is gone needs no word.
                if let Some(giver) = self.workers.get_mut(&giver) {
                    giver.inbox.push_back(Told::Taken);
                }
            }
            Fate::Stays => self.worker(giver).inbox.push_back(Told::Stays),
            Fate::Waits if self.sabotage == Some(Sabotage::BackToTheDead) => {}
            Fate::Waits => {
                self.copies.insert(conn, parcel);
                self.waiting.add(conn, self.now_us / 1_000);
            }
            Fate::Ends => assert!(self.ended.insert(parcel.connection, Why::Worker).is_none()),
        }
    }

    fn receiver(&self, giver: Option<MemberIx>) -> Option<MemberIx> {
        let takers = self.workers.iter().filter(|(member, worker)| {
            let may = self.balancer.may_take(self.group, **member, self.now_us);
            Some(**member) != giver && worker.announced && !worker.drains && may
        });
        upgraded::receiver(takers.map(|(member, worker)| Taker {
            worker: *member,
            is_home: false,
            generation: Generation(worker.generation),
            load: worker.serves.len() as u64 + u64::from(self.balancer.open_count(*member)),
        }))
    }

    fn send(&mut self, conn: ConnIx, receiver: MemberIx) {
        let seq = self.balancer.opened(receiver, conn, self.now_us);
        let parcel = self.copies[&conn];
        self.worker(receiver).inbox.push_back(Told::Newconn(seq, parcel));
    }

    fn hand_off_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            let Some(waits) = self.waiting.take_first() else { break };
            match self.receiver(None) {
                Some(receiver) => self.send(waits.conn, receiver),
                None if self.waiting.put_back(waits, self.now_us / 1_000) => {}
                None => {
                    let parcel = self.copies.remove(&waits.conn).unwrap();
                    self.ended.insert(parcel.connection, Why::Nobody);
                }
            }
        }
    }

    /// A worker is told to leave, and another one comes, now and then of a version without the helper.
    fn reload(&mut self, member: MemberIx) {
        let serving = self.workers.values().filter(|worker| !worker.drains).count();
        if serving > 1 && !self.workers[&member].drains {
            self.worker(member).drains = true;
            self.balancer.set_eligible(member, false);
            self.generation += 1;
            let has_helper = self.random.percent(85);
            self.spawn(has_helper);
        }
    }

    /// The master reads a dead worker's last words first, then gives what it had not taken to others.
    fn kill(&mut self, member: MemberIx) {
        let gone = self.workers.remove(&member).unwrap();
        self.ended.extend(gone.serves.keys().map(|connection| (*connection, Why::Worker)));
        let is_of_another = |seq: u64| self.masters > 1 && seq < self.masters << 32;
        for said in &gone.outbox {
            if let Said::Accepted(seq) = said
                && let Some((conn, _)) = self.balancer.answered(member, *seq, self.now_us)
            {
                self.copies.remove(&conn);
            }
        }
        for told in &gone.inbox {
            match told {
                // Nobody has a copy.
                Told::Newconn(seq, parcel) if is_of_another(*seq) => {
                    self.ended.insert(parcel.connection, Why::Worker);
                }
                // It had it again, and did not know.
                Told::Stays => self.ended.extend(gone.sent.map(|parcel| (parcel.connection, Why::Worker))),
                _ => {}
            }
        }
        let mut taken_back = Vec::new();
        self.balancer.remove_member(member, &mut taken_back);
        for said in gone.outbox {
            if let Said::Upgraded(parcel) = said {
                self.offered(member, parcel, false, None);
            }
        }
        if self.sabotage != Some(Sabotage::Forgets) {
            taken_back.into_iter().for_each(|conn| self.waiting.add(conn, self.now_us / 1_000));
        }
        if self.workers.values().all(|worker| worker.drains) || self.workers.len() < 3 {
            let has_helper = self.random.percent(85);
            self.spawn(has_helper);
        }
    }

    /// Channels stay, and so does what is in them. A successor reads each as far as its budget goes, and says so.
    fn kill_master(&mut self, dies: Option<Dies>) {
        while let Some(waits) = self.waiting.take_first() {
            self.ended.insert(self.copies[&waits.conn].connection, Why::Master);
        }
        // One that was in hand is accounted for by whoever had it.
        assert!(dies.is_none() || self.waiting.is_empty());
        self.copies.clear();
        self.masters += 1;
        self.balancer = Balancer::new(Mode::RoundRobin, self.masters << 32);
        self.group = self.balancer.add_group();
        let living: Vec<Worker> = std::mem::take(&mut self.workers).into_values().collect();
        let mut members = Vec::new();
        for mut worker in living {
            worker.announced = false;
            let member = self.balancer.add_member(0);
            self.balancer.join(self.group, member);
            self.balancer.set_eligible(member, !worker.drains);
            self.workers.insert(member, worker);
            members.push(member);
        }
        for member in members {
            let lines = self.random.between(0, 4);
            let all_read = (0..lines).all(|_| self.read(member, None));
            // What it says while the channel is being read is read too, or comes after.
            if !all_read && self.random.percent(30) {
                self.give(member);
            }
            self.worker(member).inbox.push_back(Told::Resumed);
        }
    }

    /// Everything below the keeper ends with it. Clients connect again.
    fn kill_keeper(&mut self) {
        for connection in self.counts.keys() {
            self.ended.entry(*connection).or_insert(Why::Keeper);
        }
        self.workers.clear();
        self.copies.clear();
        self.waiting.clear();
        self.check();
        self.balancer = Balancer::new(Mode::RoundRobin, 1);
        self.group = self.balancer.add_group();
        self.masters = 1;
        self.begin();
    }

    /// Nothing dies any more: every line is read, and nobody waits for a word that does not come.
    fn come_to_rest(&mut self) {
        self.spawn(true);
        for _ in 0..4 * CLIENTS {
            let members: Vec<MemberIx> = self.workers.keys().copied().collect();
            for member in members {
                self.give(member);
                while self.read(member, None) {}
                while !self.workers[&member].inbox.is_empty() {
                    self.hear(member);
                }
                self.hand_off_waiting();
                self.check();
            }
        }
        for worker in self.workers.values() {
            assert!(worker.sent.is_none(), "a worker waits to be told of {:?}", worker.sent);
            let is_done = worker.serves.is_empty() || !worker.drains || !worker.has_helper;
            assert!(is_done, "it keeps what others would take: {worker:?}");
        }
        assert!(self.waiting.is_empty(), "somebody takes them");
    }

    /// A connection is served by one worker, or on its way to one with its last state, or has ended for a reason.
    fn check(&self) {
        let mut served: BTreeMap<u32, u32> = BTreeMap::new();
        let mut under_way: BTreeMap<u32, u32> = BTreeMap::new();
        let mut returns: BTreeSet<u32> = BTreeSet::new();
        for worker in self.workers.values() {
            worker.serves.keys().for_each(|connection| *served.entry(*connection).or_default() += 1);
            for told in &worker.inbox {
                match told {
                    Told::Newconn(_, parcel) => *under_way.entry(parcel.connection).or_default() += 1,
                    Told::Stays => returns.extend(worker.sent.map(|parcel| parcel.connection)),
                    Told::Taken | Told::Resumed | Told::Synced(_) => {}
                }
            }
            for said in &worker.outbox {
                if let Said::Upgraded(parcel) = said {
                    *under_way.entry(parcel.connection).or_default() += 1;
                }
            }
        }
        let in_channels: BTreeSet<u32> = under_way.keys().copied().collect();
        for parcel in self.copies.values().filter(|parcel| !in_channels.contains(&parcel.connection)) {
            // A copy whose hand-off was taken, and not answered yet, is no second way.
            if !served.contains_key(&parcel.connection) && !self.ended.contains_key(&parcel.connection) {
                *under_way.entry(parcel.connection).or_default() += 1;
            }
        }
        for connection in self.counts.keys() {
            let of = |places: &BTreeMap<u32, u32>| places.get(connection).copied().unwrap_or(0);
            let places = of(&served) + of(&under_way) + u32::from(returns.contains(connection));
            let why = self.ended.get(connection);
            assert_eq!(places, u32::from(why.is_none()), "connection {connection}: {why:?}");
        }
    }
}

fn run(seed: u64, sabotage: Option<Sabotage>) -> Run {
    let mut run = Run::new(seed, sabotage);
    for _ in 0..800 {
        run.step();
    }
    run.come_to_rest();
    run
}

#[test]
fn an_upgraded_connection_is_in_one_worker_with_its_last_state_whoever_dies() {
    let (mut moved, mut came_back, mut reasons) = (0, 0, BTreeSet::new());
    for seed in 0..120 {
        let run = run(seed, None);
        (moved, came_back) = (moved + run.moved, came_back + run.came_back);
        reasons.extend(run.ended.into_values());
    }
    assert!(moved > 1_000 && came_back > 300, "{moved} moved, {came_back} came back");
    assert!(
        [Why::Worker, Why::Master, Why::Nobody, Why::Keeper].iter().all(|why| reasons.contains(why)),
        "{reasons:?}"
    );
}

#[test]
fn bugs_put_into_these_moves_are_found() {
    use Sabotage::{BackToTheDead, Forgets, LetsGoAtOnce, ServesOn};
    for sabotage in [LetsGoAtOnce, BackToTheDead, ServesOn, Forgets] {
        let fails = |seed| std::panic::catch_unwind(|| run(seed, Some(sabotage))).is_err();
        assert!((0..100).any(fails), "{sabotage:?} is not found");
    }
}
