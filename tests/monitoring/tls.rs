//! The control API over TLS: a certificate of one's own, renewed while it serves, and clients that do not speak it.
use super::cluster::{Cluster, Folder, run};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const CONFIG: &str = r#"[control]
listen = "127.0.0.1:0"
tls_cert = "control.crt"
tls_key = "control.key"
token_file = "all.token"
page = true
[[app]]
name = "hello"
command = ["sleep", "1000"]
workers = 1
ready = "1ms"
"#;

/// Asks for a path, and prints the status, the name in the certificate, and the answer.
const CLIENT: &str = "const [url, ca, token] = process.argv.slice(1);\
    require('https').get(url, { ca: require('fs').readFileSync(ca), headers: token ? { authorization: `Bearer ${token}` } : {} }, (a) => {\
      let text = ''; const name = a.socket.getPeerCertificate().subject.CN;\
      a.on('data', (part) => { text += part; }).on('end', () => console.log(a.statusCode, name, text));\
    }).on('error', (e) => { console.log('failed', e.code); });";

/// Makes a certificate for this name, and its key. `false`: there is no openssl.
fn certify(folder: &Path, name: &str) -> bool {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-keyout", "new.key", "-out", "new.crt", "-subj", &format!("/CN={name}")])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .current_dir(folder)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("skipped: openssl is missing");
        return false;
    }
    fs::set_permissions(folder.join("new.key"), fs::Permissions::from_mode(0o600)).unwrap();
    for ending in ["key", "crt"] {
        fs::rename(folder.join(format!("new.{ending}")), folder.join(format!("control.{ending}"))).unwrap();
    }
    true
}

fn ask(cluster: &Cluster, url: &str, token: &str) -> String {
    let folder = cluster.folder.path();
    let mut client = Command::new("node");
    client.args(["-e", CLIENT, url, "control.crt", token]).current_dir(folder);
    String::from_utf8(client.output().unwrap().stdout).unwrap()
}

#[test]
fn a_certificate_is_served_and_read_again_when_it_is_renewed() {
    let folder = Folder::new();
    if !certify(folder.path(), "one") {
        return;
    }
    folder.write("c.toml", CONFIG);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let line = cluster.wait_line("the control API is at https://");
    let url = line.split_once("is at ").unwrap().1.trim().to_owned();
    let said = ask(&cluster, &format!("{url}/v1/apps"), "");
    assert!(said.starts_with("200 one ") && said.contains("\"hello\""), "{said}");
    assert!(ask(&cluster, &format!("{url}/"), "").contains("<title>clusterd</title>"));
    let token = fs::read_to_string(cluster.folder.path().join("all.token")).unwrap();
    assert!(ask(&cluster, &format!("{url}/v1/env?app=hello"), token.trim()).contains("one "));
    let opened = cluster.cli(&["open"]);
    assert_eq!(String::from_utf8_lossy(&opened.stdout).trim(), format!("{url}/"));

    // One that does not speak it, one that says nothing, and one that stops in the middle: the next one is served.
    let address: SocketAddr = url.strip_prefix("https://").unwrap().parse().unwrap();
    let mut http = TcpStream::connect(address).unwrap();
    http.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // What it sent was not read, so the end may be a reset.
    let _ = http.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).contains("use https://"), "{answer:?}");
    let silent = TcpStream::connect(address).unwrap();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(&[22, 3, 1, 2]).unwrap();

    assert!(certify(cluster.folder.path(), "two"));
    assert!(ask(&cluster, &format!("{url}/livez"), "").starts_with("200 two "));
    cluster.wait_line("read the certificate in");
    // What cannot be used does not replace what can.
    let before = fs::read(cluster.folder.path().join("control.crt")).unwrap();
    cluster.folder.write("broken", "no certificate");
    fs::rename(cluster.folder.path().join("broken"), cluster.folder.path().join("control.crt")).unwrap();
    fs::write(cluster.folder.path().join("kept.crt"), before).unwrap();
    let mut client = Command::new("node");
    client.args(["-e", CLIENT, &format!("{url}/livez"), "kept.crt", ""]).current_dir(cluster.folder.path());
    assert!(String::from_utf8_lossy(&client.output().unwrap().stdout).starts_with("200 two "));
    cluster.wait_line("has no certificate");
    drop((silent, half));
    cluster.stop();
}

#[test]
fn what_cannot_be_served_by_tls_is_refused_before_anything_starts() {
    let folder = Folder::new();
    if !certify(folder.path(), "one") {
        return;
    }
    let refused = |text: &str, wanted: &str| {
        folder.write("c.toml", text);
        let (code, _, said) = run(&folder, &["-c", "c.toml"]);
        assert!(code != 0 && said.contains(wanted), "{code}: {said}");
    };
    refused(&CONFIG.replace("tls_key = \"control.key\"\n", ""), "needs tls_key in [control] too");
    refused(&CONFIG.replace("tls_cert = \"control.crt\"\n", ""), "needs tls_cert in [control] too");
    refused(&CONFIG.replace("control.crt", "control.key"), "has no certificate");
    refused(&CONFIG.replace("control.key", "control.crt"), "has no private key");
    refused(&CONFIG.replace("control.key", "missing.key"), "missing.key: No such file");
    let key = folder.path().join("control.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(CONFIG, "other users can read or write the key");
}
