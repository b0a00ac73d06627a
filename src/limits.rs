//! Every bound of the program, named, with its unit last. No behaviour lives here.
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
/// Pause between two looks at whether it has, where the kernel does not tell, in milliseconds.
pub const EVALUATION_LOOK_MS: u64 = 5;
/// How much an evaluated configuration may print, its result included, in bytes.
pub const EVALUATION_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How much of its complaints is read, in bytes.
pub const EVALUATION_WORDS_BYTES_MAX: u64 = 256 * 1024;
/// Stack of a thread that reads them, in bytes.
pub const EVALUATION_STACK_BYTES: usize = 128 * 1024;
/// Stack of the thread on which a running deployment evaluates its configuration, in bytes.
pub const READING_STACK_BYTES: usize = 2 * 1024 * 1024;
/// How much of a script is looked at to tell text from a binary, in bytes.
pub const SCRIPT_HEAD_BYTES: u64 = 8 * 1024;
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

// ---- keeper ----

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
/// File descriptors that arrived from a worker and whose line has not.
pub const CHANNEL_FDS_PENDING_MAX: usize = 64;
/// Control lines that wait because the worker does not read its channel.
pub const CHANNEL_OUTBOX_LINES_MAX: usize = 256;
/// Answers to one worker that are held back until what they mean is noted.
pub const CHANNEL_HELD_LINES_MAX: usize = 64;
/// How much of a malformed line an error message shows, in bytes.
pub const BAD_LINE_SHOWN_BYTES: usize = 80;
/// How much of the reason why a line is malformed an error message shows, in characters.
pub const BAD_LINE_REASON_CHARS_MAX: usize = 200;
/// Size of a message between agent and workers, in bytes; larger ones reach nobody.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Size of the sender's own name for a message, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 256;
/// Messages that wait because their receiver does not read its channel.
pub const MESSAGES_WAITING_MAX: usize = 4096;
/// Their size together, in bytes.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// From here on an agent's messages to a receiver that reads are left in the agent's channel.
pub const MESSAGES_HIGH_WATER: usize = 1024;
/// The same in bytes. One read, and one message more, still fit.
pub const MESSAGES_HIGH_WATER_BYTES: usize = 512 * 1024;
/// A receiver that has read nothing for this time holds the agent up no more, in milliseconds.
pub const MESSAGES_STALL_MS: u64 = 200;
/// How often it is looked whether an agent that was held up may go on, in milliseconds.
pub const MESSAGES_PAUSE_LOOK_MS: u64 = 5;
/// Messages of one sender that are passed on before the loop does something else, in bytes (each counts for 256 more).
pub const MESSAGES_PER_TURN_BYTES_MAX: usize = 512 * 1024;
/// How often it is said that a process does not read its messages, in milliseconds.
pub const MESSAGES_TOLD_EVERY_MS: u64 = 10_000;
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
/// Datagrams taken from the notify socket before the loop goes on.
pub const NOTIFY_BATCH_MAX: usize = 256;

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
/// Stack of the thread that writes for the master, in bytes.
pub const STDERR_STACK_BYTES: usize = 64 * 1024;

// ---- what came from others ----

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
/// Waits of `ANSWER_BATCH_WAIT_MS` in a row that bring nothing, after which the loop sleeps until something happens.
pub const QUIET_WAITS_MAX: u32 = 3;
/// Events taken from one epoll at a time.
pub const POLL_EVENTS_MAX: usize = 256;
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
/// A worker whose channel closed and whose process lives on after this, in milliseconds, leaves by itself.
pub const CHANNEL_CLOSED_GRACE_MS: u64 = 50;
/// The same for one that is not ready yet, in milliseconds: nobody misses it, and how it ended says more, also where that
/// comes late because CPUs are scarce.
pub const CHANNEL_CLOSED_STARTING_MS: u64 = 1_000;
/// A worker that closed its last server and opened none in this time, in milliseconds, leaves by itself.
pub const SERVERS_CLOSED_GRACE_MS: u64 = 1_000;
/// A slot is replaced for passing a limit no more often than this, in milliseconds.
pub const REPLACE_EVERY_MS: u64 = 10_000;
/// A reload waits this long, in milliseconds, for an old worker without clients to be gone before it starts the next new
/// one.
pub const RELOAD_GONE_MS_MAX: u64 = 150;
/// Workers leave up to one part in so many of their `lifetime` early (a share, without a unit).
pub const LIFETIME_JITTER_SHARE: u64 = 10;
/// "Stop now" sends SIGTERM, and SIGKILL after this, in milliseconds.
pub const STOP_NOW_KILL_MS: u64 = 1_000;

