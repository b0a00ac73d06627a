//! Settings of one app, seen from outside: the variables of a slot, the signal at the end, what follows a worker's end.
use super::client::get;
use super::cluster::{Cluster, Folder};
use super::common::ports::first_of_free;
use std::net::SocketAddr;

/// A run of the first app of this file, in a folder of its own.
fn with_file(files: &[(&str, &str)], toml: &str) -> Cluster {
    let folder = Folder::new();
    for (name, text) in files {
        folder.write(name, text);
    }
    folder.write("cluster.toml", toml);
    Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {})
}

#[test]
fn each_slot_has_a_number_and_a_port_of_its_own() {
    let first = first_of_free(2);
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
