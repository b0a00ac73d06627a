//! Reads a configuration of PM2 into plain data: JSON and YAML directly, JavaScript (and nothing else) by node in a child process with a
//! time-out and bounded output. `config::import` converts the data.
use super::lenient;
use crate::config::import::{Format, Script};
use crate::limits;
use crate::os::{poll, process, signal};
use crate::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How much an evaluated configuration may print, its result included, in bytes.
const EVALUATION_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Pause between two checks whether it has ended, where the kernel has no pidfd, in milliseconds.
const EVALUATION_LOOK_MS: u64 = 5;

/// Longest part of its error output that is read, in bytes.
const EVALUATION_WORDS_BYTES_MAX: u64 = 256 * 1024;

/// Stack of a thread that reads output, in bytes.
const EVALUATION_STACK_BYTES: usize = 128 * 1024;

/// How much of a script is read to tell text from a binary, in bytes.
const SCRIPT_HEAD_BYTES: u64 = 8 * 1024;

/// Starts the line with the result, or with the reason for a missing one; all other output is ignored.
const MARK: &str = "\u{1}clusterd:";
/// The program for node: argv is the absolute path of the file, and the mark.
const SCRIPT: &str = include_str!("evaluate.js");
/// Variables that would make the child a worker of another cluster.
const NOT_FOR_THE_CHILD: [&str; 3] = ["NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID"];

/// Why a configuration of PM2 could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The file is one of clusterd itself.
    #[error("it is TOML, not a configuration of PM2")]
    Toml,
    /// The YAML is wrong.
    #[error("{0}")]
    Yaml(String),
    /// The text is not JSON, not even with comments.
    #[error("it holds no data; what is computed belongs into a .js file (as JSON: {wrong})")]
    Json {
        /// Of the JSON.
        wrong: String,
    },
    /// node was not found.
    #[error("node is needed to evaluate it: {0}")]
    NoNode(String),
    /// The process of node could not be run to its end.
    #[error("node {0}")]
    Child(ChildError),
    /// The export contains more than data.
    #[error("what it exports is not data: {0}")]
    NoData(String),
    /// The script threw.
    #[error("{0}")]
    Thrown(String),
    /// node ended without a result.
    #[error("node could not evaluate it ({status}): {said}")]
    Failed {
        /// How the process ended.
        status: String,
        /// The last line of its stderr.
        said: String,
    },
}

/// Why a child process failed; the message continues "node".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot be started: {0}")]
    Spawn(String),
    /// Its pipe could not be read.
    #[error("cannot be read from: {0}")]
    Read(String),
    /// It printed more than the bound.
    #[error("printed more than {kib_max} KiB")]
    TooMuch {
        /// The bound.
        kib_max: u64,
    },
    /// The wait for its end failed.
    #[error("cannot be waited for: {0}")]
    Wait(String),
    /// It ran longer than the bound.
    #[error("did not end within {} s", limits::EVALUATION_MS_MAX / 1000)]
    TooLong,
}

/// The environment of an evaluation: the apps' base environment if there is one, else ours.
pub(super) fn environment(base: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let own =
        || std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    base.cloned().unwrap_or_else(|| own().collect())
}

/// The value in a file. `text`: the content, if it was read already; `folder`: where clusterd was started.
///
/// # Errors Where the file is wrong, or why it could not be evaluated.
pub(super) fn value(
    path: &str,
    text: &str,
    folder: &str,
    env: &BTreeMap<String, String>,
) -> Result<Value, EvaluationError> {
    let text = text.trim_start_matches('\u{feff}');
    match Format::of(path) {
        Format::Toml => Err(EvaluationError::Toml),
        Format::Yaml => yaml(text),
        Format::Script => by_node(path, folder, env),
        // PM2 evaluates any expression. Here a data file is only data.
        Format::Json => serde_json::from_str(text)
            .or_else(|wrong| lenient::value(text).ok_or_else(|| EvaluationError::Json { wrong: wrong.to_string() })),
    }
}

fn yaml(text: &str) -> Result<Value, EvaluationError> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|wrong| EvaluationError::Yaml(wrong.to_string()))
}

