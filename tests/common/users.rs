//! Other users, by number: none has to exist. Only root can become one of them.
use super::cluster::copy_program;
use std::path::Path;
use std::process::{Command, Stdio};

/// A user that owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// The same command, run by `setpriv` as this user without any right; a test that is run by such a user stays one.
/// clusterd itself is run from a copy in the command's folder, which is opened to everybody: the project may lie where
/// others may not look, in a home of mode 0700.
pub(crate) fn through_setpriv(command: &mut Command, user: u32) {
    let mut through = Command::new("setpriv");
    let mut program = command.get_program().to_owned();
    let folder = command.get_current_dir().map(Path::to_owned);
    if is_root() {
        through.args([&format!("--reuid={user}"), "--regid=65534", "--clear-groups"]);
        through.args(["--bounding-set=-all", "--inh-caps=-all"]);
        if let Some(folder) = &folder {
            if program == env!("CARGO_BIN_EXE_clusterd") {
                let copy = folder.join("clusterd");
                copy_program(Path::new(&program), &copy);
                program = copy.into();
            }
            let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(folder).status().unwrap();
            assert!(opened.success(), "cannot open {} to others", folder.display());
        }
    }
    through.arg("--").arg(program).args(command.get_args());
    if let Some(folder) = folder {
        through.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => through.env(name, value),
            None => through.env_remove(name),
        };
    }
    through.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = through;
}
