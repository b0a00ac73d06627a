//! Files of PM2's: converted, checked, run and reloaded as they are.
use super::background::{Home, address};
use super::client::get;
use super::cluster::{Cluster, Folder, command, kill, run, wait_until};
use super::common::ports::free_port;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// Answers with its slot and a variable.
const APP: &str = "require('http').createServer((q, a) => \
                   a.end(`${process.env.NODE_APP_INSTANCE} ${process.env.WORD}`)).listen(process.env.PORT, '127.0.0.1')";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn an_ecosystem_file_becomes_an_explained_toml_that_runs() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    folder.write(
        "ecosystem.config.js",
        "const os = require('os');\nconsole.log('chatter');\nmodule.exports = { apps: [{ name: 'web', script: './app.js', \
         instances: Math.min(2, os.cpus().length + 1), env: { WORD: require('path').basename(__filename) }, \
         env_production: { WORD: 'live' }, max_memory_restart: '300M', pmx: true, trace: true }], deploy: {} };",
    );
    let (code, toml, said) = run(&folder, &["import", "ecosystem.config.js"]);
    assert_eq!(code, 0, "{said}");
    for line in
        ["name = \"web\"", "command = [\"node\", \"./app.js\"]", "workers = 2", "WORD = \"ecosystem.config.js\""]
    {
        assert!(toml.lines().any(|l| l == line), "{line}: {toml}");
    }
    assert!(toml.contains("memory = \"300M\"") && toml.contains("[app.env.production]"), "{toml}");
    for note in ["ecosystem.config.js: deploy: ", "ecosystem.config.js: web: trace: "] {
        assert!(said.contains(note), "{note}: {said}");
        assert!(toml.contains(note.trim_start_matches("ecosystem.config.js: ")), "{note}: {toml}");
    }
    assert!(!said.contains("pmx") && !said.contains("chatter"), "{said}");
    folder.write("cluster.toml", &toml);
    let (code, checked, said) = run(&folder, &["check", "-c", "cluster.toml"]);
    assert_eq!((code, said.as_str()), (0, ""));
    // The file itself says the same, with the same warnings.
    let (code, itself, said) = run(&folder, &["check", "-c", "ecosystem.config.js"]);
    assert_eq!(code, 0);
    assert!(said.contains("web: trace: "), "{said}");
    assert_eq!(itself.replace("ecosystem.config.js is fine", "cluster.toml is fine"), checked);
}

