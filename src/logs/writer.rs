//! The thread that writes log files: waits for pipes, runs the engine's turns, naps between them, handles orders of the
//! master. If it cannot continue, the whole process exits: the next master can continue, and workers must not block on
//! a pipe without a reader.
use super::batch_delay::BatchDelay;
use super::engine::{Engine, LOG_READY_MAX, LOG_STREAMS_MAX, Source};
use super::file::Now;
use super::journal::Written;
use super::line_count::LineCount;
use super::path::LogPath;
use super::storage::{HELD, LiveStorage, cell};
use super::tail::Tail;
use crate::os::epoll::Epoll;
use crate::os::shared::Shared;
use crate::os::{clock, pipe, process};
use jiff::tz::TimeZone;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// Stack of the threads that write and compress log files, in bytes.
pub(super) const LOG_STACK_BYTES: usize = 512 * 1024;

/// Pause between two checks of paused streams, in milliseconds.
const LOG_REST_LOOK_MS: u64 = 2;

/// Orders queued for the log thread: two streams of every worker, and requests of clients.
const LOG_ORDERS_MAX: usize = LOG_STREAMS_MAX + 1024;

/// How long the last lines may take to get into the files at the end, in milliseconds.
const LOG_FINISH_MS: u64 = 2_000;

/// Why the log thread does not do something.
#[derive(Debug, Error)]
pub enum WriterError {
    /// Out of fds, memory or threads.
    #[error("cannot start the thread that writes log files: {0}")]
    Start(#[from] io::Error),
    /// The queue of orders is full.
    #[error("the thread that writes log files is busy; try again in a moment")]
    Busy,
}

/// Called with the result of an order: a sentence.
pub type Reply = Box<dyn FnOnce(Result<String, String>) + Send>;

enum Order {
    Read(Box<Source>),
    Listen(u64, Arc<Tail>),
    Count(u64, Arc<LineCount>),
    Reopen(Option<Reply>),
    Empty(Vec<LogPath>, Reply),
    Finish(SyncSender<()>),
}

/// State shared by the thread and the master.
#[derive(Default)]
struct Desk {
    orders: Mutex<VecDeque<Order>>,
    /// Streams that have ended and are completely written.
    ended: Mutex<Vec<u64>>,
}

/// The log thread. It ends when this is dropped.
pub struct Writer {
    desk: Arc<Desk>,
    wake: OwnedFd,
    cells: Arc<Shared>,
    written: Arc<Written>,
    held: [OwnedFd; 3],
}

/// Token of the pipe by which the master wakes the thread.
const WOKEN: u64 = u64::MAX;

impl Writer {
    /// Starts the thread. It continues what a previous master left (the fds in the order of [`Writer::HELD`]), if
    /// anything; `sources`: the streams to continue.
    ///
    /// # Errors
    /// Out of fds, memory or threads.
    pub fn start(left: Option<[OwnedFd; 3]>, sources: Vec<Source>) -> Result<Writer, WriterError> {
        let live = match left.map(LiveStorage::adopt) {
            Some(Ok(live)) => live,
            Some(Err(e)) => {
                log::error!("lost what the previous master had not written to log files yet: {e}");
                LiveStorage::new()?
            }
            None => LiveStorage::new()?,
        };
        let cells = live.cells();
        let [first, second, third] = live.fds().map(|fd| fd.try_clone_to_owned());
        let held = [first?, second?, third?];
        let (woken, wake) = pipe::pair()?;
        let epoll = Epoll::new(LOG_READY_MAX)?;
        epoll.add(&woken, WOKEN)?;
        let engine = Engine::new(live, TimeZone::system())?;
        let written = engine.written();
        let desk = Arc::new(Desk::default());
        let mut thread = Thread { engine, epoll, woken, desk: Arc::clone(&desk), batch_delay: BatchDelay::default() };
        std::thread::Builder::new().name("clusterd-logs".to_owned()).stack_size(LOG_STACK_BYTES).spawn(move || {
            let end = EndOfProcess;
            match thread.run(sources) {
                Ok(()) => std::mem::forget(end),
                Err(e) => {
                    log::error!("cannot write log files any more: {e}; the master ends, and the keeper starts another")
                }
            }
        })?;
        Ok(Writer { desk, wake, cells, written, held })
    }

