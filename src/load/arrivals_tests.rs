//! Arrivals: exact counts of even ones, dispersion and rate of random ones, the same draws for the same seed.

use super::*;

fn starts(arrivals: &Arrivals, seconds: u64, seed: u64) -> Vec<u64> {
    arrivals.check().expect("is valid");
    arrivals.starts(seconds * SECOND, seed).collect()
}

fn shaped(profile: Profile, spacing: Spacing) -> Arrivals {
    Arrivals::Shaped { profile, spacing }
}

/// Counts per window of so many nanoseconds.
fn counts(starts: &[u64], window: u64, seconds: u64) -> Vec<u64> {
    let mut counts = vec![0; usize::try_from(seconds * SECOND / window).expect("few")];
    starts.iter().for_each(|at| counts[usize::try_from(at / window).expect("few")] += 1);
    counts
}

/// Variance by mean: 0 for even spacing, 1 for Poisson.
fn dispersion(counts: &[u64]) -> f64 {
    let n = counts.len() as f64;
    let mean = counts.iter().sum::<u64>() as f64 / n;
    counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0) / mean
}

/// The bound that a sample of `n` exceeds with probability 1e-6 (Dvoretzky, Kiefer, Wolfowitz; Massart's constant).
fn kolmogorov_bound(n: usize) -> f64 {
    ((2.0_f64 / 1e-6).ln() / (2.0 * n as f64)).sqrt()
}

/// The largest distance between the empirical distribution of values in `[0, 1]` and the uniform one.
fn distance_from_uniform(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len() as f64;
    let distances = values.iter().enumerate().map(|(i, value)| (value - i as f64 / n).max((i + 1) as f64 / n - value));
    distances.fold(0.0, f64::max)
}

#[test]
fn even_arrivals_are_exact_in_count_and_place() {
    for (rate, seconds) in [(1000.0, 10), (1.0, 7), (3.0, 10), (999.0, 3), (50_000.0, 2)] {
        let all = starts(&Arrivals::constant(rate, Spacing::Even), seconds, 1);

        assert_eq!(all.len() as f64, rate * seconds as f64);
        for (index, at) in all.iter().enumerate() {
            assert!((*at as f64 - index as f64 * 1e9 / rate).abs() <= 0.51, "{index} of {rate}/s at {at}");
        }
    }
}

#[test]
fn even_arrivals_have_no_dispersion_and_poisson_has_one() {
    let even = starts(&Arrivals::constant(1000.0, Spacing::Even), 100, 1);
    let poisson = starts(&Arrivals::constant(1000.0, Spacing::Poisson), 100, 7);
    let burst = starts(&Arrivals::constant(1000.0, Spacing::Burst { size: 10 }), 100, 1);

    let window = 10_000_000;
    assert_eq!(dispersion(&counts(&even, window, 100)), 0.0);
    // The standard error over 10^4 windows is sqrt(2 / 10^4) = 0.014; the quantile of 1e-6 is 4.9 of them.
    let of_poisson = dispersion(&counts(&poisson, window, 100));
    assert!((of_poisson - 1.0).abs() < 4.9 * 0.0142, "{of_poisson}");
    assert_eq!(burst.len(), 100_000);
    assert_eq!(burst[10], burst[19]);
    assert_eq!(burst[20] - burst[19], window);
}

#[test]
fn poisson_gaps_are_exponential_and_independent() {
    for seed in 1..=5 {
        let all = starts(&Arrivals::constant(1000.0, Spacing::Poisson), 100, seed);
        let n = all.len();
        assert!((n as f64 - 1e5).abs() < 5.0 * 1e5_f64.sqrt(), "{n} arrivals");

        let gaps: Vec<f64> = all.windows(2).map(|pair| 1.0 - (-((pair[1] - pair[0]) as f64) / 1e6).exp()).collect();
        let lag: f64 = gaps.windows(2).map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5)).sum::<f64>() / (n as f64 / 12.0);

        assert!(distance_from_uniform(gaps) < kolmogorov_bound(n - 1), "seed {seed}");
        assert!(lag.abs() < 4.9 / (n as f64).sqrt(), "neighbouring gaps correlate by {lag} for seed {seed}");
    }
}

#[test]
fn profiles_are_followed_at_every_moment() {
    let profiles = [
        Profile::ramp(0.0, 500.0, 60.0),
        Profile::ramp(800.0, 0.0, 30.0),
        Profile::ramp(10.0, 300.0, 20.0),
        Profile::steps([(100.0, 10.0), (0.0, 5.0), (400.0, 20.0)]),
        Profile::Sine { mean: 200.0, amplitude: 200.0, period: 10.0 },
        Profile::Sine { mean: 100.0, amplitude: 20.0, period: 7.0 },
    ];
    for profile in profiles {
        let even = starts(&shaped(profile.clone(), Spacing::Even), 60, 1);

        for tenth in 1..=600_u64 {
            let before = even.partition_point(|at| *at < tenth * SECOND / 10) as f64;
            let planned = profile.integral(tenth as f64 / 10.0);
            assert!((before - planned).abs() <= 1.001, "{profile}: {before} for {planned} after {tenth} tenths");
        }
    }
}

