//! Is it well, and if not, since when, on which route and why.

use super::panel::{Look, Panel};
use super::query::{quantile, rate, selector, share, total};
use super::{Dashboard, Variable};
use crate::telemetry::catalogue as metrics;

const ERRORS: &str = r#"code="5xx""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "overview",
        title: "Forebay / Overview",
        description: "Rate, errors and duration of each route, and what a limit or a timeout ended.",
        variables: &[Variable { label: "route", metric: &metrics::REQUESTS }],
        panels: [numbers(), requests(), waiting(), process()].into_iter().flatten().collect(),
    }
}

fn numbers() -> Vec<Panel> {
    let stat = |title, description, unit, bounds, expression: String| Panel {
        title,
        description,
        unit,
        look: Look::Stat { bounds },
        targets: vec![(expression, "")],
    };
    vec![
        stat(
            "Requests",
            "All requests that ended. A sudden drop with growing durations means that clients wait.",
            "reqps",
            None,
            rate(&metrics::REQUESTS, "", ""),
        ),
        stat(
            "Errors",
            "Answers of 5xx among all. Below 1 % is normal for most; the reasons below say which.",
            "percentunit",
            Some((0.01, 0.05)),
            share(&metrics::REQUESTS_BY_CODE, "", ERRORS),
        ),
        stat(
            "Duration p99",
            "Of all routes together. Compare with the deadlines of the routes.",
            "s",
            None,
            quantile("0.99", &metrics::REQUEST_DURATION, ""),
        ),
        stat(
            "In flight",
            "Requests that wait or are worked on. Growing at a steady rate means that an upstream became slower.",
            "short",
            None,
            total(&metrics::REQUESTS_IN_FLIGHT, ""),
        ),
        stat(
            "Refused configurations",
            "Processes whose last reload failed: the old configuration runs on. Run `forebay check` on the file.",
            "short",
            Some((1.0, 1.0)),
            format!("count({}) - sum({0})", selector(&metrics::CONFIG_LAST_RELOAD_SUCCESSFUL, "")),
        ),
        stat(
            "Panics",
            "Caught panics per second. Always 0; otherwise look for them in the log and report them.",
            "short",
            Some((1e-9, 1e-9)),
            rate(&metrics::PANICS, "", ""),
        ),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel {
            look: Look::Stacked,
            ..Panel::lines(
                "Requests by reason",
                "Why requests ended, ok among them. docs/reasons.md says for each what happened and what to change.",
                "reqps",
                vec![(rate(&metrics::REQUESTS, "reason", "") + " > 0", "{{reason}}")],
            )
        },
        Panel::lines(
            "Errors by route",
            "Answers of 5xx among all of the route. A gap is a time without requests.",
            "percentunit",
            vec![(share(&metrics::REQUESTS_BY_CODE, "route", ERRORS), "{{route}}")],
        ),
        Panel::lines(
            "Duration by route",
            "From the first byte of the request to the last of the answer. A line that lies flat at a timeout's value \
             is what that timeout ended.",
            "s",
            vec![
                (quantile("0.5", &metrics::REQUEST_DURATION, "route"), "p50 {{route}}"),
                (quantile("0.99", &metrics::REQUEST_DURATION, "route"), "p99 {{route}}"),
            ],
        ),
        Panel::lines(
            "First byte by route, p99",
            "Far below the duration means that bodies are slow, not the thinking of the upstream.",
            "s",
            vec![(quantile("0.99", &metrics::REQUEST_FIRST_BYTE, "route"), "{{route}}")],
        ),
    ]
}

fn waiting() -> Vec<Panel> {
    vec![
        Panel::lines(
            "In flight by route",
            "Now, the most at once within the window, and the exact mean. Peaks far above the mean are bursts: a queue \
             takes them, more permits would pass them on.",
            "short",
            vec![
                (total(&metrics::REQUESTS_IN_FLIGHT, "route"), "now {{route}}"),
                (total(&metrics::REQUESTS_IN_FLIGHT_PEAK, "route"), "peak {{route}}"),
                (rate(&metrics::REQUESTS_IN_FLIGHT_SECONDS, "route", ""), "mean {{route}}"),
            ],
        ),
        Panel::lines(
            "Ended by time",
            "By the phase in which time ran out and by which limit. None in a healthy system; the deadline in the queue \
             asks for a shorter queue or more permits.",
            "reqps",
            vec![(rate(&metrics::TIMEOUTS, "route, phase, limit", ""), "{{route}} {{phase}} by {{limit}}")],
        ),
        Panel::lines(
            "Added by Forebay, p99",
            "Below a millisecond unless clients are slow to send or to read; otherwise look at CPU and runtime lag.",
            "s",
            vec![(quantile("0.99", &metrics::REQUEST_OVERHEAD, "route"), "{{route}}")],
        ),
        Panel::lines(
            "Runtime lag, p99",
            "How late the event loop is. Above some milliseconds, CPUs are missing or something blocks it.",
            "s",
            vec![(quantile("0.99", &metrics::RUNTIME_LAG, "runtime"), "{{runtime}}")],
        ),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        Panel::lines(
            "CPUs in use",
            "By instance, the ten busiest. Near the container's limit, every latency grows.",
            "short",
            vec![(format!("topk(10, {})", rate(&metrics::PROCESS_CPU, "instance", "")), "{{instance}}")],
        ),
        Panel::lines(
            "Resident memory",
            "By instance, the ten largest. Follows connections and requests in flight, and falls with them.",
            "bytes",
            vec![(format!("topk(10, {})", total(&metrics::PROCESS_RESIDENT_MEMORY, "instance")), "{{instance}}")],
        ),
    ]
}
