//! Which source makes aggregates incomplete or slow.

use super::panel::Panel;
use super::query::{largest, quantile, rate, share, total};
use super::{Dashboard, SIDECAR, Variable};
use crate::telemetry::catalogue as metrics;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "aggregation",
        title: "Forebay / Aggregation",
        description: "Which source makes answers incomplete, which makes them slow, and what concurrency saves.",
        processes: SIDECAR,
        variables: &[Variable { label: "route", metric: &metrics::AGGREGATE_ANSWERS }],
        panels: [numbers(), answers(), sources(), lists(), background()].into_iter().flatten().collect(),
    }
}

fn numbers() -> Vec<Panel> {
    let of = |completeness: &str| share(&metrics::AGGREGATE_ANSWERS, "", &format!("completeness=\"{completeness}\""));
    vec![
        Panel::stat(
            "Aggregates",
            "Aggregates that ended. Compare with the requests of their routes: identical ones may share an answer.",
            "reqps",
            None,
            rate(&metrics::AGGREGATE_ANSWERS, "", ""),
        ),
        Panel::stat(
            "Partial",
            "Answers without some of their sources. None when all is well; the outcomes below say which source is missing.",
            "percentunit",
            Some((0.01, 0.05)),
            of("partial"),
        ),
        Panel::stat(
            "Failed",
            "Aggregates for which no answer could be made. None when all is well.",
            "percentunit",
            Some((0.001, 0.01)),
            of("failed"),
        ),
        Panel::stat(
            "Speed-up",
            "What calling the sources one after the other would have taken, over what it took. Near the number of sources \
             is ideal; near 1, one source takes nearly all the time.",
            "short",
            None,
            speed_up(""),
        ),
        Panel::stat(
            "Shared answers",
            "Requests per second that shared the answer of an identical one in flight. None without `coalesce`.",
            "reqps",
            None,
            rate(&metrics::AGGREGATE_COALESCED, "", ""),
        ),
        Panel::stat(
            "Background work",
            "Requests that are worked on in the background. At the route's max_running, further ones are refused.",
            "short",
            None,
            total(&metrics::JOBS_RUNNING, ""),
        ),
    ]
}

fn speed_up(by: &str) -> String {
    let one_by_one = rate(&metrics::AGGREGATE_SOURCE_SECONDS, by, "");
    format!("{one_by_one} / ({} > 0)", rate(&metrics::AGGREGATE_ELAPSED_SECONDS, by, ""))
}

fn answers() -> Vec<Panel> {
    vec![
        Panel::stacked(
            "Completeness",
            "Complete, partial or failed. Mostly complete when all is well.",
            "reqps",
            (rate(&metrics::AGGREGATE_ANSWERS, "route, completeness", ""), "{{completeness}} {{route}}"),
        ),
        Panel::lines(
            "Speed-up by route",
            "The durations of all sources over that of the aggregate. Falling means that one source has become much slower \
             than the others.",
            "short",
            vec![(speed_up("route"), "{{route}}")],
        ),
    ]
}

fn sources() -> Vec<Panel> {
    let last = rate(&metrics::SOURCE_LAST, "route, source", "");
    let all = rate(&metrics::SOURCE_LAST, "route", "");
    let whole = quantile("0.99", &metrics::REQUEST_DURATION, "route");
    let aggregates = rate(&metrics::AGGREGATE_ANSWERS, "route", "");
    vec![
        Panel::lines(
            "The whole against its sources, p99",
            "The aggregate is as slow as its slowest way. A source that lies flat at its timeout is what that timeout ended.",
            "s",
            vec![
                // Other routes have durations as well, and "All" lets them in.
                (format!("({whole}) and on (route) {aggregates}"), "whole {{route}}"),
                (quantile("0.99", &metrics::SOURCE_DURATION, "route, source"), "{{route}} {{source}}"),
                (largest(&metrics::TIMEOUT, "name", r#"scope="source",phase="source""#), "limit {{name}}"),
            ],
        ),
        Panel::stacked(
            "Critical path: which source was last",
            "The share of aggregates that waited for this source. The one with nearly all of it decides the latency: make it, \
             or what it waits for, faster first.",
            "percentunit",
            (format!("{last} / on (route) group_left () ({all} > 0)"), "{{route}} {{source}}"),
        ),
        Panel::stacked(
            "Outcomes of sources",
            "Ok, partial, fallback, failed or not needed. Not needed is normal with a strategy other than `all` and for a \
             source that stands in for another.",
            "reqps",
            (
                rate(&metrics::SOURCE_OUTCOMES, "route, source, outcome", "") + " > 0",
                "{{outcome}} {{route}} {{source}}",
            ),
        ),
        Panel::lines(
            "Failures of sources by reason",
            "Also where a fallback took their place. docs/reasons.md says for each reason what happened and what to change.",
            "reqps",
            vec![(rate(&metrics::SOURCE_FAILURES, "route, source, reason", ""), "{{reason}} {{route}} {{source}}")],
        ),
    ]
}

fn lists() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Fan-out over lists, p99",
            "Calls that one request planned for a source with a list. Its duration grows with it beyond its concurrency.",
            "short",
            vec![(quantile("0.99", &metrics::SOURCE_FAN_OUT, "route, source"), "{{route}} {{source}}")],
        ),
        Panel::lines(
            "Items of lists and calls saved",
            "Cut means that someone names more than max_items. Saved are calls that two sources share: always the same one \
             means that the configuration asks twice for one thing.",
            "reqps",
            vec![
                (rate(&metrics::SOURCE_ITEMS, "route, source, result", ""), "{{result}} {{route}} {{source}}"),
                (rate(&metrics::SOURCE_COALESCED, "route, source", ""), "saved {{route}} {{source}}"),
            ],
        ),
    ]
}

fn background() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Background requests",
            "Running now, and how they ended. Refused asks for a larger max_running or fewer clients.",
            "short",
            vec![
                (total(&metrics::JOBS_RUNNING, "route"), "running {{route}}"),
                (rate(&metrics::JOBS, "route, outcome", ""), "{{outcome}} per second {{route}}"),
            ],
        ),
        Panel::lines(
            "Results kept",
            "Results that clients can fetch, and those removed before their time. Any removed means that clients are told that \
             a result is gone: raise max_results or max_bytes, or shorten keep.",
            "short",
            vec![
                (total(&metrics::JOB_RESULTS, "route"), "kept {{route}}"),
                (rate(&metrics::JOB_EVICTIONS, "route", ""), "removed per second {{route}}"),
            ],
        ),
        Panel::lines(
            "Bytes of results kept",
            "Below the route's max_bytes; near it, results leave before their time.",
            "bytes",
            vec![(total(&metrics::JOB_RESULT_BYTES, "route"), "{{route}}")],
        ),
    ]
}
