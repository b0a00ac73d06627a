//! Entries of users and groups. Usually the C library looks them up (NSS). A static binary cannot: its NSS would load modules
//! that were built for another C library, and crash. There, /etc/passwd and /etc/group are read here.
//! Not here: what clusterd does with a user (`user.rs`).
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Whether this binary is static, so that NSS cannot be used.
const STATIC: bool = cfg!(target_feature = "crt-static");
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// A file may not be larger: it is read whole, for each look-up.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A user's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserEntry {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) home: PathBuf,
    /// Empty where none is named.
    pub(super) shell: PathBuf,
}

/// A group's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GroupEntry {
    name: String,
    gid: Gid,
    members: Vec<String>,
}

impl From<User> for UserEntry {
    fn from(user: User) -> UserEntry {
        UserEntry { name: user.name, uid: user.uid, gid: user.gid, home: user.dir, shell: user.shell }
    }
}

/// The user of this name.
///
/// # Errors
/// The database cannot be read.
pub(super) fn user_by_name(name: &str) -> Result<Option<UserEntry>, Errno> {
    if STATIC {
        return Ok(users(&read(PASSWD)?).find(|user| user.name == name));
    }
    Ok(User::from_name(name)?.map(UserEntry::from))
}

/// The user of this number.
///
/// # Errors
/// The database cannot be read.
pub(super) fn user_by_uid(uid: Uid) -> Result<Option<UserEntry>, Errno> {
    if STATIC {
        return Ok(users(&read(PASSWD)?).find(|user| user.uid == uid));
    }
    Ok(User::from_uid(uid)?.map(UserEntry::from))
}

/// The number of the group of this name.
///
/// # Errors
/// The database cannot be read.
pub(super) fn gid_by_name(name: &str) -> Result<Option<Gid>, Errno> {
    if STATIC {
        return Ok(groups(&read(GROUP)?).find(|group| group.name == name).map(|group| group.gid));
    }
    Ok(Group::from_name(name)?.map(|group| group.gid))
}

/// Every group of a user: `gid`, and those that name it as a member.
///
/// # Errors
/// The database cannot be read; `EINVAL` for a name with a zero byte.
pub(super) fn groups_of(name: &str, gid: Gid) -> Result<Vec<Gid>, Errno> {
    if STATIC {
        return Ok(memberships(&read(GROUP)?, name, gid));
    }
    let text = CString::new(name).map_err(|_| Errno::EINVAL)?;
    getgrouplist(&text, gid)
}

/// A file's content; empty where there is no file.
fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(errno(error)),
    };
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(errno)?;
    if content.len() as u64 > FILE_BYTES_MAX { Err(Errno::EFBIG) } else { Ok(content) }
}

/// The lines that are entries, each in its fields. Comments and the lines of NIS (`+`, `-`) are none, nor is what has
/// too few fields.
fn entries<const N: usize>(content: &[u8]) -> impl Iterator<Item = [&[u8]; N]> {
    content.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.trim_ascii_start();
        if matches!(line.first(), None | Some(b'#' | b'+' | b'-')) {
            return None;
        }
        let mut fields = line.splitn(N, |byte| *byte == b':');
        let mut entry = [&line[..0]; N];
        for field in &mut entry {
            *field = fields.next()?;
        }
        Some(entry)
    })
}

fn text(field: &[u8]) -> Option<String> {
    std::str::from_utf8(field).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(field))
}

/// Users of passwd(5): name, password, uid, gid, comment, home, shell.
fn users(content: &[u8]) -> impl Iterator<Item = UserEntry> {
    entries(content).filter_map(|[name, _, uid, gid, _, home, shell]| {
        Some(UserEntry {
            name: text(name)?,
            uid: Uid::from_raw(number(uid)?),
            gid: Gid::from_raw(number(gid)?),
            home: path(home),
            shell: path(shell.trim_ascii_end()),
        })
    })
}

/// Groups of group(5): name, password, gid, members.
fn groups(content: &[u8]) -> impl Iterator<Item = GroupEntry> {
    entries(content).filter_map(|[name, _, gid, members]| {
        let members = members.split(|byte| *byte == b',').filter_map(|member| text(member.trim_ascii())).collect();
        Some(GroupEntry { name: text(name)?, gid: Gid::from_raw(number(gid)?), members })
    })
}

fn memberships(content: &[u8], name: &str, gid: Gid) -> Vec<Gid> {
    let mut found = vec![gid];
    for group in groups(content) {
        if group.members.iter().any(|member| member == name) && !found.contains(&group.gid) {
            found.push(group.gid);
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const USERS: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n# web:x:9:9::/:\n\n+@admins::::::\nshort:x:1:1\n  \
        web:x:1001:1002:W\xffb,,,:/srv/w\xffb:\nbad:x:-1:0::/:/bin/sh\nlast:x:7:8:a comment:/home/last:/bin/sh";

    #[test]
    fn users_are_read_as_getpwnam_reads_them() {
        let names: Vec<String> = users(USERS).map(|user| user.name).collect();
        assert_eq!(names, ["root", "web", "last"]);
        let web = users(USERS).find(|user| user.name == "web").unwrap();
        assert_eq!((web.uid.as_raw(), web.gid.as_raw()), (1001, 1002));
        assert_eq!(web.home.as_os_str().as_bytes(), b"/srv/w\xffb");
        assert_eq!(web.shell.as_os_str(), "");
        let last = users(USERS).last().unwrap();
        assert_eq!((last.home.to_str(), last.shell.to_str()), (Some("/home/last"), Some("/bin/sh")));
    }

    #[test]
    fn a_user_is_in_its_own_group_and_in_those_that_name_it() {
        let content = b"root:x:0:\nadm:x:4:syslog,web\nwebs:x:1002:web\nnear:x:50:webmaster,aweb\nwww:x:33: web ,x\n-old:x:60:web\n";
        let raw =
            |name| memberships(content, name, Gid::from_raw(1002)).into_iter().map(Gid::as_raw).collect::<Vec<_>>();
        assert_eq!(raw("web"), [1002, 4, 33]);
        assert_eq!(raw("nobody"), [1002]);
        assert_eq!(groups(content).find(|group| group.name == "www").map(|group| group.gid.as_raw()), Some(33));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know users and groups")]
    fn the_files_of_this_machine_say_what_the_c_library_says() {
        let (Ok(Some(by_library)), content) = (User::from_name("root"), read(PASSWD).unwrap()) else {
            eprintln!("skipped: the C library knows no root");
            return;
        };
        assert_eq!(users(&content).find(|user| user.name == "root"), Some(by_library.into()));
        assert_eq!(read("/etc/no-such-file-of-clusterd").unwrap(), b"");
        assert!(read("/etc").is_err());
    }
}
