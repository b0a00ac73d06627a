//! What the keeper sends to one master: first everything that it holds, then news. Nothing is copied in advance: the
//! walk over the table continues as the master reads.
use super::codec;
use super::protocol::{About, KEEPER_OUTBOX_MAX, Notice};
use super::system::System;
use super::table::{State, Table};
use crate::ids::WorkerId;
use crate::limits::KEEPER_SEND_PAUSE_MS;
use crate::os::packet;
use crate::record;
use std::collections::VecDeque;
use std::io;

/// The position of the walk over the table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Walk {
    Hello,
    Children(Option<WorkerId>),
    Held(Option<String>),
    Notes(Option<String>),
    Begin,
    News,
}

/// The master does not read: more than [`KEEPER_OUTBOX_MAX`] news are queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

/// The messages for one master.
#[derive(Debug)]
pub(crate) struct Delivery {
    incarnation: u32,
    previous_end: String,
    about: About,
    walk: Walk,
    news: VecDeque<Notice>,
    /// The socket was full: continue when it is writable.
    full: bool,
    /// The kernel was out of a resource, which no event reports: continue at this time.
    paused_until_ms: Option<u64>,
}

impl Delivery {
    pub(crate) fn new(incarnation: u32, previous_end: String, about: About, news: VecDeque<Notice>) -> Delivery {
        Delivery { incarnation, previous_end, about, walk: Walk::Hello, news, full: false, paused_until_ms: None }
    }

    /// Queues news after everything before.
    pub(crate) fn push(&mut self, notice: Notice) -> Result<(), Overflow> {
        if self.is_still_to_come(&notice) {
            return Ok(());
        }
        if self.news.len() >= KEEPER_OUTBOX_MAX {
            return Err(Overflow);
        }
        self.news.push_back(notice);
        Ok(())
    }

    /// Whether the walk will show this child, or held file, as it is now, so that the news would only repeat it.
    fn is_still_to_come(&self, notice: &Notice) -> bool {
        match (notice, &self.walk) {
            (Notice::Spawned { .. } | Notice::Exited { .. }, Walk::Hello | Walk::Children(None)) => true,
            (Notice::Spawned { worker, .. } | Notice::Exited { worker, .. }, Walk::Children(Some(last))) => {
                worker > last
            }
            (Notice::Held { .. }, Walk::Hello | Walk::Children(_) | Walk::Held(None)) => true,
            (Notice::Held { name }, Walk::Held(Some(last))) => name > last,
            _ => false,
        }
    }

    /// Continues for another binary: the walk was complete.
    pub(crate) fn resume(incarnation: u32, news: VecDeque<Notice>) -> Delivery {
        Delivery { walk: Walk::News, ..Delivery::new(incarnation, String::new(), About::default(), news) }
    }

    /// The queued news, if the walk is complete.
    pub(crate) fn only_news(&self) -> Option<&VecDeque<Notice>> {
        (self.walk == Walk::News).then_some(&self.news)
    }

    /// The news that were not sent.
    pub(crate) fn into_news(self) -> VecDeque<Notice> {
        self.news
    }

