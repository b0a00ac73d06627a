//! The bounds that a user can meet, and those that several parts share, named, with the unit last. What tunes one part
//! alone stands beside its code. No behaviour lives here.
//!
//! A bound that is reached is an event with a message, never a panic and never an unbounded wait.

// ---- config and command line ----

/// Workers that one app may have.
pub const WORKERS_MAX: u32 = 4096;
/// Apps in one deployment.
pub const APPS_MAX: usize = 64;
/// Listeners that one app may configure.
pub const LISTENERS_PER_APP_MAX: usize = 128;
/// Size of a configuration file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Time in which a file that is a pipe has to end, in milliseconds. A running master waits so long too: shorter than the
/// keeper's patience with it.
pub const FILE_READ_MS_MAX: u64 = 2_000;
/// Size of everything that a configuration was made from (file, command line, env files), in bytes.
pub const SOURCES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time that node may take to evaluate a configuration, in milliseconds.
pub const EVALUATION_MS_MAX: u64 = 10_000;
/// How much an evaluated configuration may print, its result included, in bytes.
pub const EVALUATION_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Length of an app's name, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Problems of one configuration that are told; the rest is told when these are gone.
pub const PROBLEMS_MAX: usize = 100;
/// Length of what is said about one problem, in characters: a value may be as long as its file.
pub const PROBLEM_CHARS_MAX: usize = 500;
/// Size of an `env_file`, in bytes.
pub const ENV_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Share of the CPUs that `workers = "N%"` may ask for, in percent.
pub const WORKERS_PERCENT_MAX: u32 = 1_000;
/// Longest time that a setting may hold, in milliseconds (30 days).
pub const DURATION_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Shortest `hang`, in milliseconds: a collection of garbage must not be taken for one.
pub const HANG_MS_MIN: u64 = 1_000;
/// Length of the path in `ready = "http:..."`, in bytes.
pub const READY_PATH_BYTES_MAX: usize = 1024;
/// Largest `memory` limit, in bytes (1 TiB).
pub const MEMORY_LIMIT_BYTES_MAX: u64 = 1 << 40;
/// Length of a Unix socket's path, in bytes: the kernel's `sun_path` less its closing zero.
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Length of a host name, in bytes (RFC 1035).
pub const HOST_BYTES_MAX: usize = 253;
/// How much of a script's first line is looked at for its interpreter, in bytes (the kernel's BINPRM_BUF_SIZE).
pub const SHEBANG_BYTES_MAX: usize = 256;
/// Size of a `package.json` that is read for advice, in bytes.
pub const PACKAGE_JSON_BYTES_MAX: u64 = 1024 * 1024;
/// Size of one `/proc` or cgroup file that is read to count CPUs, in bytes.
pub const PROC_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// CPUs that the affinity mask may hold; beyond it the kernel is not asked.
pub const AFFINITY_CPUS_MAX: usize = 512 * 1024;
/// CPUs that `cpu_affinity` may name are numbered below this.
pub const CPU_NUMBERS_MAX: u32 = 8192;

// ---- keeper ----

