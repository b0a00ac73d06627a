//! What `top` draws and what its keys do, without a terminal: a model that is fed by hand, on a screen in memory.
#![allow(clippy::unwrap_used)]
use super::draw::{Means, draw};
use super::follow::Voice;
use super::model::{Answer, Do, Gone, Key, Model, News, Place, TOP_LOG_LINES_MAX, TOP_SAID_MS, TOP_SILENT_MS, Verb};
use super::view;
use crate::api::types::{App, Deployment, Worker};
use crate::cli::samples;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::collections::BTreeMap;

const MEANS: Means = Means { colours: true, unicode: true };

fn worker(slot: u32) -> Worker {
    Worker { cpu_ms: Some(1_000), ..samples::worker(slot) }
}

fn deployment(name: &str, id: u32, workers: u32) -> Deployment {
    let app = App { id: Some(id), handoffs: 100, ..samples::app(name, (0..workers).map(worker).collect()) };
    samples::deployment(name, vec![app])
}

fn place(name: &str, id: u32) -> Place {
    Place { name: name.to_owned(), path: format!("/run/{name}.sock").into(), apps: vec![(Some(id), name.to_owned())] }
}

fn answer(deployment: Deployment) -> News {
    let name = deployment.name.clone();
    News::Answer { name, answer: Ok(Box::new(Answer { deployment, held: BTreeMap::new() })) }
}

/// A home with these deployments, seen once.
fn model(deployments: &[Deployment]) -> Model {
    let mut model = Model::default();
    view::settle(&mut model, 24);
    let masters = deployments.iter().map(|d| place(&d.name, d.apps[0].id.unwrap())).collect();
    model.apply(News::Home { masters, gone: Vec::new(), wrong: Vec::new() }, 0);
    for one in deployments {
        model.apply(answer(one.clone()), 0);
    }
    model
}

/// The lines of the screen.
fn drawn(model: &mut Model, width: u16, height: u16, now_ms: u64) -> Vec<String> {
    view::settle(model, usize::from(height));
    let screen = view::view(model, "host:~/.clusterd", "log: web-out.log", (width, height), now_ms);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(&screen, MEANS, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn line<'a>(lines: &'a [String], word: &str) -> &'a str {
    lines.iter().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word}: {lines:#?}"))
}

#[test]
fn a_whole_screen() {
    let before = deployment("web", 0, 2);
    let mut model = model(&[before.clone(), deployment("job", 1, 1)]);
    let mut now = before;
    now.uptime_ms += 1_000;
    now.apps[0].handoffs += 1_500;
    for worker in &mut now.apps[0].workers {
        worker.cpu_ms = Some(1_250);
        worker.handoffs = 750;
    }
    now.apps[0].workers[1].loop_delay_ms = Some(1_200.0);
    model.apply(answer(now), 1_000);
    model.log(
        vec![(Voice::Out, "2026-11-24T10:11:12.123Z GET /".to_owned()), (Voice::Err, "a warning".to_owned())],
        true,
    );
    let lines = drawn(&mut model, 80, 24, 1_000);
    let expected = [
        "    ID APP           STATUS        READY   CPU MEMORY DELAY CONN/S RESTARTS   UP",
        "▾    0 web           running         2/2   50%   100M    1s   1500        0  65s",
        "    /0 pid 4000      ready         gen 1   25%  50.0M   1ms    750        0  65s",
        "    /1 pid 4001      ready         gen 1   25%  50.0M    1s    750        0  65s",
        "▾    1 job           running         1/1     -  50.0M   1ms      -        0  65s",
        "    /0 pid 4000      ready         gen 1     -  50.0M   1ms      -        0  65s",
        "── web ─────────────────────────────────────────────────────────────────────────",
        " 0.0.0.0:8080   node round-robin   generation 1   namespace default",
        " node app.js",
        "── log: web-out.log ────────────────────────────────────────────────────────────",
        " 10:11:12 GET /",
        " a warning",
    ];
    for (line, expected) in lines.iter().skip(1).zip(expected) {
        assert_eq!(line, expected);
    }
    for word in ["clusterd top  host", "2 apps  3/3 ready  CPU 50%  150M  1500 conn/s"] {
        assert!(lines[0].contains(word), "{}", lines[0]);
    }
    assert!(lines[23].ends_with("? help q quit"), "{}", lines[23]);
}

