//! The apps that the targets of a verb name: by id, name, namespace, deployment, `/pattern/`, script or configuration file,
//! or `all`; and single workers, `web/0`.
use super::client::{self, Master};
use super::error::CommandError;
use crate::api::types::{App, AppStatus, Worker};
use crate::config::import::is_configuration;
use crate::config::name::{self, did_you_mean};
use crate::config::problem::Problems;
use crate::config::resolve::resolve;
use crate::home::{Entry, Home, HomeError};
use crate::loader::{self, Request};
use regex_lite::Regex;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looks at a home in which a deployment neither answers nor is gone.
const CHANGING_LOOKS_MAX: u32 = 50;

/// The pause between two of them, in milliseconds.
const CHANGING_LOOK_EVERY_MS: u64 = 20;

/// Names listed in the error about an unknown one.
const NAMES_SHOWN_MAX: usize = 20;

/// Everything in a home.
pub(super) struct Known {
    pub(super) home: Home,
    /// Running deployments.
    pub(super) masters: Vec<Master>,
    /// Background deployments whose keeper is gone.
    pub(super) dead: Vec<Entry>,
}

/// An app that a target names.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) deployment: String,
    /// Its control socket.
    pub(super) socket: PathBuf,
    pub(super) app: String,
    pub(super) id: Option<u32>,
    /// The master's view of it; `None`: the keeper is gone.
    pub(super) view: Option<Box<App>>,
    /// The deployment stays when its apps stop.
    pub(super) background: bool,
    /// Only this worker of it: `web/0`.
    pub(super) slot: Option<u32>,
}

impl Found {
    /// Its name, or that of the worker that is meant: `web/0`.
    pub(super) fn name(&self) -> String {
        self.slot.map_or_else(|| self.app.clone(), |slot| format!("{}/{slot}", self.app))
    }

    /// The workers that are meant; none of an app whose keeper is gone.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        let all = self.view.iter().flat_map(|app| &app.workers);
        all.filter(|worker| self.slot.is_none_or(|slot| worker.slot == slot))
    }

    /// Whether it lives, and nothing of it runs, or will soon.
    pub(super) fn is_idle(&self) -> bool {
        let idle = [AppStatus::Stopped, AppStatus::Errored, AppStatus::Stopping];
        self.view.as_ref().is_some_and(|view| idle.contains(&view.status))
    }

    /// The master's view of it, with the workers that are meant.
    pub(super) fn shown(&self) -> Option<App> {
        let app = self.view.as_deref()?;
        Some(App { workers: self.workers().cloned().collect(), ..app.clone() })
    }

    /// The master's view of it.
    ///
    /// # Errors
    /// Its keeper is gone.
    pub(super) fn living(&self) -> Result<&App, CommandError> {
        self.view.as_deref().ok_or_else(|| CommandError::KeeperGone(self.app.clone()))
    }
}

/// What is known of an app whose keeper is gone.
pub(super) fn gone_app(name: &str, id: Option<u32>) -> App {
    App { name: name.to_owned(), id, status: AppStatus::Gone, ..App::default() }
}

/// Queries every deployment in the home.
///
/// # Errors
/// No home is known, or it cannot be read.
pub(super) fn known(home: Option<&Path>) -> Result<Known, CommandError> {
    let home = Home::find(home)?;
    let mut seen = look(&home)?;
    for _ in 1..CHANGING_LOOKS_MAX {
        if !seen.is_changing {
            break;
        }
        std::thread::sleep(Duration::from_millis(CHANGING_LOOK_EVERY_MS));
        seen = look(&home)?;
    }
    seen.unreadable.iter().for_each(|error| log::warn!("{error}"));
    Ok(Known { home, masters: seen.masters, dead: seen.dead })
}

