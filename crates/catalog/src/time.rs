use time::{Date, Month, OffsetDateTime};

/// Seconds since 1970 as RFC 3339 in UTC: `2026-01-31T12:00:00Z`. Beyond the years 0 to 9999 the first or last of them.
pub fn format_time(seconds: i64) -> String {
    const YEARS: (i64, i64) = (-62_167_219_200, 253_402_300_799);
    let time = OffsetDateTime::from_unix_timestamp(seconds.clamp(YEARS.0, YEARS.1));
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

/// Reads what [`format_time`] writes; `None` for anything else.
pub fn parse_time(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u16>().ok();
    let part = |at: usize| u8::try_from(number(at..at + 2)?).ok();
    let month = Month::try_from(part(5)?).ok()?;
    let date = Date::from_calendar_date(number(0..4)?.into(), month, part(8)?).ok()?;
    let time = date.with_hms(part(11)?, part(14)?, part(17)?).ok()?;
    let seconds = time.assume_utc().unix_timestamp();
    // Only what is written the same way again is a time: no signs, no other separators.
    (format_time(seconds) == text).then_some(seconds)
}

/// The same moment so many years later; of a leap day the day before.
pub(crate) fn years_after(seconds: i64, years: i32) -> i64 {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else { return seconds };
    let later = time.replace_year(time.year() + years);
    let later =
        later.or_else(|_| time.replace_day(28).and_then(|time| time.replace_year(time.year() + years)));
    later.map_or(seconds, OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_763_200_000, "2025-11-15T09:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(format_time(seconds), text);
            assert_eq!(parse_time(text), Some(seconds));
        }
        for bad in [
            "2025-02-30T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00:00+",
            "2025-01-01T00:00:00Z ",
            "2025-01-01T00:00:+1Z",
            "2025-01-01T00:00:é0Z",
            "",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
        assert_eq!(format_time(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(format_time(i64::MIN), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn years_are_those_of_the_calendar() {
        let after = |text: &str, years| format_time(years_after(parse_time(text).unwrap(), years));
        assert_eq!(after("2026-11-29T12:00:00Z", 10), "2036-11-29T12:00:00Z");
        assert_eq!(after("2028-02-29T00:00:00Z", 2), "2030-02-28T00:00:00Z");
        assert_eq!(after("9999-01-01T00:00:00Z", 2), "9999-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn every_time_comes_back(seconds in -62_135_596_800_i64..253_402_300_800) {
            prop_assert_eq!(parse_time(&format_time(seconds)), Some(seconds));
        }
    }
}
