//! `balance = "auto"` at run time: what a worker shows when its generation first asks for a socket may speak against a balance in which
//! workers accept by themselves. Then the generation is `round-robin` before anybody has a socket. What is known earlier is judged
//! in `config::balancing`.
use super::context::Context;
use super::kernel_mode::{deferral, groups};
use super::system::System;
use super::{checkpoint, listener};
use crate::config::balancing::{Decided, Why};
use crate::ids::WorkerIx;
use crate::worker::node::lines::{AddressType, Query};

/// Before the answer to a worker's request for a socket.
pub(super) fn judge(cx: &mut Context<impl System>, ix: WorkerIx, query: &Query) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app_ix, generation, id) = (worker.app, worker.generation, worker.id);
    let Some(settings) = cx.apps[app_ix].generations.get(&generation) else { return };
    if settings.balance.why.is_none() || settings.master_accepts() {
        return;
    }
    let why = if settings.config.preload && !worker.has_preload {
        Why::PreloadMissing
    } else if query.refuses {
        Why::Refuses
    } else if settings.has_own_sockets() && query.address_type == AddressType::Unix {
        Why::UnixSocket
    } else {
        return;
    };
    // Who has a socket accepts from it, whatever is decided now.
    let is_late = cx.workers.iter().any(|(_, w)| w.app == app_ix && w.generation == generation && !w.serves.is_empty());
    if is_late {
        return;
    }
    let decided = Decided::fallen_back(why);
    if let Some(sentence) = decided.sentence() {
        log::info!("{}: balance {sentence} (worker {id})", cx.apps[app_ix].name);
    }
    if let Some(settings) = cx.apps[app_ix].generations.get_mut(&generation) {
        settings.balance = decided;
    }
    for ix in cx.workers.indices() {
        if let Some(worker) = cx.workers.get_mut(ix).filter(|w| w.app == app_ix && w.generation == generation) {
            worker.own_socket = false;
        }
    }
    checkpoint::save_app(cx, app_ix);
    groups::steer_again(cx, app_ix);
    deferral::refresh_all(cx, app_ix);
    for listener_ix in cx.apps[app_ix].listeners.indices() {
        listener::poll(cx, app_ix, listener_ix);
    }
}