/// What one look at a home found.
struct Seen {
    masters: Vec<Master>,
    dead: Vec<Entry>,
    unreadable: Vec<HomeError>,
    /// A deployment neither answers nor is gone: it has its name and no control socket. One that is ending is so for a moment, and
    /// one that is about to start.
    is_changing: bool,
}

fn look(home: &Home) -> Result<Seen, CommandError> {
    let masters = client::view_all(home)?;
    let mut seen = Seen { masters, dead: Vec::new(), unreadable: Vec::new(), is_changing: false };
    for entry in home.entries() {
        match entry {
            Ok(entry) if !entry.background || seen.masters.iter().any(|m| m.name == entry.name) => {}
            Ok(entry) if home.is_alive(&entry.name) => seen.is_changing |= !home.socket_path(&entry.name).exists(),
            Ok(entry) => seen.dead.push(entry),
            Err(error) => seen.unreadable.push(error),
        }
    }
    Ok(seen)
}

impl Known {
    /// Every app, in the order of ids.
    pub(super) fn all(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for master in &self.masters {
            let Ok(deployment) = &master.deployment else { continue };
            all.extend(deployment.apps.iter().map(|app| Found {
                deployment: master.name.clone(),
                socket: master.path.clone(),
                app: app.name.clone(),
                id: app.id,
                view: Some(Box::new(app.clone())),
                background: deployment.background,
                slot: None,
            }));
        }
        for entry in &self.dead {
            all.extend(entry.apps.iter().map(|app| Found {
                deployment: entry.name.clone(),
                socket: self.home.socket_path(&entry.name),
                app: app.name.clone(),
                id: Some(app.id),
                view: None,
                background: true,
                slot: None,
            }));
        }
        all.sort_by(|a, b| (a.id.is_none(), a.id, &a.app).cmp(&(b.id.is_none(), b.id, &b.app)));
        all
    }

    /// Apps of masters that do not answer, from their entries.
    pub(super) fn silent(&self) -> Vec<(Option<u32>, String)> {
        let masters = self.masters.iter().filter(|master| master.deployment.is_err());
        let apps = masters.flat_map(|master| match self.home.entry(&master.name) {
            Ok(entry) => entry.apps.into_iter().map(|app| (Some(app.id), app.name)).collect(),
            Err(_) => vec![(None, master.name.clone())],
        });
        apps.collect()
    }

    /// The apps that a word names, or those of one worker (`web/0`); if there are none, those of the file that it names.
    ///
    /// # Errors
    /// Nothing has this name; suggests the nearest one. The app has no such worker.
    pub(super) fn find(&self, word: &str) -> Result<Vec<Found>, CommandError> {
        self.called(word).or_else(|why| match self.worker_called(word) {
            Some(found) => found,
            None => {
                let of_file = self.of_file(word)?;
                if of_file.is_empty() { Err(why) } else { Ok(of_file) }
            }
        })
    }

    /// The same, for a verb that acts on whole apps.
    ///
    /// # Errors
    /// The word names one worker.
    pub(super) fn find_whole(&self, word: &str) -> Result<Vec<Found>, CommandError> {
        let found = self.find(word)?;
        match found.iter().find(|found| found.slot.is_some()) {
            Some(one) => Err(CommandError::OneWorker { word: word.to_owned(), app: one.app.clone() }),
            None => Ok(found),
        }
    }

    /// The worker that `APP/SLOT` names; `None` where the word does not say one of an app that is here.
    fn worker_called(&self, word: &str) -> Option<Result<Vec<Found>, CommandError>> {
        let (app, slot) = word.rsplit_once('/')?;
        let slot: u32 = slot.parse().ok()?;
        let found = self.called(app).ok()?;
        let with_slot = found.into_iter().map(|found| {
            let slots = found.living()?.workers.iter().map(|worker| worker.slot);
            match slots.clone().any(|its| its == slot) {
                true => Ok(Found { slot: Some(slot), ..found }),
                false => Err(CommandError::NoWorker { slot, last: slots.max(), app: found.app }),
            }
        });
        Some(with_slot.collect())
    }

