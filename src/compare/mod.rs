//! Two runs, or several on each side: what differs, how certain that is, and what it takes to be certain.
//!
//! Results of `load` in, a [`Comparison`] out; the text, the JSON and the HTML are made from that. The way through:
//! `runs` takes the measured seconds out of a result, `metric` says what is compared, `bootstrap` resamples the
//! seconds in blocks, `interval` makes one set of intervals of it that hold together, and `verdict` judges. What would
//! make all of it worthless (another rate, another target, a void run) is said by `comparable`.
//!
//! How often it is wrong is measured, by simulation, in `compare_tests`. Pure but for `files` and `interleave`, which
//! loads two targets in turn; knows nothing of the proxy.

pub mod between;
pub mod block;
pub mod bootstrap;
pub mod comparable;
pub mod files;
pub mod html;
pub mod interleave;
pub mod interval;
pub mod metric;
pub mod model;
pub mod options;
pub mod runs;
#[cfg(test)]
mod testing;
pub mod text;
pub mod verdict;

use std::fmt;

use crate::load::result::RunResult;

use self::between::Between;
use self::bootstrap::{Blocks, Estimate, Random, Sparse};
use self::interval::{Interval, Pair, Scale, Side};
use self::metric::{Metric, Share, Times};
use self::model::{Comparison, Method, Row, SCHEMA, SideSummary, SpectrumPoint, Unit};
use self::runs::Run;
use self::verdict::{AtLeast, Verdict};

/// A result and where it is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub name: String,
    pub result: RunResult,
}

/// How to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `None`: all, but kinds of errors only if there are any.
    pub metrics: Option<Vec<Metric>>,
    /// The smallest change of a time or a rate that matters: 0.02 is 2 %.
    pub threshold: f64,
    /// The smallest change of a share that matters: 0.001 is 0.1 percentage points.
    pub share_threshold: f64,
    /// With which all intervals hold together.
    pub confidence: f64,
    pub resamples: usize,
    pub seed: u64,
    /// `None`: chosen by [`block::length`].
    pub block_s: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metrics: None,
            threshold: 0.02,
            share_threshold: 0.001,
            confidence: 0.95,
            resamples: 1000,
            seed: 1,
            block_s: None,
        }
    }
}

/// Why runs cannot be compared at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompareError {
    pub name: String,
    pub problem: String,
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl std::error::Error for CompareError {}

/// Compares the runs `after` with the runs `before`. The same input and settings give the same output, to the bit.
///
/// # Errors
///
/// When a side is empty, or a result has no measured second or a damaged histogram.
pub fn compare(before: &[Input], after: &[Input], settings: &Settings) -> Result<Comparison, CompareError> {
    let (before_runs, after_runs) = (prepare(before, "before")?, prepare(after, "after")?);
    let (groups, block_s) = Group::both(before_runs, after_runs, settings);
    let rows = rows(&groups, settings);
    let [before_group, after_group] = &groups;
    Ok(Comparison {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        before: before_group.summary(before),
        after: after_group.summary(after),
        method: Method {
            seed: settings.seed,
            resamples: settings.resamples,
            block_s,
            confidence: settings.confidence,
            threshold: settings.threshold,
            share_threshold: settings.share_threshold,
        },
        warnings: comparable::warnings(before, after),
        verdict: overall(&rows),
        metrics: rows,
    })
}

fn prepare(inputs: &[Input], side: &str) -> Result<Vec<Run>, CompareError> {
    if inputs.is_empty() {
        return Err(CompareError { name: side.into(), problem: "there is no run on this side".into() });
    }
    inputs.iter().map(prepare_one).collect()
}

fn prepare_one(input: &Input) -> Result<Run, CompareError> {
    let error = |problem: String| CompareError { name: input.name.clone(), problem };
    let run = Run::new(&input.result).map_err(|cause| error(cause.to_string()))?;
    if run.slices.is_empty() {
        return Err(error("this run has no second after its warm-up: run for longer, or with less warm-up".into()));
    }
    Ok(run)
}

/// The runs of one side and their resamples.
struct Group {
    runs: Vec<Run>,
    blocks: Blocks,
}

/// Where a metric stands on one side.
struct Measured {
    estimate: Estimate,
    /// Requests that it is made of.
    requests: u64,
    side: Side,
}

