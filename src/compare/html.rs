//! The report as one page: no script, no network, readable in the dark and on paper.

use std::fmt::Write;

use super::model::{Comparison, Row, SideSummary, SpectrumPoint, Unit};
use super::text;
use crate::load::report::format;
use crate::load::report::svg::{Chart, Scale, escape};

const STYLE: &str = include_str!("html.css");

pub fn render(comparison: &Comparison) -> String {
    let verdict = comparison.verdict.as_str();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Comparison: {verdict}</title>\
         <style>{STYLE}</style></head><body>\n<h1>Comparison: <span class=\"{verdict}\">{verdict}</span></h1>\n"
    );
    side(&mut page, "before", &comparison.before);
    side(&mut page, "after", &comparison.after);
    warnings(&mut page, comparison);
    table(&mut page, comparison);
    reasons(&mut page, comparison);
    page.push_str("<h2>Response time by percentile</h2>\n");
    page.push_str(&spectrum(&comparison.before.spectrum, &comparison.after.spectrum));
    page.push_str("<h2>How to read this</h2>\n");
    for line in text::method(comparison) {
        paragraph(&mut page, &line);
    }
    page.push_str("</body></html>\n");
    page
}

fn side(page: &mut String, name: &str, side: &SideSummary) {
    put(
        page,
        format_args!(
            "<p><b class=\"{name}-text\">{name}</b> {} requests in {:.0} s</p><ul>",
            side.requests, side.seconds
        ),
    );
    for (run, command) in side.runs.iter().zip(&side.commands) {
        put(page, format_args!("<li>{}<br><code>{}</code></li>", escape(run), escape(command)));
    }
    page.push_str("</ul>\n");
}

fn warnings(page: &mut String, comparison: &Comparison) {
    for warning in &comparison.warnings {
        put(page, format_args!("<p class=\"warning\">{}</p>\n", escape(&warning.text)));
    }
}

fn table(page: &mut String, comparison: &Comparison) {
    page.push_str(
        "<table><thead><tr><th>metric</th><th>before</th><th>after</th><th>difference</th><th>interval</th>\
         <th>worse is to the right</th><th>verdict</th></tr></thead><tbody>\n",
    );
    // What differs is to be seen: intervals far wider than any difference reach beyond the ends.
    let reach = |unit| {
        let rows = comparison.metrics.iter().filter(move |row| (row.unit == Unit::Share) == (unit == Unit::Share));
        let differences = rows.filter_map(Row::interval).map(|interval| 2.0 * interval.difference.abs());
        differences.fold(3.0 * threshold(comparison, unit), f64::max).max(1e-6)
    };
    for row in &comparison.metrics {
        let interval = row.interval();
        put(page, format_args!("<tr><th>{}</th>", escape(&row.metric)));
        for value in [
            text::value(row.unit, row.before, row.before_at_least),
            text::value(row.unit, row.after, row.after_at_least),
            interval.map_or("-".into(), |interval| text::change(row.unit, interval.difference)),
            interval.map_or("-".into(), |interval| text::range(row.unit, interval)),
        ] {
            put(page, format_args!("<td>{}</td>", escape(&value)));
        }
        let verdict = row.verdict.as_str();
        let bar = bar(row, reach(row.unit), threshold(comparison, row.unit));
        put(page, format_args!("<td>{bar}</td><td class=\"{verdict}\">{}</td></tr>\n", escape(&text::verdict(row))));
    }
    page.push_str("</tbody></table>\n");
}

fn threshold(comparison: &Comparison, unit: Unit) -> f64 {
    match unit {
        Unit::Share => comparison.method.share_threshold,
        Unit::Nanoseconds | Unit::PerSecond => comparison.method.threshold,
    }
}

/// The interval on a line: a band for the threshold, zero in the middle.
fn bar(row: &Row, reach: f64, threshold: f64) -> String {
    const WIDTH: f64 = 240.0;
    const HEIGHT: f64 = 18.0;
    let Some(interval) = row.interval() else { return String::new() };
    // What is worse goes to the right: only of a rate, less is.
    let sign = if row.unit == Unit::PerSecond { -1.0 } else { 1.0 };
    let x = |value: f64| (WIDTH / 2.0) * (1.0 + sign * (value / reach).clamp(-1.0, 1.0) * 0.98);
    let (low, high) = (x(interval.low).min(x(interval.high)), x(interval.low).max(x(interval.high)));
    let (band_from, band_to) = (x(-threshold).min(x(threshold)), x(-threshold).max(x(threshold)));
    let class = row.verdict.as_str();
    format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">\
         <rect class=\"band\" x=\"{band_from:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>\
         <path class=\"axis\" d=\"M{middle:.1} 0V{HEIGHT}\"/>\
         <rect class=\"{class}\" x=\"{low:.1}\" y=\"7\" width=\"{:.1}\" height=\"4\"/>\
         <circle class=\"{class}\" cx=\"{:.1}\" cy=\"9\" r=\"4\"/></svg>",
        escape(&text::range(row.unit, interval)),
        band_to - band_from,
        (high - low).max(1.0),
        x(interval.difference),
        middle = WIDTH / 2.0,
    )
}

fn reasons(page: &mut String, comparison: &Comparison) {
    for line in text::reasons(comparison) {
        paragraph(page, &line);
    }
}

/// Both distributions, each step to the right a tenth of the requests that are left, times by their logarithm.
fn spectrum(before: &[SpectrumPoint], after: &[SpectrumPoint]) -> String {
    let all = || before.iter().chain(after);
    let (Some(least), Some(most)) = (all().map(|p| p.ns).min(), all().map(|p| p.ns).max()) else {
        return "<p>There are no response times.</p>\n".into();
    };
    let nines_shown = all().map(|point| nines(point.quantile)).fold(1.0, f64::max);
    // A little more at each end, so that equal times have a range as well.
    let times = Scale::log((least as f64 * 0.9).max(1.0), most as f64 * 1.1 + 1.0);
    let mut chart = Chart::new(300.0, Scale::linear(0.0, nines_shown), times);
    let ticks = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("p99.999", 0.99999)];
    let ticks = ticks.map(|(name, quantile)| (nines(quantile), name.to_owned()));
    let within: Vec<_> = ticks.into_iter().filter(|(nines, _)| *nines <= nines_shown + 0.01).collect();
    chart.x_axis(&within);
    chart.y_axis(8, format::time);
    for (class, points) in [("before", before), ("after", after)] {
        chart.line(class, points.iter().map(|point| (nines(point.quantile), Some(point.ns as f64))));
    }
    let svg = chart.finish("spectrum", "Response time by percentile", "One line for each side, before and after");
    format!("{svg}\n<p><b class=\"before-text\">before</b> <b class=\"after-text\">after</b></p>\n")
}

/// 1 for 90 %, 2 for 99 %, 3 for 99.9 %.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn paragraph(page: &mut String, text: &str) {
    put(page, format_args!("<p>{}</p>\n", escape(text)));
}

fn put(page: &mut String, what: std::fmt::Arguments<'_>) {
    page.write_fmt(what).expect("writing to a string does not fail");
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
