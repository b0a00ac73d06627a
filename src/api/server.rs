//! The HTTP server of the control API: one thread, one tokio runtime, hyper. Decides who may connect, how many, and for
//! how long; `handler` answers.
use super::access::{Access, Rights};
use super::audit::Peer;
use super::reply::{self, Reply, failure};
use super::routes::{Route, RouteError};
use super::tls::Tls;
use super::write_timeout::WriteTimeout;
use super::{CallSender, NotTaken, handler, page};
use crate::limits;
use crate::os::{errno, process};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
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
    /// One whose clients are served elsewhere: by a simulated system, which has no threads.
    pub fn elsewhere() -> Server {
        Server { open: Arc::default(), end: Arc::default() }
    }

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
    run("clusterd-api", calls, move || {
        Ok(UnixDoor { listener: tokio::net::UnixListener::from_std(listener)?, owner_uid })
    })
}

/// Serves the control API over TCP, on another thread: its clients take no places from those of the control socket.
///
/// # Errors
/// Thread or runtime cannot be created.
pub fn start_tcp(listener: TcpListener, calls: CallSender, access: Access, tls: Option<Tls>) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let (access, tls) = (Arc::new(access), tls.map(Arc::new));
    run("clusterd-api-tcp", calls, move || {
        Ok(TcpDoor { listener: tokio::net::TcpListener::from_std(listener)?, access, tls })
    })
}

/// Serves what comes in at a door, on a thread of its own.
///
/// # Errors
/// Thread or runtime cannot be created.
pub(super) fn run<D: Door>(
    thread: &str,
    calls: CallSender,
    door: impl FnOnce() -> io::Result<D> + Send + 'static,
) -> io::Result<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let open = Arc::new(AtomicUsize::new(0));
    let end = Arc::new(Notify::new());
    let server = Server { open: Arc::clone(&open), end: Arc::clone(&end) };
    std::thread::Builder::new().name(thread.to_owned()).stack_size(CONTROL_STACK_BYTES).spawn(move || {
        runtime.block_on(async {
            let connections = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
            // It needs the runtime.
            let door = match door() {
                Ok(door) => door,
                Err(e) => return log::error!("cannot serve {}: {e}", D::NAME),
            };
            let accepting = tokio::spawn(serve(door, calls, open, Arc::clone(&connections)));
            end.notified().await;
            accepting.abort();
            // All of them: nobody is connected. (The semaphore is never closed.)
            let _ = connections.acquire_many(limits::CONTROL_CONNECTIONS_MAX as u32).await;
        });
    })?;
    Ok(server)
}

async fn serve<D: Door>(door: D, calls: CallSender, open: Arc<AtomicUsize>, connections: Arc<Semaphore>) {
    let clients = Clients::default();
    let mut told = false;
    let mut reserve = Reserve::default();
    reserve.fill();
    let pause = Duration::from_millis(limits::ACCEPT_PAUSE_MS);
    loop {
        let accepted = match reserve.is_full() {
            true => door.accept().await,
            false => match tokio::time::timeout(pause, door.accept()).await {
                Ok(accepted) => accepted,
                Err(_) => {
                    reserve.fill();
                    continue;
                }
            },
        };
        let (stream, gate) = match accepted {
            Ok(accepted) => {
                told = false;
                accepted
            }
            Err(e) if errno::is_out_of_resources(&e) && reserve.spend() => continue,
            Err(e) => {
                // Probably out of fds: wait a little instead of spinning.
                if !std::mem::replace(&mut told, true) {
                    log::warn!("{} cannot accept connections: {e}; trying again", D::NAME);
                }
                tokio::time::sleep(pause).await;
                reserve.fill();
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            D::refuse(&stream);
            continue;
        };
        let Some(client) = clients.admit(D::client(&gate)) else {
            D::refuse(&stream);
            continue;
        };
        let counted = Counted::new(&open);
        let calls = calls.clone();
        tokio::spawn(async move {
            let _held = (permit, client);
            D::talk(stream, calls, gate, counted).await;
        });
    }
}

/// Where clients come in.
pub(super) trait Door: Send + Sync + 'static {
    /// For messages.
    const NAME: &'static str;
    type Stream: Send + 'static;
    /// What is known of a client.
    type Gate: Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Gate)>> + Send;

    /// The one for whom its connections are counted.
    fn client(gate: &Self::Gate) -> ClientKey;

    /// Answers a client. `counted` is dropped when the end of the process has not to wait for it.
    fn talk(
        stream: Self::Stream,
        calls: CallSender,
        gate: Self::Gate,
        counted: Counted,
    ) -> impl Future<Output = ()> + Send;

    /// Tells a client that it is one too many.
    fn refuse(stream: &Self::Stream);
}

