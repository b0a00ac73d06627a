//! Reads the files that a [`Request`] names (the configuration, environment files) into [`Sources`], for the command line
//! and for the master, which reads them again at a reload. `evaluate` reads the formats of PM2. The meaning of what was read
//! is decided in `config`, which touches no file.
mod evaluate;
mod lenient;

use crate::config::import::{self, Converted, Format, Surroundings};
use crate::config::resolve::env_files_wanted;
use crate::config::sources::{EnvFileSource, FileSource, FileUser, Overrides, Sources, absolute, shown};
use crate::limits::{CONFIG_BYTES_MAX, ENV_FILE_BYTES_MAX, FILE_READ_MS_MAX};
use crate::os::place::{self, Missing};
use crate::os::read;
use crate::os::user::{self, UserError};
pub use evaluate::EvaluationError;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// What a command line asks to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Path of the configuration file as typed, where one was named.
    pub config: Option<String>,
    /// Everything else. Paths of environment files are still as typed.
    pub overrides: Overrides,
}

/// A file that a deployment depends on could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The folder in which clusterd was started is gone, or its name is not UTF-8.
    #[error("cannot find the current folder: {0}")]
    StartFolder(String),
    /// The configuration file.
    #[error("cannot read the configuration {path}: {why}")]
    File {
        /// Relative to the start folder where the file lies below it.
        path: String,
        why: ReadError,
    },
    /// A configuration of PM2 that cannot be converted.
    #[error("{}", lines(path, problems))]
    Import {
        /// Relative to the start folder where the file lies below it.
        path: String,
        /// Why not, a sentence each; never empty.
        problems: Vec<String>,
    },
}

/// Why one file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing has this path.
    #[error("there is no such file")]
    Missing,
    /// The user may not read the file.
    #[error("no permission")]
    Permission,
    /// The path names a folder.
    #[error("it is a folder")]
    Folder,
    /// More than the bound.
    #[error("it is larger than {kib_max} KiB")]
    TooLarge {
        /// The bound.
        kib_max: u64,
    },
    /// A pipe, or the like, whose end did not come.
    #[error("reading it took longer than {} ms", FILE_READ_MS_MAX)]
    Slow,
    /// The bytes are not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// A file of clusterd itself was given to `import`.
    #[error("import takes JavaScript and TypeScript (.js, .cjs, .mjs, .ts), JSON (.json, .pm2) and YAML (.yaml, .yml)")]
    NotPm2,
    /// A file of PM2 could not be evaluated.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// Any other error of the system.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::Missing,
            io::ErrorKind::PermissionDenied => ReadError::Permission,
            io::ErrorKind::IsADirectory => ReadError::Folder,
            io::ErrorKind::TimedOut => ReadError::Slow,
            _ => ReadError::Io(error.to_string()),
        }
    }
}

impl LoadError {
    /// Whether the file itself is wrong, as opposed to one that cannot be read.
    pub fn is_usage(&self) -> bool {
        matches!(self, LoadError::Import { .. })
    }
}

fn lines(path: &str, problems: &[String]) -> String {
    problems.iter().map(|problem| format!("{path}: {problem}")).collect::<Vec<_>>().join("\n")
}

/// Reads every file that a command line names. Relative paths start at the present folder, also when the files are read
/// again.
///
/// # Errors
/// The configuration file cannot be read. (`resolve` reports environment files that cannot be read.)
pub fn load(request: &Request) -> Result<Sources, LoadError> {
    let folder = present_folder().map_err(|error| LoadError::StartFolder(error.to_string()))?;
    let folder = folder.to_str().ok_or_else(|| LoadError::StartFolder("its name is not UTF-8".into()))?;
    load_in(folder, request)
}

/// The present folder as the shell writes it (`PWD`), links unresolved: a release folder behind a link, or one that is
/// replaced, is found again under that name.
fn present_folder() -> io::Result<PathBuf> {
    let physical = std::env::current_dir()?;
    let typed = std::env::var_os("PWD").map(PathBuf::from).filter(|typed| is_plain(typed));
    let same = |typed: &PathBuf| {
        let both = std::fs::metadata(typed).and_then(|typed| Ok((typed, std::fs::metadata(&physical)?)));
        both.is_ok_and(|(typed, physical)| (typed.dev(), typed.ino()) == (physical.dev(), physical.ino()))
    };
    Ok(typed.filter(same).unwrap_or(physical))
}

/// Whether a path is absolute and goes nowhere through `.` or `..`.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// The name of standard input where a file is expected.
pub const STDIN: &str = "-";

/// Reads a configuration from standard input: TOML, or JSON in the format of PM2. A reload keeps the text, because standard
/// input cannot be read twice.
///
/// # Errors
/// As [`load`].
pub fn load_stdin(request: &Request) -> Result<Sources, LoadError> {
    let failed = |why| LoadError::File { path: STDIN.to_owned(), why };
    let text = read_text("/dev/stdin", CONFIG_BYTES_MAX).map_err(failed)?;
    let mut sources = load(&Request { config: None, ..request.clone() })?;
    let mut file = FileSource { path: STDIN.to_owned(), text, notes: Vec::new() };
    if let Ok(value) = serde_json::from_str(&file.text) {
        convert(&mut file, &value, &sources.start_folder, &evaluate::environment(None))?;
    }
    sources.file = Some(file);
    reload(&sources)
}

