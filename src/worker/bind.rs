//! A program that binds its port by itself (`protocol = "bind"`): each bind(2) of one of the app's addresses, by the program
//! or whatever it starts, gets the socket of its slot in the place of its own, and listen(2) on that is readiness. It is
//! offered its sockets in `LISTEN_FDS` too. This file reads the addresses; `master/bind` answers the calls.
use super::listen_fds::ListenFds;
use super::{Environment, Inherited, Spawn, WorkerProtocol};
use crate::config::ProtocolKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Programs whose calls of bind(2) and listen(2) are intercepted.
#[derive(Debug)]
pub struct Bind;

impl WorkerProtocol for Bind {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Bind
    }

    fn inherited(&self) -> Inherited {
        Inherited::Listeners
    }

    fn intercepts(&self) -> bool {
        true
    }

    fn variables(&self) -> &'static [&'static str] {
        ListenFds.variables()
    }

    fn environment(&self, spawn: &Spawn<'_>, env: &mut Environment) {
        ListenFds.environment(spawn, env);
    }

    fn needs_listen_pid(&self) -> bool {
        true
    }
}

/// An address that a program binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A socket in the file system, as the program wrote it.
    Path(Vec<u8>),
}

/// Values of `sa_family` on Linux.
const UNIX: u16 = 1;
const INET: u16 = 2;
const INET6: u16 = 10;

impl Address {
    /// The address in the bytes of a `struct sockaddr`. `None`: of a family that clusterd leaves alone (abstract unix names
    /// too), or too short.
    pub fn parse(bytes: &[u8]) -> Option<Address> {
        let family = u16::from_ne_bytes(array(bytes, 0)?);
        match family {
            INET => {
                let ip = Ipv4Addr::from(array::<4>(bytes, 4)?);
                let port = u16::from_be_bytes(array(bytes, 2)?);
                Some(Address::Inet(SocketAddrV4::new(ip, port).into()))
            }
            INET6 => {
                let port = u16::from_be_bytes(array(bytes, 2)?);
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                // Old programs leave the scope out (RFC 2133).
                let scope = array(bytes, 24).map_or(0, u32::from_ne_bytes);
                Some(Address::Inet(SocketAddrV6::new(ip, port, 0, scope).into()))
            }
            UNIX => {
                let path = bytes.get(2..)?.split(|byte| *byte == 0).next()?;
                (!path.is_empty()).then(|| Address::Path(path.to_vec()))
            }
            _ => None,
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockaddr(family: u16, rest: &[u8]) -> Vec<u8> {
        [&family.to_ne_bytes()[..], rest].concat()
    }

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let v4 = sockaddr(INET, &[0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Address::parse(&v4), Some(Address::Inet("127.0.0.1:8080".parse().expect("an address"))));
        let mut v6 = sockaddr(INET6, &[0x1f, 0x90, 0, 0, 0, 0]);
        v6.extend([0; 16]);
        assert_eq!(Address::parse(&v6), Some(Address::Inet("[::]:8080".parse().expect("an address"))));
        let path = sockaddr(UNIX, b"/run/a.sock\0rest");
        assert_eq!(Address::parse(&path), Some(Address::Path(b"/run/a.sock".to_vec())));
    }

    #[test]
    fn what_is_no_address_of_these_is_left_alone() {
        for bytes in [
            Vec::new(),
            vec![2],
            sockaddr(0, &[0; 14]),
            sockaddr(16, &[0; 10]),
            sockaddr(INET, &[0x1f, 0x90, 127]),
            sockaddr(INET6, &[0; 20]),
            sockaddr(UNIX, b"\0abstract"),
            sockaddr(UNIX, b""),
        ] {
            assert_eq!(Address::parse(&bytes), None, "{bytes:?}");
        }
    }
}
