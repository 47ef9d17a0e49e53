//! The requests that somebody will ask about: of each route the slowest of the last minutes, and the latest that did not
//! end with `ok`. For the admin page; whoever wants all of them has the access log.
//!
//! An ordinary request pays two loads and two comparisons. One that is kept pays a lock that it never waits for (when
//! another holds it, the request is left out and counted) and some small allocations. Requests that fail are taken at
//! most twenty times a second for each route, since in an overload they are the many and look alike.
//!
//! Kept is what the access log writes, without host, client and query: the path, cut, and the id lead to the line there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::access_line::cut;
use super::server_timing::most_telling;
use super::{Reason, RequestRecord, SourcesRecord, Timings};
use crate::aggregate::Outcome;

/// Requests kept of either kind for each route.
pub const KEPT: usize = 8;
/// Bytes of a path that are kept.
pub const MAX_PATH: usize = 256;
const MAX_DETAIL: usize = 256;
const MAX_METHOD: usize = 16;
const MAX_ID: usize = 64;
const MAX_SOURCES: usize = 16;

/// Longer ago, a slow request explains nothing any more.
const SLOW_FOR: Duration = Duration::from_secs(600);
/// Between two failures that are kept.
const FAILURE_EVERY_MS: u64 = 50;
/// More than any time: nothing is kept.
const NEVER: u64 = u64::MAX;

/// Which of a route's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    Slowest,
    Failed,
}

/// A request that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Notable {
    pub at: SystemTime,
    pub method: String,
    /// Without its query; at most [`MAX_PATH`] bytes.
    pub path: String,
    pub status: u16,
    pub reason: Reason,
    pub detail: Option<String>,
    pub request_id: String,
    pub trace_id: Option<String>,
    pub upstream: Option<Arc<str>>,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    pub reused: bool,
    pub timings: Timings,
    /// What was done on purpose: `delay`, `abort`, ...
    pub fault: Option<&'static str>,
    /// Of an aggregate, those that say most about it.
    pub sources: Vec<SourceSpan>,
    /// Sources that are left out.
    pub sources_omitted: usize,
}

/// What became of a source, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpan {
    pub name: String,
    pub outcome: &'static str,
    pub reason: Reason,
    pub status: Option<u16>,
    /// From the beginning of the aggregate to that of this source.
    pub begun: Duration,
    pub took: Duration,
    pub queue: Duration,
}

/// Those of one route. Closed until [`Store::tend`] has opened it: without an admin listener nothing is kept.
#[derive(Debug)]
pub(super) struct Store {
    /// Nanoseconds beyond which a request is among the slowest.
    threshold: AtomicU64,
    /// Unix milliseconds from which on a failure is kept.
    failures_from: AtomicU64,
    /// Not kept because there were too many at once.
    left_out: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// In no order.
    slowest: Vec<Arc<Notable>>,
    /// The latest last.
    failed: Vec<Arc<Notable>>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            threshold: AtomicU64::new(NEVER),
            failures_from: AtomicU64::new(NEVER),
            left_out: AtomicU64::new(0),
            kept: Mutex::default(),
        }
    }
}

impl Store {
    /// A request ended at `at`.
    pub(super) fn offer(&self, record: &RequestRecord, at: SystemTime) {
        let slow = nanos(record.timings.total) > self.threshold.load(Ordering::Relaxed);
        let failed = record.reason != Reason::Ok && self.takes_failure(at);
        if !slow && !failed {
            return;
        }
        let Ok(mut kept) = self.kept.try_lock() else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let notable = Arc::new(Notable::of(record, at));
        if failed {
            kept.keep_failed(Arc::clone(&notable));
        }
        if slow {
            kept.keep_slow(notable);
            self.threshold.store(kept.threshold(), Ordering::Relaxed);
        }
    }

