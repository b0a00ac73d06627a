//! Basic authentication: one name and one password.

/// What a client has to send.
pub(super) struct Guard {
    /// The value of `Authorization`, behind `Basic `.
    wanted: Vec<u8>,
}

impl Guard {
    pub(super) fn new(name: &str, password: &str) -> Guard {
        Guard { wanted: base64(format!("{name}:{password}").as_bytes()) }
    }

    /// Whether a client may see the files. Takes the same time for every wrong text of one length.
    pub(super) fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, sent)) = authorization.and_then(|value| value.split_at_checked(6)) else { return false };
        let sent = sent.trim_ascii();
        let same = sent.len() == self.wanted.len()
            && std::hint::black_box(sent.iter().zip(&self.wanted).fold(0, |seen, (a, b)| seen | (a ^ b))) == 0;
        scheme.eq_ignore_ascii_case(b"Basic ") && same
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let all = chunk.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let letter = |place: u32| LETTERS[(all >> (18 - 6 * place)) as usize & 63];
        text.extend((0..4).map(|place| if place as usize <= chunk.len() { letter(place) } else { b'=' }));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_with_one_password_is_admitted() {
        assert_eq!(base64(b"Aladdin:open sesame"), b"QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!((base64(b"a:"), base64(b"a:b")), (b"YTo=".to_vec(), b"YTpi".to_vec()));
        let guard = Guard::new("Aladdin", "open sesame");
        for right in ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ== "] {
            assert!(guard.admits(Some(right.as_bytes())), "{right}");
        }
        for wrong in [
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZR==",
            "Basic ",
            "Basic",
            "",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic YTo=",
        ] {
            assert!(!guard.admits(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!guard.admits(None));
    }
}