    /// The names of the fds that a successor needs.
    pub const HELD: [&'static str; 3] = HELD;

    /// The fds that a successor needs, by these names.
    pub fn held(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        HELD.into_iter().zip(self.held.iter().map(AsFd::as_fd))
    }

    /// Reads this stream to its end.
    ///
    /// # Errors
    /// The queue is full.
    pub fn read(&self, source: Source) -> Result<(), WriterError> {
        self.order(Order::Read(Box::new(source)))
    }

    /// The lines of this stream from now on go to `tail` too, while somebody else holds it.
    ///
    /// # Errors
    /// The queue is full.
    pub fn listen(&self, key: u64, tail: Arc<Tail>) -> Result<(), WriterError> {
        self.order(Order::Listen(key, tail))
    }

    /// The lines of this stream from now on are counted, while somebody else holds `count`.
    ///
    /// # Errors
    /// The queue is full.
    pub fn count(&self, key: u64, count: Arc<LineCount>) -> Result<(), WriterError> {
        self.order(Order::Count(key, count))
    }

    /// Opens every file again, whatever its path names now.
    ///
    /// # Errors
    /// The queue is full.
    pub fn reopen(&self, reply: Option<Reply>) -> Result<(), WriterError> {
        self.order(Order::Reopen(reply))
    }

    /// Empties these files.
    ///
    /// # Errors
    /// The queue is full.
    pub fn empty(&self, paths: Vec<LogPath>, reply: Reply) -> Result<(), WriterError> {
        self.order(Order::Empty(paths, reply))
    }

    /// Waits (bounded) until everything printed so far is in its file.
    pub fn finish(&self) {
        let (done, wait) = sync_channel(1);
        if self.order(Order::Finish(done)).is_ok() {
            // A blocked disk must not keep us from ending.
            let _ = wait.recv_timeout(Duration::from_millis(LOG_FINISH_MS));
        }
    }

    /// The streams that have ended since the last call; everything of them can be released.
    pub fn take_ended(&self) -> Vec<u64> {
        std::mem::take(&mut *self.desk.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lost lines of an app.
    pub fn lost(&self, app: usize) -> u64 {
        self.cells.cells()[cell::LOST + app].load(Ordering::Acquire)
    }

    /// Bytes of an app that were written to files since this process began.
    pub fn written(&self, app: usize) -> u64 {
        self.written.of(app)
    }

    fn order(&self, order: Order) -> Result<(), WriterError> {
        {
            let mut orders = self.desk.orders.lock().unwrap_or_else(PoisonError::into_inner);
            if orders.len() >= LOG_ORDERS_MAX {
                return Err(WriterError::Busy);
            }
            orders.push_back(order);
        }
        pipe::write_byte(self.wake.as_fd());
        Ok(())
    }
}

/// Exits the process when it is dropped, also by a panic.
struct EndOfProcess;

impl Drop for EndOfProcess {
    fn drop(&mut self) {
        std::process::abort();
    }
}

struct Thread {
    engine: Engine<LiveStorage>,
    epoll: Epoll,
    woken: OwnedFd,
    desk: Arc<Desk>,
    batch_delay: BatchDelay,
}

impl Thread {
    fn run(&mut self, sources: Vec<Source>) -> io::Result<()> {
        for source in sources {
            self.add(source);
        }
        let nobodys = self.engine.all_are_there(Now::read())?;
        if nobodys > 0 {
            log::error!("lost {nobodys} bytes of output that the previous master had read: their worker is not known");
        }
        let mut finishing = None;
        let mut resting = false;
        let mut ready = Vec::new();
        loop {
            let timeout_ms = match (&finishing, resting) {
                (Some(_), _) => Some(0),
                (None, true) => Some(LOG_REST_LOOK_MS as u16),
                (None, false) => None,
            };
            if timeout_ms.is_none() {
                self.engine.rest();
            }
            ready.clear();
            ready.extend(self.epoll.wait(timeout_ms)?);
            let orders = ready.contains(&WOKEN);
            ready.retain(|token| *token != WOKEN);
            let now = Now::read();
            self.take_listeners();
            let turned = self.engine.turn(ready.iter().map(|&token| token as usize), now)?;
            self.let_go();
            if turned.most == 0 && finishing.is_some() && !turned.resting {
                self.engine.close_lines(now)?;
                if let Some(done) = finishing.take() {
                    let done: SyncSender<()> = done;
                    // The client may have left.
                    let _ = done.send(());
                }
            }
            if orders && !self.take_orders(&mut finishing) {
                return Ok(());
            }
            let nap_us = self.batch_delay.nap_us(now.us, clock::monotonic_us(), turned.most);
            if nap_us > 0 && finishing.is_none() {
                std::thread::sleep(Duration::from_micros(nap_us));
            }
            resting = turned.resting;
            if resting && turned.most == 0 {
                // They are readable all the time, so epoll would not wait.
                std::thread::sleep(Duration::from_millis(LOG_REST_LOOK_MS));
            }
        }
    }

    fn add(&mut self, source: Source) {
        let file = source.file.as_ref().map_or_else(String::new, |(path, _)| format!(" to {path}"));
        let Some(number) = self.engine.add(source) else {
            log::error!("a worker's output is not written{file}: the limit of {LOG_STREAMS_MAX} streams is reached");
            return;
        };
        if let Some(pipe) = self.engine.pipe(number)
            && let Err(e) = self.epoll.add(pipe, number as u64)
        {
            log::error!("a worker's output is not written{file}: cannot poll its pipe: {e}");
        }
    }

    /// Removes streams that have ended.
    fn let_go(&mut self) {
        for (key, pipe) in self.engine.take_ended() {
            // The keeper has it open too, so closing it would not remove it from the epoll.
            self.epoll.remove(&pipe);
            self.desk.ended.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        }
    }

    /// Before anything is read: whoever listens wants what was written after that.
    fn take_listeners(&mut self) {
        let engine = &mut self.engine;
        let mut orders = self.desk.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|order| match order {
            Order::Listen(key, tail) => !engine.listen(*key, tail),
            Order::Count(key, count) => !engine.count(*key, count),
            _ => true,
        });
    }

    /// Handles orders. Returns whether the master is still there.
    fn take_orders(&mut self, finishing: &mut Option<SyncSender<()>>) -> bool {
        if matches!(process::read_now(self.woken.as_fd(), &mut [0; 4096]), Ok(Some(0)) | Err(_)) {
            return false;
        }
        loop {
            let order = self.desk.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match order {
                None => return true,
                Some(Order::Read(source)) => self.add(*source),
                Some(Order::Listen(key, tail)) => _ = self.engine.listen(key, &tail),
                Some(Order::Count(key, count)) => _ = self.engine.count(key, &count),
                Some(Order::Finish(done)) => *finishing = Some(done),
                Some(Order::Reopen(reply)) => {
                    let (opened, failed) = self.engine.reopen();
                    answer(reply, "open again", opened, &failed);
                }
                Some(Order::Empty(paths, reply)) => {
                    let (emptied, failed) = self.engine.empty(&paths);
                    answer(Some(reply), "emptied", emptied, &failed);
                }
            }
        }
    }
}

/// Passes the result of an order to the client; logs it if there is none.
fn answer(reply: Option<Reply>, what: &str, count: usize, failed: &[String]) {
    let files = if count == 1 { "log file" } else { "log files" };
    let result = match failed {
        [] => Ok(format!("{count} {files} {what}")),
        _ => Err(format!("{count} {files} {what}; not: {}", failed.join(", "))),
    };
    match (reply, result) {
        (Some(reply), result) => reply(result),
        (None, Ok(text)) => log::info!("{text}"),
        (None, Err(text)) => log::error!("{text}"),
    }
}
