//! What happens in the deployment, as events with ids: the master pushes them, `GET /v1/events` passes them on. The last
//! ones are kept, so that a client goes on after a break; what it has missed for good it is told.
use super::reply::{self, Reply, failure};
use super::request::EventQuery;
use super::types::{Event, EventType};
use hyper::StatusCode;
use hyper::body::Bytes;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc};

/// Events that are kept.
const EVENTS_KEPT_MAX: usize = 1024;

/// Longest message of an event, in characters.
const EVENT_MESSAGE_CHARS_MAX: usize = 500;

/// Clients of the control API that follow events at the same time.
const EVENTS_FOLLOWERS_MAX: usize = 16;

/// Pieces of text queued for a client before further events are read for it.
const EVENTS_PIECES_MAX: usize = 16;

/// Events in one piece.
const EVENTS_PIECE_MAX: usize = 64;

/// A stream of server-sent events says so often that it is alive, in milliseconds.
const EVENTS_ALIVE_MS: u64 = 15_000;

/// Clients that follow events now.
static FOLLOWERS: AtomicUsize = AtomicUsize::new(0);

static RING: Mutex<Ring> = Mutex::new(Ring { last: 0, kept: VecDeque::new() });

/// Wakes who waits for events.
static CAME: Notify = Notify::const_new();

struct Ring {
    /// Id of the last event; ids of one master follow each other.
    last: u64,
    kept: VecDeque<Arc<Event>>,
}

/// What comes after an event.
struct After {
    /// Some that came after it are not kept any more, or were another master's.
    lost: bool,
    events: Vec<Arc<Event>>,
    /// The id to go on from.
    id: u64,
}

impl Ring {
    fn push(&mut self, mut event: Event) {
        self.last += 1;
        event.id = self.last;
        if self.kept.len() == EVENTS_KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(event));
    }

    /// Those after this id; without one: all that are kept.
    fn after(&self, id: Option<u64>) -> After {
        let oldest = self.last - self.kept.len() as u64;
        let from = id.filter(|id| (oldest..=self.last).contains(id));
        let lost = id.is_some() && from.is_none();
        let skip = from.map_or(0, |id| (id - oldest) as usize);
        let events: Vec<Arc<Event>> = self.kept.iter().skip(skip).take(EVENTS_PIECE_MAX).map(Arc::clone).collect();
        let id = events.last().map_or(from.unwrap_or(oldest), |event| event.id);
        After { lost, events, id }
    }
}

fn ring() -> MutexGuard<'static, Ring> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ids of this master's events follow this one: they are higher than those of any master before.
pub fn begin(id: u64) {
    let mut ring = ring();
    if ring.kept.is_empty() {
        ring.last = id;
    }
}

/// Adds an event; its id and time are set here.
pub fn push(mut event: Event) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    event.at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    if let Some((end, _)) = event.message.char_indices().nth(EVENT_MESSAGE_CHARS_MAX) {
        event.message.truncate(end);
    }
    ring().push(event);
    CAME.notify_waiters();
}

thread_local! {
    /// What this thread logs is told by an event of another type.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Has warnings that are logged meanwhile, by this thread, be no events.
pub fn told_otherwise(log: impl FnOnce()) {
    TOLD.set(true);
    log();
    TOLD.set(false);
}

/// Adds a warning, or an error, that was logged.
pub fn warned(text: &str) {
    if TOLD.get() {
        return;
    }
    let (about, _) = text.split_once(": ").unwrap_or_default();
    let app = about.split('/').next().filter(|app| !app.is_empty() && !app.contains(' '));
    push(Event { message: text.to_owned(), app: app.map(str::to_owned), ..Event::of(EventType::Warning) });
}

/// The form of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    /// Server-sent events, for browsers.
    ServerSent,
}

impl Form {
    /// From the header `Accept`.
    pub(super) fn of(accept: Option<&str>) -> Form {
        if accept.is_some_and(|accept| accept.contains("text/event-stream")) { Form::ServerSent } else { Form::Lines }
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::Lines => "application/x-ndjson",
            Form::ServerSent => "text/event-stream",
        }
    }

    fn write(self, event: &Event, out: &mut Vec<u8>) {
        // Keys are text and numbers are finite: serialization cannot fail.
        let json = serde_json::to_string(event).unwrap_or_default();
        match self {
            Form::Lines => out.extend_from_slice(json.as_bytes()),
            Form::ServerSent => {
                out.extend_from_slice(format!("id: {}\nevent: {}\ndata: {json}\n", event.id, event.kind).as_bytes());
            }
        }
        out.push(b'\n');
    }
}

/// Counts a client that follows, until it is dropped.
struct Follower;

