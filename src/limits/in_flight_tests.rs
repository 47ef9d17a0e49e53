//! The semaphore under the paused clock, and a seeded simulation with its invariants.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::advance;

use super::super::testing::{in_flight, queue_metrics};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(max: usize, capacity: usize, order: QueueOrder) -> Arc<InFlightLimiter> {
    InFlightLimiter::new(in_flight(max, capacity, 10 * SECOND, order), queue_metrics())
}

type Acquire = Pin<Box<dyn Future<Output = Result<(Permit, Duration), Refused>> + Send>>;

fn acquire(limiter: &Arc<InFlightLimiter>, deadline: Option<Instant>) -> Acquire {
    let limiter = Arc::clone(limiter);
    Box::pin(async move { limiter.acquire(deadline).await })
}

fn poll(future: &mut Acquire) -> Poll<Result<(Permit, Duration), Refused>> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Starts waiting and returns the waiter.
fn waiter(limiter: &Arc<InFlightLimiter>) -> Acquire {
    let mut future = acquire(limiter, None);
    assert!(poll(&mut future).is_pending());
    future
}

fn granted(future: &mut Acquire) -> Option<Permit> {
    match poll(future) {
        Poll::Ready(Ok((permit, _))) => Some(permit),
        Poll::Ready(Err(refused)) => panic!("refused: {refused:?}"),
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn permits_come_back_when_they_are_dropped() {
    let limiter = limiter(2, 0, QueueOrder::Fifo);
    let first = limiter.try_acquire().unwrap();
    let _second = limiter.try_acquire().unwrap();
    assert!(limiter.try_acquire().is_none());

    drop(first);

    assert!(limiter.try_acquire().is_some());
    assert_eq!(limiter.in_use(), 1);
    assert_eq!(limiter.metrics.in_use.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_task_gives_its_permit_back() {
    let limiter = limiter(1, 0, QueueOrder::Fifo);
    let permit = limiter.try_acquire().unwrap();

    let task = tokio::spawn(async move {
        let _permit = permit;
        panic!("expected by the test");
    });

    assert!(task.await.is_err());
    assert_eq!(limiter.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn fifo_serves_the_oldest_and_lifo_the_newest() {
    for (order, expected) in [(QueueOrder::Fifo, [0, 1, 2]), (QueueOrder::Lifo, [2, 1, 0])] {
        let limiter = limiter(1, 3, order);
        let mut held = limiter.try_acquire();
        let mut waiters: Vec<Acquire> = (0..3).map(|_| waiter(&limiter)).collect();

        for next in expected {
            drop(held.take());
            held = granted(&mut waiters[next]);
            assert!(held.is_some(), "{order:?} serves {next}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_fifo_queue_refuses_the_newest() {
    let limiter = limiter(1, 1, QueueOrder::Fifo);
    let _held = limiter.try_acquire().unwrap();
    let _waiting = waiter(&limiter);

    let refused = limiter.acquire(None).await.unwrap_err();

    assert_eq!(refused.why, Unavailable::QueueFull);
    assert_eq!(refused.waited, Duration::ZERO);
    assert_eq!(limiter.metrics.rejected_full.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_lifo_queue_refuses_the_oldest() {
    let limiter = limiter(1, 2, QueueOrder::Lifo);
    let _held = limiter.try_acquire().unwrap();
    let oldest = waiter(&limiter);
    let _second = waiter(&limiter);
    advance(SECOND).await;
    let _newest = waiter(&limiter);

    let refused = oldest.await.unwrap_err();

    assert_eq!((refused.why, refused.waited), (Unavailable::QueueFull, SECOND));
    assert_eq!(limiter.waiting(), 2);
    assert_eq!(limiter.metrics.depth.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_the_queue_limit_or_at_the_deadline() {
    let limiter = limiter(1, 2, QueueOrder::Fifo);
    let _held = limiter.try_acquire().unwrap();

    let late = limiter.acquire(None).await.unwrap_err();
    assert_eq!((late.why, late.waited), (Unavailable::QueueTimeout, 10 * SECOND));

    let late = limiter.acquire(Some(Instant::now() + SECOND)).await.unwrap_err();
    assert_eq!((late.why, late.waited), (Unavailable::Deadline, SECOND));

    let late = limiter.acquire(Some(Instant::now())).await.unwrap_err();
    assert_eq!((late.why, late.waited), (Unavailable::Deadline, Duration::ZERO));
    assert_eq!(limiter.waiting(), 0);
    assert_eq!(limiter.metrics.depth.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_dropped_with_its_permit_passes_it_on() {
    let limiter = limiter(1, 2, QueueOrder::Fifo);
    let held = limiter.try_acquire().unwrap();
    let first = waiter(&limiter);
    let mut second = waiter(&limiter);

    drop(held);
    assert_eq!(limiter.waiting(), 1, "the permit is on its way to the first");
    drop(first);

    let permit = granted(&mut second).expect("passed on");
    drop(permit);
    assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_a_waiter() {
    let limiter = limiter(1, 1, QueueOrder::Fifo);
    let held = limiter.try_acquire().unwrap();
    let mut waiting = waiter(&limiter);

    drop(held);

    assert!(limiter.try_acquire().is_none(), "the permit belongs to the waiter already");
    assert!(granted(&mut waiting).is_some());
}

#[tokio::test(start_paused = true)]
async fn resizing_keeps_what_is_in_flight() {
    let limiter = limiter(2, 4, QueueOrder::Fifo);
    let held = [limiter.try_acquire().unwrap(), limiter.try_acquire().unwrap()];
    let mut waiters = [waiter(&limiter), waiter(&limiter)];

    limiter.resize(in_flight(3, 4, SECOND, QueueOrder::Fifo));
    let third = granted(&mut waiters[0]).expect("a larger limit admits at once");

    limiter.resize(in_flight(1, 4, SECOND, QueueOrder::Fifo));
    drop(held);
    assert_eq!(limiter.in_use(), 1);
    assert!(granted(&mut waiters[1]).is_none(), "still at the smaller limit");
    drop(third);
    assert!(granted(&mut waiters[1]).is_some());
}

#[tokio::test(start_paused = true)]
async fn retry_after_follows_the_pace_of_completions() {
    let limiter = limiter(1, 4, QueueOrder::Fifo);
    assert_eq!(limiter.lock().retry_after(), SECOND, "nothing is known yet");
    let mut held = limiter.try_acquire();
    let mut waiters: Vec<Acquire> = (0..4).map(|_| waiter(&limiter)).collect();

    for waiter in waiters.iter_mut().take(2) {
        advance(4 * SECOND).await;
        drop(held.take());
        held = granted(waiter);
    }

    assert_eq!(limiter.lock().retry_after(), 12 * SECOND, "two wait, each takes 4 s");
}

/// What one simulated request is doing.
enum Request {
    Waiting(Acquire),
    Running(#[expect(dead_code, reason = "held for its drop")] Permit),
}

struct Simulation {
    limiter: Arc<InFlightLimiter>,
    requests: Vec<Request>,
    rng: SmallRng,
    /// Queue length that a shrunken queue may still have.
    longest: usize,
    most: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let limit = any_limit(&mut rng);
        let (most, longest) = (limit.max, limit.queue.capacity);
        let limiter = InFlightLimiter::new(limit, queue_metrics());
        Self { limiter, requests: Vec::new(), rng, longest, most }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.arrive(),
            40..75 => self.leave(),
            75..95 => advance(Duration::from_millis(self.rng.random_range(0..40))).await,
            95..98 => self.poll_all(),
            _ => self.resize(),
        }
    }

    fn arrive(&mut self) {
        let wait = Duration::from_millis(self.rng.random_range(0..200));
        let deadline = self.rng.random_bool(0.5).then(|| Instant::now() + wait);
        self.requests.push(Request::Waiting(acquire(&self.limiter, deadline)));
        self.poll_all();
    }

    /// Ends any request, running, waiting, or with a permit on its way.
    fn leave(&mut self) {
        if !self.requests.is_empty() {
            let index = self.rng.random_range(0..self.requests.len());
            drop(self.requests.swap_remove(index));
        }
    }

    fn resize(&mut self) {
        let limit = any_limit(&mut self.rng);
        self.longest = self.limiter.waiting().max(limit.queue.capacity);
        self.most = self.limiter.in_use().max(limit.max);
        self.limiter.resize(limit);
    }

    fn poll_all(&mut self) {
        let polled = self.requests.drain(..).filter_map(|request| match request {
            Request::Waiting(mut future) => match poll(&mut future) {
                Poll::Pending => Some(Request::Waiting(future)),
                Poll::Ready(Ok((permit, _))) => Some(Request::Running(permit)),
                Poll::Ready(Err(_)) => None,
            },
            running => Some(running),
        });
        self.requests = polled.collect();
    }

    fn check(&mut self, step: usize, seed: u64) {
        let at = format!("step {step}, FOREBAY_SEED={seed}");
        let limit = self.limiter.limit();
        let (in_use, waiting) = (self.limiter.in_use(), self.limiter.waiting());
        self.most = self.most.min(in_use.max(limit.max));
        self.longest = self.longest.min(waiting.max(limit.queue.capacity));
        assert!(in_use <= self.most, "{at}: {in_use} in use");
        assert!(waiting <= self.longest, "{at}: {waiting} waiting");
        assert!(waiting == 0 || in_use >= limit.max, "{at}: {waiting} wait, {in_use} of {} in use", limit.max);
        assert_eq!(self.limiter.metrics.in_use.get() as usize, in_use, "{at}");
        assert_eq!(self.limiter.metrics.depth.get() as usize, waiting, "{at}");
        let running = self.requests.iter().filter(|r| matches!(r, Request::Running(_))).count();
        let unanswered = self.requests.len() - running;
        assert!(running <= in_use, "{at}: in use = acquired - released");
        assert!(in_use + waiting <= running + unanswered, "{at}: a permit was lost");
    }
}

fn any_limit(rng: &mut SmallRng) -> InFlight {
    let order = if rng.random_bool(0.5) { QueueOrder::Fifo } else { QueueOrder::Lifo };
    let timeout = Duration::from_millis(rng.random_range(1..300));
    in_flight(rng.random_range(1..6), rng.random_range(0..6), timeout, order)
}

async fn simulate(seed: u64) {
    let mut simulation = Simulation::new(seed);
    for step in 0..2000 {
        simulation.step().await;
        simulation.check(step, seed);
    }
    simulation.requests.clear();
    assert_eq!((simulation.limiter.in_use(), simulation.limiter.waiting()), (0, 0), "FOREBAY_SEED={seed}");
}

/// 256 seeds; `FOREBAY_SEED=n` replays one.
#[tokio::test(start_paused = true)]
async fn any_interleaving_keeps_the_invariants() {
    match std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => simulate(seed).await,
        None => {
            for seed in 0..256 {
                simulate(seed).await;
            }
        }
    }
}

#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    let limiter = InFlightLimiter::new(in_flight(3, 8, Duration::from_millis(1), QueueOrder::Fifo), queue_metrics());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();

    runtime.block_on(async {
        let tasks: Vec<_> = (0..64_u64)
            .map(|n| {
                let limiter = Arc::clone(&limiter);
                tokio::spawn(async move {
                    for round in 0..50_u64 {
                        let deadline = Instant::now() + Duration::from_micros((n * 37 + round * 91) % 900);
                        if let Ok((permit, _)) = limiter.acquire(Some(deadline)).await {
                            assert!(limiter.in_use() <= 3);
                            tokio::task::yield_now().await;
                            drop(permit);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });

    assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0));
    assert_eq!((limiter.metrics.in_use.get(), limiter.metrics.depth.get()), (0, 0));
}
