//! What a configuration makes exist: its series at zero, its limits and timeouts as gauges, and the removal of the
//! series of what a reload took out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::hub::{Telemetry, UNMATCHED, lock};
use super::scalars::Scalars;
use super::{ClientLimitMetrics, FaultMetrics, JobMetrics, MirrorMetrics, QueueMetrics, catalogue};
use crate::config::model::aggregate::{Aggregate, Source};
use crate::config::model::{
    Config, Deadline, EndpointAddress, InFlight, Listener, RateLimit, Route, RouteAction, Upstream,
};

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    Success,
    /// The file was refused; the configuration before runs on.
    Failure,
    /// The file says what is running already.
    Unchanged,
}

impl ReloadResult {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Unchanged];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The series that do not depend on the configuration.
pub(super) fn start(scalars: &Scalars) {
    for result in ReloadResult::ALL {
        scalars.counter(&catalogue::CONFIG_RELOADS, &[result.as_str()]);
    }
    scalars.gauge(&catalogue::CONFIG_LAST_RELOAD_SUCCESSFUL, &[]).set(1);
    let revision = option_env!("FOREBAY_REVISION").unwrap_or("unknown");
    scalars.gauge(&catalogue::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), revision]).set(1);
}

impl Telemetry {
    /// A configuration was taken, at the start or by a reload: every series of it exists from now on, and those of
    /// routes, upstreams, endpoints, limits and listeners that it no longer has are dropped.
    pub fn apply(&self, config: &Config, at: SystemTime) {
        self.forget_what_is_gone(&Names::of(config));
        self.scalars.clear(&catalogue::TIMEOUT);
        config.listeners.iter().for_each(|listener| self.apply_listener(listener));
        config.upstreams.iter().for_each(|upstream| self.apply_upstream(upstream));
        config.routes.iter().for_each(|route| self.apply_route(route));
        with_faults(config).for_each(|route| {
            self.faults(route);
        });
        self.apply_in_flight("global", "global", config.in_flight.as_ref());
        for limit in rate_limits(config) {
            self.limiter(&limit.name);
            let rate = f64::from(limit.rate.count) / limit.rate.per.as_secs_f64();
            self.scalars.set(&catalogue::RATE_LIMIT_RATE, &[&limit.name], rate);
            self.scalars.set(&catalogue::RATE_LIMIT_BURST, &[&limit.name], f64::from(limit.burst));
        }
        self.set_applied(&config.hash, at);
    }

    /// A reload ended; call [`Telemetry::apply`] besides when its configuration was taken.
    pub fn reloaded(&self, result: ReloadResult) {
        self.scalars.counter(&catalogue::CONFIG_RELOADS, &[result.as_str()]).inc();
        let successful = i64::from(result != ReloadResult::Failure);
        self.scalars.gauge(&catalogue::CONFIG_LAST_RELOAD_SUCCESSFUL, &[]).set(successful);
    }

    fn apply_listener(&self, listener: &Listener) {
        self.listener(&listener.name);
        let timeouts = &listener.timeouts;
        let name = &listener.name;
        self.timeout("listener", name, "tls_handshake", timeouts.tls_handshake);
        self.timeout("listener", name, "head", timeouts.head);
        self.timeout("listener", name, "body", timeouts.body);
        self.timeout("listener", name, "idle", timeouts.idle);
        self.timeout("listener", name, "write", timeouts.write);
        if let Some(lifetime) = timeouts.lifetime {
            self.timeout("listener", name, "lifetime", lifetime);
        }
    }

    fn apply_upstream(&self, upstream: &Upstream) {
        self.upstream(&upstream.name);
        for endpoint in &upstream.endpoints {
            self.endpoint_up(&upstream.name, endpoint);
        }
        let timeouts = &upstream.timeouts;
        let name = &upstream.name;
        self.timeout("upstream", name, "connect", timeouts.connect);
        self.timeout("upstream", name, "tls", timeouts.tls);
        self.timeout("upstream", name, "first_byte", timeouts.first_byte);
        self.timeout("upstream", name, "between_bytes", timeouts.between_bytes);
        self.timeout("upstream", name, "idle", timeouts.idle);
        self.apply_in_flight("upstream", name, upstream.in_flight.as_ref());
    }

