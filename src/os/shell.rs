//! Programs that the kernel does not execute because they have no `#!` line: `/bin/sh` runs them, as it does for execvp(3) and
//! for every shell. Used between fork and exec, so nothing here allocates.
use std::ffi::{CStr, CString};
use std::ptr;

const SHELL: &CStr = c"/bin/sh";
/// Bytes at the beginning of a file that are looked at.
const HEAD_BYTES: usize = 256;

/// The command line with which the shell runs `program`: its own arguments follow. Points into both.
pub(super) fn arguments(program: &CString, args: &[CString]) -> Vec<*const libc::c_char> {
    let own = args.iter().skip(1).map(|arg| arg.as_ptr());
    [SHELL.as_ptr(), program.as_ptr()].into_iter().chain(own).chain([ptr::null()]).collect()
}

/// Executes the shell in the place of a program that execve(2) has just refused with ENOEXEC. Returns if that is not a script,
/// or the shell cannot be executed. The errno is ENOEXEC then.
///
/// # Safety
/// `argv` is a list of [`arguments`], which lives as `program` does; `envp` ends with a null pointer.
pub(super) unsafe fn execute(program: &CStr, argv: *const *const libc::c_char, envp: *const *const libc::c_char) {
    // SAFETY: forwarded from the caller; execve is async-signal-safe.
    unsafe {
        if is_text(program) {
            libc::execve(SHELL.as_ptr(), argv, envp);
        }
    }
    nix::errno::Errno::ENOEXEC.set();
}

/// Whether the first line of a file is text: what shells ask before they read a file as a script, so that a program for another
/// machine is not one.
fn is_text(path: &CStr) -> bool {
    let mut head = [0_u8; HEAD_BYTES];
    // SAFETY: all three calls are async-signal-safe. The path is NUL-terminated, and the buffer as long as is said.
    let read = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK);
        if fd < 0 {
            return false;
        }
        let read = libc::read(fd, head.as_mut_ptr().cast(), HEAD_BYTES);
        libc::close(fd);
        read
    };
    let Ok(length) = usize::try_from(read) else { return false };
    let mut line = head[..length].iter().take_while(|byte| **byte != b'\n');
    line.all(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know files of the system")]
    fn a_script_is_told_from_a_program_of_another_machine() {
        let path = std::env::temp_dir().join(format!("clusterd-shell-{}", std::process::id()));
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
        let says = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            is_text(&name)
        };
        assert!(says(b""));
        assert!(says(b"exec sleep 1000\n\0\0"));
        assert!(says(&[b'x'; 1000]));
        assert!(!says(b"\x7fELF\x02\x01\x01\0\0"));
        std::fs::remove_file(&path).expect("the file");
        assert!(!is_text(&name));
    }
}
