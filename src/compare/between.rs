//! How much the runs of one side differ among themselves.
//!
//! Seconds of one run share its process, its connections and its warm caches; another run of the very same program
//! may be some percent off as a whole. Blocks within runs cannot see that. With several runs on a side it shows in
//! their differences, and what the seconds do not explain of those is added to the variance: the random-effects
//! estimate of R. DerSimonian and N. Laird, Meta-analysis in clinical trials, Controlled Clinical Trials 7 (1986).
//! With a single run it stays unknown, which the reports say.

use super::bootstrap::Estimate;
use super::interval::{Scale, moments};

/// What differences between runs add to the variance of a side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Between {
    pub variance: f64,
    /// Few: one less than there are runs.
    pub degrees_of_freedom: f64,
}

impl Between {
    /// Of the runs, each estimated alone.
    pub fn of(runs: &[Estimate], scale: Scale, variance_factor: f64, least_variance: f64) -> Self {
        if runs.len() < 2 {
            return Self::default();
        }
        let count = runs.len() as f64;
        let known: Vec<(f64, f64)> = runs
            .iter()
            .map(|run| {
                let (value, deviations) = moments(run, scale);
                (value, (deviations.variance() * variance_factor).max(least_variance).max(f64::MIN_POSITIVE))
            })
            .collect();
        Self { variance: heterogeneity(&known) / count, degrees_of_freedom: count - 1.0 }
    }
}

/// The variance of the true values of the runs, given what was measured of each and the variance of that.
fn heterogeneity(runs: &[(f64, f64)]) -> f64 {
    let weights: f64 = runs.iter().map(|(_, variance)| 1.0 / variance).sum();
    let squares: f64 = runs.iter().map(|(_, variance)| 1.0 / (variance * variance)).sum();
    let mean = runs.iter().map(|(value, variance)| value / variance).sum::<f64>() / weights;
    let spread: f64 = runs.iter().map(|(value, variance)| (value - mean).powi(2) / variance).sum();
    let expected = runs.len() as f64 - 1.0;
    ((spread - expected) / (weights - squares / weights)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_differ_as_their_seconds_explain_add_nothing() {
        assert_eq!(heterogeneity(&[(1.0, 0.04), (1.2, 0.04), (0.9, 0.04)]), 0.0);
    }

    #[test]
    fn runs_that_differ_far_more_add_their_own_variance() {
        // Exact runs: what is left is the variance of the values, 1.
        let added = heterogeneity(&[(1.0, 1e-9), (2.0, 1e-9), (3.0, 1e-9)]);

        assert!((added - 1.0).abs() < 1e-6, "{added}");
    }

    #[test]
    fn one_run_says_nothing_about_others() {
        let run = Estimate { value: 1.0, resamples: vec![0.9, 1.1] };

        assert_eq!(Between::of(&[run], Scale::Relative, 1.0, 0.0), Between::default());
    }
}
