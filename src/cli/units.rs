//! Times, sizes and counts in few characters, for tables.

/// `5s`, `4m`, `3h`, `2d`: fits a column.
pub(super) fn short_time(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..=119 => format!("{s}s"),
        120..=7_199 => format!("{}m", s / 60),
        7_200..=172_799 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

/// One digit behind the point, or none where the number is long.
pub(super) fn short_number(number: f64, unit: &str) -> String {
    if number < 1000.0 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

/// `1ms`, `250ms`, `12s`.
pub(super) fn short_delay(ms: f64) -> String {
    if ms < 999.5 { format!("{ms:.0}ms") } else { short_time(ms as u64) }
}

/// CPU time: `0.3s`, `42.0s`, `4m`.
pub(super) fn cpu_time(ms: u64) -> String {
    if ms < 99_950 { short_number(ms as f64 / 1000.0, "s") } else { short_time(ms) }
}

/// Never more than five characters up to petabytes: `512K`, `50.1M`, `512M`, `1.2G`.
pub(super) fn size(bytes: u64) -> String {
    let mut number = bytes as f64 / 1024.0;
    for unit in ["K", "M", "G"] {
        match number {
            n if n < 99.95 && unit != "K" => return format!("{n:.1}{unit}"),
            n if n < 1023.5 => return format!("{n:.0}{unit}"),
            n => number = n / 1024.0,
        }
    }
    if number < 99.95 { format!("{number:.1}T") } else { format!("{number:.0}T") }
}

/// A number of things, never more than five characters: `0`, `99999`, `410k`, `12M`.
pub(super) fn count(number: u64) -> String {
    match number {
        n if n < 100_000 => n.to_string(),
        n if n < 10_000_000 => format!("{}k", n / 1_000),
        n if n < 10_000_000_000 => format!("{}M", n / 1_000_000),
        n => format!("{}G", n / 1_000_000_000),
    }
}

/// A text in so many columns; what does not fit ends in `~`, or in an ellipsis where the terminal has one.
pub(super) fn fit(text: &str, columns: usize, end: char) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain((columns > 0).then_some(end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_stay_in_five_characters() {
        let mega = 1u64 << 20;
        let sizes =
            [0, 512 << 10, 1023 << 10, mega, 50 * mega + 100_000, 512 * mega, 1023 * mega, 1 << 30, 1 << 37, 1 << 42];
        let shown = ["0K", "512K", "1023K", "1.0M", "50.1M", "512M", "1023M", "1.0G", "128G", "4.0T"];
        assert_eq!(sizes.map(size), shown);
        assert_eq!(size((1 << 20) - 1), "1.0M");
        let numbers = [0, 99_999, 100_000, 9_999_999, 10_000_000, 9_999_999_999, 10_000_000_000];
        assert_eq!(numbers.map(count), ["0", "99999", "100k", "9999k", "10M", "9999M", "10G"]);
        assert_eq!([999, 99_949, 99_950, 7_200_000].map(cpu_time), ["1.0s", "99.9s", "99s", "2h"]);
    }

    #[test]
    fn a_text_that_is_cut_says_so() {
        assert_eq!(fit("web", 3, '~'), "web");
        assert_eq!(fit("webshop", 4, '~'), "web~");
        assert_eq!((fit("web", 1, '~').as_str(), fit("web", 0, '~').as_str()), ("~", ""));
    }
}
