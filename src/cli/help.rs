//! The parts of `--help` that clap does not write by itself.

/// First lines of `clusterd --help`.
pub(super) const USAGE: &str = "clusterd [OPTIONS] -- COMMAND [ARG]...   run one app in the foreground
       clusterd [OPTIONS] -c FILE               run what a file says, too
       clusterd VERB ...                        ask one that runs";

/// Last lines of `clusterd --help`.
pub(super) const AFTER: &str = "Examples:
  clusterd -w max -p 8080 -- node app.js   one app on all CPUs, port 8080
  clusterd -c config/cluster.toml          every app of a file
  clusterd start app.js -i max -n web      the same in the background
  clusterd start ecosystem.config.js       what PM2 ran
  clusterd reload web                      new code, no connection lost

Signals:
  SIGTERM, SIGINT    stop gracefully; a second one: at once
  SIGQUIT            stop at once
  SIGHUP             read the file again, replace the workers one at a time
  SIGTTIN, SIGTTOU   one worker more, one less

Exit codes: 0 done, 1 failed, 2 the command line or the file is wrong.";
