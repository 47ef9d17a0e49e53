//! Distributions from files: a list of values, a Prometheus histogram, an HdrHistogram percentile table or log.
//!
//! Pure: text in, a table out. A mistake says its line and what to write instead.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::Deserialize;

use super::table::{Bin, Table};

/// What a bare number of a file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Ns,
    Us,
    Ms,
    S,
}

impl Unit {
    fn nanos(self) -> f64 {
        match self {
            Self::Ns => 1.0,
            Self::Us => 1e3,
            Self::Ms => 1e6,
            Self::S => 1e9,
        }
    }
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub line: Option<usize>,
    pub text: String,
}

impl Problem {
    fn new(text: impl Into<String>) -> Self {
        Self { line: None, text: text.into() }
    }

    /// At the line with this index.
    fn at(index: usize, text: impl Into<String>) -> Self {
        Self { line: Some(index + 1), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A value per line, and its weight if it is not 1: `12ms`, `12.5ms 30`, or bare numbers if `unit` says what they count.
pub fn empirical(text: &str, unit: Option<Unit>) -> Result<Table, Problem> {
    let mut bins = Vec::new();
    for (index, line) in content(text) {
        let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let value = words.next().unwrap_or_default();
        let nanos = value_in_nanos(value, unit).map_err(|text| Problem::at(index, text))?;
        let weight = match words.next() {
            Some(word) => {
                number(word).ok_or_else(|| Problem::at(index, format!("{word:?} is not a weight; {WEIGHT}")))?
            }
            None => 1.0,
        };
        if let Some(word) = words.next() {
            return Err(Problem::at(
                index,
                format!("{word:?} is one word too many; write a value and perhaps its weight"),
            ));
        }
        bins.push(Bin { weight, low: nanos, high: nanos });
    }
    Table::new(bins).ok_or_else(|| Problem::new("no value; write one per line, such as 12ms"))
}

const WEIGHT: &str = "write a number that is not negative";

/// Lines with something in them that is no comment.
fn content(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn value_in_nanos(word: &str, unit: Option<Unit>) -> Result<f64, String> {
    match (number(word), unit) {
        (Some(value), Some(unit)) => Ok(value * unit.nanos()),
        (Some(_), None) => {
            Err(format!("{word:?} has no unit; write it here (12ms) or, for all lines, unit = \"ms\" in the settings"))
        }
        (None, _) => {
            let duration = crate::units::parse_duration(word);
            duration
                .map(|value| value.as_nanos() as f64)
                .map_err(|error| format!("{word:?} {}; {}", error.problem, error.help))
        }
    }
}

/// A finite number from zero up.
fn number(word: &str) -> Option<f64> {
    word.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

/// Which histogram of an exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// With or without `_bucket`.
    pub metric: String,
    /// Series with other values for these are left out; those that remain are added up.
    pub labels: BTreeMap<String, String>,
    /// Where the values beyond the largest bucket end.
    pub max: Option<Duration>,
    pub unit: Unit,
}

/// The cumulative counts of a histogram.
#[derive(Debug, PartialEq)]
pub struct Buckets {
    /// In ascending order of the bound; the last one is infinite and has the count of all.
    counts: Vec<(f64, f64)>,
}

/// Reads a histogram in Prometheus' text format, as `curl` gets it from `/metrics`. Series of the same metric are added.
pub fn prometheus(text: &str, selection: &Selection) -> Result<Buckets, Problem> {
    let name = selection.metric.trim_end_matches("_bucket");
    let mut counts: Vec<(f64, f64)> = Vec::new();
    let mut others: Vec<&str> = Vec::new();
    for (index, line) in content(text) {
        let Some((metric, rest)) = line.split_once('{') else { continue };
        let Some(metric) = metric.trim().strip_suffix("_bucket") else { continue };
        if metric != name {
            if others.last() != Some(&metric) {
                others.push(metric);
            }
            continue;
        }
        let (labels, value) = split_labels(rest).ok_or_else(|| Problem::at(index, NOT_A_SAMPLE))?;
        if selection.labels.iter().any(|(label, value)| labels.get(label) != Some(value)) {
            continue;
        }
        let bound = labels.get("le").and_then(|bound| bound_of(bound)).ok_or_else(|| Problem::at(index, NO_BOUND))?;
        let count = value.split_whitespace().next().and_then(number).ok_or_else(|| Problem::at(index, NOT_A_SAMPLE))?;
        match counts.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += count,
            None => counts.push((bound, count)),
        }
    }
    if counts.is_empty() {
        return Err(Problem::new(not_found(name, &selection.labels, &others)));
    }
    counts.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    Buckets { counts }.checked()
}

const NOT_A_SAMPLE: &str = "not a sample of a histogram; write name_bucket{le=\"0.5\"} 12";
const NO_BOUND: &str = "no bound of the bucket; write le=\"0.5\" or le=\"+Inf\" among the labels";

fn bound_of(text: &str) -> Option<f64> {
    text.parse().ok().filter(|bound: &f64| *bound >= 0.0)
}

/// The labels and what follows their bracket.
fn split_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(value) = rest.strip_prefix('}') {
            return Some((labels, value));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// The text up to the closing quote, without its escapes, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

fn not_found(name: &str, labels: &BTreeMap<String, String>, others: &[&str]) -> String {
    let nearest = others.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
    match nearest {
        Some(nearest) => format!("no histogram `{name}`; there is `{nearest}`"),
        None if labels.is_empty() => format!("no histogram `{name}`: no line begins with {name}_bucket{{"),
        None => format!("no series of `{name}` has these `labels`, or there is none at all"),
    }
}

impl Buckets {
    fn checked(self) -> Result<Self, Problem> {
        if self.counts.last().is_none_or(|(bound, _)| bound.is_finite()) {
            return Err(Problem::new("the bucket le=\"+Inf\" is missing"));
        }
        if let Some(pair) = self.counts.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            let problem =
                format!("the counts are not cumulative: le=\"{}\" has less than le=\"{}\"", pair[1].0, pair[0].0);
            return Err(Problem::new(problem));
        }
        Ok(self)
    }

    /// The distribution, of what has come since `before` if there is that.
    pub fn into_table(mut self, before: Option<Self>, selection: &Selection) -> Result<Table, Problem> {
        if let Some(before) = before {
            self.subtract(&before)?;
        }
        let unit = selection.unit.nanos();
        let (mut low, mut below, mut bins) = (0.0, 0.0, Vec::new());
        for (bound, count) in &self.counts {
            let high = if bound.is_finite() { bound * unit } else { self.tail_end(low, count - below, selection)? };
            bins.push(Bin { weight: count - below, low, high });
            (low, below) = (high, *count);
        }
        Table::new(bins).ok_or_else(|| Problem::new("the histogram is empty; record it after some requests"))
    }

    fn subtract(&mut self, before: &Self) -> Result<(), Problem> {
        let same_bounds = before.counts.iter().map(|(bound, _)| bound).eq(self.counts.iter().map(|(bound, _)| bound));
        if !same_bounds {
            return Err(Problem::new("the buckets are not those of the file in `since`"));
        }
        for ((_, count), (_, earlier)) in self.counts.iter_mut().zip(&before.counts) {
            *count -= earlier;
            if *count < 0.0 {
                return Err(Problem::new("counts have fallen since the file in `since`; the process was restarted"));
            }
        }
        Ok(())
    }

    /// Where the values beyond the last bound `low` end: nobody has counted that, it must be said.
    fn tail_end(&self, low: f64, count: f64, selection: &Selection) -> Result<f64, Problem> {
        let low = Duration::from_nanos(low as u64);
        match selection.max {
            Some(max) if max > low => Ok(max.as_nanos() as f64),
            _ if count == 0.0 => Ok(low.as_nanos() as f64),
            Some(_) => Err(Problem::new(format!("`max` must lie beyond the largest bucket, which ends at {low:?}"))),
            None => Err(Problem::new(format!(
                "{count} values lie beyond the largest bucket, which ends at {low:?}; say how far they go with `max`, \
                 as in max = \"{:?}\"",
                low * 3
            ))),
        }
    }
}

/// A percentile table (`.hgrm`, as wrk2 prints it too) or a log with compressed histograms (version 1 or 2, `.hlog`).
pub fn hdr(text: &str, unit: Unit) -> Result<Table, Problem> {
    let is_table = content(text).next().is_some_and(|(_, line)| line.starts_with("Value"));
    if is_table { percentile_table(text, unit) } else { histogram_log(text, unit) }
}

/// Lines of value, percentile (0 to 1), count up to it and 1/(1-percentile). Between two of them, values lie between
/// theirs.
fn percentile_table(text: &str, unit: Unit) -> Result<Table, Problem> {
    let (mut before, mut low, mut bins) = (0.0, None, Vec::new());
    for (index, line) in content(text).skip(1) {
        let mut words = line.split_whitespace().map(number);
        let (Some(Some(value)), Some(Some(percentile))) = (words.next(), words.next()) else {
            return Err(Problem::at(index, "not a line of a percentile table: value, percentile from 0 to 1, count"));
        };
        let high = value * unit.nanos();
        let low_here = low.unwrap_or(high);
        if percentile < before || percentile > 1.0 || high < low_here {
            return Err(Problem::at(index, "values and percentiles must rise from line to line, the percentiles to 1"));
        }
        bins.push(Bin { weight: percentile - before, low: low_here, high });
        (before, low) = (percentile, Some(high));
    }
    if before < 1.0 {
        return Err(Problem::new("the table ends before the percentile 1.0; give the whole table"));
    }
    Table::new(bins).ok_or_else(|| Problem::new("the table has no line"))
}

/// Lines of `[Tag=name,]start,length,max,histogram`; all of them are added up.
fn histogram_log(text: &str, unit: Unit) -> Result<Table, Problem> {
    let mut sum = Histogram::<u64>::new(3).expect("three digits are possible");
    for (index, line) in content(text).filter(|(_, line)| !line.starts_with("\"StartTimestamp\"")) {
        let histogram = logged_histogram(line).map_err(|problem| Problem::at(index, problem))?;
        sum.add(&histogram).map_err(|error| Problem::at(index, format!("cannot be added to the others: {error}")))?;
    }
    let bins = sum.iter_recorded().map(|step| {
        let value = step.value_iterated_to();
        let (low, high) = (sum.lowest_equivalent(value), sum.highest_equivalent(value));
        Bin { weight: step.count_at_value() as f64, low: low as f64 * unit.nanos(), high: high as f64 * unit.nanos() }
    });
    Table::new(bins.collect()).ok_or_else(|| Problem::new("no value is recorded in it"))
}

fn logged_histogram(line: &str) -> Result<Histogram<u64>, String> {
    let encoded = line.rsplit(',').next().unwrap_or_default().trim_matches('"');
    if line.matches(',').count() < 3 {
        return Err(
            "neither a percentile table (which begins with \"Value\") nor a line of a histogram log: start, length, \
                    max, histogram"
                .to_owned(),
        );
    }
    let bytes = STANDARD.decode(encoded).map_err(|error| format!("the histogram is not Base64: {error}"))?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| format!("not a histogram: {error}"))
}

#[cfg(test)]
mod tests;
