//! Passes workers' output from pipes on to our own stdout or stderr: as it is, or with `--prefix` every line after
//! `name/slot | `, coloured on a terminal. One thread reads all pipes.
use super::line_count::{self, LineCount};
use super::lines::Lines;
use super::tail::Tail;
use crate::os::background::{Background, Wait};
use crate::os::{pipe, poll, process};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes per read of a worker's output.
pub(super) const OUTPUT_READ_BYTES: usize = 64 * 1024;

/// Pipes queued for the output thread.
const OUTPUT_ORDERS_MAX: usize = 1024;

/// Stack of the output thread, in bytes.
const OUTPUT_STACK_BYTES: usize = 256 * 1024;

/// How long the last output may take at the end, in milliseconds.
const OUTPUT_FINISH_MS: u64 = 500;

/// The target of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Terminal codes to tell slots apart.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

enum Order {
    Read(PassedOn),
    /// The lines of the pipe with this key go to a tail too.
    Listen(u64, Arc<Tail>),
    /// The lines of the pipe with this key are counted.
    Count(u64, Arc<LineCount>),
    /// Read what is available, then answer.
    Finish(SyncSender<()>),
}

/// The output thread. It ends when this is dropped.
pub struct Pump {
    orders: SyncSender<Order>,
    wake: OwnedFd,
}

/// A pipe to read.
pub struct PassedOn {
    /// Unique among the pipes.
    key: u64,
    pipe: OwnedFd,
    /// The text before each line, and the slot that selects its colour; `None`: bytes pass unchanged.
    label: Option<(String, u32)>,
    stream: Stream,
    /// Gets the last lines, while somebody else holds it.
    tail: Option<Arc<Tail>>,
    /// Gets the number of lines, while somebody else holds it.
    count: Option<Arc<LineCount>>,
    lines: Lines,
}

impl PassedOn {
    /// A pipe whose bytes go to `stream`. `label`: the text before each line, and the slot that selects its colour.
    pub fn new(
        key: u64,
        pipe: OwnedFd,
        stream: Stream,
        label: Option<(String, u32)>,
        tail: Option<Arc<Tail>>,
    ) -> PassedOn {
        PassedOn { key, pipe, label, stream, tail, count: None, lines: Lines::default() }
    }
}

impl Pump {
    /// Starts the thread; `begin` does it, given its name, its stack and its loop.
    ///
    /// # Errors
    /// No thread or no pipe is available.
    pub fn start(begin: impl FnOnce(&'static str, usize, Reader) -> io::Result<()>) -> io::Result<Pump> {
        let (woken, wake) = pipe::pair()?;
        let (orders, received) = sync_channel(OUTPUT_ORDERS_MAX);
        let (sources, finishing, buffer) = (Vec::new(), None, vec![0; OUTPUT_READ_BYTES]);
        begin("clusterd-output", OUTPUT_STACK_BYTES, Reader { orders: received, woken, sources, finishing, buffer })?;
        Ok(Pump { orders, wake })
    }

    /// Reads this pipe to its end.
    pub fn read(&self, source: PassedOn) {
        self.order(Order::Read(source));
    }

    /// The lines that come from this pipe from now on go to `tail` too, while somebody else holds it.
    pub fn listen(&self, key: u64, tail: Arc<Tail>) {
        self.order(Order::Listen(key, tail));
    }

    /// The lines that come from this pipe from now on are counted, while somebody else holds `count`.
    pub fn count(&self, key: u64, count: Arc<LineCount>) {
        self.order(Order::Count(key, count));
    }

    /// Has `wait` wait, for at most so many milliseconds, until everything written so far has been passed on.
    pub fn finish(&self, wait: impl FnOnce(&Receiver<()>, u64)) {
        let (done, is_done) = sync_channel(1);
        self.order(Order::Finish(done));
        // A blocked terminal must not keep us from ending.
        wait(&is_done, OUTPUT_FINISH_MS);
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            pipe::write_byte(self.wake.as_fd());
        }
    }
}

