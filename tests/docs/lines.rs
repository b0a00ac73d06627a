//! Each `clusterd ...` of a page is a command line that clusterd takes, each block of TOML a configuration, each block for a shell
//! one that a shell reads.
use crate::markdown::{Block, Page, code_spans};
use crate::pages::pages;
use crate::shell;
use clusterd::cli::command_line;
use clusterd::config::resolve::resolve;
use clusterd::config::sources::{FileSource, Sources};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The languages of blocks with commands; of `console` only lines behind `$ `, the others being what was printed.
const SHELLS: [&str; 3] = ["", "sh", "console"];

/// A command line of a page, from the word `clusterd` on, and whether it is a whole one: text may name a verb alone.
struct Typed {
    at: String,
    words: Vec<String>,
    is_whole: bool,
}

/// The lines that are typed, each with its number; continued ones as one.
pub(crate) fn typed(block: &Block) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut is_continued = false;
    for (n, line) in block.lines.iter().enumerate() {
        let line = match block.language() {
            "console" if is_continued => line.strip_prefix("> "),
            "console" => line.strip_prefix("$ "),
            _ => Some(line.strip_prefix("$ ").unwrap_or(line)),
        };
        let Some(line) = line else { continue };
        let text = line.strip_suffix('\\').unwrap_or(line);
        match lines.last_mut() {
            Some((_, before)) if is_continued => before.push_str(text.trim_start()),
            _ => lines.push((block.line + n, text.to_owned())),
        }
        is_continued = line.ends_with('\\');
    }
    lines
}

