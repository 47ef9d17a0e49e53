//! The numbers of a running test in the text format of Prometheus, version 0.0.4.
//!
//! Counters are those of the measured part, so they stand at 0 during the warm-up. The latencies are those of the whole
//! run so far: a window of time would need a histogram, which the reports have.

use std::fmt::Write as _;

use super::{Phase, Quick, Snapshot};
use crate::telemetry::catalogue;

const NANOS: f64 = 1e9;
const PHASES: [(Phase, &str); 4] = [
    (Phase::WarmUp, "warm_up"),
    (Phase::Measuring, "measuring"),
    (Phase::Draining, "draining"),
    (Phase::Interrupted, "interrupted"),
];

pub fn render(snapshot: &Snapshot) -> String {
    let Snapshot { moment, counts, .. } = snapshot;
    let mut text = String::new();
    family(&mut text, &catalogue::LOAD_SCHEDULED, [("", counts.scheduled)]);
    let fates = [("sent", counts.sent), ("shed", counts.shed), ("unsent", counts.unsent)];
    family(&mut text, &catalogue::LOAD_REQUESTS, fates);
    let outcomes = [
        ("ok", counts.ok),
        ("http_error", counts.http_error),
        ("connection_error", counts.connection_error),
        ("timeout", counts.timeout),
        ("unfinished", counts.unfinished),
    ];
    family(&mut text, &catalogue::LOAD_OUTCOMES, outcomes);
    let errors = snapshot.errors.iter().map(|(kind, count)| (kind.as_str(), *count));
    family(&mut text, &catalogue::LOAD_ERRORS, errors);
    family(&mut text, &catalogue::LOAD_CONNECTIONS, [("", counts.connections)]);
    family(&mut text, &catalogue::LOAD_RECEIVED_BYTES, [("", counts.bytes)]);
    family(&mut text, &catalogue::LOAD_IN_FLIGHT, [("", moment.in_flight)]);
    let phases = PHASES.map(|(phase, name)| (name, u64::from(phase == moment.phase)));
    family(&mut text, &catalogue::LOAD_PHASE, phases);
    family(&mut text, &catalogue::LOAD_ELAPSED, [("", seconds(moment.elapsed_ns))]);
    family(&mut text, &catalogue::LOAD_PLANNED, [("", seconds(moment.planned_ns))]);
    family(&mut text, &catalogue::LOAD_RESPONSE, quantiles(&snapshot.response));
    family(&mut text, &catalogue::LOAD_SERVICE, quantiles(&snapshot.service));
    family(&mut text, &catalogue::LOAD_LATENESS, [("", seconds(snapshot.lateness_p99_ns))]);
    text
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / NANOS
}

/// Not a number as long as there is nothing.
fn quantiles(of: &Quick) -> [(&'static str, f64); 4] {
    let all = [("0.5", of.p50_ns), ("0.95", of.p95_ns), ("0.99", of.p99_ns), ("1.0", of.max_ns)];
    all.map(|(name, ns)| (name, if of.count > 0 { seconds(ns) } else { f64::NAN }))
}

/// A metric without a label has one value, whose name is not shown. Values of labels come from closed lists.
fn family<'a, V: std::fmt::Display>(
    text: &mut String,
    metric: &catalogue::Metric,
    values: impl IntoIterator<Item = (&'a str, V)>,
) {
    let (name, help, kind) = (metric.name, metric.help, metric.kind.as_str());
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a string takes all");
    for (which, value) in values {
        let labels = metric.labels.first().map_or(String::new(), |label| format!("{{{label}=\"{which}\"}}"));
        writeln!(text, "{name}{labels} {value}").expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Moment;
    use super::*;
    use crate::load::ledger::Counts;

    #[test]
    fn the_numbers_of_a_snapshot_are_read_back() {
        let snapshot = Snapshot {
            moment: Moment {
                phase: Phase::Measuring,
                elapsed_ns: 2_500_000_000,
                planned_ns: 9_000_000_000,
                in_flight: 1,
            },
            counts: Counts { scheduled: 10, sent: 8, shed: 2, ok: 7, ..Counts::default() },
            response: Quick { count: 7, p99_ns: 250_000_000, ..Quick::default() },
            ..Snapshot::default()
        };

        let text = render(&snapshot);

        for line in [
            "load_requests_scheduled_total 10",
            "load_requests_total{fate=\"sent\"} 8",
            "load_requests_total{fate=\"shed\"} 2",
            "load_outcomes_total{outcome=\"ok\"} 7",
            "load_in_flight 1",
            "load_phase{phase=\"warm_up\"} 0",
            "load_phase{phase=\"measuring\"} 1",
            "load_elapsed_seconds 2.5",
            "load_planned_seconds 9",
            "load_response_seconds{quantile=\"0.99\"} 0.25",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn before_the_first_answer_latencies_are_unknown_and_not_zero() {
        let text = render(&Snapshot::default());

        assert!(text.contains("load_response_seconds{quantile=\"0.5\"} NaN\n"), "{text}");
    }

    #[test]
    fn every_metric_of_the_catalogue_is_shown() {
        let text = render(&Snapshot::default());

        for metric in catalogue::LOAD {
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.as_str())), "{}", metric.name);
        }
    }
}