    pub(crate) fn waits_for_room(&self) -> bool {
        self.full
    }

    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        self.paused_until_ms
    }

    /// Sends as much as the socket accepts.
    ///
    /// # Errors
    /// The socket is broken for good.
    pub(crate) fn flush<S: System>(
        &mut self,
        system: &S,
        socket: &S::Fd,
        table: &Table<S::Fd>,
        now_ms: u64,
    ) -> io::Result<()> {
        if self.paused_until_ms.is_some_and(|until_ms| now_ms < until_ms) {
            return Ok(());
        }
        self.paused_until_ms = None;
        self.full = false;
        while let Some((notice, fd, next)) = self.next_of_walk(table) {
            if !send(system, socket, &notice, fd).or_else(|error| self.postpone(&error, now_ms).map_err(|()| error))? {
                return Ok(());
            }
            self.walk = next;
        }
        while let Some(notice) = self.news.front() {
            let fd = match notice {
                Notice::Held { name } => table.held_as(name),
                _ => None,
            };
            if fd.is_none() && matches!(notice, Notice::Held { .. }) {
                // The master released the name in the meantime.
                self.news.pop_front();
                continue;
            }
            let sent = send(system, socket, notice, fd);
            if !sent.or_else(|error| self.postpone(&error, now_ms).map_err(|()| error))? {
                return Ok(());
            }
            self.news.pop_front();
        }
        Ok(())
    }

    /// Handles a failed send. `Ok(false)`: try again later.
    fn postpone(&mut self, error: &io::Error, now_ms: u64) -> Result<bool, ()> {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.full = true;
            return Ok(false);
        }
        if packet::is_temporary(error) {
            self.paused_until_ms = Some(now_ms + KEEPER_SEND_PAUSE_MS);
            return Ok(false);
        }
        Err(())
    }

    /// The next message of the walk, and the position after it.
    fn next_of_walk<'t, F>(&self, table: &'t Table<F>) -> Option<(Notice, Option<&'t F>, Walk)> {
        let mut walk = self.walk.clone();
        loop {
            walk = match walk {
                Walk::Hello => {
                    let (incarnation, previous_end) = (self.incarnation, self.previous_end.clone());
                    let about = self.about.clone();
                    let hello = Notice::Hello { version: record::VERSION, incarnation, previous_end, about };
                    return Some((hello, None, Walk::Children(None)));
                }
                Walk::Children(last) => match table.child_after(last) {
                    Some((worker, child)) => {
                        let status = match child.state {
                            State::Ended { status, .. } => Some(status),
                            State::Starting | State::Failing { .. } | State::Running => None,
                        };
                        let (pid, started_ms, tag) = (child.pid, child.started_ms, child.tag.clone());
                        let out_of_memory = child.out_of_memory;
                        let notice = Notice::Child { worker, pid, tag, started_ms, status, out_of_memory };
                        return Some((notice, None, Walk::Children(Some(worker))));
                    }
                    None => Walk::Held(None),
                },
                Walk::Held(last) => match table.held_after(last.as_deref()) {
                    Some((name, fd)) => {
                        let notice = Notice::Held { name: name.to_owned() };
                        return Some((notice, Some(fd), Walk::Held(Some(name.to_owned()))));
                    }
                    None => Walk::Notes(None),
                },
                Walk::Notes(last) => match table.note_after(last.as_deref()) {
                    Some((key, value)) => {
                        let notice = Notice::Noted { key: key.to_owned(), value: value.to_vec() };
                        return Some((notice, None, Walk::Notes(Some(key.to_owned()))));
                    }
                    None => Walk::Begin,
                },
                Walk::Begin => return Some((Notice::Begin, None, Walk::News)),
                Walk::News => return None,
            };
        }
    }
}

