//! Masters: how they begin, die, hang, and what the next one finds.
use crate::common::wait::{alive, wait_end, wait_for};
use crate::fixture::{Fixture, KEEPER_ROLE};
use clusterd::os::signal;
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

const SLEEP: &str = "exec sleep 1000";

pub(crate) fn args_pass_through_and_finish_is_the_exit_code() {
    let mut fixture = Fixture::start();
    let mut master = fixture.serving();
    assert_eq!(master.hello["args"], json!(["--workers", "3 of them", ""]));
    assert_eq!(master.hello["incarnation"], 1);
    assert_eq!(master.hello["previous_end"], "");
    for part in ["children", "fds", "notes"] {
        let empty = master.hello[part].as_array().is_some_and(Vec::is_empty)
            || master.hello[part].as_object().is_some_and(serde_json::Map::is_empty);
        assert!(empty, "{part}");
    }
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].as_i64().unwrap() as i32;
    assert!(alive(worker));
    master.tell(json!({"do": "finish", "code": 7}));
    assert_eq!(fixture.exit_code(), Some(7));
    assert!(!alive(worker) && !alive(master.pid), "the keeper ended before what it had killed");
    assert_eq!(fixture.stderr(), "");
}

pub(crate) fn a_first_master_that_dies_ends_everything() {
    let mut fixture = Fixture::start();
    let mut master = fixture.master();
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].as_i64().unwrap() as i32;
    master.tell(json!({"do": "exit", "code": 3}));
    assert_eq!(fixture.exit_code(), Some(1));
    assert!(!alive(worker));
    let said = format!("clusterd: the master (pid {}) exited with code 3 before it was ready; giving up\n", master.pid);
    assert_eq!(fixture.stderr(), said);
}

pub(crate) fn a_hung_master_is_replaced() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].clone();
    master.kill(signal::STOP);
    let stopped = Instant::now();
    let mut next = fixture.master();
    assert!(stopped.elapsed() > Duration::from_secs(3), "judged too soon: {:?}", stopped.elapsed());
    assert_eq!(next.hello["incarnation"], 2);
    assert_eq!(next.hello["previous_end"], "sent no heartbeat for 5 s and was killed");
    assert_eq!(next.hello["children"][0]["pid"], worker);
    next.tell(json!({"do": "ready"}));
    fixture.wait_stderr("sent no heartbeat for 5 s and was killed; started again in ");
    fixture.wait_stderr(" ms, 1 worker kept");
}

pub(crate) fn exits_repeat_until_seen() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, "exit 5", "");
    master.script(2, SLEEP, "");
    master.script(3, "kill -9 $$", "");
    let sleeper = master.expect_of("spawned", 2)["pid"].clone();
    assert_eq!(master.expect_of("exited", 1)["status"], 5 << 8);
    assert_eq!(master.expect_of("exited", 3)["status"], 9);
    master.kill(signal::KILL);
    let mut master = fixture.serving();
    assert_eq!(master.hello["previous_end"], "was killed by SIGKILL");
    let summary = |hello: &Value| -> Vec<(u64, Value)> {
        let children = hello["children"].as_array().unwrap().iter();
        children.map(|child| (child["worker"].as_u64().unwrap(), child["status"].clone())).collect()
    };
    assert_eq!(summary(&master.hello), [(1, json!(5 << 8)), (2, Value::Null), (3, json!(9))]);
    assert_eq!(master.hello["children"][1]["pid"], sleeper);
    assert_eq!(master.hello["children"][1]["tag"], "tag 2");
    master.tell(json!({"do": "seen", "worker": 1}));
    // It lives: this says nothing.
    master.tell(json!({"do": "seen", "worker": 2}));
    master.sync();
    master.kill(signal::KILL);
    let mut master = fixture.serving();
    assert_eq!(master.hello["incarnation"], 3);
    assert_eq!(summary(&master.hello), [(2, Value::Null), (3, json!(9))]);
    assert_eq!(master.leftovers(), Vec::<Value>::new(), "what was inherited is not told again");
}

pub(crate) fn fds_and_notes_come_back() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.tell(json!({"do": "listen", "name": "web"}));
    let web = master.expect("listening");
    master.tell(json!({"do": "listen", "name": "gone"}));
    master.expect("listening");
    master.tell(json!({"do": "release", "name": "gone"}));
    master.tell(json!({"do": "release", "name": "never there"}));
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        master.tell(json!({"do": "note", "key": key, "value": value}));
    }
    master.tell(json!({"do": "forget", "key": "c"}));
    master.sync();
    master.kill(signal::KILL);
    // The queue is the kernel's: a client that comes now waits for the next master.
    let mut client = TcpStream::connect(("127.0.0.1", web["port"].as_u64().unwrap() as u16)).unwrap();
    let mut master = fixture.serving();
    assert_eq!(master.hello["fds"], json!({"web": web["identity"]}));
    assert_eq!(master.hello["notes"], json!({"a": "3", "b": "2"}));
    master.tell(json!({"do": "serve", "name": "web"}));
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "from master 2");
}

