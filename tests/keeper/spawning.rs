//! Workers: their surroundings, failures to start them, signals, and what they leave behind.
use crate::common::users::is_root;
use crate::common::wait::{alive, wait_end, wait_for};
use crate::fixture::{Fixture, KEEPER_ROLE, children_of};
use clusterd::os::signal;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The value of a line `Name:\tvalue` of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

pub(crate) fn a_worker_gets_clean_surroundings() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    // `exec cat` shows the masks as they were inherited.
    let script = "echo pid $$ pgrp $(cut -d' ' -f5 /proc/$$/stat) > \"$OUT\"; echo args $0 $1 >> \"$OUT\"; \
                  env >> \"$OUT\"; ls -l /proc/$$/fd >> \"$OUT\"; ulimit -n >> \"$OUT\"; \
                  cat /proc/self/status >> \"$OUT\"; echo end >> \"$OUT\"; exec sleep 1000";
    master.tell(json!({"do": "spawn", "worker": 1, "program": "/bin/sh",
        "args": ["sh", "-c", script, "zero", "one"], "env": ["PATH=/usr/bin:/bin", format!("OUT={}", fixture.path("out"))]}));
    let pid = master.expect("spawned")["pid"].clone();
    let out = fixture.output("out");
    assert!(out.starts_with(&format!("pid {pid} pgrp {pid}\nargs zero one\n")), "{out}");
    assert!(!out.contains("CLUSTERD_KEEPER_TEST_CONTROL"), "the keeper's environment leaked: {out}");
    for (name, value) in [("SigBlk", "0000000000000000"), ("SigIgn", "0000000000000000")] {
        assert_eq!(field(&out, name), value, "{name}");
    }
    let fds: Vec<&str> = out.lines().filter(|line| line.contains(" -> ")).collect();
    assert!(fds[0].ends_with("0 -> /dev/null"), "{fds:?}");
    // 0, 1, 2; the shell itself may keep one open for the redirection, above 9.
    let numbers: HashSet<&str> = fds.iter().filter_map(|line| line.split(" -> ").next()?.rsplit(' ').next()).collect();
    assert!(["3", "4", "5", "6", "7", "8", "9"].iter().all(|number| !numbers.contains(number)), "{fds:?}");
    // What the keeper raised for itself is put back.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert!(out.lines().any(|line| line == soft.split_whitespace().next().unwrap()), "{out} lacks {soft}");
}

pub(crate) fn surroundings_are_what_was_ordered() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    let script = "{ pwd; umask; ulimit -n; ulimit -c; echo $$ $LISTEN_PID; env | grep -c LISTEN_PID; } > \"$OUT\"; \
                  echo end >> \"$OUT\"";
    // RLIMIT_NOFILE is 7, RLIMIT_CORE is 4 on every architecture that runs this.
    master.tell(json!({"do": "spawn", "worker": 1, "program": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin", "LISTEN_PID=1", format!("OUT={}", fixture.path("out"))],
        "cwd": "/usr", "umask": 0o27, "listen_pid": true, "rlimits": [[7, 77, 88], [4, 0, 0]]}));
    let pid = master.expect("spawned")["pid"].clone();
    assert_eq!(fixture.output("out"), format!("/usr\n0027\n77\n0\n{pid} {pid}\n1\n"));
}

pub(crate) fn fds_are_placed_whatever_their_numbers() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    // The keeper receives these under low numbers, in order; reversed, nearly each goes where another one is.
    let numbers: Vec<i32> = (1..40).rev().collect();
    let files: Vec<Value> =
        numbers.iter().map(|number| json!([fixture.path(&format!("file-{number}")), number])).collect();
    let script = "for n in $(seq 1 39); do eval \"echo $n >&$n\"; done; readlink /proc/$$/fd/0 >&39; echo end >&39";
    master.tell(json!({"do": "spawn", "worker": 1, "program": "/bin/bash", "args": ["bash", "-c", script],
        "env": ["PATH=/usr/bin:/bin"], "files": files}));
    assert_eq!(fixture.output("file-39"), "39\n/dev/null\n");
    for number in 1..39 {
        let text = std::fs::read_to_string(fixture.path(&format!("file-{number}"))).unwrap();
        assert_eq!(text, format!("{number}\n"));
    }
    assert_eq!(master.expect("exited")["status"], 0);
    // stdin too, and a number far up.
    master.tell(json!({"do": "spawn", "worker": 2, "program": "/bin/bash", "env": ["PATH=/usr/bin:/bin"],
        "args": ["bash", "-c", "readlink /proc/$$/fd/0 >&800; echo end >&800"],
        "files": [[fixture.path("high"), 800], [fixture.path("stdin"), 0]]}));
    assert_eq!(fixture.output("high"), format!("{}\n", fixture.path("stdin")));
}

