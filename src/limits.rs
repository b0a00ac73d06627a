//! The bounds that users can meet, with the unit last in the name. A constant that tunes one part is beside its code. No
//! behaviour.
//!
//! A bound that is reached is an event with a message, never a panic and never an unbounded wait.

// ---- config and command line ----

/// Workers that one app may have.
pub const WORKERS_MAX: u32 = 4096;

/// Spares of one app.
pub const SPARES_MAX: u32 = 64;
/// Apps in one deployment.
pub const APPS_MAX: usize = 64;
/// Listeners that one app may configure.
pub const LISTENERS_PER_APP_MAX: usize = 128;
/// Size of a configuration file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Time limit for reading a file that is a pipe, in milliseconds. A running master blocks for as long: shorter than the
/// watchdog's deadline.
pub const FILE_READ_MS_MAX: u64 = 2_000;
/// Size of everything that a configuration was made from (file, command line, env files), in bytes.
pub const SOURCES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time limit for node to evaluate a configuration, in milliseconds.
pub const EVALUATION_MS_MAX: u64 = 10_000;
/// Length of an app's name, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Reported problems of one configuration; the others are reported once these are gone.
pub const PROBLEMS_MAX: usize = 100;
/// Longest message about one problem, in characters: a value may be as long as its file.
pub const PROBLEM_CHARS_MAX: usize = 500;
/// Size of an `env_file`, in bytes.
pub const ENV_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Share of the CPUs that `workers = "N%"` may ask for, in percent.
pub const WORKERS_PERCENT_MAX: u32 = 1_000;
/// Entries of a `schedule`.
pub const SCHEDULE_ENTRIES_MAX: usize = 32;
/// Largest `target` of waiting connections for each worker.
pub const SCALE_WAITING_MAX: u32 = 10_000;
/// Longest time that a setting may hold, in milliseconds (30 days).
pub const DURATION_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Shortest `hang`, in milliseconds: garbage collection must not count as one.
pub const HANG_MS_MIN: u64 = 1_000;
/// Length of the path in `ready = "http:..."`, in bytes.
pub const READY_PATH_BYTES_MAX: usize = 1024;
/// Paths in `warmup`.
pub const WARMUP_PATHS_MAX: usize = 32;
/// How often each of them may be asked for.
pub const WARMUP_TIMES_MAX: u32 = 1_000;
/// Largest `memory` limit, in bytes (1 TiB).
pub const MEMORY_LIMIT_BYTES_MAX: u64 = 1 << 40;
/// Length of a Unix socket's path, in bytes: the kernel's `sun_path` less its closing zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Length of a host name, in bytes (RFC 1035).
pub const HOST_BYTES_MAX: usize = 253;
/// CPUs that `cpu_affinity` may name are numbered below this.
pub const CPU_NUMBERS_MAX: u32 = 8192;

/// Largest `pids_max`: the kernel's PID_MAX_LIMIT.
pub const PIDS_MAX: u32 = 4 * 1024 * 1024;
/// Largest `cpu_max`, in percent of a CPU.
pub const CPU_SHARE_PERCENT_MAX: u32 = 100 * CPU_NUMBERS_MAX;

// ---- stdin of workers ----

/// Longest line that is sent to a worker's stdin, in bytes with its end: PIPE_BUF, up to which a pipe takes all or nothing.
pub const STDIN_LINE_BYTES_MAX: usize = 4096;
/// Bytes that may wait in a worker's stdin.
pub const STDIN_WAITING_BYTES_MAX: usize = 64 * 1024;

// ---- actions and metrics of apps ----

/// Actions that a worker may offer.
pub const ACTIONS_PER_WORKER_MAX: usize = 64;
/// Metrics of its own that a worker may have.
pub const METRICS_PER_WORKER_MAX: usize = 64;
/// Length of the name of an action or a metric, in bytes.
pub const CUSTOM_NAME_BYTES_MAX: usize = 96;
/// Length of a metric's text or unit, in bytes; the rest is cut off.
pub const CUSTOM_VALUE_BYTES_MAX: usize = 128;
/// Actions and metrics that are shown of a deployment.
pub const CUSTOM_SHOWN_MAX: usize = 16 * 1024;
/// Length of what an action returns, in bytes; the rest is cut off.
pub const ACTION_REPLY_BYTES_MAX: usize = 16 * 1024;
/// Time limit for a worker to answer an action, in milliseconds.
pub const ACTION_WAIT_MS: u64 = 30_000;
/// Actions whose answers may be waited for at a time.
pub const ACTIONS_OPEN_MAX: usize = 64;

// ---- profiles ----

