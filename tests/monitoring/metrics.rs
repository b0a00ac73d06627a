//! `GET /metrics`: what it tells agrees with what happened, also across a killed master.
use super::client::{Load, who};
use super::cluster::{Cluster, Folder, kill, wait_until};
use super::common::api;
use super::common::openmetrics::{Exposition, parse};
use std::io::Write;
use std::net::TcpStream;

fn scrape(cluster: &Cluster) -> Exposition {
    let (status, text) = api::get(&cluster.folder.path().join("home"), "/metrics");
    assert_eq!(status, 200, "{text}");
    parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

#[test]
fn metrics_tell_what_happened_to_an_app() {
    let cluster = Cluster::hello(2);
    let app = [("app", "hello")];
    for _ in 0..20 {
        who(cluster.address());
    }
    // The master reads workers' answers a moment after their clients.
    let both = ["clusterd_app_connections_accepted_total", "clusterd_app_connections_handed_total"];
    wait_until("every answer is read", || {
        let found = scrape(&cluster);
        found.value(both[0], &app) == found.value(both[1], &app)
    });
    let found = scrape(&cluster);
    let value = |name: &str| found.value(name, &app);
    // The first connections are clusterd's own questions whether a worker is ready.
    let accepted = value("clusterd_app_connections_accepted_total").unwrap();
    assert!(accepted >= 20.0, "{accepted}");
    assert_eq!(value("clusterd_app_connections_handed_total"), Some(accepted));
    assert_eq!(value("clusterd_app_handover_seconds_count"), Some(accepted));
    assert_eq!(found.sum("clusterd_worker_connections_handed_total", &app), accepted);
    assert_eq!(value("clusterd_app_connections_waiting"), Some(0.0));
    assert_eq!(value("clusterd_app_workers_ready"), Some(2.0));
    assert_eq!(found.value("clusterd_app_workers", &[("app", "hello"), ("state", "ready")]), Some(2.0));
    assert_eq!(found.value("clusterd_app_status", &[("app", "hello"), ("status", "running")]), Some(1.0));
    for process in ["keeper", "master"] {
        let memory = found.value("clusterd_process_resident_memory_bytes", &[("process", process)]).unwrap();
        assert!(memory > 100_000.0, "{process}: {memory}");
    }
    assert!(found.sum("clusterd_worker_resident_memory_bytes", &app) > 10e6);
    assert!(found.sum("clusterd_worker_cpu_seconds_total", &app) > 0.0);

    let victim = cluster.app().workers[0].clone();
    kill(victim.pid.unwrap(), "KILL");
    cluster.wait_view("a replacement", |d| d.apps[0].restarts == 1 && d.apps[0].workers_ready == 2);
    assert_eq!(cluster.cli(&["reload", "hello"]).status.code(), Some(0));
    let delays = |what: &str| scrape(&cluster).value(&format!("clusterd_app_loop_delay_seconds_{what}"), &app);
    wait_until("event loops were looked at", || delays("count") >= Some(2.0));
    assert!(delays("sum").is_some_and(|sum| sum > 0.0));
    let check = |found: &Exposition| {
        let value = |name, label| found.value(name, &[("app", "hello"), label]);
        assert_eq!(value("clusterd_app_restarts_total", ("cause", "signal")), Some(1.0));
        assert_eq!(value("clusterd_app_restarts_total", ("cause", "exit")), Some(0.0));
        assert_eq!(value("clusterd_app_reloads_total", ("outcome", "done")), Some(1.0));
        assert_eq!(value("clusterd_app_reloads_total", ("outcome", "failed")), Some(0.0));
        assert_eq!(value("clusterd_slot_restarts_total", ("slot", &victim.slot.to_string())), Some(1.0));
        assert_eq!(found.value("clusterd_app_generation", &app), Some(2.0));
    };
    check(&scrape(&cluster));
    let master = cluster.master_pid();
    kill(master, "KILL");
    let next = cluster.wait_view("the next master", |d| d.master_pid != master && d.apps[0].workers_ready == 2);
    let found = scrape(&cluster);
    check(&found);
    assert_eq!(found.value("clusterd_master_restarts_total", &[]), Some(f64::from(next.master_restarts)));
    cluster.stop();
}

#[test]
fn open_connections_and_output_are_counted() {
    let folder = Folder::new();
    let app = "const server = require('http').createServer((q, a) => { console.log('x'.repeat(99)); a.end('x') });\n\
               server.keepAliveTimeout = 0;\nserver.listen(process.env.PORT, '127.0.0.1');";
    let app = folder.write("app.js", app);
    let cluster = Cluster::start_in(
        folder,
        &["-w", "2", "-n", "web", "-l", "127.0.0.1:0", "--log", "out.log", "--", "node", &app],
        |_| {},
    );
    cluster.wait_ready(2);
    let mut kept: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(cluster.address()).unwrap()).collect();
    for connection in &mut kept {
        connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    let app = [("app", "web")];
    wait_until("every connection and line is counted", || {
        let found = scrape(&cluster);
        found.value("clusterd_app_connections_open", &app) == Some(4.0)
            && found.sum("clusterd_worker_connections_open", &app) == 4.0
            && found.value("clusterd_app_log_written_bytes_total", &app) == Some(400.0)
    });
    drop(kept);
    wait_until("none is open", || scrape(&cluster).value("clusterd_app_connections_open", &app) == Some(0.0));
    cluster.stop();
}

#[test]
fn scrapes_under_load_cost_no_connection() {
    let cluster = Cluster::hello(2);
    let load = Load::start(cluster.address(), 4, false);
    for _ in 0..20 {
        load.wait_more(10);
        let found = scrape(&cluster);
        let count = |name: &str| found.value(name, &[("app", "hello")]).unwrap();
        // One that moves before its first byte is handed on twice.
        let [accepted, moved, handed] =
            ["accepted", "moved", "handed"].map(|what| count(&format!("clusterd_app_connections_{what}_total")));
        assert!(handed <= accepted + moved, "{handed} of {accepted} and {moved}");
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    cluster.stop();
}
