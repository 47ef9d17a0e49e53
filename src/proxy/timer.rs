//! Timers of the data path.
//!
//! Registering a timer for each wait of each request (head, queue, connect, first byte, ...) is measurable work, and
//! nearly none of them ever fires. `LazyTimer` registers one and moves it only when it fires too early or has to fire
//! earlier: the usual request, whose deadline is later than that of the one before, touches no timer wheel at all.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::telemetry::Reason;

/// One timer for all the waits of one connection or stream.
#[derive(Debug)]
pub struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
}

impl LazyTimer {
    pub fn new(first: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(first)) }
    }

    /// Ready once `at` has come. May wake the task earlier for nothing.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(at);
        }
    }
}

/// Waits for `work` until `limit`; `None` when that comes first.
pub async fn until<T>(limit: Instant, timer: &mut LazyTimer, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.poll_until(cx, limit).map(|()| None),
    })
    .await
}

/// A time limit with the reason that its expiry gives, shared by the parts of one exchange. All of them run in one
/// task, one after the other: the atomics are there for `Send`, not for ordering.
#[derive(Debug)]
struct Limit {
    /// Nanoseconds since the clock's base; `u64::MAX` = none.
    at: AtomicU64,
    reason: AtomicU8,
}

impl Limit {
    const fn none() -> Self {
        Self { at: AtomicU64::new(u64::MAX), reason: AtomicU8::new(Reason::Internal as u8) }
    }
}

/// Which limits hold right now: the deadline of the whole request, one for what the answer waits for, one for the
/// arrival of the request's body.
#[derive(Debug)]
pub struct StageClock {
    base: Instant,
    deadline: Option<Instant>,
    /// The deadline in nanoseconds since `base`; `u64::MAX` = none. Limits are compared as numbers, because they are looked
    /// at with every poll.
    deadline_at: u64,
    /// What a passing of the deadline is called now.
    deadline_reason: AtomicU8,
    answer: Limit,
    request_body: Limit,
}

impl StageClock {
    pub fn new(base: Instant, deadline: Option<Instant>) -> Self {
        Self {
            base,
            deadline,
            deadline_at: deadline.map_or(u64::MAX, |at| nanos_since(base, at)),
            deadline_reason: AtomicU8::new(Reason::DeadlineQueue as u8),
            answer: Limit::none(),
            request_body: Limit::none(),
        }
    }

    pub fn base(&self) -> Instant {
        self.base
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is left until the deadline; `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The reason of a deadline that has passed by `now`.
    pub fn passed(&self, now: Instant) -> Option<Reason> {
        self.deadline.is_some_and(|at| at <= now).then(|| reason_at(self.deadline_reason.load(Ordering::Relaxed)))
    }

    /// The stage that the request is in, as the reason that the deadline's passing would have now.
    pub fn enter(&self, deadline_reason: Reason) {
        self.deadline_reason.store(deadline_reason as u8, Ordering::Relaxed);
    }

    pub fn limit_answer(&self, within: Duration, reason: Reason) {
        self.set(&self.answer, Instant::now() + within, reason);
    }

    pub fn unlimit_answer(&self) {
        self.answer.at.store(u64::MAX, Ordering::Relaxed);
    }

    pub fn limit_request_body(&self, at: Instant, reason: Reason) {
        self.set(&self.request_body, at, reason);
    }

    pub fn unlimit_request_body(&self) {
        self.request_body.at.store(u64::MAX, Ordering::Relaxed);
    }

    fn set(&self, limit: &Limit, at: Instant, reason: Reason) {
        limit.at.store(nanos_since(self.base, at), Ordering::Relaxed);
        limit.reason.store(reason as u8, Ordering::Relaxed);
    }

    /// The earliest limit and where its reason is.
    fn next(&self) -> Option<(Instant, &AtomicU8)> {
        let mut earliest = (self.deadline_at, &self.deadline_reason);
        for limit in [&self.answer, &self.request_body] {
            let at = limit.at.load(Ordering::Relaxed);
            if at < earliest.0 {
                earliest = (at, &limit.reason);
            }
        }
        let (at, reason) = earliest;
        (at != u64::MAX).then(|| (self.base + Duration::from_nanos(at), reason))
    }

    /// Ready with the reason once a limit has passed.
    pub fn poll_expired(&self, cx: &mut Context<'_>, timer: &mut LazyTimer) -> Poll<Reason> {
        let Some((at, reason)) = self.next() else { return Poll::Pending };
        ready!(timer.poll_until(cx, at));
        Poll::Ready(reason_at(reason.load(Ordering::Relaxed)))
    }
}

fn nanos_since(base: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(base).as_nanos()).unwrap_or(u64::MAX)
}

fn reason_at(index: u8) -> Reason {
    Reason::ALL.get(usize::from(index)).copied().unwrap_or(Reason::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_timer_is_exact_whether_it_moves_forward_or_back() {
        let start = Instant::now();
        let mut timer = LazyTimer::new(start + Duration::from_secs(1));

        for after_ms in [3000, 3001, 10_000, 10_005, 60_000] {
            let at = start + Duration::from_millis(after_ms);
            poll_fn(|cx| timer.poll_until(cx, at)).await;
            assert_eq!(Instant::now(), at);
        }
        let far = Instant::now() + Duration::from_secs(100);
        let near = Instant::now() + Duration::from_secs(1);
        assert!(futures_util::poll!(poll_fn(|cx| timer.poll_until(cx, far))).is_pending());
        poll_fn(|cx| timer.poll_until(cx, near)).await;
        assert_eq!(Instant::now(), near);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_limit_names_the_reason() {
        let start = Instant::now();
        let clock = StageClock::new(start, Some(start + Duration::from_secs(3)));
        let mut timer = LazyTimer::new(start);
        clock.enter(Reason::DeadlineFirstByte);
        clock.limit_answer(Duration::from_secs(2), Reason::FirstByteTimeout);

        let reason = poll_fn(|cx| clock.poll_expired(cx, &mut timer)).await;
        assert_eq!((reason, start.elapsed()), (Reason::FirstByteTimeout, Duration::from_secs(2)));

        clock.limit_answer(Duration::from_secs(2), Reason::BetweenBytesTimeout);
        let reason = poll_fn(|cx| clock.poll_expired(cx, &mut timer)).await;
        assert_eq!((reason, start.elapsed()), (Reason::DeadlineFirstByte, Duration::from_secs(3)));
    }
}
