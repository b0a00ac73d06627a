//! What the code promises about itself: who may name which crate, where `unsafe` may stand, heads of files, lengths.
#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files may not be longer, in lines.
const LINES_MAX: usize = 700;

/// Every Rust file below a folder of the project, with its text.
fn files(below: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() >= 2, "no files below {below}");
    found
}

/// Code without comments, so that a word in a sentence does not count as an import.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn in_a_name(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// What stands behind each place of a word that is not part of a longer one.
fn behind<'a>(code: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word).filter_map(move |(at, _)| {
        let rest = &code[at + word.len()..];
        let whole = !in_a_name(code[..at].chars().next_back()) && !in_a_name(rest.chars().next());
        whole.then_some(rest)
    })
}

/// What is brought in by `use`, each path in full: `use a::{b, c::d};` is `a::b` and `a::c::d`.
fn imports(code: &str) -> Vec<String> {
    fn write_out(tree: &str, before: &str, paths: &mut Vec<String>) {
        let (mut depth, mut start) = (0, 0);
        let mut parts = Vec::new();
        for (at, c) in tree.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&tree[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&tree[start..]);
        for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('{') {
                Some((head, group)) => {
                    write_out(group.trim_end().trim_end_matches('}'), &format!("{before}{}", head.trim()), paths);
                }
                None => {
                    let path = part.split_whitespace().next().unwrap_or_default();
                    paths.push(format!("{before}{path}").trim_end_matches("::self").to_owned());
                }
            }
        }
    }
    let mut paths = Vec::new();
    for rest in behind(code, "use") {
        // Anywhere else it is a word in a text.
        let line = code[..code.len() - rest.len()].lines().next_back().unwrap_or_default();
        let line = line.trim_start().trim_end_matches("use").trim_end();
        if (line.is_empty() || line.starts_with("pub")) && rest.starts_with(char::is_whitespace) {
            write_out(rest.split(';').next().unwrap_or_default(), "", &mut paths);
        }
    }
    paths
}

/// Whether code names a crate, or something by this path: in a `use`, however it is grouped, or on the spot.
fn names(code: &str, path: &str) -> bool {
    let below = format!("{path}::");
    let is_crate = !path.contains("::") && path.starts_with(char::is_lowercase);
    imports(code).iter().any(|import| import == path || import.starts_with(&below))
        // A variable may have the name of a crate.
        || behind(code, path).any(|rest| !is_crate || rest.starts_with("::"))
}

#[test]
fn a_name_is_seen_however_it_is_written() {
    let brought_in = [
        "use tokio::sync::mpsc;",
        "pub(super) use tokio::{net, time};",
        "use tokio;",
        "use tokio as runtime;",
        "fn f() {\n    use tokio::task;\n}",
        "use std::{fmt, mem}; use {log, tokio::task};",
        "use crate::{limits,\n    config::{a, b}};\nuse {tokio};",
    ];
    let on_the_spot = ["let x = tokio::spawn(y);", "f(tokio::time::sleep)", "::tokio::spawn(y)"];
    for code in brought_in.iter().chain(&on_the_spot) {
        assert!(names(code, "tokio"), "{code}");
    }
    for code in
        ["use tokio_util::x;", "let tokio = 1;", "mytokio::f()", "use crate::limits; // of tokio", "\"use tokio\""]
    {
        assert!(!names(code, "tokio"), "{code}");
    }
    for code in ["use std::{env, fmt};", "use std::{fmt, env::{self, args}};", "std::env::var(x)", "use std::env::var;"]
    {
        assert!(names(code, "std::env"), "{code}");
    }
    assert!(!names("use std::{environment, fmt::env};", "std::env"));
    assert!(names("use crate::{limits, os::{clock, cpu}};", "crate::os"));
    assert!(names("fn f(fd: OwnedFd) {}", "OwnedFd") && !names("fn f(fd: MyOwnedFd) {}", "OwnedFd"));
}

