//! Each distribution against its own formula, which is not the one that draws.

use proptest::prelude::*;

use super::*;
use crate::chance;
use crate::latency::table::Bin;

const DRAWS: u64 = 100_000;
const MS: Duration = Duration::from_millis(1);

/// Dvoretzky, Kiefer and Wolfowitz (with Massart's constant): a true sample lies farther from its distribution with a
/// probability below 1e-6. The seed is fixed besides, so that the answer is always the same.
fn dkw_bound() -> f64 {
    ((2.0_f64 / 1e-6).ln() / (2.0 * DRAWS as f64)).sqrt()
}

/// Compares draws with the probability to lie at or below a latency in milliseconds.
#[track_caller]
fn follows(latency: Latency, at_or_below: impl Fn(f64) -> f64) {
    let drawn = |n| latency.quantile(chance::unit(3, "drawn", n, 1));
    let mut values: Vec<f64> = (0..DRAWS).map(|n| drawn(n).as_secs_f64() * 1e3).collect();
    values.sort_by(f64::total_cmp);
    let distance = values.iter().enumerate().fold(0.0_f64, |distance, (rank, value)| {
        let (below, up_to) = (rank as f64 / DRAWS as f64, (rank + 1) as f64 / DRAWS as f64);
        let expected = at_or_below(*value);
        distance.max((expected - below).abs().min((expected - up_to).abs()))
    });
    assert!(distance < dkw_bound(), "{distance} is not below {}", dkw_bound());
}

#[test]
fn the_bound_of_the_tests_is_the_one_that_is_stated() {
    assert!((dkw_bound() - 0.0085).abs() < 0.0001, "{}", dkw_bound());
}

#[test]
fn uniform() {
    follows(Latency::Uniform { min: 100 * MS, max: 300 * MS }, |x| (x - 100.0) / 200.0);
}

#[test]
fn no_latency_is_longer_than_the_longest() {
    for latency in [Latency::Fixed(Duration::MAX), Latency::Uniform { min: MS, max: Duration::MAX }] {
        assert_eq!(latency.quantile(0.9), LONGEST, "{latency:?}");
    }
}

#[test]
fn normal_above_its_minimum() {
    let below = normal::probability_below(-1.0);

    follows(Latency::Normal { mean: 100 * MS, sd: 20 * MS, min: 80 * MS }, |x| {
        (normal::probability_below((x - 100.0) / 20.0) - below) / (1.0 - below)
    });
}

#[test]
fn lognormal() {
    let latency = Latency::Lognormal { median: 40 * MS, p99: 900 * MS };
    let sigma = (900.0_f64 / 40.0).ln() / 2.326_347_874_040_841;

    assert_eq!(latency.quantile(0.5), 40 * MS);
    assert!(latency.quantile(0.99).abs_diff(900 * MS) < Duration::from_nanos(10));
    follows(latency, |x| normal::probability_below((x / 40.0).ln() / sigma));
}

#[test]
fn pareto() {
    let (alpha, beyond) = (1.5, (10.0_f64 / 5_000.0).powf(1.5));

    follows(Latency::Pareto { min: 10 * MS, alpha, max: 5_000 * MS }, |x| {
        (1.0 - (10.0 / x).powf(alpha)) / (1.0 - beyond)
    });
}

#[test]
fn exponential() {
    follows(Latency::Exponential { mean: 25 * MS }, |x| 1.0 - (-x / 25.0).exp());
}

#[test]
fn a_mix_of_fast_and_slow() {
    let parts =
        [(3.0, Latency::Uniform { min: Duration::ZERO, max: 10 * MS }), (1.0, Latency::Exponential { mean: 100 * MS })];

    follows(Latency::mix(parts), |x| 0.75 * (x / 10.0).min(1.0) + 0.25 * (1.0 - (-x / 100.0).exp()));
}

#[test]
fn a_table_of_buckets() {
    let bin = |weight, low: f64, high: f64| Bin { weight, low: low * 1e6, high: high * 1e6 };
    let table = Table::new(vec![bin(0.5, 0.0, 10.0), bin(0.5, 10.0, 1000.0)]).unwrap();

    follows(Latency::Recorded(Arc::new(table)), |x| {
        if x <= 10.0 { x / 20.0 } else { 0.5 + 0.5 * (x / 10.0).ln() / 100.0_f64.ln() }
    });
}

#[test]
fn no_tail_reaches_beyond_a_day() {
    let latency = Latency::Lognormal { median: Duration::from_secs(1), p99: Duration::from_secs(80_000) };

    assert_eq!(latency.quantile(1.0), LONGEST);
    assert_eq!(duration(f64::NAN), Duration::ZERO);
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_micros)
}

/// Every distribution but the mix, which is in order within its parts only.
fn distributions() -> impl Strategy<Value = Latency> {
    let table = proptest::collection::vec((1_u32..100, 1_u32..1_000_000), 1..20).prop_map(|steps| {
        let mut low = 0.0;
        let bins = steps.into_iter().map(|(weight, width)| {
            let bin = Bin { weight: weight.into(), low, high: low + f64::from(width) };
            low = bin.high;
            bin
        });
        Latency::Recorded(Arc::new(Table::new(bins.collect()).unwrap()))
    });
    prop_oneof![
        (millis(0..1000), millis(1..1000)).prop_map(|(min, more)| Latency::Uniform { min, max: min + more }),
        (millis(1..1000), millis(1..500), millis(0..1000))
            .prop_map(|(mean, sd, min)| { Latency::Normal { mean, sd, min: min.min(mean) } }),
        (millis(1..1000), millis(1..9000)).prop_map(|(median, more)| Latency::Lognormal { median, p99: median + more }),
        (millis(1..1000), 0.1..5.0, millis(1..9000))
            .prop_map(|(min, alpha, more)| { Latency::Pareto { min, alpha, max: min + more } }),
        millis(1..1000).prop_map(|mean| Latency::Exponential { mean }),
        table,
    ]
}

proptest! {
    #[test]
    fn a_quantile_never_falls(latency in distributions(), a in 0.0..1.0, b in 0.0..1.0) {
        let (lower, upper) = if a <= b { (a, b) } else { (b, a) };

        prop_assert!(latency.quantile(lower) <= latency.quantile(upper), "{latency:?}");
    }

    #[test]
    fn a_quantile_stays_within_its_bounds(latency in distributions(), part in 0.0..1.0) {
        let value = latency.quantile(part);

        match latency {
            Latency::Uniform { min, max } | Latency::Pareto { min, max, .. } => {
                prop_assert!(min <= value && value <= max)
            }
            Latency::Normal { min, .. } => prop_assert!(min <= value),
            _ => {}
        }
    }
}
