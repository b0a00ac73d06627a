//! Apps that wait for others (`depends_on`): at the first start until those are ready, in a reload of several apps until those were
//! reloaded. (In a stop the others wait for them: `stop_delay`.) The supervisor of an app that waits holds back everything of one
//! generation (`supervisor::App::held`), which is saved; here it is decided when that ends, from the state of the others, whenever
//! something has happened to one of them.
use super::app::App;
use super::context::Context;
use super::stop_delay;
use super::system::System;
use super::tasks::Task;
use crate::ids::{AppIx, Generation};
use crate::supervisor::{Event, Report};
use std::collections::BTreeMap;

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
    !wanted.is_empty() && on.iter().any(|&other| wanted.contains(&cx.apps[other].name))
}

/// Sorts apps so that each comes behind those that it depends on. (The configuration has no circles.)
pub(super) fn sort<T>(cx: &Context<impl System>, all: Vec<T>, of: impl Fn(&T) -> (AppIx, Generation)) -> Vec<T> {
    let places: BTreeMap<&str, usize> =
        all.iter().enumerate().map(|(place, one)| (cx.apps[of(one).0].name.as_str(), place)).collect();
    let after = |one: &T| -> Vec<usize> {
        let (ix, generation) = of(one);
        names(&cx.apps[ix], generation).iter().filter_map(|name| places.get(name.as_str()).copied()).collect()
    };
    let order = in_order(&all.iter().map(after).collect::<Vec<_>>());
    let mut all: Vec<Option<T>> = all.into_iter().map(Some).collect();
    order.into_iter().filter_map(|place| all.get_mut(place)?.take()).collect()
}

/// The numbers of all in an order in which each comes behind those that it depends on.
fn in_order(after: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; after.len()];
    for first in 0..after.len() {
        // Each with how many of its own were looked at.
        let mut open = vec![(first, 0)];
        while let Some((place, next)) = open.pop() {
            if next == 0 && std::mem::replace(&mut seen[place], true) {
                continue;
            }
            match after[place].get(next) {
                Some(&other) => open.extend([(place, next + 1), (other, 0)]),
                None => order.push(place),
            }
        }
    }
    order
}

/// All apps, each before those that it depends on.
pub(super) fn dependents_first(cx: &Context<impl System>) -> Vec<AppIx> {
    let backwards = cx.apps.indices().collect::<Vec<_>>().into_iter().rev().collect();
    let mut sorted = sort(cx, backwards, |&ix| (ix, cx.apps[ix].supervisor.generation()));
    sorted.reverse();
    sorted
}

/// The apps that an app waits for, for people: to start, to be reloaded, or to stop.
pub(super) fn waits_for(cx: &Context<impl System>, ix: AppIx) -> Vec<String> {
    let app = &cx.apps[ix];
    if app.stops_at_ms.is_some() {
        return stop_delay::waits_for(cx, ix);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_behind_those_that_it_depends_on_and_the_others_stay() {
        assert_eq!(in_order(&[vec![], vec![], vec![]]), [0, 1, 2]);
        assert_eq!(in_order(&[vec![2, 1], vec![2], vec![]]), [2, 1, 0]);
        assert_eq!(in_order(&[vec![1], vec![2], vec![3], vec![]]), [3, 2, 1, 0]);
        assert_eq!(in_order(&[vec![1], vec![0]]).len(), 2, "whatever a configuration says");
        let chain: Vec<Vec<usize>> = (0..100_000).map(|n| if n == 0 { vec![] } else { vec![n - 1] }).rev().collect();
        assert_eq!(in_order(&chain).len(), chain.len());
    }
}
