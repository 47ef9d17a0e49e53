//! What panels ask: [`promql`](crate::promql), narrowed by the variables of the dashboard that a metric has labels for.

use crate::promql::PANEL;
use crate::telemetry::catalogue::{self, Metric};

/// The series of a gauge; `extra` are further matchers.
pub(super) fn selector(metric: &Metric, extra: &str) -> String {
    PANEL.gauge(metric, extra)
}

/// A value now, added up.
pub(super) fn total(metric: &Metric, by: &str) -> String {
    PANEL.total(metric, by, "")
}

/// A counter per second, added up.
pub(super) fn rate(metric: &Metric, by: &str, extra: &str) -> String {
    PANEL.rate(metric, by, extra)
}

/// Which part of a counter has these labels; 0 of 0 is nothing, not 0.
pub(super) fn share(metric: &Metric, by: &str, part: &str) -> String {
    PANEL.share(metric, by, part)
}

/// A quantile of a histogram, native or classic.
pub(super) fn quantile(q: &str, metric: &Metric, by: &str) -> String {
    PANEL.quantile(q, metric, by, "")
}

/// The largest of a gauge.
pub(super) fn largest(metric: &Metric, by: &str, extra: &str) -> String {
    format!("max by ({by}) ({})", PANEL.gauge(metric, extra))
}

/// A configured timeout or deadline, under the label of what it is for (`route` or `upstream`).
pub(super) fn timeout(scope: &str, phase: &str) -> String {
    let matchers = format!("scope=\"{scope}\",phase=\"{phase}\",name=~\"${scope}\"");
    named(&largest(&catalogue::TIMEOUT, "name", &matchers), scope)
}

/// With the label `name` called as it is elsewhere.
pub(super) fn named(expression: &str, label: &str) -> String {
    format!("max by ({label}) (label_join({expression}, \"{label}\", \"\", \"name\"))")
}