/// Longest profile of CPU time, in milliseconds.
pub const PROFILE_CPU_MS_MAX: u64 = 5 * 60 * 1_000;
/// Time limit for writing a profile, in milliseconds.
pub const PROFILE_WRITE_MS: u64 = 2 * 60 * 1_000;
/// Size of a profile, in bytes.
pub const PROFILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Profiles of a deployment that are taken at a time.
pub const PROFILES_OPEN_MAX: usize = 16;

// ---- metrics of apps, in /metrics ----

/// How long a scrape waits for the answers of workers, in milliseconds.
pub const APP_METRICS_WAIT_MS: u64 = 500;
/// Workers that are asked in one scrape.
pub const APP_METRICS_ASKED_MAX: usize = 512;
/// Size of one worker's answer, or of one file, in bytes.
pub const APP_METRICS_WORKER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Size of all answers of a scrape, or of all files of an app, in bytes.
pub const APP_METRICS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Series of an app, added up over its workers.
pub const APP_METRICS_SERIES_MAX: usize = 10_000;
/// Size of the text of all of them in one answer, in bytes.
pub const APP_METRICS_TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Length of the name of a metric or a label, in bytes.
pub const APP_METRICS_NAME_BYTES_MAX: usize = 256;
/// Length of a label's value or of a metric's help, in bytes.
pub const APP_METRICS_VALUE_BYTES_MAX: usize = 1024;
/// Labels of a series.
pub const APP_METRICS_LABELS_MAX: usize = 32;
/// Files of one folder of Python's prometheus_client that are read.
pub const APP_METRICS_FILES_MAX: usize = 4096;
/// Files of ended processes that stay in such a folder.
pub const APP_METRICS_FILES_KEPT_MAX: usize = 256;
/// Time limit for reading such a folder, in milliseconds.
pub const APP_METRICS_FILES_WAIT_MS: u64 = 1_000;

// ---- keeper ----

/// Processes that the keeper holds at once.
pub const CHILDREN_MAX: usize = 16 * 1024;
/// Size of one note's value, in bytes.
pub const NOTE_BYTES_MAX: usize = 48 * 1024;
/// Length of the name of a held fd or of a note, in bytes.
pub const KEEPER_NAME_BYTES_MAX: usize = 1024;
/// Size of one packet between keeper and master, in bytes.
pub const KEEPER_PACKET_BYTES_MAX: usize = 64 * 1024;
/// Size of one spawn spec (command, arguments, environment), in bytes. The kernel's own limit is near 2 MiB.
pub const SPAWN_SPEC_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Size of a spawn's tag, in bytes. The keeper keeps it as long as the child.
pub const SPAWN_TAG_BYTES_MAX: usize = 8 * 1024;
/// Highest fd number that a spawn may place.
pub const PLACED_FD_NUMBER_MAX: i32 = 4095;
/// Pause after the kernel refused a packet for lack of memory or of fds in flight, in milliseconds.
pub const KEEPER_SEND_PAUSE_MS: u64 = 50;
/// Heartbeats of a master after which it and the keeper release the code pages of their start.
pub const START_HEARTBEATS: u32 = 3;
/// How often the master tells the keeper that its loop turns, in milliseconds.
pub const HEARTBEAT_EVERY_MS: u64 = 1_000;
/// After "stop" the keeper itself ends everything when no master has served for this time, in milliseconds.
pub const STOP_WITHOUT_MASTER_MS: u64 = 10_000;
/// After "stop now" the keeper itself ends everything when the master has not done so in this time, in milliseconds.
pub const STOP_NOW_GRACE_MS: u64 = 10_000;

// ---- channel to a worker ----

/// Longest line that a worker may send over its channel, in bytes. Users do send megabytes.
pub const CHANNEL_LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// File descriptors received from a worker before their line.
pub const CHANNEL_FDS_PENDING_MAX: usize = 64;
/// Control lines queued for a worker that does not read its channel.
pub const CHANNEL_OUTBOX_LINES_MAX: usize = 256;
/// Size of a message between agent and workers, in bytes; larger ones are not relayed.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Size of the sender's id of a message, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 256;
/// Messages queued for a receiver that does not read its channel.
pub const MESSAGES_WAITING_MAX: usize = 4096;
/// Their total size, in bytes.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same of all receivers of an app, in bytes.
pub const MESSAGES_WAITING_APP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Listener keys that the workers of one app may request.
pub const LISTENER_KEYS_PER_APP_MAX: usize = 256;
/// Size of the `data` that a worker attaches to a listener (TLS ticket keys and the like), in bytes. It goes into a note
/// as text, which may double it.
pub const LISTENER_DATA_BYTES_MAX: usize = 16 * 1024;
/// Length of a listener's key or address in a worker's request, in bytes.
pub const LISTENER_KEY_BYTES_MAX: usize = 512;

