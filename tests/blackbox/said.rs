//! What verbs say when they cannot do what was asked, whole: `said.txt` has each command line with its answer, so that a change
//! of a text shows in a review. UPDATE=1 writes it again. (tests/config has the command lines that are wrong in themselves.)
use super::apps::project;
use super::background::Home;
use std::fs;

/// The command lines: `job` runs, `later` is stopped.
const LINES: &[&str] = &[
    "start nosuch.js",
    "start dist",
    "start shop",
    "start shop/package.json",
    "start nosuch.toml",
    "start bad.toml",
    "start job --no-daemon nosuch.js",
    "stop nosuch",
    "stop jbo",
    "stop /[/",
    "describe job/7",
    "stop job/0",
    "scale job/0 2",
    "restart job/0 --max-runs 3",
    "start job",
    "restart job --name other",
    "send job hello",
    "trigger job act",
    "inspect job",
    "signal NOSUCH job",
    "env nosuch",
    "logs job --worker 0",
    "reload later",
    "rollback job",
    "rollback job --to 7",
    "rollback later",
    "releases nosuch",
    "scale later 3",
    "env later --agent",
    "pid nosuch",
    "id nosuch",
    "check -c nosuch.toml",
    "check -c bad.toml",
    "check -c unknown.toml",
    "import nosuch.js",
    "import empty.json",
    "import bad.json",
    "import good.json -o bad.toml",
    "serve nosuch",
    "resurrect",
    "upgrade job --binary nosuch",
    "start good.json",
];

/// What a command says while it waits.
const PROGRESS: [&str; 3] = ["its keeper has no control socket yet", "its master does not answer yet", "; up to "];

#[test]
fn what_is_said_when_something_cannot_be_done_is_what_its_file_says() {
    let home = Home::new();
    fs::create_dir(home.folder.path().join("dist")).unwrap();
    fs::create_dir(home.folder.path().join("shop")).unwrap();
    home.folder.write("shop/package.json", "{ \"name\": \"shop\", \"scripts\": { \"start\": \"node app.js\" } }");
    let app = "[[app]]\nname = \"job\"\ncommand = [\"sleep\", \"1000\"]\nready = \"1ms\"\n";
    home.folder.write("job.toml", app);
    home.folder.write("later.toml", &app.replace("\"job\"", "\"later\"\nautostart = false"));
    home.folder.write("bad.toml", "[[app]]\nname = \"a/b\"\nworkers = 0\ncommand = \"a | b\"\nready_timeout = 3000\n");
    home.folder.write("unknown.toml", "[[app]]\ncommand = \"a\"\nwrokers = 2\n[app.restart]\nbackof_min = \"1s\"\n");
    home.folder.write("empty.json", "{ \"apps\": [] }");
    home.folder.write("bad.json", "{ \"apps\": [{ \"script\": \"a.js\", \"cron_restart\": \"soon\" }, {}] }");
    home.folder.write("good.json", "{ \"name\": \"none\", \"script\": \"./nosuch\", \"interpreter\": \"none\" }");
    home.ok(&["start", "job.toml"]);
    home.ok(&["start", "later.toml"]);
    let folder = home.folder.path().display().to_string();
    let mut text = String::new();
    for line in LINES {
        let (code, _, said) = home.run(&line.split(' ').collect::<Vec<_>>());
        // A slow machine is told what a command waits for.
        let is_progress = |line: &&str| PROGRESS.iter().any(|words| line.contains(words));
        let said: String = said.split_inclusive('\n').filter(|line| !is_progress(line)).collect();
        let said = said.replace(&folder, "DIR");
        text.push_str(&format!("$ clusterd {line}\n{}[{code}]\n\n", said));
    }
    let path = project("tests/blackbox/said.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    let differs = text.lines().zip(wanted.lines()).find(|(is, wanted)| is != wanted);
    assert!(text == wanted, "tests/blackbox/said.txt: {differs:?}: UPDATE=1 cargo test --test blackbox said");
}
