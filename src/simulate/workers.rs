//! The live side of the model: requests that wait for it to say that they are done, and the numbers that a test or a
//! reader wants to see.
//!
//! The model reckons when each request is done; here one timer wakes them. A late wake-up delays the answer, but not the
//! next request's begin: the model goes on from the moment that was reckoned, so errors do not add up in a queue. How
//! late answers are is measured.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::oneshot;

pub use super::model::Full;
use super::model::{Arrival, Completion, Model, Ticket};
use super::settings::{Capacity, Upstream};
use super::timer::Timer;

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

/// How much longer requests were held than they should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HoldError {
    pub count: u64,
    pub sum: Duration,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// What the connections of an upstream count.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) requests: AtomicU64,
    in_service: Gauge,
    queued: Gauge,
}

impl Counters {
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
    capacity: Capacity,
    counters: Arc<Counters>,
    /// Time 0 of the model.
    begun: Instant,
    timer: Timer,
    state: Mutex<State>,
    /// In nanoseconds.
    errors: Mutex<Errors>,
}

#[derive(Debug)]
struct State {
    model: Model,
    /// The requests that are not done, to be told when they are.
    waiting: HashMap<Ticket, oneshot::Sender<Completion>>,
    /// What the timer is set to, unless it has fired.
    alarm: Option<u64>,
}

#[derive(Debug)]
struct Errors {
    histogram: Histogram<u64>,
    sum: Duration,
}

/// A request that the workers have taken in; gives back what it holds when it is dropped.
#[derive(Debug)]
pub struct Held {
    workers: Arc<Workers>,
    ticket: Ticket,
    /// Until it is over.
    completion: Option<oneshot::Receiver<Completion>>,
    holds_worker: bool,
}

impl Workers {
    pub fn new(seed: u64, upstream: Arc<Upstream>, counters: Arc<Counters>) -> io::Result<Self> {
        let capacity = upstream.capacity;
        let model = match capacity {
            // The connection holds the only worker already.
            Capacity::Sync { .. } => Model::unlimited(seed, upstream),
            Capacity::Unlimited | Capacity::Workers { .. } => Model::new(seed, upstream),
        };
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("an hour in nanoseconds, 3 digits");
        Ok(Self {
            capacity,
            counters,
            begun: Instant::now(),
            timer: Timer::new()?,
            state: Mutex::new(State { model, waiting: HashMap::new(), alarm: None }),
            errors: Mutex::new(Errors { histogram, sum: Duration::ZERO }),
        })
    }

    /// Wakes the requests that are done; to be run beside them.
    pub async fn drive(&self) -> io::Result<()> {
        self.timer
            .drive(|| {
                let mut state = self.lock();
                state.alarm = None;
                self.wake(&mut state);
            })
            .await
    }

