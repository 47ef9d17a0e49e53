//! Whether Forebay itself has what it needs: CPU, memory, files, threads, and room for its log.

use super::panel::{Look, Panel};
use super::query::{largest, quantile, rate, selector, total};
use super::{Dashboard, SIDECAR};
use crate::telemetry::catalogue as metrics;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "process",
        title: "Forebay / Process and runtime",
        description: "Does Forebay itself have what it needs: CPU, memory, file descriptors, connections, and room for its log?",
        processes: SIDECAR,
        variables: &[],
        panels: [numbers(), machine(), runtime(), connections(), housekeeping()].into_iter().flatten().collect(),
    }
}

fn numbers() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Instances",
            "Processes that are scraped. Fewer than were deployed means that some are down or not found.",
            "short",
            None,
            format!("count({})", selector(&metrics::BUILD_INFO, "")),
        ),
        Panel::stat(
            "Youngest process",
            "Time since the last restart of any instance. Short without a roll-out means that processes are being ended.",
            "s",
            None,
            format!("time() - max({})", selector(&metrics::PROCESS_START_TIME, "")),
        ),
        Panel::stat(
            "Oldest configuration",
            "Time since the configuration was taken, of the instance that has held it the longest.",
            "s",
            None,
            format!("time() - min({})", selector(&metrics::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP, "")),
        ),
        Panel::stat(
            "Open files of the limit",
            "Of the instance nearest to its limit. Above 80 %, raise the limit or lower the connection limits.",
            "percentunit",
            Some((0.6, 0.8)),
            format!("max({} / {})", selector(&metrics::PROCESS_OPEN_FDS, ""), selector(&metrics::PROCESS_MAX_FDS, "")),
        ),
        Panel::stat(
            "Runtime lag p99",
            "How late the event loop is. Above some milliseconds, CPUs are missing or something blocks it.",
            "s",
            Some((0.01, 0.05)),
            quantile("0.99", &metrics::RUNTIME_LAG, ""),
        ),
        Panel::stat(
            "Panics",
            "Caught panics per second. Always 0; otherwise look for them in the log and report them.",
            "short",
            Some((1e-9, 1e-9)),
            rate(&metrics::PANICS, "", ""),
        ),
    ]
}

fn machine() -> Vec<Panel> {
    let most = |expression: String| format!("topk(10, {expression})");
    vec![
        Panel::lines(
            "CPUs in use",
            "By instance, the ten busiest. Near the container's limit, every latency grows.",
            "short",
            vec![(most(rate(&metrics::PROCESS_CPU, "instance", "")), "{{instance}}")],
        ),
        Panel::lines(
            "Resident memory",
            "By instance, the ten largest. Follows connections and requests in flight, and falls with them.",
            "bytes",
            vec![(most(total(&metrics::PROCESS_RESIDENT_MEMORY, "instance")), "{{instance}}")],
        ),
        Panel::lines(
            "Memory of the allocator",
            "Allocated follows connections and requests. Resident far above active is memory not yet given back. The peak is \
             the largest of one instance since its start.",
            "bytes",
            vec![
                (total(&metrics::ALLOCATOR_BYTES, "state"), "{{state}}"),
                (largest(&metrics::ALLOCATOR_PEAK, "", ""), "peak of one instance"),
            ],
        ),
        Panel::lines(
            "File descriptors",
            "Open now, and the limit of the instance that has least. About one for each connection.",
            "short",
            vec![
                (most(total(&metrics::PROCESS_OPEN_FDS, "instance")), "{{instance}}"),
                (format!("min({})", selector(&metrics::PROCESS_MAX_FDS, "")), "least limit"),
            ],
        ),
    ]
}

