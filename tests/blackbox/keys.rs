//! Settings of one app, seen from outside: the variables of a slot, the signal at the end, what follows a worker's end.
use super::client::get;
use super::cluster::{Cluster, Folder};
use std::net::{SocketAddr, TcpListener};

/// A run of the first app of this file, in a folder of its own.
fn with_file(files: &[(&str, &str)], toml: &str) -> Cluster {
    let folder = Folder::new();
    for (name, text) in files {
        folder.write(name, text);
    }
    folder.write("cluster.toml", toml);
    Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {})
}

/// The first of two ports in a row that are free.
fn two_free_ports() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let any = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (0..1_000).map(|_| any()).find(|&port| port < u16::MAX && free(port + 1)).unwrap()
}

#[test]
fn each_slot_has_a_number_and_a_port_of_its_own() {
    let first = two_free_ports();
    let app = "const { SLOT, PORT, NODE_APP_INSTANCE } = process.env;\
               require('http').createServer((q, a) => a.end(`${SLOT} ${NODE_APP_INSTANCE}`)).listen(PORT, '127.0.0.1')";
    let cluster = with_file(
        &[("app.js", app)],
        &format!(
            "[[app]]\ncommand = [\"node\", \"app.js\"]\nworkers = 2\ninstance_var = \"SLOT\"\nincrement_var = \"PORT\"\n\
             env = {{ PORT = {first} }}\n"
        ),
    );
    cluster.wait_ready(2);
    for slot in 0..2 {
        let at = SocketAddr::from(([127, 0, 0, 1], first + slot));
        let said = get(at, "/").unwrap();
        assert!(said.contains(&format!("{slot} undefined")), "{said}");
    }
    let env = String::from_utf8(cluster.cli(&["env", "0"]).stdout).unwrap();
    assert!(
        env.lines().any(|line| line == format!("PORT={first}")) && env.lines().any(|line| line == "SLOT=0"),
        "{env}"
    );
    cluster.stop();
}
