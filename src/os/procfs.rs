//! What /proc says about processes and their sockets: memory, CPU time, who holds a port, who holds connections. Best
//! effort: what cannot be read is `None`, never an error.
use super::{clock, sock_diag};
use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

/// Size of one `/proc` or cgroup file that is read to count CPUs, in bytes.
pub(super) const PROC_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub fn process_group(pid: i32) -> Option<i32> {
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok().map(nix::unistd::Pid::as_raw)
}

/// The name of a process, as `ps` shows it.
pub fn name(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// The children of this process, which has one thread. Where the kernel keeps no list they are looked up one by one.
pub fn children() -> Vec<i32> {
    let listed = fs::read_to_string("/proc/thread-self/children").ok();
    if let Some(list) = listed {
        return list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    let own = std::process::id().cast_signed();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    pids.filter(|pid| parent(*pid) == Some(own)).collect()
}

/// The pid of a process's parent; 0 where that is in another namespace.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A variable in the environment that a process was started with. That is in the process's own memory, so it may have this
/// block: to be asked of processes of nobody who wants that.
pub fn variable(pid: i32, name: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(PROC_FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    let wanted = |entry: &[u8]| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
    text.split(|&byte| byte == 0).find_map(wanted)
}

/// Resident memory of a process in bytes.
pub fn memory_bytes(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page as u64)
}

/// How many files a process has open.
pub fn fd_count(pid: i32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// CPU time (user and system) of a process in milliseconds.
pub fn cpu_ms(pid: i32) -> Option<u64> {
    Some(cpu_times(pid)?.own_ms)
}

/// CPU time of a process.
struct CpuTimes {
    /// Its own, user and system.
    own_ms: u64,
    /// That of its children which have ended, and of theirs.
    ended_ms: u64,
}

fn cpu_times(pid: i32) -> Option<CpuTimes> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may contain anything: count the fields after the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let ms = |user: usize, system: usize| {
        let ticks = fields.get(user)?.parse::<u64>().ok()? + fields.get(system)?.parse::<u64>().ok()?;
        Some(ticks * 1000 / per_second.max(1) as u64)
    };
    Some(CpuTimes { own_ms: ms(11, 12)?, ended_ms: ms(13, 14)? })
}

/// Processes of a tree that are looked at to add up its CPU time.
const TREE_PROCESSES_MAX: usize = 32;

/// CPU time of a process, of its children, and of theirs, living or not, in milliseconds. It grows only, as long as no child is
/// left to another parent. Where the kernel keeps no list of children: of the process alone.
pub fn tree_cpu_ms(pid: i32) -> Option<u64> {
    let own = cpu_times(pid)?;
    let mut total_ms = own.own_ms + own.ended_ms;
    let mut next = children_of(pid);
    let mut left = TREE_PROCESSES_MAX;
    while let Some(child) = next.pop().filter(|_| left > 0) {
        left -= 1;
        if let Some(times) = cpu_times(child) {
            total_ms += times.own_ms + times.ended_ms;
            next.extend(children_of(child));
        }
    }
    Some(total_ms)
}

/// Children of the main thread of a process; none where the kernel keeps no list.
fn children_of(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().take(TREE_PROCESSES_MAX).filter_map(|pid| pid.parse().ok()).collect()
}

/// CPU time of the main thread of a process, in milliseconds.
pub fn main_thread_cpu_ms(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|ns| ns / 1_000_000)
}

/// How long the main thread of a process has waited for a CPU in total, in microseconds.
pub fn cpu_wait_us(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok().map(|ns| ns / 1000)
}

/// The process that listens on a TCP port (or unix path), as far as this user can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub parent: Option<i32>,
    /// The name of its command, as `ps` shows it.
    pub command: String,
}

/// `node (pid 4211)`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.command, self.pid)
    }
}

/// Finds who listens on a TCP port.
pub fn tcp_port_holder(address: SocketAddr) -> Option<Holder> {
    let listening = listening(&[address.port()])?;
    holder_of(&listening.into_iter().map(|(_, inode)| inode).collect())
}

