//! `clusterd startup`: a systemd unit that resurrects saved deployments at boot. A user's own manager needs no
//! privilege; a system unit needs root.
use crate::cli::apply::{fail, print};
use crate::home::{Home, HomeError};
use crate::os::cgroup::{DELEGATED_UNIT, LEAF};
use crate::os::user;
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use thiserror::Error;

/// A unit, and how to install it.
struct Unit {
    path: PathBuf,
    name: String,
    text: String,
    /// Arguments of systemctl before the verb.
    manager: &'static [&'static str],
    /// When systemd starts it, and how to have it started sooner.
    begins: String,
}

impl Unit {
    /// The line for a shell that has systemd do something with it.
    fn command(&self, verb: &str) -> String {
        [&["systemctl"], self.manager, &[verb, self.name.as_str()]].concat().join(" ")
    }
}

/// Options of both verbs.
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
    /// The init system, as PM2 names it; it is systemd
    #[arg(hide = true, value_parser = ["systemd"], value_name = "PLATFORM")]
    pub platform: Option<String>,
}

/// Have systemd resurrect what was saved when the machine starts
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Startup {
    #[command(flatten)]
    pub unit: UnitArgs,
}

/// Undo startup
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Unstartup {
    #[command(flatten)]
    pub unit: UnitArgs,
}

/// Why there is no unit.
#[derive(Debug, Error)]
enum UnitError {
    #[error("cannot find the path of clusterd itself: {0}")]
    NoBinary(#[source] io::Error),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("cannot find the path of the home: {0}")]
    NoHome(#[source] io::Error),
    #[error(
        "a unit of the whole machine is root's to write: sudo clusterd startup --system USER, or leave --system out for \
         your own manager, which needs no privilege"
    )]
    NotRoot,
    #[error("there is no user called {0}")]
    NoUser(String),
    #[error("neither XDG_CONFIG_HOME nor HOME is set")]
    NoConfigFolder,
}

/// Why systemctl failed.
#[derive(Debug, Error)]
enum SystemctlError {
    #[error("systemctl cannot be run: {0}")]
    NotRun(#[source] io::Error),
    /// Its output.
    #[error("{0}")]
    Failed(String),
}

impl Startup {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        startup(home, &self.unit)
    }
}

impl Unstartup {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        unstartup(home, &self.unit)
    }
}

fn startup(home: Option<&Path>, args: &UnitArgs) -> ExitCode {
    let unit = match plan(home, args) {
        Ok(unit) => unit,
        Err(error) => return fail(error),
    };
    if args.json {
        return print_json(&unit, Some(&unit.text), &["enable"]);
    }
    if args.print {
        let mut text = format!("# {}\n{}", unit.path.display(), unit.text);
        let _ = writeln!(text, "\n# then: {}", unit.command("enable"));
        return print(&text);
    }
    let folder = unit.path.parent().unwrap_or(Path::new("/"));
    if let Err(e) = fs::create_dir_all(folder).and_then(|()| fs::write(&unit.path, &unit.text)) {
        return fail(format_args!("cannot write {}: {e}", unit.path.display()));
    }
    log::info!("wrote {}; it starts what clusterd save has saved", unit.path.display());
    let done = systemctl(&unit, &["daemon-reload"]).and_then(|()| systemctl(&unit, &["enable", &unit.name]));
    match done {
        Ok(()) => {
            log::info!("systemd starts {} whenever {}", unit.name, unit.begins);
            ExitCode::SUCCESS
        }
        Err(why) => fail(format_args!("the unit is there, but systemd has not taken it: {why}")),
    }
}

