//! Finding programs, on files in folders of their own.
#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of this test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("clusterd-program-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(fs::canonicalize(folder).unwrap())
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn find(&self, command0: &str, path: &str) -> Result<Program, ProgramError> {
        find(command0, OsStr::new(path), Some(&self.0))
    }

    fn says(&self, command0: &str, path: &str) -> String {
        self.find(command0, path).unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

#[test]
fn path_is_searched_as_execvp_does() {
    let folder = Folder::new();
    let program = folder.file("b/tool", "", 0o755);
    folder.file("a/tool", "", 0o644);
    fs::create_dir_all(folder.0.join("c/tool")).unwrap();
    let path = ["a", "c", "missing", "b"].map(|name| folder.0.join(name).display().to_string()).join(":");
    assert_eq!(folder.find("tool", &path).unwrap().path, program);
    assert_eq!(folder.find("tool", "b").unwrap().path, program, "a relative folder starts at the worker's");
    assert_eq!(folder.find("b/tool", "").unwrap().path, program);
    assert_eq!(folder.find("./b/tool", "").unwrap().path, folder.0.join("./b/tool"));
}

#[test]
fn errors_say_what_was_searched_and_what_was_meant() {
    let folder = Folder::new();
    folder.file("app.js", "", 0o644);
    folder.file("run.sh", "", 0o755);
    folder.file("data", "", 0o644);
    folder.file("script", "#!/no/such/interpreter\n", 0o755);
    assert_eq!(folder.says("nosuch", "/x:/y"), "command \"nosuch\" was not found in PATH");
    assert!(folder.says("app.js", "/x").ends_with("; did you mean: clusterd -- node app.js?"));
    assert!(
        folder.says("./app.js", "/x").ends_with("app.js is not executable; did you mean: clusterd -- node ./app.js?")
    );
    assert!(folder.says("./data", "").ends_with("is not executable (chmod +x data)"));
    assert!(folder.says("data", "").contains("is not executable"), "an empty PATH entry is the working folder");
    assert!(folder.says("./nosuch", "").ends_with("/nosuch does not exist"));
    assert!(folder.says("./data/x", "").contains("does not exist"));
    assert!(folder.says("./", "").ends_with("is a folder"));
    assert!(folder.says("/dev/null", "").ends_with("is not a file"));
    assert!(folder.says("./script", "").contains("asks for /no/such/interpreter"));
    folder.file("tool", "", 0o755);
    assert!(folder.says("tool", "/x").ends_with("; did you mean ./tool?"));
}

#[test]
fn kinds_are_told_by_name_link_and_first_line() {
    let folder = Folder::new();
    let kind = |name: &str, text: &str| {
        folder.file(name, text, 0o755);
        folder.find(&format!("./{name}"), "").unwrap().kind
    };
    for name in ["node", "nodejs", "node20", "node-v22.1.0", "node_18"] {
        assert_eq!(kind(name, ""), ProgramKind::Node, "{name}");
    }
    for (name, text) in [
        ("s1", "#!/usr/bin/env node\n"),
        ("s2", "#!/usr/bin/env -S node --enable-source-maps\n"),
        ("s3", "#! /usr/bin/env -S A=1 node\n"),
        ("s4", "#!/usr/bin/env -Snode --flag\n"),
        ("s5", "#!/usr/bin/env nodejs"),
    ] {
        assert_eq!(kind(name, text), ProgramKind::Node, "{text}");
    }
    assert_eq!(kind("npm", "#!/usr/bin/env node\n"), ProgramKind::NodeWrapper("npm"));
    assert_eq!(kind("npx-cli.js", "#!/usr/bin/env node\n"), ProgramKind::NodeWrapper("npx"));
    assert_eq!(kind("tsx", "#!/usr/bin/env node\n"), ProgramKind::NodeWrapper("tsx"));
    assert_eq!(kind("nodemon.js", "#!/usr/bin/env node\n"), ProgramKind::NodeWrapper("nodemon"));
    assert_eq!(kind("bun", ""), ProgramKind::Bun);
    assert_eq!(kind("deno", ""), ProgramKind::Deno);
    assert_eq!(kind("python3.12", ""), ProgramKind::Python);
    assert_eq!(kind("uvicorn", "#!/usr/bin/env python3\n"), ProgramKind::Python);
    assert_eq!(kind("sh", ""), ProgramKind::Other);
    for (name, text) in [
        ("nodemon2x", ""),
        ("o1", "#!/usr/bin/env\n"),
        ("o2", "#!\n"),
        ("o3", "#!/bin/sh\nnode\n"),
        ("o4", "\u{7f}ELF"),
    ] {
        assert_eq!(kind(name, text), ProgramKind::Other, "{name}");
    }
    symlink(folder.0.join("node20"), folder.0.join("current")).unwrap();
    assert_eq!(folder.find("./current", "").unwrap().kind, ProgramKind::Node);
}

#[test]
fn a_node_that_starts_another_process_is_a_wrapper() {
    let node = Program { path: "/usr/bin/node".into(), kind: ProgramKind::Node };
    let kind = |command: &str| kind_of(&node, &words(command));
    for command in ["node --watch app.js", "node --import tsx --watch a.ts", "node -r x --watch-path=src a.js"] {
        assert_eq!(kind(command), ProgramKind::NodeWrapper("node --watch"), "{command}");
    }
    assert_eq!(kind("node --run start"), ProgramKind::NodeWrapper("node --run"));
    for command in
        ["node app.js --watch", "node", "node --import tsx app.js --run", "node -- --watch", "node -r --watch"]
    {
        assert_eq!(kind(command), ProgramKind::Node, "{command}");
    }
    let said = advice(ProgramKind::NodeWrapper("tsx"), &words("tsx start"), Path::new("/")).unwrap();
    assert!(said.ends_with("run the program itself"), "{said}");
    let python = Program { path: "/usr/bin/python3".into(), kind: ProgramKind::Python };
    assert_eq!(kind_of(&python, &words("python3 --watch")), ProgramKind::Python);
}

#[test]
fn a_wrapper_gets_the_command_behind_it() {
    let folder = Folder::new();
    let npm = ProgramKind::NodeWrapper("npm");
    let said = |kind, command: &str| advice(kind, &words(command), &folder.0).unwrap();
    assert!(said(npm, "npm start").ends_with("run the program itself"), "no package.json");
    folder.file("node_modules/.bin/next", "", 0o755);
    folder.file(
        "package.json",
        r#"{"scripts": {"start": "NODE_ENV=production node app.js", "web": "next start", "all": "a && b"}}"#,
        0o644,
    );
    assert!(said(npm, "npm start").ends_with("run instead: clusterd -e NODE_ENV=production -- node app.js"));
    assert!(said(npm, "npm run -s web").ends_with("run instead: clusterd -- node_modules/.bin/next start"));
    assert!(said(npm, "npm run all").ends_with("run what its script \"all\" runs: a && b"));
    assert!(said(npm, "npm run nosuch").ends_with("run the program itself"));
    assert!(said(npm, "npm web").ends_with("run the program itself"));
    assert!(said(ProgramKind::NodeWrapper("yarn"), "yarn web").ends_with("-- node_modules/.bin/next start"));
    let npx = said(ProgramKind::NodeWrapper("npx"), "npx next start");
    assert!(npx.ends_with("run instead: clusterd -- node_modules/.bin/next start"), "{npx}");
    folder.file("package.json", "{]", 0o644);
    assert!(said(npm, "npm start").ends_with("run the program itself"));
    folder.file("package.json", "{}", 0o644);
    folder.file("server.js", "", 0o644);
    assert!(said(npm, "npm start").ends_with("run instead: clusterd -- node server.js"));
    assert!(said(ProgramKind::Bun, "bun x.ts").contains("leave --protocol out"));
    assert_eq!(advice(ProgramKind::Node, &words("node a.js"), &folder.0), None);
}

#[test]
fn a_script_without_a_first_line_is_the_shells_or_is_refused() {
    let folder = Folder::new();
    folder.file("start.sh", "exec sleep 1\n", 0o755);
    folder.file("start", "exec sleep 1\n", 0o755);
    folder.file("app.js", "console.log(1);\n", 0o755);
    folder.file("app.py", "\x7fELF\0", 0o755);
    for command in ["./start.sh", "./start", "./app.py"] {
        assert_eq!(folder.find(command, "").unwrap().kind, ProgramKind::Other, "{command}");
    }
    assert!(folder.says("./app.js", "").ends_with("did you mean: clusterd -- node ./app.js?"));
}