fn runtime() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Workers busy",
            "The share of the worker threads' time. Above 0.8, add threads or instances.",
            "percentunit",
            vec![(
                format!(
                    "{} / {}",
                    rate(&metrics::RUNTIME_BUSY_SECONDS, "runtime", ""),
                    total(&metrics::RUNTIME_WORKERS, "runtime")
                ),
                "{{runtime}}",
            )],
        ),
        Panel::lines(
            "Runtime lag",
            "How late the event loop is; its own step is 1 ms. More than a few means that something blocks it, or that the CPU \
             is throttled.",
            "s",
            vec![
                (quantile("0.5", &metrics::RUNTIME_LAG, "runtime"), "p50 {{runtime}}"),
                (quantile("0.99", &metrics::RUNTIME_LAG, "runtime"), "p99 {{runtime}}"),
            ],
        ),
        Panel::lines(
            "Tasks",
            "Alive: about one for each open connection; growing without load is a leak. Waiting in the global queue: near zero, \
             else the workers are saturated.",
            "short",
            vec![
                (total(&metrics::RUNTIME_ALIVE_TASKS, "runtime"), "alive {{runtime}}"),
                (total(&metrics::RUNTIME_GLOBAL_QUEUE_DEPTH, "runtime"), "waiting {{runtime}}"),
            ],
        ),
        Panel::lines(
            "Threads",
            "Of the instance with most. Steady after the start.",
            "short",
            vec![(largest(&metrics::PROCESS_THREADS, "", ""), "threads")],
        ),
    ]
}

fn connections() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Client connections",
            "Open now and accepted per second. As many accepted as requests means that clients do not keep connections alive.",
            "short",
            vec![
                (total(&metrics::CONNECTIONS_OPEN, "listener"), "open {{listener}}"),
                (rate(&metrics::CONNECTIONS_ACCEPTED, "listener", ""), "accepted per second {{listener}}"),
            ],
        ),
        Panel::lines(
            "Connections refused and broken",
            "Rejected at max_connections, errors of accept(), failed TLS handshakes, heads that were no HTTP. A few from \
             scanners are normal; rejected and accept errors are not.",
            "short",
            vec![
                (rate(&metrics::CONNECTIONS_REJECTED, "listener", ""), "rejected {{listener}}"),
                (rate(&metrics::ACCEPT_ERRORS, "listener", ""), "accept errors {{listener}}"),
                (rate(&metrics::TLS_HANDSHAKE_FAILURES, "listener", ""), "TLS {{listener}}"),
                (rate(&metrics::HEAD_ERRORS, "listener", ""), "heads {{listener}}"),
            ],
        ),
    ]
}

fn housekeeping() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Access-log lines",
            "Written and left out on purpose (sampled_out). Dropped or failed: the output is too slow, full or gone.",
            "short",
            vec![
                (rate(&metrics::ACCESS_LOG_LINES, "result", ""), "{{result}} per second"),
                (total(&metrics::ACCESS_LOG_BUFFERED, ""), "waiting"),
            ],
        ),
        Panel::lines(
            "Recording",
            "Processes that record requests to a file, and what became of those chosen. Left out asks for a larger max_body or \
             for opaque_bodies; failed is a full disk.",
            "short",
            vec![
                (total(&metrics::RECORDING, ""), "recording"),
                (rate(&metrics::RECORDED, "result", ""), "{{result}} per second"),
            ],
        ),
        Panel::lines(
            "Reloads",
            "By result. Any failure is a file that somebody must mend; unchanged is a signal without a change.",
            "short",
            vec![(rate(&metrics::CONFIG_RELOADS, "result", ""), "{{result}} per second")],
        ),
        Panel {
            look: Look::States { words: ["refused", "taken"], colours: ["red", "green"] },
            ..Panel::lines(
                "Last reload",
                "Taken, or refused by at least one instance, where the configuration before runs on. Run `forebay check` on the \
                 file.",
                "short",
                vec![(format!("min({})", selector(&metrics::CONFIG_LAST_RELOAD_SUCCESSFUL, "")), "last reload")],
            )
        },
    ]
}
