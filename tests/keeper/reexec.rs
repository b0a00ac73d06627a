//! The keeper becomes another binary: what it takes along, and what happens when the other one cannot.
use crate::common::wait::{alive, wait_end, wait_for};
use crate::fixture::{Fixture, KEEPER_ROLE, Master};
use clusterd::keeper;
use clusterd::os::signal;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

const SLEEP: &str = "exec sleep 1000";

/// What this binary is like follows from the name of its file.
fn is_called(name: &str) -> bool {
    std::env::current_exe().unwrap().file_name().unwrap() == name
}

/// Whether this binary is to be a clusterd in everything but what is asked here.
pub(crate) fn is_clusterd() -> bool {
    is_called("clusterd-too-old")
}

/// This binary is asked whether it could be the keeper.
pub(crate) fn asked() -> ExitCode {
    let too_old = is_called("too-old") || is_called("clusterd-too-old");
    let answer =
        if too_old { Err("it is too new for me".to_owned()) } else { keeper::check().map_err(|why| why.to_string()) };
    if is_called("silent") {
        loop {
            std::thread::park();
        }
    }
    if is_called("crashing") {
        std::process::abort();
    }
    if is_called("locked-after") {
        // What was checked cannot be executed any more a moment later.
        let own = std::env::current_exe().unwrap();
        fs::set_permissions(own, fs::Permissions::from_mode(0o644)).unwrap();
    }
    match answer {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{}: {why}", keeper::CAN_BE_KEEPER);
            ExitCode::FAILURE
        }
    }
}

/// This binary is to be the keeper.
pub(crate) fn resume(mut args: Vec<OsString>) -> ExitCode {
    if is_called("failing") {
        return keeper::decline(args, "made for this test");
    }
    if is_called("hopeless") {
        // As if it had been sent back to already.
        args[1] = "no way back".into();
        return keeper::decline(args, "made for this test");
    }
    keeper::resume(args)
}

impl Fixture {
    /// A copy of this binary under a name of its own.
    fn copy(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        path
    }

    fn keeper_exe(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/exe", self.pid())).unwrap()
    }

    fn keeper_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// What the system knows of the keeper and must stay: parent, groups, terminal, start, signals, umask, limits, folder.
    fn keeper_surroundings(&self) -> String {
        let file = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap();
        let (stat, status) = (file("stat"), file("status"));
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let kept = ["Uid", "Gid", "Groups", "SigBlk", "SigIgn", "Umask", "Threads", "NoNewPrivs"];
        let lines: Vec<&str> = status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name))).collect();
        let folder = fs::read_link(format!("/proc/{}/cwd", self.pid())).unwrap();
        format!("{:?} {} {lines:?} {} {folder:?}", &fields[1..6], fields[19], file("limits"))
    }

    /// Has the master hand over to a binary; its successor, which serves.
    fn hand_over(&self, mut master: Master, binary: &std::path::Path) -> Master {
        master.tell(json!({"do": "upgrade", "binary": binary}));
        master.sync();
        master.tell(json!({"do": "exit", "code": 0}));
        self.serving()
    }
}

/// What the keeper says of its own part.
fn own_part(master: &mut Master) -> (Value, String) {
    let said = master.expect("keeper");
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
    (said["upgrade"].clone(), said["why"].as_str().unwrap().to_owned())
}

/// A shell's files, a number a line: stdio, and above 9 what it keeps for itself.
fn assert_no_file_of_others(out: &str) {
    assert!(!out.lines().any(|line| ["3", "4", "5", "6", "7", "8", "9"].contains(&line)), "{out}");
}

fn spawned(master: &mut Master, worker: u64) -> i32 {
    master.expect_of("spawned", worker)["pid"].as_i64().unwrap() as i32
}

