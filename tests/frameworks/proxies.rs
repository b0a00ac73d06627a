//! nginx and HAProxy in front, as in docs/proxies.md: nobody behind them sees a reload. The programs are taken from PATH, and
//! installed with apt where they are missing and that is possible.
use super::apps::project;
use super::cluster::{Cluster, Folder};
use super::common::packages::program;
use super::common::ports::free_port;
use super::install;
use super::support::{app, reload, start};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Reloads of one run; RELOADS sets another number.
const RELOADS: u32 = 4;
/// Clients of the proxy. Each asks again as soon as it has its answer.
pub(crate) const CLIENTS: usize = 16;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A proxy, ended by its pid when dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: Folder,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// The example with this heading in docs/proxies.md, with its addresses replaced.
fn example(name: &str, from: u16, to: SocketAddr) -> String {
    let page = std::fs::read_to_string(project("docs/proxies.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```{name}\n")).unwrap_or_else(|| panic!("no example for {name}"));
    let (text, _) = rest.split_once("```").unwrap();
    assert!(text.contains("127.0.0.1:8080") && text.contains("127.0.0.1:8000"), "{text}");
    text.replace("127.0.0.1:8080", &to.to_string()).replace("127.0.0.1:8000", &format!("127.0.0.1:{from}"))
}

impl Proxy {
    /// Starts one and waits until it listens.
    pub(crate) fn run(folder: Folder, port: u16, command: &mut Command) -> Proxy {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let proxy = Proxy { child, address: SocketAddr::from(([127, 0, 0, 1], port)), _folder: folder };
        let from = Instant::now();
        while TcpStream::connect(proxy.address).is_err() {
            assert!(from.elapsed() < PATIENCE, "the proxy does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    pub(crate) fn nginx(to: SocketAddr) -> Option<Proxy> {
        let nginx = program("nginx", "nginx-light")?;
        let (folder, port) = (Folder::new(), free_port());
        let dir = folder.path().display().to_string();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"));
        let http = format!("{}access_log off;\n{}", temp.concat(), example("nginx", port, to));
        let main = format!(
            "daemon off;\nerror_log {dir}/error.log;\npid {dir}/pid;\nuser root;\nevents {{}}\nhttp {{\n{http}}}\n"
        );
        let main = if nix::unistd::geteuid().is_root() { main } else { main.replace("user root;\n", "") };
        let file = folder.write("nginx.conf", &main);
        Some(Proxy::run(folder, port, Command::new(nginx).args(["-p", &dir, "-c", &file])))
    }

    fn haproxy(to: SocketAddr) -> Option<Proxy> {
        let haproxy = program("haproxy", "haproxy")?;
        let (folder, port) = (Folder::new(), free_port());
        let file = folder.write("haproxy.cfg", &example("haproxy", port, to));
        Some(Proxy::run(folder, port, Command::new(haproxy).args(["-db", "-f", &file])))
    }
}

/// One request on a kept connection: the status line of its answer, and whether the proxy closes the connection after it, as
/// nginx does after 1,000 requests.
fn ask(stream: &mut TcpStream, method: &str) -> Result<(String, bool), std::io::Error> {
    let body = if method == "POST" { "abcdef" } else { "" };
    write!(stream, "{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|text| text.split("\r\n").next()?.parse().ok());
            let is_whole = length.map_or(rest.ends_with("0\r\n\r\n"), |length: usize| rest.len() >= length);
            if is_whole {
                return Ok((head.lines().next().unwrap_or_default().to_owned(), head.contains("connection: close")));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks without pause while `happens` runs. How many answers came, and every one that was not 200.
pub(crate) fn under_load(address: SocketAddr, happens: impl FnOnce()) -> (u64, Vec<String>) {
    let (stop, count, bad) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (stop, count, bad) = (&stop, &count, &bad);
            scope.spawn(move || {
                let mut stream = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut own = stream.take().unwrap_or_else(|| TcpStream::connect(address).unwrap());
                    own.set_read_timeout(Some(PATIENCE)).unwrap();
                    match ask(&mut own, if n % 2 == 0 { "POST" } else { "GET" }) {
                        Ok((status, closes)) if status.contains(" 200 ") => stream = (!closes).then_some(own),
                        Ok((status, _)) => bad.lock().unwrap().push(status),
                        Err(e) => bad.lock().unwrap().push(e.to_string()),
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    // The proxy's connections rest now and then.
                    std::thread::sleep(Duration::from_millis(if n % 4 == 0 { 40 } else { 1 }));
                }
            });
        }
        // The clients end when it fails, too.
        let _stop = StopAtEnd(&stop);
        happens();
    });
    (count.into_inner(), bad.into_inner().unwrap())
}

fn nobody_sees_reloads(proxy: Option<Proxy>, cluster: Cluster) {
    let Some(proxy) = proxy else { return cluster.stop() };
    let reloads = std::env::var("RELOADS").map_or(RELOADS, |text| text.parse().unwrap());
    let from = Instant::now();
    let (count, bad) = under_load(proxy.address, || (0..reloads).for_each(|_| reload(&cluster)));
    eprintln!("{count} answers over {reloads} reloads in {:?}, {} moves", from.elapsed(), cluster.app().moved);
    assert!(bad.is_empty(), "{} of {count} answers: {:?}", bad.len(), &bad[..bad.len().min(8)]);
    assert!(cluster.app().moved > 0);
    drop(proxy);
    cluster.stop();
}

fn cluster(major: u32, delay: &str, options: &[&str]) -> Cluster {
    let delay = format!("DELAY={delay}");
    start(&[&["-e", &delay], options].concat(), &[&install::node(major), &app("body.js")])
}

fn behind_nginx(major: u32) {
    for (balance, delay) in [("round-robin", "20"), ("kernel", "0"), ("shared", "20")] {
        let cluster = cluster(major, delay, &["-b", balance]);
        nobody_sees_reloads(Proxy::nginx(cluster.address()), cluster);
    }
}

#[test]
#[ignore = "installs versions of Node, and nginx"]
fn nginx_sees_no_reload_of_node_18() {
    behind_nginx(18);
}

#[test]
#[ignore = "installs versions of Node, and nginx"]
fn nginx_sees_no_reload_of_node_20() {
    behind_nginx(20);
}

#[test]
#[ignore = "installs versions of Node, and nginx"]
fn nginx_sees_no_reload_of_node_22() {
    behind_nginx(22);
}

#[test]
#[ignore = "installs versions of Node, and nginx"]
fn nginx_sees_no_reload_of_node_24() {
    behind_nginx(24);
}

#[test]
#[ignore = "installs versions of Node, and nginx"]
fn nginx_sees_no_reload_of_node_26() {
    behind_nginx(26);
}

#[test]
#[ignore = "installs versions of Node, and HAProxy"]
fn haproxy_sees_no_reload() {
    for balance in ["round-robin", "kernel", "shared"] {
        let cluster = cluster(20, "20", &["-b", balance]);
        nobody_sees_reloads(Proxy::haproxy(cluster.address()), cluster);
    }
}
