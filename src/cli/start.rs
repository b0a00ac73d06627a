//! `clusterd start`: the same run in the background. A script, a command, a file, or apps that are there and stopped.
//! Returns when the app is ready or has failed, and says which.
use super::EXIT_USAGE;
use super::act::{self, Order};
use super::args::{StartArgs, load_error_code};
use super::client::{self, Outcome};
use super::progress::{Progress, Wait};
use super::script::{self, ScriptError};
use super::target::{Found, Known, known};
use crate::api::Request;
use crate::api::types::{AppStatus, Change};
use crate::config::resolve::resolve;
use crate::config::sources::Sources;
use crate::home::{self, Entry, Home, HomeError, Registry};
use crate::limits;
use crate::loader;
use crate::master::BACKGROUND_FLAG;
use crate::os::process;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The verb.
pub(super) fn start(args: &StartArgs) -> ExitCode {
    let home = args.run.home.as_deref();
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return act::fail(&e),
    };
    if !args.what.is_empty() && args.what.iter().all(|word| known.means_something(word)) {
        drop(known);
        return start_known(home, &args.what, args.update_env);
    }
    let sources = match script::load(args) {
        Ok(sources) => {
            let log_folder = Some(log_folder(&known.home));
            Sources { base_env: Some(own_environment()), background: true, log_folder, ..sources }
        }
        Err(e) => {
            let is_word = matches!(e, ScriptError::NotAScript { .. });
            let unknown = args.what.iter().find(|word| is_word && !known.means_something(word));
            let hint = unknown.map(|word| known.did_you_mean(word)).unwrap_or_default();
            format!("{e}{hint}").lines().for_each(|line| log::error!("{line}"));
            return ExitCode::from(load_error_code(e.is_usage()));
        }
    };
    loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
    match start_new(&known, sources) {
        Ok(outcomes) => act::say_all(outcomes),
        Err(Refusal { message, code }) => {
            message.lines().for_each(|line| log::error!("{line}"));
            ExitCode::from(code)
        }
    }
}

/// Where apps in the background write what they print.
fn log_folder(home: &Home) -> String {
    let folder = home.path().join("logs");
    std::path::absolute(&folder).unwrap_or(folder).display().to_string()
}

/// Starts apps that are there.
fn start_known(home: Option<&Path>, words: &[String], update_env: bool) -> ExitCode {
    act::each(home, words, Order::Together, |known, found| {
        let change = Change { env: update_env.then(own_environment), sources: None };
        match &found.view {
            None => revive(&known.home, &found.deployment, Some(&found.app), change),
            Some(view) if matches!(view.status, AppStatus::Stopped | AppStatus::Errored | AppStatus::Stopping) => {
                ask(found, &Request::Start { app: found.app.clone(), change })
            }
            Some(view) => Ok(format!("{} runs already ({})", found.app, view.status)),
        }
    })
}

/// Why nothing was started.
struct Refusal {
    message: String,
    code: u8,
}

impl Refusal {
    fn failed(message: impl ToString) -> Refusal {
        Refusal { message: message.to_string(), code: 1 }
    }
}

/// Starts what was typed. Apps that are there already get it as their new configuration; the others get a deployment
/// of their own.
fn start_new(known: &Known, sources: Sources) -> Result<Vec<Result<String, String>>, Refusal> {
    let config = resolve(&sources).map_err(|problems| {
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Refusal { message: text.join("\n"), code: EXIT_USAGE }
    })?;
    let (_, explicit) = home::deployment_name(&sources, &config);
    let all = known.all();
    let there = |name: &str| all.iter().find(|found| found.app == name).filter(|_| explicit);
    let (old, new): (Vec<&str>, Vec<&str>) =
        config.apps.iter().map(|app| app.name.as_str()).partition(|name| there(name).is_some());
    let mut outcomes = Vec::new();
    let mut groups: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for found in old.iter().filter_map(|name| there(name)) {
        groups.entry(found.deployment.as_str()).or_default().push(found);
    }
    for (deployment, apps) in groups {
        outcomes.extend(replace(known, deployment, &apps, &sources));
    }
    if !new.is_empty() {
        let mut sources = sources;
        if !old.is_empty() {
            sources.overrides.only = new.iter().map(|name| (*name).to_owned()).collect();
        }
        let registry = known.home.registry().map_err(Refusal::failed)?;
        let config = resolve(&sources).map_err(|_| Refusal::failed("the configuration changed its mind"))?;
        let (name, explicit) = home::deployment_name(&sources, &config);
        let names: Vec<String> = config.apps.iter().map(|app| app.name.clone()).collect();
        let planned = registry.plan(&name, explicit, &names).map_err(Refusal::failed)?;
        if let ([wanted], [got]) = (names.as_slice(), planned.apps.as_slice())
            && *wanted != got.name
        {
            sources.overrides.options.set("name", vec![got.name.clone()]);
        }
        let entry = Entry { background: true, sources: Some(sources), ..planned };
        outcomes.push(launch(registry, &known.home, &entry, true));
    }
    Ok(outcomes)
}

