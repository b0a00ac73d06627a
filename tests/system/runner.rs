//! Runs worlds one after the other in this process, and tells what they showed. A world that fails is made smaller and told as a story.
use crate::bugs::Bug;
use crate::driver::Driver;
use crate::plan::{Deed, Plan};
use crate::world::{Counts, World};
use std::fs;
use std::time::{Duration, Instant};

/// Worlds that are tried to make a failing one smaller.
const SMALLER_WORLDS_MAX: usize = 80;
/// For the threads of masters to end.
const THREADS_END: Duration = Duration::from_secs(3);
/// Lines of the story of a failing world that are shown.
const STORY_SHOWN: usize = 120;

/// What a world showed.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) counts: Counts,
    pub(crate) turns: u64,
    pub(crate) calls: u64,
    /// Simulated microseconds.
    pub(crate) lived_us: u64,
    story: Vec<String>,
}

/// Lives one world.
pub(crate) fn live(seed: u64, mut plan: Plan, bug: Option<Bug>) -> Outcome {
    let files_before = open_files();
    plan.faults.bug = bug;
    let world = World::new(seed, plan.faults.clone());
    let mut driver = Driver::new(world.clone(), plan);
    driver.run();
    let turns = driver.turns;
    drop(driver);
    let mut state = world.state();
    state.processes.clear();
    state.errands.clear();
    state.loops.clear();
    state.exec = None;
    state.controls.clear();
    state.commands = Default::default();
    let kept = kept_files(&files_before);
    if !kept.is_empty() {
        state.violated(format!("files stay open when everybody has ended: {}", kept.join(", ")));
    }
    Outcome {
        violations: std::mem::take(&mut state.violations),
        counts: std::mem::take(&mut state.counts),
        turns,
        calls: state.calls,
        lived_us: state.now_us - crate::plan::BEGIN_US,
        story: state.story().cloned().collect(),
    }
}

/// Tells a failing world in its smallest form.
pub(crate) fn tell(name: &str, seed: u64, plan: &Plan) {
    let (plan, outcome) = smaller(seed, plan);
    println!("\n{name}, in its smallest form ({} clients, {} deeds):", plan.clients.len(), plan.deeds.len());
    let skipped = outcome.story.len().saturating_sub(STORY_SHOWN);
    if skipped > 0 {
        println!("  ... {skipped} lines before");
    }
    outcome.story.iter().skip(skipped).for_each(|line| println!("  {line}"));
}

/// The smallest plan found that still fails, and what it showed.
fn smaller(seed: u64, plan: &Plan) -> (Plan, Outcome) {
    let mut best = plan.clone();
    let mut shown = live(seed, best.clone(), None);
    let mut left = SMALLER_WORLDS_MAX;
    let mut attempt = |smaller: Plan, best: &mut Plan, shown: &mut Outcome| {
        left = left.saturating_sub(1);
        if left == 0 {
            return false;
        }
        let outcome = live(seed, smaller.clone(), None);
        let fails = !outcome.violations.is_empty();
        if fails {
            (*best, *shown) = (smaller, outcome);
        }
        fails
    };
    let mut size = best.clients.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < best.clients.len() {
            let mut fewer = best.clone();
            fewer.clients.drain(from..(from + size).min(best.clients.len()));
            if !attempt(fewer, &mut best, &mut shown) {
                from += size;
            }
        }
        size /= 2;
    }
    let mut n = 0;
    while n < best.deeds.len() {
        let mut fewer = best.clone();
        let (_, deed) = fewer.deeds.remove(n);
        let is_needed = matches!(deed, Deed::Calm | Deed::Stop | Deed::GiveUp);
        if is_needed || !attempt(fewer, &mut best, &mut shown) {
            n += 1;
        }
    }
    (best, shown)
}

/// What is open now and was not before. Threads of masters that were killed end a moment later: real ones, which no world can stop.
fn kept_files(before: &[String]) -> Vec<String> {
    let end = Instant::now() + THREADS_END;
    loop {
        let kept: Vec<String> = open_files().into_iter().filter(|file| !before.contains(file)).collect();
        if kept.is_empty() || Instant::now() >= end {
            return kept;
        }
        std::thread::yield_now();
    }
}

/// What this process has open: numbers, and what they are.
fn open_files() -> Vec<String> {
    let files = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let told = files.filter_map(|file| {
        let kind = fs::read_link(file.path()).ok()?;
        // The folder that is being read.
        let is_own = kind.starts_with("/proc") && kind.ends_with("fd");
        (!is_own).then(|| format!("{}: {}", file.file_name().to_string_lossy(), kind.display()))
    });
    told.collect()
}
