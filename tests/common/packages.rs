//! Programs of Debian that a test drives: installed by name where they are missing and that is possible.
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Two installations at once get in each other's way.
static ONE: Mutex<()> = Mutex::new(());

/// The path of a program of this package. `None`: it is missing and cannot be installed, which is said.
pub(crate) fn program(name: &str, package: &str) -> Option<String> {
    let find = || {
        let paths = ["/usr/sbin", "/usr/bin"].map(|folder| format!("{folder}/{name}"));
        paths.into_iter().find(|path| std::fs::exists(path).unwrap_or(false))
    };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if find().is_none() && nix::unistd::geteuid().is_root() {
        let apt = |args: &[&str]| {
            let done = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").output();
            done.is_ok_and(|done| done.status.success())
        };
        let _ = apt(&["update", "-qq"]) && apt(&["install", "-y", "-qq", "--no-install-recommends", package]);
    }
    let found = find();
    if found.is_none() {
        eprintln!("skipped: {name} is missing, and only root can install it");
    }
    found
}
