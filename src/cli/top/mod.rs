//! `clusterd top`: what runs here, live, on a terminal. One loop over news, keys and the log; whatever may wait (masters,
//! commands, files, the keyboard) has a thread of its own.
mod columns;

/// Messages that wait for its loop.
const TOP_MESSAGES_MAX: usize = 1_024;
mod draw;
mod follow;
mod model;
mod rates;
mod run;
mod screen;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use super::apply::{self, fail};
use super::client::ClientError;
use crate::home::Home;
use crate::os::{poll, signal};
use model::{AppKey, Do, Key, Model, News, Order};
use ratatui::crossterm::event::{self, Event};
use screen::Tty;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;
use watch::TOP_LOOK_EVERY_MS;

/// What a program that panicked ends with, as by default.
const EXIT_PANIC: u8 = 101;
/// Signals that end it, with the terminal as it was.
const ENDS: [i32; 4] = [signal::TERM, signal::HUP, signal::INT, signal::QUIT];

/// Whatever happens.
enum Message {
    News(News),
    Key(Key),
    /// The terminal has another size.
    Resized,
    Log(follow::Lines),
    /// What came of an order.
    Ended(u64, apply::Outcome),
    Signal(i32),
    /// A thread that is needed has failed.
    Broken(TopError),
}

/// Why the screen cannot be shown any longer.
#[derive(Debug, Error)]
enum TopError {
    #[error("cannot watch for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot take the terminal: {0}")]
    Take(#[source] io::Error),
    #[error("the terminal cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("the terminal cannot be written: {0}")]
    Write(#[source] io::Error),
    #[error("cannot stop: {0}")]
    Suspend(#[source] io::Error),
    /// Masters cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("every thread of it has ended")]
    Threads,
}

/// The verb.
pub(super) fn top(home: Option<&Path>) -> ExitCode {
    let home = match Home::find(home) {
        Ok(home) => home,
        Err(e) => return fail(e),
    };
    if let Some(why) = screen::refusal() {
        return fail(why);
    }
    // Blocked here, they are in every thread that follows.
    let signals = match signal::Watch::new(&ENDS) {
        Ok(signals) => signals,
        Err(error) => return fail(TopError::Signals(error)),
    };
    // Words on stderr would tear the screen; what verbs have to say comes back as their outcome.
    let level = log::max_level();
    log::set_max_level(log::LevelFilter::Off);
    let ended = Tty::take().map_err(TopError::Take).and_then(|tty| Top::new(home, tty).run(signals));
    screen::restore();
    log::set_max_level(level);
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(error),
    }
}

struct Top {
    home: Home,
    tty: Tty,
    model: Model,
    began: Instant,
    /// Where the home is, as a person says it.
    place: String,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    /// Asks for other log files.
    log: Sender<Vec<follow::Source>>,
    /// The log that is shown.
    log_of: Option<(AppKey, Vec<follow::Source>)>,
}

impl Top {
    fn new(home: Home, tty: Tty) -> Top {
        let (sender, messages) = mpsc::sync_channel(TOP_MESSAGES_MAX);
        let (log, wanted) = mpsc::channel();
        let tell = sender.clone();
        thread::spawn(move || follow::follow(&wanted, |lines| tell.send(Message::Log(lines)).is_ok()));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let place =
            format!("{}:{}", host.trim(), view::tilde(&home.path().to_string_lossy(), own_folder().as_deref(), 40));
        let model = Model::default();
        Top { home, tty, model, began: Instant::now(), place, sender, messages, log, log_of: None }
    }

    /// Until a key or a signal ends it: the exit code.
    fn run(mut self, signals: signal::Watch) -> Result<u8, TopError> {
        self.start_threads(signals);
        loop {
            self.show().map_err(TopError::Write)?;
            let mut next = match self.messages.recv_timeout(Duration::from_millis(TOP_LOOK_EVERY_MS)) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(TopError::Threads),
            };
            // What has come meanwhile is drawn once.
            for _ in 0..TOP_MESSAGES_MAX {
                let Some(message) = next.take() else { break };
                if let Some(code) = self.take(message)? {
                    return Ok(code);
                }
                next = self.messages.try_recv().ok();
            }
            if let Some(message) = next
                && let Some(code) = self.take(message)?
            {
                return Ok(code);
            }
            self.model.tick(self.now_ms());
            self.choose_log();
        }
    }

    fn start_threads(&self, signals: signal::Watch) {
        let (home, tell) = (self.home.clone(), self.sender.clone());
        thread::spawn(move || {
            let news = tell.clone();
            if let Err(why) = watch::watch(&home, move |found| news.send(Message::News(found)).is_ok()) {
                // Nobody listens: it is over anyway.
                let _ = tell.send(Message::Broken(why.into()));
            }
        });
        let tell = self.sender.clone();
        thread::spawn(move || read_keys(&tell));
        let tell = self.sender.clone();
        thread::spawn(move || wait_for_signals(signals, &tell));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show(&mut self) -> io::Result<()> {
        let size = self.tty.size()?;
        view::settle(&mut self.model, usize::from(size.1));
        let title = self.log_title(usize::from(size.0));
        let screen = view::view(&self.model, &self.place, &title, size, self.now_ms());
        self.tty.show(&screen)
    }

    /// Acts on one message; the exit code when it is the last.
    fn take(&mut self, message: Message) -> Result<Option<u8>, TopError> {
        let now_ms = self.now_ms();
        match message {
            Message::News(news) => self.model.apply(news, now_ms),
            Message::Log((lines, is_new_log)) => self.model.log(lines, is_new_log),
            Message::Ended(number, outcome) => {
                self.model.ended(number, outcome.map_err(|error| error.to_string()), now_ms)
            }
            Message::Resized => {}
            Message::Signal(number) => return Ok(Some(128 + u8::try_from(number).unwrap_or_default())),
            Message::Broken(why) => return Err(why),
            Message::Key(key) => match self.model.press(key) {
                None => {}
                Some(Do::Quit) => return Ok(Some(0)),
                Some(Do::Redraw) => self.tty.redraw().map_err(TopError::Write)?,
                Some(Do::Suspend) => self.suspend().map_err(TopError::Suspend)?,
                Some(Do::Run(order)) => self.begin(order),
            },
        }
        Ok(None)
    }

    fn begin(&self, order: Order) {
        let (home, tell) = (self.home.clone(), self.sender.clone());
        thread::spawn(move || {
            let outcome = run::run(&home, &order);
            // `top` may have ended; the command continues.
            let _ = tell.send(Message::Ended(order.number, outcome));
        });
    }

    /// Ctrl-Z: gives the terminal to the shell until it resumes the process.
    fn suspend(&mut self) -> io::Result<()> {
        screen::restore();
        signal::send(std::process::id().cast_signed(), signal::STOP)?;
        self.tty.take_again()
    }

    /// The log of the selected app is what is followed.
    fn choose_log(&mut self) {
        let wanted = self.model.selected_app().map(|(key, background)| {
            let app = self.model.find(&key).map(|(_, app)| app);
            let files = follow::sources(&self.home, &key.0, background, app);
            (key, files)
        });
        if wanted != self.log_of {
            let files = wanted.as_ref().map(|(_, files)| files.clone()).unwrap_or_default();
            self.log_of = wanted;
            // The thread lives as long as we do.
            let _ = self.log.send(files);
        }
    }

    fn log_title(&self, width: usize) -> String {
        match &self.log_of {
            None => "log".to_owned(),
            Some((key, files)) if files.is_empty() => {
                format!("log: {} runs in the foreground, its words are on its terminal", key.1)
            }
            Some((_, files)) => {
                let folder = files[0].path.parent();
                let names = files.iter().enumerate().map(|(at, file)| match file.path.file_name() {
                    Some(name) if at > 0 && file.path.parent() == folder => name.to_string_lossy().into_owned(),
                    Some(_) | None => file.path.to_string_lossy().into_owned(),
                });
                let names = names.collect::<Vec<_>>().join(" ");
                format!("log: {}", view::tilde(&names, own_folder().as_deref(), width.saturating_sub(12)))
            }
        }
    }
}

fn own_folder() -> Option<String> {
    std::env::var("HOME").ok()
}

/// Until the terminal is gone.
fn read_keys(tell: &SyncSender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Resize(..)) => Message::Resized,
            Ok(event) => match screen::key(&event) {
                Some(key) => Message::Key(key),
                None => continue,
            },
            Err(error) => Message::Broken(TopError::Read(error)),
        };
        let last = matches!(message, Message::Broken(_));
        if tell.send(message).is_err() || last {
            return;
        }
    }
}

fn wait_for_signals(mut signals: signal::Watch, tell: &SyncSender<Message>) {
    loop {
        let waited = poll::wait(&mut [poll::Interest::new(signals.as_fd(), false)], None);
        let message = match waited.and_then(|()| signals.next_caught()) {
            Ok(Some(caught)) => Message::Signal(caught.signal),
            Ok(None) => continue,
            Err(error) => Message::Broken(TopError::Signals(error)),
        };
        // Whoever would read it has ended.
        let _ = tell.send(message);
        return;
    }
}
