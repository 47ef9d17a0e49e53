//! Known truths in virtual time: the stall law, and queues whose distributions are in the books.

use super::super::arrivals::{Arrivals, Spacing};
use super::super::core::{Model, Think};
use super::super::ledger::{Book, Closed, Ledger, Timings};
use super::*;

const MS: u64 = 1_000_000;

fn run(plan: &Plan, server: &mut impl Server) -> Closed {
    let mut ledger = Ledger::new(plan.warm_up);
    let end = simulate(plan, server, &mut ledger);
    let mut book = Book::new(plan.warm_up);
    book.absorb(ledger.take(end));
    let closed = book.close();
    assert!(closed.seconds.iter().all(|second| second.counts.is_closed()), "{closed:?}");
    assert_eq!(closed.area_ns, closed.service_ns, "Little's law");
    closed
}

fn open(rate: f64, spacing: Spacing) -> Model {
    Model::Open(Arrivals::constant(rate, spacing))
}

/// A quantile is exact when it falls into the bucket of the expected value.
fn assert_quantile(timings: &Timings, q: f64, expected: u64) {
    let histogram = timings.histogram().expect("has samples");
    let got = timings.quantile_ns(q);
    assert!(histogram.equivalent(got, expected), "quantile {q} is {got} instead of {expected}");
}

#[test]
fn the_stall_law_holds_exactly() {
    let closed = run(&plan(open(1000.0, Spacing::Even), 10), &mut Stalling::new(4 * SECOND, 5 * SECOND, 0));

    let response = &closed.total.response;
    assert_eq!(response.count(), 10_000);
    assert_quantile(response, 0.5, 0);
    assert_quantile(response, 0.9, 0);
    assert_quantile(response, 0.95, 500 * MS);
    assert_quantile(response, 0.99, 900 * MS);
    assert_quantile(response, 0.999, 990 * MS);
    assert_quantile(response, 1.0, 1000 * MS);
    // The fluid limit S^2/2T is 50 ms; 1000 requests of 1, 2, ... 1000 ms make half a gap more.
    assert_eq!(response.mean_ns(), 50.05 * MS as f64);
}

#[test]
fn the_stall_law_holds_for_any_length_and_place_and_recovery() {
    for stall_ms in [50, 500, 1000, 3000] {
        for from_ms in [0, 3_000, 7_000, 10_000 - stall_ms] {
            // Gaps of 0, a quarter and half of the arrivals' own: recovery at once, four times and twice as fast.
            for gap in [0, MS / 4, MS / 2] {
                let mut server = Stalling::new(from_ms * MS, (from_ms + stall_ms) * MS, gap);
                let closed = run(&plan(open(1000.0, Spacing::Even), 10), &mut server);

                // Sorted from the slowest, request k waits S - k (1 - rho) / R, as long as the run has requests.
                let affected = 10_000 - from_ms;
                for behind in [1, 10, 100, 400, 500, 1000, 2500, 5000] {
                    let wait = (stall_ms * MS).saturating_sub(behind * (MS - gap));
                    let expected = if behind < affected { wait } else { 0 };
                    let q = 1.0 - behind as f64 / 10_000.0;
                    assert_quantile(&closed.total.response, q, expected);
                }
            }
        }
    }
}

#[test]
fn a_stall_over_the_end_is_a_censored_tail_and_not_a_gap() {
    let plan = Plan { drain: SECOND, ..plan(open(1000.0, Spacing::Even), 10) };
    let closed = run(&plan, &mut Stalling::new(9 * SECOND, 60 * SECOND, 0));

    let counts = closed.totals.counts;
    assert_eq!((counts.ok, counts.unfinished), (9_000, 1_000));
    // Given up at 11 s: the last one is 1.001 s old, the first 2 s.
    assert_eq!(closed.totals.censored_from_ns, Some(1001 * MS));
    assert_quantile(&closed.total.response, 0.9, 0);
    assert_quantile(&closed.total.response, 0.95, 1500 * MS);
    assert_quantile(&closed.total.response, 0.99, 1900 * MS);
}

