//! Access logs: Forebay's own, nginx's `combined`, better with `$msec` and `$request_time`, and Envoy's default.
//!
//! Forebay writes a line when a request has ended, in milliseconds, with the time that it took. What a client did not
//! wait for has no status and no duration that an answer could be compared with.
//!
//! nginx writes a line when a request has ended, so its arrival is `$msec - $request_time`. `combined` alone has
//! whole seconds and no duration: sending it as it stands would be a burst at the beginning of each second, so the
//! lines are spread over theirs, by the seed. Logs have no header fields and no bodies.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Found, decimal, instant};
use crate::load::SECOND;
use crate::load::arrivals::{Stream, unit};
use crate::load::report::format::many;
use crate::replay::{Record, method, path, status};
use crate::telemetry::Reason;

const NOT_A_LINE: &str = "lines that are not in the log's format";
const NOT_A_REQUEST: &str = "lines without a request that can be sent";

pub(super) fn nginx(text: &str, seed: u64, found: &mut Found) {
    let mut spread = 0_u64;
    each(text, found, |line, number| {
        let line = nginx_line(line)?;
        let Some(at) = line.arrived else {
            spread += 1;
            let within = unit(seed, Stream::Jitter, number as u64) * SECOND as f64;
            return Some(Line { arrived: Some(line.logged.saturating_add(within as u64)), ..line });
        };
        Some(Line { arrived: Some(at), ..line })
    });
    if spread > 0 {
        found.notes.push(format!(
            "{spread} lines have whole seconds, at which requests ended: they were spread over their second; \
             add `$msec $request_time` to the log format for true arrivals"
        ));
    }
}

/// What is read of a line of our own log; it has more, and may get more.
#[derive(Deserialize)]
struct OwnLine<'a> {
    time: &'a str,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    /// There when the log holds the beginning of the path only.
    path_bytes: Option<u64>,
    reason: &'a str,
    status: Option<u16>,
    total_ms: f64,
}

/// Whether a line is one of our own log.
pub(super) fn is_own(line: &str) -> bool {
    serde_json::from_str::<OwnLine<'_>>(line).is_ok()
}

pub(super) fn forebay(text: &str, found: &mut Found) {
    each(text, found, |line, _| own_line(line));
}

fn own_line(line: &str) -> Option<Line<'_>> {
    let own: OwnLine<'_> = serde_json::from_str(line).ok()?;
    let logged = instant::rfc3339(own.time)?;
    let took = Some(own.total_ms).filter(|ms| ms.is_finite() && *ms >= 0.0)?;
    let took = (took * 1e6).round() as u64;
    // One word is no request: it is left out as what it is, and not as a line that is not understood.
    let request = match own.path_bytes {
        Some(_) => own.method,
        None => format!("{} {}", own.method, own.path).into(),
    };
    let is_answered = own.reason != Reason::ClientGone.code();
    Some(Line {
        logged,
        arrived: Some(logged.saturating_sub(took)),
        request,
        status: own.status.filter(|_| is_answered).and_then(status),
        duration: Some(took).filter(|_| is_answered),
    })
}

pub(super) fn envoy(text: &str, found: &mut Found) {
    each(text, found, |line, _| envoy_line(line));
}

/// A line of a log, in nanoseconds.
struct Line<'a> {
    logged: u64,
    arrived: Option<u64>,
    /// `GET /users HTTP/1.1`
    request: Cow<'a, str>,
    status: Option<u16>,
    duration: Option<u64>,
}

fn each<'a>(text: &'a str, found: &mut Found, mut read: impl FnMut(&'a str, usize) -> Option<Line<'a>>) {
    let mut without_body = 0_u64;
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let Some(line) = read(line, number) else {
            found.leave_out(NOT_A_LINE, number);
            continue;
        };
        let Some(record) = record(&line) else {
            found.leave_out(NOT_A_REQUEST, number);
            continue;
        };
        without_body += u64::from(!record.method.is_safe());
        found.take(None, record);
    }
    if without_body > 0 {
        found.notes.push(format!("{} may have had a body, which the log does not hold", many(without_body, "request")));
    }
}

fn record(line: &Line<'_>) -> Option<Record> {
    let mut words = line.request.split(' ');
    let (verb, place, version) = (words.next()?, words.next()?, words.next());
    let is_http = version.is_none_or(|version| version.starts_with("HTTP/")) && words.next().is_none();
    if !is_http {
        return None;
    }
    let mut record = Record::new(line.arrived.unwrap_or(line.logged), method(verb).ok()?, path(place).ok()?);
    record.status = line.status;
    record.duration = line.duration;
    Some(record)
}

