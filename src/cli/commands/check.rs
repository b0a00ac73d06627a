//! `clusterd check`: shows what would run on this machine, or everything that is wrong. Binds and starts nothing.
use crate::cli::exit::{EXIT_FAILED, EXIT_USAGE, load_error_code};
use crate::cli::run_args::RunArgs;
use crate::config::balancing::{self, Decided, Known};
use crate::config::resolve::resolve;
use crate::config::sources::shown;
use crate::config::{App, Balance, Listen, Protocol, ProtocolKind, Ready, WorkerRange, defaults, rules};
use crate::loader;
use crate::os::cpu::{self, CpuCount};
use crate::os::user;
use crate::program;
use crate::reuseport::group::{Abilities, ThisKernel};
use crate::worker;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// First lines of its help.
const USAGE: &str = "clusterd check [OPTIONS] -c FILE
       clusterd check [OPTIONS] -- COMMAND [ARG]...";

/// Say what would run, or everything that is wrong
#[derive(Args, Clone, Debug, PartialEq)]
#[command(override_usage = USAGE)]
pub struct Check {
    #[command(flatten)]
    pub run: Box<RunArgs>,
    /// As JSON, for scripts
    #[arg(long, help_heading = "Other")]
    pub json: bool,
}

impl Check {
    pub(super) fn run(&self) -> ExitCode {
        ExitCode::from(check(&self.run, self.json, &mut io::stdout(), &mut io::stderr()))
    }
}

/// Runs the verb; the exit code. What would run goes to `out`, problems and warnings to `err`; `json`: all of it to `out`.
///
/// 0: it would run. 1: a file cannot be read, or this machine does not fit (command, user, folder, port). 2: the file
/// or the command line is wrong.
fn check(args: &RunArgs, json: bool, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let report = report(args);
    // The reader may have left; the exit code says enough.
    if json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        drop(writeln!(out, "{text}"));
    } else {
        let mut complain = |line: String| drop(writeln!(err, "{line}"));
        report.warnings.iter().cloned().for_each(&mut complain);
        let whose = if report.unreadable { "clusterd: " } else { "" };
        report.problems.iter().for_each(|problem| complain(format!("{whose}{problem}")));
        for finding in &report.apps {
            finding.problems.iter().for_each(|problem| complain(format!("app {}: {problem}", finding.name)));
            finding.warnings.iter().for_each(|warning| complain(format!("app {}: warning: {warning}", finding.name)));
        }
        if report.ok {
            drop(print(&report, out));
        }
    }
    report.code
}

/// All findings. The fields are those of `--json`.
#[derive(Default, Serialize)]
struct Report {
    /// It would run.
    ok: bool,
    #[serde(skip)]
    code: u8,
    /// Nothing could be checked: the problems have no place in a file.
    #[serde(skip)]
    unreadable: bool,
    /// What is wrong with the file or the command line as a whole.
    problems: Vec<String>,
    warnings: Vec<String>,
    /// The configuration: the file, or the command line.
    source: String,
    cpus: u32,
    #[serde(skip)]
    cpus_reason: String,
    apps: Vec<Finding>,
}

fn report(args: &RunArgs) -> Report {
    let mut report = Report::default();
    let sources = match loader::load(&args.request()) {
        Ok(sources) => sources,
        Err(error) => {
            report.problems = error.to_string().lines().map(str::to_owned).collect();
            (report.unreadable, report.code) = (true, load_error_code(error.is_usage()));
            return report;
        }
    };
    let file = sources.file.as_ref();
    report.source = file.map_or_else(|| "the command line".to_owned(), |file| shown(&sources.start_folder, &file.path));
    report.warnings = loader::notes(&sources, None);
    let config = match resolve(&sources) {
        Ok(config) => config,
        Err(problems) => {
            report.problems = problems.iter().map(ToString::to_string).collect();
            report.code = EXIT_USAGE;
            return report;
        }
    };
    let cpus = cpu::available();
    report.apps = config.apps.iter().map(|app| examine(app, &cpus)).collect();
    (report.cpus, report.cpus_reason) = (cpus.count, cpus.reason);
    report.ok = report.apps.iter().all(|finding| finding.problems.is_empty());
    report.code = if report.ok { 0 } else { EXIT_FAILED };
    report
}

/// The findings about one app. Its fields are those of `--json`.
#[derive(Default, Serialize)]
struct Finding {
    name: String,
    command: Vec<String>,
    /// The program's path.
    program: Option<String>,
    cwd: String,
    workers: u32,
    listen: Vec<String>,
    protocol: String,
    balance: Option<String>,
    /// As configured.
    balance_typed: String,
    /// Why, where that is `auto`.
    balance_why: Option<String>,
    ready: Option<String>,
    ready_timeout_ms: u64,
    /// It cannot run here.
    problems: Vec<String>,
    /// It can run, but perhaps not as intended.
    warnings: Vec<String>,
    /// Label and text for people, in order.
    #[serde(skip)]
    rows: Vec<(&'static str, String)>,
}

impl Finding {
    fn row(&mut self, label: &'static str, text: impl Into<String>) {
        self.rows.push((label, text.into()));
    }

