//! Finds the program that a command names, as execvp(3) would, and says what kind of program it is: that decides how
//! it takes its sockets. Nothing is run.
use crate::config::{inspect, parse};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest part of a script's first line that is read for its interpreter, in bytes (the kernel's BINPRM_BUF_SIZE).
const SHEBANG_BYTES_MAX: usize = 256;
/// Size of a `package.json` that is read for advice, in bytes.
const PACKAGE_JSON_BYTES_MAX: u64 = 1024 * 1024;

/// A program that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What to give to execve: absolute where `cwd` or PATH's folder is; links are not resolved, because a program
    /// may look at its own name.
    pub path: PathBuf,
    pub kind: ProgramKind,
}

/// What kind of program a file is, as far as its sockets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Node, or a script whose `#!` line names it: speaks Node's cluster protocol.
    Node,
    /// A Node program that starts another one and keeps the channel for itself (`npm`, `tsx`, `node --watch`).
    NodeWrapper(&'static str),
    Bun,
    Deno,
    /// Python, or a script whose `#!` line names it.
    Python,
    /// Anything else.
    Other,
}

/// Why a command cannot be run. `hint` is a whole sentence or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramError {
    /// In none of PATH's folders.
    NotInPath {
        /// The command as typed.
        name: String,
        searched: String,
        /// What was perhaps meant.
        hint: String,
    },
    /// There is no such file.
    NoSuchFile(PathBuf),
    /// It is a folder (or a device, a socket).
    NotAFile(PathBuf),
    /// No execute permission.
    NotExecutable {
        path: PathBuf,
        /// What was perhaps meant.
        hint: String,
    },
    /// The `#!` line names a program that does not exist.
    NoInterpreter {
        /// The script.
        path: PathBuf,
        /// What its first line asks for.
        interpreter: String,
    },
    /// A script of another language than the shell's, without a `#!` line: the shell would run it.
    NoFirstLine {
        /// As typed.
        script: String,
        /// What runs such scripts.
        runner: &'static str,
    },
    /// The file system says no.
    Unreadable { path: PathBuf, why: String },
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProgramError::NotInPath { name, searched, hint } if searched.is_empty() => {
                write!(f, "command \"{name}\" was not found: PATH is empty{hint}")
            }
            ProgramError::NotInPath { name, hint, .. } => {
                write!(f, "command \"{name}\" was not found in PATH{hint}")
            }
            ProgramError::NoSuchFile(path) => {
                // Without the "." of "./app" in its middle.
                let path: PathBuf = path.components().collect();
                write!(f, "command {} does not exist", path.display())
            }
            ProgramError::NotAFile(path) if path.is_dir() => write!(f, "command {} is a folder", path.display()),
            ProgramError::NotAFile(path) => write!(f, "command {} is not a file", path.display()),
            ProgramError::NotExecutable { path, hint } => {
                write!(f, "command {} is not executable{hint}", path.display())
            }
            ProgramError::NoInterpreter { path, interpreter } => {
                write!(f, "command {} asks for {interpreter} in its first line, which does not exist", path.display())
            }
            ProgramError::NoFirstLine { script, runner } => {
                write!(
                    f,
                    "command {script} has no #! line, so a shell would run it; did you mean: clusterd -- {runner} {script}?"
                )
            }
            ProgramError::Unreadable { path, why } => write!(f, "command {} cannot be used: {why}", path.display()),
        }
    }
}

impl std::error::Error for ProgramError {}

/// The program that `command0` names, for a worker with this PATH and working folder (`None`: this process's own).
///
/// # Errors
/// There is none, or it cannot be run.
pub fn find(command0: &str, path_env: &OsStr, cwd: Option<&Path>) -> Result<Program, ProgramError> {
    let cwd = cwd.unwrap_or(Path::new(""));
    if command0.contains('/') {
        return usable(&cwd.join(command0), command0, cwd);
    }
    let mut refused = None;
    let mut searched = Vec::new();
    for folder in std::env::split_paths(path_env) {
        // An empty entry means the working folder.
        let candidate = cwd.join(&folder).join(command0);
        match usable(&candidate, command0, cwd) {
            Ok(program) => return Ok(program),
            // As execvp: a file without permission does not end the search, but is what is told in the end.
            Err(error @ (ProgramError::NotExecutable { .. } | ProgramError::NoInterpreter { .. })) => {
                refused.get_or_insert(error);
            }
            Err(_) => (),
        }
        searched.push(folder.display().to_string());
    }
    Err(refused.unwrap_or_else(|| ProgramError::NotInPath {
        name: command0.to_owned(),
        searched: searched.join(":"),
        hint: hint_for_file_here(command0, cwd),
    }))
}

