//! One request, one record: everything that the access log and the metrics say about it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Reason;
use super::metrics::{RouteMetrics, UpstreamMetrics};
use crate::aggregate::Outcome;
use crate::config::model::aggregate::Aggregate;

/// The protocol between client and Forebay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

/// Everything about one request, filled while it runs and written once when it ends.
#[derive(Debug, Clone)]
pub struct RequestRecord<'r> {
    pub route: Arc<RouteMetrics>,
    /// `None` when the request never got as far as choosing one.
    pub upstream: Option<Arc<UpstreamMetrics>>,
    pub listener: Arc<str>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<std::net::SocketAddr>,
    pub protocol: Protocol,
    pub method: &'r str,
    pub host: &'r str,
    /// The normalised path with its query, as far as it was understood; cut to 2 KiB in the log.
    pub target: &'r str,
    pub client: IpAddr,
    pub request_id: &'r str,
    /// 32 hex digits.
    pub trace_id: Option<&'r str>,
    /// 0 when the connection ended without an answer.
    pub status: u16,
    pub reason: Reason,
    /// More about a failure, for the log only (may name addresses).
    pub detail: Option<&'r str>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub attempts: u32,
    /// True when the last attempt used a pooled connection.
    pub reused: bool,
    /// The first byte of the head.
    pub started: Instant,
    pub timings: Timings,
    /// What was done on purpose: `delay`, `abort`, ...
    pub fault: Option<&'static str>,
    /// Of an aggregate that was worked on for this request; borrowed, so that others carry one word more and no more.
    pub sources: Option<&'r SourcesRecord<'r>>,
}

/// What became of an aggregate's sources, for the log. Their metrics are counted by
/// [`AggregateMetrics::record`](super::AggregateMetrics::record), since requests may share an answer and work may go on
/// without one.
#[derive(Debug, Clone, Copy)]
pub struct SourcesRecord<'r> {
    /// Knows the names.
    pub aggregate: &'r Aggregate,
    /// One for each source.
    pub outcomes: &'r [Outcome],
    /// Sources that gave something usable, of so many that were asked.
    pub usable: usize,
    pub asked: usize,
}

/// Where the time went. Every stage that was not reached is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From the first byte of the head to the last byte of the answer.
    pub total: Duration,
    /// Waiting for a rate limit in `delay` mode.
    pub rate_delay: Option<Duration>,
    /// Waiting for an in-flight permit.
    pub queue: Option<Duration>,
    /// Held by a fault.
    pub fault_delay: Option<Duration>,
    /// TCP connect (and TLS) of the last attempt; `None` on a reused connection.
    pub connect: Option<Duration>,
    /// From the request being sent to the first byte of the upstream's answer.
    pub first_byte: Option<Duration>,
    /// From choosing an endpoint to the last byte of its answer.
    pub upstream: Option<Duration>,
    /// From the first byte of the head to the first byte of the answer sent to the client.
    pub response_started: Option<Duration>,
}

impl Timings {
    /// What Forebay itself added: the total without the queue, the rate delay, the delay of a fault and the upstream.
    pub fn overhead(&self) -> Duration {
        self.total
            .saturating_sub(self.rate_delay.unwrap_or_default())
            .saturating_sub(self.queue.unwrap_or_default())
            .saturating_sub(self.fault_delay.unwrap_or_default())
            .saturating_sub(self.upstream.unwrap_or_default())
    }
}
