//! Agent checks of load balancers: the line about each app and about all, before and after a stop, across a master's death; and what
//! hostile clients cost.
use super::client::get;
use super::cluster::{Cluster, Folder, kill, run};
use super::common::wait::wait_until;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// `web` with two workers and a delay before its stop, and `jobs` without an address.
struct Checked {
    cluster: Cluster,
    /// Of agent checks.
    address: SocketAddr,
    /// Of the control API.
    control: SocketAddr,
}

fn address_in(line: &str) -> SocketAddr {
    let digits = |c: char| !(c.is_ascii_digit() || ".:".contains(c));
    line.rsplit(digits).find(|word| word.contains(':')).and_then(|word| word.parse().ok()).unwrap()
}

impl Checked {
    fn start() -> Checked {
        let folder = Folder::new();
        folder.write(
            "cluster.toml",
            &format!(
                "[control]\nlisten = \"127.0.0.1:0\"\nagent_check = \"127.0.0.1:0\"\n[[app]]\nname = \"web\"\n\
                 command = [\"node\", {:?}]\nworkers = 2\nlisten = [\"127.0.0.1:0\"]\ndrain_delay = \"700ms\"\n\
                 [[app]]\nname = \"jobs\"\ncommand = [\"sleep\", \"1000\"]\nprotocol = \"none\"\nready = \"10ms\"\n",
                super::common::apps::hello()
            ),
        );
        let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
        let control = address_in(&cluster.wait_line("the control API is at http://"));
        let address = address_in(&cluster.wait_line("agent checks are answered at "));
        cluster.wait_view("both apps", |view| {
            let ready: Vec<u32> = view.apps.iter().map(|app| app.workers_ready).collect();
            ready == [2, 1]
        });
        Checked { cluster, address, control }
    }

    /// The whole answer to a client that sends this.
    fn told(&self, sent: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn wait_told(&self, sent: &str, wanted: &str) {
        wait_until(wanted, || self.told(sent) == wanted);
    }

    /// The status of the answer of the control API.
    fn status(&self, path: &str) -> u16 {
        let mut stream = TcpStream::connect(self.control).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    }
}

#[test]
fn an_agent_check_says_how_many_serve_and_drain_before_a_stop_in_which_clients_are_served() {
    let checked = Checked::start();
    for sent in ["", "\n", "web\n", "web\r\n", "jobs\nmore"] {
        assert_eq!(checked.told(sent), "up ready 100%\n", "{sent:?}");
    }
    assert_eq!(checked.told("wbe\n"), "down #no such app\n");
    assert_eq!(
        (checked.status("/readyz/web"), checked.status("/readyz/wbe"), checked.status("/readyz")),
        (200, 404, 200)
    );

    let master = checked.cluster.master_pid();
    kill(master, "KILL");
    checked.cluster.wait_view("the next master", |d| d.master_pid != master && d.apps[0].workers_ready == 2);
    assert_eq!(checked.told("web\n"), "up ready 100%\n", "at the same address");

    let web = checked.cluster.address();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| checked.cluster.cli(&["stop", "web"]));
        checked.wait_told("web\n", "drain\n");
        assert_eq!(checked.status("/readyz/web"), 503);
        assert_eq!(checked.told(""), "up ready 100%\n", "the other app stays");
        assert!(get(web, "/").is_ok(), "it serves on");
        let refused = checked.cluster.cli(&["reload", "web"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let done = stop.join().unwrap();
        assert!(done.status.success(), "{done:?}");
    });
    checked.wait_told("web\n", "maint\n");
    assert_eq!(checked.told(""), "up ready 100%\n");
    assert!(get(web, "/").is_err());
    let done = checked.cluster.cli(&["start", "web"]);
    assert!(done.status.success(), "{done:?}");
    checked.wait_told("web\n", "up ready 100%\n");
    checked.cluster.stop();
}

#[test]
#[ignore = "long: several stops that wait"]
fn a_stop_that_was_put_off_outlives_its_master_and_a_start_comes_after_it() {
    let checked = Checked::start();
    let web = checked.cluster.address();
    let before = checked.cluster.worker_pids();
    std::thread::scope(|scope| {
        // The client loses its master.
        scope.spawn(|| checked.cluster.cli(&["stop", "web"]));
        checked.wait_told("web\n", "drain\n");
        kill(checked.cluster.master_pid(), "KILL");
    });
    checked.wait_told("web\n", "maint\n");
    assert!(get(web, "/").is_err());
    assert!(checked.cluster.cli(&["start", "web"]).status.success());
    checked.wait_told("web\n", "up ready 100%\n");
    assert!(checked.cluster.worker_pids().iter().all(|pid| !before.contains(pid)));

    // A start in the time before a stop is a restart.
    let before = checked.cluster.worker_pids();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| checked.cluster.cli(&["stop", "web"]));
        checked.wait_told("web\n", "drain\n");
        assert!(checked.cluster.cli(&["start", "web"]).status.success());
        let told = stop.join().unwrap();
        assert!(told.status.success(), "whoever stopped it does not wait for ever: {told:?}");
    });
    assert!(checked.cluster.worker_pids().iter().all(|pid| !before.contains(pid)));
    // `--now` has no patience.
    let stopped = checked.cluster.cli(&["stop", "web", "--now"]);
    assert!(stopped.status.success(), "{stopped:?}");
    checked.wait_told("web\n", "maint\n");
    checked.cluster.stop();
}

#[test]
fn silent_slow_and_talkative_clients_cost_only_their_own_places() {
    let checked = Checked::start();
    let clients: Vec<TcpStream> = (0..80)
        .map(|n| {
            let mut stream = TcpStream::connect(checked.address).unwrap();
            let _ = match n % 3 {
                0 => stream.write_all(b"half a na"),
                1 => stream.write_all(&[b'x'; 100_000]),
                _ => stream.shutdown(Shutdown::Write),
            };
            stream
        })
        .collect();
    assert!(checked.cluster.try_view().is_some(), "the control socket answers");
    assert_eq!(checked.status("/livez"), 200);
    // Their time is over, although they stay.
    checked.wait_told("web\n", "up ready 100%\n");
    for mut stream in clients {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = String::new();
        let ended = stream.read_to_string(&mut answer);
        // Those that were refused, or reset, got nothing.
        assert!(answer.is_empty() || ended.is_ok() && answer == "up ready 100%\n", "{answer}");
    }
    checked.cluster.stop();
}

#[test]
fn an_address_that_cannot_be_had_is_refused_before_anything_starts() {
    let refused = |control: &str| {
        let folder = Folder::new();
        let text = format!("[control]\n{control}\n[[app]]\nname = \"x\"\ncommand = [\"sleep\", \"1000\"]\n");
        folder.write("cluster.toml", &text);
        let (code, _, said) = run(&folder, &["-c", "cluster.toml"]);
        assert_ne!(code, 0, "{control}: {said}");
        said
    };
    assert!(refused("listen = \"9615\"\nagent_check = \"9615\"").contains("the same address"));
    assert!(refused("agent_check = \"web\"").contains("cluster.toml:2"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = refused(&format!("agent_check = \"{}\"", taken.local_addr().unwrap()));
    assert!(said.contains("(pid "), "{said}");
}
