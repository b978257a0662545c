//! Dates as repositories write them, and seconds since 1970. No clock.

use time::{Date, Month, OffsetDateTime};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a date such as `Sat, 06 Sep 2025 10:00:00 UTC`, as Release files have it; only UTC.
pub(crate) fn parse_release_date(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    let rest = text.split_once(", ").map_or(text, |(_, rest)| rest);
    let mut parts = rest.split_ascii_whitespace();
    let day: u8 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u8 + 1;
    let year: i32 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next().unwrap_or(Some(0))?);
    let zone = parts.next()?;
    let utc = matches!(zone, "UTC" | "GMT" | "Z" | "+0000");
    // A minute may have a leap second.
    let fits = (1970..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second);
    let whole = utc && fits && parts.next().is_none() && clock.next().is_none();
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    whole.then(|| date.midnight().assume_utc().unix_timestamp() + hour * 3600 + minute * 60 + second)
}

/// Writes a time for people: `2025-09-06 10:00:00 UTC`. One that no calendar has is told in seconds.
pub fn show(seconds: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return format!("{seconds} seconds after 1970");
    };
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", u8::from(month))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_of_release_files_are_read() {
        assert_eq!(parse_release_date("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse_release_date("Sat, 06 Sep 2025 10:00:00 UTC"), Some(1_757_152_800));
        assert_eq!(parse_release_date("Thu, 29 Feb 2024  9:30:05 UTC"), Some(1_709_199_005));
        for broken in [
            "",
            "yesterday",
            "Sat, 06 Sep 2025 10:00:00 CEST",
            "Sat, 06 Xyz 2025 10:00:00 UTC",
            "1 Jan 2025 25:00:00 UTC",
            "31 Feb 2025 10:00:00 UTC",
        ] {
            assert_eq!(parse_release_date(broken), None, "{broken}");
        }
        assert_eq!(show(1_757_152_800), "2025-09-06 10:00:00 UTC");
        assert_eq!(show(i64::MAX), "9223372036854775807 seconds after 1970");
    }

    proptest! {
        #[test]
        fn every_day_is_written_and_read_back(seconds in 0_i64..200_000_000_000) {
            let shown = show(seconds);
            let month: usize = shown[5..7].parse().unwrap();
            let date = format!("Mon, {} {} {} {} UTC", &shown[8..10], MONTHS[month - 1], &shown[..4], &shown[11..19]);
            prop_assert_eq!(parse_release_date(&date), Some(seconds));
        }
    }
}
