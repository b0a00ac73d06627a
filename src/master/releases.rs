//! The generations of an app that ran, for `releases` and `rollback`: from which folder and configuration each did, and how it went.
//! They are saved, and their sources with them, so that a roll-back works after the death of a master and after an upgrade.
//!
//! A roll-back is a reload from the sources of an earlier generation, with its folder as it was resolved then. The sources that serve
//! after it say so (`Sources::rolled_back`), so whatever replaces workers from them, `cron_restart` or a later start of the machine,
//! stays on that folder, until a reload reads the configuration again.
use super::app::App;
use super::checkpoint;
use super::checkpoint::records::{ReleaseRecord, ReleaseResult};
use super::context::Context;
use super::lifecycle::refusal_while_stopped;
use super::system::System;
use crate::api::Answer;
use crate::api::types as wire;
use crate::config::sources::{RolledBack, Sources};
use crate::ids::{AppIx, Generation};
use crate::supervisor::Report;
use std::collections::BTreeMap;
use std::path::Path;

/// Generations that are remembered for each app.
pub(super) const RELEASES_MAX: usize = 10;

/// The most bytes of a command, or of a reason, that are kept.
pub(super) const WORDS_BYTES_MAX: usize = 200;

/// The generations of one app, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Releases(Vec<ReleaseRecord>);

impl Releases {
    /// From a record. Without their sources (`has`), which may have been lost, there is no way back to them.
    pub(super) fn from_record(mut releases: Vec<ReleaseRecord>, has: impl Fn(u32) -> bool) -> Releases {
        releases.retain(|known| has(known.source) || matches!(known.result, ReleaseResult::Failed { .. }));
        Releases(releases)
    }

    pub(super) fn to_record(&self) -> Vec<ReleaseRecord> {
        self.0.clone()
    }

    fn get(&self, generation: Generation) -> Option<&ReleaseRecord> {
        self.0.iter().find(|release| release.generation == generation)
    }

    /// A generation begins; the oldest one is forgotten where there are too many, but for the one that serves.
    fn begin(&mut self, release: ReleaseRecord, serving: Generation) {
        self.0.retain(|known| known.generation != release.generation);
        self.0.push(release);
        while self.0.len() > RELEASES_MAX {
            let oldest = self.0.iter().position(|known| known.generation != serving).unwrap_or(0);
            self.0.remove(oldest);
        }
    }

    /// Whether the last one that began has failed.
    pub(super) fn last_failed(&self) -> bool {
        self.0.last().is_some_and(|release| matches!(release.result, ReleaseResult::Failed { .. }))
    }

    fn forget(&mut self, generation: Generation) {
        self.0.retain(|known| known.generation != generation);
    }

    fn fail(&mut self, generation: Generation, reason: &str) {
        if let Some(release) = self.0.iter_mut().find(|known| known.generation == generation) {
            release.result = ReleaseResult::Failed { reason: cut(reason) };
        }
    }

    /// A generation serves alone. One before it that is the same (`same`, of their sources) is it; one that was left by a roll-back is
    /// marked as that.
    fn serve(&mut self, generation: Generation, same: impl Fn(u32, u32) -> bool) {
        let Some(at) = self.0.iter().position(|known| known.generation == generation) else { return };
        self.0[at].result = ReleaseResult::Served {};
        let now = self.0[at].clone();
        let Some(last) = self.0[..at].iter().rposition(|known| known.result == ReleaseResult::Served {}) else {
            return;
        };
        let before = &mut self.0[last];
        if before.folder == now.folder && before.back_to == now.back_to && same(before.source, now.source) {
            self.0.remove(last);
        } else if now.back_to.is_some() && before.back_to != now.back_to {
            before.result = ReleaseResult::RolledBack {};
        }
    }

    /// The generation that a roll-back goes to: `to`, or the last one that served before the one that serves.
    fn way_back(&self, serving: Generation, to: Option<Generation>) -> Result<&ReleaseRecord, NoWayBack> {
        let own = self.get(serving).and_then(|release| release.back_to).unwrap_or(serving);
        let Some(to) = to else {
            let before = |known: &&ReleaseRecord| {
                known.generation < own && known.generation != serving && known.result == ReleaseResult::Served {}
            };
            return self.0.iter().rev().find(before).ok_or(NoWayBack::First(own));
        };
        match self.get(to) {
            _ if to == serving || to == own => Err(NoWayBack::Serves(to)),
            None => Err(NoWayBack::Unknown(to)),
            Some(ReleaseRecord { result: ReleaseResult::Failed { reason }, .. }) => {
                Err(NoWayBack::Failed(to, reason.clone()))
            }
            Some(ReleaseRecord { result: ReleaseResult::Starting {}, .. }) => Err(NoWayBack::Serves(to)),
            Some(release) => Ok(release),
        }
    }

    /// The sources that a roll-back may need.
    pub(super) fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        let may = |release: &&ReleaseRecord| !matches!(release.result, ReleaseResult::Failed { .. });
        self.0.iter().filter(may).map(|release| release.source)
    }
}