pub(crate) fn credentials_are_taken_completely() {
    if !is_root() {
        println!("(skipped: only root can become somebody else)");
        return;
    }
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    let spawn = |worker: u64, credentials: Value, cwd: &str| {
        json!({"do": "spawn", "worker": worker, "program": "/bin/sh", "cwd": cwd, "credentials": credentials,
            "args": ["sh", "-c", "cat /proc/self/status > \"$OUT\"; echo end >> \"$OUT\"; exec sleep 1000"],
            "env": ["PATH=/usr/bin:/bin", format!("OUT={}", fixture.path("out"))]})
    };
    master.tell(spawn(1, json!([65_534, 65_533, 7, 8]), "/"));
    let status = fixture.output("out");
    assert_eq!(field(&status, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(field(&status, "Gid"), "65533\t65533\t65533\t65533");
    assert_eq!(field(&status, "Groups"), "7 8");
    // The folder must be open to the worker's user, not to ours.
    let private = fixture.dir.join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    master.tell(spawn(2, json!([65_534, 65_533]), private.to_str().unwrap()));
    let failed = master.expect("spawn-failed");
    assert_eq!((&failed["step"], &failed["errno"]), (&json!("WorkingDirectory"), &json!(13)));
    // Becoming another user clears the parent-death signal: it must be set after that.
    let worker = master.expect_of("spawned", 1)["pid"].as_i64().unwrap() as i32;
    signal::send(fixture.pid(), signal::KILL).unwrap();
    wait_end(worker);
}

pub(crate) fn failures_name_their_step_and_leave_nothing() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    let plain = fixture.path("plain");
    std::fs::write(&plain, "not a program").unwrap();
    let foreign = fixture.path("foreign");
    std::fs::write(&foreign, b"\x7fELF\x02\x01\x01\0\0").unwrap();
    std::fs::set_permissions(&foreign, Permissions::from_mode(0o755)).unwrap();
    let program = |path: &str| json!({"program": path, "args": ["x"]});
    let mut in_nowhere = program("/bin/true");
    in_nowhere["cwd"] = json!("/does/not/exist");
    let mut limited = program("/bin/true");
    limited["rlimits"] = json!([[7, 10, 5]]);
    let mut with_nul = program("/bin/true");
    with_nul["args"] = json!(["a\0b"]);
    let mut far = program("/bin/true");
    far["files"] = json!([[plain, 5000]]);
    let cases = [
        (program("/does/not/exist"), "Exec", 2),
        (program("/etc"), "Exec", 13),
        (program(&plain), "Exec", 13),
        (program(&foreign), "Exec", 8),
        (in_nowhere, "WorkingDirectory", 2),
        (limited, "ResourceLimits", 22),
        (with_nul, "Description", 22),
        (far, "Description", 22),
    ];
    for (index, (mut command, step, errno)) in cases.into_iter().enumerate() {
        let worker = index as u64 + 1;
        command["do"] = json!("spawn");
        command["worker"] = json!(worker);
        master.tell(command.clone());
        let failed = master.expect_of("spawn-failed", worker);
        assert_eq!((&failed["step"], &failed["errno"]), (&json!(step), &json!(errno)), "{command}");
    }
    assert_eq!(children_of(fixture.pid()), [master.pid], "a zombie is left");
    master.script(100, "exec sleep 1000", "");
    master.expect("spawned");
    master.script(100, "exec sleep 1000", "");
    let twice = master.expect_of("spawn-failed", 100);
    assert_eq!((&twice["step"], &twice["errno"]), (&json!("Description"), &json!(17)));
    // An id whose spawn failed left nothing, so it may be used.
    master.script(1, "exit 0", "");
    assert_eq!(master.expect_of("exited", 1)["status"], 0);
    let rest = master.leftovers();
    assert!(rest.iter().all(|value| value["is"] == "spawned" && value["worker"] == 1), "{rest:?}");
}

pub(crate) fn grandchildren_go_with_their_worker() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    let script = "sleep 1000 & echo $! > \"$OUT\"; echo end >> \"$OUT\"; read never < \"$FIFO\"";
    let fifo = fixture.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = script.replace("$FIFO", &fifo);
    master.script(1, &script, &fixture.path("one"));
    master.script(2, &script, &fixture.path("two"));
    let grandchildren = ["one", "two"].map(|name| fixture.output(name).trim().parse::<i32>().unwrap());
    // The first ends by itself, the second is killed as a group.
    master.tell(json!({"do": "signal", "worker": 1, "signal": signal::TERM}));
    assert_eq!(master.expect_of("exited", 1)["status"], signal::TERM);
    wait_end(grandchildren[0]);
    assert!(alive(grandchildren[1]));
    master.tell(json!({"do": "signal", "worker": 2, "signal": signal::KILL, "group": true}));
    assert_eq!(master.expect_of("exited", 2)["status"], signal::KILL);
    wait_end(grandchildren[1]);
}