fn nginx_line(line: &str) -> Option<Line<'_>> {
    let fields = fields(line);
    let number = |index: usize| fields.get(index)?.plain()?.parse::<u16>().ok().and_then(status);
    // `$msec $request_time "$request" $status`
    if let [Field::Plain(msec), Field::Plain(took), Field::Quoted(request), ..] = fields.as_slice() {
        let (logged, duration) = (decimal(msec, SECOND)?, decimal(took, SECOND)?);
        let arrived = logged.checked_sub(duration);
        let request = Cow::Borrowed(*request);
        return Some(Line { logged, arrived, request, status: number(3), duration: Some(duration) });
    }
    // `$remote_addr - $remote_user [$time_local] "$request" $status $bytes "$referer" "$agent"`, then what was added.
    let date = fields.iter().position(|field| matches!(field, Field::Bracketed(_)))?;
    let (Some(Field::Bracketed(time)), Some(Field::Quoted(request))) = (fields.get(date), fields.get(date + 1)) else {
        return None;
    };
    let logged = instant::common_log(time)?;
    let (status, request) = (number(date + 2), Cow::Borrowed(*request));
    let added = fields.get(date + 6..).unwrap_or_default();
    let exact = added.windows(2).find_map(|pair| Some((pair[0].decimal()?, pair[1].decimal()?)));
    // `$msec` is the same instant as the date; other numbers are something else.
    match exact.filter(|(msec, _)| msec.abs_diff(logged) <= 2 * SECOND) {
        Some((msec, duration)) => {
            let arrived = msec.checked_sub(duration);
            Some(Line { logged: msec, arrived, request, status, duration: Some(duration) })
        }
        None => Some(Line { logged, arrived: None, request, status, duration: None }),
    }
}

/// `[START_TIME] "METHOD PATH PROTOCOL" RESPONSE_CODE FLAGS ... BYTES_RECEIVED BYTES_SENT DURATION ...`. Newer versions
/// have details between the flags and the bytes, none of which are three numbers in a row.
fn envoy_line(line: &str) -> Option<Line<'_>> {
    let fields = fields(line);
    let [Field::Bracketed(time), Field::Quoted(request), Field::Plain(code), _flags, rest @ ..] = fields.as_slice()
    else {
        return None;
    };
    let logged = instant::rfc3339(time)?;
    let milliseconds = rest.windows(3).find_map(|three| {
        let number = |field: &Field<'_>| field.plain()?.parse::<u64>().ok();
        number(&three[0]).and(number(&three[1])).and(number(&three[2]))
    });
    let status = code.parse().ok().and_then(status);
    let duration = milliseconds.and_then(|ms| ms.checked_mul(1_000_000));
    Some(Line { logged, arrived: Some(logged), request: Cow::Borrowed(request), status, duration })
}

/// A part of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'a> {
    Plain(&'a str),
    Quoted(&'a str),
    Bracketed(&'a str),
}

impl<'a> Field<'a> {
    fn plain(self) -> Option<&'a str> {
        if let Field::Plain(text) = self { Some(text) } else { None }
    }

    /// Seconds with a fraction, as nginx writes `$msec` and `$request_time`; quoted by some.
    fn decimal(self) -> Option<u64> {
        let (Field::Plain(text) | Field::Quoted(text)) = self else { return None };
        decimal(text, SECOND).filter(|_| text.contains('.'))
    }
}

fn fields(mut line: &str) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    loop {
        line = line.trim_start_matches([' ', '\t']);
        let Some(first) = line.chars().next() else { return fields };
        let (field, rest) = match first {
            '"' => {
                // nginx writes a quote within as \x22, Envoy not at all: the next one ends the field.
                let (text, rest) = line[1..].split_once('"').unwrap_or((&line[1..], ""));
                (Field::Quoted(text), rest)
            }
            '[' => {
                let (text, rest) = line[1..].split_once(']').unwrap_or((&line[1..], ""));
                (Field::Bracketed(text), rest)
            }
            _ => {
                let end = line.find([' ', '\t']).unwrap_or(line.len());
                (Field::Plain(&line[..end]), &line[end..])
            }
        };
        fields.push(field);
        line = rest;
    }
}
