//! What the tests need from outside, installed once per content of `package-lock.json` and `requirements.txt` into
//! `test-deps` below the target folder. A stamp holds the text of what was installed; while it is the same, nothing is
//! run and no network is needed.
use super::apps::project;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with the npm packages, `node_modules`.
pub(crate) fn npm() -> &'static Path {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    ONCE.get_or_init(|| {
        let inputs = ["package.json", "package-lock.json"];
        let folder = install("npm", &inputs, "", |folder| {
            for input in inputs {
                fs::copy(source(input), folder.join(input)).unwrap();
            }
            let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"];
            run(Command::new("npm").args(args).current_dir(folder));
        });
        folder.join("node_modules")
    })
}

/// The folder with egg, `node_modules`; apart, because it has more packages than all others together.
pub(crate) fn egg() -> &'static Path {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    ONCE.get_or_init(|| apart("egg"))
}

/// The folder with socket.io and its adapter, `node_modules`.
pub(crate) fn socketio() -> &'static Path {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    ONCE.get_or_init(|| apart("socketio"))
}

/// Installs the packages of a folder of its own.
pub(crate) fn apart(name: &str) -> PathBuf {
    let inputs = ["package.json", "package-lock.json"];
    let sources = inputs.map(|input| format!("{name}/{input}"));
    let folder = install(name, &[&sources[0], &sources[1]], "", |folder| {
        for (input, from) in inputs.iter().zip(&sources) {
            fs::copy(source(from), folder.join(input)).unwrap();
        }
        let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"];
        run(Command::new("npm").args(args).current_dir(folder));
    });
    folder.join("node_modules")
}

/// The binary of one major version of Node.
pub(crate) fn node(major: u32) -> String {
    npm().join(format!("node{major}/bin/node")).display().to_string()
}

/// The folder of the programs `node` (this major version), `npm`'s packages and Bun and Deno have, in the order of a PATH.
pub(crate) fn npm_programs(major: u32) -> Vec<PathBuf> {
    let of = |path: String| npm().join(path);
    let own = [".bin".to_owned(), "@oven/bun-linux-x64/bin".to_owned(), "@deno/linux-x64-glibc".to_owned()];
    std::iter::once(format!("node{major}/bin")).chain(own).map(of).collect()
}

/// A program that is made of `source`, a file of `apps/`, by `command`, which writes the file that is its last argument.
/// `None`: its compiler is not there.
pub(crate) fn compiled(name: &str, source: &str, command: &[&str], env: &[(&str, &str)]) -> Option<PathBuf> {
    let version = if command[0] == "go" { "version" } else { "--version" };
    let version = Command::new(command[0]).arg(version).output().ok()?;
    let input = format!("apps/{source}");
    let more = format!("{command:?} {}", String::from_utf8_lossy(&version.stdout));
    let folder = install(name, &[&input], &more, |folder| {
        fs::copy(self::source(&input), folder.join(source)).unwrap();
        let mut compiler = Command::new(command[0]);
        compiler.args(&command[1..]).arg("server").arg(source).current_dir(folder);
        run(compiler.envs(env.iter().copied()).env("GOCACHE", folder.join("cache")));
    });
    Some(folder.join("server"))
}

/// The sample worker in Rust. Cargo knows what is up to date.
pub(crate) fn worker() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-deps/worker");
    let args = ["build", "--quiet", "--locked", "--package", "worker", "--target-dir"];
    run(Command::new(env!("CARGO")).args(args).arg(&target).current_dir(project("")));
    target.join("debug/worker")
}

/// The Python in whose environment its servers are.
pub(crate) fn python() -> String {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    let folder = ONCE.get_or_init(|| {
        // An environment is bound to the Python that made it.
        let which = run(Command::new("python3").args(["-c", "import sys; print(sys.version, sys.executable)"]));
        install("python", &["requirements.txt"], &which, |folder| {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder));
            let args = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
            run(Command::new(folder.join("bin/python")).args(args).arg(source("requirements.txt")));
        })
    });
    folder.join("bin/python").display().to_string()
}

/// A file that says what to install.
pub(crate) fn source(name: &str) -> PathBuf {
    project("tests/frameworks").join(name)
}

/// Makes the folder `name` with `fill`, unless that was done with the same inputs. One process at a time; others wait.
pub(crate) fn install(name: &str, inputs: &[&str], more: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-deps");
    let folder = base.join(name);
    fs::create_dir_all(&base).unwrap();
    let lock = File::create(base.join(format!("{name}.lock"))).unwrap();
    let _held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let stamp = base.join(format!("{name}.stamp"));
    let texts = inputs.iter().map(|input| fs::read_to_string(source(input)).unwrap());
    let wanted = texts.chain([more.to_owned(), folder.display().to_string()]).collect::<Vec<_>>().join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return folder;
    }
    // The stamp goes first and comes last: what is between them is not trusted.
    let _ = fs::remove_file(&stamp);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fill(&folder);
    fs::write(&stamp, wanted).unwrap();
    folder
}

/// Runs a command to its end; what it printed. Panics with all of it when the command fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} failed, {}\n{out}\n{err}", output.status);
    out
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn every_version_of_node_is_what_its_name_says() {
    for major in super::versions::MAJORS {
        let version = run(Command::new(node(major)).arg("--version"));
        assert!(version.starts_with(&format!("v{major}.")), "{version}");
    }
}