/// A command without what only starts it, where it is clusterd.
fn of_clusterd(words: Vec<String>) -> Option<Vec<String>> {
    let starters = ["sudo", "npx", "exec", "time", "pipx", "run"];
    let is_before =
        |word: &String| starters.contains(&word.as_str()) || word.split('=').next().is_some_and(is_variable);
    let mut words: Vec<String> = words.into_iter().skip_while(is_before).collect();
    let program = words.first_mut()?;
    if program != "clusterd" && !program.ends_with("/clusterd") {
        return None;
    }
    *program = "clusterd".to_owned();
    Some(words)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A line of a synopsis stands for many.
fn is_synopsis(words: &[String]) -> bool {
    words.iter().any(|word| word == "[OPTIONS]" || word.contains("...") || word.contains('…'))
}

fn command_lines(name: &str, page: &Page) -> Vec<Typed> {
    let mut found = Vec::new();
    for block in page.blocks.iter().filter(|block| SHELLS.contains(&block.language())) {
        for (n, line) in typed(block) {
            // In a block that is indented, what it does may stand behind two blanks.
            let line = if block.info.is_empty() { line.trim().split("  ").next().unwrap_or_default() } else { &line };
            for words in shell::commands(line).into_iter().filter_map(of_clusterd) {
                found.push(Typed { at: format!("{name}:{n}"), words, is_whole: true });
            }
        }
    }
    for (start, end) in code_spans(&page.prose) {
        let line = page.prose[..start].matches('\n').count() + 1;
        let span = page.prose[start..end].replace('\n', " ").replace("\\|", "|");
        if let Some(words) = shell::commands(&span).into_iter().next().and_then(of_clusterd) {
            found.push(Typed { at: format!("{name}:{line}"), words, is_whole: false });
        }
    }
    found.retain(|typed| !is_synopsis(&typed.words));
    found
}

/// What clusterd says to it, if it does not take it.
fn refused(typed: &Typed) -> Option<String> {
    let error = command_line::parse(&typed.words).err()?.to_string();
    let is_missing = ["required", "nothing to start", "nothing to run"].iter().any(|part| error.contains(part));
    (typed.is_whole || !is_missing).then(|| format!("{}: {}: {error}", typed.at, typed.words.join(" ")))
}

#[test]
fn every_command_line_is_one_that_clusterd_takes() {
    let (mut whole, mut wrong, mut seen) = (0, Vec::new(), BTreeSet::new());
    for (name, page) in &pages() {
        // What was right at the time.
        if name == "CHANGELOG.md" {
            continue;
        }
        for typed in command_lines(name, page) {
            whole += usize::from(typed.is_whole);
            // Each is parsed once: that is most of the time of this test.
            if seen.insert((typed.words.clone(), typed.is_whole)) {
                wrong.extend(refused(&typed));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(whole > 60, "{whole} command lines in blocks");
}

#[test]
fn a_command_line_that_clusterd_does_not_take_is_found() {
    let text = "x\n\n    clusterd relod web\n    clusterd reload web    new code\n\n```console\n$ clusterd start \\\n> --nmae web app.js\nclusterd nothing\n```\n`clusterd scael`\n";
    let lines = command_lines("page.md", &Page::read(text));
    assert_eq!(lines.len(), 4);
    let wrong: Vec<bool> = lines.iter().map(|typed| refused(typed).is_some()).collect();
    assert_eq!(wrong, [true, false, true, true]);
}

/// Whether a block is a part of a configuration.
fn is_configuration(block: &Block) -> bool {
    let first = block.lines.iter().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.')
    };
    let is_table = |line: &str| line.starts_with("[app") || line.starts_with("[[app") || line.starts_with("[control");
    match block.language() {
        "toml" => true,
        "" => first.is_some_and(|line| is_table(line) || is_key(line)),
        _ => false,
    }
}

/// What is wrong with a part of a configuration, once what an app needs at least is added.
fn wrong_with(text: &str) -> Option<String> {
    // Files with variables are not there.
    let text: String =
        text.lines().filter(|line| !line.starts_with("env_file")).fold(String::new(), |a, l| a + l + "\n");
    let mut table: toml::Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => return Some(error.to_string()),
    };
    let apps = match table.remove("app") {
        Some(toml::Value::Array(apps)) => apps,
        Some(app) => vec![app],
        // Keys of an app without its heading.
        None => {
            let control = table.remove("control");
            let app = std::mem::take(&mut table);
            table.extend(control.map(|control| ("control".to_owned(), control)));
            vec![toml::Value::Table(app)]
        }
    };
    let complete = |app: toml::Value| match app {
        toml::Value::Table(mut app) => {
            app.entry("command").or_insert_with(|| toml::Value::Array(vec!["node".into(), "app.js".into()]));
            toml::Value::Table(app)
        }
        other => other,
    };
    table.insert("app".to_owned(), toml::Value::Array(apps.into_iter().map(complete).collect()));
    let file = Some(FileSource { path: "/srv/page.toml".into(), text: table.to_string(), notes: Vec::new() });
    let sources = Sources { start_folder: "/srv".into(), file, ..Sources::default() };
    let problems = resolve(&sources).err()?;
    Some(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_configuration_is_one() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, page) in &pages() {
        // A page may show what clusterd says to a file that is wrong.
        let is_right = |block: &&Block| is_configuration(block) && block.file() != Some("wrong.toml");
        for block in page.blocks.iter().filter(is_right) {
            count += 1;
            wrong
                .extend(wrong_with(&block.text()).map(|why| format!("{name}:{}: {why}\n{}", block.line, block.text())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 10, "{count} configurations");
}

#[test]
fn a_configuration_that_is_none_is_found() {
    assert_eq!(wrong_with("workers = 2\nport = 8080\n"), None);
    assert_eq!(wrong_with("[app.limits]\nmemory = \"512M\"\n"), None);
    assert!(wrong_with("wrokers = 2\n").unwrap().contains("workers"));
    assert!(wrong_with("workers = 2\n[app.limits]\nmemory = \"512M\"\n").is_some());
    assert!(wrong_with("[[app]]\nworkers = \"some\"\n").is_some());
}

#[test]
fn every_block_for_a_shell_is_one_that_a_shell_reads() {
    let mut count = 0;
    for (name, page) in &pages() {
        let commands = page.blocks.iter().filter(|block| ["sh", "console"].contains(&block.language())).map(|block| {
            let lines: Vec<String> = typed(block).into_iter().map(|(_, line)| line).collect();
            // Where a block ends, its commands have ended too.
            format!("{{ :\n{}\n}}\n", lines.join("\n"))
        });
        let script: String = commands.collect();
        if script.is_empty() {
            continue;
        }
        count += 1;
        let read = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(read.status.success(), "{name}: {}\n{script}", String::from_utf8_lossy(&read.stderr));
    }
    assert!(count > 2, "{count} pages");
}

/// Units for systemd, with programs that are there in the place of those that are not.
#[test]
fn every_unit_is_one_that_systemd_takes() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("SKIPPED: systemd-analyze is not here");
        return;
    }
    let folder = std::env::temp_dir().join(format!("clusterd-docs-units-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut count = 0;
    for (name, page) in &pages() {
        for block in page.blocks.iter().filter(|block| block.language() == "ini" && block.text().contains("[Service]"))
        {
            count += 1;
            let unit = folder.join(format!("page-{count}.service"));
            let text = block.text().replace("/usr/local/bin/clusterd", "/bin/true").replace("User=deploy", "User=root");
            fs::write(&unit, text).unwrap();
            let checked = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
            let said = String::from_utf8_lossy(&checked.stderr);
            // It also reports units of the machine.
            let wrong: Vec<&str> = said.lines().filter(|line| line.contains("page-")).collect();
            assert_eq!(wrong, Vec::<&str>::new(), "{name}:{}", block.line);
        }
    }
    fs::remove_dir_all(folder).unwrap();
    assert!(count > 0, "{count} units");
}
