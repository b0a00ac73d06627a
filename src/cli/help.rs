//! The parts of `--help` that clap does not write by itself.

/// First lines of `clusterd --help`.
pub(super) const USAGE: &str = "clusterd [OPTIONS] -- COMMAND [ARG]...     run one app in the foreground
       clusterd [OPTIONS] -c FILE                 run a deployment in the foreground
       clusterd VERB ...                          ask one that runs";

/// Last lines of `clusterd --help`.
pub(super) const AFTER: &str = "Examples:
  clusterd -w max -p 8080 -- node app.js     one app on all CPUs, port 8080
  clusterd -c config/cluster.toml            what a file says
  clusterd reload web                        new code, no connection lost

Signals: SIGTERM, SIGINT stop gracefully (twice: at once); SIGQUIT stops at once;
SIGHUP reloads; SIGTTIN, SIGTTOU one worker more, less.
Exit codes: 0 done, 1 failed, 2 the command line or the file is wrong.";
