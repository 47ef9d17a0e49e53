//! Handles of a route's mirror.

use prometheus::{IntCounter, IntGauge};

use super::catalogue::{self, Metric};
use super::scalars::Scalars;

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorResult {
    /// The upstream's answer came, whatever its status.
    Answered,
    /// No whole answer came.
    Failed,
    /// Not sent: as many as allowed were in flight.
    NoPlace,
    /// Not sent: the request's body was too large, found no room, or broke off.
    NoBody,
}

impl MirrorResult {
    const ALL: [Self; 4] = [Self::Answered, Self::Failed, Self::NoPlace, Self::NoBody];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::NoPlace => "no_place",
            Self::NoBody => "no_body",
        }
    }
}

/// Handles of the mirror of one route.
#[derive(Debug)]
pub struct MirrorMetrics {
    /// Copies in flight now.
    pub in_flight: IntGauge,
    results: [IntCounter; MirrorResult::ALL.len()],
}

impl MirrorMetrics {
    /// All its metrics: their label is the route's, which may stay while its mirror goes.
    pub(super) const METRICS: [&'static Metric; 2] = [&catalogue::MIRROR_IN_FLIGHT, &catalogue::MIRROR_COPIES];

    pub(super) fn new(route: &str, scalars: &Scalars) -> Self {
        Self {
            in_flight: scalars.gauge(&catalogue::MIRROR_IN_FLIGHT, &[route]),
            results: MirrorResult::ALL
                .map(|result| scalars.counter(&catalogue::MIRROR_COPIES, &[route, result.as_str()])),
        }
    }

    pub fn count(&self, result: MirrorResult) {
        self.count_many(result, 1);
    }

    pub fn count_many(&self, result: MirrorResult, copies: usize) {
        self.results[result as usize].inc_by(copies as u64);
    }
}
