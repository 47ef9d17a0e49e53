//! PromQL over the catalogue. Every selector is narrowed by the variables of the dashboard that its metric has labels for.

use crate::telemetry::catalogue::{Kind, Metric};

/// The series of a metric; `extra` are further matchers.
pub(super) fn selector(metric: &Metric, extra: &str) -> String {
    named(metric, "", extra)
}

/// `ending` is that of a histogram's parts.
fn named(metric: &Metric, ending: &str, extra: &str) -> String {
    let mut matchers = r#"job=~"$job",instance=~"$instance""#.to_owned();
    for label in ["route", "upstream"].iter().filter(|label| metric.labels.contains(label)) {
        matchers.push_str(&format!(",{label}=~\"${label}\""));
    }
    if !extra.is_empty() {
        matchers.push(',');
        matchers.push_str(extra);
    }
    format!("{}{ending}{{{matchers}}}", metric.name)
}

/// A value now, added up.
pub(super) fn total(metric: &Metric, by: &str) -> String {
    debug_assert!(metric.kind == Kind::Gauge);
    format!("sum by ({by}) ({})", selector(metric, ""))
}

/// A counter per second, added up.
pub(super) fn rate(metric: &Metric, by: &str, extra: &str) -> String {
    debug_assert!(metric.kind == Kind::Counter);
    format!("sum by ({by}) (rate({}[$__rate_interval]))", selector(metric, extra))
}

/// Which part of a counter has these labels; 0 of 0 is nothing, not 0.
pub(super) fn share(metric: &Metric, by: &str, part: &str) -> String {
    format!("{} / ({} > 0)", rate(metric, by, part), rate(metric, by, ""))
}

/// A quantile of a histogram, native or classic: with native histograms on, Prometheus 2 drops the classic buckets.
pub(super) fn quantile(q: &str, metric: &Metric, by: &str) -> String {
    debug_assert!(metric.kind == Kind::Histogram);
    let (native, classic) = (named(metric, "", ""), named(metric, "_bucket", ""));
    let by_and_le = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
    format!(
        "histogram_quantile({q}, sum by ({by}) (rate({native}[$__rate_interval]))) or \
         histogram_quantile({q}, sum by ({by_and_le}) (rate({classic}[$__rate_interval])))"
    )
}
