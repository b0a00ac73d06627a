//! The tables of keys in `docs/configuration.md` and of flags in `docs/command-line.md`. They stand between two comments,
//! `<!-- keys of TABLE: SECTION -->` (or `<!-- flags -->`) and `<!-- end -->`.
use super::{RunFlag, Setting, Takes, flags, settings};

/// The last line of a generated part.
const END: &str = "<!-- end -->";

/// A page whose generated parts cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A part does not end.
    #[error("\"{0}\" has no line \"{END}\" behind it")]
    Unclosed(String),
    /// No key is of this table and section.
    #[error("no keys are of \"{0}\"")]
    NoKeys(String),
}

/// A page with its generated parts written again.
///
/// # Errors
/// A part that does not end, or that names no keys.
pub fn with_tables(page: &str) -> Result<String, ReferenceError> {
    let mut text = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let Some(mark) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let table = match mark.strip_prefix("keys of ") {
            Some(place) => keys(place)?,
            None if mark == "flags" => run_flags(),
            None => continue,
        };
        text.push_str(&table);
        text.push_str(END);
        text.push('\n');
        if !lines.any(|line| line == END) {
            return Err(ReferenceError::Unclosed(line.to_owned()));
        }
    }
    Ok(text)
}

/// Every part that a page has to have.
pub fn places() -> Vec<String> {
    let mut places: Vec<String> = settings().filter(|setting| is_listed(setting)).map(place_of).collect();
    places.dedup();
    places
}

/// The file's only key, and tables with sections of their own, are in the text.
fn is_listed(setting: &Setting) -> bool {
    !(setting.scope.path.is_empty() || (setting.is_table)() && setting.section.is_empty())
}

fn place_of(setting: &Setting) -> String {
    let section = if setting.section.is_empty() { String::new() } else { format!(": {}", setting.section) };
    format!("{}{section}", setting.scope.path)
}

fn keys(place: &str) -> Result<String, ReferenceError> {
    let listed: Vec<&Setting> = settings().filter(|one| is_listed(one) && place_of(one) == place).collect();
    if listed.is_empty() {
        return Err(ReferenceError::NoKeys(place.to_owned()));
    }
    let row = |setting: &&Setting| {
        let default = (setting.default)().map(|text| format!("`{text}`"));
        let default = default.or_else(|| setting.unset.map(str::to_owned)).unwrap_or_default();
        let more = if setting.more.is_empty() { String::new() } else { format!(" {}.", setting.more) };
        cells(&[
            &format!("`{}`", setting.name),
            &(setting.words)(),
            &default,
            &format!("{}{more}", setting.help.trim()),
        ])
    };
    Ok("| key | value | default | |\n|---|---|---|---|\n".to_owned() + &listed.iter().map(row).collect::<String>())
}

fn run_flags() -> String {
    let row = |flag: &RunFlag| {
        let short = flag.flag.short.map_or_else(String::new, |short| format!("`-{short}`, "));
        let value = if flag.flag.takes == Takes::Nothing { String::new() } else { format!(" {}", flag.flag.value) };
        let alias = flag.flag.alias.map_or_else(String::new, |alias| format!(" (also: `--{alias}`)"));
        cells(&[&format!("{short}`{}{value}`", flag.flag.option), &format!("{}{alias}", flag.help)])
    };
    "| option | meaning |\n|---|---|\n".to_owned()
        + &flags().iter().filter(|flag| !flag.flag.hidden).map(row).collect::<String>()
}

fn cells(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}
