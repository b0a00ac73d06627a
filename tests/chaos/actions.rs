//! What is done to the deployment. Each action says in the ledger what it may cost, and in the site what has to be true
//! when it is over.
use super::client::ask;
use super::cluster::kill;
use super::site::{API, CONFIGURED, NAMES, Said, WEB, cli_at};
use super::{CLIENTS, Chaos};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) type Outcome = Result<(), String>;

/// One kind of action.
pub(crate) type Act = fn(&mut Chaos) -> Outcome;

/// Name, how often (in parts of the sum), what.
pub(crate) const ACTIONS: &[(&str, u64, Act)] = &[
    ("kill a worker", 10, kill_worker),
    ("kill two workers at once", 4, kill_two),
    ("stop a worker for a while", 6, pause_worker),
    ("SIGTERM to a worker", 4, term_worker),
    ("a worker exits", 5, worker_exits),
    ("a worker disconnects", 6, worker_leaves),
    ("kill the master", 10, kill_master),
    ("kill three masters in a row", 2, kill_masters),
    ("crash the master", 4, crash_master),
    ("kill the master and a worker", 5, kill_master_and_worker),
    ("stop the master", 1, stop_master),
    ("reload", 8, reload),
    ("reload a bad release", 8, bad_reload),
    ("two reloads at once", 4, two_reloads),
    ("kill the master during a reload", 8, reload_and_kill_master),
    ("kill a worker during a reload", 6, reload_and_kill_worker),
    ("kill the master during a bad reload", 5, bad_reload_and_kill_master),
    ("SIGHUP", 3, hang_up),
    ("scale", 8, scale),
    ("scale by signal", 3, scale_by_signal),
    ("kill the master during a scale", 6, scale_and_kill_master),
    ("scale during a reload", 4, scale_during_reload),
    ("upgrade", 4, upgrade),
    ("kill a worker during an upgrade", 4, upgrade_and_kill_worker),
    ("kill the master during an upgrade", 4, upgrade_and_kill_master),
    ("garbage on the control socket", 5, garbage),
];

fn signal(pid: i32, name: &str) {
    kill(pid, name);
}

// ---- workers ----

fn strike(chaos: &mut Chaos, app: usize, pid: i32, name: &str) {
    chaos.ledger.worker_killed(app, pid, CLIENTS);
    signal(pid, name);
}

fn kill_worker(chaos: &mut Chaos) -> Outcome {
    let (app, number) = (chaos.some_app(), chaos.random.next());
    let pid = chaos.site.worker(app, number);
    strike(chaos, app, pid, "KILL");
    chaos.wait_gone(pid)
}

fn kill_two(chaos: &mut Chaos) -> Outcome {
    for app in [WEB, API] {
        let number = chaos.random.next();
        let pid = chaos.site.worker(app, number);
        strike(chaos, app, pid, "KILL");
        chaos.wait_gone(pid)?;
    }
    Ok(())
}

/// For less than a client waits.
fn pause_worker(chaos: &mut Chaos) -> Outcome {
    let (app, number, time) = (chaos.some_app(), chaos.random.next(), chaos.random.between(100, 1500));
    let pid = chaos.site.worker(app, number);
    signal(pid, "STOP");
    std::thread::sleep(Duration::from_millis(time));
    if chaos.random.percent(25) {
        strike(chaos, app, pid, "KILL");
        return chaos.wait_gone(pid);
    }
    signal(pid, "CONT");
    Ok(())
}

/// Node ends at once, as on a kill; the Python app answers what it has.
fn term_worker(chaos: &mut Chaos) -> Outcome {
    let (app, number) = (chaos.some_app(), chaos.random.next());
    let pid = chaos.site.worker(app, number);
    if app == WEB {
        strike(chaos, app, pid, "TERM");
    } else {
        signal(pid, "TERM");
    }
    chaos.wait_gone(pid)
}

fn worker_exits(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    // Which one it will be is known only from the answer.
    let from = Instant::now();
    let pid = ask(chaos.site.addresses[app], "/exit")?.pid;
    chaos.ledger.worker_killed_since(from, app, pid, CLIENTS);
    chaos.wait_gone(pid)
}