/// Has node evaluate a file.
fn by_node(path: &str, folder: &str, env: &BTreeMap<String, String>) -> Result<Value, EvaluationError> {
    let search = env.get("PATH").map(OsString::from).unwrap_or_default();
    let node = program::find("node", &search, Some(Path::new(folder)))
        .map_err(|why| EvaluationError::NoNode(why.to_string()))?;
    let mut command = Command::new(&node.path);
    command.args(["-e", SCRIPT, "--", path, MARK]).current_dir(folder).env_clear().envs(env);
    for name in NOT_FOR_THE_CHILD {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (status, out, err) = run(command).map_err(EvaluationError::Child)?;
    if let Some(json) = marked(&out) {
        return serde_json::from_str(json).map_err(|wrong| EvaluationError::NoData(wrong.to_string()));
    }
    if let Some(why) = marked(&err) {
        return Err(EvaluationError::Thrown(why.to_owned()));
    }
    let said = err.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(EvaluationError::Failed { status: status.to_string(), said: said.trim().to_owned() })
}

fn marked(text: &str) -> Option<&str> {
    text.lines().rev().find_map(|line| line.strip_prefix(MARK))
}

/// Runs a command to its end, for a bounded time. Returns its status, and the beginning of its output.
fn run(mut command: Command) -> Result<(ExitStatus, String, String), ChildError> {
    // A group of its own, so that everything it starts ends with it.
    command.process_group(0);
    process::end_with_this_thread(&mut command);
    let mut child = command.spawn().map_err(|e| ChildError::Spawn(e.to_string()))?;
    let out = child.stdout.take().map(|pipe| read(pipe, EVALUATION_BYTES_MAX));
    let err = child.stderr.take().map(|pipe| read(pipe, EVALUATION_WORDS_BYTES_MAX));
    let until = Instant::now() + Duration::from_millis(limits::EVALUATION_MS_MAX);
    let ended = end_of(&mut child, until);
    let [out, err] = [out, err].map(|text| text.map_or(Ok(String::new()), |text| collect(&text, until)));
    Ok((ended?, out?, err?))
}

/// Reads a pipe on a thread of its own, up to a bound, so that the child never blocks on a full pipe.
fn read(pipe: impl Read + Send + 'static, bytes_max: u64) -> Receiver<Result<String, ChildError>> {
    let (sender, receiver) = channel();
    let reader = move || {
        let mut bytes = Vec::new();
        let all = pipe.take(bytes_max + 1).read_to_end(&mut bytes);
        let text = match all {
            Ok(_) if bytes.len() as u64 > bytes_max => Err(ChildError::TooMuch { kib_max: bytes_max / 1024 }),
            Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) => Err(ChildError::Read(e.to_string())),
        };
        // The receiver may have given up.
        let _ = sender.send(text);
    };
    // Without a thread the sender is gone, which is reported as any other error.
    let thread = std::thread::Builder::new().name("clusterd-read".to_owned());
    drop(thread.stack_size(EVALUATION_STACK_BYTES).spawn(reader));
    receiver
}

fn collect(text: &Receiver<Result<String, ChildError>>, until: Instant) -> Result<String, ChildError> {
    match text.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(text) => text,
        Err(RecvTimeoutError::Timeout) => Err(ChildError::TooLong),
        Err(RecvTimeoutError::Disconnected) => Err(ChildError::Read("no thread".to_owned())),
    }
}

/// Waits for the end of the child, and kills what it left running, whose output is not read.
fn end_of(child: &mut Child, until: Instant) -> Result<ExitStatus, ChildError> {
    let left_ms = || u64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or_default();
    let pidfd = process::pidfd(child.id().cast_signed());
    let over = loop {
        match &pidfd {
            // Not reaped yet, so the number is still that of its group.
            Ok(pidfd) => {
                let mut interests = [poll::Interest::new(pidfd.as_fd(), false)];
                poll::wait(&mut interests, Some(left_ms())).map_err(|e| ChildError::Wait(e.to_string()))?;
                if interests[0].readable() {
                    break true;
                }
            }
            // Kernels before 5.3.
            Err(_) => match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(EVALUATION_LOOK_MS)),
                Err(e) => return Err(ChildError::Wait(e.to_string())),
            },
        }
        if left_ms() == 0 {
            break false;
        }
    };
    // The group may be empty.
    let _ = signal::send_group(child.id().cast_signed(), signal::KILL);
    let status = child.wait().map_err(|e| ChildError::Wait(e.to_string()))?;
    if over { Ok(status) } else { Err(ChildError::TooLong) }
}

/// What the word in `script` names, for an app in `cwd`.
pub(super) fn look_at_script(folder: &str, env: &BTreeMap<String, String>, cwd: Option<&str>, script: &str) -> Script {
    let place = cwd.map_or_else(|| Path::new(folder).to_owned(), |cwd| Path::new(folder).join(cwd));
    let path = place.join(script);
    let Ok(metadata) = std::fs::metadata(&path) else {
        let search = env.get("PATH").map(OsString::from).unwrap_or_default();
        let found = !script.contains('/') && program::find(script, &search, Some(&place)).is_ok();
        return if found { Script::InPath } else { Script::Missing };
    };
    if metadata.is_dir() {
        return Script::Text;
    }
    let mut head = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(SCRIPT_HEAD_BYTES).read_to_end(&mut head));
    if read.is_ok() && head.contains(&0) {
        return Script::Binary;
    }
    match program::interpreter_of(&path) {
        Some(interpreter) if !interpreter.starts_with("node") => Script::Itself,
        Some(_) | None => Script::Text,
    }
}