/// What the keeper sets its oom_score_adj to where it may: 1,000 less is never killed, and the master and the workers get
/// the score back that clusterd was started with.
pub const KEEPER_OOM_SCORE_ADJ: i32 = -900;
/// Processes that the keeper holds at once.
pub const CHILDREN_MAX: usize = 16 * 1024;
/// File descriptors that the keeper holds by name.
pub const HELD_FDS_MAX: usize = 64 * 1024;
/// Notes (opaque pieces of the master's state) that the keeper holds.
pub const NOTES_MAX: usize = 32 * 1024;
/// Size of one note's value, in bytes.
pub const NOTE_BYTES_MAX: usize = 48 * 1024;
/// Length of the name of a held fd or of a note, in bytes.
pub const KEEPER_NAME_BYTES_MAX: usize = 1024;
/// Size of one packet between keeper and master, in bytes.
pub const KEEPER_PACKET_BYTES_MAX: usize = 64 * 1024;
/// Size of one spawn description (command, arguments, environment), in bytes. The kernel's own limit is near 2 MiB.
pub const SPAWN_SPEC_BYTES_MAX: usize = 4 * 1024 * 1024;
/// File descriptors that ride on one packet. The kernel's SCM_MAX_FD is 253.
pub const FDS_PER_PACKET_MAX: usize = 250;
/// Size of the tag that a spawn carries, in bytes. The keeper keeps it as long as the child.
pub const SPAWN_TAG_BYTES_MAX: usize = 8 * 1024;
/// Highest fd number that a spawn may place.
pub const PLACED_FD_NUMBER_MAX: i32 = 4095;
/// Signals that wait while there is no master to tell.
pub const SIGNALS_PENDING_MAX: usize = 64;
/// Orders that the keeper takes before it looks at its children again.
pub const KEEPER_ORDERS_PER_TURN_MAX: usize = 256;
/// Damaged or refused orders of one master that are reported; more are counted only.
pub const KEEPER_COMPLAINTS_MAX: u32 = 20;
/// Pause after the kernel refused a packet for want of memory or of fds under way, in milliseconds.
pub const KEEPER_SEND_PAUSE_MS: u64 = 50;
/// Time that the keeper waits for what it has killed to be gone before it ends itself, in milliseconds.
pub const KEEPER_END_WAIT_MS: u64 = 2_000;
/// Send buffer that keeper and master ask for, in bytes.
pub const KEEPER_SOCKET_BUFFER_BYTES: usize = 1024 * 1024;
/// Time that a master has to receive what the keeper holds, in milliseconds.
pub const ADOPT_TIMEOUT_MS: u64 = 20_000;
/// Listening sockets that clusterd takes from its own parent (systemd).
pub const INHERITED_FDS_MAX: usize = 256;
/// Packets that wait for a peer that does not read, in each direction between keeper and master.
pub const KEEPER_OUTBOX_MAX: usize = 64 * 1024;
/// Heartbeats of a master after which it and the keeper give the code of their start back to the system.
pub const START_HEARTBEATS: u32 = 3;
/// How often the master tells the keeper that its loop turns, in milliseconds.
pub const HEARTBEAT_EVERY_MS: u64 = 1_000;
/// Keeper ticks (one each `HEARTBEAT_EVERY_MS`) without a heartbeat after which the master counts as hung.
pub const WATCHDOG_MISSED_TICKS_MAX: u32 = 5;
/// Time that a new master has to report that it took over, in milliseconds.
pub const MASTER_START_TIMEOUT_MS: u64 = 30_000;
/// First wait before a master that died again at once is started again, in milliseconds. It doubles.
pub const MASTER_BACKOFF_MIN_MS: u64 = 50;
/// Longest wait before a master that keeps dying is started again, in milliseconds. Nobody accepts meanwhile, so clients
/// wait as long; a start costs some milliseconds of CPU.
pub const MASTER_BACKOFF_MAX_MS: u64 = 1_000;
/// A master that lived this long (ms) has no backoff: it is started again at once.
pub const MASTER_MIN_UPTIME_MS: u64 = 1_000;
/// Size of what the keeper hands to the binary that it becomes, in bytes. Over it the keeper stays what it is.
pub const KEEPER_STATE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time that a new binary has to say whether it can be the keeper, in milliseconds.
pub const KEEPER_CHECK_MS: u64 = 5_000;
/// After "stop" the keeper itself ends everything when no master has served for this time, in milliseconds.
pub const STOP_WITHOUT_MASTER_MS: u64 = 10_000;
/// After "stop now" the keeper itself ends everything when the master has not done so in this time, in milliseconds.
pub const STOP_NOW_GRACE_MS: u64 = 10_000;

// ---- channel to a worker ----

/// Longest line that a worker may send over its channel, in bytes. Users do send megabytes.
pub const CHANNEL_LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What one read of a channel takes, in bytes.
pub const CHANNEL_READ_BYTES: usize = 64 * 1024;
/// How much of a long line that reaches nobody is kept, in bytes: enough to see what it is.
pub const CHANNEL_HEAD_BYTES: usize = 64 * 1024;
/// Unfinished long lines of the workers of one app, in bytes; a line that goes beyond is not kept.
pub const CHANNELS_UNFINISHED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same over all apps, in bytes; one such line of each app is kept in any case.
pub const CHANNELS_UNFINISHED_ALL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// File descriptors that arrived from a worker and whose line has not.
pub const CHANNEL_FDS_PENDING_MAX: usize = 64;
/// Control lines that wait because the worker does not read its channel.
pub const CHANNEL_OUTBOX_LINES_MAX: usize = 256;
/// Size of a message between agent and workers, in bytes; larger ones reach nobody.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Size of the sender's own name for a message, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 256;
/// Messages that wait because their receiver does not read its channel.
pub const MESSAGES_WAITING_MAX: usize = 4096;
/// Their size together, in bytes.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Listener keys that the workers of one app may ask for.
pub const LISTENER_KEYS_PER_APP_MAX: usize = 256;
/// Size of the `data` that a worker attaches to a listener (TLS ticket keys and the like), in bytes. It goes into a note
/// as text, which may double it.
pub const LISTENER_DATA_BYTES_MAX: usize = 16 * 1024;
/// Length of a listener's key or address in a worker's request, in bytes.
pub const LISTENER_KEY_BYTES_MAX: usize = 512;

