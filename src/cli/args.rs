//! What was typed, by clap: options stay unset where nothing was said. Defaults and rules between settings are
//! `config::resolve`'s business; reading files is `load`'s.
use super::help;
use super::logs::LogsArgs;
pub use super::run_args::RunArgs;
use crate::api::request::{Scale, ScaleError};
use crate::config::{name, parse, schema};
use crate::master;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// What clusterd was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// Run a deployment in the foreground.
    Run(RunArgs),
    /// `start`: run something in the background, or again.
    Start(Box<StartArgs>),
    /// A verb to what is there.
    Ask {
        /// The verb.
        verb: Ask,
        /// `--home`.
        home: Option<PathBuf>,
    },
    /// `init`: write an explained configuration.
    Init {
        /// Where to.
        file: PathBuf,
        /// Over one that is there.
        force: bool,
    },
    /// `import`: convert a configuration of PM2's.
    Import {
        /// What to convert.
        file: String,
        /// Where to; `None`: stdout.
        output: Option<PathBuf>,
        /// Over one that is there.
        force: bool,
    },
    /// `check`: say what would run, or everything that is wrong.
    Check {
        /// What to run.
        run: RunArgs,
        /// As JSON.
        json: bool,
    },
    /// `--help`, `--version`, `help`: text for stdout; exit code 0.
    Print(String),
}

/// The command line could not be understood. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// For stderr, whole lines.
    pub message: String,
}

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message.trim_end())
    }
}

impl std::error::Error for UsageError {}

/// Exit code of a failure.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of a command line or configuration that is wrong.
pub const EXIT_USAGE: u8 = 2;

/// The exit code of a command whose files could not be read, or are wrong themselves (`is_usage`).
pub(super) fn load_error_code(is_usage: bool) -> u8 {
    if is_usage { EXIT_USAGE } else { EXIT_FAILED }
}

const VERBS: &[&str] = &[
    "start",
    "ls",
    "list",
    "status",
    "jlist",
    "top",
    "monit",
    "describe",
    "show",
    "env",
    "reload",
    "gracefulReload",
    "restart",
    "stop",
    "delete",
    "scale",
    "signal",
    "logs",
    "flush",
    "reloadLogs",
    "upgrade",
    "save",
    "resurrect",
    "startup",
    "unstartup",
    "kill",
    "init",
    "import",
    "schema",
    "check",
    "completions",
    "man",
    "help",
];

