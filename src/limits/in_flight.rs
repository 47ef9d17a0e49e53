//! At most so many at once, and a bounded queue for the next ones.
//!
//! One mutex guards two numbers and the queue; without waiting it is taken twice for each request (acquire, release) for a
//! few instructions, uncontended and without allocation. The state is never locked while anything is waited for.
//!
//! * A released permit goes straight to the next waiter: nobody who comes later can take it in between (no barging), and
//!   while somebody waits every permit is out.
//! * `fifo` serves the oldest. `lifo` serves the newest, and when the queue is full it is the oldest that is refused:
//!   under overload the newest request is the one whose client most likely still waits for it (Facebook's "adaptive
//!   LIFO", Maurer, "Fail at Scale", ACM Queue 2015; Skipper's `lifo` refuses the bottom of the stack too).
//! * A waiter that is dropped leaves its place at once. A permit that is handed to it in that moment travels as an owned
//!   value inside the channel, so it is dropped with the channel, and dropping a permit releases it.
//! * `resize` keeps what is in flight: a larger limit admits waiters at once, under a smaller one permits are not
//!   replaced until enough have come back.
//!
//! `Retry-After` of a shed request: the mean time between two completions while the limit is reached (exponentially
//! weighted, 1/8 for the newest), times the places in front of a request that came now; between 1 s and 30 s, and 1 s
//! while nothing is known. It is an estimate of when there is room, not a promise. Measuring only under saturation keeps
//! idle time out of the mean and the clock out of the path of unsaturated traffic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::model::{InFlight, QueueOrder};
use crate::telemetry::metrics::QueueMetrics;

const RETRY_AFTER_LEAST: Duration = Duration::from_secs(1);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(30);

/// Why there was no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    QueueFull,
    QueueTimeout,
    /// The request's own deadline passed first.
    Deadline,
}

/// A refusal: why, how long the request had waited for it, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub why: Unavailable,
    pub waited: Duration,
    pub retry_after: Duration,
}

/// One in-flight limit. Shared by everything that counts against it, over reloads.
#[derive(Debug)]
pub struct InFlightLimiter {
    state: Mutex<State>,
    metrics: Arc<QueueMetrics>,
}

#[derive(Debug)]
struct State {
    limit: InFlight,
    in_use: usize,
    /// Waiters by their arrival: the first is the oldest. Empty unless `in_use >= limit.max`.
    queue: BTreeMap<u64, oneshot::Sender<Permit>>,
    arrivals: u64,
    pace: Pace,
}

/// The time between completions while the limit is reached.
#[derive(Debug, Default)]
struct Pace {
    /// The last completion (or the moment when the limit was reached); `None` below the limit.
    last: Option<Instant>,
    mean: Option<Duration>,
}

impl Pace {
    fn completed(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let interval = now.saturating_duration_since(last);
            self.mean = Some(self.mean.map_or(interval, |mean| mean - mean / 8 + interval / 8));
        }
    }

    fn retry_after(&self, places: usize) -> Duration {
        let mean = self.mean.unwrap_or(Duration::ZERO);
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        mean.saturating_mul(places).clamp(RETRY_AFTER_LEAST, RETRY_AFTER_MOST)
    }
}

/// The right to be in flight; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    limiter: Arc<InFlightLimiter>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release();
    }
}

impl InFlightLimiter {
    pub fn new(limit: InFlight, metrics: Arc<QueueMetrics>) -> Arc<Self> {
        let state = State { limit, in_use: 0, queue: BTreeMap::new(), arrivals: 0, pace: Pace::default() };
        Arc::new(Self { state: Mutex::new(state), metrics })
    }

