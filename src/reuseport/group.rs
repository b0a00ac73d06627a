//! The SO_REUSEPORT group of one listener: its sockets, the selection among them, and the program that implements it.
//!
//! The listener owns the first socket. A socket lives as long as its listener, and its number in the group is its slot:
//! sockets of slots that were scaled away stay, unselected, and are reused.
use super::program::{self, Classic, Steering};
use super::selection::Selection;
use super::turns::Turns;
use crate::os::reuseport;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the kernel does for groups. The methods are Linux's own; a simulated system has others.
pub trait Kernel {
    /// Makes a bound socket the first of a group.
    ///
    /// # Errors
    /// As [`reuseport::open`].
    fn open_group(&self, first: BorrowedFd<'_>) -> io::Result<()> {
        reuseport::open(first)
    }

    /// A new socket in the group of `first`.
    ///
    /// # Errors
    /// As [`reuseport::join`].
    fn join_group(&self, first: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        reuseport::join(first)
    }

    /// Whether the group of these sockets has others too.
    fn has_strangers(&self, ours: &[BorrowedFd<'_>]) -> bool {
        reuseport::has_strangers(ours)
    }

    /// Has a classic program choose among the sockets of a group.
    ///
    /// # Errors
    /// As [`reuseport::attach_classic`].
    fn attach_classic(&self, socket: BorrowedFd<'_>, program: &[Classic]) -> io::Result<()> {
        reuseport::attach_classic(socket, &program.iter().map(Classic::to_bytes).collect::<Vec<_>>())
    }

    /// Tests whether this kernel accepts classic programs, with a socket of its own.
    ///
    /// # Errors
    /// The kernel's error.
    fn probe_classic(&self) -> io::Result<()> {
        let sample = reuseport::sample()?;
        self.attach_classic(sample.as_fd(), &program::by_chance(&[0]).unwrap_or_default())
    }

    /// Tests whether this kernel supports strict turns.
    ///
    /// # Errors
    /// As [`Turns::probe`].
    fn probe_turns(&self) -> io::Result<()> {
        Turns::probe()
    }

    /// Turns for a group of this many sockets.
    ///
    /// # Errors
    /// As [`Turns::new`].
    fn turns(&self, sockets: u32) -> io::Result<Turns> {
        Turns::new(sockets)
    }
}

/// The kernel that this process runs on, where nothing else of the system is needed.
#[derive(Clone, Copy, Debug)]
pub struct ThisKernel;

impl Kernel for ThisKernel {}

/// The group of one listener.
#[derive(Debug)]
pub struct Group {
    /// The sockets after the first.
    more: Vec<OwnedFd>,
    /// The numbers of the sockets that listen, in the kernel's order: its program chooses a place there. A socket that stops
    /// listening leaves its place to the last one, and comes last when it listens again.
    order: Vec<u32>,
    /// Which of the sockets may be chosen.
    pub selection: Selection,
    turns: Option<Turns>,
    /// How the kernel chooses; `None` while there is only one socket.
    pub steering: Option<Steering>,
    /// The group cannot grow: further slots share its sockets.
    pub full: bool,
}

/// Why a group did not grow.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The limit on the sockets of all groups is reached.
    #[error("the limit of {max} sockets is reached")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Another process has a socket in the group, so the numbers of new sockets would be wrong.
    #[error("another process of this user has joined the address (SO_REUSEPORT)")]
    Stranger,
    /// The system refused a socket.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Group {
    /// Opens a group around a listener's socket.
    ///
    /// # Errors
    /// The kernel does not support SO_REUSEPORT for this socket.
    pub fn open(kernel: &impl Kernel, first: BorrowedFd<'_>) -> io::Result<Group> {
        kernel.open_group(first)?;
        let (more, order, selection) = (Vec::new(), vec![0], Selection::new());
        Ok(Group { more, order, selection, turns: None, steering: None, full: false })
    }

    /// The number of sockets, with the first.
    pub fn socket_count(&self) -> u32 {
        self.selection.sockets()
    }

