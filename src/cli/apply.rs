//! Runs a command on every app that its targets name, and prints the results.
use super::error::CommandError;
use super::target::{Found, Known, known};
use crate::api::request::StopMode;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Apps that a command acts on at the same time.
pub(super) const COMMANDS_AT_ONCE_MAX: usize = 16;

/// The result of a command on one app: a sentence, or an error.
pub(super) type Outcome = Result<String, CommandError>;

/// Whether a verb acts on one worker too (`web/0`), or on whole apps only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    App,
    Worker,
}

/// Whether the apps of one command are handled one by one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Concurrency {
    /// One after the other.
    Sequential,
    /// The same; what depends on an app that failed is left out.
    WhileDependenciesSucceed,
    /// A bounded number at the same time.
    Parallel,
    /// The same, each app when those that depend on it are done.
    DependentsFirst,
}

impl Concurrency {
    /// Of a command that ends apps.
    pub(super) fn of_stop(mode: StopMode) -> Concurrency {
        match mode {
            StopMode::Now => Concurrency::Parallel,
            StopMode::Drain => Concurrency::DependentsFirst,
        }
    }
}

/// Prints the result of a command, and returns its exit code. A reader that has left (`clusterd ls | head`) is not an error; a
/// full disk is.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(format_args!("cannot print: {error}")),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Prints an error.
pub(super) fn fail(error: impl Display) -> ExitCode {
    log::error!("{error}");
    ExitCode::FAILURE
}

/// Runs a command on every app that the targets name, once each. Fails when a target names no app, or one app is
/// refused.
pub(super) fn for_each_app(
    home: Option<&Path>,
    targets: &[String],
    concurrency: Concurrency,
    command: impl Fn(&Known, &Found) -> Outcome + Sync,
) -> ExitCode {
    for_each(home, targets, (Grain::App, concurrency), command)
}

/// The same for a verb that acts on single workers too.
pub(super) fn for_each_worker(
    home: Option<&Path>,
    targets: &[String],
    concurrency: Concurrency,
    command: impl Fn(&Known, &Found) -> Outcome + Sync,
) -> ExitCode {
    for_each(home, targets, (Grain::Worker, concurrency), command)
}

fn for_each(
    home: Option<&Path>,
    targets: &[String],
    (grain, concurrency): (Grain, Concurrency),
    command: impl Fn(&Known, &Found) -> Outcome + Sync,
) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(error) => return fail(error),
    };
    let (apps, all_found) = find_all(&known, targets, grain);
    // The workers of one app follow each other.
    let one_worker = apps.iter().any(|found| found.slot.is_some());
    let concurrency = if one_worker { Concurrency::Sequential } else { concurrency };
    let run = |found: &Found| command(&known, found).map_err(|error| error.of(&found.name()));
    let reported = match concurrency {
        Concurrency::Sequential => report(apps.iter().map(run)),
        Concurrency::WhileDependenciesSucceed => report(while_dependencies_succeed(&apps, depends, run)),
        Concurrency::Parallel => report(parallel(&apps, run)),
        Concurrency::DependentsFirst => {
            let stages = dependents_first(apps.iter().collect(), |one, other| depends(one, other));
            report(stages.iter().flat_map(|stage| parallel(stage, |found| run(found))))
        }
    };
    if all_found { reported } else { ExitCode::FAILURE }
}

/// Runs a command on every deployment with an app that the targets name, one after the other.
pub(super) fn for_each_deployment(
    home: Option<&Path>,
    targets: &[String],
    command: impl Fn(&Found) -> Outcome,
) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(error) => return fail(error),
    };
    let (mut apps, all_found) = find_all(&known, targets, Grain::App);
    let mut seen = BTreeSet::new();
    apps.retain(|found| seen.insert(found.deployment.clone()));
    let run = |found: &Found| command(found).map_err(|error| error.of(&found.deployment));
    let reported = report(apps.iter().map(run));
    if all_found { reported } else { ExitCode::FAILURE }
}

/// The apps that the targets name, once each, in order; and whether every target names one. Those that name none are
/// reported.
fn find_all(known: &Known, targets: &[String], grain: Grain) -> (Vec<Found>, bool) {
    let mut seen = BTreeSet::new();
    let mut apps = Vec::new();
    let mut all_found = true;
    for target in targets {
        let found = match grain {
            Grain::App => known.find_whole(target),
            Grain::Worker => known.find(target),
        };
        match found {
            Err(error) => {
                log::error!("{error}");
                all_found = false;
            }
            Ok(found) => {
                apps.extend(found.into_iter().filter(|f| seen.insert((f.deployment.clone(), f.app.clone(), f.slot))));
            }
        }
    }
    (behind(apps, depends), all_found)
}