/// Gives apps of one deployment a new configuration: those that run by a reload.
fn replace(known: &Known, deployment: &str, apps: &[&Found], sources: &Sources) -> Vec<Result<String, String>> {
    let mut sources = sources.clone();
    if sources.file.is_some() {
        sources.overrides.only = apps.iter().map(|found| found.app.clone()).collect();
    }
    let change = Change { env: None, sources: Some(Box::new(sources)) };
    let mut outcomes = Vec::new();
    for found in apps {
        let outcome = match &found.view {
            Some(_) if !found.background => Err("it runs in the foreground; stop it first".to_owned()),
            Some(view) if matches!(view.status, AppStatus::Stopped | AppStatus::Errored) => {
                ask(found, &Request::Start { app: found.app.clone(), change: change.clone() })
            }
            Some(_) => act::reload_one(found, change.clone()),
            None => return vec![revive(&known.home, deployment, None, change)],
        };
        outcomes.push(outcome.map_err(|why| format!("{}: {why}", found.app)));
    }
    outcomes
}

/// Has a live deployment start (or restart) an app, and waits for it.
pub(super) fn ask(found: &Found, request: &Request) -> Result<String, String> {
    let mut progress = Progress::new(Wait::Ready, &found.app);
    match client::command_watched(&found.socket, request, &mut progress) {
        Outcome::Answered(answer) => answer,
        Outcome::Lost => wait_until_ready(&found.socket, &mut progress),
    }
}

/// Starts a deployment again whose keeper is gone; `app`: one of its apps that shall run, whatever it did.
pub(super) fn revive(home: &Home, deployment: &str, app: Option<&str>, change: Change) -> Result<String, String> {
    let registry = home.registry().map_err(|e| e.to_string())?;
    let mut entry = home.entry(deployment).map_err(|e| e.to_string())?;
    if home.is_alive(deployment) {
        drop(registry);
        return wait_until_ready(&home.socket_path(deployment), &mut Progress::new(Wait::Ready, deployment));
    }
    let before = entry.sources.take().ok_or("its entry does not say what to run; delete it and start it anew")?;
    // Its files may say something else by now, as they may for a reload.
    let mut sources = match change.sources {
        Some(sources) => *sources,
        None => loader::reload(&before).map_err(|e| e.to_string())?,
    };
    loader::notes(&sources, Some(&before)).iter().for_each(|note| log::warn!("{note}"));
    sources.base_env = change.env.or(sources.base_env).or(before.base_env);
    entry.sources = Some(sources);
    for one in entry.apps.iter_mut().filter(|one| app.is_none_or(|app| one.name == app)) {
        one.stopped = false;
    }
    launch(registry, home, &entry, false)
}

/// Starts a deployment as it was saved.
pub(super) fn resurrect(home: &Home, saved: &Entry) -> Result<String, String> {
    let mut entry = saved.clone();
    let registry = home.registry().map_err(|e| e.to_string())?;
    registry.admit(&mut entry).map_err(|e| e.to_string())?;
    if home.is_alive(&entry.name) {
        return Ok(format!("{} runs already", entry.name));
    }
    if let Some(sources) = &entry.sources {
        // Its files may say something else by now. Where they are gone, what was saved is good enough.
        match loader::reload(sources) {
            Ok(again) => entry.sources = Some(again),
            Err(e) => log::warn!("{}: {e}; it is started as it was saved", entry.name),
        }
    }
    launch(registry, home, &entry, false)
}

