//! Watches an app's files, on a thread of its own: reports changes once no other change has followed for a while. The
//! caller decides what a change means; `ignored` decides which files count.
mod ignored;

use crate::limits;
use ignored::Ignored;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Changes queued for a watcher's thread; beyond that it only learns that something changed.
const WATCH_NEWS_MAX: usize = 1_024;

/// Changes that never pause are reported after this many times `watch_delay`.
const WATCH_DELAYS_MAX: u32 = 10;

/// Stack of a watcher's thread, in bytes.
const WATCH_STACK_BYTES: usize = 256 * 1024;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The app's name, for messages.
    pub app: String,
    /// Files and folders, absolute.
    pub paths: Vec<PathBuf>,
    /// The paths were not named by the user: the rules of the repository around them apply.
    pub whole_folder: bool,
    /// Ignored files, as lines of a `.gitignore`.
    pub ignore: Vec<String>,
    /// What is always ignored: clusterd's own folder, and the app's log files with those that were moved aside.
    pub apart: Vec<PathBuf>,
    /// A change is reported when no other came for this time.
    pub delay: Duration,
}

/// A change to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first path that changed.
    pub path: PathBuf,
    /// How many other paths changed.
    pub others: usize,
}

/// A running watcher; dropping it ends the thread.
pub struct Watcher {
    change: Arc<Mutex<Option<Change>>>,
    stop: Arc<AtomicBool>,
    news: SyncSender<News>,
}

/// Messages to the thread.
enum News {
    /// Something happened to this path.
    Path(PathBuf),
    /// More happened than fits into the queue.
    Lost,
    /// Check whether to end.
    Nudge,
}

impl Watcher {
    /// Starts a watcher; calls `wake` on its thread when there is a change to take.
    ///
    /// # Errors
    /// No thread is available.
    pub fn start(spec: Spec, wake: impl Fn() + Send + 'static) -> io::Result<Watcher> {
        let (news, heard) = sync_channel(WATCH_NEWS_MAX);
        let (change, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let watcher = Watcher { change: Arc::clone(&change), stop: Arc::clone(&stop), news: news.clone() };
        let tell = move |told: Change| {
            *change.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            wake();
        };
        let thread = std::thread::Builder::new().name("clusterd-watch".to_owned());
        thread.stack_size(WATCH_STACK_BYTES).spawn(move || watch(spec, news, &heard, &stop, &tell))?;
        Ok(watcher)
    }

    /// The change since the last call.
    pub fn take(&self) -> Option<Change> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // When the queue is full the thread is awake anyway, and checks after each message.
        let _ = self.news.try_send(News::Nudge);
    }
}

fn watch(spec: Spec, news: SyncSender<News>, heard: &Receiver<News>, stop: &AtomicBool, tell: &dyn Fn(Change)) {
    let lost = Arc::new(AtomicBool::new(false));
    let wanted = Wanted::default();
    let watcher = notify::recommended_watcher(listener(news, Arc::clone(&lost), Arc::clone(&wanted)));
    let mut place = match watcher {
        Ok(watcher) => Place::new(spec, watcher, wanted),
        Err(e) => return log::warn!("{}: cannot watch files: {e}", spec.app),
    };
    place.look_at_all();
    place.log_begin();
    let mut pending: Option<Pending> = None;
    loop {
        let news = match &pending {
            None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(pending) => heard.recv_timeout(pending.due.saturating_duration_since(Instant::now())),
        };
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut changed = match news {
            Ok(News::Path(path)) => place.see(path),
            Ok(News::Lost) => place.look_at_all().or_else(|| place.first()),
            Ok(News::Nudge) => None,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if lost.swap(false, Ordering::AcqRel) {
            changed = place.look_at_all().or(changed).or_else(|| place.first());
        }
        let now = Instant::now();
        if let Some(path) = changed {
            let delay = place.spec.delay;
            let open = pending.get_or_insert_with(|| Pending::new(path.clone(), now));
            open.due = (now + delay).min(open.began + delay * WATCH_DELAYS_MAX);
            if open.paths.len() < WATCH_NEWS_MAX {
                open.paths.insert(path);
            }
        }
        if let Some(Pending { first, paths, .. }) = pending.take_if(|pending| pending.due <= now) {
            tell(Change { path: first, others: paths.len() - 1 });
        }
    }
}

/// Changes that wait for a pause.
struct Pending {
    first: PathBuf,
    /// All changed paths, up to a limit.
    paths: BTreeSet<PathBuf>,
    began: Instant,
    due: Instant,
}

impl Pending {
    fn new(first: PathBuf, now: Instant) -> Pending {
        Pending { first, paths: BTreeSet::new(), began: now, due: now }
    }
}

/// The folders and names from which events count: the folder above a watched one may be a busy one.
type Wanted = Arc<Mutex<Vec<PathBuf>>>;

/// Passes on events that may be changes of a file; reading is none.
fn listener(
    news: SyncSender<News>,
    lost: Arc<AtomicBool>,
    wanted: Wanted,
) -> impl Fn(notify::Result<Event>) + Send + 'static {
    move |event| {
        let send = |one: News| {
            if news.try_send(one).is_err() {
                lost.store(true, Ordering::Release);
            }
        };
        match event {
            Ok(event) if event.need_rescan() => send(News::Lost),
            Ok(event) => {
                let counts = match event.kind {
                    EventKind::Create(_) | EventKind::Remove(_) => true,
                    EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Name(_) | ModifyKind::Any) => true,
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                    EventKind::Access(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => false,
                };
                if counts {
                    let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
                    let is_wanted = |path: &PathBuf| wanted.iter().any(|from| path.starts_with(from));
                    event.paths.into_iter().filter(is_wanted).for_each(|path| send(News::Path(path)));
                }
            }
            Err(_) => send(News::Lost),
        }
    }
}

