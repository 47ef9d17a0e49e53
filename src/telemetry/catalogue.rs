//! The one list of metrics: name, type, unit, labels, help, and what to make of the value.
//!
//! Registration, the exposition's HELP, TYPE and UNIT lines and `docs/metrics.md` all come from here; no
//! other file names a metric. Adding one is one entry in the table below.
//!
//! The `process_*` metrics keep the names that every Prometheus client library gives them.

use std::fmt::Write as _;

/// What a metric is, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The unit of a value; it is also the ending of the name (before `_total`), except for `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    None,
    Seconds,
    Bytes,
}

impl Unit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
        }
    }
}

/// One metric of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// What is normal and what to do when it is not, in one sentence, for the person on call.
    pub advice: &'static str,
}

macro_rules! metrics {
    ($(#[$doc:meta])* $table:ident; $( $constant:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal, $advice:literal; )*) => {
        $(
            pub const $constant: Metric = Metric {
                name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help, advice: $advice,
            };
        )*

        $(#[$doc])*
        pub const $table: &[Metric] = &[ $( $constant, )* ];
    };
}

metrics! {
    /// Every metric of the sidecar, in the order of the exposition and of `docs/metrics.md`.
    ALL;

    REQUESTS = "forebay_requests_total", Counter, None, ["route", "reason"],
        "Requests that ended, by the reason why.",
        "Mostly ok; docs/reasons.md says for each other reason what happened and what to change.";
    REQUESTS_BY_CODE = "forebay_requests_by_code_total", Counter, None, ["route", "code"],
        "Requests that ended, by the class of the status sent to the client (none: no answer was sent).",
        "Compare with forebay_requests_total: a 5xx with reason upstream_5xx is the upstream's own.";
    REQUESTS_BY_METHOD = "forebay_requests_by_method_total", Counter, None, ["route", "method"],
        "Requests that ended, by method; _OTHER is every method that HTTP does not define.",
        "The mix is steady for a steady client; a change explains a change of latency.";
    REQUEST_DURATION = "forebay_request_duration_seconds", Histogram, Seconds, ["route"],
        "From the first byte of the request's head to the last byte of the answer.",
        "Stays below the route's deadline; what is just above a timeout's value is what that timeout ended.";
    REQUEST_FIRST_BYTE = "forebay_request_first_byte_seconds", Histogram, Seconds, ["route"],
        "From the first byte of the request's head to the first byte of the answer sent to the client.",
        "Far below the duration means that bodies are slow, not the upstream's thinking.";
    REQUEST_OVERHEAD = "forebay_request_overhead_seconds", Histogram, Seconds, ["route"],
        "What Forebay itself added: the duration without queue, rate delay and upstream.",
        "Below a millisecond unless clients are slow to send or to read; otherwise look at the CPU and the runtime lag.";
    REQUEST_BYTES = "forebay_request_bytes_total", Counter, Bytes, ["route"],
        "Bytes of request bodies received from clients.",
        "Steady for a steady client.";
    RESPONSE_BYTES = "forebay_response_bytes_total", Counter, Bytes, ["route"],
        "Bytes of response bodies sent to clients.",
        "Steady for a steady client.";
    REQUESTS_IN_FLIGHT = "forebay_requests_in_flight", Gauge, None, ["route"],
        "Requests in flight now, those that wait in a queue included.",
        "Rate times mean duration; growing at a steady rate means that the upstream became slower.";
    REQUESTS_IN_FLIGHT_PEAK = "forebay_requests_in_flight_peak", Gauge, None, ["route"],
        "The most requests in flight at once within the configured window; a scrape does not reset it.",
        "Compare with the route's in-flight limit: at the limit, requests queue or are shed.";
    REQUESTS_IN_FLIGHT_SECONDS = "forebay_requests_in_flight_seconds_total", Counter, Seconds, ["route"],
        "Time integral of the requests in flight; its rate is the exact mean in flight.",
        "Its rate equals the rate of forebay_request_duration_seconds_sum over any drained stretch (Little's law).";
    TIMEOUTS = "forebay_timeouts_total", Counter, None, ["route", "phase", "limit"],
        "Requests ended by time, by the phase in which it ran out and by which limit (the phase's own timeout, or the deadline).",
        "None in a healthy system; limit=\"deadline\" with a long queue wait asks for fewer permits or a shorter queue.";

    OBJECTIVE_RATIO = "forebay_objective_ratio", Gauge, None, ["route", "objective"],
        "What the route promises: the share of its requests that is to be answered (availability), or answered in time (latency).",
        "As configured; alerts of error budgets compare with it.";
    OBJECTIVE_LATENCY = "forebay_objective_latency_seconds", Gauge, Seconds, ["route"],
        "The time within which the route promises to answer.",
        "As configured; draw it as a line over the route's duration.";
    OBJECTIVE_REQUESTS = "forebay_objective_requests_total", Counter, None, ["route", "objective"],
        "Requests that the objective is about: for availability those that were Forebay's to answer (not those that the client broke, left, or had no right to), for latency those answered well.",
        "Most requests; else clients send much that is refused.";
    OBJECTIVE_MISSES = "forebay_objective_misses_total", Counter, None, ["route", "objective"],
        "Requests that missed the objective: not answered, or later than promised. Counted at the promised time itself, not at a bucket.",
        "Its share of forebay_objective_requests_total stays below 1 minus the objective; the reasons say what is wrong.";

    UPSTREAM_ATTEMPTS = "forebay_upstream_attempts_total", Counter, None, ["upstream", "reason"],
        "Attempts to get an answer from the upstream, by the reason why they ended.",
        "Mostly ok; more attempts than requests means that connects fail and are tried elsewhere.";
    UPSTREAM_ATTEMPT_DURATION = "forebay_upstream_attempt_duration_seconds", Histogram, Seconds, ["upstream"],
        "From choosing an endpoint to the last byte of its answer, or to the failure.",
        "The upstream's own latency as seen from here; compare with the upstream's own metrics to find network or accept delays.";
    UPSTREAM_CONNECT_DURATION = "forebay_upstream_connect_duration_seconds", Histogram, Seconds, ["upstream"],
        "TCP connect and TLS handshake of new upstream connections.",
        "Below a millisecond in one network; about one second means a lost SYN, so a full accept backlog.";
    UPSTREAM_FIRST_BYTE = "forebay_upstream_first_byte_seconds", Histogram, Seconds, ["upstream"],
        "From the request being sent to the first byte of the upstream's answer.",
        "The upstream's thinking time; grows with its internal queue.";
    UPSTREAM_IN_FLIGHT = "forebay_upstream_in_flight", Gauge, None, ["upstream"],
        "Attempts in flight to the upstream now.",
        "At most the upstream's max_in_flight.";
    UPSTREAM_IN_FLIGHT_PEAK = "forebay_upstream_in_flight_peak", Gauge, None, ["upstream"],
        "The most attempts in flight at once within the configured window; a scrape does not reset it.",
        "Always at the limit: the limit decides the throughput; never near it: the limit protects nothing.";
    UPSTREAM_IN_FLIGHT_SECONDS = "forebay_upstream_in_flight_seconds_total", Counter, Seconds, ["upstream"],
        "Time integral of the attempts in flight; its rate is the exact mean in flight.",
        "Divided by the rate of attempts it is the mean attempt duration.";
    UPSTREAM_CONNECTIONS_OPENED = "forebay_upstream_connections_opened_total", Counter, None, ["upstream"],
        "Connections opened to the upstream.",
        "Far fewer than attempts; equal to them means that the upstream closes after each answer.";
    UPSTREAM_CONNECTIONS_REUSED = "forebay_upstream_connections_reused_total", Counter, None, ["upstream"],
        "Attempts that used a pooled connection.",
        "Nearly all attempts; else raise max_idle_connections or the upstream's keep-alive time.";
    UPSTREAM_CONNECTIONS_CLOSED = "forebay_upstream_connections_closed_total", Counter, None, ["upstream"],
        "Connections to the upstream that were closed by either side.",
        "Follows the connections opened.";
    UPSTREAM_CONNECTIONS_IDLE = "forebay_upstream_connections_idle", Gauge, None, ["upstream"],
        "Idle pooled connections now.",
        "At most max_idle_connections; zero under load means that the pool is too small.";
    UPSTREAM_CONNECT_RETRIES = "forebay_upstream_connect_retries_total", Counter, None, ["upstream"],
        "Further attempts made because no connection to an endpoint could be opened.",
        "None; some mean that an endpoint is down and health checks have not taken it out yet.";
    UPSTREAM_ENDPOINT_UP = "forebay_upstream_endpoint_up", Gauge, None, ["upstream", "endpoint"],
        "1 while the configured endpoint takes requests, 0 while it is taken out.",
        "All 1; all 0 for an upstream means that its requests end with no_endpoint.";
    UPSTREAM_HEALTH_CHECKS = "forebay_upstream_health_checks_total", Counter, None, ["upstream", "result"],
        "Active health checks, by result.",
        "Nearly all passed; the log names the endpoint that failed and how.";
    UPSTREAM_DNS_FAILURES = "forebay_upstream_dns_failures_total", Counter, None, ["upstream"],
        "Failed resolutions of the upstream's host names; the addresses known before stay in use.",
        "None; else check the resolver before the addresses change.";

    QUEUE_DEPTH = "forebay_queue_depth", Gauge, None, ["scope", "name"],
        "Requests that wait for an in-flight permit now.",
        "Zero most of the time; always above zero means overload, where the queue adds only delay.";
    QUEUE_CAPACITY = "forebay_queue_capacity", Gauge, None, ["scope", "name"],
        "How many requests may wait, as configured.",
        "Compare with the depth.";
    QUEUE_WAIT = "forebay_queue_wait_seconds", Histogram, Seconds, ["scope", "name"],
        "How long requests waited for an in-flight permit, with or without getting it; zero when it was free.",
        "Far below the upstream's latency; near the queue's timeout means that waiting is in vain.";
    QUEUE_RESULTS = "forebay_queue_results_total", Counter, None, ["scope", "name", "result"],
        "How asking for an in-flight permit ended: admitted, full, timeout, or abandoned (client gone or deadline).",
        "Mostly admitted; full means more load than capacity, timeout means a queue too long for its timeout.";
    PERMITS_IN_USE = "forebay_permits_in_use", Gauge, None, ["scope", "name"],
        "In-flight permits given out now.",
        "At the limit only for moments.";
    PERMITS_LIMIT = "forebay_permits_limit", Gauge, None, ["scope", "name"],
        "In-flight permits there are, as configured.",
        "Compare with the permits in use.";

    RATE_LIMIT_DECISIONS = "forebay_rate_limit_decisions_total", Counter, None, ["limiter", "decision"],
        "Decisions of the rate limit: admitted, delayed, rejected, or shadow_rejected (would have been rejected).",
        "Mostly admitted; rejected says that clients ask for more than the configured rate.";
    RATE_LIMIT_WAITING = "forebay_rate_limit_waiting", Gauge, None, ["limiter"],
        "Requests that wait for the rate limit in delay mode now.",
        "Zero most of the time; at max_delayed further requests are rejected.";
    RATE_LIMIT_KEYS = "forebay_rate_limit_keys", Gauge, None, ["limiter"],
        "Keys in the limiter's table now.",
        "Below max_keys; at it, new keys share one overflow bucket.";
    RATE_LIMIT_EVICTIONS = "forebay_rate_limit_evictions_total", Counter, None, ["limiter"],
        "Keys removed from the table because their bucket was full again.",
        "Any value is harmless: no key is freed early.";
    RATE_LIMIT_OVERFLOWS = "forebay_rate_limit_overflows_total", Counter, None, ["limiter"],
        "Requests that shared the overflow bucket because the table was full of keys still in use.",
        "None; else raise max_keys, or someone makes up keys.";
    RATE_LIMIT_RATE = "forebay_rate_limit_configured_per_second", Gauge, None, ["limiter"],
        "The configured rate, in requests per second.",
        "Draw it beside the decisions.";
    RATE_LIMIT_BURST = "forebay_rate_limit_configured_burst", Gauge, None, ["limiter"],
        "The configured burst, in requests.",
        "At a steady rate below the limit, rejections mean that the burst is too small.";

    CLIENT_LIMIT_DECISIONS = "forebay_client_limit_decisions_total", Counter, None, ["route", "decision"],
        "Decisions of the in-flight limit per client key: admitted or rejected.",
        "Mostly admitted; rejected says that single clients have too many requests in flight.";
    CLIENT_LIMIT_KEYS = "forebay_client_limit_keys", Gauge, None, ["route"],
        "Client keys with requests in flight now.",
        "Below max_keys; at it, new keys share one overflow count.";
    CLIENT_LIMIT_OVERFLOWS = "forebay_client_limit_overflows_total", Counter, None, ["route"],
        "Requests that shared the overflow count because the table was full of keys in use.",
        "None; else raise max_keys, or someone makes up keys.";

    AGGREGATE_ANSWERS = "forebay_aggregate_answers_total", Counter, None, ["route", "completeness"],
        "Aggregates that ended, by what their sources gave: complete, partial (some failed), or failed (no answer could be made).",
        "Mostly complete; forebay_source_outcomes_total says which source is missing.";
    AGGREGATE_SOURCE_SECONDS = "forebay_aggregate_source_seconds_total", Counter, Seconds, ["route"],
        "Durations of the sources of all aggregates, added up: what calling them one after the other would have taken.",
        "Its rate over that of forebay_aggregate_elapsed_seconds_total is the speed-up by concurrency; near 1, one source takes nearly all the time or each waits for another.";
    AGGREGATE_ELAPSED_SECONDS = "forebay_aggregate_elapsed_seconds_total", Counter, Seconds, ["route"],
        "Time from the beginning of each aggregate's work to its end, added up.",
        "See forebay_aggregate_source_seconds_total.";
    AGGREGATE_COALESCED = "forebay_aggregate_coalesced_total", Counter, None, ["route"],
        "Requests that shared the answer of an identical one that was in flight already.",
        "None without coalesce; with it, the part of the route's requests that cost the upstreams nothing.";
    SOURCE_OUTCOMES = "forebay_source_outcomes_total", Counter, None, ["route", "source", "outcome"],
        "Sources of aggregates that ended: ok, partial (some items of a list failed), fallback (something else took its place), failed, or not_needed (others were enough).",
        "Mostly ok; not_needed only with a strategy other than all, and for a source that stands in for another.";
    SOURCE_FAILURES = "forebay_source_failures_total", Counter, None, ["route", "source", "reason"],
        "Sources that failed, also where a fallback took their place, by the reason why.",
        "None; docs/reasons.md says for each reason what happened and what to change.";
    SOURCE_DURATION = "forebay_source_duration_seconds", Histogram, Seconds, ["route", "source"],
        "From a source's beginning to its end, all attempts and items included; without sources that were never called or were cancelled.",
        "Stays below the source's timeout; what is at the timeout was ended by it.";
    SOURCE_LAST = "forebay_source_last_total", Counter, None, ["route", "source"],
        "Aggregates in which this source ended last, so that the answer waited for it; counted where at least two sources were called.",
        "Shared between sources of one speed; the one with nearly all of it decides the latency, so make it (or what it waits for) faster first.";
    SOURCE_COALESCED = "forebay_source_coalesced_total", Counter, None, ["route", "source"],
        "Sources that shared the answer of another of the same aggregate, because both make the same call.",
        "Each one is a call saved; always the same source means that the configuration asks twice for one thing.";
    SOURCE_FAN_OUT = "forebay_source_fan_out", Histogram, None, ["route", "source"],
        "Distinct values of a source's list: the calls that one request planned.",
        "Compare with max_items; the source's duration grows with it beyond its concurrency.";
    SOURCE_ITEMS = "forebay_source_items_total", Counter, None, ["route", "source", "result"],
        "Items of a source's lists: ok, failed, or cut (beyond max_items, not called for).",
        "Mostly ok; cut says that clients or other answers name more than max_items.";

    JOBS_RUNNING = "forebay_jobs_running", Gauge, None, ["route"],
        "Requests that are worked on in the background now.",
        "Below the route's max_running; at it, further ones end with too_many_jobs.";
    JOBS = "forebay_jobs_total", Counter, None, ["route", "outcome"],
        "Background requests, by outcome: finished, failed (the kept result says why), cut (by a panic or the shutdown), or refused (max_running were at work).",
        "Mostly finished; refused asks for a larger max_running or fewer clients.";
    JOB_RESULTS = "forebay_job_results", Gauge, None, ["route"],
        "Results of background requests that are kept now.",
        "Below the route's max_results; near it, results leave before their time.";
    JOB_RESULT_BYTES = "forebay_job_result_bytes", Gauge, Bytes, ["route"],
        "Bytes of the results that are kept now.",
        "Below the route's max_bytes; near it, results leave before their time.";
    JOB_EVICTIONS = "forebay_job_evictions_total", Counter, None, ["route"],
        "Results removed before their time was over, to keep newer ones within max_results and max_bytes.",
        "None; else clients that come for a result in time are told that it is gone: raise the limits or shorten keep.";

    FAULTS_ARMED = "forebay_faults_armed", Gauge, None, ["route"],
        "Faults of the configuration that have not ended.",
        "0 outside of an experiment; else whatever the clients of this route see may be done on purpose.";
    FAULTS_ACTIVE = "forebay_faults_active", Gauge, None, ["route"],
        "Requests in flight that met a fault.",
        "At most the sum of the faults' max_active.";
    FAULTS_INJECTED = "forebay_faults_injected_total", Counter, None, ["route", "kind"],
        "Requests that met a fault, by what was done: delay, abort, reset, bandwidth; one that is delayed and then aborted counts twice.",
        "None outside of an experiment.";
    FAULTS_SKIPPED = "forebay_faults_skipped_total", Counter, None, ["route"],
        "Requests that were to meet a fault and did not, because max_active of them did.",
        "None; else fewer requests meet it than fraction says.";

    MIRROR_COPIES = "forebay_mirror_copies_total", Counter, None, ["route", "result"],
        "Copies of requests for the route's mirror: answered, failed (no whole answer came), or not sent because there was no_place (as many as allowed were in flight) or no_body (too large, or it broke off).",
        "Mostly answered; no_place says that the mirror is slower than the traffic it gets, which costs the clients nothing.";
    MIRROR_COMPARED = "forebay_mirror_compared_total", Counter, None, ["route", "result"],
        "Answers of the mirror compared with those that clients got: same, status or body (what differs first), or skipped (one of them was not whole, too large, or compressed).",
        "Mostly same; the log names parts that differ, and what always differs belongs in the mirror's compare.ignore.";
    MIRROR_IN_FLIGHT = "forebay_mirror_in_flight", Gauge, None, ["route"],
        "Copies in flight now.",
        "At most the mirror's max_in_flight.";

    LOAD_TEST_REQUESTS = "forebay_load_test_requests_total", Counter, None, ["route"],
        "Requests whose user-agent is that of `forebay load`, as they came.",
        "None in production; else the numbers of this route are partly those of a test.";
    RECORDING = "forebay_recording", Gauge, None, [],
        "1 while requests are recorded to a file.",
        "0 unless somebody wants it so; it ends by itself.";
    RECORDED = "forebay_recorded_requests_total", Counter, None, ["result"],
        "Requests chosen for the recording: written, dropped (too many waited for the writer, or the recording ended before the request), left_out (the body was too large, broke off, or could not be looked into for secrets), or failed (the file could not be written).",
        "Mostly written; left_out asks for a larger max_body or for opaque_bodies.";

    CONNECTIONS_OPEN = "forebay_connections_open", Gauge, None, ["listener"],
        "Client connections open now.",
        "Below the listener's max_connections; at it, connections are rejected.";
    CONNECTIONS_ACCEPTED = "forebay_connections_accepted_total", Counter, None, ["listener"],
        "Client connections accepted.",
        "Far fewer than requests; equal to them means that clients do not keep connections alive.";
    CONNECTIONS_REJECTED = "forebay_connections_rejected_total", Counter, None, ["listener"],
        "Client connections refused because max_connections were open.",
        "None; else raise the limit or find the client that leaks connections.";
    ACCEPT_ERRORS = "forebay_accept_errors_total", Counter, None, ["listener"],
        "Errors of accept().",
        "None; with process_open_fds near process_max_fds, raise the limit of open files.";
    TLS_HANDSHAKE_FAILURES = "forebay_tls_handshake_failures_total", Counter, None, ["listener"],
        "TLS handshakes with clients that failed or took too long.",
        "A few from scanners; many after a certificate change mean that clients do not trust it.";
    HEAD_ERRORS = "forebay_head_errors_total", Counter, None, ["listener"],
        "Connections closed because the request's head was malformed, too large or too slow.",
        "A few from scanners; the access log says which reason.";

    TIMEOUT = "forebay_timeout_seconds", Gauge, Seconds, ["scope", "name", "phase"],
        "The configured timeouts and deadlines.",
        "Draw them as lines over the latency of the same scope.";
    CONFIG_INFO = "forebay_config_info", Gauge, None, ["hash"],
        "1 for the hash of the running configuration.",
        "Equal over all instances that should run the same configuration.";
    CONFIG_LAST_RELOAD_SUCCESSFUL = "forebay_config_last_reload_successful", Gauge, None, [],
        "1 when the last reload was taken, 0 when its file was refused and the configuration before runs on.",
        "1; else the log and the admin page say what is wrong with the file.";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP = "forebay_config_last_reload_success_timestamp_seconds", Gauge, Seconds, [],
        "Unix time at which the running configuration was taken.",
        "After the last change of the file.";
    CONFIG_RELOADS = "forebay_config_reloads_total", Counter, None, ["result"],
        "Reloads, by result: success, failure, or unchanged.",
        "Any failure is a file that somebody must mend.";

    ACCESS_LOG_LINES = "forebay_access_log_lines_total", Counter, None, ["result"],
        "Access-log lines: written, sampled_out, dropped (the buffer was full), failed (the output refused them).",
        "No dropped and no failed; else the output is too slow, full or gone.";
    ACCESS_LOG_BUFFERED = "forebay_access_log_buffered_lines", Gauge, None, [],
        "Access-log lines that wait for the writer now.",
        "Far below access_log.buffer.";
    DETACHED_TASKS = "forebay_detached_tasks", Gauge, None, [],
        "Requests that are still worked on although their client has left (on_client_gone = \"finish\").",
        "Few; many mean that clients give up before the upstream answers.";
    DETACHED_TASKS_ENDED = "forebay_detached_tasks_ended_total", Counter, None, ["result"],
        "Detached requests that ended: finished, or cut (by deadline, failure or shutdown).",
        "Mostly finished.";
    PANICS = "forebay_panics_total", Counter, None, [],
        "Panics caught in the work for one request or connection.",
        "None; each one is a defect of Forebay, please report it with the log lines around it.";
    BUILD_INFO = "forebay_build_info", Gauge, None, ["version", "revision"],
        "1 for the version and source revision of the running binary.",
        "One version over the fleet, two during a roll-out.";

    RUNTIME_WORKERS = "forebay_runtime_workers", Gauge, None, ["runtime"],
        "Worker threads of the runtime.",
        "As configured.";
    RUNTIME_ALIVE_TASKS = "forebay_runtime_alive_tasks", Gauge, None, ["runtime"],
        "Tasks alive in the runtime now.",
        "About one for each open connection; growing without load is a leak.";
    RUNTIME_GLOBAL_QUEUE_DEPTH = "forebay_runtime_global_queue_depth", Gauge, None, ["runtime"],
        "Tasks that wait in the runtime's global queue now.",
        "Near zero; else the workers are saturated.";
    RUNTIME_BUSY_SECONDS = "forebay_runtime_busy_seconds_total", Counter, Seconds, ["runtime"],
        "Time that the worker threads were busy, summed over them.",
        "Its rate over the number of workers is their utilisation; above 0.8, add threads or instances.";
    RUNTIME_LAG = "forebay_runtime_lag_seconds", Histogram, Seconds, ["runtime"],
        "How late a timer of the event loop fired (the timer's own step is 1 ms).",
        "A few milliseconds; more means that something blocks the event loop or the CPU is throttled.";
    ALLOCATOR_BYTES = "forebay_allocator_bytes", Gauge, Bytes, ["state"],
        "Memory of the allocator: allocated by the program, active and resident pages, retained address space.",
        "Allocated follows connections and requests; resident far above active is memory not yet given back.";
    ALLOCATOR_PEAK = "forebay_allocator_allocated_peak_bytes", Gauge, Bytes, [],
        "The most allocated memory seen by the once-a-second sampler since the start.",
        "Below the container's limit with room to spare.";

    PROCESS_CPU = "process_cpu_seconds_total", Counter, Seconds, [],
        "User and system CPU time spent.",
        "Its rate is the number of CPUs in use.";
    PROCESS_OPEN_FDS = "process_open_fds", Gauge, None, [],
        "Open file descriptors.",
        "About one for each connection; below process_max_fds.";
    PROCESS_MAX_FDS = "process_max_fds", Gauge, None, [],
        "The limit of open file descriptors.",
        "Above the sum of all connection limits.";
    PROCESS_VIRTUAL_MEMORY = "process_virtual_memory_bytes", Gauge, Bytes, [],
        "Virtual memory.",
        "Large and harmless: address space, not memory.";
    PROCESS_RESIDENT_MEMORY = "process_resident_memory_bytes", Gauge, Bytes, [],
        "Resident memory.",
        "Below the container's limit.";
    PROCESS_START_TIME = "process_start_time_seconds", Gauge, Seconds, [],
        "Unix time of the start of the process.",
        "A change is a restart.";
    PROCESS_THREADS = "process_threads", Gauge, None, [],
        "Threads of the process.",
        "Steady after the start.";
}

metrics! {
    /// Every metric of a running load test (`forebay load --metrics ADDRESS`).
    LOAD;

    LOAD_SCHEDULED = "load_requests_scheduled_total", Counter, None, [],
        "Requests that were due.",
        "Its rate is the offered load.";
    LOAD_REQUESTS = "load_requests_total", Counter, None, ["fate"],
        "What became of the requests that were due: sent, shed (too many were in flight), or unsent; what is missing is about to leave.",
        "All sent; shed or unsent means that the target, or this generator, could not follow.";
    LOAD_OUTCOMES = "load_outcomes_total", Counter, None, ["outcome"],
        "How the requests that were sent have ended: ok, http_error, connection_error, timeout, or unfinished.",
        "All ok, unless the test is to find the limit.";
    LOAD_ERRORS = "load_errors_total", Counter, None, ["kind"],
        "Connection errors by kind.",
        "None; the kind says which side to look at.";
    LOAD_CONNECTIONS = "load_connections_total", Counter, None, [],
        "Connections made.",
        "Few for many requests; as many as requests means that the target closes after each answer.";
    LOAD_RECEIVED_BYTES = "load_received_bytes_total", Counter, Bytes, [],
        "Bytes of the bodies of answers.",
        "Follows the answers; less for each than usual means that they are errors.";
    LOAD_IN_FLIGHT = "load_in_flight", Gauge, None, [],
        "Requests sent that have not ended.",
        "Rate times response time; growing at a steady rate means that the target does not follow.";
    LOAD_PHASE = "load_phase", Gauge, None, ["phase"],
        "1 for the phase that the test is in: warm_up, measuring, draining, or interrupted.",
        "Only the measuring counts.";
    LOAD_ELAPSED = "load_elapsed_seconds", Gauge, Seconds, [],
        "Time since the start, the warm-up included.",
        "Up to the planned length, and the draining after it.";
    LOAD_PLANNED = "load_planned_seconds", Gauge, Seconds, [],
        "Planned length of the test, the warm-up included.",
        "As asked for.";
    LOAD_RESPONSE = "load_response_seconds", Gauge, Seconds, ["quantile"],
        "Time from when a request was due to its end, since the end of the warm-up.",
        "What users would see; above the service time, requests waited to be sent.";
    LOAD_SERVICE = "load_service_seconds", Gauge, Seconds, ["quantile"],
        "Time from when a request was sent to its end, since the end of the warm-up.",
        "A little above the duration that the sidecar measures of the same requests: the network and the client.";
    LOAD_LATENESS = "load_lateness_p99_seconds", Gauge, Seconds, [],
        "How late requests left, 99th percentile since the end of the warm-up.",
        "Far below the response time; else this generator, not the target, is what is measured.";
}

/// The entry with this full name, of either table.
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().chain(LOAD).find(|metric| metric.name == name)
}

/// `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Generated from `src/telemetry/catalogue.rs`; `FOREBAY_BLESS=1 cargo test --lib telemetry` writes this file anew.\n\n\
         Labels come from the configuration and from closed lists, never from a request: traffic cannot add series.\n\
         Every series exists at zero from the start, but for rare reasons of attempts and sources, which appear when they\n\
         happen. Requests that match no route count under `route=\"_unmatched\"`.\n\
         The values of `reason` are listed in [reasons.md](reasons.md).\n\n\
         `/metrics` speaks Prometheus text 0.0.4, OpenMetrics 1.0.0 (with exemplars) and Prometheus protobuf (with native\n\
         histograms of schema 3 beside the classic buckets), whichever the scraper asks for.\n\n\
         A quantile that Prometheus computes is within 2 % of the true one with native histograms, for durations that spread\n\
         over some buckets. With classic histograms it lies in the same bucket as the true one: between 1.5 s and 2 s, or\n\
         between 2.5 s and 5 s. `metrics.buckets` sets other bounds.\n",
    );
    table(&mut text, ALL);
    text.push_str(
        "\n## Of a load test\n\n\
         Shown by `forebay load --metrics ADDRESS` while the test runs. Counters are those of the measured part, so they stand\n\
         at 0 during the warm-up.\n",
    );
    table(&mut text, LOAD);
    text
}