/// Costs nobody anything.
fn worker_leaves(chaos: &mut Chaos) -> Outcome {
    let pid = ask(chaos.site.addresses[WEB], "/leave")?.pid;
    chaos.wait_gone(pid)
}

// ---- masters ----

fn kill_master(chaos: &mut Chaos) -> Outcome {
    chaos.end_master("KILL")
}

/// The second and the third perhaps while they take over.
fn kill_masters(chaos: &mut Chaos) -> Outcome {
    for _ in 0..3 {
        chaos.end_master("KILL")?;
    }
    Ok(())
}

fn crash_master(chaos: &mut Chaos) -> Outcome {
    let name = if chaos.random.percent(50) { "SEGV" } else { "ABRT" };
    chaos.end_master(name)
}

/// The worker dies while no master can see it; what it had not yet taken is lost with the master's copy of it.
fn kill_master_and_worker(chaos: &mut Chaos) -> Outcome {
    let (app, number) = (chaos.some_app(), chaos.random.next());
    let worker = chaos.site.worker(app, number);
    let from = Instant::now();
    let master = chaos.master()?;
    let worker_first = chaos.random.percent(50);
    signal(master, "STOP");
    if worker_first {
        strike(chaos, app, worker, "KILL");
    }
    signal(master, "KILL");
    chaos.ledger.master_killed(from);
    if !worker_first {
        strike(chaos, app, worker, "KILL");
    }
    chaos.wait_gone(worker)?;
    chaos.wait_gone(master)?;
    chaos.next_master(from)
}

/// The keeper's watchdog has to find it.
fn stop_master(chaos: &mut Chaos) -> Outcome {
    let from = Instant::now();
    let master = chaos.master()?;
    signal(master, "STOP");
    chaos.wait_gone(master)?;
    chaos.ledger.master_killed(from);
    chaos.next_master(from)
}

// ---- reloads ----

fn expect_success(said: &Said, what: &str) -> Outcome {
    if said.code == Some(0) { Ok(()) } else { Err(format!("{what}: {said:?}")) }
}

/// What a good reload to this release leads to.
fn reloaded(chaos: &mut Chaos, app: usize, version: u32) {
    chaos.site.expected[app].version = version;
    chaos.site.expected[app].workers = CONFIGURED[app];
}

fn reload(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let version = chaos.site.release(app, "", "");
    expect_success(&chaos.site.cli(&["reload", NAMES[app]]), "a good reload")?;
    reloaded(chaos, app, version);
    // The command is over when the new release serves alone.
    for _ in 0..3 {
        let answer = ask(chaos.site.addresses[app], "/new")?;
        if answer.version != version {
            return Err(format!("release {} answers after the reload to {version}", answer.version));
        }
    }
    Ok(())
}

/// A release that never gets ready, in one of the ways in which that happens.
fn bad_release(chaos: &mut Chaos) -> usize {
    let app = chaos.some_app();
    let kind = chaos.random.between(0, 3);
    let (head, tail) = match (app, kind) {
        (WEB, 0) => ("throw new Error('a bad release');", ""),
        (WEB, 1) => ("process.exit(7);", ""),
        (WEB, 2) => ("this is no javascript", ""),
        (WEB, _) => ("setInterval(() => {}, 1000); return;", ""),
        (_, 0) => ("raise Exception('a bad release')", ""),
        (_, 1) => ("import os; os._exit(7)", ""),
        (_, 2) => ("this is no python", ""),
        (_, _) => ("import time; time.sleep(1000)", ""),
    };
    chaos.site.release(app, head, tail);
    if kind == 3 {
        chaos.site.ready_timeout("1500ms");
    }
    app
}

/// The person puts the good release back.
fn repair(chaos: &mut Chaos, app: usize) {
    chaos.site.link_expected(app);
    chaos.site.ready_timeout("30s");
}

fn bad_reload(chaos: &mut Chaos) -> Outcome {
    let app = bad_release(chaos);
    let said = chaos.site.cli(&["reload", NAMES[app]]);
    if said.code != Some(1) {
        return Err(format!("a bad reload: {said:?}"));
    }
    if chaos.random.percent(50) {
        // The old release comes back, although the link points to the bad one.
        let number = chaos.random.next();
        let pid = chaos.site.worker(app, number);
        strike(chaos, app, pid, "KILL");
        chaos.wait_gone(pid)?;
        chaos.site.settle()?;
    }
    repair(chaos, app);
    Ok(())
}

