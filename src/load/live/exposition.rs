//! The numbers of a running test in the text format of Prometheus, version 0.0.4.
//!
//! Counters are those of the measured part, so they stand at 0 during the warm-up. The latencies are those of the whole
//! run so far: a window of time would need a histogram, which the reports have.

use std::fmt::Write as _;

use super::{Phase, Snapshot};

const NANOS: f64 = 1e9;
const PHASES: [(Phase, &str); 4] = [
    (Phase::WarmUp, "warm_up"),
    (Phase::Measuring, "measuring"),
    (Phase::Draining, "draining"),
    (Phase::Interrupted, "interrupted"),
];

pub fn render(snapshot: &Snapshot) -> String {
    let Snapshot { moment, counts, response, .. } = snapshot;
    let seconds = |ns: u64| ns as f64 / NANOS;
    let mut text = String::new();
    family(
        &mut text,
        "load_requests_scheduled_total",
        "counter",
        "Requests that were due.",
        "",
        [("", counts.scheduled)],
    );
    let fates = [("sent", counts.sent), ("shed", counts.shed), ("unsent", counts.unsent)];
    let help = "What became of the requests that were due; what is missing is about to leave.";
    family(&mut text, "load_requests_total", "counter", help, "fate", fates);
    let outcomes = [
        ("ok", counts.ok),
        ("http_error", counts.http_error),
        ("connection_error", counts.connection_error),
        ("timeout", counts.timeout),
        ("unfinished", counts.unfinished),
    ];
    let help = "How the requests that were sent have ended.";
    family(&mut text, "load_outcomes_total", "counter", help, "outcome", outcomes);
    let errors = snapshot.errors.iter().map(|(kind, count)| (kind.as_str(), *count));
    family(&mut text, "load_errors_total", "counter", "Connection errors by kind.", "kind", errors);
    let help = "Connections made.";
    family(&mut text, "load_connections_total", "counter", help, "", [("", counts.connections)]);
    let help = "Bytes of the bodies of answers.";
    family(&mut text, "load_received_bytes_total", "counter", help, "", [("", counts.bytes)]);
    let help = "Requests sent that have not ended.";
    family(&mut text, "load_in_flight", "gauge", help, "", [("", moment.in_flight)]);
    let help = "1 for the phase that the test is in.";
    let phases = PHASES.map(|(phase, name)| (name, u64::from(phase == moment.phase)));
    family(&mut text, "load_phase", "gauge", help, "phase", phases);
    let help = "Time since the start, the warm-up included.";
    family(&mut text, "load_elapsed_seconds", "gauge", help, "", [("", seconds(moment.elapsed_ns))]);
    let help = "Planned length of the test, the warm-up included.";
    family(&mut text, "load_planned_seconds", "gauge", help, "", [("", seconds(moment.planned_ns))]);
    let quantiles =
        [("0.5", response.p50_ns), ("0.95", response.p95_ns), ("0.99", response.p99_ns), ("1.0", response.max_ns)];
    let quantiles = quantiles.map(|(name, ns)| (name, if response.count > 0 { seconds(ns) } else { f64::NAN }));
    let help = "Time from when a request was due to its end, since the end of the warm-up.";
    family(&mut text, "load_response_seconds", "gauge", help, "quantile", quantiles);
    let help = "How late requests left, 99th percentile since the end of the warm-up.";
    let lateness = seconds(snapshot.lateness_p99_ns);
    family(&mut text, "load_lateness_p99_seconds", "gauge", help, "", [("", lateness)]);
    text
}

/// `label` may be empty: then there is one value and no label. Values of labels come from closed lists.
fn family<'a, V: std::fmt::Display>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'a str, V)>,
) {
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a string takes all");
    for (which, value) in values {
        let labels = if label.is_empty() { String::new() } else { format!("{{{label}=\"{which}\"}}") };
        writeln!(text, "{name}{labels} {value}").expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Moment, Quick};
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
}
