//! What `auto` means, for each of the tables that could be chosen: nothing that `round-robin` allows may be refused.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::resolve::resolve;
use crate::config::sources::{FileSource, Sources};

/// Every table that could be chosen.
fn tables() -> Vec<Table> {
    let all = [ROUND_ROBIN, Balance::Shared, Balance::Kernel];
    let pairs = all.into_iter().flat_map(|one| all.into_iter().map(move |several| (one, several)));
    let with = |(one_worker, several_workers)| {
        [true, false].map(|kernel_at_random| Table { one_worker, several_workers, kernel_at_random })
    };
    pairs.flat_map(with).collect()
}

fn preferring(balance: Balance) -> Table {
    Table { one_worker: balance, several_workers: balance, kernel_at_random: true }
}

fn app(lines: &str) -> App {
    let text = format!("[[app]]\ncommand = \"node a.js\"\n{lines}\n");
    let file = FileSource { path: "/srv/c.toml".into(), text, notes: Vec::new() };
    let sources = Sources { start_folder: "/srv".into(), file: Some(file), ..Sources::default() };
    resolve(&sources).unwrap().apps.remove(0)
}

fn means(table: &Table, lines: &str, steering: Steering) -> Decided {
    let app = app(lines);
    let known = Known { app: &app, protocol: ProtocolKind::Node, workers: 4 };
    auto(table, &known, || steering).unwrap()
}

#[test]
fn what_is_preferred_is_used_where_nothing_speaks_against_it() {
    for balance in [ROUND_ROBIN, Balance::Shared, Balance::Kernel] {
        let decided = means(&preferring(balance), "port = 8080", Steering::Turns);
        assert_eq!(decided, Decided { balance, why: Some(Why::Preferred(balance)) });
        assert!(decided.sentence().unwrap().starts_with(&format!("auto: {balance}, since ")));
    }
}

#[test]
fn one_worker_and_several_have_rows_of_their_own() {
    let table = Table { one_worker: Balance::Shared, several_workers: Balance::Kernel, kernel_at_random: true };
    let of = |lines: &str, workers| {
        let app = app(lines);
        let known = Known { app: &app, protocol: ProtocolKind::Node, workers };
        auto(&table, &known, || Steering::Turns).unwrap().balance
    };
    assert_eq!(of("port = 80", 1), Balance::Shared);
    assert_eq!(of("port = 80", 2), Balance::Kernel);
    assert_eq!(of("port = 80\nspares = 1", 1), Balance::Kernel);
}

#[test]
fn what_workers_that_accept_by_themselves_cannot_have_is_handed_off() {
    use Balance::{Kernel, Shared};
    for (lines, by, why) in [
        ("limits.max_connections = 5", &[Kernel, Shared][..], Why::Counted),
        ("reload.canary = \"30s\"", &[Kernel, Shared], Why::Compared),
        ("spares = 1", &[Shared], Why::HeldBack("spares")),
        ("warmup = \"/\"", &[Shared], Why::HeldBack("warmup")),
        ("ready = \"message\"", &[Kernel, Shared], Why::ReadyLater(Ready::Message)),
        ("ready = \"http:/up\"", &[Kernel, Shared], Why::ReadyLater(Ready::Http("/up".to_owned()))),
        ("preload = false", &[Kernel, Shared], Why::NoPreload),
        ("listen = \"unix:/run/a.sock\"", &[Kernel], Why::UnixSocket),
        ("listen = [\"8080\", \"unix:/run/a.sock\"]", &[Kernel], Why::UnixSocket),
    ] {
        for balance in [Kernel, Shared] {
            let decided = means(&preferring(balance), lines, Steering::Turns);
            if by.contains(&balance) {
                assert_eq!(decided, Decided { balance: ROUND_ROBIN, why: Some(why.clone()) }, "{lines}");
            } else {
                assert_eq!(decided, Decided { balance, why: Some(Why::Preferred(balance)) }, "{lines}");
            }
        }
    }
    for fine in [
        "reload.canary = \"30s\"\nreload.canary_max = 0",
        "ready = \"listening\"",
        "ready = \"listening or 3s\"",
        "spares = 1",
        "warmup = \"/\"\nport = 80",
    ] {
        assert_eq!(means(&preferring(Kernel), fine, Steering::Turns).balance, Kernel, "{fine}");
    }
}

