//! Which listen addresses conflict. Looks up and binds nothing.
use super::Listen;
use std::net::{IpAddr, SocketAddr};

/// Whether both addresses cannot be bound at the same time: same port, same family, and the same address or a wildcard.
/// Host names are compared as names. Port 0 never conflicts.
pub fn overlap(one: &Listen, other: &Listen) -> bool {
    use Listen::{Any, Host, Tcp, Unix};
    match (one, other) {
        (Unix(one), Unix(other)) => one == other,
        (Unix(_), _) | (_, Unix(_)) => false,
        _ if port(one) != port(other) || port(one) == Some(0) => false,
        // Any uses both families.
        (Any(_), _) | (_, Any(_)) => true,
        (Tcp(one), Tcp(other)) => overlap_tcp(one, other),
        (Host(one, _), Host(other, _)) => one.eq_ignore_ascii_case(other),
        // The address of a name is known only once it is bound, but a wildcard covers it (nearly every name has an IPv4
        // address).
        (Host(..), Tcp(address)) | (Tcp(address), Host(..)) => address.ip() == IpAddr::from([0, 0, 0, 0]),
    }
}

fn overlap_tcp(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// The port of a TCP address.
pub fn port(listen: &Listen) -> Option<u16> {
    match listen {
        Listen::Any(port) | Listen::Host(_, port) => Some(*port),
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::parse::listen;

    fn both(one: &str, other: &str) -> bool {
        let (one, other) = (listen(one).unwrap(), listen(other).unwrap());
        assert_eq!(overlap(&one, &other), overlap(&other, &one), "{one} and {other}");
        overlap(&one, &other)
    }

    #[test]
    fn wildcards_cover_their_family() {
        for (one, other) in [
            ("80", "80"),
            ("80", "0.0.0.0:80"),
            ("80", "[::1]:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("80", "localhost:80"),
            ("0.0.0.0:80", "localhost:80"),
            ("Localhost:80", "localhost:80"),
            ("unix:/a", "/a"),
        ] {
            assert!(both(one, other), "{one} and {other}");
        }
        for (one, other) in [
            ("80", "81"),
            ("0", "0"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "[::]:80"),
            ("127.0.0.1:80", "[::1]:80"),
            ("127.0.0.1:80", "localhost:80"),
            ("unix:/a", "unix:/b"),
            ("unix:/a", "80"),
        ] {
            assert!(!both(one, other), "{one} and {other}");
        }
    }
}
