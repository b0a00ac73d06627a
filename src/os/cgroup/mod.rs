//! A cgroup for each app: made below a base, limited, joined at the start of a process, killed and removed as a whole. The
//! base is a child of the group that this process was started in, in each hierarchy that is needed. Version 2 holds all
//! processes where it is mounted; limits are set there where its controllers may be used, else in hierarchies of version 1.
//! Which app has which limits is not known here.
mod processes;

pub use processes::{app_of, end_leftovers};

use super::hierarchy::{self, Version, read};
use super::lock;
use nix::errno::Errno;
use processes::{kill_all, processes, remove_tree, write};
use std::ffi::{CString, OsStr};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Length of the name of a cgroup that clusterd makes, in characters: an app's or a deployment's, and what is added to it.
const CGROUP_NAME_CHARS_MAX: usize = 128;
/// Cgroups that are looked through for what an earlier clusterd left.
const CGROUP_FOLDERS_MAX: usize = 20_000;
/// How often the processes of a cgroup are looked for again, where the kernel cannot kill a whole group.
const CGROUP_KILL_ROUNDS_MAX: u32 = 50;
/// Names of bases begin like this.
pub const BASE_PREFIX: &str = "clusterd-";
/// The variable that names the unit which `startup` has written, and with it a delegated group.
pub const DELEGATED_UNIT: &str = "CLUSTERD_DELEGATED_UNIT";
/// The group for the processes of a delegated group, which may have none itself once its controllers are in use.
pub const LEAF: &str = "clusterd-processes";
/// The group of an app is called like this, and its name.
const APP_PREFIX: &str = "app-";
/// The period of `cpu.max`, in microseconds.
pub const CPU_PERIOD_US: u64 = 100_000;
/// Controllers of version 1 that are of use, the best to hold processes together first.
const CONTROLLERS: [&str; 4] = ["freezer", "pids", "memory", "cpu"];
/// How often a base is made and locked: another clusterd that looks for empty ones holds it for microseconds.
const BASE_TRIES_MAX: u32 = 25;
/// Between two looks whether killed processes are gone.
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// Limits of a group. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; a process is killed where the group would need more.
    pub memory_max: Option<u64>,
    /// Bytes of memory above which the kernel slows the processes down and takes memory back.
    pub memory_high: Option<u64>,
    /// Microseconds of CPU time in each [`CPU_PERIOD_US`].
    pub cpu_max: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    MemoryMax,
    MemoryHigh,
    CpuMax,
    PidsMax,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 4] = [Limit::MemoryMax, Limit::MemoryHigh, Limit::CpuMax, Limit::PidsMax];

    /// The key of the configuration.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Limit::MemoryMax => "memory_max",
            Limit::MemoryHigh => "memory_high",
            Limit::CpuMax => "cpu_max",
            Limit::PidsMax => "pids_max",
        }
    }

    fn controller(self) -> &'static str {
        match self {
            Limit::MemoryMax | Limit::MemoryHigh => "memory",
            Limit::CpuMax => "cpu",
            Limit::PidsMax => "pids",
        }
    }

    /// What to write where, in version 2.
    fn file(self, value: Option<u64>) -> (&'static str, String) {
        let most = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
        match self {
            Limit::MemoryMax => ("memory.max", most(value)),
            Limit::MemoryHigh => ("memory.high", most(value)),
            Limit::CpuMax => ("cpu.max", format!("{} {CPU_PERIOD_US}", most(value))),
            Limit::PidsMax => ("pids.max", most(value)),
        }
    }

    /// The same in version 1, which has nothing like `memory.high`.
    fn files_of_version_1(self, value: Option<u64>) -> Vec<(&'static str, String)> {
        let most = |none: &str| value.map_or_else(|| none.to_owned(), |value| value.to_string());
        match self {
            Limit::MemoryMax => vec![("memory.limit_in_bytes", most("-1"))],
            Limit::MemoryHigh => Vec::new(),
            Limit::CpuMax => vec![("cpu.cfs_period_us", CPU_PERIOD_US.to_string()), ("cpu.cfs_quota_us", most("-1"))],
            Limit::PidsMax => vec![("pids.max", most("max"))],
        }
    }
}

impl Limits {
    /// The value of one.
    #[must_use]
    pub fn get(&self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::MemoryMax => self.memory_max,
            Limit::MemoryHigh => self.memory_high,
            Limit::CpuMax => self.cpu_max,
            Limit::PidsMax => self.pids_max,
        }
    }
}

