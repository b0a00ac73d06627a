//! Programs that come to their end: jobs, bots and scripts without a port. The channel alone keeps no Node program alive.
use super::cluster::{Cluster, Folder, run};

/// A Node program in the foreground to its end; exit code, stdout and stderr.
fn job(script: &str, options: &[&str]) -> (i32, Vec<String>, String) {
    let folder = Folder::new();
    folder.write("job.js", script);
    let (code, out, err) = run(&folder, &[options, &["--", "node", "job.js"]].concat());
    (code, out.lines().map(str::to_owned).collect(), err)
}

#[test]
fn a_node_program_that_comes_to_its_end_ends_and_its_exit_code_is_clusterds() {
    let works = "setTimeout(() => console.log('done', require('cluster').isWorker), 50)";
    for once in [&["--max-runs", "1"][..], &["--no-autorestart"]] {
        let (code, out, err) = job(works, once);
        assert_eq!((code, out.join("\n").as_str()), (0, "done true"), "{err}");
        assert!(err.contains("every worker has finished"), "{err}");
    }
    let (code, _, err) = job("setTimeout(() => { process.exitCode = 7 }, 50)", &["--max-runs", "1"]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains("every worker has ended, and at least one failed"), "{err}");
    let (code, _, err) = job("process.kill(process.pid, 'SIGKILL')", &["--max-runs", "1"]);
    assert_eq!(code, 128 + 9, "{err}");
    let (code, _, err) = job("throw new Error('no database')", &["--no-autorestart"]);
    assert_eq!(code, 1, "{err}");
}

#[test]
fn the_largest_exit_code_of_several_workers_is_clusterds() {
    let script = "process.exitCode = 3 + Number(process.env.CLUSTERD_SLOT)";
    let (code, _, err) = job(script, &["-w", "3", "--max-runs", "1"]);
    assert_eq!(code, 5, "{err}");
}

#[test]
fn a_node_program_runs_again_and_again_as_in_a_shell_loop() {
    let (code, out, err) = job("console.log('run')", &["--min-uptime", "1ms", "--max-runs", "3"]);
    assert_eq!((code, out.len()), (0, 3), "{err}");
}

#[test]
fn closing_its_last_server_ends_a_program_and_what_it_said_before_arrives() {
    let script = "const server = require('net').createServer().listen(0, () => {\n\
                  process.send('ready'); console.log('listens'); server.close(() => console.log('closed')); });";
    let (code, out, err) = job(script, &["--max-runs", "1"]);
    assert_eq!((code, out.join(" ").as_str()), (0, "listens closed"), "{err}");
    // A request for a socket holds the process until its answer, also one that is refused.
    let refused = "require('net').createServer().on('error', (e) => console.log(e.code)).listen(0, '203.0.113.1')";
    let (code, out, err) = job(refused, &["--max-runs", "1"]);
    assert_eq!((code, out.join(" ").as_str()), (0, "EADDRNOTAVAIL"), "{err}");
    let datagrams = "const socket = require('dgram').createSocket('udp4').bind(0, () => {\n\
                     console.log('bound'); socket.close(); });";
    let (code, out, err) = job(datagrams, &["--max-runs", "1"]);
    assert_eq!((code, out.join(" ").as_str()), (0, "bound"), "{err}");
}

#[test]
fn leaving_by_itself_waits_for_clusterds_answer() {
    let script = "const { worker } = require('cluster');\n\
                  process.on('exit', () => console.log('left', worker.exitedAfterDisconnect, process.connected));\n\
                  worker.on('disconnect', () => console.log('disconnect'));\n\
                  worker.disconnect();";
    let (code, out, err) = job(script, &["--max-runs", "1"]);
    assert_eq!((code, out.join("\n").as_str()), (0, "disconnect\nleft true false"), "{err}");
    // Also where it is ready already, and what comes afterwards fails.
    let script = "process.send('ready'); setTimeout(() => {\n\
                  require('cluster').worker.disconnect(); setTimeout(() => process.exit(4), 100); }, 200)";
    let (code, _, err) = job(script, &["--max-runs", "1", "--ready", "1ms"]);
    assert_eq!(code, 4, "{err}");
}

