//! Blocks marked `sh` are run line by line, with the built program, on a systemd of their own in namespaces of this machine
//! (`tests/machines/namespace`), as root: they may change the system. Each line has to succeed; one that stays in the foreground has to
//! get ready, and to end well at SIGTERM. What is not run is printed with the reason.
use crate::lines::typed;
use crate::markdown::{Block, Page};
use crate::pages::{self, root};
use crate::shell;
use std::fmt::Write;
use std::fs;
use std::process::Command;

/// Stands before a line that has failed, and before what is printed of one.
const FAILED: &str = "FAILED: ";
/// What `tests/machines/namespace` exits with where this machine has no such namespaces, or no systemd.
const SKIPPED: i32 = 77;
/// Begins a block of a shell, where a page does not say so.
const PROGRAMS: [&str; 24] = [
    "apt",
    "cargo",
    "clusterd",
    "cp",
    "curl",
    "docker",
    "export",
    "forever",
    "git",
    "journalctl",
    "kubectl",
    "ln",
    "ls",
    "mkdir",
    "node",
    "npm",
    "npx",
    "pip",
    "pipx",
    "pm2",
    "rm",
    "sudo",
    "systemctl",
    "while",
];
/// Packages are installed, and their pages' lines run, elsewhere.
const OF_PACKAGES: &str = "packaging/test runs what it types, from the package";

/// The pages whose commands are to be typed: what leads in, the tutorial and the how-tos.
fn how_tos() -> Vec<String> {
    let summary = pages::text("docs/SUMMARY.md");
    let part = summary.split("# Tutorial").nth(1).and_then(|rest| rest.split("# Reference").next()).unwrap();
    let listed = Page::read(part).links.into_iter().map(|(_, link)| match link.strip_prefix("../") {
        Some(path) => path.to_owned(),
        None => format!("docs/{link}"),
    });
    ["README.md", "docs/bind.md"].map(str::to_owned).into_iter().chain(listed).collect()
}

/// Why the next block's lines that name a program are not run: `<!-- not run: PROGRAM: WHY -->`.
struct NotRun<'a> {
    program: &'a str,
    why: &'a str,
}

impl NotRun<'_> {
    fn read(block: &Block) -> Option<NotRun<'_>> {
        let (program, why) = block.lines.first().filter(|_| block.info == "not run")?.split_once(": ")?;
        Some(NotRun { program, why })
    }
}

/// How a line is typed.
fn kind(words: &[String]) -> &'static str {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        // Without a verb it runs what it is told.
        ["clusterd", first, ..] if first.starts_with('-') => "foreground",
        ["clusterd", "logs" | "events", ..] => "stream",
        _ => "typed",
    }
}

/// The lines of all pages as a script, how many they are, and those that are left out, each with the reason.
struct Script {
    text: String,
    lines: usize,
    left_out: Vec<String>,
}

fn script<'a>(all: impl Iterator<Item = (&'a str, &'a Page)>) -> Script {
    let mut script = Script { text: String::new(), lines: 0, left_out: Vec::new() };
    for (name, page) in all {
        if !page.blocks.iter().any(|block| block.info == "sh") {
            continue;
        }
        writeln!(script.text, "begin").unwrap();
        let mut not_run: Vec<NotRun<'_>> = Vec::new();
        for block in &page.blocks {
            match (block.language(), block.file()) {
                ("sh", None) => {
                    add_lines(&mut script, name, block, &not_run);
                    not_run.clear();
                }
                ("not", _) => not_run.extend(NotRun::read(block)),
                ("run", _) if !has_sessions(page) => {
                    writeln!(
                        script.text,
                        "hidden '{name}:{}' <<'END OF LINE'\n{}END OF LINE",
                        block.line,
                        block.text()
                    )
                    .unwrap();
                }
                (_, Some(file)) => {
                    writeln!(script.text, "cat >'{file}' <<'END OF FILE'\n{}END OF FILE", block.text()).unwrap()
                }
                _ => {}
            }
        }
    }
    script
}

/// The hidden commands of a page with sessions are for them.
fn has_sessions(page: &Page) -> bool {
    page.blocks.iter().any(|block| block.language() == "console")
}