/// Why there is no group, or a limit does not hold.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// A name that is not made of letters, digits, `.`, `_` and `-`.
    #[error("{0:?} cannot be the name of a cgroup")]
    Name(String),
    /// No hierarchy shows the group of this process.
    #[error("no cgroups are mounted here")]
    NotMounted,
    /// A running clusterd uses the base.
    #[error("{path} is in use by another clusterd", path = .0.display())]
    InUse(PathBuf),
    /// A folder or file of the kernel.
    #[error("{path}: {error}", path = .path.display())]
    System { path: PathBuf, error: io::Error },
    /// No hierarchy has the controller.
    #[error("the {controller} controller is not available to {path}", path = .path.display())]
    NoController { controller: &'static str, path: PathBuf },
    /// Other processes belong to the group, and to whoever put them there.
    #[error(
        "the cgroup {path} was not delegated to clusterd; run it as a unit of systemd with Delegate=yes, as clusterd \
         startup writes it",
        path = .0.display()
    )]
    NotDelegated(PathBuf),
    /// systemd could not start the unit's process again in a group that has controllers.
    #[error(
        "the processes of {path} are not in {LEAF} below it, where systemd 254 or later starts them; run clusterd startup \
         again, and restart the unit",
        path = .0.display()
    )]
    NoSubgroup(PathBuf),
    /// Only version 2 has it.
    #[error("it needs cgroups of version 2, and {path} is of version 1", path = .0.display())]
    OnlyVersion2(PathBuf),
}

/// How a process joins a group.
#[derive(Debug)]
pub struct Entry<F> {
    /// The folder of version 2, in which a process can be born.
    pub folder: Option<F>,
    /// Files to which a process writes 0 to join; that of `folder` is the first.
    pub files: Vec<F>,
}

/// One hierarchy, and the base in it.
#[derive(Debug)]
struct Part {
    version: Version,
    /// Of version 1.
    controllers: Vec<String>,
    /// The parent of the base.
    own: PathBuf,
    /// Nothing above it belongs to others: the top of a cgroup namespace.
    is_top: bool,
    /// It is that of the unit which `startup` has written.
    is_unit: bool,
    /// This process was started aside, in [`LEAF`].
    is_aside: bool,
    base: PathBuf,
    /// Held as long as this process uses the base; `None`: not made.
    lock: Option<OwnedFd>,
}

/// The group of all apps.
#[derive(Debug)]
pub struct Base {
    name: String,
    /// Version 2 first, then in the order of [`CONTROLLERS`].
    parts: Vec<Part>,
}

fn system(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    |error| CgroupError::System { path: path.to_owned(), error }
}

fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && !name.is_empty() && name.len() <= CGROUP_NAME_CHARS_MAX {
        Ok(())
    } else {
        Err(CgroupError::Name(name.chars().take(CGROUP_NAME_CHARS_MAX).collect()))
    }
}

impl Base {
    /// Finds the place for a base of this name. Makes nothing yet.
    ///
    /// # Errors
    /// A bad name, or no cgroups.
    pub fn find(name: &str) -> Result<Base, CgroupError> {
        Base::find_under(Path::new("/"), name, std::env::var_os(DELEGATED_UNIT).as_deref())
    }

