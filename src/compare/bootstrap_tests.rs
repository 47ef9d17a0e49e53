//! Resampling: blocks, joint intervals, speed.

use super::*;

fn seconds(random: &mut Random, count: usize) -> Vec<Sparse> {
    let second = |random: &mut Random| {
        let values = 1 + random.below(40);
        Sparse::new((0..values).map(|_| (100 + random.below(300) as u64, 1 + random.below(3) as u64)).collect())
    };
    (0..count).map(|_| second(random)).collect()
}

/// All times of a resample, merged and sorted: what is never done outside of tests.
fn naive_quantile(blocks: &Blocks, runs: &[Vec<Sparse>], resample: usize, quantile: f64) -> f64 {
    let mut times = Vec::new();
    for (drawn, seconds) in blocks.runs.iter().zip(runs) {
        for start in drawn.of(resample) {
            for second in (*start..start + blocks.block).map(|at| &seconds[at % seconds.len()]) {
                times.extend(second.cells().iter().flat_map(|(value, count)| vec![*value; *count as usize]));
            }
        }
    }
    times.sort_unstable();
    times[rank(quantile, times.len() as u64) as usize - 1] as f64
}

#[test]
fn quantiles_are_those_of_the_merged_seconds() {
    let mut random = Random::new(11);
    let runs = vec![seconds(&mut random, 13), seconds(&mut random, 8)];
    let blocks = Blocks::draw(&[13, 8], 3, 40, &mut random);
    let quantiles = [0.001, 0.5, 0.9, 0.999];

    let estimates = blocks.quantiles(&runs, &quantiles).expect("there are times");

    for (estimate, quantile) in estimates.iter().zip(quantiles) {
        let naive: Vec<f64> = (0..40).map(|resample| naive_quantile(&blocks, &runs, resample, quantile)).collect();
        assert_eq!(estimate.resamples, naive, "{quantile}");
    }
}

#[test]
fn without_times_there_is_no_quantile() {
    let blocks = Blocks::draw(&[2], 1, 10, &mut Random::new(1));

    assert_eq!(blocks.quantiles(&[vec![Sparse::default(); 2]], &[0.5]), None);
}

#[test]
fn every_second_is_drawn_equally_often() {
    let mut random = Random::new(5);
    let blocks = Blocks::draw(&[20], 5, 2000, &mut random);
    // Each second counts for itself alone: the mean over the resamples is that of all seconds.
    for at in [0, 10, 19] {
        let parts: Vec<Part> =
            (0..20).map(|second| Part { numerator: if second == at { 20.0 } else { 0.0 }, denominator: 1.0 }).collect();

        let estimate = blocks.ratio(&[parts]);

        let mean = estimate.resamples.iter().sum::<f64>() / 2000.0;
        assert!((mean - 1.0).abs() < 0.1, "second {at}: {mean}");
    }
}

#[test]
fn the_variance_of_a_mean_of_independent_seconds_is_right() {
    let mut random = Random::new(6);
    let values: Vec<f64> = (0..600).map(|_| random.below(1000) as f64).collect();
    let parts = values.iter().map(|value| Part { numerator: *value, denominator: 1.0 }).collect();
    let blocks = Blocks::draw(&[600], 1, 2000, &mut random);

    let estimate = blocks.ratio(&[parts]);

    let variance = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
    };
    let (found, known) = (variance(&estimate.resamples) * blocks.variance_factor(), variance(&values) / 600.0);
    assert!((found / known - 1.0).abs() < 0.1, "{found} {known}");
}

#[test]
fn a_value_occurs_once_and_in_order() {
    let mut sparse = Sparse::new(vec![(5, 1), (3, 2), (5, 4)]);
    sparse.add(&Sparse::new(vec![(3, 1), (9, 1)]));

    assert_eq!(sparse.cells(), [(3, 3), (5, 5), (9, 1)]);
}

#[test]
fn random_numbers_never_change() {
    let mut random = Random::new(1_234_567);

    // The reference values of `SplitMix64` for this seed.
    assert_eq!(
        [random.next_u64(), random.next_u64(), random.next_u64()],
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}
