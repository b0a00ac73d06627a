//! Writes the TOML text of a converted configuration, with comments.
use std::collections::BTreeMap;
use std::fmt::Write;

/// Column at which comments begin, in characters, after shorter lines.
const COMMENT_COLUMN: usize = 40;

/// One setting.
pub(super) struct Line {
    key: &'static str,
    /// As TOML.
    value: String,
    /// Its origin or reason. May be empty.
    why: String,
}

/// The settings of one table.
#[derive(Default)]
pub(super) struct Table(Vec<Line>);

impl Table {
    pub(super) fn text(&mut self, key: &'static str, value: &str, why: impl Into<String>) {
        self.raw(key, quoted(value), why);
    }

    pub(super) fn list(&mut self, key: &'static str, values: &[String], why: impl Into<String>) {
        let all: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        self.raw(key, format!("[{}]", all.join(", ")), why);
    }

    /// `value` is in TOML.
    pub(super) fn raw(&mut self, key: &'static str, value: impl Into<String>, why: impl Into<String>) {
        self.0.push(Line { key, value: value.into(), why: why.into() });
    }
}

#[derive(Default)]
pub(super) struct Section {
    pub(super) app: Table,
    pub(super) env: BTreeMap<String, String>,
    pub(super) named: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) restart: Table,
    pub(super) limits: Table,
    pub(super) log: Table,
}

pub(super) fn file(path: &str, sections: &[Section], notes: &[String]) -> String {
    let mut out = format!("# Converted from {}.\n", comment(path));
    out += "#   clusterd check -c cluster.toml     says what would run\n";
    out += "#   clusterd start cluster.toml        runs it in the background\n";
    out += "# docs/configuration.md says what may stand here, docs/migrating.md what became of each of PM2's keys.\n";
    if !notes.is_empty() {
        out += "#\n# Not taken over:\n";
        for note in notes {
            line(&mut out, &format!("#   {}", comment(note)));
        }
    }
    for section in sections {
        out += "\n[[app]]\n";
        table(&mut out, &section.app);
        if !section.env.is_empty() {
            out += "\n[app.env]\n";
            variables(&mut out, &section.env);
        }
        for (name, env) in &section.named {
            line(&mut out, &format!("\n[app.env.{}]", key(name)));
            variables(&mut out, env);
        }
        for (head, settings) in [("restart", &section.restart), ("limits", &section.limits), ("log", &section.log)] {
            if !settings.0.is_empty() {
                line(&mut out, &format!("\n[app.{head}]"));
                table(&mut out, settings);
            }
        }
    }
    out
}

fn table(out: &mut String, table: &Table) {
    for Line { key, value, why } in &table.0 {
        let setting = format!("{key} = {value}");
        if why.is_empty() {
            line(out, &setting);
        } else {
            // Writing to a String never fails.
            let _ = writeln!(out, "{setting:<COMMENT_COLUMN$} # {}", comment(why));
        }
    }
}

fn variables(out: &mut String, env: &BTreeMap<String, String>) {
    for (name, value) in env {
        line(out, &format!("{} = {}", key(name), quoted(value)));
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Text that may follow `#`.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A key, quoted where needed.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { quoted(name) }
}

/// A TOML string on a single line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_string_holds_toml_reads_it_back() {
        let nasty = "a\"b\\c\nd\te\rf\u{0}\u{1f}\u{7f}\u{85}ü\u{2028}'''\"\"\"#";
        let text = format!("{} = {}\nx = [{}]\n", key(nasty), quoted(nasty), quoted(""));
        let read: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(read[nasty].as_str(), Some(nasty));
        assert_eq!((key("A_b-9"), key(""), key("a.b")), ("A_b-9".into(), "\"\"".into(), "\"a.b\"".into()));
    }

    #[test]
    fn nothing_gets_out_of_a_comment() {
        let mut app = Table::default();
        app.text("name", "x", "instances: 4\n[evil]");
        let text = file("a\nb.js", &[Section { app, ..Section::default() }], &["one\ntwo".to_owned()]);
        let read: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(read.len(), 1, "{text}");
    }
}