fn add_lines(script: &mut Script, name: &str, block: &Block, not_run: &[NotRun<'_>]) {
    for (n, line) in typed(block) {
        let Some(words) = shell::commands(&line).into_iter().next() else { continue };
        if let Some(NotRun { why, .. }) =
            not_run.iter().find(|left_out| words.iter().any(|word| word == left_out.program))
        {
            script.left_out.push(format!("{name}:{n}: {line}: {why}"));
            continue;
        }
        script.lines += 1;
        writeln!(script.text, "{} '{name}:{n}' <<'END OF LINE'\n{line}\nEND OF LINE", kind(&words)).unwrap();
    }
}

/// What the script begins with: the machine as the Debian package leaves it, and how a line is run.
const BEGIN: &str = r#"
cp "$CLUSTERD" /usr/bin/clusterd
mkdir -p /usr/local/bin /etc/clusterd /srv
cp "$CLUSTERD" /usr/local/bin/clusterd
cp packaging/systemd/clusterd@.service /etc/systemd/system/
systemctl daemon-reload
for user in clusterd deploy; do useradd --create-home --shell /bin/sh "$user" 2>/dev/null; done
failed=0 at=""
export PATH=/usr/local/bin:/usr/bin:$PATH

# Nothing of the page before is left.
begin() {
  clusterd kill --now >/dev/null 2>&1
  rm -rf /root/shop /root/.clusterd /srv/*
  mkdir -p /root/shop && cd /root/shop || exit 1
  echo "console.log('hello'); require('http').createServer((q, a) => a.end('hello')).listen(process.env.PORT)" >app.js
}

# report CODE: of the line that was just run.
report() {
  if [ "$1" -eq 0 ]; then echo "ok: $at: $line"; else failed=1; echo "FAILED: $at: $line: exit code $1"; cat /run/said; fi
}

typed() {
  at=$1 line=$(cat)
  { eval "$line"; } </dev/null >/run/said 2>&1
  report $?
}

hidden() { typed "$1 (hidden)"; }

# soon COMMAND: as a person waits.
soon() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.05
  done
  return 1
}

# Whether all workers of the deployment with this keeper are ready. Others may be ready too.
serves() {
  clusterd ls --json 2>/dev/null | python3 -c '
import json, sys
mine = [one for one in json.load(sys.stdin) if one.get("keeper_pid") == int(sys.argv[1])]
sys.exit(not (mine and all(app["status"] == "running" for app in mine[0]["apps"])))' "$1"
}

foreground() {
  at=$1 line=$(cat)
  (eval "exec $line") </dev/null >/run/said 2>&1 &
  local pid=$!
  soon serves $pid || { kill -KILL $pid; report 1; return; }
  kill -TERM $pid
  wait $pid
  report $?
}

# One that prints until it is interrupted.
stream() {
  at=$1 line=$(cat)
  # A command in the background of a script ignores SIGINT.
  (eval "exec $line") </dev/null >/run/said 2>&1 &
  local pid=$!
  soon test -s /run/said
  local code=$?
  kill -TERM $pid
  wait $pid
  report $code
}
"#;

#[test]
#[ignore = "boots a systemd, and runs the commands of the how-tos there"]
fn what_the_how_tos_type_works_on_a_machine_with_systemd() {
    let (pages, how_tos) = (pages::pages(), how_tos());
    let script = script(how_tos.iter().map(|name| (name.as_str(), &pages[name])));
    let folder = root().join("target");
    let path = folder.join(format!("how-tos-{}.sh", std::process::id()));
    fs::write(&path, format!("{BEGIN}{}\nclusterd kill --now\nexit $failed\n", script.text)).unwrap();
    let mut machine = Command::new(root().join("tests/machines/namespace"));
    machine.args(["bash", path.to_str().unwrap()]).current_dir(root());
    let output = machine.env("CLUSTERD", env!("CARGO_BIN_EXE_clusterd")).output().unwrap();
    fs::remove_file(&path).unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprint!("{why}{said}");
    for line in &script.left_out {
        eprintln!("not run: {line}");
    }
    for page in how_tos.iter().filter(|name| name.starts_with("packaging/")) {
        eprintln!("not run: {page}: {OF_PACKAGES}");
    }
    if output.status.code() == Some(SKIPPED) {
        return;
    }
    let succeeded = said.lines().filter(|line| line.starts_with("ok: ") && !line.contains(" (hidden): ")).count();
    assert!(output.status.success() && !said.contains(FAILED), "{said}{why}");
    assert_eq!(succeeded, script.lines, "{said}");
    assert!(script.lines > 15, "{} lines", script.lines);
}

#[test]
fn what_a_how_to_types_is_marked_as_typed() {
    let pages = pages::pages();
    let mut wrong = Vec::new();
    for name in how_tos().iter().filter(|name| !name.starts_with("packaging/")) {
        for block in pages[name].blocks.iter().filter(|block| block.info.is_empty()) {
            let words =
                block.lines.first().and_then(|line| shell::commands(line).into_iter().next()).unwrap_or_default();
            if words.first().is_some_and(|word| PROGRAMS.contains(&word.as_str())) {
                wrong.push(format!("{name}:{}: {}: mark the block as sh or console", block.line, block.lines[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_line_is_run_as_it_is_typed_or_left_out_for_a_reason() {
    let text = "<!-- not run: forever: it is not here -->\n```sh\nforever start app.js\nclusterd start app.js  # it\nclusterd -w 1 -- x\nclusterd logs web\n```\n```sh\nforever list\n```\n";
    let page = Page::read(text);
    let script = script([("page.md", &page)].into_iter());
    assert_eq!(script.left_out, ["page.md:3: forever start app.js: it is not here"]);
    assert_eq!(script.lines, 4);
    for line in ["typed 'page.md:4'", "foreground 'page.md:5'", "stream 'page.md:6'", "typed 'page.md:9'"] {
        assert!(script.text.contains(line), "{line}: {}", script.text);
    }
}
