//! What eats error budgets, or is about to: limits reached, timeouts too near, upstreams down, configurations refused.
//! Each is about something that somebody can change.

use super::Severity::{Critical, Warning};
use super::{Alert, Recording};
use crate::promql::Query;
use crate::telemetry::catalogue::{self as metrics, Metric};

const NOW: Query = Query::over("5m");
const QUARTER: Query = Query::over("15m");

/// p99 over five minutes, by the labels of the histogram.
fn p99(metric: &Metric) -> String {
    format!("{}:{}:p99_5m", metric.labels.join("_"), metric.name)
}

/// A configured timeout under the label of what it is for.
fn timeout(scope: &str, phase: &str) -> String {
    let limit = NOW.selector(&metrics::TIMEOUT, &format!("scope=\"{scope}\",phase=\"{phase}\""));
    format!("max by (job, {scope}) (label_join({limit}, \"{scope}\", \"\", \"name\"))")
}

pub(super) fn recordings() -> Vec<Recording> {
    let quantile = |metric: &Metric| {
        let by = format!("job, {}", metric.labels.join(", "));
        Recording { name: p99(metric), expression: NOW.quantile("0.99", metric, &by, "") }
    };
    let counted = |metric: &Metric, what: &str| Recording {
        name: format!("route:{}:{what}", metric.name.trim_end_matches("_total")),
        expression: NOW.rate(metric, "job, route", ""),
    };
    vec![
        counted(&metrics::REQUESTS, "rate5m"),
        counted(&metrics::REQUESTS_IN_FLIGHT_SECONDS, "mean5m"),
        quantile(&metrics::REQUEST_DURATION),
        quantile(&metrics::UPSTREAM_FIRST_BYTE),
        quantile(&metrics::QUEUE_WAIT),
    ]
}

pub(super) fn alerts() -> Vec<Alert> {
    [configuration(), upstreams(), limits(), answers(), process()].into_iter().flatten().collect()
}

fn configuration() -> Vec<Alert> {
    let refused = format!("sum by (job) (1 - {})", NOW.selector(&metrics::CONFIG_LAST_RELOAD_SUCCESSFUL, ""));
    let hashes = format!("count by (job) (count by (job, hash) ({}))", NOW.selector(&metrics::CONFIG_INFO, ""));
    vec![
        Alert::new(
            "ForebayReloadFailed",
            Warning,
            "5m",
            refused,
            "> 0",
            [
                "{{ $value }} instances of {{ $labels.job }} refused their configuration file",
                "They run on with the configuration before, and will not start again with this file. Run `forebay check` on it.",
            ],
        ),
        Alert::new(
            "ForebayConfigDrift",
            Warning,
            "30m",
            hashes,
            "> 1",
            [
                "Instances of {{ $labels.job }} run {{ $value }} different configurations",
                "For longer than a roll-out takes. The overview shows how many instances run which; the odd ones did not get the \
                 file, or refused it.",
            ],
        ),
        faults(),
    ]
}

fn faults() -> Alert {
    Alert::new(
        "ForebayFaultsArmed",
        Warning,
        "30m",
        NOW.total(&metrics::FAULTS_ARMED, "job, route", ""),
        "> 0",
        [
            "Faults are done on purpose to route {{ $labels.route }} of {{ $labels.job }}",
            "For half an hour. If no experiment is running, somebody has forgotten to take them out.",
        ],
    )
}

fn upstreams() -> Vec<Alert> {
    let endpoint_up = NOW.selector(&metrics::UPSTREAM_ENDPOINT_UP, "");
    let retries = QUARTER.rate(&metrics::UPSTREAM_CONNECT_RETRIES, "job, upstream", "");
    let attempts = QUARTER.rate(&metrics::UPSTREAM_ATTEMPTS, "job, upstream", "");
    vec![
        Alert::new(
            "ForebayUpstreamDown",
            Critical,
            "1m",
            format!("max by (job, upstream) ({endpoint_up})"),
            "== 0",
            [
                "Upstream {{ $labels.upstream }} of {{ $labels.job }} has no endpoint that takes requests",
                "No instance of Forebay can use any of its endpoints: requests to it end with no_endpoint.",
            ],
        ),
        Alert::new(
            "ForebayEndpointDown",
            Warning,
            "10m",
            format!("avg by (job, upstream, endpoint) ({endpoint_up})"),
            "< 0.5",
            [
                "Endpoint {{ $labels.endpoint }} of upstream {{ $labels.upstream }} is down for most of {{ $labels.job }}",
                "The other endpoints carry its load. The log of Forebay says how its health check or its connections fail.",
            ],
        ),
        Alert::new(
            "ForebayTimeoutHeadroomGone",
            Warning,
            "10m",
            format!("{} / {}", p99(&metrics::UPSTREAM_FIRST_BYTE), timeout("upstream", "first_byte")),
            "> 0.8",
            [
                "Upstream {{ $labels.upstream }} of {{ $labels.job }} comes near its first-byte timeout",
                "Its p99 is {{ $value | humanizePercentage }} of the timeout: a little slower, and requests end with \
                 first_byte_timeout.",
            ],
        ),
        Alert::new(
            "ForebayConnectFailures",
            Warning,
            "10m",
            format!("{retries} / ({attempts} > 0)"),
            "> 0.2",
            [
                "Connections to upstream {{ $labels.upstream }} of {{ $labels.job }} fail",
                "{{ $value | humanizePercentage }} of the attempts were made because another one could not connect.",
            ],
        ),
        Alert::new(
            "ForebayDnsFailures",
            Warning,
            "15m",
            QUARTER.increase(&metrics::UPSTREAM_DNS_FAILURES, "job, upstream", ""),
            "> 0",
            [
                "The names of upstream {{ $labels.upstream }} of {{ $labels.job }} cannot be resolved",
                "The addresses known before stay in use, until they are wrong.",
            ],
        ),
    ]
}