impl Follower {
    fn new() -> Option<Follower> {
        let before = FOLLOWERS.fetch_add(1, Ordering::AcqRel);
        // Dropped if the limit is exceeded.
        let follower = Follower;
        (before < EVENTS_FOLLOWERS_MAX).then_some(follower)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        FOLLOWERS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers with events as they come; `last` is the id in `Last-Event-ID`.
pub(super) fn answer(mut query: EventQuery, form: Form, last: Option<u64>) -> Reply {
    query.after = query.after.or(last);
    query.follow |= form == Form::ServerSent;
    let Some(follower) = Follower::new() else {
        let why = format!("the limit of {EVENTS_FOLLOWERS_MAX} clients that read events is reached");
        return failure(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let (pieces, stream) = mpsc::channel(EVENTS_PIECES_MAX);
    tokio::spawn(async move {
        let _follower = follower;
        send(query, form, &pieces).await;
    });
    reply::stream(form.content_type(), stream)
}

/// Sends until the client has left, or has everything.
async fn send(query: EventQuery, form: Form, pieces: &mpsc::Sender<Bytes>) {
    let meant = |event: &Event| query.apps.is_empty() || event.app.as_ref().is_some_and(|app| query.apps.contains(app));
    let mut after = query.after;
    loop {
        let mut came = std::pin::pin!(CAME.notified());
        // Before the look, so that nothing comes unseen in between.
        came.as_mut().enable();
        let found = ring().after(after);
        let mut text = Vec::new();
        if found.lost {
            let gone = format!("events after {} were lost", after.unwrap_or_default());
            let id = found.events.first().map_or(found.id, |event| event.id.saturating_sub(1));
            form.write(&Event { id, message: gone, ..Event::of(EventType::Lost) }, &mut text);
        }
        found.events.iter().filter(|event| meant(event)).for_each(|event| form.write(event, &mut text));
        after = Some(found.id);
        if !text.is_empty() && pieces.send(text.into()).await.is_err() {
            return;
        }
        if !found.events.is_empty() {
            continue;
        }
        if !query.follow {
            return;
        }
        let mut closed = std::pin::pin!(pieces.closed());
        let came_or_left = poll_fn(|cx| match (came.as_mut().poll(cx), closed.as_mut().poll(cx)) {
            (Poll::Ready(()), _) => Poll::Ready(true),
            (Poll::Pending, Poll::Ready(())) => Poll::Ready(false),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        });
        match tokio::time::timeout(Duration::from_millis(EVENTS_ALIVE_MS), came_or_left).await {
            Ok(false) => return,
            Err(_) if form == Form::ServerSent && pieces.send(Bytes::from_static(b":\n\n")).await.is_err() => return,
            Ok(true) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(after: &After) -> Vec<u64> {
        after.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn a_client_goes_on_after_an_id_and_is_told_of_what_is_gone() {
        let first = 1 << 32;
        let mut ring = Ring { last: first, kept: VecDeque::new() };
        let empty = ring.after(None);
        assert!(!empty.lost && empty.events.is_empty() && empty.id == first);
        for _ in 0..3 {
            ring.push(Event::of(EventType::WorkerReady));
        }
        let all = ring.after(None);
        assert_eq!((all.lost, ids(&all), all.id), (false, vec![first + 1, first + 2, first + 3], first + 3));
        let some = ring.after(Some(first + 2));
        assert_eq!((some.lost, ids(&some)), (false, vec![first + 3]));
        let none = ring.after(Some(first + 3));
        assert!(!none.lost && none.events.is_empty() && none.id == first + 3);
        // Of the master before, and of nobody.
        for id in [7, first + 4] {
            let other = ring.after(Some(id));
            assert!(other.lost && ids(&other).len() == 3, "{id}");
        }
        for _ in 0..EVENTS_KEPT_MAX {
            ring.push(Event::of(EventType::WorkerReady));
        }
        assert_eq!(ring.kept.len(), EVENTS_KEPT_MAX);
        assert!(!ring.after(Some(first + 3)).lost, "the one after it is the oldest that is kept");
        let late = ring.after(Some(first + 2));
        assert!(late.lost && late.events.len() == EVENTS_PIECE_MAX && late.events[0].id == first + 4);
    }

    #[test]
    fn events_have_a_line_each_and_server_sent_ones_their_id() {
        let event = Event { id: 5, message: "a\nb".to_owned(), ..Event::of(EventType::Warning) };
        let text = |form: Form| {
            let mut out = Vec::new();
            form.write(&event, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let lines = text(Form::Lines);
        assert!(lines.ends_with("}\n") && lines.matches('\n').count() == 1, "{lines}");
        let sent = text(Form::ServerSent);
        assert!(sent.starts_with("id: 5\nevent: warning\ndata: {") && sent.ends_with("}\n\n"), "{sent}");
        assert_eq!(Form::of(Some("text/event-stream")), Form::ServerSent);
        assert_eq!(Form::of(Some("*/*")), Form::Lines);
    }
}
