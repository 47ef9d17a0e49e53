//! From an upstream's answer to the value of a source: status, encoding, format, depth, shape.

use std::sync::Arc;

use bytes::Bytes;

use super::call::{Answer, Failed};
use super::decode::{DecodeError, decode};
use super::json::{Json, JsonError};
use super::off_loop::{LARGE, LARGE_ENCODED, off_loop};
use super::outcome::Value;
use super::shape::shape;
use crate::config::model::aggregate::{Format, Source};
use crate::telemetry::Reason;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::testing::{json_path, source};
    use crate::config::model::StatusRange;

    fn of(status: u16, content_type: &str, body: &[u8]) -> Answer {
        let content_type = Some(content_type).filter(|text| !text.is_empty()).map(str::to_owned);
        Answer { status, content_type, content_encoding: None, body: Bytes::copy_from_slice(body) }
    }

    fn reading(format: Format) -> Arc<Source> {
        Arc::new(Source { format, ..source("s", "/") })
    }

    fn json(text: &str) -> Value {
        Value::Json(Json::raw_literal(text))
    }

    async fn value(source: &Arc<Source>, answer: Answer) -> Result<Value, Reason> {
        interpret(source, answer).await.map(|read| read.value).map_err(|failed| failed.reason)
    }

    #[tokio::test]
    async fn the_content_type_decides_only_when_asked_to() {
        for (format, content_type, expected) in [
            (Format::Json, "text/plain", json("1.0")),
            (Format::Text, "application/json", json(r#""1.0""#)),
            (Format::Auto, "application/json", json("1.0")),
            (Format::Auto, "Application/Problem+JSON; charset=utf-8", json("1.0")),
            (Format::Auto, "application/jsonx", json(r#""1.0""#)),
            (Format::Auto, "", json(r#""1.0""#)),
        ] {
            let read = value(&reading(format), of(200, content_type, b"1.0")).await;
            assert_eq!(read, Ok(expected), "{format:?} {content_type}");
        }
    }

    #[tokio::test]
    async fn raw_is_passed_through_with_its_type() {
        let image = [0xff, 0xd8, 0x00];

        let read = value(&reading(Format::Raw), of(200, "image/jpeg", &image)).await;

        let body = Bytes::copy_from_slice(&image);
        assert_eq!(read, Ok(Value::Raw { content_type: Some("image/jpeg".into()), body }));
    }

    #[tokio::test]
    async fn text_must_be_text() {
        assert_eq!(value(&reading(Format::Text), of(200, "", b"caf\xc3\xa9\n")).await, Ok(json("\"café\\n\"")));
        assert_eq!(value(&reading(Format::Text), of(200, "", b"caf\xe9")).await, Err(Reason::UpstreamBadBody));
        assert_eq!(value(&reading(Format::Text), of(200, "", b"")).await, Ok(json(r#""""#)));
    }

    #[tokio::test]
    async fn no_content_is_null_and_an_empty_answer_is_not_json() {
        for status in [204, 205] {
            assert_eq!(value(&reading(Format::Json), of(status, "", b"")).await, Ok(json("null")));
        }
        assert_eq!(value(&reading(Format::Json), of(200, "", b"")).await, Err(Reason::UpstreamBadBody));
        let head = Arc::new(Source { method: "HEAD".into(), ..source("s", "/") });
        assert_eq!(value(&head, of(200, "application/json", b"")).await, Ok(json("null")));
        let selecting = Arc::new(Source { select: Some(json_path("a")), ..source("s", "/") });
        assert_eq!(value(&selecting, of(204, "", b"")).await, Ok(json("null")));
        assert_eq!(value(&selecting, of(200, "", b"{}")).await, Err(Reason::UpstreamBadBody));
    }

    #[tokio::test]
    async fn only_the_configured_statuses_are_answers() {
        let strict = Arc::new(Source { success: vec![StatusRange { first: 200, last: 200 }], ..source("s", "/") });

        for (status, expected) in [
            (200, Ok(json("1"))),
            (204, Err(Reason::UpstreamStatus)),
            (301, Err(Reason::UpstreamStatus)),
            (404, Err(Reason::UpstreamStatus)),
            (500, Err(Reason::Upstream5xx)),
            (599, Err(Reason::Upstream5xx)),
        ] {
            assert_eq!(value(&strict, of(status, "", b"1")).await, expected, "{status}");
        }
    }

    #[tokio::test]
    async fn an_unknown_encoding_is_refused_and_a_known_one_is_counted() {
        let encoded = |coding: &str, body: Vec<u8>| Answer {
            content_encoding: Some(coding.into()),
            ..of(200, "application/json", &body)
        };
        assert_eq!(value(&reading(Format::Json), encoded("zstd", b"1".into())).await, Err(Reason::UpstreamBadBody));
        // "[1]", by Python's `gzip.compress`.
        let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x8b\x36\x8c\x05\x00\xb8\x32\x2f\x4c\x03\x00\x00\x00";
        let read = interpret(&reading(Format::Json), encoded("gzip", gzip.to_vec())).await;
        assert_eq!(read, Ok(Read { value: json("[1]"), decoded: 3 }));
    }
}
