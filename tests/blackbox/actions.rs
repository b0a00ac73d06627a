//! `trigger`, and the actions and metrics that an app tells its process manager, in the messages of PM2's libraries. The
//! libraries themselves are among the frameworks' tests.
use super::background::Home;
use super::cluster::{kill, wait_until};
use std::fs;

/// What the libraries do, in short: an action that answers, one with a parameter, one that never answers, one that ends it.
const APP: &str = "const said = (type, data) => process.send({ type, data });\n\
    const reply = (action_name, value) => said('axm:reply', { at: 1, action_name, return: value });\n\
    for (const action_name of ['hello', 'echo', 'silent', 'quit']) {\n\
      said('axm:action', { action_name, action_type: 'custom', arity: 1 })\n\
    }\n\
    said('axm:monitor', { Users: { historic: true, unit: 'u', type: 't', value: 3 }, State: { value: 'good' } });\n\
    process.on('message', (data) => {\n\
      const name = data.msg || data;\n\
      if (name === 'hello') reply(name, { slot: process.env.CLUSTERD_SLOT });\n\
      if (name === 'echo') reply(name, 'got ' + data.opts);\n\
      if (name === 'quit') process.exit(1)\n\
    });\n\
    require('http').createServer((q, a) => a.end()).listen(0, '127.0.0.1')";

#[test]
fn actions_are_called_and_answered_by_all_workers_or_one_also_after_the_master_died() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    home.ok(&["start", "app.js", "-n", "web", "-i", "2"]);
    let has_actions = || home.app("web").workers.iter().all(|worker| worker.actions.len() == 4);
    wait_until("its actions are known", has_actions);
    let hello = |target: &str| {
        let (code, out, err) = home.run(&["trigger", target, "hello"]);
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(hello("web"), "web/0: {\"slot\":\"0\"}\nweb/1: {\"slot\":\"1\"}\n");
    assert_eq!(hello("0/1"), "web/1: {\"slot\":\"1\"}\n");
    assert_eq!(home.run(&["trigger", "web/0", "echo", "-x y"]).1, "web/0: got -x y\n");
    let before = home.deployments()[0].clone();
    kill(before.master_pid, "KILL");
    wait_until("the next master", || home.deployments().first().is_some_and(|d| d.master_pid != before.master_pid));
    assert_eq!(hello("web"), "web/0: {\"slot\":\"0\"}\nweb/1: {\"slot\":\"1\"}\n");
    let said = home.fails(&["trigger", "web", "nothing"]);
    assert!(said.contains("web has no action \"nothing\"; it has echo, hello, quit, silent"), "{said}");
    let said = home.fails(&["trigger", "web/1", "quit"]);
    assert!(said.contains("web/1: it ended before it answered"), "{said}");
    home.folder.write("none.js", "require('http').createServer((q, a) => a.end()).listen(0, '127.0.0.1')");
    home.ok(&["start", "none.js"]);
    assert!(home.fails(&["trigger", "none", "x"]).contains("none has no actions; a Node app gets them from"));
}

#[test]
fn metrics_of_an_app_are_shown_and_bounded() {
    let home = Home::new();
    let more =
        "said('axm:monitor', Object.fromEntries(Array.from({ length: 100 }, (_, n) => ['m' + n, { value: n }])))";
    home.folder.write("app.js", APP);
    home.folder.write("many.js", &format!("{APP}; {more}"));
    home.ok(&["start", "app.js", "-n", "web", "-i", "1"]);
    home.ok(&["start", "many.js", "-n", "many", "-i", "1"]);
    wait_until("its metrics", || home.app("web").workers[0].custom_metrics.len() == 2);
    let metrics = home.app("web").workers[0].custom_metrics.clone();
    assert_eq!((metrics["Users"].value.as_u64(), metrics["Users"].unit.as_str()), (Some(3), "u"));
    assert_eq!(metrics["State"].value.as_str(), Some("good"));
    let (_, card, _) = home.run(&["describe", "web"]);
    assert!(card.contains("Users  3 u") && card.contains("State  good"), "{card}");
    assert!(card.contains("actions      echo, hello, quit, silent"), "{card}");
    let list: serde_json::Value = serde_json::from_str(&home.run(&["jlist"]).1).unwrap();
    let web = list.as_array().unwrap().iter().find(|one| one["name"] == "web").unwrap();
    assert_eq!(web["pm2_env"]["axm_monitor"]["Users"]["value"], 3);
    assert_eq!(web["pm2_env"]["axm_actions"][0]["action_name"], "hello");
    wait_until("so many", || home.app("many").workers[0].custom_metrics.len() == 64);
    let log = || fs::read_to_string(home.folder.path().join("home/logs/many.clusterd.log")).unwrap_or_default();
    wait_until("it is said", || {
        log().contains("many/0: 38 of the app's own metrics are not shown (of a worker, 64 are)")
    });
    assert_eq!(home.app("many").workers[0].restarts, 0);
}
