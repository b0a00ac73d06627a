//! What a program says of itself over `NOTIFY_SOCKET` (sd_notify(3)): `READY=1`, `STATUS=...` and so on, one a line.
use crate::limits;

/// The parts of a datagram that mean something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// It is ready to serve.
    pub ready: bool,
    /// It is about to end.
    pub stopping: bool,
    /// A line for people.
    pub status: Option<String>,
}

/// Reads one datagram. Unknown lines mean nothing, as sd_notify(3) wants it.
pub fn parse(datagram: &[u8]) -> Said {
    let mut said = Said::default();
    for line in datagram.split(|&b| b == b'\n') {
        match line {
            b"READY=1" => said.ready = true,
            b"STOPPING=1" => said.stopping = true,
            _ => {
                if let Some(status) = line.strip_prefix(b"STATUS=") {
                    let text = String::from_utf8_lossy(status);
                    let clean = text.chars().filter(|c| !c.is_control()).take(limits::STATUS_CHARS_MAX).collect();
                    said.status = Some(clean);
                }
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_count_and_others_do_not() {
        let said = parse(b"MAINPID=7\nREADY=1\nSTATUS=warm\x1b[0m\nX");
        assert_eq!(said, Said { ready: true, stopping: false, status: Some("warm[0m".to_owned()) });
        assert_eq!(parse(b"READY=10"), Said::default());
    }
}