#[test]
fn timeouts_are_samples_of_at_least_the_limit() {
    let plan = Plan { timeout: 300 * MS, ..plan(open(1000.0, Spacing::Even), 10) };
    let closed = run(&plan, &mut Stalling::new(4 * SECOND, 5 * SECOND, 0));

    // Those that arrive in the last 300 ms of the stall get their answer, the one at the border included.
    assert_eq!((closed.totals.counts.timeout, closed.totals.censored_from_ns), (700, Some(300 * MS)));
    assert_quantile(&closed.total.response, 0.95, 300 * MS);
    assert_quantile(&closed.total.response, 0.93, 300 * MS);
    assert_quantile(&closed.total.response, 0.92, 200 * MS);
    assert_quantile(&closed.total.response, 0.9, 0);
}

#[test]
fn a_stall_in_the_warm_up_is_not_in_the_totals() {
    let plan = Plan { warm_up: 2, ..plan(open(1000.0, Spacing::Even), 10) };
    let closed = run(&plan, &mut Stalling::new(SECOND / 2, SECOND, 0));

    assert_eq!(closed.total.response.count(), 8_000);
    assert_quantile(&closed.total.response, 1.0, 0);
    assert_eq!(closed.warm_up.expect("is reported apart").response.max_ns / MS, 500);
}

#[test]
fn a_cap_makes_the_stall_visible_as_shed_requests() {
    let plan = Plan { cap: 100, ..plan(open(1000.0, Spacing::Even), 10) };
    let closed = run(&plan, &mut Stalling::new(4 * SECOND, 5 * SECOND, 0));

    assert_eq!((closed.totals.counts.sent, closed.totals.counts.shed), (9_100, 900));
    assert_eq!(closed.seconds[4].counts.shed, 900);
}

#[test]
fn independent_slow_requests_are_not_inflated() {
    let mut server = Independent { every: 200, slow: 100 * MS, fast: MS };
    let closed = run(&plan(open(1000.0, Spacing::Even), 20), &mut server);

    let response = &closed.total.response;
    assert_quantile(response, 0.75, MS);
    assert_quantile(response, 0.99, MS);
    assert_quantile(response, 0.995, MS);
    assert_quantile(response, 0.9951, 100 * MS);
    assert_eq!(response.mean_ns(), 0.995 * MS as f64 + 0.005 * 100.0 * MS as f64);
}

#[test]
fn a_closed_model_sees_a_stall_as_one_slow_request_per_user() {
    for users in [1, 7, 50] {
        let model = Model::Closed { users, think: Think::Fixed(10 * MS) };
        let closed = run(&plan(model, 10), &mut Stalling::new(4 * SECOND, 5 * SECOND, 0));

        let histogram = closed.total.response.histogram().expect("has samples");
        assert_eq!(histogram.count_between(MS, 2 * SECOND), u64::from(users));
        assert_eq!(closed.total.response.count(), 900 * u64::from(users), "and the rate falls instead");
    }
}

#[test]
fn sessions_are_between_open_and_closed() {
    let model = Model::Sessions {
        starts: Arrivals::constant(200.0, Spacing::Poisson),
        mean_requests: 5.0,
        think: Think::Exponential(100 * MS),
    };
    let closed = run(&plan(model, 40), &mut Stalling::new(20 * SECOND, 21 * SECOND, 0));

    let slow = closed.total.response.histogram().expect("has samples").count_between(MS, 2 * SECOND);
    let before: u64 = closed.seconds[5..20].iter().map(|second| second.counts.scheduled).sum();
    // 1000/s in the mean. A geometric number from each of 3000 sessions: sd of the sum sqrt(3000 (20 + 25)) = 367.
    assert!((before as f64 - 15_000.0).abs() < 5.0 * 367.0, "{before}");
    // Open would be 1000; here sessions wait instead of asking on: those that start and those that think.
    assert!((200..600).contains(&slow), "{slow}");
}

