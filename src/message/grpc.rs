//! What gRPC needs of a proxy: `grpc-timeout`, and errors that a gRPC client understands.
//!
//! A gRPC client wants HTTP status 200 and the outcome in `grpc-status`; for an answer of Forebay's own both stand in the
//! head ("trailers-only", gRPC over HTTP/2).

use std::time::Duration;

use crate::telemetry::Reason;

/// True for `application/grpc` and `application/grpc+...`, with or without parameters.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    content_type.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
        && matches!(content_type.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Appends a `grpc-timeout`, rounded down: in milliseconds as other implementations do, in a coarser unit when eight
/// digits are not enough, and in microseconds below one millisecond.
pub fn write_timeout(out: &mut Vec<u8>, timeout: Duration) {
    const MAX: u128 = 99_999_999;
    let seconds = u128::from(timeout.as_secs());
    let (number, unit) = match timeout.as_millis() {
        0 => (timeout.as_micros(), b'u'),
        millis if millis <= MAX => (millis, b'm'),
        _ if seconds <= MAX => (seconds, b'S'),
        _ if seconds / 60 <= MAX => (seconds / 60, b'M'),
        _ => ((seconds / 3600).min(MAX), b'H'),
    };
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.push(unit);
}

/// The gRPC status of a request that Forebay itself ended. Follows what the gRPC libraries make of the HTTP status, but
/// knows more: the deadline is `DEADLINE_EXCEEDED` rather than `UNAVAILABLE`.
pub const fn status(reason: Reason) -> u8 {
    const OK: u8 = 0;
    const CANCELLED: u8 = 1;
    const UNKNOWN: u8 = 2;
    const INVALID_ARGUMENT: u8 = 3;
    const DEADLINE_EXCEEDED: u8 = 4;
    const NOT_FOUND: u8 = 5;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    match reason {
        Reason::Ok | Reason::Partial => OK,
        Reason::ClientGone => CANCELLED,
        Reason::Upstream5xx => UNKNOWN,
        Reason::BadRequest | Reason::UpgradeRefused | Reason::Internal => INTERNAL,
        Reason::TooManyItems => INVALID_ARGUMENT,
        Reason::NoResult | Reason::ResultGone => NOT_FOUND,
        Reason::MissingValue | Reason::DependencyFailed | Reason::NotNeeded | Reason::MergeConflict => INTERNAL,
        Reason::NoRoute | Reason::MethodNotAllowed => UNIMPLEMENTED,
        Reason::HeadTooLarge
        | Reason::BodyTooLarge
        | Reason::RateLimited
        | Reason::DelayQueueFull
        | Reason::ClientLimit
        | Reason::TooManyJobs
        | Reason::ResultTooLarge
        | Reason::UpstreamTooDeep
        | Reason::UpstreamTooLarge => RESOURCE_EXHAUSTED,
        Reason::HeadTimeout
        | Reason::BodyTimeout
        | Reason::BodyTooSlow
        | Reason::WriteTimeout
        | Reason::SourcesTimedOut
        | Reason::SourceTimeout
        | Reason::ConnectTimeout
        | Reason::TlsTimeout
        | Reason::FirstByteTimeout
        | Reason::BetweenBytesTimeout
        | Reason::UpgradeIdle
        | Reason::DeadlineQueue
        | Reason::DeadlineConnect
        | Reason::DeadlineRequest
        | Reason::DeadlineFirstByte
        | Reason::DeadlineBody => DEADLINE_EXCEEDED,
        Reason::QueueFull
        | Reason::QueueTimeout
        | Reason::TooManyConnections
        | Reason::NoEndpoint
        | Reason::SourcesFailed
        | Reason::ConnectFailed
        | Reason::TlsFailed
        | Reason::UpstreamReset
        | Reason::UpstreamClosed
        | Reason::FaultAbort
        | Reason::FaultReset
        | Reason::ShuttingDown => UNAVAILABLE,
        Reason::UpstreamBadResponse | Reason::UpstreamBadBody | Reason::UpstreamStatus | Reason::UnexpectedUpgrade => {
            INTERNAL
        }
    }
}

/// Appends a `grpc-message`: percent-encoded outside visible ASCII.
pub fn write_message(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ReasonClass;

    #[test]
    fn content_types_of_grpc_are_known() {
        for yes in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=x"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["application/grpc-web", "application/json", "", "application/grp"] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), Some(expected), "{text}");
        }
        for bad in ["", "S", "1", "1s", "-1S", "1.5S", "123456789m", " 1S", "1 S"] {
            assert_eq!(parse_timeout(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn written_timeouts_fit_eight_digits_and_are_never_longer() {
        for timeout in [
            Duration::ZERO,
            Duration::from_nanos(1_999),
            Duration::from_micros(1_500),
            Duration::from_secs(15),
            Duration::from_secs(99_999_999),
            Duration::from_secs(100_000_000),
            Duration::from_secs(10_000_000_000),
            Duration::MAX,
        ] {
            let mut out = Vec::new();
            write_timeout(&mut out, timeout);
            let read = parse_timeout(&out).expect("valid");
            assert!(read <= timeout, "{timeout:?} {}", out.escape_ascii());
        }
        let mut out = Vec::new();
        write_timeout(&mut out, Duration::from_millis(2_500));
        assert_eq!(out, b"2500m");
    }

    #[test]
    fn every_timeout_is_deadline_exceeded_and_only_ok_is_ok() {
        for reason in Reason::ALL {
            assert_eq!(status(*reason) == 0, reason.class() == ReasonClass::Success, "{reason}");
            assert!(reason.class() != ReasonClass::Timeout || status(*reason) == 4, "{reason}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut out = Vec::new();
        write_message(&mut out, "100 % \u{e4}\r\n");
        assert_eq!(out, b"100 %25 %C3%A4%0D%0A");
    }
}
