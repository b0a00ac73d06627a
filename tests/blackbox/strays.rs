//! Processes that workers start in sessions of their own: no signal to a process group reaches them, and they end all the
//! same.
use super::background::Home;
use super::cluster::{Cluster, Folder, alive, wait_until};

/// Leaves a process in a session of its own, which leaves another one.
const LEAVES: &str = "\
setsid sh -c 'setsid sleep 1000 & echo $! > second; mv second second.pid; exec sleep 1000' & echo $! > first; mv first first.pid
exec sleep 1000
";

fn pid_in(folder: &std::path::Path, name: &str) -> i32 {
    let path = folder.join(name);
    wait_until("a process is left", || path.exists());
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn both(folder: &std::path::Path) -> [i32; 2] {
    ["first.pid", "second.pid"].map(|name| pid_in(folder, name))
}

#[test]
fn what_left_its_session_ends_with_the_deployment() {
    for way in ["TERM", "QUIT"] {
        let folder = Folder::new();
        folder.write("app.sh", LEAVES);
        let mut cluster = Cluster::start_in(folder, &["-w", "1", "--ready", "1ms", "--", "sh", "app.sh"], |_| {});
        cluster.wait_ready(1);
        let left = both(cluster.folder.path());
        assert!(left.iter().all(|pid| alive(*pid)));
        cluster.signal(way);
        cluster.wait_exit();
        assert!(!left.iter().any(|pid| alive(*pid)), "{way}: {left:?}");
    }
}

#[test]
fn what_left_its_session_ends_when_its_app_is_stopped_and_no_other() {
    let home = Home::new();
    let mut left = Vec::new();
    for app in ["one", "two"] {
        home.folder.write(&format!("{app}/app.sh"), LEAVES);
    }
    let app = |name: &str| {
        format!(
            "[[app]]\nname = \"{name}\"\ncommand = [\"sh\", \"app.sh\"]\ncwd = \"{name}\"\nworkers = 1\nready = \"1ms\"\n"
        )
    };
    home.folder.write("site.toml", &(app("one") + &app("two")));
    home.ok(&["start", "site.toml"]);
    for app in ["one", "two"] {
        left.push(both(&home.folder.path().join(app)));
    }
    home.ok(&["stop", "one"]);
    wait_until("what one left has ended", || !left[0].iter().any(|pid| alive(*pid)));
    assert!(left[1].iter().all(|pid| alive(*pid)), "two runs");
    home.ok(&["kill"]);
    wait_until("what two left has ended", || !left[1].iter().any(|pid| alive(*pid)));
}

#[test]
fn what_a_hook_leaves_is_its_own() {
    let folder = Folder::new();
    folder.write("hook.sh", "setsid sleep 1000 > out 2>&1 & echo $! > hook; mv hook hook.pid\n");
    folder.write(
        "cluster.toml",
        "[[app]]\nname = \"web\"\ncommand = [\"sleep\", \"1000\"]\nworkers = 1\nready = \"1ms\"\n\
         [app.hooks]\nworker_ready = [\"sh\", \"hook.sh\"]\n",
    );
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    let left = pid_in(cluster.folder.path(), "hook.pid");
    cluster.stop();
    assert!(alive(left));
    super::cluster::kill(left, "KILL");
}
