//! Entries: the deployments of a home. One file per deployment (`run/NAME.json`) with the names and ids of its apps
//! and, for one in the background, everything needed to start it again. Changed under the registry's lock, so that two
//! starts at the same time get different names and ids.
use super::file::{self, Durability, FileProblem};
use super::{Claim, Home, HomeError, REGISTRY_RETRY_MS};
use crate::config::import::Format;
use crate::config::sources::{FileSource, Sources};
use crate::config::{Config, name};
use crate::limits;
use crate::os::lock;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The version of the format.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the format.
    pub version: u32,
    /// Its name, also that of its socket and lock.
    pub name: String,
    /// Started in the background: the deployment stays when its apps stop, and can be started again.
    pub background: bool,
    /// Its apps, without deleted ones.
    pub apps: Vec<EntryApp>,
    /// Its sources; only for a deployment in the background.
    #[serde(default)]
    pub sources: Option<Sources>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryApp {
    /// Unique in the home.
    pub name: String,
    /// Unique in the home.
    pub id: u32,
    /// Stopped until somebody starts it.
    #[serde(default)]
    pub stopped: bool,
    /// The number of its workers, if it was scaled.
    #[serde(default)]
    pub workers: Option<u32>,
}

/// The exclusive right to add entries; held briefly.
#[derive(Debug)]
pub struct Registry<'a> {
    home: &'a Home,
    run: PathBuf,
    _lock: File,
}

impl Home {
    /// Waits (bounded) for the right to add entries, and removes entries of foreground runs that are gone.
    ///
    /// # Errors
    /// The home cannot be used, or somebody else holds the lock for too long.
    pub fn registry(&self) -> Result<Registry<'_>, HomeError> {
        let run = self.open()?;
        // Without an ending: the files of a deployment have one, so that an app may be called "registry".
        let path = run.join("registry");
        let until = Instant::now() + Duration::from_millis(limits::REGISTRY_WAIT_MS);
        loop {
            match lock::take(&path) {
                Ok(Some(lock)) => {
                    let registry = Registry { home: self, run, _lock: lock };
                    registry.clear_dead();
                    return Ok(registry);
                }
                Ok(None) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(REGISTRY_RETRY_MS));
                }
                Ok(None) => return Err(HomeError::Busy(path)),
                Err(source) => return Err(HomeError::Unusable { path: run, source }),
            }
        }
    }

    /// Every entry, by name, or why it cannot be read.
    pub fn entries(&self) -> Vec<Result<Entry, HomeError>> {
        let Ok(files) = fs::read_dir(self.run_dir()) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = files
            .flatten()
            .take(4 * limits::MASTERS_PER_HOME_MAX)
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        paths.iter().map(|path| read(path)).collect()
    }

    /// The entry of a deployment.
    ///
    /// # Errors
    /// The entry is missing, or cannot be read.
    pub fn entry(&self, name: &str) -> Result<Entry, HomeError> {
        read(&self.entry_path(name))
    }

    /// The path of a deployment's entry.
    pub fn entry_path(&self, name: &str) -> PathBuf {
        self.run_dir().join(format!("{name}.json"))
    }

    /// Writes an entry atomically, readable for its owner only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_entry(&self, entry: &Entry) -> Result<(), HomeError> {
        let path = self.entry_path(&entry.name);
        // Need not survive a power cut: `resurrect` has its own file.
        file::write(&path, entry, Durability::Crash)
            .map_err(|e| HomeError::Entry { path, problem: FileProblem::Unwritable(e) })
    }

    /// Removes a deployment's entry. The lock file stays: somebody may be about to take the lock.
    pub fn remove_entry(&self, name: &str) {
        // The file may have been removed already.
        let _ = fs::remove_file(self.entry_path(name));
    }
}

impl Registry<'_> {
    /// Removes foreground entries whose keeper is gone.
    fn clear_dead(&self) {
        for entry in self.home.entries().into_iter().flatten() {
            if !entry.background && !self.home.is_alive(&entry.name) {
                self.home.remove_entry(&entry.name);
            }
        }
    }

    /// Chooses names and ids for a new deployment: an entry that is not written yet. Generated names (not `explicit`)
    /// become `NAME-2` and so on if they are taken; `apps` are the names of its apps.
    ///
    /// # Errors
    /// A name that the user chose is taken.
    pub fn plan(&self, wanted: &str, explicit: bool, apps: &[String]) -> Result<Entry, HomeError> {
        let others: Vec<Entry> = self.home.entries().into_iter().flatten().collect();
        let holder = |name: &str| {
            let entry = others.iter().find(|e| e.name == name || e.apps.iter().any(|a| a.name == name));
            entry.map(|e| if e.name == name { "a deployment".to_owned() } else { format!("of {}", e.name) })
        };
        let is_taken = |name: &str| holder(name).is_some() || self.home.is_alive(name);
        let alone = matches!(apps, [only] if only == wanted);
        // A file with several apps names the deployment, and nobody has to type that name.
        let name = if explicit && alone { wanted.to_owned() } else { name::unique(wanted, is_taken) };
        let names = if alone { vec![name.clone()] } else { apps.to_vec() };
        for name in names.iter().chain([&name]) {
            self.home.check_socket_path(name)?;
            if is_taken(name) {
                let pid = fs::read_to_string(self.run.join(format!("{name}.lock"))).unwrap_or_default();
                let holder = match (holder(name), pid.trim()) {
                    (Some(whose), "") => whose,
                    (_, pid) => format!("its keeper is pid {pid}"),
                };
                return Err(HomeError::Taken { name: name.clone(), holder });
            }
        }
        let next = others.iter().flat_map(|e| &e.apps).map(|a| a.id + 1).max().unwrap_or(0);
        let apps = names
            .into_iter()
            .zip(next..)
            .map(|(name, id)| EntryApp { name, id, stopped: false, workers: None })
            .collect();
        Ok(Entry { version: VERSION, name, background: false, apps, sources: None })
    }

    /// Checks that no other deployment has one of these names, and makes the ids unique.
    ///
    /// # Errors
    /// Another deployment has one of these names.
    pub fn admit(&self, entry: &mut Entry) -> Result<(), HomeError> {
        let others: Vec<Entry> = self.home.entries().into_iter().flatten().filter(|e| e.name != entry.name).collect();
        let theirs: Vec<&EntryApp> = others.iter().flat_map(|e| &e.apps).collect();
        if let Some(taken) = entry.apps.iter().find(|app| theirs.iter().any(|other| other.name == app.name)) {
            return Err(HomeError::Taken { name: taken.name.clone(), holder: "of another deployment".to_owned() });
        }
        let own = entry.apps.iter().map(|app| app.id);
        let mut next = theirs.iter().map(|app| app.id).chain(own).map(|id| id + 1).max().unwrap_or(0);
        for app in &mut entry.apps {
            if theirs.iter().any(|other| other.id == app.id) {
                app.id = next;
                next += 1;
            }
        }
        Ok(())
    }

    /// Writes the entry of a foreground run and claims its name.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn claim(&self, entry: &Entry) -> Result<Claim, HomeError> {
        let claim = self.home.claim(&entry.name)?;
        self.home.write_entry(entry)?;
        Ok(claim)
    }
}

