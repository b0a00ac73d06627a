//! Workers that follow the load: measures it, twice a second, and has the supervisor change the number of workers as its
//! rule says (`supervisor::autoscale`). Numbers that people set are in `by_hand`.
mod by_hand;
mod load;

use super::app::App;
use super::checkpoint;
use super::checkpoint::records::ScaleRecord;
use super::context::Context;
use super::narration::plural;
use super::settings::Settings;
use super::system::System;
use super::timers::Timer;
use crate::api::types as wire;
use crate::config::scaling::ScheduleEntry;
use crate::config::{Scaling, cron};
use crate::ids::{AppIx, Generation, WorkerId};
use crate::limits;
use crate::supervisor::{Autoscaler, Event, Measure, Report, ScaleChange, ScaleReason, ScaleRule};
pub(super) use by_hand::{follow_again, scale, set_by_hand, start_by_hand};
use jiff::ZonedDateTime;
use load::Meters;

/// How often the load of an app is measured, in milliseconds.
const SAMPLE_EVERY_MS: u64 = 500;
/// Workers that are read in one turn of the loop.
const READS_PER_TURN_MAX: usize = 32;
/// Pause before the next ones, in milliseconds.
const READ_PAUSE_MS: u64 = 2;
/// Rounds in a row in which no worker that serves could be read, after which that is said.
const BLIND_ROUNDS: u32 = 20;
/// How often the CPUs of this process are counted for bounds that depend on them, in milliseconds.
const CPUS_EVERY_MS: u64 = 10_000;

/// An app's part of this.
#[derive(Default)]
pub(super) struct Autoscale {
    rule: Autoscaler,
    /// A person set the number of workers.
    by_hand: bool,
    /// The reload, or start, with which that ends.
    hand_ends_with: Option<Generation>,
    last: Option<LastChange>,
    meters: Meters,
    /// Workers that are still to be read in this round.
    unread: Vec<WorkerId>,
    /// When the next round begins, in milliseconds.
    next_ms: u64,
    /// The load of one worker in the last round, on average, in thousandths.
    each_milli: Option<u64>,
    /// Rounds in a row in which no worker that serves could be read.
    blind_rounds: u32,
    schedule: Schedule,
    /// CPUs of this process, and when they were counted (milliseconds).
    cpus: Option<(u32, u64)>,
}

/// Why the number of workers changed last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LastChange {
    to: u32,
    /// "from 2 to 4 workers: cpu use 93%, target 70%"
    text: String,
    at_ms: u64,
}

/// Which entry of the schedule holds.
#[derive(Default)]
struct Schedule {
    entries: Vec<ScheduleEntry>,
    holds: Option<usize>,
    /// From when to when that was found to hold.
    from: Option<ZonedDateTime>,
    until: Option<ZonedDateTime>,
}

impl Schedule {
    fn lower_bound(&mut self, entries: &[ScheduleEntry], now: &ZonedDateTime) -> Option<&ScheduleEntry> {
        let set_back = self.from.as_ref().is_none_or(|from| from > now);
        if set_back || self.entries != entries || self.until.as_ref().is_some_and(|until| until <= now) {
            self.entries = entries.to_vec();
            let begun = entries.iter().enumerate().filter_map(|(n, entry)| Some((cron::last(&entry.cron, now)?, n)));
            // Of two at the same time the later one in the list.
            self.holds =
                begun.max_by(|(a, n), (b, m)| a.timestamp().cmp(&b.timestamp()).then(n.cmp(m))).map(|(_, n)| n);
            self.until =
                entries.iter().filter_map(|entry| cron::next(&entry.cron, now)).min_by_key(ZonedDateTime::timestamp);
            self.from = Some(now.clone());
        }
        self.entries.get(self.holds?)
    }
}

impl Autoscale {
    pub(super) fn is_by_hand(&self) -> bool {
        self.by_hand
    }

    /// For the checkpoint.
    pub(super) fn to_record(&self) -> ScaleRecord {
        ScaleRecord {
            by_hand: self.by_hand,
            hand_ends_with: self.hand_ends_with,
            rule: self.rule.snapshot(),
            last_to: self.last.as_ref().map_or(0, |last| last.to),
            last_text: self.last.as_ref().map(|last| last.text.clone()),
            last_at_ms: self.last.as_ref().map_or(0, |last| last.at_ms),
        }
    }

