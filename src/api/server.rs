//! The HTTP server of the control API: one thread, one tokio runtime, hyper. Decides who may connect, how many, and for
//! how long; `handler` answers.
use super::audit::Peer;
use super::reply::{self, Reply, failure};
use super::routes::Route;
use super::write_timeout::WriteTimeout;
use super::{CallSender, handler};
use crate::limits;
use crate::os::{errno, process};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};

/// Size of a request's head, in bytes.
const CONTROL_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Time limit for the head of a request, in milliseconds.
const CONTROL_HEAD_TIMEOUT_MS: u64 = 5_000;

/// Stack of the control API's thread, in bytes.
const CONTROL_STACK_BYTES: usize = 512 * 1024;

/// Checks at the end whether the last answers are written.
const CONTROL_DRAIN_STEPS_MAX: u32 = 50;

/// Pause between two such checks, in milliseconds.
const CONTROL_DRAIN_STEP_MS: u64 = 5;

/// The running server. It ends with the process.
pub struct Server {
    open: Arc<AtomicUsize>,
    end: Arc<Notify>,
}

impl Server {
    /// Takes no more connections. Those that are open are served until their clients leave.
    pub fn leave(self) {
        self.end.notify_one();
    }

    /// Waits (bounded) until pending answers are written: the process is about to exit.
    pub fn drain(&self) {
        for _ in 0..CONTROL_DRAIN_STEPS_MAX {
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(CONTROL_DRAIN_STEP_MS));
        }
    }
}

/// Serves the control socket on a thread of its own. Only root and `owner_uid` get answers.
///
/// # Errors
/// Thread or runtime cannot be created.
pub fn start(listener: UnixListener, calls: CallSender, owner_uid: u32) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let open = Arc::new(AtomicUsize::new(0));
    let end = Arc::new(Notify::new());
    let server = Server { open: Arc::clone(&open), end: Arc::clone(&end) };
    std::thread::Builder::new().name("clusterd-api".to_owned()).stack_size(CONTROL_STACK_BYTES).spawn(move || {
        runtime.block_on(async {
            let connections = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
            let accepting = tokio::spawn(serve(listener, calls, owner_uid, open, Arc::clone(&connections)));
            end.notified().await;
            accepting.abort();
            // All of them: nobody is connected. (The semaphore is never closed.)
            let _ = connections.acquire_many(limits::CONTROL_CONNECTIONS_MAX as u32).await;
        });
    })?;
    Ok(server)
}

async fn serve(
    listener: UnixListener,
    calls: CallSender,
    owner_uid: u32,
    open: Arc<AtomicUsize>,
    connections: Arc<Semaphore>,
) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => {
            log::error!("the control socket cannot be served: {e}");
            return;
        }
    };
    let clients = Clients::default();
    let mut told = false;
    let mut reserve = Reserve::default();
    reserve.fill();
    let pause = Duration::from_millis(limits::ACCEPT_PAUSE_MS);
    loop {
        let accepted = match reserve.is_full() {
            true => listener.accept().await,
            false => match tokio::time::timeout(pause, listener.accept()).await {
                Ok(accepted) => accepted,
                Err(_) => {
                    reserve.fill();
                    continue;
                }
            },
        };
        let stream = match accepted {
            Ok((stream, _)) => {
                told = false;
                stream
            }
            Err(e) if errno::is_out_of_resources(&e) && reserve.spend() => continue,
            Err(e) => {
                // Probably out of fds: wait a little instead of spinning.
                if !std::mem::replace(&mut told, true) {
                    log::warn!("the control socket cannot accept: {e}");
                }
                tokio::time::sleep(pause).await;
                reserve.fill();
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            let _ = stream.try_write(BUSY.as_bytes());
            continue;
        };
        let Some(client) = clients.admit(&stream) else {
            let _ = stream.try_write(BUSY.as_bytes());
            continue;
        };
        let peer = peer(&stream, owner_uid);
        let counted = Counted::new(&open);
        let calls = calls.clone();
        tokio::spawn(async move {
            let _held = (permit, client);
            connection(stream, calls, peer, counted).await;
        });
    }
}

/// Fds that are kept free for clients of the control socket: whoever wants to stop what has taken all others is heard.
/// Several, because connections of the apps wait for the same numbers.
#[derive(Default)]
struct Reserve(Vec<OwnedFd>);