impl Group {
    /// Both sides, and how many seconds a block of them has.
    fn both(mut before: Vec<Run>, mut after: Vec<Run>, settings: &Settings) -> ([Group; 2], usize) {
        let step = before.iter().chain(&after).map(Run::step).max().unwrap_or(1);
        before.iter_mut().chain(&mut after).for_each(|run| run.coarsen(step));
        let block = match settings.block_s {
            Some(seconds) => seconds.div_ceil(step).max(1),
            None => block::length(before.iter().chain(&after), step),
        };
        let mut random = Random::new(settings.seed);
        let groups = [before, after].map(|runs| Group::new(runs, block, settings.resamples, &mut random));
        (groups, block * step)
    }

    fn new(runs: Vec<Run>, block: usize, resamples: usize, random: &mut Random) -> Self {
        let lengths: Vec<usize> = runs.iter().map(|run| run.slices.len()).collect();
        Self { blocks: Blocks::draw(&lengths, block, resamples, random), runs }
    }

    /// In the order of `metrics`; `None` where there is nothing to measure.
    fn measure(&self, metrics: &[Metric]) -> Vec<Option<Measured>> {
        let mut of_runs = vec![Vec::new(); metrics.len()];
        if self.runs.len() > 1 {
            for (index, run) in self.runs.iter().enumerate() {
                let alone = estimates(std::slice::from_ref(run), &self.blocks.only(index), metrics);
                of_runs.iter_mut().zip(alone).for_each(|(all, one)| all.extend(one));
            }
        }
        let pooled = estimates(&self.runs, &self.blocks, metrics);
        let measured = metrics.iter().zip(pooled).zip(&of_runs);
        measured.map(|((metric, pooled), of_runs)| self.measured(*metric, pooled?, of_runs)).collect()
    }

    fn measured(&self, metric: Metric, estimate: Estimate, of_runs: &[Estimate]) -> Option<Measured> {
        let requests = self.requests(metric);
        if requests == 0 || !estimate.value.is_finite() {
            return None;
        }
        let least_variance = least_variance(metric, estimate.value, requests);
        let between = Between::of(of_runs, metric.scale(), self.blocks.variance_factor(), least_variance);
        let side = Side {
            estimate: estimate.clone(),
            degrees_of_freedom: self.blocks.degrees_of_freedom(),
            variance_factor: self.blocks.variance_factor(),
            least_variance,
            between,
        };
        Some(Measured { estimate, requests, side })
    }

    fn requests(&self, metric: Metric) -> u64 {
        let slices = self.runs.iter().flat_map(|run| &run.slices);
        slices
            .map(|slice| match metric {
                Metric::Quantile(Times::Response, _) | Metric::Mean(Times::Response) => slice.response.count,
                Metric::Quantile(Times::Service, _) | Metric::Mean(Times::Service) => slice.service.count,
                Metric::Share(Share::NotSent) => slice.counts.scheduled,
                Metric::Rate | Metric::Share(_) => slice.counts.sent,
            })
            .sum()
    }

    /// Whether the value of a metric is only known to be at least this.
    fn is_bound(&self, metric: Metric, value: f64) -> bool {
        let reached = |from: Option<u64>| from.is_some_and(|from| value >= from as f64);
        match metric {
            Metric::Quantile(Times::Response, _) => self.runs.iter().any(|run| reached(run.censored_from_ns)),
            Metric::Quantile(Times::Service, _) => self.runs.iter().any(|run| reached(run.service_censored_from_ns)),
            // A mean is one up to the time limit, which is the same on both sides or a warning.
            Metric::Mean(_) | Metric::Rate | Metric::Share(_) => false,
        }
    }

    fn length_s(&self) -> f64 {
        self.runs.iter().map(Run::length_s).sum()
    }

    fn summary(&self, inputs: &[Input]) -> SideSummary {
        let counts = self.runs.iter().map(Run::counts);
        SideSummary {
            runs: inputs.iter().map(|input| input.name.clone()).collect(),
            commands: inputs.iter().map(|input| input.result.command_line.join(" ")).collect(),
            seconds: self.length_s(),
            requests: counts.map(|counts| counts.sent).sum(),
            spectrum: spectrum(&self.runs),
        }
    }
}