/// Time that a draining worker which has closed its channel has to end by itself before its sockets are looked at, in
/// milliseconds.
pub const DRAIN_OWN_END_MS: u64 = 200;
/// First pause between two looks at the connections of draining workers, in milliseconds. It doubles.
pub const DRAIN_CHECK_MIN_MS: u64 = 10;
/// Longest pause between two looks at the connections of draining workers, in milliseconds.
pub const DRAIN_CHECK_MAX_MS: u64 = 500;
/// Pause after such a look, as a multiple of the time that it took, so that the loop spends little of its time on them.
pub const DRAIN_CHECK_REST_FACTOR: u64 = 20;
/// Longest such pause, in milliseconds: on a machine without CPU to spare everything seems to take long.
pub const DRAIN_CHECK_REST_MAX_MS: u64 = 1_000;
/// A look at whether an app has clients counts at least so long, in milliseconds: many workers may begin to drain at once.
pub const CLIENTS_SEEN_MIN_MS: u64 = 50;
/// Time that the kernel's list of TCP connections may take, in milliseconds; then this look is given up.
pub const SOCK_DIAG_MS_MAX: u64 = 1_000;
/// Packets of that list. The kernel puts 100 to 300 sockets into one.
pub const SOCK_DIAG_PACKETS_MAX: usize = 64 * 1024;
/// Buffer for one packet of that list, in bytes. The kernel makes them as long as the buffer, up to 32 KiB.
pub const SOCK_DIAG_PACKET_BYTES: usize = 32 * 1024;

// ---- hooks ----

/// Hooks that run at once.
pub const HOOKS_RUNNING_MAX: usize = 4;
/// Hooks that wait for their turn.
pub const HOOKS_QUEUED_MAX: usize = 1024;
/// Time that a hook may take, in milliseconds; then it is killed with its process group.
pub const HOOK_TIMEOUT_MS: u64 = 10_000;
/// At the end: how long running and waiting hooks are waited for, in milliseconds.
pub const HOOKS_END_WAIT_MS: u64 = 3_000;
/// At the end: how long hooks that were killed are waited for, in milliseconds.
pub const HOOKS_KILL_WAIT_MS: u64 = 200;
/// Pause between two looks at a hook of which the kernel does not tell the end, in milliseconds.
pub const HOOKS_LOOK_MS: u64 = 10;
/// Length of the reason that a hook is told, in characters.
pub const HOOK_REASON_CHARS_MAX: usize = 1_000;
/// Open files that a hook may have (the soft limit; a program that uses select(2) is safe below it).
pub const HOOK_OPEN_FILES: u64 = 1024;
/// Stack of the hooks' thread, in bytes.
pub const HOOKS_STACK_BYTES: usize = 256 * 1024;

/// How often the event loops of Node workers are pinged and the limits of workers are looked at, in milliseconds: with the
/// heartbeat, so that an idle machine is woken once. A ping that was not read when the next one is due takes the worker
/// out of the balance.
pub const PING_EVERY_MS: u64 = HEARTBEAT_EVERY_MS;
/// First look at whether pings were read, after this, in milliseconds; an idle event loop needs less than one.
pub const PING_LOOK_MS: u64 = 1;

// ---- workers that are asked whether they are ready ----

/// Rest before a worker that has not answered well is asked again, in milliseconds. It doubles.
pub const READY_ASK_MIN_MS: u64 = 50;
/// Longest such rest, in milliseconds.
pub const READY_ASK_MAX_MS: u64 = 1_000;
/// Time that a worker has to answer one question, in milliseconds.
pub const READY_ANSWER_MS: u64 = 5_000;
/// Time that the rest of an answer has to come once its status is known, in milliseconds; nobody reads it.
pub const READY_BODY_MS: u64 = 1_000;
/// Pause between two looks at whether the kernel has made a connection over loopback, in milliseconds.
pub const READY_CONNECT_LOOK_MS: u64 = 1;
/// Workers that are asked at once, over all apps; further ones wait.
pub const READY_ASKS_AT_ONCE_MAX: usize = 256;
/// Size of an answer's head with the interim answers before it, in bytes.
pub const READY_HEAD_BYTES_MAX: usize = 16 * 1024;
/// How much of an answer is let go by before the connection is closed, in bytes.
pub const READY_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What one read of an answer takes, in bytes.
pub const READY_READ_BYTES: usize = 4 * 1024;

