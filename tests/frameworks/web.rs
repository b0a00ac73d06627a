//! The projects of `web/` and `nuxt/`: frameworks that are built before they run. Their packages are installed once for all of
//! them (those of Nuxt apart), and each is built once per content of its files.
use super::install::{apart, install, node, npm_programs, run, source};
use super::support::NODE;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables with which nobody is told that a test builds or runs something, and for Next the smallest server.
const ENV: [(&str, &str); 4] = [
    ("NEXT_TELEMETRY_DISABLED", "1"),
    ("ASTRO_TELEMETRY_DISABLED", "1"),
    ("NUXT_TELEMETRY_DISABLED", "1"),
    ("STANDALONE", "1"),
];

/// The command that builds a project; empty: nothing is to be built.
fn build(project: &str) -> Vec<String> {
    let line = match project {
        "next" => "next build",
        "nitro" => "nitro build",
        "nuxt" => "nuxt build",
        "svelte" => "vite build",
        "astro" => "astro build",
        "react-router" => "react-router build",
        // A single executable is made of the Node that makes it; this version needs no other tool.
        "sea" => &format!("{} --build-sea sea.json", node(26)),
        _ => "",
    };
    line.split_whitespace().map(str::to_owned).collect()
}

/// The folder of a project, built, and the folders of the programs that it needs.
pub(crate) fn built(project: &str) -> (PathBuf, Vec<PathBuf>) {
    let group = if project == "nuxt" { "nuxt" } else { "web" };
    let packages = apart(group);
    let programs = [vec![packages.join(".bin")], npm_programs(NODE)].concat();
    let from = format!("{group}/{project}");
    let lock = format!("{group}/package-lock.json");
    let files = files_below(&source(&from)).into_iter().map(|file| format!("{from}/{file}")).collect::<Vec<_>>();
    let inputs: Vec<&str> = files.iter().map(String::as_str).chain([lock.as_str()]).collect();
    let command = build(project);
    // Below the folder with the packages, where Node finds them.
    let folder = install(&from, &inputs, &format!("{command:?}"), |folder| {
        for file in &files {
            let to = folder.parent().unwrap().parent().unwrap().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(source(file), to).unwrap();
        }
        if let Some((tool, args)) = command.split_first() {
            run(Command::new(tool).args(args).current_dir(folder).env("PATH", path(&programs)).envs(ENV));
        }
    });
    (folder, programs)
}

/// PATH with these folders first.
pub(crate) fn path(first: &[PathBuf]) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(first.iter().cloned().chain(std::env::split_paths(&rest))).unwrap()
}

/// Every file below a folder, by its path from there, in order.
fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()).into_iter().map(|file| format!("{name}/{file}")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}
