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
fn the_image_is_built_from_all_that_cargo_reads() {
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let paths = |kind: &str| {
        let targets = manifest.get(kind).and_then(toml::Value::as_array).into_iter().flatten();
        targets.map(|target| target["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let members =
        manifest["workspace"]["members"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned());
    let all = members.chain(paths("bench")).chain(paths("test")).chain(["src/main.rs".to_owned()]);
    let folders: BTreeSet<String> = all.map(|path| path.split('/').next().unwrap().to_owned()).collect();
    assert!(folders.len() > 3, "{folders:?}");
    let image = text("packaging/docker/Dockerfile");
    for folder in folders {
        assert!(image.lines().any(|line| line == format!("COPY {folder} ./{folder}")), "{folder} is not copied");
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
    let of_python = ["packaging/release", "packaging/site", "packaging/fleet/roll"];
    for path in scripts.into_iter().chain(of_python) {
        let mode = fs::metadata(root().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path} cannot be run");
    }
    for path in scripts {
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
    checks[0].args(["-c", python]).args(with_ending("packaging", &[".py"])).args(of_python);
    let modules = ["--no-warnings", "--experimental-vm-modules", "-e", node, "--"];
    checks[1].args(modules).args(with_ending("packaging/npm", &[".cjs", ".mjs"]));
    for check in &mut checks {
        let checked = check.current_dir(root()).output().unwrap();
        assert!(checked.status.success(), "{check:?}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn the_unit_of_the_package_takes_away_the_rights_that_the_unit_of_startup_does() {
    let mut startup = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    startup.args(["startup", "--print", "--system", "root"]).env("CLUSTERD_HOME", "/root/.clusterd");
    let printed = startup.output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let rights = |text: &str| {
        let lines = text.lines().skip_while(|line| *line != "NoNewPrivileges=yes");
        let lines =
            lines.take_while(|line| *line != "[Install]").filter(|line| line.contains('=') && !line.starts_with('#'));
        lines.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (of_startup, of_package) = (rights(&printed), rights(&text("packaging/systemd/clusterd@.service")));
    assert!(of_startup.len() > 15, "{printed}");
    // A program keeps the options that it had set before bind(2), as before this unit had a filter.
    let more = "SystemCallFilter=@system-service @pkey bpf seccomp";
    let expected: BTreeSet<String> =
        of_startup.iter().map(|line| if line == more { format!("{line} pidfd_getfd") } else { line.clone() }).collect();
    assert_eq!(of_package, expected);
}

#[test]
fn a_port_of_the_package_tests_is_lost_to_nobody_and_its_server_can_have_it() {
    let script = "
import errno, socket, sys
sys.path.insert(0, 'packaging/tests')
from common import free_port
port = free_port()
with socket.socket() as other:
    try:
        other.bind(('127.0.0.1', port))
        raise SystemExit('somebody else has it')
    except OSError as error:
        assert error.errno == errno.EADDRINUSE, error
with socket.create_server(('0.0.0.0', port)) as server, socket.create_connection(('127.0.0.1', port)) as client:
    server.accept()[0].sendall(b'served')
    assert client.recv(6) == b'served'
";
    let mut python = Command::new("python3");
    let run = python.args(["-B", "-c", script]).current_dir(root()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// A temporary folder, removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy of what a release changes, as a repository of its own.
fn copy_of_the_project() -> Folder {
    let folder = Folder(std::env::temp_dir().join(format!("clusterd-release-{}", std::process::id())));
    let files = ["Cargo.toml", "Cargo.lock", "CHANGELOG.md", "README.md", "docs/installing.md"].map(PathBuf::from);
    for path in files.into_iter().chain(files_below("packaging")) {
        let to = folder.0.join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(path), to).unwrap();
    }
    git(&folder.0, &["init", "--quiet", "--initial-branch", "main"]);
    git(&folder.0, &["add", "--force", "."]);
    git(&folder.0, &["commit", "--quiet", "--message", "All"]);
    folder
}

/// Runs a program in a copy, without the settings of whoever runs the tests.
fn run_in(folder: &Path, program: &str, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for (name, value) in [("NAME", "Ann"), ("EMAIL", "ann@example.invalid")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

fn git(folder: &Path, args: &[&str]) -> String {
    let (is_done, text) = run_in(folder, "git", args);
    assert!(is_done, "git {args:?}: {text}");
    text
}

#[test]
fn a_release_sets_every_version_dates_the_changelog_commits_and_tags() {
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("SKIPPED: git is missing");
        return;
    }
    let folder = copy_of_the_project();
    let release = |args: &[&str]| run_in(&folder.0, "packaging/release", args);
    let (is_done, said) = release(&["99.0.0", "--dry-run"]);
    assert!(is_done && said.contains("would run .ci/run") && said.contains("would change Cargo.lock"), "{said}");
    assert_eq!(git(&folder.0, &["status", "--porcelain"]), "", "a dry run changes nothing");

    // Also what it would forget.
    let forgotten = format!("packaging/note:1: of {}", env!("CARGO_PKG_VERSION"));
    fs::write(folder.0.join("packaging/note"), format!("of {}\n", env!("CARGO_PKG_VERSION"))).unwrap();
    git(&folder.0, &["add", "packaging/note"]);
    git(&folder.0, &["commit", "--quiet", "--message", "Note"]);
    let (is_done, said) = release(&["99.0.0", "--dry-run"]);
    assert!(!is_done && said.contains(&forgotten), "{said}");
    git(&folder.0, &["reset", "--quiet", "--hard", "HEAD~1"]);

    // What is not in order is refused, and changes nothing.
    for (args, why) in [(["0.0.1", "--skip-ci"], "does not come after"), (["99.0", "--skip-ci"], "is not a version")] {
        let (is_done, said) = release(&args);
        assert!(!is_done && said.contains(why), "{args:?}: {said}");
    }
    let write = |path: &str, text: &str| fs::write(folder.0.join(path), text).unwrap();
    write("note", "not committed");
    let (is_done, said) = release(&["99.0.0", "--skip-ci"]);
    assert!(!is_done && said.contains("not committed"), "{said}");
    fs::remove_file(folder.0.join("note")).unwrap();
    git(&folder.0, &["checkout", "--quiet", "-b", "other"]);
    let (is_done, said) = release(&["99.0.0", "--skip-ci"]);
    assert!(!is_done && said.contains("the branch is other"), "{said}");
    git(&folder.0, &["checkout", "--quiet", "main"]);

    let (is_done, said) = release(&["99.0.0", "--skip-ci"]);
    assert!(is_done, "{said}");
    assert_eq!(git(&folder.0, &["status", "--porcelain"]), "");
    assert_eq!(git(&folder.0, &["log", "-1", "--format=%s"]), "Release 99.0.0\n");
    assert!(git(&folder.0, &["tag", "--list", "-n3"]).starts_with("v99.0.0         clusterd 99.0.0"));
    let read = |path: &str| fs::read_to_string(folder.0.join(path)).unwrap();
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    assert_eq!(manifest["package"]["version"].as_str(), Some("99.0.0"));
    assert!(read("Cargo.lock").contains("name = \"clusterd\"\nversion = \"99.0.0\"\n"));
    let package: serde_json::Value = serde_json::from_str(&read("packaging/npm/clusterd/package.json")).unwrap();
    assert_eq!(
        (&package["version"], &package["optionalDependencies"]["@clusterd/linux-x64"]),
        (&"99.0.0".into(), &"99.0.0".into())
    );
    assert!(read("docs/installing.md").contains("clusterd_99.0.0-1_amd64.deb"));
    let changelog = read("CHANGELOG.md");
    assert!(changelog.contains("## [Unreleased]\n\n## [99.0.0] - 2"), "{changelog}");

    // The next one has nothing to tell.
    let (is_done, said) = release(&["99.1.0", "--skip-ci"]);
    assert!(!is_done && said.contains("Unreleased has no entry"), "{said}");
}
