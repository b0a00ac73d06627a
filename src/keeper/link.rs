//! provisional
use super::codec::{self, Decoded};
use super::protocol::{Notice, Order, SpawnSpec};
use crate::ids::WorkerId;
use crate::limits;
use crate::os::{memfd, packet, process};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub struct ChildInfo { pub worker: WorkerId, pub pid: i32, pub tag: Vec<u8>, pub started_ms: u64, pub status: Option<i32> }
pub struct Inheritance {
    pub incarnation: u32,
    pub previous_end: String,
    pub children: Vec<ChildInfo>,
    pub fds: HashMap<String, OwnedFd>,
    pub notes: BTreeMap<String, Vec<u8>>,
}
pub struct Link { socket: OwnedFd, outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>, buffer: Vec<u8>, fds: VecDeque<OwnedFd> }
impl Link {
    pub fn from_inherited() -> io::Result<Link> {
        let socket = process::take_inherited_fd(3)?;
        Ok(Link { socket, outbox: VecDeque::new(), buffer: vec![0; limits::KEEPER_PACKET_BYTES_MAX], fds: VecDeque::new() })
    }
    pub fn adopt(&mut self) -> io::Result<Inheritance> { todo!() }
    pub fn order(&mut self, order: Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let _ = (order, fds, &self.outbox); Ok(())
    }
    pub fn spawn(&mut self, worker: WorkerId, spec: &SpawnSpec, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let _ = (worker, spec, fds); Ok(())
    }
    pub fn flush(&mut self) -> io::Result<()> { Ok(()) }
    pub fn wants_write(&self) -> bool { !self.outbox.is_empty() }
    pub fn receive(&mut self) -> io::Result<Option<Notice>> { Ok(None) }
}
impl AsFd for Link { fn as_fd(&self) -> BorrowedFd<'_> { self.socket.as_fd() } }
