//! `Telemetry`: owns every metric and the access log. No globals, so two proxies may live in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::exposition::{self, Format};
use super::faults::FaultMetrics;
use super::histogram::Layout;
use super::jobs::JobMetrics;
use super::metrics::{
    CODE_CLASSES, ClientLimitMetrics, DetachedMetrics, LimiterMetrics, ListenerMetrics, METHODS, QueueMetrics,
    RouteMetrics, UpstreamMetrics,
};
use super::mirror::MirrorMetrics;
use super::recording::RecordMetrics;
use super::runtime::Runtimes;
use super::scalars::Scalars;
use super::snapshot::Snapshot;
use super::sources::{AggregateMetrics, AggregateTotals, ListMetrics, SIZES, SourceHandles, SourceMetrics};
use super::{InFlightMeter, Reason, ReasonClass, RequestRecord, allocator, catalogue, configured};
use crate::config::model;
use crate::config::model::aggregate::{Aggregate, Source};

/// The route name under which requests are counted that match no route.
pub const UNMATCHED: &str = "_unmatched";

/// Everything Forebay measures about itself.
#[derive(Debug)]
pub struct Telemetry {
    pub detached: DetachedMetrics,
    /// Panics caught in the work for one request or connection.
    pub panics: IntCounter,
    access_log: AccessLog,
    pub(super) scalars: Scalars,
    recording: Arc<RecordMetrics>,
    registry: Registry,
    /// Fixed for the life of the process: buckets that change in the middle of a series mislead every quantile.
    pub(super) layout: Arc<Layout>,
    /// Of histograms that count things and not time.
    sizes: Arc<Layout>,
    peak_window: Duration,
    pub(super) routes: Named<String, RouteMetrics>,
    pub(super) upstreams: Named<String, UpstreamMetrics>,
    pub(super) limiters: Named<String, LimiterMetrics>,
    pub(super) client_limits: Named<String, ClientLimitMetrics>,
    pub(super) aggregates: Named<String, AggregateTotals>,
    /// By route and source.
    pub(super) sources: Named<(String, String), SourceMetrics>,
    pub(super) lists: Named<(String, String), ListMetrics>,
    pub(super) jobs: Named<String, JobMetrics>,
    pub(super) faults: Named<String, FaultMetrics>,
    pub(super) mirrors: Named<String, MirrorMetrics>,
    pub(super) queues: Named<(&'static str, String), QueueMetrics>,
    pub(super) listeners: Named<String, ListenerMetrics>,
    /// Configured endpoints (upstream, endpoint) that have a gauge.
    pub(super) endpoints: Mutex<BTreeSet<(String, String)>>,
    pub(super) runtimes: Runtimes,
    pub(super) allocator: allocator::Peak,
}

impl Telemetry {
    /// Fails when the output of the access log cannot be opened.
    pub fn new(metrics: &model::Metrics, access_log: &model::AccessLog) -> io::Result<Arc<Self>> {
        let registry = Registry::new();
        registry
            .register(Box::new(ProcessCollector::for_self()))
            .expect("a new registry holds nothing that could collide");
        let scalars = Scalars::new(registry.clone());
        let telemetry = Self {
            access_log: AccessLog::new(&scalars, access_log)?,
            detached: DetachedMetrics::new(&scalars),
            panics: scalars.counter(&catalogue::PANICS, &[]),
            recording: Arc::new(RecordMetrics::new(&scalars)),
            registry,
            layout: Layout::new(&metrics.buckets),
            sizes: Layout::new(SIZES),
            peak_window: metrics.peak_window,
            routes: Named::default(),
            upstreams: Named::default(),
            limiters: Named::default(),
            client_limits: Named::default(),
            aggregates: Named::default(),
            sources: Named::default(),
            lists: Named::default(),
            jobs: Named::default(),
            faults: Named::default(),
            mirrors: Named::default(),
            queues: Named::default(),
            listeners: Named::default(),
            endpoints: Mutex::default(),
            runtimes: Runtimes::default(),
            allocator: allocator::Peak::default(),
            scalars,
        };
        telemetry.route(UNMATCHED);
        configured::start(&telemetry.scalars);
        Ok(Arc::new(telemetry))
    }

