//! The agent check of HAProxy, on a TCP port of its own: a client may send the name of an app (`agent-send "web\\n"`), gets one line, and
//! the connection ends. The line says how many of the wanted workers serve, that a stop is near, or that nothing serves; HAProxy changes
//! the weight and the state of the server by it (docs/proxies.md). Who may connect may ask: nothing can be changed here.
//!
//! However many clients ask, the master's loop is asked once in `FRESH_MS`. A client that is slow, silent or sends too much costs its
//! own place, for `TALK_MS` at most.
use super::request::{Request, View};
use super::server::{ClientKey, Counted, Door, Server, run};
use super::types::{App, AppStatus, Deployment};
use super::{Answer, CallSender, Order};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// Length of the line that names an app, in bytes; a name has 64 characters at most.
const NAME_LINE_BYTES_MAX: usize = 128;

/// How long a client may take to name its app, in milliseconds: one that names none sends nothing, and waits for the answer.
const NAME_WAIT_MS: u64 = 100;

/// How long the answer of the master's loop counts, in milliseconds.
const FRESH_MS: u64 = 100;

/// Time limit for the answer of the master's loop, in milliseconds. A client without an answer changes nothing.
const VIEW_MS: u64 = 1_000;

/// Time for the answer to a client, and for its end of the connection, in milliseconds.
const TALK_MS: u64 = 2_000;

/// What is read, and discarded, of a client that has its answer, in bytes.
const LEFT_BYTES_MAX: usize = 4 * 1024;

/// Serves agent checks, on a thread of its own.
///
/// # Errors
/// Thread or runtime cannot be created.
pub(crate) fn start(listener: TcpListener, calls: CallSender) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    run("clusterd-check", calls, move || {
        Ok(AgentDoor { listener: tokio::net::TcpListener::from_std(listener)?, seen: Arc::default() })
    })
}

struct AgentDoor {
    listener: tokio::net::TcpListener,
    seen: Arc<Seen>,
}

/// The last answer of the master's loop.
#[derive(Default)]
struct Seen(Mutex<Option<(Instant, Arc<Deployment>)>>);

impl Door for AgentDoor {
    const NAME: &'static str = "agent checks";
    type Stream = TcpStream;
    type Gate = (SocketAddr, Arc<Seen>);

    async fn accept(&self) -> io::Result<(TcpStream, Self::Gate)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((stream, (from, Arc::clone(&self.seen))))
    }

    fn client((from, _): &Self::Gate) -> ClientKey {
        ClientKey::Address(from.ip())
    }

    async fn talk(stream: TcpStream, calls: CallSender, (_, seen): Self::Gate, _counted: Counted) {
        // A client that does not get its line in time gets none.
        let _ = timeout(Duration::from_millis(TALK_MS), answer(stream, &calls, &seen)).await;
    }

    /// One too many gets nothing, which changes nothing for HAProxy.
    fn refuse(_: &TcpStream) {}
}

