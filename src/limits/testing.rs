//! Builders for the tests of this folder.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::key::{KeyLookup, RequestKeys, Seed};
use super::rate::RateLimiter;
use crate::config::model::*;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{ClientLimitMetrics, LimiterMetrics, QueueMetrics};

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

pub fn limiter_metrics() -> Arc<LimiterMetrics> {
    Telemetry::quiet().limiter("test")
}

pub fn client_limit_metrics() -> Arc<ClientLimitMetrics> {
    Telemetry::quiet().client_limit("test")
}

pub fn queue_metrics() -> Arc<QueueMetrics> {
    Telemetry::quiet().queue("route", "test")
}

/// A route that answers by itself, without limits.
pub fn route(name: &str) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            hosts: Vec::new(),
            path: PathPattern::Prefix(String::new()),
            methods: Vec::new(),
            headers: Vec::new(),
        },
        action: RouteAction::Respond { status: 200, content_type: "text/plain".into(), body: String::new() },
        deadline: Deadline::None,
        objective: Objective::default(),
        rate_limits: Vec::new(),
        in_flight: None,
        client_in_flight: None,
        on_client_gone: ClientGone::Cancel,
        max_body_bytes: 0,
        upgrades: Upgrades { protocols: Vec::new(), idle_timeout: Duration::from_secs(1) },
        rewrite: Rewrite::None,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        host: HostPolicy::Preserve,
        rate_limit_headers: true,
        mirror: None,
        faults: Vec::new(),
    }
}

pub fn config(routes: Vec<Route>) -> Config {
    Config {
        runtime: Runtime { threads: 1 },
        listeners: Vec::new(),
        admin: Admin { address: None, token: None },
        shutdown: Shutdown { accept_grace: Duration::ZERO, drain_timeout: Duration::ZERO },
        reload: Reload { watch: false },
        access_log: AccessLog { output: LogOutput::Off, sample: 0.0, buffer: 1 },
        log: Log { level: "info".into(), format: LogFormat::Text },
        metrics: Metrics { buckets: Vec::new(), peak_window: Duration::from_secs(1) },
        rate_limits: Vec::new(),
        in_flight: None,
        faults: Default::default(),
        record: None,
        upstreams: Vec::new(),
        routes: routes.into_iter().map(Arc::new).collect(),
        hash: String::new(),
    }
}
