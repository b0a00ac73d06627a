//! Finds what `benches/run` has installed, and says what the figures depend on: machine and versions.
use crate::support::servers::{Nginx, Programs};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set by `benches/run`: the folder below `target/` that it installs into.
pub(crate) const DEPS_VARIABLE: &str = "CLUSTERD_BENCH_DEPS";

pub(crate) fn find() -> Programs {
    Programs { pm2: pm2(), nginx: nginx() }
}

fn pm2() -> Result<PathBuf, String> {
    let folder = std::env::var_os(DEPS_VARIABLE).ok_or("not installed: benches/run does that")?;
    let program = Path::new(&folder).join("npm/node_modules/pm2/bin/pm2");
    if program.exists() { Ok(program) } else { Err("not installed: npm could not fetch it".to_owned()) }
}

fn nginx() -> Result<Nginx, String> {
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or("not installed, and installing it takes root and apt")?;
    let build = said(Command::new(&program).arg("-V")).unwrap_or_default();
    let options: Vec<&str> = build.split_ascii_whitespace().collect();
    if options.contains(&"--with-stream") {
        return Ok(Nginx { program, module: None });
    }
    let folder = options.iter().find_map(|option| option.strip_prefix("--modules-path="));
    let module = Path::new(folder.unwrap_or("/usr/lib/nginx/modules")).join("ngx_stream_module.so");
    if module.exists() {
        Ok(Nginx { program, module: Some(module) })
    } else {
        Err("installed without its stream module".to_owned())
    }
}

/// Name and value of what the figures depend on.
pub(crate) fn machine(programs: &Programs) -> Vec<(String, String)> {
    let mut facts = vec![("CPUs", cpus()), ("memory", memory()), ("Linux", kernel())];
    facts.push(("Node", version(Command::new("node").arg("--version"), "v")));
    if let Ok(pm2) = &programs.pm2 {
        facts.push(("PM2", pm2_version(pm2)));
    }
    if let Ok(nginx) = &programs.nginx {
        facts.push(("nginx", version(Command::new(&nginx.program).arg("-v"), "nginx version: nginx/")));
    }
    facts.push(("clusterd", env!("CARGO_PKG_VERSION").to_owned()));
    facts.push(("on", said(Command::new("date").arg("+%Y-%m-%d")).unwrap_or_default()));
    let load = busy();
    facts.push(("load at the start", format!("{load:.1}")));
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Processes that wanted a CPU in the last minute, on average.
pub(crate) fn busy() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn cpus() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": "));
    let model = field("model name").map_or("unknown", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kind =
        if field("flags").is_some_and(|(_, flags)| flags.contains("hypervisor")) { " (virtual machine)" } else { "" };
    format!("{count} × {model}{kind}")
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    format!("{:.0} GiB", kib / 1024.0 / 1024.0)
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

fn pm2_version(program: &Path) -> String {
    let package = program.ancestors().nth(2).map(|folder| folder.join("package.json"));
    let text = package.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value["version"].as_str().unwrap_or("unknown").to_owned()
}

fn version(command: &mut Command, before: &str) -> String {
    let text = said(command).unwrap_or_default();
    text.split_once(before).map_or("unknown", |(_, version)| version).trim().to_owned()
}

/// What a command prints, on either stream.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}
