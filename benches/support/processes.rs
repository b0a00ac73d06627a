//! Processes seen from outside: who is below whom, what they cost, and how all of ours are ended. A bench runs one server
//! at a time, so "everything below this process" is that server.
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// Clock ticks per second of /proc/PID/stat on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Longest wait for processes that were killed.
const END_MAX: Duration = Duration::from_secs(10);

/// From now on nothing outlives this process: what detaches itself stays below it, and a signal, or the end of whoever
/// started it, ends everything by pid. The guard does so when `main` is left, by a panic too.
pub(crate) fn end_together() -> EndAll {
    // Each fails only on systems without it; then a daemon that a tool leaves behind has to be ended by hand.
    let _ = prctl::set_child_subreaper(true);
    let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    if signals.thread_block().is_ok() {
        std::thread::spawn(move || {
            let signal = signals.wait();
            eprintln!("ended by {signal:?}: ending everything that was started");
            end_all();
            std::process::exit(130);
        });
    }
    EndAll
}

/// Ends everything below this process when dropped.
pub(crate) struct EndAll;

impl Drop for EndAll {
    fn drop(&mut self) {
        end_all();
    }
}

/// Ends everything below this process, parents first, so that nobody replaces a dead child.
pub(crate) fn end_all() {
    let own = std::process::id() as i32;
    let start = Instant::now();
    while start.elapsed() < END_MAX {
        let all = below(own);
        if all.is_empty() {
            return;
        }
        for &pid in &all {
            send(pid, Signal::SIGKILL);
        }
        for pid in all {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    eprintln!("still there after {END_MAX:?}: pids {:?}", below(own));
}

/// Sends a signal; one that is gone needs none.
pub(crate) fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Children, by all of its threads.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in tasks(pid) {
        let text = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    found
}

/// Children, their children, and so on; parents first.
pub(crate) fn below(pid: i32) -> Vec<i32> {
    let mut all = children(pid);
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

/// Whether it exists and is not a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// Whether it is clusterd's master.
pub(crate) fn is_master(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.starts_with(clusterd::keeper::MASTER_ARGV0.as_bytes())
}

/// CPU time that they have used, in microseconds.
pub(crate) fn cpu_us(pids: &[i32]) -> f64 {
    pids.iter().map(|&pid| scheduled_us(pid).or_else(|| ticks_us(pid)).unwrap_or(0.0)).sum()
}

/// By the scheduler's own count, which is finer than ticks.
fn scheduled_us(pid: i32) -> Option<f64> {
    let mut ns = 0.0;
    for task in tasks(pid) {
        let text = fs::read_to_string(format!("{task}/schedstat")).ok()?;
        ns += text.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    }
    (ns > 0.0).then_some(ns / 1000.0)
}

fn ticks_us(pid: i32) -> Option<f64> {
    let fields = stat(pid)?;
    let ticks: f64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / TICKS_PER_SECOND * 1e6)
}

/// The fields of /proc/PID/stat from the state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_ascii_whitespace().map(str::to_owned).collect())
}

fn tasks(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// Memory in MiB: all that is resident, and what is nobody else's.
pub(crate) fn memory_mib(pids: &[i32]) -> (f64, f64) {
    let mut sum = (0.0, 0.0);
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
        };
        sum.0 += kib("Rss:") / 1024.0;
        sum.1 += (kib("Private_Clean:") + kib("Private_Dirty:")) / 1024.0;
    }
    sum
}
