//! The other charts: the spectrum of percentiles, and rates, requests in flight, failures and lateness over time.

use std::fmt::Write as _;

use super::super::super::censored::{Censored, Statistic};
use super::super::super::ledger::Counts;
use super::super::super::result::{HistogramError, RunResult, Totals};
use super::super::format;
use super::super::svg::{Chart, Scale, short};
use super::bins::Bin;
use super::figure;

const HEIGHT: f64 = 220.0;
/// Points of the spectrum for each nine.
const POINTS: usize = 40;

/// A chart with the time across: its axis, the warm-up, and where the generator stood still.
pub fn over_time(result: &RunResult, bins: &[Bin], height: f64, y: Scale) -> Chart {
    let from = bins.first().map_or(0.0, |bin| f64::from(bin.from));
    let to = bins.last().map_or(1.0, |bin| f64::from(bin.from + bin.seconds));
    let mut chart = Chart::new(height, Scale::linear(from, to), y);
    let warm_up = f64::from(result.plan.warm_up_s).min(to);
    if warm_up > from {
        chart.band("warm", from, warm_up, "warm-up: not counted");
    }
    for stall in &result.generator.stalls {
        let title = format!("the generator itself stood still for {}", format::time(stall.length_s * 1e9));
        chart.band("stall", stall.at_s, stall.at_s + stall.length_s, &title);
    }
    chart.x_axis(&time_ticks(from, to));
    chart
}

/// The legend of such a chart: its own entries and the bands.
pub fn legend_over_time<'a>(result: &RunResult, own: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let warm_up = (result.plan.warm_up_s > 0).then_some(("warm", "warm-up, not counted"));
    let stall = (!result.generator.stalls.is_empty()).then_some(("stall", "the generator itself stood still"));
    own.iter().copied().chain(warm_up).chain(stall).collect()
}

/// At lengths that a clock has.
fn time_ticks(from: f64, to: f64) -> Vec<(f64, String)> {
    const STEPS: [u32; 15] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400];
    let wanted = (to - from) / 12.0;
    let step = STEPS.into_iter().find(|step| f64::from(*step) >= wanted).map_or(86_400.0, f64::from);
    let first = (from / step).ceil() as u64;
    (first..=(to / step) as u64).map(|n| (n as f64 * step, clock(n * step as u64, to))).collect()
}