impl Reserve {
    const FDS: usize = 4;

    fn is_full(&self) -> bool {
        self.0.len() >= Reserve::FDS
    }

    fn fill(&mut self) {
        while !self.is_full()
            && let Ok(fd) = process::null_device()
        {
            self.0.push(fd);
        }
    }

    /// Frees one. Returns whether there was one.
    fn spend(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

/// Told to a client that is one too many, in one write: no task, no memory.
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Connections of each process that has some.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<Option<i32>, usize>>>);

/// One of them.
struct Client {
    pid: Option<i32>,
    clients: Clients,
}

impl Clients {
    fn counts(&self) -> MutexGuard<'_, HashMap<Option<i32>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection, unless its process has too many.
    fn admit(&self, stream: &UnixStream) -> Option<Client> {
        self.admit_pid(stream.peer_cred().ok().and_then(|peer| peer.pid()))
    }

    fn admit_pid(&self, pid: Option<i32>) -> Option<Client> {
        let mut counts = self.counts();
        let count = counts.entry(pid).or_default();
        if *count >= limits::CONTROL_CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Client { pid, clients: self.clone() })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut counts = self.clients.counts();
        if let Some(count) = counts.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.pid);
            }
        }
    }
}

/// Why a peer is not answered.
#[derive(Debug, Error)]
enum PeerError {
    #[error("cannot tell who you are: {0}")]
    Unknown(#[from] io::Error),
    #[error("this clusterd belongs to user {owner_uid}; you are user {uid}. Run as that user or as root")]
    OtherUser { uid: u32, owner_uid: u32 },
}

/// Who connected.
fn peer(stream: &UnixStream, owner_uid: u32) -> Result<Peer, PeerError> {
    let found = stream.peer_cred()?;
    let peer = Peer { uid: found.uid(), pid: found.pid() };
    check_uid(peer.uid, owner_uid).inspect_err(|_| log::warn!("refused a request on the control socket by {peer}"))?;
    Ok(peer)
}

/// Only root and the owner are answered.
fn check_uid(uid: u32, owner_uid: u32) -> Result<(), PeerError> {
    if uid == 0 || uid == owner_uid { Ok(()) } else { Err(PeerError::OtherUser { uid, owner_uid }) }
}

/// Counts requests under way.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn connection(stream: UnixStream, calls: CallSender, peer: Result<Peer, PeerError>, counted: Counted) {
    let counted = Mutex::new(Some(counted));
    let may_pause = Arc::new(AtomicBool::new(false));
    let stream = WriteTimeout::new(stream, Arc::clone(&may_pause));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (calls, peer, counted, may_pause) = (calls.clone(), &peer, &counted, &may_pause);
        async move {
            let route = Route::find(request.method(), request.uri().path());
            if route.as_ref().is_ok_and(Route::is_logs) {
                // Clients that follow logs do not delay the end.
                counted.lock().unwrap_or_else(PoisonError::into_inner).take();
                may_pause.store(true, Ordering::Release);
            }
            Ok::<Reply, Infallible>(match (peer, route) {
                (Err(why), _) => failure(StatusCode::FORBIDDEN, why),
                (Ok(peer), Ok(route)) => handler::answer(route, request, &calls, *peer).await,
                (Ok(_), Err(error)) => reply::not_routed(&error),
            })
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(CONTROL_HEAD_TIMEOUT_MS))
        .max_buf_size(CONTROL_HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        log::debug!("a client of the control socket: {e}");
    }
    drop(counted);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_connections_to_others() {
        let clients = Clients::default();
        let max = limits::CONTROL_CONNECTIONS_PER_CLIENT_MAX;
        let mut held: Vec<Client> = (0..max).map_while(|_| clients.admit_pid(Some(7))).collect();
        assert_eq!(held.len(), max);
        assert!(clients.admit_pid(Some(7)).is_none());
        assert!(clients.admit_pid(Some(8)).is_some());
        held.pop();
        held.extend(clients.admit_pid(Some(7)));
        assert_eq!(held.len(), max);
        drop(held);
        assert!(clients.counts().is_empty());
    }

    #[test]
    fn only_root_and_the_owner_are_answered() {
        assert!(check_uid(0, 1000).is_ok());
        assert!(check_uid(1000, 1000).is_ok());
        assert!(check_uid(1001, 1000).is_err_and(|why| why.to_string().contains("user 1000")));
    }
}