    fn apply_route(&self, route: &Route) {
        self.route(&route.name).promise(route.objective);
        if let Deadline::After(deadline) = route.deadline {
            self.timeout("route", &route.name, "deadline", deadline);
        }
        let proxies = matches!(route.action, RouteAction::Proxy { .. });
        if proxies && !route.upgrades.protocols.is_empty() {
            self.timeout("route", &route.name, "upgrade_idle", route.upgrades.idle_timeout);
        }
        if let Some(mirror) = &route.mirror {
            self.mirror(&route.name);
            self.timeout("mirror", &route.name, "deadline", mirror.timeout);
        }
        self.apply_in_flight("route", &route.name, route.in_flight.as_ref());
        if route.client_in_flight.is_some() {
            self.client_limit(&route.name);
        }
        if let RouteAction::Aggregate(aggregate) = &route.action {
            self.apply_aggregate(&route.name, aggregate);
        }
    }

    fn apply_aggregate(&self, route: &str, aggregate: &Aggregate) {
        self.aggregate(route, aggregate);
        for source in &aggregate.sources {
            if let Some(timeout) = source.timeout {
                self.timeout("source", &format!("{route}/{}", source.name), "source", timeout);
            }
        }
        if aggregate.background.is_some() {
            self.jobs(route);
        }
    }

    fn apply_in_flight(&self, scope: &'static str, name: &str, in_flight: Option<&InFlight>) {
        let Some(in_flight) = in_flight else { return };
        let queue: &QueueMetrics = &self.queue(scope, name);
        queue.limit.set(in_flight.max as i64);
        queue.capacity.set(in_flight.queue.capacity as i64);
        self.timeout(scope, name, "queue", in_flight.queue.timeout);
    }

    fn timeout(&self, scope: &str, name: &str, phase: &str, value: Duration) {
        self.scalars.set(&catalogue::TIMEOUT, &[scope, name, phase], value.as_secs_f64());
    }

    fn forget_what_is_gone(&self, names: &Names<'_>) {
        for name in self.routes.retain(|name| names.routes.contains(name.as_str())) {
            self.scalars.remove(&[("route", &name)]);
        }
        for name in self.client_limits.retain(|name| names.client_limits.contains(name.as_str())) {
            ClientLimitMetrics::METRICS.iter().for_each(|metric| self.scalars.remove_from(metric, &[("route", &name)]));
        }
        self.aggregates.retain(|name| names.aggregates.contains(name.as_str()));
        self.sources.retain(|(route, source)| names.sources.contains(&(route.as_str(), source.as_str())));
        self.lists.retain(|(route, source)| names.lists.contains(&(route.as_str(), source.as_str())));
        for name in self.jobs.retain(|name| names.jobs.contains(name.as_str())) {
            JobMetrics::METRICS.iter().for_each(|metric| self.scalars.remove_from(metric, &[("route", &name)]));
        }
        for name in self.faults.retain(|name| names.faults.contains(name.as_str())) {
            FaultMetrics::METRICS.iter().for_each(|metric| self.scalars.remove_from(metric, &[("route", &name)]));
        }
        for name in self.mirrors.retain(|name| names.mirrors.contains(name.as_str())) {
            MirrorMetrics::METRICS.iter().for_each(|metric| self.scalars.remove_from(metric, &[("route", &name)]));
        }
        for name in self.upstreams.retain(|name| names.upstreams.contains(name.as_str())) {
            self.scalars.remove(&[("upstream", &name)]);
        }
        for name in self.limiters.retain(|name| names.limiters.contains(name.as_str())) {
            self.scalars.remove(&[("limiter", &name)]);
        }
        for name in self.listeners.retain(|name| names.listeners.contains(name.as_str())) {
            self.scalars.remove(&[("listener", &name)]);
        }
        for (scope, name) in self.queues.retain(|(scope, name)| names.queues.contains(&(*scope, name.as_str()))) {
            self.scalars.remove(&[("scope", scope), ("name", &name)]);
        }
        lock(&self.endpoints).retain(|(upstream, endpoint)| {
            let kept = names.endpoints.contains(&(upstream.as_str(), endpoint.clone()));
            if !kept {
                self.scalars.remove(&[("upstream", upstream), ("endpoint", endpoint)]);
            }
            kept
        });
    }
}