fn limits() -> Vec<Alert> {
    let share = |part: &str| NOW.share(&metrics::QUEUE_RESULTS, "job, scope, name", part);
    let in_use = NOW.selector(&metrics::PERMITS_IN_USE, "");
    let limit = NOW.selector(&metrics::PERMITS_LIMIT, "");
    let queue_timeout = NOW.selector(&metrics::TIMEOUT, r#"phase="queue""#);
    let full_tables = format!(
        "{} or {}",
        QUARTER.increase(&metrics::RATE_LIMIT_OVERFLOWS, "job, limiter", ""),
        QUARTER.increase(&metrics::CLIENT_LIMIT_OVERFLOWS, "job, route", "")
    );
    vec![
        Alert::new(
            "ForebayShedding",
            Warning,
            "10m",
            share(r#"result=~"full|timeout""#),
            "> 0.01",
            [
                "The limit of {{ $labels.scope }} {{ $labels.name }} of {{ $labels.job }} sheds load",
                "{{ $value | humanizePercentage }} of the requests found the queue full, or waited in it in vain.",
            ],
        ),
        Alert::new(
            "ForebayInFlightAtLimit",
            Warning,
            "10m",
            format!("max by (job, scope, name) ({in_use} / {limit})"),
            ">= 1",
            [
                "All permits of {{ $labels.scope }} {{ $labels.name }} of {{ $labels.job }} are in use",
                "For ten minutes, on at least one instance: every request waits for another to end.",
            ],
        ),
        Alert::new(
            "ForebayQueueWait",
            Warning,
            "10m",
            format!("{} / max by (job, scope, name) ({queue_timeout} > 0)", p99(&metrics::QUEUE_WAIT)),
            "> 0.5",
            [
                "Requests wait long for {{ $labels.scope }} {{ $labels.name }} of {{ $labels.job }}",
                "The p99 of the wait is {{ $value | humanizePercentage }} of the queue's timeout; beyond it, they are shed.",
            ],
        ),
        Alert::new(
            "ForebayRateLimiting",
            Warning,
            "30m",
            NOW.share(&metrics::RATE_LIMIT_DECISIONS, "job, limiter", r#"decision="rejected""#),
            "> 0.1",
            [
                "The rate limit {{ $labels.limiter }} of {{ $labels.job }} rejects {{ $value | humanizePercentage }}",
                "For half an hour: either a client has gone wild, or the limit is too low for what is normal.",
            ],
        ),
        Alert::new(
            "ForebayKeyTableFull",
            Warning,
            "5m",
            full_tables,
            "> 0",
            [
                "A table of client keys of {{ $labels.job }} is full ({{ $labels.limiter }}{{ $labels.route }})",
                "Newcomers share one bucket, so they limit each other. Raise max_keys, or find who makes up keys.",
            ],
        ),
        Alert::new(
            "ForebayConnectionsRejected",
            Warning,
            "5m",
            NOW.rate(&metrics::CONNECTIONS_REJECTED, "job, listener", ""),
            "> 0",
            [
                "Listener {{ $labels.listener }} of {{ $labels.job }} refuses connections",
                "max_connections are open. Raise the limit, or find the client that leaks connections.",
            ],
        ),
    ]
}

fn answers() -> Vec<Alert> {
    let timeouts = NOW.rate(&metrics::TIMEOUTS, "job, route", "");
    let requests = NOW.rate(&metrics::REQUESTS, "job, route", "");
    let detached = NOW.rate(&metrics::DETACHED_TASKS_ENDED, "job", "");
    let all = NOW.rate(&metrics::REQUESTS, "job", "");
    vec![
        Alert::new(
            "ForebayTimeouts",
            Warning,
            "10m",
            format!("{timeouts} / ({requests} > 0)"),
            "> 0.01",
            [
                "Time ran out for requests of route {{ $labels.route }} of {{ $labels.job }}",
                "For {{ $value | humanizePercentage }} of them. The overview shows in which phase and by which limit.",
            ],
        ),
        Alert::new(
            "ForebayPartialAnswers",
            Warning,
            "15m",
            NOW.share(&metrics::AGGREGATE_ANSWERS, "job, route", r#"completeness!="complete""#),
            "> 0.05",
            [
                "Aggregates of route {{ $labels.route }} of {{ $labels.job }} lack sources",
                "{{ $value | humanizePercentage }} are partial or failed. The aggregation dashboard shows which source is missing \
                 and why.",
            ],
        ),
        Alert::new(
            "ForebayDetachedWork",
            Warning,
            "15m",
            format!("{detached} / ({all} > 0)"),
            "> 0.1",
            [
                "{{ $labels.job }} works for clients that have left",
                "{{ $value | humanizePercentage }} of the requests were worked on after their client had gone: clients give up \
                 before upstreams answer.",
            ],
        ),
        Alert::new(
            "ForebayJobsRefused",
            Warning,
            "10m",
            NOW.share(&metrics::JOBS, "job, route", r#"outcome="refused""#),
            "> 0.01",
            [
                "Route {{ $labels.route }} of {{ $labels.job }} refuses background work",
                "{{ $value | humanizePercentage }} of it: max_running requests are being worked on already.",
            ],
        ),
        Alert::new(
            "ForebayResultsEvicted",
            Warning,
            "5m",
            QUARTER.increase(&metrics::JOB_EVICTIONS, "job, route", ""),
            "> 0",
            [
                "Results of route {{ $labels.route }} of {{ $labels.job }} leave before their time",
                "Clients that come in time are told that their result is gone. Raise max_results or max_bytes, or shorten keep.",
            ],
        ),
    ]
}

fn process() -> Vec<Alert> {
    let seen = format!("last_over_time({}[1h])", NOW.selector(&metrics::BUILD_INFO, ""));
    let files = format!("{} / {}", NOW.gauge(&metrics::PROCESS_OPEN_FDS, ""), NOW.gauge(&metrics::PROCESS_MAX_FDS, ""));
    let busy = NOW.rate(&metrics::RUNTIME_BUSY_SECONDS, "job, instance", "");
    let workers = NOW.total(&metrics::RUNTIME_WORKERS, "job, instance", "");
    vec![
        Alert::new(
            "ForebayDown",
            Critical,
            "2m",
            format!("max by (job, instance) (up and on (job, instance) {seen})"),
            "== 0",
            [
                "{{ $labels.instance }} of {{ $labels.job }} cannot be scraped",
                "It answered within the last hour and does not now: the process is gone, stuck or cut off.",
            ],
        ),
        Alert::new(
            "ForebayRestarts",
            Warning,
            "1m",
            format!("sum by (job, instance) ({})", Query::over("30m").changes(&metrics::PROCESS_START_TIME)),
            "> 2",
            [
                "{{ $labels.instance }} of {{ $labels.job }} restarted {{ $value }} times within half an hour",
                "Its log before each start says why it ended; without a word, it was killed, mostly for memory.",
            ],
        ),
        Alert::new(
            "ForebayPanics",
            Warning,
            "1m",
            QUARTER.increase(&metrics::PANICS, "job", ""),
            "> 0",
            [
                "{{ $labels.job }} panicked",
                "Each panic ended one request or connection, and is a defect of Forebay. Please report it with the log lines \
                 around it.",
            ],
        ),
        Alert::new(
            "ForebayFileDescriptors",
            Warning,
            "10m",
            format!("max by (job, instance) ({files})"),
            "> 0.8",
            [
                "{{ $labels.instance }} of {{ $labels.job }} runs out of file descriptors",
                "{{ $value | humanizePercentage }} of its limit are open. Beyond it, no connection can be made or accepted.",
            ],
        ),
        Alert::new(
            "ForebayRuntimeLag",
            Warning,
            "10m",
            NOW.quantile("0.99", &metrics::RUNTIME_LAG, "job, instance", ""),
            "> 0.05",
            [
                "The event loop of {{ $labels.instance }} of {{ $labels.job }} is late",
                "By {{ $value | humanizeDuration }} at p99, which every request pays several times: CPU is missing or throttled.",
            ],
        ),
        Alert::new(
            "ForebayWorkersBusy",
            Warning,
            "15m",
            format!("{busy} / {workers}"),
            "> 0.8",
            [
                "The worker threads of {{ $labels.instance }} of {{ $labels.job }} are nearly always busy",
                "{{ $value | humanizePercentage }} of their time: add threads or instances.",
            ],
        ),
        Alert::new(
            "ForebayAccessLogLoss",
            Warning,
            "5m",
            NOW.rate(&metrics::ACCESS_LOG_LINES, "job", r#"result=~"dropped|failed""#),
            "> 0",
            [
                "{{ $labels.job }} loses access-log lines",
                "{{ $value | humanize }} per second: the output is too slow, full or gone. Requests are not held up by it.",
            ],
        ),
    ]
}
