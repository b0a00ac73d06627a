//! What commands say: every warning that the log has of their app, and who holds an address that a worker cannot have.
use super::background::{Home, address};
use super::cluster::{Cluster, Folder};
use std::net::TcpListener;

/// Listens on `PORT`, and tries another port, whether it gets that or not.
fn tries(port: u16) -> String {
    format!(
        "const net = require('net');\n\
         net.createServer().on('error', () => {{}}).listen({port}, '127.0.0.1', () => {{}}).on('error', serve);\n\
         function serve() {{ require('http').createServer((q, a) => a.end('x')).listen(process.env.PORT, '127.0.0.1'); }}"
    )
}

#[test]
fn start_reload_and_restart_print_the_warnings_that_the_log_has() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let app = home.folder.write("app.js", &tries(port));
    // Which pid: that of these tests, or of a child of theirs that is between fork and exec.
    let wanted = format!("cannot bind 127.0.0.1:{port}: in use by ");
    let said = home.ok(&["start", &app, "-n", "web", "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
    assert!(said.contains(&wanted) && said.contains("does it read PORT?"), "{said}");
    // Each command has its own, and another app's are not among them.
    home.web("other", "1");
    for verb in ["reload", "restart"] {
        let said = home.ok(&[verb, "web"]);
        assert_eq!(said.matches(&wanted).count(), 1, "{verb}: {said}");
        let said = home.ok(&[verb, "other"]);
        assert!(!said.contains("cannot bind"), "{verb}: {said}");
    }
    drop(taken);
    let said = home.ok(&["start", "web"]);
    assert!(said.contains("runs already") && !said.contains("cannot bind"), "{said}");
}

#[test]
fn a_configured_address_that_nobody_serves_is_told_at_the_start() {
    let home = Home::new();
    let said =
        home.ok(&["start", &super::apps::hello(), "-n", "web", "-i", "1", "-l", "127.0.0.1:0", "-l", "127.0.0.1:0"]);
    assert!(said.contains("no worker listens on 127.0.0.1:"), "{said}");
}

#[test]
fn a_port_of_another_deployment_is_explained() {
    let home = Home::new();
    home.web("web", "1");
    let port = address(&home.app("web")).port();
    let app = home.folder.write("second.js", &format!("require('net').createServer().listen({port}, '127.0.0.1')"));
    let said = home.fails(&["start", &app, "-i", "1", "--ready", "listening"]);
    assert!(said.contains("in use by web (pid "), "{said}");
    assert!(said.contains("EADDRINUSE"), "{said}");
}

#[test]
fn a_port_of_another_app_of_the_deployment_is_explained() {
    let folder = Folder::new();
    folder.write(
        "second.js",
        "const fs = require('fs');\n\
         const looks = setInterval(() => {\n\
         \x20 if (!fs.existsSync('port')) return;\n\
         \x20 clearInterval(looks);\n\
         \x20 require('net').createServer().listen(Number(fs.readFileSync('port')), '127.0.0.1');\n\
         }, 20)",
    );
    folder.write("one.js", "require('http').createServer((q, a) => a.end('x')).listen(process.env.PORT, '127.0.0.1')");
    folder.write(
        "c.toml",
        "[[app]]\nname = \"one\"\ncommand = [\"node\", \"one.js\"]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n\
         [[app]]\nname = \"two\"\ncommand = [\"node\", \"second.js\"]\nworkers = 1\nready = \"1ms\"\n",
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let port = cluster.address().port();
    cluster.folder.write("port.new", &port.to_string());
    std::fs::rename(cluster.folder.path().join("port.new"), cluster.folder.path().join("port")).unwrap();
    let line = cluster.wait_line("cannot bind");
    assert!(
        line.ends_with(&format!(
            "127.0.0.1:{port}: in use by the app one; stop it, or have the program bind another address"
        )),
        "{line}"
    );
}
