//! The page that has the tables of these tests.
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/reliability.md";
const END: &str = "<!-- end -->\n";

/// Replaces the table below this mark, if `UPDATE` says so.
pub(crate) fn update(mark: &str, table: &str) {
    if std::env::var_os("UPDATE").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- {mark} -->\n");
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    fs::write(&path, [before, &begin, table, END, after].concat()).unwrap();
}
