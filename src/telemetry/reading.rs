//! The numbers of one moment that the admin page is made from: read from the very handles that a scrape reads, but without
//! making thousands of series of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::faults::FaultMetrics;
use super::histogram::Histogram;
use super::metrics::{ClientLimitMetrics, LimiterMetrics, QueueMetrics};
use super::{InFlightMeter, InFlightReading, Latencies, Notable, Reason, ReasonClass, Sought, Telemetry};

/// By name, in its order.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub routes: Vec<(String, Ends)>,
    pub upstreams: Vec<(String, Ends)>,
    pub in_flight_limits: Vec<InFlightLimit>,
    pub rate_limits: Vec<RateLimit>,
    pub client_limits: Vec<ClientLimit>,
    pub faults: Vec<Faults>,
    /// Requests of load tests, by route; those that had any.
    pub load_tests: Vec<(String, u64)>,
}

/// Of a route's requests or of an upstream's attempts: how many, why they ended, how long they took.
#[derive(Debug, Clone)]
pub struct Ends {
    pub in_flight: InFlightReading,
    /// Only reasons that occurred.
    pub reasons: Vec<(Reason, u64)>,
    pub latencies: Latencies,
    /// Of those that ended since the reading before.
    pub longest: Duration,
}

impl Ends {
    fn new(meter: &InFlightMeter, count: impl Fn(Reason) -> u64, durations: &Histogram, now: Instant) -> Self {
        // Read first, as in a scrape: one that shows none in flight has everything counted.
        let in_flight = meter.read(now);
        let all = Reason::ALL.iter().map(|reason| (*reason, count(*reason)));
        let reasons = all.filter(|(_, count)| *count > 0).collect();
        let latencies = Latencies::of(durations);
        Self { in_flight, reasons, latencies, longest: durations.take_longest() }
    }

    pub fn total(&self) -> u64 {
        self.reasons.iter().map(|(_, count)| count).sum()
    }

    /// Neither a success nor ended by the client's leaving, which says nothing about Forebay or what is behind it.
    pub fn failed(&self) -> u64 {
        let failed = |reason: &Reason| !matches!(reason.class(), ReasonClass::Success | ReasonClass::ClientGone);
        self.reasons.iter().filter(|(reason, _)| failed(reason)).map(|(_, count)| count).sum()
    }
}

/// An in-flight limit with its queue; `scope` and `name` as in its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlightLimit {
    pub scope: &'static str,
    pub name: String,
    pub in_use: i64,
    pub limit: i64,
    pub depth: i64,
    pub capacity: i64,
    pub admitted: u64,
    pub full: u64,
    pub timeout: u64,
    pub abandoned: u64,
    pub waits: Latencies,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub name: String,
    pub admitted: u64,
    pub delayed: u64,
    pub rejected: u64,
    pub shadow_rejected: u64,
    pub waiting: i64,
    pub keys: i64,
    pub evictions: u64,
    pub overflows: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimit {
    pub route: String,
    pub admitted: u64,
    pub rejected: u64,
    pub keys: i64,
    pub overflows: u64,
}

/// What is done on purpose to the requests of a route; counts are since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    pub route: String,
    /// Faults that have not ended.
    pub armed: usize,
    /// Requests that meet one now.
    pub active: i64,
    pub delayed: u64,
    pub aborted: u64,
    pub reset: u64,
    pub slowed: u64,
    pub skipped: u64,
}

impl Telemetry {
    /// For one reader: the longest durations are those since its last call. Far cheaper than a scrape, yet for the blocking pool where there are hundreds of routes. Waits for nothing that a
    /// request holds for longer than nanoseconds.
    pub fn reading(&self, now: Instant) -> Reading {
        let mut reading = Reading::default();
        self.routes.for_each(|name, route| {
            if route.load_tests.get() > 0 {
                reading.load_tests.push((name.clone(), route.load_tests.get()));
            }
            let count = |reason| route.requests(reason);
            let ends = Ends::new(&route.in_flight, count, &route.duration, now);
            reading.routes.push((name.clone(), ends));
        });
        self.upstreams.for_each(|name, upstream| {
            let count = |reason| upstream.attempts(reason);
            let ends = Ends::new(&upstream.in_flight, count, &upstream.attempt_duration, now);
            reading.upstreams.push((name.clone(), ends));
        });
        self.queues.for_each(|(scope, name), queue| reading.in_flight_limits.push(in_flight_limit(scope, name, queue)));
        self.limiters.for_each(|name, limiter| reading.rate_limits.push(rate_limit(name, limiter)));
        self.client_limits.for_each(|route, limit| reading.client_limits.push(client_limit(route, limit)));
        self.faults.for_each(|route, metrics| reading.faults.push(faults(route, metrics, now)));
        reading
    }

