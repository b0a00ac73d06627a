//! Resolution for deploys: apps that depend on others, and apps that were rolled back.
use super::resolve::{file, said};
use clusterd::config::Workers;
use clusterd::config::resolve::resolve;
use clusterd::config::sources::{Overrides, RolledBack, Sources};
use std::collections::BTreeMap;

#[test]
fn an_app_depends_on_others_of_its_file_and_never_on_itself() {
    let apps = |on: [&str; 3]| {
        let app =
            |(name, on): (&str, &str)| format!("[[app]]\nname = \"{name}\"\ncommand = \"a\"\ndepends_on = {on}\n");
        file(&["api", "db", "web"].into_iter().zip(on).map(app).collect::<String>())
    };
    let config = resolve(&apps(["[]", "[]", "[\"api\", \"db\"]"])).unwrap();
    assert_eq!(config.apps[2].depends_on, ["api", "db"]);
    assert!(resolve(&apps(["\"db\"", "[]", "[\"api\", \"db\"]"])).is_ok(), "two ways to one app are no circle");
    for (on, wants) in [
        (
            ["[]", "[]", "[\"apy\"]"],
            "c.toml:12:15: depends_on: there is no app \"apy\": there is api, db, web; did you mean \"api\"?",
        ),
        (["[]", "\"db\"", "[]"], "c.toml:8:14: db cannot depend on itself"),
        (
            ["\"web\"", "[\"api\"]", "[\"db\"]"],
            "c.toml:4:14: depends_on leads back to where it began: api -> web -> db -> api",
        ),
    ] {
        assert_eq!(said(&apps(on)), [wants]);
    }
    let alone = Sources {
        overrides: Overrides { only: vec!["web".into()], ..Overrides::default() },
        ..apps(["[]", "[]", "\"api\""])
    };
    assert!(resolve(&alone).is_ok(), "an app of the file that was left out");
}

#[test]
fn an_app_that_was_rolled_back_is_as_it_was_and_the_others_are_as_they_are() {
    let text = |workers: u32| {
        format!(
            "[[app]]\nname = \"web\"\ncommand = \"a\"\ncwd = \"/srv/current\"\nworkers = {workers}\nbefore = \"m\"\n\
             [[app]]\nname = \"api\"\ncommand = \"a\"\nworkers = {workers}\n"
        )
    };
    let back = RolledBack { generation: 2, folder: "/srv/2".into(), sources: Box::new(file(&text(2))) };
    let now = Sources { rolled_back: BTreeMap::from([("web".into(), back)]), ..file(&text(5)) };
    let apps = resolve(&now).unwrap().apps;
    assert_eq!((apps[0].workers, apps[1].workers), (Workers::Exactly(2), Workers::Exactly(5)));
    assert_eq!((apps[0].folder.to_str(), &apps[0].before), (Some("/srv/2"), &None), "what ran before it ran already");
}
