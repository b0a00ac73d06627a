//! The real keeper against a master that does what the test says. One binary is everything: called by cargo it runs
//! the tests, called with a role it is a keeper, and the keeper starts it again as its master.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod fixture;
mod master;
mod masters;
mod reexec;
mod spawning;

use common::runner::{self, Kind, Test, tests};
use common::{apps, client, cluster};
use std::process::ExitCode;

const TESTS: &[Test] = tests![
    masters::args_pass_through_and_finish_is_the_exit_code,
    masters::stop_now_has_a_deadline,
    masters::a_stop_ends_everything_when_no_master_serves,
    masters::a_stop_now_ends_everything_when_no_master_serves,
    damage::a_damaged_note_costs_nobody_anything,
    damage::a_master_that_finds_nothing_waits_for_the_way_out,
    masters::a_hung_master_is_replaced,
    masters::exits_repeat_until_seen,
    masters::fds_and_notes_come_back,
    masters::many_large_notes_come_back,
    masters::signals_reach_the_master_with_their_value,
    masters::signals_survive_a_master_that_did_not_read_them,
    masters::orders_of_a_dead_master_are_carried_out,
    masters::a_crashing_master_backs_off_and_workers_live,
    masters::a_first_master_that_dies_ends_everything,
    masters::an_upgrade_starts_the_new_binary_at_once,
    masters::an_upgrade_that_does_not_serve_is_taken_back,
    masters::the_death_of_the_keeper_takes_everything_down,
    reexec::the_keeper_becomes_the_new_binary_and_loses_nothing,
    reexec::who_ends_or_calls_while_the_keeper_changes_is_heard,
    reexec::a_binary_that_cannot_be_the_keeper_changes_nothing,
    reexec::a_binary_that_is_silent_is_not_waited_for,
    reexec::a_binary_that_cannot_be_executed_any_more_changes_nothing,
    reexec::the_command_says_that_the_keeper_stays,
    reexec::a_keeper_that_cannot_go_on_at_all_says_what_ends,
    reexec::a_binary_that_fails_after_all_hands_back,
    reexec::a_second_upgrade_before_the_first_is_through_is_the_one,
    masters::garbage_is_ignored,
    masters::sockets_of_systemd_are_held,
    spawning::a_worker_gets_clean_surroundings,
    spawning::surroundings_are_what_was_ordered,
    spawning::fds_are_placed_whatever_their_numbers,
    spawning::credentials_are_taken_completely,
    spawning::failures_name_their_step_and_leave_nothing,
    spawning::grandchildren_go_with_their_worker,
    spawning::signals_go_only_to_the_living,
    spawning::many_workers_come_and_go,
    spawning::as_pid_1_it_reaps_strangers,
];
/// Tests at once. Most of their time is waiting.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<_> = args.collect();
    if damage::is_saboteur() {
        return damage::sabotage(&name);
    }
    if reexec::is_clusterd() && name != clusterd::keeper::KEEPER_CHECK_ARGV0 {
        return clusterd::cli::main();
    }
    if name == clusterd::keeper::MASTER_ARGV0 {
        return master::run();
    }
    if name == clusterd::keeper::KEEPER_CHECK_ARGV0 {
        return reexec::asked();
    }
    if name == clusterd::keeper::KEEPER_ARGV0 {
        return reexec::resume(args);
    }
    if args.first().is_some_and(|role| role == fixture::KEEPER_ROLE) {
        return clusterd::keeper::run(clusterd::keeper::Launch { args: args[1..].to_vec() });
    }
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    runner::run("keeper", TESTS, Kind::Quick, THREADS, &words)
}
