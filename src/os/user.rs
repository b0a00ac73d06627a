//! Resolves names of users and groups, and checks whether this process may become them. The keeper changes the
//! identity.
use super::accounts::{self, UserEntry};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getegid, geteuid};
use std::fmt;
use std::path::PathBuf;

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
/// Capability to bind ports below the machine's first unprivileged one.
const CAP_NET_BIND_SERVICE: u32 = 10;

/// Numeric identity of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, complete.
    pub groups: Vec<u32>,
}

/// Why workers cannot run as this user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserError {
    /// There is no such user.
    NoUser(String),
    /// There is no such group.
    NoGroup(String),
    /// A number without an entry, and no group was given.
    GroupUnknown(String),
    /// This process is another user, and not root.
    NotRoot {
        /// The requested user or group.
        wanted: String,
        /// The user of this process.
        own: String,
    },
    /// The user database cannot be read.
    Lookup {
        /// The name that was looked up.
        name: String,
        errno: i32,
    },
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::NoUser(name) => write!(f, "there is no user \"{name}\" on this machine"),
            UserError::NoGroup(name) => write!(f, "there is no group \"{name}\" on this machine"),
            UserError::GroupUnknown(name) => {
                write!(f, "user {name} has no entry on this machine, so that its group is not known: set group too")
            }
            UserError::NotRoot { wanted, own } => {
                write!(f, "to run workers as {wanted}, clusterd must be started by root (it runs as {own})")
            }
            UserError::Lookup { name, errno } => {
                write!(f, "cannot look up \"{name}\": {}", std::io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for UserError {}

/// The credentials for workers. `Ok(None)`: those of this process.
///
/// # Errors
/// There is no such user or group, or this process may not become them.
pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, UserError> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let found_user = user.map(find_user).transpose()?;
    let found_group = group.map(find_group).transpose()?;
    let (own_uid, own_gid) = (geteuid(), getegid());
    let uid = found_user.as_ref().map_or(own_uid, |user| user.uid);
    let gid = match (found_group, &found_user) {
        (Some(gid), _) => gid,
        (None, Some(FoundUser { gid: Some(gid), .. })) => *gid,
        (None, Some(FoundUser { uid, .. })) => return Err(UserError::GroupUnknown(uid.to_string())),
        (None, None) => own_gid,
    };
    if uid == own_uid && gid == own_gid && !own_uid.is_root() {
        return Ok(None);
    }
    if (uid != own_uid && !capable(CAP_SETUID)) || !capable(CAP_SETGID) {
        let what = |kind: &str, name: Option<&str>| name.map(|name| format!("{kind} {name}"));
        let wanted = [what("user", user), what("group", group)].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let own = accounts::user_by_uid(own_uid).ok().flatten().map_or_else(|| own_uid.to_string(), |user| user.name);
        return Err(UserError::NotRoot { wanted, own });
    }
    let groups = match found_user.and_then(|user| user.name) {
        Some(name) => supplementary(&name, gid)?,
        None => vec![gid.as_raw()],
    };
    Ok(Some(Credentials { uid: uid.as_raw(), gid: gid.as_raw(), groups }))
}

/// The number of a user, by name or number.
///
/// # Errors
/// There is none, or the database cannot be read.
pub fn uid_of(text: &str) -> Result<u32, UserError> {
    find_user(text).map(|found| found.uid.as_raw())
}

/// The number of a group, by name or number.
///
/// # Errors
/// There is none, or the database cannot be read.
pub fn gid_of(text: &str) -> Result<u32, UserError> {
    find_group(text).map(Gid::as_raw)
}

struct FoundUser {
    uid: Uid,
    /// Known if there is an entry.
    gid: Option<Gid>,
    name: Option<String>,
}

impl From<UserEntry> for FoundUser {
    fn from(user: UserEntry) -> FoundUser {
        FoundUser { uid: user.uid, gid: Some(user.gid), name: Some(user.name) }
    }
}

fn lookup(name: &str) -> impl Fn(Errno) -> UserError {
    move |errno| UserError::Lookup { name: name.to_owned(), errno: errno as i32 }
}

/// By name first, as the system's own tools do; a number may have no entry.
fn find_user(text: &str) -> Result<FoundUser, UserError> {
    if let Some(user) = accounts::user_by_name(text).map_err(lookup(text))? {
        return Ok(user.into());
    }
    let uid = number(text).map(Uid::from_raw).ok_or_else(|| UserError::NoUser(text.to_owned()))?;
    let user = accounts::user_by_uid(uid).map_err(lookup(text))?;
    Ok(user.map_or(FoundUser { uid, gid: None, name: None }, FoundUser::from))
}

fn find_group(text: &str) -> Result<Gid, UserError> {
    if let Some(gid) = accounts::gid_by_name(text).map_err(lookup(text))? {
        return Ok(gid);
    }
    number(text).map(Gid::from_raw).ok_or_else(|| UserError::NoGroup(text.to_owned()))
}

/// Decimal digits only; the highest number means "none" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

fn supplementary(name: &str, gid: Gid) -> Result<Vec<u32>, UserError> {
    let groups = accounts::groups_of(name, gid).map_err(lookup(name))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// What a user's entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name; `None` without an entry.
    pub name: Option<String>,
    /// The home; `/` without an entry.
    pub home: PathBuf,
    /// The shell, where one is named.
    pub shell: Option<PathBuf>,
}

/// The account of a user, by number.
#[must_use]
pub fn account(uid: u32) -> Account {
    match accounts::user_by_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => {
            let shell = Some(user.shell).filter(|shell| !shell.as_os_str().is_empty());
            Account { name: Some(user.name), home: user.home, shell }
        }
        Ok(None) | Err(_) => Account { name: None, home: PathBuf::from("/"), shell: None },
    }
}

