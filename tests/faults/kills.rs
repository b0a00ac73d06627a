//! Masters that are killed again and again under load, with each balance.
use super::client::Load;
use super::cluster::{Cluster, kill};
use std::time::Duration;

/// Masters that are killed with each balance, unless `MASTER_KILLS` says how many.
const KILLS: u32 = 5;
/// Clients with short connections, and with one that they keep.
const CLIENTS: usize = 6;
/// A load is ended and counted after so many kills: none lasts longer than its own time limit.
const KILLS_PER_LOAD: u32 = 20;
/// Cut connections that are allowed in all.
const CUT_MAX: u64 = 5;
/// Between two kills, in milliseconds: from the same numbers in every run. A master that lived for less than a second is
/// started again later and later.
const PAUSE_MS: (u64, u64) = (1_050, 1_600);

/// Numbers from a linear congruential generator (Numerical Recipes).
struct Pauses(u32);

impl Pauses {
    fn next(&mut self) -> Duration {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (least, most) = PAUSE_MS;
        Duration::from_millis(least + u64::from(self.0 >> 8) % (most - least))
    }
}

#[test]
#[ignore = "a long load"]
fn kills_of_masters_refuse_nobody_and_leave_nobody_hanging_under_round_robin() {
    kill_masters("round-robin");
}

#[test]
#[ignore = "a long load"]
fn kills_of_masters_refuse_nobody_and_leave_nobody_hanging_under_kernel() {
    kill_masters("kernel");
}

#[test]
#[ignore = "a long load"]
fn kills_of_masters_refuse_nobody_and_leave_nobody_hanging_under_shared() {
    kill_masters("shared");
}

/// Kills so many masters of an app under two loads, and counts what clients saw.
fn kill_masters(balance: &str) {
    let kills = std::env::var("MASTER_KILLS").map_or(KILLS, |text| text.parse().expect("a number of kills"));
    let (mut ok, mut refused, mut hung, mut cut, mut wrong, mut closed) = (0, 0, 0, 0, 0, 0);
    let cluster = Cluster::web(2, &super::apps::hello(), &["-b", balance]);
    let workers = cluster.worker_pids();
    let mut pauses = Pauses(1);
    for first in (0..kills).step_by(KILLS_PER_LOAD as usize) {
        let loads = [false, true].map(|kept| Load::start(cluster.address(), CLIENTS, kept));
        for number in first..kills.min(first + KILLS_PER_LOAD) {
            kill(cluster.master_pid(), "KILL");
            let restarts = u64::from(number) + 1;
            cluster.wait_view("the next master", |view| view.master_restarts as u64 == restarts);
            loads.iter().for_each(|load| load.wait_more(20));
            // At any moment of a master's life but its first second.
            std::thread::sleep(pauses.next());
        }
        for seen in loads.map(Load::finish) {
            ok += seen.ok;
            refused += seen.refused;
            hung += seen.hung;
            cut += seen.cut;
            wrong += seen.wrong;
            closed += seen.idle_closed;
        }
    }
    eprintln!(
        "{balance}: {kills} masters killed, {ok} answers, {refused} refused, {hung} hung, {cut} cut, {wrong} wrong, {closed} closed \
         at rest"
    );
    assert_eq!(cluster.worker_pids(), workers, "no worker ended with a master");
    cluster.stop();
    assert_eq!((refused, hung, wrong), (0, 0, 0), "{balance}");
    assert!(cut <= CUT_MAX, "{balance}: {cut} cut");
}
