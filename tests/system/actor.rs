//! Keeper and masters as threads of which one runs at a time: each runs until it waits, and then gives the turn back.
use crate::bugs::Bug;
use crate::faults::Fate;
use crate::random::Random;
use crate::world::World;
use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Stack of a simulated process.
const STACK_BYTES: usize = 4 * 1024 * 1024;

/// The payload of the panic that ends a killed process.
struct Killed;
/// The same of a process that executes another binary.
struct Executed;

/// What a process does until its next turn.
#[derive(Clone, Debug)]
pub(crate) enum Until {
    /// Others run first.
    Later,
    /// One of these fds is readable, or (second list) writable, or it is this late.
    Ready {
        read: Vec<RawFd>,
        write: Vec<RawFd>,
        at_us: Option<u64>,
    },
    /// It has ended: with an exit code, killed (`None`), or by a panic of its own.
    Ended(Option<u8>),
    /// It executes another binary.
    Executed,
    Panicked(String),
}

/// The process's side of the turns.
#[derive(Debug)]
pub(crate) struct Baton {
    go: Receiver<()>,
    back: SyncSender<Until>,
}

/// One process as a thread.
pub(crate) struct Actor {
    go: Option<SyncSender<()>>,
    back: Receiver<Until>,
    thread: Option<JoinHandle<()>>,
    pub(crate) until: Until,
}

impl Actor {
    /// Starts a process that begins with its first turn. `run` returns its exit code.
    pub(crate) fn start(name: &str, run: impl FnOnce(Baton) -> u8 + Send + 'static) -> io::Result<Actor> {
        let (go, gone) = sync_channel::<()>(1);
        let (back, came) = sync_channel::<Until>(1);
        let tell = back.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
            if gone.recv().is_err() {
                return;
            }
            let baton = Baton { go: gone, back };
            let end = match panic::catch_unwind(AssertUnwindSafe(|| run(baton))) {
                Ok(code) => Until::Ended(Some(code)),
                Err(payload) if payload.is::<Killed>() => Until::Ended(None),
                Err(payload) if payload.is::<Executed>() => Until::Executed,
                Err(payload) => Until::Panicked(text_of(payload.as_ref())),
            };
            // The driver is gone only when the world is over.
            let _ = tell.send(end);
        })?;
        Ok(Actor { go: Some(go), back: came, thread: Some(thread), until: Until::Later })
    }

    /// Gives the process its turn.
    pub(crate) fn turn(&mut self) {
        let sent = self.go.as_ref().is_some_and(|go| go.send(()).is_ok());
        self.until = match self.back.recv() {
            Ok(until) if sent => until,
            _ => Until::Panicked("its thread is gone".to_owned()),
        };
        if matches!(self.until, Until::Ended(_) | Until::Executed | Until::Panicked(_)) {
            self.go = None;
            if let Some(thread) = self.thread.take() {
                // It has told its end already.
                let _ = thread.join();
            }
        }
    }
}

impl Actor {
    /// Ends a process whose world is over.
    pub(crate) fn stop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            // It unwinds when its turn does not come back.
            let _ = thread.join();
        }
    }
}

impl Baton {
    /// Gives the turn back until the driver returns it.
    pub(crate) fn wait(&self, until: Until) {
        if self.back.send(until).is_err() || self.go.recv().is_err() {
            panic::panic_any(Killed);
        }
    }
}

/// A simulated process as its own system calls see it.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) world: World,
    pub(crate) pid: i32,
    baton: std::rc::Rc<Baton>,
}

thread_local! {
    /// Who the thread is, for what it logs.
    static OWN: RefCell<Option<(World, i32)>> = const { RefCell::new(None) };
}

impl Me {
    pub(crate) fn new(world: World, pid: i32, baton: Baton) -> Me {
        OWN.with(|own| *own.borrow_mut() = Some((world.clone(), pid)));
        Me { world, pid, baton: std::rc::Rc::new(baton) }
    }

    /// One system call: an error that was ordered, or the end of the process. While it unwinds every call fails.
    pub(crate) fn call(&self, name: &'static str) -> io::Result<()> {
        if std::thread::panicking() {
            return Err(io::Error::from_raw_os_error(5));
        }
        let fate = self.world.state().call(self.pid, name);
        match fate {
            Fate::Passes => Ok(()),
            Fate::Pauses => {
                self.wait(Until::Later);
                Ok(())
            }
            Fate::Killed => panic::panic_any(Killed),
            Fate::Fails(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The same for a call that cannot fail.
    pub(crate) fn step(&self, name: &'static str) {
        // A failure that was ordered has no meaning here.
        let _ = self.call(name);
    }

    /// Whether a fault that was put in shows now.
    pub(crate) fn has_bug(&self, shows: impl FnOnce(Bug, &mut Random) -> bool) -> bool {
        let mut state = self.world.state();
        let state = &mut *state;
        state.faults.bug.is_some_and(|bug| shows(bug, &mut state.random))
    }

    /// Executes another binary: what this one has ends, and another one begins with what is in the world's `exec`.
    pub(crate) fn execute(&self) -> ! {
        panic::panic_any(Executed)
    }

    /// Waits for its next turn.
    pub(crate) fn wait(&self, until: Until) {
        if std::thread::panicking() {
            return;
        }
        self.baton.wait(until);
        let doomed = self.world.state().processes.get(&self.pid).is_none_or(|process| process.doomed.is_some());
        if doomed {
            panic::panic_any(Killed);
        }
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Keeps quiet about killed processes, and notes where others panic.
pub(crate) fn hook_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() && !info.payload().is::<Executed>() {
            usual(info);
        }
    }));
}

/// Does this for a process: what is logged meanwhile is its own.
pub(crate) fn speaking_for<T>(world: &World, pid: i32, act: impl FnOnce() -> T) -> T {
    let before = OWN.with(|own| own.borrow_mut().replace((world.clone(), pid)));
    let done = act();
    OWN.with(|own| *own.borrow_mut() = before);
    done
}

/// Lines that keeper and master log go into the story of their world.
pub(crate) struct StoryLog;

impl log::Log for StoryLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            OWN.with(|own| {
                if let Some((world, pid)) = &*own.borrow() {
                    world.tell(&format!("master {pid}"), &format!("{}: {}", record.level(), record.args()));
                }
            });
        }
    }

    fn flush(&self) {}
}