/// Servers and listeners of messages keep a process alive, and messages are read.
#[test]
fn servers_and_listeners_of_messages_keep_a_program_alive() {
    let folder = Folder::new();
    folder.write(
        "waits.js",
        "const hears = (where) => (message) => { console.log(where, message); if (message === 'shutdown') process.exit(); };\n\
         if (process.env.CLUSTERD_SLOT === '0') process.on('message', hears('process'));\n\
         else require('cluster').worker.on('message', hears('worker'));\n\
         console.log('waits');",
    );
    // Who has lived so long is ready: a program without a listener would have ended before.
    let args = ["-w", "2", "--ready", "500ms", "--", "node", "waits.js"];
    let mut cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_in_out("two that wait", |lines| (lines.len() == 2).then_some(()));
    assert!(cluster.wait_ready(2).iter().all(|worker| worker.restarts == 0));
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    let heard = cluster.stdout();
    assert!(
        heard.contains(&"process shutdown".to_owned()) && heard.contains(&"worker shutdown".to_owned()),
        "{heard:?}"
    );

    let folder = Folder::new();
    folder.write(
        "serves.js",
        "const server = require('http').createServer((q, a) => a.end('x'));\n\
         server.listen(0, '127.0.0.1', () => console.log('listens'));\n\
         server.on('close', () => console.log('closed'));\n\
         if (process.env.CLUSTERD_SLOT === '1') server.unref();",
    );
    let args = ["-w", "2", "--max-runs", "1", "-b", "round-robin", "--", "node", "serves.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    // One holds only a server that it does not want to wait for, as a process without clusterd.
    cluster.wait_line("serves/1: worker 2");
    let app = cluster.app();
    assert!(app.workers.iter().any(|worker| worker.slot == 0 && worker.pid.is_some()), "{app:#?}");
    assert!(super::client::get(cluster.address(), "/").is_ok());
    cluster.stop();
}

/// Its limits are enforced, although two of it cannot run at a time.
#[test]
fn a_program_that_holds_its_own_port_is_replaced_one_after_the_other() {
    let folder = Folder::new();
    let port = super::common::ports::free_port();
    folder.write(
        "own.js",
        &format!(
            "require('http').createServer((q, a) => a.end('x')).listen({{ port: {port}, host: '127.0.0.1', exclusive: true }},\n\
             () => console.log('serves', process.pid));"
        ),
    );
    folder.write(
        "c.toml",
        "[[app]]\nname = \"own\"\ncommand = [\"node\", \"own.js\"]\nworkers = 1\nready = \"1ms\"\n[app.limits]\nlifetime = \"1s\"\n",
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_in_out("a second process that serves", |lines| (lines.len() == 2).then_some(()));
    assert!(cluster.stderr().iter().any(|line| line.contains("has lived 1") && line.contains("replacing it")));
    assert!(!cluster.stderr().iter().any(|line| line.contains("EADDRINUSE")), "two of it ran at a time");
    // And by a reload.
    let done = cluster.cli(&["reload", "all"]);
    assert!(done.status.success(), "{done:?}");
    assert!(!cluster.stderr().iter().any(|line| line.contains("EADDRINUSE")), "two of it ran at a time");
    cluster.stop();
}

/// A worker that leaves after an error has its own time to write down what happened.
#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn who_closes_its_servers_to_flush_keeps_its_time_and_is_said_to_have_crashed() {
    for leave in ["server.close()", "require('cluster').worker.disconnect()"] {
        let folder = Folder::new();
        folder.write(
            "flushes.js",
            &format!(
                "const server = require('http').createServer((q, a) => {{\n\
                 \x20 a.end('x');\n\
                 \x20 if (q.url === '/crash') setTimeout(() => {{ throw new Error('broken'); }}, 10);\n\
                 }}).listen(process.env.PORT);\n\
                 process.once('uncaughtException', () => {{\n\
                 \x20 {leave};\n\
                 \x20 setTimeout(() => {{ console.log('flushed'); process.exit(1); }}, 3000);\n\
                 }});\n\
                 process.on('SIGTERM', () => console.log('hurried'));"
            ),
        );
        let args = ["-w", "1", "--host", "127.0.0.1", "--port", "0", "--", "node", "flushes.js"];
        let cluster = Cluster::start_in(folder, &args, |_| {});
        cluster.wait_ready(1);
        super::client::get(cluster.address(), "/crash").unwrap();
        cluster.wait_out("flushed");
        cluster.wait_line(" crashed while it was leaving by itself: exited with code 1");
        assert!(!cluster.stdout().contains(&"hurried".to_owned()), "{leave}: SIGTERM came before its time");
        assert!(super::client::get(cluster.address(), "/").is_ok());
    }
}
