//! How many seconds make up a block.
//!
//! Too short, and blocks do not contain the dependence between seconds: intervals get too narrow. Too long, and there
//! are too few of them. Five seconds suit most servers; where neighbouring seconds are more alike than that allows
//! for, the length that minimises the error of the variance is used, with the correlation of neighbours plugged in:
//!
//! ```text
//! (sqrt(6) r / (1 - r^2))^(2/3) n^(1/3)
//! ```
//!
//! E. Carlstein, Annals of Statistics 14 (1986); the same as D. W. K. Andrews, Econometrica 59 (1991), gives for
//! Bartlett's kernel, to which the moving-block bootstrap is equivalent (Künsch 1989).

use super::runs::Run;

const USUAL_S: usize = 5;
/// With fewer blocks than this in a run nobody knows how much they vary.
const FEWEST: usize = 6;

/// In slices of `step` seconds.
pub fn length<'a>(runs: impl Iterator<Item = &'a Run> + Clone, step: usize) -> usize {
    let shortest = runs.clone().map(|run| run.slices.len()).min().unwrap_or(1);
    let levels: Vec<Vec<f64>> = runs.map(levels).collect();
    let usual = USUAL_S.div_ceil(step);
    let wanted = usual.max(best(correlation(&levels), shortest)).max((shortest as f64).cbrt().ceil() as usize);
    wanted.min(shortest / FEWEST).max(1)
}

/// The mean response time of each slice, as a logarithm so that one stall does not stand for all.
fn levels(run: &Run) -> Vec<f64> {
    let filled = run.slices.iter().filter(|slice| slice.response.count > 0);
    filled.map(|slice| (slice.response.sum_ns / slice.response.count as f64).max(1.0).ln()).collect()
}

/// Between neighbouring slices, over all runs.
fn correlation(runs: &[Vec<f64>]) -> f64 {
    let (mut product, mut square, mut count) = (0.0, 0.0, 0.0);
    for levels in runs {
        let mean = levels.iter().sum::<f64>() / levels.len().max(1) as f64;
        square += levels.iter().map(|level| (level - mean).powi(2)).sum::<f64>();
        product += levels.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>();
        count += levels.len() as f64 / runs.len() as f64;
    }
    if square <= 0.0 || count < 2.0 {
        return 0.0;
    }
    let measured = product / square;
    // In short series it comes out too small (M. G. Kendall, Biometrika 41, 1954).
    (measured + (1.0 + 3.0 * measured) / count).clamp(0.0, 0.98)
}

fn best(correlation: f64, length: usize) -> usize {
    let factor = 6_f64.sqrt() * correlation / (1.0 - correlation * correlation);
    (factor.powf(2.0 / 3.0) * (length as f64).cbrt()).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stronger_dependence_and_longer_runs_ask_for_longer_blocks() {
        assert_eq!([0.0, 0.3, 0.5, 0.8].map(|correlation| best(correlation, 60)), [0, 3, 5, 12]);
        assert_eq!(best(0.5, 480), 11);
    }

    #[test]
    fn the_correlation_of_neighbours_is_found() {
        let alternating = [1.0, -1.0].repeat(500);
        let slow: Vec<f64> = (0..1000).map(|at| if at / 100 % 2 == 0 { 1.0 } else { -1.0 }).collect();

        assert_eq!(correlation(&[alternating]), 0.0);
        assert!(correlation(&[slow]) > 0.95);
        assert_eq!(correlation(&[vec![3.0; 50]]), 0.0);
        assert_eq!(correlation(&[vec![], vec![]]), 0.0);
    }
}