#[test]
fn what_is_there_is_not_written_over_and_secrets_stay_secret() {
    let folder = Folder::new();
    let file = folder.write("app.json", "{ \"script\": \"app.js\", \"env\": { \"TOKEN\": \"x\" } }");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(&folder, &["import", "app.json", "-o", "out.toml"]).0, 0);
    let mode = fs::metadata(folder.path().join("out.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    folder.write("out.toml", "mine");
    let (code, _, said) = run(&folder, &["import", "app.json", "-o", "out.toml"]);
    assert!(code == 1 && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(folder.path().join("out.toml")).unwrap(), "mine");
    assert_eq!(run(&folder, &["import", "app.json", "-o", "out.toml", "--force"]).0, 0);
    assert!(fs::read_to_string(folder.path().join("out.toml")).unwrap().contains("TOKEN"));
}

#[test]
fn a_file_that_is_wrong_is_one_clear_sentence() {
    let folder = Folder::new();
    let wrong = [
        ("a.config.js", "module.exports = {\n  apps: [{ script: 'a.js' ]\n}", 1, "SyntaxError"),
        ("b.config.mjs", "throw new Error('no database')", 1, "Error: no database (line 1)"),
        ("c.config.js", "module.exports = () => 1", 1, "exports function"),
        ("d.json", "{ apps: [{ script: }] }", 1, "as JSON: "),
        ("e.yaml", "apps:\n  - script: a.js\n   name: x\n", 1, "line 3"),
        ("f.json", "{ \"apps\": [{ \"name\": \"web\" }] }", 2, "f.json: web: script is missing"),
        ("g.config.js", "process.exit(3)", 1, "exit status: 3"),
        ("h.config.js", "module.exports = { apps: [{ script: 'x'.repeat(5e6) }] }", 1, "printed more than 4096 KiB"),
        ("i.toml", "", 1, "import takes JavaScript"),
    ];
    for (name, text, wanted, says) in wrong {
        folder.write(name, text);
        let (code, out, said) = run(&folder, &["import", name]);
        assert!(code == wanted && said.contains(says) && said.contains(name), "{name}: {code} {said}");
        assert_eq!((out.as_str(), said.lines().count()), ("", 1), "{said}");
    }
}

#[test]
fn pm2s_json_may_have_comments_and_yaml_may_have_anchors() {
    let folder = Folder::new();
    folder.write("app.json", "// ours\n{ apps: [{ script: 'a.js', args: \"b 'c d'\", }] }");
    let toml = run(&folder, &["import", "app.json"]).1;
    assert!(toml.contains("command = [\"node\", \"a.js\", \"b\", \"c d\"]"), "{toml}");
    folder.write(
        "pm2.yml",
        "apps:\n  - &one\n    script: a.js\n    env: {Y: yes, N: 1}\n  - <<: *one\n    name: two\n    instances: 0\n",
    );
    let toml = run(&folder, &["import", "pm2.yml"]).1;
    for line in ["name = \"two\"", "workers = \"max\"", "Y = \"yes\"", "N = \"1\""] {
        assert!(toml.contains(line), "{line}: {toml}");
    }
}

#[test]
fn an_ecosystem_file_is_started_and_reloaded_as_it_is() {
    let home = Home::new();
    let port = free_port();
    home.folder.write("app.js", APP);
    let write = |word: &str| {
        let apps =
            format!("[{{ name: 'web', script: 'app.js', instances: 2, env: {{ PORT: {port}, WORD: '{word}' }} }}]");
        home.folder.write("ecosystem.config.js", &format!("module.exports = {{ apps: {apps}, deploy: {{}} }}"));
    };
    write("one");
    let said = home.ok(&["start", "ecosystem.config.js"]);
    assert!(said.contains("deploy: ") && said.contains("web: 2 workers ready"), "{said}");
    // It binds its own port, as under PM2, and both workers serve it.
    assert_eq!(address(&home.app("web")), local(port));
    wait_until("both slots", || {
        let said: Vec<String> = (0..8).map(|_| get(local(port), "/").unwrap()).collect();
        ["0 one", "1 one"].iter().all(|wanted| said.iter().any(|text| text.contains(wanted)))
    });
    write("two");
    home.ok(&["reload", "web"]);
    assert!(get(local(port), "/").unwrap().contains("two"));
    home.folder.write("ecosystem.config.js", "module.exports = { apps: [");
    assert!(home.fails(&["reload", "web"]).contains("SyntaxError"));
    assert!(get(local(port), "/").unwrap().contains("two"));
    // The successor of a dead master needs no node.
    kill(home.deployments()[0].master_pid, "KILL");
    wait_until("the next master", || home.deployments().first().is_some_and(|d| d.master_restarts == 1));
    assert!(get(local(port), "/").unwrap().contains("two"));
    write("three");
    home.ok(&["restart", "web"]);
    assert!(get(local(port), "/").unwrap().contains("three"));
    write("four");
    home.ok(&["start", "ecosystem.config.js"]);
    assert!(get(local(port), "/").unwrap().contains("four"));
    assert_eq!(home.deployments().len(), 1);
}

#[test]
#[ignore = "long: what hangs is waited for"]
fn nobody_waits_for_a_configuration_that_takes_its_time() {
    let home = Home::new();
    let port = free_port();
    home.folder.write("app.js", APP);
    let apps = format!("module.exports = {{ script: 'app.js', name: 'web', env: {{ PORT: {port}, WORD: 'x' }} }};");
    home.folder.write("slow.config.js", &apps);
    home.ok(&["start", "slow.config.js", "-w", "1"]);
    let slow = "const fs = require('fs'); fs.writeFileSync('asked', ''); while (!fs.existsSync('go'));";
    home.folder.write("slow.config.js", &format!("{slow}{apps}"));
    let reload =
        |args: &[&str]| command(&home.folder).args(args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let first = reload(&["reload", "web"]);
    wait_until("the evaluation", || home.folder.path().join("asked").exists());
    let second = reload(&["reload", "web"]);
    for _ in 0..20 {
        assert!(get(local(port), "/").unwrap().contains("0 x"));
        assert_eq!(home.app("web").generation, 1, "the control API answers meanwhile");
    }
    home.folder.write("go", "");
    for reload in [first, second] {
        let output = reload.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(home.app("web").generation, 3, "both, one after the other");
}

#[test]
fn in_the_foreground_sighup_reads_it_again() {
    let folder = Folder::new();
    let port = free_port();
    folder.write("app.js", APP);
    let write = |folder: &Folder, word: &str| {
        folder.write(
            "pm2.yaml",
            &format!("script: app.js\nenv: {{PORT: {port}, WORD: {word}}}\ninstances: 2\nv8: true\n"),
        );
    };
    write(&folder, "one");
    let cluster = Cluster::start_in(folder, &["-c", "pm2.yaml", "-i", "1"], |_| {});
    cluster.wait_line("pm2.yaml: app: v8: ");
    cluster.wait_ready(1);
    assert!(get(local(port), "/").unwrap().contains("0 one"));
    write(&cluster.folder, "two");
    cluster.signal("HUP");
    cluster.wait_line("generation 2 serves alone");
    assert!(get(local(port), "/").unwrap().contains("0 two"));
    let told = cluster.stderr().iter().filter(|line| line.contains("v8: ")).count();
    assert_eq!(told, 1, "what was said of the file before is not said again");
    cluster.stop();
}

/// As the unit of a service manager does: it runs a file in the foreground, and its reload names that file.
#[test]
fn in_the_foreground_a_reload_of_its_file_reads_it_again() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let app = |name: &str, word: &str| {
        format!(
            "[[app]]\nname = \"{name}\"\ncommand = [\"node\", \"app.js\"]\nlisten = \"127.0.0.1:0\"\nworkers = 1\nenv = {{ WORD = \"{word}\" }}\n"
        )
    };
    folder.write("web.toml", &app("web", "one"));
    let cluster = Cluster::start_in(folder, &["-c", "web.toml"], |_| {});
    cluster.wait_ready(1);
    let at = cluster.address();
    assert!(get(at, "/").unwrap().contains("one"));
    for (verb, word) in [("reload", "two"), ("restart", "three")] {
        cluster.folder.write("web.toml", &app("web", word));
        let done = cluster.cli(&[verb, "web.toml"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(cluster.address(), at);
        assert!(get(at, "/").unwrap().contains(word));
    }
    cluster.folder.write("web.toml", &(app("web", "four") + &app("api", "new")));
    let done = cluster.cli(&["reload", "web.toml"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("the configuration names api that did not run before"), "{said}");
    cluster.wait_view("one app, and no deployment of its own", |view| view.apps.len() == 1);
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn two_projects_with_a_file_of_the_same_name_live_side_by_side() {
    let home = Home::new();
    let app = |name: &str| format!("{{ name: '{name}', script: 'sleep', args: '1000', interpreter: 'none' }}");
    for (project, names) in [("one", ["a", "b"]), ("two", ["c", "d"])] {
        let apps = names.map(app).join(", ");
        home.folder.write(&format!("{project}/ecosystem.config.js"), &format!("module.exports = [{apps}]"));
        home.ok(&["start", &format!("{project}/ecosystem.config.js")]);
    }
    let mut names: Vec<String> = home.deployments().into_iter().map(|d| d.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(home.app("d").status, "running");
}

#[test]
fn a_file_in_typescript_is_read_or_refused_with_what_reads_it() {
    let home = Home::new();
    home.folder.write("app.js", "require('http').createServer().listen(0, '127.0.0.1')");
    home.folder.write(
        "ecosystem.config.ts",
        "const name: string = 'typed';\nexport default { apps: [{ name, script: 'app.js' }] };",
    );
    let (code, _, said) = home.run(&["start", "ecosystem.config.ts"]);
    match code {
        0 => assert_eq!(home.app("typed").workers_ready, 1),
        _ => assert!(said.contains("reads no TypeScript (22.18 and later do)"), "{said}"),
    }
    let broken = "module.exports = { apps: [{ name: 'web', script: 'app.js', cron_restart: 'soon' }] }";
    home.folder.write("ecosystem.config.js", broken);
    let (code, _, said) = home.run(&["start", "ecosystem.config.js"]);
    assert!(code != 0 && said.contains("web: cron_restart: ") && said.contains("not a cron expression"), "{said}");
}

#[test]
fn a_script_in_typescript_starts_or_is_refused_with_what_runs_it() {
    let home = Home::new();
    let lines = "const port: number = Number(process.env.PORT);\nhttp.createServer().listen(port, '127.0.0.1');\n";
    home.folder.write("module/package.json", r#"{ "type": "module" }"#);
    for (file, head) in
        [("common.ts", "const http = require('http');\n"), ("module/es.ts", "import http from 'http';\n")]
    {
        home.folder.write(file, &format!("{head}{lines}"));
        let (code, _, said) = home.run(&["start", file, "--name", "web", "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
        match code {
            0 => assert_eq!(home.app("web").workers_ready, 1),
            _ => {
                let advice = format!("runs no TypeScript (22.18 and later do): install a later one, compile {file} to");
                assert!(said.contains(&advice) && said.contains("--import tsx"), "{said}");
                assert_eq!(said.matches("runs no TypeScript").count(), 1, "{said}");
            }
        }
        home.run(&["delete", "web"]);
    }
}