#[derive(Debug, Parser)]
#[command(
    name = "clusterd",
    version,
    about = "Runs N copies of a program behind one listening socket and keeps them running.",
    override_usage = help::USAGE,
    after_help = help::AFTER,
    disable_help_subcommand = true,
    subcommand_help_heading = "Verbs (to a deployment that runs)",
    term_width = 80
)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    /// Folder of the control sockets (default: $CLUSTERD_HOME, or ~/.clusterd)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Other")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run something in the background, or start again what was stopped
    #[command(override_usage = help::START_USAGE)]
    Start(Box<StartArgs>),
    #[command(flatten)]
    Ask(Ask),
    /// Say what would run, or everything that is wrong
    #[command(override_usage = help::CHECK_USAGE)]
    Check {
        #[command(flatten)]
        run: Box<RunArgs>,
        /// As JSON, for scripts
        #[arg(long, help_heading = "Other")]
        json: bool,
    },
    /// Write a configuration file with every key explained (also: ecosystem)
    #[command(alias = "ecosystem")]
    Init {
        /// Where to
        #[arg(value_name = "FILE", default_value = "cluster.toml")]
        file: PathBuf,
        /// Over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Print the JSON schema of the configuration, for editors
    Schema,
    /// Convert a configuration of PM2's, and say what has no counterpart
    Import {
        /// An ecosystem file (.js, .cjs, .mjs, .json, .yaml), or PM2's dump.pm2
        #[arg(value_name = "FILE")]
        file: String,
        /// Where to [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Over a file that is there
        #[arg(long, requires = "output")]
        force: bool,
    },
    /// Print the completions for a shell
    Completions {
        /// Which
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page (clusterd man | man -l -)
    Man,
    /// Show this help, or that of a verb
    Help {
        /// The verb
        #[arg(value_name = "VERB")]
        verb: Option<String>,
    },
}

/// Verbs to what is there. TARGET: a name, an id, a namespace, `/a pattern/` or `all`.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Ask {
    /// Show apps and their workers (also: list, status)
    #[command(name = "ls", aliases = ["list", "status", "l", "ps"])]
    List {
        /// As JSON, for scripts
        #[arg(long, conflicts_with = "short")]
        json: bool,
        /// A row per app, without the workers
        #[arg(short, long)]
        short: bool,
    },
    /// The same as ls --json, in the words of PM2
    #[command(hide = true, alias = "prettylist")]
    Jlist,
    /// Watch apps and their workers live, with keys to act (also: monit)
    #[command(alias = "monit")]
    Top,
    /// Show everything about apps (also: show)
    #[command(aliases = ["show", "desc", "info"])]
    Describe {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Show the environment of an app's workers
    Env {
        /// A name or an id
        #[arg(value_name = "TARGET")]
        target: String,
        /// Of its agent instead
        #[arg(long)]
        agent: bool,
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Replace every worker, one at a time, losing no connection
    #[command(aliases = ["gracefulReload", "graceful-reload"])]
    Reload {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
        /// With the environment of this command instead of that of the start
        #[arg(long)]
        update_env: bool,
    },
    /// Stop every worker, then start them again; connections wait meanwhile
    Restart {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
        /// With the environment of this command instead of that of the start
        #[arg(long)]
        update_env: bool,
    },
    /// Stop apps: no new connections, finish the open ones, then end. What
    /// runs in the background can be started again
    Stop {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
        /// At once, without finishing what is open
        #[arg(long)]
        now: bool,
    },
    /// Stop apps and forget them
    #[command(alias = "del")]
    Delete {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
        /// At once, without finishing what is open
        #[arg(long)]
        now: bool,
    },
    /// Change the number of workers
    Scale {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(value_name = "TARGET")]
        target: String,
        /// How many (4), how many more (+2) or less (-1), max, max-1, 50%
        #[arg(value_name = "N", allow_hyphen_values = true, value_parser = scale_value)]
        to: Scale,
    },
    /// Send a signal to every worker (also: sendSignal)
    #[command(alias = "sendSignal")]
    Signal {
        /// SIGUSR2, USR2 or 12
        #[arg(value_name = "SIGNAL")]
        signal: String,
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Show what workers print: the last lines of log files, then what comes
    Logs(LogsArgs),
    /// Empty log files
    Flush {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(default_value = "all", value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Open log files again, for a logrotate of your own (also: reopen-logs)
    #[command(name = "reloadLogs", aliases = ["reopen-logs"])]
    ReopenLogs {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(default_value = "all", value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Have another clusterd binary take over what runs, losing nothing
    Upgrade {
        /// A name, an id, a namespace, "/a pattern/" or "all"
        #[arg(default_value = "all", value_name = "TARGET")]
        targets: Vec<String>,
        /// The new binary [default: the one that this command is]
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Write down what is in the background, for resurrect (also: dump)
    #[command(alias = "dump")]
    Save,
    /// Start what was saved and is not there
    Resurrect,
    /// Have systemd resurrect what was saved when the machine starts
    Startup(UnitArgs),
    /// Undo startup
    Unstartup(UnitArgs),
    /// Stop everything that runs here, and forget it
    Kill {
        /// At once, without finishing what is open
        #[arg(long)]
        now: bool,
    },
}

/// Options of `startup` and `unstartup`.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct UnitArgs {
    /// Print the unit and the commands, and do nothing
    #[arg(long)]
    pub print: bool,
    /// Print them as JSON, for scripts
    #[arg(long, requires = "print")]
    pub json: bool,
    /// A unit of the whole machine, for this user [default: root's, or the
    /// user's own manager]
    #[arg(long, value_name = "USER")]
    pub system: Option<String>,
}

/// Options of `start`, as typed.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct StartArgs {
    /// A script, a configuration file (.toml, or PM2's: .config.js, .json,
    /// .yaml; -: standard input), or what was stopped: a name, an id, a namespace, "/a pattern/" or
    /// "all"
    #[arg(value_name = "SCRIPT|FILE|TARGET")]
    pub what: Vec<String>,
    /// Start again with the environment of this command
    #[arg(long, help_heading = "Surroundings")]
    pub update_env: bool,
    /// What runs the script [default: by its ending: node, python3, bash, ruby,
    /// php]; "none": itself
    #[arg(long, value_name = "PROGRAM", help_heading = "Surroundings")]
    pub interpreter: Option<String>,
    /// Arguments of the interpreter, in one word
    #[arg(long, alias = "node-args", value_name = "ARGS", allow_hyphen_values = true, help_heading = "Surroundings")]
    pub interpreter_args: Option<String>,
    #[command(flatten)]
    pub run: RunArgs,
}

fn scale_value(text: &str) -> Result<Scale, String> {
    let by = text.strip_prefix(['+', '-']);
    let absolute = by.unwrap_or(text);
    match (by, parse::workers(absolute)) {
        (Some(_), Ok(crate::config::Workers::Exactly(_))) | (None, Ok(_)) => {
            text.parse().map_err(|error: ScaleError| error.to_string())
        }
        (Some(_), _) => Err(format!("\"{text}\" is no change: write a number, such as \"+2\" or \"-1\"")),
        (None, Err(error)) => Err(error.to_string()),
    }
}

/// Understands a whole argv, program name first. `CLUSTERD_HOME` is looked up where `--home` is not given.
///
/// # Errors
/// What is wrong and the way out.
pub fn parse<I, T>(argv: I) -> Result<Invocation, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let argv: Vec<OsString> = argv.into_iter().map(Into::into).collect();
    if let Some(bad) = argv.iter().find(|word| word.to_str().is_none()) {
        return Err(usage(format!("\"{}\" is not UTF-8; clusterd takes only UTF-8 arguments", bad.to_string_lossy())));
    }
    let matches = match command().try_get_matches_from(&argv) {
        Ok(matches) => matches,
        Err(error) => return explain(&error, &argv),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    let home =
        cli.home.or_else(|| std::env::var_os("CLUSTERD_HOME").filter(|home| !home.is_empty()).map(PathBuf::from));
    if cli.verb.is_some() && cli.run != RunArgs::default() {
        return Err(usage("options of a run stand before a verb; write them behind it (check), or leave them out"));
    }
    match cli.verb {
        None => to_run(cli.run, home).map(Invocation::Run),
        Some(Verb::Check { run, json }) => to_run(*run, home).map(|run| Invocation::Check { run, json }),
        Some(Verb::Start(args)) => to_start(*args, home),
        Some(Verb::Ask(verb)) => Ok(Invocation::Ask { verb, home }),
        Some(Verb::Init { file, force }) => Ok(Invocation::Init { file, force }),
        Some(Verb::Import { file, output, force }) => Ok(Invocation::Import { file, output, force }),
        Some(Verb::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command(), "clusterd", &mut text);
            Ok(Invocation::Print(String::from_utf8_lossy(&text).into_owned()))
        }
        Some(Verb::Schema) => Ok(Invocation::Print(schema::json::schema())),
        Some(Verb::Man) => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command()).render(&mut text).map_err(usage)?;
            Ok(Invocation::Print(String::from_utf8_lossy(&text).into_owned()))
        }
        Some(Verb::Help { verb }) => help_of(verb.as_deref()),
    }
}

/// Understands the command line of a deployment: the master reads it again, because the keeper parses nothing.
///
/// # Errors
/// What is wrong, as [`parse`].
pub(super) fn read_run(argv: &[OsString]) -> Result<master::Run, String> {
    match parse(argv) {
        Ok(Invocation::Run(run)) => Ok(master::Run { request: run.request(), home: run.home }),
        Ok(_) => Err("the master runs deployments only".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The clap command, for tests that compare it with its documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

fn usage(message: impl std::fmt::Display) -> UsageError {
    UsageError { message: format!("error: {message}\n\nFor more, try 'clusterd --help'.\n") }
}

fn to_run(mut run: RunArgs, home: Option<PathBuf>) -> Result<RunArgs, UsageError> {
    run.home = home;
    match (run.config(), run.command.first()) {
        (None, None) => {
            Err(usage("nothing to run: give a command (clusterd -- node app.js) or a file (-c cluster.toml)"))
        }
        (Some(_), Some(_)) => Err(usage("a command and --config were given: give one of them")),
        (Some(file), None) if file.is_empty() => Err(usage("--config: the path is empty")),
        (None, Some(command)) if command.is_empty() => Err(usage("the command after -- is empty")),
        _ => match run.options.all("env").iter().find(|word| word.is_empty() || word.starts_with('=')) {
            Some(word) => Err(usage(format!("--env \"{word}\": write NAME=VALUE, or the NAME of an env.NAME table"))),
            None => Ok(run),
        },
    }
}

fn to_start(mut args: StartArgs, home: Option<PathBuf>) -> Result<Invocation, UsageError> {
    let asked = [!args.what.is_empty(), args.run.config().is_some(), !args.run.command.is_empty()];
    match asked {
        [false, false, false] => {
            return Err(usage("nothing to start: name a script, a file, -- COMMAND, or an app that was stopped"));
        }
        [true, true, _] => return Err(usage("a word and --config were given: give one of them")),
        // The words behind -- are the script's arguments.
        [true, false, true] if args.what.len() > 1 => {
            return Err(usage("arguments behind -- go with one script"));
        }
        _ => {}
    }
    if args.what.is_empty() {
        args.run = to_run(args.run, home)?;
    } else {
        args.run.home = home;
    }
    Ok(Invocation::Start(Box::new(args)))
}

fn help_of(verb: Option<&str>) -> Result<Invocation, UsageError> {
    let mut whole = command();
    let Some(name) = verb else { return Ok(Invocation::Print(whole.render_help().to_string())) };
    whole.build();
    match whole.find_subcommand_mut(name) {
        Some(verb) => Ok(Invocation::Print(verb.render_help().to_string())),
        None => Err(usage(unknown_verb(name, &[]))),
    }
}

/// clap's complaint in words that fit the case.
fn explain(error: &clap::Error, argv: &[OsString]) -> Result<Invocation, UsageError> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(Invocation::Print(error.to_string())),
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument => {
            let typed = context(ContextKind::InvalidSubcommand).or_else(|| context(ContextKind::InvalidArg));
            if let Some(word) = typed.filter(|word| !word.starts_with('-')) {
                let after = argv.iter().position(|other| other.to_str() == Some(&word)).unwrap_or(argv.len());
                if argv[..after].iter().any(|word| word.to_str().is_some_and(|word| VERBS.contains(&word))) {
                    return Err(usage(format!("\"{word}\" is one word too many")));
                }
                let rest: Vec<&str> = argv[after..].iter().filter_map(|word| word.to_str()).collect();
                return Err(usage(unknown_verb(&word, &rest)));
            }
        }
        _ => (),
    }
    // The usage lines are in --help; here they would hide what is wrong.
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or_default();
    let is_noise = |line: &&str| !line.trim_start().starts_with("tip: to pass");
    Err(usage(text.lines().filter(is_noise).collect::<Vec<_>>().join("\n")))
}

/// A first word that is no verb: a slip of the finger, or a command without `--`.
fn unknown_verb(word: &str, rest: &[&str]) -> String {
    let script = [".js", ".mjs", ".cjs", ".ts"].iter().any(|ending| word.ends_with(ending));
    let hint = name::did_you_mean(word, VERBS);
    if !hint.is_empty() && !script && !VERBS.contains(&word) {
        return format!("unknown verb \"{word}\"{hint} (to run a command, put -- before it: clusterd -- {word})");
    }
    let command = if rest.is_empty() { word.to_owned() } else { rest.join(" ") };
    format!("put -- before the command: clusterd -- {}{command}", if script { "node " } else { "" })
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
