//! The model against queueing theory, in virtual time.
//!
//! Each test compares a mean of many requests with a formula. The interval comes from the run itself: the means of 64
//! batches (each many times longer than the queue remembers) are nearly independent and normal, so the difference lies
//! beyond 5.43 of their standard errors with a probability of 1e-6 (Student's t, 63 degrees of freedom, both sides). The
//! seeds are fixed besides: a test that passes always passes.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::simulate::draw;
use crate::simulate::settings::Latency;

/// The mean time of service of all tests; rates are per millisecond, as is theory in these tests.
const SERVICE: Duration = Duration::from_millis(1);
const BATCHES: usize = 64;
const PER_BATCH: usize = 2_500;
/// Requests before the first batch, while the server is emptier than usual.
const WARM_UP: usize = 5_000;
const T_63: f64 = 5.43;

/// What happened to one request, in milliseconds.
#[derive(Clone, Copy)]
struct Outcome {
    wait: f64,
    response: f64,
    refused: bool,
}

fn exponential() -> Latency {
    Latency::Exponential { mean: SERVICE }
}

fn server(workers: usize, queue: usize, latency: Latency) -> Upstream {
    let capacity = Capacity::Workers { workers: NonZeroUsize::new(workers).unwrap(), queue };
    Upstream { capacity, latency, ..Upstream::new("server") }
}

/// Gaps between requests: exponential ones make Poisson arrivals.
fn gaps(latency: impl FnOnce(Duration) -> Latency, per_ms: f64) -> Upstream {
    Upstream { latency: latency(SERVICE.div_f64(per_ms)), ..Upstream::new("gaps") }
}

fn poisson(per_ms: f64) -> Upstream {
    gaps(|mean| Latency::Exponential { mean }, per_ms)
}

/// Runs the server with these gaps, and gives the requests after the warm-up in the order of their arrival.
fn simulate(seed: u64, gaps: &Upstream, server: Upstream) -> Vec<Outcome> {
    let refused = Outcome { wait: 0.0, response: 0.0, refused: true };
    let mut outcomes = vec![refused; WARM_UP + BATCHES * PER_BATCH];
    let mut model = Model::new(seed, Arc::new(server));
    let mut note = |done: Completion| {
        let ms = |from, to| (to - from) as f64 / 1e6;
        let (wait, response) = (ms(done.arrived, done.started), ms(done.arrived, done.ended));
        outcomes[done.number as usize] = Outcome { wait, response, refused: false };
    };
    let mut now = 0;
    for number in 0..(WARM_UP + BATCHES * PER_BATCH) as u64 {
        now += draw(seed, gaps, number).latency.as_nanos() as u64;
        while let Some(done) = model.completed(now) {
            note(done);
        }
        let _ = model.arrive(now, Arrival::new(number));
    }
    while let Some(done) = model.completed(NEVER - 1) {
        note(done);
    }
    outcomes.split_off(WARM_UP)
}

/// Compares the mean of a quantity with theory.
#[track_caller]
fn mean_is(what: &str, outcomes: &[Outcome], value: impl Fn(&Outcome) -> f64, expected: f64) {
    let mean_of = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let values: Vec<f64> = outcomes.iter().map(value).collect();
    let means: Vec<f64> = values.chunks(PER_BATCH).map(mean_of).collect();
    let mean = mean_of(&means);
    let variance = means.iter().map(|batch| (batch - mean).powi(2)).sum::<f64>() / (BATCHES - 1) as f64;
    let interval = T_63 * (variance / BATCHES as f64).sqrt();
    assert!((mean - expected).abs() <= interval, "{what}: {mean} +- {interval}, theory says {expected}");
    assert!(interval < 0.3 * expected.max(0.02), "{what}: an interval of {interval} around {expected} says nothing");
}