#[test]
fn every_size_can_be_drawn_and_the_selected_row_is_always_seen() {
    let deployments: Vec<Deployment> = (0..40).map(|n| deployment(&format!("app{n}"), n, 3)).collect();
    let mut model = model(&deployments);
    model.press(Key::Last);
    for (width, height) in [(1, 1), (2, 3), (7, 4), (20, 5), (40, 8), (80, 24), (132, 43), (500, 200)] {
        let lines = drawn(&mut model, width, height, 0);
        assert_eq!(lines.len(), usize::from(height));
        if width >= 40 && height >= 5 {
            assert!(lines.iter().any(|line| line.contains("app39")), "{width}x{height}: {lines:#?}");
        }
        model.press(Key::Char('?'));
        drawn(&mut model, width, height, 0);
        model.press(Key::Escape);
    }
    let lines = drawn(&mut model, 80, 24, 0);
    assert!(lines.iter().any(|line| line.contains(" of 4")), "which of the rows they are: {lines:#?}");
    model.press(Key::First);
    let lines = drawn(&mut model, 80, 24, 0);
    assert!(lines.iter().any(|line| line.contains("app0 ")), "{lines:#?}");
}

#[test]
fn a_home_with_nothing_and_apps_that_are_gone() {
    let mut model = Model::default();
    assert!(line(&drawn(&mut model, 80, 24, 0), "looking").contains("..."));
    model.apply(News::Home { masters: vec![], gone: vec![], wrong: vec!["an entry is damaged".to_owned()] }, 0);
    let lines = drawn(&mut model, 80, 24, 0);
    line(&lines, "nothing runs here (clusterd start SCRIPT starts something)");
    line(&lines, "an entry is damaged");
    let gone = Gone { deployment: "job".into(), app: "job".into(), id: 3, socket: "/run/job.sock".into() };
    model.apply(News::Home { masters: vec![], gone: vec![gone], wrong: vec![] }, 0);
    let lines = drawn(&mut model, 80, 24, 0);
    assert!(line(&lines, " job ").contains("3 job           gone"), "{lines:#?}");
    line(&lines, "its keeper was killed; s starts it again");
    assert!(model.press(Key::Char('r')).is_none());
    line(&drawn(&mut model, 80, 24, 0), "job: its keeper is gone; s starts it again");
    assert!(matches!(model.press(Key::Char('s')), Some(Do::Run(order)) if order.verb == Verb::Start));
}

#[test]
fn a_master_that_is_silent_is_shown_with_what_was_last_seen() {
    let mut model = model(&[deployment("web", 0, 1)]);
    let failed = || News::Answer { name: "web".to_owned(), answer: Err("not answering (pid 100)".to_owned()) };
    model.apply(failed(), 1_000);
    assert!(line(&drawn(&mut model, 80, 24, 1_000), " web ").contains("running"), "one miss is none");
    let lines = drawn(&mut model, 80, 24, TOP_SILENT_MS + 1_000);
    assert!(line(&lines, "0 web").contains("no answer"), "{lines:#?}");
    line(&lines, "its master has given no answer for 4 s (not answering (pid 100))");
    model.apply(News::Dead { name: "web".to_owned() }, 5_000);
    line(&drawn(&mut model, 80, 24, 5_000), "nothing runs here");
}

