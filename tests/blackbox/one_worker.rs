//! One worker as a target: `restart web/0`, `logs web/1` and the like; and what `logs`, `start` and `describe` show of what
//! clusterd itself does.
use super::background::{Home, address};
use super::client::{Load, get};
use super::cluster::wait_until;

/// Pids of the workers, by slot.
fn pids(home: &Home) -> Vec<i32> {
    home.app("web").workers.iter().map(|worker| worker.pid.unwrap()).collect()
}

#[test]
fn one_worker_is_replaced_and_no_connection_lost() {
    let home = Home::new();
    home.web("web", "2");
    let before = pids(&home);
    let load = Load::start(address(&home.app("web")), 4, false);
    load.wait_more(20);
    let said = home.ok(&["restart", "web/0"]);
    assert!(said.contains("web/0: worker 3 serves in place of worker 1"), "{said}");
    home.ok(&["reload", "web/0", "web/1"]);
    load.wait_more(20);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    wait_until("the replaced workers are gone", || pids(&home).len() == 2);
    let after = pids(&home);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    assert_eq!(home.app("web").generation, 1);
    assert_eq!(home.app("web").workers.iter().map(|worker| worker.id.unwrap()).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_replacement_that_fails_leaves_the_worker() {
    let home = Home::new();
    let script = home.folder.write(
        "web.js",
        "if (require('fs').existsSync('broken')) { console.error('no database'); process.exit(3) }
         require('http').createServer((q, a) => a.end('hi')).listen(0, '127.0.0.1')",
    );
    home.ok(&["start", &script, "-i", "2", "-n", "web"]);
    let before = pids(&home);
    home.folder.write("broken", "");
    let said = home.fails(&["restart", "web/1"]);
    assert!(said.contains("web/1: the new worker failed") && said.contains("worker 2 keeps serving"), "{said}");
    assert!(said.contains("exited with code 3") && said.contains("| no database"), "{said}");
    assert_eq!(pids(&home), before);
    assert!(get(address(&home.app("web")), "/").unwrap().contains("hi"));
}

#[test]
fn what_is_done_to_one_worker_and_what_is_not() {
    let home = Home::new();
    let script = home.folder.write(
        "web.js",
        "console.log('slot ' + process.env.CLUSTERD_SLOT)
         process.on('SIGUSR2', () => console.log('signalled ' + process.env.CLUSTERD_SLOT))
         require('http').createServer((q, a) => a.end()).listen(0, '127.0.0.1')",
    );
    let file = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", {script:?}]\nworkers = 2\nprotocol = \"node\"\n\
         [app.log]\nout = \"o.log\"\nerr = \"e.log\"\nper_worker = true\n"
    );
    home.ok(&["start", &home.folder.write("web.toml", &file)]);
    let pid = pids(&home)[1];
    assert_eq!(home.run(&["pid", "web/1"]).1, format!("{pid}\n"));
    assert!(home.run(&["env", "web/1"]).1.contains("CLUSTERD_SLOT=1\n"));
    let described: serde_json::Value = serde_json::from_str(&home.run(&["describe", "--json", "web/1"]).1).unwrap();
    assert_eq!(
        (described[0]["workers"][0]["pid"].as_i64(), described[0]["workers"][1].as_i64()),
        (Some(pid.into()), None)
    );
    assert!(home.ok(&["signal", "USR2", "web/1"]).contains("web/1: SIGUSR2 sent"));
    wait_until("its answer", || home.run(&["logs", "--nostream", "web/1"]).1.contains("signalled 1"));
    let (_, shown, _) = home.run(&["logs", "--nostream", "web/0"]);
    assert!(shown.contains("web/0 | slot 0") && !shown.contains("signalled") && !shown.contains("slot 1"), "{shown}");
    for verb in ["stop", "delete"] {
        assert!(home.fails(&[verb, "web/0"]).contains("clusterd scale web -1 ends the last one"));
    }
    for args in [&["scale", "web/0", "1"][..], &["reset", "web/0"], &["flush", "web/0"], &["start", "web/0"]] {
        assert!(home.fails(args).contains("this verb acts on whole apps: name web"), "{args:?}");
    }
    assert!(home.fails(&["restart", "web/2"]).contains("web has no worker 2, only web/0 to web/1"));
    assert!(home.fails(&["restart", "web/0", "--update-env"]).contains("options change whole apps"));
    assert_eq!(pids(&home)[1], pid);
}

#[test]
fn what_clusterd_says_is_among_the_logs_and_named() {
    let home = Home::new();
    home.folder.write(
        "ends.js",
        "console.log('in ends'); process.on('SIGUSR2', () => process.exit(7)); setInterval(() => {}, 1000)",
    );
    home.folder.write("stays.js", "console.log('in stays'); setInterval(() => {}, 1000)");
    home.folder.write(
        "two.json",
        r#"{ "apps": [{ "name": "ends", "script": "ends.js" }, { "name": "stays", "script": "stays.js" }] }"#,
    );
    let started = home.ok(&["start", "two.json", "--ready", "1ms"]);
    assert!(started.contains("ends: stdout in ") && started.contains("ends-error.log"), "{started}");
    wait_until("its first word", || home.run(&["logs", "ends", "--nostream"]).1.contains("in ends"));
    home.ok(&["signal", "USR2", "ends"]);
    let warned = "exited with code 7";
    wait_until("its end", || home.run(&["logs", "ends", "--nostream"]).1.contains(warned));
    let (_, shown, _) = home.run(&["logs", "ends", "--nostream"]);
    assert!(
        shown.lines().any(|line| line.starts_with("clusterd | ends/0: worker") && line.contains(warned)),
        "{shown}"
    );
    // What is said about another app of the deployment is not shown, nor where one stream is asked for.
    assert!(!home.run(&["logs", "stays", "--nostream"]).1.contains(warned));
    for narrow in ["--out", "--err", "--raw"] {
        assert!(!home.run(&["logs", "ends", "--nostream", narrow]).1.contains(warned), "{narrow}");
    }
    let (_, card, _) = home.run(&["describe", "ends"]);
    for word in ["last warning", warned, ".clusterd.log", "given up after 16 failures"] {
        assert!(card.contains(word), "{word}: {card}");
    }
}
