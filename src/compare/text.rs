//! The report for a terminal or a log: one line for each metric, and what there is to know about them.

use std::fmt::Write;

use super::interval::Interval;
use super::model::{Comparison, Row, SideSummary, Unit};
use super::verdict::Verdict;
use crate::load::report::format;

/// `colour`: for a terminal whose user wants colours.
pub fn render(comparison: &Comparison, colour: bool) -> String {
    let mut text = String::new();
    side(&mut text, "before", &comparison.before);
    side(&mut text, "after", &comparison.after);
    for warning in &comparison.warnings {
        text.push_str(&format!("warning: {}\n", warning.text));
    }
    text.push('\n');
    table(&mut text, comparison, colour);
    text.push('\n');
    for line in reasons(comparison) {
        text.push_str(&line);
        text.push('\n');
    }
    for line in method(comparison) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(&format!("\noverall: {}\n", paint(comparison.verdict, comparison.verdict.as_str(), colour)));
    text
}

fn side(text: &mut String, name: &str, side: &SideSummary) {
    let runs = side.runs.join(", ");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{name:<7} {runs}: {} requests in {}",
        format::count(side.requests),
        format::length(side.seconds)
    );
}

const HEADINGS: [&str; 6] = ["", "before", "after", "difference", "interval", "verdict"];

fn table(text: &mut String, comparison: &Comparison, colour: bool) {
    let rows: Vec<[String; 6]> = comparison.metrics.iter().map(cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut line = |cells: [&str; 6], verdict: Option<Verdict>| {
        let mut line = format!("{:<width$}", cells[0], width = widths[0]);
        for column in 1..5 {
            line.push_str(&format!("  {:>width$}", cells[column], width = widths[column]));
        }
        let last = verdict.map_or_else(|| cells[5].to_owned(), |verdict| paint(verdict, cells[5], colour));
        text.push_str(&format!("{line}  {last}\n"));
    };
    line(HEADINGS, None);
    for (row, cells) in comparison.metrics.iter().zip(&rows) {
        line(cells.each_ref().map(String::as_str), Some(row.verdict));
    }
}

fn cells(row: &Row) -> [String; 6] {
    let interval = row.interval();
    [
        row.metric.clone(),
        value(row.unit, row.before, row.before_at_least),
        value(row.unit, row.after, row.after_at_least),
        interval.map_or("-".into(), |interval| change(row.unit, interval.difference)),
        interval.map_or("-".into(), |interval| range(row.unit, interval)),
        verdict(row),
    ]
}

/// A value with its unit, marked if it may be larger.
pub fn value(unit: Unit, value: Option<f64>, at_least: bool) -> String {
    let Some(value) = value else { return "-".into() };
    let text = match unit {
        Unit::Nanoseconds => format::time(value),
        Unit::PerSecond => format!("{}/s", format::three_digits(value)),
        Unit::Share => share(value),
    };
    if at_least { format!(">={text}") } else { text }
}

/// A difference with its sign: `+4.9 %`, of shares `+0.3 pp` (percentage points).
pub fn change(unit: Unit, difference: f64) -> String {
    format!("{} {}", signed(difference), change_unit(unit))
}

/// `+2.7 .. +7.2 %`.
pub fn range(unit: Unit, interval: Interval) -> String {
    format!("{} .. {} {}", signed(interval.low), signed(interval.high), change_unit(unit))
}

fn change_unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Share => "pp",
        Unit::Nanoseconds | Unit::PerSecond => "%",
    }
}

fn signed(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    let decimals = match percent.abs() {
        tiny if tiny < 0.0995 => 3,
        small if small < 0.995 => 2,
        medium if medium < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{percent:+.decimals$}");
    // Neither `+0.000` nor `-0.000` says more than this.
    if text.trim_start_matches(['+', '-']).bytes().all(|byte| b"0.".contains(&byte)) { "0".into() } else { text }
}

/// The verdict, and for how long to run if there is none yet.
pub fn verdict(row: &Row) -> String {
    let verdict = row.verdict.as_str();
    row.longer_s.map_or_else(|| verdict.to_owned(), |seconds| format!("{verdict}, run ~ {}", about(seconds)))
}

/// Why rows are undecided, where it is not that their intervals are too wide.
pub fn reasons(comparison: &Comparison) -> Vec<String> {
    let rows = comparison.metrics.iter();
    let mut lines: Vec<String> =
        rows.filter_map(|row| Some(format!("{}: {}.", row.metric, row.why.as_ref()?))).collect();
    if comparison.metrics.iter().any(|row| row.longer_s.is_some()) {
        let several = comparison.before.runs.len().max(comparison.after.runs.len()) > 1;
        let how = if several { "in more runs rather than in longer ones" } else { "in one run or, better, in several" };
        lines.push(format!(
            "Undecided: the interval allows more than one verdict. About so much time on each side, {how}, should \
             decide it if the difference is what was seen."
        ));
    }
    lines
}

/// What the numbers mean and how they were found, in whole sentences.
pub fn method(comparison: &Comparison) -> [String; 3] {
    let method = &comparison.method;
    [
        format!(
            "The intervals hold all together with {} % confidence, so two equal sides differ in any of the {} metrics \
             in about 1 of {:.0} comparisons.",
            100.0 * method.confidence,
            comparison.metrics.len(),
            1.0 / (1.0 - method.confidence),
        ),
        format!(
            "Better or worse: certainly different, by {} % or more (shares: {} percentage points); same: certainly \
             within that.",
            100.0 * method.threshold,
            100.0 * method.share_threshold,
        ),
        format!(
            "Moving-block bootstrap over the seconds: {} resamples, blocks of {} s, --seed {}.",
            method.resamples, method.block_s, method.seed
        ),
    ]
}

fn paint(verdict: Verdict, text: &str, colour: bool) -> String {
    let code = match verdict {
        Verdict::Better => "32",
        Verdict::Worse => "1;31",
        Verdict::Same => "0",
        Verdict::Undecided => "33",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `0.25 %`; never rounded to nothing.
fn share(value: f64) -> String {
    let percent = 100.0 * value;
    match percent {
        none if none <= 0.0 => "0 %".into(),
        tiny if tiny < 0.001 => "<0.001 %".into(),
        small if small < 0.995 => format!("{small:.3} %"),
        large => format!("{large:.2} %"),
    }
}

/// Of an estimate, so no digit too many: `5 min` for 317 s.
fn about(seconds: f64) -> String {
    let step = match seconds {
        short if short < 120.0 => 10.0,
        medium if medium < 3600.0 => 60.0,
        _ => 3600.0,
    };
    format::length((seconds / step).ceil() * step)
}

#[cfg(test)]
#[path = "text_tests.rs"]
pub mod tests;