fn table(text: &mut String, metrics: &[Metric]) {
    text.push_str("\n| Metric | Type | Labels | Meaning | What is normal, what to do |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(
            text,
            "| `{}` | {} | {labels} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            metric.help,
            metric.advice
        )
        .expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_support::compare_with_file;

    /// The names a metric takes up in a scrape.
    fn sample_names(metric: &Metric) -> Vec<String> {
        match metric.kind {
            Kind::Histogram => {
                ["", "_bucket", "_sum", "_count"].iter().map(|end| format!("{}{end}", metric.name)).collect()
            }
            Kind::Counter => {
                let family = metric.name.strip_suffix("_total").expect("counters end in _total");
                vec![family.to_owned(), metric.name.to_owned()]
            }
            Kind::Gauge => vec![metric.name.to_owned()],
        }
    }

    #[test]
    fn no_two_metrics_share_a_name_in_any_format() {
        let mut seen = std::collections::HashSet::new();
        for metric in ALL.iter().chain(LOAD) {
            for name in sample_names(metric) {
                assert!(seen.insert(name.clone()), "{name} twice");
            }
        }
    }

    #[test]
    fn names_follow_prometheus_practice() {
        for metric in ALL.iter().chain(LOAD) {
            let is_load = LOAD.contains(metric);
            assert_eq!(is_load, metric.name.starts_with("load_"), "{}", metric.name);
            let is_sidecar = metric.name.starts_with("forebay_") || metric.name.starts_with("process_");
            assert!(is_load || is_sidecar, "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            let base = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            assert!(base.ends_with(metric.unit.as_str()), "{} lacks its unit", metric.name);
            assert!(metric.help.ends_with('.') && metric.advice.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn the_documentation_lists_the_catalogue() {
        compare_with_file("docs/metrics.md", &markdown());
    }
}
