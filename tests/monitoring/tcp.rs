//! The control API over TCP: who may do what, bounds, and that it survives a master.
use super::cluster::{Cluster, Folder, kill, run};
use super::common::openmetrics::parse;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A deployment with an app and `[control]`.
pub(super) struct Controlled {
    pub(super) cluster: Cluster,
    pub(super) address: SocketAddr,
}

impl Controlled {
    pub(super) fn start(keys: &str) -> Controlled {
        let folder = Folder::new();
        let text = format!(
            "[control]\nlisten = \"127.0.0.1:0\"\n{keys}\n[[app]]\nname = \"hello\"\ncommand = [\"node\", {:?}]\n\
             workers = 1\nlisten = [\"127.0.0.1:0\"]\n",
            super::common::apps::hello()
        );
        folder.write("cluster.toml", &text);
        let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
        let line = cluster.wait_line("the control API is at http://");
        let (_, address) = line.split_once("http://").unwrap();
        let address = address.trim().parse().unwrap();
        cluster.wait_ready(1);
        Controlled { cluster, address }
    }

    pub(super) fn token(&self, name: &str) -> String {
        fs::read_to_string(self.cluster.folder.path().join(name)).unwrap().trim().to_owned()
    }

    /// Status and body.
    pub(super) fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{token}", self.address);
        let answer = self.raw(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), body.to_owned())
    }

    /// What is answered to these bytes.
    pub(super) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[test]
fn over_tcp_reading_is_free_on_loopback_and_changes_need_the_token() {
    let controlled = Controlled::start("token_file = \"all.token\"\nread_token_file = \"read.token\"");
    let (all, read) = (controlled.token("all.token"), controlled.token("read.token"));
    let status = |method, path, token: Option<&str>| controlled.ask(method, path, token, "").0;
    for path in ["/livez", "/readyz", "/v1/apps", "/v1/apps/hello", "/metrics"] {
        assert_eq!(status("GET", path, None), 200, "{path}");
    }
    let (_, text) = controlled.ask("GET", "/metrics", None, "");
    parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    // Secrets, output and changes.
    for (method, path) in [("GET", "/v1/apps/hello/env"), ("POST", "/v1/apps/hello/reload"), ("POST", "/v1/stop")] {
        assert_eq!(status(method, path, None), 401, "{path}");
        assert_eq!(status(method, path, Some(&read)), 403, "{path}");
        assert_eq!(status(method, path, Some("wrong")), 403, "{path}");
    }
    assert_eq!(status("GET", "/v1/logs", None), 401);
    assert_ne!(status("GET", "/v1/logs", Some(&read)), 403);
    assert_eq!(status("GET", "/v1/apps/hello/env", Some(&all)), 200);
    assert_eq!(status("POST", "/v1/apps/hello/reload", Some(&all)), 200);
    controlled.cluster.wait_line("request from 127.0.0.1:");
    assert_eq!(controlled.cluster.app().generation, 2);
    assert_eq!(status("GET", "/nothing", None), 404);

    // A page of another site reaches nothing by a name of its own.
    let rebound = controlled.raw(b"GET /v1/apps HTTP/1.1\r\nhost: evil.example:9615\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 421 ") && !rebound.contains("hello"), "{rebound}");
    let nameless = controlled.raw(b"GET /v1/apps HTTP/1.1\r\n\r\n");
    assert!(nameless.starts_with("HTTP/1.1 400 "), "{nameless}");

    // The next master answers at the same address.
    let master = controlled.cluster.master_pid();
    kill(master, "KILL");
    controlled.cluster.wait_view("the next master", |d| d.master_pid != master && d.apps[0].workers_ready == 1);
    assert_eq!(status("GET", "/readyz", None), 200);
    assert_eq!(status("POST", "/v1/stop", Some(&all)), 200);
}

#[test]
fn clients_over_tcp_are_bounded_and_take_no_places_of_the_control_socket() {
    let controlled = Controlled::start("");
    // Each holds a place with half a request, until it is cut off.
    let held: Vec<TcpStream> = (0..80)
        .map(|_| {
            let mut stream = TcpStream::connect(controlled.address).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    assert!(controlled.raw(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").starts_with("HTTP/1.1 503 "));
    assert!(controlled.cluster.try_view().is_some(), "the control socket answers");
    drop(held);
    super::common::wait::wait_until("places are free again", || controlled.ask("GET", "/livez", None, "").0 == 200);
    // Without a token file nothing can be changed.
    let (status, why) = controlled.ask("POST", "/v1/stop", None, "");
    assert!(status == 403 && why.contains("token_file"), "{why}");
    let large = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let answer = controlled.raw(large.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    controlled.cluster.stop();
}

#[test]
fn what_cannot_be_served_safely_is_refused_before_anything_starts() {
    let refused = |control: &str| {
        let folder = Folder::new();
        folder.write("open.token", "0123456789abcdef0123");
        let text = format!("[control]\n{control}\n[[app]]\nname = \"x\"\ncommand = [\"sleep\", \"1000\"]\n");
        folder.write("cluster.toml", &text);
        let (code, _, said) = run(&folder, &["-c", "cluster.toml"]);
        assert_ne!(code, 0, "{control}: {said}");
        said
    };
    assert!(refused("listen = \"0.0.0.0:0\"").contains("needs token_file"));
    assert!(refused("listen = \"https://127.0.0.1:9615\"").contains("set tls_cert and tls_key"));
    assert!(refused("page = true").contains("does nothing without listen"));
    assert!(refused("listen = \"127.0.0.1:0\"\ntoken_file = \"open.token\"").contains("chmod 600"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = refused(&format!("listen = \"{}\"", taken.local_addr().unwrap()));
    assert!(said.contains("(pid "), "{said}");
}