pub(crate) fn signals_go_only_to_the_living() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, "exit 0", "");
    master.expect("exited");
    for group in [false, true] {
        master.tell(json!({"do": "signal", "worker": 1, "signal": signal::KILL, "group": group}));
        master.tell(json!({"do": "signal", "worker": 77, "signal": signal::KILL, "group": group}));
    }
    master.script(2, "exec sleep 1000", "");
    let pid = master.expect_of("spawned", 2)["pid"].as_i64().unwrap() as i32;
    // A number that is not a signal is refused by the kernel, and reported.
    master.tell(json!({"do": "signal", "worker": 2, "signal": 999}));
    fixture.wait_stderr("cannot send signal 999 to worker 2");
    assert!(alive(pid) && alive(master.pid));
    master.tell(json!({"do": "signal", "worker": 2, "signal": signal::TERM}));
    assert_eq!(master.expect_of("exited", 2)["status"], signal::TERM);
}

pub(crate) fn many_workers_come_and_go() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    const COUNT: u64 = 300;
    for worker in 0..COUNT {
        master.script(worker, "exec sleep 1000", "");
    }
    let pids: HashSet<i64> = (0..COUNT).map(|id| master.expect_of("spawned", id)["pid"].as_i64().unwrap()).collect();
    assert_eq!(pids.len() as u64, COUNT);
    for worker in 0..COUNT {
        master.tell(json!({"do": "signal", "worker": worker, "signal": signal::TERM, "group": true}));
    }
    for worker in 0..COUNT {
        assert_eq!(master.expect_of("exited", worker)["status"], signal::TERM);
        master.tell(json!({"do": "seen", "worker": worker}));
    }
    assert_eq!(master.leftovers(), Vec::<Value>::new());
    assert_eq!(children_of(fixture.pid()), [master.pid]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.pid())).unwrap();
    let data: u64 = field(&status, "RssAnon").trim_end_matches(" kB").parse().unwrap();
    assert!(data < 2_000, "the keeper holds {data} kB of its own");
}

pub(crate) fn as_pid_1_it_reaps_strangers() {
    if !Command::new("unshare").args(["-pf", "true"]).status().is_ok_and(|status| status.success()) {
        println!("(skipped: no permission for a PID namespace)");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let fixture = Fixture::start_as(|_| {
        let mut command = Command::new("unshare");
        command.args(["-pf", "--kill-child"]).arg(&own).arg(KEEPER_ROLE);
        command
    });
    let mut master = fixture.serving();
    let keeper = wait_for("the keeper", || children_of(fixture.pid()).first().copied());
    let out = fixture.path("out");
    // The middle process ends at once; its child, in a session of its own, comes to PID 1 and ends there.
    master.script(1, "(setsid sh -c 'sleep 0.2; echo end > \"$OUT\"' &); exec sleep 1000", &out);
    master.expect("spawned");
    fixture.output("out");
    wait_for("the stranger to be reaped", || (children_of(keeper).len() == 2).then_some(()));
    assert_eq!(master.leftovers(), Vec::<Value>::new());
    // As PID 1 it has no default dispositions to rely on.
    signal::send(keeper, signal::TERM).unwrap();
    assert_eq!(master.expect("signal")["signal"], signal::TERM);
    master.tell(json!({"do": "finish", "code": 0}));
    wait_end(keeper);
}
