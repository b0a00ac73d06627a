//! The file of the preload, which workers load before their app: in the home where they are of our own user, else in a
//! folder that everybody can read. It is written again when it is missing at a spawn.
use crate::home::Home;
use crate::os::{notify, user};
use crate::worker::node::preload::SCRIPT;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Folder for workers of other users, who cannot read our home.
const SHARED_FOLDER: &str = "/run/clusterd";

/// The path of the script for workers of this user.
///
/// # Errors
/// No folder can be used, for the last reason.
pub(super) fn path_for(uid: u32, home: Option<&Home>) -> io::Result<String> {
    let own = home.filter(|_| uid == user::own_uid()).map(Home::run_dir);
    let temporary = std::env::temp_dir().join(format!("clusterd-{}", user::own_uid()));
    let shared = [PathBuf::from(SHARED_FOLDER), temporary];
    let mut tried = Err(io::ErrorKind::NotFound.into());
    for folder in own.iter().chain(&shared) {
        let prepared = if Some(folder) == own.as_ref() { Ok(()) } else { notify::prepare_folder(folder) };
        tried = prepared.and_then(|()| write_to(folder));
        if tried.is_ok() {
            break;
        }
    }
    tried
}

/// Writes the script to a folder, unless it is there.
fn write_to(folder: &Path) -> io::Result<String> {
    // Masters of several versions may share the folder.
    let path = folder.join(format!("preload-{:016x}.cjs", fingerprint(SCRIPT)));
    if !is_whole(&path) {
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&draft, SCRIPT)?;
        fs::set_permissions(&draft, Permissions::from_mode(0o644))?;
        fs::rename(&draft, &path)?;
    }
    let path = fs::canonicalize(path)?;
    path.into_os_string().into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Whether the file is the script, and nobody but us and root can change it.
fn is_whole(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let is_ours = found.is_file() && found.uid() == user::own_uid() && found.mode() & 0o022 == 0;
    is_ours && fs::read(path).is_ok_and(|bytes| bytes == SCRIPT.as_bytes())
}

/// FNV-1a.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_the_script_is_replaced() {
        let folder = std::env::temp_dir().join(format!("clusterd-preload-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = write_to(&folder).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), SCRIPT);
        fs::write(&path, "throw 1").unwrap();
        assert_eq!(write_to(&folder).unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), SCRIPT);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        write_to(&folder).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
