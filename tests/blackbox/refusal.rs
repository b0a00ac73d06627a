//! A kernel that refuses: a seccomp filter on the command under test, as containers have them.
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where the number of the call and the low words of its arguments are in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARGUMENT_2_AT: u32 = 16 + 2 * 8 + if cfg!(target_endian = "little") { 0 } else { 4 };

/// Has bpf(2) and both ways to attach a program to a group of sockets fail with EPERM, for the command and all below it.
pub(crate) fn refuse_bpf(command: &mut Command) {
    let load = |at| statement(0x20, at);
    let (allow, refuse) =
        (statement(0x06, libc::SECCOMP_RET_ALLOW), statement(0x06, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let mut filter = vec![
        load(NUMBER_AT),
        jump_if(libc::SYS_bpf as u32, 5, 0),
        jump_if(libc::SYS_setsockopt as u32, 0, 3),
        load(ARGUMENT_2_AT),
        jump_if(libc::SO_ATTACH_REUSEPORT_CBPF as u32, 2, 0),
        jump_if(libc::SO_ATTACH_REUSEPORT_EBPF as u32, 1, 0),
        allow,
        refuse,
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: two calls that only read `program`, which lives through them; between fork and exec both are allowed.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(install) };
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn jump_if(equal_to: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: 0x15, jt, jf, k: equal_to }
}
