//! The comparison's page and picture (`benches/compare`), from given data. What is measured is not looked at here.
#[path = "../benches/compare/data.rs"]
mod data;
#[path = "../benches/compare/page.rs"]
mod page;
#[path = "../benches/compare/picture.rs"]
mod picture;
#[path = "../benches/support/stats.rs"]
#[allow(dead_code)]
mod stats;
#[path = "../benches/compare/table.rs"]
mod table;

use data::{Change, Changes, Connections, MAIN, Missing, Named, Report, Round, Row, Seen, Setup};

fn named(name: &str, label: &str) -> Named {
    Named { name: name.to_owned(), label: label.to_owned() }
}

/// Rounds with these rates and CPU times; everything else is the same in all.
fn row(name: &str, setup: Setup, figures: &[(f64, f64)]) -> Row {
    let round = |&(rate, cpu_us): &(f64, f64)| Round {
        rate,
        cpu_us,
        workers_cpu_us: 54.32,
        p50_ms: 3.456,
        p99_ms: 123.4,
        memory_mib: 9.04,
        fairness: 0.987,
        failed: 1,
    };
    Row { tool: named(name, &format!("the {name}")), setup, rounds: figures.iter().map(round).collect() }
}

fn measured() -> Connections {
    Connections {
        clients: 64,
        seconds: 1.5,
        rows: vec![
            row("floor", MAIN, &[(20000.0, 8.0), (21000.0, 9.0), (22000.0, 10.0)]),
            row("node", MAIN, &[(10000.0, 36.0)]),
            row("node-shared", MAIN, &[(20000.0, 0.0)]),
            row("clusterd", MAIN, &[(18000.0, 9.0), (17000.0, 9.9), (16000.0, 9.0)]),
            row("clusterd", Setup { workers: 8, kept: true, job: true }, &[(390.0, 12.0)]),
        ],
        missing: vec![Missing { label: "nginx stream".to_owned(), why: "not installed".to_owned() }],
    }
}

fn seen(name: &str, change: Change, kept: bool, silence_ms: Option<f64>) -> Seen {
    Seen {
        tool: named(name, name),
        change,
        kept,
        times: 3,
        answered: 1000,
        refused: 1,
        reset: 2,
        cut: 3,
        hung: 4,
        closed: 5,
        silence_ms,
    }
}

#[test]
fn a_row_has_medians_and_the_spread_where_there_is_one() {
    let text = table::connections(&measured());
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).expect(start);
    assert_eq!(
        line("| the clusterd | 17000"),
        "| the clusterd | 17000 (16000 to 18000) | 3.46 | 123 | 9.0 (9.0 to 9.9) | 54.3 | 9.0 | 0.99 | 3 |"
    );
    assert_eq!(line("| the node |"), "| the node | 10000 | 3.46 | 123 | 36.0 | 54.3 | 9.0 | 0.99 | 1 |");
    assert!(text.contains("64 clients over loopback; 3 rounds of 1.5 s for each row, in turns."), "{text}");
    assert!(text.contains("\nNot measured: nginx stream (not installed).\n"), "{text}");
}

#[test]
fn ratios_are_those_of_the_medians_and_nothing_is_divided_by_nothing() {
    let mut part = measured();
    part.rows.push(row("least", MAIN, &[(16000.0, 9.0)]));
    let text = table::connections(&part);
    let ratios = text.split_once("as ratios").expect("the table of ratios").1;
    let line = |start: &str| ratios.lines().find(|line| line.starts_with(start)).expect(start);
    assert_eq!(line("| the clusterd |"), "| the clusterd | 1.70 | 0.85 | 1.06 | 1.00 | 0.25 |");
    assert_eq!(line("| the node-shared |"), "| the node-shared | 2.00 | 1.00 | 1.25 | – | – |");
    let alone = Connections { rows: vec![row("clusterd", MAIN, &[(1.0, 1.0)])], ..measured() };
    let text = table::connections(&alone);
    assert!(text.contains("| the clusterd | – | – | – | – | – |"), "without Node and the floor: {text}");
}

#[test]
fn every_table_is_whole_and_other_setups_fold_away() {
    let text = table::connections(&measured());
    let (open, folded) = text.split_once("<details><summary>Other setups: 1</summary>").expect("the other setups");
    assert!(open.contains("**Short connections, hello, 2 workers**"), "{open}");
    assert!(folded.contains("**Kept-alive connections, 5 ms of CPU, 8 workers**\n\n| what |"), "{folded}");
    assert!(folded.contains("| the clusterd | 390 | 3.46"), "{folded}");
    assert!(folded.trim_end().ends_with("</details>"), "{folded}");
    let part = Changes { seen: vec![seen("node", Change::Reload, false, None)], ..Changes::default() };
    for text in [text, table::changes(&part)] {
        // A table is a run of lines that begin with a bar; each line of it has as many cells.
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with('|'))) {
            assert_eq!(pair[0].matches('|').count(), pair[1].matches('|').count(), "{pair:?}");
        }
    }
}