/// The label values that a configuration makes exist.
struct Names<'a> {
    routes: BTreeSet<&'a str>,
    client_limits: BTreeSet<&'a str>,
    aggregates: BTreeSet<&'a str>,
    sources: BTreeSet<(&'a str, &'a str)>,
    /// Sources with a list.
    lists: BTreeSet<(&'a str, &'a str)>,
    jobs: BTreeSet<&'a str>,
    faults: BTreeSet<&'a str>,
    mirrors: BTreeSet<&'a str>,
    upstreams: BTreeSet<&'a str>,
    limiters: BTreeSet<&'a str>,
    listeners: BTreeSet<&'a str>,
    queues: BTreeSet<(&'static str, &'a str)>,
    endpoints: BTreeSet<(&'a str, String)>,
}

impl<'a> Names<'a> {
    fn of(config: &'a Config) -> Self {
        let limited = config.routes.iter().filter(|route| route.client_in_flight.is_some());
        let mirrored = config.routes.iter().filter(|route| route.mirror.is_some());
        let background = aggregates(config).filter(|(_, aggregate)| aggregate.background.is_some());
        let lists = sources(config).filter(|(_, source)| source.for_each.is_some());
        let endpoints = |upstream: &'a Arc<Upstream>| {
            upstream.endpoints.iter().map(|endpoint| (upstream.name.as_str(), endpoint_label(endpoint)))
        };
        Self {
            routes: config.routes.iter().map(|route| route.name.as_str()).chain([UNMATCHED]).collect(),
            client_limits: limited.map(|route| route.name.as_str()).collect(),
            aggregates: aggregates(config).map(|(route, _)| route).collect(),
            sources: sources(config).map(|(route, source)| (route, source.name.as_str())).collect(),
            lists: lists.map(|(route, source)| (route, source.name.as_str())).collect(),
            jobs: background.map(|(route, _)| route).collect(),
            faults: with_faults(config).collect(),
            mirrors: mirrored.map(|route| route.name.as_str()).collect(),
            upstreams: config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect(),
            limiters: rate_limits(config).map(|limit| limit.name.as_str()).collect(),
            listeners: config.listeners.iter().map(|listener| listener.name.as_str()).collect(),
            queues: queue_names(config),
            endpoints: config.upstreams.iter().flat_map(endpoints).collect(),
        }
    }
}

/// Routes by name, with their aggregates.
fn aggregates(config: &Config) -> impl Iterator<Item = (&str, &Aggregate)> {
    config.routes.iter().filter_map(|route| match &route.action {
        RouteAction::Aggregate(aggregate) => Some((route.name.as_str(), &**aggregate)),
        _ => None,
    })
}

/// Routes whose faults are done.
fn with_faults(config: &Config) -> impl Iterator<Item = &str> {
    let routes = config.routes.iter().filter(|route| config.faults.enabled && !route.faults.is_empty());
    routes.map(|route| route.name.as_str())
}

/// Every source, with the name of its route.
fn sources(config: &Config) -> impl Iterator<Item = (&str, &Source)> {
    aggregates(config).flat_map(|(route, aggregate)| aggregate.sources.iter().map(move |source| (route, &**source)))
}

fn rate_limits(config: &Config) -> impl Iterator<Item = &RateLimit> {
    let of_routes = config.routes.iter().flat_map(|route| &route.rate_limits);
    config.rate_limits.iter().chain(of_routes).map(AsRef::as_ref)
}

fn queue_names(config: &Config) -> BTreeSet<(&'static str, &str)> {
    let routes = config.routes.iter().filter(|route| route.in_flight.is_some());
    let upstreams = config.upstreams.iter().filter(|upstream| upstream.in_flight.is_some());
    let global = config.in_flight.iter().map(|_| ("global", "global"));
    routes
        .map(|route| ("route", route.name.as_str()))
        .chain(upstreams.map(|upstream| ("upstream", upstream.name.as_str())))
        .chain(global)
        .collect()
}

/// The endpoint as the file writes it.
pub(super) fn endpoint_label(endpoint: &EndpointAddress) -> String {
    match endpoint {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name { host, port } => format!("{host}:{port}"),
    }
}
