//! Lines to the stdin of workers: `send`, `attach`, and what a worker that does not read costs.
use super::background::{Home, address};
use super::client::get;
use super::cluster::{command, kill, wait_until};
use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};

/// Prints each line of its stdin, with the slot.
const ECHO: &str = "let text = ''; process.stdin.on('data', (data) => { text += data; const lines = text.split('\\n'); \
                    text = lines.pop(); for (const line of lines) console.log(`${process.env.CLUSTERD_SLOT}:${line};`) }); \
                    process.stdin.on('end', () => console.log('end;')); \
                    require('http').createServer((q, a) => a.end('here')).listen(0, '127.0.0.1')";

fn printed(home: &Home, app: &str) -> String {
    fs::read_to_string(home.folder.path().join(format!("home/logs/{app}-out.log"))).unwrap_or_default()
}

fn attach(home: &Home, target: &str) -> Child {
    command(&home.folder)
        .args(["attach", target])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(home.folder.path().join("shown")).unwrap())
        .stderr(fs::File::create(home.folder.path().join("said")).unwrap())
        .spawn()
        .unwrap()
}

#[test]
fn lines_reach_all_workers_or_one_also_after_the_master_died() {
    let home = Home::new();
    home.folder.write("echo.js", ECHO);
    home.ok(&["start", "echo.js", "-i", "2", "--stdin"]);
    assert!(home.app("echo").stdin);
    assert!(home.ok(&["send", "echo", "to", "both"]).contains("sent to echo/0, echo/1"));
    wait_until("both have it", || {
        printed(&home, "echo").contains("0:to both;") && printed(&home, "echo").contains("1:to both;")
    });
    let before = home.deployments()[0].clone();
    kill(before.master_pid, "KILL");
    wait_until("the next master", || home.deployments().first().is_some_and(|d| d.master_pid != before.master_pid));
    home.ok(&["send", "echo/1", "to one"]);
    wait_until("it has it", || printed(&home, "echo").contains("1:to one;"));
    home.ok(&["reload", "echo"]);
    home.ok(&["send", "0", "renewed"]);
    wait_until("the new workers have it", || printed(&home, "echo").contains("0:renewed;"));
    let text = printed(&home, "echo");
    assert!(!text.contains("0:to one") && !text.contains("end;"), "{text}");
    assert!(home.fails(&["send", "echo/7", "x"]).contains("echo has no worker 7"));
    assert!(home.fails(&["send", "echo", &"x".repeat(4096)]).contains("at most 4095 bytes"));
}

#[test]
#[ignore = "long: a worker that reads nothing, for seconds"]
fn a_worker_that_does_not_read_its_stdin_costs_its_sender_an_error_and_nobody_anything() {
    let home = Home::new();
    home.folder.write("deaf.js", "require('http').createServer((q, a) => a.end('here')).listen(0, '127.0.0.1')");
    home.folder
        .write("none.js", "require('fs').closeSync(0); require('http').createServer((q, a) => a.end()).listen(0)");
    home.ok(&["start", "deaf.js", "--stdin"]);
    let line = "x".repeat(4000);
    let refused = (0..64).map(|_| home.run(&["send", "deaf", &line])).find(|(code, ..)| *code == 1);
    let (_, _, said) = refused.expect("the pipe was never full");
    assert!(said.contains("deaf/0 does not read its stdin: 65536 bytes wait there already"), "{said}");
    let app = home.app("deaf");
    assert!(get(address(&app), "/").unwrap().contains("here"));
    assert_eq!(app.workers[0].restarts, 0);
    home.ok(&["start", "none.js", "--stdin"]);
    wait_until("its end is closed", || home.run(&["send", "none", "x"]).2.contains("none/0 has closed its stdin"));
    // Without the setting it is /dev/null.
    home.folder.write("null.js", "console.log('read ' + require('fs').readFileSync(0).length); require('http').createServer((q, a) => a.end()).listen(0)");
    home.ok(&["start", "null.js"]);
    wait_until("it has read nothing", || printed(&home, "null").contains("read 0"));
    let said = home.fails(&["send", "null", "x"]);
    assert!(said.contains("stdin = true") && said.contains("--stdin"), "{said}");
}

#[test]
fn programs_of_every_protocol_have_a_stdin() {
    let home = Home::new();
    let cat = ["-n", "cat", "-i", "1", "--stdin", "--ready", "1ms"];
    for protocol in ["bind", "listen-fds", "none"] {
        home.ok(&[&["start"][..], &cat, &["--protocol", protocol, "--", "cat"]].concat());
        home.ok(&["send", "cat", protocol]);
        wait_until("its line", || printed(&home, "cat").contains(&format!("{protocol}\n")));
        home.ok(&["delete", "cat"]);
    }
}

#[test]
fn an_attached_terminal_sees_the_output_and_its_end_leaves_the_worker() {
    let home = Home::new();
    home.folder.write("echo.js", ECHO);
    home.ok(&["start", "echo.js", "-n", "one", "-i", "1", "--stdin"]);
    home.ok(&["start", "echo.js", "-n", "two", "-i", "2", "--stdin"]);
    let pid = home.app("one").workers[0].pid;
    let shown = || fs::read_to_string(home.folder.path().join("shown")).unwrap();
    let mut attached = attach(&home, "one");
    attached.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    wait_until("its echo", || shown().contains("0:typed;"));
    kill(attached.id().cast_signed(), "INT");
    assert!(!attached.wait().unwrap().success());
    assert_eq!(home.app("one").workers[0].pid, pid);
    assert!(home.fails(&["attach", "two"]).contains("two has 2 workers; name one: two/0"));
    let mut attached = attach(&home, "two/1");
    // The end of what is typed ends nothing.
    attached.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    wait_until("its echo", || shown().contains("1:typed;"));
    assert!(attached.try_wait().unwrap().is_none());
    kill(attached.id().cast_signed(), "TERM");
    attached.wait().unwrap();
    assert!(!printed(&home, "two").contains("0:typed;"));
}
