//! What is compared: the metrics, their names (those of the gates of `load`), and how each is read from the seconds.

use std::fmt;
use std::str::FromStr;

use super::bootstrap::{Part, Sparse};
use super::interval::Scale;
use super::runs::Slice;

/// Something about a run that can be better or worse in another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    Quantile(Times, Percentile),
    Mean(Times),
    /// Requests sent per second.
    Rate,
    Share(Share),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// From the intended instant: what users see.
    Response,
    /// From the actual sending.
    Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Percentile {
    P50,
    P90,
    P95,
    P99,
    P999,
}

/// A part of the requests that is better small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Sent, but not answered as expected: all that follow but the last.
    Errors,
    HttpErrors,
    ConnectionErrors,
    Timeouts,
    Unfinished,
    /// Shed or unsent, of what was scheduled.
    NotSent,
}

impl Percentile {
    pub const ALL: [Percentile; 5] =
        [Percentile::P50, Percentile::P90, Percentile::P95, Percentile::P99, Percentile::P999];

    pub const fn quantile(self) -> f64 {
        match self {
            Percentile::P50 => 0.5,
            Percentile::P90 => 0.9,
            Percentile::P95 => 0.95,
            Percentile::P99 => 0.99,
            Percentile::P999 => 0.999,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Percentile::P50 => "p50",
            Percentile::P90 => "p90",
            Percentile::P95 => "p95",
            Percentile::P99 => "p99",
            Percentile::P999 => "p99.9",
        }
    }
}

impl Share {
    const ALL: [Share; 6] =
        [Share::Errors, Share::HttpErrors, Share::ConnectionErrors, Share::Timeouts, Share::Unfinished, Share::NotSent];

    const fn as_str(self) -> &'static str {
        match self {
            Share::Errors => "errors",
            Share::HttpErrors => "http_errors",
            Share::ConnectionErrors => "connection_errors",
            Share::Timeouts => "timeouts",
            Share::Unfinished => "unfinished",
            Share::NotSent => "not_sent",
        }
    }
}

impl Times {
    pub const ALL: [Times; 2] = [Times::Response, Times::Service];

    pub fn of(self, slice: &Slice) -> &Sparse {
        match self {
            Times::Response => &slice.response.times,
            Times::Service => &slice.service.times,
        }
    }

    fn sum_of(self, slice: &Slice) -> Part {
        let times = match self {
            Times::Response => &slice.response,
            Times::Service => &slice.service,
        };
        Part { numerator: times.sum_ns, denominator: times.count as f64 }
    }
}

impl Metric {
    /// In the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Metric> {
        let times = Times::ALL.into_iter().flat_map(|times| {
            let quantiles = Percentile::ALL.into_iter().map(move |percentile| Metric::Quantile(times, percentile));
            quantiles.chain([Metric::Mean(times)])
        });
        times.chain([Metric::Rate]).chain(Share::ALL.map(Metric::Share))
    }

    pub const fn scale(self) -> Scale {
        match self {
            Metric::Share(_) => Scale::Absolute,
            Metric::Quantile(..) | Metric::Mean(_) | Metric::Rate => Scale::Relative,
        }
    }

    pub const fn more_is_better(self) -> bool {
        matches!(self, Metric::Rate)
    }

    /// How many requests a side needs before this is judged. Quantiles: ten beyond them, below which they are those
    /// few requests and not a property of the target.
    pub fn least_requests(self) -> u64 {
        match self {
            Metric::Quantile(_, percentile) => (10.0 / (1.0 - percentile.quantile())).round() as u64,
            Metric::Mean(_) | Metric::Rate | Metric::Share(_) => 20,
        }
    }

    /// Numerator and denominator of one second, of everything that is a ratio of sums.
    pub fn part(self, slice: &Slice) -> Part {
        let counts = &slice.counts;
        let of_sent = |count: u64| Part { numerator: count as f64, denominator: counts.sent as f64 };
        match self {
            Metric::Mean(times) => times.sum_of(slice),
            Metric::Rate => Part { numerator: counts.sent as f64, denominator: slice.length_s },
            Metric::Share(Share::Errors) => of_sent(counts.sent.saturating_sub(counts.ok)),
            Metric::Share(Share::HttpErrors) => of_sent(counts.http_error),
            Metric::Share(Share::ConnectionErrors) => of_sent(counts.connection_error),
            Metric::Share(Share::Timeouts) => of_sent(counts.timeout),
            Metric::Share(Share::Unfinished) => of_sent(counts.unfinished),
            Metric::Share(Share::NotSent) => {
                Part { numerator: (counts.shed + counts.unsent) as f64, denominator: counts.scheduled as f64 }
            }
            Metric::Quantile(..) => unreachable!("quantiles are no ratios: they are read from the distributions"),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Quantile(Times::Response, percentile) => f.write_str(percentile.as_str()),
            Metric::Quantile(Times::Service, percentile) => write!(f, "service:{}", percentile.as_str()),
            Metric::Mean(Times::Response) => f.write_str("mean"),
            Metric::Mean(Times::Service) => f.write_str("service:mean"),
            Metric::Rate => f.write_str("rate"),
            Metric::Share(share) => f.write_str(share.as_str()),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Metric::all().find(|metric| metric.to_string() == text).ok_or_else(|| {
            let names: Vec<String> = Metric::all().map(|metric| metric.to_string()).collect();
            format!("there is no metric `{text}`; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_read_by_its_name() {
        for metric in Metric::all() {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        assert!("p98".parse::<Metric>().expect_err("unknown").contains("service:p99.9"));
    }

    #[test]
    fn a_percentile_needs_ten_requests_beyond_it() {
        let needed: Vec<u64> =
            Percentile::ALL.map(|percentile| Metric::Quantile(Times::Response, percentile).least_requests()).into();

        assert_eq!(needed, [20, 100, 200, 1_000, 10_000]);
    }
}