// ---- reports of stuck event loops ----

/// Time that a hung worker has to leave a report, in milliseconds; SIGABRT follows. An idle machine needs 300.
pub const HANG_REPORT_MS: u64 = 5_000;
/// Workers that are asked for a report at once. Further ones get SIGABRT without.
pub const HANG_REPORTS_AT_ONCE_MAX: usize = 4;
/// First pause between two looks at whether a worker has opened its inspector, in milliseconds. It doubles.
pub const HANG_LOOK_MIN_MS: u64 = 10;
/// Longest such pause, in milliseconds.
pub const HANG_LOOK_MAX_MS: u64 = 200;
/// Time that one of a worker's ports has to show that it is an inspector, in milliseconds.
pub const INSPECTOR_SHOWS_MS: u64 = 500;
/// Listening ports of a worker that are tried.
pub const INSPECTOR_PORTS_MAX: usize = 16;
/// Size of an inspector's answer over HTTP, in bytes.
pub const INSPECTOR_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Size of a message of the inspector that is looked at, in bytes; longer ones are skipped.
pub const INSPECTOR_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What one read from an inspector takes, in bytes.
pub const INSPECTOR_READ_BYTES: usize = 16 * 1024;
/// Calls of a stack that are told.
pub const INSPECTOR_FRAMES_TOLD_MAX: usize = 4;
/// Stack of a thread that waits for a report, in bytes.
pub const HANG_REPORT_STACK_BYTES: usize = 256 * 1024;

// ---- control socket ----

