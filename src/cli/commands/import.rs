//! `clusterd import`: a configuration of PM2's as an explained `cluster.toml`, and on stderr what has no counterpart.
use crate::cli::apply::{fail, print};
use crate::cli::exit::load_error_code;
use crate::config::sources::Sources;
use crate::loader;
use clap::Args;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Convert a configuration of PM2's, and say what has no counterpart
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Import {
    /// An ecosystem file (.js, .cjs, .mjs, .json, .yaml), or PM2's dump.pm2
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Where to [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Over a file that is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// What to do with an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    Keep,
    Overwrite,
}

impl Import {
    pub(super) fn run(&self) -> ExitCode {
        let sources = match loader::pm2_file(&self.file) {
            Ok(sources) => sources,
            Err(error) => {
                error.to_string().lines().for_each(|line| log::error!("{line}"));
                return ExitCode::from(load_error_code(error.is_usage()));
            }
        };
        loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
        let text = sources.file.as_ref().map_or("", |file| file.text.as_str());
        let Some(output) = &self.output else {
            return print(text);
        };
        let path = output.display();
        match write(&sources, text, output, if self.force { Existing::Overwrite } else { Existing::Keep }) {
            Ok(()) => {
                log::info!("{path} is written; clusterd check -c {path} says what would run");
                ExitCode::SUCCESS
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                fail(format_args!("{path} exists; --force overwrites it"))
            }
            Err(e) => fail(format_args!("cannot write {path}: {e}")),
        }
    }
}

/// Keep the permissions of the old file: variables are often secrets.
fn write(sources: &Sources, text: &str, output: &Path, existing: Existing) -> io::Result<()> {
    let from = sources.file.as_ref().map_or("", |file| file.path.as_str());
    let mode = std::fs::metadata(from)?.permissions().mode() & 0o666;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(existing == Existing::Keep).mode(mode);
    let mut file = options.open(output)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}