    /// `unit`: the name of the unit which `startup` has written, if this process is of that.
    fn find_under(root: &Path, name: &str, unit: Option<&OsStr>) -> Result<Base, CgroupError> {
        check_name(name)?;
        if !name.starts_with(BASE_PREFIX) {
            return Err(CgroupError::Name(name.to_owned()));
        }
        let mut parts: Vec<Part> = Vec::new();
        let (groups, mounts) = hierarchy::read_all(root).ok_or(CgroupError::NotMounted)?;
        for mount in &mounts {
            let Some(group) = groups.iter().find(|group| group.is_in(mount)) else { continue };
            let Some(folder) = mount.folder(&group.path) else { continue };
            let folder = root.join(folder.strip_prefix("/").unwrap_or(&folder));
            // An earlier clusterd has moved its processes aside: the place is the delegated group.
            let (own, is_aside) = match (folder.file_name().is_some_and(|name| name == LEAF), folder.parent()) {
                (true, Some(parent)) => (parent.to_owned(), true),
                _ => (folder, false),
            };
            if parts.iter().any(|part| part.own == own || (part.version, mount.version) == (Version::Two, Version::Two))
            {
                continue;
            }
            let of_use = mount.version == Version::Two || rank(&mount.controllers).is_some();
            if of_use {
                parts.push(Part {
                    version: mount.version,
                    controllers: group.controllers.clone(),
                    is_top: group.path == "/" || group.path == format!("/{LEAF}"),
                    is_unit: unit.is_some() && own.file_name() == unit,
                    is_aside,
                    base: own.join(name),
                    own,
                    lock: None,
                });
            }
        }
        if parts.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        parts.sort_by_key(|part| (part.version == Version::One, rank(&part.controllers)));
        Ok(Base { name: name.to_owned(), parts })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the group of an app where it is missing, and limits it. Returns the limits that do not hold, and why.
    /// `before`: the limits that it had.
    ///
    /// # Errors
    /// There can be no group.
    pub fn make(
        &mut self,
        app: &str,
        limits: &Limits,
        before: &Limits,
    ) -> Result<Vec<(Limit, CgroupError)>, CgroupError> {
        check_name(app)?;
        let mut failed = None;
        let made = self.parts.iter_mut().any(|part| match part.make(app) {
            Ok(()) => true,
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        });
        if !made {
            return Err(failed.unwrap_or(CgroupError::NotMounted));
        }
        let mut unmet = Vec::new();
        for limit in Limit::ALL {
            let value = limits.get(limit);
            if value.is_none() && before.get(limit).is_none() {
                continue;
            }
            match self.limit(app, limit, value) {
                // What could not be limited is not limited now either.
                Err(_) if value.is_none() => {}
                Err(error) => unmet.push((limit, error)),
                Ok(()) => {}
            }
        }
        Ok(unmet)
    }

    fn limit(&mut self, app: &str, limit: Limit, value: Option<u64>) -> Result<(), CgroupError> {
        let mut why = None;
        for part in &mut self.parts {
            let done = match part.version {
                Version::Two => part.limit_version_2(app, limit, value),
                Version::One if part.has(limit.controller()) => part.limit_version_1(app, limit, value),
                Version::One => continue,
            };
            match done {
                Ok(()) => return Ok(()),
                // A controller that version 1 has is not version 2's.
                Err(error @ CgroupError::NoController { .. }) => why = why.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(why.unwrap_or(CgroupError::NotMounted))
    }

    /// What a process needs to join the group of an app.
    ///
    /// # Errors
    /// There is no such group (any more).
    pub fn entry(&self, app: &str) -> io::Result<Entry<OwnedFd>> {
        let mut entry = Entry { folder: None, files: Vec::new() };
        for part in self.parts.iter().filter(|part| part.lock.is_some()) {
            let folder = part.group(app);
            match OpenOptions::new().write(true).open(folder.join("cgroup.procs")) {
                Ok(file) => entry.files.push(file.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            if part.version == Version::Two {
                let options = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                entry.folder = Some(OpenOptions::new().read(true).custom_flags(options).open(folder)?.into());
            }
        }
        if entry.files.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(entry)
    }

    /// Kills every process in the group of an app, and removes the group once none is left. Returns whether it is gone.
    pub fn end(&self, app: &str) -> bool {
        let made = || self.parts.iter().filter(|part| part.lock.is_some());
        if let Some(part) = made().find(|part| part.group(app).is_dir()) {
            kill_all(&part.group(app));
        }
        // All of them, even if one has to stay.
        let mut is_gone = true;
        for part in made() {
            is_gone &= remove_tree(&part.group(app));
        }
        is_gone
    }

    /// Removes the base, which is empty, and lets go of it.
    pub fn remove(&mut self) {
        for part in &mut self.parts {
            if part.lock.is_some() {
                // What is not empty stays, and the next clusterd of this name ends it.
                let _ = fs::remove_dir(&part.base);
                part.lock = None;
            }
        }
    }

    /// How many processes of an app the kernel has killed for lack of memory.
    #[must_use]
    pub fn oom_kills(&self, app: &str) -> u64 {
        let count = |part: &Part| {
            let file = match part.version {
                Version::Two => "memory.events",
                Version::One if part.has("memory") => "memory.oom_control",
                Version::One => return None,
            };
            let text = read(&part.group(app).join(file))?;
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
            line.trim().parse().ok()
        };
        self.parts.iter().find_map(count).unwrap_or(0)
    }
}

fn rank(controllers: &[String]) -> Option<usize> {
    CONTROLLERS.iter().position(|known| controllers.iter().any(|controller| controller == known))
}

impl Part {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }

    fn group(&self, app: &str) -> PathBuf {
        self.base.join(format!("{APP_PREFIX}{app}"))
    }

    /// Makes the base and the group of an app, where they are missing.
    fn make(&mut self, app: &str) -> Result<(), CgroupError> {
        if self.lock.is_none() {
            remove_empty_bases(&self.own);
            self.lock = Some(make_base(&self.base)?);
        }
        make_folder(&self.base)?;
        make_folder(&self.group(app))
    }

    fn limit_version_2(&self, app: &str, limit: Limit, value: Option<u64>) -> Result<(), CgroupError> {
        let (name, text) = limit.file(value);
        let file = self.group(app).join(name);
        if !file.exists() {
            self.enable(limit.controller())?;
        }
        write(&file, &text)
    }

    fn limit_version_1(&mut self, app: &str, limit: Limit, value: Option<u64>) -> Result<(), CgroupError> {
        let files = limit.files_of_version_1(value);
        if files.is_empty() {
            return Err(CgroupError::OnlyVersion2(self.own.clone()));
        }
        self.make(app)?;
        files.iter().try_for_each(|(name, text)| write(&self.group(app).join(name), text))
    }

    /// Lets the groups of the apps use a controller. Only in version 2.
    fn enable(&self, controller: &'static str) -> Result<(), CgroupError> {
        let lists =
            |file: PathBuf| read(&file).is_some_and(|all| all.split_ascii_whitespace().any(|c| c == controller));
        let (switch, wanted) = ("cgroup.subtree_control", format!("+{controller}"));
        if !lists(self.own.join("cgroup.controllers")) {
            return Err(CgroupError::NoController { controller, path: self.own.clone() });
        }
        if !lists(self.own.join(switch)) {
            // Only the root of the hierarchy has no type, and may have both processes and controllers.
            if self.own.join("cgroup.type").exists() {
                if !self.is_delegated() {
                    return Err(CgroupError::NotDelegated(self.own.clone()));
                }
                if self.is_unit && !self.is_aside {
                    return Err(CgroupError::NoSubgroup(self.own.clone()));
                }
                self.move_processes_aside()?;
            }
            write(&self.own.join(switch), &wanted)?;
        }
        if lists(self.base.join(switch)) { Ok(()) } else { write(&self.base.join(switch), &wanted) }
    }

    /// Whether the group was given to us with everything below it: by systemd, by a container, or to this user.
    fn is_delegated(&self) -> bool {
        let marked = |name: &std::ffi::CStr| extended_attribute_is_1(&self.own, name);
        let owner = |path: &Path| fs::metadata(path).map(|found| found.uid()).ok();
        let own = super::user::own_uid();
        let is_border = own != 0
            && owner(&self.own) == Some(own)
            && self.own.parent().is_some_and(|parent| owner(parent) != Some(own));
        // Before systemd 251 only who may do nearly everything can read the mark.
        self.is_top || is_border || self.is_unit || marked(c"user.delegate") || marked(c"trusted.delegate")
    }

    fn move_processes_aside(&self) -> Result<(), CgroupError> {
        let leaf = self.own.join(LEAF);
        make_folder(&leaf)?;
        for _ in 0..CGROUP_KILL_ROUNDS_MAX {
            let found = processes(&self.own);
            if found.is_empty() {
                break;
            }
            for pid in found {
                // Errors: it has ended. What stays shows when the controller is switched on.
                let _ = write(&leaf.join("cgroup.procs"), &pid.to_string());
            }
        }
        Ok(())
    }
}

/// Makes a base, or takes one that is there, and locks it.
fn make_base(base: &Path) -> Result<OwnedFd, CgroupError> {
    for _ in 0..BASE_TRIES_MAX {
        make_folder(base)?;
        match lock::take_folder(base) {
            // Whoever removes what is empty may have been faster.
            Ok(Some(lock)) if base.exists() => return Ok(lock),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(base)(error)),
            Ok(_) | Err(_) => std::thread::sleep(KILL_PAUSE),
        }
    }
    Err(CgroupError::InUse(base.to_owned()))
}

/// Removes the bases in a group that are empty and which no clusterd uses: their keepers were killed.
fn remove_empty_bases(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten().take(CGROUP_FOLDERS_MAX) {
        let name = entry.file_name();
        let is_base = name.to_str().is_some_and(|name| name.starts_with(BASE_PREFIX) && name != LEAF);
        if is_base && let Ok(Some(_lock)) = lock::take_folder(&entry.path()) {
            // One that is not empty stays.
            remove_tree(&entry.path());
        }
    }
}

fn make_folder(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(system(path)(error)),
    }
}

fn extended_attribute_is_1(path: &Path, name: &std::ffi::CStr) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut value = [0_u8; 2];
    // SAFETY: both strings end with NUL; the kernel writes at most `value.len()` bytes into `value`.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    Errno::result(length).is_ok_and(|length| length == 1) && value[0] == b'1'
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
