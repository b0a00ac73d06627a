//! What the code promises about itself: who may name which crate, where `unsafe` may stand, heads of files, lengths.
#![allow(clippy::unwrap_used)]
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

/// Code without comments, so that a word in a sentence is no import.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether a path is named in code: `word::` or `word;` after something that is not part of a name.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
        starts && after.is_some_and(|c| !(c.is_alphanumeric() || c == '_'))
    })
}

#[test]
fn the_core_knows_no_fd_no_clock_and_no_system() {
    let forbidden = [
        "nix::",
        "libc::",
        "socket2::",
        "mio::",
        "tokio::",
        "hyper::",
        "clap::",
        "crate::os",
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
    for module in ["src/supervisor", "src/balance", "src/protocol", "src/config"] {
        for (path, text) in files(module) {
            // Tests of the core may read sample files.
            let whole = code(&text);
            let code = whole.split("#[cfg(test)]").next().unwrap();
            if path.file_stem().unwrap().to_string_lossy().ends_with("tests") {
                continue;
            }
            for word in forbidden {
                assert!(!code.contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn each_outer_crate_is_named_only_where_it_belongs() {
    let places: [(&str, &[&str]); 8] = [
        ("nix", &["src/os"]),
        ("libc", &["src/os"]),
        ("socket2", &["src/os"]),
        ("mio", &["src/master", "src/keeper"]),
        ("clap", &["src/cli"]),
        ("ratatui", &["src/cli/top"]),
        ("tokio", &["src/api", "src/cli", "src/master/control.rs"]),
        ("hyper", &["src/api", "src/cli"]),
    ];
    for (path, text) in files("src") {
        let code = code(&text);
        for (word, allowed) in places {
            let here = allowed.iter().any(|place| path.starts_with(place));
            assert!(here || !names(&code, &format!("{word}::")), "{} names {word}", path.display());
        }
    }
}

#[test]
fn unsafe_stands_only_in_os_and_says_why() {
    for (path, text) in files("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            if !names(&code(line), "unsafe") || line.contains("unsafe_code") {
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
