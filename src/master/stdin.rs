//! Workers' standard input, where an app wants one (`stdin = true`): a pipe into which the master writes whole lines. The
//! pipe itself is the only buffer. The keeper holds the writing end, so that neither the end of a master nor an upgrade
//! is an end of file for a worker.
use super::context::Context;
use super::system::System;
use crate::api::Answer;
use crate::ids::{AppIx, WorkerId};
use crate::limits::{STDIN_LINE_BYTES_MAX, STDIN_WAITING_BYTES_MAX};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Prefix of the names of writing ends in the keeper.
pub(super) const HELD: &str = "stdin/";

/// The name in the keeper of a worker's writing end.
pub(super) fn held_name(worker: WorkerId) -> String {
    format!("{HELD}{worker}")
}

/// Makes the pipe for a new worker: the worker's end and ours.
///
/// # Errors
/// Out of fds.
pub(super) fn for_worker(cx: &mut Context<impl System>, worker: WorkerId) -> io::Result<(OwnedFd, OwnedFd)> {
    let (theirs, ours) = cx.system.input_pipe(STDIN_WAITING_BYTES_MAX)?;
    cx.keeper.hold(held_name(worker), ours.as_fd());
    Ok((theirs, ours))
}

/// Writes a line to the stdin of the workers of an app, or of the one in this slot. Workers that are leaving get none.
pub(super) fn send(cx: &Context<impl System>, app_ix: AppIx, slot: Option<u32>, line: &str) -> Answer {
    let app = &cx.apps[app_ix];
    let name = &app.name;
    let bytes = format!("{line}\n").into_bytes();
    if bytes.len() > STDIN_LINE_BYTES_MAX {
        let (most, has) = (STDIN_LINE_BYTES_MAX - 1, line.len());
        return Answer::Refused(format!("a line for stdin has at most {most} bytes, this one has {has}"));
    }
    if !app.settings().config.stdin {
        return Answer::Refused(format!(
            "the workers of {name} have /dev/null for stdin; write stdin = true in its configuration, or start it with \
             --stdin, and reload"
        ));
    }
    let workers = app.supervisor.workers().filter(|w| w.pid.is_some() && !w.phase.is_leaving());
    let workers: Vec<_> = workers.filter(|w| slot.is_none_or(|slot| slot == w.slot.0)).collect();
    if workers.is_empty() {
        let whose = slot.map_or_else(|| name.clone(), |slot| format!("{name}/{slot}"));
        return Answer::Refused(format!("no worker of {whose} is running"));
    }
    let (mut sent, mut failures) = (Vec::new(), Vec::new());
    for worker in workers {
        let label = format!("{name}/{}", worker.slot);
        let pipe = cx.workers.find(worker.id).and_then(|ix| cx.workers.get(ix)).and_then(|w| w.stdin.as_ref());
        let Some(pipe) = pipe else {
            failures.push(format!("{label} was started without stdin; reload {name}"));
            continue;
        };
        match cx.system.write_pipe(pipe.as_fd(), &bytes) {
            Ok(()) => sent.push(label),
            Err(error) => failures.push(match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("{label} does not read its stdin: {STDIN_WAITING_BYTES_MAX} bytes wait there already")
                }
                io::ErrorKind::BrokenPipe => format!("{label} has closed its stdin"),
                _ => format!("{label}: {error}"),
            }),
        }
    }
    if failures.is_empty() {
        return Answer::Done(format!("sent to {}", sent.join(", ")));
    }
    if !sent.is_empty() {
        failures.push(format!("sent to {}", sent.join(", ")));
    }
    Answer::Refused(failures.join("; "))
}
