//! What the packages say: versions, lists of files, that every file parses. Building and running them takes minutes and is
//! `packaging/build` and `packaging/test`.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder, relative to the project.
fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("__pycache__") => {}
                true => folders.push(path),
                false => found.push(path.strip_prefix(root()).unwrap().to_owned()),
            }
        }
    }
    assert!(found.len() >= 2, "no files below {}", root().join(folder).display());
    found.sort();
    found
}

fn with_ending(folder: &str, endings: &[&str]) -> Vec<String> {
    let files = files_below(folder).into_iter().map(|path| path.to_str().unwrap().to_owned());
    files.filter(|path| endings.iter().any(|ending| path.ends_with(ending))).collect()
}

#[test]
fn all_packages_have_the_version_of_the_crate() {
    let version = env!("CARGO_PKG_VERSION");
    let package = json("packaging/npm/clusterd/package.json");
    let mut platforms = BTreeSet::new();
    for entry in fs::read_dir(root().join("packaging/npm")).unwrap() {
        let folder = entry.unwrap().file_name().into_string().unwrap();
        if !root().join("packaging/npm").join(&folder).join("package.json").exists() {
            continue;
        }
        let package = json(&format!("packaging/npm/{folder}/package.json"));
        assert_eq!(package["version"], version, "{folder}");
        assert_eq!(package["license"], "MIT OR Apache-2.0", "{folder}");
        if folder != "clusterd" {
            assert_eq!(package["name"], format!("@clusterd/{folder}"));
            assert_eq!(package["cpu"][0], folder.strip_prefix("linux-").unwrap());
            platforms.insert(format!("@clusterd/{folder}"));
        }
    }
    let optional = package["optionalDependencies"].as_object().unwrap();
    assert_eq!(optional.keys().cloned().collect::<BTreeSet<_>>(), platforms);
    assert!(optional.values().all(|wanted| wanted == version), "{optional:?}");
    assert!(package.get("scripts").is_none(), "an install runs no script");
    assert!(package.get("dependencies").is_none());
}

#[test]
fn every_file_that_the_npm_package_names_exists() {
    fn paths(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) if text.starts_with("./") => found.push(text.clone()),
            serde_json::Value::Object(object) => object.values().for_each(|value| paths(value, found)),
            _ => {}
        }
    }
    let package = json("packaging/npm/clusterd/package.json");
    let mut named = vec![package["bin"]["clusterd"].as_str().unwrap().to_owned()];
    paths(&package, &mut named);
    assert!(named.len() > 8, "{named:?}");
    let folder = root().join("packaging/npm/clusterd");
    for path in named {
        assert!(folder.join(&path).exists(), "{path}");
    }
    // The types of both kinds of modules say the same.
    for module in ["index", "worker"] {
        let of = |kind: &str| text(&format!("packaging/npm/clusterd/lib/{module}.d.{kind}"));
        assert!(of("mts").starts_with(&of("cts")), "{module}");
    }
}

#[test]
fn the_crate_has_what_belongs_in_it() {
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let include: Vec<&str> =
        manifest["package"]["include"].as_array().unwrap().iter().map(|pattern| pattern.as_str().unwrap()).collect();
    assert_eq!(include, ["/src", "/config", "/docs/*.md", "/README.md", "/CHANGELOG.md", "/LICENSE-*"]);
    // A file that is compiled in has to be in the package too: they are all below src.
    for path in with_ending("src", &[".rs"]) {
        assert!(!text(&path).contains("include_str!(\"../../"), "{path}");
    }
}

#[test]
fn what_is_run_may_be_run_and_parses() {
    let scripts = [
        "packaging/build",
        "packaging/test",
        "packaging/deb/build",
        "packaging/deb/files/postinst",
        "packaging/deb/files/postrm",
        "packaging/deb/files/prerm",
        "packaging/npm/clusterd/bin/clusterd",
        "packaging/npm/pack",
    ];
    for path in scripts {
        let mode = fs::metadata(root().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path} cannot be run");
        let content = text(path);
        let shell = if content.starts_with("#!/usr/bin/env bash") { "bash" } else { "sh" };
        let checked = Command::new(shell).arg("-n").arg(root().join(path)).output().unwrap();
        assert!(checked.status.success(), "{path}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    // One process for all files of a language: starting it takes longer than parsing.
    let python = "import ast, sys\nfor path in sys.argv[1:]: ast.parse(open(path).read(), path)";
    let node = "
        const fs = require('node:fs'), vm = require('node:vm');
        for (const file of process.argv.slice(1)) {
          const code = fs.readFileSync(file, 'utf8');
          if (file.endsWith('.mjs')) new vm.SourceTextModule(code, { identifier: file });
          else new vm.Script(`(function (exports, require, module) {${code}\n})`, { filename: file });
        }";
    let mut checks = [Command::new("python3"), Command::new("node")];
    checks[0].args(["-c", python]).args(with_ending("packaging", &[".py"]));
    let modules = ["--no-warnings", "--experimental-vm-modules", "-e", node, "--"];
    checks[1].args(modules).args(with_ending("packaging/npm", &[".cjs", ".mjs"]));
    for check in &mut checks {
        let checked = check.current_dir(root()).output().unwrap();
        assert!(checked.status.success(), "{check:?}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