/// Size of one datagram to the notify socket that is read, in bytes.
pub const NOTIFY_BYTES_MAX: usize = 4 * 1024;
/// Length of a program's word about its own status, in characters.
pub const STATUS_CHARS_MAX: usize = 200;

// ---- stderr ----

/// Messages that wait until stderr takes them, in bytes; more are counted only.
pub const STDERR_BYTES_MAX: usize = 64 * 1024;
/// Length of one line of the keeper, in bytes.
pub const STDERR_LINE_BYTES_MAX: usize = 4 * 1024;
/// Time that a write may wait for which there seemed to be room, in milliseconds.
pub const STDERR_WAIT_MS: u64 = 20;
/// Pause after a write that did wait, in milliseconds.
pub const STDERR_PAUSE_MS: u64 = 1_000;
/// Time that what waits has to go out before the process ends, in milliseconds.
pub const STDERR_END_WAIT_MS: u64 = 200;

// ---- what came from others ----

/// Time that a thing that is done with the rights of a worker's user may take, in milliseconds.
pub const AS_USER_WAIT_MS: u64 = 200;
/// Such things that may be under way or hang at once; after that they are refused.
pub const AS_USER_HANGING_MAX: usize = 8;
/// Stack of the thread that does one, in bytes.
pub const AS_USER_STACK_BYTES: usize = 128 * 1024;
/// Files that wait to be closed on other threads; more stay open.
pub const CLOSER_QUEUE_MAX: usize = 1024;
/// Threads that close files. Each may hang in one.
pub const CLOSER_THREADS_MAX: usize = 8;
/// Time after which such a thread ends when there is nothing to close, in milliseconds.
pub const CLOSER_IDLE_MS: u64 = 2_000;
/// Stack of such a thread, in bytes.
pub const CLOSER_STACK_BYTES: usize = 64 * 1024;
/// Time that the close of one socket may wait, in milliseconds.
pub const CLOSE_WAIT_MS: u64 = 20;

// ---- hand-off ----

/// Connections accepted and not yet answered for, over all workers of an app.
pub const HANDOFFS_OPEN_MAX: usize = 16 * 1024;
/// Open hand-offs that one worker starts with.
pub const HANDOFF_WINDOW_START: u32 = 8;
/// Open hand-offs that one worker may have when it answers fast.
pub const HANDOFF_WINDOW_MAX: u32 = 64;
/// An answer that took longer than this, in microseconds, shrinks the worker's window to one.
pub const HANDOFF_SLOW_US: u64 = 50_000;
/// Connections accepted from one listener before the others are looked at.
pub const ACCEPT_BATCH_MAX: usize = 64;
/// Longest wait before answers are read while hand-offs are open, in milliseconds.
pub const ANSWER_BATCH_WAIT_MS: u64 = 1;
/// Pause of accept after the system ran out of file descriptors or memory, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Length of the accept queue that clusterd asks for; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;

// ---- kernel balance ----

/// Sockets of one group: one for each slot.
pub const GROUP_SOCKETS_MAX: u32 = WORKERS_MAX;
/// Sockets of all groups of a deployment; slots beyond share them.
pub const GROUPS_SOCKETS_MAX: usize = 16 * 1024;

// ---- supervision ----

/// Worker ids that are set aside at a time, so that a new master never uses one twice.
pub const WORKER_IDS_RESERVED: u64 = 256;

