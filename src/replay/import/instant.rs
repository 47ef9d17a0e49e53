//! Dates of logs as nanoseconds since 1970.

use super::decimal;
use crate::load::SECOND;

/// `2016-04-15T20:17:00.310Z`, `2009-07-24T19:20:30.45+01:00` (RFC 3339).
pub fn rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let zone = if zone.eq_ignore_ascii_case("z") { 0 } else { offset(&zone.replacen(':', "", 1))? };
    nanoseconds(year, month, day, time, zone)
}

/// `10/Oct/2000:13:55:36 -0700` (common log format).
pub fn common_log(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (date, rest) = text.split_once(':')?;
    let (time, zone) = rest.split_once(' ')?;
    let mut parts = date.splitn(3, '/');
    let (day, name, year) = (number(parts.next()?, 2)?, parts.next()?, number(parts.next()?, 4)?);
    let month = MONTHS.iter().zip(1..).find(|(month, _)| **month == name)?.1;
    nanoseconds(year, month, day, time, offset(zone)?)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Seconds of `+0100`.
fn offset(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours_minutes = number(text.get(1..)?, 4)?;
    Some(sign * (hours_minutes / 100 * 3600 + hours_minutes % 100 * 60))
}

/// `time` is `13:55:36` with or without a fraction, `zone` the seconds that its clock is ahead.
fn nanoseconds(year: i64, month: i64, day: i64, time: &str, zone: i64) -> Option<u64> {
    let mut parts = time.splitn(3, ':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, parts.next()?);
    let second = decimal(second, SECOND)?;
    // 60 is a leap second.
    let is_valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61 * SECOND
        && year >= 1970;
    if !is_valid {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 - zone;
    u64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(second)
}

/// Days since 1970 in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `days_from_civil`), for years that are not negative.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-22T22:21:18+00:00", 1_795_386_078),
            ("2009-07-24T19:20:30+01:00", 1_248_459_630),
        ] {
            assert_eq!(rfc3339(text), Some(seconds * SECOND), "{text}");
        }
        assert_eq!(rfc3339("1970-01-01T00:00:01.0450Z"), Some(1_045_000_000));
        assert_eq!(common_log("10/Oct/2000:13:55:36 -0700"), Some(971_211_336 * SECOND));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "1969-12-31T00:00:00Z", "2020-13-01T00:00:00Z", "2020-01-01T24:00:00Z", "2020-01-01T00:00:00"]
        {
            assert_eq!(rfc3339(text), None, "{text}");
        }
        for text in ["", "10/Okt/2000:13:55:36 -0700", "10/Oct/2000:13:55 -0700", "10/Oct/2000:13:55:36"] {
            assert_eq!(common_log(text), None, "{text}");
        }
    }
}
