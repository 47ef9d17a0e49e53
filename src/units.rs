//! Quantities as people write them: `250ms`, `1m30s`, `64KiB`, `100/s`, `1KiB/s`.
//!
//! Every quantity carries its unit: a bare `30` is refused, because nobody can see whether it means seconds or
//! milliseconds. Each `parse_*` has a `show_*` that writes the shortest text which parses back to the same value.
//! Used by the configuration and by the command line; knows nothing of either.

use std::fmt;
use std::time::Duration;

/// What is wrong with a quantity: a fragment that reads after the quoted text, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    pub problem: String,
    pub help: String,
}

impl UnitError {
    fn new(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { problem: problem.into(), help: help.into() }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.help)
    }
}

impl std::error::Error for UnitError {}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Unit names of durations with their nanoseconds; the first name of each size is the one that is written.
const DURATION_UNITS: &[(&str, u128)] = &[
    ("d", 86_400 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("min", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// Other words for units that people write, with the one that is meant. Refused all the same, so that one file has one
/// spelling, but told what to write.
const DURATION_WORDS: &[(&str, &str)] = &[
    ("day", "d"),
    ("days", "d"),
    ("hour", "h"),
    ("hours", "h"),
    ("hr", "h"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("msec", "ms"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
    ("usec", "us"),
];

/// Unit names of sizes with their bytes, the ones that are written first.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
];

/// `250ms`, `3s`, `1m30s`, `1.5s`, `0s`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut total: u128 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(UnitError::new("is empty", "write a number with its unit, as in \"3s\" or \"250ms\""));
    }
    while !rest.is_empty() {
        let (number, after_number) = split_number(rest);
        let (unit, after_unit) = split_unit(after_number);
        let before = &text.trim()[..text.trim().len() - rest.len()];
        total = total.checked_add(duration_part(before, number, unit)?).ok_or_else(too_long)?;
        rest = after_unit;
    }
    let seconds = u64::try_from(total / NANOS_PER_SECOND).map_err(|_| too_long())?;
    Ok(Duration::new(seconds, (total % NANOS_PER_SECOND) as u32))
}

/// The nanoseconds of one `number unit` pair; `before` is what stands before it, which advice keeps.
fn duration_part(before: &str, number: &str, unit: &str) -> Result<u128, UnitError> {
    if number.is_empty() {
        return Err(UnitError::new("is not a duration", "write a number with its unit, as in \"3s\" or \"250ms\""));
    }
    if unit.is_empty() {
        let help = match smaller_unit(before) {
            Some(smaller) => format!("write \"{before}{number}{smaller}\""),
            None => format!("write \"{before}{number}s\" for seconds or \"{before}{number}ms\" for milliseconds"),
        };
        return Err(UnitError::new("has no unit", help));
    }
    let Some((_, nanos)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(unknown_duration_unit(before, number, unit.trim()));
    };
    scale(number, *nanos).ok_or_else(too_long)
}

/// The unit that goes on after a time that ends with another: seconds after minutes.
fn smaller_unit(before: &str) -> Option<&'static str> {
    const BELOW: [(&str, &str); 8] =
        [("d", "h"), ("h", "m"), ("m", "s"), ("min", "s"), ("s", "ms"), ("ms", "us"), ("us", "ns"), ("µs", "ns")];
    let unit = before.rsplit(|c: char| c.is_ascii_digit() || c == '.').next()?;
    BELOW.iter().find(|(name, _)| *name == unit).map(|(_, below)| *below)
}

fn unknown_duration_unit(before: &str, number: &str, unit: &str) -> UnitError {
    let help = match DURATION_WORDS.iter().find(|(word, _)| unit.eq_ignore_ascii_case(word)) {
        Some((_, meant)) => format!("write \"{before}{number}{meant}\""),
        None => "the units are d, h, m (or min), s, ms, us (or µs) and ns, as in \"1m30s\"".to_owned(),
    };
    UnitError::new(format!("has the unknown unit `{unit}`"), help)
}

fn too_long() -> UnitError {
    UnitError::new(
        "is not a duration that can be kept",
        "write a shorter one, with digits and one decimal point at most",
    )
}

/// `90s` is shown as `1m30s`, `1500ms` as `1500ms`: whole units only, so that it reads back exactly.
pub fn show_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 60 * NANOS_PER_SECOND {
        let (name, size) = largest_divisor(nanos);
        return format!("{}{name}", nanos / size);
    }
    let mut text = String::new();
    for (name, size) in DURATION_UNITS.iter().filter(|(name, _)| !matches!(*name, "min" | "µs")) {
        let count = nanos / size;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
            nanos %= size;
        }
    }
    text
}

