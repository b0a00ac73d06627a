//! PM2 from npm, for benches that run beside it.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Installs PM2 from npm, once; `bench-deps` is where `benches/run` has it too. The path of its program.
pub(crate) fn install() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let folder =
        std::env::var_os("CLUSTERD_BENCH_DEPS").map_or_else(|| target.join("bench-deps"), PathBuf::from).join("npm");
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare/deps");
    let program = folder.join("node_modules/pm2/bin/pm2");
    let stamp = folder.join("installed");
    let lock = fs::read(inputs.join("package-lock.json")).map_err(|e| e.to_string())?;
    if fs::read(&stamp).is_ok_and(|found| found == lock) {
        return Ok(program);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(inputs.join(name), folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"];
    let status = Command::new("npm").args(args).current_dir(&folder).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("npm could not install it ({status})")),
        Err(e) => return Err(format!("npm cannot be run: {e}")),
    }
    // The stamp comes last: what has none is not trusted.
    fs::write(&stamp, lock).map_err(|e| e.to_string())?;
    Ok(program)
}
