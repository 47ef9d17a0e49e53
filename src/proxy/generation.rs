//! One configuration, compiled for the data path: routes with their limits and handles, upstreams with their pools.
//!
//! A request works with one generation from its head to its record. A reload builds the next one beside it and swaps
//! a pointer; what did not change (limiters, upstreams with their pools and health) is shared by both.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora::listeners::tls::Acceptor;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::aggregate::Landed;
use super::connector::{ConnectError, Connection, Connector, Http1Connection, Need};
use super::mirror::MirrorRuntime;
use super::probe::SecureProbe;
use super::subrequest::SourceRuntime;
use super::timer::StageClock;
use super::tls;
use crate::aggregate::Plan;
use crate::aggregate::flights::Flights;
use crate::aggregate::results::Results;
use crate::config::model::aggregate::{Background, CoalesceKey};
use crate::config::model::{
    self, Cidr, Config, Listener, ListenerTimeouts, Mirror, Route, RouteAction, Upstream, UpstreamProtocol,
};
use crate::faults::Faults;
use crate::limits::{Admission, LimitMetrics, Limits, QueueScope, Seed};
use crate::message::head::HeadLimits;
use crate::recorder::Recorder;
use crate::routing::Router;
use crate::tasks::Tasks;
use crate::telemetry::metrics::{
    ClientLimitMetrics, LimiterMetrics, ListenerMetrics, QueueMetrics, RouteMetrics, UpstreamMetrics,
};
use crate::telemetry::{AggregateMetrics, JobMetrics, Telemetry};
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
    /// Records requests, when the configuration says so.
    pub recorder: Option<Arc<Recorder>>,
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
    /// Of a route that forwards to one.
    pub upstream: Option<Arc<UpstreamRuntime>>,
    /// Of a route that answers from several sources.
    pub aggregate: Option<Arc<AggregateRuntime>>,
    /// What is done on purpose to its requests.
    pub faults: Option<Arc<Faults>>,
    /// Where copies of its requests go.
    pub mirror: Option<Arc<MirrorRuntime>>,
    /// Of a route of results: what the other route keeps.
    pub results: Option<Arc<Results>>,
}

/// An aggregate as its requests use it.
pub struct AggregateRuntime {
    pub plan: Plan,
    /// In the order of the plan.
    pub sources: Arc<[SourceRuntime]>,
    pub metrics: Arc<AggregateMetrics>,
    /// With `coalesce`.
    pub flights: Option<Flights<Landed>>,
    /// With `background`.
    pub jobs: Option<Arc<Jobs>>,
}

impl std::fmt::Debug for AggregateRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AggregateRuntime({} sources)", self.sources.len())
    }
}

impl AggregateRuntime {
    /// The body tells requests apart that could be joined.
    pub fn keyed_by_body(&self) -> bool {
        let coalesce = self.plan.aggregate().coalesce.as_ref();
        coalesce.is_some_and(|coalesce| coalesce.key.contains(&CoalesceKey::Body))
    }
}

/// The background work of a route: kept over reloads, as long as the route works in the background.
#[derive(Debug)]
pub struct Jobs {
    pub results: Arc<Results>,
    _sweeper: DropGuard,
}

impl Jobs {
    fn start(background: &Background, metrics: Arc<JobMetrics>, tasks: &Tasks) -> Arc<Self> {
        let results = Results::new(background, metrics);
        let stop = CancellationToken::new();
        tasks.spawn("result sweeper", sweep_results(Arc::downgrade(&results), stop.clone()));
        Arc::new(Self { results, _sweeper: stop.drop_guard() })
    }
}

async fn sweep_results(results: Weak<Results>, stop: CancellationToken) {
    loop {
        let Some(next) = results.upgrade().map(|results| results.next_sweep(Instant::now())) else { return };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        if let Some(results) = results.upgrade() {
            results.sweep(Instant::now());
        }
    }
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
        telemetry: &Arc<Telemetry>,
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
        let parts = Parts { config: &config, upstreams: &upstreams, limits: &limits, previous, telemetry, tasks };
        let routes = parts.routes(&config.routes);
        let router = Router::new(&config.routes);
        let recorder = parts.recorder();
        Ok(Self { config, router, routes, upstreams, listeners, limits, recorder })
    }

    /// Sets the new numbers of what was taken over from the generation before. To be called when this one begins to serve.
    pub fn activate(&self) {
        self.limits.activate();
        if let Some(recorder) = &self.recorder {
            recorder.begin();
        }
        for route in &self.routes {
            if let Some(faults) = &route.faults {
                faults.announce();
            }
        }
        for aggregate in self.routes.iter().filter_map(|route| route.aggregate.as_ref()) {
            if let (Some(jobs), Some(background)) = (&aggregate.jobs, &aggregate.plan.aggregate().background) {
                jobs.results.resize(background);
            }
        }
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

/// What routes are built from.
struct Parts<'a> {
    config: &'a Config,
    upstreams: &'a [Arc<UpstreamRuntime>],
    limits: &'a Limits,
    previous: Option<&'a Generation>,
    telemetry: &'a Arc<Telemetry>,
    tasks: &'a Tasks,
}