/// Of these runs together, in the order of `metrics`.
fn estimates(runs: &[Run], blocks: &Blocks, metrics: &[Metric]) -> Vec<Option<Estimate>> {
    let mut estimates: Vec<Option<Estimate>> = metrics.iter().map(|metric| ratio(runs, blocks, *metric)).collect();
    for times in Times::ALL {
        let wanted: Vec<(usize, f64)> =
            metrics.iter().enumerate().filter_map(|(at, m)| quantile_of(*m, times, at)).collect();
        if wanted.is_empty() {
            continue;
        }
        let seconds: Vec<Vec<Sparse>> =
            runs.iter().map(|run| run.slices.iter().map(|slice| times.of(slice).clone()).collect()).collect();
        let quantiles: Vec<f64> = wanted.iter().map(|(_, quantile)| *quantile).collect();
        let found = blocks.quantiles(&seconds, &quantiles).unwrap_or_default();
        for ((at, _), estimate) in wanted.into_iter().zip(found) {
            estimates[at] = Some(estimate);
        }
    }
    estimates
}

fn quantile_of(metric: Metric, of: Times, at: usize) -> Option<(usize, f64)> {
    match metric {
        Metric::Quantile(times, percentile) if times == of => Some((at, percentile.quantile())),
        _ => None,
    }
}

fn ratio(runs: &[Run], blocks: &Blocks, metric: Metric) -> Option<Estimate> {
    if matches!(metric, Metric::Quantile(..)) {
        return None;
    }
    let parts: Vec<_> = runs.iter().map(|run| run.slices.iter().map(|slice| metric.part(slice)).collect()).collect();
    Some(blocks.ratio(&parts))
}

/// What the resamples cannot show. A histogram does not tell times within a bucket apart, and errors that happened to
/// not occur could have: with two successes and two failures added (A. Agresti and B. Coull, 1998), none among n
/// requests leaves a few among n possible.
fn least_variance(metric: Metric, value: f64, requests: u64) -> f64 {
    const BUCKET: f64 = 1.0 / 1024.0;
    const SMALLEST_BUCKET_NS: f64 = 64.0;
    match metric {
        Metric::Quantile(..) => BUCKET.max(SMALLEST_BUCKET_NS / value).powi(2) / 12.0,
        Metric::Mean(_) | Metric::Rate => 0.0,
        Metric::Share(_) => {
            let count = requests as f64 + 4.0;
            let share = (value * requests as f64 + 2.0) / count;
            share * (1.0 - share) / count
        }
    }
}

fn rows([before, after]: &[Group; 2], settings: &Settings) -> Vec<Row> {
    let metrics: Vec<Metric> = match &settings.metrics {
        Some(metrics) => metrics.clone(),
        None => Metric::all().filter(|metric| is_of_interest(*metric, before, after)).collect(),
    };
    let sides = before.measure(&metrics).into_iter().zip(after.measure(&metrics));
    let mut rows: Vec<Judging> = metrics
        .iter()
        .zip(sides)
        .map(|(metric, (one, other))| Judging::new(*metric, [(before, one), (after, other)]))
        .collect();
    let pairs: Vec<Pair> = rows.iter_mut().filter_map(|row| row.pair.take()).collect();
    let mut intervals = interval::simultaneous(&pairs, settings.confidence).into_iter();
    rows.into_iter().map(|row| row.judge(&mut intervals, settings)).collect()
}

/// Kinds of errors that did not occur at all would be rows of zeros.
fn is_of_interest(metric: Metric, before: &Group, after: &Group) -> bool {
    let Metric::Share(share) = metric else { return true };
    let mut slices = before.runs.iter().chain(&after.runs).flat_map(|run| &run.slices);
    share == Share::Errors || slices.any(|slice| metric.part(slice).numerator > 0.0)
}

/// A row that waits for its interval, which it gets if both sides can be judged.
struct Judging {
    metric: Metric,
    row: Row,
    pair: Option<Pair>,
    judged: bool,
    at_least: AtLeast,
    /// Of the side that ran for less.
    seconds: f64,
}