pub(crate) fn the_keeper_becomes_the_new_binary_and_loses_nothing() {
    let own = std::env::current_exe().unwrap();
    let fixture = Fixture::start_as(|_| {
        // A limit that it raises for itself, and has to put back in workers.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 777; exec \"$0\" \"$@\""]).arg(&own);
        command.arg(KEEPER_ROLE).args(["--workers", "3 of them", ""]);
        command
    });
    let mut master = fixture.serving();
    assert_eq!(master.hello["about"]["upgrade"], "open");
    master.script(1, SLEEP, "");
    let worker = spawned(&mut master, 1);
    master.script(2, "exit 5", "");
    master.expect_of("exited", 2);
    master.tell(json!({"do": "listen", "name": "web"}));
    let web = master.expect("listening");
    master.tell(json!({"do": "note", "key": "k", "value": "v"}));
    master.sync();
    // What our parent leaked to us is gone after the first time; then the number stays.
    let mut files = fixture.keeper_files();
    let surroundings = fixture.keeper_surroundings();
    for name in ["first", "second", "third"] {
        let binary = fixture.copy(name);
        master = fixture.hand_over(master, &binary);
        assert_eq!(master.hello["about"]["upgrade"], "open");
        assert_eq!(own_part(&mut master), (json!("done"), String::new()));
        assert_eq!((fixture.keeper_exe(), fixture.keeper_surroundings()), (binary, surroundings.clone()));
        assert!(fixture.keeper_files() <= files, "files are left open");
        files = fixture.keeper_files();
        assert_eq!(fs::read_to_string(format!("/proc/{}/comm", fixture.pid())).unwrap(), "clusterd\n");
        let out = fixture.path(&format!("out of {name}"));
        // This master did not notice: its orders and news go the same way.
        master.script(3, "ulimit -n > \"$OUT\"; ls /proc/$$/fd >> \"$OUT\"; echo end >> \"$OUT\"", &out);
        master.expect_of("exited", 3);
        master.tell(json!({"do": "seen", "worker": 3}));
        master.sync();
        let out = fixture.output(&format!("out of {name}"));
        assert_eq!(out.lines().next(), Some("777"), "what the keeper raised is not put back");
        assert_no_file_of_others(&out);
        signal::send(fixture.pid(), signal::HUP).unwrap();
        assert_eq!(master.expect("signal")["signal"], signal::HUP);
    }
    let client = TcpStream::connect(("127.0.0.1", web["port"].as_u64().unwrap() as u16)).unwrap();
    master.kill(signal::KILL);
    let mut master = fixture.serving();
    assert_eq!((&master.hello["incarnation"], &master.hello["about"]["upgrade"]), (&json!(5), &json!("done")));
    assert_eq!(master.hello["args"], json!(["--workers", "3 of them", ""]));
    assert_eq!(master.hello["fds"], json!({"web": web["identity"]}));
    assert_eq!(master.hello["notes"], json!({"k": "v"}));
    let children = master.hello["children"].clone();
    assert_eq!(children[0], json!({"worker": 1, "pid": worker, "tag": "tag 1", "status": null}));
    assert_eq!((&children[1]["worker"], &children[1]["status"]), (&json!(2), &json!(5 << 8)));
    master.tell(json!({"do": "serve", "name": "web"}));
    let answer = std::io::read_to_string(client).unwrap();
    assert_eq!(answer, "from master 5");
    assert!(alive(worker));
    // Its children were forked by another binary, and die with it all the same.
    signal::send(fixture.pid(), signal::KILL).unwrap();
    wait_end(worker);
    wait_end(master.pid);
}

