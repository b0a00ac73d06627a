//! The units that clusterd ships and writes, on a real systemd that runs in namespaces of this machine (`tests/machines/namespace`).
use std::process::Command;

/// What the script exits with where this machine has no such namespaces, or no systemd.
const SKIPPED: i32 = 77;

#[test]
#[ignore = "boots a systemd, and kills and restarts units under load for half a minute"]
fn under_systemd_nobody_is_refused_when_a_keeper_is_killed_and_none_is_cut_by_a_restart() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut machine = Command::new(format!("{root}/tests/machines/namespace"));
    machine.args(["python3", "tests/machines/systemd"]).current_dir(root);
    let output = machine.env("CLUSTERD", env!("CARGO_BIN_EXE_clusterd")).output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // The figures, and what this systemd cannot show.
    eprint!("{why}{said}");
    match output.status.code() {
        Some(0) => assert!(said.lines().filter(|line| line.starts_with("ok: ")).count() > 25, "{said}"),
        code => assert_eq!(code, Some(SKIPPED), "{said}{why}"),
    }
}
