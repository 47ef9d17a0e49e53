//! The order of the limits, and what is given back on every way out.

use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::advance;

use super::super::testing::{BY_CLIENT, client, client_limit_metrics, in_flight, limiter, queue_metrics, rate};
use super::super::{RateLimiters, Seed};
use super::*;
use crate::config::model::{ClientInFlight, QueueOrder, RateMode};

const SECOND: Duration = Duration::from_secs(1);

fn queue(max: usize, capacity: usize) -> Option<Arc<InFlightLimiter>> {
    Some(InFlightLimiter::new(in_flight(max, capacity, 10 * SECOND, QueueOrder::Fifo), queue_metrics()))
}

fn everything() -> Admission {
    let clients = ClientInFlight { max: 3, key: BY_CLIENT, max_keys: 10 };
    Admission {
        rates: RateLimiters::new([limiter(rate(100, 1, 10))]),
        client: Some(ClientLimiter::new(clients, Seed(1), client_limit_metrics())),
        route: queue(4, 4),
        global: queue(5, 4),
        upstream: queue(2, 4),
    }
}

fn admitted(answer: TryAdmit<'_>) -> Permits {
    match answer {
        TryAdmit::Admitted(permits) => permits,
        other => panic!("not admitted: {other:?}"),
    }
}

fn pending(answer: TryAdmit<'_>) -> Pending<'_> {
    match answer {
        TryAdmit::Wait(pending) => pending,
        other => panic!("nothing to wait for: {other:?}"),
    }
}

fn in_use(admission: &Admission) -> [usize; 4] {
    let stages = [&admission.route, &admission.global, &admission.upstream];
    let [route, global, upstream] = stages.map(|l| l.as_ref().map_or(0, |l| l.in_use()));
    [admission.client.as_ref().map_or(0, |client| client.keys()), route, global, upstream]
}

#[tokio::test(start_paused = true)]
async fn an_admitted_request_holds_every_place_until_it_is_dropped() {
    let admission = everything();

    let permits = admitted(admission.try_admit(&client(1), None));
    assert_eq!(permits.held(), 4);
    assert_eq!((permits.rate_delay, permits.queue), (None, None));
    assert_eq!(permits.standing.as_ref().map(|s| s.remaining), Some(9));
    assert_eq!(in_use(&admission), [1, 1, 1, 1]);

    drop(permits);
    assert_eq!(in_use(&admission), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn without_limits_everything_is_admitted() {
    let permits = admitted(Admission::default().try_admit(&client(1), None));

    assert_eq!(permits.held(), 0);
    assert!(permits.standing.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_the_upstream_holds_no_upstream_permit() {
    let admission = everything();
    let first = admitted(admission.try_admit(&client(1), None));
    let _second = admitted(admission.try_admit(&client(2), None));

    let third = pending(admission.try_admit(&client(3), None));
    assert_eq!(in_use(&admission), [3, 3, 3, 2]);

    let (third, ()) = tokio::join!(third.wait(), async {
        advance(SECOND).await;
        drop(first);
    });
    let third = third.unwrap();
    assert_eq!(third.queue, Some(SECOND));
    assert_eq!(third.held(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_gives_everything_back() {
    let admission = everything();
    let _running = [1, 2].map(|n| admitted(admission.try_admit(&client(n), None)));
    let before = in_use(&admission);

    let keys = client(3);
    let waiting = tokio::time::timeout(SECOND, admission.admit(&keys, None)).await;

    assert!(waiting.is_err());
    assert_eq!(in_use(&admission), before);
    assert_eq!(admission.upstream.as_ref().unwrap().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_queue_ends_the_wait_and_gives_everything_back() {
    let admission = everything();
    let _running = [1, 2].map(|n| admitted(admission.try_admit(&client(n), None)));
    let before = in_use(&admission);

    let deadline = Some(Instant::now() + 3 * SECOND);
    let rejection = admission.admit(&client(3), deadline).await.unwrap_err();

    assert_eq!(rejection.reason, Reason::DeadlineQueue);
    assert_eq!(rejection.retry_after, None);
    assert_eq!(rejection.queue, Some(3 * SECOND));
    assert_eq!(in_use(&admission), before);
}

#[tokio::test(start_paused = true)]
async fn a_greedy_client_is_refused_before_it_takes_places_in_queues() {
    let admission = everything();
    let _running: Vec<_> = (0..2).map(|_| admitted(admission.try_admit(&client(1), None))).collect();
    let _waiting = pending(admission.try_admit(&client(1), None));

    let TryAdmit::Rejected(rejection) = admission.try_admit(&client(1), None) else { panic!("admitted") };

    assert_eq!(rejection.reason, Reason::ClientLimit);
    assert_eq!(rejection.retry_after, Some(SECOND));
    assert_eq!(in_use(&admission), [1, 3, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_request_touches_nothing_else() {
    let admission = Admission { rates: RateLimiters::new([limiter(rate(1, 60, 1))]), ..everything() };
    drop(admitted(admission.try_admit(&client(1), None)));

    let rejection = admission.admit(&client(1), None).await.unwrap_err();

    assert_eq!(rejection.reason, Reason::RateLimited);
    assert_eq!(rejection.retry_after, Some(60 * SECOND));
    assert_eq!(rejection.standing.map(|s| s.remaining), Some(0));
    assert_eq!(in_use(&admission), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_holds_nothing_while_it_waits_for_its_token() {
    let mut config = rate(1, 2, 1);
    config.mode = RateMode::Delay;
    let admission = Admission { rates: RateLimiters::new([limiter(config)]), ..everything() };
    let first = admitted(admission.try_admit(&client(1), None));
    drop(first);

    let waiting = pending(admission.try_admit(&client(1), None));
    assert_eq!(in_use(&admission), [0; 4]);

    let permits = waiting.wait().await.unwrap();
    assert_eq!(permits.rate_delay, Some(2 * SECOND));
    assert_eq!(permits.queue, None);
    assert_eq!(permits.held(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_when_to_come_back() {
    let admission = Admission { upstream: queue(1, 0), ..everything() };
    let _running = admitted(admission.try_admit(&client(1), None));

    let rejection = admission.admit(&client(2), None).await.unwrap_err();

    assert_eq!(rejection.reason, Reason::QueueFull);
    assert_eq!(rejection.retry_after, Some(SECOND));
    assert_eq!(in_use(&admission), [1, 1, 1, 1]);
}

#[test]
fn admission_can_run_on_any_thread() {
    fn send<T: Send>(_: T) {}
    let admission = Admission::default();
    let keys = client(1);
    send(admission.admit(&keys, None));
    send(admission.try_admit(&keys, None));
}

/// Requests of eight clients through every limit at once, in any interleaving.
struct Simulation {
    admission: &'static Admission,
    waiting: Vec<BoxFuture<'static, Result<Permits, Rejection>>>,
    running: Vec<Permits>,
    rng: SmallRng,
}

impl Simulation {
    fn step(&mut self) -> Duration {
        match self.rng.random_range(0..10) {
            0..4 => self.arrive(),
            4..6 if !self.running.is_empty() => {
                drop(self.running.swap_remove(self.rng.random_range(0..self.running.len())));
            }
            6 if !self.waiting.is_empty() => {
                drop(self.waiting.swap_remove(self.rng.random_range(0..self.waiting.len())));
            }
            7 => self.resize(),
            _ => return Duration::from_millis(self.rng.random_range(0..400)),
        }
        Duration::ZERO
    }

    fn arrive(&mut self) {
        let (n, wait) = (self.rng.random_range(0..8), Duration::from_millis(self.rng.random_range(1..3000)));
        let (admission, deadline) = (self.admission, Instant::now() + wait);
        match admission.try_admit(&client(n), Some(deadline)) {
            TryAdmit::Admitted(permits) => self.running.push(permits),
            TryAdmit::Rejected(_) => {}
            TryAdmit::Wait(pending) => self.waiting.push(Box::pin(pending.wait())),
        }
    }

    fn resize(&mut self) {
        let limit = in_flight(self.rng.random_range(1..5), self.rng.random_range(0..4), SECOND, QueueOrder::Lifo);
        let limiter = [&self.admission.route, &self.admission.upstream][self.rng.random_range(0..2)];
        limiter.as_ref().unwrap().resize(limit);
    }

    fn poll_all(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for mut future in std::mem::take(&mut self.waiting) {
            match future.as_mut().poll(&mut context) {
                Poll::Pending => self.waiting.push(future),
                Poll::Ready(Ok(permits)) => self.running.push(permits),
                Poll::Ready(Err(_)) => {}
            }
        }
    }

    fn check(&self, at: &str) {
        let [_, route, global, upstream] = in_use(self.admission);
        assert!(self.running.iter().all(|permits| permits.held() == 4), "{at}");
        assert_eq!(upstream, self.running.len(), "{at}: nobody who waits holds an upstream permit");
        let most = self.running.len() + self.waiting.len();
        assert!(upstream <= global && global <= route && route <= most, "{at}: {route} {global} {upstream}");
    }
}

async fn simulate(seed: u64) {
    let mut delayed = rate(20, 1, 3);
    delayed.mode = RateMode::Delay;
    delayed.max_delayed = 4;
    let rates = RateLimiters::new([limiter(delayed), limiter(rate(40, 1, 10))]);
    let admission: &'static Admission = Box::leak(Box::new(Admission { rates, ..everything() }));
    let rng = SmallRng::seed_from_u64(seed);
    let mut simulation = Simulation { admission, waiting: Vec::new(), running: Vec::new(), rng };
    for step in 0..1000 {
        let pause = simulation.step();
        advance(pause).await;
        simulation.poll_all();
        simulation.check(&format!("step {step}, FOREBAY_SEED={seed}"));
    }
    simulation.waiting.clear();
    simulation.running.clear();
    assert_eq!(in_use(admission), [0; 4], "FOREBAY_SEED={seed}");
    assert!(admission.rates.iter().all(|limiter| limiter.waiting() == 0), "FOREBAY_SEED={seed}");
}

/// 256 seeds; `FOREBAY_SEED=n` replays one.
#[tokio::test(start_paused = true)]
async fn any_interleaving_gives_every_place_back() {
    match std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => simulate(seed).await,
        None => {
            for seed in 0..256 {
                simulate(seed).await;
            }
        }
    }
}
