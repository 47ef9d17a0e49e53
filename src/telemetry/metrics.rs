//! Metric handles, resolved once when the configuration is loaded and owned by what they measure.
//!
//! A request touches only what is here: arrays indexed by closed enums, and kept `prometheus` children. Nothing is
//! looked up by name on the way. The handles come from [`super::Telemetry`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus::{IntCounter, IntGauge};

use super::histogram::{Histogram, Layout};
use super::notable::Store;
use super::objective::Promises;
use super::scalars::Scalars;
use super::{InFlightMeter, Reason, RequestRecord, catalogue};
use crate::config::model::Objective;

/// One counter for each value of a closed list.
#[derive(Debug)]
pub(super) struct Counters<const N: usize>([AtomicU64; N]);

impl<const N: usize> Counters<N> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(super) fn inc(&self, index: usize) {
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }
}

/// Handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    pub name: Arc<str>,
    /// Enter with the instant of the head's first byte and leave with that of the answer's last byte
    /// (`guard.leave(at)`), so that its integral equals the sum of the durations.
    pub in_flight: Arc<InFlightMeter>,
    pub(super) reasons: Counters<{ Reason::COUNT }>,
    pub(super) codes: Counters<{ CODE_CLASSES.len() }>,
    pub(super) methods: Counters<{ METHODS.len() }>,
    pub(super) duration: Histogram,
    pub(super) first_byte: Histogram,
    pub(super) overhead: Histogram,
    pub(super) promises: Promises,
    pub(super) notable: Store,
    /// Requests of load tests, as they came.
    pub load_tests: IntCounter,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
}

/// Values of the label `code`, by hundreds of the status.
pub(super) const CODE_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Values of the label `method`; the last one, as in OpenTelemetry, is every method not known here.
pub(super) const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "CONNECT", "_OTHER"];

fn code_class(status: u16) -> usize {
    match status {
        100..600 => usize::from(status / 100),
        _ => 0,
    }
}

fn method_index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

impl RouteMetrics {
    pub(super) fn new(name: &str, scalars: &Scalars, layout: &Arc<Layout>, peak_window: Duration) -> Self {
        Self {
            name: name.into(),
            in_flight: Arc::new(InFlightMeter::new(peak_window)),
            reasons: Counters::new(),
            codes: Counters::new(),
            methods: Counters::new(),
            duration: Histogram::with_exemplars(layout.clone()),
            first_byte: Histogram::new(layout.clone()),
            overhead: Histogram::new(layout.clone()),
            promises: Promises::default(),
            notable: Store::default(),
            load_tests: scalars.counter(&catalogue::LOAD_TEST_REQUESTS, &[name]),
            request_bytes: scalars.counter(&catalogue::REQUEST_BYTES, &[name]),
            response_bytes: scalars.counter(&catalogue::RESPONSE_BYTES, &[name]),
        }
    }

    /// How many requests ended for this reason.
    pub fn requests(&self, reason: Reason) -> u64 {
        self.reasons.get(reason.index())
    }

    /// What the route promises from now on. Counters go on.
    pub fn promise(&self, objective: Objective) {
        self.promises.set(objective);
    }

    pub(super) fn finish(&self, record: &RequestRecord, at: SystemTime) {
        self.reasons.inc(record.reason.index());
        self.codes.inc(code_class(record.status));
        self.methods.inc(method_index(record.method));
        let timings = &record.timings;
        match &record.trace_id {
            Some(trace_id) => self.duration.observe_with_trace(timings.total, trace_id, at),
            None => self.duration.observe(timings.total),
        }
        if let Some(first_byte) = timings.response_started {
            self.first_byte.observe(first_byte);
        }
        self.overhead.observe(timings.overhead());
        self.promises.ended(record.reason, timings.total);
        self.request_bytes.inc_by(record.request_bytes);
        self.response_bytes.inc_by(record.response_bytes);
        self.notable.offer(record, at);
    }
}

/// Handles of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    pub name: Arc<str>,
    pub in_flight: Arc<InFlightMeter>,
    pub connections_opened: IntCounter,
    pub connections_reused: IntCounter,
    pub connections_closed: IntCounter,
    pub connections_idle: IntGauge,
    /// Further attempts after a failure to connect.
    pub connect_retries: IntCounter,
    pub health_checks_passed: IntCounter,
    pub health_checks_failed: IntCounter,
    pub dns_failures: IntCounter,
    pub(super) reasons: Counters<{ Reason::COUNT }>,
    pub(super) attempt_duration: Histogram,
    pub(super) connect_duration: Histogram,
    pub(super) first_byte: Histogram,
}

