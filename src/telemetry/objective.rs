//! How often a route's promises were kept: exact counts, so that error budgets need no histogram bucket at the
//! promised time and are the same with classic and native histograms.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::hub::lock;
use super::snapshot::Snapshot;
use super::{Reason, catalogue};
use crate::config::model::Objective;

/// Promises of one route and what became of them. Availability is told by the reasons, which are counted anyway; only
/// requests that were slower than promised need a count of their own.
#[derive(Debug)]
pub(super) struct Promises {
    objective: Mutex<Objective>,
    /// `u64::MAX` when there is no promise of latency.
    within_nanos: AtomicU64,
    slow: AtomicU64,
}

impl Default for Promises {
    fn default() -> Self {
        Self { objective: Mutex::default(), within_nanos: AtomicU64::new(u64::MAX), slow: AtomicU64::new(0) }
    }
}

impl Promises {
    pub(super) fn set(&self, objective: Objective) {
        let within = objective.latency.and_then(|latency| u64::try_from(latency.within.as_nanos()).ok());
        self.within_nanos.store(within.unwrap_or(u64::MAX), Ordering::Relaxed);
        *lock(&self.objective) = objective;
    }

    /// A request ended; its reason has been counted already.
    pub(super) fn ended(&self, reason: Reason, total: Duration) {
        let within = u128::from(self.within_nanos.load(Ordering::Relaxed));
        if total.as_nanos() > within && reason.promise_kept() == Some(true) {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the configuration promises, and nothing else. `ended` counts the requests by reason.
    pub(super) fn snapshot(&self, snapshot: &mut Snapshot, route: &str, ended: impl Fn(Reason) -> u64) {
        // Read first: what is slow has been counted among the requests before.
        let slow = self.slow.load(Ordering::Relaxed);
        let objective = *lock(&self.objective);
        let (mut kept, mut broken) = (0, 0);
        for reason in Reason::ALL {
            match reason.promise_kept() {
                Some(true) => kept += ended(*reason),
                Some(false) => broken += ended(*reason),
                None => {}
            }
        }
        let mut counted = |name: &str, ratio: f64, requests: u64, misses: u64| {
            snapshot.number(&catalogue::OBJECTIVE_RATIO, &[route, name], ratio);
            snapshot.number(&catalogue::OBJECTIVE_REQUESTS, &[route, name], requests as f64);
            snapshot.number(&catalogue::OBJECTIVE_MISSES, &[route, name], misses as f64);
        };
        if let Some(ratio) = objective.availability {
            counted("availability", ratio, kept + broken, broken);
        }
        if let Some(latency) = objective.latency {
            counted("latency", latency.target, kept, slow);
            snapshot.number(&catalogue::OBJECTIVE_LATENCY, &[route], latency.within.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::LatencyObjective;
    use crate::telemetry::Telemetry;
    use crate::telemetry::test_support::record;

    fn promise(availability: Option<f64>, within: Option<u64>) -> Objective {
        let within = within.map(Duration::from_millis);
        Objective { availability, latency: within.map(|within| LatencyObjective { within, target: 0.99 }) }
    }

    fn finish(telemetry: &Telemetry, reason: Reason, status: u16, millis: u64) {
        let mut record = record(telemetry, "slow");
        (record.reason, record.status) = (reason, status);
        record.timings.total = Duration::from_millis(millis);
        telemetry.finish(&record);
    }

    /// The samples about objectives.
    fn samples(telemetry: &Telemetry) -> Vec<String> {
        let text = String::from_utf8(telemetry.render("text/plain").1).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("forebay_objective_"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_route_that_promises_nothing_has_no_series() {
        let telemetry = Telemetry::quiet();
        finish(&telemetry, Reason::Ok, 200, 1);

        assert!(samples(&telemetry).is_empty());
    }

    #[test]
    fn what_the_client_caused_is_no_broken_promise() {
        let telemetry = Telemetry::quiet();
        telemetry.route("slow").promise(promise(Some(0.999), Some(300)));
        for (reason, status, millis) in [
            (Reason::Ok, 200, 300),
            (Reason::Ok, 404, 301),
            (Reason::Partial, 200, 10),
            (Reason::QueueFull, 503, 1),
            (Reason::FirstByteTimeout, 504, 2000),
            (Reason::RateLimited, 429, 0),
            (Reason::ClientGone, 0, 5000),
            (Reason::BadRequest, 400, 0),
        ] {
            finish(&telemetry, reason, status, millis);
        }

        assert_eq!(
            samples(&telemetry),
            [
                "ratio{route=\"slow\",objective=\"availability\"} 0.999",
                "ratio{route=\"slow\",objective=\"latency\"} 0.99",
                "latency_seconds{route=\"slow\"} 0.3",
                "requests_total{route=\"slow\",objective=\"availability\"} 5",
                "requests_total{route=\"slow\",objective=\"latency\"} 3",
                "misses_total{route=\"slow\",objective=\"availability\"} 2",
                "misses_total{route=\"slow\",objective=\"latency\"} 1",
            ]
        );
    }

    #[test]
    fn a_new_promise_is_measured_from_then_on() {
        let telemetry = Telemetry::quiet();
        let route = telemetry.route("slow");
        route.promise(promise(None, Some(300)));
        finish(&telemetry, Reason::Ok, 200, 400);

        route.promise(promise(None, Some(500)));
        finish(&telemetry, Reason::Ok, 200, 400);
        finish(&telemetry, Reason::Ok, 200, 501);

        let misses = samples(&telemetry).pop().unwrap();
        assert_eq!(misses, "misses_total{route=\"slow\",objective=\"latency\"} 2");
        route.promise(Objective::default());
        assert!(samples(&telemetry).is_empty());
    }
}