    /// The value; an error is recorded as a problem.
    fn keep<T, E: ToString>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem.to_string())).ok()
    }
}

fn examine(app: &App, cpus: &CpuCount) -> Finding {
    let folder = app.folder.clone();
    let mut finding = Finding {
        name: app.name.clone(),
        command: app.command.clone(),
        cwd: folder.display().to_string(),
        workers: app.workers.count(cpus.count),
        ready_timeout_ms: u64::try_from(app.ready_timeout.as_millis()).unwrap_or(u64::MAX),
        ..Finding::default()
    };
    if !folder.is_dir() {
        let what = if folder.exists() { "is not a folder" } else { "does not exist" };
        finding.problems.push(format!("cwd {} {what}", folder.display()));
    }
    let kind = examine_command(app, &folder, &mut finding);
    let workers = finding.workers;
    let most = app.scale.as_ref().map(|scale| scale.most);
    let typed = WorkerRange { least: app.workers, most }.to_string();
    let note = if typed == workers.to_string() { String::new() } else { format!(" ({typed})") };
    finding.row("workers", format!("{workers} on {}{note}", plural(cpus.count, "CPU")));
    // Without the program only the command line is known.
    let protocol = match kind {
        Some(kind) => Some(worker::decide(app.protocol, kind)),
        None => app.protocol.exactly(),
    };
    let balance = decide_balance(app, protocol, cpus, &mut finding);
    examine_sockets(app, protocol, balance.as_ref(), &mut finding);
    let balance = balance.map(|decided| decided.balance);
    let typed = || Ok(app.ready.clone().unwrap_or(Ready::After(defaults::READY_AFTER)));
    match protocol.map_or_else(typed, |protocol| {
        rules::ready(protocol, app.ready.as_ref(), rules::is_seen_to_listen(protocol, &app.listen))
    }) {
        Ok(ready) => {
            finding.ready = Some(ready.to_string());
            let by_themselves =
                matches!(ready, Ready::Http(_)) && matches!(balance, Some(Balance::Shared | Balance::Kernel));
            let note = if by_themselves { "; workers take connections as soon as they listen" } else { "" };
            finding.row("ready", format!("{ready}, within {:?}{note}", app.ready_timeout));
        }
        Err(problem) => finding.problems.push(problem.to_string()),
    }
    match user::resolve(app.user.as_deref(), app.group.as_deref()) {
        Ok(None) => finding.row("user", "the one that starts clusterd"),
        Ok(Some(who)) => finding.row("user", format!("uid {}, gid {}, groups {:?}", who.uid, who.gid, who.groups)),
        Err(error) => finding.problems.push(error.to_string()),
    }
    finding.row("folder", folder.display().to_string());
    examine_hooks(app, &folder, &mut finding);
    finding
}

fn examine_command(app: &App, folder: &Path, finding: &mut Finding) -> Option<program::ProgramKind> {
    let command0 = app.command.first().map_or("", String::as_str);
    let found = program::find(command0, &path_of(app), Some(folder)).map_err(|error| error.to_string());
    let found = finding.keep(found)?;
    finding.program = Some(found.path.display().to_string());
    finding.row("command", format!("{} ({})", app.command.join(" "), found.path.display()));
    let kind = program::kind_of(&found, &app.command);
    if worker::decide(app.protocol, kind) != ProtocolKind::Bind {
        finding.warnings.extend(program::advice(kind, &app.command, folder));
    }
    Some(kind)
}

fn examine_hooks(app: &App, folder: &Path, finding: &mut Finding) {
    for (event, command) in &app.hooks {
        let found = program::find(command.first().map_or("", String::as_str), &path_of(app), Some(folder));
        match found {
            Ok(_) => finding.row("hook", format!("{}: {}", event.key(), command.join(" "))),
            Err(error) => finding.warnings.push(format!("hook {} will not run: {error}", event.key())),
        }
    }
}

/// The PATH that commands are searched in.
fn path_of(app: &App) -> OsString {
    app.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH")).unwrap_or_default()
}

/// What would balance. Without the program only what was typed is known.
fn decide_balance(
    app: &App,
    protocol: Option<ProtocolKind>,
    cpus: &CpuCount,
    finding: &mut Finding,
) -> Option<Decided> {
    let decided = match protocol {
        Some(protocol) => {
            let known = Known { app, protocol, workers: app.workers_most(cpus.count) };
            balancing::decide(&known, || Abilities::default().best(&ThisKernel))
        }
        None => Ok(Decided { balance: app.balance.least(), why: None }),
    };
    finding.keep(decided)
}