impl Judging {
    fn new(metric: Metric, sides: [(&Group, Option<Measured>); 2]) -> Self {
        let [(before_group, before), (after_group, after)] = sides;
        let seconds = before_group.length_s().min(after_group.length_s());
        let value = |side: &Option<Measured>| side.as_ref().map(|measured| measured.estimate.value);
        let bound =
            |group: &Group, side: &Option<Measured>| value(side).is_some_and(|value| group.is_bound(metric, value));
        let at_least = AtLeast { before: bound(before_group, &before), after: bound(after_group, &after) };
        let unit = match metric {
            Metric::Quantile(..) | Metric::Mean(_) => Unit::Nanoseconds,
            Metric::Rate => Unit::PerSecond,
            Metric::Share(_) => Unit::Share,
        };
        let mut row = Row::new(metric.to_string(), unit, value(&before), value(&after));
        (row.before_at_least, row.after_at_least) = (at_least.before, at_least.after);
        let obstacle = obstacle(metric, [before_group, after_group], [before.as_ref(), after.as_ref()], seconds);
        let pair = match (obstacle, before, after) {
            (None, Some(before), Some(after)) => {
                Some(Pair { scale: metric.scale(), before: before.side, after: after.side })
            }
            (obstacle, ..) => {
                let (why, longer_s) = obstacle.unwrap_or_default();
                (row.why, row.longer_s) = (Some(why), longer_s);
                None
            }
        };
        Self { metric, row, judged: pair.is_some(), pair, at_least, seconds }
    }

    fn judge(self, intervals: &mut impl Iterator<Item = Interval>, settings: &Settings) -> Row {
        let mut row = self.row;
        let Some(interval) = self.judged.then(|| intervals.next()).flatten() else { return row };
        let threshold = match self.metric.scale() {
            Scale::Relative => settings.threshold,
            Scale::Absolute => settings.share_threshold,
        };
        row.set_interval(interval);
        row.verdict = verdict::judge(interval, threshold, self.metric.more_is_better(), self.at_least);
        if row.verdict == Verdict::Undecided {
            let length = verdict::longer(interval, threshold).map(|factor| factor * self.seconds);
            let only_bounds = self.at_least != AtLeast::default();
            row.why = only_bounds.then(|| BOUND.into());
            row.longer_s = length.filter(|_| !only_bounds);
        }
        row
    }
}

const BOUND: &str = "requests at this percentile were given up before they ended: only a longer timeout tells more";

/// What keeps a metric from being judged, and for how long one would have to run.
fn obstacle(
    metric: Metric,
    groups: [&Group; 2],
    sides: [Option<&Measured>; 2],
    seconds: f64,
) -> Option<(String, Option<f64>)> {
    /// Fewer say next to nothing about how much they vary.
    const LEAST_DEGREES_OF_FREEDOM: f64 = 3.0;
    let requests = sides.iter().map(|side| side.map_or(0, |measured| measured.requests)).min().unwrap_or(0);
    if requests == 0 {
        return Some(("there are no requests that it could be measured by".into(), None));
    }
    let needed = metric.least_requests();
    if requests < needed {
        let longer = seconds * needed as f64 / requests as f64;
        return Some((format!("needs {needed} requests on each side, there are {requests}"), Some(longer)));
    }
    let short = groups.iter().any(|group| group.blocks.degrees_of_freedom() < LEAST_DEGREES_OF_FREEDOM);
    short.then(|| ("the runs have too few blocks to tell how much they vary".into(), Some((6.0 * seconds).max(30.0))))
}

/// One verdict for all: what got worse counts first, and the same is only what was shown to be.
fn overall(rows: &[Row]) -> Verdict {
    let any = |verdict| rows.iter().any(|row| row.verdict == verdict);
    if any(Verdict::Worse) {
        Verdict::Worse
    } else if any(Verdict::Better) {
        Verdict::Better
    } else if any(Verdict::Undecided) || rows.is_empty() {
        Verdict::Undecided
    } else {
        Verdict::Same
    }
}

/// The response times of all runs together at more and more of the requests, up to the last ten.
fn spectrum(runs: &[Run]) -> Vec<SpectrumPoint> {
    let mut all = Sparse::default();
    for run in runs {
        let cells = run.slices.iter().flat_map(|slice| slice.response.times.cells().iter().copied());
        all.add(&Sparse::new(cells.collect()));
    }
    let total: u64 = all.cells().iter().map(|(_, count)| count).sum();
    let mut points = Vec::new();
    let (mut seen, mut cells) = (0, all.cells().iter());
    let mut at = None;
    // Twelve points for each ten-fold step towards 100 %.
    for step in 0..=60 {
        let beyond = 10_f64.powf(-f64::from(step) / 12.0);
        let rank = ((1.0 - beyond) * total as f64).ceil() as u64;
        while seen < rank.max(1) {
            let Some((value, count)) = cells.next() else { return points };
            (seen, at) = (seen + count, Some(*value));
        }
        if let Some(ns) = at {
            points.push(SpectrumPoint { quantile: 1.0 - beyond, ns });
        }
        if beyond * total as f64 <= 10.0 {
            break;
        }
    }
    points
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