    /// As another master left it.
    pub(super) fn from_record(record: &ScaleRecord) -> Autoscale {
        let (to, at_ms) = (record.last_to, record.last_at_ms);
        Autoscale {
            rule: Autoscaler::restore(&record.rule),
            by_hand: record.by_hand,
            hand_ends_with: record.hand_ends_with,
            last: record.last_text.clone().map(|text| LastChange { to, text, at_ms }),
            ..Autoscale::default()
        }
    }

    /// Says once that the system tells nothing of the workers' load.
    fn warn_if_blind(&mut self, app: &str, by: Measure, sees: bool) {
        self.blind_rounds = if sees { 0 } else { self.blind_rounds.saturating_add(1) };
        if self.blind_rounds == BLIND_ROUNDS {
            let by = by.name();
            log::warn!(
                "{app}: cannot read the load of its workers from /proc (by = \"{by}\"); their number stays as it is"
            );
        }
    }

    /// CPUs of this process, as of a moment ago.
    fn cpus(&mut self, system: &impl System, now_ms: u64) -> u32 {
        match self.cpus {
            Some((count, at_ms)) if now_ms.saturating_sub(at_ms) < CPUS_EVERY_MS => count,
            _ => {
                let count = system.cpus().count;
                self.cpus = Some((count, now_ms));
                count
            }
        }
    }
}

impl App {
    /// How the number of workers follows the load, if it does.
    pub(super) fn scaling(&self) -> Option<&Scaling> {
        self.settings().config.scale.as_ref()
    }

    /// Nothing that can be measured now tells of the load to come.
    fn is_in_change(&self) -> bool {
        let rules = &self.supervisor;
        let ends = rules.is_stopping() || rules.is_over() || self.closed || self.deleted;
        ends || self.starting || rules.is_reloading()
    }
}

/// The bounds of an app's workers, without its schedule.
pub(super) fn bounds(settings: &Settings, cpus: u32) -> (u32, u32) {
    let room = limits::WORKERS_MAX.saturating_sub(settings.config.spares).max(1);
    let min = settings.config.workers.count(cpus).min(room);
    (min, settings.config.workers_most(cpus).clamp(min, room))
}

/// Sets the timer where an app follows its load.
pub(super) fn arm(cx: &mut Context<impl System>) {
    let due = |app: &App| match app.autoscale.unread.is_empty() {
        true => app.autoscale.next_ms,
        false => cx.now_ms,
    };
    let next_ms = cx.apps.iter().filter(|app| app.scaling().is_some() && !app.deleted).map(due).min();
    if let Some(next_ms) = next_ms {
        cx.timers.set_earlier(Timer::Autoscale, next_ms.max(cx.now_ms + READ_PAUSE_MS));
    }
}

/// Measures, and decides, when that is due.
pub(super) fn look(cx: &mut Context<impl System>) {
    if !cx.timers.take_due(Timer::Autoscale, cx.now_ms) {
        return;
    }
    let mut left = READS_PER_TURN_MAX;
    for ix in cx.apps.indices() {
        look_at(cx, ix, &mut left);
    }
    arm(cx);
}

fn look_at(cx: &mut Context<impl System>, ix: AppIx, left: &mut usize) {
    let app = &mut cx.apps[ix];
    let Some(by) = app.scaling().map(|scaling| scaling.by) else { return };
    if app.deleted || (app.autoscale.unread.is_empty() && cx.now_ms < app.autoscale.next_ms) {
        return;
    }
    let cpus = app.autoscale.cpus(&cx.system, cx.now_ms);
    if app.autoscale.unread.is_empty() {
        app.autoscale.next_ms = cx.now_ms + SAMPLE_EVERY_MS;
        let serving: Vec<WorkerId> = app.supervisor.workers().filter(load::serves).map(|w| w.id).collect();
        app.autoscale.meters.keep(&serving);
        app.autoscale.unread = serving;
    }
    while *left > 0
        && let Some(id) = app.autoscale.unread.pop()
    {
        *left -= 1;
        if let Some(pid) = app.supervisor.worker(id).and_then(|worker| worker.pid) {
            app.autoscale.meters.read(&cx.system, by, id, pid, cpus);
        }
    }
    if app.autoscale.unread.is_empty() {
        decide(cx, ix, by, cpus);
    }
}

