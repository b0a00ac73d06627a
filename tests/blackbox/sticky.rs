//! `balance = "sticky"`: a client's connections go to one worker, however busy that is.
use super::cluster::{Cluster, Folder};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};

/// Connections at a time, and rounds of them.
const CONNECTIONS: usize = 12;
const ROUNDS: usize = 3;

#[test]
fn twelve_connections_from_one_address_to_a_busy_worker_stay_with_it() {
    let folder = Folder::new();
    folder.write(
        "busy.js",
        "require('http').createServer((q, a) => {\n\
         \x20 const until = process.hrtime.bigint() + 20_000_000n;\n\
         \x20 while (process.hrtime.bigint() < until);\n\
         \x20 a.setHeader('connection', 'close');\n\
         \x20 a.end(`pid ${process.pid}`);\n\
         }).listen(process.env.PORT)",
    );
    let options = ["-w", "3", "-b", "sticky", "--host", "127.0.0.1", "--port", "0", "--", "node", "busy.js"];
    let cluster = Cluster::start_in(folder, &options, |_| {});
    cluster.wait_ready(3);
    let address = cluster.address();
    let start = Arc::new(Barrier::new(CONNECTIONS));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                let mut answered = BTreeSet::new();
                for _ in 0..ROUNDS {
                    start.wait();
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(super::cluster::PATIENCE)).unwrap();
                    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    let pid = text.split_once("pid ").unwrap_or_else(|| panic!("not a whole answer: {text:?}")).1;
                    answered.insert(pid.trim().to_owned());
                }
                answered
            })
        })
        .collect();
    let answered: BTreeSet<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(answered.len(), 1, "{answered:?}");
    cluster.stop();
}
