//! Is it well, and if not, since when, on which route and why.

use super::panel::{Column, Look, Panel};
use super::query::{largest, quantile, rate, selector, share, timeout, total};
use super::{Dashboard, SIDECAR, Variable};
use crate::promql::PANEL;
use crate::telemetry::catalogue as metrics;

const ERRORS: &str = r#"code="5xx""#;
const AVAILABILITY: &str = r#"objective="availability""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "overview",
        title: "Forebay / Overview",
        description: "Is it well, and if not, since when, on which route and why: rate, errors and duration of each route \
                      against what it promises.",
        processes: SIDECAR,
        variables: &[Variable { label: "route", metric: &metrics::REQUESTS }],
        panels: [numbers(), routes(), requests(), durations(), waiting(), fleet(), on_purpose()]
            .into_iter()
            .flatten()
            .collect(),
    }
}

fn numbers() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Requests",
            "All requests that ended. A sudden drop with growing durations means that clients wait.",
            "reqps",
            None,
            rate(&metrics::REQUESTS, "", ""),
        ),
        Panel::stat(
            "Errors",
            "Answers of 5xx among all. Below 1 % is normal for most; the reasons below say which.",
            "percentunit",
            Some((0.01, 0.05)),
            share(&metrics::REQUESTS_BY_CODE, "", ERRORS),
        ),
        Panel::stat(
            "Worst burn",
            "Of all objectives: how many times faster than allowed an error budget is being used up. Below 1 the promise holds; \
             an alert comes at 14.4 for an hour. Empty when no route has an `objective`.",
            "short",
            Some((1.0, 6.0)),
            format!("max({})", burn("route, objective", "")),
        ),
        Panel::stat(
            "Duration p99",
            "Of all routes together. Compare with the deadlines of the routes.",
            "s",
            None,
            quantile("0.99", &metrics::REQUEST_DURATION, ""),
        ),
        Panel::stat(
            "In flight",
            "Requests that wait or are worked on. Growing at a steady rate means that an upstream became slower.",
            "short",
            None,
            total(&metrics::REQUESTS_IN_FLIGHT, ""),
        ),
        Panel::stat(
            "Refused configurations",
            "Processes whose last reload failed: the old configuration runs on. Run `forebay check` on the file.",
            "short",
            Some((1.0, 1.0)),
            format!("count({}) - sum({0})", selector(&metrics::CONFIG_LAST_RELOAD_SUCCESSFUL, "")),
        ),
    ]
}

/// The share of misses over the share that the objective allows.
fn burn(by: &str, extra: &str) -> String {
    let misses = rate(&metrics::OBJECTIVE_MISSES, by, extra);
    let requests = rate(&metrics::OBJECTIVE_REQUESTS, by, extra);
    format!("{misses} / ({requests} > 0) / (1 - {})", largest(&metrics::OBJECTIVE_RATIO, by, extra))
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::stacked(
            "Requests by route",
            "All requests that ended. A route that falls while others stay has lost its clients, or they wait.",
            "reqps",
            (rate(&metrics::REQUESTS, "route", "") + " > 0", "{{route}}"),
        ),
        Panel::stacked(
            "Failures by reason",
            "Why requests ended other than well, whoever was at fault. docs/reasons.md says for each what happened and what to \
             change.",
            "reqps",
            (rate(&metrics::REQUESTS, "reason", r#"reason!="ok""#) + " > 0", "{{reason}}"),
        ),
        Panel::lines(
            "Failures by route against the objective",
            "Answers of 5xx among all of the route, and what its objective of availability allows. Above the line for long, the \
             error budget is used up. A gap is a time without requests.",
            "percentunit",
            vec![
                (share(&metrics::REQUESTS_BY_CODE, "route", ERRORS), "{{route}}"),
                (format!("1 - {}", largest(&metrics::OBJECTIVE_RATIO, "route", AVAILABILITY)), "allowed {{route}}"),
            ],
        ),
        Panel::lines(
            "Error budget burn",
            "1 uses up exactly what the objective allows. The alerts come above 14.4 (an hour), 6 (six hours), 3 (a day) and 1 \
             (three days).",
            "short",
            vec![(burn("route, objective", ""), "{{route}} {{objective}}")],
        ),
    ]
}

fn durations() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Duration p99 by route against its objective and deadline",
            "From the first byte of the request to the last of the answer. A line that lies flat at a timeout's value \
             is what that timeout ended.",
            "s",
            vec![
                (quantile("0.99", &metrics::REQUEST_DURATION, "route"), "{{route}}"),
                (largest(&metrics::OBJECTIVE_LATENCY, "route", ""), "promised {{route}}"),
                (timeout("route", "deadline"), "deadline {{route}}"),
            ],
        ),
        Panel::lines(
            "Duration p50 and p95 by route",
            "p50 is the usual request. It grows with the p95 when all are slower; the p95 alone when some are.",
            "s",
            vec![
                (quantile("0.5", &metrics::REQUEST_DURATION, "route"), "p50 {{route}}"),
                (quantile("0.95", &metrics::REQUEST_DURATION, "route"), "p95 {{route}}"),
            ],
        ),
        Panel {
            look: Look::Heat,
            ..Panel::lines(
                "Durations",
                "How many requests took how long. Two bands are two kinds of requests, or a cache; a band at a timeout's \
                 value is what that timeout ended.",
                "s",
                vec![(PANEL.buckets(&metrics::REQUEST_DURATION), "{{le}}")],
            )
        },
        Panel::lines(
            "First byte by route, p99",
            "Far below the duration means that bodies are slow, not the thinking of the upstream.",
            "s",
            vec![(quantile("0.99", &metrics::REQUEST_FIRST_BYTE, "route"), "{{route}}")],
        ),
        Panel::lines(
            "Added by Forebay, p99",
            "Below a millisecond unless clients are slow to send or to read; otherwise look at CPU and runtime lag.",
            "s",
            vec![(quantile("0.99", &metrics::REQUEST_OVERHEAD, "route"), "{{route}}")],
        ),
    ]
}

