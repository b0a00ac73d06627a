//! PM2 keys without a counterpart, with what to do instead; and keys that can be dropped without effect.

/// Keys beside `apps`.
pub(super) const OF_THE_FILE: &[(&str, &str)] =
    &[("deploy", "clusterd does not copy code to machines; end your own deployment with: clusterd reload NAME")];

/// Keys of an app that are not converted.
pub(super) const LOST: &[(&str, &str)] = &[
    ("append_env_to_name", "names stay as they are; --name sets another"),
    ("deep_monitoring", "there is no agent; clusterd ls --json and the control API tell about workers"),
    ("event_loop_inspector", "there is no agent; clusterd ls shows the delay of every worker's event loop"),
    ("io", "there is no agent"),
    ("name_prefix", "names stay as they are; name says the whole"),
    ("pid_file", "clusterd writes no pid files; clusterd ls --json has the pids"),
    ("post_update", "there is no dashboard that updates code; hooks are in [app.hooks]"),
    ("trace", "there is no agent"),
    ("v8", "there is no agent"),
    ("watch_options", "the watcher has watch, watch_ignore and watch_delay"),
];

/// Keys without meaning here, or for what clusterd does anyway.
pub(super) const HARMLESS: &[&str] = &[
    "automation",
    "disable_source_map_support",
    "disable_trace",
    "execute_command",
    "force",
    "install_url",
    "kill_retry_time",
    "pmx",
    "shutdown_with_message",
    "treekill",
    "username",
    "version",
    "vizion",
    "windowsHide",
    "write",
];
