//! `GET /v1/events`: what happens is told once, in order, also across breaks and masters.
use super::cluster::{Cluster, kill};
use super::common::wait::PATIENCE;
use super::tcp::Controlled;
use clusterd::api::types::{Event, EventType};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A stream of events over TCP.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(controlled: &Controlled, query: &str, headers: &str) -> Stream {
        let mut stream = TcpStream::connect(controlled.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /v1/events?{query} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").unwrap();
        Stream(BufReader::new(stream))
    }

    /// The next line that begins like this, without that.
    fn line(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream ended");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim_end().to_owned();
            }
        }
    }

    /// Every event up to the first of this type.
    fn until(&mut self, kind: EventType) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event: Event = serde_json::from_str(&format!("{{{}", self.line("{"))).unwrap();
            let is_last = event.kind == kind;
            events.push(event);
            if is_last {
                return events;
            }
        }
    }
}

fn of_cli(cluster: &Cluster, args: &[&str]) -> Vec<Event> {
    let output = cluster.cli(args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_come_once_in_order_and_go_on_after_a_break() {
    let controlled = Controlled::start("token_file = \"all.token\"");
    let token = controlled.token("all.token");
    let mut stream = Stream::open(&controlled, "follow=true", "");
    let begun = stream.until(EventType::AppReady);
    assert!(begun.iter().any(|event| event.kind == EventType::WorkerReady && event.slot == Some(0)), "{begun:?}");
    assert!(begun.iter().all(|event| event.at_ms > 1_600_000_000_000));

    let pid = controlled.cluster.worker_pids()[0];
    kill(pid, "KILL");
    let died = stream.until(EventType::WorkerDied);
    let death = died.last().unwrap();
    assert_eq!((death.app.as_deref(), death.pid), (Some("hello"), Some(pid)));
    assert!(death.message.contains("SIGKILL"), "{death:?}");
    assert!(died.iter().all(|event| event.kind != EventType::Warning), "a death is told once: {died:?}");
    stream.until(EventType::WorkerReady);
    controlled.cluster.wait_ready(1);
    assert_eq!(controlled.ask("POST", "/v1/apps/hello/reload", Some(&token), "").0, 200);
    let reload = stream.until(EventType::ReloadDone);
    assert!(reload.iter().any(|event| event.kind == EventType::ReloadStarted && event.generation == Some(2)));

    // Another stream has the same ones, and one that goes on has only what came after.
    let all = of_cli(&controlled.cluster, &["events", "--json"]);
    let ids: Vec<u64> = all.iter().map(|event| event.id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
    let later = Stream::open(&controlled, &format!("follow=true&after={}", death.id), "").until(EventType::ReloadDone);
    assert_eq!(later.first().map(|event| event.id), Some(death.id + 1));
    assert!(of_cli(&controlled.cluster, &["events", "--json", "other"]).is_empty());
    let shown = controlled.cluster.cli(&["events", "hello"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(" hello/0 worker_died: "), "{shown:?}");

    // As a browser reads them.
    let after = format!("accept: text/event-stream\r\nlast-event-id: {}\r\n", death.id);
    let mut sent = Stream::open(&controlled, "", &after);
    assert_eq!(sent.line("content-type: "), "text/event-stream");
    assert_eq!(sent.line("id: "), (death.id + 1).to_string());

    // The next master's ids are higher; what was not read of this one's is gone, and that is said.
    let master = controlled.cluster.master_pid();
    kill(master, "KILL");
    controlled.cluster.wait_view("the next master", |d| d.master_pid != master && d.apps[0].workers_ready == 1);
    let mut resumed = Stream::open(&controlled, &format!("follow=true&after={}", death.id), "");
    let lost = resumed.until(EventType::Lost);
    assert!(lost.len() == 1 && lost[0].id > *ids.last().unwrap(), "{lost:?}");
    assert_eq!(controlled.ask("POST", "/v1/apps/hello/scale", Some(&token), "{\"workers\":\"2\"}").0, 200);
    assert!(resumed.until(EventType::AppScaled).last().unwrap().id > lost[0].id);
    assert_eq!(controlled.ask("GET", "/v1/events?x=1", None, "").0, 400);
    controlled.cluster.stop();
}

#[test]
fn the_page_is_served_where_it_was_asked_for_and_runs_nothing_else() {
    let controlled = Controlled::start("page = true");
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = controlled.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&format!("content-type: {kind}")), "{head}");
        let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert!(head.contains("x-content-type-options: nosniff") && !body.is_empty());
    }
    let rebound = controlled.raw(b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    assert_eq!(controlled.ask("POST", "/", None, "").0, 404);
    let opened = controlled.cluster.cli(&["open"]);
    assert_eq!(String::from_utf8_lossy(&opened.stdout).trim(), format!("http://{}/", controlled.address));
    controlled.cluster.stop();

    let without = Controlled::start("");
    assert_eq!(without.ask("GET", "/", None, "").0, 404);
    let opened = without.cluster.cli(&["open"]);
    assert!(!opened.status.success() && String::from_utf8_lossy(&opened.stderr).contains("page = true"));
    without.cluster.stop();
}
