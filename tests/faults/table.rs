//! The table of faults: each is done to a running deployment, lasts to its end, and costs what the row says.
use super::cluster::{Folder, kill};
use super::common::files::first_free_file;
use super::common::users::{NOBODY, is_root, through_setpriv};
use super::page;
use super::site::{Row, Site, Took};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const MARK: &str = "the table of faults";

fn seconds(took: Took) -> String {
    took.map_or_else(|| "no".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()))
}

impl Row {
    fn text(&self) -> String {
        let Row { fault, seen, worker, master, stops: [web, other], end, exit_code } = self;
        let end = match (end, exit_code) {
            (Some(_), Some(code)) => format!("{}, exit code {code}", seconds(*end)),
            _ => "no".to_owned(),
        };
        let (refused, hung, cut, ok) = (seen.refused, seen.hung, seen.cut + seen.wrong, seen.ok);
        let [worker, master, web, other] = [*worker, *master, *web, *other].map(seconds);
        format!("| {fault} | {ok} | {refused} | {hung} | {cut} | {worker} | {other} | {master} | {web} | {end} |\n")
    }
}

const HEAD: &str = "| fault | answers | refused | hung | cut | worker back | stop of `other` | master back | stop of `web` | SIGTERM |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n";

fn run(command: &str, args: &[&str]) -> bool {
    Command::new(command).args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn none() -> Option<Row> {
    Some(Site::start(Folder::new(), Stdio::null(), |_| {}).suffer("none"))
}

fn full_stderr() -> Option<Row> {
    let (_read, write) = std::io::pipe().unwrap();
    let full = write.try_clone().unwrap();
    let site = Site::start(Folder::new(), write.into(), |_| {});
    // The flag is the pipe's, so it is taken back before clusterd writes again.
    let blocking = |on: bool| clusterd::os::listen::set_nonblocking(full.as_fd(), !on).unwrap();
    blocking(false);
    for piece in [4096, 1] {
        loop {
            match (&full).write(&vec![b'x'; piece]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    blocking(true);
    Some(site.suffer("a stderr that nobody reads"))
}

/// Home, log files and app on a disk without a free byte.
fn full_disk() -> Option<Row> {
    let folder = Folder::new();
    let place = folder.path().to_owned();
    if !is_root() || !run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &place.display().to_string()]) {
        eprintln!("skipped: no file system can be mounted here");
        return None;
    }
    let mounted = Mounted(place.clone());
    let site = Site::start(folder, Stdio::null(), |_| {});
    let mut filler = fs::File::create(place.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    let row = site.suffer("a full disk");
    drop(mounted);
    Some(row)
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0.display().to_string()]);
    }
}

/// Changes a limit of a running process.
fn limit(pid: i32, what: &str) {
    let mut command = Command::new("prlimit");
    command.args([&format!("--pid={pid}"), what]);
    // Not even root may do this to another user's process everywhere; that user may.
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    if owner != fs::metadata("/proc/self").unwrap().uid() {
        through_setpriv(&mut command, owner);
    }
    assert!(command.status().unwrap().success(), "cannot set {what} for {pid}");
}

/// Keeper and master have as many files open as they may.
fn no_files() -> Option<Row> {
    let site = Site::start(Folder::new(), Stdio::null(), |_| {});
    for pid in [site.keeper(), site.master().unwrap()] {
        limit(pid, &format!("--nofile={}:", first_free_file(pid)));
    }
    Some(site.suffer("no free file descriptors"))
}

/// The user may have no process or thread more.
fn no_threads() -> Option<Row> {
    let site = Site::start(Folder::new(), Stdio::null(), |command| through_setpriv(command, NOBODY));
    let pids = [vec![site.keeper(), site.master().unwrap()], site.workers(None)].concat();
    for pid in pids {
        limit(pid, "--nproc=1:");
    }
    Some(site.suffer("no more processes and threads"))
}

fn no_proc() -> Option<Row> {
    if !is_root() || !run("unshare", &["--mount", "true"]) {
        eprintln!("skipped: /proc can be hidden only in a mount namespace");
        return None;
    }
    let site = Site::start(Folder::new(), Stdio::null(), |command| {
        let mut apart = Command::new("unshare");
        apart.args(["--mount", "--"]).arg(command.get_program()).args(command.get_args());
        apart.current_dir(command.get_current_dir().unwrap());
        apart.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = apart;
        command.stdin(Stdio::null());
    });
    let target = site.keeper().to_string();
    assert!(
        run("nsenter", &["-t", &target, "-m", "--", "mount", "-t", "tmpfs", "tmpfs", "/proc"]),
        "cannot hide /proc"
    );
    Some(site.suffer("no /proc"))
}

fn frozen_worker() -> Option<Row> {
    let site = Site::start(Folder::new(), Stdio::null(), |_| {});
    let frozen = site.workers(Some("web"))[0];
    kill(frozen, "STOP");
    Some(site.suffer("a frozen worker of `web`"))
}

#[test]
#[ignore = "takes minutes"]
fn table_of_faults() {
    let faults: [fn() -> Option<Row>; 7] = [none, full_stderr, full_disk, no_files, no_threads, no_proc, frozen_worker];
    let rows: Vec<Row> = faults.iter().filter_map(|fault| fault().inspect(|row| eprint!("{}", row.text()))).collect();
    let table = HEAD.to_owned() + &rows.iter().map(Row::text).collect::<String>();
    eprintln!("\n{table}");
    page::update(MARK, &table);
    for row in &rows {
        // Whatever happens: it ends when it is asked to, and nobody is sent away.
        assert!(row.end.is_some(), "it does not end under {}", row.fault);
        assert_eq!(row.seen.refused, 0, "{}", row.fault);
    }
}
