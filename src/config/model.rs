//! The configuration as the program uses it: every value present, parsed, checked and in its final unit.
//!
//! What the user wrote lives in `elements`, which resolve into these types. Nothing here knows about
//! TOML, spans, tokio, pingora or prometheus, and nothing here is an `Option` unless absence means
//! something to the reader ("no limit", "not set"). The defaults stand beside the keys in `elements`.

pub mod aggregate;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::latency::Latency;

/// A whole, checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub runtime: Runtime,
    pub listeners: Vec<Arc<Listener>>,
    pub admin: Admin,
    pub shutdown: Shutdown,
    pub reload: Reload,
    pub access_log: AccessLog,
    pub log: Log,
    pub metrics: Metrics,
    /// Limits over all routes together, in the order of the file.
    pub rate_limits: Vec<Arc<RateLimit>>,
    /// Requests in flight over all routes together.
    pub in_flight: Option<InFlight>,
    pub faults: Faults,
    pub record: Option<Arc<Record>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub routes: Vec<Arc<Route>>,
    /// Lower-case hex FNV-1a/64 of the effective configuration (secrets included as a hash), stable
    /// across processes: two instances with the same hash run the same configuration.
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Worker threads of the data path; 0 means one for each available core.
    pub threads: usize,
}

/// One socket that takes requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    pub tls: Option<ListenerTls>,
    /// Accept HTTP/2 (by ALPN under TLS, by prior knowledge in the clear).
    pub http2: bool,
    pub http2_max_streams: u32,
    pub http2_stream_window: u32,
    pub http2_connection_window: u32,
    pub max_connections: usize,
    pub max_requests_per_connection: u64,
    pub max_head_bytes: usize,
    pub max_headers: usize,
    pub timeouts: ListenerTimeouts,
    /// The least rate at which a request body must arrive, in bytes per second, measured over the whole
    /// body after a grace of 5 s; 0 = no minimum.
    pub min_body_rate: u64,
    /// Peers whose `X-Forwarded-*`, `Forwarded`, request id and deadline fields are believed.
    pub trusted_proxies: Vec<Cidr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTimeouts {
    pub tls_handshake: Duration,
    /// The whole request head, from its first byte.
    pub head: Duration,
    /// The whole request body, from the end of the head.
    pub body: Duration,
    /// Between requests of one connection (HTTP/1), or without any open stream (HTTP/2).
    pub idle: Duration,
    /// Writing to a client that does not read: the longest time without any progress.
    pub write: Duration,
    /// A connection's whole life; it ends after the request that is running then.
    pub lifetime: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ListenerTls {
    /// PEM files: certificate chain and private key, read again on reload.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// PEM file of CAs: clients must present a certificate signed by one of them.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// `None`: the admin listener is switched off.
    pub address: Option<SocketAddr>,
    /// Needed in `Authorization: Bearer ...` on every path but `/livez` and `/readyz` when set; must be set when the
    /// address is not loopback.
    pub token: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// After SIGTERM: `/readyz` fails, connections are still accepted for this long.
    pub accept_grace: Duration,
    /// After that: the longest time that requests in flight may take to end.
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// Reload when the content of the file (or of a certificate) changes, besides on SIGHUP.
    pub watch: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub output: LogOutput,
    /// The part of the requests with reason `ok` that is logged, 0.0 to 1.0; every other request is logged.
    pub sample: f64,
    /// Lines that may wait for the writer; beyond it lines are dropped and counted.
    pub buffer: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogOutput {
    Off,
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A `tracing` filter: `info`, `forebay=debug,warn`, ...
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Upper bounds of the classic histogram buckets, seconds, ascending.
    pub buckets: Vec<f64>,
    /// Width of the window over which the peak of the in-flight gauges is taken.
    pub peak_window: Duration,
}

/// A service behind Forebay.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: String,
    pub endpoints: Vec<EndpointAddress>,
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTls>,
    pub timeouts: UpstreamTimeouts,
    pub in_flight: Option<InFlight>,
    /// Idle connections kept for reuse, over all endpoints.
    pub max_idle_connections: usize,
    pub health: Option<HealthCheck>,
    /// How often host names are resolved again.
    pub dns_refresh: Duration,
    /// Bodies and heads that an answer may have; `None` = any size, streamed.
    pub max_response_head_bytes: usize,
    pub max_response_body_bytes: Option<u64>,
    /// Extra attempts after a failure to connect, each to another endpoint where there is one.
    /// Only when nothing of the request has been sent, so it is safe for every method.
    pub connect_retries: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Socket(SocketAddr),
    /// A DNS name and port; resolved off the data path.
    Name {
        host: String,
        port: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    Http2,
    /// With TLS, what ALPN settles on; HTTP/1.1 without TLS.
    Auto,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Name sent as SNI and checked against the certificate; by default the host name of the endpoint.
    pub server_name: Option<String>,
    /// PEM file of the CAs to trust instead of the system's.
    pub ca: Option<PathBuf>,
    pub verify: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    pub tls: Duration,
    /// From the end of the request (head, or whole body when there is one) to the first byte of the answer's head.
    pub first_byte: Duration,
    /// The longest silence inside an answer.
    pub between_bytes: Duration,
    /// How long an idle pooled connection is kept.
    pub idle: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Consecutive failures that take an endpoint out, and successes that bring it back.
    pub unhealthy_after: u32,
    pub healthy_after: u32,
    /// Statuses that count as healthy.
    pub expect: Vec<StatusRange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    /// Inclusive.
    pub last: u16,
}

/// At most `max` at once; `queue` holds the next ones for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    pub max: usize,
    pub queue: Queue,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// 0: nothing waits, the request beyond the limit is shed at once.
    pub capacity: usize,
    pub timeout: Duration,
    pub order: QueueOrder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueOrder {
    Fifo,
    Lifo,
}

/// An in-flight limit for each client key.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientInFlight {
    pub max: usize,
    pub key: LimitKey,
    pub max_keys: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Unique over the file: `route/<route>/<n>` or `global/<n>` unless named. The metric label and the `RateLimit` policy name.
    pub name: String,
    pub rate: Rate,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
    pub key: LimitKey,
    /// Keys kept at once; ignored for `LimitKey::None`.
    pub max_keys: usize,
    pub mode: RateMode,
    /// For `RateMode::Delay`: how many may wait at once.
    pub max_delayed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKey {
    /// One bucket for all.
    None,
    /// The client's address behind trusted proxies, cut to these prefix lengths.
    ClientIp { v4_prefix: u8, v6_prefix: u8 },
    /// The value of a header, lower-case name. Requests without it share one bucket.
    Header(String),
    /// The value of a query parameter. Requests without it share one bucket.
    Query(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateMode {
    Reject,
    Delay,
    /// Decide and count, but let everything through.
    Shadow,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub name: String,
    pub matches: RouteMatch,
    pub action: RouteAction,
    pub deadline: Deadline,
    pub objective: Objective,
    pub rate_limits: Vec<Arc<RateLimit>>,
    pub in_flight: Option<InFlight>,
    pub client_in_flight: Option<ClientInFlight>,
    pub on_client_gone: ClientGone,
    pub max_body_bytes: u64,
    pub upgrades: Upgrades,
    pub rewrite: Rewrite,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// What the upstream sees in `Host`.
    pub host: HostPolicy,
    /// Send `RateLimit` / `RateLimit-Policy` on answers of this route.
    pub rate_limit_headers: bool,
    /// Only on a route that forwards to an upstream.
    pub mirror: Option<Arc<Mirror>>,
    /// A request meets the first that takes it. Done only when [`Faults::enabled`] says so.
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    pub enabled: bool,
    pub seed: u64,
}

/// Requests written to a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub file: PathBuf,
    /// 0.0 to 1.0.
    pub sample: f64,
    /// Empty: of every route.
    pub routes: Vec<String>,
    pub max_body_bytes: usize,
    pub answers: bool,
    /// Names of fields, parameters and members, lower-case.
    pub redact: Vec<String>,
    pub keep: Vec<String>,
    pub opaque_bodies: bool,
    pub max_file_bytes: u64,
    pub end_after: Duration,
}

/// Copies of requests for another upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    /// Of each request, 0.0 to 10.0.
    pub copies: f64,
    /// Upper-case.
    pub methods: Vec<String>,
    pub max_in_flight: usize,
    /// Of one request.
    pub max_body_bytes: usize,
    /// Held for all copies together.
    pub max_bytes: usize,
    pub timeout: Duration,
    pub request_headers: HeaderEdits,
    /// Compare the answers, but for these parts of JSON bodies.
    pub compare: Option<Vec<aggregate::JsonPath>>,
}

/// Something done to requests on purpose. It does at least one of its three things.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub delay: Option<Latency>,
    pub end: Option<FaultEnd>,
    /// Of the answer's body, in bytes per second, at least 1.
    pub bandwidth: Option<u64>,
    /// The part of the requests that meets it, 0.0 to 1.0.
    pub fraction: f64,
    /// All of them hold for a request that meets it.
    pub headers: Vec<HeaderMatch>,
    pub max_active: usize,
    /// From when the configuration was taken.
    pub end_after: Duration,
}

/// How a fault ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEnd {
    /// With this status.
    Abort(u16),
    /// By breaking the connection.
    Reset,
}

