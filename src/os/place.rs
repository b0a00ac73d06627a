//! Files of apps, each handled with the rights that are right for it: a folder that is opened once, and names in it.
//! Where an app runs as another user, that user's rights apply, but for files in folders that nobody but root (and our own
//! user) can change: the person who named those meant them. No path is resolved twice.
use super::identity;
use super::user::Credentials;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

/// Links that are followed on the way to a file, as in the kernel.
const PLACE_LINKS_MAX: usize = 40;
/// Mode of new files: the owner writes, the group may read.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);
/// Mode of folders that are created on the way to a file.
const FOLDER_MODE: Mode = Mode::from_bits_truncate(0o750);
const STICKY: u32 = 0o1000;
const BY_GROUP: u32 = 0o020;
const BY_OTHERS: u32 = 0o002;
/// The attribute of an access control list.
const ACL: &std::ffi::CStr = c"system.posix_acl_access";

/// What is missing on the way to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Folders are created.
    Create,
    /// It is an error.
    Fail,
}

/// Handles the file at `path` of an app that runs as `who` (`None`: as our own user). `act` gets its place, with the rights
/// of that user on another thread (and a time limit of `wait_ms`), or with our own on this one.
///
/// # Errors
/// Those of the system on the way to the file, of [`identity::as_user`] and of `act`.
pub fn within<T: Send + 'static>(
    who: Option<&Credentials>,
    path: &Path,
    missing: Missing,
    wait_ms: Option<u64>,
    act: impl FnOnce(&Place) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(who) = who else { return act(&Place::plain(path, missing)?) };
    if let Some(place) = Place::find(path, missing, Some(who))? {
        return act(&place);
    }
    let path = path.to_owned();
    identity::as_user(who, wait_ms, move || match Place::find(&path, missing, None)? {
        Some(place) => act(&place),
        None => Err(Errno::EACCES.into()),
    })
}

/// Opens the regular file with this device and inode for appending, if it is at this path. Nothing else is opened.
#[must_use]
pub fn append_if(path: &Path, identity: (u64, u64)) -> Option<File> {
    let found = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let about = fstat(&found).ok()?;
    let is_regular = about.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    if !is_regular || (about.st_dev as u64, about.st_ino as u64) != identity {
        return None;
    }
    File::options().append(true).open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
}

/// A folder, and the name of a file in it.
#[derive(Debug)]
pub struct Place {
    folder: OwnedFd,
    name: OsString,
    /// Links under the name are followed.
    follow: bool,
}

/// The next step on the way.
enum Step {
    Into(OwnedFd),
    /// A link, and where it leads.
    Link(OsString),
    /// The file is here, or would be.
    Here {
        follow: bool,
    },
    /// Somebody whom we do not trust could change the way.
    Untrusted,
}

impl Place {
    /// Follows every link, as the kernel does.
    fn plain(path: &Path, missing: Missing) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = match open(above, flags, Mode::empty()) {
            Err(Errno::ENOENT) if missing == Missing::Create => {
                use std::os::unix::fs::DirBuilderExt;
                std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE.bits()).create(above)?;
                open(above, flags, Mode::empty())?
            }
            folder => folder?,
        };
        Ok(Place { folder, name, follow: true })
    }

    /// Walks to the file folder by folder and resolves the links itself. With `unless`, nobody but root and our own user
    /// may be able to change anything on the way, this user least of all; `None` if that is not so. Without it, nothing
    /// below /proc is reached: its links lead to the files of the process that asks.
    fn find(path: &Path, missing: Missing, unless: Option<&Credentials>) -> io::Result<Option<Place>> {
        let mut folder = root()?;
        let mut left: VecDeque<OsString> = VecDeque::new();
        put_before(&mut left, path);
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let step = step(&folder, &name, left.is_empty(), missing, unless)?;
            match step {
                Step::Into(next) => folder = next,
                Step::Here { follow } => {
                    if unless.is_some() && is_open_to_all(&fstat(&folder)?) {
                        return Ok(None);
                    }
                    return Ok(Some(Place { folder, name, follow }));
                }
                Step::Untrusted => return Ok(None),
                Step::Link(target) => {
                    links += 1;
                    if links > PLACE_LINKS_MAX {
                        return Err(Errno::ELOOP.into());
                    }
                    let target = Path::new(&target);
                    if target.is_absolute() {
                        folder = root()?;
                    }
                    put_before(&mut left, target);
                }
            }
        }
        Err(io::ErrorKind::IsADirectory.into())
    }

    /// The name of the file.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Opens the file for appending, creates it where missing. Writes to anything but a regular file (a pipe, a terminal)
    /// never block.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn append(&self) -> io::Result<File> {
        self.open(&self.name, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    /// Opens a file of the folder for reading; it never waits for the other end of a pipe.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        self.open(name, OFlag::O_RDONLY)
    }

    /// As [`Place::read`], of a regular file.
    ///
    /// # Errors
    /// Those of openat(2); it is something else.
    pub fn read_regular(&self, name: &OsStr) -> io::Result<File> {
        let file = self.read(name)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::EINVAL.into()) }
    }

    /// Empties the file, if there is a regular one.
    ///
    /// # Errors
    /// Those of openat(2) and ftruncate(2).
    pub fn empty(&self) -> io::Result<()> {
        match self.open(&self.name, OFlag::O_WRONLY) {
            Ok(file) if file.metadata()?.is_file() => file.set_len(0),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Creates a file of the folder for writing.
    ///
    /// # Errors
    /// Those of openat(2); there is one of that name.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        self.open(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    fn open(&self, name: &OsStr, flags: OFlag) -> io::Result<File> {
        let links = if self.follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = flags | links | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(openat(&self.folder, name, flags, FILE_MODE)?.into())
    }

    /// Device and inode of the file.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let links = if self.follow { AtFlags::empty() } else { AtFlags::AT_SYMLINK_NOFOLLOW };
        let found = fstatat(&self.folder, self.name.as_os_str(), links)?;
        Ok((found.st_dev as u64, found.st_ino as u64))
    }

    /// Whether the file is a regular one that belongs to root or to our own user.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn is_of_ours(&self) -> io::Result<bool> {
        let found = fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() && is_ours(&found))
    }

    /// Whether the folder has an entry of this name.
    #[must_use]
    pub fn has(&self, name: &OsStr) -> bool {
        fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Renames an entry of the folder.
    ///
    /// # Errors
    /// Those of renameat(2).
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.folder, from, &self.folder, to)?)
    }

    /// Removes an entry of the folder.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The names in the folder, at most `max`.
    ///
    /// # Errors
    /// Those of openat(2) and getdents(2).
    pub fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut folder = Dir::openat(&self.folder, ".", flags, Mode::empty())?;
        let names = folder.iter().take(max).map(|entry| {
            let name = entry?.file_name().to_bytes().to_vec();
            Ok(OsString::from_vec(name))
        });
        names.collect()
    }
}

