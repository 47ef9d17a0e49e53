//! Handles of aggregates and their sources: what became of each, how long it took, and which one the answer waited for.
//!
//! One function counts everything about one aggregate, from its outcomes, so that no two metrics can disagree. It is
//! called once for each time the sources were worked on, which may be for several clients or for none that is left.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Reason;
use super::catalogue::*;
use super::histogram::{Histogram, Layout};
use super::metrics::Counters;
use super::snapshot::Snapshot;
use crate::aggregate::{Ending, Fallback, Items, Outcome};

/// How much of what was asked for is in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    Complete,
    /// A source is missing.
    Partial,
    /// There is no answer.
    Failed,
}

impl Completeness {
    pub const ALL: [Self; 3] = [Self::Complete, Self::Partial, Self::Failed];

    /// What the reason of a merge says about it.
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::Ok => Self::Complete,
            Reason::Partial => Self::Partial,
            _ => Self::Failed,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// Handles of one aggregate and of its sources, in the order of the file.
#[derive(Debug)]
pub struct AggregateMetrics {
    pub(super) totals: Arc<AggregateTotals>,
    pub(super) sources: Box<[SourceHandles]>,
}

/// Those of one source; of its list only where it has one.
#[derive(Debug)]
pub(super) struct SourceHandles {
    pub(super) source: Arc<SourceMetrics>,
    pub(super) list: Option<Arc<ListMetrics>>,
}

impl AggregateMetrics {
    /// The sources were worked on for `elapsed`, with these outcomes: one for each source.
    pub fn record(&self, outcomes: &[Outcome], elapsed: Duration, completeness: Completeness) {
        self.totals.answers.inc(completeness as usize);
        self.totals.elapsed.add(elapsed);
        let last = last_to_end(outcomes);
        for outcome in outcomes {
            let Some(SourceHandles { source, list }) = self.sources.get(outcome.source) else { continue };
            source.record(outcome, last == Some(outcome.source));
            if ended_by_itself(outcome) {
                self.totals.of_sources.add(outcome.took);
            }
            if let (Some(list), Some(items)) = (list, &outcome.items) {
                list.record(items);
            }
        }
    }

    /// A client got the answer to another one's identical request.
    pub fn joined(&self) {
        self.totals.joined.fetch_add(1, Ordering::Relaxed);
    }
}

/// It was called and was not cancelled: only then its duration says something about the source.
fn ended_by_itself(outcome: &Outcome) -> bool {
    outcome.was_called() && outcome.ending != Ending::NotNeeded
}

/// The source that the answer waited for. `None` when fewer than two were called, where it says nothing.
///
/// Of two that ended together, the one that called and not the one that shared its answer, then the first in the file.
fn last_to_end(outcomes: &[Outcome]) -> Option<usize> {
    let ended = outcomes.iter().filter(|outcome| ended_by_itself(outcome));
    if ended.clone().count() < 2 {
        return None;
    }
    let last = ended.max_by_key(|outcome| (outcome.begun + outcome.took, !outcome.coalesced, Reverse(outcome.source)));
    last.map(|outcome| outcome.source)
}

/// What is counted for an aggregate as a whole.
#[derive(Debug)]
pub(super) struct AggregateTotals {
    answers: Counters<{ Completeness::ALL.len() }>,
    /// Durations of the sources, and of the aggregates.
    of_sources: Total,
    elapsed: Total,
    joined: AtomicU64,
}

impl AggregateTotals {
    pub(super) fn new() -> Self {
        Self {
            answers: Counters::new(),
            of_sources: Total::default(),
            elapsed: Total::default(),
            joined: AtomicU64::new(0),
        }
    }