fn largest_divisor(nanos: u128) -> (&'static str, u128) {
    const UP_TO_SECONDS: [(&str, u128); 4] = [("s", NANOS_PER_SECOND), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];
    UP_TO_SECONDS.into_iter().find(|(_, size)| nanos.is_multiple_of(*size)).unwrap_or(("ns", 1))
}

/// `64KiB`, `1MiB`, `512B`, `1.5MiB`; `kB`, `MB` and `GB` count in thousands.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, rest) = split_number(text.trim());
    let unit = rest.trim();
    if number.is_empty() {
        return Err(UnitError::new("is not a size", "write a number with its unit, as in \"64KiB\" or \"1MiB\""));
    }
    if unit.is_empty() {
        let help = format!("write \"{number}B\" for bytes or \"{number}KiB\" for units of 1024 bytes");
        return Err(UnitError::new("has no unit", help));
    }
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let help = "the units are B, KiB, MiB, GiB (steps of 1024) and kB (or KB), MB, GB (steps of 1000)";
        return Err(UnitError::new(format!("has the unknown unit `{unit}`"), help));
    };
    scale(number, u128::from(*bytes))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| UnitError::new("is not a size that can be kept", "write a smaller one, in whole bytes"))
}

pub fn show_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let (name, size) =
        SIZE_UNITS[..4].iter().copied().find(|(_, size)| bytes.is_multiple_of(*size)).unwrap_or(("B", 1));
    format!("{}{name}", bytes / size)
}

/// `100/s`, `5/min`, `1000/10s`: so many events in such a time.
pub fn parse_rate(text: &str) -> Result<(u32, Duration), UnitError> {
    const HELP: &str = "write a whole number and a time, as in \"100/s\", \"5/min\" or \"1000/10s\"";
    let Some((count, per)) = text.trim().split_once('/') else {
        return Err(UnitError::new("is not a rate", HELP));
    };
    let count: u32 = count.trim().parse().map_err(|_| UnitError::new("is not a rate", HELP))?;
    let per = parse_period(per.trim()).map_err(|_| UnitError::new("is not a rate", HELP))?;
    if count == 0 {
        return Err(UnitError::new("lets nothing through", "write a rate of at least 1, or take the limit out"));
    }
    if per.is_zero() {
        return Err(UnitError::new("has no time to count over", HELP));
    }
    Ok((count, per))
}

pub fn show_rate(count: u32, per: Duration) -> String {
    format!("{count}/{}", show_period(per))
}

/// `1KiB/s`: bytes in each second; `off` is none.
pub fn parse_byte_rate(text: &str) -> Result<u64, UnitError> {
    const HELP: &str = "write a size for each second, as in \"1KiB/s\", or \"off\"";
    if text.trim() == "off" {
        return Ok(0);
    }
    let Some(size) = text.trim().strip_suffix("/s") else {
        return Err(UnitError::new("is not a rate of bytes", HELP));
    };
    parse_size(size.trim_end()).map_err(|error| UnitError::new(error.problem, HELP))
}

pub fn show_byte_rate(bytes_per_second: u64) -> String {
    if bytes_per_second == 0 { "off".to_owned() } else { format!("{}/s", show_size(bytes_per_second)) }
}

/// A duration whose count may be left out when it is one: `s`, `min`, `10s`.
fn parse_period(text: &str) -> Result<Duration, UnitError> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        parse_duration(text)
    } else {
        parse_duration(&format!("1{text}"))
    }
}

fn show_period(per: Duration) -> String {
    match per.as_nanos() {
        NANOS_PER_SECOND => "s".to_owned(),
        60_000_000_000 => "min".to_owned(),
        3_600_000_000_000 => "h".to_owned(),
        _ => show_duration(per),
    }
}

/// The leading digits (with at most what looks like a decimal point) and what follows.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// The leading unit letters and what follows.
fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(text.len()))
}

/// `number × unit`, exact: a decimal that does not come out in whole base units is refused.
fn scale(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u128 = whole.parse().ok()?;
    let denominator = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: u128 = fraction.parse().ok()?;
    let part = fraction.checked_mul(unit)?;
    if !part.is_multiple_of(denominator) {
        return None;
    }
    whole.checked_mul(unit)?.checked_add(part / denominator)
}

