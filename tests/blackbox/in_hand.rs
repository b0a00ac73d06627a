//! A master that is killed between accept(2) and sendmsg(2), and right after it: the connection in hand is answered, by one worker.
use super::client;
use super::cluster::{Cluster, Folder, PATIENCE, kill};
use super::common::wait::{ends_within, wait_end};
use std::net::SocketAddr;
use std::ptr;

/// Says on stdout when it is given a connection.
const APP: &str = "
const server = require('http').createServer((request, response) => response.end('hello'));
server.on('connection', () => console.log('one connection'));
server.listen(process.env.PORT);
";

/// Where in the hand-off of a connection the master is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It is accepted; the master has not got its number yet.
    Accepted,
    /// The system call that sends it has begun, and did nothing yet.
    Sending,
    /// It is sent; the master does not know yet.
    Sent,
}

#[test]
fn a_connection_that_a_killed_master_has_just_accepted_is_answered() {
    answered_once(At::Accepted);
}

#[test]
fn a_connection_that_a_killed_master_was_about_to_send_is_answered() {
    answered_once(At::Sending);
}

#[test]
fn a_connection_that_a_killed_master_has_just_sent_is_answered_once() {
    answered_once(At::Sent);
}

fn answered_once(at: At) {
    let folder = Folder::new();
    let app = folder.write("app.js", APP);
    let args = ["--workers", "2", "--balance", "round-robin", "--port", "0", "--", "node", &app];
    let mut cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    let workers = cluster.worker_pids();
    let address = cluster.address();
    let master = cluster.master_pid();
    let client = std::thread::scope(|scope| {
        let tracer = match Tracer::seize(master) {
            Ok(tracer) => tracer,
            Err(e) => {
                eprintln!("skipped: the master cannot be traced here: {e}");
                return None;
            }
        };
        let client = scope.spawn(move || {
            let answer = answer(address);
            if !ends_within(master, PATIENCE) {
                // The place was not found: the tracer must not wait for ever.
                kill(master, "KILL");
            }
            answer
        });
        tracer.kill_at(at);
        Some(client.join().expect("a client"))
    });
    let Some(answer_of_first) = client else { return };
    assert_eq!(answer_of_first.as_deref(), Ok("hello"), "{at:?}");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    // They are handed over after all that the workers were sent before.
    for _ in 0..4 {
        assert_eq!(answer(address).as_deref(), Ok("hello"), "{at:?}");
    }
    assert_eq!(cluster.worker_pids(), workers, "the workers notice nothing");
    let connections = |lines: &[String]| lines.iter().filter(|line| line.contains("one connection")).count();
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(connections(&cluster.stdout()), 5, "{at:?}: each was given to one worker");
}

fn answer(address: SocketAddr) -> Result<String, String> {
    client::get(address, "/")
}

/// Follows the system calls of a process's main thread. The calls of ptrace(2) have to come from one thread.
struct Tracer(i32);

/// What a traced thread stopped at.
enum Stop {
    Enters(u64),
    /// The call that it entered last, and its result.
    Leaves(i64),
    Other(i32),
}

impl Tracer {
    fn seize(pid: i32) -> std::io::Result<Tracer> {
        let tracer = Tracer(pid);
        tracer.request(libc::PTRACE_SEIZE, libc::PTRACE_O_TRACESYSGOOD as usize)?;
        tracer.request(libc::PTRACE_INTERRUPT, 0)?;
        tracer.wait();
        Ok(tracer)
    }

    fn request(&self, what: libc::c_uint, data: usize) -> std::io::Result<()> {
        // SAFETY: these requests take a number where others take a pointer.
        let done = unsafe { libc::ptrace(what, self.0, ptr::null_mut::<libc::c_void>(), data as *mut libc::c_void) };
        if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait(&self) -> i32 {
        let mut status = 0;
        // SAFETY: the status lives through the call.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        assert_eq!(pid, self.0, "{}", std::io::Error::last_os_error());
        status
    }

    /// Lets it run to the next entry or exit of a system call.
    fn next(&self, signal: i32) -> Stop {
        self.request(libc::PTRACE_SYSCALL, signal as usize).expect("it is stopped");
        let status = self.wait();
        assert!(libc::WIFSTOPPED(status), "it lives: {status:#x}");
        if libc::WSTOPSIG(status) != libc::SIGTRAP | 0x80 {
            // A signal of its own (a timer), which it is given.
            return Stop::Other(if status >> 16 == 0 { libc::WSTOPSIG(status) } else { 0 });
        }
        // SAFETY: all zero is a valid value.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::ptrace_syscall_info>();
        // SAFETY: the kernel writes at most the size that it is told.
        let written = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, size, &raw mut info) };
        assert!(written > 0, "{}", std::io::Error::last_os_error());
        // SAFETY: `op` says which part of the union is there.
        unsafe {
            match info.op {
                libc::PTRACE_SYSCALL_INFO_ENTRY => Stop::Enters(info.u.entry.nr),
                _ => Stop::Leaves(info.u.exit.sval),
            }
        }
    }

    /// Kills it at this place of the next hand-off.
    fn kill_at(self, at: At) {
        let (mut call, mut signal, mut accepted) = (0, 0, false);
        loop {
            let there = match self.next(std::mem::take(&mut signal)) {
                Stop::Enters(number) => {
                    call = number;
                    at == At::Sending && accepted && call == libc::SYS_sendmsg as u64
                }
                Stop::Leaves(result) => {
                    accepted |= call == libc::SYS_accept4 as u64 && result >= 0;
                    let sent = call == libc::SYS_sendmsg as u64 && result > 0;
                    accepted && (at == At::Accepted || at == At::Sent && sent)
                }
                Stop::Other(number) => {
                    signal = number;
                    false
                }
            };
            if there {
                break;
            }
        }
        kill(self.0, "KILL");
        // Its end is told to us first, and then to its parent.
        self.wait();
        wait_end(self.0);
    }
}
