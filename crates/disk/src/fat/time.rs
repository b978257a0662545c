use tree::Timestamp;

/// 1980-01-01T00:00:00Z and 2107-12-31T23:59:58Z, the first and the last moment that FAT can write.
const FIRST: i64 = 315_532_800;
const LAST: i64 = 4_354_819_198;

/// A moment as FAT's date and time words, in UTC; moments out of reach become the nearest that is.
pub(super) fn dos(time: Timestamp) -> (u16, u16) {
    let seconds = time.seconds.clamp(FIRST, LAST);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their leap day last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    let time = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2);
    (date as u16, time as u16)
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