fn usable(path: &Path, typed: &str, cwd: &Path) -> Result<Program, ProgramError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => ProgramError::NoSuchFile(path.to_owned()),
        _ => ProgramError::Unreadable { path: path.to_owned(), why: error.to_string() },
    })?;
    if !metadata.is_file() {
        return Err(ProgramError::NotAFile(path.to_owned()));
    }
    if !executable(&metadata) {
        let hint = match runner(typed) {
            Some(runner) => format!("; did you mean: clusterd -- {runner} {typed}?"),
            None => format!(" (chmod +x {})", path.strip_prefix(cwd).unwrap_or(path).display()),
        };
        return Err(ProgramError::NotExecutable { path: path.to_owned(), hint });
    }
    let head = head(path);
    let shebang = shebang(&head);
    if let Some(runner) = runner(typed).filter(|runner| *runner != "sh")
        && !head.is_empty()
        && !head.starts_with(b"#!")
        && !head.contains(&0)
    {
        return Err(ProgramError::NoFirstLine { script: typed.to_owned(), runner });
    }
    if let Some(interpreter) = shebang.first()
        && interpreter.starts_with('/')
        && !Path::new(interpreter).exists()
    {
        return Err(ProgramError::NoInterpreter { path: path.to_owned(), interpreter: interpreter.clone() });
    }
    Ok(Program { path: path.to_owned(), kind: kind(path, &shebang) })
}

/// Some execute bit: whose it must be is known only after the worker became its user.
fn executable(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

fn hint_for_file_here(name: &str, cwd: &Path) -> String {
    match fs::metadata(cwd.join(name)) {
        Ok(here) if here.is_file() => match runner(name) {
            Some(runner) => format!("; did you mean: clusterd -- {runner} {name}?"),
            None if executable(&here) => format!("; did you mean ./{name}?"),
            None => String::new(),
        },
        _ => String::new(),
    }
}

/// What runs a script of this ending.
fn runner(script: &str) -> Option<&'static str> {
    match Path::new(script).extension()?.to_str()? {
        "js" | "mjs" | "cjs" | "ts" | "mts" | "cts" => Some("node"),
        "py" => Some("python3"),
        "sh" => Some("sh"),
        "rb" => Some("ruby"),
        "php" => Some("php"),
        _ => None,
    }
}

/// By the name it was called by, by the name of the file behind all links, then by the interpreter of its first line.
fn kind(path: &Path, shebang: &[String]) -> ProgramKind {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let names = [path, &real].map(|path| path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned());
    names
        .iter()
        .find_map(|name| kind_by_name(name))
        .or_else(|| kind_by_name(&interpreter(shebang)?))
        .unwrap_or(ProgramKind::Other)
}

/// Node programs that start another one, by the names of their files.
const NODE_WRAPPERS: [(&str, &[&str]); 13] = [
    ("npm", &["npm", "npm-cli.js"]),
    ("npx", &["npx", "npx-cli.js"]),
    ("yarn", &["yarn", "yarnpkg", "yarn.js"]),
    ("pnpm", &["pnpm", "pnpm.cjs", "pnpx", "pnpx.cjs"]),
    ("tsx", &["tsx"]),
    ("nodemon", &["nodemon", "nodemon.js"]),
    ("ts-node-dev", &["ts-node-dev", "tsnd"]),
    ("nest", &["nest", "nest.js"]),
    ("cross-env", &["cross-env", "cross-env-shell"]),
    ("dotenv", &["dotenv", "dotenvx"]),
    ("env-cmd", &["env-cmd"]),
    ("concurrently", &["concurrently", "conc"]),
    ("npm-run-all", &["npm-run-all", "run-s", "run-p"]),
];

/// Options with which Node starts another process for the app.
const NODE_PARENT_OPTIONS: [(&str, &str); 3] =
    [("--watch", "node --watch"), ("--watch-path", "node --watch"), ("--run", "node --run")];

/// What kind of program a command runs, where the file alone does not tell: `node --watch` is a wrapper.
pub fn kind_of(program: &Program, command: &[String]) -> ProgramKind {
    match program.kind {
        ProgramKind::Node => node_parent(command).map_or(ProgramKind::Node, ProgramKind::NodeWrapper),
        kind => kind,
    }
}

/// The option with which Node starts another process, among those before the script.
fn node_parent(command: &[String]) -> Option<&'static str> {
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next().filter(|word| word.starts_with('-') && *word != "--") {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        if let Some((_, tool)) = NODE_PARENT_OPTIONS.iter().find(|(option, _)| *option == name) {
            return Some(tool);
        }
        if inspect::takes_value(word) {
            words.next();
        }
    }
    None
}

fn kind_by_name(name: &str) -> Option<ProgramKind> {
    if let Some((wrapper, _)) = NODE_WRAPPERS.iter().find(|(_, names)| names.contains(&name)) {
        return Some(ProgramKind::NodeWrapper(wrapper));
    }
    // node, nodejs, node20, node-v22.1, python3.12
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let base =
        base.strip_suffix('v').filter(|base| base.ends_with(['-', '_'])).unwrap_or(base).trim_end_matches(['-', '_']);
    match base {
        "node" | "nodejs" => Some(ProgramKind::Node),
        "bun" => Some(ProgramKind::Bun),
        "deno" => Some(ProgramKind::Deno),
        "python" | "pypy" => Some(ProgramKind::Python),
        _ => None,
    }
}

