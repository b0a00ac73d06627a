//! Which stream of which worker goes to which log file: the master's side of `logs::Writer`. The keeper holds the pipe
//! of each stream, under a name that describes it, until everything from the pipe is in the file: a successor continues
//! the stream even when its worker is long gone.
use super::keeper::Keeper;
use super::output::OutputError;
use super::settings::Settings;
use super::system::System;
use crate::config::log::{Format, Target};
use crate::ids::{AppIx, Generation, Slot, WorkerId};
use crate::keeper::protocol::Order;
use crate::logs::{LineCount, LogPath, Reply, Source, SourceLook, Stream, Tail, Writer, WriterError};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use thiserror::Error;

/// Prefix of the names of pipes in the keeper.
const PIPE: &str = "log/pipe/";

/// The log files of a deployment.
#[derive(Default)]
pub(super) struct LogFiles {
    /// Started for the first stream.
    writer: Option<Writer>,
    /// Pipes of workers that are not spawned yet: their lines may have to contain the pid.
    waiting: HashMap<WorkerId, Vec<Waiting>>,
    /// Names in the keeper of the open streams, by key.
    held: HashMap<u64, String>,
    /// Keys of pipes that a previous master made for a spawn that failed; the next pipe has their name now.
    replaced: HashSet<u64>,
}

/// A stream of a worker that is not spawned yet.
struct Waiting {
    place: Place,
    pipe: OwnedFd,
    tail: Option<Arc<Tail>>,
}

/// The number of a stream among all those of workers.
pub(super) fn key(worker: WorkerId, stream: Stream) -> u64 {
    worker.0 * 2 + u64::from(stream == Stream::Err)
}

/// Identifies a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) worker: WorkerId,
    pub(super) stream: Stream,
    pub(super) app: String,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

impl Place {
    /// The name of its pipe in the keeper.
    fn name(&self) -> String {
        let Place { worker, app, slot, generation, .. } = self;
        format!("{PIPE}{worker}/{}/{app}/{}/{generation}", word(self.stream), slot.0)
    }

    fn from_name(name: &str) -> Option<Place> {
        let parts: Vec<&str> = name.strip_prefix(PIPE)?.split('/').collect();
        let [worker, stream, app, slot, generation] = parts.as_slice() else { return None };
        Some(Place {
            worker: WorkerId(worker.parse().ok()?),
            stream: [Stream::Out, Stream::Err].into_iter().find(|known| word(*known) == *stream)?,
            app: (*app).to_owned(),
            slot: Slot(slot.parse().ok()?),
            generation: Generation(generation.parse().ok()?),
        })
    }

    /// Its key in the log writer.
    fn key(&self) -> u64 {
        key(self.worker, self.stream)
    }

    fn source(&self, app: (AppIx, &Settings), pid: Option<i32>, pipe: OwnedFd, tail: Option<Arc<Tail>>) -> Source {
        let (app, settings) = app;
        let config = &settings.config;
        let log = &config.log;
        let target = match self.stream {
            Stream::Out => &log.out,
            Stream::Err => &log.err,
        };
        let file_of = |target: &Target| match log.of_slot(target, self.slot.0) {
            Target::File(path) => {
                let path = LogPath { path, user: settings.credentials().cloned() };
                Some((path, log.rotation.clone()))
            }
            Target::Null | Target::Inherit => None,
        };
        let file = file_of(target);
        let both = log.both.clone().map(Target::File).filter(|both| both != target);
        let copy = both.as_ref().and_then(file_of);
        let time = log.time.clone();
        let look = match log.format {
            Format::Plain => SourceLook::Plain { time },
            Format::Json => {
                let (kind, generation) = (word(self.stream), self.generation);
                // What is beside the workers has no slot.
                let slot = Some(self.slot).filter(|slot| !slot.is_beside());
                let slot = slot.map_or_else(|| "null".to_owned(), |slot| slot.to_string());
                let name = serde_json::Value::from(config.name.as_str());
                let pid = pid.map_or_else(|| "null".to_owned(), |pid| pid.to_string());
                let fields = format!(
                    "\"type\":\"{kind}\",\"process_id\":{slot},\"app_name\":{name},\"slot\":{slot},\"pid\":{pid},\
                     \"generation\":{generation}"
                );
                SourceLook::Json { time, fields }
            }
        };
        Source { key: self.key(), pipe, app: app.0, file, copy, look, tail }
    }
}

