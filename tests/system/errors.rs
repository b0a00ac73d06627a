//! The errors that each system call can have, from its manual page, as far as they can come without a mistake of the caller: the system
//! is short of something, a disk is full or broken, somebody forbids it. What follows from the state of a socket or a process comes from
//! that state, and EINTR from none: the wrappers of `clusterd::os` begin such a call again, or take it for the end of a wait.

const EPERM: i32 = 1;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EPROTO: i32 = 71;
const EADDRINUSE: i32 = 98;
const EADDRNOTAVAIL: i32 = 99;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const ECONNABORTED: i32 = 103;
const ENOBUFS: i32 = 105;
const ETOOMANYREFS: i32 = 109;
const ETIMEDOUT: i32 = 110;
const EHOSTUNREACH: i32 = 113;
const EDQUOT: i32 = 122;

/// What a machine can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Numbers for open files in one process, or files in all.
    Files,
    Memory,
    /// Room for files in flight between processes (SCM_RIGHTS).
    Flight,
    /// Room on disks, or a disk that works.
    Disk,
    /// Everything now and then: any call has any of its errors.
    Anything,
}

/// How a call can fail for want of that. Empty: it does not need it.
pub(crate) fn of(lack: Lack, name: &str) -> &'static [i32] {
    match (lack, name) {
        (Lack::Anything, _) => all(name),
        (Lack::Files, "accept4" | "memfd_create" | "socketpair" | "pipe2" | "socket" | "open" | "epoll_create") => {
            &[EMFILE, ENFILE]
        }
        (Lack::Files, "bind") => &[ENFILE],
        (Lack::Files, "pidfd_getfd") => &[EMFILE],
        (Lack::Memory, "accept4" | "memfd_create" | "epoll_ctl") => &[ENOMEM],
        (Lack::Memory, "fork" | "clone") => &[EAGAIN, ENOMEM],
        (Lack::Memory, "sendmsg") => &[ENOBUFS],
        (Lack::Memory, "mkdir") => &[ENOSPC],
        (Lack::Flight, "sendmsg with files") => &[ETOOMANYREFS],
        (Lack::Disk, "open" | "mkdir" | "rename") => &[ENOSPC, EDQUOT, EIO],
        (Lack::Disk, "unlink" | "lstat" | "chown") => &[EIO],
        // Of tmpfs.
        (Lack::Disk, "memfd_create") => &[ENOSPC],
        _ => &[],
    }
}

fn all(name: &str) -> &'static [i32] {
    match name {
        // Errors of the connection that it would return are passed on too (accept(2), "Error handling").
        "accept4" => {
            &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, ENETUNREACH]
        }
        "bind" => &[EADDRINUSE, EACCES, EADDRNOTAVAIL, ENFILE, EMFILE, ENOBUFS, ENOMEM],
        "chown" => &[EPERM, EROFS, EIO],
        "clone" | "fork" => &[EAGAIN, ENOMEM],
        "close_range" | "epoll_wait" | "poll" => &[ENOMEM],
        "connect" => &[EAGAIN, EADDRNOTAVAIL, ENETUNREACH, ETIMEDOUT, EMFILE, ENFILE],
        "execve" => &[EACCES, EAGAIN, EIO, EMFILE, ENFILE, ENOMEM],
        "epoll_create" => &[EMFILE, ENFILE, ENOMEM],
        "epoll_ctl" => &[ENOMEM, ENOSPC],
        "fcntl" => &[EMFILE],
        "fstat" => &[ENOMEM],
        "getsockname" => &[ENOBUFS],
        "kill" => &[EPERM],
        "listen" => &[EADDRINUSE],
        "lstat" | "stat" => &[EACCES, EIO, ENOMEM],
        "memfd_create" => &[EMFILE, ENFILE, ENOMEM, ENOSPC],
        "mkdir" | "rename" => &[EACCES, EDQUOT, EIO, ENOMEM, ENOSPC, EROFS],
        "open" => &[EACCES, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS],
        "pidfd_getfd" => &[EMFILE, ENFILE, EPERM],
        "pipe2" => &[EMFILE, ENFILE],
        "pread" => &[EIO],
        "recvmsg" => &[ENOMEM],
        "sendmsg" => &[EAGAIN, ENOBUFS, ENOMEM],
        "sendmsg with files" => &[EAGAIN, ENOBUFS, ENOMEM, ETOOMANYREFS],
        "setrlimit" => &[EPERM],
        "setsockopt" => &[ENOMEM, ENOBUFS],
        "socket" => &[EACCES, EMFILE, ENFILE, ENOBUFS, ENOMEM],
        "socketpair" => &[EMFILE, ENFILE, ENOMEM],
        "unlink" => &[EACCES, EBUSY, EIO, ENOMEM, EROFS],
        "write" => &[EAGAIN, EIO, ENOSPC],
        _ => &[],
    }
}