    /// The apps that a configuration file names, or that run a script.
    fn of_file(&self, word: &str) -> Result<Vec<Found>, CommandError> {
        let Ok(path) = std::fs::canonicalize(word) else { return Ok(Vec::new()) };
        let all = self.all();
        if !is_configuration(word) {
            let runs = |found: &&Found| found.view.as_ref().is_some_and(|app| runs(app, &path));
            return Ok(all.iter().filter(runs).cloned().collect());
        }
        let request = Request { config: Some(word.to_owned()), ..Request::default() };
        let sources = loader::load(&request)?;
        let config =
            resolve(&sources).map_err(|problems| CommandError::Configuration(Problems(problems).to_string()))?;
        let named = |found: &&Found| config.apps.iter().any(|app| app.name == found.app);
        Ok(all.iter().filter(named).cloned().collect())
    }

    /// The apps with this name.
    fn called(&self, word: &str) -> Result<Vec<Found>, CommandError> {
        let all = self.all();
        let wanted = matcher(word)?;
        let found: Vec<Found> = all.iter().filter(|one| wanted(one)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        // A master that does not answer still has a name.
        if let Some(why) = self.masters.iter().filter(|m| m.name == word).find_map(|m| m.deployment.as_ref().err()) {
            return Err(CommandError::Unknown(format!("{word}: {why}")));
        }
        if all.is_empty() {
            return Err(CommandError::Unknown("nothing runs here".to_owned()));
        }
        let names = self.names();
        let more = match names.len().saturating_sub(NAMES_SHOWN_MAX) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let shown = &names[..names.len().min(NAMES_SHOWN_MAX)];
        let hint = self.did_you_mean(word);
        let text = format!("nothing here is called {word:?}{hint} (here: {}{more})", shown.join(", "));
        Err(CommandError::Unknown(text))
    }

    /// The names of apps and deployments.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.all().into_iter().flat_map(|found| [found.app, found.deployment]).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The similar name that was perhaps meant, as a question; or nothing.
    pub(super) fn did_you_mean(&self, word: &str) -> String {
        let names = self.names();
        did_you_mean(word, &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Whether a word is the script of an app that has its default name.
    pub(super) fn is_script(&self, word: &str) -> bool {
        if is_configuration(word) {
            return false;
        }
        let default = name::from_command(&[String::new(), word.to_owned()]);
        self.of_file(word).is_ok_and(|apps| apps.iter().any(|found| found.app == default))
    }

    /// Whether a word names an app, or one worker of it.
    pub(super) fn is_target(&self, word: &str) -> bool {
        self.called(word).is_ok() || !Path::new(word).exists() && self.worker_called(word).is_some()
    }
}

/// Whether a word of an app's command is this file.
fn runs(app: &App, path: &Path) -> bool {
    let same = |word: &String| std::fs::canonicalize(Path::new(&app.cwd).join(word)).is_ok_and(|file| file == path);
    app.command.iter().any(same)
}

type Matcher = Box<dyn Fn(&Found) -> bool>;

/// Matches apps against a word. A name counts before an id: an app may be called `7`.
fn matcher(word: &str) -> Result<Matcher, CommandError> {
    if word == "all" {
        return Ok(Box::new(|_| true));
    }
    if let Some(pattern) = word.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|p| !p.is_empty()) {
        let pattern = Regex::new(pattern).map_err(|why| CommandError::Pattern { word: word.to_owned(), why })?;
        return Ok(Box::new(move |found| pattern.is_match(&found.app)));
    }
    let word = word.to_owned();
    let number = word.parse::<u32>().ok();
    Ok(Box::new(move |found| {
        let namespace = found.view.as_ref().is_some_and(|app| app.namespace == word);
        found.app == word || found.deployment == word || namespace || (number.is_some() && found.id == number)
    }))
}
