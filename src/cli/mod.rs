//! What was typed: clap's types and the entry point of every role of the binary.
mod act;
pub mod args;
pub mod check;
mod client;
mod help;
pub mod home;
mod list;
pub mod load;
pub mod logs;

use crate::keeper;
use args::{EXIT_USAGE, Invocation};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// Entry point of the program, for every role of it: what was typed, the keeper, the master.
pub fn main() -> ExitCode {
    start_log();
    let mut argv = std::env::args_os();
    let role = argv.next().unwrap_or_default();
    if role == crate::api::UPGRADE_ARGV0 {
        let answer = crate::master::check_upgrade();
        let failed = answer.is_err();
        let text = answer.unwrap_or_else(|why| format!("{}: {why}", crate::api::CAN_TAKE_OVER));
        // Whoever asked may have left.
        let _ = writeln!(io::stdout(), "{text}");
        return ExitCode::from(u8::from(failed));
    }
    if role == keeper::MASTER_ARGV0 {
        return crate::master::run(std::iter::once(OsString::from("clusterd")).chain(argv).collect());
    }
    match args::parse(std::env::args_os()) {
        Ok(Invocation::Print(text)) => {
            // A reader that has left (`clusterd --help | head`) is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Check(args)) => ExitCode::from(check::check(&args, &mut io::stdout(), &mut io::stderr())),
        // The keeper parses nothing: the master reads the same arguments again.
        Ok(Invocation::Run(_)) => keeper::run(keeper::Launch { args: std::env::args_os().skip(1).collect() }),
        Ok(Invocation::List { json, home }) => list::list(home.as_deref(), json),
        Ok(Invocation::Reload { targets, home }) => act::reload(home.as_deref(), &targets),
        Ok(Invocation::Scale { target, workers, home }) => act::scale(home.as_deref(), &target, &workers),
        Ok(Invocation::Upgrade { targets, binary, home }) => act::upgrade(home.as_deref(), &targets, binary.as_deref()),
        Ok(Invocation::Logs { args, home }) => logs::logs(home.as_deref(), &args),
        Ok(Invocation::Flush { targets, home }) => logs::flush(home.as_deref(), &targets),
        Ok(Invocation::ReopenLogs { targets, home }) => logs::reopen(home.as_deref(), &targets),
        Ok(Invocation::Stop { targets, now, home }) => act::stop(home.as_deref(), &targets, now),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// One line per message on stderr, for people: `clusterd: ...`. `CLUSTERD_LOG=debug` says more.
fn start_log() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Info);
    if let Ok(level) = std::env::var("CLUSTERD_LOG") {
        builder.parse_filters(&level);
    }
    builder.format(|out, record| match record.level() {
        log::Level::Error | log::Level::Warn | log::Level::Info => writeln!(out, "clusterd: {}", record.args()),
        log::Level::Debug | log::Level::Trace => {
            writeln!(out, "clusterd: [{}] {}", record.level().as_str().to_lowercase(), record.args())
        }
    });
    builder.init();
}