fn word(stream: Stream) -> &'static str {
    match stream {
        Stream::Out => "out",
        Stream::Err => "err",
    }
}

/// A log file of an app cannot be opened.
#[derive(Debug, Error)]
#[error(
    "{app}: cannot open the log file {path}{}: {source}; let this user write there, or choose another in [app.log]",
    path.user.as_ref().map(|user| format!(" (as user {})", user.uid)).unwrap_or_default()
)]
pub(super) struct LogFileError {
    app: String,
    path: LogPath,
    source: io::Error,
}

/// Opens every log file of an app once, so that a file that cannot be opened is reported before anything starts.
///
/// # Errors
/// Which file, why, and what to do.
pub(super) fn check(system: &impl System, settings: &Settings, slots: u32) -> Result<(), LogFileError> {
    let app = &settings.config;
    let idle = app.log.idle_keys();
    if !idle.is_empty() {
        let (name, keys) = (&app.name, idle.join(", "));
        log::warn!(
            "{name}: {keys} in [app.log] has no effect: the output goes where clusterd's own goes; set out, err or file"
        );
    }
    for path in app.log.files(slots, &app.beside()) {
        let path = LogPath { path, user: settings.credentials().cloned() };
        system.check_log_file(&path).map_err(|source| LogFileError { app: app.name.clone(), path, source })?;
    }
    Ok(())
}

impl LogFiles {
    /// The pipe end for a new worker's stream. The other end is read once the worker is spawned.
    ///
    /// # Errors
    /// Out of fds, memory or threads.
    pub(super) fn pipe_for(
        &mut self,
        system: &impl System,
        keeper: &mut Keeper<impl System>,
        place: Place,
        tail: Option<Arc<Tail>>,
    ) -> Result<OwnedFd, OutputError> {
        if self.writer.is_none() {
            self.start(keeper, None, Vec::new())?;
        }
        let (read, write) = system.pipe().map_err(OutputError::Pipe)?;
        keeper.hold(place.name(), read.as_fd());
        if self.held.contains_key(&place.key()) {
            self.replaced.insert(place.key());
        }
        self.waiting.entry(place.worker).or_default().push(Waiting { place, pipe: read, tail });
        Ok(write)
    }