/// The home folder of a user, by name.
pub fn home_of(name: &str) -> Option<PathBuf> {
    accounts::user_by_name(name).ok().flatten().map(|user| user.home)
}

/// Whether this process may bind `port` (unix sockets and port 0 aside), by the first unprivileged port or the
/// capability.
pub fn may_bind_port(port: u16) -> bool {
    port == 0 || u32::from(port) >= first_unprivileged_port() || capable(CAP_NET_BIND_SERVICE)
}

/// The first port that everybody may bind.
pub fn first_unprivileged_port() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// Whether this process has this capability in effect; if /proc cannot be read, root has all.
fn capable(capability: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).map_or_else(|| geteuid().is_root(), |set| set & (1 << capability) != 0)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The effective user of this process.
pub fn own_uid() -> u32 {
    geteuid().as_raw()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know users and groups")]
    fn nobody_asked_for_means_stay() {
        assert_eq!(resolve(None, None), Ok(None));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know users and groups")]
    fn unknown_names_are_errors() {
        assert_eq!(resolve(Some("no-such-user-x"), None), Err(UserError::NoUser("no-such-user-x".into())));
        assert_eq!(resolve(None, Some("no-such-group-x")), Err(UserError::NoGroup("no-such-group-x".into())));
        assert_eq!(resolve(Some("3999999999"), None), Err(UserError::GroupUnknown("3999999999".into())));
        assert!(resolve(Some("4294967295"), Some("0")).is_err(), "-1 means none");
        assert!(resolve(Some("-1"), None).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know users and groups")]
    fn another_user_needs_root() {
        match resolve(Some("3999999999"), Some("3999999998")) {
            Ok(Some(credentials)) => {
                assert!(capable(CAP_SETUID), "resolved without the privilege");
                let want = Credentials { uid: 3_999_999_999, gid: 3_999_999_998, groups: vec![3_999_999_998] };
                assert_eq!(credentials, want);
            }
            Err(UserError::NotRoot { wanted, .. }) => {
                assert!(!capable(CAP_SETUID) || !capable(CAP_SETGID));
                assert_eq!(wanted, "user 3999999999, group 3999999998");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know users and groups")]
    fn a_user_brings_its_groups() {
        let Ok(Some(credentials)) = resolve(Some("root"), None) else {
            assert!(!geteuid().is_root());
            return;
        };
        assert_eq!((credentials.uid, credentials.gid), (0, 0));
        assert!(credentials.groups.contains(&0), "{credentials:?}");
    }

    #[test]
    fn capabilities_are_read_from_status() {
        assert_eq!(effective("Name:\tx\nCapEff:\t0000000000000400\n"), Some(1 << CAP_NET_BIND_SERVICE));
        assert_eq!(effective("CapEff:\tzz\n"), None);
        assert_eq!(effective(""), None);
        assert!(may_bind_port(0) && may_bind_port(65535));
    }
}