/// The loop of the output thread.
pub struct Reader {
    orders: Receiver<Order>,
    /// Readable when orders have come; closed when the [`Pump`] is gone.
    woken: OwnedFd,
    sources: Vec<PassedOn>,
    /// Is told when nothing is left to read.
    finishing: Option<SyncSender<()>>,
    buffer: Vec<u8>,
}

impl Background for Reader {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        [self.woken.as_fd()].into_iter().chain(self.sources.iter().map(|source| source.pipe.as_fd())).collect()
    }

    fn turn(&mut self, wait: Wait) -> bool {
        let timeout_ms = (wait == Wait::No || self.finishing.is_some()).then_some(0);
        let mut interests: Vec<poll::Interest<'_>> =
            self.files().into_iter().map(|file| poll::Interest::new(file, false)).collect();
        if poll::wait(&mut interests, timeout_ms).is_err() {
            return false;
        }
        let ready: Vec<bool> = interests[1..].iter().map(poll::Interest::readable).collect();
        let news = interests[0].readable();
        let quiet = !ready.contains(&true);
        if quiet && let Some(done) = self.finishing.take() {
            let _ = done.send(());
        }
        let Reader { orders, woken, sources, finishing, buffer } = self;
        let is_over = news && matches!(process::read_now(woken.as_fd(), buffer), Ok(Some(0)) | Err(_));
        // Before anything is read: whoever listens wants what was written after that.
        take_orders(orders, sources, finishing);
        let mut ready = ready.into_iter();
        sources.retain_mut(|source| !ready.next().unwrap_or(false) || source.pass_on(buffer));
        !is_over
    }
}

fn take_orders(orders: &Receiver<Order>, sources: &mut Vec<PassedOn>, finishing: &mut Option<SyncSender<()>>) {
    while let Ok(order) = orders.try_recv() {
        match order {
            Order::Read(source) => sources.push(source),
            Order::Listen(key, tail) => {
                if let Some(source) = sources.iter_mut().find(|source| source.key == key) {
                    source.tail = Some(tail);
                }
            }
            Order::Count(key, count) => {
                if let Some(source) = sources.iter_mut().find(|source| source.key == key) {
                    source.count = Some(count);
                }
            }
            Order::Finish(done) => *finishing = Some(done),
        }
    }
}

impl PassedOn {
    /// Passes on what is available. Returns whether more may come.
    fn pass_on(&mut self, buffer: &mut [u8]) -> bool {
        // Nobody else holds the tail, so lines need not be found.
        self.tail.take_if(|tail| Arc::strong_count(tail) == 1);
        self.count.take_if(|count| !line_count::is_wanted(count));
        let (stream, tail) = (self.stream, self.tail.as_deref());
        let mark = self.label.as_ref().map(|(label, slot)| mark(label, *slot, stream));
        let mut text = Vec::new();
        let mut add = |line: &[u8]| {
            if let Some(tail) = tail {
                tail.push(line);
            }
            if let Some(mark) = &mark {
                text.extend_from_slice(mark.as_bytes());
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        };
        let by_line = tail.is_some() || mark.is_some();
        let mut raw = 0;
        let more = match process::read_now(self.pipe.as_fd(), buffer) {
            Ok(None) => true,
            Ok(Some(0)) | Err(_) => {
                self.lines.finish(&mut add);
                false
            }
            Ok(Some(n)) => {
                raw = n;
                if let Some(count) = &self.count {
                    count.add(&buffer[..n]);
                }
                if by_line {
                    self.lines.push(&buffer[..n], &mut add);
                }
                true
            }
        };
        let bytes = if mark.is_some() { &text } else { &buffer[..raw] };
        // The reader may be gone; the worker continues all the same.
        let _ = match stream {
            Stream::Out => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Err => io::stderr().lock().write_all(bytes),
        };
        if !more && let Some(tail) = &self.tail {
            tail.stream_ended();
        }
        more
    }
}

fn mark(label: &str, slot: u32, stream: Stream) -> String {
    let terminal = match stream {
        Stream::Out => io::stdout().is_terminal(),
        Stream::Err => io::stderr().is_terminal(),
    };
    if terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        let colour = COLOURS[slot as usize % COLOURS.len()];
        format!("\x1b[{colour}m{label} |\x1b[0m ")
    } else {
        format!("{label} | ")
    }
}
