//! The configuration that `init` writes, with every key explained; `config/cluster.toml` is the same text.
use super::keys::TABLES;
use super::{Scope, Setting};
use std::fmt::Write;

/// Characters of a line of a comment.
const WIDTH: usize = 118;

const HEAD: &str = "\
#:schema ./cluster.schema.json
# Every key of clusterd's configuration. A line with a value shows the default (or, for command and listen, an example);
# a line behind \"# \" is an example of a key that is unset by default. docs/configuration.md says more.
#
#   clusterd check -c cluster.toml            says what would run, or everything that is wrong
#   clusterd -c cluster.toml                  runs it in the foreground
#   clusterd schema > cluster.schema.json     lets editors complete and check it (see the first line)
#
# Relative paths start at the folder in which clusterd was started. Times have a unit: \"500ms\", \"30s\", \"2m\", \"1h\".
";

/// Tables that are the value of one key: limits of resources, variables.
const TABLES_OF_APP: &str = "
# [app.rlimits]                # Limits of the processes, as in ulimit; [soft, hard] sets both apart.
# nofile = 65536
# core = \"unlimited\"

[app.env]                      # Variables, added to those of clusterd itself.
# NODE_ENV = \"development\"
# METRICS_PORT = \"9100\"

# [app.env.production]         # Laid over [app.env] by: clusterd --env production
# NODE_ENV = \"production\"
";

/// The whole file.
pub fn sample() -> String {
    let mut text = HEAD.to_owned();
    for settings in TABLES {
        let Some(scope) = settings.first().map(|setting| setting.scope).filter(|scope| !scope.path.is_empty()) else {
            continue; // The file itself has no other key.
        };
        let brackets = if scope.path == "app" { "[[app]]".to_owned() } else { format!("[{}]", scope.path) };
        let header = if scope.optional { format!("# {brackets}") } else { brackets };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "\n{header:<30} # {}", scope.help);
        settings.iter().filter(|setting| !(setting.is_table)()).for_each(|setting| key(scope, setting, &mut text));
        if scope.path == "app" {
            text.push_str(TABLES_OF_APP);
        }
    }
    text
}

fn key(scope: &Scope, setting: &Setting, text: &mut String) {
    let default = (setting.default)();
    let unset = setting.unset.filter(|unset| !matches!(*unset, "none" | "required" | "empty"));
    let note =
        unset.filter(|unset| !unset.contains('`')).map_or_else(String::new, |unset| format!(" Default: {unset}."));
    let choices = (setting.words)();
    let list = choices.starts_with("`\"") && !setting.help.contains('"');
    let choices = if list { format!(" One of {}.", choices.replace('`', "")) } else { String::new() };
    text.push('\n');
    for line in wrapped(&format!("{}{choices}{note}", setting.help.trim())) {
        let _ = writeln!(text, "# {line}");
    }
    let name = setting.name;
    let _ = match (setting.initial, setting.example, default) {
        (Some(value), _, _) if !scope.optional => writeln!(text, "{name} = {value}"),
        (_, None, Some(value)) if !scope.optional => writeln!(text, "{name} = {value}"),
        (_, Some(value), _) => writeln!(text, "# {name} = {value}"),
        (_, None, Some(value)) => writeln!(text, "# {name} = {value}"),
        (_, None, None) => Ok(()),
    };
}

/// A text in lines of at most [`WIDTH`] characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + word.len() >= WIDTH {
            lines.push(word.to_owned());
            continue;
        }
        if !lines[last].is_empty() {
            lines[last].push(' ');
        }
        lines[last].push_str(word);
    }
    lines
}
