//! The meaning of `start`'s arguments: a configuration, or a script with its interpreter. The loader reads the files.
use crate::config::import;
use crate::config::sources::Sources;
use crate::loader::{self, LoadError, Request};
use clap::Args;
use std::path::Path;

/// What runs a script.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct InterpreterArgs {
    /// What runs the script [default: by its ending: node, python3, bash, ruby,
    /// php]; "none": itself
    #[arg(long, value_name = "PROGRAM", help_heading = "Surroundings")]
    pub interpreter: Option<String>,
    /// Arguments of the interpreter, in one word
    #[arg(long, alias = "node-args", value_name = "ARGS", allow_hyphen_values = true, help_heading = "Surroundings")]
    pub interpreter_args: Option<String>,
}

/// The arguments of `start` name nothing that can be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScriptError {
    /// The word is neither a file nor an app.
    #[error("cannot start {path}: {why}")]
    NotAScript {
        /// As typed.
        path: String,
        why: &'static str,
    },
    /// A file that it names cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ScriptError {
    /// Whether the file itself is invalid, rather than unreadable.
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, ScriptError::Load(error) if error.is_usage())
    }
}

/// Reads everything that `start` names. A name that looks like a configuration is one, any other is a script.
///
/// # Errors
/// The script does not exist, or a file cannot be read.
pub(super) fn load(words: &[String], args: &InterpreterArgs, mut request: Request) -> Result<Sources, ScriptError> {
    let missing = |path: &str, why| ScriptError::NotAScript { path: path.to_owned(), why };
    match words {
        [] => {}
        [word] if word == loader::STDIN => return Ok(loader::load_stdin(&request)?),
        [word] if import::is_configuration(word) => request.config = Some(word.clone()),
        [script] => {
            let found = std::fs::metadata(script)
                .map_err(|_| missing(script, "there is no such file, and no app of that name"))?;
            if found.is_dir() {
                return Err(missing(script, "it is a folder"));
            }
            let mut command = interpreter(args, script);
            command.append(&mut request.overrides.command);
            request.overrides.command = command;
        }
        [first, ..] => return Err(missing(first, "not all of these words are apps, and a start takes one script")),
    }
    Ok(loader::load(&request)?)
}

/// The words before a script's own arguments.
fn interpreter(args: &InterpreterArgs, script: &str) -> Vec<String> {
    let ending = Path::new(script).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let by_ending = match ending {
        "js" | "mjs" | "cjs" | "ts" | "mts" | "cts" => Some("node"),
        "py" => Some("python3"),
        "sh" => Some("bash"),
        "rb" => Some("ruby"),
        "php" => Some("php"),
        _ => None,
    };
    let program = match args.interpreter.as_deref() {
        Some("none") => None,
        Some(typed) => Some(typed),
        None => by_ending,
    };
    let further = args.interpreter_args.iter().flat_map(|text| text.split_ascii_whitespace());
    // A word without a slash would be looked up in PATH.
    let script = if program.is_none() && !script.contains('/') { format!("./{script}") } else { script.to_owned() };
    program.into_iter().chain(further).map(str::to_owned).chain([script]).collect()
}