/// Size of one datagram to the notify socket that is read, in bytes.
pub const NOTIFY_BYTES_MAX: usize = 4 * 1024;
/// Length of a program's own status text, in characters.
pub const STATUS_CHARS_MAX: usize = 200;

// ---- stderr ----

// ---- what came from others ----

// ---- hand-off ----

/// Open hand-offs of all workers of an app.
pub const HANDOFFS_OPEN_MAX: usize = 16 * 1024;
/// Upgraded connections of an app that are under way to another worker, each with its state.
pub const UPGRADED_OPEN_MAX: usize = 1024;
/// How long one of them waits for another worker after the one that it was meant for has died, in milliseconds.
pub const UPGRADED_WAIT_MS: u64 = 30_000;
/// Initial window of a worker.
pub const HANDOFF_WINDOW_START: u32 = 8;
/// Largest window of a worker.
pub const HANDOFF_WINDOW_MAX: u32 = 64;
/// An answer that took longer than this, in microseconds, shrinks the worker's window to one.
pub const HANDOFF_SLOW_US: u64 = 50_000;
/// Connections accepted from one listener before the next one's turn.
pub const ACCEPT_BATCH_MAX: usize = 64;
/// Pause of accept after the system ran out of file descriptors or memory, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Requested length of the accept queue; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;

// ---- kernel balance ----

/// Sockets of one group: one for each slot.
pub const GROUP_SOCKETS_MAX: u32 = WORKERS_MAX;
// ---- supervision ----

/// Worker ids reserved at a time, so that a new master never reuses one.
pub const WORKER_IDS_RESERVED: u64 = 256;

/// Failures that a slot remembers.
pub const FAILURES_REMEMBERED_MAX: usize = 256;
/// Largest `max_runs`.
pub const RUNS_MAX: u32 = 1_000_000;
/// Least time between two replacements in a slot for passed limits, in milliseconds.
pub const REPLACE_EVERY_MS: u64 = 10_000;
/// "Stop now" sends SIGTERM, and SIGKILL after this, in milliseconds.
pub const STOP_NOW_KILL_MS: u64 = 1_000;

// ---- hooks ----

/// Time limit of a hook, in milliseconds; then it is killed with its process group.
pub const HOOK_TIMEOUT_MS: u64 = 10_000;
/// Length of the reason passed to a hook, in characters.
pub const HOOK_REASON_CHARS_MAX: usize = 1_000;

// ---- readiness probes ----

/// Size of an answer's head with the interim answers before it, in bytes.
pub const READY_HEAD_BYTES_MAX: usize = 16 * 1024;

// ---- reports of stuck event loops ----

/// Time limit for the report of a hung worker, in milliseconds; SIGABRT follows. An idle machine needs 300, and on a
/// busy one the inspector waits for a CPU beside the thread that does not stop.
pub const HANG_REPORT_MS: u64 = 10_000;

// ---- control socket ----

/// Size of a request's body, in bytes: a configuration and an environment fit in.
pub const CONTROL_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests queued for the master's loop.
pub const CONTROL_QUEUE_MAX: usize = 128;
/// Connections to the control socket at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Connections of one client process.
pub const CONTROL_CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// Longest part of a new binary's answer to the check before an upgrade that is read, in bytes.
pub const UPGRADE_ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// Masters that one home may hold.
pub const MASTERS_PER_HOME_MAX: usize = 1024;
/// How long a start waits for another one that holds the registry.
pub const REGISTRY_WAIT_MS: u64 = 20_000;
/// Size of the file that `save` writes, in bytes.
pub const SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Pause between two checks of the size of clusterd's own log in the background.
pub const OWN_LOG_LOOK_MS: u64 = 60_000;
/// A keeper that has no control socket after this has failed to start.
pub const START_WAIT_MS: u64 = 30_000;

// ---- watching ----

/// Folders watched for one app: the system has a limit too (fs.inotify.max_user_watches).
pub const WATCH_FOLDERS_MAX: usize = 8_192;
/// Watched paths of an app, and ignore patterns.
pub const WATCH_PATHS_MAX: usize = 128;

// ---- log files ----

/// Length of a timestamp format, in bytes.
pub const LOG_TIME_CHARS_MAX: usize = 128;
/// Rotated files that may be kept of one log file.
pub const LOG_FILES_KEPT_MAX: u32 = 1000;
/// Length of the path of a log file, in bytes (the kernel's PATH_MAX).
pub const LOG_PATH_BYTES_MAX: usize = 4096;

// ---- clusterd logs ----

/// Default number of last lines of each file.
pub const LOGS_LINES_DEFAULT: usize = 15;
/// Largest number of last lines of each file from the control API.
pub const LOGS_API_LINES_MAX: usize = 10_000;
