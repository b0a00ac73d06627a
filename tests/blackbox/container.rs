//! As the main process of a container: a stop that may outlive the time that whoever stops it grants is reported.
use super::cluster::{Cluster, Folder, kill};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const APP: &str = "require('http').createServer((q, a) => { if (q.url === '/') a.end(); else a.write('.'); }).listen(process.env.PORT)";

/// clusterd as the first process of a namespace.
struct Contained(Cluster);

impl Contained {
    /// `None`: this user may not make such a namespace.
    fn start(options: &[&str], variables: &[(&str, &str)]) -> Option<Contained> {
        let first = ["--pid", "--fork", "--mount-proc", "--kill-child"];
        let may = |more: &[&str]| {
            let tried = Command::new("unshare").args(more).args(first).arg("true").stderr(Stdio::null()).status();
            tried.is_ok_and(|status| status.success())
        };
        let more: &[&str] = match () {
            () if may(&[]) => &[],
            () if may(&["--map-root-user"]) => &["--map-root-user"],
            () => {
                eprintln!("skipped: no namespace of processes can be made here");
                return None;
            }
        };
        let folder = Folder::new();
        let app = folder.write("app.js", APP);
        Some(Contained(Cluster::start_in(folder, &[], |command| {
            let mut apart = Command::new("unshare");
            apart.args(more).args(first).arg(env!("CARGO_BIN_EXE_clusterd"));
            apart.args(["-n", "web", "-w", "1", "-l", "127.0.0.1:0"]).args(options).args(["--", "node", &app]);
            apart.current_dir(command.get_current_dir().unwrap());
            apart.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            apart.env_remove("KUBERNETES_SERVICE_HOST").envs(variables.iter().copied());
            apart.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            *command = apart;
        })))
    }

    /// The first process of the namespace, as the test sees it.
    fn keeper(&self) -> i32 {
        children(self.0.keeper_pid())[0]
    }

    fn master(&self) -> i32 {
        let is_master =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() == "clusterd-master";
        children(self.keeper()).into_iter().find(is_master).unwrap()
    }
}

fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn a_stop_that_may_take_longer_than_a_container_has_is_reported() {
    let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let cases = [
        (
            ["--drain-timeout", "20s", "--kill-timeout", "2s"],
            &[][..],
            "22 s (drain_timeout 20 s + kill_timeout 2 s); docker stop kills after 10 s",
        ),
        (["--drain-timeout", "30s", "--kill-timeout", "0s"], &kubernetes[..], ""),
        (
            ["--drain-timeout", "30s", "--kill-timeout", "1s"],
            &kubernetes[..],
            "31 s (drain_timeout 30 s + kill_timeout 1 s); Kubernetes kills after 30 s",
        ),
        (["--drain-timeout", "8s", "--kill-timeout", "1s"], &[][..], ""),
    ];
    for (options, variables, said) in cases {
        let Some(mut contained) = Contained::start(&options, variables) else { return };
        contained.0.wait_ready(1);
        if !said.is_empty() {
            contained.0.wait_line(&format!("web: a stop may take {said}"));
        }
        kill(contained.keeper(), "TERM");
        assert_eq!(contained.0.wait_exit(), 0);
        let lines = contained.0.stderr();
        let told = lines.iter().filter(|line| line.contains("kills after")).count();
        let begun = format!("web: finishing open connections may take {said}");
        let at_stop = lines.iter().filter(|line| !said.is_empty() && line.contains(&begun)).count();
        assert_eq!((told, at_stop), if said.is_empty() { (0, 0) } else { (2, 1) }, "{lines:?}");
    }
}

#[test]
#[ignore = "long: waits for the time that docker stop grants"]
fn what_is_left_of_a_stop_is_reported_before_a_container_is_killed() {
    let Some(mut contained) = Contained::start(&["--drain-timeout", "20s"], &[]) else { return };
    contained.0.wait_ready(1);
    let mut client = TcpStream::connect(contained.0.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(b"GET /for-ever HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    kill(contained.keeper(), "TERM");
    contained.0.wait_line("finishing open connections may take 25 s");
    // Another master knows when the stop began.
    kill(contained.master(), "KILL");
    contained.0.wait_line("s after the stop, connections are still open: web (1 worker); docker stop cuts them in 2 s");
    drop(client);
    assert_eq!(contained.0.wait_exit(), 0);
}