    /// With the default buckets and without an access log: for tests and tools.
    pub fn quiet() -> Arc<Self> {
        let metrics = model::Metrics { buckets: DEFAULT_BUCKETS.to_vec(), peak_window: Duration::from_secs(60) };
        let access_log = model::AccessLog { output: model::LogOutput::Off, sample: 1.0, buffer: 1 };
        Self::new(&metrics, &access_log).expect("nothing is opened when the access log is off")
    }

    /// Writes the access-log line and the metrics of a request that ended now. The only way in for either, so that
    /// they cannot disagree. Attempts are counted when they end, by [`UpstreamMetrics::attempt`].
    pub fn finish(&self, record: &RequestRecord) {
        self.finish_at(record, SystemTime::now());
    }

    /// [`Telemetry::finish`] with the wall clock as an argument.
    pub fn finish_at(&self, record: &RequestRecord, at: SystemTime) {
        record.route.finish(record, at);
        self.access_log.log(record, at);
    }

    /// Takes over the settings of the access log at a reload and opens its output again, which lets a rotated file go.
    /// On an error the old output stays.
    pub fn reopen_access_log(&self, config: &model::AccessLog) -> io::Result<()> {
        self.access_log.reconfigure(config)
    }

    /// At the end: waits until the access log has written what it holds, at most for `timeout`. False when lines are
    /// left. Blocks its thread.
    pub fn flush_access_log(&self, timeout: Duration) -> bool {
        self.access_log.flush(timeout)
    }

    /// The handles of a route; the same ones for the same name as long as the configuration has it.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.get_or_create(name, || RouteMetrics::new(name, &self.scalars, &self.layout, self.peak_window))
    }

    /// The handles for requests that match no route.
    pub fn unmatched_route(&self) -> Arc<RouteMetrics> {
        self.route(UNMATCHED)
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.get_or_create(name, || UpstreamMetrics::new(name, &self.scalars, &self.layout, self.peak_window))
    }

    pub fn limiter(&self, name: &str) -> Arc<LimiterMetrics> {
        self.limiters.get_or_create(name, || LimiterMetrics::new(name, &self.scalars))
    }

    /// The in-flight limit per client key of this route.
    pub fn client_limit(&self, route: &str) -> Arc<ClientLimitMetrics> {
        self.client_limits.get_or_create(route, || ClientLimitMetrics::new(route, &self.scalars))
    }

    /// The handles of this route's aggregate, with one for each of its sources; what is counted is the same for the same
    /// names, whatever else a reload changes about them.
    pub fn aggregate(&self, route: &str, aggregate: &Aggregate) -> Arc<AggregateMetrics> {
        let handles = |source: &Arc<Source>| {
            let key = (route.to_owned(), source.name.clone());
            let create_list = || ListMetrics::new(&self.sizes);
            SourceHandles {
                source: self.sources.get_or_create(&key, || SourceMetrics::new(&self.layout)),
                list: source.for_each.as_ref().map(|_| self.lists.get_or_create(&key, create_list)),
            }
        };
        let totals = self.aggregates.get_or_create(route, AggregateTotals::new);
        Arc::new(AggregateMetrics { totals, sources: aggregate.sources.iter().map(handles).collect() })
    }

    /// The background work of this route.
    pub fn jobs(&self, route: &str) -> Arc<JobMetrics> {
        self.jobs.get_or_create(route, || JobMetrics::new(route, &self.scalars))
    }

    /// The faults of this route.
    pub fn faults(&self, route: &str) -> Arc<FaultMetrics> {
        self.faults.get_or_create(route, || FaultMetrics::new(route, &self.scalars))
    }

    /// The mirror of this route.
    pub fn mirror(&self, route: &str) -> Arc<MirrorMetrics> {
        self.mirrors.get_or_create(route, || MirrorMetrics::new(route, &self.scalars))
    }

