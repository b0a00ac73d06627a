//! In a container, whoever stops it kills it after a time that nobody tells us: `docker stop` after 10 s, Kubernetes after 30 s, unless
//! they are told otherwise. A drain that may take longer is reported when it can still be helped: at the start, when the stop begins,
//! and, with what is left, a moment before the kill.
use super::app::App;
use super::context::Context;
use super::dependencies;
use super::narration::plural;
use super::settings::Settings;
use super::system::System;
use super::timers::Timer;
use crate::os::container::Container;
use crate::text::time_limit;
use std::collections::BTreeMap;

/// How long before the kill the last report comes, in milliseconds.
const BEFORE_KILL_MS: u64 = 2_000;

/// How a kind of container is stopped.
struct Stopper {
    name: &'static str,
    /// It kills this long after SIGTERM, unless its setting says otherwise. In milliseconds.
    kills_after_ms: u64,
    setting: &'static str,
}

static DOCKER: Stopper =
    Stopper { name: "docker stop", kills_after_ms: 10_000, setting: "stop_grace_period (docker stop --timeout)" };
static KUBERNETES: Stopper =
    Stopper { name: "Kubernetes", kills_after_ms: 30_000, setting: "terminationGracePeriodSeconds" };

/// The longest that a stop may take, and the settings that add up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Longest {
    ms: u64,
    app: String,
    settings: String,
    /// The settings are those of several apps, with their names.
    is_chain: bool,
}

impl Longest {
    /// Of an app that stops after another one.
    fn after(self, other: Longest) -> Longest {
        let first = if other.is_chain { other.settings } else { format!("{}: {}", other.app, other.settings) };
        let settings = format!("{first}, then {}: {}", self.app, self.settings);
        Longest { ms: self.ms.saturating_add(other.ms), settings, is_chain: true, ..self }
    }
}

/// Says at the start what a stop may take.
pub(super) fn tell_at_start(cx: &Context<impl System>) {
    let Some((stopper, longest)) = overlong(cx) else { return };
    let Longest { ms, app, settings, .. } = longest;
    log::info!(
        "{app}: a stop may take {} ({settings}); {} kills after {}: set {} above that, or lower these",
        time_limit(ms),
        stopper.name,
        time_limit(stopper.kills_after_ms),
        stopper.setting
    );
}

/// A signal to stop has come.
pub(super) fn begin(cx: &mut Context<impl System>) {
    let Some((stopper, Longest { ms, app, settings, .. })) = overlong(cx) else { return };
    log::warn!(
        "{app}: finishing open connections may take {} ({settings}); {} kills after {}, where {} is not longer",
        time_limit(ms),
        stopper.name,
        time_limit(stopper.kills_after_ms),
        stopper.setting
    );
    let at_ms = cx.deployment.stop_asked_ms + stopper.kills_after_ms - BEFORE_KILL_MS;
    cx.timers.set(Timer::StopReport, at_ms);
}

/// Says what is left, shortly before the container is killed.
pub(super) fn look(cx: &mut Context<impl System>) {
    if !cx.timers.take_due(Timer::StopReport, cx.now_ms) {
        return;
    }
    let Some((stopper, _)) = overlong(cx) else { return };
    let left = cx.apps.iter().filter_map(|app| {
        let workers = app.supervisor.workers().filter(|worker| worker.pid.is_some()).count() as u32;
        (workers > 0).then(|| format!("{} ({workers} {})", app.name, plural(workers, "worker")))
    });
    let left: Vec<String> = left.collect();
    if left.is_empty() {
        return;
    }
    log::warn!(
        "{} after the stop, connections are still open: {}; {} cuts them in {}, where {} is not longer",
        time_limit(cx.now_ms.saturating_sub(cx.deployment.stop_asked_ms) / 1_000 * 1_000),
        left.join(", "),
        stopper.name,
        time_limit(BEFORE_KILL_MS),
        stopper.setting
    );
}

/// Continues as the previous master would have.
pub(super) fn resume(cx: &mut Context<impl System>) {
    let asked_ms = cx.deployment.stop_asked_ms;
    if let Some((stopper, _)) = overlong(cx).filter(|_| asked_ms > 0) {
        let at_ms = asked_ms + stopper.kills_after_ms - BEFORE_KILL_MS;
        if at_ms > cx.now_ms {
            cx.timers.set(Timer::StopReport, at_ms);
        }
    }
}

/// Whoever stops this container, where a stop may take longer than that waits.
fn overlong(cx: &Context<impl System>) -> Option<(&'static Stopper, Longest)> {
    if cx.deployment.background {
        return None;
    }
    let stopper = match cx.system.container()? {
        Container::Kubernetes => &KUBERNETES,
        Container::Plain => &DOCKER,
    };
    let mut before: BTreeMap<&str, Longest> = BTreeMap::new();
    for ix in dependencies::dependents_first(cx) {
        let app = &cx.apps[ix];
        if app.supervisor.is_stopped() {
            continue;
        }
        let waits =
            |other: &&App| !other.supervisor.is_stopped() && other.settings().config.depends_on.contains(&app.name);
        let others = cx.apps.iter().filter(waits).filter_map(|other| before.get(other.name.as_str()));
        let longest = match others.max_by_key(|longest| longest.ms).cloned() {
            None => longest(&app.name, app.settings(), app.settings().drain_delay_ms()),
            // Its delay passes meanwhile.
            Some(other) => longest(&app.name, app.settings(), 0).after(other),
        };
        before.insert(&app.name, longest);
    }
    let longest = before.into_values().max_by_key(|longest| longest.ms)?;
    (longest.ms > stopper.kills_after_ms).then_some((stopper, longest))
}

/// The agent ends when the last worker has.
fn longest(app: &str, settings: &Settings, drain_delay_ms: u64) -> Longest {
    let policy = settings.policy();
    let agent_ms = policy.agent.as_ref().map_or(0, |agent| agent.kill_timeout_ms);
    added_up(
        app,
        &[
            ("drain_delay", drain_delay_ms),
            ("drain_timeout", policy.drain_timeout_ms),
            ("kill_timeout", policy.kill_timeout_ms),
            ("the agent's kill_timeout", agent_ms),
        ],
    )
}

fn added_up(app: &str, times: &[(&str, u64)]) -> Longest {
    let counted = times.iter().filter(|(_, ms)| *ms > 0);
    let settings: Vec<String> = counted.map(|(name, ms)| format!("{name} {}", time_limit(*ms))).collect();
    let ms = times.iter().fold(0, |sum: u64, (_, ms)| sum.saturating_add(*ms));
    Longest { ms, app: app.to_owned(), settings: settings.join(" + "), is_chain: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stop_names_the_settings_that_count() {
        let times = [("drain_delay", 0), ("drain_timeout", 30_000), ("kill_timeout", 1_500)];
        let settings = "drain_timeout 30 s + kill_timeout 1.5 s".to_owned();
        let longest = Longest { ms: 31_500, app: "web".into(), settings, is_chain: false };
        assert_eq!(added_up("web", &times), longest);
        assert_eq!(added_up("web", &[("drain_timeout", u64::MAX), ("kill_timeout", 5)]).ms, u64::MAX);
        let api = added_up("api", &[("kill_timeout", 5_000)]).after(longest);
        let db = added_up("db", &[("kill_timeout", 1_000)]).after(api);
        let chain =
            "web: drain_timeout 30 s + kill_timeout 1.5 s, then api: kill_timeout 5 s, then db: kill_timeout 1 s";
        assert_eq!((db.ms, db.app.as_str(), db.settings.as_str()), (37_500, "db", chain));
    }
}