fn decide(cx: &mut Context<impl System>, ix: AppIx, by: Measure, cpus: u32) {
    let before = cx.apps[ix].autoscale.rule.snapshot();
    let sample = load::sample(cx, ix, &cx.apps[ix].autoscale.meters, by);
    let (rule, entry) = rule(cx, ix, cpus);
    let Some(rule) = rule else { return };
    let app = &mut cx.apps[ix];
    app.autoscale.warn_if_blind(&app.name, by, sample.measured > 0 || app.supervisor.serving_count() == 0);
    app.autoscale.each_milli = sample.load_milli.checked_div(u64::from(sample.measured));
    let wanted = app.supervisor.wanted_count();
    let change = if app.is_in_change() || app.autoscale.by_hand {
        app.autoscale.rule.pause();
        None
    } else {
        app.autoscale.rule.observe(&rule, wanted, Some(&sample), cx.now_ms)
    };
    if let Some(change) = change {
        let text = change_words(by, &change, entry.as_deref());
        app.autoscale.last = Some(LastChange { to: change.to, text, at_ms: cx.now_ms });
        cx.events.push_back((ix, Event::Scale { slots: change.to }));
    } else if app.autoscale.rule.snapshot() != before {
        checkpoint::save_app(cx, ix);
    }
}

/// The rule as it is at this time, and the entry of the schedule that raises its lower bound.
fn rule(cx: &mut Context<impl System>, ix: AppIx, cpus: u32) -> (Option<ScaleRule>, Option<String>) {
    let app = &mut cx.apps[ix];
    let (mut min, max) = bounds(app.settings(), cpus);
    let Some(scaling) = app.scaling().cloned() else { return (None, None) };
    let mut raised_by = None;
    if !scaling.schedule.is_empty() {
        let now = cx.system.local_time();
        if let Some(entry) = app.autoscale.schedule.lower_bound(&scaling.schedule, &now) {
            let scheduled = entry.workers.count(cpus).clamp(min, max);
            raised_by = (scheduled > min).then(|| entry.cron.clone());
            min = scheduled;
        }
    }
    let ms = |time: std::time::Duration| time.as_millis() as u64;
    let (grow_after_ms, cooldown_ms) = (ms(scaling.grow_after), ms(scaling.cooldown));
    let rule = ScaleRule { by: scaling.by, min, max, target_milli: scaling.target_milli, grow_after_ms, cooldown_ms };
    (Some(rule), raised_by)
}

/// The number of workers for a new generation. `keeps_hand`: a number that a person set still holds.
pub(super) fn workers_for(app: &mut App, to: Generation, settings: &Settings, keeps_hand: bool, cpus: u32) -> u32 {
    let wanted = app.supervisor.wanted_count();
    let is_hand = app.autoscale.by_hand && keeps_hand;
    app.autoscale.hand_ends_with = (!is_hand || settings.config.scale.is_none()).then_some(to);
    match &settings.config.scale {
        None if keeps_hand => wanted,
        None => settings.config.workers.count(cpus),
        Some(_) if is_hand => wanted,
        Some(_) => {
            let (min, max) = bounds(settings, cpus);
            // The load is what it was, unless nothing ran.
            if app.supervisor.is_stopped() || app.supervisor.is_over() { min } else { wanted.clamp(min, max) }
        }
    }
}

/// Once a generation serves alone, what the one before measured, and perhaps a number set by hand, belong to the past.
pub(super) fn note(app: &mut App, report: &Report) {
    let (Report::ReloadDone { to: generation } | Report::Started { to: generation }) = *report else { return };
    app.autoscale.meters.clear();
    if app.autoscale.hand_ends_with == Some(generation) {
        (app.autoscale.by_hand, app.autoscale.hand_ends_with) = (false, None);
    }
    let (wanted, follows) = (app.supervisor.wanted_count(), app.scaling().is_some());
    app.autoscale.last.take_if(|last| last.to != wanted || !follows);
}

/// How an app follows its load, for the control API.
pub(super) fn view(cx: &Context<impl System>, ix: AppIx) -> Option<wire::Autoscale> {
    let app = &cx.apps[ix];
    let scaling = app.scaling()?;
    let state = &app.autoscale;
    let (min, max) = bounds(app.settings(), state.cpus.map_or_else(|| cx.system.cpus().count, |(count, _)| count));
    let whole = |milli: u64| milli as f64 / 1_000.0;
    Some(wire::Autoscale {
        min,
        max,
        by: wire::ScaleBy::from_word(scaling.by.name()),
        target: whole(scaling.target_milli),
        load: state.each_milli.map(whole),
        by_hand: state.by_hand,
        last_change: state.last.as_ref().map(|last| last.text.clone()),
        last_change_ms_ago: state.last.as_ref().map(|last| cx.now_ms.saturating_sub(last.at_ms)),
    })
}

