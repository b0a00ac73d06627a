//! Tests of `command_line.rs`: what is understood, and what is said of the rest.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::sources::Overrides;

fn typed(line: &str) -> Result<Invocation, UsageError> {
    parse(std::iter::once("clusterd").chain(line.split_whitespace()))
}

fn run(line: &str) -> RunArgs {
    match typed(line) {
        Ok(Invocation::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn verb(line: &str) -> Verb {
    match typed(line) {
        Ok(Invocation::Verb { verb, .. }) => verb,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn says(line: &str, wants: &str) {
    let message = typed(line).unwrap_err().message;
    assert!(message.contains(wants), "{line}: {message}");
    assert!(message.starts_with("error: "), "{line}: {message}");
}

#[test]
fn a_command_with_every_option() {
    let line = "-w max-1 -p 8080 --host ::1 -l unix:/a -l 81 -n web -b sticky --protocol node -e A=1 -e production \
                --env-file .env --cwd /srv --user www --group 33 --prefix --ready 2s --ready-timeout 1m \
                --drain-timeout 0s --kill-timeout 500ms -- node app.js -w 2 --help";
    let run = run(line);
    assert_eq!(run.command, ["node", "app.js", "-w", "2", "--help"]);
    let overrides = run.overrides();
    let options = &overrides.options;
    assert_eq!(options.get("workers"), Some("max-1"));
    assert_eq!((options.get("port"), options.get("host")), (Some("8080"), Some("::1")));
    assert_eq!(options.all("listen"), ["unix:/a", "81"]);
    assert_eq!(overrides.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(overrides.env_names, ["production"]);
    assert_eq!(overrides.env_files, [".env"]);
    assert_eq!(options.get("prefix"), Some("true"));
}

#[test]
fn what_was_not_typed_stays_unset() {
    let overrides = run("-- sleep 1").overrides();
    assert_eq!(overrides, Overrides { command: vec!["sleep".into(), "1".into()], ..Overrides::default() });
    assert_eq!(run("-c c.toml").config(), Some("c.toml"));
    assert_eq!(run("-i 4 -c x").overrides().options.get("workers"), Some("4"));
}

#[test]
fn verbs_and_their_other_names() {
    for line in ["ls", "list", "status"] {
        assert!(matches!(verb(line), Verb::Ls(ls) if !ls.json && !ls.short), "{line}");
    }
    assert!(matches!(verb("ls --json"), Verb::Ls(ls) if ls.json));
    assert!(matches!(verb("ls -s"), Verb::Ls(ls) if ls.short));
    for line in ["reload web api", "gracefulReload web api"] {
        assert!(matches!(verb(line), Verb::Reload(reload) if reload.renew.targets == ["web", "api"]), "{line}");
    }
    for workers in ["4", "+3", "-1", "max", "max-1", "50%"] {
        let line = format!("scale web {workers}");
        assert!(matches!(verb(&line), Verb::Scale(scale) if scale.workers.to_string() == workers), "{line}");
    }
    assert!(matches!(verb("stop all --now"), Verb::Stop(stop) if stop.now && stop.targets == ["all"]));
    assert!(matches!(verb("check -c x"), Verb::Check(check) if !check.json && check.run.config() == Some("x")));
    assert!(matches!(verb("check -w 2 -- node a.js"), Verb::Check(check) if check.run.command.len() == 2));
    let home = Some(PathBuf::from("/h"));
    assert!(matches!(typed("--home /h ls"), Ok(Invocation::Verb { verb: Verb::Ls(_), home: h, .. }) if h == home));
    assert!(
        matches!(typed("stop web --home /h"), Ok(Invocation::Verb { verb: Verb::Stop(_), home: h, .. }) if h == home)
    );
    assert_eq!(run("--home /h -- a").home, home);
}

#[test]
fn a_command_without_dashes_is_shown_with_them() {
    says("node app.js", "put -- before the command: clusterd -- node app.js");
    says("-w 2 node app.js", "put -- before the command: clusterd -- node app.js");
    says("app.js", "put -- before the command: clusterd -- node app.js");
    says("./server --port 1", "clusterd -- ./server --port 1");
    says("relod web", "did you mean \"reload\"?");
    says("help nosuch", "unknown verb \"nosuch\"; clusterd --help lists");
    says("help logrotate", "clusterd has no verb \"logrotate\"; max_size");
    says("logs --lines x", "--lines <N>: write a whole number");
}

#[test]
fn bad_values_say_what_is_allowed() {
    says("-w 0 -- a", "from 1 to 4096");
    says("-w 100000 -- a", "from 1 to 4096");
    says("-w -1 -- a", "write \"max-1\"");
    says("-i -x -- a", "from 1 to 4096");
    says("-w 1 -i 1 -- a", "cannot be used with");
    says("-p 65536 -- a", "from 0 to 65535");
    says("-p http -- a", "from 0 to 65535");
    says("--host x -- a", "--port");
    says("-l localhost -- a", "has no port");
    says("-b kernal -- a", "did you mean \"kernel\"?");
    says("--ready http://h/x -- a", "write \"http:/x\"");
    says("--ready-timeout 5 -- a", "\"5\" has no unit: write \"5s\" for seconds");
    says("-n a/b -- a", "cannot be a name");
    says("-e =x -- a", "write NAME=VALUE");
    says("--wrokers 2 -- a", "--workers");
    says("scale web 0", "from 1 to 4096");
    says("scale web +max", "is not a change");
    says("scale web -0", "is not a change");
    says("scale web", "<N>");
    says("stop", "<TARGET>");
    says("kill x", "unexpected argument \"x\"; see: clusterd help kill");
    says("install pm2-logrotate", "there are no modules");
    says("start a.js --container", "clusterd builds no images");
    says("", "nothing to run");
    says("-w 2", "nothing to run");
    says("-c x -- a", "give one of them");
    says("check", "nothing to run");
    says("-w 1 ls", "options of a run stand before a verb");
    says("-c x check", "options of a run stand before a verb");
    let bytes = OsString::from(std::ffi::OsStr::new("x"));
    assert!(parse([bytes]).is_err());
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let argv = [OsString::from("clusterd"), OsString::from("--"), OsString::from_vec(vec![b'a', 0xff])];
    assert!(parse(argv).unwrap_err().message.contains("is not UTF-8"));
}

#[test]
fn help_fits_80_columns_and_ends_with_examples() {
    for line in ["--help", "-h", "help", "help scale", "reload --help", "check --help", "--version"] {
        let Ok(Invocation::Print(text)) = typed(line) else { panic!("{line}") };
        for row in text.lines() {
            assert!(row.chars().count() <= 80, "{line}: {row:?}");
        }
    }
    let Ok(Invocation::Print(text)) = typed("--help") else { panic!() };
    for wants in ["Workers:", "Sockets:", "Surroundings:", "Examples:", "clusterd [OPTIONS] -- COMMAND", "Exit codes:"]
    {
        assert!(text.contains(wants), "{wants}\n{text}");
    }
    assert!(text.find("Examples:") > text.find("--workers"));
}

#[test]
fn clap_finds_no_fault_with_its_own_description() {
    command().debug_assert();
}

#[test]
fn start_takes_a_script_with_arguments_a_command_a_file_or_names() {
    let started = |line: &str| match verb(line) {
        Verb::Start(start) => *start,
        other => panic!("{line}: {other:?}"),
    };
    let script = started("start app.js -i 0 --name web -- --port 3000");
    assert_eq!((script.what.as_slice(), script.run.command.len()), (&["app.js".to_owned()][..], 2));
    assert_eq!(script.run.overrides().options.get("workers"), Some("max"));
    assert_eq!(started("start a -i -1").run.overrides().options.get("workers"), Some("max-1"));
    assert_eq!(started("start -- node app.js").run.command, ["node", "app.js"]);
    assert_eq!(started("start web 2 /api.*/").what.len(), 3);
    assert_eq!(started("start eco.toml --only a,b").run.overrides().only, ["a", "b"]);
    says("start", "nothing to start");
    says("start a b -- c", "go with one script");
    says("start a -c b.toml", "give one of them");
}

#[test]
fn every_name_of_a_verb_is_known_as_one() {
    let command = command();
    let names = verbs(&command);
    for name in ["ps", "l", "del", "monit", "prettylist", "graceful-reload", "ecosystem", "help"] {
        assert!(names.contains(&name), "{name}");
    }
    for name in &names {
        // None of them takes so many words of these kinds.
        let line = format!("{name} --nosuch");
        let message = typed(&line).unwrap_err().message;
        assert!(!message.contains("put -- before"), "{line}: {message}");
    }
    for name in ["top", "monit", "save", "dump", "kill", "ping", "man"] {
        says(&format!("{name} x"), "unexpected argument \"x\"; see: clusterd help");
        says(&format!("--home /h {name} x"), "unexpected argument \"x\"; see: clusterd help");
    }
    says("pss", "did you mean \"ps\"?");
    says("describ web", "did you mean \"describe\"?");
}
