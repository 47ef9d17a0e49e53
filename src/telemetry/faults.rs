//! Handles of a route's faults.

use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;

use super::catalogue::{self, Metric};
use super::scalars::Scalars;
use super::snapshot::Snapshot;
use crate::config::model::FaultEnd;

/// Handles of the faults of one route.
#[derive(Debug)]
pub struct FaultMetrics {
    /// Requests that meet one now.
    pub active: IntGauge,
    /// Not done, since as many as allowed were active.
    pub skipped: IntCounter,
    pub(super) delayed: IntCounter,
    pub(super) aborted: IntCounter,
    pub(super) reset: IntCounter,
    pub(super) slowed: IntCounter,
    /// When each ends.
    ends: Mutex<Vec<Instant>>,
}

impl FaultMetrics {
    /// All that are kept by name: their label is the route's, which may stay while its faults go.
    pub(super) const METRICS: [&'static Metric; 3] =
        [&catalogue::FAULTS_ACTIVE, &catalogue::FAULTS_SKIPPED, &catalogue::FAULTS_INJECTED];

    pub(super) fn new(route: &str, scalars: &Scalars) -> Self {
        let injected = |kind| scalars.counter(&catalogue::FAULTS_INJECTED, &[route, kind]);
        Self {
            active: scalars.gauge(&catalogue::FAULTS_ACTIVE, &[route]),
            skipped: scalars.counter(&catalogue::FAULTS_SKIPPED, &[route]),
            delayed: injected("delay"),
            aborted: injected("abort"),
            reset: injected("reset"),
            slowed: injected("bandwidth"),
            ends: Mutex::default(),
        }
    }

    /// A request meets a fault that does this.
    pub fn begin(&self, delay: bool, end: Option<FaultEnd>, bandwidth: bool) {
        self.active.inc();
        if delay {
            self.delayed.inc();
        }
        match end {
            Some(FaultEnd::Abort(_)) => self.aborted.inc(),
            Some(FaultEnd::Reset) => self.reset.inc(),
            None if bandwidth => self.slowed.inc(),
            None => {}
        }
    }

    /// The faults that are done from now on, by when each ends.
    pub fn set_ends(&self, ends: Vec<Instant>) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Faults that have not ended.
    pub fn armed(&self, now: Instant) -> usize {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|end| **end > now).count()
    }

    pub(super) fn snapshot(&self, snapshot: &mut Snapshot, route: &str, now: Instant) {
        snapshot.number(&catalogue::FAULTS_ARMED, &[route], self.armed(now) as f64);
    }
}
