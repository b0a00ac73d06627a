//! How a simulated worker behaves: how long it takes, and what it does wrong.
use crate::plan::Plan;
use crate::random::Random;
use crate::world::State;

/// When a Node worker ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    /// It has said that it is online.
    Online,
    /// It has asked for its socket.
    Asked,
    /// It has said that it listens.
    Listening,
    /// It has been handed so many connections, and has answered none of the last hand-off.
    Handed(u64),
    /// The same, and it has answered, but not read the client's request.
    Taken(u64),
}

/// What is wrong with a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// Does not read its channel from this time after its start for so long.
    Deaf {
        from_us: u64,
        length_us: u64,
    },
    /// Hangs for so long once it has been handed so many connections, and has read nothing from the last ones.
    Freezes {
        handed: u64,
        length_us: u64,
    },
    /// Refuses so many hand-offs.
    Refuses(u64),
    /// Takes so many connections without an answer.
    Mute(u64),
    /// Sends so many lines of so many bytes.
    Floods {
        lines: u64,
        bytes: u64,
    },
    /// Sends lines that mean nothing, and do no harm.
    Babbles,
    /// Sends what no Node worker would: the worker fails.
    Lies(u64),
    /// Sends the first half of a line and ends.
    DiesWithinLine,
    /// Listens on another port too.
    ListensTwice,
    /// Listens on the port that it has already.
    ListensAgain,
    /// Opens a UDP socket too.
    ListensUdp,
    /// Never listens where it should.
    ListensElsewhere,
    /// Closes its server, and listens again later.
    ClosesServer,
    /// Leaves by itself.
    Leaves,
    Dies(Step),
    /// Ends so long after its start.
    DiesAfter(u64),
    /// Gives connections back that have ended.
    GivesEnded,
    /// Gives back what is no connection.
    GivesOthers,
    /// Takes longer to start than it may.
    Slow,
}

impl Quirk {
    /// Its name in the counts.
    fn name(self) -> &'static str {
        match self {
            Quirk::None => "none",
            Quirk::Deaf { .. } => "deaf",
            Quirk::Freezes { .. } => "freezes",
            Quirk::Refuses(_) => "refuses",
            Quirk::Mute(_) => "mute",
            Quirk::Floods { .. } => "floods",
            Quirk::Babbles => "babbles",
            Quirk::Lies(_) => "lies",
            Quirk::DiesWithinLine => "dies within a line",
            Quirk::ListensTwice => "listens twice",
            Quirk::ListensAgain => "listens again",
            Quirk::ListensUdp => "listens for datagrams",
            Quirk::ListensElsewhere => "listens elsewhere",
            Quirk::ClosesServer => "closes its server",
            Quirk::Leaves => "leaves",
            Quirk::Dies(Step::Start) => "dies at its start",
            Quirk::Dies(Step::Online) => "dies online",
            Quirk::Dies(Step::Asked) => "dies asking",
            Quirk::Dies(Step::Listening) => "dies listening",
            Quirk::Dies(Step::Handed(_)) => "dies handed",
            Quirk::Dies(Step::Taken(_)) => "dies having taken",
            Quirk::DiesAfter(_) => "dies after a time",
            Quirk::GivesEnded => "gives what has ended",
            Quirk::GivesOthers => "gives what is no connection",
            Quirk::Slow => "slow",
        }
    }
}

/// How a worker behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// From exec to its first line.
    pub(crate) start_us: u64,
    /// From its first line to its listen().
    pub(crate) listen_us: u64,
    /// From a request to its answer.
    pub(crate) answer_us: u64,
    /// Ends with this code instead of listening.
    pub(crate) fails: Option<u8>,
    pub(crate) never_listens: bool,
    /// Memory that each request leaves.
    pub(crate) leak_bytes: u64,
    /// Bytes of one write to its channel.
    pub(crate) piece_bytes: usize,
    pub(crate) quirk: Quirk,
    /// How long it listens before that.
    pub(crate) quirk_after_us: u64,
}

impl Manner {
    pub(crate) fn any(random: &mut Random) -> Manner {
        Manner {
            start_us: random.between(20_000, 80_000),
            listen_us: random.between(1_000, 60_000),
            answer_us: random.between(100, 30_000),
            fails: None,
            never_listens: false,
            leak_bytes: 0,
            piece_bytes: usize::MAX,
            quirk: Quirk::None,
            quirk_after_us: 0,
        }
    }

    /// A release that does not work, by its variable `SIM_BAD`.
    pub(crate) fn is_bad(&mut self, behaviour: &str) {
        match behaviour {
            "exit" => self.fails = Some(9),
            "never" => self.never_listens = true,
            _ => self.start_us = 60_000_000,
        }
    }

    /// Something wrong, in as many workers as the plan says, until the calm part of the world.
    pub(crate) fn choose_quirk(&mut self, state: &mut State, plan: &Plan, any: fn(&mut Random) -> Quirk) {
        self.leak_bytes = plan.leak_bytes;
        if plan.quirks_percent == 0 {
            return;
        }
        if state.random.percent(30) {
            self.piece_bytes = state.random.between(1, 40) as usize;
        }
        if state.faults.over || !state.random.percent(plan.quirks_percent) {
            return;
        }
        self.quirk = any(&mut state.random);
        self.quirk_after_us = state.random.between(0, 10_000_000);
        if self.quirk == Quirk::Slow {
            self.start_us = state.random.between(3_000_000, 40_000_000);
        }
        state.count(self.quirk.name());
    }

    pub(crate) fn any_of_node(random: &mut Random) -> Quirk {
        match random.between(0, 24) {
            0 | 1 => {
                Quirk::Deaf { from_us: random.between(0, 10_000_000), length_us: random.between(10_000, 15_000_000) }
            }
            2 | 3 => Quirk::Refuses(random.between(1, 30)),
            4 => Quirk::Mute(random.between(1, 80)),
            5 => Quirk::Floods { lines: random.between(1, 60), bytes: random.between(10, 300_000) },
            6 => Quirk::Babbles,
            7 => Quirk::Lies(random.between(0, 5)),
            8 => Quirk::DiesWithinLine,
            9 => Quirk::ListensTwice,
            10 => Quirk::ListensAgain,
            11 => Quirk::ListensElsewhere,
            12 => Quirk::ClosesServer,
            13 => Quirk::Leaves,
            14 => Quirk::Dies(Step::Start),
            15 => Quirk::Dies([Step::Online, Step::Asked, Step::Listening][random.between(0, 2) as usize]),
            16 => Quirk::Dies(Step::Handed(random.between(1, 8))),
            17 => Quirk::Dies(Step::Taken(random.between(1, 8))),
            18 => Quirk::DiesAfter(random.between(0, 8_000_000)),
            19 => Quirk::GivesEnded,
            20 => Quirk::GivesOthers,
            24 => Quirk::ListensUdp,
            21 | 22 => Quirk::Freezes { handed: random.between(1, 10), length_us: random.between(10_000, 12_000_000) },
            _ => Quirk::Slow,
        }
    }

    pub(crate) fn any_of_others(random: &mut Random) -> Quirk {
        match random.between(0, 3) {
            0 => Quirk::Slow,
            _ => Quirk::DiesAfter(random.between(0, 8_000_000)),
        }
    }
}
