//! Sockets that the keeper's parent passed as systemd does. The master reads what they are for.
use super::INHERITED_PREFIX;
use super::system::System;
use super::table::Table;

/// Listening sockets that clusterd takes from its own parent (systemd).
const INHERITED_FDS_MAX: usize = 256;

/// Holds the sockets that the keeper's parent passed as systemd does, so that every master finds them.
pub(super) fn hold_inherited<S: System>(system: &S, table: &mut Table<S::Fd>) {
    let variables = system.environment();
    let variable = |wanted: &str| {
        let (_, value) = variables.iter().find(|(name, _)| name == wanted)?;
        value.to_str().map(str::to_owned)
    };
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(system.own_pid()) {
        return;
    }
    let Some(count) = variable("LISTEN_FDS").and_then(|count| count.parse::<usize>().ok()) else { return };
    if count > INHERITED_FDS_MAX {
        system.say(&format!("clusterd: LISTEN_FDS is {count}; only the first {INHERITED_FDS_MAX} sockets are taken"));
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    for (index, number) in (3..).take(count.min(INHERITED_FDS_MAX)).enumerate() {
        let name = names.next().unwrap_or_default();
        match system.take_inherited(number) {
            Ok(fd) => {
                // At the start the limit on held fds cannot be reached.
                let _ = table.hold(format!("{INHERITED_PREFIX}{index}/{name}"), fd);
            }
            Err(error) => system.say(&format!("clusterd: LISTEN_FDS is {count}, but fd {number} is not open: {error}")),
        }
    }
}
