//! One configuration, compiled for the data path: routes with their limits and handles, upstreams with their pools.
//!
//! A request works with one generation from its head to its record. A reload builds the next one beside it and swaps
//! a pointer; what did not change (limiters, upstreams with their pools and health) is shared by both.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora::listeners::tls::Acceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connector::{ConnectError, Connection, Connector, Http1Connection, Need};
use super::probe::SecureProbe;
use super::timer::StageClock;
use super::tls;
use crate::config::model::{Cidr, Config, Listener, ListenerTimeouts, Route, RouteAction, Upstream, UpstreamProtocol};
use crate::limits::{Admission, LimitMetrics, Limits, QueueScope, Seed};
use crate::message::head::HeadLimits;
use crate::routing::Router;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{
    ClientLimitMetrics, LimiterMetrics, ListenerMetrics, QueueMetrics, RouteMetrics, UpstreamMetrics,
};
use crate::upstream::{Endpoint, EndpointSet, HttpProbe, Probe, SystemResolver};

/// How often resting connections are looked at, at least.
const SWEEP: Duration = Duration::from_secs(5);
/// And at most, however short their time is.
const LEAST_SWEEP: Duration = Duration::from_millis(100);

/// A compiled configuration.
pub struct Generation {
    pub config: Arc<Config>,
    pub router: Router,
    /// In the order of the configuration: the router answers with an index.
    pub routes: Vec<Arc<RouteRuntime>>,
    pub upstreams: Vec<Arc<UpstreamRuntime>>,
    pub listeners: Vec<Arc<ListenerRuntime>>,
    pub limits: Limits,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generation({})", self.config.hash)
    }
}

/// A route as requests use it.
#[derive(Debug)]
pub struct RouteRuntime {
    pub route: Arc<Route>,
    pub metrics: Arc<RouteMetrics>,
    pub admission: Arc<Admission>,
    /// `None` for routes that answer by themselves.
    pub upstream: Option<Arc<UpstreamRuntime>>,
}

/// A listener as connections use it. A connection keeps the one it began with, over reloads.
pub struct ListenerRuntime {
    pub name: Arc<str>,
    pub config: Arc<Listener>,
    pub head_limits: HeadLimits,
    /// For answers: as many fields as for requests; the size is the upstream's own setting.
    pub upstream_head_limits: HeadLimits,
    pub metrics: Arc<ListenerMetrics>,
    pub acceptor: Option<Arc<Acceptor>>,
}

impl ListenerRuntime {
    pub fn timeouts(&self) -> &ListenerTimeouts {
        &self.config.timeouts
    }

    pub fn trusted_proxies(&self) -> &[Cidr] {
        &self.config.trusted_proxies
    }
}

/// Lends the telemetry's handles to the limits.
struct Handles<'a>(&'a Telemetry);

impl LimitMetrics for Handles<'_> {
    fn rate_limit(&self, name: &str) -> Arc<LimiterMetrics> {
        self.0.limiter(name)
    }

    fn client_limit(&self, route: &str) -> Arc<ClientLimitMetrics> {
        self.0.client_limit(route)
    }

    fn queue(&self, scope: QueueScope<'_>) -> Arc<QueueMetrics> {
        match scope {
            QueueScope::Global => self.0.queue("global", "global"),
            QueueScope::Route(name) => self.0.queue("route", name),
            QueueScope::Upstream(name) => self.0.queue("upstream", name),
        }
    }
}

impl Generation {
    /// Compiles `config`, taking over what is the same from `previous`. Must run inside a tokio runtime, since new
    /// upstreams start their tasks. The error says which part of the configuration cannot be used and why; nothing of
    /// `previous` has changed then.
    pub fn build(
        config: Arc<Config>,
        previous: Option<&Generation>,
        telemetry: &Telemetry,
        tasks: &Tasks,
        seed: Seed,
    ) -> Result<Self, String> {
        let listeners =
            config.listeners.iter().map(|listener| build_listener(listener, telemetry)).collect::<Result<_, _>>()?;
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| build_upstream(upstream, previous, telemetry, tasks, seed))
            .collect::<Result<Vec<_>, _>>()?;
        let limits = Limits::build(&config, previous.map(|previous| &previous.limits), seed, &Handles(telemetry));
        let routes = config.routes.iter().map(|route| build_route(route, &upstreams, &limits, telemetry)).collect();
        let router = Router::new(&config.routes);
        Ok(Self { config, router, routes, upstreams, listeners, limits })
    }

    pub fn listener(&self, name: &str) -> Option<&Arc<ListenerRuntime>> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }
}

