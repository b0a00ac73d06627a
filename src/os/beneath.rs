//! Opens a file below a folder, wherever links in it point: nothing outside of the folder is ever opened.
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// A device or a pipe is opened without waiting for somebody at its other end.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// Opens `path`, relative to `folder`, for reading. Links within the folder are followed; one that leaves it is an error.
/// Where the kernel has no openat2(2), no link is followed.
///
/// # Errors
/// EXDEV or ELOOP: it is outside; those of openat2(2) else.
pub fn open(folder: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let how = OpenHow::new().flags(READ).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(folder, path, how) {
        Ok(file) => Ok(file.into()),
        // An old kernel, or a filter of system calls that does not know it.
        Err(Errno::ENOSYS | Errno::EPERM) => open_step_by_step(folder, path),
        Err(error) => Err(error.into()),
    }
}

/// The same, one name after the other.
fn open_step_by_step(folder: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Errno::EXDEV.into()),
        }
    }
    let last = names.pop().unwrap_or(OsStr::new("."));
    let mut held: Option<OwnedFd> = None;
    for name in names {
        let at = held.as_ref().map_or(folder, AsFd::as_fd);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        held = Some(openat(at, name, flags, Mode::empty())?);
    }
    let at = held.as_ref().map_or(folder, AsFd::as_fd);
    Ok(openat(at, last, READ | OFlag::O_NOFOLLOW, Mode::empty())?.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know openat2")]
    fn nothing_outside_of_the_folder_is_opened() {
        let base = std::env::temp_dir().join(format!("clusterd-beneath-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let folder = base.join("site");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(base.join("secret"), "secret").unwrap();
        fs::write(folder.join("sub/page"), "page").unwrap();
        symlink("../secret", folder.join("up")).unwrap();
        symlink(base.join("secret"), folder.join("absolute")).unwrap();
        symlink(&base, folder.join("out")).unwrap();
        symlink("sub/page", folder.join("within")).unwrap();
        symlink("/proc/self/root", folder.join("magic")).unwrap();
        let root = File::open(&folder).unwrap();
        let inside = format!("/proc/self/fd/../../{}", base.join("secret").display());
        for ways in [open, open_step_by_step] {
            let mut text = String::new();
            ways(root.as_fd(), Path::new("./sub/page")).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "page");
            for path in
                ["up", "absolute", "out/secret", "../secret", "sub/../../secret", "/etc/hostname", "magic/etc", &inside]
            {
                assert!(ways(root.as_fd(), Path::new(path)).is_err(), "{path}");
            }
        }
        assert!(open_step_by_step(root.as_fd(), Path::new("within")).is_err(), "it follows no link");
        fs::remove_dir_all(base).unwrap();
    }
}
