//! `balance`, as typed and as decided: what `auto` means for an app, and why. Pure. What else a balance needs of the other settings
//! is in `rules`.
//!
//! To change what `auto` prefers, change [`TABLE`].
use super::protocol::ProtocolKind;
use super::rules::{self, RuleError};
use super::{App, Listen, Ready, Said};
use crate::balance::Mode;
use crate::reuseport::program::Steering;
use std::fmt;

/// How connections are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The master accepts and hands off to the worker that a strategy chooses.
    Strategy(Mode),
    /// Every worker gets the listening socket itself.
    Shared,
    /// Every slot has a listening socket of its own; the kernel chooses among them.
    Kernel,
}

/// `balance`, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancing {
    /// By the app, when a generation is prepared ([`decide`]).
    Auto,
    /// This one.
    Exactly(Balance),
}

/// What `auto` prefers for Node workers, where nothing speaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// For an app that never has more than one worker.
    pub one_worker: Balance,
    /// For all others.
    pub several_workers: Balance,
    /// Whether `kernel` is preferred also where the kernel can only choose at random (without CAP_BPF).
    pub kernel_at_random: bool,
}

/// Decided by measurements: docs/architecture.md.
pub const TABLE: Table = Table { one_worker: ROUND_ROBIN, several_workers: ROUND_ROBIN, kernel_at_random: true };

/// What every app can have: `auto` falls back to it.
pub const ROUND_ROBIN: Balance = Balance::Strategy(Mode::RoundRobin);

/// What is known of an app when its balance is decided.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub app: &'a App,
    /// Decided before.
    pub protocol: ProtocolKind,
    /// The most workers that it has by its configuration.
    pub workers: u32,
}

/// The balance of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub balance: Balance,
    /// Why, where it is `auto` and there is something to balance.
    pub why: Option<Why>,
}

/// Why `auto` means what it means for an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is preferred, and nothing speaks against it.
    Preferred(Balance),
    /// Workers of this protocol accept by themselves.
    OwnAccept(ProtocolKind),
    /// Only hand-offs are counted.
    Counted,
    /// A canary is compared by hand-offs.
    Compared,
    /// Workers have to be held back, for this key.
    HeldBack(&'static str),
    /// Workers listen before they are ready.
    ReadyLater(Ready),
    /// `preload = false`.
    NoPreload,
    /// A socket in the file system has no group.
    UnixSocket,
    /// The kernel takes no program that chooses.
    NoProgram,
    /// It chooses only at random.
    AtRandom,
    /// A worker has asked for a socket, and has not loaded the preload.
    PreloadMissing,
    /// A worker refuses connections beyond a number.
    Refuses,
    /// It was started by a version that had no `auto`.
    EarlierVersion,
    /// As an earlier master has put it.
    Recorded(String),
}

/// The balance of a generation. `steering` is called where the decision depends on what the kernel can do.
///
/// # Errors
/// The typed balance is not possible under this protocol.
pub fn decide(known: &Known<'_>, steering: impl FnOnce() -> Steering) -> Result<Decided, RuleError> {
    match known.app.balance {
        Balancing::Exactly(typed) => Ok(Decided { balance: rules::balance(known.protocol, typed)?, why: None }),
        Balancing::Auto => auto(&TABLE, known, steering),
    }
}

fn auto(table: &Table, known: &Known<'_>, steering: impl FnOnce() -> Steering) -> Result<Decided, RuleError> {
    if let Some(decided) = by_protocol(known.protocol)? {
        return Ok(decided);
    }
    let is_alone = known.workers <= 1 && known.app.spares == 0;
    let preferred = if is_alone { table.one_worker } else { table.several_workers };
    Ok(match obstacle(table, preferred, known.app, steering) {
        Some(why) => Decided { balance: ROUND_ROBIN, why: Some(why) },
        None => Decided { balance: preferred, why: Some(Why::Preferred(preferred)) },
    })
}

/// What `auto` means where the protocol alone says it.
fn by_protocol(protocol: ProtocolKind) -> Result<Option<Decided>, RuleError> {
    let rules = protocol.rules();
    if rules.can_be_handed_connections {
        return Ok(None);
    }
    let why = rules.takes_connections.then_some(Why::OwnAccept(protocol));
    Ok(Some(Decided { balance: rules::balance(protocol, ROUND_ROBIN)?, why }))
}

/// What speaks against a balance in which Node workers accept by themselves.
fn obstacle(table: &Table, preferred: Balance, app: &App, steering: impl FnOnce() -> Steering) -> Option<Why> {
    let is_kernel = match preferred {
        Balance::Strategy(_) => return None,
        Balance::Shared => false,
        Balance::Kernel => true,
    };
    if app.limits.max_connections.is_some() {
        return Some(Why::Counted);
    }
    if !app.reload.canary.is_zero() && app.reload.canary_max > 0 {
        return Some(Why::Compared);
    }
    if !is_kernel && app.spares > 0 {
        return Some(Why::HeldBack("spares"));
    }
    if !is_kernel && app.warm_up.is_some() {
        return Some(Why::HeldBack("warmup"));
    }
    if let Some(rule) = app.ready.as_ref().filter(|rule| !comes_with_listening(rule)) {
        return Some(Why::ReadyLater(rule.clone()));
    }
    if !app.preload {
        return Some(Why::NoPreload);
    }
    if !is_kernel {
        return None;
    }
    if app.listen.iter().any(|address| matches!(address, Listen::Unix(_))) {
        return Some(Why::UnixSocket);
    }
    match steering() {
        Steering::Turns => None,
        Steering::Random if table.kernel_at_random => None,
        Steering::Random => Some(Why::AtRandom),
        Steering::Hash => Some(Why::NoProgram),
    }
}

