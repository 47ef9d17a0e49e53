//! A distribution in the percentile format of the HdrHistogram tools (`.hgrm`), in milliseconds: what wrk2 prints with
//! `--latency`, and what their plotter reads.

use std::fmt::Write as _;

use super::super::result::Distribution;
use super::HistogramError;

const NS_PER_MS: f64 = 1e6;
/// Lines for each halving of the distance to 100 %: the tools' default.
const TICKS_PER_HALF: u32 = 5;

/// `censored` says how many of the values are only lower bounds; it goes into a comment.
///
/// # Errors
///
/// When the histogram is damaged.
pub fn render(distribution: &Distribution, censored: u64) -> Result<String, HistogramError> {
    let histogram = distribution.histogram()?;
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_MS;
        let q = step.quantile_iterated_to();
        let end = if q < 1.0 { format!(" {:14.2}", 1.0 / (1.0 - q)) } else { String::new() };
        writeln!(text, "{value:12.6} {q:14.12} {total:10}{end}").expect("writing to a string does not fail");
    }
    let footer = [
        ("Mean", distribution.mean_ns / NS_PER_MS, "StdDeviation", histogram.stdev() / NS_PER_MS),
        ("Max", distribution.max_ns as f64 / NS_PER_MS, "Total count", distribution.count as f64),
    ];
    for (left, left_value, right, right_value) in footer {
        let decimals = if right == "Total count" { 0 } else { 6 };
        writeln!(text, "#[{left:7} = {left_value:12.6}, {right:14} = {right_value:12.decimals$}]")
            .expect("writing to a string does not fail");
    }
    writeln!(text, "#[Unit    = milliseconds, Censored (lower bounds) = {censored}]").expect("as above");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::{fixture, golden};
    use super::*;

    #[test]
    fn the_percentiles_are_those_that_are_kept() {
        let totals = fixture::result().totals;

        let text = render(&totals.response, totals.counts.censored()).expect("whole");

        golden::compare("tests/it/load/response.hgrm", &text);
    }

    /// As the plotter reads it: lines of four columns that are no comments.
    #[test]
    fn the_columns_rise_to_the_whole_count() {
        let totals = fixture::result().totals;
        let text = render(&totals.response, 0).expect("whole");

        let rows: Vec<Vec<f64>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .filter(|row: &Vec<f64>| !row.is_empty())
            .collect();

        assert!(rows.windows(2).all(|pair| pair[0].iter().zip(&pair[1]).all(|(before, after)| before <= after)));
        let last = rows.last().expect("rows");
        assert_eq!((last[1], last[2], last.len()), (1.0, totals.response.count as f64, 3));
        assert!((last[0] - totals.response.max_ns as f64 / NS_PER_MS).abs() < 1e-6);
    }

    #[test]
    fn nothing_measured_is_a_table_without_rows() {
        let text = render(&Distribution::default(), 0).expect("empty");

        assert!(text.lines().skip(2).all(|line| line.starts_with('#')), "{text}");
    }
}
