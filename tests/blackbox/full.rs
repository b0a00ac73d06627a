//! Workers that are full (`server.maxConnections`): they refuse what they are offered, which waits for the next free place
//! without wearing anybody out.
use super::client::get;
use super::cluster::{Cluster, Folder, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Tells how often it was offered a connection. One connection is all that it takes.
const APP: &str = "let offered = 0;
process.on('internalMessage', (message) => { if (message.act === 'newconn') offered += 1; });
const server = require('node:http').createServer((q, s) => s.end(String(offered)));
server.keepAliveTimeout = 0;
server.maxConnections = 1;
server.listen(process.env.PORT);";

/// A connection that is kept.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(address: SocketAddr) -> Kept {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Kept(BufReader::new(stream))
    }

    /// Offers so far.
    fn offered(&mut self) -> u64 {
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the answer ends");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap().parse().unwrap()
    }
}

#[test]
fn a_connection_that_every_worker_refuses_waits_quietly_for_the_first_free_place() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let args = ["-w", "2", "--host", "127.0.0.1", "--port", "0", "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    let address = cluster.address();
    let mut kept = [Kept::open(address), Kept::open(address)];
    let mut offered = || kept[0].offered() + kept[1].offered();
    let before = offered();
    let waiting = std::thread::spawn(move || get(address, "/"));
    wait_until("it is offered to both", || offered() >= before + 2);
    // The measure of quiet is time: in a second each is offered what waits about 30 times, not as fast as it can answer.
    let first = offered();
    std::thread::sleep(Duration::from_secs(1));
    let in_a_second = offered() - first;
    assert!((1..200).contains(&in_a_second), "{in_a_second} offers in a second");
    assert!(!waiting.is_finished(), "nobody has room for it");
    let [gone, _stays] = kept;
    drop(gone);
    let answer = waiting.join().unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    cluster.stop();
}
