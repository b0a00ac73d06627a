//! Releases resident memory of this process. Heap memory is up to its owners.
use nix::sys::mman::{MmapAdvise, madvise};
use std::ffi::c_void;
use std::fs;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// What was mapped at the start: start and length of each mapping of code and constants.
static CODE: OnceLock<Vec<(usize, usize)>> = OnceLock::new();

/// Writes down which code and constants are mapped: the program's and those of the libraries that it was linked with, which
/// stay until the process ends. Called first of all, before anything else can be loaded.
pub fn note_code() {
    CODE.get_or_init(|| {
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return Vec::new() };
        maps.lines().filter_map(code_of_file).collect()
    });
}

/// Releases the resident pages of the code and constants of [`note_code`], most of which only the start needed; those that
/// are used again come from the page cache. Returns the number of bytes mapped there; 0 if nothing was noted.
pub fn forget_code() -> usize {
    CODE.get().into_iter().flatten().map(|(start, length)| forget(*start, *length)).sum()
}

fn forget(start: usize, length: usize) -> usize {
    let Some(address) = NonNull::new(start as *mut c_void) else { return 0 };
    // SAFETY: the range is a whole private mapping of a file, as the kernel listed it at the start, and was never writable
    // (see `code_of_file`): no page of it differs from the file, and each is read from there again on the next access. The
    // range is still this mapping: the dynamic linker made it for the program or a library that the program is linked with,
    // and unmaps those at the end of the process only; what was loaded or mapped later is not in the list. Replacing the
    // binary on disk is safe, because the mapping holds the old file.
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
    #[cfg_attr(miri, ignore = "miri does not know madvise")]
    fn code_that_was_given_back_still_runs() {
        note_code();
        for _ in 0..3 {
            assert!(forget_code() > 100_000, "this test has code");
            let text = fs::read_to_string("/proc/self/maps").unwrap();
            assert!(text.lines().any(|line| line.contains("r-xp")));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know madvise")]
    fn what_was_mapped_after_the_start_stays() {
        note_code();
        let noted = CODE.get().unwrap().clone();
        let before = forget_code();
        // A file that is mapped as a library's beginning would be.
        let file = fs::File::open("/proc/self/exe").unwrap();
        let length = std::num::NonZeroUsize::new(4096).unwrap();
        // SAFETY: a new private mapping, which nothing refers to.
        let mapped = unsafe {
            let (prot, flags) = (nix::sys::mman::ProtFlags::PROT_READ, nix::sys::mman::MapFlags::MAP_PRIVATE);
            nix::sys::mman::mmap(None, length, prot, flags, &file, 0).unwrap()
        };
        let at = format!("{:x}-", mapped.as_ptr() as usize);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&at));
        assert!(line.and_then(code_of_file).is_some(), "it looks like code: {line:?}");
        note_code();
        assert_eq!((CODE.get().unwrap(), forget_code()), (&noted, before));
        // SAFETY: the mapping from above, to which nothing refers any more.
        unsafe { nix::sys::mman::munmap(mapped, 4096).unwrap() };
    }
}
