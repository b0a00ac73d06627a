//! Explains to people that their Node runs no TypeScript, by the last lines of a worker that has ended. Its version is in them:
//! nothing is run to find it out.
use super::context::Context;
use super::system::System;
use crate::api::warnings;
use crate::ids::AppIx;

/// What Node starts the last line of an uncaught exception with.
const VERSION_LINE: &str = "Node.js v";

/// How files of TypeScript end.
const ENDINGS: [&str; 3] = [".ts", ".mts", ".cts"];

/// Logs what runs the file that a worker's Node could not read. Where it reads TypeScript, its own error says what is wrong.
pub(super) fn explain_end(cx: &Context<impl System>, app_ix: AppIx, lines: &[String]) {
    let Some(version) = refused_by(lines) else { return };
    let app = &cx.apps[app_ix];
    let is_told = |text: &str| warnings::is_about(text, &app.name) && text.contains(" runs no TypeScript ");
    if !warnings::since(app.warned_before, is_told).is_empty() {
        return;
    }
    let command = &app.settings().config.command;
    let file = command.iter().find(|word| ENDINGS.iter().any(|ending| word.ends_with(ending)));
    let file = file.map_or("FILE", String::as_str);
    log::warn!(
        "{}: Node v{version} runs no TypeScript (22.18 and later do): install a later one, compile {file} to JavaScript, or \
         install tsx (npm install tsx) and run: node --import tsx {file}",
        app.name
    );
}

/// The version of the Node that ended because it does not know TypeScript.
fn refused_by(lines: &[String]) -> Option<&str> {
    let version = lines.iter().rev().find_map(|line| line.strip_prefix(VERSION_LINE))?;
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let (major, minor): (u32, u32) = (numbers.next()?, numbers.next()?);
    let runs_it = match major {
        22 => minor >= 18,
        23 => minor >= 6,
        _ => major > 23,
    };
    (!runs_it && (is_unknown_ending(lines) || is_read_as_javascript(lines))).then_some(version)
}

/// An ES module: `TypeError [ERR_UNKNOWN_FILE_EXTENSION]: Unknown file extension ".ts" for /srv/app.ts`.
fn is_unknown_ending(lines: &[String]) -> bool {
    lines.iter().any(|line| ENDINGS.iter().any(|ending| line.contains(&format!("Unknown file extension \"{ending}\""))))
}

/// A CommonJS module is taken for JavaScript: a syntax error of its compilation, below the place, `/srv/app.ts:3`.
fn is_read_as_javascript(lines: &[String]) -> bool {
    let is_place = |line: &String| {
        line.rsplit_once(':').is_some_and(|(file, number)| {
            number.parse::<u32>().is_ok() && ENDINGS.iter().any(|ending| file.ends_with(ending))
        })
    };
    // An error of the program itself, such as one of JSON.parse, has another function on top.
    let is_compilation = |line: &String| line.trim_start().starts_with("at wrapSafe (node:internal/");
    let Some(place) = lines.iter().position(is_place) else { return false };
    let Some(error) = lines[place..].iter().position(|line| line.starts_with("SyntaxError: ")) else { return false };
    lines[place + error..].iter().any(is_compilation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(lines: &[&str]) -> Option<String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        refused_by(&lines).map(str::to_owned)
    }

    const MODULE: [&str; 3] = [
        "TypeError [ERR_UNKNOWN_FILE_EXTENSION]: Unknown file extension \".ts\" for /srv/app.ts",
        "    at Object.getFileProtocolModuleFormat [as file:] (node:internal/modules/esm/get_format:219:9)",
        "",
    ];

    #[test]
    fn a_module_with_types_is_refused_by_versions_that_know_none() {
        for (version, is_refused) in [
            ("18.20.8", true),
            ("20.20.2", true),
            ("22.17.1", true),
            ("22.18.0", false),
            ("23.5.0", true),
            ("23.6.0", false),
            ("24.0.0", false),
        ] {
            let last = format!("Node.js v{version}");
            let lines: Vec<&str> = MODULE.into_iter().chain([last.as_str()]).collect();
            assert_eq!(refused(&lines), is_refused.then(|| version.to_owned()));
        }
        assert_eq!(refused(&MODULE), None, "no version is named");
        assert_eq!(refused(&["Unknown file extension \".css\" for /srv/a.css", "Node.js v20.20.2"]), None);
    }

    #[test]
    fn a_syntax_error_counts_where_node_compiles_a_file_of_typescript() {
        let compiled = |place: &'static str, frame: &'static str| {
            let error = "SyntaxError: Missing initializer in const declaration";
            refused(&[
                "listening",
                place,
                "const port: number = 1;",
                "      ^^^^",
                "",
                error,
                frame,
                "",
                "Node.js v20.20.2",
            ])
        };
        let frame = "    at wrapSafe (node:internal/modules/cjs/loader:1464:18)";
        assert_eq!(compiled("/srv/app.ts:1", frame), Some("20.20.2".to_owned()));
        assert_eq!(compiled("/srv/app.js:1", frame), None);
        assert_eq!(compiled("/srv/app.ts:1", "    at JSON.parse (<anonymous>)"), None);
    }
}
