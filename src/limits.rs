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
/// Length of an app's name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

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
/// How often the master tells the keeper that its loop turns, in milliseconds.
pub const HEARTBEAT_EVERY_MS: u64 = 1_000;
/// Keeper ticks (one each `HEARTBEAT_EVERY_MS`) without a heartbeat after which the master counts as hung.
pub const WATCHDOG_MISSED_TICKS_MAX: u32 = 5;
/// Time that a new master has to report that it took over, in milliseconds.
pub const MASTER_START_TIMEOUT_MS: u64 = 30_000;
/// First wait before a master that died again at once is started again, in milliseconds. It doubles.
pub const MASTER_BACKOFF_MIN_MS: u64 = 50;
/// Longest wait before a master that keeps dying is started again, in milliseconds.
pub const MASTER_BACKOFF_MAX_MS: u64 = 5_000;
/// A master that lived this long (ms) has no backoff: it is started again at once.
pub const MASTER_MIN_UPTIME_MS: u64 = 1_000;
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
/// How much of a malformed line an error message shows, in bytes.
pub const BAD_LINE_SHOWN_BYTES: usize = 80;
/// Listener keys that the workers of one app may ask for.
pub const LISTENER_KEYS_PER_APP_MAX: usize = 256;
/// Size of the `data` that a worker attaches to a listener (TLS ticket keys and the like), in bytes.
pub const LISTENER_DATA_BYTES_MAX: usize = 32 * 1024;
/// Length of a listener's key or address in a worker's request, in bytes.
pub const LISTENER_KEY_BYTES_MAX: usize = 512;

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

// ---- supervision ----

/// How many past failures a slot remembers.
pub const FAILURES_REMEMBERED_MAX: usize = 256;
/// Last lines of a worker's output that are kept for error messages.
pub const LAST_LINES_MAX: usize = 20;

// ---- control socket ----

/// Size of a request's body, in bytes.
pub const CONTROL_BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests that wait for the master's loop.
pub const CONTROL_QUEUE_MAX: usize = 128;
/// Connections to the control socket at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Time that a client has to send its request's head, in milliseconds.
pub const CONTROL_HEAD_TIMEOUT_MS: u64 = 5_000;
/// Time that the CLI waits for a master to answer a question, in milliseconds.
pub const CONTROL_ANSWER_TIMEOUT_MS: u64 = 5_000;
/// Masters that one home may hold.
pub const MASTERS_PER_HOME_MAX: usize = 1024;

// ---- output ----

/// Longest line of a worker's output that is kept whole, in bytes; a longer one is split.
pub const OUTPUT_LINE_BYTES_MAX: usize = 64 * 1024;
