//! The command line: what was typed (`command_line`, `args`), the verbs (`commands`) and what they share, and the entry point
//! of every role of the binary.
mod apply;
mod client;
pub mod command_line;
pub mod commands;
mod connections;
mod ending;
mod error;
mod exit;
mod help;
mod launch;
mod progress;
pub mod run_args;
#[cfg(test)]
mod samples;
mod script;
mod table;
mod target;
mod top;
mod units;
mod worker_table;

use crate::keeper;
use crate::master::{self, BACKGROUND_FLAG};
use command_line::Invocation;
use exit::EXIT_USAGE;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// Entry point of the program, for every role of it: what was typed, the keeper, the master.
pub fn main() -> ExitCode {
    start_log();
    let mut argv = std::env::args_os();
    let role = argv.next().unwrap_or_default();
    if role == crate::api::UPGRADE_ARGV0 {
        return answer(crate::api::CAN_TAKE_OVER, master::check_upgrade());
    }
    if role == keeper::KEEPER_CHECK_ARGV0 {
        return answer(keeper::CAN_BE_KEEPER, keeper::check());
    }
    if role == keeper::KEEPER_ARGV0 {
        return keeper::resume(argv.collect());
    }
    if role == keeper::MASTER_ARGV0 {
        let argv = std::iter::once(OsString::from("clusterd")).chain(argv).collect();
        return master::run(master::CommandLine { argv, read: command_line::read_run });
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == BACKGROUND_FLAG) {
        return keeper::run(keeper::Launch { args: std::env::args_os().skip(1).collect() });
    }
    match command_line::parse(std::env::args_os()) {
        Ok(Invocation::Print(text)) => {
            apply::print(&text);
            ExitCode::SUCCESS
        }
        // The keeper parses nothing: the master reads the same arguments again.
        Ok(Invocation::Run(_)) => keeper::run(keeper::Launch { args: std::env::args_os().skip(1).collect() }),
        Ok(Invocation::Verb { verb, home }) => verb.run(home.as_deref()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Says to another clusterd whether this one could take its place.
fn answer(first_words: &str, answer: Result<String, impl std::fmt::Display>) -> ExitCode {
    let failed = answer.is_err();
    let text = answer.unwrap_or_else(|why| format!("{first_words}: {why}"));
    // Whoever asked may have left.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::from(u8::from(failed))
}

/// One line per message on stderr, for people: `clusterd: ...`. `CLUSTERD_LOG=debug` says more.
fn start_log() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Info);
    if let Ok(level) = std::env::var("CLUSTERD_LOG") {
        builder.parse_filters(&level);
    }
    let in_background = std::env::args_os().nth(1).is_some_and(|first| first == BACKGROUND_FLAG);
    builder.format(move |out, record| {
        out.write_all(progress::make_room().as_bytes())?;
        match record.level() {
            // Read later, from a file: the time matters.
            log::Level::Error | log::Level::Warn | log::Level::Info if in_background => {
                writeln!(out, "{} clusterd: {}", out.timestamp_millis(), record.args())
            }
            log::Level::Error | log::Level::Warn | log::Level::Info => writeln!(out, "clusterd: {}", record.args()),
            log::Level::Debug | log::Level::Trace => {
                writeln!(out, "clusterd: [{}] {}", record.level().as_str().to_lowercase(), record.args())
            }
        }
    });
    builder.init();
}