    /// A socket other than the first.
    pub fn socket(&self, number: u32) -> Option<BorrowedFd<'_>> {
        Some(self.more.get(number.checked_sub(1)? as usize)?.as_fd())
    }

    /// Creates sockets up to the number `sockets`, set up by `prepare`; they are not in the group yet. `left`: how many
    /// more all groups may have. Sockets created before an error are returned with it.
    pub fn make(
        &self,
        kernel: &impl Kernel,
        first: BorrowedFd<'_>,
        sockets: u32,
        left: usize,
        max: usize,
        prepare: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    ) -> (Vec<OwnedFd>, Result<(), GrowError>) {
        let mut made = Vec::new();
        let mut outcome = Ok(());
        for _ in self.socket_count()..sockets {
            if made.len() >= left {
                outcome = Err(GrowError::TooMany { max });
                break;
            }
            let joined = kernel.join_group(first).and_then(|socket| prepare(socket.as_fd()).map(|()| socket));
            match joined {
                Ok(socket) => made.push(socket),
                Err(e) => {
                    outcome = Err(e.into());
                    break;
                }
            }
        }
        let own = self.more.iter().chain(&made).map(AsFd::as_fd);
        let all: Vec<BorrowedFd<'_>> = std::iter::once(first).chain(own).collect();
        if !made.is_empty() && kernel.has_strangers(&all) {
            return (Vec::new(), Err(GrowError::Stranger));
        }
        (made, outcome)
    }

    /// Appends a socket to the group.
    pub fn push(&mut self, socket: OwnedFd) {
        self.order.push(self.socket_count());
        self.selection.grow();
        self.more.push(socket);
    }

    /// The numbers of the sockets that listen, in the kernel's order.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The order that the previous master left. Sockets that it does not name joined last or do not listen.
    pub fn set_order(&mut self, order: &[u32]) {
        let sockets = self.socket_count();
        self.order.clear();
        for number in order {
            if *number < sockets && !self.order.contains(number) {
                self.order.push(*number);
            }
        }
    }

    /// A socket no longer listens. Returns whether it did before, as far as was known.
    pub fn note_closed(&mut self, number: u32) -> bool {
        let Some(place) = self.place_of(number) else { return false };
        let before = self.order.clone();
        self.order.swap_remove(place as usize);
        if let Some(turns) = &mut self.turns
            && let Err(e) = turns.reorder(&before, &self.order)
        {
            log::debug!("the counts of slots are wrong from now on: {e}");
        }
        true
    }

    /// A socket listens again.
    pub fn note_opened(&mut self, number: u32) {
        if self.place_of(number).is_none() {
            self.order.push(number);
        }
    }

    fn place_of(&self, number: u32) -> Option<u32> {
        self.order.iter().position(|other| *other == number).and_then(|place| u32::try_from(place).ok())
    }

    /// The places of these sockets, ascending; of all that listen where none of these does.
    fn places_of(&self, numbers: &[u32]) -> Vec<u32> {
        let mut places: Vec<u32> = numbers.iter().filter_map(|number| self.place_of(*number)).collect();
        if places.is_empty() {
            places = (0..self.order.len() as u32).collect();
        }
        places.sort_unstable();
        places
    }

    /// Has the kernel choose among `selected`, in the best way that it supports, up to `best`.
    ///
    /// # Errors
    /// The kernel accepts no program for this group: its own hash decides.
    pub fn steer(
        &mut self,
        kernel: &impl Kernel,
        first: BorrowedFd<'_>,
        best: Steering,
        selected: &[u32],
    ) -> io::Result<Steering> {
        let selected = &self.places_of(selected)[..];
        let member = member(&self.order, &self.more, first)?;
        if best == Steering::Turns {
            let sockets = self.socket_count();
            let turns = self.turns.take().map_or_else(|| kernel.turns(sockets), Ok);
            let attached = turns.and_then(|mut turns| turns.attach(member, selected, sockets).map(|()| turns));
            match attached {
                Ok(turns) => {
                    self.turns = Some(turns);
                    return Ok(Steering::Turns);
                }
                Err(e) => log::debug!("the kernel took no program that goes by turns: {e}"),
            }
        }
        if best == Steering::Hash {
            return Ok(Steering::Hash);
        }
        let Some(program) = program::by_chance(selected) else { return Ok(Steering::Random) };
        kernel.attach_classic(member, &program).map(|()| Steering::Random)
    }

    /// Has the kernel give a connection from this port of this machine to `socket`, until the next [`Group::steer`].
    ///
    /// # Errors
    /// The kernel accepts no such program; nothing has changed.
    pub fn aim(&self, kernel: &impl Kernel, first: BorrowedFd<'_>, from: SocketAddr, socket: u32) -> io::Result<()> {
        let place = self.place_of(socket).ok_or(io::ErrorKind::NotConnected)?;
        let selected = self.places_of(&self.selection.selected());
        let program = program::aimed(&selected, from.is_ipv6(), from.port(), place);
        let program = program.ok_or(io::ErrorKind::InvalidInput)?;
        kernel.attach_classic(member(&self.order, &self.more, first)?, &program)
    }

    /// The same for datagrams: each client's go to one of the first `slots` sockets.
    ///
    /// # Errors
    /// The kernel accepts no program for this group.
    pub fn steer_datagrams(
        &self,
        kernel: &impl Kernel,
        first: BorrowedFd<'_>,
        slots: u32,
        selected: &[u32],
    ) -> io::Result<Steering> {
        let program = program::by_flow(slots.min(self.socket_count()), selected);
        program.map_or(Ok(()), |program| kernel.attach_classic(first, &program))?;
        Ok(Steering::Random)
    }

    /// Where the kernel selects by turns: sockets in which more connections wait than in others leave their next turns
    /// to those. `waiting` has the number of each socket that is not empty, and its count.
    pub fn level_out(&mut self, waiting: &[(u32, u32)]) {
        let excess = self.selection.excess(waiting).into_iter();
        let excess: Vec<(u32, u32)> = excess.filter_map(|(n, count)| Some((self.place_of(n)?, count))).collect();
        if let Some(turns) = &mut self.turns
            && let Err(e) = turns.leave(&excess)
        {
            log::debug!("cannot tell the kernel which slots are behind: {e}");
        }
    }

    /// Connections that the kernel gave to each of the sockets; empty where it does not count them.
    pub fn counts(&self) -> Vec<u64> {
        let by_place = self.turns.as_ref().map(Turns::counts).unwrap_or_default();
        if by_place.is_empty() {
            return by_place;
        }
        let mut counts = vec![0; self.socket_count() as usize];
        for (number, count) in self.order.iter().zip(by_place) {
            if let Some(place) = counts.get_mut(*number as usize) {
                *place = count;
            }
        }
        counts
    }
}

