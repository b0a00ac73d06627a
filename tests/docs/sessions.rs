//! Pages whose blocks are marked `console` are run as one session each, with the built program: what stands behind `$ ` is typed,
//! and what stands below it has to be what comes. Numbers may differ, except in a block `console exact`, and a line `...` stands for any lines.
//! `UPDATE=1 cargo test --test docs -- --ignored` writes what came into the page.
use crate::lines::typed;
use crate::markdown::{Block, Page};
use crate::pages::{self, root};
use crate::ports::free_port;
use crate::recording;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A session that hangs ends with an error.
const SESSION_MAX_S: u32 = 240;
/// How often a session looks for what it waits for, every 50 ms.
const WAIT_MAX: u32 = 600;
/// Folders as they are on the page, and below the folder of the session. The longer of two comes first.
const FOLDERS: [(&str, &str); 2] = [("/srv/web", "/srv/web"), ("/home/you", "")];
/// The ports that pages use.
const PORTS: [&str; 3] = ["8080", "8081", "9615"];
/// Stands before the number of each command in what the session prints, and before its exit code.
const COMMAND_MARK: char = '\u{1}';
const END_MARK: char = '\u{2}';

/// The home folder of a session, and what stands for the numbers of ports.
struct Session {
    folder: PathBuf,
    /// On the page, and here.
    ports: Vec<(&'static str, String)>,
}

impl Session {
    fn new() -> Session {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("clusterd-docs-{}-{n}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::create_dir_all(folder.join("shop")).unwrap();
        symlink(env!("CARGO_BIN_EXE_clusterd"), folder.join("bin/clusterd")).unwrap();
        let ports = PORTS.into_iter().map(|page| (page, free_port().to_string())).collect();
        Session { folder, ports }
    }

    /// Each folder and port on the page and here.
    fn places(&self) -> Vec<(String, String)> {
        let folders = FOLDERS.map(|(page, here)| (page.to_owned(), format!("{}{here}", self.folder.display())));
        let ports = self.ports.iter().map(|(page, here)| ((*page).to_owned(), here.clone()));
        folders.into_iter().chain(ports).collect()
    }

    fn here(&self, text: &str) -> String {
        self.places().iter().fold(text.to_owned(), |text, (page, here)| text.replace(page, here))
    }

    fn on_page(&self, text: &str) -> String {
        self.places().iter().fold(text.to_owned(), |text, (page, here)| text.replace(here, page))
    }

    fn command(&self, program: &str) -> Command {
        let path = format!("{}/bin:{}", self.folder.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.current_dir(self.folder.join("shop")).stdin(Stdio::null());
        command
            .env("PATH", path)
            .env("HOME", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("COLUMNS", "100");
        for other in ["CLUSTERD_HOME", "CLUSTERD_LOG", "NODE_OPTIONS", "PORT", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR"] {
            command.env_remove(other);
        }
        command
    }

    /// What each command printed, and its exit code.
    fn run(&self, script: &str) -> Vec<(String, i32)> {
        let path = self.folder.join("session.sh");
        fs::write(&path, self.here(script)).unwrap();
        let mut bash = self.command("timeout");
        bash.args(["--kill-after=5", &SESSION_MAX_S.to_string(), "bash"]).arg(&path);
        let output = bash.output().unwrap();
        let printed = self.on_page(&String::from_utf8(output.stdout).unwrap());
        let (said, code) = (String::from_utf8_lossy(&output.stderr), output.status.code());
        assert!(code == Some(0), "the session ended with {code:?}\n{said}\n{printed}");
        printed.split(COMMAND_MARK).skip(1).map(of_command).collect()
    }
}

impl Drop for Session {
    /// Whatever the session left behind ends.
    fn drop(&mut self) {
        let _ = self.command("clusterd").args(["kill", "--now"]).output();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn of_command(printed: &str) -> (String, i32) {
    let (said, code) = printed.split_once(END_MARK).unwrap_or_else(|| panic!("a command did not end:\n{printed}"));
    (said.to_owned(), code.trim().parse().unwrap())
}

/// A command of a page.
struct Step {
    /// Of the page's lines, from 0: those that were printed below it.
    shown: std::ops::Range<usize>,
    line: String,
    /// Its numbers count.
    exact: bool,
}

fn steps(block: &Block) -> Vec<Step> {
    let end = block.line - 1 + block.lines.len();
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in typed(block) {
        let below = block.lines.iter().skip(line + 1 - block.line);
        let rest_of_command = below.take_while(|text| text.starts_with("> ")).count();
        if let Some(before) = steps.last_mut() {
            before.shown.end = line - 1;
        }
        steps.push(Step { shown: line + rest_of_command..end, line: text, exact: block.is_exact() });
    }
    steps
}

/// The page as a script, and its commands in their order.
fn script(page: &Page) -> (String, Vec<Step>) {
    // Each command may read the exit code of the one before.
    let (mut script, mut all) = ("code=0\n".to_owned(), Vec::new());
    for block in &page.blocks {
        match (block.language(), block.file()) {
            ("console", _) => {
                for step in steps(block) {
                    writeln!(script, "printf '\\001'\n(exit $code)\n{{ {}\n}} 2>&1", step.line).unwrap();
                    writeln!(script, "code=$?; printf '\\002%d' $code").unwrap();
                    all.push(step);
                }
            }
            ("run", _) => {
                let command = &block.lines[0];
                writeln!(script, "{{ {command}\n}} >hidden.txt 2>&1 || {{ cat hidden.txt; exit 1; }} >&2").unwrap();
            }
            ("wait", _) => {
                let command = &block.lines[0];
                writeln!(
                    script,
                    "for _ in $(seq {WAIT_MAX}); do {command} >hidden.txt 2>&1 && break; sleep 0.05; done"
                )
                .unwrap();
                writeln!(
                    script,
                    "{command} >hidden.txt 2>&1 || {{ echo 'in vain: {line}'; exit 1; }} >&2",
                    line = block.line
                )
                .unwrap();
            }
            (_, Some(file)) => {
                writeln!(script, "cat >'{file}' <<'END OF FILE'\n{}END OF FILE", block.text()).unwrap();
            }
            _ => (),
        }
    }
    (script, all)
}

/// A word without its numbers and their units; `2/2` stays.
fn normal_word(word: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    if word == "-" || word.split_once('/').is_some_and(|(one, all)| is_number(one) && is_number(all)) {
        return word.replace('-', "#");
    }
    let mut text = String::new();
    let mut rest = word;
    while let Some(c) = rest.chars().next() {
        if !c.is_ascii_digit() {
            text.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        let units = ["ms", "µs", "us", "s", "m", "h", "K", "M", "G"];
        rest = units.iter().find_map(|unit| rest.strip_prefix(unit).filter(|rest| is_end(rest))).unwrap_or(rest);
        text.push('#');
    }
    text
}

/// A line without what differs from one run to the next: numbers with their units, and the width of columns.
fn normal(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let unit = word.trim_end_matches([',', ';']);
        match words.last_mut() {
            Some(number) if number.ends_with('#') && ["ms", "s"].contains(&unit) => *number += &word[unit.len()..],
            _ => words.push(normal_word(word)),
        }
    }
    words.join(" ")
}

/// Whether a line says how far a command is, once it has taken a second. Pages show none of these.
fn is_progress(line: &str) -> bool {
    let phrases = [
        "; up to ",
        " slots have their new worker",
        "its reload has not begun yet",
        "it is about to be done",
        "its master: ",
        " drain",
        " ends",
        " end;",
        " starts",
        " workers start",
    ];
    let counts = line.contains(" of ") && line.contains(" workers ready");
    line.starts_with("clusterd: ") && (counts || phrases.iter().any(|phrase| line.contains(phrase)))
}

/// Whether what came is what the page shows; `exact`: with its numbers.
fn is_shown(shown: &[&str], came: &[&str], exact: bool) -> bool {
    let is_same = |one: &str, other: &str| if exact { one == other } else { normal(one) == normal(other) };
    match shown.split_first() {
        None => came.is_empty(),
        Some((&"...", rest)) => (0..=came.len()).any(|skipped| is_shown(rest, &came[skipped..], exact)),
        Some((line, rest)) => {
            came.split_first().is_some_and(|(first, left)| is_same(line, first) && is_shown(rest, left, exact))
        }
    }
}

/// Runs a page. The differences, and the page with what came in the place of what differs.
fn run(name: &str, text: &str) -> (Vec<String>, String) {
    let page = Page::read(text);
    let (script, steps) = script(&page);
    let outcomes = Session::new().run(&script);
    assert_eq!(outcomes.len(), steps.len(), "{name}: a command for each outcome");
    let lines: Vec<&str> = text.lines().collect();
    let (mut wrong, mut written, mut at) = (Vec::new(), Vec::new(), 0);
    for (step, (came, code)) in steps.iter().zip(&outcomes) {
        let shown = &lines[step.shown.clone()];
        let came: Vec<&str> = came.lines().filter(|line| !is_progress(line)).collect();
        if is_shown(shown, &came, step.exact) {
            continue;
        }
        let (is, was) = (came.join("\n"), shown.join("\n"));
        wrong.push(format!("{name}: {} (exit code {code}):\n{is}\nin place of\n{was}", step.line));
        written.extend_from_slice(&lines[at..step.shown.start]);
        written.extend(came);
        at = step.shown.end;
    }
    written.extend_from_slice(&lines[at..]);
    (wrong, written.iter().fold(String::new(), |all, line| all + line.trim_end() + "\n"))
}

pub(crate) fn check(name: &str) {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: {name}: curl is missing");
        return;
    }
    let text = pages::text(name);
    let (wrong, written) = run(name, &text);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(name), written).unwrap();
    } else {
        assert!(
            wrong.is_empty(),
            "{}\nUPDATE=1 cargo test --test docs -- --ignored writes what came",
            wrong.join("\n\n")
        );
    }
}

/// Pages that are run. A page with a block `console` that is missing here would never be.
const RUN: [&str; 5] =
    ["docs/debugging.md", "docs/deploying.md", "docs/migrating.md", "docs/monitoring.md", "docs/tutorial.md"];

#[test]
fn every_page_with_a_session_is_run() {
    let is_session = |page: &Page| page.blocks.iter().any(|block| block.language() == "console");
    let pages = pages::pages();
    let with: Vec<&str> = pages.iter().filter(|(_, page)| is_session(page)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(with, [RUN.as_slice(), &[recording::SESSION]].concat());
}

#[test]
#[ignore = "runs the commands of the tutorial and of the how-tos, which takes seconds"]
fn what_the_pages_type_prints_what_they_show() {
    std::thread::scope(|scope| {
        let runs = RUN.map(|page| scope.spawn(move || check(page)));
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

#[test]
fn a_page_is_run_as_it_is_typed() {
    let text = "# A\n\n```js app.js\nfile\n```\n\n```console\n$ echo one; cat app.js\none\nfile\n$ (exit 3)\n$ echo $? \\\n> two\n4 two\n```\n";
    let (wrong, written) = run("page.md", text);
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(written, text);
    let (wrong, written) = run("page.md", &text.replace("\none\n", "\nother\n...\nmore\n"));
    assert_eq!(wrong.len(), 1);
    assert_eq!(written, text);
}

#[test]
fn what_differs_between_two_runs_is_not_compared() {
    assert_eq!(normal("0  2  4215  ready  8s  0.2s   44.1M  -"), normal("0 12 999 ready 12m 0.31s 9.8M 3ms"));
    assert_eq!(normal("after 886 ms, 3 workers"), normal("after 1.2 s, 14 workers"));
    assert_ne!(normal("2/2 ready"), normal("2/2 starting"));
    assert_ne!(normal("2/2 ready"), normal("1/2 ready"));
    assert!(is_shown(&["a 1", "...", "c"], &["a 2", "b", "b", "c"], false));
    assert!(!is_shown(&["a 1", "...", "c"], &["a 2", "b", "b", "c"], true));
    assert!(!is_shown(&["a", "...", "c"], &["a", "b"], false));
}
