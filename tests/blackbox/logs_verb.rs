//! `clusterd logs`: the last lines, then what comes, over restarts and rotation; and what it says when there is nothing.
use super::background::Home;
use super::cluster::{Cluster, Folder, PATIENCE, command, kill, wait_until};
use super::logs::{deployment, read, running, shell};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A `clusterd logs` that follows.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(cluster: &Cluster, args: &[&str]) -> Following {
        let mut child = command(&cluster.folder)
            .arg("logs")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Following { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("one more line")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shown(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    let output = cluster.cli(&[&["logs", "--nostream"], args].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn refused(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.cli(&[&["logs", "--nostream"], args].concat());
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Prints its slot, ten numbers to stdout and one line to stderr; the replacement of a killed worker starts again.
fn counting() -> String {
    shell("for n in 1 2 3 4 5 6 7 8 9 10; do echo $CLUSTERD_SLOT $n; done; echo oops >&2; exec sleep 1000")
}

#[test]
fn the_last_lines_of_each_file_are_shown_and_filtered() {
    let cluster = running(&counting(), 2, "log = { out = \"o.log\", err = \"e.log\", per_worker = true }");
    wait_until("all lines", || (0..2).all(|n| !read(&cluster, &format!("e-{n}.log")).is_empty()));
    let all = shown(&cluster, &[]);
    assert_eq!(all.len(), 22, "{all:?}");
    for line in ["web/0 | 0 10", "web/1 | 1 1", "web/0 | oops", "web/1 | oops"] {
        assert!(all.iter().any(|l| l == line), "{line}: {all:?}");
    }
    assert_eq!(shown(&cluster, &["web", "--worker", "1", "--out", "--lines", "2", "--raw"]), ["1 9", "1 10"]);
    assert_eq!(shown(&cluster, &["--err", "--worker", "0"]), ["web/0 | oops"]);
    let json = shown(&cluster, &["--json", "--err", "--worker", "0"]);
    let json: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!((&json["message"], &json["slot"], &json["type"]), (&"oops".into(), &0.into(), &"err".into()));
    assert!(refused(&cluster, &["wbe"]).contains("did you mean \"web\""));
    assert!(refused(&cluster, &["--worker", "7"]).contains("it has no worker in slot 7"));
    cluster.stop();
}

#[test]
fn lines_are_in_the_order_of_their_time_stamps() {
    let script = shell("[ $CLUSTERD_SLOT = 0 ] && sleep 0.3; echo $CLUSTERD_SLOT; exec sleep 1000");
    let keys = "log = { file = \"o.log\", per_worker = true, time = \"YYYY-MM-DD HH:mm:ss.SSS\" }";
    let cluster = running(&script, 2, keys);
    wait_until("two lines", || (0..2).all(|n| !read(&cluster, &format!("o-{n}.log")).is_empty()));
    assert_eq!(shown(&cluster, &["--raw"]), ["1", "0"]);
    let stamped = shown(&cluster, &["--timestamp=[at] YYYY"]);
    assert!(stamped[0].starts_with("at 20") && stamped[0].ends_with("web/1 | 1"), "{stamped:?}");
    cluster.stop();
}

#[test]
fn what_comes_is_shown_over_kills_reloads_and_rotation() {
    let folder = Folder::new();
    let go = folder.path().join("go");
    assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
    // It says each line twelve times: that is more than the file may have.
    let script = "while :; do while read l; do for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $l $n xxxxxxxxxxxxxxxx\
                  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done; done < go; done";
    deployment(
        &folder,
        &shell(script),
        1,
        "log = { file = \"web.log\", max_size = \"1K\", keep = 5, compress = true }",
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    let following = Following::start(&cluster, &["web"]);
    let mut say = std::fs::File::options().read(true).write(true).open(go).unwrap();
    let mut say_and_see = |word: &str| {
        say.write_all(format!("{word}\n").as_bytes()).unwrap();
        for n in 1..=12 {
            let line = following.next();
            assert!(line.starts_with(&format!("web | {word} {n} x")), "{line:?}, not {word} {n}");
        }
    };
    say_and_see("one");
    say_and_see("two");
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    say_and_see("three");
    assert!(cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_ready(1);
    say_and_see("four");
    assert!(cluster.cli(&["flush"]).status.success());
    say_and_see("five");
    wait_until("compressed files", || {
        let names =
            std::fs::read_dir(cluster.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".log.gz")).count() >= 3
    });
    let last = shown(&cluster, &["--lines", "14", "--raw"]);
    assert!(last.len() == 14 && last[13].starts_with("five 12 "), "{last:?}");
    drop(following);
    cluster.stop();
}

#[test]
fn new_workers_are_followed_and_what_has_no_file_is_said() {
    let cluster = running(&counting(), 1, "log = { out = \"o.log\", per_worker = true }");
    let following = Following::start(&cluster, &["--raw", "--lines", "1"]);
    assert_eq!(following.next(), "0 10");
    assert!(cluster.cli(&["scale", "web", "2"]).status.success());
    for n in 1..=10 {
        assert_eq!(following.next(), format!("1 {n}"));
    }
    assert!(refused(&cluster, &["--err"]).contains("goes to the terminal"));
    cluster.stop();

    let cluster = running("[\"sleep\", \"1000\"]", 1, "");
    let told = refused(&cluster, &[]);
    assert!(told.contains("web: its output goes to the terminal") && told.contains("[app.log]"), "{told}");
    cluster.stop();
    let cluster = running(&counting(), 1, "log.file = \"o.log\"");
    assert!(refused(&cluster, &["--err"]).contains("do not say which they are"));
    assert!(refused(&cluster, &["--worker", "0"]).contains("per_worker = true"));
    cluster.stop();
}

#[test]
fn the_control_api_gives_lines_and_what_comes_and_does_not_hold_up_the_end() {
    let script = shell("echo first; while read line; do echo $line; done < go; exec sleep 1000");
    let folder = Folder::new();
    let go = folder.path().join("go");
    assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
    deployment(&folder, &script, 1, "log = { out = \"o.log\", err = \"e.log\" }");
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    wait_until("a line", || read(&cluster, "o.log") == "first\n");
    let entries = std::fs::read_dir(cluster.folder.path().join("home/run")).unwrap().map(|entry| entry.unwrap().path());
    let socket = entries.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "sock")).unwrap();
    // HTTP/1.0 has no chunks: behind the head come the lines as they are.
    let ask = |query: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(format!("GET /v1/logs{query} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        (lines.next().unwrap(), lines.by_ref().skip_while(|line| !line.is_empty()).skip(1).collect::<Vec<_>>())
    };
    let (head, lines) = ask("?lines=5&type=out");
    assert!(head.contains("200") && lines.len() == 1, "{head}: {lines:?}");
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["message"], &line["type"], &line["app_name"]), (&"first".into(), &"out".into(), &"web".into()));
    for (query, status, wanted) in [
        ("?app=wbe", "404", "no app is called"),
        ("?lines=x", "400", "unknown parameter"),
        ("?slot=0", "409", "per_worker = true"),
    ] {
        let (head, lines) = ask(query);
        assert!(head.contains(status) && lines.concat().contains(wanted), "{query}: {head}: {lines:?}");
    }
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /v1/logs?lines=1&follow=true HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).skip_while(|line| !line.is_empty()).skip(1);
    assert!(lines.next().unwrap().contains("\"message\":\"first\""));
    std::fs::write(&go, "second\n").unwrap();
    assert!(lines.next().unwrap().contains("\"message\":\"second\""));
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(lines.next(), None);
}

#[test]
fn in_the_background_there_are_files_where_nothing_was_said_and_logs_finds_them() {
    let home = Home::new();
    let script = "echo to out; echo to err >&2; exec sleep 1000";
    home.ok(&["start", "-n", "web", "-w", "1", "--ready", "1ms", "--", "sh", "-c", script]);
    let path = |name: &str| home.folder.path().join("home/logs").join(name);
    let file = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    wait_until("both", || file("web-out.log") == "to out\n" && file("web-error.log") == "to err\n");
    assert_eq!(home.run(&["logs", "web", "--nostream", "--err"]).1, "web | to err\n");
    home.ok(&["flush", "web"]);
    assert_eq!(file("web-out.log"), "");
    // A restart continues in the same files.
    home.ok(&["restart", "web"]);
    wait_until("the next worker's", || file("web-out.log") == "to out\n");
    home.ok(&["stop", "web"]);
    assert_eq!(home.run(&["logs", "web", "--nostream", "--out"]).1, "web | to out\n");
}
