//! Error budgets: how fast the share of failures that an objective allows is being used up, over long and short windows
//! (Google's SRE Workbook, chapter 5). One rule serves all routes and both objectives, as Forebay exports the promise and
//! exact counts of what missed it.

use super::{Alert, Measure, Recording, Severity};
use crate::promql::Query;
use crate::telemetry::catalogue as metrics;

const BY: &str = "job, route, objective";
const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];
/// Requests per second below which a share says little: one a minute.
const LEAST_RATE: &str = "> 1 / 60";

/// The share of requests that missed their objective.
fn ratio(window: &str) -> String {
    format!("route:{}:ratio_rate{window}", metrics::OBJECTIVE_MISSES.name.trim_end_matches("_total"))
}

pub(super) fn recordings() -> Vec<Recording> {
    let recording = |window| {
        let query = Query::over(window);
        let misses = query.rate(&metrics::OBJECTIVE_MISSES, BY, "");
        let requests = query.rate(&metrics::OBJECTIVE_REQUESTS, BY, "");
        Recording { name: ratio(window), expression: format!("{misses} / ({requests} > 0)") }
    };
    WINDOWS.map(recording).into()
}

pub(super) fn alerts() -> Vec<Alert> {
    const SUMMARY: &str =
        "Route {{ $labels.route }} of {{ $labels.job }} misses its objective of {{ $labels.objective }}";
    let alert = |name, severity, hold, factor: &str, [long, short]: [&'static str; 2], description| {
        let allowed = format!(
            "> on ({BY}) {factor} * (1 - max by ({BY}) ({}))",
            Query::over(long).selector(&metrics::OBJECTIVE_RATIO, "")
        );
        let beyond = |window| Measure { expression: ratio(window), condition: allowed.clone() };
        let requests = Query::over(long).rate(&metrics::OBJECTIVE_REQUESTS, BY, "");
        let enough = Measure { expression: requests, condition: LEAST_RATE.to_owned() };
        Alert {
            name,
            severity,
            hold,
            measures: vec![beyond(long), beyond(short), enough],
            summary: SUMMARY,
            description,
        }
    };
    vec![
        alert(
            "ForebayBudgetBurn1h",
            Severity::Critical,
            "2m",
            "14.4",
            ["1h", "5m"],
            "{{ $value | humanizePercentage }} of the last hour's requests missed it: 14.4 times what it allows, or 2 % of the \
             budget of 30 days in an hour. The overview shows by which reason.",
        ),
        alert(
            "ForebayBudgetBurn6h",
            Severity::Critical,
            "5m",
            "6",
            ["6h", "30m"],
            "{{ $value | humanizePercentage }} of the last six hours' requests missed it: 6 times what it allows, or 5 % of the \
             budget of 30 days in six hours. The overview shows by which reason.",
        ),
        alert(
            "ForebayBudgetBurn1d",
            Severity::Warning,
            "15m",
            "3",
            ["1d", "2h"],
            "{{ $value | humanizePercentage }} of the last day's requests missed it: 3 times what it allows, or 10 % of the \
             budget of 30 days in a day.",
        ),
        alert(
            "ForebayBudgetBurn3d",
            Severity::Warning,
            "30m",
            "1",
            ["3d", "6h"],
            "{{ $value | humanizePercentage }} of the last three days' requests missed it: more than it allows, so the budget of \
             30 days will not last.",
        ),
    ]
}
