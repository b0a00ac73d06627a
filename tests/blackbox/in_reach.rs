//! What runs stays within reach: its control socket, its log, its name, and what a service manager is told.
use super::background::Home;
use super::client::get;
use super::cluster::{Cluster, Folder, command, kill, wait_until};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn nothing_is_started_where_no_verb_could_reach_it() {
    let home = Home::new();
    let long = home.folder.path().join("h".repeat(110));
    let start = command(&home.folder)
        .env("CLUSTERD_HOME", &long)
        .args(["start", "-n", "job", "--ready", "1ms", "--", "sh", "-c", "echo > up; exec sleep 1000"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&start.stderr).into_owned();
    assert!(start.status.code() == Some(1) && said.contains("set a shorter CLUSTERD_HOME"), "{said}");
    assert!(!home.folder.path().join("up").exists());
}

#[test]
fn a_control_socket_that_was_removed_is_bound_again() {
    let home = Home::new();
    home.web("web", "1");
    let socket = home.folder.path().join("home/run/web.sock");
    for _ in 0..2 {
        fs::remove_file(&socket).unwrap();
        wait_until("the control socket is there again", || home.run(&["ls"]).1.contains("web"));
    }
    assert!(home.run(&["logs", "web", "--nostream"]).0 == 0);
    // A successor serves the socket that is there.
    let master = home.deployments()[0].master_pid;
    kill(master, "KILL");
    wait_until("its successor", || home.deployments().iter().any(|d| d.master_restarts == 1));
    home.ok(&["delete", "web"]);
    assert!(!socket.exists());
}

#[test]
fn an_app_may_be_called_as_a_file_of_the_home() {
    let home = Home::new();
    for name in ["registry", "run"] {
        home.ok(&["start", "-n", name, "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
        assert_eq!(home.app(name).workers_ready, 1);
    }
}

#[test]
fn the_log_of_clusterd_itself_is_opened_again_and_emptied() {
    let home = Home::new();
    home.web("web", "1");
    let log = home.folder.path().join("home/logs/web.clusterd.log");
    let moved = home.folder.path().join("moved.log");
    fs::rename(&log, &moved).unwrap();
    home.ok(&["reloadLogs"]);
    home.ok(&["reload", "web"]);
    assert!(fs::read_to_string(&log).unwrap().contains("reloaded"), "by the master");
    let length = fs::metadata(&moved).unwrap().len();
    // The keeper says that a master was killed.
    kill(home.deployments()[0].master_pid, "KILL");
    wait_until("the keeper's line", || fs::read_to_string(&log).unwrap().contains("started again in"));
    assert_eq!(fs::metadata(&moved).unwrap().len(), length);
    home.ok(&["flush", "web"]);
    assert!(!fs::read_to_string(&log).unwrap().contains("started again in"));
}

#[test]
fn a_start_that_a_stop_overtook_fails_and_says_so() {
    let home = Home::new();
    let script = home.folder.write("never.js", "console.log('up'); setInterval(() => {}, 1000)");
    let start = command(&home.folder)
        .args(["start", &script, "-n", "slow", "-i", "1", "-p", "0", "--ready-timeout", "100s"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("its first word", || home.run(&["logs", "slow", "--nostream"]).1.contains("up"));
    home.ok(&["stop", "slow"]);
    let ended = start.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("slow was stopped"), "{said}");
}

#[test]
fn an_app_that_chose_its_unix_socket_starts_again_after_its_keeper_was_killed() {
    let home = Home::new();
    let app = "require('http').createServer((q, a) => a.end('x')).listen('app.sock')";
    home.folder.write("app.js", app);
    home.ok(&["start", "app.js", "-n", "web", "-i", "1"]);
    let keeper = home.deployments()[0].keeper_pid;
    kill(keeper, "KILL");
    wait_until("its end", || home.run(&["ls"]).1.contains("gone"));
    assert!(home.folder.path().join("app.sock").exists(), "nobody removed it");
    home.ok(&["start", "web"]);
    assert_eq!(home.app("web").workers_ready, 1);
}

#[test]
fn a_service_manager_is_told_what_happens() {
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.path().join("manager")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let news = || std::iter::repeat_with(heard).find(|said| said != "WATCHDOG=1").unwrap();
    let app = "require('http').createServer((q, a) => a.end(`${process.env.WATCHDOG_USEC}`)).listen(process.env.PORT, '127.0.0.1')";
    folder.write("app.js", app);
    let at = folder.path().join("manager");
    let mut cluster = Cluster::start_in(folder, &["-w", "2", "-p", "0", "--", "node", "app.js"], |command| {
        command.env("NOTIFY_SOCKET", at).env("WATCHDOG_USEC", "200000");
    });
    let serving = "READY=1\nSTATUS=Serving";
    assert_eq!(news(), serving);
    assert_eq!(cluster.app().workers_ready, 2);
    assert!(get(cluster.address(), "/").unwrap().ends_with("undefined"), "the watchdog is the keeper's");
    // They come as long as the keeper lives.
    assert_eq!([heard(), heard()], ["WATCHDOG=1", "WATCHDOG=1"]);

    let monotonic_us = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
        u64::try_from(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000).unwrap()
    };
    let before_us = monotonic_us();
    cluster.signal("HUP");
    let said = news();
    let from_us =
        said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix("\nSTATUS=Reloading"));
    let from_us: u64 = from_us.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    assert!((before_us..=monotonic_us()).contains(&from_us), "{from_us} is not after {before_us}");
    assert_eq!(news(), serving);
    let app = cluster.app();
    assert_eq!((app.generation, app.workers_ready), (2, 2));

    // A reload that is refused ends too.
    cluster.folder.write("app.js", "throw new Error('broken')");
    cluster.signal("HUP");
    assert!(news().starts_with("RELOADING=1"));
    assert_eq!(news(), serving);

    kill(cluster.master_pid(), "KILL");
    assert_eq!(news(), "STATUS=The master was killed by SIGKILL; starting another one");
    assert_eq!(news(), serving);
    cluster.signal("TERM");
    assert!(news().starts_with("STOPPING=1\n"));
    assert_eq!(cluster.wait_exit(), 0);
}

#[test]
fn the_workers_that_a_reload_adds_are_waited_for() {
    let home = Home::new();
    home.folder.write(
        "web.js",
        "const added = process.env.CLUSTERD_SLOT > 0;
         if (added && require('fs').existsSync('broken')) process.exit(5);
         const serve = () => require('http').createServer((q, a) => a.end()).listen(0, '127.0.0.1');
         added ? setTimeout(serve, 1000) : serve()",
    );
    let configure = |workers: u32| {
        let app = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"web.js\"]\nprotocol = \"node\"\n";
        home.folder.write("c.toml", &format!("{app}workers = {workers}\n[app.restart]\nmax_restarts = 1\n"));
    };
    configure(1);
    home.ok(&["start", "c.toml"]);
    configure(3);
    home.ok(&["reload", "web"]);
    assert_eq!(home.app("web").workers_ready, 3);
    configure(1);
    home.ok(&["reload", "web"]);
    home.folder.write("broken", "");
    configure(2);
    let said = home.fails(&["reload", "web"]);
    assert!(said.contains("web: reloaded, but 1 of 2 workers serve; web/1 failed"), "{said}");
    assert!(said.contains("exited with code 5"), "{said}");
}

#[test]
fn every_address_and_those_of_one_family_are_shown_as_they_are() {
    let home = Home::new();
    for (name, listen) in [("any", "0"), ("four", "0.0.0.0:0"), ("six", "[::]:0")] {
        if name == "six" && std::net::TcpListener::bind("[::1]:0").is_err() {
            eprintln!("skipped: there is no IPv6 here");
            continue;
        }
        home.ok(&["start", &super::apps::hello(), "-n", name, "-i", "1", "-l", listen]);
        let shown = home.app(name).listen;
        let host = listen.rsplit_once(':').map_or("*", |(host, _)| host);
        assert!(shown.len() == 1 && shown[0].starts_with(&format!("{host}:")), "{name}: {shown:?}");
    }
    let asked = home.folder.write("asked.js", "require('http').createServer().listen(0, '0.0.0.0')");
    home.ok(&["start", &asked, "-n", "asked", "-i", "1"]);
    assert!(home.app("asked").listen[0].starts_with("0.0.0.0:"));
}
