//! The loop of a worker: takes connections while it may, answers them, and at SIGTERM ends when the last one is answered.
use super::answer::answer;
use super::files::Site;
use super::guard::Guard;
use crate::api::write_timeout::WriteTimeout;
use crate::limits::ACCEPT_PAUSE_MS;
use crate::os::listen::{self, LocalAddress};
use crate::os::{notify, poll, signal};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// Connections that one worker has at a time; others wait in the socket's queue, or go to another worker.
const CONNECTIONS_MAX: usize = 1_000;
/// Size of a request's head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Time for the head of a request, and for which a connection is kept without one, in milliseconds.
const HEAD_TIMEOUT_MS: u64 = 30_000;

/// Time for the first request of a connection that was taken just before the end, in milliseconds.
const FIRST_REQUEST_MS: u64 = 2_000;

/// What every connection needs.
struct Shared {
    site: Site,
    guard: Option<Guard>,
}

/// Serves until SIGTERM or SIGINT, and then what is open.
///
/// # Errors
/// A thread or the runtime cannot be made, or a socket is none.
pub(super) fn run(sockets: Vec<OwnedFd>, site: Site, guard: Option<Guard>) -> io::Result<()> {
    let mut signals = signal::Watch::new(&[signal::TERM, signal::INT])?;
    let (end, ended) = watch::channel(false);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while !matches!(signals.next_caught(), Ok(Some(_)) | Err(_)) {
            // An error shows up in the next look.
            let _ = poll::wait(&mut [poll::Interest::new(signals.as_fd(), false)], None);
        }
        // The server may have ended.
        let _ = end.send(true);
    })?;
    let shared = Arc::new(Shared { site, guard });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        for socket in sockets {
            // Shared with the other workers, which are like this one: who comes too late does not wait.
            listen::set_nonblocking(socket.as_fd(), true)?;
            let door = Door::new(socket)?;
            tokio::spawn(accept(door, Arc::clone(&shared), Arc::clone(&connections), ended.clone()));
        }
        if let Some(address) = std::env::var_os("NOTIFY_SOCKET") {
            notify::tell(&address, "READY=1", None)?;
        }
        let mut asked = ended.clone();
        // An error means that the thread is gone: nobody could end this worker gracefully any more.
        let _ = asked.wait_for(|end| *end).await;
        // All of them: nothing is open. (The semaphore is never closed.)
        let _ = connections.acquire_many(CONNECTIONS_MAX as u32).await;
        Ok(())
    })
}

/// A socket of either kind.
enum Door {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Door {
    fn new(socket: OwnedFd) -> io::Result<Door> {
        Ok(match listen::local_address(socket.as_fd())? {
            LocalAddress::Inet(_) => Door::Tcp(tokio::net::TcpListener::from_std(socket.into())?),
            LocalAddress::Unix(_) | LocalAddress::Other => {
                Door::Unix(tokio::net::UnixListener::from_std(socket.into())?)
            }
        })
    }
}

/// Takes connections until the end.
async fn accept(door: Door, shared: Arc<Shared>, connections: Arc<Semaphore>, mut ended: watch::Receiver<bool>) {
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Some(stream) = next(&door, &mut ended).await else { return };
        match stream {
            Ok(stream) => {
                let (shared, ended) = (Arc::clone(&shared), ended.clone());
                tokio::spawn(async move {
                    let _held = permit;
                    connection(stream, &shared, ended).await;
                });
            }
            Err(error) => {
                log::debug!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// What a connection is.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The next connection; `None`: no more are to be taken.
async fn next(door: &Door, ended: &mut watch::Receiver<bool>) -> Option<io::Result<Box<dyn Stream>>> {
    let mut end = pin!(ended.wait_for(|end| *end));
    poll_fn(|cx| {
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let accepted: Poll<io::Result<Box<dyn Stream>>> = match door {
            Door::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| Box::new(stream) as _),
            Door::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| Box::new(stream) as _),
        };
        accepted.map(Some)
    })
    .await
}

/// Answers the requests of one connection; at the end, the one that is under way.
async fn connection(stream: Box<dyn Stream>, shared: &Shared, mut ended: watch::Receiver<bool>) {
    let stream = WriteTimeout::new(stream, Arc::new(AtomicBool::new(false)));
    let (asked, is_over) = (AtomicBool::new(false), ended.clone());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let mut answer = answer(&request, &shared.site, shared.guard.as_ref());
        if *is_over.borrow() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_TIMEOUT_MS))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let (mut served, mut end) = (pin!(served), pin!(ended.wait_for(|end| *end)));
    let mut is_last = false;
    let mut grace = None;
    let done = poll_fn(|cx| {
        if !is_last && end.as_mut().poll(cx).is_ready() {
            is_last = true;
            // hyper closes a connection without a request at once, but that request may be on its way.
            let wait_ms = if asked.load(Ordering::Relaxed) { 0 } else { FIRST_REQUEST_MS };
            grace = Some(Box::pin(tokio::time::sleep(Duration::from_millis(wait_ms))));
        }
        if grace.as_mut().is_some_and(|grace| grace.as_mut().poll(cx).is_ready()) {
            grace = None;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    });
    if let Err(error) = done.await {
        log::debug!("a client: {error}");
    }
}
