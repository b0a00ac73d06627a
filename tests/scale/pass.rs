//! Connections that come and go: afterwards master and keeper hold what they held before. Here they are some ten thousand;
//! `cargo bench --bench scale` opens a million.
use super::client::Load;
use super::cluster::wait_until;
use super::held::Held;
use super::{addresses, start};

const CLIENTS: usize = 8;
/// Until every table and buffer has the size that it keeps.
const WARM_UP: u64 = 4_000;
/// Seven bytes left behind by each are more than what may differ.
const CONNECTIONS: u64 = 20_000;

pub(crate) fn connections_that_are_over_leave_nothing_behind() {
    let addresses = addresses(1);
    let cluster = start(8, &addresses, "");
    let pids = [cluster.master_pid(), cluster.keeper_pid()];
    let load = |connections| {
        let load = Load::start(addresses[0], CLIENTS, false);
        load.wait_more(connections);
        let seen = load.finish();
        assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    };
    let files = pids.map(|pid| Held::of(pid).fds);
    load(WARM_UP);
    wait_until("files as at the start", || pids.iter().zip(files).all(|(pid, files)| Held::of(*pid).fds <= files));
    let before = pids.map(Held::of);
    load(CONNECTIONS);
    wait_until("memory and files as before", || {
        pids.iter().zip(before).all(|(pid, before)| Held::of(*pid).is_as(before))
    });
    cluster.stop();
}
