//! Whether this program is what a container was started for. Then something outside ends it after a time that it is not told.
use super::procfs;
use std::path::Path;

/// Files by which the runtimes of containers mark their root.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Who stops the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Kubernetes,
    /// Docker, Podman and the like.
    Plain,
}

/// The container whose main process is `pid`, or the child of a small init (`docker run --init`). A process that somebody
/// started in a container by other means is not meant: its end does not end the container.
#[must_use]
pub fn of(pid: i32) -> Option<Container> {
    let is_marked = || MARKS.iter().any(|mark| Path::new(mark).exists());
    let is_below_init = || procfs::parent(pid) == Some(1) && procfs::name(1).is_some_and(|name| name != "systemd");
    let is_main = pid == 1 || is_below_init() && is_marked();
    let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    is_main.then_some(if kubernetes { Container::Kubernetes } else { Container::Plain })
}
