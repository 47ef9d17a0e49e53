//! `x-forebay-deadline-ms`: what is left of a request's deadline, told to the upstream and heard from trusted clients.
//!
//! The deadline itself is one instant, computed at the door (`proxy/exchange.rs`) and looked at by every wait
//! (`proxy/timer.rs`).

use std::time::Duration;

/// The longest deadline that a client may ask for; more digits than this hold are refused by [`parse_header`].
const MAX_HEADER_DIGITS: usize = 10;

/// Reads `x-forebay-deadline-ms`: what the caller has left, as plain digits.
pub fn parse_header(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > MAX_HEADER_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = value.iter().fold(0u64, |millis, digit| millis * 10 + u64::from(digit - b'0'));
    Some(Duration::from_millis(millis))
}

/// Appends the value of `x-forebay-deadline-ms`, rounded down so that the upstream gives up first.
pub fn write_header(out: &mut Vec<u8>, remaining: Duration) {
    // Ten digits are 115 days.
    let millis = remaining.as_millis().min(9_999_999_999);
    out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_plain_milliseconds() {
        assert_eq!(parse_header(b"1500"), Some(Duration::from_millis(1500)));
        for bad in ["", "-1", "+1", "1.5", "1s", " 1", "12345678901"] {
            assert_eq!(parse_header(bad.as_bytes()), None, "{bad}");
        }
        let mut out = Vec::new();
        write_header(&mut out, Duration::from_micros(1_999_999));
        assert_eq!(out, b"1999");
        out.clear();
        write_header(&mut out, Duration::MAX);
        assert!(parse_header(&out).is_some());
    }
}