/// Local port and inode of the sockets that listen on one of these TCP ports; with no ports: on any.
fn listening(ports: &[u16]) -> Option<Vec<(u16, u64)>> {
    let found = sock_diag::listening(ports);
    let found = found.map(|found| found.into_iter().map(|socket| (socket.port, socket.inode)).collect());
    or_from_table(found, |s| s.listening && (ports.is_empty() || ports.contains(&s.local_port)))
}

/// Finds who listens on a unix socket path.
pub fn unix_path_holder(path: &Path) -> Option<Holder> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let path = path.to_str()?;
    // Num RefCount Protocol Flags Type St Inode Path
    let inodes = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(6);
            let inode = fields.next()?.parse().ok()?;
            (fields.next() == Some(path)).then_some(inode)
        })
        .collect();
    holder_of(&inodes)
}

/// CPU time for which the holder of a socket is looked for, in milliseconds: about 30,000 fds. The caller's loop waits for that. Not
/// wall time: on a busy machine it would pass before anything was looked at.
const HOLDER_CPU_MS_MAX: u64 = 100;

fn holder_of(inodes: &HashSet<u64>) -> Option<Holder> {
    if inodes.is_empty() {
        return None;
    }
    let deadline_ms = clock::thread_cpu_ms() + HOLDER_CPU_MS_MAX;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if clock::thread_cpu_ms() >= deadline_ms {
            return None;
        }
        let held = socket_inodes(pid).unwrap_or_default();
        if !held.is_disjoint(inodes) {
            // The name, which the kernel has. Its arguments are in its own memory, and a page there may be one that never
            // comes (userfaultfd, FUSE): reading it would block.
            let command = name(pid).unwrap_or_default();
            return Some(Holder { pid, parent: parent(pid), command });
        }
    }
    None
}

/// The TCP ports on which a process listens, as far as this user can see.
pub fn listening_ports(pid: i32) -> Vec<u16> {
    let held = socket_inodes(pid).unwrap_or_default();
    let listening = listening(&[]).unwrap_or_default();
    listening.into_iter().filter(|(_, inode)| held.contains(inode)).map(|(port, _)| port).collect()
}

/// The inodes of all sockets of a process; `None` without permission.
pub fn socket_inodes(pid: i32) -> Option<HashSet<u64>> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(
        fds.flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
            .collect(),
    )
}

/// A snapshot of the machine's connections. Reading it takes time with their number, so one snapshot serves several
/// queries.
pub struct ConnectionTable {
    tcp: Vec<(u16, u64)>,
    unix: Vec<(String, u64)>,
}

impl ConnectionTable {
    /// Reads the connections that came in through one of these TCP ports or socket paths. `None` if they cannot be
    /// read.
    pub fn read(ports: &[u16], paths: &[String]) -> Option<ConnectionTable> {
        let tcp = if ports.is_empty() { Vec::new() } else { tcp_connections(ports)? };
        let unix = if paths.is_empty() { Vec::new() } else { unix_connections(paths)? };
        Some(ConnectionTable { tcp, unix })
    }

    /// How many connections came in through one of these TCP ports or socket paths.
    pub fn count_all(&self, ports: &[u16], paths: &[String]) -> usize {
        let tcp = self.tcp.iter().filter(|(port, _)| ports.contains(port)).count();
        tcp + self.unix.iter().filter(|(path, _)| paths.contains(path)).count()
    }

    /// How many of these sockets are connections that came in through one of these TCP ports or socket paths.
    pub fn count(&self, held: &HashSet<u64>, ports: &[u16], paths: &[String]) -> usize {
        let tcp = self.tcp.iter().filter(|(port, inode)| ports.contains(port) && held.contains(inode)).count();
        let unix = self.unix.iter().filter(|(path, inode)| paths.contains(path) && held.contains(inode)).count();
        tcp + unix
    }
}

