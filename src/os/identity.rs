//! Acts with the rights of another user: on a separate thread that has that user's ids and no capability. The action
//! may hang (on a file system of that user), so the wait for it is bounded.
use super::user::Credentials;
use nix::errno::Errno;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Time limit for an action with the rights of a worker's user, in milliseconds.
const AS_USER_WAIT_MS: u64 = 200;
/// Such actions that may run or hang at the same time; further ones are refused.
const AS_USER_HANGING_MAX: usize = 8;
/// Stack of the thread for such an action, in bytes.
const AS_USER_STACK_BYTES: usize = 128 * 1024;

/// Threads that are running or hang.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// The result of `act`, run as this user.
///
/// # Errors
/// Those of `act`; ETIMEDOUT when it does not end within `AS_USER_WAIT_MS`; EAGAIN when too many hang
/// already; those of setgroups(2), setresgid(2) and setresuid(2) where this process may not become the user.
pub fn as_user<T: Send + 'static>(
    who: &Credentials,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if BUSY.fetch_add(1, Ordering::Relaxed) >= AS_USER_HANGING_MAX {
        BUSY.fetch_sub(1, Ordering::Relaxed);
        return Err(Errno::EAGAIN.into());
    }
    let (sender, receiver) = sync_channel(1);
    let who = who.clone();
    let work = move || {
        // The caller may have given up.
        let _ = sender.send(become_user(&who).and_then(|()| act()));
        BUSY.fetch_sub(1, Ordering::Relaxed);
    };
    let thread = std::thread::Builder::new().name("clusterd-as-user".to_owned()).stack_size(AS_USER_STACK_BYTES);
    if let Err(error) = thread.spawn(work) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
        return Err(error);
    }
    let outcome = match receiver.recv_timeout(Duration::from_millis(AS_USER_WAIT_MS)) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(Errno::ETIMEDOUT.into()),
        Err(RecvTimeoutError::Disconnected) => Err(Errno::EIO.into()),
    };
    // The kernel forbids a process whose thread changed its ids to leave a core, and hides it from its own user.
    // SAFETY: prctl sets a flag of the process.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong) };
    outcome
}

#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const CALLS: [libc::c_long; 3] = [libc::SYS_setgroups32, libc::SYS_setresgid32, libc::SYS_setresuid32];
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const CALLS: [libc::c_long; 3] = [libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid];

/// Version 3 of capset(2)'s header.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// Gives the calling thread, and no other, the effective ids of this user, and takes its capabilities. The real and the
/// saved ids stay: by those the kernel decides who may signal or trace the thread, and so the process.
fn become_user(who: &Credentials) -> io::Result<()> {
    let [setgroups, setresgid, setresuid] = CALLS;
    let same = libc::c_long::from(-1);
    // The calls of libc would change every thread of the process.
    // SAFETY: the list is as long as said and lives until the call returns; the other calls take numbers. capset reads a
    // header and two records of three numbers, which are there. All of them touch this thread alone.
    unsafe {
        Errno::result(libc::syscall(setgroups, who.groups.len(), who.groups.as_ptr()))?;
        Errno::result(libc::syscall(setresgid, same, libc::c_long::from(who.gid), same))?;
        Errno::result(libc::syscall(setresuid, same, libc::c_long::from(who.uid), same))?;
        let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
        let none = [[0_u32; 3]; 2];
        Errno::result(libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::{listen, user};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::unix::fs::MetadataExt;

    fn somebody() -> Credentials {
        Credentials { uid: 54_321, gid: 54_322, groups: vec![54_322] }
    }

    #[test]
    fn what_is_done_is_done_with_that_users_rights_alone() {
        if user::own_uid() != 0 {
            eprintln!("skipped: only root can become somebody");
            return;
        }
        let folder = std::env::temp_dir().join(format!("clusterd-as-user-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = folder.join("of root");
        std::fs::write(&own, "x").unwrap();
        let refused = as_user(&somebody(), move || std::fs::remove_file(own)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let low = SocketAddr::from((Ipv4Addr::LOCALHOST, 81));
        if user::first_unprivileged_port() > 81 {
            let refused = as_user(&somebody(), move || listen::bind_tcp(low, false, 1)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        }
        std::os::unix::fs::chown(&folder, Some(54_321), None).unwrap();
        let file = folder.join("of somebody");
        as_user(&somebody(), move || std::fs::write(file, "x")).unwrap();
        let made = std::fs::metadata(folder.join("of somebody")).unwrap();
        assert_eq!((made.uid(), made.gid()), (54_321, 54_322));
        // The other threads kept their ids.
        std::fs::write(folder.join("of root again"), "x").unwrap();
        assert_eq!(std::fs::metadata(folder.join("of root again")).unwrap().uid(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_hangs_is_given_up() {
        if user::own_uid() != 0 {
            eprintln!("skipped: only root can become somebody");
            return;
        }
        let (let_go, wait) = std::sync::mpsc::channel::<()>();
        let hangs = as_user(&somebody(), move || wait.recv().map_err(io::Error::other)).unwrap_err();
        assert_eq!(hangs.raw_os_error(), Some(libc::ETIMEDOUT));
        drop(let_go);
    }
}
