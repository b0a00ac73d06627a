//! Kept connections over a reload: each is asked before, while the old workers drain, and is answered by the same worker.
use super::cluster::wait_until;
use super::{addresses, start};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CONNECTIONS: usize = 20_000;
/// One process may have as many files as its limit allows, so the clients are several.
const PROCESSES: usize = 5;
const HUNG: Duration = Duration::from_secs(30);

/// The role `clients ADDRESS COUNT`: opens so many connections and asks each once; then, for each line of its standard
/// input, asks each again. Says `ok` when all were answered, by who had answered before.
pub(crate) fn clients(args: &[String]) {
    let address: SocketAddr = args[0].parse().unwrap();
    let count: usize = args[1].parse().unwrap();
    let mut connections: Vec<(TcpStream, String)> = (0..count)
        .map(|_| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(HUNG)).unwrap();
            (stream, String::new())
        })
        .collect();
    let mut ask_all = || {
        for (stream, known) in &mut connections {
            let answer = ask(stream);
            assert!(known.is_empty() || *known == answer, "{known:?} had answered before {answer:?}");
            *known = answer;
        }
        println!("ok");
    };
    ask_all();
    std::io::stdin().lines().map_while(Result::ok).for_each(|_| ask_all());
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: keep-alive\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 512];
    while !got.ends_with(b"}\n") {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(got).unwrap()
}

struct Clients {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Clients {
    fn start(address: SocketAddr, count: usize) -> Clients {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["clients", &address.to_string(), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Clients { child, said }
    }

    fn ask_again(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"again\n").unwrap();
    }

    fn wait_ok(&mut self) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line, "ok\n", "a kept connection was not answered as it should be");
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn twenty_thousand_kept_connections_pass_a_reload() {
    let addresses = addresses(PROCESSES);
    let cluster = start(8, &addresses, "drain_timeout = \"5m\"\n[app.reload]\nsurge = 8\nsettle = \"0s\"\n");
    let mut clients: Vec<Clients> =
        addresses.iter().map(|address| Clients::start(*address, CONNECTIONS / PROCESSES)).collect();
    clients.iter_mut().for_each(Clients::wait_ok);
    let before = cluster.worker_pids();
    cluster.signal("HUP");
    cluster.wait_view("new workers beside the old ones, which drain", |view| {
        let workers = &view.apps[0].workers;
        workers.iter().filter(|w| w.state == "draining").count() == 8 && view.apps[0].workers_ready == 8
    });
    clients.iter_mut().for_each(Clients::ask_again);
    clients.iter_mut().for_each(Clients::wait_ok);
    // New clients are served at once meanwhile, by the new workers.
    for address in &addresses {
        assert!(!before.contains(&super::client::who(*address)));
    }
    drop(clients);
    wait_until("the end of the old workers", || before.iter().all(|&pid| !super::cluster::alive(pid)));
    cluster.wait_line("serves alone");
    cluster.wait_ready(8);
    cluster.stop();
}
