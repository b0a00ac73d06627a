//! Single values: what is allowed, and what is said of others.
use clusterd::config::parse::*;
use clusterd::config::{Listen, Ready, Workers};
use clusterd::limits::READY_PATH_BYTES_MAX;
use std::time::Duration;

#[test]
fn workers_say_what_is_allowed() {
    assert_eq!(workers("1"), Ok(Workers::Exactly(1)));
    assert_eq!(workers("4096"), Ok(Workers::Exactly(4096)));
    assert_eq!(workers("max"), Ok(Workers::MaxMinus(0)));
    assert_eq!(workers("max-1"), Ok(Workers::MaxMinus(1)));
    assert_eq!(workers("50%"), Ok(Workers::Percent(50)));
    for bad in ["0", "-1", "+2", "100000", "4097", "", " 1", "1.5", "max-", "max+1", "MAX", "%", "-5%", "99999999999"] {
        let message = workers(bad).unwrap_err().to_string();
        assert!(message.contains("from 1 to 4096"), "{bad}: {message}");
        assert!(message.contains("\"max\"") && message.contains("\"50%\""), "{bad}: {message}");
    }
    assert!(workers("-2").unwrap_err().to_string().contains("\"max-2\""));
    assert!(workers("0").unwrap_err().to_string().contains("for all CPUs, write \"max\""));
    assert!(workers("0%").unwrap_err().to_string().contains("from 1% to 1000%"));
    assert!(workers("1001%").unwrap_err().to_string().contains("from 1% to 1000%"));
}

#[test]
fn durations_need_a_unit() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    assert!(duration("30").unwrap_err().to_string().contains("has no unit: write \"30s\""));
    assert!(duration("1.5s").unwrap_err().to_string().contains("whole number"));
    for bad in ["", "s", "-1s", "1 s", "1d", "1S", "1sec"] {
        assert!(duration(bad).unwrap_err().to_string().contains("a time must be"), "{bad}");
    }
    assert!(duration("721h").unwrap_err().to_string().contains("30 days"));
    assert!(duration("99999999999999999999h").unwrap_err().to_string().contains("30 days"));
    assert!(duration_not_zero("0ms").unwrap_err().to_string().contains("\"1ms\" is the least"));
}

#[test]
fn listen_addresses() {
    let tcp = |text: &str| Ok(Listen::Tcp(text.parse().unwrap()));
    assert_eq!(listen("8080"), Ok(Listen::Any(8080)));
    assert_eq!(listen("0"), Ok(Listen::Any(0)));
    assert_eq!(listen("*:8080"), Ok(Listen::Any(8080)));
    assert_eq!(listen(":8080"), Ok(Listen::Any(8080)));
    assert_eq!(listen("127.0.0.1:8080"), tcp("127.0.0.1:8080"));
    assert_eq!(listen("[::1]:8080"), tcp("[::1]:8080"));
    assert_eq!(listen("localhost:8080"), Ok(Listen::Host("localhost".into(), 8080)));
    assert_eq!(listen("unix:/run/app.sock"), Ok(Listen::Unix("/run/app.sock".into())));
    assert_eq!(listen("/run/app.sock"), Ok(Listen::Unix("/run/app.sock".into())));
    assert_eq!(listen("unix:app.sock"), Ok(Listen::Unix("app.sock".into())));
    assert_eq!(host_and_port("::1", 80), tcp("[::1]:80"));
    assert_eq!(host_and_port("0.0.0.0", 80), tcp("0.0.0.0:80"));
    assert_eq!(host_and_port("*", 80), Ok(Listen::Any(80)));
}

#[test]
fn listen_errors_name_the_way_out() {
    for (bad, says) in [
        ("", "is empty"),
        ("65536", "out of range"),
        ("127.0.0.1:70000", "out of range"),
        ("127.0.0.1", "no port"),
        ("localhost:http", "is not a port"),
        ("localhost:", "is not a port"),
        ("::1", "brackets"),
        ("fe80::1:2:8080", "brackets"),
        ("[::g]:80", "not an IPv6 address"),
        ("1.2.3:80", "not an IPv4 address"),
        ("256.0.0.1:80", "not an IPv4 address"),
        ("http://localhost:80/", "write \"localhost:80\""),
        ("a b:80", "neither"),
        ("unix:", "names no socket"),
        ("unix:/run/", "names no socket"),
        ("unix:@x", "abstract"),
        ("-1", "no port"),
        ("[::]", "is not a port"),
    ] {
        let message = listen(bad).unwrap_err().to_string();
        assert!(message.contains(says), "{bad}: {message}");
    }
}

#[test]
fn names_of_choices_are_suggested() {
    assert!(balance("roundrobin").unwrap_err().to_string().contains("did you mean \"round-robin\"?"));
    assert!(balance("kernal").unwrap_err().to_string().contains("did you mean \"kernel\"?"));
    assert!(protocol("Node").unwrap_err().to_string().contains("did you mean \"node\"?"));
    assert!(ready("listning").unwrap_err().to_string().contains("did you mean \"listening\"?"));
    assert!(ready("2").unwrap_err().to_string().contains("has no unit"));
    assert!(ready("0s").unwrap_err().to_string().contains("least"));
    assert_eq!(ready("2s"), Ok(Ready::After(Duration::from_secs(2))));
}

#[test]
fn umask_is_octal() {
    assert_eq!(umask("027"), Ok(0o027));
    assert_eq!(umask("0022"), Ok(0o022));
    for bad in ["", "8", "1000", "-1", "0o27", "00000"] {
        assert!(umask(bad).is_err(), "{bad}");
    }
}

#[test]
fn only_a_simple_command_is_split() {
    assert_eq!(command_line("node  app.js --port=1").unwrap(), ["node", "app.js", "--port=1"]);
    for bad in ["sh -c 'x y'", "a | b", "echo $HOME", "a && b", "a\\ b", "ls *.js"] {
        assert!(command_line(bad).unwrap_err().to_string().contains("write an array"), "{bad}");
    }
    assert!(command_line("  ").unwrap_err().to_string().contains("empty"));
    assert!(command(&[String::new()]).unwrap_err().to_string().contains("empty"));
    assert!(command(&["a\0b".to_owned()]).unwrap_err().to_string().contains("zero byte"));
}

#[test]
fn a_path_to_ask_for_is_a_path_and_nothing_else() {
    for path in ["/", "/healthz", "/a/b?c=d&e=%20", "/~x:8080/y;z"] {
        assert_eq!(ready(&format!("http:{path}")), Ok(Ready::Http(path.to_owned())));
    }
    let long = format!("http:/{}", "x".repeat(READY_PATH_BYTES_MAX));
    for (text, wanted) in [
        ("http:", "names no path to ask for: write \"http:/healthz\""),
        ("http:healthz", "write \"http:/healthz\""),
        ("/healthz", "write \"http:/healthz\""),
        ("http://host", "write \"http:/\""),
        ("http://host:1/x/y", "write \"http:/x/y\""),
        ("https:/x", "plain HTTP"),
        ("http:/a b", "%20"),
        ("http:/a\r\nHost: x", "%20"),
        ("http:/ü", "%20"),
        ("http:/a#b", "but #"),
        ("http:/x or 3s", "goes with no other rule"),
        (&long, "longer than 1024 bytes"),
    ] {
        let error = ready(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}
