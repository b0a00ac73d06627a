//! The runner of test programs that play other roles too, so that they have a `main` of their own (`harness = false`).
#![allow(clippy::print_stdout)] // What it prints is the result.
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// A list of tests by their paths.
macro_rules! tests {
    ($($test:path),* $(,)?) => { &[$((stringify!($test), $test as fn())),*] };
}
pub(crate) use tests;

/// Which tests the arguments ask for, as those of Rust's own harness do: `--ignored` and `--include-ignored`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// What `cargo test` runs.
    Quick,
    /// What `cargo test -- --ignored` runs, and why.
    Ignored(&'static str),
}

impl Kind {
    /// Why tests of this kind are not to run now.
    pub(crate) fn left_out(self, args: &[String]) -> Option<&'static str> {
        let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
        match self {
            Kind::Quick => {
                (has("--ignored") && !has("--include-ignored")).then_some("only ignored tests were asked for")
            }
            Kind::Ignored(why) => (!has("--ignored") && !has("--include-ignored")).then_some(why),
        }
    }
}

/// Runs those whose names contain a word that cargo passes on (without one: all), so many at once, unless the arguments
/// leave out tests of this kind.
pub(crate) fn run(program: &str, tests: &[Test], kind: Kind, at_once: usize, args: &[String]) -> ExitCode {
    // `--skip WORD` leaves out what has this word in its name.
    let is_skip = |n: usize| n > 0 && args[n - 1] == "--skip";
    let (skipped, words): (Vec<_>, Vec<_>) =
        args.iter().enumerate().filter(|(_, arg)| !arg.starts_with('-')).partition(|(n, _)| is_skip(*n));
    let has = |words: &[(usize, &String)], name: &str| words.iter().any(|(_, word)| name.contains(word.as_str()));
    let is_wanted = |name: &str| (words.is_empty() || has(&words, name)) && !has(&skipped, name);
    let wanted: Vec<Test> = tests.iter().copied().filter(|(name, _)| is_wanted(name)).collect();
    if args.iter().any(|arg| arg == "--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(why) = kind.left_out(args) {
        if let Kind::Ignored(_) = kind {
            wanted.iter().for_each(|(name, _)| println!("test {name} ... ignored, {why}"));
        }
        println!("\n{program}: {} not run: {why}", wanted.len());
        return ExitCode::SUCCESS;
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((name, test)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let ok = catch_unwind(test).is_ok();
                    let (said, seconds) = (if ok { "ok" } else { "FAILED" }, start.elapsed().as_secs_f64());
                    println!("test {name} ... {said} ({seconds:.1} s)");
                    failed.fetch_add(usize::from(!ok), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("\n{program}: {} passed; {failed} failed", wanted.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
