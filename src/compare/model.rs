//! What a comparison says, as data: the JSON report is this, the others are made from it.

use serde::{Deserialize, Serialize};

use super::comparable::Warning;
use super::interval::Interval;
use super::verdict::Verdict;

/// The value of [`Comparison::schema`]. Fields are only ever added under that name.
pub const SCHEMA: &str = "forebay-compare/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub schema: String,
    /// Of the program that made it.
    pub version: String,
    pub before: SideSummary,
    pub after: SideSummary,
    pub method: Method,
    /// Reasons to doubt that the two sides can be compared.
    pub warnings: Vec<Warning>,
    /// Worse if anything is; else better if anything is; the same only if everything is.
    pub verdict: Verdict,
    pub metrics: Vec<Row>,
}

/// The runs of one side together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideSummary {
    /// Where they were read from.
    pub runs: Vec<String>,
    pub commands: Vec<String>,
    /// Measured, of all runs.
    pub seconds: f64,
    pub requests: u64,
    /// Response times.
    pub spectrum: Vec<SpectrumPoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SpectrumPoint {
    pub quantile: f64,
    pub ns: u64,
}

/// How it was done: with the same, the result is the same to the bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    pub seed: u64,
    pub resamples: usize,
    pub block_s: usize,
    /// With which all intervals hold together.
    pub confidence: f64,
    /// 0.02: differences of times and rates below 2 % do not matter.
    pub threshold: f64,
    /// 0.001: differences of shares below 0.1 percentage points do not matter.
    pub share_threshold: f64,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub metric: String,
    pub unit: Unit,
    pub before: Option<f64>,
    pub after: Option<f64>,
    /// The true value may be larger: some of the requests were given up before they ended.
    #[serde(default)]
    pub before_at_least: bool,
    #[serde(default)]
    pub after_at_least: bool,
    /// As a fraction of the value before (0.05: 5 % more), or of shares as such (0.05: 5 percentage points more).
    pub difference: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub verdict: Verdict,
    /// Why it is undecided, if it is not that the interval allows more than one verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// For how long each side would have to run for a good chance of a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer_s: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Nanoseconds,
    PerSecond,
    /// Of all requests: 0 to 1.
    Share,
}

impl Row {
    /// Undecided until there is an interval.
    pub fn new(metric: String, unit: Unit, before: Option<f64>, after: Option<f64>) -> Self {
        let verdict = Verdict::Undecided;
        Self {
            metric,
            unit,
            before,
            after,
            before_at_least: false,
            after_at_least: false,
            difference: None,
            low: None,
            high: None,
            verdict,
            why: None,
            longer_s: None,
        }
    }

    pub fn set_interval(&mut self, interval: Interval) {
        self.difference = Some(interval.difference);
        (self.low, self.high) = (Some(interval.low), Some(interval.high));
    }

    /// The interval, if there is one.
    pub fn interval(&self) -> Option<Interval> {
        Some(Interval { difference: self.difference?, low: self.low?, high: self.high? })
    }
}