fn examine_sockets(app: &App, protocol: Option<ProtocolKind>, balance: Option<&Decided>, finding: &mut Finding) {
    let listen: Vec<String> = app.listen.iter().map(ToString::to_string).collect();
    finding.row("listen", if listen.is_empty() { "nothing".to_owned() } else { listen.join(", ") });
    let shown = protocol.map_or_else(|| app.protocol.to_string(), |protocol| protocol.to_string());
    (finding.listen, finding.protocol) = (listen, shown.clone());
    for address in &app.listen {
        finding.problems.extend(address_problem(address));
    }
    finding.balance_typed = app.balance.to_string();
    if let Some(decided) = balance {
        // Without a socket there is nothing to balance.
        let none = protocol.is_some_and(|protocol| !protocol.rules().takes_connections);
        let words = decided.sentence().unwrap_or_else(|| decided.balance.to_string());
        finding.balance = (!none).then(|| decided.balance.to_string());
        finding.balance_why = decided.why.as_ref().map(ToString::to_string);
        finding.row("balance", if none { "nothing".to_owned() } else { words });
    }
    let decided = protocol.zip(balance.map(|decided| decided.balance));
    finding.keep(decided.map_or(Ok(()), |(protocol, balance)| rules::limits(protocol, balance, &app.limits)));
    finding.keep(protocol.map_or(Ok(()), |protocol| rules::alive(protocol, &app.alive)));
    finding.keep(protocol.map_or(Ok(()), |protocol| rules::metrics(protocol, app.metrics)));
    finding.keep(decided.map_or(Ok(()), |(protocol, balance)| rules::spares(protocol, balance, app)));
    finding.keep(decided.map_or(Ok(()), |(protocol, balance)| rules::warm_up(protocol, balance, app)));
    let how = if app.protocol == Protocol::Auto { " (auto)" } else { "" };
    finding.row("protocol", format!("{shown}{how}"));
}

fn address_problem(address: &Listen) -> Option<String> {
    let port = match address {
        Listen::Any(port) | Listen::Host(_, port) => *port,
        Listen::Tcp(address) => address.port(),
        Listen::Unix(path) => {
            let folder = path.parent().filter(|folder| !folder.is_dir())?;
            return Some(format!("{address}: there is no folder {}", folder.display()));
        }
    };
    (!user::may_bind_port(port)).then(|| {
        format!(
            "{address}: ports below {} need root or the capability CAP_NET_BIND_SERVICE; use a higher one",
            user::first_unprivileged_port()
        )
    })
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let apps = plural(u32::try_from(report.apps.len()).unwrap_or(u32::MAX), "app");
    writeln!(out, "{} is fine: {apps}; {}", report.source, report.cpus_reason)?;
    for finding in &report.apps {
        writeln!(out, "\n{}", finding.name)?;
        for (label, text) in &finding.rows {
            writeln!(out, "  {label:<9} {text}")?;
        }
    }
    Ok(())
}

fn plural(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(args: RunArgs) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(&args, false, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn command(words: &[&str]) -> RunArgs {
        RunArgs { command: words.iter().map(|word| (*word).to_owned()).collect(), ..RunArgs::default() }
    }

    #[test]
    fn says_what_would_run() {
        let (code, out, err) = run(RunArgs { options: [("workers", "3")].into(), ..command(&["/bin/sh", "-c", "x"]) });
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("the command line is fine: 1 app; "), "{out}");
        for wants in [
            "\nsh\n",
            "  command   /bin/sh -c x (/bin/sh)",
            "  workers   3 on ",
            "bind (auto)",
            "listening or 3s, within 30s",
        ] {
            assert!(out.contains(wants), "{wants}\n{out}");
        }
    }

    #[test]
    fn everything_that_does_not_fit_this_machine_is_said() {
        let (code, out, err) = run(RunArgs {
            options: [("cwd", "/no/such/folder"), ("user", "no-such-user-x"), ("listen", "unix:/no/such/a.sock")]
                .into(),
            ..command(&["no-such-command-x"])
        });
        assert_eq!((code, out.as_str()), (EXIT_FAILED, ""));
        for wants in [
            "cwd /no/such/folder does not exist",
            "command \"no-such-command-x\" was not found in PATH",
            "there is no user \"no-such-user-x\"",
            "there is no folder /no/such\n",
        ] {
            assert!(err.contains(wants), "{wants}\n{err}");
        }
    }

    #[test]
    fn what_is_wrong_by_itself_is_a_usage_error() {
        let (code, _, err) = run(RunArgs { options: [("ready", "notify")].into(), ..command(&["node", "app.js"]) });
        assert_eq!(code, EXIT_FAILED, "decided by the program: {err}");
        let both = RunArgs { options: [("ready", "notify"), ("protocol", "node")].into(), ..command(&["/bin/sh"]) };
        assert_eq!(run(both).0, EXIT_USAGE);
        let (code, _, err) = run(RunArgs { options: [("config", "/no/such.toml")].into(), ..RunArgs::default() });
        assert_eq!(code, EXIT_FAILED);
        assert_eq!(err, "clusterd: cannot read the configuration /no/such.toml: there is no such file\n");
    }
}
