//! A TCP connection of this process with itself over loopback, made without blocking. The caller decides what to send,
//! and who gets the other end.
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// Connections of others to the port that are closed before the attempt is postponed.
const STRANGERS_MAX: u32 = 8;

/// A connection whose other end has not been accepted yet. Dropping it closes the port.
#[derive(Debug)]
pub struct Half {
    listener: TcpListener,
    client: Socket,
    client_address: SocketAddr,
}

impl Half {
    /// Begins a connection, over IPv4 where the machine has it.
    ///
    /// # Errors
    /// Those of socket(2), bind(2), listen(2) and connect(2).
    pub fn begin() -> io::Result<Half> {
        let v4 = Half::begin_over(Ipv4Addr::LOCALHOST.into());
        v4.or_else(|error| Half::begin_over(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
    }

    fn begin_over(loopback: std::net::IpAddr) -> io::Result<Half> {
        let listener = TcpListener::bind((loopback, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let client = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        client.set_nonblocking(true)?;
        match client.connect(&SockAddr::from(address)) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let client_address = client.local_addr()?.as_socket();
        let client_address = client_address.ok_or_else(|| io::Error::other("a TCP socket without an address"))?;
        Ok(Half { listener, client, client_address })
    }

    /// Continues, as far as the kernel has come. Others may find the port: their connections are closed.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn finish(self) -> io::Result<Made> {
        for _ in 0..STRANGERS_MAX {
            match self.listener.accept() {
                Ok((other, peer)) if peer == self.client_address => {
                    other.set_nonblocking(true)?;
                    return Ok(Made::Whole { ours: self.client.into(), other: other.into() });
                }
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Made::Half(self))
    }
}

/// The state of a connection.
#[derive(Debug)]
pub enum Made {
    /// Both ends, connected and non-blocking.
    Whole { ours: OwnedFd, other: OwnedFd },
    /// The kernel needs a moment more.
    Half(Half),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn finished(mut half: Half) -> (TcpStream, TcpStream) {
        loop {
            match half.finish().unwrap() {
                Made::Whole { ours, other } => return (TcpStream::from(ours), TcpStream::from(other)),
                Made::Half(later) => half = later,
            }
            std::thread::yield_now();
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn both_ends_are_one_connection_and_strangers_get_none() {
        let half = Half::begin().unwrap();
        let port = half.listener.local_addr().unwrap();
        let mut strangers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(port).unwrap()).collect();
        let (mut ours, mut other) = finished(half);
        assert!(other.peer_addr().unwrap().ip().is_loopback());
        other.set_nonblocking(false).unwrap();
        ours.write_all(b"x").unwrap();
        let mut got = [0; 1];
        other.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"x");
        for stranger in &mut strangers {
            // Closed, or reset because it was not accepted.
            assert!(matches!(stranger.read(&mut got), Ok(0) | Err(_)));
        }
        assert!(TcpStream::connect(port).is_err(), "nobody listens there any more");
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn strangers_that_come_first_only_put_it_off() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let _strangers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        listener.set_nonblocking(true).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&address.into()).unwrap();
        let client_address = client.local_addr().unwrap().as_socket().unwrap();
        client.set_nonblocking(true).unwrap();
        let (ours, other) = finished(Half { listener, client, client_address });
        assert_eq!(ours.local_addr().unwrap(), other.peer_addr().unwrap());
    }
}