/// The name of a deployment: the only app's, or else the file's; and whether the user chose it.
pub fn deployment_name(sources: &Sources, config: &Config) -> (String, bool) {
    match (config.apps.as_slice(), &sources.file) {
        ([app], file) => (app.name.clone(), sources.overrides.options.has("name") || file.is_some()),
        (_, Some(file)) => (name_of_file(file), true),
        (_, None) => ("clusterd".to_owned(), false),
    }
}

/// The name of a file without its ending; for PM2's files, which all have the same name, that of the folder.
fn name_of_file(file: &FileSource) -> String {
    let path = Path::new(&file.path);
    let text = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let word = match file.format() {
        Format::Toml => text(path.file_stem()),
        Format::Script | Format::Json | Format::Yaml => text(path.parent().and_then(Path::file_name)),
    };
    name::cleaned(&word)
}

fn read(path: &Path) -> Result<Entry, HomeError> {
    file::read(path, limits::SAVED_BYTES_MAX, VERSION, |entry: &Entry| entry.version)
        .map_err(|problem| HomeError::Entry { path: path.to_owned(), problem })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn home(name: &str) -> Home {
        let path = std::env::temp_dir().join(format!("clusterd-entry-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Home::find(Some(&path)).unwrap()
    }

    fn add(home: &Home, wanted: &str, explicit: bool, apps: &[&str]) -> Result<Entry, HomeError> {
        let apps: Vec<String> = apps.iter().map(|a| (*a).to_owned()).collect();
        let registry = home.registry()?;
        let entry = Entry { background: true, ..registry.plan(wanted, explicit, &apps)? };
        home.write_entry(&entry)?;
        Ok(entry)
    }

    #[test]
    fn names_and_ids_are_never_given_twice() {
        let home = home("unique");
        let first = add(&home, "web", false, &["web"]).unwrap();
        assert_eq!((first.name.as_str(), first.apps[0].id), ("web", 0));
        let second = add(&home, "web", false, &["web"]).unwrap();
        assert_eq!((second.apps[0].name.as_str(), second.apps[0].id), ("web-2", 1));
        assert!(add(&home, "web", true, &["web"]).unwrap_err().to_string().contains("delete"));
        let site = add(&home, "site", true, &["api", "jobs"]).unwrap();
        assert_eq!(site.apps.iter().map(|a| a.id).collect::<Vec<_>>(), [2, 3]);
        assert!(add(&home, "api", true, &["api"]).is_err(), "an app of another deployment has that name");
        assert!(add(&home, "other", true, &["x", "jobs"]).is_err());
        home.remove_entry("site");
        assert_eq!(add(&home, "api", true, &["api"]).unwrap().apps[0].id, 2);
        fs::remove_dir_all(home.path()).unwrap();
    }

    #[test]
    fn a_dead_run_of_the_foreground_leaves_nothing_behind() {
        let home = home("dead");
        let entry = {
            let registry = home.registry().unwrap();
            let entry = registry.plan("web", true, &["web".to_owned()]).unwrap();
            let claim = registry.claim(&entry).unwrap();
            assert!(home.is_alive("web"));
            drop(claim);
            entry
        };
        assert_eq!(home.entry("web").unwrap(), entry);
        // Another test's child may hold a copy of the lock until it execs.
        let cleared = (0..1_000).any(|_| {
            drop(home.registry().unwrap());
            home.entry("web").is_err()
        });
        assert!(cleared);
        fs::remove_dir_all(home.path()).unwrap();
    }

    #[test]
    fn a_damaged_entry_is_named_and_in_nobodys_way() {
        let home = home("damaged");
        add(&home, "web", true, &["web"]).unwrap();
        fs::write(home.entry_path("web"), "{").unwrap();
        let error = home.entry("web").unwrap_err().to_string();
        assert!(error.contains("web.json") && error.contains("damaged"), "{error}");
        add(&home, "api", true, &["api"]).unwrap();
        fs::remove_dir_all(home.path()).unwrap();
    }
}
