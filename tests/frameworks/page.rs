//! docs/frameworks.md has the rows that are tested: `UPDATE=1` writes them.
use super::apps::project;
use super::table::{Cuts, ROWS, Row};

const PAGE: &str = "docs/frameworks.md";
const BEGIN: &str = "<!-- the table of programs -->\n";
const END: &str = "<!-- end -->\n";
const HEAD: &str = "| program | `clusterd --workers 2 --port 8080` ... | protocol | answers | reload under load | `kill -9` of a worker |\n\
                    |---|---|---|---|---|---|\n";

impl Row {
    fn text(&self) -> String {
        let Row { program, options, command, protocol, reload, .. } = self;
        let space = if options.is_empty() { "" } else { " " };
        let reload = match reload {
            Cuts::Nothing => "nothing cut",
            Cuts::InHand => "at most what was being answered",
        };
        format!(
            "| {program} | `{options}{space}-- {command}` | {protocol} | all workers | {reload} | served, comes back |\n"
        )
    }
}

#[test]
fn the_page_has_the_rows_that_are_tested() {
    let path = project(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let table = HEAD.to_owned() + &ROWS.iter().map(Row::text).collect::<String>();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert!(found == table, "{PAGE} is not what is tested: UPDATE=1 cargo test --test frameworks");
    }
}