/// A socket that listens, as far as is known: a program is attached to the group through it. For one that does not, the kernel
/// makes a group of its own (reuseport_attach_prog), and it could not listen again.
fn member<'a>(order: &[u32], more: &'a [OwnedFd], first: BorrowedFd<'a>) -> io::Result<BorrowedFd<'a>> {
    let number = order.first().ok_or(io::ErrorKind::NotConnected)?;
    let other = number.checked_sub(1).and_then(|place| more.get(place as usize));
    Ok(other.map_or(first, AsFd::as_fd))
}

/// What this kernel supports, after the first test.
#[derive(Debug, Default)]
pub struct Abilities {
    best: Option<Steering>,
    /// Why nothing better is supported.
    why: String,
}

impl Abilities {
    /// The best way in which the kernel can choose; tested at the first call.
    pub fn best(&mut self, kernel: &impl Kernel) -> Steering {
        if let Some(known) = self.best {
            return known;
        }
        let found = match (kernel.probe_turns(), kernel.probe_classic()) {
            (Ok(()), _) => Steering::Turns,
            (Err(no_turns), Ok(())) => {
                self.why = no_turns.to_string();
                Steering::Random
            }
            (Err(_), Err(nothing)) => {
                self.why = nothing.to_string();
                Steering::Hash
            }
        };
        self.best = Some(found);
        found
    }

    /// The kernel's error for the next better way; empty for the best.
    pub fn why_not_better(&self) -> &str {
        &self.why
    }
}
