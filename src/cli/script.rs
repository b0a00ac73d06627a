//! The meaning of `start`'s arguments: a configuration, or a script with its interpreter. The loader reads the files.
use crate::config::import;
use crate::config::sources::Sources;
use crate::loader::{self, LoadError, Request};
use crate::program;
use clap::Args;
use std::borrow::Cow;
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
    /// Have Node use source maps: its --enable-source-maps
    #[arg(long, help_heading = "Surroundings")]
    pub source_map_support: bool,
}

/// The arguments of `start` name nothing that can be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScriptError {
    /// The word is neither a file nor an app.
    #[error("cannot start {path}: {why}")]
    NotAScript {
        /// As typed.
        path: String,
        why: Cow<'static, str>,
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

/// Reads everything that `start` names. A name that looks like a configuration is one, any other is a script or a command.
///
/// # Errors
/// The script does not exist, or a file cannot be read.
pub(super) fn load(words: &[String], args: &InterpreterArgs, mut request: Request) -> Result<Sources, ScriptError> {
    match words {
        [] => {}
        [word] if word == loader::STDIN => return Ok(loader::load_stdin(&request)?),
        [word] if import::is_configuration(word) => request.config = Some(word.clone()),
        [script] => request.overrides.command = command(script, args, &request.overrides.command)?,
        [first, ..] => return Err(not_a_script(first, "a start takes one script at a time")),
    }
    Ok(loader::load(&request)?)
}

fn not_a_script(path: &str, why: impl Into<Cow<'static, str>>) -> ScriptError {
    ScriptError::NotAScript { path: path.to_owned(), why: why.into() }
}

/// Why a folder cannot be started, and what its owner may have meant.
fn not_a_folder(path: &str) -> ScriptError {
    let meant = match Path::new(path).join("package.json").exists() {
        true => format!("name the script in it, or run that of its package: clusterd start --cwd {path} -- npm start"),
        false => format!("name the script in it; clusterd serve {path} serves its files"),
    };
    not_a_script(path, format!("it is a folder; {meant}"))
}

/// The command that runs a script with these arguments of its own. A line with spaces that is no file is a command, and so is
/// a program of PATH (`npm -- start`).
///
/// # Errors
/// The script does not exist.
pub(super) fn command(script: &str, args: &InterpreterArgs, own: &[String]) -> Result<Vec<String>, ScriptError> {
    let mut command = match std::fs::metadata(script) {
        Ok(found) if found.is_dir() => return Err(not_a_folder(script)),
        Ok(_) => interpreter(args, script),
        Err(_) if script.contains(char::is_whitespace) => line(script),
        Err(_) if is_program(script) => vec![script.to_owned()],
        Err(_) => return Err(not_a_script(script, "there is no such file, and no app of that name")),
    };
    command.extend_from_slice(own);
    Ok(command)
}

/// A command line in one word: split at its spaces, or run by a shell where it has more in it than words.
fn line(text: &str) -> Vec<String> {
    let plain = |c: char| c.is_alphanumeric() || c.is_whitespace() || "-_./:=,@%+".contains(c);
    if text.chars().all(plain) && !text.split_whitespace().next().unwrap_or_default().contains('=') {
        return text.split_whitespace().map(str::to_owned).collect();
    }
    ["bash", "-c", text].map(str::to_owned).to_vec()
}

/// Whether PATH has a program of this name.
pub(super) fn is_program(word: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    !word.contains('/') && program::find(word, &path, None).is_ok()
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
    let is_node = program.is_some_and(|program| Path::new(program).file_stem().is_some_and(|stem| stem == "node"));
    let maps = (args.source_map_support && is_node).then_some("--enable-source-maps");
    let further = args.interpreter_args.iter().flat_map(|text| text.split_ascii_whitespace());
    // A word without a slash would be looked up in PATH.
    let script = if program.is_none() && !script.contains('/') { format!("./{script}") } else { script.to_owned() };
    program.into_iter().chain(maps).chain(further).map(str::to_owned).chain([script]).collect()
}
