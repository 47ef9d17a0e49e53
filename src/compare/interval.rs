//! From resamples of both sides to intervals for all differences at once.
//!
//! A comparison shows a dozen metrics. At 5 % each, two runs of the very same thing would differ "significantly" in
//! some metric far more often than in 5 % of all comparisons. The intervals here are *simultaneous*: all of them hold
//! together with the stated confidence. They are as wide as the largest of all standardised differences demands (the
//! single-step method of J. P. Romano and M. Wolf, Stepwise multiple testing as formalized data snooping, Econometrica
//! 73, 2005; before them P. Westfall and S. Young, 1993). Holm's method would promise the same, but does not know that
//! p95 and p99 move together, and so would decide less.
//!
//! Runs have few blocks: 12 in a minute. The spread of so few is itself uncertain, so limits are those of Student's t
//! with the degrees of freedom of both sides together (B. L. Welch, 1947), not those of the normal distribution.

use super::between::Between;
use super::bootstrap::Estimate;

/// In what a difference is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As a ratio: +5 % of the value before. Symmetric in both sides, since logarithms are compared.
    Relative,
    /// As such: half a percentage point more. For shares, which may be 0.
    Absolute,
}

/// One side of a metric.
#[derive(Debug, Clone)]
pub struct Side {
    pub estimate: Estimate,
    /// See [`super::bootstrap::Blocks`].
    pub degrees_of_freedom: f64,
    pub variance_factor: f64,
    /// The variance is not below this, however alike the resamples are: the resolution of a histogram, the chance of
    /// rare events that did not happen. On the scale of the metric.
    pub least_variance: f64,
    /// What the differences between the runs of this side add.
    pub between: Between,
}

/// A metric of which both sides are known.
#[derive(Debug, Clone)]
pub struct Pair {
    pub scale: Scale,
    pub before: Side,
    pub after: Side,
}

/// A difference and the interval it is in, as fractions: 0.05 is 5 % or 5 percentage points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub difference: f64,
    pub low: f64,
    pub high: f64,
}

/// Resamples that vary by less are all alike, but for rounding.
const LEAST_SPREAD: f64 = 1e-12;

/// Values below are not told apart from it on a relative scale: it has no zero.
const LEAST: f64 = 1e-9;

/// The intervals of all pairs, which all hold together with this confidence.
pub fn simultaneous(pairs: &[Pair], confidence: f64) -> Vec<Interval> {
    let deviations: Vec<Deviations> = pairs.iter().map(Deviations::of).collect();
    let limit = joint_limit(&deviations, confidence);
    pairs.iter().zip(&deviations).map(|(pair, deviations)| deviations.interval(pair, limit)).collect()
}

/// A pair on its scale.
struct Deviations {
    difference: f64,
    error: f64,
    degrees_of_freedom: f64,
    /// Of each resample from their mean, in standard deviations of the resamples. Empty if they are all alike.
    standardised: Vec<f64>,
}

impl Deviations {
    fn of(pair: &Pair) -> Self {
        let (before, after) = (Moments::of(&pair.before, pair.scale), Moments::of(&pair.after, pair.scale));
        let spread = (before.raw_variance + after.raw_variance).sqrt();
        let standardised = if spread > LEAST_SPREAD {
            let deviations = before.deviations.iter().zip(&after.deviations);
            deviations.map(|(before, after)| (after - before) / spread).collect()
        } else {
            Vec::new()
        };
        Self {
            difference: after.value - before.value,
            error: (before.variance + after.variance).sqrt(),
            degrees_of_freedom: welch([
                (before.variance, before.degrees_of_freedom),
                (after.variance, after.degrees_of_freedom),
            ]),
            standardised,
        }
    }

    fn interval(&self, pair: &Pair, limit: f64) -> Interval {
        let half = student(limit, self.degrees_of_freedom) * self.error;
        let shown = |value: f64| match pair.scale {
            Scale::Relative => value.exp_m1(),
            Scale::Absolute => value,
        };
        Interval {
            difference: shown(self.difference),
            low: shown(self.difference - half),
            high: shown(self.difference + half),
        }
    }
}

/// The deviations of the resamples from their mean.
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn variance(&self) -> f64 {
        let squares: f64 = self.0.iter().map(|value| value * value).sum();
        squares / (self.0.len().max(2) as f64 - 1.0)
    }
}

/// An estimate and its resamples on a scale.
pub fn moments(estimate: &Estimate, scale: Scale) -> (f64, Spread) {
    let scaled = |value: f64| match scale {
        Scale::Relative => value.max(LEAST).ln(),
        Scale::Absolute => value,
    };
    let mut deviations: Vec<f64> = estimate.resamples.iter().map(|value| scaled(*value)).collect();
    let mean = deviations.iter().sum::<f64>() / deviations.len().max(1) as f64;
    deviations.iter_mut().for_each(|value| *value -= mean);
    (scaled(estimate.value), Spread(deviations))
}

/// One side on the scale of its metric.
struct Moments {
    value: f64,
    deviations: Vec<f64>,
    raw_variance: f64,
    variance: f64,
    degrees_of_freedom: f64,
}

impl Moments {
    fn of(side: &Side, scale: Scale) -> Self {
        let (value, spread) = moments(&side.estimate, scale);
        let raw_variance = spread.variance();
        let within = (raw_variance * side.variance_factor).max(side.least_variance);
        let parts =
            [(within, side.degrees_of_freedom), (side.between.variance, side.between.degrees_of_freedom.max(1.0))];
        Self {
            value,
            raw_variance,
            variance: within + side.between.variance,
            degrees_of_freedom: welch(parts),
            deviations: spread.0,
        }
    }
}

/// The degrees of freedom of a sum of two variances that were both estimated, given with theirs.
fn welch(parts: [(f64, f64); 2]) -> f64 {
    let sum: f64 = parts.iter().map(|(variance, _)| variance).sum();
    if sum <= 0.0 {
        return parts.iter().map(|(_, degrees)| degrees).sum();
    }
    1.0 / parts.iter().map(|(variance, degrees)| (variance / sum).powi(2) / degrees).sum::<f64>()
}

/// How many standard deviations the largest of all deviations of a resample stays within, in this share of them. Not
/// less than one metric of the normal distribution would need: rare events are absent from most resamples.
fn joint_limit(all: &[Deviations], confidence: f64) -> f64 {
    let resamples = all.iter().map(|deviations| deviations.standardised.len()).max().unwrap_or(0);
    let mut largest: Vec<f64> = (0..resamples)
        .map(|index| all.iter().filter_map(|d| d.standardised.get(index)).fold(0.0, |max: f64, d| max.max(d.abs())))
        .collect();
    largest.sort_by(f64::total_cmp);
    let rank = (confidence * resamples as f64).ceil() as usize;
    largest.get(rank.saturating_sub(1)).copied().unwrap_or(0.0).max(normal_limit(confidence))
}

/// What the amount of a standard normal deviate stays within: M. Abramowitz and I. Stegun, formula 26.2.23, off by
/// less than 0.00045.
fn normal_limit(confidence: f64) -> f64 {
    let t = (-2.0 * ((1.0 - confidence) / 2.0).ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    t - numerator / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

/// The value of Student's t that is exceeded as rarely as `normal` is by a normal deviate: the expansion of R. A.
/// Fisher and E. A. Cornish (1960). Good to 1 % from three degrees of freedom on.
fn student(normal: f64, degrees_of_freedom: f64) -> f64 {
    let z = normal;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    let per = 1.0 / degrees_of_freedom;
    z + per * (first + per * (second + per * third))
}

#[cfg(test)]
#[path = "interval_tests.rs"]
mod tests;