/// The words of a script's `#!` line; empty: it has none. The kernel passes all that follows the interpreter as one
/// argument; `env -S` splits it by itself.
fn shebang(head: &[u8]) -> Vec<String> {
    if !head.starts_with(b"#!") {
        return Vec::new();
    }
    let line = head[2..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).split_whitespace().map(str::to_owned).collect()
}

/// The beginning of a file; empty where it cannot be read.
fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::with_capacity(SHEBANG_BYTES_MAX);
    let read = File::open(path).and_then(|file| file.take(SHEBANG_BYTES_MAX as u64).read_to_end(&mut head));
    if read.is_ok() { head } else { Vec::new() }
}

/// The name of the program that the `#!` line of a file runs; `None`: it has no such line.
pub fn interpreter_of(path: &Path) -> Option<String> {
    interpreter(&shebang(&head(path)))
}

/// The name of the program that a `#!` line runs in the end, through `env` too.
fn interpreter(shebang: &[String]) -> Option<String> {
    let base = |word: &str| Path::new(word).file_name().and_then(OsStr::to_str).map(str::to_owned);
    let first = base(shebang.first()?)?;
    if first != "env" {
        return Some(first);
    }
    // Options of env (-S, -i, --split-string=...) and its NAME=VALUE words come before the program.
    let mut words = shebang[1..].iter().map(|word| word.trim_start_matches("--split-string=").trim_start_matches("-S"));
    base(words.find(|word| !word.is_empty() && !word.starts_with('-') && !word.contains('='))?)
}

/// What a person should know about running this kind of program, and what to run instead. `command` is the whole
/// argv, `cwd` the worker's folder. `None`: nothing.
pub fn advice(kind: ProgramKind, command: &[String], cwd: &Path) -> Option<String> {
    let other_runtime = |name: &str| {
        Some(format!(
            "{name} does not speak Node's cluster protocol; leave --protocol out, so that it shares the port that it binds"
        ))
    };
    match kind {
        ProgramKind::NodeWrapper(tool) => {
            let instead = behind_wrapper(tool, command, cwd).unwrap_or_else(|| "run the program itself".to_owned());
            Some(format!("{tool} stands between clusterd and the app, so that no connection reaches it; {instead}"))
        }
        ProgramKind::Bun => other_runtime("bun"),
        ProgramKind::Deno => other_runtime("deno"),
        ProgramKind::Node | ProgramKind::Python | ProgramKind::Other => None,
    }
}

fn behind_wrapper(tool: &str, command: &[String], cwd: &Path) -> Option<String> {
    if !matches!(tool, "npm" | "npx" | "yarn" | "pnpm") {
        return None;
    }
    let words: Vec<&str> = command.iter().skip(1).map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    if tool == "npx" {
        let run = local_program(words.first()?, cwd)?;
        return Some(format!("run instead: clusterd -- {run} {}", words[1..].join(" ")).trim_end().to_owned());
    }
    let script = match words.as_slice() {
        ["run" | "run-script", script, ..] => script,
        [script @ ("start" | "test" | "restart"), ..] => script,
        // yarn and pnpm run a script by its bare name.
        [script, ..] if tool != "npm" => script,
        _ => return None,
    };
    let package = cwd.join("package.json");
    let mut text = String::new();
    File::open(&package).ok()?.take(PACKAGE_JSON_BYTES_MAX).read_to_string(&mut text).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let default = (*script == "start" && cwd.join("server.js").is_file()).then_some("node server.js");
    let line =
        json.get("scripts").and_then(|scripts| scripts.get(script)).and_then(|line| line.as_str()).or(default)?;
    let shown = line.replace(char::is_control, " ");
    match parse::command_line(line) {
        Ok(words) => Some(format!("run instead: {}", as_clusterd(&words, cwd))),
        Err(_) => Some(format!("run what its script \"{script}\" runs: {shown}")),
    }
}

/// `A=1 node app.js` as `clusterd -e A=1 -- node app.js`.
fn as_clusterd(words: &[String], cwd: &Path) -> String {
    let is_variable = |word: &&String| word.split_once('=').is_some_and(|(name, _)| !name.contains(['/', '-']));
    let count = words.iter().take_while(is_variable).count();
    let mut out = "clusterd".to_owned();
    for word in &words[..count] {
        out += &format!(" -e {word}");
    }
    out += " --";
    for (index, word) in words[count..].iter().enumerate() {
        let local = if index == 0 { local_program(word, cwd) } else { None };
        out += &format!(" {}", local.as_deref().unwrap_or(word));
    }
    out
}

/// A program of the package's own dependencies, which npm would put into PATH.
fn local_program(name: &str, cwd: &Path) -> Option<String> {
    let local = format!("node_modules/.bin/{name}");
    (!name.contains('/') && cwd.join(&local).exists()).then_some(local)
}

#[cfg(test)]
mod tests;
