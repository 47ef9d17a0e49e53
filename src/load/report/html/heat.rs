//! Response times over time, as a map: each column some seconds, each row a range of times, the darker the more.
//!
//! A map shows what lines of percentiles hide: two modes, a queue that builds up and empties, a few that always hit the
//! time limit.

use std::fmt::Write as _;

use super::super::super::censored::Statistic;
use super::super::super::result::RunResult;
use super::super::format;
use super::super::svg::{Chart, Scale, short};
use super::bins::Bin;
use super::{charts, figure, reading};

const HEIGHT: f64 = 340.0;
const ROWS: usize = 56;
/// Shades. The eye tells few more apart.
const LEVELS: usize = 8;

pub fn map(result: &RunResult, bins: &[Bin]) -> String {
    let filled: Vec<&Bin> = bins.iter().filter(|bin| !bin.response.is_empty()).collect();
    let lowest = filled.iter().map(|bin| bin.response.histogram().min()).min().unwrap_or(1).max(1_000);
    let highest = filled.iter().map(|bin| bin.response.histogram().max()).max().unwrap_or(0).max(lowest * 2);
    let y = Scale::log(lowest as f64, highest as f64);
    let mut chart = charts::over_time(result, bins, HEIGHT, y);
    chart.y_axis(8, format::time);
    cells(&mut chart, bins, lowest as f64, highest as f64);
    let has_censored = censored(&mut chart, bins, highest as f64);
    for (class, q) in [("p50", 0.5), ("p99", 0.99)] {
        let read = |bin: &Bin| (!bin.response.is_empty()).then(|| bin.response.read(Statistic::Quantile(q)).ns);
        let points = || bins.iter().map(|bin| (bin.at(), read(bin)));
        chart.line("halo", points());
        chart.line(class, points());
    }
    tips(&mut chart, bins);
    let svg = chart.finish(
        "heat",
        "Response time over time",
        "Heat map: time across, response time up on a logarithmic scale, shade by the number of requests. \
         The table of seconds below has the numbers.",
    );
    let mut legend = vec![("h1", "few requests"), ("h4", "more"), ("h8", "most"), ("p50", "p50"), ("p99", "p99")];
    if has_censored {
        legend.push(("censored", "lower bounds: timed out or unfinished"));
    }
    let text = "Each request counts in the second in which it was due, with the time from then.";
    figure("Response time over time", text, &charts::legend_over_time(result, &legend), &svg)
}

/// One path for each shade, a stroke for each cell as thick as a row: some ten bytes a cell.
fn cells(chart: &mut Chart, bins: &[Bin], lowest: f64, highest: f64) {
    let mut grid = vec![[0_u64; ROWS]; bins.len()];
    let span = (highest / lowest).ln();
    for (bin, column) in bins.iter().zip(&mut grid) {
        for step in bin.response.histogram().iter_recorded() {
            let share = (step.value_iterated_to() as f64 / lowest).ln() / span;
            let row = (share * ROWS as f64).clamp(0.0, (ROWS - 1) as f64) as usize;
            column[row] += step.count_at_value();
        }
    }
    let most = grid.iter().flatten().copied().max().unwrap_or(0).max(2) as f64;
    let (top, bottom) = chart.vertical();
    let height = (bottom - top) / ROWS as f64;
    let mut shades: [String; LEVELS] = Default::default();
    for (bin, column) in bins.iter().zip(&grid) {
        let (from, to) = (chart.x.at(bin.from.into()), chart.x.at(f64::from(bin.from + bin.seconds)));
        for (row, count) in column.iter().enumerate().filter(|(_, count)| **count > 0) {
            // One request is to be seen beside a thousand.
            let level = ((*count as f64).ln() / most.ln() * (LEVELS - 1) as f64).round() as usize;
            let y = bottom - (row as f64 + 0.5) * height;
            let _ = write!(shades[level], "M{} {}h{}", short(from), short(y), short(to - from));
        }
    }
    for (level, path) in shades.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        let width = short(height + 0.3);
        chart.raw(&format!("<path class=\"cell h{}\" stroke-width={width} d=\"{path}\"/>", level + 1));
    }
}

/// Marks from where on the values of a column are lower bounds.
fn censored(chart: &mut Chart, bins: &[Bin], highest: f64) -> bool {
    let mut path = String::new();
    for bin in bins {
        let Some(from) = bin.censored_from else { continue };
        let (x, y) = (short(chart.x.at(bin.at())), chart.y.at(from as f64));
        let top = chart.y.at(highest) - 6.0;
        let _ = write!(path, "M{x} {}V{}", short(y), short(top));
    }
    if !path.is_empty() {
        chart.raw(&format!("<path class=\"line censored\" d=\"{path}\"/>"));
    }
    !path.is_empty()
}

/// The numbers of each column, for whoever points at it.
fn tips(chart: &mut Chart, bins: &[Bin]) {
    let (top, bottom) = chart.vertical();
    let (top, height) = (short(top), short(bottom - top));
    chart.raw("<g class=tip>");
    for bin in bins.iter().filter(|bin| bin.counts.scheduled > 0) {
        let (from, to) = (chart.x.at(bin.from.into()), chart.x.at(f64::from(bin.from + bin.seconds)));
        let read = |statistic| reading(bin.response.read(statistic));
        let times = match bin.response.is_empty() {
            true => "no answers".to_owned(),
            false => format!(
                "p50 {}, p99 {}, max {}",
                read(Statistic::Quantile(0.5)),
                read(Statistic::Quantile(0.99)),
                read(Statistic::Max)
            ),
        };
        let failed = bin.counts.sent.saturating_sub(bin.counts.ok);
        chart.raw(&format!(
            "<rect x={} y={top} width={} height={height}><title>{} s: {times}; {} sent, {failed} failed</title></rect>",
            short(from),
            short(to - from),
            bin.from,
            bin.counts.sent
        ));
    }
    chart.raw("</g>");
}
