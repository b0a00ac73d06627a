//! `clusterd init`: a configuration with every key explained, with the command of the folder where that can be told.
use crate::cli::apply::fail;
use crate::config::schema::sample::sample;
use clap::Args;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The command in it.
const COMMAND: &str = "command = [\"node\", \"workers/node/hello.js\"]";
/// What a folder's app may be called, the likeliest first.
const SCRIPTS: &[(&str, &str)] = &[
    ("app.js", "node"),
    ("server.js", "node"),
    ("index.js", "node"),
    ("app.mjs", "node"),
    ("server.mjs", "node"),
    ("index.mjs", "node"),
    ("dist/index.js", "node"),
    ("app.py", "python3"),
    ("main.py", "python3"),
    ("app.rb", "ruby"),
];

/// Write a configuration file with every key explained (also: ecosystem)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(alias = "ecosystem")]
pub struct Init {
    /// Where to
    #[arg(value_name = "FILE", default_value = "cluster.toml")]
    pub file: PathBuf,
    /// Over a file that is there
    #[arg(long)]
    pub force: bool,
}

impl Init {
    pub(super) fn run(&self) -> ExitCode {
        let (text, found) = text_for(Path::new("."));
        let path = self.file.display();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).create_new(!self.force);
        match options.open(&self.file).and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => {
                match found {
                    Some(command) => log::info!("{path} is written; it runs {command}"),
                    None => log::info!("{path} is written; say in it what to run (command)"),
                }
                log::info!("clusterd check -c {path} says what would run; clusterd start {path} runs it");
                ExitCode::SUCCESS
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                fail(format_args!("{path} exists; --force overwrites it"))
            }
            Err(e) => fail(format_args!("cannot write {path}: {e}")),
        }
    }
}

/// The configuration for a folder, and the command that was found in it.
fn text_for(folder: &Path) -> (String, Option<String>) {
    let package = std::fs::read(folder.join("package.json")).unwrap_or_default();
    let package: serde_json::Value = serde_json::from_slice(&package).unwrap_or_default();
    let main = package["main"].as_str().filter(|main| folder.join(main).is_file()).map(|main| (main, "node"));
    let script = main.or_else(|| SCRIPTS.iter().copied().find(|(script, _)| folder.join(script).is_file()));
    match script {
        Some((script, program)) => {
            // A string of TOML is written as one of JSON is, as far as names of files go.
            let words = [program, script].map(|word| serde_json::Value::from(word).to_string());
            let command = format!("command = [{}]", words.join(", "));
            (sample().replace(COMMAND, &command), Some(format!("{program} {script}")))
        }
        None => (sample(), None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_own_script_is_found_and_the_reference_is_what_it_was() {
        assert!(sample().contains(COMMAND));
        let folder = std::env::temp_dir().join(format!("clusterd-init-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("lib")).unwrap();
        assert_eq!(text_for(&folder), (sample(), None));
        std::fs::write(folder.join("server.js"), "").unwrap();
        assert_eq!(text_for(&folder).1.as_deref(), Some("node server.js"));
        std::fs::write(folder.join("lib/web.js"), "").unwrap();
        std::fs::write(folder.join("package.json"), "{\"main\": \"lib/web.js\"}").unwrap();
        let (text, command) = text_for(&folder);
        assert_eq!(command.as_deref(), Some("node lib/web.js"));
        assert!(text.contains("command = [\"node\", \"lib/web.js\"]"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