/// What a route promises; nothing by default. Shares lie between 0 and 1, both excluded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Objective {
    /// The share of requests to be answered without a failure.
    pub availability: Option<f64>,
    pub latency: Option<LatencyObjective>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyObjective {
    /// From the first byte of the request to the last of the answer.
    pub within: Duration,
    /// The share of the requests answered well that are to be as fast.
    pub target: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// Lower-case; empty = every host. `*.example.com` matches one or more labels before the suffix.
    pub hosts: Vec<HostPattern>,
    pub path: PathPattern,
    /// Upper-case; empty = every method.
    pub methods: Vec<String>,
    pub headers: Vec<HeaderMatch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    Exact(String),
    /// The suffix with its leading dot: `.example.com`.
    Suffix(String),
}

/// Matched against the normalised path, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// `/users`: this path only (a trailing slash makes another path).
    Exact(String),
    /// `/users/*`: `/users` itself and everything below it. Stored without the `/*`; `/*` is the empty string.
    Prefix(String),
    /// `/users/{id}`, `/users/{id}/*`.
    Template { segments: Vec<Segment>, rest: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Literal(String),
    Parameter(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower-case.
    pub name: String,
    /// `None`: the header must be there, whatever its value.
    pub value: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    Proxy {
        upstream: Arc<Upstream>,
    },
    /// Answer at once, without an upstream.
    Respond {
        status: u16,
        content_type: String,
        body: String,
    },
    /// Call several sources and answer with what they say.
    Aggregate(Arc<aggregate::Aggregate>),
    /// Fetch what another route works on in the background; its name.
    Results {
        of: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    After(Duration),
    /// `deadline = "none"`: for streams and WebSockets; the phase timeouts still hold.
    None,
}

impl Deadline {
    /// The time a request may take, when there is a limit.
    pub fn after(self) -> Option<Duration> {
        match self {
            Deadline::After(time) => Some(time),
            Deadline::None => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientGone {
    /// The upstream request is cancelled.
    Cancel,
    /// The upstream request runs on to its end, within its deadline; its answer is dropped.
    Finish,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Upgrades {
    /// Lower-case protocol names that may be asked for in `Upgrade`; empty = none.
    pub protocols: Vec<String>,
    /// An upgraded connection without a byte in either direction for this long is closed.
    pub idle_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    None,
    /// Take this prefix (whole segments) off.
    StripPrefix(String),
    /// A new path; `{name}` from the route's parameters, `{rest}` from its `/*`.
    Path(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Names lower-case, values checked. Applied in this order: remove, set, add.
    pub remove: Vec<String>,
    pub set: Vec<(String, Secret)>,
    pub add: Vec<(String, Secret)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// As the client sent it.
    Preserve,
    /// The endpoint's host (and port when it is not the scheme's own).
    Upstream,
    Set(String),
}

/// A value that may have come from the environment or a file. Never shown by `Debug` when it did.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    secret: bool,
}

impl Secret {
    pub fn plain(value: impl Into<String>) -> Self {
        Self { value: value.into(), secret: false }
    }

    #[expect(clippy::self_named_constructors, reason = "reads well beside `plain`")]
    pub fn secret(value: impl Into<String>) -> Self {
        Self { value: value.into(), secret: true }
    }

    /// The value itself: for the wire and for comparisons, never for a log or a page.
    pub fn reveal(&self) -> &str {
        &self.value
    }

    pub fn is_secret(&self) -> bool {
        self.secret
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.secret { f.write_str("\"***\"") } else { write!(f, "{:?}", self.value) }
    }
}

/// An address block, `10.0.0.0/8` or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// True when `ip` lies in the block. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                u32::from(net) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                u128::from(net) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}
