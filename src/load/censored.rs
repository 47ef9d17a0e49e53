//! Reading a distribution some of whose values are only lower bounds, because the requests timed out or were given up.
//!
//! Such requests are in the histogram with the age at which they were last seen. A quantile read from it is then exact
//! or less than the truth, never more, and which of the two can be told: it is exact if enough values are certain to
//! lie at or below it, however large the uncertain ones really are.

use std::borrow::Cow;
use std::fmt;

use hdrhistogram::Histogram;

use super::ledger::{Timings, empty_histogram};
use super::result::{Distribution, HistogramError, Totals};

/// What is read from a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// From 0 to 1, both excluded.
    Quantile(f64),
    Max,
    Mean,
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // 0.999 * 100 is not 99.9 in binary; nine digits hide it.
            Statistic::Quantile(q) => {
                let percent = format!("{:.9}", q * 100.0);
                write!(f, "p{}", percent.trim_end_matches('0').trim_end_matches('.'))
            }
            Statistic::Max => f.write_str("max"),
            Statistic::Mean => f.write_str("mean"),
        }
    }
}

/// A value that was read, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    pub ns: f64,
    /// The truth may be larger.
    pub at_least: bool,
}

/// A distribution with some values of which only the least is known.
#[derive(Debug, Clone)]
pub struct Censored<'a> {
    histogram: Cow<'a, Histogram<u64>>,
    mean_ns: f64,
    censored: u64,
    /// The least of the censored values, if it is known.
    from: Option<u64>,
}

impl<'a> Censored<'a> {
    pub fn of_timings(timings: &'a Timings, censored: u64, from: Option<u64>) -> Self {
        let histogram = timings.histogram().map_or_else(|| Cow::Owned(empty_histogram()), Cow::Borrowed);
        Self { histogram, mean_ns: timings.mean_ns(), censored, from }
    }

    /// # Errors
    ///
    /// When the histogram is damaged.
    pub fn of_distribution(
        distribution: &Distribution,
        censored: u64,
        from: Option<u64>,
    ) -> Result<Self, HistogramError> {
        let histogram = Cow::Owned(distribution.histogram()?);
        Ok(Self { histogram, mean_ns: distribution.mean_ns, censored, from })
    }

    /// One that was put together; its mean is within 0.1 %.
    pub fn of_histogram(histogram: Histogram<u64>, censored: u64, from: Option<u64>) -> Self {
        Self { mean_ns: histogram.mean(), histogram: Cow::Owned(histogram), censored, from }
    }

    /// The response times of all requests.
    ///
    /// # Errors
    ///
    /// When the histogram is damaged.
    pub fn response(totals: &Totals) -> Result<Self, HistogramError> {
        Self::of_distribution(&totals.response, totals.counts.censored(), totals.censored_from_ns)
    }

    /// The service times of all requests.
    ///
    /// # Errors
    ///
    /// When the histogram is damaged.
    pub fn service(totals: &Totals) -> Result<Self, HistogramError> {
        let from = service_from(totals.censored_from_ns, totals.lateness.max_ns);
        Self::of_distribution(&totals.service, totals.counts.censored(), from)
    }

    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// How many values are lower bounds.
    pub fn censored(&self) -> u64 {
        self.censored
    }

    pub fn read(&self, statistic: Statistic) -> Reading {
        let (ns, at_least) = match statistic {
            Statistic::Max => (self.histogram.max() as f64, self.censored > 0),
            Statistic::Mean => (self.mean_ns, self.censored > 0),
            Statistic::Quantile(q) => {
                let ns = self.histogram.value_at_quantile(q);
                (ns as f64, self.surely_within(ns) < self.rank(q))
            }
        };
        Reading { ns, at_least }
    }

    /// Whether the statistic lies within an upper limit however large the censored values really are. `holds` compares
    /// with the limit: `<` or `<=`.
    pub fn surely(&self, statistic: Statistic, holds: impl Fn(u64) -> bool, limit_ns: u64) -> bool {
        let Statistic::Quantile(q) = statistic else { return self.censored == 0 };
        // The histogram keeps ranges apart, not values: only those that lie within the limit altogether count.
        let top = if holds(self.histogram.highest_equivalent(limit_ns)) {
            limit_ns
        } else {
            self.histogram.lowest_equivalent(limit_ns).saturating_sub(1)
        };
        self.surely_within(top) >= self.rank(q)
    }

    /// How many values are at most `ns`, whatever the censored ones really are.
    fn surely_within(&self, ns: u64) -> u64 {
        let within = |ns: u64| self.histogram.count_between(0, ns);
        let all = within(ns);
        let Some(from) = self.from.map(|from| self.histogram.lowest_equivalent(from)) else {
            return all.saturating_sub(self.censored);
        };
        if ns < from || self.censored == 0 {
            return all;
        }
        // Of those from the first censored one on, as many may be censored as there are.
        let before = if from == 0 { 0 } else { within(from - 1) };
        all.saturating_sub(self.censored).max(before)
    }

    /// How many values must not exceed the quantile. As in `Histogram::value_at_quantile`.
    fn rank(&self, q: f64) -> u64 {
        ((q * self.histogram.len() as f64).ceil() as u64).max(1)
    }
}

/// From where on service times may be censored: they are shorter than the response times by the lateness at most.
pub fn service_from(response_from: Option<u64>, latest: u64) -> Option<u64> {
    response_from.map(|from| from.saturating_sub(latest))
}