    pub(super) fn snapshot(&self, snapshot: &mut Snapshot, route: &str) {
        for completeness in Completeness::ALL {
            let count = self.answers.get(completeness as usize);
            snapshot.number(&AGGREGATE_ANSWERS, &[route, completeness.as_str()], count as f64);
        }
        snapshot.number(&AGGREGATE_SOURCE_SECONDS, &[route], self.of_sources.seconds());
        snapshot.number(&AGGREGATE_ELAPSED_SECONDS, &[route], self.elapsed.seconds());
        snapshot.number(&AGGREGATE_COALESCED, &[route], self.joined.load(Ordering::Relaxed) as f64);
    }
}

/// Time added up, in whole nanoseconds: exact whatever the order. It wraps after 584 years, which `rate()` takes for a
/// restart.
#[derive(Debug, Default)]
struct Total(AtomicU64);

impl Total {
    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn seconds(&self) -> f64 {
        Duration::from_nanos(self.0.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// What is counted for one source.
#[derive(Debug)]
pub(super) struct SourceMetrics {
    outcomes: Counters<{ ENDINGS.len() }>,
    failures: Counters<{ Reason::COUNT }>,
    duration: Histogram,
    last: AtomicU64,
    coalesced: AtomicU64,
}

/// Values of the label `outcome`: one for each of [`ending_index`].
const ENDINGS: [Ending; 5] =
    [Ending::Ok, Ending::Partial, Ending::Fallback(Fallback::Value), Ending::Failed, Ending::NotNeeded];

const fn ending_index(ending: Ending) -> usize {
    match ending {
        Ending::Ok => 0,
        Ending::Partial => 1,
        Ending::Fallback(_) => 2,
        Ending::Failed => 3,
        Ending::NotNeeded => 4,
    }
}

impl SourceMetrics {
    pub(super) fn new(layout: &Arc<Layout>) -> Self {
        Self {
            outcomes: Counters::new(),
            failures: Counters::new(),
            duration: Histogram::new(layout.clone()),
            last: AtomicU64::new(0),
            coalesced: AtomicU64::new(0),
        }
    }

    fn record(&self, outcome: &Outcome, last: bool) {
        self.outcomes.inc(ending_index(outcome.ending));
        if matches!(outcome.ending, Ending::Failed | Ending::Fallback(_)) {
            self.failures.inc(outcome.reason.index());
        }
        if ended_by_itself(outcome) {
            self.duration.observe(outcome.took);
        }
        self.last.fetch_add(u64::from(last), Ordering::Relaxed);
        self.coalesced.fetch_add(u64::from(outcome.coalesced), Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, snapshot: &mut Snapshot, route: &str, source: &str) {
        for ending in ENDINGS {
            let count = self.outcomes.get(ending_index(ending));
            snapshot.number(&SOURCE_OUTCOMES, &[route, source, ending.code()], count as f64);
        }
        for reason in Reason::ALL {
            let count = self.failures.get(reason.index());
            if count > 0 || is_usual(*reason) {
                snapshot.number(&SOURCE_FAILURES, &[route, source, reason.code()], count as f64);
            }
        }
        snapshot.histogram(&SOURCE_DURATION, &[route, source], self.duration.snapshot());
        snapshot.number(&SOURCE_LAST, &[route, source], self.last.load(Ordering::Relaxed) as f64);
        snapshot.number(&SOURCE_COALESCED, &[route, source], self.coalesced.load(Ordering::Relaxed) as f64);
    }
}

/// Reasons that exist at zero for every source, so that their first failure is seen by `rate()`. There may be hundreds
/// of sources, so the others appear when they happen.
const fn is_usual(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SourceTimeout
            | Reason::FirstByteTimeout
            | Reason::NoEndpoint
            | Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::UpstreamReset
            | Reason::UpstreamClosed
            | Reason::Upstream5xx
            | Reason::UpstreamStatus
            | Reason::UpstreamBadBody
            | Reason::UpstreamTooLarge
            | Reason::DependencyFailed
            | Reason::QueueFull
            | Reason::QueueTimeout
    )
}

/// Upper bounds of the classic buckets of list sizes.
pub(super) const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// What is counted for a source that makes one call for each item of a list.
#[derive(Debug)]
pub(super) struct ListMetrics {
    /// A histogram of durations, in which one second stands for one call.
    fan_out: Histogram,
    ok: AtomicU64,
    failed: AtomicU64,
    cut: AtomicU64,
}

impl ListMetrics {
    pub(super) fn new(sizes: &Arc<Layout>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { fan_out: Histogram::new(sizes.clone()), ok: zero(), failed: zero(), cut: zero() }
    }

    fn record(&self, items: &Items) {
        self.fan_out.observe(Duration::from_secs(items.distinct as u64));
        self.ok.fetch_add(items.total.saturating_sub(items.failed) as u64, Ordering::Relaxed);
        self.failed.fetch_add(items.failed as u64, Ordering::Relaxed);
        self.cut.fetch_add(items.cut as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, snapshot: &mut Snapshot, route: &str, source: &str) {
        snapshot.histogram(&SOURCE_FAN_OUT, &[route, source], self.fan_out.snapshot());
        for (result, count) in [("ok", &self.ok), ("failed", &self.failed), ("cut", &self.cut)] {
            snapshot.number(&SOURCE_ITEMS, &[route, source, result], count.load(Ordering::Relaxed) as f64);
        }
    }
}

#[cfg(test)]
mod tests;
