//! How the kernel treats groups and programs, with loopback sockets.
#![allow(clippy::unwrap_used)]
use super::group::Kernel;
use super::program::{Classic, by_chance, by_flow};
use super::turns::Turns;
use crate::os::listen::{self, LocalAddress};
use crate::os::reuseport;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

struct Linux;

impl Kernel for Linux {}

/// A group with this number of sockets.
fn group(first: OwnedFd, count: usize) -> (Vec<OwnedFd>, SocketAddr) {
    let LocalAddress::Inet(address) = listen::local_address(first.as_fd()).unwrap() else { panic!("not inet") };
    reuseport::open(first.as_fd()).unwrap();
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(reuseport::join(sockets[0].as_fd()).unwrap());
    }
    (sockets, address)
}

fn loopback() -> OwnedFd {
    listen::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), true, 128).unwrap()
}

fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

fn lengths(sockets: &[OwnedFd]) -> Vec<u32> {
    sockets.iter().map(|socket| reuseport::accept_queue(socket.as_fd()).waiting).collect()
}

fn classic(socket: &OwnedFd, program: &[Classic]) -> io::Result<()> {
    Linux.attach_classic(socket.as_fd(), program)
}

#[test]
fn the_classic_program_leaves_out_whom_it_shall() {
    let (sockets, address) = group(loopback(), 4);
    // Where this is refused there is nothing to test; the black-box tests simulate such a machine.
    if Linux.probe_classic().is_err() {
        return;
    }
    classic(&sockets[0], &by_chance(&[1, 3]).unwrap()).unwrap();
    let _clients = connect(address, 60);
    let seen = lengths(&sockets);
    assert_eq!((seen[0], seen[2], seen.iter().sum()), (0, 0, 60), "{seen:?}");
    assert!(seen[1] > 10 && seen[3] > 10, "{seen:?}");
    classic(&sockets[3], &by_chance(&[2]).unwrap()).unwrap();
    let _more = connect(address, 10);
    assert_eq!(lengths(&sockets)[2], 10);
}

#[test]
fn turns_are_strict_and_go_on_when_the_set_changes() {
    let (mut sockets, address) = group(loopback(), 3);
    let Ok(mut turns) = Turns::new(3) else { return };
    turns.attach(sockets[0].as_fd(), &[0, 1, 2], 3).unwrap();
    let _clients = connect(address, 9);
    assert_eq!(lengths(&sockets), [3, 3, 3]);
    turns.attach(sockets[0].as_fd(), &[0, 2], 3).unwrap();
    let _more = connect(address, 4);
    assert_eq!(lengths(&sockets), [5, 3, 5]);
    // More sockets than can be counted so far.
    while sockets.len() < 40 {
        sockets.push(reuseport::join(sockets[0].as_fd()).unwrap());
    }
    turns.attach(sockets[0].as_fd(), &[39], 40).unwrap();
    let _last = connect(address, 2);
    let counts = turns.counts();
    assert_eq!((&counts[..3], counts[39]), (&[5, 3, 5][..], 2));
}

#[test]
fn turns_that_a_socket_leaves_go_to_the_next() {
    let (sockets, address) = group(loopback(), 3);
    let Ok(mut turns) = Turns::new(3) else { return };
    turns.attach(sockets[0].as_fd(), &[0, 1, 2], 3).unwrap();
    turns.leave(&[(0, 2)]).unwrap();
    let _clients = connect(address, 4);
    assert_eq!(lengths(&sockets), [0, 2, 2]);
    // It has left all of its turns.
    let _more = connect(address, 2);
    assert_eq!(lengths(&sockets), [1, 3, 2]);
    turns.leave(&[(2, 100)]).unwrap();
    turns.leave(&[]).unwrap();
    let _last = connect(address, 3);
    assert_eq!(lengths(&sockets), [2, 4, 3]);
    // Two in a row leave theirs: one of them gets the connection all the same.
    turns.leave(&[(0, 9), (1, 9), (2, 9)]).unwrap();
    let _all = connect(address, 3);
    assert_eq!(lengths(&sockets).iter().sum::<u32>(), 12);
}

#[test]
fn datagrams_of_one_client_stay_together() {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    for first in [(Ipv4Addr::LOCALHOST, 0).into(), any].map(|at| listen::bind_udp(at, false, false).unwrap()) {
        let (sockets, address) = group(first, 4);
        let selected = [0, 1, 3];
        if classic(&sockets[0], &by_flow(4, &selected).unwrap()).is_err() {
            return;
        }
        let receivers: Vec<UdpSocket> = sockets.into_iter().map(UdpSocket::from).collect();
        let mut met = BTreeSet::new();
        for _ in 0..40 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..3 {
                client.send_to(b"x", (Ipv4Addr::LOCALHOST, address.port())).unwrap();
            }
            let got: Vec<usize> =
                receivers.iter().map(|r| std::iter::from_fn(|| r.recv_from(&mut [0; 8]).ok()).count()).collect();
            let at = got.iter().position(|n| *n == 3).unwrap_or_else(|| panic!("{got:?}"));
            met.insert(at as u32);
        }
        assert_eq!(met.into_iter().collect::<Vec<_>>(), selected);
    }
}