/// Whether any process has a connection that came in through one of these TCP ports or socket paths. `false` if that
/// cannot be read.
pub fn has_connections(ports: &[u16], paths: &[String]) -> bool {
    let by_port = match sock_diag::is_connected(ports) {
        Ok(connected) => connected,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
        Err(_) => tcp_table(|s| !s.listening && ports.contains(&s.local_port)).is_some_and(|found| !found.is_empty()),
    };
    by_port || (!paths.is_empty() && unix_connections(paths).is_some_and(|found| !found.is_empty()))
}

/// Local port and inode.
fn tcp_connections(ports: &[u16]) -> Option<Vec<(u16, u64)>> {
    or_from_table(sock_diag::connections(ports), |s| !s.listening && ports.contains(&s.local_port))
}

/// What netlink said; where it is refused, the wanted sockets of /proc.
fn or_from_table(found: io::Result<Vec<(u16, u64)>>, wanted: impl Fn(&TcpSocket) -> bool) -> Option<Vec<(u16, u64)>> {
    match found {
        Ok(found) => Some(found),
        // Reading /proc would take even longer.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
        Err(_) => tcp_table(wanted),
    }
}

/// Path and inode of connected unix sockets with one of these paths.
fn unix_connections(paths: &[String]) -> Option<Vec<(String, u64)>> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let connected = |line: &str| {
        // Num RefCount Protocol Flags Type St Inode Path; state 03 is connected.
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let path = (*fields.get(7)?).to_owned();
        (fields[5] == "03" && paths.contains(&path)).then_some((path, fields[6].parse().ok()?))
    };
    Some(table.lines().skip(1).filter_map(connected).collect())
}

struct TcpSocket {
    local_port: u16,
    listening: bool,
}

/// Local port and inode of the machine's TCP sockets that pass the filter. `None` if they cannot be read.
fn tcp_table(wanted: impl Fn(&TcpSocket) -> bool) -> Option<Vec<(u16, u64)>> {
    let mut found = Vec::new();
    let mut readable = false;
    // A machine without IPv6 lacks the second file.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else { continue };
        readable = true;
        for line in text.lines().skip(1) {
            if let Some((socket, inode)) = tcp_line(line) {
                // A socket in TIME_WAIT belongs to no process and has inode 0.
                if inode != 0 && wanted(&socket) {
                    found.push((socket.local_port, inode));
                }
            }
        }
    }
    readable.then_some(found)
}

/// One line of /proc/net/tcp: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`.
fn tcp_line(line: &str) -> Option<(TcpSocket, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some((TcpSocket { local_port, listening: state == "0A" }, inode))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn finds_itself_as_the_holder_of_a_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = tcp_port_holder(listener.local_addr().unwrap()).unwrap();
        assert_eq!(holder.pid, std::process::id() as i32);
        assert!(!holder.command.is_empty());
        let port = listener.local_addr().unwrap().port();
        assert!(listening_ports(holder.pid).contains(&port) && listening_ports(i32::MAX).is_empty());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn counts_connections_that_came_through_a_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = || {
            let held = socket_inodes(std::process::id() as i32).unwrap();
            // As netlink returns it, and as /proc does.
            let table = ConnectionTable::read(&[port], &[]).unwrap();
            let slow = ConnectionTable { tcp: tcp_table(|s| !s.listening).unwrap(), unix: Vec::new() };
            let counts = [table.count(&held, &[port], &[]), slow.count(&held, &[port], &[])];
            assert_eq!(counts[0], counts[1]);
            counts[0]
        };
        assert_eq!(count(), 0);
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        // Both ends are ours; only the server's has the listening port as its local port.
        assert_eq!(count(), 1);
        drop((client, server));
        assert_eq!(count(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn reads_its_own_figures() {
        let me = std::process::id() as i32;
        assert!(memory_bytes(me).unwrap() > 100_000);
        assert!(cpu_ms(me).is_some());
        let own_ms = cpu_ms(me);
        assert!(tree_cpu_ms(me) >= own_ms, "its children count too");
        assert!(main_thread_cpu_ms(me).is_none_or(|ms| ms < 3_600_000));
        assert!(cpu_wait_us(me).is_none_or(|us| us < 3_600_000_000));
        assert_eq!(memory_bytes(i32::MAX), None);
    }
}
