//! The workers of `clusterd serve`: an HTTP server for the files of a folder, with the sockets of `LISTEN_FDS`. `files` says
//! which file a request means, `answer` what is sent. What to serve is in variables, as in PM2, so that a password is in no
//! command line.
mod answer;
mod content_type;
mod files;
mod guard;
mod range;
mod server;

use crate::os::process;
use files::Site;
use guard::Guard;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use thiserror::Error;

/// argv\[1\] of such a worker.
pub use crate::config::defaults::SERVE_FLAG;
/// The folder that is served, relative to the worker's.
pub const PATH: &str = "PM2_SERVE_PATH";
/// `true`: the home page for whatever is not there.
pub const SPA: &str = "PM2_SERVE_SPA";
/// The home page, where it is not `/index.html`.
pub const HOMEPAGE: &str = "PM2_SERVE_HOMEPAGE";
/// Who may look, where not everybody may.
pub const USERNAME: &str = "PM2_SERVE_BASIC_AUTH_USERNAME";
/// The password.
pub const PASSWORD: &str = "PM2_SERVE_BASIC_AUTH_PASSWORD";
/// `true`, as PM2 writes it beside the two.
pub const AUTH: &str = "PM2_SERVE_BASIC_AUTH";

/// Sockets that one worker takes.
const SOCKETS_MAX: usize = 128;

/// Why a worker cannot serve.
#[derive(Debug, Error)]
enum ServeError {
    #[error("{PATH} is {0}, which is not a folder that can be read: {1}")]
    Folder(String, std::io::Error),
    #[error("no socket was passed in LISTEN_FDS: clusterd serve starts these workers")]
    NoSockets,
    #[error("{USERNAME} and {PASSWORD} go together")]
    HalfGuarded,
    #[error("cannot serve: {0}")]
    Server(#[from] std::io::Error),
}

/// Entry point of a worker.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), ServeError> {
    let sockets = sockets();
    if sockets.is_empty() {
        return Err(ServeError::NoSockets);
    }
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let path = text(PATH).unwrap_or_else(|| ".".to_owned());
    let homepage = text(HOMEPAGE).unwrap_or_else(|| "/index.html".to_owned());
    let spa = text(SPA).is_some_and(|spa| spa == "true");
    let site = Site::new(Path::new(&path), &homepage, spa).map_err(|error| ServeError::Folder(path, error))?;
    let guard = match (text(USERNAME), text(PASSWORD)) {
        (Some(name), Some(password)) => Some(Guard::new(&name, &password)),
        (None, None) if text(AUTH).is_none_or(|auth| auth != "true") => None,
        _ => return Err(ServeError::HalfGuarded),
    };
    Ok(server::run(sockets, site, guard)?)
}

/// The sockets that clusterd has passed.
fn sockets() -> Vec<OwnedFd> {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<usize>().ok()).unwrap_or_default();
    (3..).take(count.min(SOCKETS_MAX)).filter_map(|number| process::take_inherited_fd(number).ok()).collect()
}
