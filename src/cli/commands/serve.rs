//! `clusterd serve`: the files of a folder over HTTP, by workers of our own (`crate::serve`). Apart from that it is a start.
use super::start::Start;
use crate::cli::apply::fail;
use crate::cli::run_args::RunArgs;
use crate::serve;
use clap::Args;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

/// The port where none is named, as in PM2.
const PORT_DEFAULT: &str = "8080";

/// Serve the files of a folder over HTTP, in the background
#[derive(Args, Clone, Debug, PartialEq)]
#[command(alias = "expose")]
pub struct Serve {
    /// The folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: String,
    /// The port, or an address as of --listen [default: 8080]
    #[arg(value_name = "PORT")]
    pub address: Option<String>,
    /// Serve the home page for every path that is not there, as an app of one page needs it
    #[arg(long)]
    pub spa: bool,
    /// Ask for this name
    #[arg(long, value_name = "NAME")]
    pub basic_auth_username: Option<String>,
    /// And for this password [default: $PM2_SERVE_BASIC_AUTH_PASSWORD]
    #[arg(long, value_name = "PASSWORD", requires = "basic_auth_username")]
    pub basic_auth_password: Option<String>,
    /// In the foreground
    #[arg(long, help_heading = "Other")]
    pub no_daemon: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

impl Serve {
    /// Checks combinations of arguments.
    pub(super) fn validate(&self) -> Result<(), &'static str> {
        if !self.run.command.is_empty() || self.run.config().is_some() {
            return Err("serve serves the files of a folder: arguments behind -- and --config go with start");
        }
        if self.basic_auth_username.is_some() && self.password().is_none() {
            return Err(
                "--basic-auth-username needs a password: --basic-auth-password, or PM2_SERVE_BASIC_AUTH_PASSWORD",
            );
        }
        Ok(())
    }

    fn password(&self) -> Option<String> {
        self.basic_auth_password.clone().or_else(|| std::env::var(serve::PASSWORD).ok())
    }

    /// With `--no-daemon`: the arguments of the same run in the foreground.
    ///
    /// # Errors
    /// There is no such folder.
    pub(super) fn in_foreground(&self) -> Option<Result<Vec<OsString>, String>> {
        self.no_daemon.then(|| self.start()?.in_foreground().unwrap_or_else(|| Ok(Vec::new())))
    }

    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match self.start() {
            Ok(start) => start.run(home),
            Err(error) => fail(error),
        }
    }

    /// The same as a start.
    fn start(&self) -> Result<Start, String> {
        let folder = std::path::absolute(&self.folder).map_err(|error| format!("{}: {error}", self.folder))?;
        std::fs::read_dir(&folder).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("cannot serve {}: there is no such folder", self.folder),
            ErrorKind::NotADirectory => format!("cannot serve {}: it is not a folder", self.folder),
            _ => format!("cannot serve {}: {error}", self.folder),
        })?;
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find the path of clusterd itself: {error}"))?;
        let mut run = self.run.clone();
        let mut set = |flag: &str, word: String| {
            if !run.options.has(flag) {
                run.options.set(flag, vec![word]);
            }
        };
        let address = self.address.clone().unwrap_or_else(|| PORT_DEFAULT.to_owned());
        let named = self.run.options.get("port").or(self.run.options.get("listen")).unwrap_or(&address).to_owned();
        if !self.run.options.has("port") {
            set("listen", address);
        }
        set("name", format!("static-page-server-{}", named.rsplit(':').next().unwrap_or_default().replace('/', "-")));
        set("protocol", "listen-fds".to_owned());
        set("ready", "notify".to_owned());
        if !self.run.options.has("instances") {
            set("workers", "1".to_owned());
        }
        let mut env = vec![format!("{}={}", serve::PATH, folder.display())];
        env.extend(self.spa.then(|| format!("{}=true", serve::SPA)));
        if let Some(name) = &self.basic_auth_username {
            env.push(format!("{}={name}", serve::USERNAME));
            env.extend(self.password().map(|password| format!("{}={password}", serve::PASSWORD)));
        }
        env.extend_from_slice(self.run.options.all("env"));
        run.options.set("env", env);
        run.command = vec![program.display().to_string(), serve::SERVE_FLAG.to_owned()];
        Ok(Start { no_daemon: self.no_daemon, run, ..Start::default() })
    }
}