pub(crate) fn who_ends_or_calls_while_the_keeper_changes_is_heard() {
    const COUNT: u64 = 150;
    let fixture = Fixture::start();
    let master = fixture.serving();
    let binary = fixture.copy("new");
    let mut master = fixture.hand_over(master, &binary);
    // They end one after the other around the moment of the change, which comes when its master is one second old.
    for worker in 0..COUNT {
        master.script(worker, &format!("exec sleep {:.3}", 0.8 + worker as f64 * 0.003), "");
    }
    let mut number = 0;
    let mut more = 20;
    while more > 0 {
        if fixture.keeper_exe() == binary {
            more -= 1;
        }
        signal::send_with_value(fixture.pid(), signal::USR2, number).unwrap();
        master.expect_where("signal", |said| said["value"] == number);
        number += 1;
    }
    assert_eq!(own_part(&mut master).0, "done");
    for worker in 0..COUNT {
        assert_eq!(master.expect_of("exited", worker)["status"], 0);
    }
    for worker in 0..COUNT {
        spawned(&mut master, worker);
        master.tell(json!({"do": "seen", "worker": worker}));
    }
    assert_eq!(master.leftovers(), Vec::<Value>::new(), "nothing is told twice");
    assert_eq!(crate::fixture::children_of(fixture.pid()), [master.pid], "a zombie is left");
    assert_eq!(fixture.stderr(), "");
}

pub(crate) fn a_binary_that_cannot_be_the_keeper_changes_nothing() {
    let fixture = Fixture::start();
    let before = fixture.keeper_exe();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = spawned(&mut master, 1);
    for (name, wanted) in [
        ("too-old", "the new binary cannot take over from it: it is too new for me"),
        ("crashing", "the new binary is not a clusterd that can take over (it was killed by SIGABRT"),
    ] {
        master = fixture.hand_over(master, &fixture.copy(name));
        let (upgrade, why) = own_part(&mut master);
        assert!(upgrade == "stays" && why.starts_with(wanted), "{upgrade}: {why}");
        fixture.wait_stderr(&format!("clusterd: the keeper stays at version {}: {wanted}", env!("CARGO_PKG_VERSION")));
        assert_eq!(fixture.keeper_exe(), before);
        let master_exe = fs::read_link(format!("/proc/{}/exe", master.pid)).unwrap();
        assert_eq!(master_exe, fixture.dir.join(name), "the master is of the new one all the same");
        // The next master hears of it too.
        master.kill(signal::KILL);
        master = fixture.serving();
        assert_eq!(master.hello["about"]["upgrade"], "stays");
    }
    let good = fixture.copy("good");
    master = fixture.hand_over(master, &good);
    assert_eq!(own_part(&mut master).0, "done");
    assert_eq!((fixture.keeper_exe(), alive(worker)), (good, true));
}

pub(crate) fn a_binary_that_is_silent_is_not_waited_for() {
    let fixture = Fixture::start();
    let before = fixture.keeper_exe();
    let master = fixture.serving();
    let mut master = fixture.hand_over(master, &fixture.copy("silent"));
    // While it is asked, the keeper keeps.
    let asked =
        wait_for("the question", || crate::fixture::children_of(fixture.pid()).into_iter().find(|&p| p != master.pid));
    master.script(1, "exit 3", "");
    assert_eq!(master.expect("exited")["status"], 3 << 8);
    let (upgrade, why) = own_part(&mut master);
    assert_eq!((upgrade, why.as_str()), (json!("stays"), "the new binary gave no answer in 5 s"));
    assert!(!alive(asked) && fixture.keeper_exe() == before);
}

pub(crate) fn a_binary_that_cannot_be_executed_any_more_changes_nothing() {
    let fixture = Fixture::start();
    let before = fixture.keeper_exe();
    let master = fixture.serving();
    let files = fixture.keeper_files();
    let mut master = fixture.hand_over(master, &fixture.copy("locked-after"));
    let (upgrade, why) = own_part(&mut master);
    assert_eq!(upgrade, "stays");
    assert!(why.starts_with("the new binary cannot be executed: Permission denied"), "{why}");
    assert_eq!((fixture.keeper_exe(), fixture.keeper_files()), (before, files));
    // Nobody else gets what it would have handed over.
    master.script(1, "ls /proc/$$/fd > \"$OUT\"; echo end >> \"$OUT\"", &fixture.path("out"));
    let out = fixture.output("out");
    assert_no_file_of_others(&out);
}

