//! Where the sample apps are, and small apps written on the spot.
use std::path::{Path, PathBuf};

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The plain web app that answers with its pid.
pub(crate) fn hello() -> String {
    project("workers/node/hello.js").display().to_string()
}

/// A worker that misbehaves in this way.
pub(crate) fn misbehave(name: &str) -> String {
    project("workers/misbehave").join(name).display().to_string()
}