fn two_reloads(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let version = chaos.site.release(app, "", "");
    let other = if chaos.random.percent(50) { "all" } else { NAMES[app] };
    let pause = chaos.random.between(0, 150);
    let folder = std::sync::Arc::clone(&chaos.folder);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| cli_at(&folder, &["reload", NAMES[app]]));
        std::thread::sleep(Duration::from_millis(pause));
        let second = cli_at(&folder, &["reload", other]);
        (first.join(), second)
    });
    let first = first.map_err(|_| "the first of two reloads hung".to_owned())?;
    expect_success(&first, "the first of two reloads")?;
    expect_success(&second, "the second of two reloads")?;
    reloaded(chaos, app, version);
    if other == "all" {
        chaos.site.expected = [WEB, API].map(|app| {
            let mut expected = chaos.site.expected[app];
            expected.workers = CONFIGURED[app];
            expected
        });
    }
    Ok(())
}

/// A command, and something else while it runs; what the command said.
fn during(chaos: &mut Chaos, args: &[&str], act: impl FnOnce(&mut Chaos) -> Outcome) -> Result<Said, String> {
    let folder = std::sync::Arc::clone(&chaos.folder);
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let command = std::thread::spawn(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        cli_at(&folder, &args)
    });
    let acted = act(chaos);
    let said = command.join().map_err(|_| "the command hung".to_owned())?;
    acted.map(|()| said)
}

fn pause(chaos: &mut Chaos, longest: u64) {
    let time = chaos.random.between(0, longest);
    std::thread::sleep(Duration::from_millis(time));
}

fn reload_and_kill_master(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let version = chaos.site.release(app, "", "");
    let said = during(chaos, &["reload", NAMES[app]], |chaos| {
        pause(chaos, 700);
        chaos.end_master("KILL")
    })?;
    // Told that it was done, it is; told nothing (the master that would have told is dead), it is done or never began.
    let done = said.code == Some(0) || chaos.version_that_settles(app)? == version;
    if done {
        reloaded(chaos, app, version);
    } else {
        chaos.site.link_expected(app);
    }
    Ok(())
}

fn reload_and_kill_worker(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let version = chaos.site.release(app, "", "");
    let number = chaos.random.next();
    let said = during(chaos, &["reload", NAMES[app]], |chaos| {
        pause(chaos, 700);
        let pid = chaos.site.worker(app, number);
        // It may have left by itself a moment ago.
        chaos.ledger.worker_killed(app, pid, CLIENTS);
        let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        Ok(())
    })?;
    match said.code {
        Some(0) => reloaded(chaos, app, version),
        // It was a new worker that was not ready yet: to the master that is a release that does not start.
        Some(1) if said.text.contains("SIGKILL") || said.text.contains("signal 9") => chaos.site.link_expected(app),
        _ => return Err(format!("a reload in which a worker was killed: {said:?}")),
    }
    Ok(())
}

fn bad_reload_and_kill_master(chaos: &mut Chaos) -> Outcome {
    let app = bad_release(chaos);
    let said = during(chaos, &["reload", NAMES[app]], |chaos| {
        pause(chaos, 500);
        chaos.end_master("KILL")
    })?;
    if said.code != Some(1) {
        return Err(format!("a bad reload in which the master was killed: {said:?}"));
    }
    // Not before it is decided: the new master continues it.
    chaos.site.settle()?;
    repair(chaos, app);
    Ok(())
}

fn hang_up(chaos: &mut Chaos) -> Outcome {
    let before = chaos.generations()?;
    let versions = [WEB, API].map(|app| chaos.site.release(app, "", ""));
    signal(chaos.site.cluster.keeper_pid(), "HUP");
    chaos
        .wait("both apps reload", |view| view.apps.iter().zip(&before).all(|(app, &before)| app.generation > before))?;
    for app in [WEB, API] {
        reloaded(chaos, app, versions[app]);
    }
    Ok(())
}

// ---- scale ----

/// One or two more or less, never below one and never many.
fn other_count(chaos: &mut Chaos, app: usize) -> u32 {
    let now = chaos.site.expected[app].workers;
    let other = chaos.random.between(1, 5) as u32;
    if other == now { now + 1 } else { other }
}