/// The watched folders.
struct Place {
    spec: Spec,
    watcher: RecommendedWatcher,
    /// The named files and folders, each with its rules.
    roots: Vec<Root>,
    folders: BTreeSet<PathBuf>,
    /// Names that lead to the roots: the watched folders themselves, and links on the way to them.
    names: BTreeSet<PathBuf>,
    wanted: Wanted,
    /// A failure to watch everything was logged.
    limit_logged: bool,
}

struct Root {
    folder: PathBuf,
    file: Option<PathBuf>,
    ignored: Ignored,
    /// Device and inode of the folder.
    identity: Option<(u64, u64)>,
}

impl Place {
    fn new(spec: Spec, watcher: RecommendedWatcher, wanted: Wanted) -> Place {
        let roots = Place::find_roots(&spec);
        let (folders, names) = (BTreeSet::new(), BTreeSet::new());
        let mut place = Place { spec, watcher, roots, folders, names, wanted, limit_logged: false };
        place.watch_names();
        place
    }

    fn find_roots(spec: &Spec) -> Vec<Root> {
        let mut roots = Vec::new();
        let apart: Vec<PathBuf> = spec.apart.iter().map(|path| resolved(path)).collect();
        for path in &spec.paths {
            let found = fs::canonicalize(path).and_then(|path| Ok((fs::metadata(&path)?.is_dir(), path)));
            match found {
                Ok((true, folder)) => {
                    let ignored = Ignored::new(&folder, spec.whole_folder, &spec.ignore, apart.clone());
                    let identity = identity(&folder);
                    roots.push(Root { folder, file: None, ignored, identity });
                }
                // Editors replace a file by another one: only the folder sees that.
                Ok((false, file)) => {
                    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
                    let ignored = Ignored::new(&folder, false, &[], Vec::new());
                    roots.push(Root { folder, file: Some(file), ignored, identity: None });
                }
                Err(e) => log::warn!("{}: cannot watch {}: {e}", spec.app, path.display()),
            }
        }
        roots
    }

    /// Watches what would show that another folder is under the name of a watched one: its entry in the folder above,
    /// and links on the way.
    fn watch_names(&mut self) {
        self.names = self.spec.paths.iter().flat_map(|path| names_of(path)).collect();
        self.names.extend(self.roots.iter().filter(|root| root.file.is_none()).map(|root| root.folder.clone()));
        let above: BTreeSet<&Path> = self.names.iter().filter_map(|name| name.parent()).collect();
        for folder in above {
            if let Err(e) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                log::debug!("{}: cannot watch {}: {e}", self.spec.app, folder.display());
            }
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = self.names.iter().cloned().chain(self.roots.iter().map(|root| root.folder.clone())).collect();
    }

    /// Watches the folders that are now under the names of the watched ones.
    fn replace_roots(&mut self) {
        for folder in std::mem::take(&mut self.folders) {
            // The kernel may have dropped the watch of a folder that is gone.
            let _ = self.watcher.unwatch(&folder);
        }
        self.roots = Place::find_roots(&self.spec);
        self.watch_names();
        self.look_at_all();
    }

