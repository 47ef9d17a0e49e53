//! One request as one line of JSON, written by hand into a buffer that is used again: no allocation, no intermediate
//! value. A field whose stage was not reached is left out. The sources of an aggregate are written by `access_sources`.
//!
//! Whatever a client sends, a line has a bounded length and is valid JSON: values are cut, and every control character
//! is escaped, so that nobody can forge a line.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{RequestRecord, access_sources};
use crate::units::write_ip;

const MAX_TARGET: usize = 2048;
const MAX_DETAIL: usize = 1024;
const MAX_HOST: usize = 255;
const MAX_ID: usize = 128;
const MAX_METHOD: usize = 32;

/// Appends the line of `record`, which ended at `at`, with its line feed. `started` is when it began, in nanoseconds of
/// the machine's monotonic clock: what a load generator on this machine joins its own times with.
pub(super) fn write(out: &mut Vec<u8>, record: &RequestRecord, at: SystemTime, started: u64) {
    out.extend_from_slice(b"{\"time\":\"");
    write_time(out, at);
    out.push(b'"');
    write_subject(out, record);
    write_outcome(out, record);
    number(out, "started_us", started / 1000);
    write_timings(out, record);
    if let Some(sources) = record.sources {
        access_sources::write(out, sources);
    }
    out.extend_from_slice(b"}\n");
}

fn write_subject(out: &mut Vec<u8>, record: &RequestRecord) {
    word(out, "route", &record.route.name);
    if let Some(upstream) = &record.upstream {
        word(out, "upstream", &upstream.name);
    }
    if let Some(endpoint) = record.endpoint {
        key(out, "endpoint");
        write_socket_address(out, endpoint);
    }
    word(out, "listener", &record.listener);
    word(out, "protocol", record.protocol.as_str());
    key(out, "client");
    out.push(b'"');
    write_ip(out, record.client);
    out.push(b'"');
    text(out, "method", cut(record.method, MAX_METHOD));
    text(out, "host", cut(record.host, MAX_HOST));
    text(out, "path", cut(record.target, MAX_TARGET));
    if record.target.len() > MAX_TARGET {
        // Says that the path was cut, and how long it was.
        number(out, "path_bytes", record.target.len() as u64);
    }
    word(out, "request_id", cut(record.request_id, MAX_ID));
    if let Some(trace_id) = &record.trace_id {
        word(out, "trace_id", cut(trace_id, MAX_ID));
    }
}

fn write_outcome(out: &mut Vec<u8>, record: &RequestRecord) {
    number(out, "status", u64::from(record.status));
    word(out, "reason", record.reason.code());
    if let Some(detail) = &record.detail {
        text(out, "detail", cut(detail, MAX_DETAIL));
    }
    if let Some(fault) = record.fault {
        word(out, "fault", fault);
    }
    number(out, "bytes_in", record.request_bytes);
    number(out, "bytes_out", record.response_bytes);
    number(out, "attempts", u64::from(record.attempts));
    key(out, "reused");
    out.extend_from_slice(if record.reused { b"true" } else { b"false" });
}

fn write_timings(out: &mut Vec<u8>, record: &RequestRecord) {
    let timings = &record.timings;
    milliseconds(out, "total_ms", Some(timings.total));
    milliseconds(out, "rate_delay_ms", timings.rate_delay);
    milliseconds(out, "queue_ms", timings.queue);
    milliseconds(out, "fault_delay_ms", timings.fault_delay);
    milliseconds(out, "connect_ms", timings.connect);
    milliseconds(out, "first_byte_ms", timings.first_byte);
    milliseconds(out, "upstream_ms", timings.upstream);
    milliseconds(out, "response_started_ms", timings.response_started);
    milliseconds(out, "overhead_ms", Some(timings.overhead()));
}

pub(super) fn key(out: &mut Vec<u8>, name: &'static str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

pub(super) fn text(out: &mut Vec<u8>, name: &'static str, value: &str) {
    key(out, name);
    out.push(b'"');
    write_escaped(out, value);
    out.push(b'"');
}

/// A value of ours, a checked name of the configuration or a checked id: it holds nothing that needs escaping.
pub(super) fn word(out: &mut Vec<u8>, name: &'static str, value: &str) {
    debug_assert!(value.bytes().all(is_plain), "{name}: {value:?}");
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f
}

pub(super) fn number(out: &mut Vec<u8>, name: &'static str, value: u64) {
    key(out, name);
    write_integer(out, value);
}

/// Milliseconds with three decimals, so to the microsecond.
pub(super) fn milliseconds(out: &mut Vec<u8>, name: &'static str, value: Option<Duration>) {
    let Some(value) = value else { return };
    key(out, name);
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    write_integer(out, micros / 1000);
    out.push(b'.');
    write_padded(out, micros % 1000, 3);
}

pub(super) fn write_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_padded(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10u64.pow(place) % 10) as u8);
    }
}

fn write_socket_address(out: &mut Vec<u8>, address: SocketAddr) {
    let (open, close): (&[u8], &[u8]) = if address.is_ipv6() { (b"\"[", b"]:") } else { (b"\"", b":") };
    out.extend_from_slice(open);
    write_ip(out, address.ip());
    out.extend_from_slice(close);
    write_integer(out, u64::from(address.port()));
    out.push(b'"');
}