/// Means over batches of consecutive seconds, which are nearly independent, and five standard errors of them.
fn mean_and_error(closed: &Closed, batch: usize) -> (f64, f64) {
    let means: Vec<f64> = closed
        .seconds
        .chunks_exact(batch)
        .map(|seconds| {
            let (sum, count) = seconds.iter().fold((0.0, 0.0), |(sum, count), second| {
                let response = &second.response;
                (sum + response.mean_ns * response.count as f64, count + response.count as f64)
            });
            sum / count
        })
        .collect();
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 5.0 * (variance / n).sqrt())
}

/// The mean response time at so many requests per second, of servers with a mean service time of 10 ms.
fn assert_mean(spacing: Spacing, rate: f64, workers: usize, service: Service, expected_ms: f64) {
    let plan = Plan { seed: 5, ..plan(open(rate, spacing), 400) };
    let mut server = Queue::new(workers, usize::MAX, service, 6);

    let (mean, error) = mean_and_error(&run(&plan, &mut server), 20);

    let expected = expected_ms * MS as f64;
    assert!((mean - expected).abs() < error, "{mean} instead of {expected} (+- {error})");
    assert!(error < 0.35 * expected, "the run is too short to say anything: +- {error}");
}

#[test]
fn m_m_1_has_its_mean() {
    assert_mean(Spacing::Poisson, 50.0, 1, Service::Exponential(10 * MS), 20.0);
    assert_mean(Spacing::Poisson, 80.0, 1, Service::Exponential(10 * MS), 50.0);
}

#[test]
fn d_m_1_has_its_mean() {
    // sigma = exp(-(1 - sigma) / rho) by iteration; the mean is 1 / (1 - sigma) service times.
    let sigma = (0..200).fold(0.5, |sigma: f64, _| (-(1.0 - sigma) / 0.8).exp());

    assert_mean(Spacing::Even, 80.0, 1, Service::Exponential(10 * MS), 10.0 / (1.0 - sigma));
}

#[test]
fn m_g_1_has_the_mean_of_pollaczek_and_khinchine() {
    let mean_with = |second_moment: f64| 10.0 + 0.07 * second_moment / (2.0 * (1.0 - 0.7));

    assert_mean(Spacing::Poisson, 70.0, 1, Service::Fixed(10 * MS), mean_with(100.0));
    assert_mean(Spacing::Poisson, 70.0, 1, Service::Either(2 * MS, 18 * MS), mean_with((4.0 + 324.0) / 2.0));
}

#[test]
fn m_m_c_waits_as_erlang_says() {
    let (servers, offered) = (4_u32, 3.0_f64);
    let term = |k: u32| (1..=k).fold(1.0, |term, i| term * offered / f64::from(i));
    let all_busy = term(servers) / (1.0 - offered / f64::from(servers));
    let waits = all_busy / ((0..servers).map(term).sum::<f64>() + all_busy);

    assert_mean(Spacing::Poisson, 300.0, 4, Service::Exponential(10 * MS), 10.0 + waits * 10.0 / (4.0 - offered));
}

#[test]
fn m_m_1_k_loses_its_share() {
    let (room, rho) = (5, 0.9_f64);
    let plan = Plan { seed: 5, ..plan(open(90.0, Spacing::Poisson), 300) };

    let counts = run(&plan, &mut Queue::new(1, room, Service::Exponential(10 * MS), 6)).totals.counts;

    let expected = (1.0 - rho) * rho.powi(5) / (1.0 - rho.powi(6));
    let share = counts.http_error as f64 / counts.sent as f64;
    // Losses come in clusters; twice the error of independent ones covers the correlation of five places.
    let error = 4.9 * 2.0 * (expected * (1.0 - expected) / counts.sent as f64).sqrt();
    assert!((share - expected).abs() < error, "{share} instead of {expected} (+- {error})");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let once = |seed| {
        let plan = Plan { seed, ..plan(open(100.0, Spacing::Poisson), 20) };
        run(&plan, &mut Queue::new(1, 10, Service::Exponential(10 * MS), 3)).seconds
    };

    assert_eq!(once(1), once(1));
    assert_ne!(once(1), once(2));
}
