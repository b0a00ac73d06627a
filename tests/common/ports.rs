//! Ports that tests give to programs by number. They are below those that the kernel gives to clients: between the choice of such a
//! port and the program's bind(2) a client of a test beside it could get it, and the program would find its address in use.
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Where they begin, and their number: up to the first port of clients (`net.ipv4.ip_local_port_range`).
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// Test programs that run beside each other begin so far apart.
const STRIDE: u16 = 100;

/// The next port to look at, and what keeps those that were given: names that other test programs see.
static GIVEN: Mutex<(Option<u16>, Vec<UnixListener>)> = Mutex::new((None, Vec::new()));

/// A port that nobody has, and that no other test gets as long as this program runs.
pub(crate) fn free_port() -> u16 {
    first_of_free(1)
}

/// As many of them.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    [(); N].map(|()| free_port())
}

/// The first of so many in a row.
pub(crate) fn first_of_free(count: u16) -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = given.0.unwrap_or((std::process::id() % u32::from(COUNT / STRIDE)) as u16 * STRIDE);
    let offsets = (0..COUNT).map(|step| (begin + step) % COUNT).filter(|offset| offset + count <= COUNT);
    for offset in offsets {
        let claims: Option<Vec<UnixListener>> = (FIRST + offset..FIRST + offset + count).map(claim).collect();
        if let Some(claims) = claims {
            given.0 = Some((offset + count) % COUNT);
            given.1.extend(claims);
            return FIRST + offset;
        }
    }
    panic!("none of the ports from {FIRST} to {} is free", FIRST + COUNT - 1);
}

/// The name that keeps a port for this program. `None`: another test has it, or anybody else.
fn claim(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("clusterd-test-port-{port}")).unwrap();
    let claim = UnixListener::bind_addr(&name).ok()?;
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
    Some(claim)
}
