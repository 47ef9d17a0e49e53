//! A snapshot as bytes, in the format that the scraper asks for. Pure: no clock, no locks, no I/O; the caller runs it
//! off the event loop.
//!
//! Sources: Prometheus text format 0.0.4 (<https://prometheus.io/docs/instrumenting/exposition_formats/>),
//! OpenMetrics 1.0.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>). The protobuf format is in `protobuf`.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use super::catalogue::{Kind, Metric, Unit};
use super::histogram::{Exemplar, HistogramSnapshot};
use super::protobuf;
use super::snapshot::{Series, Snapshot, Value};

/// The formats of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4: for every scraper, for people and for `promtool check metrics`.
    Text,
    /// With exemplars.
    OpenMetrics,
    /// Delimited protobuf, with native histograms and exemplars.
    Protobuf,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Never blank: Prometheus 3 refuses a scrape without a content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The best format for an `Accept` value: the highest quality wins, the first of equals. What is not understood
    /// is skipped; nothing understood gives text.
    pub fn negotiate(accept: &str) -> Self {
        let mut best = (Format::Text, 0.0);
        for range in accept.split(',') {
            if let Some((format, quality)) = parse_range(range)
                && quality > best.1
            {
                best = (format, quality);
            }
        }
        best.0
    }
}

/// One media range with its quality, when it names a format that can be produced.
fn parse_range(range: &str) -> Option<(Format, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?;
    let (mut quality, mut version, mut proto, mut encoding) = (1.0, None, None, None);
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim() {
            name if name.eq_ignore_ascii_case("q") => quality = value.parse().unwrap_or(0.0),
            name if name.eq_ignore_ascii_case("version") => version = Some(value),
            name if name.eq_ignore_ascii_case("proto") => proto = Some(value),
            name if name.eq_ignore_ascii_case("encoding") => encoding = Some(value),
            _ => {}
        }
    }
    let format = match media.to_ascii_lowercase().as_str() {
        "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => Format::OpenMetrics,
        "application/vnd.google.protobuf"
            if proto == Some("io.prometheus.client.MetricFamily") && matches!(encoding, None | Some("delimited")) =>
        {
            Format::Protobuf
        }
        "text/plain" if matches!(version, None | Some("0.0.4")) => Format::Text,
        "text/*" | "*/*" => Format::Text,
        _ => return None,
    };
    Some((format, quality))
}

/// The whole body of `/metrics`.
pub fn encode(snapshot: &Snapshot, format: Format) -> Vec<u8> {
    match format {
        Format::Text => text(snapshot, Dialect::Prometheus).into_bytes(),
        Format::OpenMetrics => text(snapshot, Dialect::OpenMetrics).into_bytes(),
        Format::Protobuf => protobuf::encode(snapshot),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Prometheus,
    OpenMetrics,
}

fn text(snapshot: &Snapshot, dialect: Dialect) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for (metric, series) in snapshot.families() {
        write_head(&mut out, metric, dialect);
        for series in series {
            write_series(&mut out, metric, series, dialect);
        }
    }
    if dialect == Dialect::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_head(out: &mut String, metric: &Metric, dialect: Dialect) {
    // In OpenMetrics a counter's family has no `_total`, only its sample has.
    let family = match dialect {
        Dialect::Prometheus => metric.name,
        Dialect::OpenMetrics => metric.name.strip_suffix("_total").unwrap_or(metric.name),
    };
    out.push_str("# HELP ");
    out.push_str(family);
    out.push(' ');
    escape(out, metric.help, dialect == Dialect::OpenMetrics);
    out.push_str("\n# TYPE ");
    out.push_str(family);
    out.push(' ');
    out.push_str(metric.kind.as_str());
    out.push('\n');
    if dialect == Dialect::OpenMetrics && metric.unit != Unit::None {
        out.push_str("# UNIT ");
        out.push_str(family);
        out.push(' ');
        out.push_str(metric.unit.as_str());
        out.push('\n');
    }
}

fn write_series(out: &mut String, metric: &Metric, series: &Series, dialect: Dialect) {
    match &series.value {
        Value::Number(value) => {
            out.push_str(metric.name);
            write_labels(out, &series.labels, None);
            out.push(' ');
            write_number(out, *value);
            out.push('\n');
        }
        Value::Histogram(histogram) => {
            debug_assert_eq!(metric.kind, Kind::Histogram);
            write_histogram(out, metric, &series.labels, histogram, dialect);
        }
    }
}

fn write_histogram(
    out: &mut String,
    metric: &Metric,
    labels: &[(&str, String)],
    histogram: &HistogramSnapshot,
    dialect: Dialect,
) {
    for bucket in histogram.classic_buckets() {
        out.push_str(metric.name);
        out.push_str("_bucket");
        write_labels(out, labels, Some(&canonical_float(bucket.upper)));
        put(out, format_args!(" {}", bucket.cumulative));
        if dialect == Dialect::OpenMetrics
            && let Some(exemplar) = bucket.exemplar
        {
            write_exemplar(out, exemplar);
        }
        out.push('\n');
    }
    out.push_str(metric.name);
    out.push_str("_sum");
    write_labels(out, labels, None);
    out.push(' ');
    write_number(out, histogram.sum.as_secs_f64());
    out.push('\n');
    out.push_str(metric.name);
    out.push_str("_count");
    write_labels(out, labels, None);
    put(out, format_args!(" {}\n", histogram.count));
}

fn write_exemplar(out: &mut String, exemplar: &Exemplar) {
    let trace_id = String::from_utf8_lossy(&exemplar.trace_id);
    out.push_str(" # {trace_id=\"");
    escape(out, &trace_id, true);
    out.push_str("\"} ");
    write_number(out, exemplar.value);
    let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    put(out, format_args!(" {}.{:03}", at.as_secs(), at.subsec_millis()));
}

fn write_labels(out: &mut String, labels: &[(&str, String)], le: Option<&str>) {
    if labels.is_empty() && le.is_none() {
        return;
    }
    let mut separator = '{';
    for (name, value) in labels.iter().map(|(name, value)| (*name, value.as_str())).chain(le.map(|le| ("le", le))) {
        out.push(separator);
        out.push_str(name);
        out.push_str("=\"");
        escape(out, value, true);
        out.push('"');
        separator = ',';
    }
    out.push('}');
}

/// Label values escape backslash, line feed and quote; Prometheus' HELP text leaves the quote alone.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

fn write_number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        put(out, format_args!("{value}"));
    }
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// A bucket bound in the one spelling that Prometheus 3 and OpenMetrics call canonical (Go's `%g` with `.0` for whole
/// numbers). Prometheus 2 stores the spelling it reads, so any other would change the series at an upgrade.
fn canonical_float(value: f64) -> String {
    if value.is_infinite() {
        return String::from(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Where Go switches to the exponent when it looks for the shortest spelling.
    if (-4..6).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests;