    /// A permit that is free now; `None` when the request would have to wait or be refused.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.lock().take_free()?;
        Some(self.admit(Duration::ZERO))
    }

    /// A permit, after waiting for it where the queue allows. Returns how long that took.
    ///
    /// Waits until `deadline` or the queue's own limit, whichever is first; dropping the future leaves the queue.
    pub async fn acquire(self: &Arc<Self>, deadline: Option<Instant>) -> Result<(Permit, Duration), Refused> {
        let waiter = match self.enqueue(deadline) {
            Entry::Permit(permit) => return Ok((permit, Duration::ZERO)),
            Entry::Refused(refused) => return Err(refused),
            Entry::Waiting(waiter) => waiter,
        };
        waiter.wait(deadline).await
    }

    /// Changes the limit and its queue; what is in flight and what waits stays.
    pub fn resize(self: &Arc<Self>, limit: InFlight) {
        let mut granted = Vec::new();
        let mut state = self.lock();
        state.limit = limit;
        while state.in_use < state.limit.max {
            let Some(waiter) = state.next_waiter() else { break };
            state.in_use += 1;
            granted.push(waiter);
        }
        drop(state);
        for waiter in granted {
            self.metrics.depth.dec();
            self.hand_over(waiter);
        }
    }

    /// The limit as it is now.
    pub fn limit(&self) -> InFlight {
        self.lock().limit.clone()
    }

    pub fn in_use(&self) -> usize {
        self.lock().in_use
    }

    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements of this file: a panic elsewhere cannot break it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wraps a slot that has been counted in `in_use` already.
    fn permit(self: &Arc<Self>) -> Permit {
        Permit { limiter: Arc::clone(self) }
    }

    fn admit(self: &Arc<Self>, waited: Duration) -> Permit {
        self.metrics.in_use.inc();
        self.metrics.admitted.inc();
        self.metrics.waited(waited);
        self.permit()
    }

    fn refuse(&self, why: Unavailable, waited: Duration, retry_after: Duration) -> Refused {
        match why {
            Unavailable::QueueFull => self.metrics.rejected_full.inc(),
            Unavailable::QueueTimeout => self.metrics.rejected_timeout.inc(),
            Unavailable::Deadline => self.metrics.abandoned.inc(),
        }
        self.metrics.waited(waited);
        Refused { why, waited, retry_after }
    }

    fn enqueue(self: &Arc<Self>, deadline: Option<Instant>) -> Entry {
        let mut state = self.lock();
        if state.take_free().is_some() {
            drop(state);
            return Entry::Permit(self.admit(Duration::ZERO));
        }
        let since = Instant::now();
        // Asked before the queue makes room: a request that cannot wait must not displace one that does.
        let room = match deadline {
            Some(deadline) if deadline <= since => Err(Unavailable::Deadline),
            _ => state.make_room(),
        };
        let displaced = match room {
            Ok(displaced) => displaced,
            Err(why) => {
                let retry_after = state.retry_after();
                drop(state);
                return Entry::Refused(self.refuse(why, Duration::ZERO, retry_after));
            }
        };
        let arrival = state.arrivals;
        state.arrivals += 1;
        let (sender, receiver) = oneshot::channel();
        state.queue.insert(arrival, sender);
        let give_up = since + state.limit.queue.timeout;
        drop(state);
        if displaced.is_none() {
            self.metrics.depth.inc();
        }
        // Dropping the displaced waiter's sender tells it that the queue was full.
        drop(displaced);
        Entry::Waiting(Waiter { limiter: Arc::clone(self), arrival, receiver, since, give_up, ended: false })
    }

    fn release(self: &Arc<Self>) {
        self.metrics.in_use.dec();
        self.pass_on();
    }

    /// Gives a slot that came free to the next waiter, or back to the pool.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.in_use == state.limit.max {
            state.pace.completed(Instant::now());
        }
        let waiter = if state.in_use <= state.limit.max { state.next_waiter() } else { None };
        if waiter.is_none() {
            state.in_use -= 1;
            if state.in_use < state.limit.max {
                state.pace.last = None;
            }
        }
        drop(state);
        if let Some(waiter) = waiter {
            self.metrics.depth.dec();
            self.hand_over(waiter);
        }
    }

    /// Outside of the lock: a waiter that has just gone returns the permit, which is then dropped and passed on.
    fn hand_over(self: &Arc<Self>, waiter: oneshot::Sender<Permit>) {
        self.metrics.in_use.inc();
        drop(waiter.send(self.permit()));
    }
}

impl State {
    fn take_free(&mut self) -> Option<()> {
        if self.in_use >= self.limit.max {
            return None;
        }
        self.in_use += 1;
        if self.in_use == self.limit.max {
            self.pace.last = Some(Instant::now());
        }
        Some(())
    }

    fn next_waiter(&mut self) -> Option<oneshot::Sender<Permit>> {
        let next = match self.limit.queue.order {
            QueueOrder::Fifo => self.queue.pop_first(),
            QueueOrder::Lifo => self.queue.pop_last(),
        };
        next.map(|(_, sender)| sender)
    }

    /// Room for one more waiter; with `lifo`, the oldest makes room.
    fn make_room(&mut self) -> Result<Option<oneshot::Sender<Permit>>, Unavailable> {
        if self.queue.len() < self.limit.queue.capacity {
            return Ok(None);
        }
        if self.limit.queue.order == QueueOrder::Fifo || self.limit.queue.capacity == 0 {
            return Err(Unavailable::QueueFull);
        }
        Ok(self.queue.pop_first().map(|(_, oldest)| oldest))
    }

    fn retry_after(&self) -> Duration {
        self.pace.retry_after(self.queue.len() + 1)
    }
}

enum Entry {
    Permit(Permit),
    Waiting(Waiter),
    Refused(Refused),
}

/// A place in the queue; dropping it leaves the queue.
struct Waiter {
    limiter: Arc<InFlightLimiter>,
    arrival: u64,
    receiver: oneshot::Receiver<Permit>,
    since: Instant,
    give_up: Instant,
    /// The wait has been recorded.
    ended: bool,
}

impl Waiter {
    async fn wait(mut self, deadline: Option<Instant>) -> Result<(Permit, Duration), Refused> {
        let until = deadline.map_or(self.give_up, |deadline| deadline.min(self.give_up));
        let answer = match tokio::time::timeout_at(until, &mut self.receiver).await {
            Ok(answer) => answer,
            Err(_) if self.leave() => {
                let own = deadline.is_some_and(|deadline| deadline <= self.give_up);
                return Err(self.refused(if own { Unavailable::Deadline } else { Unavailable::QueueTimeout }));
            }
            // Taken out of the queue in this moment: the answer is on its way, sent by a thread that holds no lock.
            Err(_) => (&mut self.receiver).await,
        };
        match answer {
            Ok(permit) => Ok(self.admitted(permit)),
            Err(_) => Err(self.refused(Unavailable::QueueFull)),
        }
    }

    /// Leaves the queue; false when somebody else has taken this waiter out of it.
    fn leave(&self) -> bool {
        let left = self.limiter.lock().queue.remove(&self.arrival).is_some();
        if left {
            self.limiter.metrics.depth.dec();
        }
        left
    }

    fn admitted(mut self, permit: Permit) -> (Permit, Duration) {
        self.ended = true;
        let waited = self.since.elapsed();
        self.limiter.metrics.admitted.inc();
        self.limiter.metrics.waited(waited);
        (permit, waited)
    }

    fn refused(mut self, why: Unavailable) -> Refused {
        self.ended = true;
        let retry_after = self.limiter.lock().retry_after();
        self.limiter.refuse(why, self.since.elapsed(), retry_after)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.ended {
            // The client has left, or the deadline passed outside of the queue.
            self.leave();
            self.limiter.metrics.abandoned.inc();
            self.limiter.metrics.waited(self.since.elapsed());
        }
    }
}

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