/// RFC 3339 in UTC with milliseconds, as the access log has it.
pub fn utc(at: SystemTime) -> String {
    let mut out = Vec::new();
    write_time(&mut out, at);
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 3339 in UTC with milliseconds.
fn write_time(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_date(days);
    write_padded(out, year, 4);
    for (separator, value) in
        [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)]
    {
        out.push(separator);
        write_padded(out, value, 2);
    }
    out.push(b'.');
    write_padded(out, u64::from(since.subsec_millis()), 3);
    out.push(b'Z');
}

/// Days since 1970-01-01 to year, month, day: `civil_from_days` of Howard Hinnant's
/// <https://howardhinnant.github.io/date_algorithms.html>, for days after the epoch.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // The era's first day is 1 March of a year divisible by 400, so that the leap day comes last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// The longest start of `value` with at most `max` bytes that ends between characters.
pub(super) fn cut(value: &str, max: usize) -> &str {
    &value[..value.floor_char_boundary(max)]
}

/// The inside of a JSON string. Runs of plain bytes are copied at once.
fn write_escaped(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    let mut plain = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if is_plain(*byte) {
            continue;
        }
        out.extend_from_slice(&bytes[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 0xf)]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::telemetry::test_support::{aggregate, failed, ok, record};
    use crate::telemetry::{Reason, SourcesRecord, Telemetry};

    fn line(record: &RequestRecord) -> String {
        let mut out = Vec::new();
        write(&mut out, record, UNIX_EPOCH + Duration::from_millis(1_763_832_514_007), 86_400_000_123_999);
        String::from_utf8(out).unwrap()
    }

    fn parsed(record: &RequestRecord) -> Value {
        serde_json::from_str(&line(record)).unwrap()
    }

    #[test]
    fn a_line_says_everything_in_a_fixed_order() {
        let record = record(&Telemetry::quiet(), "users");

        let expected = concat!(
            r#"{"time":"2025-11-22T17:28:34.007Z","route":"users","upstream":"users","endpoint":"127.0.0.1:9001","#,
            r#""listener":"main","protocol":"HTTP/1.1","client":"10.1.2.3","method":"GET","host":"example.com","#,
            r#""path":"/users/7?full=1","request_id":"6f1d0f7c","trace_id":"0af7651916cd43dd8448eb211c80319c","#,
            r#""status":200,"reason":"ok","bytes_in":12,"bytes_out":3456,"attempts":1,"reused":true,"#,
            r#""started_us":86400000123,"total_ms":1250.000,"queue_ms":1.500,"first_byte_ms":1200.000,"upstream_ms":1248.000,"#,
            r#""response_started_ms":1202.000,"overhead_ms":0.500}"#,
            "\n"
        );
        assert_eq!(line(&record), expected);
    }

    #[test]
    fn stages_that_were_not_reached_are_left_out() {
        let mut record = record(&Telemetry::quiet(), "users");
        (record.upstream, record.endpoint, record.trace_id) = (None, None, None);
        record.timings = Default::default();
        record.reason = Reason::NoRoute;
        record.detail = Some("no \"route\"");
        record.client = "2001:db8::1".parse().unwrap();

        let value = parsed(&record);

        for absent in ["upstream", "endpoint", "trace_id", "queue_ms", "connect_ms", "upstream_ms"] {
            assert!(value.get(absent).is_none(), "{absent}");
        }
        assert_eq!(value["reason"], "no_route");
        assert_eq!(value["detail"], "no \"route\"");
        assert_eq!(value["client"], "2001:db8::1");
        assert_eq!(value["total_ms"], 0.0);
    }

    #[test]
    fn an_aggregate_names_its_sources_at_the_end_of_the_line() {
        let aggregate = aggregate(&["user1", "user2"]);
        let outcomes = [ok(0, 1002), failed(1, 2000, Reason::SourceTimeout)];
        let sources = SourcesRecord { aggregate: &aggregate, outcomes: &outcomes, usable: 1, asked: 2 };
        let plain = record(&Telemetry::quiet(), "users");
        let with = RequestRecord { sources: Some(&sources), ..plain.clone() };

        let (plain, with) = (line(&plain), line(&with));

        assert!(with.starts_with(plain.trim_end_matches("}\n")), "all else is the same");
        let value: Value = serde_json::from_str(&with).unwrap();
        assert_eq!(value["completeness"], "1/2");
        assert_eq!((&value["sources"][0]["name"], &value["sources"][1]["ms"]), (&"user1".into(), &2000.0.into()));
    }

    #[test]
    fn a_long_target_is_cut_between_characters_and_its_length_said() {
        let mut record = record(&Telemetry::quiet(), "users");
        let target = "/ä".repeat(2000);
        record.target = &target;

        let value = parsed(&record);

        let path = value["path"].as_str().unwrap();
        assert!(path.len() <= MAX_TARGET && path.len() > MAX_TARGET - 4 && record.target.starts_with(path));
        assert_eq!(value["path_bytes"], 6000);
    }

    #[test]
    fn dates_around_leap_days_are_right() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            write_time(&mut out, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_and_stays_on_its_line(host in any::<String>(), detail in "\\PC*|[\\x00-\\x7f]*") {
            let mut record = record(&Telemetry::quiet(), "users");
            record.host = &host;
            record.detail = Some(&detail);

            let text = line(&record);

            prop_assert_eq!(text.matches('\n').count(), 1);
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["host"].as_str().unwrap(), cut(&host, MAX_HOST));
            prop_assert_eq!(value["detail"].as_str().unwrap(), cut(&detail, MAX_DETAIL));
        }
    }
}