/// Appends an address. IPv4 without the formatter: it is written several times for each request.
pub fn write_ip(out: &mut Vec<u8>, ip: std::net::IpAddr) {
    match ip {
        std::net::IpAddr::V4(ip) => {
            let (mut text, mut length) = ([0; "255.255.255.255".len()], 0);
            let mut put = |byte: u8| {
                text[length] = byte;
                length += 1;
            };
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    put(b'.');
                }
                if octet >= 100 {
                    put(b'0' + octet / 100);
                }
                if octet >= 10 {
                    put(b'0' + octet / 10 % 10);
                }
                put(b'0' + octet % 10);
            }
            out.extend_from_slice(&text[..length]);
        }
        std::net::IpAddr::V6(ip) => {
            use std::io::Write as _;
            write!(out, "{ip}").expect("writing to memory cannot fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_written_as_the_formatter_does() {
        let octets = [0, 1, 9, 10, 42, 99, 100, 199, 200, 255];
        for (index, octet) in octets.into_iter().enumerate() {
            let ip = std::net::Ipv4Addr::new(octet, octets[(index + 3) % 10], octets[9 - index], 7);
            let mut out = Vec::new();
            write_ip(&mut out, ip.into());
            assert_eq!(String::from_utf8(out).unwrap(), ip.to_string());
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [("250ms", 250), ("3s", 3_000), ("1m30s", 90_000), ("2min", 120_000), ("1.5s", 1_500), ("0s", 0)];

        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_the_two_likely_meanings() {
        let error = parse_duration("30").expect_err("no unit");

        assert_eq!(error.to_string(), "has no unit: write \"30s\" for seconds or \"30ms\" for milliseconds");

        for (text, meant) in [("1m30", "1m30s"), ("1h30", "1h30m"), ("1d2h30", "1d2h30m"), ("3s250", "3s250ms")] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error.to_string(), format!("has no unit: write \"{meant}\""), "{text}");
        }
    }

    #[test]
    fn another_word_for_a_unit_is_refused_with_the_right_one() {
        for (text, right) in
            [("3sec", "3s"), ("3 seconds", "3s"), ("1m30Sec", "1m30s"), ("2minutes", "2m"), ("5msec", "5ms")]
        {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(error.help, format!("write {right:?}"), "{text}");
        }
        for (_, meant) in DURATION_WORDS {
            assert!(parse_duration(&format!("1{meant}")).is_ok(), "{meant}");
        }
    }

    #[test]
    fn every_unit_that_is_taken_is_listed() {
        let listed = |help: &str, unit: &str| help.split([' ', ',', '(', ')']).any(|word| word == unit);
        let durations = parse_duration("1x").expect_err("no unit").help;
        let sizes = parse_size("1x").expect_err("no unit").help;

        for (unit, _) in DURATION_UNITS {
            assert!(listed(&durations, unit), "{unit}");
        }
        for (unit, _) in SIZE_UNITS {
            assert!(listed(&sizes, unit), "{unit}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "3 apples", "-1s", "1..5s", "1s2", "99999999999999999999999d", "."] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        for text in ["", "KiB", "64", "64k", "1.0001KiB", "-1B"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        for text in ["", "100", "/s", "0/s", "1/0s", "1.5/s", "100/fortnight", "-1/s"] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
        for text in ["1KiB", "1KiB/m", "on"] {
            assert!(parse_byte_rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_count_in_1024_and_in_1000() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1.5MiB"), Ok(1_572_864));
        assert_eq!(parse_size("10 MB"), Ok(10_000_000));
    }

    #[test]
    fn quantities_are_shown_in_their_largest_exact_unit() {
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(show_size(65_536), "64KiB");
        assert_eq!(show_rate(5, Duration::from_secs(60)), "5/min");
        assert_eq!(show_byte_rate(0), "off");
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(nanos in any::<u64>()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_shown_size_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn a_shown_rate_reads_back(count in 1..u32::MAX, millis in 1..u64::from(u32::MAX)) {
            let per = Duration::from_millis(millis);
            prop_assert_eq!(parse_rate(&show_rate(count, per)), Ok((count, per)));
        }

        #[test]
        fn a_shown_byte_rate_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse_byte_rate(&show_byte_rate(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_rate(&text), parse_byte_rate(&text));
        }
    }
}