#[test]
fn a_random_profile_is_uniform_in_its_own_integral() {
    for profile in [Profile::ramp(0.0, 2000.0, 60.0), Profile::Sine { mean: 1000.0, amplitude: 900.0, period: 13.0 }] {
        let all = starts(&shaped(profile.clone(), Spacing::Poisson), 60, 3);
        let total = profile.integral(60.0);

        let places: Vec<f64> = all.iter().map(|at| profile.integral(*at as f64 / 1e9) / total).collect();

        // The count is random and the places given the count are uniform, so the bound is that of a plain sample.
        assert!((all.len() as f64 - total).abs() < 5.0 * total.sqrt());
        assert!(distance_from_uniform(places) < kolmogorov_bound(all.len()), "{profile}");
    }
}

#[test]
fn the_integral_agrees_with_the_rate() {
    let profiles = [
        Profile::Lines(vec![
            Line { from: 10.0, to: 50.0, seconds: 4.0 },
            Line { from: 5.0, to: 5.0, seconds: 2.0 },
            Line { from: 5.0, to: 0.0, seconds: 3.0 },
        ]),
        Profile::Sine { mean: 7.0, amplitude: 7.0, period: 3.0 },
    ];
    for profile in profiles {
        let steps = 120_000;
        let width = 12.0 / f64::from(steps);
        let sum: f64 = (0..steps).map(|step| profile.rate((f64::from(step) + 0.5) * width) * width).sum();

        assert!((sum - profile.integral(12.0)).abs() < 1e-3, "{profile}");
    }
}

#[test]
fn a_pause_in_the_profile_stays_empty() {
    let profile = Profile::steps([(10.0, 1.0), (0.0, 5.0), (10.0, 1.0)]);

    let all = starts(&shaped(profile, Spacing::Even), 7, 1);

    assert_eq!(all.len(), 20);
    assert_eq!((all[9], all[10]), (900_000_000, 6 * SECOND));
}

#[test]
fn same_seed_same_draws_and_another_seed_others() {
    let arrivals = Arrivals::constant(500.0, Spacing::Poisson);

    assert_eq!(starts(&arrivals, 20, 42), starts(&arrivals, 20, 42));
    assert_ne!(starts(&arrivals, 20, 42), starts(&arrivals, 20, 43));
    let longer = starts(&arrivals, 30, 42);
    assert!(longer.starts_with(&starts(&arrivals, 20, 42)), "a longer run begins as the shorter one");
}

#[test]
fn recorded_instants_come_back_as_they_are() {
    let arrivals = Arrivals::Recorded(Arc::from([0, 5, 5, 7, SECOND]));

    assert_eq!(starts(&arrivals, 1, 9), [0, 5, 5, 7]);
    assert_eq!(arrivals.expected(SECOND), 4.0);
}

#[test]
fn nonsense_is_named() {
    let wrong = [
        Arrivals::constant(-1.0, Spacing::Even),
        Arrivals::constant(f64::NAN, Spacing::Even),
        Arrivals::constant(1.0, Spacing::Burst { size: 0 }),
        shaped(Profile::ramp(1.0, 2.0, 0.0), Spacing::Even),
        shaped(Profile::Sine { mean: 1.0, amplitude: 2.0, period: 1.0 }, Spacing::Even),
        Arrivals::Recorded(Arc::from([2, 1])),
    ];
    for arrivals in wrong {
        assert!(arrivals.check().is_err(), "{arrivals}");
    }
}

#[test]
fn arrivals_are_described_in_words() {
    let steps = Profile::steps([(10.0, 5.0), (20.0, 5.0)]);

    assert_eq!(Arrivals::constant(1000.0, Spacing::Poisson).to_string(), "poisson, 1000/s");
    assert_eq!(shaped(steps, Spacing::Even).to_string(), "even, 10/s for 5 s, 20/s");
    let ramp = shaped(Profile::ramp(0.0, 50.5, 60.0), Spacing::Burst { size: 5 });
    assert_eq!(ramp.to_string(), "bursts of 5, 0/s to 50.5/s in 60 s");
}

#[test]
fn no_rate_no_arrivals() {
    assert!(starts(&Arrivals::constant(0.0, Spacing::Even), 10, 1).is_empty());
    assert!(starts(&Arrivals::constant(0.0, Spacing::Poisson), 10, 1).is_empty());
    assert!(starts(&shaped(Profile::Lines(vec![]), Spacing::Even), 10, 1).is_empty());
}
