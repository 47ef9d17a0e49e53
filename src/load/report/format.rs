//! Numbers as people read them: three digits and a unit. What programs read is in the JSON, unrounded.

/// `850 ns`, `12.3 us`, `312 ms`, `1.25 s`; no unit above seconds, so that values of one table compare at a glance.
pub fn time(ns: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    if ns <= 0.0 {
        return "0".to_owned();
    }
    // 999.6 us is 1.00 ms: what matters is the size after rounding.
    let fits = |(_, size): &&(&str, f64)| ns / size < 999.5;
    let (unit, size) = UNITS.iter().find(fits).unwrap_or(&UNITS[3]);
    format!("{} {unit}", three_digits(ns / size))
}

/// [`time`] of a whole number of nanoseconds.
pub fn nanos(ns: u64) -> String {
    time(ns as f64)
}

/// `1.23`, `12.3`, `123`, `1234`.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        small if small < 9.995 => 2,
        medium if medium < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// `1 234 567`: a space is no decimal point anywhere.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 request`, `2 requests`.
pub fn many(value: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A share of the whole as `0.4 %`. What is not nothing never reads as 0 %, and what is not all never as 100 %.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let share = 100.0 * part as f64 / whole as f64;
    match share {
        _ if part == 0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        tiny if tiny < 0.001 => "<0.001 %".to_owned(),
        small if small < 0.995 => trimmed(small, 3),
        large if large > 99.995 && part < whole => ">99.99 %".to_owned(),
        large => trimmed(large, 2),
    }
}

fn trimmed(share: f64, decimals: usize) -> String {
    let text = format!("{share:.decimals$}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `200/s`, `0.5/s`.
pub fn per_second(rate: f64) -> String {
    let text = if rate < 99.95 { format!("{rate:.1}") } else { format!("{rate:.0}") };
    format!("{}/s", text.strip_suffix(".0").unwrap_or(&text))
}

/// `30 s`, `1 min 30 s`, `2 h 5 min`.
pub fn length(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        // Short runs keep their fraction: 0.5 s is not 1 s.
        0..=9 => {
            let text = format!("{seconds:.1}");
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        }
        10..60 => format!("{whole} s"),
        60..3600 => two(whole / 60, "min", whole % 60, "s"),
        _ => two(whole / 3600, "h", whole % 3600 / 60, "min"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_that_they_round_to() {
        let cases = [
            (0.0, "0"),
            (64.0, "64.0 ns"),
            (999.6, "1.00 us"),
            (12_345.0, "12.3 us"),
            (312_400_000.0, "312 ms"),
            (999_600_000.0, "1.00 s"),
            (30e9, "30.0 s"),
            (3600e9, "3600 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(time(ns), text);
        }
    }

    #[test]
    fn shares_are_never_rounded_to_nothing_or_to_all() {
        let cases = [
            (0, 0, "-"),
            (0, 5, "0 %"),
            (5, 5, "100 %"),
            (1, 10_000_000, "<0.001 %"),
            (9_999_999, 10_000_000, ">99.99 %"),
            (4, 1000, "0.4 %"),
            (123, 1000, "12.3 %"),
            (1, 3, "33.33 %"),
        ];
        for (part, whole, text) in cases {
            assert_eq!(percent(part, whole), text);
        }
    }

    #[test]
    fn counts_rates_and_lengths() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!([0.0, 0.5, 200.0, 1234.5].map(per_second), ["0/s", "0.5/s", "200/s", "1234/s"]);
        assert_eq!([0, 1, 1_000].map(|n| many(n, "request")), ["0 requests", "1 request", "1 000 requests"]);
        let lengths = [0.5, 30.0, 90.0, 7500.0].map(length);
        assert_eq!(lengths, ["0.5 s", "30 s", "1 min 30 s", "2 h 5 min"]);
    }
}