    /// The recording of this process.
    pub fn recording(&self) -> Arc<RecordMetrics> {
        self.recording.clone()
    }

    /// `scope` is `"route"` or `"upstream"` with its name, or `"global"` twice.
    pub fn queue(&self, scope: &'static str, name: &str) -> Arc<QueueMetrics> {
        self.queues
            .get_or_create(&(scope, name.to_owned()), || QueueMetrics::new(scope, name, &self.scalars, &self.layout))
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.listeners.get_or_create(name, || ListenerMetrics::new(name, &self.scalars))
    }

    /// 1 while this configured endpoint takes requests, 0 while it does not; 1 when it is new.
    pub fn endpoint_up(&self, upstream: &str, endpoint: &model::EndpointAddress) -> IntGauge {
        let endpoint = configured::endpoint_label(endpoint);
        let gauge = self.scalars.gauge(&catalogue::UPSTREAM_ENDPOINT_UP, &[upstream, &endpoint]);
        if lock(&self.endpoints).insert((upstream.to_owned(), endpoint)) {
            gauge.set(1);
        }
        gauge
    }

    /// The content type and body of `/metrics` for an `Accept` value.
    pub fn render(&self, accept: &str) -> (&'static str, Vec<u8>) {
        let format = Format::negotiate(accept);
        (format.content_type(), self.encode(format))
    }

    /// The body of `/metrics`. Takes some 4 ms for 50 routes: call it off the event loop.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        exposition::encode(&self.snapshot(Instant::now()), format)
    }

    /// Every metric now.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.routes.for_each(|name, route| snapshot_route(&mut snapshot, name, route, now));
        self.upstreams.for_each(|name, upstream| snapshot_upstream(&mut snapshot, name, upstream, now));
        self.queues.for_each(|(scope, name), queue| {
            snapshot.histogram(&catalogue::QUEUE_WAIT, &[scope, name], queue.wait.snapshot());
        });
        self.aggregates.for_each(|route, totals| totals.snapshot(&mut snapshot, route));
        self.sources.for_each(|(route, source), metrics| metrics.snapshot(&mut snapshot, route, source));
        self.lists.for_each(|(route, source), metrics| metrics.snapshot(&mut snapshot, route, source));
        self.faults.for_each(|route, faults| faults.snapshot(&mut snapshot, route, now));
        snapshot.number(&catalogue::ACCESS_LOG_BUFFERED, &[], self.access_log.buffered_lines() as f64);
        self.runtimes.snapshot(&mut snapshot);
        self.allocator.snapshot(&mut snapshot);
        snapshot.extend(&self.registry.gather());
        if let Some(cpu) = allocator::process_cpu_seconds() {
            // The collector counts whole seconds only, which makes the rate of a lightly loaded sidecar a comb.
            snapshot.replace(&catalogue::PROCESS_CPU, cpu);
        }
        snapshot
    }

    pub(super) fn set_applied(&self, hash: &str, at: SystemTime) {
        self.scalars.clear(&catalogue::CONFIG_INFO);
        self.scalars.gauge(&catalogue::CONFIG_INFO, &[hash]).set(1);
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.scalars.set(&catalogue::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP, &[], at);
    }
}

/// The default upper bounds of the classic buckets in seconds: one list for the whole fleet, since a quantile over
/// instances with different lists is wrong.
pub const DEFAULT_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0,
];

