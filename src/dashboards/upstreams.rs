//! Which service is slow or broken, and how much of its timeouts is left.

use super::panel::{Look, Panel};
use super::query::{quantile, rate, selector, timeout, total};
use super::{Dashboard, SIDECAR, Variable};
use crate::telemetry::catalogue as metrics;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "upstreams",
        title: "Forebay / Upstreams and timeouts",
        description: "Which service behind Forebay is slow or broken, and how near it comes to its timeouts.",
        processes: SIDECAR,
        variables: &[Variable { label: "upstream", metric: &metrics::UPSTREAM_ATTEMPTS }],
        panels: [answers(), headroom(), connections()].into_iter().flatten().collect(),
    }
}

fn answers() -> Vec<Panel> {
    vec![
        Panel::stacked(
            "Attempts by reason",
            "How attempts at the upstream ended, ok among them. docs/reasons.md says what each means.",
            "reqps",
            (rate(&metrics::UPSTREAM_ATTEMPTS, "upstream, reason", "") + " > 0", "{{reason}} {{upstream}}"),
        ),
        Panel::lines(
            "Attempt by upstream",
            "From the attempt's begin to the last byte of the answer. Growing with a steady rate: the service is slower.",
            "s",
            vec![
                (quantile("0.5", &metrics::UPSTREAM_ATTEMPT_DURATION, "upstream"), "p50 {{upstream}}"),
                (quantile("0.99", &metrics::UPSTREAM_ATTEMPT_DURATION, "upstream"), "p99 {{upstream}}"),
            ],
        ),
    ]
}

fn headroom() -> Vec<Panel> {
    vec![
        Panel {
            look: Look::Bars { bounds: (1.2, 2.0) },
            ..Panel::lines(
                "Headroom: first-byte timeout over p99",
                "How many times the p99 fits into the timeout. 2 and more is comfortable; at 1, the timeout ends answers that \
                 were on their way.",
                "short",
                vec![(
                    format!(
                        "{} / ({})",
                        timeout("upstream", "first_byte"),
                        quantile("0.99", &metrics::UPSTREAM_FIRST_BYTE, "upstream")
                    ),
                    "{{upstream}}",
                )],
            )
        },
        Panel {
            look: Look::States { words: ["down", "up"], colours: ["red", "green"] },
            ..Panel::lines(
                "Endpoints",
                "Up while at least one instance of Forebay sends requests there. Down: look at the endpoint, and at the log \
                 for how its health check failed.",
                "short",
                vec![(
                    format!("max by (upstream, endpoint) ({})", selector(&metrics::UPSTREAM_ENDPOINT_UP, "")),
                    "{{upstream}} {{endpoint}}",
                )],
            )
        },
        Panel::lines(
            "First byte against its timeout",
            "When the p99 comes near the limit, some answers are about to be cut: mend the service, or give it more.",
            "s",
            vec![
                (quantile("0.99", &metrics::UPSTREAM_FIRST_BYTE, "upstream"), "p99 {{upstream}}"),
                (timeout("upstream", "first_byte"), "limit {{upstream}}"),
            ],
        ),
        Panel::lines(
            "Connecting against its timeout",
            "Milliseconds within a data centre. Near the limit, the service's backlog is full or packets are lost.",
            "s",
            vec![
                (quantile("0.99", &metrics::UPSTREAM_CONNECT_DURATION, "upstream"), "p99 {{upstream}}"),
                (timeout("upstream", "connect"), "limit {{upstream}}"),
            ],
        ),
    ]
}

fn connections() -> Vec<Panel> {
    vec![
        Panel::lines(
            "In flight by upstream",
            "Now, the most at once within the window, and the exact mean: what the service has to bear.",
            "short",
            vec![
                (total(&metrics::UPSTREAM_IN_FLIGHT, "upstream"), "now {{upstream}}"),
                (total(&metrics::UPSTREAM_IN_FLIGHT_PEAK, "upstream"), "peak {{upstream}}"),
                (rate(&metrics::UPSTREAM_IN_FLIGHT_SECONDS, "upstream", ""), "mean {{upstream}}"),
            ],
        ),
        Panel::lines(
            "Endpoints that are down",
            "By health checks and connecting. Every instance of Forebay judges for itself.",
            "short",
            vec![(
                format!(
                    "count by (upstream) ({0}) - sum by (upstream) ({0})",
                    selector(&metrics::UPSTREAM_ENDPOINT_UP, "")
                ),
                "{{upstream}}",
            )],
        ),
        Panel::lines(
            "Connections opened and used again",
            "Most requests find a kept connection. Opening as often as asking means that the service closes them: give \
             timeouts.idle less than it keeps them.",
            "reqps",
            vec![
                (rate(&metrics::UPSTREAM_CONNECTIONS_OPENED, "upstream", ""), "opened {{upstream}}"),
                (rate(&metrics::UPSTREAM_CONNECTIONS_REUSED, "upstream", ""), "used again {{upstream}}"),
                (rate(&metrics::UPSTREAM_CONNECTIONS_CLOSED, "upstream", ""), "closed {{upstream}}"),
            ],
        ),
        Panel::lines(
            "Idle connections",
            "Kept for reuse. Zero under load means that the pool is too small: raise max_idle_connections.",
            "short",
            vec![(total(&metrics::UPSTREAM_CONNECTIONS_IDLE, "upstream"), "{{upstream}}")],
        ),
        Panel::lines(
            "Health checks and name resolution",
            "Checks by result and failed resolutions. Failing resolutions keep the addresses known before: mend the resolver \
             before they change.",
            "short",
            vec![
                (rate(&metrics::UPSTREAM_HEALTH_CHECKS, "upstream, result", ""), "{{result}} {{upstream}}"),
                (rate(&metrics::UPSTREAM_DNS_FAILURES, "upstream", ""), "DNS failures {{upstream}}"),
            ],
        ),
        Panel::lines(
            "Second attempts at connecting",
            "None when all endpoints are well; each one is a request that another endpoint has saved.",
            "reqps",
            vec![(rate(&metrics::UPSTREAM_CONNECT_RETRIES, "upstream", ""), "{{upstream}}")],
        ),
    ]
}