fn unstartup(home: Option<&Path>, args: &UnitArgs) -> ExitCode {
    let unit = match plan(home, args) {
        Ok(unit) => unit,
        Err(error) => return fail(error),
    };
    if args.json {
        return print_json(&unit, None, &["disable"]);
    }
    if args.print {
        let text = format!("{}\nrm {}\n", unit.command("disable"), unit.path.display());
        return print(&text);
    }
    if !unit.path.exists() {
        return fail(format_args!("{} does not exist: nothing to undo", unit.path.display()));
    }
    // Even if systemd does not answer, the unit has to be removed.
    if let Err(why) = systemctl(&unit, &["disable", &unit.name]) {
        log::warn!("systemd does not know the unit: {why}");
    }
    match fs::remove_file(&unit.path) {
        Ok(()) => {
            log::info!("removed {}", unit.path.display());
            ExitCode::SUCCESS
        }
        Err(e) => fail(format_args!("cannot remove {}: {e}", unit.path.display())),
    }
}

/// `--print --json`: the unit, and the command that makes systemd take it.
fn print_json(unit: &Unit, text: Option<&str>, verb: &[&str]) -> ExitCode {
    let words = [&["systemctl"], unit.manager, verb, &[unit.name.as_str()]];
    let shown = serde_json::json!({
        "path": unit.path,
        "name": unit.name,
        "unit": text,
        "command": words.concat(),
    });
    let text = serde_json::to_string_pretty(&shown).unwrap_or_default() + "\n";
    print(&text)
}

fn systemctl(unit: &Unit, verb: &[&str]) -> Result<(), SystemctlError> {
    let output = Command::new("systemctl").args(unit.manager).args(verb).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(SystemctlError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(e) => Err(SystemctlError::NotRun(e)),
    }
}

/// The kind of unit, and its path.
fn plan(home: Option<&Path>, args: &UnitArgs) -> Result<Unit, UnitError> {
    let is_root = user::own_uid() == 0;
    let binary = std::env::current_exe().map_err(UnitError::NoBinary)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let own_home = || std::path::absolute(Home::find(home)?.path()).map_err(UnitError::NoHome);
    let system = |name: String, owner: Owner<'_>, home: &Path| Unit {
        path: Path::new("/etc/systemd/system").join(&name),
        text: text(&binary, home, &path, owner),
        name,
        manager: &[],
        begins: WITH_THE_MACHINE.to_owned(),
    };
    match (&args.system, is_root) {
        (Some(_), false) if !args.print => Err(UnitError::NotRoot),
        (Some(name), _) => {
            let folder = user::home_of(name).ok_or_else(|| UnitError::NoUser(name.clone()))?;
            let home = home.map_or_else(|| folder.join(".clusterd"), Path::to_owned);
            Ok(system(format!("clusterd-{name}.service"), Owner::Named(name), &home))
        }
        (None, true) => Ok(system("clusterd.service".to_owned(), Owner::Root, &own_home()?)),
        (None, false) => {
            let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
            let config = config.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
            let config = config.ok_or(UnitError::NoConfigFolder)?;
            Ok(Unit {
                path: config.join("systemd/user/clusterd.service"),
                name: "clusterd.service".to_owned(),
                text: text(&binary, &own_home()?, &path, Owner::OwnManager)
                    .replace("multi-user.target", "default.target"),
                manager: &["--user"],
                begins: begin_of_own_manager(),
            })
        }
    }
}

const WITH_THE_MACHINE: &str = "the machine starts";

/// Where systemd notes whose managers start without a login, as loginctl(1) has it.
const LINGERING: &str = "/var/lib/systemd/linger";

/// When a user's own manager starts.
fn begin_of_own_manager() -> String {
    let account = user::account(user::own_uid());
    match account.name {
        Some(name) if Path::new(LINGERING).join(&name).exists() => WITH_THE_MACHINE.to_owned(),
        name => {
            let name = name.unwrap_or_else(|| "\"$USER\"".to_owned());
            format!("you log in; to have it start with the machine: sudo loginctl enable-linger {name}")
        }
    }
}

/// What every unit begins with. systemd watches the process that brings back a deployment whose keeper was killed; that this
/// process ends, or that an app runs out of memory, ends nothing else. It keeps the listening sockets of all deployments, with
/// systemd's store behind it, so connections wait for whatever starts again. A reload is a command (and not Type=notify-reload)
/// because only a command can tell systemctl that it failed.
const HEAD: &str = "\
# Written by clusterd startup; clusterd unstartup removes it. To change a line: systemctl edit clusterd
[Unit]
Description=clusterd: what was saved
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
TimeoutStartSec=infinity
Restart=always
RestartSec=1
KillMode=process
OOMPolicy=continue
Delegate=yes
FileDescriptorStoreMax=256
Environment=FDSTORE=256
";