/// How many past failures a slot remembers.
pub const FAILURES_REMEMBERED_MAX: usize = 256;
/// Largest `max_runs`.
pub const RUNS_MAX: u32 = 1_000_000;
/// The same for one that is not ready yet, in milliseconds: nobody misses it, and how it ended says more, also where that
/// comes late because CPUs are scarce.
pub const CHANNEL_CLOSED_STARTING_MS: u64 = 1_000;
/// A slot is replaced for passing a limit no more often than this, in milliseconds.
pub const REPLACE_EVERY_MS: u64 = 10_000;
/// A reload waits this long, in milliseconds, for an old worker without clients to be gone before it starts the next new
/// one.
pub const RELOAD_GONE_MS_MAX: u64 = 150;
/// "Stop now" sends SIGTERM, and SIGKILL after this, in milliseconds.
pub const STOP_NOW_KILL_MS: u64 = 1_000;

// ---- hooks ----

/// Hooks that run at once.
pub const HOOKS_RUNNING_MAX: usize = 4;
/// Hooks that wait for their turn.
pub const HOOKS_QUEUED_MAX: usize = 1024;
/// Time that a hook may take, in milliseconds; then it is killed with its process group.
pub const HOOK_TIMEOUT_MS: u64 = 10_000;
/// Pause between two looks at a hook of which the kernel does not tell the end, in milliseconds.
pub const HOOKS_LOOK_MS: u64 = 10;
/// Length of the reason that a hook is told, in characters.
pub const HOOK_REASON_CHARS_MAX: usize = 1_000;

// ---- workers that are asked whether they are ready ----

/// Size of an answer's head with the interim answers before it, in bytes.
pub const READY_HEAD_BYTES_MAX: usize = 16 * 1024;

// ---- reports of stuck event loops ----

/// Time that a hung worker has to leave a report, in milliseconds; SIGABRT follows. An idle machine needs 300.
pub const HANG_REPORT_MS: u64 = 5_000;
/// Workers that are asked for a report at once. Further ones get SIGABRT without.
pub const HANG_REPORTS_AT_ONCE_MAX: usize = 4;
/// Size of an inspector's answer over HTTP, in bytes.
pub const INSPECTOR_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Size of a message of the inspector that is looked at, in bytes; longer ones are skipped.
pub const INSPECTOR_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Calls of a stack that are told.
pub const INSPECTOR_FRAMES_TOLD_MAX: usize = 4;

// ---- control socket ----

/// Size of a request's body, in bytes: a configuration and an environment fit in.
pub const CONTROL_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests that wait for the master's loop.
pub const CONTROL_QUEUE_MAX: usize = 128;
/// Connections to the control socket at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Of these, connections of one process.
pub const CONTROL_CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// Time for which a client may read nothing of its answer, in milliseconds. Who follows logs may take longer.
pub const CONTROL_WRITE_TIMEOUT_MS: u64 = 10_000;
/// Time that a new binary has to say whether it can take over, in milliseconds.
pub const UPGRADE_CHECK_MS: u64 = 10_000;
/// How much of its answer is read, in bytes.
pub const UPGRADE_ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// Time in which a master that hands over waits for workers' answers, in milliseconds.
pub const HAND_OVER_MAX_MS: u64 = 500;
/// Size of a request's head, in bytes.
pub const CONTROL_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Time between two looks of a CLI that waits, in milliseconds.
pub const PROGRESS_EVERY_MS: u64 = 200;
/// How often `top` looks at every master, in milliseconds.
pub const TOP_LOOK_EVERY_MS: u64 = 1_000;
/// A master that has given no answer for so long counts as silent there, in milliseconds.
pub const TOP_SILENT_MS: u64 = 3_000;
/// Good news is shown so long, in milliseconds.
pub const TOP_SAID_MS: u64 = 15_000;
/// Lines of the log that it keeps.
pub const TOP_LOG_LINES_MAX: usize = 500;
/// Looks that a CLI takes at a master that does not answer before it gives up.
pub const LOOK_TRIES_MAX: u32 = 50;
/// Masters that one home may hold.
pub const MASTERS_PER_HOME_MAX: usize = 1024;
/// How long a start waits for another one that holds the home.
pub const REGISTRY_WAIT_MS: u64 = 20_000;
/// Pause between two looks whether it still does.
pub const REGISTRY_RETRY_MS: u64 = 2;
/// Size of the file that `save` writes, in bytes.
pub const SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Size of what clusterd itself says in the background, in bytes; then the file begins anew and the old one stays beside.
pub const OWN_LOG_BYTES_MAX: u64 = 1024 * 1024;
/// Pause between two looks at that size.
pub const OWN_LOG_LOOK_MS: u64 = 60_000;
/// Apps that a command acts on at the same time.
pub const COMMANDS_AT_ONCE_MAX: usize = 16;
/// `resurrect --stay` looks at least this often whether what was saved has keepers.
pub const STAY_LOOK_MS: u64 = 10_000;
/// The first wait before a deployment is tried again that could not be started again; it doubles.
pub const STAY_RETRY_MIN_MS: u64 = 1_000;
/// The longest of these waits.
pub const STAY_RETRY_MAX_MS: u64 = 60_000;
/// Pause between two looks whether a master that is being started answers.
pub const START_LOOK_MS: u64 = 2;
/// A keeper that has no control socket after this has failed to start.
pub const START_WAIT_MS: u64 = 30_000;

