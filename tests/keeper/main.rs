//! The real keeper against a master that does what the test says. One binary is everything: called by cargo it runs
//! the tests, called with a role it is a keeper, and the keeper starts it again as its master.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
mod fixture;
mod master;
mod masters;
mod renewal;
mod spawning;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

const TESTS: &[(&str, fn())] = &[
    ("args_pass_through_and_finish_is_the_exit_code", masters::args_pass_through_and_finish_is_the_exit_code),
    ("stop_now_has_a_deadline", masters::stop_now_has_a_deadline),
    ("a_hung_master_is_replaced", masters::a_hung_master_is_replaced),
    ("exits_repeat_until_seen", masters::exits_repeat_until_seen),
    ("fds_and_notes_come_back", masters::fds_and_notes_come_back),
    ("many_large_notes_come_back", masters::many_large_notes_come_back),
    ("signals_reach_the_master_with_their_value", masters::signals_reach_the_master_with_their_value),
    ("signals_survive_a_master_that_did_not_read_them", masters::signals_survive_a_master_that_did_not_read_them),
    ("orders_of_a_dead_master_are_carried_out", masters::orders_of_a_dead_master_are_carried_out),
    ("a_crashing_master_backs_off_and_workers_live", masters::a_crashing_master_backs_off_and_workers_live),
    ("a_first_master_that_dies_ends_everything", masters::a_first_master_that_dies_ends_everything),
    ("an_upgrade_starts_the_new_binary_at_once", masters::an_upgrade_starts_the_new_binary_at_once),
    ("an_upgrade_that_does_not_serve_is_taken_back", masters::an_upgrade_that_does_not_serve_is_taken_back),
    ("the_death_of_the_keeper_takes_everything_down", masters::the_death_of_the_keeper_takes_everything_down),
    (
        "the_keeper_becomes_the_new_binary_and_loses_nothing",
        renewal::the_keeper_becomes_the_new_binary_and_loses_nothing,
    ),
    (
        "who_ends_or_calls_while_the_keeper_changes_is_heard",
        renewal::who_ends_or_calls_while_the_keeper_changes_is_heard,
    ),
    ("a_binary_that_cannot_be_the_keeper_changes_nothing", renewal::a_binary_that_cannot_be_the_keeper_changes_nothing),
    ("a_binary_that_is_silent_is_not_waited_for", renewal::a_binary_that_is_silent_is_not_waited_for),
    (
        "a_binary_that_cannot_be_executed_any_more_changes_nothing",
        renewal::a_binary_that_cannot_be_executed_any_more_changes_nothing,
    ),
    ("the_command_says_that_the_keeper_stays", renewal::the_command_says_that_the_keeper_stays),
    ("a_keeper_that_cannot_go_on_at_all_says_what_ends", renewal::a_keeper_that_cannot_go_on_at_all_says_what_ends),
    ("a_binary_that_fails_after_all_hands_back", renewal::a_binary_that_fails_after_all_hands_back),
    (
        "a_second_upgrade_before_the_first_is_through_is_the_one",
        renewal::a_second_upgrade_before_the_first_is_through_is_the_one,
    ),
    ("garbage_is_ignored", masters::garbage_is_ignored),
    ("sockets_of_systemd_are_held", masters::sockets_of_systemd_are_held),
    ("a_worker_gets_clean_surroundings", spawning::a_worker_gets_clean_surroundings),
    ("surroundings_are_what_was_ordered", spawning::surroundings_are_what_was_ordered),
    ("fds_are_placed_whatever_their_numbers", spawning::fds_are_placed_whatever_their_numbers),
    ("credentials_are_taken_completely", spawning::credentials_are_taken_completely),
    ("failures_name_their_step_and_leave_nothing", spawning::failures_name_their_step_and_leave_nothing),
    ("grandchildren_go_with_their_worker", spawning::grandchildren_go_with_their_worker),
    ("signals_go_only_to_the_living", spawning::signals_go_only_to_the_living),
    ("many_workers_come_and_go", spawning::many_workers_come_and_go),
    ("as_pid_1_it_reaps_strangers", spawning::as_pid_1_it_reaps_strangers),
];
/// Tests at once. Most of their time is waiting.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<_> = args.collect();
    if renewal::is_clusterd() && name != clusterd::keeper::KEEPER_CHECK_ARGV0 {
        return clusterd::cli::main();
    }
    if name == clusterd::keeper::MASTER_ARGV0 {
        return master::run();
    }
    if name == clusterd::keeper::KEEPER_CHECK_ARGV0 {
        return renewal::asked();
    }
    if name == clusterd::keeper::KEEPER_ARGV0 {
        return renewal::resume(args);
    }
    if args.first().is_some_and(|role| role == fixture::KEEPER_ROLE) {
        return clusterd::keeper::run(clusterd::keeper::Launch { args: args[1..].to_vec() });
    }
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if words.iter().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted: Vec<_> = TESTS
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())))
        .collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((name, test)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ok = catch_unwind(test).is_ok();
                    println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
                    failed.fetch_add(usize::from(!ok), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("keeper: {} passed; {failed} failed", wanted.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
