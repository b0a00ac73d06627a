//! When a log file is rotated, and the names of rotated files. Pure.
use crate::config::log::Rotation;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time in a rotated file's name: the order of names is the order of times.
const TIME: &str = "%Y%m%dT%H%M%S%.3fZ";
const TIME_CHARS: usize = 20;
/// The ending of compressed files.
pub(super) const COMPRESSED: &str = ".gz";
/// The ending of a file that is being compressed.
pub(super) const UNFINISHED: &str = ".gz.tmp";

/// Whether a file of `length` bytes that was begun `age` ago is rotated before `more` bytes are added.
pub(super) fn is_due(rotation: &Rotation, length: u64, more: u64, age: Duration) -> bool {
    let large = rotation.max_size.is_some_and(|most| length.saturating_add(more) > most);
    let old = rotation.max_age.is_some_and(|most| age >= most);
    length > 0 && (large || old)
}

/// The name of a file rotated at this time.
pub(super) fn rotated(path: &Path, at: Timestamp) -> PathBuf {
    let (before, behind) = around(path);
    // The format is fixed, and the time is in range.
    let time = jiff::fmt::strtime::format(TIME, &at.to_zoned_datetime(TimeZone::UTC)).unwrap_or_default();
    path.with_file_name(format!("{before}{time}{behind}"))
}

/// The kind of a file beside a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Rotated,
    /// A compressed rotated file.
    Compressed,
    /// Left by an unfinished compression.
    Unfinished,
}

/// The kind of the file `name` in the folder of `path`; `None` if it is unrelated.
pub(super) fn kind(path: &Path, name: &str) -> Option<Kind> {
    let (before, behind) = around(path);
    let rest = name.strip_prefix(before.as_str())?;
    let (time, rest) = rest.split_at_checked(TIME_CHARS)?;
    let is_time = time.bytes().enumerate().all(|(n, byte)| match n {
        8 => byte == b'T',
        15 => byte == b'.',
        19 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    match rest.strip_prefix(behind.as_str())? {
        _ if !is_time => None,
        "" => Some(Kind::Rotated),
        COMPRESSED => Some(Kind::Compressed),
        UNFINISHED => Some(Kind::Unfinished),
        _ => None,
    }
}

/// The parts of the name before and after the time.
fn around(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    (format!("{stem}-"), ending)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn size_and_age_decide_and_an_empty_file_stays() {
        let rotation =
            Rotation { max_size: Some(100), max_age: Some(Duration::from_secs(60)), keep: 1, compress: false };
        let now = Duration::ZERO;
        assert!(!is_due(&rotation, 90, 10, now));
        assert!(is_due(&rotation, 90, 11, now));
        assert!(!is_due(&rotation, 0, 1000, Duration::from_secs(99)));
        assert!(is_due(&rotation, 1, 1, Duration::from_secs(60)));
        let never = Rotation { max_size: None, max_age: None, ..rotation };
        assert!(!is_due(&never, u64::MAX, u64::MAX, Duration::MAX));
    }

    #[test]
    fn rotated_files_are_known_by_their_names_and_no_others() {
        let path = Path::new("/l/web-out.log");
        let moved = rotated(path, "2026-02-03T04:05:06.789Z".parse().unwrap());
        assert_eq!(moved, Path::new("/l/web-out-20260203T040506.789Z.log"));
        let name = moved.file_name().unwrap().to_str().unwrap();
        assert_eq!(kind(path, name), Some(Kind::Rotated));
        assert_eq!(kind(path, &format!("{name}.gz")), Some(Kind::Compressed));
        assert_eq!(kind(path, &format!("{name}.gz.tmp")), Some(Kind::Unfinished));
        for other in ["web-out.log", "web-out-1.log", "web-out-20260203T040506.789Z.txt", "api-out.log", "web-out-ü"] {
            assert_eq!(kind(path, other), None, "{other}");
        }
        assert_eq!(kind(Path::new("/l/out"), "out-20260203T040506.789Z"), Some(Kind::Rotated));
    }
}