/// Whether a worker is ready as soon as it listens: one that accepts by itself accepts from then on.
fn comes_with_listening(rule: &Ready) -> bool {
    match rule {
        Ready::Listening | Ready::Or(Said::Listening, _) => true,
        Ready::Message | Ready::Notify | Ready::Http(_) | Ready::After(_) | Ready::Or(..) => false,
    }
}

impl Decided {
    /// The balance of a generation that an earlier master has prepared, from that master's record: the word of the balance and why.
    ///
    /// # Errors
    /// The typed balance is not possible under this protocol.
    pub fn recorded(
        typed: Balancing,
        protocol: ProtocolKind,
        record: Option<(&str, &str)>,
    ) -> Result<Decided, RuleError> {
        if let Balancing::Exactly(typed) = typed {
            return Ok(Decided { balance: rules::balance(protocol, typed)?, why: None });
        }
        if let Some(decided) = by_protocol(protocol)? {
            return Ok(decided);
        }
        Ok(match record.and_then(|(word, why)| Some((Balance::named(word)?, why))) {
            Some((balance, why)) => Decided { balance, why: Some(Why::Recorded(why.to_owned())) },
            // Without `auto` this was the default.
            None => Decided { balance: ROUND_ROBIN, why: Some(Why::EarlierVersion) },
        })
    }

    /// What a worker has shown speaks against what `auto` chose.
    #[must_use]
    pub fn fallen_back(why: Why) -> Decided {
        Decided { balance: ROUND_ROBIN, why: Some(why) }
    }

    /// For people, where it is `auto`: "auto: kernel, since ...".
    pub fn sentence(&self) -> Option<String> {
        self.why.as_ref().map(|why| sentence(self.balance, why))
    }
}

/// How people are told what `auto` means, and why.
pub fn sentence(balance: impl fmt::Display, why: impl fmt::Display) -> String {
    format!("auto: {balance}, since {why}")
}

impl Balance {
    /// The names of all balances.
    pub const NAMES: [&str; Mode::ALL.len() + 2] = {
        let mut names = [""; Mode::ALL.len() + 2];
        let mut n = 0;
        while n < Mode::ALL.len() {
            names[n] = Mode::ALL[n].name();
            n += 1;
        }
        names[n] = Balance::Shared.name();
        names[n + 1] = Balance::Kernel.name();
        names
    };

    pub const fn name(self) -> &'static str {
        match self {
            Balance::Strategy(mode) => mode.name(),
            Balance::Shared => "shared",
            Balance::Kernel => "kernel",
        }
    }

    /// The balance with this name.
    pub fn named(word: &str) -> Option<Balance> {
        let strategies = Mode::ALL.iter().map(|mode| Balance::Strategy(*mode));
        strategies.chain([Balance::Shared, Balance::Kernel]).find(|balance| balance.name() == word)
    }
}

impl Balancing {
    /// The words that can be typed: `auto`, then every balance's name.
    pub const NAMES: [&str; Balance::NAMES.len() + 1] = {
        let mut names = ["auto"; Balance::NAMES.len() + 1];
        let mut n = 0;
        while n < Balance::NAMES.len() {
            names[n + 1] = Balance::NAMES[n];
            n += 1;
        }
        names
    };

    pub fn named(word: &str) -> Option<Balancing> {
        if word == Balancing::NAMES[0] {
            return Some(Balancing::Auto);
        }
        Balance::named(word).map(Balancing::Exactly)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Balancing::Auto => Balancing::NAMES[0],
            Balancing::Exactly(balance) => balance.name(),
        }
    }

    /// The balance by which other settings are judged while nobody knows the program: what `round-robin` allows, `auto` does.
    pub fn least(self) -> Balance {
        match self {
            Balancing::Auto => ROUND_ROBIN,
            Balancing::Exactly(balance) => balance,
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Preferred(Balance::Kernel) => {
                f.write_str("each worker has a socket and the kernel chooses among them")
            }
            Why::Preferred(Balance::Shared) => f.write_str("workers that are free take connections by themselves"),
            Why::Preferred(Balance::Strategy(_)) => {
                f.write_str("clusterd gives each connection to the worker with the fewest")
            }
            Why::OwnAccept(protocol) => write!(f, "workers of protocol \"{protocol}\" accept by themselves"),
            Why::Counted => f.write_str("limits.max_connections counts what clusterd hands off"),
            Why::Compared => f.write_str("reload.canary compares workers by what clusterd hands off"),
            Why::HeldBack(key) => write!(f, "{key} needs workers that get no connections until they are told to"),
            Why::ReadyLater(rule) => write!(f, "with ready = \"{rule}\" workers listen before clients may reach them"),
            Why::NoPreload => f.write_str("preload = false"),
            Why::UnixSocket => f.write_str("a unix socket is one for all workers"),
            Why::NoProgram => f.write_str("the kernel takes no BPF program that chooses among the workers"),
            Why::AtRandom => f.write_str("without CAP_BPF the kernel chooses among the workers at random"),
            Why::PreloadMissing => f.write_str(
                "a worker runs without the preload (NODE_OPTIONS did not reach it, or the script cannot be written)",
            ),
            Why::Refuses => f.write_str("a server of it has maxConnections: what one worker refuses another can take"),
            Why::EarlierVersion => f.write_str("it was started by a version without auto; the next reload decides"),
            Why::Recorded(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
#[path = "balancing_tests.rs"]
mod tests;