impl UpstreamMetrics {
    pub(super) fn new(name: &str, scalars: &Scalars, layout: &Arc<Layout>, peak_window: Duration) -> Self {
        Self {
            name: name.into(),
            in_flight: Arc::new(InFlightMeter::new(peak_window)),
            connections_opened: scalars.counter(&catalogue::UPSTREAM_CONNECTIONS_OPENED, &[name]),
            connections_reused: scalars.counter(&catalogue::UPSTREAM_CONNECTIONS_REUSED, &[name]),
            connections_closed: scalars.counter(&catalogue::UPSTREAM_CONNECTIONS_CLOSED, &[name]),
            connections_idle: scalars.gauge(&catalogue::UPSTREAM_CONNECTIONS_IDLE, &[name]),
            connect_retries: scalars.counter(&catalogue::UPSTREAM_CONNECT_RETRIES, &[name]),
            health_checks_passed: scalars.counter(&catalogue::UPSTREAM_HEALTH_CHECKS, &[name, "passed"]),
            health_checks_failed: scalars.counter(&catalogue::UPSTREAM_HEALTH_CHECKS, &[name, "failed"]),
            dns_failures: scalars.counter(&catalogue::UPSTREAM_DNS_FAILURES, &[name]),
            reasons: Counters::new(),
            attempt_duration: Histogram::new(layout.clone()),
            connect_duration: Histogram::new(layout.clone()),
            first_byte: Histogram::new(layout.clone()),
        }
    }

    /// One attempt ended: with which reason, after how long; `first_byte` and `connect` where they were reached.
    pub fn attempt(&self, reason: Reason, total: Duration, first_byte: Option<Duration>, connect: Option<Duration>) {
        self.reasons.inc(reason.index());
        self.attempt_duration.observe(total);
        if let Some(first_byte) = first_byte {
            self.first_byte.observe(first_byte);
        }
        if let Some(connect) = connect {
            self.connect_duration.observe(connect);
        }
    }

    /// How many attempts ended for this reason.
    pub fn attempts(&self, reason: Reason) -> u64 {
        self.reasons.get(reason.index())
    }
}

/// Handles of one rate limit.
#[derive(Debug)]
pub struct LimiterMetrics {
    /// Let through at once.
    pub admitted: IntCounter,
    pub rejected: IntCounter,
    /// Let through after a wait.
    pub delayed: IntCounter,
    /// Would have been rejected, but the limit is in shadow mode.
    pub shadow_rejected: IntCounter,
    /// Requests waiting now in `delay` mode.
    pub waiting: IntGauge,
    pub keys: IntGauge,
    pub evictions: IntCounter,
    /// Requests that shared the overflow bucket because the key table was full of keys still in use.
    pub overflows: IntCounter,
}

impl LimiterMetrics {
    pub(super) fn new(name: &str, scalars: &Scalars) -> Self {
        let decision = |decision| scalars.counter(&catalogue::RATE_LIMIT_DECISIONS, &[name, decision]);
        Self {
            admitted: decision("admitted"),
            rejected: decision("rejected"),
            delayed: decision("delayed"),
            shadow_rejected: decision("shadow_rejected"),
            waiting: scalars.gauge(&catalogue::RATE_LIMIT_WAITING, &[name]),
            keys: scalars.gauge(&catalogue::RATE_LIMIT_KEYS, &[name]),
            evictions: scalars.counter(&catalogue::RATE_LIMIT_EVICTIONS, &[name]),
            overflows: scalars.counter(&catalogue::RATE_LIMIT_OVERFLOWS, &[name]),
        }
    }
}

/// Handles of one in-flight limit with its queue.
#[derive(Debug)]
pub struct QueueMetrics {
    /// Permits given out now.
    pub in_use: IntGauge,
    /// Permits there are; set from the configuration.
    pub limit: IntGauge,
    /// Requests waiting now.
    pub depth: IntGauge,
    /// Requests that may wait; set from the configuration.
    pub capacity: IntGauge,
    pub admitted: IntCounter,
    pub rejected_full: IntCounter,
    pub rejected_timeout: IntCounter,
    /// Left the queue because its client was gone or its deadline had passed.
    pub abandoned: IntCounter,
    pub(super) wait: Histogram,
}

impl QueueMetrics {
    pub(super) fn new(scope: &str, name: &str, scalars: &Scalars, layout: &Arc<Layout>) -> Self {
        let result = |result| scalars.counter(&catalogue::QUEUE_RESULTS, &[scope, name, result]);
        Self {
            in_use: scalars.gauge(&catalogue::PERMITS_IN_USE, &[scope, name]),
            limit: scalars.gauge(&catalogue::PERMITS_LIMIT, &[scope, name]),
            depth: scalars.gauge(&catalogue::QUEUE_DEPTH, &[scope, name]),
            capacity: scalars.gauge(&catalogue::QUEUE_CAPACITY, &[scope, name]),
            admitted: result("admitted"),
            rejected_full: result("full"),
            rejected_timeout: result("timeout"),
            abandoned: result("abandoned"),
            wait: Histogram::new(layout.clone()),
        }
    }

