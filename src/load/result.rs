//! What a run leaves behind: everything that a report, a gate or a comparison needs, and nothing that they compute.
//!
//! One JSON document, `"schema": "forebay-load/1"`. Fields are only ever added under that name; a reader ignores what
//! it does not know. Distributions carry their histogram (HdrHistogram V2, deflated, base64: the form that wrk2, zrk
//! and the HdrHistogram tools exchange) beside the few quantiles that people read, so nothing is lost by writing a
//! result down: merging and resampling of seconds work on the file as on the run.

use std::collections::BTreeMap;
use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use super::ErrorKind;
use super::answers::Answers;
use super::ledger::{Counts, During, Second, Timings};
use super::waterfall::Waterfall;

/// The value of [`RunResult::schema`].
pub const SCHEMA: &str = "forebay-load/1";

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    pub schema: String,
    /// Of the program that made it.
    pub version: String,
    /// Seconds since 1970, by the wall clock, at the start. The only time here that is not monotonic.
    pub started_unix: f64,
    /// As typed, secrets masked by whoever fills it.
    pub command_line: Vec<String>,
    pub plan: PlanRecord,
    pub environment: Environment,
    /// Without the warm-up.
    pub totals: Totals,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Totals>,
    pub targets: Vec<TargetRecord>,
    /// Every second in order, the warm-up and the drain after the last arrival included.
    pub seconds: Vec<SecondRecord>,
    pub generator: Generator,
    pub little: Little,
    /// Where the time went within the sidecar that was loaded, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waterfall: Option<Waterfall>,
    /// How answers compare with recorded ones, in a replay that has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    pub verdict: Verdict,
    #[serde(default)]
    pub gates: Vec<GateRecord>,
    /// Remarks for the reader, for example broken promises of the deployed configuration.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What was to be done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// `open`, `closed` or `sessions`.
    pub model: String,
    /// In words: `poisson, 1000/s`.
    pub arrivals: String,
    pub seed: u64,
    /// As planned, the warm-up included.
    pub duration_s: f64,
    pub warm_up_s: u32,
    /// As it was, from the start to the last arrival that could be released: shorter if the run was interrupted.
    pub ran_s: f64,
    /// From the start to the end of the last answer, or to when it was given up; not in results of old versions. An
    /// open loop may be through before `ran_s` is over: when its last request is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_s: Option<f64>,
    pub workers: usize,
    pub in_flight_cap: u64,
    /// From the actual sending.
    pub timeout_s: f64,
    /// From the intended instant; what is later is shed instead of sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<f64>,
}

/// Where it ran. What could not be found out is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub host: String,
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    /// One-minute load average before the run.
    pub load_average: f64,
}

/// All requests of a part of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    #[serde(flatten)]
    pub counts: Counts,
    /// From the intended instant, of `ok` and the censored.
    pub response: Distribution,
    /// From the actual sending, of the same.
    pub service: Distribution,
    /// From the intended instant to the failure.
    pub failed: Distribution,
    pub lateness: Distribution,
    pub first_byte: Distribution,
    pub connect: Distribution,
    /// Quantiles of `response` from this value on are lower bounds, because of requests that timed out or were given
    /// up; smaller ones are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub censored_from_ns: Option<u64>,
    /// Times longer than the histograms hold: they are in there as an hour.
    pub saturated: u64,
    #[serde(default)]
    pub statuses: BTreeMap<u16, u64>,
    #[serde(default)]
    pub errors: BTreeMap<ErrorKind, u64>,
}

impl Totals {
    pub fn of(second: &Second, statuses: BTreeMap<u16, u64>, errors: BTreeMap<ErrorKind, u64>) -> Self {
        Self {
            counts: second.counts,
            response: Distribution::of(&second.response),
            service: Distribution::of(&second.service),
            failed: Distribution::of(&second.failed),
            lateness: Distribution::of(&second.lateness),
            first_byte: Distribution::of(&second.first_byte),
            connect: Distribution::of(&second.connect),
            censored_from_ns: second.censored_from,
            saturated: second.response.saturated() + second.failed.saturated(),
            statuses,
            errors,
        }
    }
}

/// The requests to one target that were sent and have ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    pub name: String,
    #[serde(flatten)]
    pub counts: Counts,
    pub response: Distribution,
}

/// One second: the requests that were due in it, and in `during` what happened while it lasted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondRecord {
    /// Since the start of the run.
    pub second: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub warm_up: bool,
    #[serde(flatten)]
    pub counts: Counts,
    pub during: During,
    pub response: Distribution,
    pub service: Distribution,
    pub failed: Distribution,
    pub lateness: Distribution,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub censored_from_ns: Option<u64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl SecondRecord {
    pub fn of(index: u32, warm_up: bool, second: &Second) -> Self {
        Self {
            second: index,
            warm_up,
            counts: second.counts,
            during: second.during,
            response: Distribution::of(&second.response),
            service: Distribution::of(&second.service),
            failed: Distribution::of(&second.failed),
            lateness: Distribution::of(&second.lateness),
            censored_from_ns: second.censored_from,
        }
    }
}