    /// Whether another folder is under one of the names than the watched one.
    fn is_replaced(&self) -> bool {
        let now: BTreeSet<(u64, u64)> = self.spec.paths.iter().filter_map(|path| identity(path)).collect();
        let watched: BTreeSet<(u64, u64)> = self.roots.iter().filter_map(|root| root.identity).collect();
        !now.is_empty() && now != watched
    }

    /// A path to report when no changed path is known.
    fn first(&self) -> Option<PathBuf> {
        self.roots.first().map(|root| root.folder.clone())
    }

    fn log_begin(&self) {
        let folders = self.folders.len();
        let noun = if folders == 1 { "folder" } else { "folders" };
        log::info!("{}: watching {folders} {noun}", self.spec.app);
    }

    /// Watches every folder that is not ignored. Returns a file in a folder that was not watched before.
    fn look_at_all(&mut self) -> Option<PathBuf> {
        let mut new = None;
        for index in 0..self.roots.len() {
            self.roots[index].ignored.forget();
            let folder = self.roots[index].folder.clone();
            let found = match self.roots[index].file {
                Some(_) => self.add(&folder).then_some(None).flatten(),
                None => self.look_below(index, folder),
            };
            new = new.or(found);
        }
        new
    }

    /// Watches a folder and those below it. Returns a file in it.
    fn look_below(&mut self, root: usize, folder: PathBuf) -> Option<PathBuf> {
        let mut file = None;
        let mut open = vec![folder];
        while let Some(folder) = open.pop() {
            let is_new = self.add(&folder);
            // A folder that is gone, or not readable, has nothing to watch.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let path = entry.path();
                if self.roots[root].ignored.is(&path, is_folder) {
                    continue;
                }
                if is_folder {
                    open.push(path);
                } else if is_new {
                    file = file.or(Some(path));
                }
            }
            if self.limit_logged {
                break;
            }
        }
        file
    }

    /// Returns whether the folder was not watched before.
    fn add(&mut self, folder: &Path) -> bool {
        if self.folders.contains(folder) {
            return false;
        }
        let result = match self.folders.len() < limits::WATCH_FOLDERS_MAX {
            true => self.watcher.watch(folder, RecursiveMode::NonRecursive),
            false => Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch)),
        };
        match result {
            Ok(()) => self.folders.insert(folder.to_owned()),
            Err(e) if matches!(e.kind, notify::ErrorKind::MaxFilesWatch) => {
                if !std::mem::replace(&mut self.limit_logged, true) {
                    log::warn!(
                        "{}: only {} folders are watched: more would pass a limit ({} of clusterd's, or the system's \
                         fs.inotify.max_user_watches); name what to watch, or add to watch_ignore",
                        self.spec.app,
                        self.folders.len(),
                        limits::WATCH_FOLDERS_MAX
                    );
                }
                false
            }
            // The folder may be gone again.
            Err(e) => {
                log::debug!("{}: cannot watch {}: {e}", self.spec.app, folder.display());
                false
            }
        }
    }

    /// Handles an event for a path: returns the path, unless it is ignored.
    fn see(&mut self, path: PathBuf) -> Option<PathBuf> {
        if self.names.contains(&path) && self.is_replaced() {
            self.replace_roots();
            return Some(path);
        }
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|file| file.is_dir());
        if path.file_name().is_some_and(|name| name == ".gitignore") {
            return self.look_at_all();
        }
        if !is_folder && self.folders.remove(&path) {
            // A folder that is gone; another one in its place is new.
            return self.roots.iter().any(|root| root.file.is_none()).then_some(path);
        }
        let mut found = None;
        for index in 0..self.roots.len() {
            let root = &mut self.roots[index];
            let counts = match &root.file {
                Some(file) => *file == path,
                None => path.starts_with(&root.folder) && path != root.folder && !root.ignored.is(&path, is_folder),
            };
            if counts && is_folder {
                found = found.or(self.look_below(index, path.clone()));
            } else if counts {
                found = found.or(Some(path.clone()));
            }
        }
        found
    }
}

/// Device and inode of a folder.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((found.dev(), found.ino()))
}

/// A path with its links resolved; of a file that is not there, those of its folder.
fn resolved(path: &Path) -> PathBuf {
    let beside = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(beside).unwrap_or_else(|| path.to_owned())
}

/// A path, and the links on the way to it.
fn names_of(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink());
    let links = path.ancestors().skip(1).filter(move |above| is_link(above));
    std::iter::once(path).chain(links).map(Path::to_owned)
}

#[cfg(test)]
mod tests;
