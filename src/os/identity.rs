//! Acts with the rights of another user: on a separate thread that has that user's ids and no capability. The action
//! may hang (on a file system of that user), so the wait for it is bounded.
use super::user::Credentials;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Such actions of one user that may hang at the same time; further ones are refused.
const AS_USER_HANGING_MAX: usize = 8;
/// Stack of the thread for such an action, in bytes.
const AS_USER_STACK_BYTES: usize = 512 * 1024;

/// Threads that were given up and have not ended, by user. One user's do not count against another's.
static HANGING: Mutex<BTreeMap<u32, usize>> = Mutex::new(BTreeMap::new());

/// The action runs, and its caller waits.
const RUNS: u8 = 0;
/// The caller has given up.
const GIVEN_UP: u8 = 1;
/// The action has ended.
const ENDED: u8 = 2;

/// The result of `act`, run as this user; the caller waits for at most `wait_ms` milliseconds (`None`: to its end).
///
/// # Errors
/// Those of `act`; ETIMEDOUT when it does not end in time; EAGAIN when too many of this user hang already; those of
/// setgroups(2), setresgid(2) and setresuid(2) where this process may not become the user.
pub fn as_user<T: Send + 'static>(
    who: &Credentials,
    wait_ms: Option<u64>,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if hanging(|all| all.get(&who.uid).is_some_and(|count| *count >= AS_USER_HANGING_MAX)) {
        return Err(Errno::EAGAIN.into());
    }
    let (sender, receiver): (SyncSender<io::Result<T>>, _) = sync_channel(1);
    let state = Arc::new(AtomicU8::new(RUNS));
    let (user, own_state) = (who.clone(), Arc::clone(&state));
    let work = move || {
        // The caller may have given up.
        let _ = sender.send(become_user(&user).and_then(|()| act()));
        if own_state.swap(ENDED, Ordering::AcqRel) == GIVEN_UP {
            hangs_no_more(user.uid);
        }
    };
    let thread = std::thread::Builder::new().name("clusterd-as-user".to_owned()).stack_size(AS_USER_STACK_BYTES);
    thread.spawn(work)?;
    let received = match wait_ms {
        Some(wait_ms) => receiver.recv_timeout(Duration::from_millis(wait_ms)),
        None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match received {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Disconnected) => Err(Errno::EIO.into()),
        Err(RecvTimeoutError::Timeout) => {
            hanging(|all| *all.entry(who.uid).or_default() += 1);
            if state.swap(GIVEN_UP, Ordering::AcqRel) == ENDED {
                hangs_no_more(who.uid);
            }
            Err(Errno::ETIMEDOUT.into())
        }
    }
}

fn hanging<T>(look: impl FnOnce(&mut BTreeMap<u32, usize>) -> T) -> T {
    look(&mut HANGING.lock().unwrap_or_else(PoisonError::into_inner))
}

fn hangs_no_more(uid: u32) {
    hanging(|all| {
        let left = all.get_mut(&uid).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            all.remove(&uid);
        }
    });
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
    // header and two records of three numbers, which are there. These touch this thread alone; prctl sets a flag of the
    // process.
    unsafe {
        Errno::result(libc::syscall(setgroups, who.groups.len(), who.groups.as_ptr()))?;
        Errno::result(libc::syscall(setresgid, same, libc::c_long::from(who.gid), same))?;
        Errno::result(libc::syscall(setresuid, same, libc::c_long::from(who.uid), same))?;
        let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
        let none = [[0_u32; 3]; 2];
        Errno::result(libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()))?;
        // The kernel forbids a process whose thread changed its ids to leave a core, and hides it from its own user.
        libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong);
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
    #[cfg_attr(miri, ignore = "miri does not know processes")]
    fn what_is_done_is_done_with_that_users_rights_alone() {
        if user::own_uid() != 0 {
            eprintln!("skipped: only root can become somebody");
            return;
        }
        let folder = std::env::temp_dir().join(format!("clusterd-as-user-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = folder.join("of root");
        std::fs::write(&own, "x").unwrap();
        let refused = as_user(&somebody(), Some(2_000), move || std::fs::remove_file(own)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        let low = SocketAddr::from((Ipv4Addr::LOCALHOST, 81));
        if user::first_unprivileged_port() > 81 {
            let refused = as_user(&somebody(), Some(2_000), move || listen::bind_tcp(low, false, 1)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        }
        std::os::unix::fs::chown(&folder, Some(54_321), None).unwrap();
        let file = folder.join("of somebody");
        as_user(&somebody(), Some(2_000), move || std::fs::write(file, "x")).unwrap();
        let made = std::fs::metadata(folder.join("of somebody")).unwrap();
        assert_eq!((made.uid(), made.gid()), (54_321, 54_322));
        // The other threads kept their ids.
        std::fs::write(folder.join("of root again"), "x").unwrap();
        assert_eq!(std::fs::metadata(folder.join("of root again")).unwrap().uid(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know processes")]
    fn what_hangs_is_given_up() {
        if user::own_uid() != 0 {
            eprintln!("skipped: only root can become somebody");
            return;
        }
        let (let_go, wait) = std::sync::mpsc::channel::<()>();
        let hangs = as_user(&somebody(), Some(20), move || wait.recv().map_err(io::Error::other)).unwrap_err();
        assert_eq!(hangs.raw_os_error(), Some(libc::ETIMEDOUT));
        drop(let_go);
    }
}