/// Size of a request's body, in bytes: a configuration and an environment fit in.
pub const CONTROL_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests that wait for the master's loop.
pub const CONTROL_QUEUE_MAX: usize = 128;
/// Connections to the control socket at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Time that a client has to send its request's head, in milliseconds.
pub const CONTROL_HEAD_TIMEOUT_MS: u64 = 5_000;
/// Time that a client has to send its request's body, in milliseconds.
pub const CONTROL_BODY_TIMEOUT_MS: u64 = 5_000;
/// Time that a new binary has to say whether it can take over, in milliseconds.
pub const UPGRADE_CHECK_MS: u64 = 10_000;
/// Pause between two looks at whether it has, in milliseconds.
pub const UPGRADE_CHECK_STEP_MS: u64 = 5;
/// How much of its answer is read, in bytes.
pub const UPGRADE_ANSWER_BYTES_MAX: u64 = 4 * 1024;
/// Size of a snapshot that a new binary looks at, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time in which a master that hands over waits for workers' answers, in milliseconds.
pub const HAND_OVER_MAX_MS: u64 = 500;
/// Size of a request's head, in bytes.
pub const CONTROL_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Stack of the control API's thread, in bytes.
pub const CONTROL_STACK_BYTES: usize = 512 * 1024;
/// Time in which the master's loop has to answer to count as alive, in milliseconds.
pub const CONTROL_LIVE_TIMEOUT_MS: u64 = 1_000;
/// At the end: looks at whether the last answers are written.
pub const CONTROL_DRAIN_STEPS_MAX: u32 = 50;
/// Pause between two such looks, in milliseconds.
pub const CONTROL_DRAIN_STEP_MS: u64 = 5;
/// Time that the CLI waits for a master to answer a question, in milliseconds.
pub const CONTROL_ANSWER_TIMEOUT_MS: u64 = 5_000;
/// Time between two looks of a CLI that waits, in milliseconds.
pub const PROGRESS_EVERY_MS: u64 = 200;
/// Time that such a look may take, in milliseconds.
pub const PROGRESS_LOOK_MS: u64 = 1_000;
/// A command that takes longer than this says what it waits for, in milliseconds.
pub const PROGRESS_AFTER_MS: u64 = 1_000;
/// How often it says so again by rewriting a line of the terminal, in milliseconds.
pub const PROGRESS_LINE_EVERY_MS: u64 = 1_000;
/// How often by a line of its own where there is no terminal, in milliseconds.
pub const PROGRESS_LOG_EVERY_MS: u64 = 10_000;
/// Columns of a terminal that does not say.
pub const COLUMNS_UNKNOWN: usize = 80;
/// Names that the refusal of an unknown one lists.
pub const NAMES_SHOWN_MAX: usize = 20;
/// How often `top` looks at every master, in milliseconds.
pub const TOP_LOOK_EVERY_MS: u64 = 1_000;
/// A master that has given no answer for so long counts as silent there, in milliseconds.
pub const TOP_SILENT_MS: u64 = 3_000;
/// Messages that wait for its loop.
pub const TOP_MESSAGES_MAX: usize = 1_024;
/// Good news is shown so long, in milliseconds.
pub const TOP_SAID_MS: u64 = 15_000;
/// Log files of an app that it follows.
pub const TOP_LOG_FILES_MAX: usize = 64;
/// Lines of the log that it keeps.
pub const TOP_LOG_LINES_MAX: usize = 500;
/// How much of a log it reads at once, in bytes; of what grows faster the rest is left out.
pub const TOP_LOG_READ_BYTES: u64 = 64 * 1024;
/// How often it looks whether a log has grown, in milliseconds.
pub const TOP_LOG_LOOK_MS: u64 = 250;
/// A loop delay that is worth a colour, in milliseconds.
pub const TOP_DELAY_BUSY_MS: u64 = 100;
/// A loop delay that is worth a louder one, in milliseconds.
pub const TOP_DELAY_BAD_MS: u64 = 1_000;
/// A terminal with fewer columns sees the time of day of a log's line, not its date.
pub const TOP_WIDE_COLUMNS: usize = 100;
/// Looks that a CLI takes at a master that does not answer before it gives up.
pub const LOOK_TRIES_MAX: u32 = 50;
/// Size of an answer that the CLI reads, in bytes.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Masters that one home may hold.
pub const MASTERS_PER_HOME_MAX: usize = 1024;
/// How long a start waits for another one that holds the home.
pub const REGISTRY_WAIT_MS: u64 = 20_000;
/// Pause between two looks whether it still does.
pub const REGISTRY_RETRY_MS: u64 = 2;
/// Tries of a claim whose lock is held: whoever looks whether a deployment lives holds it for microseconds.
pub const CLAIM_TRIES_MAX: u32 = 25;
/// Size of the file that `save` writes, in bytes.
pub const SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Size of what clusterd itself says in the background, in bytes; then the file begins anew and the old one stays beside.
pub const OWN_LOG_BYTES_MAX: u64 = 1024 * 1024;
/// Pause between two looks at that size.
pub const OWN_LOG_LOOK_MS: u64 = 60_000;
/// What a start that failed shows of the words of its deployment, in bytes.
pub const START_WORDS_BYTES_MAX: u64 = 16 * 1024;
/// How long a command waits for the end of a keeper that has nothing left.
pub const END_WAIT_MS: u64 = 5_000;
/// Apps that a command acts on at the same time.
pub const COMMANDS_AT_ONCE_MAX: usize = 16;
/// Pause between two looks whether a master that is being started answers.
pub const START_LOOK_MS: u64 = 2;
/// A keeper that has no control socket after this has failed to start.
pub const START_WAIT_MS: u64 = 30_000;

// ---- watching ----

/// Folders that the watcher of one app looks at: the system has a limit too (fs.inotify.max_user_watches).
pub const WATCH_FOLDERS_MAX: usize = 8_192;
/// Paths that an app may have watched, and patterns that it may have ignored.
pub const WATCH_PATHS_MAX: usize = 128;
/// Changes that wait for a watcher's thread; when more come, it only knows that something changed.
pub const WATCH_NEWS_MAX: usize = 1_024;
/// Changes that never pause are told after this many times `watch_delay`.
pub const WATCH_DELAYS_MAX: u32 = 10;
/// Stack of a watcher's thread, in bytes.
pub const WATCH_STACK_BYTES: usize = 256 * 1024;

// ---- output ----