pub(crate) fn many_large_notes_come_back() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    for n in 0..200 {
        master.tell(json!({"do": "big-note", "key": format!("{n}"), "bytes": 40_000}));
    }
    master.sync();
    master.kill(signal::KILL);
    let master = fixture.serving();
    let notes = master.hello["notes"].as_object().unwrap();
    assert_eq!(notes.len(), 200);
    assert!(notes.values().all(|value| value.as_str().unwrap().len() == 40_000));
}

pub(crate) fn signals_reach_the_master_with_their_value() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    signal::send_with_value(fixture.pid(), signal::USR2, -7).unwrap();
    let got = master.expect("signal");
    assert_eq!((&got["signal"], &got["value"]), (&json!(signal::USR2), &json!(-7)));
    let plain = [signal::HUP, signal::USR1, signal::USR2, signal::TTIN, signal::TTOU, signal::TERM, signal::INT];
    for number in plain {
        signal::send(fixture.pid(), number).unwrap();
        let got = master.expect("signal");
        assert_eq!((&got["signal"], &got["value"]), (&json!(number), &Value::Null));
    }
}

pub(crate) fn signals_survive_a_master_that_did_not_read_them() {
    let fixture = Fixture::start();
    let master = fixture.serving();
    master.kill(signal::STOP);
    signal::send(fixture.pid(), signal::HUP).unwrap();
    signal::send_with_value(fixture.pid(), signal::USR2, 9).unwrap();
    // The keeper took them when they are no longer pending.
    wait_for("the keeper to take its signals", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.pid())).unwrap();
        status.contains("ShdPnd:\t0000000000000000").then_some(())
    });
    master.kill(signal::KILL);
    let mut next = fixture.serving();
    assert_eq!(next.expect("signal")["signal"], signal::HUP);
    assert_eq!(next.expect("signal")["value"], 9);
}

pub(crate) fn orders_of_a_dead_master_are_carried_out() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    signal::send(fixture.pid(), signal::STOP).unwrap();
    master.tell(json!({"do": "note", "key": "last", "value": "words"}));
    master.tell(json!({"do": "listen", "name": "late"}));
    master.script(5, SLEEP, "");
    master.tell(json!({"do": "spawn", "worker": 6, "program": "/does/not/exist", "args": ["x"]}));
    master.sync();
    master.kill(signal::KILL);
    wait_end(master.pid);
    signal::send(fixture.pid(), signal::CONT).unwrap();
    let mut master = fixture.serving();
    assert_eq!(master.hello["notes"]["last"], "words");
    assert!(master.hello["fds"]["late"].is_array());
    // Both may still be about to execute their programs.
    assert_eq!(master.hello["children"][0]["worker"], 5);
    assert_eq!(master.expect_of("spawn-failed", 6)["step"], "Exec");
    let pid = master.hello["children"][0]["pid"].as_i64().unwrap() as i32;
    assert!(alive(pid));
}

pub(crate) fn a_crashing_master_backs_off_and_workers_live() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].clone();
    master.tell(json!({"do": "exit", "code": 0}));
    let begun = Instant::now();
    let mut asked = begun;
    let mut fastest = Duration::MAX;
    for incarnation in 2..=5 {
        let mut master = fixture.master();
        fastest = fastest.min(asked.elapsed());
        asked = Instant::now();
        assert_eq!(master.hello["incarnation"], incarnation);
        assert_eq!(master.hello["children"][0]["pid"], worker);
        assert_eq!(master.hello["previous_end"], "exited with code 0");
        if incarnation < 5 {
            master.tell(json!({"do": "exit", "code": 0}));
        } else {
            master.tell(json!({"do": "ready"}));
        }
    }
    // At least the waits before the third, fourth and fifth; the second may have come after a second of life.
    assert!(begun.elapsed() > Duration::from_millis(50 + 100 + 200), "{:?}", begun.elapsed());
    // A new master once heard only at the keeper's next tick what it inherits.
    assert!(fastest < Duration::from_millis(900), "the fastest master took {fastest:?}");
    fixture.wait_stderr("ms, 1 worker kept");
    assert!(fixture.stderr().contains("exited with code 0; starting it again in "), "{}", fixture.stderr());
    assert!(alive(worker.as_i64().unwrap() as i32));
}

pub(crate) fn the_death_of_the_keeper_takes_everything_down() {
    let mut fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    master.script(2, "trap '' TERM INT HUP; while :; do sleep 1; done", "");
    let workers = [1, 2].map(|id| master.expect_of("spawned", id)["pid"].as_i64().unwrap() as i32);
    fixture.keeper.kill().unwrap();
    fixture.keeper.wait().unwrap();
    for pid in workers.into_iter().chain([master.pid]) {
        wait_end(pid);
    }
}

pub(crate) fn stop_now_has_a_deadline() {
    let mut fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].as_i64().unwrap() as i32;
    let asked = Instant::now();
    signal::send(fixture.pid(), signal::QUIT).unwrap();
    assert_eq!(master.expect("signal")["signal"], signal::QUIT);
    // This master does nothing about it.
    assert_eq!(fixture.exit_code(), Some(1));
    assert!(asked.elapsed() >= Duration::from_secs(10));
    assert!(!alive(worker) && !alive(master.pid));
    assert!(fixture.stderr().contains("processes still run 10 s after the stop"), "{}", fixture.stderr());
}

