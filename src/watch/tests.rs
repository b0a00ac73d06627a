//! What counts as a change, with real files.
use super::*;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::channel;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("clusterd-watch-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Folder(fs::canonicalize(path).expect("its path"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    fn place(&self, paths: &[&str], ignore: &[&str]) -> Place {
        let spec = Spec {
            app: "web".to_owned(),
            paths: paths.iter().map(|path| self.0.join(path)).collect(),
            whole_folder: true,
            ignore: ignore.iter().map(|pattern| (*pattern).to_owned()).collect(),
            apart: ["home", "logs/web.log"].map(|path| self.0.join(path)).into(),
            delay: Duration::from_millis(20),
        };
        let watcher = notify::recommended_watcher(|_| {}).expect("a watcher");
        let mut place = Place::new(spec, watcher, Wanted::default());
        place.look_at_all();
        place
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_git_or_the_user_ignores_does_not_count() {
    let folder = Folder::new();
    fs::create_dir_all(folder.0.join(".git/info")).expect("a repository");
    folder.write(".git/info/exclude", "private.txt\n");
    folder.write(".gitignore", "*.log\n/dist/\n");
    folder.write("lib/.gitignore", "!kept.log\ngenerated.js\n");
    for file in
        ["lib/a.js", "lib/deep/b.js", "dist/out.js", "node_modules/x/i.js", "tmp/t.txt", ".cache/c", "home/logs/x"]
    {
        folder.write(file, "");
    }
    let mut place = folder.place(&["."], &["tmp/", "*.tmp", "!.env"]);
    let watched: Vec<PathBuf> = ["", "lib", "lib/deep"].iter().map(|name| folder.0.join(name)).collect();
    let watched: BTreeSet<PathBuf> = watched.iter().map(|path| path.components().collect()).collect();
    assert_eq!(place.folders, watched);
    let mut counts = |name: &str| place.see(folder.write(name, "x")).is_some();
    for name in ["a.js", "lib/a.js", "lib/kept.log", ".env", "lib/deep/new.js"] {
        assert!(counts(name), "{name}");
    }
    for name in ["a.log", "lib/deep/x.log", "lib/generated.js", "private.txt", ".a.js.swp", "a.js~", "x.tmp"] {
        assert!(!counts(name), "{name}");
    }
}

#[test]
fn folders_come_and_go() {
    let folder = Folder::new();
    folder.write("a.js", "");
    let mut place = folder.place(&["."], &[]);
    let new = folder.write("new/deep/b.js", "");
    assert_eq!(place.see(folder.0.join("new")), Some(new.clone()), "what was there before it was looked at");
    assert_eq!(place.folders.len(), 3);
    fs::remove_dir_all(folder.0.join("new/deep")).expect("removed");
    assert!(place.see(folder.0.join("new/deep")).is_some());
    assert_eq!(place.folders.len(), 2);
    folder.write("new/deep/b.js", "");
    assert_eq!(place.see(folder.0.join("new/deep")), Some(new));
    // A newly ignored file is left out; a file that is no longer ignored is found.
    folder.write("build/out.js", "");
    assert!(place.see(folder.write(".gitignore", "*.js\n")).is_none());
    assert!(place.see(folder.write("a.js", "x")).is_none());
}

#[test]
fn a_file_that_was_named_is_watched_alone_and_what_was_named_counts_though_git_ignores_it() {
    let folder = Folder::new();
    folder.write("dist/out.js", "");
    let file = folder.write("app.js", "");
    let mut place = folder.place(&["app.js"], &[]);
    assert_eq!(place.see(file.clone()), Some(file));
    assert_eq!(place.see(folder.write("b.js", "")), None);
    folder.write(".gitignore", "dist/\n");
    let spec = Spec { whole_folder: false, ..folder.place(&["dist"], &[]).spec };
    let mut place = Place::new(spec, notify::recommended_watcher(|_| {}).expect("a watcher"), Wanted::default());
    place.look_at_all();
    assert!(place.see(folder.write("dist/out.js", "x")).is_some());
}

#[test]
fn changes_in_a_row_are_told_once() {
    let folder = Folder::new();
    folder.write("a.js", "");
    let spec = Spec { delay: Duration::from_millis(200), ..folder.place(&["."], &[]).spec };
    let (woken, wakes) = channel();
    let watcher = Watcher::start(spec, move || {
        let _ = woken.send(());
    })
    .expect("a watcher");
    let patience = Duration::from_secs(30);
    // The first scan of the folder may still be running: repeat the change until one is seen.
    let until = Instant::now() + patience;
    while wakes.try_recv().is_err() {
        assert!(Instant::now() < until, "no change was told");
        folder.write("a.js", "x");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(watcher.take().expect("a change").path, folder.0.join("a.js"));
    for name in ["b.js", "c.js", "sub/d.js"] {
        folder.write(name, "");
    }
    wakes.recv_timeout(patience).expect("told");
    let mut change = watcher.take().expect("a change");
    // The last change of the loop above may be reported first, on its own.
    while change.path == folder.0.join("a.js") && change.others == 0 {
        wakes.recv_timeout(patience).expect("told");
        change = watcher.take().expect("a change");
    }
    assert!(change.others >= 2, "{change:?}");
    drop(watcher);
    assert!(wakes.recv_timeout(patience).is_err(), "the thread has ended, and nothing was told");
}

#[test]
fn the_log_files_of_the_app_itself_do_not_count() {
    let folder = Folder::new();
    folder.write("logs/web.log", "");
    let mut place = folder.place(&["."], &[]);
    let mut counts = |name: &str| place.see(folder.write(name, "x")).is_some();
    assert!(!counts("logs/web.log") && !counts("logs/web-20260131T120000.000Z.log.gz"));
    assert!(counts("logs/other.log") && counts("logs/web-ui.log"));
}
