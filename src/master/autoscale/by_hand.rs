//! Numbers of workers that people set: `clusterd scale`, and signals. Where the number follows the load, theirs holds until
//! they, or a reload that reads the configuration again, end that.
use super::LastChange;
use crate::api::Answer;
use crate::api::request::Scale;
use crate::ids::AppIx;
use crate::master::app::App;
use crate::master::checkpoint;
use crate::master::context::Context;
use crate::master::lifecycle::refusal_while_stopped;
use crate::master::narration::plural;
use crate::master::system::System;
use crate::supervisor::Event;

/// What a client asks for.
pub(in crate::master) fn scale(cx: &mut Context<impl System>, ix: AppIx, to: &Scale) -> Answer {
    if let Some(why) = refusal_while_stopped(cx, ix) {
        return Answer::Refused(why);
    }
    let now = cx.apps[ix].supervisor.wanted_count();
    let name = cx.apps[ix].name.clone();
    match to.resolve(now, cx.system.cpus().count) {
        Err(error) => Answer::Refused(error.to_string()),
        Ok(_) if *to == Scale::Auto => match follow_again(cx, ix) {
            true => Answer::Done(format!("{name}: its workers follow the load")),
            false => Answer::Refused(format!(
                "{name} has a fixed number of workers; write bounds, such as workers = \"2..8\", and reload it"
            )),
        },
        Ok(slots) => {
            set_by_hand(cx, ix, slots);
            cx.events.push_back((ix, Event::Scale { slots }));
            let done = format!("{name}: from {now} to {slots} {}", plural(slots, "worker"));
            Answer::Done(match cx.apps[ix].scaling() {
                Some(_) => format!("{done}, until: clusterd scale {name} auto"),
                None => done,
            })
        }
    }
}

/// A person sets the number of workers of an app: it holds from now on, where the number followed the load.
pub(in crate::master) fn set_by_hand(cx: &mut Context<impl System>, ix: AppIx, to: u32) {
    let now_ms = cx.now_ms;
    let app = &mut cx.apps[ix];
    if app.scaling().is_none() {
        return;
    }
    let text = format!("from {} to {to} {} by hand", app.supervisor.wanted_count(), plural(to, "worker"));
    app.autoscale.last = Some(LastChange { to, text, at_ms: now_ms });
    app.autoscale.by_hand = true;
    app.autoscale.hand_ends_with = None;
    checkpoint::save_app(cx, ix);
}

/// The number of workers follows the load again. Returns whether that can be.
pub(in crate::master) fn follow_again(cx: &mut Context<impl System>, ix: AppIx) -> bool {
    let app = &mut cx.apps[ix];
    if app.scaling().is_none() {
        return false;
    }
    app.autoscale.by_hand = false;
    app.autoscale.rule.pause();
    checkpoint::save_app(cx, ix);
    true
}

/// An app starts with a number that a person had set in an earlier run.
pub(in crate::master) fn start_by_hand(app: &mut App) {
    app.autoscale.by_hand = app.scaling().is_some();
}