#[test]
fn what_ends_service_is_asked_first_and_the_rest_is_done_at_once() {
    let mut model = model(&[deployment("web", 0, 1), deployment("job", 1, 1)]);
    for (key, verb) in [('r', Verb::Reload), ('+', Verb::More), ('-', Verb::Less)] {
        let Some(Do::Run(order)) = model.press(Key::Char(key)) else { panic!("{key} does nothing") };
        assert_eq!((order.verb, order.target.app.as_str()), (verb, "web"));
        model.ended(order.number, Ok("done".to_owned()), 0);
    }
    for (key, verb) in [('R', Verb::Restart), ('s', Verb::Stop)] {
        assert!(model.press(Key::Char(key)).is_none());
        line(&drawn(&mut model, 80, 24, 0), "(y/n)");
        // Another key, typed by mistake, does not answer.
        assert!(model.press(Key::Enter).is_none());
        assert!(model.press(Key::Char('n')).is_none());
        assert!(model.press(Key::Char('y')).is_none(), "it was taken back");
        model.press(Key::Char(key));
        let Some(Do::Run(order)) = model.press(Key::Char('y')) else { panic!("{key} does nothing") };
        assert_eq!(order.verb, verb);
        model.ended(order.number, Err("it was refused".to_owned()), 0);
        line(&drawn(&mut model, 80, 24, 0), "web: it was refused");
        // An error stays until it is taken away; good news goes by itself.
        model.tick(TOP_SAID_MS * 2);
        line(&drawn(&mut model, 80, 24, 0), "web: it was refused");
        assert!(model.press(Key::Escape).is_none());
    }
    assert!(matches!(model.press(Key::Escape), Some(Do::Quit)));
    assert!(matches!(model.press(Key::Interrupt), Some(Do::Quit)));
}

#[test]
fn the_selection_stays_with_its_app_while_rows_come_and_go() {
    let mut model = model(&[deployment("web", 0, 2), deployment("job", 2, 1)]);
    while model.selected_app().unwrap().0.1 != "job" {
        model.press(Key::Down);
    }
    let masters = || vec![place("web", 0), place("api", 1), place("job", 2)];
    model.apply(News::Home { masters: masters(), gone: vec![], wrong: vec![] }, 1_000);
    model.apply(answer(deployment("api", 1, 4)), 1_000);
    model.apply(answer(deployment("web", 0, 5)), 1_000);
    assert_eq!(model.selected_app().unwrap().0.1, "job");
    model.apply(News::Home { masters: masters()[..2].to_vec(), gone: vec![], wrong: vec![] }, 2_000);
    assert_eq!(model.selected_app().unwrap().0.1, "api", "the one above took its place");
    model.press(Key::First);
    let folded = |model: &mut Model| drawn(model, 80, 24, 0).iter().any(|line| line.starts_with("▸    0 web"));
    assert!(!folded(&mut model));
    model.press(Key::Enter);
    assert!(folded(&mut model));
}

#[test]
fn of_a_long_failure_its_words_are_kept_and_its_frames_are_not() {
    let mut model = model(&[deployment("web", 0, 1)]);
    let Some(Do::Run(order)) = model.press(Key::Char('r')) else { panic!("no reload") };
    let frames: String = (0..12).map(|n| format!("\n  |     at frame{n} (file.js:1)")).collect();
    let said = format!("it exited with code 1\nIts last words:\n  | \n  | Error: no database{frames}\n  | Node.js v20");
    model.ended(order.number, Err(said), 0);
    let lines = drawn(&mut model, 80, 24, 0);
    for word in ["web: it exited with code 1", "Its last words:", "| Error: no database", "| Node.js v20"] {
        line(&lines, word);
    }
    assert!(!lines.iter().any(|line| line.contains("frame3")), "{lines:#?}");
}

#[test]
fn the_log_is_bounded() {
    let mut model = model(&[deployment("web", 0, 1)]);
    for part in 0..10 {
        model.log((0..TOP_LOG_LINES_MAX).map(|n| (Voice::Out, format!("line {part}/{n}"))).collect(), part == 0);
    }
    assert_eq!(model.log.len(), TOP_LOG_LINES_MAX);
    let last = format!("line 9/{}", TOP_LOG_LINES_MAX - 1);
    line(&drawn(&mut model, 80, 24, 0), &last);
    model.press(Key::Char('l'));
    assert!(!drawn(&mut model, 80, 24, 0).iter().any(|line| line.contains("line 9/")));
}