fn build_listener(listener: &Arc<Listener>, telemetry: &Telemetry) -> Result<Arc<ListenerRuntime>, String> {
    let acceptor = match &listener.tls {
        Some(settings) => Some(
            tls::acceptor(settings, listener.http2)
                .map(Arc::new)
                .map_err(|error| format!("listener {}: {error}", listener.name))?,
        ),
        None => None,
    };
    let head_limits = HeadLimits { max_bytes: listener.max_head_bytes, max_headers: listener.max_headers };
    Ok(Arc::new(ListenerRuntime {
        name: listener.name.as_str().into(),
        config: listener.clone(),
        head_limits,
        upstream_head_limits: head_limits,
        metrics: telemetry.listener(&listener.name),
        acceptor,
    }))
}

fn build_route(
    route: &Arc<Route>,
    upstreams: &[Arc<UpstreamRuntime>],
    limits: &Limits,
    telemetry: &Telemetry,
) -> Arc<RouteRuntime> {
    let upstream = match &route.action {
        RouteAction::Proxy { upstream } => upstreams.iter().find(|u| u.config.name == upstream.name).cloned(),
        RouteAction::Respond { .. } => None,
    };
    Arc::new(RouteRuntime {
        route: route.clone(),
        metrics: telemetry.route(&route.name),
        admission: limits.route(&route.name).cloned().unwrap_or_default(),
        upstream,
    })
}

/// An upstream with its endpoints and connections. Dropping the last reference stops its tasks and closes its
/// resting connections.
#[derive(Debug)]
pub struct UpstreamRuntime {
    pub config: Arc<Upstream>,
    pub metrics: Arc<UpstreamMetrics>,
    pub endpoints: Arc<EndpointSet>,
    connector: Arc<Connector>,
    service: Arc<crate::upstream::Upstream>,
    _sweeper: Option<DropGuard>,
}

fn build_upstream(
    config: &Arc<Upstream>,
    previous: Option<&Generation>,
    telemetry: &Telemetry,
    tasks: &Tasks,
    seed: Seed,
) -> Result<Arc<UpstreamRuntime>, String> {
    let before = previous.and_then(|previous| previous.upstreams.iter().find(|u| u.config.name == config.name));
    if let Some(before) = before
        && before.config == *config
        && config.tls.is_none()
    {
        return Ok(before.clone());
    }
    let metrics = telemetry.upstream(&config.name);
    let connector =
        Connector::new(config.clone(), metrics.clone()).map_err(|e| format!("upstream {}: {e}", config.name))?;
    let connector = Arc::new(connector);
    let service = match before {
        Some(before) if before.service.serves(config) && config.tls.is_none() => before.service.clone(),
        _ => start_service(config, &connector, telemetry, seed),
    };
    let stop = CancellationToken::new();
    let period = config.timeouts.idle.clamp(LEAST_SWEEP, SWEEP);
    tasks.spawn("connection sweeper", sweep(Arc::downgrade(&connector), period, stop.clone()));
    Ok(Arc::new(UpstreamRuntime {
        config: config.clone(),
        metrics,
        endpoints: service.endpoints().clone(),
        connector,
        service,
        _sweeper: Some(stop.drop_guard()),
    }))
}

fn start_service(
    config: &Arc<Upstream>,
    connector: &Arc<Connector>,
    telemetry: &Telemetry,
    seed: Seed,
) -> Arc<crate::upstream::Upstream> {
    let probe: Arc<dyn Probe> = match &config.tls {
        None => Arc::new(HttpProbe { http2: config.protocol == UpstreamProtocol::Http2 }),
        Some(_) => Arc::new(SecureProbe::new(connector.clone())),
    };
    crate::upstream::Upstream::start(config.clone(), Arc::new(SystemResolver), probe, telemetry, seed.0 as u64)
}

async fn sweep(connector: Weak<Connector>, period: Duration, stop: CancellationToken) {
    let mut interval = tokio::time::interval(period);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => match connector.upgrade() {
                Some(connector) => connector.sweep(),
                None => return,
            },
        }
    }
}

impl UpstreamRuntime {
    pub fn checkout(&self, endpoint: &Endpoint, need: Need) -> Option<Connection> {
        self.connector.checkout(endpoint.address, need)
    }

    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        need: Need,
        clock: &StageClock,
    ) -> Result<Connection, ConnectError> {
        let connection = self.connector.connect(endpoint.address, &host_name(endpoint), need, clock).await?;
        endpoint.connected();
        Ok(connection)
    }

    pub fn release(&self, endpoint: &Endpoint, connection: Http1Connection) {
        self.connector.release(endpoint.address, connection);
    }
}

/// The endpoint's name as SNI wants it: without port; the address where there is no name.
pub fn host_name(endpoint: &Endpoint) -> String {
    match &endpoint.host {
        Some(host) => host.to_string(),
        None => endpoint.address.ip().to_string(),
    }
}
