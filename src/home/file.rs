//! Files of the home: JSON with a format number, written whole or not at all.
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use thiserror::Error;

/// A problem with a file of the home.
#[derive(Debug, Error)]
pub enum FileProblem {
    #[error("does not exist")]
    Missing,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It cannot be written.
    #[error("cannot be written: {0}")]
    Unwritable(#[source] io::Error),
    /// It is not the JSON that clusterd writes.
    #[error("is damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    /// It was written by another version.
    #[error("has format {found}; this clusterd reads {known}")]
    Format { found: u32, known: u32 },
}

/// The failures that a written file survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// A crash of this process.
    Crash,
    /// A power cut, too.
    PowerCut,
}

/// Reads a file of the format `known`; `version` returns the format of the content.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
    known: u32,
    version: impl Fn(&T) -> u32,
) -> Result<T, FileProblem> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut text));
    read.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FileProblem::Missing,
        _ => FileProblem::Unreadable(e),
    })?;
    let value: T = serde_json::from_slice(&text).map_err(FileProblem::Damaged)?;
    match version(&value) {
        found if found == known => Ok(value),
        found => Err(FileProblem::Format { found, known }),
    }
}

/// Writes a new file and renames it over the old one.
pub(super) fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).and_then(
        |mut file| {
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            match durability {
                Durability::PowerCut => file.sync_all(),
                Durability::Crash => Ok(()),
            }
        },
    );
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| drop(fs::remove_file(&beside)))
}
