//! Cron expressions: the times at which an app is restarted, or gets another number of workers. Time and time zone are arguments.
use croner::errors::CronError;
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use std::cmp::Ordering;
use std::str::FromStr;

/// Why a text is not a usable cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It cannot be read.
    #[error("\"{}\" is not a cron expression such as \"0 3 * * *\": {why}", typed.escape_debug())]
    Syntax { typed: String, why: String },
    /// Its time does not exist.
    #[error("\"{0}\": that time never comes")]
    NeverComes(String),
}

/// Checks an expression: five fields (minute, hour, day, month, day of the week), or six with seconds in front.
///
/// # Errors
/// It is not an expression, or its time never comes.
pub fn read(text: &str) -> Result<String, ExpressionError> {
    let wrong = |why: String| ExpressionError::Syntax { typed: text.to_owned(), why };
    let fields = text.split_whitespace().count();
    if !text.starts_with('@') && !(5..=6).contains(&fields) {
        let counted = if fields == 1 { "1 field".to_owned() } else { format!("{fields} fields") };
        let why = format!("it has {counted} and must have 5 (minute, hour, day, month, weekday), or 6");
        return Err(wrong(why));
    }
    Cron::from_str(text).map_err(|e| wrong(e.to_string().trim_end_matches('.').to_owned()))?;
    match next(text, &Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC)) {
        Some(_) => Ok(text.to_owned()),
        None => Err(ExpressionError::NeverComes(text.to_owned())),
    }
}

/// The first time of an expression after this one.
pub fn next(text: &str, after: &ZonedDateTime) -> Option<ZonedDateTime> {
    Cron::from_str(text).ok()?.find_next_occurrence(&Here(after.clone()), false).ok().map(|Here(time)| time)
}

/// The last time of an expression before this one, or at it.
pub fn last(text: &str, until: &ZonedDateTime) -> Option<ZonedDateTime> {
    Cron::from_str(text).ok()?.find_previous_occurrence(&Here(until.clone()), true).ok().map(|Here(time)| time)
}

/// A local time for the crate that searches: it has the calendar, `jiff` the rules of the time zone.
#[derive(Clone)]
struct Here(ZonedDateTime);

impl CronDateTime for Here {
    fn to_civil(&self) -> CivilDateTime {
        let time = &self.0;
        let part = |part: i8| u32::from(part.unsigned_abs());
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(i32::from(time.year()), part(time.month()), part(time.day())),
            CivilTime::from_parts_unchecked(part(time.hour()), part(time.minute()), part(time.second())),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(u32::from(self.0.weekday().to_sunday_zero_offset().unsigned_abs()))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Here>, CronError> {
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let part = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidTime);
        let [month, day] = [part(civil.month())?, part(civil.day())?];
        let [hour, minute, second] = [part(civil.hour())?, part(civil.minute())?, part(civil.second())?];
        let time = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        let found = self.0.time_zone().to_ambiguous_zoned_datetime(time);
        let here = |time: Result<ZonedDateTime, jiff::Error>| time.map(Here).map_err(|_| CronError::InvalidTime);
        Ok(match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(here(found.unambiguous())?),
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(here(found.clone().earlier())?, here(found.later())?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Here> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Here)
    }

    fn cmp_instant(&self, other: &Here) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn after(text: &str, time: &str) -> String {
        next(text, &time.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_told_in_the_zone_of_the_clock() {
        let morning = "2026-03-01T02:59:59+01:00[Europe/Berlin]";
        assert_eq!(after("0 3 * * *", morning), "2026-03-01T03:00:00+01:00[Europe/Berlin]");
        assert_eq!(after("0 3 * * *", "2026-03-01T03:00:00[UTC]"), "2026-03-02T03:00:00+00:00[UTC]", "not now again");
        assert_eq!(after("*/15 * * * MON", "2026-03-01T10:00:00[UTC]"), "2026-03-02T00:00:00+00:00[UTC]");
        assert_eq!(after("*/20 * * * * *", "2026-03-01T10:00:01[UTC]"), "2026-03-01T10:00:20+00:00[UTC]");
        assert_eq!(after("@daily", "2026-03-01T10:00:01[UTC]"), "2026-03-02T00:00:00+00:00[UTC]");
    }

    #[test]
    fn the_last_time_may_be_now() {
        let before = |text: &str, time: &str| last(text, &time.parse().unwrap()).unwrap().to_string();
        let monday = "2026-03-02T08:00:00+01:00[Europe/Berlin]";
        assert_eq!(before("0 8 * * 1-5", monday), monday);
        assert_eq!(
            before("0 8 * * 1-5", "2026-03-02T07:59:59[Europe/Berlin]"),
            "2026-02-27T08:00:00+01:00[Europe/Berlin]"
        );
        assert_eq!(before("0 20 * * *", monday), "2026-03-01T20:00:00+01:00[Europe/Berlin]");
    }

    #[test]
    fn a_time_that_a_clock_skips_or_shows_twice_comes_once() {
        // 2:30 does not exist on this night, and the one in autumn has it twice.
        let spring = after("30 2 * * *", "2026-03-29T00:00:00[Europe/Berlin]");
        assert!(spring.starts_with("2026-03-29T03:") || spring.starts_with("2026-03-30T02:30"), "{spring}");
        let first = after("30 2 * * *", "2026-10-25T00:00:00[Europe/Berlin]");
        assert!(first.starts_with("2026-10-25T02:30"), "{first}");
        assert!(after("30 2 * * *", &first).starts_with("2026-10-26T02:30"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for (text, says) in [
            ("", "0 fields"),
            ("* * *", "3 fields"),
            ("61 * * * *", "not a cron expression"),
            ("* * * * nonsense", "not a cron expression"),
            ("0 0 30 2 *", "never comes"),
            ("@sometimes", "not a cron expression"),
        ] {
            let why = read(text).unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
        assert_eq!(read("0 3 * * 1-5").as_deref(), Ok("0 3 * * 1-5"));
    }
}
