//! Where cgroups are: the hierarchies that are mounted (v1 and v2), and this process's group in each. What limits what is
//! not known here.
use super::procfs::PROC_FILE_BYTES_MAX;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A line of `/proc/self/cgroup`: `0::/path`, or `n:cpu,cpuacct:/path`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) version: Version,
    /// None for version 2, whose groups say it themselves.
    pub(super) controllers: Vec<String>,
    pub(super) path: String,
}

impl Group {
    fn parse(line: &str) -> Option<Group> {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.to_owned());
        match controllers {
            "" if id == "0" => Some(Group { version: Version::Two, controllers: Vec::new(), path }),
            "" => None,
            _ => Some(Group { version: Version::One, controllers: list(controllers), path }),
        }
    }

    /// Whether it is in the hierarchy of this mount.
    pub(super) fn is_in(&self, mount: &Mount) -> bool {
        let named = || self.controllers.iter().any(|controller| mount.controllers.contains(controller));
        self.version == mount.version && (self.version == Version::Two || named())
    }
}

/// A line of `/proc/self/mountinfo` for a hierarchy (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) version: Version,
    /// For version 1: among its mount options.
    pub(super) controllers: Vec<String>,
    /// The cgroup at the mount point.
    root: String,
    pub(super) point: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (unescape(left.next()?), unescape(left.next()?));
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        let (version, controllers) = match kind {
            "cgroup2" => (Version::Two, Vec::new()),
            "cgroup" => (Version::One, list(options)),
            _ => return None,
        };
        Some(Mount { version, controllers, root, point })
    }

    /// The folder of a group; `None` where this mount does not show it.
    pub(super) fn folder(&self, path: &str) -> Option<PathBuf> {
        let (path, top) = (names(path)?, names(&self.root)?);
        let below = path.strip_prefix(top.as_slice())?;
        Some(below.iter().fold(PathBuf::from(&self.point), |folder, name| folder.join(name)))
    }

    /// The folders of a cgroup and every ancestor up to the mount point.
    ///
    /// The mount may show only a part of the hierarchy (in a container its own cgroup is at the mount point), and the path
    /// may be relative to a cgroup namespace (`/../..` for a cgroup above it).
    pub(super) fn folders(&self, path: &str) -> Vec<PathBuf> {
        let point = PathBuf::from(&self.point);
        // If the mount shows another part of the hierarchy, only its top is known to be our cgroup or an ancestor.
        let own = self.folder(path).unwrap_or_else(|| point.clone());
        let mut all: Vec<PathBuf> =
            own.ancestors().take_while(|folder| folder.starts_with(&point)).map(Path::to_owned).collect();
        all.reverse();
        all
    }
}

/// This process's groups, and every mount of a hierarchy. `root` replaces `/` in tests.
pub(super) fn read_all(root: &Path) -> Option<(Vec<Group>, Vec<Mount>)> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    let mounts = read(&root.join("proc/self/mountinfo"))?;
    Some((groups.lines().filter_map(Group::parse).collect(), mounts.lines().filter_map(Mount::parse).collect()))
}

/// The text of a small file, or `None`.
pub(super) fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(PROC_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// The names in a path; `None` if a part of it is above what this process can see (`..`).
fn names(path: &str) -> Option<Vec<String>> {
    let parts = Path::new(path).components().filter(|part| *part != Component::RootDir);
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    };
    parts.map(name).collect()
}

/// Decodes `\040` and the like, as the kernel writes them in mountinfo.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal =
            (first == b'\\').then(|| after.get(..3)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_are_unescaped() {
        assert_eq!(unescape("/my\\040cgroup"), "/my cgroup");
        assert_eq!(unescape("a\\"), "a\\");
        assert_eq!(unescape("a\\9x9b"), "a\\9x9b");
    }
}