/// A distribution of times: what people read, and the histogram that it is read from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    /// From the exact sum.
    pub mean_ns: f64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
    /// HdrHistogram V2, deflated, base64. Empty if the count is 0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hdr: String,
}

/// Why the histogram of a result could not be read.
#[derive(Debug)]
pub struct HistogramError(String);

impl std::fmt::Display for HistogramError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a base64 HdrHistogram V2: {}", self.0)
    }
}

impl std::error::Error for HistogramError {}

impl Distribution {
    pub fn of(timings: &Timings) -> Self {
        let Some(histogram) = timings.histogram() else { return Self::default() };
        Self { mean_ns: timings.mean_ns(), ..Self::of_histogram(histogram) }
    }

    /// The mean is that of the histogram, within 0.1 %.
    pub fn of_histogram(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            mean_ns: histogram.mean(),
            min_ns: histogram.min(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p95_ns: histogram.value_at_quantile(0.95),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
            hdr: encode(histogram),
        }
    }

    /// The whole distribution, in nanoseconds. Histograms of one kind: they can be added to each other.
    ///
    /// # Errors
    ///
    /// When `hdr` is not what this program writes.
    pub fn histogram(&self) -> Result<Histogram<u64>, HistogramError> {
        let mut histogram = super::ledger::empty_histogram();
        if self.hdr.is_empty() {
            return Ok(histogram);
        }
        let bytes = BASE64.decode(&self.hdr).map_err(|error| HistogramError(error.to_string()))?;
        let decoded: Histogram<u64> = Deserializer::new()
            .deserialize(&mut Cursor::new(bytes))
            .map_err(|error| HistogramError(error.to_string()))?;
        histogram.add(decoded).map_err(|error| HistogramError(error.to_string()))?;
        Ok(histogram)
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("writing to memory does not fail");
    BASE64.encode(bytes)
}

/// What the generator says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// CPU seconds of the process, in user mode and in the kernel.
    pub user_cpu_s: f64,
    pub system_cpu_s: f64,
    /// The share of the run during which the busiest worker thread was on a CPU, 0 to 1.
    pub busiest_worker: f64,
    /// Whether it spun instead of sleeping, so that its CPU time says nothing.
    pub precise: bool,
    /// Times at which the generator itself did not run.
    pub stalls: Vec<StallRecord>,
}

/// The generator stood still: from `at_s` for `length_s`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StallRecord {
    pub at_s: f64,
    pub length_s: f64,
}

/// Little's law over the whole run: the mean number in flight, counted at every change, against the throughput times
/// the mean service time, taken from the requests one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Little {
    /// N.
    pub in_flight_mean: f64,
    /// X.
    pub throughput_per_s: f64,
    /// R.
    pub service_mean_s: f64,
    /// |N - X R|, and how large it may be.
    pub difference: f64,
    pub bound: f64,
}

/// Whether the numbers mean something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Why it is void. Also filled for an interrupted run whose numbers would be.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// Gates that were missed, also where exit code and outcome are those of a void run.
    #[serde(default)]
    pub gates_missed: Vec<String>,
}

impl Verdict {
    /// Interruption goes first: who ends a run early knows that it is not the whole run.
    pub fn new(interrupted: bool, reasons: Vec<Reason>) -> Self {
        let outcome = match (interrupted, reasons.is_empty()) {
            (true, _) => Outcome::Interrupted,
            (false, false) => Outcome::Void,
            (false, true) => Outcome::Complete,
        };
        Self { outcome, reasons, gates_missed: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Complete,
    Interrupted,
    Void,
}

/// One reason not to believe a run, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub rule: Rule,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Requests left so late that the lateness is a good part of what was measured.
    Lateness,
    /// Fewer requests were sent than scheduled.
    RateNotReached,
    /// Little's law does not hold: requests were lost or clocks disagree.
    Little,
    /// A worker of the generator had no CPU time left.
    CpuSaturated,
    /// The generator stood still.
    OwnStall,
    /// Nothing was measured.
    Empty,
    /// The equations of the ledger do not hold.
    Accounting,
}

/// A gate and how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateRecord {
    /// As written: `p99<250ms`.
    pub gate: String,
    /// `None` when it was not evaluated, for example because the run was interrupted.
    pub passed: Option<bool>,
    /// In words: `p99 was 312 ms`.
    pub measured: String,
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