    fn takes_failure(&self, at: SystemTime) -> bool {
        let now = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let from = self.failures_from.load(Ordering::Relaxed);
        if from == NEVER {
            return false;
        }
        // Two at the same moment may both pass, or one may not: a few more or less do not matter.
        let takes = now >= from || now + FAILURE_EVERY_MS < from;
        if takes {
            self.failures_from.store(now + FAILURE_EVERY_MS, Ordering::Relaxed);
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }

    /// Opens the store, and lets slow requests go that are too old. To be called every second or so.
    pub(super) fn tend(&self, now: SystemTime) {
        let mut kept = self.lock();
        kept.slowest.retain(|notable| now.duration_since(notable.at).is_ok_and(|age| age < SLOW_FOR));
        self.threshold.store(kept.threshold(), Ordering::Relaxed);
        // Only the first time: afterwards it is the requests' own.
        let _ = self.failures_from.compare_exchange(NEVER, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The slowest first, or the latest first.
    pub(super) fn read(&self, sought: Sought) -> Vec<Arc<Notable>> {
        let kept = self.lock();
        match sought {
            Sought::Failed => kept.failed.iter().rev().cloned().collect(),
            Sought::Slowest => {
                let mut slowest = kept.slowest.clone();
                drop(kept);
                slowest.sort_by_key(|notable| std::cmp::Reverse(notable.timings.total));
                slowest
            }
        }
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Requests never wait for this: they only try.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep_slow(&mut self, notable: Arc<Notable>) {
        if self.slowest.len() >= KEPT {
            let fastest = self.slowest.iter().enumerate().min_by_key(|(_, kept)| kept.timings.total);
            let Some((index, _)) = fastest.filter(|(_, kept)| kept.timings.total < notable.timings.total) else {
                return;
            };
            self.slowest.swap_remove(index);
        }
        self.slowest.push(notable);
    }

    /// The oldest of the most frequent reason makes room, so that a flood of one does not wash the others away.
    fn keep_failed(&mut self, notable: Arc<Notable>) {
        if self.failed.len() >= KEPT {
            let count = |reason: Reason| self.failed.iter().filter(|kept| kept.reason == reason).count();
            let most = self.failed.iter().map(|kept| count(kept.reason)).max().unwrap_or(0);
            if let Some(index) = self.failed.iter().position(|kept| count(kept.reason) == most) {
                self.failed.remove(index);
            }
        }
        self.failed.push(notable);
    }

    fn threshold(&self) -> u64 {
        if self.slowest.len() < KEPT {
            return 0;
        }
        self.slowest.iter().map(|kept| nanos(kept.timings.total)).min().unwrap_or(0)
    }
}

impl Notable {
    fn of(record: &RequestRecord, at: SystemTime) -> Self {
        let path = record.target.split(['?', '#']).next().unwrap_or_default();
        let (sources, sources_omitted) = record.sources.map_or_else(Default::default, spans);
        Self {
            at,
            method: cut(record.method, MAX_METHOD).to_owned(),
            path: cut(path, MAX_PATH).to_owned(),
            status: record.status,
            reason: record.reason,
            detail: record.detail.map(|detail| cut(detail, MAX_DETAIL).to_owned()),
            request_id: cut(record.request_id, MAX_ID).to_owned(),
            trace_id: record.trace_id.map(|id| cut(id, MAX_ID).to_owned()),
            upstream: record.upstream.as_ref().map(|upstream| Arc::clone(&upstream.name)),
            endpoint: record.endpoint,
            attempts: record.attempts,
            reused: record.reused,
            timings: record.timings,
            fault: record.fault,
            sources,
            sources_omitted,
        }
    }
}

fn spans(record: &SourcesRecord) -> (Vec<SourceSpan>, usize) {
    let called: Vec<&Outcome> =
        most_telling(record.outcomes, MAX_SOURCES).into_iter().filter(|outcome| outcome.was_called()).collect();
    let omitted = record.outcomes.iter().filter(|outcome| outcome.was_called()).count() - called.len();
    let span = |outcome: &Outcome| SourceSpan {
        name: record.aggregate.sources.get(outcome.source).map_or_else(String::new, |source| source.name.clone()),
        outcome: outcome.ending.code(),
        reason: outcome.reason,
        status: outcome.status,
        begun: outcome.begun,
        took: outcome.took,
        queue: outcome.queue,
    };
    (called.into_iter().map(span).collect(), omitted)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests;