/// What an app that needs nothing special does without, whoever owns the unit. docs/command-line.md says what needs which.
/// clusterd itself calls `bpf` for `balance = "kernel"` and `seccomp` for `protocol = "bind"`. `pidfd_getfd` is left out, as one of
/// systemd's `@debug`: what is lost without it is little.
const HARDENING: &str = "
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service @pkey bpf seccomp
SystemCallErrorNumber=EPERM
";

/// What systemd itself can keep from a unit of the machine.
const HARDENING_OF_THE_MACHINE: &str = "\
ProtectSystem=full
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateMounts=yes
KeyringMode=private
";

const CAPABILITIES_OF_A_USER: &str = "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n";

/// Root may run workers as other users: the capabilities are for that (SETUID, SETGID, KILL, SYS_PTRACE to
/// see which connections they hold), for log and socket files of other users, for low ports, for priorities and limits
/// above clusterd's own, and for `balance = \"kernel\"` (BPF).
const CAPABILITIES_OF_ROOT: &str = "\
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_PTRACE CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SYS_NICE CAP_SYS_RESOURCE CAP_BPF
";

/// Whose unit it is.
#[derive(Clone, Copy)]
enum Owner<'a> {
    /// The machine's, for root.
    Root,
    /// The machine's, for this user.
    Named(&'a str),
    /// The user's own manager's.
    OwnManager,
}

/// The unit's text.
fn text(binary: &Path, home: &Path, path: &str, owner: Owner<'_>) -> String {
    let word = |text: &str| {
        // systemd.syntax(7) and systemd.service(5): quotes, backslashes and specifiers.
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
    };
    let command = |verb: &str| {
        let binary = word(&binary.display().to_string()).replace('$', "$$");
        let home = word(&home.display().to_string()).replace('$', "$$");
        format!("{binary} {verb} --home {home}")
    };
    let mut text = String::from(HEAD);
    // The unit's own group has no processes then, so that its controllers can be used. Before 254 systemd ignores the line.
    let _ = writeln!(text, "DelegateSubgroup={LEAF}");
    if let Owner::Named(user) = owner {
        let _ = writeln!(text, "User={user}");
    }
    let _ = writeln!(text, "Environment={}", word(&format!("PATH={path}")));
    let _ = writeln!(text, "Environment={DELEGATED_UNIT}=%n");
    let _ = writeln!(text, "ExecStart={}", command("resurrect --stay"));
    let _ = writeln!(text, "ExecReload={}", command("reload all"));
    // Every app has its own drain time; systemd must wait for the longest.
    let _ = writeln!(text, "ExecStop={}\nTimeoutStopSec=infinity", command("kill --keep-sockets"));
    text.push_str(HARDENING);
    match owner {
        Owner::Root | Owner::Named("root") => text.extend([CAPABILITIES_OF_ROOT, HARDENING_OF_THE_MACHINE]),
        Owner::Named(_) => text.extend([CAPABILITIES_OF_A_USER, HARDENING_OF_THE_MACHINE]),
        // A user's manager cannot do more without a user namespace, in which other users' files look like nobody's.
        Owner::OwnManager => {}
    }
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_says_what_systemd_understands() {
        let text = text(Path::new("/opt/my tools/clusterd"), Path::new("/srv/100%"), "/bin", Owner::Named("web"));
        for line in [
            "User=web",
            "Environment=\"PATH=/bin\"",
            "ExecStart=\"/opt/my tools/clusterd\" resurrect --stay --home \"/srv/100%%\"",
            "WantedBy=multi-user.target",
            "Delegate=yes",
            "DelegateSubgroup=clusterd-processes",
            "Environment=CLUSTERD_DELEGATED_UNIT=%n",
            "Restart=always",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }
}
