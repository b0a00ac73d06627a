//! The rules of supervision, seen from outside: crashes, backoff, giving up, leaving, bad input from workers.
use super::apps::misbehave;
use super::client::{Load, get, who};
use super::cluster::{Cluster, Folder, alive, kill, wait_end, wait_until};
use clusterd::limits;
use std::time::Instant;

#[test]
fn a_command_that_always_fails_is_given_up_with_exit_code_1() {
    let folder = Folder::new();
    let config = "[[app]]\nname = \"bad\"\ncommand = [\"sh\", \"-c\", \"echo last words; exit 3\"]\nworkers = 2\n\
                  protocol = \"none\"\n[app.restart]\nmax_restarts = 3\nbackoff_min = \"10ms\"\n";
    folder.write("c.toml", config);
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    assert_eq!(cluster.wait_exit(), 1);
    let said = cluster.stderr().join("\n");
    assert!(said.contains("exited with code 3"), "{said}");
    assert!(said.contains("next try in 10 ms (failure 2 of 3)"), "{said}");
    assert!(said.contains("failed 3 times, given up"), "{said}");
    assert_eq!(cluster.stdout().iter().filter(|line| *line == "last words").count(), 6);
}

#[test]
fn the_shell_loop_done_right_runs_any_command_again() {
    let folder = Folder::new();
    let cluster = Cluster::start_in(folder, &["-w", "1", "--", "sh", "-c", "echo up; exec sleep 1000"], |_| {});
    let first = cluster.wait_ready(1)[0].pid.unwrap();
    kill(first, "KILL");
    let line = cluster.wait_line("was killed by SIGKILL");
    assert!(line.contains("replaced in"), "{line}");
    wait_until("a second start", || cluster.stdout().len() == 2);
    cluster.stop();
}

#[test]
fn an_exit_code_can_mean_do_not_restart() {
    let folder = Folder::new();
    let config = "[[app]]\nname = \"job\"\ncommand = [\"sh\", \"-c\", \"exit 42\"]\nworkers = 1\nprotocol = \"none\"\n\
                  [app.restart]\nstop_exit_codes = [42]\n";
    folder.write("c.toml", config);
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    assert_eq!(cluster.wait_exit(), 0);
    cluster.wait_line("not restarted: its exit code is one of stop_exit_codes");
}

#[test]
fn an_app_that_never_listens_is_told_so() {
    let folder = Folder::new();
    folder.write("idle.js", "setInterval(() => {}, 1000)");
    let args = ["-w", "1", "--port", "0", "--ready-timeout", "300ms", "--", "node", "idle.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    let line = cluster.wait_line("was not ready after 300 ms");
    assert!(line.contains("never called listen()") && line.contains("--ready"), "{line}");
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced_before_it_has_gone() {
    let cluster = Cluster::web(1, &misbehave("leaves.js"), &["--drain-timeout", "4s"]);
    let address = cluster.address();
    let load = Load::start(address, 8, false);
    load.wait_more(20);
    let first = cluster.worker_pids()[0];
    get(address, "/leave").unwrap();
    let asked = Instant::now();
    cluster.wait_line("leaves by itself");
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers.iter().any(|w| w.pid != Some(first) && w.state == "ready")
    });
    load.wait_more(20);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung), (0, 0, 0), "{seen:?}");
    // It holds no connection any more; what else it does is its own business, up to the time-out.
    wait_end(first);
    assert!((3..20).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());
    cluster.stop();
}

fn abused(mode: &str) -> Cluster {
    Cluster::web(2, &misbehave("channel.js"), &["-e", &format!("MODE={mode}")])
}

#[test]
fn garbage_on_the_channel_fails_that_worker_alone() {
    let cluster = abused("garbage");
    let before = cluster.worker_pids();
    let victim = get(cluster.address(), "/abuse");
    let line = cluster.wait_line("a line that Node's protocol does not have");
    assert!(line.contains("this is \\x1b[31mnot the protocol") && line.contains("replaced in"), "{line}");
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers_ready == 2
            && view.apps[0].workers.iter().filter(|w| before.contains(&w.pid.unwrap())).count() == 1
    });
    drop(victim);
    cluster.stop();
}

#[test]
fn handles_that_workers_send_are_acknowledged() {
    let cluster = abused("handles");
    let address = cluster.address();
    get(address, "/abuse").unwrap();
    wait_until("three acknowledged messages", || (0..2).any(|_| get(address, "/").unwrap().contains("\"acks\":3")));
    cluster.stop();
}

