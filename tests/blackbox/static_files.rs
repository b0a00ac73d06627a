//! `clusterd serve`: what clients get of a folder, and what they do not; that no request is lost when its workers change.
use super::background::{Home, address};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;

/// The answer to a request with these further headers, each with its line end: head and body.
fn ask(at: SocketAddr, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).unwrap().to_lowercase(), body)
}

fn text(at: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = ask(at, "GET", path, "");
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}

/// A folder with pages, beside a file that is nobody's business.
fn site(home: &Home) {
    fs::create_dir_all(home.folder.path().join("dist/sub")).unwrap();
    home.folder.write("secret", "secret");
    for (path, content) in [
        ("index.html", "home"),
        ("sub/index.html", "sub"),
        ("a b.js", "0123456789"),
        (".env", "secret"),
        ("404.html", "none"),
    ] {
        home.folder.write(&format!("dist/{path}"), content);
    }
    symlink("../secret", home.folder.path().join("dist/link")).unwrap();
    symlink("sub/index.html", home.folder.path().join("dist/within")).unwrap();
}

fn start(home: &Home, more: &[&str]) -> SocketAddr {
    home.ok(&[&["serve", "dist", "127.0.0.1:0", "--name", "site"], more].concat());
    address(&home.app("site"))
}

#[test]
fn files_of_a_folder_are_served_and_nothing_else() {
    let home = Home::new();
    site(&home);
    let at = start(&home, &[]);
    assert_eq!(text(at, "/"), (200, "home".to_owned()));
    assert_eq!(text(at, "/sub/"), (200, "sub".to_owned()));
    assert_eq!(text(at, "/a%20b.js?v=1"), (200, "0123456789".to_owned()));
    let (head, _) = ask(at, "GET", "//sub?q=1", "");
    assert!(head.contains("301") && head.contains("location: /sub/?q=1"), "{head}");
    for path in
        ["/nothing", "/.env", "/link", "/../secret", "/%2e%2e/secret", "/sub/..%2f..%2fsecret", "/a%20b.js/", "/%00"]
    {
        assert_eq!(text(at, path), (404, "none".to_owned()), "{path}");
    }
    let (head, body) = ask(at, "HEAD", "/a%20b.js", "");
    assert!(head.contains("content-length: 10") && head.contains("content-type: text/javascript"), "{head}");
    assert!(body.is_empty());
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(ask(at, "GET", "/a%20b.js", &format!("if-none-match: {tag}\r\n")).0.contains(" 304 "));
    let (head, body) = ask(at, "GET", "/a%20b.js", "range: bytes=2-4\r\n");
    assert!(head.contains(" 206 ") && head.contains("content-range: bytes 2-4/10") && body == b"234", "{head}");
    assert!(ask(at, "GET", "/a%20b.js", "range: bytes=10-\r\n").0.contains(" 416 "));
    assert!(ask(at, "POST", "/", "content-length: 0\r\n").0.contains(" 405 "));
    // A build puts another folder there.
    fs::rename(home.folder.path().join("dist"), home.folder.path().join("old")).unwrap();
    fs::create_dir(home.folder.path().join("dist")).unwrap();
    home.folder.write("dist/index.html", "new");
    assert_eq!(text(at, "/"), (200, "new".to_owned()));
    assert!(home.fails(&["serve", "nowhere"]).contains("cannot serve nowhere"));
}

#[test]
fn an_app_of_one_page_asks_for_a_password_that_is_in_no_command_line() {
    let home = Home::new();
    site(&home);
    let at = start(&home, &["--spa", "--basic-auth-username", "me", "--basic-auth-password", "open sesame"]);
    let (head, body) = ask(at, "GET", "/", "");
    assert!(head.contains(" 401 ") && head.contains("www-authenticate: basic") && !body.starts_with(b"home"), "{head}");
    assert!(ask(at, "GET", "/", "authorization: Basic bWU6b3BlbiBzZXNhbWX=\r\n").0.contains(" 401 "));
    let right = "authorization: Basic bWU6b3BlbiBzZXNhbWU=\r\n";
    for path in ["/", "/orders/7", "/link"] {
        assert_eq!(ask(at, "GET", path, right).1, b"home", "{path}");
    }
    let app = home.app("site");
    let mut pids = vec![app.workers[0].pid.unwrap()];
    pids.extend(home.deployments().iter().flat_map(|one| [one.keeper_pid, one.master_pid]));
    for pid in pids {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("sesame"), "{pid}");
    }
    assert_eq!(home.run(&["serve", "dist", "--basic-auth-username", "me"]).0, 2);
}

#[test]
fn no_request_is_lost_while_workers_of_files_are_replaced() {
    let home = Home::new();
    site(&home);
    let at = start(&home, &[]);
    let first = home.app("site").workers[0].pid;
    let asking = std::thread::scope(|scope| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let asking = scope.spawn(move || {
            let mut count = 0;
            while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) || count == 0 {
                assert_eq!(text(at, "/sub/"), (200, "sub".to_owned()));
                count += 1;
            }
            count
        });
        home.ok(&["reload", "site"]);
        end.send(()).unwrap();
        asking.join().unwrap()
    });
    assert!(asking > 0 && home.app("site").workers[0].pid != first);
}

#[test]
fn pm2s_form_of_it_in_a_file_is_understood() {
    let home = Home::new();
    site(&home);
    home.folder.write(
        "ecosystem.config.js",
        "module.exports = { apps: [{ name: 'site', script: 'serve', env: { PM2_SERVE_PATH: './dist', PM2_SERVE_PORT: \
         '127.0.0.1:0', PM2_SERVE_SPA: 'true', PM2_SERVE_HOMEPAGE: '/sub/index.html' } }] }",
    );
    home.ok(&["start", "ecosystem.config.js"]);
    assert_eq!(text(address(&home.app("site")), "/x/y"), (200, "sub".to_owned()));
}