impl Parts<'_> {
    fn routes(&self, routes: &[Arc<Route>]) -> Vec<Arc<RouteRuntime>> {
        let aggregates: Vec<_> = routes.iter().map(|route| self.aggregate(route)).collect();
        let results_of = |name: &str| {
            let index = routes.iter().position(|route| route.name == name)?;
            Some(aggregates[index].as_ref()?.jobs.as_ref()?.results.clone())
        };
        let built = routes.iter().zip(&aggregates).map(|(route, aggregate)| {
            Arc::new(RouteRuntime {
                route: route.clone(),
                metrics: self.telemetry.route(&route.name),
                admission: self.limits.route(&route.name).cloned().unwrap_or_default(),
                upstream: match &route.action {
                    RouteAction::Proxy { upstream } => Some(self.upstream(upstream)),
                    _ => None,
                },
                aggregate: aggregate.clone(),
                faults: self.faults(route),
                mirror: route.mirror.as_ref().map(|mirror| self.mirror(&route.name, mirror)),
                results: match &route.action {
                    RouteAction::Results { of } => results_of(of),
                    _ => None,
                },
            })
        });
        built.collect()
    }

    /// It goes on over a reload that leaves its settings as they are.
    fn recorder(&self) -> Option<Arc<Recorder>> {
        let settings = self.config.record.as_ref()?;
        let before = self.previous.and_then(|previous| previous.recorder.as_ref());
        let same = before.filter(|recorder| recorder.is(settings)).cloned();
        Some(same.unwrap_or_else(|| Recorder::new(settings.clone(), self.telemetry.recording())))
    }

    fn upstream(&self, upstream: &Upstream) -> Arc<UpstreamRuntime> {
        let found = self.upstreams.iter().find(|known| known.config.name == upstream.name);
        found.expect("a configuration has the upstreams that its routes name").clone()
    }

    fn aggregate(&self, route: &Route) -> Option<Arc<AggregateRuntime>> {
        let RouteAction::Aggregate(aggregate) = &route.action else { return None };
        let sources = aggregate.sources.iter().map(|source| SourceRuntime {
            upstream: self.upstream(&source.upstream),
            admission: self.limits.source(&source.upstream.name),
        });
        let flights = || Flights::new(route.on_client_gone, self.tasks.clone(), self.telemetry.clone());
        Some(Arc::new(AggregateRuntime {
            plan: Plan::new(aggregate.clone()),
            sources: sources.collect(),
            metrics: self.telemetry.aggregate(&route.name, aggregate),
            flights: aggregate.coalesce.as_ref().map(|_| flights()),
            jobs: aggregate.background.as_ref().map(|background| self.jobs(&route.name, background)),
        }))
    }

    /// The route of this name in the generation before.
    fn before(&self, route: &str) -> Option<&RouteRuntime> {
        let routes = &self.previous?.routes;
        routes.iter().find(|before| before.route.name == route).map(AsRef::as_ref)
    }

    fn mirror(&self, route: &str, mirror: &Arc<Mirror>) -> Arc<MirrorRuntime> {
        let upstream = self.upstream(&mirror.upstream);
        let before = self.before(route).and_then(|before| before.mirror.as_ref());
        // Its bounds hold over a reload that leaves it as it is.
        if let Some(same) = before.filter(|before| before.is(mirror, &upstream)) {
            return same.clone();
        }
        let admission = self.limits.source(&mirror.upstream.name);
        MirrorRuntime::new(mirror.clone(), upstream, admission, self.telemetry.mirror(route))
    }

    /// They go on over a reload that leaves them as they are: it does not lengthen them.
    fn faults(&self, route: &Route) -> Option<Arc<Faults>> {
        let model::Faults { enabled, seed } = self.config.faults;
        if !enabled || route.faults.is_empty() {
            return None;
        }
        let before = self.before(&route.name);
        let same = before.and_then(|before| before.faults.as_ref()).filter(|faults| faults.are(&route.faults, seed));
        let new = || Faults::new(&route.name, &route.faults, seed, self.telemetry.faults(&route.name), Instant::now());
        Some(same.cloned().unwrap_or_else(new))
    }

    fn jobs(&self, route: &str, background: &Background) -> Arc<Jobs> {
        match self.before(route).and_then(|before| before.aggregate.as_ref()?.jobs.clone()) {
            Some(jobs) => jobs,
            None => Jobs::start(background, self.telemetry.jobs(route), self.tasks),
        }
    }
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
