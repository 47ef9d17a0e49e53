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

/// How a mirrored answer compares with the one that the client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    Same,
    Status,
    Body,
    /// One of them was not whole, too large, or compressed.
    Skipped,
}

impl Compared {
    const ALL: [Self; 4] = [Self::Same, Self::Status, Self::Body, Self::Skipped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Status => "status",
            Self::Body => "body",
            Self::Skipped => "skipped",
        }
    }
}

/// Handles of the mirror of one route.
#[derive(Debug)]
pub struct MirrorMetrics {
    /// Copies in flight now.
    pub in_flight: IntGauge,
    results: [IntCounter; MirrorResult::ALL.len()],
    compared: [IntCounter; Compared::ALL.len()],
}

impl MirrorMetrics {
    /// All its metrics: their label is the route's, which may stay while its mirror goes.
    pub(super) const METRICS: [&'static Metric; 3] =
        [&catalogue::MIRROR_IN_FLIGHT, &catalogue::MIRROR_COPIES, &catalogue::MIRROR_COMPARED];

    pub(super) fn new(route: &str, scalars: &Scalars) -> Self {
        Self {
            in_flight: scalars.gauge(&catalogue::MIRROR_IN_FLIGHT, &[route]),
            results: MirrorResult::ALL
                .map(|result| scalars.counter(&catalogue::MIRROR_COPIES, &[route, result.as_str()])),
            compared: Compared::ALL
                .map(|result| scalars.counter(&catalogue::MIRROR_COMPARED, &[route, result.as_str()])),
        }
    }

    pub fn count(&self, result: MirrorResult) {
        self.count_many(result, 1);
    }

    pub fn compared(&self, result: Compared) {
        self.compared[result as usize].inc();
    }

    pub fn count_many(&self, result: MirrorResult, copies: usize) {
        self.results[result as usize].inc_by(copies as u64);
    }
}