    /// Begins or goes on to keep notable requests; to be called every second or so.
    pub fn tend_notable(&self, now: SystemTime) {
        self.routes.for_each(|_, route| route.notable.tend(now));
    }

    /// The notable requests of all routes, each with its route's name, unsorted.
    pub fn notable(&self, sought: Sought) -> Vec<(String, Arc<Notable>)> {
        let mut all = Vec::new();
        self.routes.for_each(|name, route| {
            all.extend(route.notable.read(sought).into_iter().map(|notable| (name.clone(), notable)));
        });
        all
    }

    /// Requests that were not kept although they were notable, because too many were at once.
    pub fn notable_left_out(&self) -> u64 {
        let mut sum = 0;
        self.routes.for_each(|_, route| sum += route.notable.left_out());
        sum
    }
}

fn in_flight_limit(scope: &'static str, name: &str, queue: &QueueMetrics) -> InFlightLimit {
    InFlightLimit {
        scope,
        name: name.to_owned(),
        in_use: queue.in_use.get(),
        limit: queue.limit.get(),
        depth: queue.depth.get(),
        capacity: queue.capacity.get(),
        admitted: queue.admitted.get(),
        full: queue.rejected_full.get(),
        timeout: queue.rejected_timeout.get(),
        abandoned: queue.abandoned.get(),
        waits: Latencies::of(&queue.wait),
    }
}

fn rate_limit(name: &str, limiter: &LimiterMetrics) -> RateLimit {
    RateLimit {
        name: name.to_owned(),
        admitted: limiter.admitted.get(),
        delayed: limiter.delayed.get(),
        rejected: limiter.rejected.get(),
        shadow_rejected: limiter.shadow_rejected.get(),
        waiting: limiter.waiting.get(),
        keys: limiter.keys.get(),
        evictions: limiter.evictions.get(),
        overflows: limiter.overflows.get(),
    }
}

fn client_limit(route: &str, limit: &ClientLimitMetrics) -> ClientLimit {
    ClientLimit {
        route: route.to_owned(),
        admitted: limit.admitted.get(),
        rejected: limit.rejected.get(),
        keys: limit.keys.get(),
        overflows: limit.overflows.get(),
    }
}

fn faults(route: &str, metrics: &FaultMetrics, now: Instant) -> Faults {
    Faults {
        route: route.to_owned(),
        armed: metrics.armed(now),
        active: metrics.active.get(),
        delayed: metrics.delayed.get(),
        aborted: metrics.aborted.get(),
        reset: metrics.reset.get(),
        slowed: metrics.slowed.get(),
        skipped: metrics.skipped.get(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::catalogue::{QUEUE_DEPTH, REQUEST_DURATION, REQUESTS, REQUESTS_IN_FLIGHT_PEAK};
    use crate::telemetry::snapshot::Value;
    use crate::telemetry::test_support::record;

    #[test]
    fn a_reading_has_the_values_of_a_scrape() {
        let telemetry = Telemetry::quiet();
        let now = Instant::now();
        let mut record = record(&telemetry, "slow");
        telemetry.finish(&record);
        record.reason = Reason::QueueFull;
        record.timings.total = Duration::from_millis(3);
        (0..4).for_each(|_| telemetry.finish(&record));
        record.reason = Reason::ClientGone;
        telemetry.finish(&record);
        let _guards = [telemetry.route("slow").in_flight.guard(now), telemetry.route("slow").in_flight.guard(now)];
        telemetry.queue("upstream", "users").depth.set(3);

        let (reading, snapshot) = (telemetry.reading(now), telemetry.snapshot(now));

        let (_, slow) = reading.routes.iter().find(|(name, _)| name == "slow").unwrap();
        let series = |metric: &str| {
            let (_, series) = snapshot.families().find(|(found, _)| found.name == metric).unwrap();
            series.iter().filter(|series| series.labels.iter().all(|(_, value)| value != "_unmatched"))
        };
        let number = |metric: &str| -> f64 {
            series(metric).map(|series| if let Value::Number(number) = series.value { number } else { 0.0 }).sum()
        };
        assert_eq!((slow.total(), slow.failed()), (6, 4));
        assert_eq!(slow.total() as f64, number(REQUESTS.name));
        assert_eq!(slow.in_flight.peak as f64, number(REQUESTS_IN_FLIGHT_PEAK.name));
        assert_eq!(reading.in_flight_limits[0].depth as f64, number(QUEUE_DEPTH.name));
        let Some(Value::Histogram(histogram)) = series(REQUEST_DURATION.name).next().map(|series| &series.value) else {
            panic!("no histogram")
        };
        assert_eq!(slow.latencies.count(), histogram.count);
        assert_eq!(slow.latencies.quantile(1.0), histogram.quantile(1.0));
    }
}
