//! Tests of `interval`.

use super::super::bootstrap::Random;
use super::super::testing::normal;
use super::*;

#[test]
fn limits_of_student_are_those_of_the_tables() {
    let tables = [(3.0, 3.182), (5.0, 2.571), (10.0, 2.228), (30.0, 2.042), (1e9, 1.960)];
    for (degrees_of_freedom, expected) in tables {
        let found = student(normal_limit(0.95), degrees_of_freedom);

        assert!((found / expected - 1.0).abs() < 0.01, "{degrees_of_freedom}: {found} instead of {expected}");
    }
}

fn side(value: f64, deviations: &[f64]) -> Side {
    Side {
        estimate: Estimate { value, resamples: deviations.iter().map(|deviation| value + deviation).collect() },
        degrees_of_freedom: 1e9,
        variance_factor: 1.0,
        least_variance: 0.0,
        between: Between::default(),
    }
}

fn draws(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count).map(|_| 0.01 * normal(random)).collect()
}

fn half_width(pairs: &[Pair]) -> f64 {
    let interval = simultaneous(pairs, 0.95)[0];
    (interval.high - interval.low) / 2.0
}

#[test]
fn one_metric_gets_the_usual_interval() {
    let mut random = Random::new(2);
    let pair = Pair {
        scale: Scale::Absolute,
        before: side(1.0, &draws(&mut random, 4000)),
        after: side(1.5, &draws(&mut random, 4000)),
    };

    let interval = simultaneous(std::slice::from_ref(&pair), 0.95)[0];

    let half = half_width(&[pair]);
    assert!((interval.difference - 0.5).abs() < 1e-12);
    assert!((half / (1.96 * 0.01 * 2_f64.sqrt()) - 1.0).abs() < 0.06, "{half}");
}

#[test]
fn limits_of_the_normal_distribution_are_those_of_the_tables() {
    for (confidence, expected) in [(0.5, 0.6745), (0.9, 1.6449), (0.95, 1.9600), (0.99, 2.5758)] {
        assert!((normal_limit(confidence) - expected).abs() < 0.0005, "{confidence}");
    }
}

#[test]
fn more_metrics_widen_the_intervals_unless_they_are_the_same_one() {
    let mut random = Random::new(2);
    let mut pair = || Pair {
        scale: Scale::Absolute,
        before: side(1.0, &draws(&mut random, 4000)),
        after: side(1.5, &draws(&mut random, 4000)),
    };
    let (one, others) = (pair(), [pair(), pair(), pair(), pair()]);
    let alone = half_width(std::slice::from_ref(&one));

    let repeated = half_width(&[one.clone(), one.clone(), one.clone()]);
    let among_five = half_width(&[&[one], others.as_slice()].concat());

    assert!((repeated - alone).abs() < 1e-12);
    // Independent metrics: the limit of Sidak for five, 2.57 instead of 1.96.
    assert!((among_five / alone / (2.57 / 1.96) - 1.0).abs() < 0.06, "{among_five} {alone}");
}

#[test]
fn what_never_varies_has_an_interval_of_its_least_variance() {
    let mut pair = Pair { scale: Scale::Relative, before: side(100.0, &[0.0; 10]), after: side(105.0, &[0.0; 10]) };
    let exact = simultaneous(std::slice::from_ref(&pair), 0.95)[0];
    pair.after.least_variance = 1e-4;
    let floored = simultaneous(&[pair], 0.95)[0];

    assert!((exact.low - 0.05).abs() < 1e-9 && (exact.high - 0.05).abs() < 1e-9, "{exact:?}");
    assert!((floored.low - (1.05 * (-0.0196_f64).exp() - 1.0)).abs() < 1e-4, "{floored:?}");
}

#[test]
fn runs_that_differ_widen_the_interval_by_far_if_they_are_few() {
    let mut random = Random::new(2);
    let mut pair = Pair {
        scale: Scale::Absolute,
        before: side(1.0, &draws(&mut random, 4000)),
        after: side(1.5, &draws(&mut random, 4000)),
    };
    let without = half_width(std::slice::from_ref(&pair));
    pair.after.between = Between { variance: 0.01, degrees_of_freedom: 2.0 };

    let with = half_width(&[pair]);

    // Its own part is 0.1, with two degrees of freedom: times 4.3.
    assert!(without < 0.03 && (0.36..0.46).contains(&with), "{without} {with}");
}
