//! The master's side of its connection to the keeper: takeover, orders, notices. Does not interpret notices.
use super::MASTER_KEEPER_FD;
use super::codec::{self, RecordError};
use super::protocol::{About, KEEPER_OUTBOX_MAX, Notice, Order, SpawnSpec};
use crate::ids::WorkerId;
use crate::limits::KEEPER_PACKET_BYTES_MAX;
use crate::os::fdpass::FDS_PER_PACKET_MAX;
use crate::os::packet::{self, FDS_LOST, Packet};
use crate::os::poll::{self, Interest};
use crate::os::{clock, memfd, process};
use log::{debug, warn};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Time limit for a master to receive what the keeper holds, in milliseconds.
const ADOPT_TIMEOUT_MS: u64 = 20_000;

/// A process that exists, or ended without being acknowledged, when this master began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    pub worker: WorkerId,
    /// Its pid; meaningless once `status` is set.
    pub pid: i32,
    /// The tag of its spawn.
    pub tag: Vec<u8>,
    /// When it was forked (CLOCK_MONOTONIC, in milliseconds).
    pub started_ms: u64,
    /// Set when it has ended: the raw wait status. Acknowledge it with [`Order::ExitSeen`].
    pub status: Option<i32>,
    /// The kernel killed it because its cgroup was out of memory.
    pub out_of_memory: bool,
}

/// Everything that previous masters left.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The number of this master; 1 is the first.
    pub incarnation: u32,
    /// How the previous master ended; "" for the first.
    pub previous_end: String,
    /// The keeper's description of itself.
    pub about: About,
    /// In the order of their ids. Contains children whose program does not run yet; `Spawned` or `SpawnFailed` follows
    /// for them. Does not contain those whose spawn failed; their `SpawnFailed` follows unless an earlier master read
    /// it.
    pub children: Vec<ChildInfo>,
    /// Held fds by name. All are close-on-exec.
    pub fds: HashMap<String, OwnedFd>,
    /// Records of the checkpoint, by key.
    pub notes: BTreeMap<String, Vec<u8>>,
}

/// The master's end of the connection.
pub trait KeeperSocket: AsFd + Debug {
    /// Sends one packet, whole or not at all, with copies of these fds.
    ///
    /// # Errors
    /// As [`packet::send`].
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()>;

    /// Receives one packet and its fds.
    ///
    /// # Errors
    /// As [`packet::receive`].
    fn receive(&self, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet>;

    /// Waits until it is readable, for at most `ms`. Returns the milliseconds that are left.
    ///
    /// # Errors
    /// As [`poll::wait`].
    fn wait_readable(&self, ms: u64) -> io::Result<u64>;

    /// A memfd with this content.
    ///
    /// # Errors
    /// As [`memfd::with_contents`].
    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd>;
}

impl KeeperSocket for OwnedFd {
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(self.as_fd(), bytes, fds)
    }

    fn receive(&self, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
        packet::receive(self, buffer, fds)
    }

    fn wait_readable(&self, ms: u64) -> io::Result<u64> {
        let deadline_ms = clock::monotonic_ms() + ms;
        poll::wait(&mut [Interest::new(self.as_fd(), false)], Some(ms))?;
        Ok(deadline_ms.saturating_sub(clock::monotonic_ms()))
    }

    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
        memfd::with_contents(name, bytes)
    }
}

/// Takes the connection that the keeper left at [`MASTER_KEEPER_FD`]. Call it once, before anything else.
///
/// # Errors
/// This process was not started by a keeper: the fd is closed or something else.
pub fn inherited_socket() -> io::Result<OwnedFd> {
    let strange = |detail: &str| {
        let text = format!("this process was not started by clusterd: fd {MASTER_KEEPER_FD} {detail}");
        io::Error::new(io::ErrorKind::NotConnected, text)
    };
    let socket = process::take_inherited_fd(MASTER_KEEPER_FD).map_err(|_| strange("is not open"))?;
    if !packet::is_packet_socket(socket.as_fd()) {
        return Err(strange("is not a connection to a keeper"));
    }
    Ok(socket)
}

