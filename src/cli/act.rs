//! Verbs that change something: find who runs the target, ask its master, say in one line what came of it.
use super::client::{self, Outcome};
use super::progress::{Progress, Wait};
use super::start;
use super::target::{Found, Known, known};
use crate::api::Request;
use crate::api::request::{Scale, StopMode, Target, View};
use crate::api::types::{App, AppStatus, Change, Deployment, Upgrade};
use crate::home::Home;
use crate::limits;
use crate::os::signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `reload`: one app after the other.
pub(super) fn reload(home: Option<&Path>, targets: &[String], update_env: bool) -> ExitCode {
    each(home, targets, Order::OneByOne, |_, found| {
        alive(found)?;
        let change = Change { env: update_env.then(start::own_environment), sources: None };
        reload_one(found, change)
    })
}

/// Reloads an app and waits until that has ended.
pub(super) fn reload_one(found: &Found, change: Change) -> Result<String, String> {
    let before = client::look(&found.socket)?;
    let mut progress = Progress::of_reload(&before, &found.app);
    let request = Request::Reload { target: Target::App(found.app.clone()), change };
    match client::command_watched(&found.socket, &request, &mut progress) {
        Outcome::Answered(answer) => answer,
        Outcome::Lost => after_the_loss(found, &before, &mut progress),
    }
}

/// The master that had the command died: its successor goes on with the reload, so wait for the end of that.
fn after_the_loss(found: &Found, before: &Deployment, progress: &mut Progress) -> Result<String, String> {
    log::warn!("{}: its master was started again; the reload goes on", found.app);
    let generation = |deployment: &Deployment| {
        deployment.apps.iter().find(|app| app.name == found.app).map(|app| (app.status, app.generation))
    };
    loop {
        let now = client::look(&found.socket)?;
        progress.look(Ok(&now));
        match generation(&now) {
            Some((AppStatus::Reloading, _)) => {
                std::thread::sleep(Duration::from_millis(limits::PROGRESS_EVERY_MS));
            }
            Some((_, now)) if generation(before).is_none_or(|(_, before)| now > before) => {
                return Ok(format!("reloaded {}", found.app));
            }
            Some(_) => return Err("the old generation serves; the log of clusterd says why".to_owned()),
            None => return Err("it is gone".to_owned()),
        }
    }
}

/// `restart`: stop, then start; an app that is stopped just starts.
pub(super) fn restart(home: Option<&Path>, targets: &[String], update_env: bool) -> ExitCode {
    each(home, targets, Order::Together, |known, found| {
        let change = Change { env: update_env.then(start::own_environment), sources: None };
        match found.view {
            Some(_) => start::ask(found, &Request::Restart { app: found.app.clone(), change }),
            None => start::revive(&known.home, &found.deployment, Some(&found.app), change),
        }
    })
}

/// `stop`.
pub(super) fn stop(home: Option<&Path>, targets: &[String], now: bool) -> ExitCode {
    each(home, targets, Order::Together, |known, found| match &found.view {
        Some(view) if view.status == AppStatus::Stopped && found.background => {
            Ok(format!("{} has stopped already", found.app))
        }
        Some(_) => stop_one(&known.home, found, StopMode::from_now(now)),
        None => Ok(format!("{} does not run: its keeper is gone", found.app)),
    })
}

/// `delete`.
pub(super) fn delete(home: Option<&Path>, targets: &[String], now: bool) -> ExitCode {
    let mode = StopMode::from_now(now);
    let request = |found: &Found| Request::Delete { app: found.app.clone(), mode };
    each(home, targets, Order::Together, |known, found| {
        let said = match &found.view {
            Some(_) => end_one(&known.home, found, mode, &request(found))?,
            None => format!("{} is deleted", found.app),
        };
        forget(&known.home, found)?;
        Ok(said)
    })
}

/// Takes an app out of its entry, where its master has not: that is gone, or may not write to the home.
fn forget(home: &Home, found: &Found) -> Result<(), String> {
    let named = |home: &Home| {
        let entry = home.entry(&found.deployment).ok();
        entry.filter(|entry| found.background && entry.apps.iter().any(|app| app.name == found.app))
    };
    if named(home).is_none() {
        return Ok(());
    }
    let registry = home.registry().map_err(|e| e.to_string())?;
    let Some(mut entry) = named(home) else { return Ok(()) };
    entry.apps.retain(|app| app.name != found.app);
    match entry.apps.as_slice() {
        [] => home.remove_entry(&entry.name),
        [_, ..] => home.write_entry(&entry).map_err(|e| e.to_string())?,
    }
    drop(registry);
    let path = home.entry_path(&found.deployment);
    match named(home) {
        None => Ok(()),
        Some(_) => Err(format!("it does not run, but {} cannot be removed; let this user write there", path.display())),
    }
}