/// What a change of the number of workers says.
pub(super) fn scaled_words(app: &App, to: u32) -> String {
    match app.autoscale.last.as_ref().filter(|last| last.to == to) {
        Some(last) => format!("scaled {}", last.text),
        None => format!("scaled to {to} {}", plural(to, "worker")),
    }
}

/// "from 2 to 4 workers: cpu use 93%, target 70%"
fn change_words(by: Measure, change: &ScaleChange, schedule: Option<&str>) -> String {
    let ScaleChange { from, to, reason } = *change;
    let why = match (reason, schedule) {
        (ScaleReason::Load { each_milli, target_milli }, _) => load_words(by, each_milli, target_milli),
        (ScaleReason::Least, Some(cron)) => format!("schedule \"{cron}\""),
        (ScaleReason::Least, None) => format!("at least {to}"),
        (ScaleReason::Most, _) => format!("at most {to}"),
    };
    format!("from {from} to {to} {}: {why}", plural(to, "worker"))
}

fn load_words(by: Measure, each_milli: u64, target_milli: u64) -> String {
    match by {
        Measure::Cpu | Measure::Loop => {
            format!("{} use {}%, target {}%", by.name(), each_milli / 10, target_milli / 10)
        }
        Measure::Queue => {
            let (whole, tenth) = (each_milli / 1_000, each_milli % 1_000 / 100);
            format!("{whole}.{tenth} connections wait for each, target {}", target_milli / 1_000)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Workers;

    fn entry(cron: &str, workers: u32) -> ScheduleEntry {
        ScheduleEntry { cron: cron.to_owned(), workers: Workers::Exactly(workers) }
    }

    #[test]
    fn the_entry_whose_time_came_last_holds() {
        let day = [entry("0 8 * * 1-5", 4), entry("0 20 * * *", 2)];
        let mut schedule = Schedule::default();
        // Friday evening to Monday morning, then the clock is set back.
        for (now, workers) in [
            ("2026-03-06T07:59:59+01:00[Europe/Berlin]", 2),
            ("2026-03-06T08:00:00+01:00[Europe/Berlin]", 4),
            ("2026-03-06T19:59:59+01:00[Europe/Berlin]", 4),
            ("2026-03-06T20:00:00+01:00[Europe/Berlin]", 2),
            ("2026-03-08T12:00:00+01:00[Europe/Berlin]", 2),
            ("2026-03-09T08:00:01+01:00[Europe/Berlin]", 4),
            ("2026-03-09T07:00:00+01:00[Europe/Berlin]", 2),
        ] {
            let holds = schedule.lower_bound(&day, &now.parse().unwrap()).unwrap();
            assert_eq!(holds.workers, Workers::Exactly(workers), "{now}");
        }
        let now = "2026-03-09T07:00:01+01:00[Europe/Berlin]".parse().unwrap();
        let other = [entry("0 6 * * *", 7)];
        assert_eq!(schedule.lower_bound(&other, &now).unwrap().workers, Workers::Exactly(7), "a reload");
        assert_eq!(schedule.lower_bound(&[], &now), None);
    }

    #[test]
    fn a_change_says_why() {
        let change = |reason| ScaleChange { from: 2, to: 4, reason };
        let load = |each_milli, target_milli| ScaleReason::Load { each_milli, target_milli };
        for (by, reason, schedule, says) in [
            (Measure::Cpu, load(934, 700), Some("0 8 * * *"), "cpu use 93%, target 70%"),
            (Measure::Loop, load(1_000, 500), None, "loop use 100%, target 50%"),
            (Measure::Queue, load(6_500, 4_000), None, "6.5 connections wait for each, target 4"),
            (Measure::Cpu, ScaleReason::Least, Some("0 8 * * *"), "schedule \"0 8 * * *\""),
            (Measure::Cpu, ScaleReason::Least, None, "at least 4"),
            (Measure::Cpu, ScaleReason::Most, None, "at most 4"),
        ] {
            assert_eq!(change_words(by, &change(reason), schedule), format!("from 2 to 4 workers: {says}"));
        }
    }
}
