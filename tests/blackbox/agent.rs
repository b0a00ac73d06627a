//! An app with an agent: who starts first, who stays when the other dies, and who gets which message.
use super::apps::project;
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, alive, kill, run, wait_until};
use clusterd::api::types::{Agent, Deployment};
use std::fs;

/// Appends every message to its log, and does what a request of the test says.
const LOG: &str = "
const fs = require('node:fs');
const write = (name, value) => fs.appendFileSync(name, JSON.stringify(value) + '\\n');
";
const AGENT: &str = "
process.on('message', (m) => {
  write('agent.log', m);
  if (m.action === 'do') process.send(m.data);
});
write('agent.log', { born: process.pid });
setTimeout(() => process.send('ready'), DELAY);
";
const APP: &str = "
const slot = process.env.CLUSTERD_SLOT;
process.on('message', (m) => {
  write(`app${slot}.log`, m);
  if (m.action === 'do') process.send(m.data);
});
write('agent.log', { worker: process.pid });
require('node:http').createServer((q, s) => {
  if (q.url.length > 1) process.send(JSON.parse(decodeURIComponent(q.url.slice(1))));
  s.end(JSON.stringify({ pid: process.pid, slot: +slot }));
}).listen(process.env.PORT);
";

/// Two workers and an agent that log; `more` is added to the agent's table.
fn start(agent: &str, more: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", &format!("{LOG}{APP}"));
    folder.write("agent.js", &format!("{LOG}{agent}"));
    folder.write("c.toml", &config(more));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn config(more: &str) -> String {
    format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n\
         [app.agent]\ncommand = [\"node\", \"agent.js\"]\nrestart_delay = \"50ms\"\n{more}"
    )
}

fn plain() -> String {
    AGENT.replace("DELAY", "0")
}

fn agent(cluster: &Cluster) -> Agent {
    let ready = |view: &Deployment| view.apps[0].agent.as_ref().is_some_and(|agent| agent.state == "ready");
    cluster.wait_view("an agent that is ready", ready).apps.remove(0).agent.unwrap()
}

/// What a process has got, line by line.
fn log(cluster: &Cluster, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(cluster.folder.path().join(name)).unwrap_or_default();
    // The last line may not be whole yet.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until a log has so many lines for which something holds.
fn wait_log(cluster: &Cluster, name: &str, count: usize, holds: impl Fn(&serde_json::Value) -> bool) {
    wait_until(&format!("{count} such lines in {name}: {:?}", log(cluster, name)), || {
        log(cluster, name).iter().filter(|line| holds(line)).count() >= count
    });
}

/// Has whichever worker answers send this message; its slot.
fn a_worker_sends(cluster: &Cluster, message: &str) -> u64 {
    let encoded: String = message.bytes().map(|b| format!("%{b:02x}")).collect();
    let answer = get(cluster.address(), &format!("/{encoded}")).unwrap();
    serde_json::from_str::<serde_json::Value>(&answer).unwrap()["slot"].as_u64().unwrap()
}

/// Has the agent send this message.
fn the_agent_sends(cluster: &Cluster, message: &str) {
    a_worker_sends(cluster, &format!(r#"{{"action":"do","data":{message},"to":"agent"}}"#));
}

fn is(action: &str) -> impl Fn(&serde_json::Value) -> bool + '_ {
    move |line| line["action"] == action
}

#[test]
fn workers_start_when_the_agent_is_ready_and_both_are_shown() {
    let cluster = start(&AGENT.replace("DELAY", "700"), "");
    let shown = agent(&cluster);
    assert_eq!((shown.protocol.as_str(), shown.generation, shown.restarts), ("node", 1, 0));
    let first: Vec<bool> = log(&cluster, "agent.log").iter().map(|line| line.get("born").is_some()).collect();
    assert!(first[0], "a worker ran before the agent");
    cluster.wait_line("web: ready");
    let lines = cluster.stderr();
    let place = |what: &str| lines.iter().position(|line| line.contains(what)).unwrap();
    assert!(place("web/agent: ready") < place("web: ready"), "{lines:?}");
    for verb in [&["ls"][..], &["describe", "web"]] {
        let text = String::from_utf8(cluster.cli(verb).stdout).unwrap();
        assert!(text.lines().any(|line| line.trim_start().starts_with("agent")), "{text}");
    }
    let env = String::from_utf8(cluster.cli(&["env", "web", "--agent"]).stdout).unwrap();
    assert!(env.contains("CLUSTERD_AGENT=1\n") && env.contains("NODE_CHANNEL_FD=3\n"), "{env}");
    assert!(!env.contains("NODE_UNIQUE_ID"), "{env}");
    cluster.stop();
}

#[test]
fn an_agent_that_dies_is_started_again_and_the_workers_stay() {
    let cluster = start(&plain(), "");
    let (before, workers) = (agent(&cluster).pid.unwrap(), cluster.worker_pids());
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(50);
    kill(before, "KILL");
    cluster.wait_line("web/agent: agent");
    let again = |view: &Deployment| {
        view.apps[0].agent.as_ref().is_some_and(|a| a.state == "ready" && a.pid != Some(before) && a.restarts == 1)
    };
    cluster.wait_view("another agent", again);
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.worker_pids(), workers);
    // The next one learns who is there.
    wait_log(&cluster, "agent.log", 2, |line| line["clusterd"]["event"] == "state");
    let states = log(&cluster, "agent.log");
    let state = states.iter().rfind(|line| line["clusterd"]["event"] == "state").unwrap();
    assert_eq!(state["clusterd"]["workers"].as_array().map(Vec::len), Some(2), "{state}");
    cluster.stop();
}

#[test]
fn eggs_messages_reach_the_other_side_all_of_it_or_one_process() {
    let cluster = start(&plain(), "");
    a_worker_sends(&cluster, r#"{"action":"up","data":{"n":1},"to":"agent"}"#);
    wait_log(&cluster, "agent.log", 1, |line| is("up")(line) && line["data"]["n"] == 1 && line["from"] == "app");
    // To all workers, the sender too.
    a_worker_sends(&cluster, r#"{"action":"across","to":"app"}"#);
    the_agent_sends(&cluster, r#"{"action":"down","to":"app"}"#);
    for name in ["app0.log", "app1.log"] {
        wait_log(&cluster, name, 1, is("across"));
        wait_log(&cluster, name, 1, |line| is("down")(line) && line["from"] == "agent");
    }
    // Nobody in particular: the other side.
    the_agent_sends(&cluster, r#"{"action":"side"}"#);
    wait_log(&cluster, "app0.log", 1, is("side"));
    let pid = cluster.wait_ready(2)[1].pid.unwrap();
    the_agent_sends(&cluster, &format!(r#"{{"action":"one","receiverPid":"{pid}"}}"#));
    wait_log(&cluster, "app1.log", 1, is("one"));
    let agent = agent(&cluster).pid.unwrap();
    a_worker_sends(&cluster, &format!(r#"{{"action":"pid","receiverPid":"{agent}"}}"#));
    wait_log(&cluster, "agent.log", 1, is("pid"));
    assert!(!log(&cluster, "app0.log").iter().any(is("one")), "it was for the other one");
    cluster.stop();
}

#[test]
fn our_own_messages_reach_a_slot_anyone_or_all_and_tell_when_they_do_not() {
    let cluster = start(&plain(), "");
    the_agent_sends(&cluster, r#"{"clusterd":{"to":{"slot":1}},"message":{"x":1}}"#);
    wait_log(&cluster, "app1.log", 1, |line| line["clusterd"]["from"] == "agent" && line["message"]["x"] == 1);
    the_agent_sends(&cluster, r#"{"clusterd":{"to":"all"},"message":"everyone"}"#);
    for _ in 0..2 {
        the_agent_sends(&cluster, r#"{"clusterd":{"to":"random"},"message":"anyone"}"#);
    }
    for name in ["app0.log", "app1.log"] {
        wait_log(&cluster, name, 1, |line| line["message"] == "everyone");
        wait_log(&cluster, name, 1, |line| line["message"] == "anyone");
    }
    let slot = a_worker_sends(&cluster, r#"{"clusterd":{"to":"agent"},"message":[1]}"#);
    wait_log(&cluster, "agent.log", 1, |line| {
        line["clusterd"]["from"]["slot"] == slot && line["message"] == serde_json::json!([1])
    });
    for (to, id) in [(r#"{"slot":7}"#, 1), (r#""nobody""#, 2)] {
        the_agent_sends(&cluster, &format!(r#"{{"clusterd":{{"to":{to},"id":{id}}},"message":0}}"#));
        wait_log(&cluster, "agent.log", 1, |line| {
            let told = &line["clusterd"];
            told["id"] == id && told["undelivered"].is_u64() && told["reason"].is_string()
        });
    }
    cluster.stop();
}

#[test]
fn everybody_learns_once_that_the_app_is_ready_and_who_the_others_are() {
    let cluster = start(&plain(), "");
    let agent_pid = agent(&cluster).pid.unwrap();
    for name in ["app0.log", "app1.log", "agent.log"] {
        wait_log(&cluster, name, 1, |line| is("egg-ready")(line) && line["data"]["workers"] == 2);
    }
    for name in ["app0.log", "app1.log"] {
        wait_log(&cluster, name, 1, |line| is("egg-pids")(line) && line["data"][0] == agent_pid);
    }
    let both = |pids: &[i32]| {
        let pids = pids.to_vec();
        move |line: &serde_json::Value| {
            let list = line["data"].as_array().cloned().unwrap_or_default();
            is("egg-pids")(line) && list.len() == 2 && pids.iter().all(|pid| list.contains(&(*pid).into()))
        }
    };
    wait_log(&cluster, "agent.log", 1, both(&cluster.worker_pids()));
    // A later worker hears of it too, and the agent of its pid.
    let victim = cluster.wait_ready(2)[0].clone();
    kill(victim.pid.unwrap(), "KILL");
    wait_log(&cluster, "agent.log", 1, |line| {
        line["clusterd"]["event"] == "worker_exit" && line["clusterd"]["pid"] == victim.pid.unwrap()
    });
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers_ready == 2 && view.apps[0].workers.iter().all(|w| w.id != victim.id)
    });
    wait_log(&cluster, "agent.log", 1, both(&cluster.worker_pids()));
    wait_log(&cluster, "app0.log", 2, is("egg-ready"));
    // And nobody twice, whoever is the master.
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 2);
    the_agent_sends(&cluster, r#"{"action":"after","to":"app"}"#);
    wait_log(&cluster, "app0.log", 1, is("after"));
    wait_log(&cluster, "app1.log", 1, is("after"));
    assert_eq!(log(&cluster, "app1.log").iter().filter(|line| is("egg-ready")(line)).count(), 1);
    assert_eq!(log(&cluster, "agent.log").iter().filter(|line| is("egg-ready")(line)).count(), 1);
    assert_eq!(agent(&cluster).pid, Some(agent_pid));
    cluster.stop();
}

#[test]
fn a_reload_replaces_the_agent_first_and_a_bad_agent_touches_no_worker() {
    let cluster = start(&plain(), "");
    let (before, workers) = (agent(&cluster), cluster.worker_pids());
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(50);
    assert!(cluster.cli(&["reload", "web"]).status.success());
    let after = agent(&cluster);
    assert!(after.pid != before.pid && after.generation == 2, "{after:?}");
    let kept = cluster.worker_pids();
    assert!(kept.iter().all(|pid| !workers.contains(pid)), "{workers:?} {kept:?}");
    // The new one throws.
    cluster.folder.write("agent.js", "throw new Error('no good agent');");
    let refused = cluster.cli(&["reload", "web"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the new agent exited with code 1"), "{said}");
    assert!(said.contains("no good agent"), "{said}");
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.worker_pids(), kept);
    // The agent of the previous generation is tried with the current file: it is back as soon as the file is.
    cluster.folder.write("agent.js", &format!("{LOG}{}", plain()));
    assert_eq!(agent(&cluster).generation, 2);
    cluster.stop();
}

#[test]
fn a_stop_ends_the_workers_first_and_the_agent_hears_of_it() {
    let mut cluster = start(
        &format!("{}process.on('SIGTERM', () => {{ write('agent.log', {{ end: 1 }}); process.exit(0); }});", plain()),
        "",
    );
    let (agent_pid, workers) = (agent(&cluster).pid.unwrap(), cluster.worker_pids());
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    let lines = log(&cluster, "agent.log");
    let place = |holds: &dyn Fn(&serde_json::Value) -> bool| lines.iter().rposition(holds).unwrap();
    let last_exit = place(&|line| line["clusterd"]["event"] == "worker_exit");
    assert!(place(&|line| line["clusterd"]["event"] == "stopping") < last_exit, "{lines:?}");
    assert!(last_exit < place(&|line| line["end"] == 1), "{lines:?}");
    assert!(!alive(agent_pid) && workers.iter().all(|pid| !alive(*pid)));
}

#[test]
fn a_start_fails_with_the_agents_words_when_the_agent_does() {
    let folder = Folder::new();
    folder.write("app.js", &format!("{LOG}{APP}"));
    folder.write("agent.js", "console.error('broken agent'); process.exit(7);");
    folder.write("c.toml", &config(""));
    let (code, _, err) = run(&folder, &["start", "c.toml"]);
    assert!(code == 1 && err.contains("its agent exited with code 7") && err.contains("broken agent"), "{err}");
    assert_eq!(run(&folder, &["kill", "--now"]).0, 0);
}

#[test]
#[ignore = "long: a worker that reads nothing, for seconds"]
fn a_worker_that_reads_no_message_costs_itself_only() {
    let cluster = start(&plain(), "");
    // The worker in slot 1 stands still, and the agent sends far more than its queue holds.
    let stuck = cluster.wait_ready(2)[1].pid.unwrap();
    kill(stuck, "STOP");
    let flood = "for (let n = 0; n < 200; n++) process.send({ action: 'flood', data: 'x'.repeat(20000), to: 'app' }); \
                 process.send({ action: 'last', to: 'app' });";
    cluster.folder.write("agent.js", &format!("{LOG}{}\nsetTimeout(() => {{ {flood} }}, 300);", plain()));
    kill(agent(&cluster).pid.unwrap(), "KILL");
    wait_log(&cluster, "app0.log", 200, is("flood"));
    wait_log(&cluster, "app0.log", 1, is("last"));
    cluster.wait_line("does not read its messages");
    let view = cluster.wait_view("a worker that lost some", |view| view.apps[0].workers[1].messages_lost > 0);
    assert_eq!(view.apps[0].workers[0].messages_lost, 0);
    kill(stuck, "CONT");
    // It has what its queue held, and lives.
    wait_log(&cluster, "app1.log", 50, is("flood"));
    assert_eq!(cluster.wait_ready(2)[1].pid, Some(stuck));
    cluster.stop();
}

/// Most memory that a process ever had, in KiB.
fn peak_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "long: a worker that reads nothing, for seconds"]
fn many_workers_that_read_no_message_take_little_memory_together() {
    const WORKERS: u32 = 12;
    let folder = Folder::new();
    folder.write("app.js", "process.on('message', () => {}); require('net').createServer().listen(process.env.PORT);");
    let flood = "for (let n = 0; n < 150; n++) process.send({ action: 'flood', data: 'x'.repeat(20000), to: 'app' });";
    let waits =
        "const i = setInterval(() => { if (require('fs').existsSync('go')) { clearInterval(i); flood(); } }, 10);";
    folder.write("agent.js", &format!("process.send('ready');\nfunction flood() {{ {flood} }}\n{waits}"));
    folder.write("c.toml", &config("").replace("workers = 2", &format!("workers = {WORKERS}")));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let stopped: Vec<i32> = cluster.wait_ready(WORKERS).iter().filter_map(|worker| worker.pid).collect();
    stopped.iter().for_each(|pid| kill(*pid, "STOP"));
    let (master, before) = (cluster.master_pid(), peak_kib(cluster.master_pid()));
    cluster.folder.write("go", "");
    // More was sent to each than may wait for it.
    cluster
        .wait_view("messages lost by all", |view| view.apps[0].workers.iter().all(|worker| worker.messages_lost > 20));
    let grown = peak_kib(master) - before;
    // Two MiB for each would be 24.
    assert!(grown < 16 * 1024, "{grown} KiB");
    stopped.iter().for_each(|pid| kill(*pid, "CONT"));
    cluster.wait_ready(WORKERS);
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn an_agent_that_sends_faster_than_workers_read_is_held_up_and_loses_nothing() {
    let _turn = super::common::turns::turn();
    // Each worker writes every message down before it reads the next: far slower than they are sent.
    let flood = "for (let n = 0; n < 4000; n++) process.send({ action: 'flood', data: 'x'.repeat(2000), to: 'app' }); \
                 process.send({ action: 'last', to: 'app' });";
    let cluster =
        start(&format!("{}process.on('message', (m) => {{ if (m.action === 'go') {{ {flood} }} }});", plain()), "");
    a_worker_sends(&cluster, r#"{"action":"go","to":"agent"}"#);
    let count = |name: &str, what: &str| {
        let text = fs::read_to_string(cluster.folder.path().join(name)).unwrap_or_default();
        text.matches(what).count()
    };
    for name in ["app0.log", "app1.log"] {
        wait_until("the last message", || count(name, "\"action\":\"last\"") == 1);
        assert_eq!(count(name, "\"action\":\"flood\""), 4000, "{name}");
    }
    assert!(cluster.app().workers.iter().all(|worker| worker.messages_lost == 0));
    // Nobody was kept from serving.
    assert!(get(cluster.address(), "/").unwrap().contains("pid"));
    cluster.stop();
}

#[test]
fn an_agent_that_is_no_node_program_is_ready_by_the_notify_socket() {
    let folder = Folder::new();
    folder.write("app.js", &format!("{LOG}{APP}"));
    let code = "import os, socket, time\n\
                name = os.environ['NOTIFY_SOCKET']\n\
                assert 'NODE_CHANNEL_FD' not in os.environ\n\
                s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                s.sendto(b'READY=1\\nSTATUS=counting', name.replace('@', '\\0', 1))\n\
                time.sleep(600)\n";
    folder.write("agent.py", code);
    let text = config("ready = \"notify\"\n").replace("\"node\", \"agent.js\"", "\"python3\", \"agent.py\"");
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    let shown = agent(&cluster);
    assert_eq!((shown.protocol.as_str(), shown.note.as_deref()), ("none", Some("counting")));
    cluster.stop();
}

#[test]
fn the_sample_counts_over_all_workers() {
    let folder = Folder::new();
    for name in ["agent.js", "app.js", "cluster.toml"] {
        let text = fs::read_to_string(project("workers/node/agent").join(name)).unwrap();
        folder.write(name, &text.replace("127.0.0.1:8080", "127.0.0.1:0"));
    }
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    let total = || {
        let text = get(cluster.address(), "/").unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["total"].as_u64().unwrap()
    };
    wait_until("the sum over both workers", || total() >= 10);
    cluster.stop();
}