/// Writes the entry, starts the keeper, and waits until its apps are ready. `new`: a failure leaves no entry behind.
pub(super) fn launch(registry: Registry<'_>, home: &Home, entry: &Entry, new: bool) -> Result<String, String> {
    let mut entry = entry.clone();
    if let Some(sources) = &mut entry.sources {
        sources.log_folder.get_or_insert_with(|| log_folder(home));
    }
    let entry = &entry;
    let log_path = home.log_path(&entry.name).map_err(|e| e.to_string())?;
    let mut log = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|source| HomeError::Unusable { path: log_path.clone(), source }.to_string())?;
    let told_before = log.seek(SeekFrom::End(0)).unwrap_or_default();
    home.write_entry(entry).map_err(|e| e.to_string())?;
    let folder = entry.sources.as_ref().map_or("/", |sources| sources.start_folder.as_str());
    let home_path = std::path::absolute(home.path()).map_err(|e| e.to_string())?;
    let args = [OsStr::new(BACKGROUND_FLAG), home_path.as_os_str(), OsStr::new(&entry.name)];
    let mut progress = Progress::new(Wait::Ready, &entry.name);
    let started = process::start_in_background(&args, Path::new(folder), &log)
        .map_err(|e| format!("cannot start a keeper in {folder}: {e}"))
        .and_then(|mut keeper| {
            let socket = home.socket_path(&entry.name);
            let until = Instant::now() + Duration::from_millis(limits::START_WAIT_MS);
            loop {
                if UnixStream::connect(&socket).is_ok() && home.is_alive(&entry.name) {
                    return Ok(());
                }
                if keeper.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return Err(last_lines(&mut log, told_before));
                }
                if Instant::now() > until {
                    let pid = keeper.id();
                    return Err(format!("its keeper (pid {pid}) does not answer; {} may say why", log_path.display()));
                }
                progress.tell("its keeper has no control socket yet");
                std::thread::sleep(Duration::from_millis(limits::START_LOOK_MS));
            }
        });
    if let Err(why) = started {
        if new {
            home.remove_entry(&entry.name);
        }
        return Err(format!("{} was not started: {why}", entry.name));
    }
    drop(registry);
    let outcome = wait_until_ready(&home.socket_path(&entry.name), &mut progress);
    outcome.map_err(|why| match why.as_str() {
        client::ENDED => format!("{} was not started: {}", entry.name, last_lines(&mut log, told_before)),
        _ => why,
    })
}

/// What a deployment has said since then.
fn last_lines(log: &mut (impl Read + Seek), since: u64) -> String {
    let mut text = String::new();
    let mut bytes = Vec::new();
    // What cannot be read is not said; the exit code says enough.
    let _ = log.seek(SeekFrom::Start(since));
    let _ = log.take(limits::START_WORDS_BYTES_MAX).read_to_end(&mut bytes);
    for line in String::from_utf8_lossy(&bytes).lines() {
        let line = line.split_once("clusterd: ").map_or(line, |(_, said)| said);
        text.push_str(if text.is_empty() { "" } else { "\n" });
        text.push_str(line);
    }
    if text.is_empty() { "it ended without a word".to_owned() } else { text }
}

/// Waits until every app of a deployment is ready, or one has failed; masters may die meanwhile.
pub(super) fn wait_until_ready(socket: &Path, progress: &mut Progress) -> Result<String, String> {
    for _ in 0..limits::LOOK_TRIES_MAX {
        match client::command_watched(socket, &Request::Ready, progress) {
            Outcome::Answered(answer) => return answer,
            Outcome::Lost => std::thread::sleep(Duration::from_millis(limits::PROGRESS_EVERY_MS)),
        }
    }
    Err("its master dies again and again".to_owned())
}

/// The environment of this command, for apps to keep. What is not UTF-8 is left out, which is said.
pub(super) fn own_environment() -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(env.insert(name, value)),
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                log::warn!("the variable {name} is not UTF-8 and is left out");
            }
        }
    }
    env
}
