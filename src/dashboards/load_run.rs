//! What a load test offers, what became of it, and whether both sides agree about it.

use super::panel::{Look, Panel};
use super::query::{largest, quantile, rate, selector, total};
use super::{Dashboard, Variable};
use crate::telemetry::catalogue::{self as metrics, Metric};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "load",
        title: "Forebay / Load test",
        description: "What `forebay load --metrics` offers, what became of it, and what the sidecar says about the same \
                      requests. Scrape both, and choose both under job and instance.",
        processes: &[&metrics::BUILD_INFO, &metrics::LOAD_ELAPSED],
        variables: &[Variable { label: "route", metric: &metrics::REQUESTS }],
        panels: [numbers(), rates(), latencies(), generator()].into_iter().flatten().collect(),
    }
}

fn numbers() -> Vec<Panel> {
    let sent = rate(&metrics::LOAD_OUTCOMES, "", "");
    let failed = rate(&metrics::LOAD_OUTCOMES, "", r#"outcome!="ok""#);
    vec![
        Panel::stat(
            "Progress",
            "Of the planned time. A test in its warm-up or draining counts nothing.",
            "percentunit",
            None,
            format!("max({}) / max({})", selector(&metrics::LOAD_ELAPSED, ""), selector(&metrics::LOAD_PLANNED, "")),
        ),
        Panel::stat(
            "Offered",
            "Requests due. It does not wait for answers, so it is as planned whatever the target does.",
            "reqps",
            None,
            rate(&metrics::LOAD_SCHEDULED, "", ""),
        ),
        Panel::stat(
            "Achieved",
            "Requests that were answered well. Less than offered for long means that the target does not follow.",
            "reqps",
            None,
            rate(&metrics::LOAD_OUTCOMES, "", r#"outcome="ok""#),
        ),
        Panel::stat(
            "Failed",
            "Of the requests that ended. The outcomes below say how.",
            "percentunit",
            Some((0.01, 0.05)),
            format!("{failed} / ({sent} > 0)"),
        ),
        Panel::stat(
            "Response p99",
            "From when a request was due to its end: what users would see.",
            "s",
            None,
            largest(&metrics::LOAD_RESPONSE, "", r#"quantile="0.99""#),
        ),
        Panel::stat(
            "Lateness p99",
            "How late requests left. Above some milliseconds, the generator and not the target is what is measured.",
            "s",
            Some((0.005, 0.05)),
            largest(&metrics::LOAD_LATENESS, "", ""),
        ),
    ]
}

fn rates() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Offered and achieved",
            "Due, sent, answered well, and what the sidecar counts in the same time. All four lie on each other as long as \
             the target follows and nobody else sends.",
            "reqps",
            vec![
                (rate(&metrics::LOAD_SCHEDULED, "", ""), "due"),
                (rate(&metrics::LOAD_REQUESTS, "fate", ""), "{{fate}}"),
                (rate(&metrics::LOAD_OUTCOMES, "", r#"outcome="ok""#), "answered well"),
                (rate(&metrics::REQUESTS, "", ""), "ended at the sidecar"),
            ],
        ),
        Panel::stacked(
            "Outcomes",
            "How requests ended for the client. Timeouts and connection errors stay in the percentiles.",
            "reqps",
            (rate(&metrics::LOAD_OUTCOMES, "outcome", ""), "{{outcome}}"),
        ),
    ]
}

fn latencies() -> Vec<Panel> {
    let each = |metric: &Metric| largest(metric, "quantile", "");
    vec![
        Panel::lines(
            "Response and service time",
            "Response counts from when a request was due, service from when it was sent, both since the end of the warm-up. A gap \
             between them is waiting before the sending.",
            "s",
            vec![
                (each(&metrics::LOAD_RESPONSE), "response {{quantile}}"),
                (each(&metrics::LOAD_SERVICE), "service {{quantile}}"),
            ],
        ),
        Panel::lines(
            "Both sides' latency",
            "The client's service time and the sidecar's duration of the same requests. The client's is a little larger: \
             the network and the client itself. A large gap is a queue before the sidecar.",
            "s",
            vec![
                (largest(&metrics::LOAD_SERVICE, "quantile", r#"quantile=~"0.5|0.99""#), "client {{quantile}}"),
                (quantile("0.5", &metrics::REQUEST_DURATION, ""), "sidecar 0.5"),
                (quantile("0.99", &metrics::REQUEST_DURATION, ""), "sidecar 0.99"),
            ],
        ),
        Panel::lines(
            "In flight on both sides",
            "Sent and not ended, as the client and as the sidecar see it. Growing at a steady rate means that the target does \
             not follow.",
            "short",
            vec![(total(&metrics::LOAD_IN_FLIGHT, ""), "client"), (total(&metrics::REQUESTS_IN_FLIGHT, ""), "sidecar")],
        ),
        Panel::lines(
            "Lateness",
            "How late requests left, p99 since the end of the warm-up. It is not part of the service time, but of the \
             response time.",
            "s",
            vec![(format!("topk(10, {})", largest(&metrics::LOAD_LATENESS, "instance", "")), "{{instance}}")],
        ),
    ]
}

fn generator() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Connections and their errors",
            "Connections made and connection errors by kind. As many connections as requests means that the target closes \
             after each answer.",
            "short",
            vec![
                (rate(&metrics::LOAD_CONNECTIONS, "", ""), "made per second"),
                (rate(&metrics::LOAD_ERRORS, "kind", ""), "{{kind}} per second"),
            ],
        ),
        Panel::lines(
            "Bodies received",
            "Less for each answer than usual means that the answers are errors.",
            "Bps",
            vec![(rate(&metrics::LOAD_RECEIVED_BYTES, "", ""), "received")],
        ),
        Panel {
            look: Look::States { words: ["no", "yes"], colours: ["transparent", "purple"] },
            ..Panel::lines(
                "Phase",
                "Warm-up, measuring, draining, interrupted. Only what lies in the measuring counts.",
                "short",
                vec![(largest(&metrics::LOAD_PHASE, "phase", ""), "{{phase}}")],
            )
        },
    ]
}
