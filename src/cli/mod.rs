//! The command line: parsing (`command_line`, `args`), the verbs (`commands`) and their shared code, and the entry
//! point of every role of the binary.
mod apply;

/// Stack of the thread that writes the master's stderr, in bytes.
const STDERR_STACK_BYTES: usize = 64 * 1024;
mod client;
pub mod command_line;
pub mod commands;
mod connections;
mod ending;
mod error;
mod event_stream;
mod exit;
mod help;
mod launch;
mod one_worker;
pub mod pm2;
mod progress;
mod renew;
mod rollout;
pub mod run_args;
#[cfg(test)]
mod samples;
mod script;
mod stay;
mod store;
mod table;
mod target;
mod top;
mod units;
mod worker_table;

use crate::api::{events, warnings};
use crate::keeper;
use crate::master::{self, BACKGROUND_FLAG};
use crate::os::{argv, memory, stderr};
use crate::serve;
use crate::text::visible;
use command_line::Invocation;
use exit::EXIT_USAGE;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// Entry point of every role of the program: command line, keeper, master, file server.
pub fn main() -> ExitCode {
    memory::note_code();
    start_log();
    let code = play_role();
    stderr::finish();
    code
}

fn play_role() -> ExitCode {
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
    if std::env::args_os().nth(1).is_some_and(|first| first == serve::SERVE_FLAG) {
        return serve::run();
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    // From here on nobody else reads them.
    argv::hide_values();
    match command_line::parse(args.iter().cloned()) {
        Ok(Invocation::Print(text)) => apply::print(&text),
        // The keeper parses nothing: the master parses the same arguments again.
        Ok(Invocation::Run(_)) => keeper::run(keeper::Launch { args: args.into_iter().skip(1).collect() }),
        Ok(Invocation::Verb { verb, home, notes, silent }) => {
            notes.iter().for_each(|note| log::warn!("{note}"));
            if silent {
                log::set_max_level(log::LevelFilter::Error);
            }
            match verb.in_foreground() {
                None => verb.run(home.as_deref()),
                Some(Ok(args)) => keeper::run(keeper::Launch { args }),
                Some(Err(error)) => apply::fail(error),
            }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Answers another clusterd whether this one could take its place.
fn answer(first_words: &str, answer: Result<String, impl std::fmt::Display>) -> ExitCode {
    let failed = answer.is_err();
    let text = answer.unwrap_or_else(|why| format!("{first_words}: {why}"));
    // The other process may have left.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::from(u8::from(failed))
}

/// One line per message on stderr, for people: `clusterd: ...`. `CLUSTERD_LOG=debug` logs more. The master's are
/// written by a thread, so that a blocked stderr blocks nobody.
fn start_log() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Info);
    if let Ok(level) = std::env::var("CLUSTERD_LOG") {
        builder.parse_filters(&level);
    }
    let in_master = std::env::args_os().next().is_some_and(|role| role == keeper::MASTER_ARGV0);
    if in_master {
        log_by_thread(&mut builder);
    }
    let in_background = std::env::args_os().nth(1).is_some_and(|first| first == BACKGROUND_FLAG);
    builder.format(move |out, record| {
        out.write_all(progress::make_room().as_bytes())?;
        let said = record.args().to_string();
        // It may contain names that others chose. A master's message is one line.
        let lines: Vec<&str> = if in_master { vec![&said] } else { said.split('\n').collect() };
        let said = lines.into_iter().map(visible).collect::<Vec<_>>().join("\n");
        if in_master && record.level() == log::Level::Warn {
            warnings::keep(&said);
        }
        if in_master && record.level() <= log::Level::Warn {
            events::warned(&said);
        }
        match record.level() {
            // Read later, from a file: the time matters.
            log::Level::Error | log::Level::Warn | log::Level::Info if in_background => {
                writeln!(out, "{:.3} clusterd: {said}", jiff::Timestamp::now())
            }
            log::Level::Error | log::Level::Warn | log::Level::Info => writeln!(out, "clusterd: {said}"),
            log::Level::Debug | log::Level::Trace => {
                writeln!(out, "clusterd: [{}] {said}", record.level().as_str().to_lowercase())
            }
        }
    });
    builder.init();
}

fn log_by_thread(builder: &mut env_logger::Builder) {
    // Without a thread, lines are written as far as stderr takes them at once.
    let _ = stderr::start_thread(STDERR_STACK_BYTES);
    builder.target(env_logger::Target::Pipe(Box::new(stderr::Lines)));
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = Some(trace).filter(|trace| trace.status() == std::backtrace::BacktraceStatus::Captured);
        stderr::say(&format!("clusterd: {panic}{}", trace.map_or_else(String::new, |trace| format!("\n{trace}"))));
    }));
}
