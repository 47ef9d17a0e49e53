//! A line of the sidecar's access log, as far as the waterfall needs it.

use std::borrow::Cow;

use serde::Deserialize;

use super::RequestKey;
use super::segments::Seen;

/// What is read; a line has more, and may get more.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    trace_id: Option<Cow<'a, str>>,
    started_us: u64,
    total_ms: f64,
    rate_delay_ms: Option<f64>,
    queue_ms: Option<f64>,
    fault_delay_ms: Option<f64>,
    connect_ms: Option<f64>,
    upstream_ms: Option<f64>,
    response_started_ms: Option<f64>,
}

/// One request, as the sidecar saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub request_id: Box<str>,
    pub trace: Option<RequestKey>,
    pub seen: Seen,
}

impl Line {
    /// `None` for anything else than a line of Forebay's access log.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let fields: Fields<'_> = serde_json::from_slice(text).ok()?;
        let seen = Seen {
            started: fields.started_us.checked_mul(1000)?,
            total: nanoseconds(fields.total_ms),
            rate_delay: fields.rate_delay_ms.map_or(0, nanoseconds),
            queue: fields.queue_ms.map_or(0, nanoseconds),
            fault_delay: fields.fault_delay_ms.map_or(0, nanoseconds),
            connect: fields.connect_ms.map_or(0, nanoseconds),
            upstream: fields.upstream_ms.map_or(0, nanoseconds),
            response_started: fields.response_started_ms.map(nanoseconds),
        };
        let trace = fields.trace_id.map(|id| RequestKey::of(id.as_bytes()));
        Some(Self { request_id: fields.request_id.into(), trace, seen })
    }

    pub fn key(&self) -> RequestKey {
        RequestKey::of(self.request_id.as_bytes())
    }
}

/// Three decimals are microseconds, which are whole. What is negative or no number is nothing.
fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1000.0).round() as u64 * 1000
}