/// The probability that a request finds all of `workers` busy (Erlang C).
fn erlang_c(workers: usize, offered: f64) -> f64 {
    let mut blocking = 1.0;
    for count in 1..=workers {
        blocking = offered * blocking / (count as f64 + offered * blocking);
    }
    let utilisation = offered / workers as f64;
    blocking / (1.0 - utilisation * (1.0 - blocking))
}

#[test]
fn m_m_1() {
    let load = 0.7;
    let outcomes = simulate(1, &poisson(load), server(1, usize::MAX, exponential()));

    mean_is("wait", &outcomes, |one| one.wait, load / (1.0 - load));
    mean_is("response", &outcomes, |one| one.response, 1.0 / (1.0 - load));
    // The response time is exponential.
    for t in [1.0, 3.0, 6.0] {
        let beyond = |one: &Outcome| f64::from(u8::from(one.response > t));
        mean_is("tail", &outcomes, beyond, (-(1.0 - load) * t).exp());
    }
}

/// Even arrivals: the wait is that of G/M/1, by the root of `sigma = exp(-(1 - sigma) / load)`.
#[test]
fn d_m_1() {
    let load = 0.7;
    let sigma = (0..200).fold(0.5_f64, |sigma, _| (-(1.0 - sigma) / load).exp());

    let outcomes = simulate(2, &gaps(Latency::Fixed, load), server(1, usize::MAX, exponential()));

    mean_is("wait", &outcomes, |one| one.wait, sigma / (1.0 - sigma));
    mean_is("who waits", &outcomes, |one| f64::from(u8::from(one.wait > 0.0)), sigma);
}

#[test]
fn m_m_c() {
    for (workers, utilisation) in [(2, 0.6), (4, 0.7), (8, 0.8)] {
        let offered = utilisation * workers as f64;
        let free = workers as f64 - offered;
        let busy = erlang_c(workers, offered);

        let outcomes = simulate(3, &poisson(offered), server(workers, usize::MAX, exponential()));

        mean_is("who waits", &outcomes, |one| f64::from(u8::from(one.wait > 0.0)), busy);
        mean_is("wait", &outcomes, |one| one.wait, busy / free);
        let t = 0.5;
        mean_is("tail of the wait", &outcomes, |one| f64::from(u8::from(one.wait > t)), busy * (-free * t).exp());
        // The wait, then a service: both exponential, at the rates `free` and 1.
        let tail = (-t).exp() * (1.0 + busy * (1.0 - (-(free - 1.0) * t).exp()) / (free - 1.0));
        if (free - 1.0).abs() > 1e-9 {
            mean_is("tail of the response", &outcomes, |one| f64::from(u8::from(one.response > t)), tail);
        }
    }
}

/// Pollaczek and Khinchine: the wait goes with the second moment of the service.
fn pollaczek_khinchine(load: f64, second_moment: f64) -> f64 {
    load * second_moment / (2.0 * (1.0 - load))
}

#[test]
fn m_d_1() {
    let load = 0.7;
    let outcomes = simulate(4, &poisson(load), server(1, usize::MAX, Latency::Fixed(SERVICE)));

    mean_is("wait", &outcomes, |one| one.wait, pollaczek_khinchine(load, 1.0));
}

/// A lognormal service with mean 1 and this spread of its logarithm.
fn lognormal(sigma: f64) -> (Latency, f64) {
    let median = SERVICE.mul_f64((-sigma * sigma / 2.0).exp());
    let p99 = median.mul_f64((sigma * 2.326_347_874_040_841).exp());
    (Latency::Lognormal { median, p99 }, (sigma * sigma).exp())
}

#[test]
fn m_g_1_with_a_lognormal_service() {
    let load = 0.6;
    let (service, second_moment) = lognormal(0.8);

    let outcomes = simulate(5, &poisson(load), server(1, usize::MAX, service));

    mean_is("wait", &outcomes, |one| one.wait, pollaczek_khinchine(load, second_moment));
}

