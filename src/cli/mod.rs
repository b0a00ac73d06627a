//! What was typed: clap's types and the entry point of every role of the binary.
pub mod args;
pub mod check;
pub mod home;
mod help;
pub mod load;

use args::{EXIT_USAGE, Invocation};
use std::io::{self, Write};
use std::process::ExitCode;

/// Entry point of the program.
pub fn main() -> ExitCode {
    match args::parse(std::env::args_os()) {
        Ok(Invocation::Print(text)) => {
            // A reader that has left (`clusterd --help | head`) is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Check(args)) => ExitCode::from(check::check(&args, &mut io::stdout(), &mut io::stderr())),
        Ok(other) => {
            let _ = writeln!(io::stderr(), "clusterd: {other:?} is not built yet");
            ExitCode::from(args::EXIT_FAILED)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
