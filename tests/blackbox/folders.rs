//! Deploys by folder: one that is moved, replaced, copied again or behind a link that is flipped is found again by its name.
use super::background::Home;
use super::client::get;
use super::cluster::{Folder, command, wait_until};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

fn release(folder: &Path, version: &str) {
    fs::create_dir_all(folder).unwrap();
    let app =
        format!("require('http').createServer((q, a) => a.end('{version}')).listen(process.env.PORT, '127.0.0.1')");
    fs::write(folder.join("app.js"), app).unwrap();
}

/// Runs a verb in a folder, under the name that the shell has for it.
fn in_folder(home: &Home, folder: &Path, args: &[&str]) -> (bool, String) {
    let ran = command(&home.folder).args(args).current_dir(folder).env("PWD", folder).output().unwrap();
    (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

fn start(home: &Home, folder: &Path, more: &[&str]) -> SocketAddr {
    let args = ["start", "app.js", "-n", "web", "-i", "1", "--host", "127.0.0.1", "-p", "0"];
    let (started, said) = in_folder(home, folder, &[&args[..], more].concat());
    assert!(started, "{said}");
    address(home)
}

fn address(home: &Home) -> SocketAddr {
    super::background::address(&home.app("web"))
}

fn says(at: SocketAddr, version: &str) {
    assert!(get(at, "/").unwrap().ends_with(version), "not {version}");
}

/// A folder of releases beside the home.
fn site() -> (Home, Folder) {
    (Home::new(), Folder::new())
}

#[test]
fn a_folder_that_was_replaced_is_the_one_under_its_name() {
    let (home, site) = site();
    let (app, new) = (site.path().join("app"), site.path().join("new"));
    release(&app, "one");
    release(&new, "two");
    let at = start(&home, &app, &[]);
    says(at, "one");
    fs::rename(&app, site.path().join("old")).unwrap();
    fs::rename(&new, &app).unwrap();
    home.ok(&["reload", "web"]);
    says(at, "two");
    fs::remove_dir_all(&app).unwrap();
    release(&app, "three");
    home.ok(&["restart", "web"]);
    says(at, "three");
    fs::remove_dir_all(&app).unwrap();
    release(&app, "four");
    home.ok(&["stop", "web"]);
    home.ok(&["start", "web"]);
    says(address(&home), "four");
}

#[test]
fn a_link_that_was_flipped_is_followed_also_from_inside() {
    let (home, site) = site();
    let current = site.path().join("current");
    release(&site.path().join("r1"), "one");
    release(&site.path().join("r2"), "two");
    symlink("r1", &current).unwrap();
    let at = start(&home, &current, &[]);
    says(at, "one");
    symlink("r2", site.path().join("next")).unwrap();
    fs::rename(site.path().join("next"), &current).unwrap();
    home.ok(&["reload", "web"]);
    says(at, "two");
}

#[test]
fn a_folder_that_is_gone_is_said_and_its_app_starts_again_from_another() {
    let (home, site) = site();
    let (app, moved) = (site.path().join("app"), site.path().join("moved"));
    release(&app, "one");
    let at = start(&home, &app, &[]);
    fs::rename(&app, &moved).unwrap();
    for verb in ["reload", "restart"] {
        let said = home.fails(&[verb, "web"]);
        assert!(said.contains(&format!("its folder {} does not exist any more", app.display())), "{said}");
        says(at, "one");
    }
    home.ok(&["stop", "web"]);
    assert!(home.fails(&["start", "web"]).contains("does not exist any more"));
    let at = start(&home, &moved, &[]);
    says(at, "one");
    // A running one too: the name means the app, the folder is the one where it was typed.
    let other = site.path().join("other");
    release(&other, "two");
    let at = start(&home, &other, &[]);
    says(at, "two");
    assert_eq!(Path::new(&home.app("web").cwd), fs::canonicalize(&other).unwrap());
}

#[test]
fn a_watch_follows_a_replaced_folder_and_a_flipped_link() {
    let (home, site) = site();
    let current = site.path().join("current");
    for n in 1..=3 {
        release(&site.path().join(format!("r{n}")), &format!("r{n}"));
    }
    symlink("r1", &current).unwrap();
    let at = start(&home, &current, &["--watch", "--watch-delay", "100ms"]);
    let log = || fs::read_to_string(home.folder.path().join("home/logs/web.clusterd.log")).unwrap_or_default();
    wait_until("the watch", || log().contains("web: watching 1 folder"));
    let comes = |version: &str| wait_until(version, || get(at, "/").is_ok_and(|answer| answer.ends_with(version)));
    symlink("r2", site.path().join("next")).unwrap();
    fs::rename(site.path().join("next"), &current).unwrap();
    comes("r2");
    // The folder behind the link is replaced, and then changes.
    fs::rename(site.path().join("r2"), site.path().join("gone")).unwrap();
    fs::rename(site.path().join("r3"), site.path().join("r2")).unwrap();
    comes("r3");
    wait_until("the end of the reload", || home.app("web").status == "running");
    release(&site.path().join("r2"), "changed");
    comes("changed");
}