#[test]
fn the_core_knows_no_fd_no_clock_and_no_system() {
    let forbidden = [
        "nix",
        "libc",
        "socket2",
        "mio",
        "tokio",
        "hyper",
        "hyper_util",
        "clap",
        "crate::os",
        "crate::loader",
        "crate::master",
        "crate::keeper",
        "std::fs",
        "std::os",
        "std::process",
        "std::thread",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::env",
        "Instant::now",
        "SystemTime::now",
        "OwnedFd",
        "TcpStream",
    ];
    for module in ["src/supervisor", "src/balance", "src/worker", "src/config"] {
        for (path, text) in files(module) {
            // The socket itself.
            if path.ends_with("src/worker/node/channel.rs") {
                continue;
            }
            // Tests of the core may read sample files.
            let whole = code(&text);
            let code = whole.split("#[cfg(test)]").next().unwrap();
            if path.file_stem().unwrap().to_string_lossy().ends_with("tests") {
                continue;
            }
            for word in forbidden {
                assert!(!names(code, word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn each_outer_crate_is_named_only_where_it_belongs() {
    let places: [(&str, &[&str]); 10] = [
        ("nix", &["src/os"]),
        ("libc", &["src/os"]),
        ("socket2", &["src/os"]),
        ("mio", &["src/master", "src/keeper"]),
        ("clap", &["src/cli"]),
        ("ratatui", &["src/cli/top"]),
        ("tokio", &["src/api", "src/cli", "src/serve"]),
        ("tokio_rustls", &["src/api"]),
        ("hyper", &["src/api", "src/cli", "src/serve"]),
        ("hyper_util", &["src/api", "src/cli", "src/serve"]),
    ];
    for (path, text) in files("src") {
        let code = code(&text);
        for (word, allowed) in places {
            let here = allowed.iter().any(|place| path.starts_with(place));
            assert!(here || !names(&code, word), "{} names {word}", path.display());
        }
    }
}

/// Imports between top-level folders of `src` that close a cycle and are still to be cut.
const CYCLES_TO_CUT: &[(&str, &str)] = &[];

/// What `os`, the lowest folder, may know: bounds, and names of signals. Both know nothing themselves.
const OS_MAY_KNOW: &[&str] = &["limits", "text"];

/// For each top-level module of `src` the ones that its code names.
fn folders() -> BTreeMap<String, BTreeSet<String>> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files("src") {
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        let whole = code(&text);
        let code = whole.split("#[cfg(test)]").next().unwrap();
        let owner = path.components().nth(1).unwrap().as_os_str().to_string_lossy();
        if is_test || matches!(&*owner, "lib.rs" | "main.rs") {
            continue;
        }
        let known = folders.entry(owner.trim_end_matches(".rs").to_owned()).or_default();
        let named = imports(code).into_iter().filter_map(|import| import.strip_prefix("crate::").map(str::to_owned));
        let on_the_spot = behind(code, "crate").filter_map(|rest| rest.strip_prefix("::").map(str::to_owned));
        known.extend(named.chain(on_the_spot).filter_map(|path| {
            let module: String = path.chars().take_while(|c| in_a_name(Some(*c))).collect();
            (!module.is_empty() && module != owner.trim_end_matches(".rs")).then_some(module)
        }));
    }
    folders
}

#[test]
fn imports_between_folders_form_no_cycle() {
    let mut folders = folders();
    let above: Vec<&String> = folders["os"].iter().filter(|known| !OS_MAY_KNOW.contains(&known.as_str())).collect();
    assert!(above.is_empty(), "src/os imports {above:?}");
    assert!(folders.len() > 10 && folders["master"].contains("os"), "{folders:?}");
    for (from, to) in CYCLES_TO_CUT {
        let existed = folders.get_mut(*from).is_some_and(|known| known.remove(*to));
        assert!(existed, "{from} does not import {to} any more: remove it from CYCLES_TO_CUT");
    }
    // Take away what imports nothing that is left: only cycles, and what depends on them, stay.
    loop {
        let left: BTreeSet<String> = folders.keys().cloned().collect();
        folders.values_mut().for_each(|known| known.retain(|module| left.contains(module)));
        let before = folders.len();
        folders.retain(|_, known| !known.is_empty());
        if folders.len() == before {
            break;
        }
    }
    assert!(folders.is_empty(), "cycles between folders of src, with what depends on them: {folders:#?}");
}

#[test]
fn unsafe_stands_only_in_os_and_says_why() {
    for (path, text) in files("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            if behind(&code(line), "unsafe").next().is_none() || line.contains("unsafe_code") {
                continue;
            }
            assert!(path.starts_with("src/os"), "{}:{} has unsafe", path.display(), n + 1);
            let near = lines[n.saturating_sub(8)..=n].join("\n");
            assert!(
                near.to_uppercase().contains("SAFETY"),
                "{}:{}: unsafe without a SAFETY comment",
                path.display(),
                n + 1
            );
        }
    }
}

#[test]
fn every_file_begins_with_what_lives_there_and_can_be_read_in_one_sitting() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in files(folder) {
            assert!(text.starts_with("//!"), "{} has no head", path.display());
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
            for word in ["todo!(", "unimplemented!(", "dbg!("] {
                assert!(path.ends_with("tidy.rs") || !text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

/// The texts of messages in some code: the first string behind what logs it, says it, or makes it an error.
fn messages(code: &str) -> impl Iterator<Item = String> {
    let openers =
        ["info!(", "warn!(", "error!(", "say(", "say(&format!(", "complain(", "complain(&format!(", "#[error("];
    openers.into_iter().flat_map(move |opener| code.split(opener).skip(1)).filter_map(|rest| {
        let text = rest.trim_start().strip_prefix('"')?;
        let is_end = |(at, _): &(usize, &str)| !text[..*at].ends_with('\\');
        let (end, _) = text.match_indices('"').find(is_end)?;
        let lines = text[..end].split("\\\n");
        Some(lines.map(|line| line.trim_start_matches([' ', '\n'])).collect())
    })
}

#[test]
fn a_message_is_found_wherever_it_stands() {
    let code = "log::warn!(\n    \"{}: a \\\"b\\\" \\\n     c\",\n x)\n#[error(\"d\")]\nsystem.say(&format!(\"e {x}\"));\nerror!(target)";
    let found: BTreeSet<String> = messages(code).collect();
    assert_eq!(found, ["{}: a \\\"b\\\" c", "d", "e {x}"].map(str::to_owned).into());
}

#[test]
fn messages_are_in_one_style() {
    let never =
        ["  ", "goes on", "anew", "as it likes", "by somebody", "makes no sense", "without a word", "serves on"];
    let mut seen = 0;
    for (path, text) in files("src") {
        for message in messages(&code(&text)) {
            seen += 1;
            let path = path.display();
            let words = never.iter().find(|words| message.contains(*words));
            assert_eq!(words, None, "{path}: {message}");
            let is_sentence = message.ends_with('.') && !message.ends_with("...");
            assert!(
                !is_sentence && !message.ends_with([' ', '\n']),
                "{path}: {message:?} ends with a period or a blank"
            );
        }
    }
    assert!(seen > 500, "{seen} messages");
}

#[test]
fn a_test_that_is_left_out_of_the_quick_run_says_why() {
    for (path, text) in files("tests").into_iter().chain(files("src")) {
        assert!(path.ends_with("tidy.rs") || !text.contains("#[ignore]"), "{}: #[ignore = \"why\"]", path.display());
    }
}

/// The loop owns mechanisms and has no state of theirs.
#[test]
fn the_master_is_a_handful_of_owners() {
    let files = files("src/master");
    let with_methods: Vec<_> = files
        .iter()
        .filter(|(_, text)| {
            code(text)
                .lines()
                .any(|line| line.starts_with("impl<S: System> Master<S>") || line.starts_with("impl Master"))
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!((1..=3).contains(&with_methods.len()), "impl Master stands in {}", with_methods.join(", "));
    let (_, text) = files.iter().find(|(path, _)| path.ends_with("src/master/mod.rs")).unwrap();
    let code = code(text);
    let body = code.split("struct Master<S: System> {").nth(1).unwrap().split("\n}").next().unwrap();
    let fields = body.lines().filter(|line| line.contains(':')).count();
    assert!((1..=15).contains(&fields), "struct Master has {fields} fields");
}

/// A simulated system can take the place of the real one only if the loop has no way around the trait.
#[test]
fn the_master_makes_system_calls_through_its_trait_only() {
    // Of these modules of `os` the loop uses what computes, or names a type.
    let pure = [
        "attributes::resource",
        "container::Container",
        "errno",
        "guard::Parcel",
        "listen::Access",
        "listen::LocalAddress",
        "listen::SocketFile",
        "loopback::Half",
        "loopback::Made",
        "other_end::OtherEnd",
        "process::describe_errno",
        "process::end_signal",
        "process::exit_code",
        "procfs::Holder",
        "seccomp::Answer",
        "seccomp::Call",
        "seccomp::Sent",
        "seccomp::What",
        "signal",
        "tracee::Caller",
        "tracee::FdFlags",
        "tracee::Seen",
        "tracee::SocketKind",
        "user::Account",
        "user::UserError",
    ];
    let mut seen = 0;
    for (path, text) in files("src/master") {
        // `system` calls the others.
        let outside = ["src/master/system", "src/master/preload.rs", "src/master/metrics_folders.rs"];
        if outside.iter().any(|outside| path.starts_with(outside)) {
            continue;
        }
        let (file, code) = (path.display(), code(&text));
        let modules: Vec<String> =
            imports(&code).iter().filter_map(|import| Some(import.strip_prefix("crate::os::")?.to_owned())).collect();
        for import in modules {
            seen += 1;
            let (module, item) = import.split_once("::").unwrap_or((&import, ""));
            let item = item.split("::").next().unwrap_or("");
            if pure.contains(&module) || pure.contains(&format!("{module}::{item}").as_str()) {
                continue;
            }
            assert!(item.is_empty() || item == "self", "{file} imports os::{import}");
            for used in behind(&code, module).filter_map(|rest| rest.strip_prefix("::")) {
                let used = used.split(|c: char| !in_a_name(Some(c))).next().unwrap_or("");
                let name = format!("{module}::{used}");
                assert!(pure.contains(&name.as_str()), "{file} calls os::{name}: a method of System");
            }
        }
        // On the spot, without an import.
        for used in code.split("crate::os::").skip(1).filter(|rest| !rest.starts_with('{')) {
            let path: String = used.chars().take_while(|c| in_a_name(Some(*c)) || *c == ':').collect();
            let path = path.trim_end_matches("::");
            let module = path.split("::").next().unwrap_or("");
            let is_import = path == module || pure.contains(&module);
            let is_pure = pure.iter().any(|known| path == *known || path.starts_with(&format!("{known}::")));
            assert!(is_import || is_pure, "{file} names os::{path}: a method of System");
        }
        for call in ["std::fs::", "UnixListener::bind", "TcpStream::connect", "Instant::now", "SystemTime::now"] {
            assert!(!names(&code, call.trim_end_matches("::")), "{file} names {call}: a method of System");
        }
    }
    assert!(seen > 10, "{seen} imports of os seen");
}
