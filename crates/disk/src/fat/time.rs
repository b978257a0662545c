use time::OffsetDateTime;
use tree::Timestamp;

/// 1980-01-01T00:00:00Z and 2107-12-31T23:59:58Z, the first and the last moment that FAT can write.
const FIRST: i64 = 315_532_800;
const LAST: i64 = 4_354_819_198;

/// A moment as FAT's date and time words, in UTC; moments out of reach become the nearest that is.
pub(super) fn dos(time: Timestamp) -> (u16, u16) {
    let time = OffsetDateTime::from_unix_timestamp(time.seconds.clamp(FIRST, LAST));
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    let date = ((year - 1980) as u16) << 9 | u16::from(u8::from(month)) << 5 | u16::from(day);
    let time = u16::from(hour) << 11 | u16::from(minute) << 5 | u16::from(second / 2);
    (date, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(seconds: i64) -> (u16, u16, u16, u16, u16, u16) {
        let (date, time) = dos(Timestamp::from_seconds(seconds));
        (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
    }

    #[test]
    fn known_moments() {
        assert_eq!(fields(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(fields(1_709_251_199), (2024, 2, 29, 23, 59, 58));
        assert_eq!(fields(1_709_251_200), (2024, 3, 1, 0, 0, 0));
        assert_eq!(fields(4_107_542_400), (2100, 3, 1, 0, 0, 0));
        assert_eq!(fields(1_767_225_599), (2025, 12, 31, 23, 59, 58));
    }

    #[test]
    fn moments_out_of_reach_become_the_nearest() {
        assert_eq!(fields(0), (1980, 1, 1, 0, 0, 0));
        assert_eq!(fields(i64::MIN), (1980, 1, 1, 0, 0, 0));
        assert_eq!(fields(i64::MAX), (2107, 12, 31, 23, 59, 58));
    }
}