/// In the form that the longest of them needs.
fn clock(seconds: u64, longest: f64) -> String {
    match longest {
        short if short < 120.0 => format!("{seconds} s"),
        long if long < 3600.0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

/// Percentiles up to the last that the number of requests can show, each nine as wide as the one before.
pub fn spectrum(totals: &Totals) -> Result<String, HistogramError> {
    let response = Censored::response(totals)?;
    let service = Censored::service(totals)?;
    let nines = (response.len().max(2) as f64).log10();
    let least = [&response, &service].map(|values| values.histogram().min()).into_iter().min().unwrap_or(1).max(1_000);
    let greatest = [&response, &service].map(|values| values.histogram().max()).into_iter().max().unwrap_or(0);
    let y = Scale::log(least as f64, greatest.max(least * 2) as f64);
    let mut chart = Chart::new(300.0, Scale::linear(0.0, nines), y);
    chart.y_axis(7, format::time);
    chart.x_axis(&percent_ticks(nines));
    curve(&mut chart, "service", &service, nines);
    curve(&mut chart, "response", &response, nines);
    let svg = chart.finish(
        "spectrum",
        "Percentiles",
        "Curves of response time and service time by percentile, both axes logarithmic. \
         The table of times above has the numbers.",
    );
    let text = "How long the given share of requests took at most. Where the curves part, requests waited to be sent. \
                Dashed: lower bounds.";
    Ok(figure("Percentiles", text, &[("response", "response time"), ("service", "service time")], &svg))
}

fn percent_ticks(nines: f64) -> Vec<(f64, String)> {
    const TICKS: [(f64, &str); 9] = [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.999_99, "99.999 %"),
        (0.999_999, "99.9999 %"),
        (0.999_999_9, "99.99999 %"),
    ];
    let at = |q: f64| -(1.0 - q).log10();
    TICKS.iter().map(|(q, label)| (at(*q), (*label).to_owned())).filter(|(x, _)| *x <= nines).collect()
}

/// Solid where it is exact, dashed where the truth may be above.
fn curve(chart: &mut Chart, class: &str, values: &Censored<'_>, nines: f64) {
    if values.is_empty() {
        return;
    }
    let last = (nines * POINTS as f64).floor() as usize;
    let points: Vec<(f64, f64, bool)> = (0..=last)
        .map(|index| {
            let x = index as f64 / POINTS as f64;
            let reading = values.read(Statistic::Quantile(1.0 - 10_f64.powf(-x)));
            (x, reading.ns, reading.at_least)
        })
        .collect();
    let known = points.iter().position(|(.., at_least)| *at_least).unwrap_or(points.len());
    let part = |range: &[(f64, f64, bool)]| -> Vec<(f64, Option<f64>)> {
        range.iter().map(|(x, ns, _)| (*x, Some(*ns))).collect()
    };
    chart.line(class, part(&points[..known]));
    // From the last exact point on, so that the curve does not break.
    chart.line(
        &format!("{class} bound"),
        part(&points[known.saturating_sub(1).min(points.len())..]).into_iter().skip(usize::from(known == points.len())),
    );
}

pub fn rates(result: &RunResult, bins: &[Bin]) -> String {
    type Rate = fn(&Bin) -> u64;
    let of: [(&str, &str, Rate); 3] = [
        ("due", "due", |bin| bin.counts.scheduled),
        ("ended", "ended", |bin| bin.during.ended),
        ("sent", "sent", |bin| bin.during.sent),
    ];
    let most = bins.iter().flat_map(|bin| of.map(|(.., count)| bin.rate(count(bin)))).fold(0.0, f64::max);
    let mut chart = over_time(result, bins, HEIGHT, Scale::linear(0.0, most * 1.05));
    chart.y_axis(5, format::per_second);
    for (class, _, count) in of {
        // When all is sent, lines of what is due and sent would only fall to nothing.
        let goes_on = |bin: &Bin| class == "ended" || f64::from(bin.from) < result.plan.ran_s;
        chart.line(class, bins.iter().map(|bin| (bin.at(), goes_on(bin).then(|| bin.rate(count(bin))))));
    }
    let svg = chart.finish(
        "rates",
        "Offered and achieved rate",
        "Lines of the requests that were due, sent and ended, each second.",
    );
    let text = "Sent below due: the generator did not offer the load. Ended below sent: the target falls behind.";
    let legend = legend_over_time(result, &of.map(|(class, name, _)| (class, name)));
    figure("Offered and achieved", text, &legend, &svg)
}

pub fn in_flight(result: &RunResult, bins: &[Bin]) -> String {
    let most = bins.iter().map(Bin::in_flight).fold(0.0, f64::max);
    let mut chart = over_time(result, bins, HEIGHT, Scale::linear(0.0, (most * 1.05).max(1.0)));
    chart.y_axis(5, |value| if value == value.trunc() { format::count(value as u64) } else { format!("{value}") });
    let points: Vec<(f64, f64)> = bins.iter().map(|bin| (bin.at(), bin.in_flight())).collect();
    chart.area("flight", &points);
    chart.line("flight", points.iter().map(|(x, y)| (*x, Some(*y))));
    let svg = chart.finish("flight", "Requests in flight", "Area of the mean number of requests in flight.");
    let text = format!("Their mean number; at most {} are allowed.", format::count(result.plan.in_flight_cap));
    figure("In flight", &text, &legend_over_time(result, &[("flight", "in flight")]), &svg)
}

/// What did not go well, by kind, from the bottom up.
pub fn failures(result: &RunResult, bins: &[Bin]) -> String {
    type Failures = fn(&Counts) -> u64;
    const KINDS: [(&str, &str, Failures); 6] = [
        ("http", "http error", |counts| counts.http_error),
        ("conn", "connection error", |counts| counts.connection_error),
        ("timeout", "timeout", |counts| counts.timeout),
        ("unfinished", "unfinished", |counts| counts.unfinished),
        ("shed", "shed", |counts| counts.shed),
        ("unsent", "unsent", |counts| counts.unsent),
    ];
    let all = |bin: &Bin| bin.rate(KINDS.iter().map(|(.., count)| count(&bin.counts)).sum());
    let most = bins.iter().map(all).fold(0.0, f64::max);
    let legend: Vec<(&str, &str)> = KINDS
        .iter()
        .filter(|(.., count)| bins.iter().any(|bin| count(&bin.counts) > 0))
        .map(|(class, name, _)| (*class, *name))
        .collect();
    if legend.is_empty() {
        return figure("Failures", "None: every request was sent and answered as expected.", &[], "");
    }
    let mut chart = over_time(result, bins, HEIGHT, Scale::linear(0.0, most * 1.05));
    chart.y_axis(5, format::per_second);
    let mut below = vec![0.0; bins.len()];
    for (class, _, count) in KINDS {
        stack(&mut chart, class, bins, &mut below, count);
    }
    let svg = chart.finish("failures", "Failures over time", "Stacked bars of failures by kind, each second.");
    let legend = legend_over_time(result, &legend);
    figure("Failures", "By the second in which the request was due.", &legend, &svg)
}

/// One path: a stroke upwards for each bar.
fn stack(chart: &mut Chart, class: &str, bins: &[Bin], below: &mut [f64], count: impl Fn(&Counts) -> u64) {
    let mut path = String::new();
    for (bin, below) in bins.iter().zip(below) {
        let value = bin.rate(count(&bin.counts));
        if value > 0.0 {
            let (x, from, to) = (chart.x.at(bin.at()), chart.y.at(*below), chart.y.at(*below + value));
            let _ = write!(path, "M{} {}V{}", short(x), short(from), short(to));
            *below += value;
        }
    }
    if path.is_empty() {
        return;
    }
    let first = &bins[0];
    let width = chart.x.at(f64::from(first.from + first.seconds)) - chart.x.at(first.from.into());
    // A gap between bars, while there is room for it.
    let width = short(if width > 6.0 { width - 1.5 } else { width });
    chart.raw(&format!("<path class=\"bar {class}\" stroke-width={width} d=\"{path}\"/>"));
}

pub fn lateness(result: &RunResult, bins: &[Bin]) -> String {
    const LINES: [(&str, &str, Statistic); 3] = [
        ("max", "max", Statistic::Max),
        ("p99", "p99", Statistic::Quantile(0.99)),
        ("p50", "p50", Statistic::Quantile(0.5)),
    ];
    // Less than this is as good as nothing, and would be most of the axis.
    const FLOOR: f64 = 1_000.0;
    let most = bins.iter().map(|bin| bin.lateness.histogram().max()).max().unwrap_or(0) as f64;
    let mut chart = over_time(result, bins, HEIGHT, Scale::log(FLOOR, most.max(1_000_000.0)));
    chart.y_axis(6, format::time);
    for (class, _, statistic) in LINES {
        let read = |bin: &Bin| (!bin.lateness.is_empty()).then(|| bin.lateness.read(statistic).ns);
        chart.line(class, bins.iter().map(|bin| (bin.at(), read(bin))));
    }
    let svg = chart.finish(
        "lateness",
        "Lateness of the generator",
        "Lines of the greatest, 99 % and median time by which requests left after they were due.",
    );
    let text =
        "By how much requests left after they were due: the generator\u{2019}s own error, contained in response times.";
    let legend = legend_over_time(result, &LINES.map(|(class, name, _)| (class, name)));
    figure("Lateness", text, &legend, &svg)
}
