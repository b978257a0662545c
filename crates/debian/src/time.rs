//! Dates as repositories write them, and seconds since 1970. No clock.

/// Days from 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant's method).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a date such as `Sat, 06 Sep 2025 10:00:00 UTC`, as Release files have it; only UTC.
pub(crate) fn parse_release_date(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    let rest = text.split_once(", ").map_or(text, |(_, rest)| rest);
    let mut parts = rest.split_ascii_whitespace();
    let day: i64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let year: i64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next().unwrap_or(Some(0))?);
    let zone = parts.next()?;
    let utc = matches!(zone, "UTC" | "GMT" | "Z" | "+0000");
    let fits = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second);
    let whole = utc && fits && parts.next().is_none() && clock.next().is_none();
    whole.then(|| days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Writes a time for people: `2025-09-06 10:00:00 UTC`.
pub fn show(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
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
        ] {
            assert_eq!(parse_release_date(broken), None, "{broken}");
        }
        assert_eq!(show(1_757_152_800), "2025-09-06 10:00:00 UTC");
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