#[test]
fn what_the_kernel_can_do_decides_on_kernel_alone() {
    let strict = Table { kernel_at_random: false, ..preferring(Balance::Kernel) };
    let of = |table: &Table, steering| means(table, "port = 80", steering).why.unwrap();
    assert_eq!(of(&preferring(Balance::Kernel), Steering::Hash), Why::NoProgram);
    assert_eq!(of(&preferring(Balance::Kernel), Steering::Random), Why::Preferred(Balance::Kernel));
    assert_eq!(of(&strict, Steering::Random), Why::AtRandom);
    assert_eq!(of(&strict, Steering::Turns), Why::Preferred(Balance::Kernel));
    for balance in [ROUND_ROBIN, Balance::Shared] {
        let app = app("port = 80");
        let known = Known { app: &app, protocol: ProtocolKind::Node, workers: 4 };
        let unasked = || -> Steering { panic!("the kernel is not asked") };
        assert_eq!(auto(&preferring(balance), &known, unasked).unwrap().balance, balance);
    }
}

#[test]
fn auto_allows_what_round_robin_allows() {
    let settings = [
        "port = 80",
        "listen = \"unix:/a\"",
        "",
        "limits.max_connections = 5\nport = 80",
        "spares = 2\nport = 80",
        "spares = 2\nlisten = \"unix:/a\"",
        "warmup = \"/\"\nport = 80",
        "warmup = \"/\"\nlisten = \"unix:/a\"",
        "ready = \"http:/up\"\nport = 80",
        "ready = \"2s\"\npreload = false",
        "reload.overlap = false\nport = 80",
    ];
    let judged = |protocol, balance, app: &App| {
        rules::limits(protocol, balance, &app.limits)
            .and_then(|()| rules::spares(protocol, balance, app))
            .and_then(|()| rules::warm_up(protocol, balance, app))
    };
    for lines in settings {
        let app = app(lines);
        for protocol in ProtocolKind::ALL {
            let typed = rules::balance(protocol, ROUND_ROBIN).unwrap();
            for table in tables() {
                for (steering, workers) in
                    [(Steering::Turns, 1), (Steering::Random, 4), (Steering::Hash, 4), (Steering::Turns, 4)]
                {
                    let known = Known { app: &app, protocol, workers };
                    let decided = auto(&table, &known, || steering).unwrap();
                    let (auto, round_robin) = (judged(protocol, decided.balance, &app), judged(protocol, typed, &app));
                    assert_eq!(auto, round_robin, "{lines}: {protocol} {table:?} {steering:?}");
                    assert_eq!(decided.why.is_some(), protocol.rules().takes_connections);
                    assert!(protocol == ProtocolKind::Node || decided.balance == typed);
                }
            }
        }
    }
}

#[test]
fn a_typed_balance_is_what_it_always_was() {
    for protocol in ProtocolKind::ALL {
        for balance in Balance::NAMES.map(|name| Balance::named(name).unwrap()) {
            let app = App { balance: Balancing::Exactly(balance), ..app("port = 80") };
            let known = Known { app: &app, protocol, workers: 4 };
            let unasked = || -> Steering { panic!("the kernel is not asked") };
            let decided = decide(&known, unasked).map(|decided| (decided.balance, decided.why));
            assert_eq!(decided, rules::balance(protocol, balance).map(|balance| (balance, None)));
            let recorded = Decided::recorded(app.balance, protocol, Some(("shared", "x")));
            assert_eq!(recorded.map(|it| it.balance), rules::balance(protocol, balance));
        }
    }
}

#[test]
fn what_an_earlier_master_decided_stays() {
    let of = |protocol, record| Decided::recorded(Balancing::Auto, protocol, record).unwrap();
    let kept = of(ProtocolKind::Node, Some(("kernel", "it was so")));
    assert_eq!(kept.sentence().as_deref(), Some("auto: kernel, since it was so"));
    // A version without `auto` recorded nothing: its default was round-robin.
    let earlier = of(ProtocolKind::Node, None);
    assert_eq!((earlier.balance, earlier.why), (ROUND_ROBIN, Some(Why::EarlierVersion)));
    assert_eq!(of(ProtocolKind::Node, Some(("of a later version", "x"))).balance, ROUND_ROBIN);
    assert_eq!(of(ProtocolKind::Bind, None).balance, Balance::Kernel);
    assert_eq!(of(ProtocolKind::ListenFds, None).balance, Balance::Shared);
}

#[test]
fn every_word_is_read_as_it_is_written() {
    for name in Balancing::NAMES {
        assert_eq!(Balancing::named(name).unwrap().to_string(), name);
    }
    assert_eq!(Balancing::named("Auto"), None);
    assert_eq!(Balance::named("auto"), None);
}
