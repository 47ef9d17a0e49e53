//! Builders for the tests of this folder.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::key::{KeyLookup, RequestKeys, Seed};
use super::rate::RateLimiter;
use crate::config::model::{InFlight, LimitKey, Queue, QueueOrder, Rate, RateLimit, RateMode};
use crate::telemetry::metrics::LimiterMetrics;

#[derive(Default)]
pub struct Head {
    pub headers: Vec<(&'static str, &'static str)>,
    pub query: Vec<(&'static str, &'static str)>,
}

fn value<'a>(pairs: &'a [(&'static str, &'static str)], name: &str) -> Option<&'a [u8]> {
    pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes())
}

impl KeyLookup for Head {
    fn header(&self, name: &str) -> Option<&[u8]> {
        value(&self.headers, name)
    }

    fn query(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        value(&self.query, name).map(Cow::Borrowed)
    }
}

pub fn keys_of(head: &Head) -> RequestKeys<'_> {
    RequestKeys { client: IpAddr::V4(Ipv4Addr::LOCALHOST), lookup: head }
}

/// The keys of a client with this number.
pub fn client(n: u32) -> RequestKeys<'static> {
    const NOTHING: &Head = &Head { headers: Vec::new(), query: Vec::new() };
    RequestKeys { client: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | n)), lookup: NOTHING }
}

pub const BY_CLIENT: LimitKey = LimitKey::ClientIp { v4_prefix: 32, v6_prefix: 64 };

/// `count` requests per `seconds`, un-keyed, rejecting.
pub fn rate(count: u32, seconds: u64, burst: u32) -> RateLimit {
    RateLimit {
        name: "test".into(),
        rate: Rate { count, per: Duration::from_secs(seconds) },
        burst,
        key: LimitKey::None,
        max_keys: 100,
        mode: RateMode::Reject,
        max_delayed: 100,
    }
}

pub fn in_flight(max: usize, capacity: usize, timeout: Duration, order: QueueOrder) -> InFlight {
    InFlight { max, queue: Queue { capacity, timeout, order } }
}

pub fn limiter(config: RateLimit) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(Arc::new(config), Seed(1), limiter_metrics()))
}

fn counter() -> IntCounter {
    IntCounter::new("test", "a test").expect("a valid name")
}

fn gauge() -> IntGauge {
    IntGauge::new("test", "a test").expect("a valid name")
}

pub fn limiter_metrics() -> Arc<LimiterMetrics> {
    Arc::new(LimiterMetrics {
        admitted: counter(),
        rejected: counter(),
        delayed: counter(),
        shadow_rejected: counter(),
        waiting: gauge(),
        keys: gauge(),
        evictions: counter(),
        overflows: counter(),
    })
}
