//! Durations as counts by native bucket, only of buckets that hold something: small enough to keep one for each second.

use super::histogram::{Histogram, native_upper};

/// Sorted by bucket. A bucket is 9.05 % wide, see [`histogram`](super::histogram).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies(Box<[(u16, u64)]>);

impl Latencies {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let counts = histogram.native_counts().into_iter().enumerate();
        Self(counts.filter(|(_, count)| *count > 0).map(|(bucket, count)| (bucket as u16, count)).collect())
    }

    /// What came since `before`, an earlier state of the same histogram.
    pub fn since(&self, before: &Self) -> Self {
        let mut old = before.0.iter().copied().peekable();
        let difference = self.0.iter().map(|(bucket, count)| {
            while old.peek().is_some_and(|(earlier, _)| earlier < bucket) {
                old.next();
            }
            let known = old.peek().filter(|(same, _)| same == bucket).map_or(0, |(_, known)| *known);
            (*bucket, count.saturating_sub(known))
        });
        Self(difference.filter(|(_, count)| *count > 0).collect())
    }

    pub fn sum<'l>(all: impl IntoIterator<Item = &'l Self>) -> Self {
        let mut sum = std::collections::BTreeMap::<u16, u64>::new();
        for (bucket, count) in all.into_iter().flat_map(|latencies| &latencies.0) {
            *sum.entry(*bucket).or_default() += count;
        }
        Self(sum.into_iter().collect())
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Seconds, interpolated within its bucket as Prometheus 3 does it for native histograms, so at most 9.05 % from the
    /// true value. `None` when there is nothing.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q.clamp(0.0, 1.0) * self.count() as f64;
        let mut seen = 0;
        let (bucket, count) = *self.0.iter().find(|(_, count)| {
            seen += count;
            seen as f64 >= rank
        })?;
        let (lower, upper) = (lower_of(bucket), native_upper(usize::from(bucket)));
        let share = (rank - (seen - count) as f64) / count as f64;
        Some(if lower == 0.0 { upper * share } else { lower * (upper / lower).powf(share) })
    }

    /// Upper bounds in seconds with their counts, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.0.iter().map(|(bucket, count)| (native_upper(usize::from(*bucket)), *count))
    }
}

/// The zero bucket begins at nothing.
fn lower_of(bucket: u16) -> f64 {
    bucket.checked_sub(1).map_or(0.0, |below| native_upper(usize::from(below)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::histogram::Layout;

    fn observed(histogram: &Histogram, micros: &[u64]) -> Latencies {
        micros.iter().for_each(|micros| histogram.observe(Duration::from_micros(*micros)));
        Latencies::of(histogram)
    }

    proptest! {
        #[test]
        fn a_difference_has_what_came_between(
            before in prop::collection::vec(0u64..10_000_000, 0..50),
            after in prop::collection::vec(0u64..10_000_000, 0..50),
        ) {
            let (all, only_after) = (Histogram::new(Layout::new(&[0.1])), Histogram::new(Layout::new(&[0.1])));
            let first = observed(&all, &before);
            let second = observed(&all, &after);

            let difference = second.since(&first);

            prop_assert_eq!(&difference, &observed(&only_after, &after));
            prop_assert_eq!(Latencies::sum([&first, &difference]), second);
        }

        #[test]
        fn quantiles_lie_in_the_bucket_that_the_histogram_names(
            micros in prop::collection::vec(0u64..10_000_000, 0..100),
            q in 0.0f64..=1.0,
        ) {
            let histogram = Histogram::new(Layout::new(&[0.1]));
            let latencies = observed(&histogram, &micros);

            let (interpolated, upper) = (latencies.quantile(q), histogram.snapshot().quantile(q));
            prop_assert_eq!(interpolated.is_some(), upper.is_some());
            if let (Some(interpolated), Some(upper)) = (interpolated, upper) {
                let lower = if upper > 1e-7 { upper / 1.0906 } else { 0.0 };
                prop_assert!(interpolated <= upper && interpolated >= lower, "{interpolated} {upper}");
            }
            prop_assert_eq!(latencies.count(), micros.len() as u64);
        }
    }
}