pub(crate) fn a_binary_that_fails_after_all_hands_back() {
    let fixture = Fixture::start();
    let before = fixture.keeper_exe();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = spawned(&mut master, 1);
    let files = fixture.keeper_files();
    let mut master = fixture.hand_over(master, &fixture.copy("failing"));
    let (upgrade, why) = own_part(&mut master);
    let wanted = "the new binary said that it can take over, and could not: made for this test";
    assert_eq!((upgrade, why.as_str()), (json!("stays"), wanted));
    assert_eq!((fixture.keeper_exe(), alive(worker)), (before, true));
    assert!(fixture.keeper_files() <= files);
    fixture.wait_stderr("the new binary cannot be the keeper (made for this test); the previous one continues");
    master.kill(signal::KILL);
    let mut master = fixture.serving();
    assert_eq!(master.hello["children"][0]["pid"], worker);
    assert_eq!(master.hello["about"]["why"], wanted);
    master.tell(json!({"do": "signal", "worker": 1, "signal": signal::TERM}));
    assert_eq!(master.expect("exited")["status"], signal::TERM);
}

pub(crate) fn a_second_upgrade_before_the_first_is_through_is_the_one() {
    let fixture = Fixture::start();
    let master = fixture.serving();
    let silent = fixture.hand_over(master, &fixture.copy("silent"));
    let asked =
        wait_for("the question", || crate::fixture::children_of(fixture.pid()).into_iter().find(|&p| p != silent.pid));
    let second = fixture.copy("second");
    let mut master = fixture.hand_over(silent, &second);
    wait_end(asked);
    assert_eq!(own_part(&mut master), (json!("done"), String::new()));
    assert_eq!(fixture.keeper_exe(), second);
    assert_eq!(fixture.stderr(), "");
}

pub(crate) fn a_keeper_that_cannot_go_on_at_all_says_what_ends() {
    let mut fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = spawned(&mut master, 1);
    let master = fixture.hand_over(master, &fixture.copy("hopeless"));
    assert_eq!(fixture.exit_code(), Some(1));
    fixture.wait_stderr("the keeper cannot continue (made for this test): the master and all workers end");
    wait_end(worker);
    wait_end(master.pid);
}

pub(crate) fn the_command_says_that_the_keeper_stays() {
    let dir = std::env::temp_dir().join(format!("clusterd-reexec-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let binary = dir.join("clusterd-too-old");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let clusterd = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
        command.args(args).current_dir(&dir).env("CLUSTERD_HOME", &dir).stdin(Stdio::null());
        command
    };
    let args = ["-w", "1", "--protocol", "none", "--ready", "1ms", "-n", "web", "--", "sleep", "1000"];
    let mut keeper = clusterd(&args).stderr(Stdio::null()).spawn().unwrap();
    let list = || -> Value { serde_json::from_slice(&clusterd(&["ls", "--json"]).output().unwrap().stdout).unwrap() };
    let before = wait_for("a worker", || {
        let pid = list()[0]["apps"][0]["workers"][0].clone();
        (pid["state"] == "ready").then(|| pid["pid"].clone())
    });
    let done = clusterd(&["upgrade", "--binary", binary.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    // The upgrade of the master counts.
    assert!(done.status.success(), "{said}");
    let wanted = format!(
        "serves; the keeper stays at version {}: the new binary cannot take over from it: it is too new for me",
        env!("CARGO_PKG_VERSION")
    );
    assert!(said.contains(&wanted), "{said}");
    let view = list()[0].clone();
    assert_eq!((&view["upgrade"]["ok"], &view["upgrade"]["keeper"]), (&json!(true), &json!(false)));
    assert_eq!(view["apps"][0]["workers"][0]["pid"], before);
    let exe = |pid: &Value| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!((exe(&view["master_pid"]), exe(&view["keeper_pid"])), (binary, env!("CARGO_BIN_EXE_clusterd").into()));
    assert!(clusterd(&["stop", "web"]).output().unwrap().status.success());
    assert!(keeper.wait().unwrap().success());
    fs::remove_dir_all(&dir).unwrap();
}