/// `kill`: ends every deployment and forgets it.
pub(super) fn kill(home: Option<&Path>, now: bool) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return fail(&e),
    };
    known.dead.iter().for_each(|entry| known.home.remove_entry(&entry.name));
    let ended = together(&known.masters, |master| {
        let mut progress = Progress::new(Wait::End { hint: !now }, &master.name);
        let request = Request::Stop { target: Target::All, mode: StopMode::from_now(now) };
        let said = until_ended(&master.path, &request, &mut progress, |_| false);
        let said = said.map_err(|why| format!("{}: {why}", master.name))?;
        let stays = master.deployment.as_ref().is_ok_and(|view| view.background);
        wait_for_end(&known.home, stays, &master.name, &master.path, &mut progress);
        Ok(said)
    });
    if known.masters.is_empty() {
        log::info!("nothing runs here");
    }
    say_all(ended)
}

/// Stops an app.
pub(super) fn stop_one(home: &Home, found: &Found, mode: StopMode) -> Result<String, String> {
    end_one(home, found, mode, &Request::Stop { target: Target::App(found.app.clone()), mode })
}

/// Stops or deletes an app. Where it was the last of its deployment, that is about to be over too, and its name free.
fn end_one(home: &Home, found: &Found, mode: StopMode, request: &Request) -> Result<String, String> {
    let mut progress = Progress::new(Wait::End { hint: !mode.is_now() }, &found.app);
    let gone = |view: &Deployment| !view.apps.iter().any(|app| app.name == found.app);
    let said = until_ended(&found.socket, request, &mut progress, gone)?;
    wait_for_end(home, found.background, &found.deployment, &found.socket, &mut progress);
    Ok(said)
}

/// Has something ended and waits for it. A master that dies meanwhile has a successor, which is asked again: an end is
/// never undone. `gone`: what was to end is not there any more.
fn until_ended(
    socket: &Path,
    request: &Request,
    progress: &mut Progress,
    gone: impl Fn(&Deployment) -> bool,
) -> Result<String, String> {
    for _ in 0..limits::LOOK_TRIES_MAX {
        if let Outcome::Answered(answer) = client::command_watched(socket, request, progress) {
            return answer;
        }
        match client::look(socket) {
            Ok(view) if !gone(&view) => {}
            Ok(_) => return Ok("it is gone".to_owned()),
            Err(why) => return Err(why),
        }
    }
    Err("its master dies again and again".to_owned())
}

/// Waits (bounded) until a deployment that has nothing left is gone; `stays`: it is not over when its apps have stopped.
fn wait_for_end(home: &Home, stays: bool, deployment: &str, socket: &Path, progress: &mut Progress) {
    let until = Instant::now() + Duration::from_millis(limits::END_WAIT_MS);
    while home.is_alive(deployment) && Instant::now() < until {
        let view = client::get::<Deployment>(socket, &Request::View(View::Deployment));
        let over = |app: &App| !stays && app.status == AppStatus::Stopped;
        if view.is_ok_and(|view| view.apps.iter().any(|app| !over(app))) {
            return;
        }
        progress.tell("nothing runs any more; its keeper is about to end");
        std::thread::sleep(Duration::from_millis(limits::START_LOOK_MS));
    }
}

/// `scale`.
pub(super) fn scale(home: Option<&Path>, target: &str, to: &Scale) -> ExitCode {
    each(home, &[target.to_owned()], Order::OneByOne, |_, found| {
        alive(found)?;
        client::command(&found.socket, &Request::Scale { app: found.app.clone(), to: to.clone() })
    })
}

/// `signal`.
pub(super) fn signal(home: Option<&Path>, name: &str, targets: &[String]) -> ExitCode {
    each(home, targets, Order::OneByOne, |_, found| {
        alive(found)?;
        let signal = signal::from_name(name).ok_or_else(|| format!("there is no signal {name:?}"))?;
        client::command(&found.socket, &Request::Signal { app: found.app.clone(), signal })
    })
}

