//! Releases resident memory of this process. Heap memory is up to its owners.
use nix::sys::mman::{MmapAdvise, madvise};
use std::ffi::c_void;
use std::fs;
use std::ptr::NonNull;

/// Releases the resident pages of code and constants, most of which only the start needed; those that are used again
/// come from the page cache. Returns the number of bytes mapped there; 0 if `/proc/self/maps` cannot be read.
pub fn forget_code() -> usize {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return 0 };
    maps.lines().filter_map(code_of_file).map(|(start, length)| forget(start, length)).sum()
}

fn forget(start: usize, length: usize) -> usize {
    let Some(address) = NonNull::new(start as *mut c_void) else { return 0 };
    // SAFETY: the range is a whole private mapping of a file, as the kernel lists it, and was never writable (see
    // `code_of_file`): no page of it differs from the file, and each is read from there again on the next access. The range
    // is still what it was when it was listed, because only unloading a library removes a mapping of code, and nothing here
    // does: libc loads modules of the name service (users, hosts) and keeps them. Replacing the binary on disk is safe, because the mapping holds the old file.
    match unsafe { madvise(address, length, MmapAdvise::MADV_DONTNEED) } {
        Ok(()) => length,
        Err(_) => 0,
    }
}

/// Start and length of a private mapping of a file that was never writable: one that is executable, or the first one of
/// a file, which begins with the ELF header. Other read-only mappings were written by the dynamic linker (RELRO).
fn code_of_file(line: &str) -> Option<(usize, usize)> {
    // start-end permissions offset device inode path
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (permissions, offset, _device, inode) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let first = offset.bytes().all(|digit| digit == b'0');
    if inode == "0" || !(permissions == "r-xp" || (permissions == "r--p" && first)) {
        return None;
    }
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_writable_is_code() {
        let of = |rest: &str| code_of_file(&format!("7f10000-7f12000 {rest}"));
        let code = Some((0x7f1_0000, 0x2000));
        assert_eq!(of("r-xp 00021000 fd:00 1234                     /usr/bin/program"), code);
        assert_eq!(of("r--p 00000000 fd:00 1234                     /usr/bin/program"), code);
        assert_eq!(of("r--p 00a10000 fd:00 1234                     /usr/bin/program"), None, "RELRO");
        assert_eq!(of("rw-p 00000000 fd:00 1234                     /usr/bin/program"), None);
        assert_eq!(of("r--s 00000000 fd:00 1234                     /some/file"), None, "shared");
        assert_eq!(of("r-xp 00000000 00:00 0                        [vdso]"), None);
        assert_eq!(of("r-xp"), None);
        assert_eq!(code_of_file(""), None);
    }

    #[test]
    fn code_that_was_given_back_still_runs() {
        for _ in 0..3 {
            assert!(forget_code() > 100_000, "this test has code");
            let text = fs::read_to_string("/proc/self/maps").unwrap();
            assert!(text.lines().any(|line| line.contains("r-xp")));
        }
    }
}
