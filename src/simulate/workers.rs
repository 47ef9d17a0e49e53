//! The inside of a simulated server: its workers, the queue before them, and the numbers that a test or a reader
//! wants to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::Capacity;

/// The numbers of one upstream, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Requests read; a request's number is the value before it came.
    pub requests: u64,
    /// Answered 503 because the queue was full.
    pub refused: u64,
    /// Requests (in sync mode: connections) that occupy a worker now.
    pub in_service: usize,
    pub peak_in_service: usize,
    /// Requests (in sync mode: connections) that wait for a worker now.
    pub queued: usize,
    pub peak_queued: usize,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) refused: AtomicU64,
    in_service: Gauge,
    queued: Gauge,
}

impl Counters {
    pub fn stats(&self) -> Stats {
        Stats {
            accepted: self.accepted.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            in_service: self.in_service.now.load(Ordering::Relaxed),
            peak_in_service: self.in_service.peak.load(Ordering::Relaxed),
            queued: self.queued.now.load(Ordering::Relaxed),
            peak_queued: self.queued.peak.load(Ordering::Relaxed),
        }
    }

    pub(super) fn enter_service(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counters| &counters.in_service)
    }

    pub(super) fn enter_queue(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counters| &counters.queued)
    }
}

/// A level and the highest it has been.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted {
    counters: Arc<Counters>,
    gauge: fn(&Counters) -> &Gauge,
}

impl Counted {
    fn new(counters: &Arc<Counters>, gauge: fn(&Counters) -> &Gauge) -> Self {
        let level = gauge(counters).now.fetch_add(1, Ordering::Relaxed) + 1;
        gauge(counters).peak.fetch_max(level, Ordering::Relaxed);
        Self { counters: Arc::clone(counters), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The workers that requests share, and the bounded queue before them.
#[derive(Debug)]
pub struct Workers {
    counters: Arc<Counters>,
    limit: Limit,
}

#[derive(Debug)]
enum Limit {
    /// A worker for every request.
    None,
    /// The connection holds the only worker already (sync mode).
    HeldByConnection,
    Shared {
        free: Arc<Semaphore>,
        /// Places for requests that work or wait. Taken at once or not at all; a worker is taken afterwards, so the
        /// queue never holds more than it may, however the two race.
        places: Arc<Semaphore>,
    },
}

/// A worker's time, given back on drop.
#[derive(Debug)]
pub struct Service {
    /// Declared before the permits, so that the gauge falls before the next request can raise it: the peak never
    /// exceeds the workers.
    _counted: Option<Counted>,
    _permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// All workers are busy and the queue is full.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Workers {
    pub fn new(capacity: Capacity, counters: Arc<Counters>) -> Self {
        let limit = match capacity {
            Capacity::Workers { workers, queue } => Limit::Shared {
                free: Arc::new(Semaphore::new(workers.get().min(Semaphore::MAX_PERMITS))),
                places: Arc::new(Semaphore::new(workers.get().saturating_add(queue).min(Semaphore::MAX_PERMITS))),
            },
            Capacity::Unlimited => Limit::None,
            Capacity::Sync { .. } => Limit::HeldByConnection,
        };
        Self { counters, limit }
    }

    /// Waits for a worker, first come first served.
    pub async fn enter(&self) -> Result<Service, Full> {
        let (free, places) = match &self.limit {
            Limit::None => return Ok(Service { _counted: Some(self.counters.enter_service()), _permits: None }),
            Limit::HeldByConnection => return Ok(Service { _counted: None, _permits: None }),
            Limit::Shared { free, places } => (Arc::clone(free), Arc::clone(places)),
        };
        let Ok(place) = places.try_acquire_owned() else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Full);
        };
        let worker = match Arc::clone(&free).try_acquire_owned() {
            Ok(worker) => worker,
            Err(_) => {
                let _queued = self.counters.enter_queue();
                free.acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        Ok(Service { _counted: Some(self.counters.enter_service()), _permits: Some((worker, place)) })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    fn workers(workers: usize, queue: usize) -> (Workers, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let capacity = Capacity::Workers { workers: NonZeroUsize::new(workers).unwrap(), queue };
        (Workers::new(capacity, Arc::clone(&counters)), counters)
    }

    #[tokio::test]
    async fn the_request_beyond_workers_and_queue_is_refused() {
        let (workers, counters) = workers(1, 1);

        let served = workers.enter().await.expect("a free worker");
        let mut waiting = pin!(workers.enter());
        assert!(poll!(&mut waiting).is_pending());
        assert_eq!(workers.enter().await.err(), Some(Full));

        let stats = counters.stats();
        assert_eq!((stats.in_service, stats.queued, stats.refused), (1, 1, 1));
        drop(served);
        let _served = waiting.await.expect("the worker has become free");
        assert_eq!((counters.stats().in_service, counters.stats().queued), (1, 0));
    }

    #[tokio::test]
    async fn a_request_that_stops_waiting_gives_its_place_back() {
        let (workers, counters) = workers(1, 1);

        let _served = workers.enter().await.expect("a free worker");
        {
            let mut waiting = pin!(workers.enter());
            assert!(poll!(&mut waiting).is_pending());
        }

        assert_eq!(counters.stats().queued, 0);
        assert!(poll!(pin!(workers.enter())).is_pending(), "there is a place in the queue again");
        assert_eq!(counters.stats().peak_queued, 1);
    }

    #[tokio::test]
    async fn without_a_limit_everyone_is_served_and_the_peak_is_kept() {
        let counters = Arc::new(Counters::default());
        let workers = Workers::new(Capacity::Unlimited, Arc::clone(&counters));

        let mut served = Vec::new();
        for _ in 0..100 {
            served.push(workers.enter().await.expect("no limit"));
        }
        drop(served);

        assert_eq!((counters.stats().in_service, counters.stats().peak_in_service), (0, 100));
    }
}