    /// Takes a request in, for a worker or for the queue.
    pub fn enter(self: &Arc<Self>, arrival: Arrival) -> Result<Held, Full> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let now = self.now();
        let ticket = state.model.arrive(now, arrival)?;
        state.waiting.insert(ticket, sender);
        self.wake(&mut state);
        Ok(Held { workers: Arc::clone(self), ticket, completion: Some(receiver), holds_worker: true })
    }

    pub fn stats(&self) -> Stats {
        let levels = self.lock().model.levels();
        let counters = &self.counters;
        let stats = Stats {
            accepted: counters.accepted.load(Ordering::Relaxed),
            requests: counters.requests.load(Ordering::Relaxed),
            refused: levels.refused,
            in_service: levels.in_service,
            peak_in_service: levels.peak_in_service,
            queued: levels.queued,
            peak_queued: levels.peak_queued,
        };
        match self.capacity {
            Capacity::Unlimited | Capacity::Workers { .. } => stats,
            Capacity::Sync { .. } => Stats {
                in_service: counters.in_service.now.load(Ordering::Relaxed),
                peak_in_service: counters.in_service.peak.load(Ordering::Relaxed),
                queued: counters.queued.now.load(Ordering::Relaxed),
                peak_queued: counters.queued.peak.load(Ordering::Relaxed),
                ..stats
            },
        }
    }

    pub fn hold_error(&self) -> HoldError {
        let errors = self.errors();
        let at = |quantile| Duration::from_nanos(errors.histogram.value_at_quantile(quantile));
        HoldError {
            count: errors.histogram.len(),
            sum: errors.sum,
            p50: at(0.5),
            p99: at(0.99),
            max: Duration::from_nanos(errors.histogram.max()),
        }
    }

    /// Tells the requests that are done, and sets the timer for the next one.
    fn wake(&self, state: &mut State) {
        let now = self.now();
        while let Some(completion) = state.model.completed(now) {
            if let Some(sender) = state.waiting.remove(&completion.ticket) {
                // A client that has left does not receive it.
                let _ = sender.send(completion);
            }
        }
        let Some(next) = state.model.next_event() else { return };
        // An alarm that rings too early costs less than setting it again for each request.
        if state.alarm.is_none_or(|alarm| next < alarm) {
            state.alarm = Some(next);
            self.timer.set(Duration::from_nanos(next.saturating_sub(now)));
        }
    }

    fn leave(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.waiting.remove(&ticket);
        state.model.leave(self.now(), ticket);
        self.wake(&mut state);
    }

    fn record_error(&self, completion: &Completion) {
        let late = self.now().saturating_sub(completion.ended);
        let mut errors = self.errors();
        errors.histogram.saturating_record(late.max(1));
        errors.sum += Duration::from_nanos(late);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it is held is a bug of the model, which would show in the numbers; nothing is worth a second one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn errors(&self) -> MutexGuard<'_, Errors> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Waits for a worker and for the end of the latency.
    pub async fn over(&mut self) -> Completion {
        let receiver = self.completion.as_mut().expect("waited for once");
        let completion = receiver.await.expect("a request in the model is told of its end");
        self.completion = None;
        self.holds_worker = completion.keeps_worker;
        self.workers.record_error(&completion);
        completion
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.holds_worker {
            self.workers.leave(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::simulate::settings::Latency;

    fn workers(capacity: Capacity, latency: Duration) -> Arc<Workers> {
        let upstream = Upstream { capacity, latency: Latency::Fixed(latency), ..Upstream::new("a") };
        Arc::new(Workers::new(1, Arc::new(upstream), Arc::default()).expect("a timer"))
    }

    fn narrow() -> Arc<Workers> {
        let capacity = Capacity::Workers { workers: NonZeroUsize::MIN, queue: 1 };
        workers(capacity, Duration::from_secs(3600))
    }

    #[test]
    fn the_request_beyond_workers_and_queue_is_refused() {
        let workers = narrow();

        let served = workers.enter(Arrival::new(0)).expect("a free worker");
        let _waiting = workers.enter(Arrival::new(1)).expect("a place in the queue");
        assert_eq!(workers.enter(Arrival::new(2)).err(), Some(Full));

        let stats = workers.stats();
        assert_eq!((stats.in_service, stats.queued, stats.refused), (1, 1, 1));
        drop(served);
        assert_eq!((workers.stats().in_service, workers.stats().queued), (1, 0));
    }

    #[test]
    fn a_request_that_stops_waiting_gives_its_place_back() {
        let workers = narrow();

        let _served = workers.enter(Arrival::new(0)).expect("a free worker");
        drop(workers.enter(Arrival::new(1)).expect("a place in the queue"));

        assert_eq!(workers.stats().queued, 0);
        assert!(workers.enter(Arrival::new(2)).is_ok(), "there is a place in the queue again");
        assert_eq!(workers.stats().peak_queued, 1);
        assert!(workers.lock().waiting.len() == 1, "nothing is left of those who went");
    }

    #[test]
    fn without_a_limit_everyone_is_served_and_the_peak_is_kept() {
        let workers = workers(Capacity::Unlimited, Duration::from_secs(3600));

        let served: Vec<Held> = (0..100).map(|n| workers.enter(Arrival::new(n)).expect("no limit")).collect();
        drop(served);

        assert_eq!((workers.stats().in_service, workers.stats().peak_in_service), (0, 100));
    }

    #[tokio::test]
    async fn the_timer_ends_each_hold_after_its_latency_and_the_error_is_measured() {
        let workers = workers(Capacity::Unlimited, Duration::from_millis(5));
        let driver = Arc::clone(&workers);
        let driver = tokio::spawn(async move { driver.drive().await });

        for n in 0..20 {
            let started = Instant::now();
            let completion = workers.enter(Arrival::new(n)).expect("no limit").over().await;
            assert!(started.elapsed() >= Duration::from_millis(5));
            assert_eq!(completion.number, n);
        }

        driver.abort();
        let error = workers.hold_error();
        assert_eq!(error.count, 20);
        assert!(error.p50 > Duration::ZERO && error.p50 <= error.p99 && error.p99 <= error.max, "{error:?}");
        assert!(error.p50 <= error.sum, "{error:?}");
    }
}
