//! Passes on the messages of socket.io's cluster adapter, as its primary half would: to all other workers of the app, and
//! answers to the worker that waits for them.
use super::{Relay, can_read};
use crate::ids::WorkerIx;
use crate::limits;
use crate::master::context::Context;
use crate::master::system::System;
use crate::master::unread;
use crate::worker::node::adapter::{self, AdapterMessage};
use crate::worker::node::framing::Line;

/// Adapters of a worker that are remembered: one for each namespace. Answers to others go to all workers.
const UIDS_MAX: usize = 64;

/// A message of socket.io's adapter, unless it is too large.
pub(super) fn message<'a>(
    cx: &mut Context<impl System>,
    from_ix: WorkerIx,
    line: Line<'a>,
) -> Option<AdapterMessage<'a>> {
    if !line.is_cut && line.bytes.len() <= limits::MESSAGE_BYTES_MAX {
        return adapter::decode(line.bytes);
    }
    let worker = cx.workers.get(from_ix)?;
    let (app, id) = (worker.app, worker.id);
    if cx.apps[app].has_adapters && unread::may_warn(cx, from_ix) {
        let (name, most) = (&cx.apps[app].name, limits::MESSAGE_BYTES_MAX);
        log::warn!(
            "{name}: worker {id} sent an adapter message of more than {most} bytes; it is not passed to other workers"
        );
    }
    None
}

impl Relay {
    /// Passes a message on. Who does not read loses it, as a message of an agent.
    pub(super) fn pass_on_adapters(
        &mut self,
        cx: &mut Context<impl System>,
        from_ix: WorkerIx,
        message: &AdapterMessage<'_>,
        line: &[u8],
    ) {
        let Some(sender) = cx.workers.get_mut(from_ix) else { return };
        let app = sender.app;
        let known = &mut sender.receiver.adapters;
        if let Some(uid) = message.uid.as_deref().filter(|uid| !known.iter().any(|known| known == uid)) {
            if known.len() == UIDS_MAX {
                known.remove(0);
            }
            known.push(uid.to_owned());
        }
        cx.apps[app].has_adapters = true;
        let others =
            || cx.workers.iter().filter(|(ix, w)| *ix != from_ix && w.app == app && !w.is_beside && can_read(w));
        let waits = |uid: &str| others().find(|(_, w)| w.receiver.adapters.iter().any(|known| known == uid));
        let receivers: Vec<WorkerIx> = match message.receiver.as_deref().and_then(waits) {
            Some((ix, _)) => vec![ix],
            None => others().map(|(ix, _)| ix).collect(),
        };
        let mut whole = line.trim_ascii_end().to_vec();
        whole.push(b'\n');
        for receiver in receivers {
            self.send(cx, receiver, &whole);
        }
    }
}