fn snapshot_route(snapshot: &mut Snapshot, name: &str, route: &RouteMetrics, now: Instant) {
    use catalogue::*;
    // Read first, as a request leaves last: a scrape that shows none in flight has everything counted.
    let metrics = [&REQUESTS_IN_FLIGHT, &REQUESTS_IN_FLIGHT_PEAK, &REQUESTS_IN_FLIGHT_SECONDS];
    snapshot_in_flight(snapshot, name, &route.in_flight, metrics, now);
    for reason in Reason::ALL {
        let count = route.requests(*reason) as f64;
        snapshot.number(&REQUESTS, &[name, reason.code()], count);
        if let Some((phase, limit)) = reason.expired() {
            snapshot.number(&TIMEOUTS, &[name, phase, limit], count);
        }
    }
    for (index, class) in CODE_CLASSES.iter().enumerate() {
        snapshot.number(&REQUESTS_BY_CODE, &[name, class], route.codes.get(index) as f64);
    }
    for (index, method) in METHODS.iter().enumerate() {
        snapshot.number(&REQUESTS_BY_METHOD, &[name, method], route.methods.get(index) as f64);
    }
    route.promises.snapshot(snapshot, name, |reason| route.requests(reason));
    snapshot.histogram(&REQUEST_DURATION, &[name], route.duration.snapshot());
    snapshot.histogram(&REQUEST_FIRST_BYTE, &[name], route.first_byte.snapshot());
    snapshot.histogram(&REQUEST_OVERHEAD, &[name], route.overhead.snapshot());
}

fn snapshot_upstream(snapshot: &mut Snapshot, name: &str, upstream: &UpstreamMetrics, now: Instant) {
    use catalogue::*;
    let metrics = [&UPSTREAM_IN_FLIGHT, &UPSTREAM_IN_FLIGHT_PEAK, &UPSTREAM_IN_FLIGHT_SECONDS];
    snapshot_in_flight(snapshot, name, &upstream.in_flight, metrics, now);
    for reason in Reason::ALL {
        let count = upstream.attempts(*reason);
        if count > 0 || ends_an_attempt(*reason) {
            snapshot.number(&UPSTREAM_ATTEMPTS, &[name, reason.code()], count as f64);
        }
    }
    snapshot.histogram(&UPSTREAM_ATTEMPT_DURATION, &[name], upstream.attempt_duration.snapshot());
    snapshot.histogram(&UPSTREAM_CONNECT_DURATION, &[name], upstream.connect_duration.snapshot());
    snapshot.histogram(&UPSTREAM_FIRST_BYTE, &[name], upstream.first_byte.snapshot());
}

/// Reasons that exist at zero for every upstream; the others, which end a request before or beside its attempts,
/// appear when they happen.
fn ends_an_attempt(reason: Reason) -> bool {
    match reason.class() {
        ReasonClass::Success | ReasonClass::UpstreamError | ReasonClass::Timeout | ReasonClass::ClientGone => true,
        ReasonClass::ClientError | ReasonClass::Limited | ReasonClass::Internal => false,
    }
}

fn snapshot_in_flight(
    snapshot: &mut Snapshot,
    name: &str,
    meter: &InFlightMeter,
    [now_metric, peak_metric, seconds_metric]: [&'static catalogue::Metric; 3],
    now: Instant,
) {
    let reading = meter.read(now);
    snapshot.number(now_metric, &[name], reading.now as f64);
    snapshot.number(peak_metric, &[name], reading.peak as f64);
    snapshot.number(seconds_metric, &[name], reading.integral.as_secs_f64());
}

/// Handles by name.
#[derive(Debug)]
pub(super) struct Named<K, T>(Mutex<BTreeMap<K, Arc<T>>>);

impl<K, T> Default for Named<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, T> Named<K, T> {
    fn get_or_create<Q>(&self, key: &Q, create: impl FnOnce() -> T) -> Arc<T>
    where
        K: std::borrow::Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        let mut map = lock(&self.0);
        if let Some(existing) = map.get(key) {
            return existing.clone();
        }
        let created = Arc::new(create());
        map.insert(key.to_owned(), created.clone());
        created
    }

    /// Forgets the keys that are not kept and returns them.
    pub(super) fn retain(&self, keep: impl Fn(&K) -> bool) -> Vec<K> {
        let mut map = lock(&self.0);
        let removed = map.extract_if(.., |key, _| !keep(key));
        removed.map(|(key, _)| key).collect()
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&K, &T)) {
        lock(&self.0).iter().for_each(|(key, value)| visit(key, value));
    }
}

/// A poisoned lock only says that some other holder panicked; the maps are valid after each statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