#[test]
fn what_clients_saw_stands_under_what_was_done() {
    let part = Changes {
        clients: 32,
        workers: 2,
        seen: vec![
            seen("node", Change::MasterKill, false, None),
            seen("clusterd", Change::MasterKill, true, Some(4.6)),
            seen("clusterd", Change::WorkerKill, false, Some(1.2)),
        ],
        missing: Vec::new(),
    };
    let text = table::changes(&part);
    assert!(!text.contains("**Reload**"), "nobody was reloaded: {text}");
    let worker = text.find("**SIGKILL of a worker**").expect("worker kills");
    let master = text.find("**SIGKILL of the primary, daemon or master**").expect("master kills");
    let at = |line: &str| text.find(line).unwrap_or_else(|| panic!("no {line} in {text}"));
    let answered = at("| clusterd | short | 3 | 1000 | 1 | 2 | 3 | 4 | 5 | 1 ms |");
    assert!(worker < answered && answered < master, "{text}");
    assert!(at("| node | short | 3 | 1000 | 1 | 2 | 3 | 4 | 5 | never again |") > master, "{text}");
    assert!(at("| clusterd | kept-alive | 3 | 1000 | 1 | 2 | 3 | 4 | 5 | 5 ms |") > master, "{text}");
}

#[test]
fn only_what_stands_between_the_markers_changes() {
    let page = "by hand\n<!-- benches/run: a -->\nold\n<!-- benches/run: end of a -->\nmore\n<!-- benches/run: b -->\nkept\n\
                <!-- benches/run: end of b -->\n";
    let filled = page::fill(page, "a", "new\n\n").expect("both markers");
    assert_eq!(filled, page.replace("old", "new"));
    assert_eq!(page::fill(&filled, "a", "new").expect("both markers"), filled, "the same again");
    assert!(page::fill(page, "c", "x").expect_err("no marker").contains("<!-- benches/run: c -->"));
    let open = "<!-- benches/run: a -->\nold\n";
    assert!(page::fill(open, "a", "x").expect_err("no end").contains("end of a"));
}

/// Value of an attribute of a line of the picture.
fn attribute(line: &str, name: &str) -> f64 {
    let value = line.split_once(&format!(" {name}=\"")).expect(name).1;
    value.split('"').next().expect("an end").parse().expect("a number")
}

#[test]
fn bars_are_as_long_as_their_medians_say() {
    let svg = picture::draw(&measured()).expect("a picture");
    let bars: Vec<f64> =
        svg.lines().filter(|line| line.contains("height=\"14\"")).map(|line| attribute(line, "width")).collect();
    assert_eq!(bars.len(), 8, "four of each figure:\n{svg}");
    // Rates: 21000, 10000, 20000, 17000; CPU: 9, 36, 0 and 9.
    assert!((bars[1] / bars[0] - 10.0 / 21.0).abs() < 0.01, "{bars:?}");
    assert!((bars[3] / bars[0] - 17.0 / 21.0).abs() < 0.01, "{bars:?}");
    assert!((bars[4] / bars[5] - 9.0 / 36.0).abs() < 0.01, "{bars:?}");
    assert!(bars[6] <= 1.0, "nothing is hardly to be seen: {bars:?}");
    assert_eq!(svg.matches("class=\"ours\"").count(), 2, "clusterd's own are marked");
}

#[test]
fn a_picture_has_its_text_as_text_and_reads_on_light_and_dark() {
    let mut part = measured();
    part.rows[0].tool.label = "a <b> & \"c\"".to_owned();
    let svg = picture::draw(&part).expect("a picture");
    for text in
        [">21,000</text>", ">a &lt;b&gt; &amp; &quot;c&quot;</text>", ">36.0</text>", "prefers-color-scheme: dark"]
    {
        assert!(svg.contains(text), "no {text} in\n{svg}");
    }
    assert!(svg.contains("median of 3 rounds in turns"), "{svg}");
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    let width = attribute(&svg, "width");
    for line in svg.lines().filter(|line| line.trim_start().starts_with("<rect class=\"o")) {
        assert!(attribute(line, "x") + attribute(line, "width") < width, "a bar leaves the picture: {line}");
    }
    assert_eq!(picture::draw(&Connections::default()), None, "nothing was measured");
}

#[test]
fn the_pages_have_every_place_that_a_run_fills() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(path).expect(name)
    };
    for (page, places) in
        [("README.md", &["picture"][..]), ("docs/performance.md", &["picture", "connections", "changes"])]
    {
        for place in places {
            page::fill(&read(page), place, "text").expect(page);
        }
    }
}

#[test]
fn a_report_can_be_kept_and_read_again() {
    let report = Report {
        machine: vec![("CPUs".to_owned(), "2 × some".to_owned()), ("Linux".to_owned(), "6.1".to_owned())],
        connections: Some(measured()),
        changes: None,
    };
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("the same"), report);
    assert_eq!(table::machine(&report), "Measured on: CPUs 2 × some; Linux 6.1.\n");
}
