//! What is limited, how near it is to its limit, and who is refused.

use super::Dashboard;
use super::panel::Panel;
use super::query::{quantile, rate, total};
use crate::telemetry::catalogue as metrics;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "limits",
        title: "Forebay / Limits and queues",
        description: "Requests in flight, queues and rates against what is allowed.",
        variables: &[],
        panels: [in_flight(), rates()].into_iter().flatten().collect(),
    }
}

fn in_flight() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Permits in use against the limit",
            "At the limit, requests queue: as asked, if the service bears no more. All instances added up.",
            "short",
            vec![
                (total(&metrics::PERMITS_IN_USE, "scope, name"), "in use {{scope}} {{name}}"),
                (total(&metrics::PERMITS_LIMIT, "scope, name"), "limit {{scope}} {{name}}"),
            ],
        ),
        Panel::lines(
            "Queued against the capacity",
            "Short queues that empty again take up bursts. One that is never empty only adds to every wait.",
            "short",
            vec![
                (total(&metrics::QUEUE_DEPTH, "scope, name"), "queued {{scope}} {{name}}"),
                (total(&metrics::QUEUE_CAPACITY, "scope, name"), "capacity {{scope}} {{name}}"),
            ],
        ),
        Panel::lines(
            "Wait in the queue",
            "Of those who waited. Near the queue's timeout, others are being refused.",
            "s",
            vec![
                (quantile("0.5", &metrics::QUEUE_WAIT, "scope, name"), "p50 {{scope}} {{name}}"),
                (quantile("0.99", &metrics::QUEUE_WAIT, "scope, name"), "p99 {{scope}} {{name}}"),
            ],
        ),
        Panel::lines(
            "How waiting ended",
            "Admitted is well. Full and timeout are load that was shed: more instances, or slower clients. Abandoned is a client \
             that left, or a deadline that passed.",
            "reqps",
            vec![(rate(&metrics::QUEUE_RESULTS, "scope, name, result", ""), "{{scope}} {{name}} {{result}}")],
        ),
    ]
}

fn rates() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Decisions of rate limits",
            "Rejected or delayed: a client asks for more than its rate. Shadow says what a limit would do.",
            "reqps",
            vec![(rate(&metrics::RATE_LIMIT_DECISIONS, "limiter, decision", ""), "{{limiter}} {{decision}}")],
        ),
        Panel::lines(
            "Keys of rate limits",
            "Clients that are told apart. At the table's bound, newcomers share one.",
            "short",
            vec![(total(&metrics::RATE_LIMIT_KEYS, "limiter"), "{{limiter}}")],
        ),
    ]
}
