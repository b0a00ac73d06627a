//! As much HTTP/1.1 as is needed to request a path and read the status of the answer. Pure and bounded; the master
//! decides which worker is probed, how often and over which socket.
use crate::limits::READY_HEAD_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Incomplete.
    More,
    /// Its status, after any interim answers (1xx).
    Status(u16),
    /// Not an HTTP/1 answer.
    Foreign,
}

/// A request for this path after which the server closes the connection.
#[must_use]
pub fn request(path: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: clusterd/{version}\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

/// Whether this status means that the server is ready: 2xx and 3xx.
#[must_use]
pub fn is_well(status: u16) -> bool {
    (200..400).contains(&status)
}

/// Parses the start of an answer.
#[must_use]
pub fn answer(bytes: &[u8]) -> Answer {
    let mut rest = bytes;
    loop {
        match status_of(rest) {
            // 101 was not requested, so it is final.
            Answer::Status(100 | 102..=199) => {}
            Answer::More if bytes.len() > READY_HEAD_BYTES_MAX => return Answer::Foreign,
            said => return said,
        }
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
        match end {
            Some(end) => rest = &rest[end + 4..],
            None if bytes.len() > READY_HEAD_BYTES_MAX => return Answer::Foreign,
            None => return Answer::More,
        }
    }
}

/// The status in a status line: `HTTP/1.1 200 OK`.
fn status_of(bytes: &[u8]) -> Answer {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let begun = bytes.len().min(BEGINNING.len());
    if bytes[..begun] != BEGINNING[..begun] {
        return Answer::Foreign;
    }
    let [minor, b' ', status @ ..] = &bytes[begun..] else {
        let may_follow = bytes.len() < BEGINNING.len() + 2 && bytes[begun..].iter().all(u8::is_ascii_digit);
        return if may_follow { Answer::More } else { Answer::Foreign };
    };
    let digits = &status[..status.len().min(3)];
    if !minor.is_ascii_digit() || !digits.iter().all(u8::is_ascii_digit) {
        return Answer::Foreign;
    }
    match status {
        [b'1'..=b'9', _, _, b' ' | b'\r' | b'\n', ..] => {
            Answer::Status(digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')))
        }
        [_, _, _, ..] if status.len() > 3 => Answer::Foreign,
        _ => Answer::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_whole_and_names_us() {
        let text = String::from_utf8(request("/healthz?deep=1")).unwrap_or_default();
        assert!(text.starts_with("GET /healthz?deep=1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: clusterd/"), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
    }

    #[test]
    fn the_status_is_known_as_soon_as_it_has_come() {
        let whole = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        for end in 0..whole.len() {
            let wanted = if end < 13 { Answer::More } else { Answer::Status(503) };
            assert_eq!(answer(&whole[..end]), wanted, "{end} bytes");
        }
        assert_eq!(answer(b"HTTP/1.0 204\r\n\r\n"), Answer::Status(204));
        assert_eq!(answer(b"HTTP/1.1 200\n"), Answer::Status(200));
    }

    #[test]
    fn interim_answers_are_not_the_answer() {
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".to_vec();
        assert_eq!(answer(&early), Answer::More);
        assert_eq!(answer(&[&early[..], &early[..], b"HTTP/1.1 500 No\r\n"].concat()), Answer::Status(500));
        assert_eq!(answer(b"HTTP/1.1 101 Switching Protocols\r\n"), Answer::Status(101));
    }

    #[test]
    fn what_is_no_http_is_seen_at_once_and_what_never_ends_at_last() {
        for foreign in [
            &b"SSH-2.0-x\r\n"[..],
            b"\x15\x03\x01",
            b"HTTP/2 200\r\n",
            b"HTTP/1.1200 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 ",
        ] {
            assert_eq!(answer(foreign), Answer::Foreign, "{}", foreign.escape_ascii());
        }
        let endless = [b"HTTP/1.1 100 ".to_vec(), vec![b'x'; READY_HEAD_BYTES_MAX]].concat();
        assert_eq!(answer(&endless), Answer::Foreign);
    }

    #[test]
    fn only_2xx_and_3xx_are_well() {
        for (status, well) in
            [(101, false), (200, true), (204, true), (302, true), (399, true), (404, false), (500, false)]
        {
            assert_eq!(is_well(status), well, "{status}");
        }
    }
}