struct UnixDoor {
    listener: tokio::net::UnixListener,
    owner_uid: u32,
}

impl Door for UnixDoor {
    const NAME: &'static str = "the control socket";
    type Stream = UnixStream;
    type Gate = Gate;

    async fn accept(&self) -> io::Result<(UnixStream, Gate)> {
        let (stream, _) = self.listener.accept().await?;
        let gate = Gate::Unix(peer(&stream, self.owner_uid), stream.peer_cred().ok().and_then(|peer| peer.pid()));
        Ok((stream, gate))
    }

    fn client(gate: &Gate) -> ClientKey {
        gate.client()
    }

    async fn talk(stream: UnixStream, calls: CallSender, gate: Gate, counted: Counted) {
        connection(stream, calls, gate, counted).await;
    }

    fn refuse(stream: &UnixStream) {
        let _ = stream.try_write(BUSY.as_bytes());
    }
}

struct TcpDoor {
    listener: tokio::net::TcpListener,
    access: Arc<Access>,
    tls: Option<Arc<Tls>>,
}

/// A connection as it is, or within TLS.
trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Bytes for S {}

impl Door for TcpDoor {
    const NAME: &'static str = "the control API over TCP";
    type Stream = TcpStream;
    type Gate = Gate;

    async fn accept(&self) -> io::Result<(TcpStream, Gate)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((stream, Gate::Tcp(Arc::clone(&self.access), self.tls.clone(), from)))
    }

    fn client(gate: &Gate) -> ClientKey {
        gate.client()
    }

    async fn talk(stream: TcpStream, calls: CallSender, gate: Gate, counted: Counted) {
        let opened: io::Result<Box<dyn Bytes>> = match &gate {
            Gate::Tcp(_, Some(tls), _) => tls.accept(stream).await.map(|stream| Box::new(stream) as Box<dyn Bytes>),
            Gate::Tcp(_, None, _) | Gate::Unix(..) => Ok(Box::new(stream)),
        };
        match opened {
            Ok(stream) => connection(stream, calls, gate, counted).await,
            Err(e) => log::debug!("a client of {}: {e}", TcpDoor::NAME),
        }
    }

    fn refuse(stream: &TcpStream) {
        let _ = stream.try_write(BUSY.as_bytes());
    }
}

/// What decides whether a request of a connection is answered.
pub(super) enum Gate {
    /// Who the kernel says it is; and the pid.
    Unix(Result<Peer, PeerError>, Option<i32>),
    /// The rules, what encrypts, and the client's address.
    Tcp(Arc<Access>, Option<Arc<Tls>>, SocketAddr),
}

impl Gate {
    /// The one for whom its connections are counted.
    fn client(&self) -> ClientKey {
        match self {
            Gate::Unix(_, pid) => ClientKey::Pid(*pid),
            Gate::Tcp(.., from) => ClientKey::Address(from.ip()),
        }
    }

    /// The answer to a request for the page, where there is one.
    fn page(&self, request: &hyper::Request<Incoming>) -> Option<Reply> {
        let Gate::Tcp(access, ..) = self else { return None };
        let file =
            page::File::at(request.uri().path()).filter(|_| access.has_page() && *request.method() == Method::GET);
        file.map(|file| access.check_page(request.headers()).map_or_else(|refusal| refusal.reply(), |()| file.reply()))
    }