pub(crate) fn garbage_is_ignored() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.tell(json!({"do": "garbage", "worker": 9}));
    assert_eq!(master.expect_of("spawn-failed", 9)["step"], "Description");
    master.script(1, "exit 4", "");
    assert_eq!(master.expect_of("exited", 1)["status"], 4 << 8);
    assert_eq!(master.hello["incarnation"], 1);
    let said = fixture.stderr();
    assert!(said.contains("damaged order") && said.contains("unknown kind 240"), "{said}");
    assert!(said.contains("cannot hold \"without fd\""), "{said}");
}

pub(crate) fn sockets_of_systemd_are_held() {
    let own = std::env::current_exe().unwrap();
    let fixture = Fixture::start_as(|dir| {
        let script = "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:admin; \
                      exec \"$1\" \"$2\" 3>\"$3/one\" 4>\"$3/two\" 5>\"$3/leaked\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).arg(&own).arg(KEEPER_ROLE).arg(dir);
        command
    });
    let mut master = fixture.serving();
    for _ in 0..2 {
        let held = master.hello["fds"].as_object().unwrap();
        let mut names: Vec<_> = held.keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["inherited/0/web", "inherited/1/admin"]);
        master.kill(signal::KILL);
        master = fixture.serving();
    }
    // Nobody gets what our parent leaked to us.
    let fds = std::fs::read_dir(format!("/proc/{}/fd", master.pid)).unwrap().flatten();
    let targets: Vec<_> = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    assert!(!targets.contains(&fixture.dir.join("leaked")), "{targets:?}");
    let env = std::fs::read(format!("/proc/{}/environ", master.pid)).unwrap();
    assert!(!String::from_utf8_lossy(&env).contains("LISTEN_"));
}

pub(crate) fn an_upgrade_starts_the_new_binary_at_once() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].clone();
    master.tell(json!({"do": "upgrade", "binary": std::env::current_exe().unwrap()}));
    master.sync();
    master.tell(json!({"do": "exit", "code": 0}));
    let next = fixture.serving();
    assert_eq!((&next.hello["incarnation"], &next.hello["children"][0]["pid"]), (&json!(2), &worker));
    assert_eq!(next.hello["previous_end"], "exited with code 0");
    assert_eq!(fixture.stderr(), "", "an intended end is not reported");
}

pub(crate) fn an_upgrade_that_does_not_serve_is_taken_back() {
    let fixture = Fixture::start();
    let mut master = fixture.serving();
    master.script(1, SLEEP, "");
    let worker = master.expect("spawned")["pid"].clone();
    // Runs, and is not a master.
    master.tell(json!({"do": "upgrade", "binary": "/bin/false"}));
    master.sync();
    master.tell(json!({"do": "exit", "code": 0}));
    let next = fixture.serving();
    assert_eq!((&next.hello["incarnation"], &next.hello["children"][0]["pid"]), (&json!(3), &worker));
    assert_eq!(next.hello["previous_end"], "exited with code 1");
    fixture.wait_stderr("exited with code 1 right after the upgrade; going back to the previous binary");
}

/// A keeper whose masters die as soon as they begin is told to end; how it did.
fn end_without_masters(signal: i32) -> (Fixture, Option<i32>, Duration) {
    let mut fixture = Fixture::start();
    let mut master = fixture.serving();
    let polite = "trap 'echo asked > \"$OUT\"; echo end >> \"$OUT\"; exit 0' TERM; while :; do sleep 0.05; done";
    master.script(1, polite, &fixture.path("polite"));
    master.script(2, "trap '' TERM; while :; do sleep 0.05; done", "");
    let pids = [1, 2].map(|worker| master.expect_of("spawned", worker)["pid"].as_i64().unwrap() as i32);
    master.kill(signal::KILL);
    drop(master);
    drop(fixture.master());
    signal::send(fixture.pid(), signal).unwrap();
    let asked = Instant::now();
    let code = fixture.exit_code_without_masters();
    assert!(pids.iter().all(|&pid| !alive(pid)), "workers live on");
    assert_eq!(fixture.output("polite"), "asked\n", "it was not asked first");
    (fixture, code, asked.elapsed())
}

pub(crate) fn a_stop_ends_everything_when_no_master_serves() {
    let (fixture, code, took) = end_without_masters(signal::TERM);
    assert_eq!(code, Some(1));
    assert!((9..16).contains(&took.as_secs()), "{took:?}");
    fixture.wait_stderr("no master has served for 10 s to carry out the stop; ending everything");
}

pub(crate) fn a_stop_now_ends_everything_when_no_master_serves() {
    let (fixture, code, took) = end_without_masters(signal::QUIT);
    assert_eq!(code, Some(1));
    assert!((9..16).contains(&took.as_secs()), "{took:?}");
    fixture.wait_stderr("processes still run 10 s after the stop; killing them");
}
