//! Messages about profiles between the master and the preload (`preload.cjs`), which takes them within the worker's process
//! and writes them with the worker's own rights.
use serde_json::json;

/// How the preload says what became of one.
const PROFILED: &[u8] = br#"{"cmd":"NODE_CLUSTERD","act":"profiled","nth":"#;

/// Longest line of that, in bytes: a path and an error of the system fit in.
const PROFILED_BYTES_MAX: usize = 16 * 1024;

/// Longest text in it that is shown, in characters.
const TEXT_CHARS_MAX: usize = 4_500;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where the CPU time goes, for so many milliseconds.
    Cpu { time_ms: u64 },
    /// What is in memory.
    Heap,
}

/// What became of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiled {
    /// That of the question.
    pub number: u64,
    /// The file; or why there is none.
    pub written: Result<String, String>,
}

/// Appends the line that asks for a profile. Without `file`, `name` names it in the folder for temporary files.
pub fn ask(out: &mut Vec<u8>, number: u64, kind: Kind, file: Option<&str>, name: &str, bytes_max: u64) {
    let (word, time_ms) = match kind {
        Kind::Cpu { time_ms } => ("cpu", time_ms),
        Kind::Heap => ("heap", 0),
    };
    let line = json!({
        "cmd": "NODE_CLUSTERD", "act": "profile", "nth": number, "kind": word, "ms": time_ms, "file": file, "name": name,
        "most": bytes_max,
    });
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

#[derive(serde::Deserialize)]
struct Fields {
    nth: u64,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

/// Decodes what the preload says; `None`: it is another line.
pub(super) fn decode(line: &[u8]) -> Option<Profiled> {
    if !line.starts_with(PROFILED) || line.len() > PROFILED_BYTES_MAX {
        return None;
    }
    let Fields { nth, file, error } = serde_json::from_slice(line).ok()?;
    let shown = |text: String| text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect();
    let written = match (error, file) {
        (None, Some(file)) => Ok(shown(file)),
        (Some(error), _) => Err(shown(error)),
        (None, None) => Err("it has not said where its profile is".to_owned()),
    };
    Some(Profiled { number: nth, written })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_all_that_the_preload_needs() {
        let mut out = Vec::new();
        ask(&mut out, 7, Kind::Cpu { time_ms: 50 }, Some("/tmp/a \"b\""), "web-0", 9);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((value["cmd"].as_str(), value["act"].as_str()), (Some("NODE_CLUSTERD"), Some("profile")));
        assert_eq!((&value["kind"], &value["ms"], &value["most"]), (&"cpu".into(), &50.into(), &9.into()));
        assert_eq!((&value["file"], &value["name"]), (&"/tmp/a \"b\"".into(), &"web-0".into()));
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn answers_are_read_and_cannot_spoil_a_terminal() {
        let line = |rest: &str| format!(r#"{{"cmd":"NODE_CLUSTERD","act":"profiled","nth":7{rest}}}"#);
        let written = |rest: &str| decode(line(rest).as_bytes()).unwrap().written;
        assert_eq!(written(r#","file":"/tmp/a""#), Ok("/tmp/a".to_owned()));
        assert_eq!(written(r#","file":"/tmp/a","error":"no \u001b[31mroom""#), Err("no [31mroom".to_owned()));
        assert!(written("").is_err());
        let long = line(&format!(r#","file":"{}""#, "x".repeat(PROFILED_BYTES_MAX)));
        for other in [long.as_str(), &line(",x"), r#"{"act":"profiled"}"#, ""] {
            assert_eq!(decode(other.as_bytes()), None);
        }
    }
}