fn waiting() -> Vec<Panel> {
    vec![
        Panel::lines(
            "In flight by route",
            "The most at once within the window, and the exact mean. Peaks far above the mean are bursts: a queue \
             takes them, more permits would pass them on.",
            "short",
            vec![
                (total(&metrics::REQUESTS_IN_FLIGHT_PEAK, "route"), "peak {{route}}"),
                (rate(&metrics::REQUESTS_IN_FLIGHT_SECONDS, "route", ""), "mean {{route}}"),
            ],
        ),
        Panel::lines(
            "Ended by time",
            "By the phase in which time ran out and by which limit. None in a healthy system; the deadline in the queue \
             asks for a shorter queue or more permits.",
            "reqps",
            vec![(rate(&metrics::TIMEOUTS, "route, phase, limit", ""), "{{phase}} by {{limit}} {{route}}")],
        ),
        Panel::lines(
            "Work without a client",
            "Requests worked on although their client has left, and how such work ended. Many mean that clients give up \
             before the upstream answers.",
            "short",
            vec![
                (total(&metrics::DETACHED_TASKS, ""), "running"),
                (rate(&metrics::DETACHED_TASKS_ENDED, "result", ""), "{{result}} per second"),
            ],
        ),
    ]
}

fn on_purpose() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Faults on purpose",
            "Faults of the configuration that have not ended, the requests that meet one now, and how often which. None \
             outside of an experiment; else whatever the clients of the route see may be done on purpose.",
            "short",
            vec![
                (total(&metrics::FAULTS_ARMED, "route"), "armed {{route}}"),
                (total(&metrics::FAULTS_ACTIVE, "route"), "met now {{route}}"),
                (rate(&metrics::FAULTS_INJECTED, "route, kind", ""), "{{kind}} per second {{route}}"),
                (rate(&metrics::FAULTS_SKIPPED, "route", ""), "skipped per second {{route}}"),
            ],
        ),
        Panel::lines(
            "Requests of load tests",
            "By the user-agent of forebay load. None in production; else the numbers of the route are partly those of a test.",
            "reqps",
            vec![(rate(&metrics::LOAD_TEST_REQUESTS, "route", ""), "{{route}}")],
        ),
        Panel::lines(
            "Mirrored copies",
            "In flight, and how they ended. Mostly answered; no_place says that the mirror is slower than the traffic it gets, \
             which costs the clients nothing. Compared answers are mostly same; the log names parts that differ.",
            "short",
            vec![
                (total(&metrics::MIRROR_IN_FLIGHT, "route"), "in flight {{route}}"),
                (rate(&metrics::MIRROR_COPIES, "route, result", ""), "{{result}} per second {{route}}"),
                (rate(&metrics::MIRROR_COMPARED, "route, result", ""), "compared: {{result}} per second {{route}}"),
            ],
        ),
    ]
}

fn routes() -> Vec<Panel> {
    const COLUMNS: &[Column] = &[
        ("reqps", None),
        ("percentunit", Some((0.01, 0.05))),
        ("short", Some((1.0, 6.0))),
        ("s", None),
        ("s", None),
        ("s", None),
        ("short", None),
    ];
    vec![Panel {
        look: Look::Table { by: "route", columns: COLUMNS, worst: "errors" },
        ..Panel::lines(
            "Routes",
            "Now, the worst first. A route's name leads to its limits, or narrows what is below to it.",
            "short",
            vec![
                (rate(&metrics::REQUESTS, "route", ""), "requests"),
                (share(&metrics::REQUESTS_BY_CODE, "route", ERRORS), "errors"),
                (format!("max by (route) ({})", burn("route, objective", "")), "worst burn"),
                (quantile("0.5", &metrics::REQUEST_DURATION, "route"), "p50"),
                (quantile("0.95", &metrics::REQUEST_DURATION, "route"), "p95"),
                (quantile("0.99", &metrics::REQUEST_DURATION, "route"), "p99"),
                (rate(&metrics::REQUESTS_IN_FLIGHT_SECONDS, "route", ""), "mean in flight"),
            ],
        )
    }]
}

fn fleet() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Slowest instances, p99",
            "The five slowest. One far above the others is a sick machine or a sick neighbour; all together are the \
             upstreams.",
            "s",
            vec![(format!("topk(5, {})", quantile("0.99", &metrics::REQUEST_DURATION, "instance")), "{{instance}}")],
        ),
        Panel::lines(
            "Versions and configurations",
            "Instances by version and by hash of their configuration. More than one outside of a roll-out means that some \
             instances were left behind.",
            "short",
            vec![
                (format!("count by (version) ({})", selector(&metrics::BUILD_INFO, "")), "version {{version}}"),
                (format!("count by (hash) ({})", selector(&metrics::CONFIG_INFO, "")), "configuration {{hash}}"),
            ],
        ),
        Panel::stacked(
            "Requests by method",
            "The mix is steady for a steady client; a change explains a change of latency.",
            "reqps",
            (rate(&metrics::REQUESTS_BY_METHOD, "method", "") + " > 0", "{{method}}"),
        ),
        Panel::lines(
            "Bodies",
            "Bytes received from clients and sent to them. Steady for steady clients.",
            "Bps",
            vec![
                (rate(&metrics::REQUEST_BYTES, "route", ""), "in {{route}}"),
                (rate(&metrics::RESPONSE_BYTES, "route", ""), "out {{route}}"),
            ],
        ),
    ]
}
