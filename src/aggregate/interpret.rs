//! From an upstream's answer to the value of a source: status, encoding, format, depth, shape.

use std::sync::Arc;

use bytes::Bytes;

use super::call::{Answer, Failed};
use super::decode::{DecodeError, decode};
use super::json::{Json, JsonError};
use super::outcome::Value;
use super::shape::shape;
use crate::config::model::aggregate::{Format, Source};
use crate::telemetry::Reason;

/// Bodies beyond this are read on the blocking pool. Nothing may hold the event loop for more than about half a
/// millisecond; checking and cutting JSON goes at 0.5 to 1 GB/s, so that is what this many bytes take.
pub(super) const LARGE: usize = 256 << 10;

/// The same for encoded bodies, which grow when they are read: at the usual tenfold this is 640 KiB of JSON, and inflating
/// is slower than checking.
const LARGE_ENCODED: usize = 64 << 10;

/// What a body became.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Read {
    pub value: Value,
    /// Bytes that decoding added to those which arrived.
    pub decoded: u64,
}

/// Reads an answer, off the event loop when it is large.
pub(super) async fn interpret(source: &Arc<Source>, answer: Answer) -> Result<Read, Failed> {
    check_status(source, answer.status)?;
    if !is_large(&answer) {
        return read(source, answer);
    }
    let source = source.clone();
    off_loop(move || read(&source, answer)).await?
}

/// Work that would hold up everything else on this thread. Dropping the future does not end it: it is bounded by the
/// limits of the bodies it works on.
pub(super) async fn off_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failed {
        reason: Reason::Internal,
        detail: Some(format!("work on a large body: {error}")),
        retry_after: None,
    })
}

fn is_large(answer: &Answer) -> bool {
    answer.body.len() > if answer.content_encoding.is_some() { LARGE_ENCODED } else { LARGE }
}

/// Redirects are not followed: a source names where its answer is, an answer does not.
fn check_status(source: &Source, status: u16) -> Result<(), Failed> {
    if source.success.iter().any(|range| (range.first..=range.last).contains(&status)) {
        return Ok(());
    }
    let reason = if status >= 500 { Reason::Upstream5xx } else { Reason::UpstreamStatus };
    Err(failed(reason, format!("status {status}")))
}

fn read(source: &Source, answer: Answer) -> Result<Read, Failed> {
    if has_no_body(source, &answer) && source.format != Format::Raw {
        return Ok(Read { value: Value::Json(Json::null()), decoded: 0 });
    }
    let body = decode(answer.content_encoding.as_deref(), answer.body, source.max_body_bytes).map_err(undecodable)?;
    let decoded = if answer.content_encoding.is_some() { body.len() as u64 } else { 0 };
    let value = match format_of(source.format, answer.content_type.as_deref()) {
        Format::Json => Value::Json(shaped(source, parse(body, source.max_depth)?)?),
        Format::Raw => Value::Raw { content_type: answer.content_type, body },
        Format::Text | Format::Auto => Value::Json(text(&body)?),
    };
    Ok(Read { value, decoded })
}

/// RFC 9110 §9.3.2, §15.3.5, §15.3.6.
fn has_no_body(source: &Source, answer: &Answer) -> bool {
    source.method == "HEAD" || matches!(answer.status, 204 | 205)
}

fn format_of(format: Format, content_type: Option<&str>) -> Format {
    match format {
        Format::Auto if content_type.is_some_and(is_json) => Format::Json,
        Format::Auto => Format::Text,
        stated => stated,
    }
}

/// `application/json` or a type with the suffix `+json` (RFC 6839 §3.1).
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

fn parse(body: Bytes, max_depth: usize) -> Result<Json, Failed> {
    Json::parse(body, max_depth).map_err(|error| match error {
        JsonError::Invalid(offset) => failed(Reason::UpstreamBadBody, format!("no JSON: wrong at byte {offset}")),
        JsonError::TooDeep => failed(Reason::UpstreamTooDeep, format!("nested deeper than {max_depth}")),
    })
}

fn shaped(source: &Source, json: Json) -> Result<Json, Failed> {
    shape(source, json).map_err(|error| failed(Reason::UpstreamBadBody, error.to_string()))
}

fn text(body: &Bytes) -> Result<Json, Failed> {
    let text = std::str::from_utf8(body)
        .map_err(|error| failed(Reason::UpstreamBadBody, format!("no UTF-8: wrong at byte {}", error.valid_up_to())))?;
    Ok(Json::string(text))
}

fn undecodable(error: DecodeError) -> Failed {
    failed(error.reason(), error.to_string())
}

fn failed(reason: Reason, detail: String) -> Failed {
    Failed { reason, detail: Some(detail), retry_after: None }
}
