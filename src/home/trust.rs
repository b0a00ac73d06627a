//! Whether a home can be trusted: who may change what is in it has clusterd run what they like.
use crate::os::user;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Writable by the group, or by everybody.
const BY_OTHERS: u32 = 0o022;
/// In a folder with this bit only its owner renames or removes a file.
const STICKY: u32 = 0o1000;

/// What is wrong with a folder, or with what leads to it, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

/// Looks at everything that leads to `home`, as root: nobody else may own or change it. What does not exist yet cannot be wrong.
/// For other users the system's own rights are enough.
pub(super) fn check(home: &Path) -> Result<(), Doubt> {
    if user::own_uid() != 0 {
        return Ok(());
    }
    let Ok(typed) = std::path::absolute(home) else { return Ok(()) };
    check_way(&typed)?;
    // Where links lead to.
    match fs::canonicalize(&typed) {
        Ok(real) if real != typed => check_way(&real),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_way(home: &Path) -> Result<(), Doubt> {
    let leaves = ["run", "logs", "saved.json"].map(|leaf| home.join(leaf));
    let above: Vec<&Path> = home.ancestors().collect();
    for path in above.into_iter().rev().chain(leaves.iter().map(PathBuf::as_path)) {
        let Ok(found) = fs::symlink_metadata(path) else { continue };
        let doubt = |why: String| Err(Doubt { path: path.to_owned(), why });
        if found.uid() != 0 {
            return doubt(format!("belongs to user {}, and clusterd runs as root", found.uid()));
        }
        if path.starts_with(home) && path != home && found.is_symlink() {
            return doubt("is a link".to_owned());
        }
        // Whoever may write to a folder puts another one into the place of what is in it.
        let sticky = found.mode() & STICKY != 0 && !path.starts_with(home);
        // Of that folder every user's clusterd says so.
        let is_run = path == leaves[0];
        if !found.is_symlink() && found.mode() & BY_OTHERS != 0 && !sticky && !is_run {
            return doubt("may be written by other users".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn root_trusts_what_only_root_can_change() {
        if user::own_uid() != 0 {
            eprintln!("skipped: only root is that careful");
            return;
        }
        let top = std::env::temp_dir().join(format!("clusterd-trust-{}", std::process::id()));
        let home = top.join("home");
        fs::create_dir_all(home.join("run")).unwrap();
        let why = || check(&home).map_err(|doubt| doubt.why);
        assert_eq!(why(), Ok(()));
        for path in [top.clone(), home.clone(), home.join("run")] {
            chown(&path, Some(54_321), None).unwrap();
            assert!(why().unwrap_err().contains("54321"), "{}", path.display());
            chown(&path, Some(0), None).unwrap();
            if path.ends_with("run") {
                continue;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            assert!(why().unwrap_err().contains("written by other"), "{}", path.display());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        symlink("/etc", home.join("logs")).unwrap();
        assert_eq!(why(), Err("is a link".to_owned()));
        fs::remove_file(home.join("logs")).unwrap();
        symlink(&home, top.join("link")).unwrap();
        assert_eq!(check(&top.join("link")), Ok(()));
        chown(&home, Some(54_321), None).unwrap();
        assert!(check(&top.join("link")).is_err());
        fs::remove_dir_all(top).unwrap();
    }
}