/// `upgrade`: of whole deployments.
pub(super) fn upgrade(home: Option<&Path>, targets: &[String], binary: Option<&Path>) -> ExitCode {
    let binary = binary.map_or_else(std::env::current_exe, std::path::absolute);
    let binary = match binary {
        Ok(path) => path.display().to_string(),
        Err(e) => return fail(&format!("cannot find the new binary: {e}")),
    };
    let mut seen = BTreeSet::new();
    let seen = std::cell::RefCell::new(&mut seen);
    one_by_one(home, targets, |found| {
        if !seen.borrow_mut().insert(found.deployment.clone()) {
            return Ok(None);
        }
        alive(found)?;
        let number = |deployment: &Deployment| deployment.upgrade.as_ref().map_or(0, |upgrade| upgrade.number);
        let before = number(&client::look(&found.socket)?);
        let mut progress = Progress::new(Wait::Other, &found.deployment);
        let request = Request::Upgrade { binary: binary.clone() };
        match client::command_watched(&found.socket, &request, &mut progress) {
            Outcome::Answered(answer) => drop(answer?),
            // Its successor knows whether it was begun.
            Outcome::Lost => {}
        }
        let mut serves = None;
        for _ in 0..limits::LOOK_TRIES_MAX {
            let now = client::look(&found.socket)?;
            match now.upgrade.filter(|upgrade| upgrade.number > before) {
                Some(Upgrade { ok: Some(false), message, .. }) => return Err(message),
                // The keeper follows a moment later, unless it is of a version that cannot.
                Some(Upgrade { ok: Some(true), keeper: None, message, .. }) if !now.keeper_version.is_empty() => {
                    serves = Some(message);
                }
                Some(Upgrade { ok: Some(true), message, .. }) => return Ok(Some(message)),
                Some(_) | None => progress.tell("the new binary takes over"),
            }
            std::thread::sleep(Duration::from_millis(limits::PROGRESS_EVERY_MS));
        }
        if let Some(message) = serves {
            return Ok(Some(format!("{message}; whether the keeper follows is not known yet")));
        }
        Err("the outcome is not known yet; clusterd ls says which version serves".to_owned())
    })
}

pub(super) fn alive(found: &Found) -> Result<&App, String> {
    let gone = || format!("its keeper is gone; clusterd start {} starts it again", found.app);
    found.view.as_deref().ok_or_else(gone)
}

pub(super) fn fail(why: &str) -> ExitCode {
    log::error!("{why}");
    ExitCode::FAILURE
}

/// Whether the apps of one command wait for each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OneByOne,
    Together,
}

/// Does something with every app that the words mean, each once. Fails when one word means nothing, or one app is refused.
pub(super) fn each(
    home: Option<&Path>,
    targets: &[String],
    order: Order,
    act: impl Fn(&Known, &Found) -> Result<String, String> + Sync,
) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return fail(&e),
    };
    let (all, missing) = meant(&known, targets);
    let act = |found: &Found| act(&known, found).map_err(|why| with_name(&found.app, &why));
    let done = match order {
        Order::OneByOne => say_all(all.iter().map(act)),
        Order::Together => say_all(together(&all, act)),
    };
    if missing { ExitCode::FAILURE } else { done }
}

pub(super) fn one_by_one(
    home: Option<&Path>,
    targets: &[String],
    act: impl Fn(&Found) -> Result<Option<String>, String>,
) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return fail(&e),
    };
    let (all, missing) = meant(&known, targets);
    let act = |found: &Found| act(found).map_err(|why| with_name(&found.deployment, &why)).transpose();
    let done = say_all(all.iter().filter_map(act));
    if missing { ExitCode::FAILURE } else { done }
}

/// The apps that the words mean, each once, in their order; and whether a word means none, which is said.
fn meant(known: &Known, targets: &[String]) -> (Vec<Found>, bool) {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let mut missing = false;
    for word in targets {
        match known.find(word) {
            Err(why) => {
                log::error!("{why}");
                missing = true;
            }
            Ok(found) => all.extend(found.into_iter().filter(|f| seen.insert((f.deployment.clone(), f.app.clone())))),
        }
    }
    (all, missing)
}

fn with_name(name: &str, why: &str) -> String {
    let why = why.strip_prefix(&format!("{name}: ")).unwrap_or(why);
    format!("{name}: {why}")
}

/// Does something with all of them at the same time, a bounded number at once; the outcomes in their order.
pub(super) fn together<T: Sync>(
    all: &[T],
    act: impl Fn(&T) -> Result<String, String> + Sync,
) -> Vec<Result<String, String>> {
    let mut outcomes = Vec::new();
    for some in all.chunks(limits::COMMANDS_AT_ONCE_MAX) {
        std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|one| scope.spawn(|| act(one))).collect();
            for one in running {
                outcomes.push(one.join().unwrap_or_else(|_| Err("it broke off".to_owned())));
            }
        });
    }
    outcomes
}

pub(super) fn say_all(outcomes: impl IntoIterator<Item = Result<String, String>>) -> ExitCode {
    let mut failed = false;
    for outcome in outcomes {
        match outcome {
            Ok(message) => message.lines().for_each(|line| log::info!("{line}")),
            Err(why) => {
                log::error!("{why}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
