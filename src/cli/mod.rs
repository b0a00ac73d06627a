//! What was typed: clap's types and the entry point of every role of the binary.
mod act;
pub mod args;
pub mod check;
mod client;
mod connections;
mod help;
mod import;
mod init;
mod keep;
mod list;
pub mod logs;
mod progress;
mod run_args;
#[cfg(test)]
mod samples;
mod script;
mod short;
mod show;
mod start;
mod startup;
mod target;
mod top;
mod units;

use crate::keeper;
use crate::master::{self, BACKGROUND_FLAG};
use args::{Ask, EXIT_USAGE, Invocation};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
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
        return master::run(master::CommandLine { argv, read: args::read_run });
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == BACKGROUND_FLAG) {
        return keeper::run(keeper::Launch { args: std::env::args_os().skip(1).collect() });
    }
    match args::parse(std::env::args_os()) {
        Ok(Invocation::Print(text)) => {
            // A reader that has left (`clusterd --help | head`) is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Import { file, output, force }) => import::import(&file, output.as_deref(), force),
        Ok(Invocation::Check { run, json }) => {
            ExitCode::from(check::check(&run, json, &mut io::stdout(), &mut io::stderr()))
        }
        // The keeper parses nothing: the master reads the same arguments again.
        Ok(Invocation::Run(_)) => keeper::run(keeper::Launch { args: std::env::args_os().skip(1).collect() }),
        Ok(Invocation::Start(args)) => start::start(&args),
        Ok(Invocation::Init { file, force }) => init::init(&file, force),
        Ok(Invocation::Ask { verb, home }) => ask(verb, home.as_deref()),
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

/// A verb to what is there.
fn ask(verb: Ask, home: Option<&Path>) -> ExitCode {
    match verb {
        Ask::List { json, short } => list::list(home, json, short),
        Ask::Jlist => list::list(home, true, false),
        Ask::Describe { targets, json } => show::describe(home, &targets, json),
        Ask::Env { target, agent, json } => show::env(home, &target, agent, json),
        Ask::Reload { targets, update_env } => act::reload(home, &targets, update_env),
        Ask::Restart { targets, update_env } => act::restart(home, &targets, update_env),
        Ask::Stop { targets, now } => act::stop(home, &targets, now),
        Ask::Delete { targets, now } => act::delete(home, &targets, now),
        Ask::Top => top::top(home),
        Ask::Save => keep::save(home),
        Ask::Resurrect => keep::resurrect(home),
        Ask::Startup(args) => startup::startup(home, &args),
        Ask::Unstartup(args) => startup::unstartup(home, &args),
        Ask::Kill { now } => act::kill(home, now),
        Ask::Scale { target, to } => act::scale(home, &target, &to),
        Ask::Signal { signal, targets } => act::signal(home, &signal, &targets),
        Ask::Logs(args) => logs::logs(home, &args),
        Ask::Flush { targets } => logs::flush(home, &targets),
        Ask::ReopenLogs { targets } => logs::reopen(home, &targets),
        Ask::Upgrade { targets, binary } => act::upgrade(home, &targets, binary.as_deref()),
    }
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
            // Nobody watches: whoever reads it later wants to know when.
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
