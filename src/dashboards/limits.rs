//! What is limited, how near it is to its limit, and who is refused.

use super::panel::Panel;
use super::query::{largest, named, quantile, rate, total};
use super::{Dashboard, SIDECAR, Variable};
use crate::promql::PANEL;
use crate::telemetry::catalogue as metrics;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "limits",
        title: "Forebay / Limits and queues",
        description: "What is limited, how near it is to its limit, and who is refused.",
        processes: SIDECAR,
        variables: &[Variable { label: "route", metric: &metrics::REQUESTS }],
        panels: [in_flight(), queues(), rates(), clients()].into_iter().flatten().collect(),
    }
}

fn in_flight() -> Vec<Panel> {
    let route_limit = largest(&metrics::PERMITS_LIMIT, "name", r#"scope="route",name=~"$route""#);
    let route_limit = named(&route_limit, "route");
    vec![
        Panel::lines(
            "In flight against the limit of the route",
            "Now, the most at once, the exact mean, and the limit of one instance where there is one. A peak at the limit \
             is a queue; a mean at the limit is overload. All instances added up.",
            "short",
            vec![
                (total(&metrics::REQUESTS_IN_FLIGHT, "route"), "now {{route}}"),
                (total(&metrics::REQUESTS_IN_FLIGHT_PEAK, "route"), "peak {{route}}"),
                (rate(&metrics::REQUESTS_IN_FLIGHT_SECONDS, "route", ""), "mean {{route}}"),
                (route_limit, "limit {{route}}"),
            ],
        ),
        Panel::lines(
            "Little's law",
            "The mean in flight and rate times mean duration: two ways to the same number. A lasting gap is a leak or a \
             mistake in the measuring; requests longer than the window make a passing one.",
            "short",
            vec![
                (rate(&metrics::REQUESTS_IN_FLIGHT_SECONDS, "route", ""), "mean in flight {{route}}"),
                (PANEL.observed(&metrics::REQUEST_DURATION, "route"), "rate x duration {{route}}"),
            ],
        ),
        Panel::lines(
            "Permits in use against the limit",
            "At the limit, requests queue: as asked, if the service bears no more. All instances added up.",
            "short",
            vec![
                (total(&metrics::PERMITS_IN_USE, "scope, name"), "in use {{name}} ({{scope}})"),
                (total(&metrics::PERMITS_LIMIT, "scope, name"), "limit {{name}} ({{scope}})"),
            ],
        ),
    ]
}

fn queues() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Queued against the capacity",
            "Short queues that empty again take up bursts. One that is never empty only adds to every wait.",
            "short",
            vec![
                (total(&metrics::QUEUE_DEPTH, "scope, name"), "queued {{name}} ({{scope}})"),
                (total(&metrics::QUEUE_CAPACITY, "scope, name"), "capacity {{name}} ({{scope}})"),
            ],
        ),
        Panel::lines(
            "Wait in the queue",
            "Of all who asked for a permit; below a millisecond, it was free. Near the queue's timeout, others are being refused.",
            "s",
            vec![
                (quantile("0.5", &metrics::QUEUE_WAIT, "scope, name"), "p50 {{name}} ({{scope}})"),
                (quantile("0.99", &metrics::QUEUE_WAIT, "scope, name"), "p99 {{name}} ({{scope}})"),
            ],
        ),
        Panel::lines(
            "How waiting ended",
            "Admitted is well. Full and timeout are load that was shed: more instances, or slower clients. Abandoned is a client \
             that left, or a deadline that passed.",
            "reqps",
            vec![(rate(&metrics::QUEUE_RESULTS, "scope, name, result", ""), "{{result}} {{name}} ({{scope}})")],
        ),
    ]
}

fn rates() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Decisions of rate limits",
            "Rejected or delayed: a client asks for more than its rate. Shadow says what a limit would do.",
            "reqps",
            vec![(rate(&metrics::RATE_LIMIT_DECISIONS, "limiter, decision", ""), "{{decision}} {{limiter}}")],
        ),
        Panel::lines(
            "Keys of rate limits",
            "Clients that are told apart. At the table's bound, newcomers share one.",
            "short",
            vec![(total(&metrics::RATE_LIMIT_KEYS, "limiter"), "{{limiter}}")],
        ),
        Panel::lines(
            "Configured rates",
            "Rate and burst of each limit, for one key and one instance. At a steady rate below the limit, rejections mean \
             that the burst is too small.",
            "reqps",
            vec![
                (largest(&metrics::RATE_LIMIT_RATE, "limiter", ""), "rate {{limiter}}"),
                (largest(&metrics::RATE_LIMIT_BURST, "limiter", ""), "burst {{limiter}}"),
            ],
        ),
        Panel::lines(
            "Held back by rate limits",
            "Requests that wait in delay mode now. At max_delayed further ones are rejected.",
            "short",
            vec![(total(&metrics::RATE_LIMIT_WAITING, "limiter"), "{{limiter}}")],
        ),
    ]
}

fn clients() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Limits for each client",
            "Decisions of client_in_flight. Rejected: single clients have too many requests in flight.",
            "reqps",
            vec![(rate(&metrics::CLIENT_LIMIT_DECISIONS, "route, decision", ""), "{{decision}} {{route}}")],
        ),
        Panel::lines(
            "Keys of client limits",
            "Clients with requests in flight now. At max_keys, newcomers share one count.",
            "short",
            vec![(total(&metrics::CLIENT_LIMIT_KEYS, "route"), "{{route}}")],
        ),
        Panel::lines(
            "Full tables of keys",
            "Requests that shared an overflow count because the table was full. None; else raise max_keys, or someone makes up \
             keys.",
            "reqps",
            vec![
                (rate(&metrics::RATE_LIMIT_OVERFLOWS, "limiter", ""), "rate limit {{limiter}}"),
                (rate(&metrics::CLIENT_LIMIT_OVERFLOWS, "route", ""), "client limit {{route}}"),
            ],
        ),
    ]
}