/// What one read of a worker's output takes, in bytes.
pub const OUTPUT_READ_BYTES: usize = 64 * 1024;
/// Pipes that wait to be taken by the output's thread.
pub const OUTPUT_ORDERS_MAX: usize = 1024;
/// Stack of the output's thread, in bytes.
pub const OUTPUT_STACK_BYTES: usize = 256 * 1024;
/// Last lines that are kept of a new worker's output while its reload lasts.
pub const TAIL_LINES_MAX: usize = 20;
/// How much of each is kept, in characters.
pub const TAIL_LINE_CHARS_MAX: usize = 500;
/// Looks at whether a failed worker's last words have arrived, before the answer goes out without them.
pub const TAIL_WAITS_MAX: u32 = 40;
/// Pause between two such looks, in milliseconds.
pub const TAIL_WAIT_MS: u64 = 5;
/// At the end: how long the last output may take to go out, in milliseconds.
pub const OUTPUT_FINISH_MS: u64 = 500;

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
/// What is written to a file at a time, in bytes; one line more may be.
pub const LOG_WRITE_BYTES: usize = 256 * 1024;
/// Length of the path of a log file, in bytes (the kernel's PATH_MAX).
pub const LOG_PATH_BYTES_MAX: usize = 4096;
/// Names that are looked at in the folder of a log file.
pub const LOG_FOLDER_ENTRIES_MAX: usize = 100_000;
/// Stack of the threads that write and compress log files, in bytes.
pub const LOG_STACK_BYTES: usize = 512 * 1024;
/// A write that took longer than this, in microseconds, means that the disk is slow: streams that had much to say rest.
pub const LOG_SLOW_WRITE_US: u64 = 20_000;
/// They rest so many times as long as the write took (a factor, without a unit).
pub const LOG_REST_FACTOR: u64 = 4;
/// Longest such rest, in microseconds.
pub const LOG_REST_US_MAX: u64 = 1_000_000;
/// What a stream that has much to say gave in one turn, in bytes.
pub const LOG_MUCH_BYTES: usize = 32 * 1024;
/// How long ago a stream with little to say may have spoken to count as one that must not wait, in microseconds.
pub const LOG_QUIET_US: u64 = 1_000_000;
/// Pause between two tries to open a log file that cannot be opened, in milliseconds.
pub const LOG_REOPEN_MS: u64 = 1_000;
/// Streams that are read in one turn.
pub const LOG_READY_MAX: usize = 64;
/// Longest nap between two turns, in microseconds: so late a line may be in its file.
pub const LOG_NAP_US_MAX: u64 = 10_000;
/// Shortest nap that is worth one, in microseconds.
pub const LOG_NAP_US_MIN: u64 = 60;
/// What the stream that says most gives after a nap, in bytes: a part of what its pipe holds.
pub const LOG_NAP_BYTES: usize = 16 * 1024;
/// Pause between two looks at streams that rest, in milliseconds.
pub const LOG_REST_LOOK_MS: u64 = 2;
/// Orders that wait for the log's thread: two streams of every worker, and what people ask.
pub const LOG_ORDERS_MAX: usize = LOG_STREAMS_MAX + 1024;
/// At the end: how long what was printed last may take to get into the files, in milliseconds.
pub const LOG_FINISH_MS: u64 = 2_000;

// ---- clusterd logs ----

/// Last lines of each file that are shown where nothing else was asked for.
pub const LOGS_LINES_DEFAULT: usize = 15;
/// How much of a log file is read for its last lines, in bytes.
pub const LOGS_READ_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest line that is shown whole, in bytes; a longer one comes in pieces. JSON makes six bytes of one.
pub const LOGS_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Last lines of each file that the control API gives at most.
pub const LOGS_API_LINES_MAX: usize = 10_000;
/// Clients of the control API that follow logs at the same time.
pub const LOGS_API_FOLLOWERS_MAX: usize = 16;
/// Pieces of text that wait for such a client before its files are not read any further.
pub const LOGS_API_PIECES_MAX: usize = 16;
/// Size of such a piece, in bytes; one line more may be.
pub const LOGS_API_PIECE_BYTES: usize = 64 * 1024;
/// Pause between two looks at the files, in milliseconds.
pub const LOGS_LOOK_MS: u64 = 200;
/// Looks at a file that was moved away: its writer may not know yet.
pub const LOGS_FORMER_LOOKS: u32 = 50;
/// Time between two questions which files there are, in milliseconds.
pub const LOGS_ASK_MS: u64 = 2_000;
/// How much of what was read last is remembered, in bytes, to notice that a file was emptied and filled again.
pub const LOGS_REMEMBERED_BYTES: u64 = 256;