/// The connection.
#[derive(Debug)]
pub struct Link<K: KeeperSocket = OwnedFd> {
    socket: K,
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// The last send failed because the system was out of memory or of fds in flight.
    lacks_resources: bool,
    buffer: Vec<u8>,
}

impl Link {
    /// As [`inherited_socket`].
    ///
    /// # Errors
    /// As [`inherited_socket`].
    pub fn from_inherited() -> io::Result<Link> {
        inherited_socket().map(Link::new)
    }
}

impl<K: KeeperSocket> Link<K> {
    /// Over any SOCK_SEQPACKET connection.
    #[must_use]
    pub fn new(socket: K) -> Link<K> {
        Link { socket, outbox: VecDeque::new(), lacks_resources: false, buffer: vec![0; KEEPER_PACKET_BYTES_MAX] }
    }

    /// Receives everything that the keeper holds. Blocks for at most `ADOPT_TIMEOUT_MS`. Call it once, before any
    /// other method.
    ///
    /// # Errors
    /// `TimedOut`; `UnexpectedEof` when the keeper is gone; `InvalidData` for an unexpected message.
    pub fn adopt(&mut self) -> io::Result<Inheritance> {
        let mut left_ms = ADOPT_TIMEOUT_MS;
        let mut inheritance = Inheritance::default();
        let mut greeted = false;
        loop {
            let Some((notice, fds)) = self.receive_with_fds()? else {
                if left_ms == 0 {
                    let text = "the keeper did not list in time what it holds";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                left_ms = self.socket.wait_readable(left_ms)?;
                continue;
            };
            match take_in(&mut inheritance, &mut greeted, notice, fds) {
                Step::More => {}
                Step::Done => return Ok(inheritance),
                Step::Nonsense(text) => return Err(io::Error::new(io::ErrorKind::InvalidData, text)),
            }
        }
    }

    /// Sends an order with copies of `fds`, or queues it while the keeper does not read (see [`Link::wants_write`]).
    /// The caller keeps its own fds.
    ///
    /// # Errors
    /// `InvalidInput` when a name or value exceeds its bound; `OutOfMemory` when too many orders are queued;
    /// `BrokenPipe` when the keeper is gone.
    pub fn order(&mut self, order: &Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = codec::encode_order(order).map_err(|error| invalid(&error))?;
        if self.outbox.is_empty() {
            match self.socket.send(&bytes, fds) {
                Ok(()) => return Ok(()),
                Err(error) if packet::is_temporary(&error) => {
                    self.lacks_resources = error.kind() != io::ErrorKind::WouldBlock
                }
                Err(error) => return Err(error),
            }
        } else if *order == Order::Heartbeat {
            // The queued orders will report as much when they arrive.
            return self.flush();
        }
        if self.outbox.len() >= KEEPER_OUTBOX_MAX {
            let text = format!("the keeper does not read: {KEEPER_OUTBOX_MAX} orders wait");
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        let copies = fds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<Vec<_>>>()?;
        self.outbox.push_back((bytes, copies));
        Ok(())
    }

    /// Orders a process. `fds` belong to `spec.placements`, in the same order.
    ///
    /// # Errors
    /// As [`Link::order`]; `InvalidInput` when the numbers of fds and placements differ or exceed the bound;
    /// errors of memfd_create(2).
    pub fn spawn(&mut self, worker: WorkerId, spec: &SpawnSpec, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() != spec.placements.len() || fds.len() >= FDS_PER_PACKET_MAX {
            let (count, places) = (fds.len(), spec.placements.len());
            let text = format!("{count} file descriptors for {places} places; the most is {}", FDS_PER_PACKET_MAX - 1);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let bytes = codec::encode_spawn_spec(spec).map_err(|error| invalid(&error))?;
        let description = self.socket.file_with("clusterd-spawn", &bytes)?;
        let mut attached = vec![description.as_fd()];
        attached.extend_from_slice(fds);
        self.order(&Order::Spawn { worker }, &attached)
    }

    /// Whether queued orders wait for the keeper to read. Call [`Link::flush`] when the fd is writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether queued orders wait for a resource of the system (memory, fds in flight). Call [`Link::flush`]
    /// periodically: no event reports the end of the shortage, and each failed send would be an event.
    #[must_use]
    pub fn lacks_resources(&self) -> bool {
        self.lacks_resources && !self.outbox.is_empty()
    }

    /// Sends as many queued orders as the keeper accepts.
    ///
    /// # Errors
    /// `BrokenPipe` when the keeper is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fds)) = self.outbox.front() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match self.socket.send(bytes, &borrowed) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(error) if packet::is_temporary(&error) => {
                    self.lacks_resources = error.kind() != io::ErrorKind::WouldBlock;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next notice; `Ok(None)` when there is none. Call it until then: readiness may be edge-triggered.
    ///
    /// # Errors
    /// `UnexpectedEof` when the keeper is gone.
    pub fn receive(&mut self) -> io::Result<Option<Notice>> {
        Ok(self.receive_with_fds()?.map(|(notice, _)| notice))
    }

    /// As [`Link::receive`], with the files that came with it.
    ///
    /// # Errors
    /// As [`Link::receive`].
    pub fn receive_with_fds(&mut self) -> io::Result<Option<(Notice, VecDeque<OwnedFd>)>> {
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the keeper is gone");
        let mut fds = VecDeque::new();
        loop {
            let length = match self.socket.receive(&mut self.buffer, &mut fds) {
                Ok(Packet::Whole(length)) => length,
                Ok(Packet::WithoutFds(_)) => {
                    warn!("ignored a packet from the keeper: {FDS_LOST}");
                    continue;
                }
                Ok(Packet::Damaged(why)) => {
                    warn!("ignored a packet from the keeper: {why}");
                    continue;
                }
                Ok(Packet::End) => return Err(gone()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(gone()),
                Err(error) => return Err(error),
            };
            match codec::decode_notice(&self.buffer[..length]) {
                Ok(notice) => return Ok(Some((notice, fds))),
                Err(RecordError::Unknown(kind)) => debug!("ignored a notice of the unknown kind {kind}"),
                Err(error) => warn!("ignored a damaged notice from the keeper: {error}"),
            }
        }
    }
}

impl<K: KeeperSocket> AsFd for Link<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn invalid(error: &RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the keeper would refuse this: {error}"))
}

enum Step {
    More,
    Done,
    Nonsense(&'static str),
}

/// Adds one notice to the inheritance.
fn take_in(into: &mut Inheritance, greeted: &mut bool, notice: Notice, mut fds: VecDeque<OwnedFd>) -> Step {
    match notice {
        Notice::Hello { incarnation, previous_end, about, .. } => {
            *greeted = true;
            into.about = about;
            into.incarnation = incarnation;
            into.previous_end = previous_end;
        }
        Notice::Child { worker, pid, tag, started_ms, status, out_of_memory } => {
            into.children.push(ChildInfo { worker, pid, tag, started_ms, status, out_of_memory });
        }
        Notice::Held { name } => match fds.pop_front() {
            Some(fd) => drop(into.fds.insert(name, fd)),
            None => warn!("the keeper holds \"{name}\", but its file descriptor did not arrive"),
        },
        Notice::Noted { key, value } => drop(into.notes.insert(key, value)),
        Notice::Begin if *greeted => return Step::Done,
        Notice::Begin => return Step::Nonsense("the keeper began without a greeting"),
        Notice::Spawned { .. }
        | Notice::SpawnFailed { .. }
        | Notice::Exited { .. }
        | Notice::Signal { .. }
        | Notice::Keeper { .. }
        | Notice::Looked { .. } => {
            return Step::Nonsense("the keeper sent news before all that it holds");
        }
    }
    Step::More
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;

    fn pair() -> (OwnedFd, Link) {
        pair_with_room(100_000)
    }

    fn pair_with_room(buffer_bytes: usize) -> (OwnedFd, Link) {
        let (keeper, master) = packet::pair(buffer_bytes).unwrap();
        (keeper, Link::new(master))
    }

    fn tell(keeper: &OwnedFd, notice: &Notice, fds: &[BorrowedFd<'_>]) {
        packet::send(keeper.as_fd(), &codec::encode_notice(notice).unwrap(), fds).unwrap();
    }

    fn hello(incarnation: u32, previous_end: &str) -> Notice {
        Notice::Hello { version: 9, incarnation, previous_end: previous_end.into(), about: About::default() }
    }

    fn hear(keeper: &OwnedFd) -> Option<(Order, usize)> {
        let mut buffer = vec![0; KEEPER_PACKET_BYTES_MAX];
        let mut fds = VecDeque::new();
        match packet::receive(keeper, &mut buffer, &mut fds) {
            Ok(Packet::Whole(length)) => Some((codec::decode_order(&buffer[..length]).unwrap(), fds.len())),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    #[test]
    fn an_inheritance_is_taken_up_to_its_end_and_news_stay_for_later() {
        let (keeper, mut link) = pair();
        let null = File::open("/dev/null").unwrap();
        tell(&keeper, &hello(4, "gone"), &[]);
        let child = Notice::Child {
            worker: WorkerId(1),
            pid: 5,
            tag: vec![1],
            started_ms: 8,
            status: Some(9),
            out_of_memory: false,
        };
        tell(&keeper, &child, &[]);
        tell(&keeper, &Notice::Held { name: "null".into() }, &[null.as_fd()]);
        packet::send(keeper.as_fd(), &[250, 1, 2], &[]).unwrap();
        packet::send(keeper.as_fd(), &[2, 1, 9], &[]).unwrap();
        tell(&keeper, &Notice::Noted { key: "k".into(), value: vec![7] }, &[]);
        tell(&keeper, &Notice::Begin, &[]);
        tell(&keeper, &Notice::Signal { signal: 1, value: None }, &[]);
        let inheritance = link.adopt().unwrap();
        assert_eq!((inheritance.incarnation, inheritance.previous_end.as_str()), (4, "gone"));
        assert_eq!(inheritance.children.len(), 1);
        assert_eq!(inheritance.children[0].status, Some(9));
        let (held, original) = (inheritance.fds["null"].as_fd(), null.as_fd());
        assert_eq!(process::file_identity(held).unwrap(), process::file_identity(original).unwrap());
        assert_eq!(inheritance.notes["k"], [7]);
        assert_eq!(link.receive().unwrap(), Some(Notice::Signal { signal: 1, value: None }));
        assert_eq!(link.receive().unwrap(), None);
        drop(keeper);
        assert_eq!(link.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn news_before_the_inheritance_and_a_keeper_that_dies_in_it_are_errors() {
        let (keeper, mut link) = pair();
        tell(&keeper, &Notice::Signal { signal: 1, value: None }, &[]);
        assert_eq!(link.adopt().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (keeper, mut link) = pair();
        tell(&keeper, &hello(1, ""), &[]);
        drop(keeper);
        assert_eq!(link.adopt().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn orders_wait_while_the_keeper_does_not_read_and_keep_their_order_and_fds() {
        let (keeper, mut link) = pair_with_room(1);
        let mut sent = 0;
        while link.outbox.len() < 20 {
            let null = File::open("/dev/null").unwrap();
            link.order(&Order::Hold { name: sent.to_string() }, &[null.as_fd()]).unwrap();
            sent += 1;
        }
        assert!(link.wants_write());
        link.order(&Order::Heartbeat, &[]).unwrap();
        let mut heard = 0;
        while heard < sent {
            match hear(&keeper) {
                Some((order, fds)) => {
                    assert_eq!((order, fds), (Order::Hold { name: heard.to_string() }, 1));
                    heard += 1;
                }
                None => link.flush().unwrap(),
            }
        }
        assert!(!link.wants_write());
        drop(keeper);
        assert_eq!(link.order(&Order::Heartbeat, &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_the_keeper_would_refuse_is_refused_here() {
        let (_keeper, mut link) = pair();
        let spec = SpawnSpec { placements: vec![3], ..SpawnSpec::default() };
        assert_eq!(link.spawn(WorkerId(1), &spec, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let forget = Order::Forget { key: "x".repeat(5000) };
        assert_eq!(link.order(&forget, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