/// Replaces the text of a PM2 file by its conversion to TOML.
fn convert(
    file: &mut FileSource,
    value: &serde_json::Value,
    folder: &str,
    env: &BTreeMap<String, String>,
) -> Result<(), LoadError> {
    let shown = shown(folder, &file.path);
    let look = |cwd: Option<&str>, script: &str| evaluate::look_at_script(folder, env, cwd, script);
    let program = std::env::current_exe().map_or_else(|_| "clusterd".to_owned(), |path| path.display().to_string());
    let around = Surroundings { file: &shown, env, program: &program, look: &look };
    let failed = |problems| LoadError::Import { path: shown.clone(), problems };
    let Converted { toml, notes } = import::convert(value, &around).map_err(failed)?;
    (file.text, file.notes) = (toml, notes);
    Ok(())
}

/// Reads and converts one configuration of PM2.
///
/// # Errors
/// As [`load`]; the file is TOML.
pub fn pm2_file(path: &str) -> Result<Sources, LoadError> {
    if Format::of(path) == Format::Toml {
        return Err(LoadError::File { path: path.to_owned(), why: ReadError::NotPm2 });
    }
    load(&Request { config: Some(path.to_owned()), ..Request::default() })
}

/// As [`load`], with the start folder given.
fn load_in(start_folder: &str, request: &Request) -> Result<Sources, LoadError> {
    let path_of = |path: &String| absolute(start_folder, path).display().to_string();
    let mut overrides = request.overrides.clone();
    overrides.env_files = overrides.env_files.iter().map(path_of).collect();
    let file = request.config.as_ref().map(|path| FileSource { path: path_of(path), ..FileSource::default() });
    let start_folder = start_folder.to_owned();
    reload(&Sources { start_folder, file, overrides, ..Sources::default() })
}

/// Whether reading these sources again runs node, which may take seconds.
pub fn takes_long(sources: &Sources) -> bool {
    sources.file.as_ref().is_some_and(|file| file.format() != Format::Toml)
}

/// Reads the same files again; the command line stays the same. Evaluations get the environment of the start, where that
/// was kept.
///
/// # Errors
/// As [`load`]. The previous sources stay valid.
pub fn reload(previous: &Sources) -> Result<Sources, LoadError> {
    let mut sources = Sources { env_files: Vec::new(), ..previous.clone() };
    let folder = &sources.start_folder;
    let typed = sources.overrides.env_files.iter();
    let mut wanted: Vec<(String, FileUser)> = typed.map(|path| (path.clone(), FileUser::default())).collect();
    if let Some(file) = &mut sources.file {
        let shown = shown(folder, &file.path);
        let failed = |why| LoadError::File { path: shown.clone(), why };
        if file.path != STDIN {
            file.text = read_text(&file.path, CONFIG_BYTES_MAX).map_err(failed)?;
            file.notes.clear();
        }
        if file.format() != Format::Toml {
            let env = evaluate::environment(previous.base_env.as_ref());
            let value = evaluate::value(&file.path, &file.text, folder, &env).map_err(|why| failed(why.into()))?;
            convert(file, &value, folder, &env)?;
        }
        wanted.extend(env_files_wanted(&file.text, folder, &sources.overrides));
    }
    wanted.sort();
    wanted.dedup();
    let read = |(path, user): (String, FileUser)| EnvFileSource { text: read_env_file(&path, &user), path, user };
    sources.env_files = wanted.into_iter().map(read).collect();
    Ok(sources)
}

/// The text of an environment file, read with the rights of the app that names it, or why there is none.
fn read_env_file(path: &str, written: &FileUser) -> Result<String, String> {
    let user = match user::resolve(written.user.as_deref(), written.group.as_deref()) {
        Ok(user) => user,
        // Our rights are not more than theirs.
        Err(UserError::NotRoot { .. }) => None,
        Err(error) => return Err(error.to_string()),
    };
    let Some(user) = user else {
        return read_text(path, ENV_FILE_BYTES_MAX).map_err(|why| why.to_string());
    };
    let bytes = place::within(Some(&user), Path::new(path), Missing::Fail, Some(FILE_READ_MS_MAX), |place| {
        read::whole_file(place.read(place.name())?, ENV_FILE_BYTES_MAX, FILE_READ_MS_MAX / 2)
    });
    let whose = || written.user.as_ref().or(written.group.as_ref()).cloned().unwrap_or_default();
    text_of(bytes, ENV_FILE_BYTES_MAX).map_err(|why| format!("as {}: {why}", whose()))
}

/// What could not be converted from a file of PM2, one line each, without what was reported for `before`.
pub fn notes(sources: &Sources, before: Option<&Sources>) -> Vec<String> {
    let Some(file) = &sources.file else { return Vec::new() };
    let told = before.and_then(|before| before.file.as_ref()).map_or(&[][..], |file| &file.notes);
    let shown = shown(&sources.start_folder, &file.path);
    file.notes.iter().filter(|note| !told.contains(note)).map(|note| format!("{shown}: {note}")).collect()
}

/// A whole text file of at most `bytes_max`.
fn read_text(path: &str, bytes_max: u64) -> Result<String, ReadError> {
    // The path may name a pipe (-c /dev/stdin), whose size is known only at the end.
    text_of(read::whole(Path::new(path), bytes_max, FILE_READ_MS_MAX), bytes_max)
}

fn text_of(bytes: io::Result<Vec<u8>>, bytes_max: u64) -> Result<String, ReadError> {
    let bytes = match bytes {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(ReadError::TooLarge { kib_max: bytes_max / 1024 });
        }
        bytes => bytes?,
    };
    String::from_utf8(bytes).map_err(|_| ReadError::NotText)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
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
            let request = Request { config: Some(config.into()), ..Request::default() };
            load_in(self.0.to_str().unwrap(), &request)
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
