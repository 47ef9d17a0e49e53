//! Metric handles, resolved once when the configuration is loaded and owned by what they measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::Reason;

/// Handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    pub name: Arc<str>,
    pub in_flight: InFlightMeter,
}

/// Handles of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    pub name: Arc<str>,
    pub in_flight: InFlightMeter,
    pub connections_opened: IntCounter,
    pub connections_reused: IntCounter,
    pub connections_idle: IntGauge,
}

impl UpstreamMetrics {
    /// One attempt ended: with which reason, after how long; `first_byte` and `connect` where they were reached.
    pub fn attempt(
        &self,
        _reason: Reason,
        _total: Duration,
        _first_byte: Option<Duration>,
        _connect: Option<Duration>,
    ) {
    }
}

/// Handles of one rate limit.
#[derive(Debug)]
pub struct LimiterMetrics {
    pub admitted: IntCounter,
    pub rejected: IntCounter,
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

/// Handles of one in-flight limit with its queue.
#[derive(Debug)]
pub struct QueueMetrics {
    /// Permits given out now.
    pub in_use: IntGauge,
    /// Requests waiting now.
    pub depth: IntGauge,
    pub admitted: IntCounter,
    pub rejected_full: IntCounter,
    pub rejected_timeout: IntCounter,
}

impl QueueMetrics {
    /// One request left the queue, with or without a permit, after this long; zero when it did not wait.
    pub fn waited(&self, _wait: Duration) {}
}

/// In flight: now, windowed peak, and the time integral.
#[derive(Debug, Default)]
pub struct InFlightMeter {
    now: AtomicU64,
}

impl InFlightMeter {
    pub fn enter(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }

    pub fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}