async fn answer(mut stream: TcpStream, calls: &CallSender, seen: &Seen) -> io::Result<()> {
    let name = read_name(&mut stream).await?;
    let Some(deployment) = seen.look(calls).await else { return Ok(()) };
    stream.write_all(line(&deployment, name.as_deref()).as_bytes()).await?;
    stream.shutdown().await?;
    // Bytes that nobody has read would make the kernel reset the connection, and the client might never see the line.
    let (mut left, mut buffer) = (LEFT_BYTES_MAX, [0; NAME_LINE_BYTES_MAX]);
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// The name in the first line, if the client sends one.
async fn read_name(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut got = Vec::new();
    match timeout(Duration::from_millis(NAME_WAIT_MS), read_line(stream, &mut got)).await {
        Ok(read) => read?,
        Err(_) if got.is_empty() => return Ok(None),
        // Half a name.
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    }
    let line = got.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = String::from_utf8_lossy(line).trim().to_owned();
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// Reads up to the first line's end, or that of the connection.
async fn read_line(stream: &mut TcpStream, got: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; NAME_LINE_BYTES_MAX];
    while !got.contains(&b'\n') {
        if got.len() > NAME_LINE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match stream.read(&mut buffer).await? {
            0 => break,
            count => got.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}

impl Seen {
    /// The deployment as it is, or was a moment ago. `None`: the master's loop does not answer.
    async fn look(&self, calls: &CallSender) -> Option<Arc<Deployment>> {
        // Those who ask meanwhile wait for the same answer.
        let mut seen = self.0.lock().await;
        if let Some((at, deployment)) = seen.as_ref()
            && at.elapsed() < Duration::from_millis(FRESH_MS)
        {
            return Some(Arc::clone(deployment));
        }
        let answered = calls.order(Order::Request(Request::View(View::Deployment))).ok()?;
        let answer = timeout(Duration::from_millis(VIEW_MS), answered).await.ok()?.ok()?;
        let Answer::Deployment(deployment) = answer else { return None };
        let deployment = Arc::new(*deployment);
        *seen = Some((Instant::now(), Arc::clone(&deployment)));
        Some(deployment)
    }
}

/// What a load balancer is told of an app; of several apps the first in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    /// Nothing serves.
    Down,
    /// Percent of the wanted workers that serve.
    Up(u32),
    /// It is about to stop, or stops.
    Drain,
    /// It was stopped, or has ended as it was to.
    Maint,
}

impl Said {
    fn of(app: &App) -> Said {
        match app.status {
            AppStatus::Stopped => Said::Maint,
            AppStatus::Stopping => Said::Drain,
            _ if app.workers_ready == 0 => Said::Down,
            _ => {
                let wanted = app.workers_wanted.max(1);
                Said::Up((app.workers_ready.min(wanted).saturating_mul(100) / wanted).max(1))
            }
        }
    }
}

/// The answer, about one app or about all. `ready` ends what an earlier `drain` or `maint` began, and `up` an earlier `down`.
fn line(deployment: &Deployment, name: Option<&str>) -> String {
    let apps = deployment.apps.iter().filter(|app| name.is_none_or(|name| app.name == name));
    match apps.map(Said::of).min() {
        None => "down #no such app\n".to_owned(),
        Some(Said::Down) => "down #no worker is ready\n".to_owned(),
        Some(Said::Up(percent)) => format!("up ready {percent}%\n"),
        Some(Said::Drain) => "drain\n".to_owned(),
        Some(Said::Maint) => "maint\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str, status: AppStatus, ready: u32, wanted: u32) -> App {
        App { name: name.to_owned(), status, workers_ready: ready, workers_wanted: wanted, ..App::default() }
    }

    fn told(apps: Vec<App>, name: Option<&str>) -> String {
        line(&Deployment { apps, ..Deployment::default() }, name)
    }

    #[test]
    fn the_line_says_how_many_of_the_wanted_workers_serve() {
        use AppStatus::{Errored, Reloading, Running, Starting, Stopped, Stopping};
        for (status, ready, wanted, line) in [
            (Running, 3, 4, "up ready 75%\n"),
            (Running, 1, 1_000, "up ready 1%\n"),
            (Reloading, 5, 4, "up ready 100%\n"),
            (Starting, 0, 4, "down #no worker is ready\n"),
            (Errored, 0, 4, "down #no worker is ready\n"),
            (Stopping, 4, 4, "drain\n"),
            (Stopping, 0, 4, "drain\n"),
            (Stopped, 0, 4, "maint\n"),
        ] {
            assert_eq!(told(vec![app("web", status, ready, wanted)], None), line, "{status:?} {ready}");
        }
    }

    #[test]
    fn of_several_apps_the_worst_one_that_is_meant_to_run_counts() {
        use AppStatus::{Running, Starting, Stopped, Stopping};
        let (web, api) = (app("web", Running, 4, 4), app("api", Running, 1, 2));
        let both = || vec![web.clone(), api.clone()];
        assert_eq!(told(both(), None), "up ready 50%\n");
        assert_eq!(told(both(), Some("web")), "up ready 100%\n");
        assert_eq!(told(both(), Some("wbe")), "down #no such app\n");
        assert_eq!(told(vec![web.clone(), app("x", Starting, 0, 1)], None), "down #no worker is ready\n");
        assert_eq!(told(vec![web.clone(), app("x", Stopped, 0, 1)], None), "up ready 100%\n");
        assert_eq!(told(vec![web, app("x", Stopping, 0, 1)], None), "up ready 100%\n");
        assert_eq!(told(vec![app("x", Stopping, 1, 1), app("y", Stopped, 0, 1)], None), "drain\n");
    }
}