/// Why there is nothing to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum NoWayBack {
    #[error(
        "no generation served before generation {0}; reloads in the same folder and with the same configuration count as one, so \
         deploy each release into a folder of its own"
    )]
    First(Generation),
    #[error("generation {0} serves already")]
    Serves(Generation),
    #[error("generation {0} is not among those that are remembered")]
    Unknown(Generation),
    #[error("generation {0} has never served: {1}")]
    Failed(Generation, String),
}

/// A text with a bound, for a record.
pub(super) fn cut(text: &str) -> String {
    let end = (0..=text.len().min(WORDS_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// A generation begins: it was prepared, and its workers are about to start.
pub(super) fn begin(cx: &mut Context<impl System>, ix: AppIx, generation: Generation) {
    let at_ms = u64::try_from(cx.system.local_time().timestamp().as_millisecond()).unwrap_or(0);
    let app = &mut cx.apps[ix];
    let Some(settings) = app.generations.get(&generation) else { return };
    let back = cx.deployment.sources.get(&settings.source).and_then(|sources| sources.rolled_back.get(&app.name));
    let release = ReleaseRecord {
        generation,
        at_ms,
        folder: settings.cwd.to_string_lossy().into_owned(),
        command: cut(&settings.config.command.join(" ")),
        source: settings.source,
        // An earlier run of the deployment counted its own generations.
        back_to: back.map(|back| Generation(back.generation)).filter(|to| *to < generation),
        result: ReleaseResult::Starting {},
    };
    let serving = app.supervisor.generation();
    app.releases.begin(release, serving);
    checkpoint::save_releases(cx, ix);
}

/// After a takeover: the generation that serves is remembered, whatever of the records was lost.
pub(super) fn resume(cx: &mut Context<impl System>, ix: AppIx) {
    let serving = cx.apps[ix].supervisor.generation();
    if cx.apps[ix].releases.get(serving).is_none() {
        begin(cx, ix, serving);
        if cx.apps[ix].supervisor.was_ready() {
            note(cx, ix, &Report::AppReady { workers: 0 });
        }
    }
}

/// Notes how a generation went.
pub(super) fn note(cx: &mut Context<impl System>, ix: AppIx, report: &Report) {
    let app = &mut cx.apps[ix];
    let current = app.supervisor.generation();
    let starts = app.releases.get(current).is_some_and(|release| release.result == ReleaseResult::Starting {});
    match report {
        Report::ReloadDone { to } => serve(cx, ix, *to),
        Report::AppReady { .. } if starts => serve(cx, ix, current),
        Report::ReloadFailed { to, reason } => app.releases.fail(*to, reason),
        Report::AppErrored if starts => {
            let why = app.start_failure.as_ref().map_or("every worker failed", |(why, _)| why.as_str());
            app.releases.fail(current, why);
        }
        Report::ReloadSuperseded { to, .. } | Report::StartDropped { to } | Report::StartSuperseded { to } => {
            app.releases.forget(*to);
        }
        _ => return,
    }
    checkpoint::save_releases(cx, ix);
}

fn serve(cx: &mut Context<impl System>, ix: AppIx, generation: Generation) {
    let sources = &cx.deployment.sources;
    let same = |one: u32, other: u32| sources.get(&one).is_some_and(|one| sources.get(&other) == Some(one));
    cx.apps[ix].releases.serve(generation, same);
}

/// The sources from which an app goes back to generation `to`, or to the one before that which serves.
///
/// # Errors
/// There is none, and what to do.
pub(super) fn way_back(cx: &Context<impl System>, ix: AppIx, to: Option<u32>) -> Result<Sources, Answer> {
    if let Some(why) = refusal_while_stopped(cx, ix) {
        return Err(Answer::Refused(why));
    }
    let app = &cx.apps[ix];
    let name = &app.name;
    let refused = |why: String| Answer::Refused(format!("{name} cannot go back: {why}; see clusterd releases {name}"));
    if app.supervisor.is_reloading() {
        return Err(refused("a reload is under way, and returns by itself if it fails".to_owned()));
    }
    let found = app.releases.way_back(app.supervisor.generation(), to.map(Generation));
    let release = found.map_err(|why| refused(why.to_string()))?;
    let (generation, folder) = (release.generation, &release.folder);
    if !cx.system.is_folder(Path::new(folder)) {
        let why = format!("the folder of generation {generation} is gone: {folder}");
        return Err(refused(format!("{why} (another one: clusterd rollback {name} --to GENERATION)")));
    }
    let sources = cx.deployment.sources.get(&release.source);
    let sources = sources.ok_or_else(|| refused(format!("the configuration of generation {generation} is lost")))?;
    // That of a roll-back has its own inside.
    let own = sources.rolled_back.get(name).map_or(sources, |back| &*back.sources);
    let own = Sources { rolled_back: BTreeMap::new(), ..own.clone() };
    let back = RolledBack {
        generation: release.back_to.unwrap_or(generation).0,
        folder: folder.clone(),
        sources: Box::new(own),
    };
    let mut all = cx.deployment.current_sources().cloned().unwrap_or_else(|| sources.clone());
    all.rolled_back.insert(name.clone(), back);
    Ok(all)
}

/// What a reload that has ended was, in an answer: the name, and where a roll-back went.
pub(super) fn reloaded_words(app: &App) -> String {
    let release = app.releases.get(app.supervisor.generation());
    match release.and_then(|release| Some((release.back_to?, &release.folder))) {
        Some((to, folder)) => format!("{} (back to generation {to}, {folder})", app.name),
        None => app.name.clone(),
    }
}

/// The generations as the API shows them, the last one first.
pub(super) fn view(app: &App) -> Vec<wire::Release> {
    let serving = app.supervisor.generation();
    let shown = |release: &ReleaseRecord| {
        let (state, reason) = match &release.result {
            ReleaseResult::Starting {} => (wire::ReleaseState::Starting, None),
            ReleaseResult::Failed { reason } => (wire::ReleaseState::Failed, Some(reason.clone())),
            _ if release.generation == serving => (wire::ReleaseState::Serving, None),
            ReleaseResult::Served {} => (wire::ReleaseState::Served, None),
            ReleaseResult::RolledBack {} => (wire::ReleaseState::RolledBack, None),
        };
        wire::Release {
            generation: release.generation.0,
            at_ms: release.at_ms,
            folder: release.folder.clone(),
            command: release.command.clone(),
            state,
            back_to: release.back_to.map(|to| to.0),
            reason,
        }
    };
    app.releases.0.iter().rev().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(releases: &mut Releases, number: u32, folder: &str, back_to: Option<u32>) {
        begun(releases, number, folder, back_to);
        releases.serve(Generation(number), |one, other| one == other);
    }

    fn begun(releases: &mut Releases, number: u32, folder: &str, back_to: Option<u32>) {
        let release = ReleaseRecord {
            generation: Generation(number),
            at_ms: 0,
            folder: folder.to_owned(),
            command: "node app.js".to_owned(),
            source: 1,
            back_to: back_to.map(Generation),
            result: ReleaseResult::Starting {},
        };
        releases.begin(release, Generation(number.saturating_sub(1)));
    }

    fn back(releases: &Releases, serving: u32, to: Option<u32>) -> Result<u32, NoWayBack> {
        releases.way_back(Generation(serving), to.map(Generation)).map(|release| release.generation.0)
    }

    #[test]
    fn each_roll_back_goes_one_further_and_a_new_release_begins_from_there() {
        let mut releases = Releases::default();
        ran(&mut releases, 1, "a", None);
        assert_eq!(back(&releases, 1, None), Err(NoWayBack::First(Generation(1))));
        ran(&mut releases, 2, "b", None);
        ran(&mut releases, 3, "c", None);
        assert_eq!(back(&releases, 3, None), Ok(2));
        ran(&mut releases, 4, "b", Some(2));
        assert_eq!(back(&releases, 4, None), Ok(1));
        assert_eq!(back(&releases, 4, Some(3)), Ok(3), "forward again, if somebody says so");
        assert_eq!(back(&releases, 4, Some(2)), Err(NoWayBack::Serves(Generation(2))));
        ran(&mut releases, 5, "d", None);
        assert_eq!(back(&releases, 5, None), Ok(4), "and not to 3, which was left");
    }

    #[test]
    fn nothing_goes_back_to_itself() {
        let mut releases = Releases::default();
        ran(&mut releases, 1, "a", Some(5));
        assert!(matches!(back(&releases, 1, None), Err(NoWayBack::First(_))));
    }

    #[test]
    fn what_never_served_is_no_way_back() {
        let mut releases = Releases::default();
        ran(&mut releases, 1, "a", None);
        begun(&mut releases, 2, "b", None);
        releases.fail(Generation(2), "before exited with code 1");
        assert!(matches!(back(&releases, 1, None), Err(NoWayBack::First(_))));
        assert!(matches!(back(&releases, 1, Some(2)), Err(NoWayBack::Failed(..))));
        assert_eq!(back(&releases, 1, Some(9)), Err(NoWayBack::Unknown(Generation(9))));
        ran(&mut releases, 3, "c", None);
        assert_eq!(back(&releases, 3, None), Ok(1));
    }

    #[test]
    fn the_same_release_again_is_one_and_their_number_is_bounded() {
        let mut releases = Releases::default();
        ran(&mut releases, 1, "a", None);
        for nightly in 2..40 {
            ran(&mut releases, nightly, "b", None);
        }
        assert_eq!(releases.0.len(), 2);
        assert_eq!(back(&releases, 39, None), Ok(1));
        for number in 40..80 {
            ran(&mut releases, number, &number.to_string(), None);
        }
        assert_eq!(releases.0.len(), RELEASES_MAX);
        for bad in 80..120 {
            begun(&mut releases, bad, "bad", None);
            releases.fail(Generation(bad), &"ü".repeat(300));
        }
        assert_eq!(releases.0.len(), RELEASES_MAX);
    }
}
