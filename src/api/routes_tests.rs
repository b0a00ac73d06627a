//! Tests of `routes.rs`: the text of each request, there and back.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::api::request::Scale;
use crate::api::types::{Change, ProfileKind, ProfileRequest};
use crate::logs::reading::Filter;
use std::collections::BTreeMap;

fn parse(method: &Method, path: &str, body: &str) -> Result<Request, RouteError> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    Route::find(method, path)?.request(query, body.as_bytes())
}

fn web() -> String {
    "web".to_owned()
}

/// Every request, with what goes over the wire.
fn golden() -> Vec<(Request, &'static str, &'static str, &'static str)> {
    let change = || Change { env: Some(BTreeMap::from([("A".to_owned(), "1".to_owned())])), sources: None };
    let changed = r#"{"env":{"A":"1"},"sources":null}"#;
    let query = LogQuery {
        apps: vec![web(), "a b".to_owned()],
        lines: 3,
        follow: true,
        filter: Filter { kind: Some(Kind::Err), slot: Some(2) },
    };
    let all = || Target::All;
    let one = || Target::App(web());
    vec![
        (Request::View(View::Deployment), "GET", "/v1/apps", ""),
        (Request::View(View::App("a/b".to_owned())), "GET", "/v1/apps/a%2Fb", ""),
        (Request::View(View::Live), "GET", "/livez", ""),
        (Request::View(View::Ready), "GET", "/readyz", ""),
        (Request::View(View::AppReady(web())), "GET", "/readyz/web", ""),
        (Request::View(View::Metrics), "GET", "/metrics", ""),
        (
            Request::View(View::Events(EventQuery { apps: vec!["a b".to_owned()], after: Some(7), follow: true })),
            "GET",
            "/v1/events?app=a%20b&after=7&follow=true",
            "",
        ),
        (Request::View(View::Logs(query)), "GET", "/v1/logs?app=web&app=a%20b&lines=3&follow=true&type=err&slot=2", ""),
        (Request::Ready, "POST", "/v1/ready", ""),
        (Request::Reload { target: all(), change: change() }, "POST", "/v1/reload", changed),
        (Request::Reload { target: one(), change: change() }, "POST", "/v1/apps/web/reload", changed),
        (Request::Releases { app: web() }, "GET", "/v1/apps/web/releases", ""),
        (Request::Rollback { app: web(), to: Some(3) }, "POST", "/v1/apps/web/rollback", r#"{"to":3}"#),
        (Request::Start { app: web(), change: change() }, "POST", "/v1/apps/web/start", changed),
        (Request::Restart { app: web(), change: change() }, "POST", "/v1/apps/web/restart", changed),
        (Request::Stop { target: all(), mode: StopMode::Now }, "POST", "/v1/stop", r#"{"now":true}"#),
        (Request::Stop { target: one(), mode: StopMode::Drain }, "POST", "/v1/apps/web/stop", r#"{"now":false}"#),
        (Request::Delete { app: web(), mode: StopMode::Now }, "POST", "/v1/apps/web/delete", r#"{"now":true}"#),
        (Request::Scale { app: web(), to: Scale::Up(2) }, "POST", "/v1/apps/web/scale", r#"{"workers":"+2"}"#),
        (
            Request::SendLine { app: web(), slot: Some(1), line: "a b".to_owned() },
            "POST",
            "/v1/apps/web/send",
            r#"{"line":"a b","slot":1}"#,
        ),
        (Request::Signal { app: web(), signal: 12, slot: None }, "POST", "/v1/apps/web/signal", r#"{"signal":"12"}"#),
        (
            Request::Signal { app: web(), signal: 12, slot: Some(1) },
            "POST",
            "/v1/apps/web/signal",
            r#"{"signal":"12","slot":1}"#,
        ),
        (Request::Replace { app: web(), slot: 3 }, "POST", "/v1/apps/web/replace", r#"{"slot":3}"#),
        (Request::Environment { app: web(), of: Role::Worker { slot: 0 } }, "GET", "/v1/apps/web/env", ""),
        (Request::Environment { app: web(), of: Role::Worker { slot: 2 } }, "GET", "/v1/apps/web/env?slot=2", ""),
        (
            Request::Trigger { app: web(), slot: Some(2), action: "clean".to_owned(), parameter: Some("x".to_owned()) },
            "POST",
            "/v1/apps/web/trigger",
            r#"{"action":"clean","parameter":"x","slot":2}"#,
        ),
        (
            Request::Profile {
                app: web(),
                what: ProfileRequest { kind: ProfileKind::Cpu, time_ms: Some(500), slot: Some(0), file: None },
            },
            "POST",
            "/v1/apps/web/profile",
            r#"{"kind":"cpu","time_ms":500,"slot":0}"#,
        ),
        (Request::Environment { app: web(), of: Role::Agent }, "GET", "/v1/apps/web/agent/env", ""),
        (Request::ReopenLogs, "POST", "/v1/logs/reopen", ""),
        (Request::ResetCounters { app: web() }, "POST", "/v1/apps/web/reset", ""),
        (Request::FlushLogs { target: all() }, "POST", "/v1/logs/flush", ""),
        (Request::FlushLogs { target: one() }, "POST", "/v1/apps/web/logs/flush", ""),
        (Request::Upgrade { binary: "/bin/x".to_owned() }, "POST", "/v1/upgrade", r#"{"binary":"/bin/x"}"#),
    ]
}

#[test]
fn every_request_has_its_text_and_is_parsed_from_it() {
    for (request, method, path, body) in golden() {
        let sent = request.to_http();
        assert_eq!((sent.method.as_str(), sent.path.as_str()), (method, path));
        assert_eq!(String::from_utf8(sent.body).unwrap(), body, "{path}");
        assert_eq!(parse(&sent.method, path, body).unwrap(), request, "{path}");
    }
    let paths: std::collections::BTreeSet<String> =
        golden().iter().map(|(_, method, path, _)| format!("{method} {}", path.split('?').next().unwrap())).collect();
    assert_eq!(paths.len(), ROUTES.len(), "a route without its text");
}

#[test]
fn what_is_wrong_has_its_status_and_says_why() {
    let cases = [
        (
            Method::GET,
            "/v1/nothing",
            "",
            404,
            "no such path: /v1/nothing; the paths are GET /v1/apps, GET /v1/apps/NAME, POST",
        ),
        (Method::GET, "/v1/apps/web/reload", "", 405, "/v1/apps/web/reload needs POST, not GET"),
        (Method::POST, "/v1/apps/%ff/reload", "", 400, "the app's name is not UTF-8"),
        (Method::POST, "/v1/apps/web/stop", "{\"nw\": true}", 400, "the request body is not valid here: unknown field"),
        (Method::POST, "/v1/apps/web/scale", "", 400, "say how many: {\"workers\": \"4\"}"),
        (
            Method::POST,
            "/v1/apps/web/scale",
            "{\"workers\": \"x\"}",
            409,
            "cannot scale to \"x\": say a number from 1 to",
        ),
        (Method::POST, "/v1/apps/web/signal", "", 400, "say which: {\"signal\": \"SIGUSR2\"}"),
        (Method::POST, "/v1/apps/web/signal", "{\"signal\": \"SIGX\"}", 400, "there is no signal \"SIGX\""),
        (Method::POST, "/v1/upgrade", "", 400, "say which binary: "),
        (Method::GET, "/v1/logs?colour=red", "", 400, "unknown parameter \"colour=red\"; the parameters are app=NAME"),
        (Method::GET, "/v1/logs?lines=10000000", "", 400, "at most"),
    ];
    for (method, path, body, status, words) in cases {
        let error = parse(&method, path, body).unwrap_err();
        assert_eq!(error.status().as_u16(), status, "{path}");
        assert!(error.to_string().contains(words), "{path}: {error}");
    }
    let message = parse(&Method::GET, "/", "").unwrap_err().to_string();
    for word in ["POST /v1/apps/NAME/logs/flush", "GET /livez, GET /readyz"] {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn bodies_that_may_be_left_out_have_defaults() {
    let parsed = parse(&Method::POST, "/v1/apps/web/reload/", "").unwrap();
    assert_eq!(parsed, Request::Reload { target: Target::App(web()), change: Change::default() });
    let parsed = parse(&Method::POST, "/v1/stop", "").unwrap();
    assert_eq!(parsed, Request::Stop { target: Target::All, mode: StopMode::Drain });
    let parsed = parse(&Method::POST, "/v1/apps/web/signal", "{\"signal\": \"usr2\"}").unwrap();
    assert_eq!(parsed, Request::Signal { app: web(), signal: signal::USR2, slot: None });
    assert_eq!(parse(&Method::GET, "/v1/logs", "").unwrap(), Request::View(View::Logs(LogQuery::default())));
    for bad in ["lines", "lines=x", "follow=maybe", "type=both", "slot=-1"] {
        assert!(matches!(log_query(Some(bad)), Err(RouteError::Query(word)) if word == bad));
    }
}

#[test]
fn names_are_percent_encoded_and_decoded() {
    assert_eq!(decode_percent("a%20b%2Fc%"), Some("a b/c%".to_owned()));
    assert_eq!(decode_percent("%ff"), None);
    for name in ["web", "a b/c%", "größe?&="] {
        assert_eq!(decode_percent(&encode_percent(name)).as_deref(), Some(name));
    }
}