// ---- watching ----

/// Folders that the watcher of one app looks at: the system has a limit too (fs.inotify.max_user_watches).
pub const WATCH_FOLDERS_MAX: usize = 8_192;
/// Paths that an app may have watched, and patterns that it may have ignored.
pub const WATCH_PATHS_MAX: usize = 128;

// ---- output ----

/// What one read of a worker's output takes, in bytes.
pub const OUTPUT_READ_BYTES: usize = 64 * 1024;

/// Longest line of a worker's output that is kept whole, in bytes; a longer one is split.
pub const OUTPUT_LINE_BYTES_MAX: usize = 64 * 1024;

// ---- log files ----

/// Length of the format of time stamps, in bytes.
pub const LOG_TIME_CHARS_MAX: usize = 128;
/// Rotated files that may be kept of one log file.
pub const LOG_FILES_KEPT_MAX: u32 = 1000;
/// Streams (stdout or stderr of one worker) that go to log files at once.
pub const LOG_STREAMS_MAX: usize = 2 * CHILDREN_MAX;
/// Pieces of streams that are kept at once: what is left of a line, and what came then.
pub const LOG_SEGMENTS_MAX: usize = 2 * LOG_STREAMS_MAX;
/// Size of one of the two spools, in bytes. Memory is used only as far as they are filled.
pub const LOG_SPOOL_BYTES: usize = 8 * 1024 * 1024;
/// What a spool may hold before what is left of it moves to the other one, in bytes: little enough to stay in the
/// processor's cache.
pub const LOG_SPOOL_TURN_BYTES: usize = 256 * 1024;
/// Memory of an idle spool that is not given back, in bytes.
pub const LOG_SPOOL_IDLE_BYTES: usize = 64 * 1024;
/// What one turn takes from one stream, in bytes: as much as a pipe holds.
pub const LOG_TAKE_BYTES: usize = 64 * 1024;
/// Longest line that is written whole, in bytes; a longer one comes in pieces.
pub const LOG_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Length of the path of a log file, in bytes (the kernel's PATH_MAX).
pub const LOG_PATH_BYTES_MAX: usize = 4096;
/// Names that are looked at in the folder of a log file.
pub const LOG_FOLDER_ENTRIES_MAX: usize = 100_000;
/// Stack of the threads that write and compress log files, in bytes.
pub const LOG_STACK_BYTES: usize = 512 * 1024;
/// What a stream that has much to say gave in one turn, in bytes.
pub const LOG_MUCH_BYTES: usize = 32 * 1024;
/// Streams that are read in one turn.
pub const LOG_READY_MAX: usize = 64;
/// Longest nap between two turns, in microseconds: so late a line may be in its file.
pub const LOG_NAP_US_MAX: u64 = 10_000;
/// Shortest nap that is worth one, in microseconds.
pub const LOG_NAP_US_MIN: u64 = 60;
/// What the stream that says most gives after a nap, in bytes: a part of what its pipe holds.
pub const LOG_NAP_BYTES: usize = 16 * 1024;

// ---- clusterd logs ----

/// Last lines of each file that are shown where nothing else was asked for.
pub const LOGS_LINES_DEFAULT: usize = 15;
/// Last lines of each file that the control API gives at most.
pub const LOGS_API_LINES_MAX: usize = 10_000;
/// Clients of the control API that follow logs at the same time.
pub const LOGS_API_FOLLOWERS_MAX: usize = 16;
/// Pause between two looks at the files, in milliseconds.
pub const LOGS_LOOK_MS: u64 = 200;
/// Time between two questions which files there are, in milliseconds.
pub const LOGS_ASK_MS: u64 = 2_000;
