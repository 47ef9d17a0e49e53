//! PromQL over the metric catalogue, for dashboards and rules: a metric that is renamed or gone does not compile.
//!
//! Quantiles and sums of histograms are asked for native or classic ones, whichever there are: with native histograms
//! on, Prometheus 2 drops the classic buckets.

use crate::telemetry::catalogue::{self, Kind, Metric};

/// How series are chosen and over which time rates are taken.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Matchers that every selector gets, and labels that are matched with a variable of their name where a metric has them.
    pub always: &'static str,
    pub variables: &'static [&'static str],
    pub window: &'static str,
}

/// On a dashboard: narrowed by its variables.
pub const PANEL: Query = Query {
    always: r#"job=~"$job",instance=~"$instance""#,
    variables: &["route", "upstream"],
    window: "$__rate_interval",
};

/// On a dashboard, whatever its variables: narrowed by job and instance only.
pub const EVERYWHERE: Query = Query { variables: &[], ..PANEL };

impl Query {
    /// In a rule: all there is, over this time.
    pub const fn over(window: &'static str) -> Self {
        Self { always: "", variables: &[], window }
    }

    /// The series of a metric; `extra` are further matchers.
    pub fn selector(&self, metric: &Metric, extra: &str) -> String {
        self.part(metric, "", extra)
    }

    /// `ending` is that of a histogram's parts.
    fn part(&self, metric: &Metric, ending: &str, extra: &str) -> String {
        let variables = self.variables.iter().filter(|label| metric.labels.contains(*label));
        let variables = variables.map(|label| format!("{label}=~\"${label}\""));
        let matchers = std::iter::once(self.always.to_owned()).chain(variables).chain([extra.to_owned()]);
        let matchers: Vec<String> = matchers.filter(|matcher| !matcher.is_empty()).collect();
        match matchers.as_slice() {
            [] => format!("{}{ending}", metric.name),
            matchers => format!("{}{ending}{{{}}}", metric.name, matchers.join(",")),
        }
    }

    /// A gauge, of processes of Forebay only: metrics of a process have the same names for all programs.
    pub fn gauge(&self, metric: &Metric, extra: &str) -> String {
        debug_assert!(metric.kind == Kind::Gauge, "{}", metric.name);
        self.own(metric, self.selector(metric, extra))
    }

    fn own(&self, metric: &Metric, expression: String) -> String {
        if !metric.name.starts_with("process_") {
            return expression;
        }
        format!("({expression} and on (job, instance) {})", self.selector(&catalogue::BUILD_INFO, ""))
    }

    /// How often a gauge has changed.
    pub fn changes(&self, metric: &Metric) -> String {
        self.own(metric, format!("changes({}[{}])", self.selector(metric, ""), self.window))
    }

    /// A value now, added up.
    pub fn total(&self, metric: &Metric, by: &str, extra: &str) -> String {
        format!("sum by ({by}) ({})", self.gauge(metric, extra))
    }

    /// How much a counter has grown, added up.
    pub fn increase(&self, metric: &Metric, by: &str, extra: &str) -> String {
        debug_assert!(metric.kind == Kind::Counter, "{}", metric.name);
        format!("sum by ({by}) (increase({}[{}]))", self.selector(metric, extra), self.window)
    }

    /// A counter per second, added up.
    pub fn rate(&self, metric: &Metric, by: &str, extra: &str) -> String {
        debug_assert!(metric.kind == Kind::Counter, "{}", metric.name);
        let rate = format!("rate({}[{}])", self.selector(metric, extra), self.window);
        format!("sum by ({by}) ({})", self.own(metric, rate))
    }

    /// Which part of a counter has these labels; 0 of 0 is nothing, not 0.
    pub fn share(&self, metric: &Metric, by: &str, part: &str) -> String {
        format!("{} / ({} > 0)", self.rate(metric, by, part), self.rate(metric, by, ""))
    }

    /// A quantile of a histogram.
    pub fn quantile(&self, q: &str, metric: &Metric, by: &str, extra: &str) -> String {
        debug_assert!(metric.kind == Kind::Histogram, "{}", metric.name);
        let by_and_le = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
        let (native, classic) = (self.part(metric, "", extra), self.part(metric, "_bucket", extra));
        let window = self.window;
        format!(
            "histogram_quantile({q}, sum by ({by}) (rate({native}[{window}]))) or \
             histogram_quantile({q}, sum by ({by_and_le}) (rate({classic}[{window}])))"
        )
    }

    /// What a histogram observed, added up, per second.
    pub fn observed(&self, metric: &Metric, by: &str) -> String {
        debug_assert!(metric.kind == Kind::Histogram, "{}", metric.name);
        let (native, classic, window) = (self.part(metric, "", ""), self.part(metric, "_sum", ""), self.window);
        format!("histogram_sum(sum by ({by}) (rate({native}[{window}]))) or sum by ({by}) (rate({classic}[{window}]))")
    }

    /// The buckets of a histogram for a heat map: one series for each bound, or one of native histograms.
    pub fn buckets(&self, metric: &Metric) -> String {
        debug_assert!(metric.kind == Kind::Histogram, "{}", metric.name);
        let (native, classic, window) = (self.part(metric, "", ""), self.part(metric, "_bucket", ""), self.window);
        format!("sum by (le) (rate({classic}[{window}])) or on () sum(rate({native}[{window}]))")
    }
}