    /// Who asks, if the request is allowed.
    fn check(&self, request: &hyper::Request<Incoming>, route: &Result<Route, RouteError>) -> Result<Peer, Box<Reply>> {
        match self {
            Gate::Unix(Ok(peer), _) => Ok(*peer),
            Gate::Unix(Err(why), _) => Err(Box::new(failure(StatusCode::FORBIDDEN, why))),
            Gate::Tcp(access, _, from) => {
                let rights = route.as_ref().map_or(Rights::Look, Route::rights);
                match access.check(request.headers(), rights) {
                    Ok(()) => Ok(Peer::Tcp(*from)),
                    Err(refusal) => Err(Box::new(refusal.reply())),
                }
            }
        }
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

/// Who has connections: a process, or over TCP an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ClientKey {
    Pid(Option<i32>),
    Address(IpAddr),
}

/// Connections of each client that has some.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<ClientKey, usize>>>);

/// One of them.
struct Client {
    key: ClientKey,
    clients: Clients,
}

impl Clients {
    fn counts(&self) -> MutexGuard<'_, HashMap<ClientKey, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection, unless its client has too many.
    fn admit(&self, key: ClientKey) -> Option<Client> {
        let mut counts = self.counts();
        let count = counts.entry(key).or_default();
        if *count >= limits::CONTROL_CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Client { key, clients: self.clone() })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut counts = self.clients.counts();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Why a peer is not answered.
#[derive(Debug, Error)]
pub(super) enum PeerError {
    #[error("cannot tell who you are: {0}")]
    Unknown(#[from] io::Error),
    #[error("this clusterd belongs to user {owner_uid}; you are user {uid}. Run as that user or as root")]
    OtherUser { uid: u32, owner_uid: u32 },
}

/// Who connected.
fn peer(stream: &UnixStream, owner_uid: u32) -> Result<Peer, PeerError> {
    let found = stream.peer_cred()?;
    let (uid, pid) = (found.uid(), found.pid());
    let peer = Peer::Process { uid, pid };
    check_uid(uid, owner_uid).inspect_err(|_| {
        log::warn!("refused a request on the control socket from {peer}: only root and user {owner_uid} may use it")
    })?;
    Ok(peer)
}

/// Only root and the owner are answered.
fn check_uid(uid: u32, owner_uid: u32) -> Result<(), PeerError> {
    if uid == 0 || uid == owner_uid { Ok(()) } else { Err(PeerError::OtherUser { uid, owner_uid }) }
}

/// Counts requests under way.
pub(super) struct Counted(Arc<AtomicUsize>);

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

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, calls: CallSender, gate: Gate, counted: Counted) {
    let counted = Mutex::new(Some(counted));
    let may_pause = Arc::new(AtomicBool::new(false));
    let stream = WriteTimeout::new(stream, Arc::clone(&may_pause));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (calls, gate, counted, may_pause) = (calls.clone(), &gate, &counted, &may_pause);
        async move {
            let route = Route::find(request.method(), request.uri().path());
            if let Some(reply) = gate.page(&request) {
                return Ok::<Reply, NotTaken>(reply);
            }
            let peer = match gate.check(&request, &route) {
                Ok(peer) => peer,
                Err(reply) => return Ok(*reply),
            };
            if route.as_ref().is_ok_and(Route::is_stream) {
                // Clients that follow something do not delay the end.
                counted.lock().unwrap_or_else(PoisonError::into_inner).take();
                may_pause.store(true, Ordering::Release);
            }
            let reply = match route {
                Ok(route) => handler::answer(route, request, &calls, peer).await,
                Err(error) => reply::not_routed(&error),
            };
            match reply.extensions().get::<NotTaken>() {
                Some(ended) => Err(*ended),
                None => Ok(reply),
            }
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
        log::debug!("a client of the control API: {e}");
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
        let mut held: Vec<Client> = (0..max).map_while(|_| clients.admit(ClientKey::Pid(Some(7)))).collect();
        assert_eq!(held.len(), max);
        assert!(clients.admit(ClientKey::Pid(Some(7))).is_none());
        assert!(clients.admit(ClientKey::Pid(Some(8))).is_some());
        held.pop();
        held.extend(clients.admit(ClientKey::Pid(Some(7))));
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