    fn start(
        &mut self,
        keeper: &mut Keeper<impl System>,
        left: Option<[OwnedFd; 3]>,
        sources: Vec<Source>,
    ) -> Result<(), WriterError> {
        let writer = Writer::start(left, sources)?;
        for (name, fd) in writer.held() {
            keeper.hold(name.to_owned(), fd);
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// A worker was spawned: reads its output from now on.
    pub(super) fn spawned(&mut self, worker: WorkerId, pid: i32, app: AppIx, settings: &Settings) {
        for Waiting { place, pipe, tail } in self.waiting.remove(&worker).unwrap_or_default() {
            self.held.insert(place.key(), place.name());
            let source = place.source((app, settings), Some(pid), pipe, tail);
            let order = self.writer.as_ref().map_or(Ok(()), |writer| writer.read(source));
            if let Err(e) = order {
                log::error!("{}/{}: its output is not written to the log file: {e}", settings.config.name, place.slot);
            }
        }
    }

    /// A worker's spawn failed: drops its pipes.
    pub(super) fn spawn_failed(&mut self, keeper: &mut Keeper<impl System>, worker: WorkerId) {
        for Waiting { place, .. } in self.waiting.remove(&worker).unwrap_or_default() {
            keeper.send(Order::Release { name: place.name() });
        }
    }

    /// Continues the streams of the previous master. `settings_of` finds the index and the settings of an app's
    /// generation, `pid_of` the pid of a worker that the keeper knows.
    pub(super) fn resume<'a>(
        &mut self,
        keeper: &mut Keeper<impl System>,
        fds: &mut HashMap<String, OwnedFd>,
        settings_of: impl Fn(&str, Generation) -> Option<(AppIx, &'a Settings)>,
        pid_of: impl Fn(WorkerId) -> Option<i32>,
    ) {
        let names: Vec<String> = fds.keys().filter(|name| name.starts_with(PIPE)).cloned().collect();
        let mut sources = Vec::new();
        for name in names {
            let (Some(pipe), Some(place)) = (fds.remove(&name), Place::from_name(&name)) else { continue };
            let Some(app) = settings_of(&place.app, place.generation) else {
                log::error!("dropped the output pipe {name}: it belongs to no app");
                keeper.send(Order::Release { name });
                continue;
            };
            self.held.insert(place.key(), name);
            sources.push(place.source(app, pid_of(place.worker), pipe, None));
        }
        let left = Writer::HELD.map(|name| fds.remove(name));
        let left = match left {
            [Some(cells), Some(first), Some(second)] => Some([cells, first, second]),
            _ if sources.is_empty() => return,
            _ => None,
        };
        if let Err(e) = self.start(keeper, left, sources) {
            log::error!("{e}; the output of workers waits for the next master");
        }
    }

    /// Has the keeper drop the pipes of streams that are completely written.
    pub(super) fn release_finished(&mut self, keeper: &mut Keeper<impl System>) {
        for key in self.writer.as_ref().map(Writer::take_ended).unwrap_or_default() {
            // A replaced pipe has no writer, so its end comes first.
            if !self.replaced.remove(&key)
                && let Some(name) = self.held.remove(&key)
            {
                keeper.send(Order::Release { name });
            }
        }
    }

    /// The lines of this stream from now on go to `tail` too.
    pub(super) fn listen(&self, key: u64, tail: Arc<Tail>) -> Result<(), WriterError> {
        self.writer.as_ref().map_or(Ok(()), |writer| writer.listen(key, tail))
    }

    /// The lines of this stream from now on are counted.
    pub(super) fn count(&self, key: u64, count: Arc<LineCount>) -> Result<(), WriterError> {
        self.writer.as_ref().map_or(Ok(()), |writer| writer.count(key, count))
    }

    pub(super) fn reopen(&self, reply: Option<Reply>) {
        match (&self.writer, reply) {
            (None, Some(reply)) => reply(Ok("there are no log files".to_owned())),
            (None, None) => log::debug!("there are no log files to re-open"),
            (Some(writer), reply) => {
                if let Err(e) = writer.reopen(reply) {
                    log::error!("cannot reopen log files: {e}");
                }
            }
        }
    }

    pub(super) fn empty(&self, paths: Vec<LogPath>, reply: Reply) {
        match &self.writer {
            None => reply(Ok("there are no log files".to_owned())),
            Some(writer) => {
                if let Err(e) = writer.empty(paths, reply) {
                    log::error!("cannot empty log files: {e}");
                }
            }
        }
    }

    /// Lines of an app that were lost.
    pub(super) fn lost(&self, app: AppIx) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.lost(app.0))
    }

    /// Bytes of an app that this master wrote to files.
    pub(super) fn written(&self, app: AppIx) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.written(app.0))
    }

    /// Writes what was printed, at the end of the deployment.
    pub(super) fn finish(&self) {
        if let Some(writer) = &self.writer {
            writer.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_known_by_its_name() {
        let place = Place {
            worker: WorkerId(77),
            stream: Stream::Err,
            app: "web-2.x".into(),
            slot: Slot(12),
            generation: Generation(4),
        };
        assert_eq!(place.name(), "log/pipe/77/err/web-2.x/12/4");
        assert_eq!(Place::from_name(&place.name()), Some(place));
        assert_eq!(Place::from_name("log/pipe/77/err/3"), None);
        assert_eq!(Place::from_name("log/cells"), None);
    }
}
