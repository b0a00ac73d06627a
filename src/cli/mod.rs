//! What was typed: clap's types and the entry point of every role of the binary.
use std::process::ExitCode;

/// Entry point of the program.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