fn scale(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let count = other_count(chaos, app);
    expect_success(&chaos.site.cli(&["scale", NAMES[app], &count.to_string()]), "a scale")?;
    chaos.site.expected[app].workers = count;
    Ok(())
}

fn scale_by_signal(chaos: &mut Chaos) -> Outcome {
    let up = chaos.random.percent(50) || chaos.site.expected.iter().any(|expected| expected.workers == 1);
    signal(chaos.site.cluster.keeper_pid(), if up { "TTIN" } else { "TTOU" });
    for expected in &mut chaos.site.expected {
        expected.workers = if up { expected.workers + 1 } else { expected.workers - 1 };
    }
    Ok(())
}

fn scale_and_kill_master(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let count = other_count(chaos, app);
    let said = during(chaos, &["scale", NAMES[app], &count.to_string()], |chaos| {
        pause(chaos, 60);
        chaos.end_master("KILL")
    })?;
    if said.code == Some(0) || chaos.count_that_settles(app)? == count {
        chaos.site.expected[app].workers = count;
    }
    Ok(())
}

/// A scale that comes in the middle of a reload is carried out when that is over.
fn scale_during_reload(chaos: &mut Chaos) -> Outcome {
    let app = chaos.some_app();
    let version = chaos.site.release(app, "", "");
    let count = other_count(chaos, app);
    let before = chaos.generations()?[app];
    let folder = std::sync::Arc::clone(&chaos.folder);
    let mut scaled = None;
    let said = during(chaos, &["reload", NAMES[app]], |chaos| {
        chaos.wait("the reload begins", |view| {
            view.apps[app].status == "reloading" || view.apps[app].generation > before
        })?;
        scaled = Some(cli_at(&folder, &["scale", NAMES[app], &count.to_string()]));
        Ok(())
    })?;
    expect_success(&said, "a reload during which a scale came")?;
    expect_success(&scaled.ok_or("no scale")?, "a scale during a reload")?;
    reloaded(chaos, app, version);
    chaos.site.expected[app].workers = count;
    Ok(())
}

// ---- upgrades ----

/// Keeper and master of another file.
fn upgrade(chaos: &mut Chaos) -> Outcome {
    let binary = chaos.site.other_binary();
    let said = chaos.site.cli(&["upgrade", "--binary", &binary]);
    expect_success(&said, "an upgrade")?;
    let keeper = chaos.site.keeper_binary();
    if keeper == binary { Ok(()) } else { Err(format!("the keeper is of {keeper} after {said:?}")) }
}

fn upgrade_and_kill_worker(chaos: &mut Chaos) -> Outcome {
    let (app, number, binary) = (chaos.some_app(), chaos.random.next(), chaos.site.other_binary());
    let pid = chaos.site.worker(app, number);
    let said = during(chaos, &["upgrade", "--binary", &binary], |chaos| {
        // The keeper changes a good second after the command came.
        pause(chaos, 1_400);
        strike(chaos, app, pid, "KILL");
        Ok(())
    })?;
    expect_success(&said, "an upgrade during which a worker was killed")
}

/// Whichever master it hits: the new one is taken back, or was through.
fn upgrade_and_kill_master(chaos: &mut Chaos) -> Outcome {
    let binary = chaos.site.other_binary();
    during(chaos, &["upgrade", "--binary", &binary], |chaos| {
        pause(chaos, 1_600);
        chaos.end_master("KILL")
    })?;
    Ok(())
}

// ---- the control socket ----

fn garbage(chaos: &mut Chaos) -> Outcome {
    let path = chaos.folder.join("home/run/chaos.sock");
    for _ in 0..8 {
        let mut stream = UnixStream::connect(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let length = chaos.random.between(0, 20_000);
        let mut bytes: Vec<u8> = (0..length).map(|_| chaos.random.next() as u8).collect();
        if chaos.random.percent(50) {
            bytes.splice(
                0..0,
                *b"POST /v1/apps/web/scale HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n{\"workers\"",
            );
        }
        let _ = stream.write_all(&bytes);
        if chaos.random.percent(50) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(8)));
            let _ = stream.read(&mut [0; 512]);
        }
    }
    Ok(())
}
