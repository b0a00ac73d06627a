//! Apps that wait for others (`depends_on`): at the first start until those are ready, in a reload of several apps until those were
//! reloaded. The supervisor of an app that waits holds back everything of one generation (`supervisor::App::held`), which is saved; here
//! it is decided when that ends, from the state of the others, whenever something has happened to one of them.
use super::app::App;
use super::context::Context;
use super::system::System;
use super::tasks::Task;
use crate::ids::{AppIx, Generation};
use crate::supervisor::{Event, Report};

/// Whether an app still has to wait for another one.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Waits,
    Done,
    /// It will never be ready, or was not reloaded.
    Failed(String),
}

/// The names of the apps that this generation of an app depends on.
fn names(app: &App, generation: Generation) -> &[String] {
    app.generations.get(&generation).map_or(&[], |settings| &settings.config.depends_on)
}

/// Whether a generation depends on one of these apps.
pub(super) fn depends(cx: &Context<impl System>, ix: AppIx, generation: Generation, on: &[AppIx]) -> bool {
    let wanted = names(&cx.apps[ix], generation);
    on.iter().any(|&other| wanted.contains(&cx.apps[other].name))
}

/// Sorts apps so that each comes behind those that it depends on. (The configuration has no circles.)
pub(super) fn sort<T>(cx: &Context<impl System>, mut left: Vec<T>, of: impl Fn(&T) -> (AppIx, Generation)) -> Vec<T> {
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let waits = |one: &T| {
            let (ix, generation) = of(one);
            let others: Vec<AppIx> = left.iter().map(|other| of(other).0).filter(|other| *other != ix).collect();
            depends(cx, ix, generation, &others)
        };
        let next = left.iter().position(|one| !waits(one)).unwrap_or(0);
        sorted.push(left.remove(next));
    }
    sorted
}

/// The apps that an app waits for, for people.
pub(super) fn waits_for(cx: &Context<impl System>, ix: AppIx) -> Vec<String> {
    let app = &cx.apps[ix];
    let Some(generation) = app.supervisor.held() else { return Vec::new() };
    let waits = |name: &&String| standing(cx, app, name) == Standing::Waits;
    names(app, generation).iter().filter(waits).cloned().collect()
}

/// Has the dependents of an app looked at, where what happened to it may concern them.
pub(super) fn note(cx: &mut Context<impl System>, report: &Report) {
    let concerns = matches!(
        report,
        Report::Held { .. }
            | Report::AppReady { .. }
            | Report::AppErrored
            | Report::AppFinished
            | Report::AppStopped
            | Report::ReloadDone { .. }
            | Report::ReloadFailed { .. }
    );
    if concerns && cx.apps.iter().any(|app| app.supervisor.held().is_some()) {
        cx.tasks.push_back(Task::AdmitDependents);
    }
}

/// Lets the apps go whose wait is over.
pub(super) fn look(cx: &mut Context<impl System>) {
    for ix in cx.apps.indices() {
        let app = &cx.apps[ix];
        let Some(generation) = app.supervisor.held() else { continue };
        let all: Vec<Standing> = names(app, generation).iter().map(|name| standing(cx, app, name)).collect();
        let failed = all.iter().find_map(|one| if let Standing::Failed(why) = one { Some(why.clone()) } else { None });
        let event = match failed {
            Some(reason) => Event::Abandon { generation, reason },
            None if all.contains(&Standing::Waits) => continue,
            None => Event::Admit { generation },
        };
        if let Event::Abandon { reason, .. } = &event
            && !app.supervisor.is_reloading()
        {
            let why = format!("not started: {reason}");
            log::error!("{}: {why}", app.name);
            cx.apps[ix].start_failure.get_or_insert((why, None));
        }
        cx.events.push_back((ix, event));
    }
}

/// How the app `name` stands for one that waits for it.
fn standing(cx: &Context<impl System>, waiting: &App, name: &str) -> Standing {
    let Some(app) = cx.apps.iter().find(|app| app.name == name && !app.deleted) else { return Standing::Done };
    let rules = &app.supervisor;
    if rules.is_stopping() {
        return Standing::Done;
    }
    if waiting.supervisor.is_reloading() {
        return match app.releases.last_failed() {
            _ if rules.is_reloading() => Standing::Waits,
            true => Standing::Failed(format!("{name}, on which it depends, was not reloaded")),
            false => Standing::Done,
        };
    }
    if rules.is_errored() {
        Standing::Failed(format!("{name}, on which it depends, has failed to start"))
    } else if !rules.was_ready() && !rules.is_over() {
        Standing::Waits
    } else {
        // It serves, has done its work, or is not to run.
        Standing::Done
    }
}
