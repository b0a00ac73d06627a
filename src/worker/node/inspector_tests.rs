//! Tests of the inspector protocol: whole, cut and foreign bytes.
#![allow(clippy::unwrap_used)]
use super::*;

const LIST: &str = "HTTP/1.0 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nCache-Control: no-cache\r\n\
                    Content-Length: 57\r\n\r\n[ {\n  \"description\": \"node.js instance\",\n  \"id\": \"6-a-F\"\n} ]\n";

/// A frame as a server sends it.
fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        long @ 126..=65_535 => {
            out.push(126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            out.push(127);
            out.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

#[test]
fn a_target_is_found_once_the_answer_is_whole() {
    let length = LIST.split_once("\r\n\r\n").unwrap().1.len();
    let list = LIST.replace("57", &length.to_string());
    assert_eq!(target(list.as_bytes()), Answer::Whole("6-a-F".to_owned(), list.len()));
    for end in 0..list.len() {
        assert_eq!(target(&list.as_bytes()[..end]), Answer::More, "cut at {end}");
    }
    let foreign = |text: &str| assert_eq!(target(text.as_bytes()), Answer::Foreign, "{text}");
    foreign(&list.replace("200", "404"));
    foreign(&list.replace("6-a-F", "6/a F"));
    foreign(&list.replace("\"id\"", "\"no\""));
    foreign("SSH-2.0-OpenSSH\r\n\r\n");
    foreign("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n");
    foreign(&"x".repeat(INSPECTOR_ANSWER_BYTES_MAX + 1));
}

#[test]
fn frames_come_whole_however_they_are_cut_and_long_ones_are_skipped() {
    let long = vec![b'y'; INSPECTOR_FRAME_BYTES_MAX + 1];
    let middle = vec![b'm'; 70_000];
    let stream = [
        server_frame(0x81, b"one"),
        server_frame(0x89, b"ping"),
        server_frame(0x81, &long),
        server_frame(0x01, b"begins and is not whole"),
        server_frame(0x81, &middle),
        server_frame(0x81, b""),
        server_frame(0x88, b""),
    ]
    .concat();
    for cut in [1, 7, 4_096, stream.len()] {
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for chunk in stream.chunks(if cut == 1 { 60_000 } else { cut }) {
            frames.push(chunk);
            while let Some(frame) = frames.next_frame() {
                seen.push(frame.clone());
                if frame == Frame::End {
                    break;
                }
            }
        }
        let text = |bytes: &[u8]| Frame::Text(bytes.to_vec());
        assert_eq!(seen, [text(b"one"), text(&middle), text(b""), Frame::End], "cut every {cut}");
    }
    // Not requested: a client's frame, or one of an extension.
    for foreign in [&[0x81, 0x83][..], &[0xc1, 0x03]] {
        let mut frames = Frames::default();
        frames.push(foreign);
        assert_eq!(frames.next_frame(), Some(Frame::End));
    }
}

#[test]
fn our_own_frames_are_a_clients() {
    for length in [0, 100, 125, 126, 65_535, 65_536] {
        let message = Value::String("x".repeat(length));
        let bytes = frame(&message);
        assert_eq!((bytes[0], bytes[1] & 0x80), (0x81, 0x80));
        assert!(bytes.ends_with(message.to_string().as_bytes()));
        let head = bytes.len() - message.to_string().len();
        assert!(matches!((head, length), (6, 0..=123) | (8, 124..=65_533) | (14, 65_534..)), "{head} for {length}");
    }
}

#[test]
fn what_the_debugger_says_is_read_and_nothing_else_disturbs() {
    let paused =
        r#"{"method":"Debugger.paused","params":{"callFrames":[{"callFrameId":"3.1.0"},{"callFrameId":"3.1.1"}]}}"#;
    assert_eq!(said(paused.as_bytes()), Said::Paused("3.1.0".to_owned()));
    let outside = r#"{"method":"Debugger.paused","params":{"callFrames":[]}}"#;
    assert!(matches!(said(outside.as_bytes()), Said::Refused(_)));
    let refused = r#"{"id":2,"error":{"code":-32000,"message":"Debugger agent is not enabled\u0007"}}"#;
    assert_eq!(said(refused.as_bytes()), Said::Refused("Debugger agent is not enabled".to_owned()));
    for other in ["", "[]", "null", r#"{"id":1,"result":{}}"#, r#"{"method":"Debugger.scriptParsed","params":7}"#] {
        assert_eq!(said(other.as_bytes()), Said::Other, "{other}");
    }
    let failed = r#"{"id":3,"result":{"result":{"type":"object"},"exceptionDetails":{}}}"#;
    assert!(matches!(said(failed.as_bytes()), Said::Refused(_)));
}

#[test]
fn a_report_says_its_file_and_where_the_program_stood() {
    let stack = "Error: stack\n    at <anonymous>:1:94\n    at eval (eval at inner (/srv/app.js:3:29), <anonymous>:1:500)\n\
                 \x20   at inner (/srv/app.js:3:29)\n    at blockingHandler (/srv/app.js:4:36)\n    at a (b)\n    at c (d)\n    at e (f)";
    let answer = |value: Value| {
        let message = json!({ "id": 3, "result": { "result": { "type": "string", "value": value.to_string() } } });
        said(message.to_string().as_bytes())
    };
    let whole = json!({ "file": "report.1.json", "why": null, "stack": stack, "directory": "/srv/reports/" });
    let Said::Report(written) = answer(whole) else { panic!("a report") };
    assert_eq!(written.file.as_deref(), Some("/srv/reports/report.1.json"));
    assert_eq!(written.stack, ["inner (/srv/app.js:3:29)", "blockingHandler (/srv/app.js:4:36)", "a (b)", "c (d)"]);
    let Said::Report(failed) = answer(json!({ "file": null, "why": "Error: no room", "stack": 7 })) else { panic!() };
    assert_eq!(failed, Written { file: None, why: Some("Error: no room".to_owned()), stack: vec![] });
    // Paused while Node told the program of the inspector: not where it stands.
    let own = |calls: &[&str]| {
        let Said::Report(written) =
            answer(json!({ "stack": format!("Error: stack\n    at {}", calls.join("\n    at ")) }))
        else {
            panic!("a report")
        };
        written.stack
    };
    let (listener, emit) =
        ("process.onInternalMessage (node:internal/cluster/utils:49:5)", "process.emit (node:events:524:28)");
    let (hung, server) = ("blockingHandler (/srv/app.js:4:30)", "Server.emit (node:events:524:28)");
    assert_eq!(own(&[emit, hung, server]), [hung, server]);
    assert_eq!(own(&[listener, emit, hung, server]), [hung, server]);
    // What the program itself emits or calls stays.
    for calls in [&[hung, emit, server][..], &[server, hung], &[emit]] {
        assert_eq!(own(calls), calls);
    }
    let request = String::from_utf8(write_report("3.1.0", Some("a \"b\""))).unwrap_err();
    assert!(String::from_utf8_lossy(request.as_bytes()).contains("3.1.0"));
}