fn root() -> io::Result<OwnedFd> {
    Ok(open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The parts of `path` come before what is left.
fn put_before(left: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn step(
    folder: &OwnedFd,
    name: &OsStr,
    last: bool,
    missing: Missing,
    unless: Option<&Credentials>,
) -> io::Result<Step> {
    let proc = fstatfs(folder)?.filesystem_type() == PROC_SUPER_MAGIC;
    if proc && unless.is_none() {
        return Err(Errno::EACCES.into());
    }
    if proc && last {
        return Ok(Step::Here { follow: true });
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) if last => return Ok(Step::Here { follow: false }),
        Err(Errno::ENOENT) if missing == Missing::Create => {
            if let Some(who) = unless
                && (is_open_to_all(&fstat(folder)?) || !is_safe(folder, &fstat(folder)?, who)?)
            {
                return Ok(Step::Untrusted);
            }
            match mkdirat(folder, name, FOLDER_MODE) {
                Ok(()) | Err(Errno::EEXIST) => openat(folder, name, flags, Mode::empty())?,
                Err(e) => return Err(e.into()),
            }
        }
        found => found?,
    };
    let about = fstat(&found)?;
    let kind = SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits());
    let trusted = match unless {
        None => true,
        Some(_) if kind == SFlag::S_IFLNK => is_ours(&about),
        Some(who) => kind != SFlag::S_IFDIR || is_safe(&found, &about, who)?,
    };
    match kind {
        _ if !trusted => Ok(Step::Untrusted),
        SFlag::S_IFLNK => Ok(Step::Link(readlinkat(&found, "")?)),
        SFlag::S_IFDIR if last && name != ".." => Err(io::ErrorKind::IsADirectory.into()),
        SFlag::S_IFDIR => Ok(Step::Into(found)),
        _ if last => Ok(Step::Here { follow: false }),
        _ => Err(Errno::ENOTDIR.into()),
    }
}

fn is_ours(about: &FileStat) -> bool {
    about.st_uid == 0 || about.st_uid == geteuid().as_raw()
}

/// A folder like /tmp: everybody may create files, and nobody may touch those of others.
fn is_open_to_all(folder: &FileStat) -> bool {
    folder.st_mode & BY_OTHERS != 0
}

/// Whether this user cannot replace anything in the folder that belongs to somebody else.
fn is_safe(folder: &OwnedFd, about: &FileStat, who: &Credentials) -> io::Result<bool> {
    if !is_ours(about) {
        return Ok(false);
    }
    if about.st_mode & STICKY != 0 {
        return Ok(true);
    }
    let in_group = about.st_gid == who.gid || who.groups.contains(&about.st_gid);
    let by_group = about.st_mode & BY_GROUP != 0;
    Ok(about.st_mode & BY_OTHERS == 0 && !(by_group && (in_group || has_acl(folder)?)))
}

/// Whether a folder has an access control list. (Then the bits of the group stand for all of the list.)
fn has_acl(folder: &OwnedFd) -> io::Result<bool> {
    let readable = openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: the name is a C string; with a size of 0 nothing is written.
    let size = unsafe { libc::fgetxattr(readable.as_fd().as_raw_fd(), ACL.as_ptr(), std::ptr::null_mut(), 0) };
    Ok(size > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::user;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    const SOMEBODY: u32 = 54_321;

    fn somebody() -> Credentials {
        Credentials { uid: SOMEBODY, gid: SOMEBODY, groups: vec![SOMEBODY] }
    }

    fn folder(name: &str, owner: u32) -> PathBuf {
        let path = std::env::temp_dir().join(format!("clusterd-place-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        if owner != user::own_uid() {
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
        path
    }

    fn append(path: &Path) -> io::Result<(u64, u64)> {
        within(Some(&somebody()), path, Missing::Create, Some(5_000), |place| {
            place.append()?.write_all(b"line\n")?;
            place.identity()
        })
    }

    fn is_root() -> bool {
        let root = user::own_uid() == 0;
        if !root {
            eprintln!("skipped: only root can act as somebody else");
        }
        root
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know openat and users")]
    fn whose_rights_are_used_is_a_matter_of_who_can_change_the_folder() {
        if !is_root() {
            return;
        }
        let (own, theirs) = (folder("own", 0), folder("theirs", SOMEBODY));
        for (path, owner) in [
            (own.join("out.log"), 0),
            (own.join("new/folders/out.log"), 0),
            (theirs.join("out.log"), SOMEBODY),
            (theirs.join("new/folders/out.log"), SOMEBODY),
        ] {
            append(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().uid(), owner, "{path:?}");
        }
        // Their group may write here: so may they.
        let group = own.join("group");
        fs::create_dir(&group).unwrap();
        chown(&group, None, Some(SOMEBODY)).unwrap();
        fs::set_permissions(&group, fs::Permissions::from_mode(0o775)).unwrap();
        append(&group.join("out.log")).unwrap();
        assert_eq!(fs::metadata(group.join("out.log")).unwrap().uid(), SOMEBODY);
        // As /tmp.
        fs::set_permissions(&own, fs::Permissions::from_mode(0o1777)).unwrap();
        append(&own.join("shared.log")).unwrap();
        assert_eq!(fs::metadata(own.join("shared.log")).unwrap().uid(), SOMEBODY);
        fs::remove_dir_all(own).unwrap();
        fs::remove_dir_all(theirs).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know openat and users")]
    fn links_of_the_user_lead_nowhere_that_the_user_may_not_go() {
        if !is_root() {
            return;
        }
        let (own, theirs) = (folder("precious", 0), folder("linking", SOMEBODY));
        let precious = own.join("keys");
        fs::write(&precious, "").unwrap();
        let fd = File::open(&precious).unwrap();
        let of_ours = format!("/proc/self/fd/{}", fd.as_raw_fd());
        for (name, target) in [
            ("file", precious.to_str().unwrap()),
            ("new", own.join("new").to_str().unwrap()),
            ("proc", &of_ours),
            ("root", "/proc/self/root/etc/clusterd-test"),
            ("loop", "loop"),
        ] {
            let link = theirs.join(name);
            symlink(target, &link).unwrap();
            append(&link).unwrap_err();
        }
        symlink(&own, theirs.join("folder")).unwrap();
        assert_eq!(append(&theirs.join("folder/keys")).unwrap_err().raw_os_error(), Some(libc::EACCES));
        assert_eq!(fs::read(&precious).unwrap(), b"");
        // Their own files may be reached by links of theirs, and root's links by root's.
        symlink("real", theirs.join("fine")).unwrap();
        append(&theirs.join("fine")).unwrap();
        assert_eq!(fs::metadata(theirs.join("real")).unwrap().uid(), SOMEBODY);
        symlink("/dev/null", own.join("null")).unwrap();
        append(&own.join("null")).unwrap();
        symlink("/proc/self/fd/2", own.join("stderr")).unwrap();
        within(Some(&somebody()), &own.join("stderr"), Missing::Fail, Some(5_000), |place| place.identity()).unwrap();
        fs::remove_dir_all(own).unwrap();
        fs::remove_dir_all(theirs).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know openat and users")]
    fn a_pipe_in_the_place_of_a_file_blocks_nobody() {
        let path = folder("pipe", user::own_uid());
        nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRWXU).unwrap();
        let refused = within(None, &path.join("fifo"), Missing::Create, None, Place::append).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENXIO));
        within(None, &path.join("fifo"), Missing::Fail, None, |place| place.read(place.name())).unwrap();
        within(None, &path.join("fifo"), Missing::Fail, None, Place::empty).unwrap_err();
        fs::remove_dir_all(path).unwrap();
    }
}
