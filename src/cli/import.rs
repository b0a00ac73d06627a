//! `clusterd import`: a configuration of PM2's as an explained `cluster.toml`, and on stderr what has no counterpart.
use super::act::fail;
use super::args::load_error_code;
use crate::config::sources::Sources;
use crate::loader;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

/// The verb. `output`: where to, instead of stdout; `force`: over a file that is there.
pub(super) fn import(file: &str, output: Option<&Path>, force: bool) -> ExitCode {
    let sources = match loader::pm2_file(file) {
        Ok(sources) => sources,
        Err(error) => {
            error.to_string().lines().for_each(|line| log::error!("{line}"));
            return ExitCode::from(load_error_code(error.is_usage()));
        }
    };
    loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
    let text = sources.file.as_ref().map_or("", |file| file.text.as_str());
    let Some(output) = output else {
        // A reader that has left (`clusterd import x | head`) is no failure.
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    };
    match write(&sources, text, output, force) {
        Ok(()) => {
            let path = output.display();
            log::info!("{path} is written; clusterd check -c {path} says what would run");
            ExitCode::SUCCESS
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fail(&format!("{} is there already; --force writes over it", output.display()))
        }
        Err(e) => fail(&format!("cannot write {}: {e}", output.display())),
    }
}

/// The new file may be read by whoever may read the old one: variables are often secrets.
fn write(sources: &Sources, text: &str, output: &Path, force: bool) -> io::Result<()> {
    let from = sources.file.as_ref().map_or("", |file| file.path.as_str());
    let mode = std::fs::metadata(from)?.permissions().mode() & 0o666;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(!force).mode(mode);
    let mut file = options.open(output)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}
