//! Reads what the command line names (the configuration, environment files) into [`Sources`]. What they mean is
//! `config::resolve`'s business; how a file of PM2's is evaluated is `evaluate`'s.
use super::args::{EXIT_FAILED, EXIT_USAGE, RunArgs, StartArgs};
use super::evaluate;
use crate::config::import::{self, Converted, Format, Surroundings};
use crate::config::resolve::env_files_wanted;
use crate::config::sources::{EnvFileSource, FileSource, Sources, absolute, shown};
use crate::limits::{CONFIG_BYTES_MAX, ENV_FILE_BYTES_MAX};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A file that a deployment cannot do without could not be read. Exit code 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The folder in which clusterd was started is gone, or its name is not UTF-8.
    StartFolder(String),
    /// What `start` was given is neither a file nor an app.
    Script {
        /// As typed.
        path: String,
        /// Why.
        why: String,
    },
    /// The configuration file.
    File {
        /// As a person would type it.
        path: String,
        /// Why.
        why: String,
    },
    /// A configuration of PM2's that cannot be converted.
    Import {
        /// As a person would type it.
        path: String,
        /// Why not; never empty.
        problems: Vec<String>,
    },
}

impl LoadError {
    /// The exit code of a command that fails with it.
    pub fn code(&self) -> u8 {
        match self {
            LoadError::StartFolder(_) | LoadError::Script { .. } | LoadError::File { .. } => EXIT_FAILED,
            LoadError::Import { .. } => EXIT_USAGE,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::StartFolder(why) => write!(f, "cannot tell the present folder: {why}"),
            LoadError::Script { path, why } => write!(f, "cannot start {path}: {why}"),
            LoadError::File { path, why } => write!(f, "cannot read the configuration {path}: {why}"),
            LoadError::Import { path, problems } => {
                let lines: Vec<String> = problems.iter().map(|problem| format!("{path}: {problem}")).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads everything that this command line names. Relative paths start at the present folder, for good.
///
/// # Errors
/// The configuration file cannot be read. (An environment file that cannot is a problem that `resolve` reports.)
pub fn load(args: &RunArgs) -> Result<Sources, LoadError> {
    let folder = std::env::current_dir().map_err(|error| LoadError::StartFolder(error.to_string()))?;
    let folder = folder.to_str().ok_or_else(|| LoadError::StartFolder("its name is not UTF-8".into()))?;
    load_in(folder, args)
}

/// Reads everything that a `start` names: its word is a configuration file by its name, else a script.
///
/// # Errors
/// As [`load`]; the script is not there.
pub fn background(args: &StartArgs) -> Result<Sources, LoadError> {
    let mut run = args.run.clone();
    let missing = |path: &str, why: &str| LoadError::Script { path: path.to_owned(), why: why.to_owned() };
    match args.what.as_slice() {
        [] => {}
        [word] if word == STDIN => return from_stdin(&run),
        [word] if import::is_configuration(word) => run.config = Some(word.clone()),
        [script] => {
            let found = std::fs::metadata(script)
                .map_err(|_| missing(script, "there is no such file, and no app of that name"))?;
            if found.is_dir() {
                return Err(missing(script, "it is a folder"));
            }
            let mut command = interpreter(args, script);
            command.append(&mut run.command);
            run.command = command;
        }
        [first, ..] => return Err(missing(first, "not all of these words are apps, and a start takes one script")),
    }
    load(&run)
}

/// What stands for standard input where a file is named.
const STDIN: &str = "-";

/// A configuration from standard input: TOML, or JSON as PM2 has it. It cannot be read again: a reload goes on with it.
fn from_stdin(args: &RunArgs) -> Result<Sources, LoadError> {
    let failed = |why: String| LoadError::File { path: STDIN.to_owned(), why };
    let text = read("/dev/stdin", CONFIG_BYTES_MAX).map_err(failed)?;
    let mut sources = load(&RunArgs { config: None, ..args.clone() })?;
    let mut file = FileSource { path: STDIN.to_owned(), text, notes: Vec::new() };
    if let Ok(value) = serde_json::from_str(&file.text) {
        convert(&mut file, &value, &sources.start_folder, &evaluate::environment(None))?;
    }
    sources.file = Some(file);
    reload(&sources)
}

/// A configuration of PM2's as TOML.
fn convert(
    file: &mut FileSource,
    value: &serde_json::Value,
    folder: &str,
    env: &BTreeMap<String, String>,
) -> Result<(), LoadError> {
    let shown = shown(folder, &file.path);
    let look = |cwd: Option<&str>, script: &str| evaluate::look_at_script(folder, env, cwd, script);
    let around = Surroundings { file: &shown, env, look: &look };
    let failed = |problems| LoadError::Import { path: shown.clone(), problems };
    let Converted { toml, notes } = import::convert(value, &around).map_err(failed)?;
    (file.text, file.notes) = (toml, notes);
    Ok(())
}

/// Reads and converts one file of PM2's.
///
/// # Errors
/// As [`load`]; it is a file of clusterd's own.
pub fn pm2_file(path: &str) -> Result<Sources, LoadError> {
    if Format::of(path) == Format::Toml {
        let why = "import takes JavaScript (.js, .cjs, .mjs), JSON (.json, .pm2) and YAML (.yaml, .yml)".to_owned();
        return Err(LoadError::File { path: path.to_owned(), why });
    }
    load(&RunArgs { config: Some(path.to_owned()), ..RunArgs::default() })
}

/// The words before a script's own arguments.
fn interpreter(args: &StartArgs, script: &str) -> Vec<String> {
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
    // A word without a slash would be looked for in PATH.
    let script = if program.is_none() && !script.contains('/') { format!("./{script}") } else { script.to_owned() };
    program.into_iter().chain(further).map(str::to_owned).chain([script]).collect()
}

/// As [`load`], with the start folder given.
pub(crate) fn load_in(start_folder: &str, args: &RunArgs) -> Result<Sources, LoadError> {
    let path_of = |path: &String| absolute(start_folder, path).display().to_string();
    let overrides = args.overrides(args.env_file.iter().map(path_of).collect());
    let file = args.config.as_ref().map(|path| FileSource { path: path_of(path), ..FileSource::default() });
    let start_folder = start_folder.to_owned();
    reload(&Sources { start_folder, file, overrides, ..Sources::default() })
}

/// Whether reading these sources again takes more than reading files: it may take seconds.
pub fn takes_long(sources: &Sources) -> bool {
    sources.file.as_ref().is_some_and(|file| file.format() != Format::Toml)
}

/// Reads the same files again; the command line stays as it was. What an evaluation needs of the environment is that of
/// the start, where that was kept.
///
/// # Errors
/// As [`load`]. The previous sources are still good.
pub fn reload(previous: &Sources) -> Result<Sources, LoadError> {
    let mut sources = Sources { env_files: Vec::new(), ..previous.clone() };
    let folder = &sources.start_folder;
    let mut wanted = sources.overrides.env_files.clone();
    if let Some(file) = &mut sources.file {
        let shown = shown(folder, &file.path);
        let failed = |why| LoadError::File { path: shown.clone(), why };
        if file.path != STDIN {
            file.text = read(&file.path, CONFIG_BYTES_MAX).map_err(failed)?;
            file.notes.clear();
        }
        if file.format() != Format::Toml {
            let env = evaluate::environment(previous.base_env.as_ref());
            let value = evaluate::value(&file.path, &file.text, folder, &env).map_err(failed)?;
            convert(file, &value, folder, &env)?;
        }
        wanted.extend(env_files_wanted(&file.text, folder));
    }
    wanted.sort();
    wanted.dedup();
    let read = |path: String| EnvFileSource { text: read(&path, ENV_FILE_BYTES_MAX), path };
    sources.env_files = wanted.into_iter().map(read).collect();
    Ok(sources)
}

/// What could not be taken over from a file of PM2's, one line each; less what was said of the `before` ones.
pub fn notes(sources: &Sources, before: Option<&Sources>) -> Vec<String> {
    let Some(file) = &sources.file else { return Vec::new() };
    let told = before.and_then(|before| before.file.as_ref()).map_or(&[][..], |file| &file.notes);
    let shown = shown(&sources.start_folder, &file.path);
    file.notes.iter().filter(|note| !told.contains(note)).map(|note| format!("{shown}: {note}")).collect()
}

/// A whole text file of at most `bytes_max`.
fn read(path: &str, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let metadata = std::fs::metadata(path).map_err(|error| reason(&error))?;
    if metadata.is_dir() {
        return Err("it is a folder".into());
    }
    // A pipe may be given (-c /dev/stdin), so that its size is known only at the end.
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(|error| reason(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {} KiB", bytes_max / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into())
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "no permission".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("clusterd-load-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let folder = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            std::fs::write(self.0.join(name), text).unwrap();
        }

        fn load(&self, config: &str) -> Result<Sources, LoadError> {
            let args = RunArgs { config: Some(config.into()), ..RunArgs::default() };
            load_in(self.0.to_str().unwrap(), &args)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_read_and_read_again() {
        let folder = Folder::new();
        folder.write("c.toml", "[[app]]\ncommand = \"a\"\nenv_file = \".env\"\nworkers = 1\n");
        folder.write(".env", "A=1\n");
        let first = folder.load("c.toml").unwrap();
        assert_eq!(first.file.as_ref().unwrap().path, folder.0.join("c.toml").display().to_string());
        assert_eq!(resolve(&first).unwrap().apps[0].env["A"], "1");
        folder.write(".env", "A=2\n");
        assert_eq!(resolve(&reload(&first).unwrap()).unwrap().apps[0].env["A"], "2");
        std::fs::remove_file(folder.0.join(".env")).unwrap();
        let problems = resolve(&reload(&first).unwrap()).unwrap_err();
        assert_eq!(problems[0].to_string(), "c.toml:3:12: cannot read .env: there is no such file");
        std::fs::remove_file(folder.0.join("c.toml")).unwrap();
        assert!(reload(&first).is_err());
    }

    #[test]
    fn unreadable_files_say_why() {
        let folder = Folder::new();
        let says = |name: &str| folder.load(name).unwrap_err().to_string();
        assert_eq!(says("no.toml"), "cannot read the configuration no.toml: there is no such file");
        assert_eq!(says("/"), "cannot read the configuration /: it is a folder");
        folder.write("bytes.toml", [0xff_u8, 0xfe]);
        assert!(says("bytes.toml").ends_with("it is not UTF-8 text"));
        folder.write("big.toml", vec![b'#'; CONFIG_BYTES_MAX as usize + 1]);
        assert!(says("big.toml").ends_with("it is larger than 1024 KiB"));
        folder.write("full.toml", vec![b'#'; CONFIG_BYTES_MAX as usize]);
        assert!(folder.load("full.toml").is_ok());
    }
}
