//! One range of bytes (`Range: bytes=0-99`), as a player that seeks or a download that continues asks for.
use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: there is none, it is not understood, or it names several parts.
    Whole,
    /// This part.
    Part(Range<u64>),
    /// Nothing that the file has.
    Outside,
}

/// Reads a header for a file of this length.
pub(super) fn read(header: Option<&str>, length: u64) -> Wanted {
    let Some((first, last)) = header.and_then(|text| text.trim().strip_prefix("bytes=")?.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok());
    match (number(first), number(last)) {
        // The last bytes.
        (None, Some(Some(0))) if first.is_empty() => Wanted::Outside,
        (None, Some(Some(count))) if first.is_empty() && length > 0 => {
            Wanted::Part(length.saturating_sub(count)..length)
        }
        (Some(Some(first)), None) if last.is_empty() && first < length => Wanted::Part(first..length),
        (Some(Some(first)), Some(Some(last))) if first <= last && first < length => {
            Wanted::Part(first..length.min(last.saturating_add(1)))
        }
        (Some(Some(first)), Some(Some(last))) if first > last => Wanted::Whole,
        (Some(_), _) if last.is_empty() || number(last).is_some() => Wanted::Outside,
        (None, Some(_)) if first.is_empty() => Wanted::Outside,
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_are_within_it() {
        for (header, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=2-99", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Outside),
            ("bytes=99999999999999999999-", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(read(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(read(None, 10), Wanted::Whole);
        assert_eq!(read(Some("bytes=0-"), 0), Wanted::Outside);
    }
}