/// Whether an app depends on another one, as its deployment is configured.
fn depends(one: &Found, other: &Found) -> bool {
    let on = one.view.as_ref().map_or(&[][..], |view| &view.depends_on);
    one.deployment == other.deployment && on.contains(&other.app)
}

/// Sorts so that each comes behind those that it depends on.
pub(super) fn behind<T>(mut left: Vec<T>, depends: impl Fn(&T, &T) -> bool) -> Vec<T> {
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let next = left.iter().position(|one| !left.iter().any(|other| depends(one, other))).unwrap_or(0);
        sorted.push(left.remove(next));
    }
    sorted
}

/// Stages, one after the other, so that each comes in a later one than all that depend on it.
fn dependents_first<T>(mut left: Vec<T>, depends: impl Fn(&T, &T) -> bool) -> Vec<Vec<T>> {
    let mut stages = Vec::new();
    while !left.is_empty() {
        let is_free: Vec<bool> = left.iter().map(|one| !left.iter().any(|other| depends(other, one))).collect();
        // After reloads of single apps, two may depend on each other.
        let any = is_free.contains(&true);
        let mut is_free = is_free.into_iter();
        let (stage, rest) = left.into_iter().partition(|_| is_free.next().unwrap_or(true) || !any);
        stages.push(stage);
        left = rest;
    }
    stages
}

/// Runs a command on one after the other, but for those that depend on one on which it has failed, or that was left out.
pub(super) fn while_dependencies_succeed<'a>(
    apps: impl IntoIterator<Item = &'a Found>,
    depends: impl Fn(&Found, &Found) -> bool,
    command: impl Fn(&Found) -> Outcome,
) -> impl Iterator<Item = Outcome> {
    let mut failed: Vec<&Found> = Vec::new();
    apps.into_iter().map(move |found| {
        let outcome = match failed.iter().find(|other| depends(found, other)) {
            Some(other) => Err(CommandError::DependencyFailed(other.app.clone()).of(&found.name())),
            None => command(found),
        };
        if outcome.is_err() {
            failed.push(found);
        }
        outcome
    })
}

/// Runs a command on all of them at the same time, up to a limit; returns the results in order.
pub(super) fn parallel<T: Sync>(all: &[T], command: impl Fn(&T) -> Outcome + Sync) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for some in all.chunks(COMMANDS_AT_ONCE_MAX) {
        std::thread::scope(|scope| {
            let command = &command;
            let start = |one| std::thread::Builder::new().spawn_scoped(scope, move || command(one)).map_err(|_| one);
            let running: Vec<_> = some.iter().map(start).collect();
            for one in running {
                outcomes.push(match one {
                    Ok(thread) => thread.join().unwrap_or(Err(CommandError::Panicked)),
                    // There is no thread to be had: one after the other, then.
                    Err(one) => command(one),
                });
            }
        });
    }
    outcomes
}

/// Prints the results of a command, app by app.
pub(super) fn report(outcomes: impl IntoIterator<Item = Outcome>) -> ExitCode {
    let mut failed = false;
    for outcome in outcomes {
        match outcome {
            Ok(message) => message.lines().for_each(|line| log::info!("{line}")),
            Err(error) => {
                log::error!("{error}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_depend_on_comes_first_and_the_order_stays_else() {
        let depends = |one: &u32, other: &u32| (*one, *other) == (1, 3) || (*one, *other) == (3, 4);
        assert_eq!(behind(vec![1, 2, 3, 4], depends), [2, 4, 3, 1]);
        assert_eq!(behind(vec![2, 1], depends), [2, 1]);
    }

    #[test]
    fn what_others_depend_on_ends_when_they_have_ended() {
        let depends = |one: &u32, other: &u32| [(1, 3), (3, 4), (2, 4)].contains(&(*one, *other));
        assert_eq!(dependents_first(vec![1, 2, 3, 4, 5], depends), [vec![1, 2, 5], vec![3], vec![4]]);
        assert_eq!(dependents_first(vec![4, 3], depends), [[3], [4]]);
        let circle = |one: &u32, other: &u32| one != other;
        assert_eq!(dependents_first(vec![1, 2], circle), [[1, 2]]);
    }
}
