//! Python servers, which take their socket from fd 3: uvicorn because it is told to, gunicorn because systemd's
//! variables say so.
use super::client::get;
use super::cluster::Cluster;
use super::install;
use super::support::{kill_master, kill_one, reload, start, under_load};
use std::path::Path;

fn python(options: &[&str], module: &[&str]) -> Cluster {
    let app = super::support::app("asgi.py");
    let folder = Path::new(&app).parent().unwrap().display().to_string();
    let fixed = ["--ready", "notify", "--cwd", &folder, "-e", "PYTHONDONTWRITEBYTECODE=1"];
    let python = install::python();
    start(&[&fixed, options].concat(), &[&[python.as_str(), "-m"], module].concat())
}

fn uvicorn() -> Cluster {
    let cluster = python(&[], &["uvicorn", "asgi:app", "--fd", "3", "--no-access-log"]);
    assert_eq!(cluster.app().protocol, "bind");
    assert!(get(cluster.address(), "/").unwrap().contains("asgi"));
    cluster
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn uvicorn_reloads_and_nobody_is_refused() {
    let cluster = uvicorn();
    // uvicorn, when it gets SIGTERM, resets connections that it has accepted and whose request it has not read yet. So
    // it does alone, on a socket shared without clusterd.
    under_load(&cluster, || reload(&cluster)).cut_at_most_in_hand_of(2);
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn uvicorn_survives_dead_workers_and_a_dead_master() {
    let cluster = uvicorn();
    under_load(&cluster, || kill_one(&cluster)).cut_at_most_in_hand_of(1);
    // Its workers accept by themselves: nothing of theirs goes through the master.
    let workers = cluster.worker_pids();
    under_load(&cluster, || kill_master(&cluster)).nobody_hurt();
    assert_eq!(cluster.worker_pids(), workers);
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn gunicorn_takes_its_socket_as_from_systemd() {
    let cluster = python(&[], &["gunicorn", "wsgi:app", "--workers", "1", "--worker-tmp-dir", "/dev/shm"]);
    assert!(get(cluster.address(), "/").unwrap().contains("wsgi"));
    under_load(&cluster, || reload(&cluster)).nobody_hurt();
    under_load(&cluster, || kill_master(&cluster)).nobody_hurt();
    cluster.stop();
}
