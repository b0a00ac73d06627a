//! Why a typed value is refused: one sentence each, which says what is allowed.
use super::cron::ExpressionError;
use super::env_file::VariableError;
use super::log::TargetError;
use super::log_time::TimeFormatError;
use super::name::NameError;
use super::parse::nearest;
use super::scaling::TARGET_PERCENT_MAX;
use crate::limits::{
    CPU_NUMBERS_MAX, DURATION_MS_MAX, HANG_MS_MIN, MEMORY_LIMIT_BYTES_MAX, READY_PATH_BYTES_MAX, WORKERS_MAX,
    WORKERS_PERCENT_MAX,
};
use thiserror::Error;

const PORT_RANGE: &str = "a port is a number from 0 to 65535 (0: any free one)";

/// A value that cannot be one of its key or flag. Strings are what was typed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not an address of the control API.
    #[error("\"{0}\" is not an address for the control API: say \"127.0.0.1:9615\", \"[::1]:9615\" or a port")]
    ControlAddress(String),
    /// TLS was asked for by the address.
    #[error("\"{0}\" is not an address: say \"127.0.0.1:9615\"; for TLS set tls_cert and tls_key beside it")]
    NoTls(String),
    /// Not a name of a machine.
    #[error("\"{0}\" is not a host name (without a port)")]
    HostName(String),
    /// Not a number of workers.
    #[error(
        "workers must be a number from 1 to {WORKERS_MAX}, \"max\", \"max-1\" or \"50%\", not \"{0}\"{hint}",
        hint = workers_hint(.0)
    )]
    Workers(String),
    /// A share of the CPUs out of range.
    #[error("a share of the CPUs must be from 1% to {WORKERS_PERCENT_MAX}%, not \"{0}\"")]
    WorkersShare(String),
    /// Bounds that leave no room.
    #[error("workers = \"{0}\" leaves no room: write the smaller number first, such as \"2..8\"")]
    WorkersRange(String),
    /// Not a share of a CPU.
    #[error("target must be a share of a CPU from 1% to {TARGET_PERCENT_MAX}%, not \"{0}\"")]
    ScaleTarget(String),
    /// A time that does not begin with a number.
    #[error("a time must be a whole number with its unit (\"500ms\", \"30s\", \"2m\", \"1h\"), not \"{0}\"")]
    Time(String),
    /// A number without its unit.
    #[error("\"{0}\" has no unit: write \"{0}s\" for seconds or \"{0}ms\" for milliseconds")]
    TimeWithoutUnit(String),
    /// A unit that is not known.
    #[error("a time must be a whole number with the unit ms, s, m or h (\"500ms\", \"30s\"), not \"{0}\"")]
    TimeUnit(String),
    /// Longer than the longest time.
    #[error("{0} is too long: {days} days is the most", days = DURATION_MS_MAX / 86_400_000)]
    TimeTooLong(String),
    /// Zero, where that has no meaning.
    #[error("{0} is zero: \"1ms\" is the least here")]
    TimeZero(String),
    /// Shorter than an event loop can be watched for.
    #[error("{0} is too short: \"{HANG_MS_MIN}ms\" is the least here")]
    HangTooShort(String),
    /// None of the words that are allowed.
    #[error("{what} \"{typed}\" is not known{hint}; choose {list}{more}", hint = choice_hint(typed, choices), list = listed(choices))]
    Unknown {
        what: &'static str,
        typed: String,
        /// Every word.
        choices: &'static [&'static str],
        /// What may stand instead of a word.
        more: &'static str,
    },
    /// Not a size.
    #[error("a size must be a whole number with the unit K, M or G (\"512M\", \"2G\"), not \"{0}\"")]
    Size(String),
    #[error("{0} is zero: \"1K\" is the least")]
    SizeZero(String),
    /// More memory than there can be.
    #[error("{0} is too much: {most}G is the most", most = MEMORY_LIMIT_BYTES_MAX >> 30)]
    SizeTooLarge(String),
    /// Not a line of a `.gitignore`.
    #[error("a pattern is one line of a .gitignore, such as \"*.log\" or \"tmp/\"")]
    Pattern,
    /// A line that a `.gitignore` skips.
    #[error("\"{0}\" would be a comment: write \"\\\\{0}\"")]
    PatternIsComment(String),
    /// A path to ask for, without what it is for.
    #[error("ready \"{0}\": to have the worker asked for this path, write \"http:{0}\"")]
    ReadyPathAlone(String),
    /// HTTPS.
    #[error(
        "ready \"{0}\": workers are asked in plain HTTP, \"http:/healthz\"; one that speaks TLS alone is ready by \
         \"listening\", \"message\" or a time such as \"2s\""
    )]
    ReadyHttps(String),
    /// A whole URL.
    #[error("ready \"{typed}\": the new worker itself is asked, whatever the host: write \"http:{path}\"")]
    ReadyHost { typed: String, path: String },
    /// No path to ask for.
    #[error("ready \"http:\" names no path to ask for: write \"http:/healthz\"")]
    ReadyWithoutPath,
    /// A path that does not begin with a slash.
    #[error("ready \"{typed}\": a path begins with a slash: write \"http:/{path}\"")]
    ReadyWithoutSlash { typed: String, path: String },
    /// A path with other characters than those of a request line.
    #[error("ready \"{0}\": a path is of ASCII letters, digits and signs, but #; write others as %20")]
    ReadyCharacters(String),
    /// A path beyond the bound.
    #[error("ready \"http:...\": the path is longer than {READY_PATH_BYTES_MAX} bytes")]
    ReadyTooLong,
    /// Not what a request line can ask for.
    #[error(
        "\"{0}\" is not a path to ask for: it begins with a slash, as in \"/healthz\", and has ASCII letters, digits and signs, but no #"
    )]
    HttpPath(String),
    /// A path beyond the bound.
    #[error("the path is longer than {READY_PATH_BYTES_MAX} bytes")]
    HttpPathTooLong,
    /// A request together with a time.
    #[error(
        "ready \"{0}\" goes with no other rule: a worker that answers badly must not get ready by waiting; ready_timeout \
         says how long it has"
    )]
    ReadyHttpAndTime(String),
    /// Not a path that the kernel could take.
    #[error("a path is empty or holds a zero byte")]
    Path,
    /// Not a user or group.
    #[error("\"{name}\" cannot be the name of a user or group", name = .0.escape_debug())]
    Identity(String),
    /// Not a file mode mask.
    #[error("mode must be octal digits from \"000\" to \"777\" such as \"0660\", not \"{0}\"")]
    SocketMode(String),
    #[error("umask must be octal digits from \"000\" to \"777\" such as \"027\", not \"{0}\"")]
    Umask(String),
    /// Not the limit of a resource.
    #[error("rlimits.{name} must be a number or \"unlimited\", not \"{typed}\"")]
    ResourceLimit {
        /// The resource.
        name: &'static str,
        typed: String,
    },
    /// Not a share of CPU time.
    #[error("cpu_max must be a share such as \"150%\" or a number of CPUs (at most {most}), not \"{0}\"", most = CPU_NUMBERS_MAX)]
    CpuShare(String),
    /// Not a list of CPUs.
    #[error("cpu_affinity must be numbers of CPUs such as \"0-3,8\" (from 0 to {most}), not \"{0}\"", most = CPU_NUMBERS_MAX - 1)]
    Cpus(String),
    /// A URL instead of an address.
    #[error("\"{typed}\": leave out \"{scheme}://\"; write \"{rest}\"", rest = rest.trim_end_matches('/'))]
    Scheme {
        typed: String,
        /// Of the URL.
        scheme: String,
        /// What stands behind it.
        rest: String,
    },
    /// An IPv6 address without brackets and port.
    #[error("\"{0}\": an IPv6 address needs brackets and a port: \"[{0}]:8080\"")]
    Ipv6WithoutPort(String),
    /// An IPv6 address without brackets.
    #[error("\"{typed}\": an IPv6 address needs brackets: \"[{host}]:{port}\"")]
    Ipv6WithoutBrackets {
        typed: String,
        /// The address in it.
        host: String,
        port: u16,
    },
    /// Something else in brackets.
    #[error("\"{typed}\": \"{inner}\" is not an IPv6 address")]
    Ipv6 {
        typed: String,
        /// What stands in the brackets.
        inner: String,
    },
    /// No address at all.
    #[error("an address to listen on is empty; write a port (\"8080\"), \"127.0.0.1:8080\" or \"unix:/run/app.sock\"")]
    AddressEmpty,
    /// A host without its port.
    #[error("\"{0}\" has no port: write \"{0}:8080\" (or \"unix:{0}\" for a socket in the file system)")]
    AddressWithoutPort(String),
    /// Four numbers that do not form an address.
    #[error("\"{typed}\": \"{host}\" is not an IPv4 address: it has four numbers from 0 to 255")]
    Ipv4 { typed: String, host: String },
    /// Neither an address nor a name.
    #[error("\"{typed}\": \"{host}\" is neither an address nor a host name")]
    Host { typed: String, host: String },
    /// Not a port.
    #[error("{shown} is not a port: {PORT_RANGE}", shown = port_in(port, typed))]
    Port {
        port: String,
        /// All that was typed.
        typed: String,
    },
    /// A number beyond the last port.
    #[error("port {shown} is out of range: {PORT_RANGE}", shown = port_in(port, typed))]
    PortRange {
        port: String,
        /// All that was typed.
        typed: String,
    },
    /// Not a port, typed alone.
    #[error("{PORT_RANGE}, not \"{0}\"")]
    PortAlone(String),
    /// No path of a socket.
    #[error("\"{0}\" names no socket: write \"unix:/run/app.sock\"")]
    Socket(String),
    /// A socket outside of the file system.
    #[error("\"{0}\": abstract sockets are not available; use a path")]
    AbstractSocket(String),
    /// A path of a socket that the kernel could not take.
    #[error("a socket's path holds a zero byte")]
    SocketZeroByte,
    /// Something that only a shell would understand.
    #[error(
        "command holds {0:?}, and no shell reads it: write an array, one string for each argument (with a shell: \
         [\"sh\", \"-c\", \"...\"])"
    )]
    CommandForShell(char),
    /// Nothing to run.
    #[error("command is empty: say what to run, for example [\"node\", \"app.js\"]")]
    CommandEmpty,
    /// An argument that the kernel could not take.
    #[error("command holds a zero byte, which no argument can")]
    CommandZeroByte,
    /// A number out of its bounds.
    #[error("write a number from {min} to {max}, not \"{typed}\"")]
    Number {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
        typed: String,
    },
    /// Neither a count nor the word for no bound.
    #[error("write {allowed}, not \"{typed}\"")]
    Count { allowed: String, typed: String },
    /// Neither `true` nor `false`.
    #[error("write true or false, not \"{0}\"")]
    Boolean(String),
    /// Not an exit code.
    #[error("an exit code is a number from 0 to 255, not \"{0}\"")]
    ExitCode(String),
    /// A kind of value that only a file can hold.
    #[error("\"{0}\" cannot stand on the command line")]
    OnlyInFile(String),
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a cron expression.
    #[error(transparent)]
    Cron(#[from] ExpressionError),
    /// Not a variable.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// Not a file for output.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Not a format of time stamps.
    #[error(transparent)]
    TimeFormat(#[from] TimeFormatError),
}

fn workers_hint(typed: &str) -> String {
    match typed.strip_prefix('-') {
        Some(less) if !less.is_empty() && less.bytes().all(|b| b.is_ascii_digit()) => {
            format!("; for all CPUs but {less}, write \"max-{less}\"")
        }
        _ if typed.contains("..") => "; bounds stand in the configuration of an app, here is one number".to_owned(),
        _ if typed == "0" => "; for all CPUs, write \"max\"".to_owned(),
        _ => String::new(),
    }
}

fn choice_hint(typed: &str, choices: &[&str]) -> String {
    nearest(typed, choices).map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default()
}

fn listed(choices: &[&str]) -> String {
    choices.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn port_in(port: &str, typed: &str) -> String {
    if port == typed { format!("\"{typed}\"") } else { format!("\"{port}\" in \"{typed}\"") }
}