/// Sends one notice. `Ok(true)`: it was sent.
fn send<S: System>(system: &S, socket: &S::Fd, notice: &Notice, fd: Option<&S::Fd>) -> io::Result<bool> {
    let bytes = codec::encode_notice(notice).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    system.send(socket, &bytes, fd).map(|()| true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keeper::codec::decode_notice;
    use crate::keeper::protocol::OwnUpgrade;
    use crate::keeper::system::Linux;
    use crate::limits::KEEPER_PACKET_BYTES_MAX;
    use crate::os::packet::Packet;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    fn about() -> About {
        About { version: "1.2.3".into(), upgrade: OwnUpgrade::Done, has_store: true }
    }

    #[test]
    fn a_file_that_the_keeper_holds_by_itself_is_told_once_and_with_its_fd() {
        let (ours, theirs) = packet::pair(100_000).unwrap();
        let mut table: Table<OwnedFd> = Table::default();
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let held = |name: &str| Notice::Held { name: name.to_owned() };
        let mut delivery = Delivery::new(1, String::new(), about(), VecDeque::new());
        table.hold("untouched/1/0".into(), null()).unwrap();
        // The walk is to come, and shows it.
        delivery.push(held("untouched/1/0")).unwrap();
        delivery.flush(&Linux::default(), &ours, &table, 0).unwrap();
        let told: Vec<_> =
            read_all(&theirs).into_iter().filter(|(notice, _)| *notice == held("untouched/1/0")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        for name in ["untouched/2/0", "untouched/2/1"] {
            table.hold(name.into(), null()).unwrap();
            delivery.push(held(name)).unwrap();
        }
        table.release("untouched/2/0");
        delivery.flush(&Linux::default(), &ours, &table, 0).unwrap();
        assert_eq!(read_all(&theirs), [(held("untouched/2/1"), 1)], "what was released in between is left out");
    }

    fn read_all(socket: &OwnedFd) -> Vec<(Notice, usize)> {
        let mut buffer = vec![0; KEEPER_PACKET_BYTES_MAX];
        let mut fds = VecDeque::new();
        let mut all = Vec::new();
        while let Ok(Packet::Whole(length)) = packet::receive(socket, &mut buffer, &mut fds) {
            all.push((decode_notice(&buffer[..length]).unwrap(), fds.len()));
        }
        all
    }

    #[test]
    fn what_is_held_comes_first_and_news_about_it_are_not_told_twice() {
        let (ours, theirs) = packet::pair(100_000).unwrap();
        let mut table = Table::default();
        for id in 1..=3 {
            table.started(WorkerId(id), 100 + id as i32, vec![], String::new(), 5);
        }
        table.hold("null".into(), OwnedFd::from(File::open("/dev/null").unwrap())).unwrap();
        table.note("k".into(), b"v".to_vec()).unwrap();
        let mut delivery = Delivery::new(2, "was killed by SIGKILL".into(), about(), VecDeque::new());
        table.reaped(101, 9, 50);
        delivery.push(Notice::Exited { worker: WorkerId(1), status: 9, at_ms: 50, out_of_memory: false }).unwrap();
        delivery.push(Notice::Signal { signal: 1, value: None }).unwrap();
        delivery.flush(&Linux::default(), &ours, &table, 60).unwrap();
        delivery.push(Notice::Exited { worker: WorkerId(2), status: 0, at_ms: 70, out_of_memory: false }).unwrap();
        delivery.flush(&Linux::default(), &ours, &table, 70).unwrap();
        let child = |id: u64, status| Notice::Child {
            worker: WorkerId(id),
            pid: 100 + id as i32,
            tag: vec![],
            started_ms: 5,
            status,
            out_of_memory: false,
        };
        let previous_end = "was killed by SIGKILL".to_owned();
        let expected = [
            (Notice::Hello { version: record::VERSION, incarnation: 2, previous_end, about: about() }, 0),
            (child(1, Some(9)), 0),
            (child(2, None), 0),
            (child(3, None), 0),
            (Notice::Held { name: "null".into() }, 1),
            (Notice::Noted { key: "k".into(), value: b"v".to_vec() }, 0),
            (Notice::Begin, 0),
            (Notice::Signal { signal: 1, value: None }, 0),
            (Notice::Exited { worker: WorkerId(2), status: 0, at_ms: 70, out_of_memory: false }, 0),
        ];
        assert_eq!(read_all(&theirs), expected);
    }

    #[test]
    fn a_master_that_reads_slowly_gets_everything_once_and_in_order() {
        let (ours, theirs) = packet::pair(1).unwrap();
        let mut table = Table::default();
        for n in 0..500 {
            table.note(format!("{n:04}"), vec![7; 4000]).unwrap();
        }
        let mut delivery = Delivery::new(1, String::new(), about(), VecDeque::new());
        let mut got = Vec::new();
        let mut rounds = 0;
        while !matches!(got.last(), Some((Notice::Begin, _))) {
            delivery.flush(&Linux::default(), &ours, &table, 0).unwrap();
            got.extend(read_all(&theirs));
            rounds += 1;
        }
        assert!(rounds > 10, "the socket was never full");
        let keys: Vec<_> = got
            .iter()
            .filter_map(|(notice, _)| match notice {
                Notice::Noted { key, .. } => Some(key.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(keys, (0..500).map(|n| format!("{n:04}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_master_that_never_reads_overflows() {
        let mut delivery = Delivery::new(1, String::new(), about(), VecDeque::new());
        for n in 0..KEEPER_OUTBOX_MAX {
            delivery.push(Notice::Signal { signal: 1, value: Some(n as i32) }).unwrap();
        }
        assert_eq!(delivery.push(Notice::Begin), Err(Overflow));
    }
}