    /// One request left the queue, with or without a permit, after this long; zero when it did not wait.
    pub fn waited(&self, wait: Duration) {
        self.wait.observe(wait);
    }
}

/// Handles of a route's in-flight limit per client key.
#[derive(Debug)]
pub struct ClientLimitMetrics {
    pub admitted: IntCounter,
    pub rejected: IntCounter,
    /// Keys in the table now.
    pub keys: IntGauge,
    /// Requests that shared the overflow count because the table was full of keys in use.
    pub overflows: IntCounter,
}

impl ClientLimitMetrics {
    /// All its metrics: their label is the route's, which may stay while its limit goes.
    pub(super) const METRICS: [&'static catalogue::Metric; 3] =
        [&catalogue::CLIENT_LIMIT_DECISIONS, &catalogue::CLIENT_LIMIT_KEYS, &catalogue::CLIENT_LIMIT_OVERFLOWS];

    pub(super) fn new(route: &str, scalars: &Scalars) -> Self {
        Self {
            admitted: scalars.counter(&catalogue::CLIENT_LIMIT_DECISIONS, &[route, "admitted"]),
            rejected: scalars.counter(&catalogue::CLIENT_LIMIT_DECISIONS, &[route, "rejected"]),
            keys: scalars.gauge(&catalogue::CLIENT_LIMIT_KEYS, &[route]),
            overflows: scalars.counter(&catalogue::CLIENT_LIMIT_OVERFLOWS, &[route]),
        }
    }
}

/// Handles of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    pub name: Arc<str>,
    pub open: IntGauge,
    pub accepted: IntCounter,
    /// Refused because `max_connections` were open.
    pub rejected: IntCounter,
    pub accept_errors: IntCounter,
    pub tls_handshake_failures: IntCounter,
    pub head_errors: IntCounter,
}

impl ListenerMetrics {
    pub(super) fn new(name: &str, scalars: &Scalars) -> Self {
        Self {
            name: name.into(),
            open: scalars.gauge(&catalogue::CONNECTIONS_OPEN, &[name]),
            accepted: scalars.counter(&catalogue::CONNECTIONS_ACCEPTED, &[name]),
            rejected: scalars.counter(&catalogue::CONNECTIONS_REJECTED, &[name]),
            accept_errors: scalars.counter(&catalogue::ACCEPT_ERRORS, &[name]),
            tls_handshake_failures: scalars.counter(&catalogue::TLS_HANDSHAKE_FAILURES, &[name]),
            head_errors: scalars.counter(&catalogue::HEAD_ERRORS, &[name]),
        }
    }
}

/// Handles of the work, at one upstream or at many, that outlives its client.
#[derive(Debug)]
pub struct DetachedMetrics {
    pub running: IntGauge,
    pub finished: IntCounter,
    /// Ended by the deadline, a failure or the shutdown.
    pub cut: IntCounter,
}

/// One piece of work that goes on without its client: counted as cut when it is dropped before `finished`.
#[derive(Debug)]
pub struct Detached<'m> {
    metrics: &'m DetachedMetrics,
    finished: bool,
}

impl Detached<'_> {
    pub fn finished(mut self) {
        self.finished = true;
    }
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        self.metrics.running.dec();
        let ended = if self.finished { &self.metrics.finished } else { &self.metrics.cut };
        ended.inc();
    }
}

impl DetachedMetrics {
    /// The client has left and its work goes on.
    pub fn begin(&self) -> Detached<'_> {
        self.running.inc();
        Detached { metrics: self, finished: false }
    }

    pub(super) fn new(scalars: &Scalars) -> Self {
        Self {
            running: scalars.gauge(&catalogue::DETACHED_TASKS, &[]),
            finished: scalars.counter(&catalogue::DETACHED_TASKS_ENDED, &["finished"]),
            cut: scalars.counter(&catalogue::DETACHED_TASKS_ENDED, &["cut"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class_and_nonsense_has_none() {
        let classes: Vec<_> =
            [0, 99, 100, 200, 304, 499, 599, 600, u16::MAX].map(|s| CODE_CLASSES[code_class(s)]).into();
        assert_eq!(classes, ["none", "none", "1xx", "2xx", "3xx", "4xx", "5xx", "none", "none"]);
    }

    #[test]
    fn methods_made_up_by_clients_share_one_series() {
        assert_eq!(METHODS[method_index("GET")], "GET");
        assert_eq!(METHODS[method_index("get")], "_OTHER");
        assert_eq!(METHODS[method_index("EVIL42")], "_OTHER");
    }
}