#[test]
fn messages_of_megabytes_are_no_trouble() {
    let cluster = abused("big");
    let before = cluster.worker_pids();
    let address = cluster.address();
    get(address, "/abuse").unwrap();
    wait_until("both messages taken", || (0..2).any(|_| get(address, "/").unwrap().contains("\"acks\":2")));
    assert_eq!(cluster.worker_pids(), before);
    cluster.stop();
}

#[test]
fn a_worker_whose_loop_is_stuck_gets_no_more_connections() {
    let cluster = abused("block");
    let address = cluster.address();
    let blocked = std::thread::spawn(move || get(address, "/abuse"));
    wait_until("a stuck worker", || cluster.try_view().is_some());
    // While one of the two is stuck for three seconds, all but the few that it was given before are answered at once.
    let mut slow = 0;
    for _ in 0..200 {
        let asked = Instant::now();
        who(address);
        slow += u32::from(asked.elapsed().as_millis() > 500);
    }
    assert!(slow <= 8, "{slow} of 200 waited for the stuck worker");
    blocked.join().unwrap().unwrap();
    cluster.stop();
}

/// Two workers, one of which no longer reads its channel when the file `deaf` is there.
fn half_deaf(balance: &str, more: &str) -> Cluster {
    let folder = Folder::new();
    let script = misbehave("deaf.py");
    folder.write(
        "c.toml",
        &format!(
            "[[app]]\nname = \"web\"\ncommand = [\"python3\", \"{script}\"]\nprotocol = \"node\"\nworkers = 2\n\
             listen = \"127.0.0.1:0\"\nbalance = \"{balance}\"\nenv.DEAF = \"0\"\n{more}"
        ),
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

#[test]
#[ignore = "long: a worker that reads nothing, for seconds"]
fn a_worker_that_never_reads_its_channel_keeps_few_clients_waiting_and_no_other() {
    for balance in ["round-robin", "kernel"] {
        let cluster = half_deaf(balance, "drain_timeout = \"1s\"\n");
        let address = cluster.address();
        let deaf = cluster.wait_ready(2)[0].pid.unwrap();
        assert_eq!((0..4).filter(|_| who(address) == deaf).count(), 2);
        cluster.folder.write("deaf", "");
        let clients: Vec<_> = (0..200)
            .map(|n| {
                // Not all at once: what comes first is given to both.
                std::thread::sleep(std::time::Duration::from_millis(u64::from(n % 10 == 0) * 20));
                std::thread::spawn(move || get(address, "/"))
            })
            .collect();
        let unanswered = clients.into_iter().map(|client| client.join().unwrap()).filter(Result::is_err).count();
        assert!(
            unanswered <= limits::HANDOFF_WINDOW_START as usize,
            "{balance}: {unanswered} wait for the deaf worker"
        );
        // From now on nobody does.
        for _ in 0..50 {
            let asked = Instant::now();
            assert_ne!(who(address), deaf);
            assert!(asked.elapsed().as_millis() < 1_000, "{balance}");
        }
        let open = cluster.wait_ready(2)[0].open_handoffs;
        assert!(open <= limits::HANDOFF_WINDOW_START, "{balance}: {open}");
        cluster.stop();
    }
}

#[test]
#[ignore = "long: a worker that reads nothing, for seconds"]
fn clients_of_a_worker_that_never_reads_its_channel_go_to_another_when_it_is_killed() {
    let cluster = half_deaf("round-robin", "kill_timeout = \"200ms\"\n[app.limits]\nhang = \"2s\"\n");
    let address = cluster.address();
    let deaf = cluster.wait_ready(2)[0].pid.unwrap();
    cluster.folder.write("deaf", "");
    let clients: Vec<_> = (0..20).map(|_| std::thread::spawn(move || who(address))).collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap() != deaf));
    cluster.wait_line("its event loop did not answer for 2 s");
    std::fs::remove_file(cluster.folder.path().join("deaf")).unwrap();
    cluster.wait_view("another one", |view| {
        view.apps[0].workers_ready == 2 && view.apps[0].workers.iter().all(|w| w.pid != Some(deaf))
    });
    cluster.stop();
}

#[test]
#[ignore = "long: five hundred workers"]
fn five_hundred_workers_start_are_listed_and_stop() {
    let args = ["-w", "500", "--protocol", "none", "--ready", "100ms", "--name", "many", "--", "sleep", "1000"];
    let cluster = Cluster::start(&args);
    let workers = cluster.wait_ready(500);
    assert_eq!(workers.len(), 500);
    let table = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(table.contains("500/500 ready") && table.lines().count() >= 502);
    let pids = cluster.worker_pids();
    cluster.stop();
    assert!(pids.iter().all(|&pid| !alive(pid)));
}