/// Last come, first served: the mean is that of the queue, the spread is not.
#[test]
fn m_g_1_lifo_waits_as_long_on_average() {
    let load = 0.6;
    let (service, second_moment) = lognormal(0.8);
    let lifo = Upstream { discipline: Discipline::Lifo, ..server(1, usize::MAX, service) };

    let outcomes = simulate(6, &poisson(load), lifo);

    mean_is("wait", &outcomes, |one| one.wait, pollaczek_khinchine(load, second_moment));
}

/// Processor sharing does not see the distribution: the mean response is that of M/M/1 for any service.
#[test]
fn m_g_1_with_shared_workers_is_insensitive() {
    let load = 0.6;
    for service in [Latency::Fixed(SERVICE), exponential(), lognormal(0.8).0] {
        let shared = Upstream { discipline: Discipline::Ps, ..server(1, usize::MAX, service) };

        let outcomes = simulate(7, &poisson(load), shared);

        mean_is("response", &outcomes, |one| one.response, 1.0 / (1.0 - load));
    }
}

/// As many as in the queue of M/M/c, each at the same speed: by Little's law the mean response is that of M/M/c.
#[test]
fn m_m_c_with_shared_workers() {
    let (workers, offered) = (4, 2.8);
    let shared = Upstream { discipline: Discipline::Ps, ..server(workers, usize::MAX, exponential()) };

    let outcomes = simulate(8, &poisson(offered), shared);

    let expected = 1.0 + erlang_c(workers, offered) / (workers as f64 - offered);
    mean_is("response", &outcomes, |one| one.response, expected);
}

#[test]
fn m_m_1_k_loses_as_many() {
    for (load, places) in [(0.8_f64, 4), (1.0, 5), (1.5, 3)] {
        let powers: f64 = (0..=places).map(|n| load.powi(n)).sum();

        let outcomes = simulate(9, &poisson(load), server(1, places as usize - 1, exponential()));

        mean_is("loss", &outcomes, |one| f64::from(u8::from(one.refused)), load.powi(places) / powers);
    }
}

/// Without a queue, loss does not see the distribution of the service (Erlang B).
#[test]
fn m_g_c_c_loses_as_many() {
    let (workers, offered) = (4, 3.0);
    let blocking = (1..=workers).fold(1.0, |blocking, count| offered * blocking / (count as f64 + offered * blocking));
    for service in [Latency::Fixed(SERVICE), exponential(), lognormal(0.8).0] {
        let outcomes = simulate(10, &poisson(offered), server(workers, 0, service));

        mean_is("loss", &outcomes, |one| f64::from(u8::from(one.refused)), blocking);
    }
}

/// The stall law (a stall of S in a run of T, even arrivals): the quantile q is S - (1 - q) T, the mean S^2 / 2T.
#[test]
fn one_stall_in_a_run() {
    let stall = crate::simulate::settings::Change {
        at: Duration::from_secs(4),
        lasts: Some(Duration::from_secs(1)),
        stall: true,
        ..Default::default()
    };
    let schedule = crate::simulate::settings::Schedule { changes: vec![stall] };
    let mut model = Model::new(1, Arc::new(Upstream { schedule, ..Upstream::new("stalls") }));
    for number in 0..10_000 {
        model.arrive(number * 1_000_000, Arrival::new(number)).unwrap();
    }
    let mut responses: Vec<u64> =
        std::iter::from_fn(|| model.completed(NEVER - 1)).map(|done| done.ended - done.arrived).collect();
    responses.sort_unstable();

    let quantile = |q: f64| responses[(q * 10_000.0) as usize - 1] / 1_000_000;
    assert_eq!((quantile(0.5), quantile(0.9), quantile(0.95), quantile(0.99), quantile(1.0)), (0, 0, 500, 900, 1000));
    assert_eq!(
        responses.iter().sum::<u64>() / 10_000,
        50_050_000,
        "half a gap more than 50 ms: the first waits longest"
    );
}
