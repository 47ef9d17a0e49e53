//! The published schema of the JSON report: what each field means, as JSON Schema 2020-12.
//!
//! It is written down here, and a test holds it against what is really written, in both directions. It allows further
//! fields: under one name of the schema fields are only added, and a reader ignores those that it does not know.

use serde_json::{Map, Value, json};

use super::super::ErrorKind;
use super::super::result::SCHEMA;

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    /// A whole number from 0.
    Count,
    /// A number from 0.
    Number,
    Flag,
    Text,
    Words(&'static [&'static str]),
    /// The definition of this name, and a list of those.
    Of(&'static str),
    List(&'static str),
    Texts,
    /// How often each status, and each kind of error, occurred.
    Statuses,
    Errors,
}

/// Name, kind, whether it is always there, meaning.
type Field = (&'static str, Kind, bool, &'static str);

struct Object {
    name: &'static str,
    doc: &'static str,
    /// Its own fields, and those of [`COUNTS`] among them.
    fields: &'static [Field],
    has_counts: bool,
}

const COUNTS: &[Field] = &[
    ("scheduled", Kind::Count, true, "Requests that were due: sent + shed + unsent."),
    ("sent", Kind::Count, true, "Requests that were sent: ok + http_error + connection_error + timeout + unfinished."),
    ("shed", Kind::Count, true, "Due but not sent although the run went on: the cap or the deadline was reached."),
    ("shed_deadline", Kind::Count, true, "Those of shed whose deadline had passed."),
    ("unsent", Kind::Count, true, "Due but not sent because the run was over."),
    ("ok", Kind::Count, true, "Answered as expected."),
    ("http_error", Kind::Count, true, "Answered with an unexpected status, or an answer that failed a check."),
    ("connection_error", Kind::Count, true, "No complete answer."),
    ("timeout", Kind::Count, true, "No complete answer within the time limit."),
    ("unfinished", Kind::Count, true, "Still in flight when the run was over."),
    ("connections", Kind::Count, true, "Connections that were made for requests."),
    ("bytes", Kind::Count, true, "Bytes of the bodies of answers."),
];

const OBJECTS: &[Object] = &[
    Object {
        name: "plan",
        doc: "What was to be done.",
        has_counts: false,
        fields: &[
            ("model", Kind::Text, true, "open, closed or sessions."),
            ("arrivals", Kind::Text, true, "When requests are due, in words."),
            ("seed", Kind::Count, true, "Of everything that is drawn."),
            ("duration_s", Kind::Number, true, "As planned, the warm-up included."),
            ("warm_up_s", Kind::Count, true, "Seconds at the start that are not in the totals."),
            ("ran_s", Kind::Number, true, "From the start to the last arrival; shorter if the run was interrupted."),
            (
                "took_s",
                Kind::Number,
                false,
                "From the start to the end of the last answer, or to when it was given up.",
            ),
            ("workers", Kind::Count, true, "Threads that send."),
            ("in_flight_cap", Kind::Count, true, "Requests beyond these in flight are shed."),
            ("timeout_s", Kind::Number, true, "Time limit of a request, from its sending."),
            ("deadline_s", Kind::Number, false, "A request that is later than this after it was due is shed."),
        ],
    },
    Object {
        name: "environment",
        doc: "Where it ran. What could not be found out is empty.",
        has_counts: false,
        fields: &[
            ("host", Kind::Text, true, "Name of the host."),
            ("kernel", Kind::Text, true, "Kernel and its version."),
            ("cpu", Kind::Text, true, "Model of the CPU."),
            ("cpus", Kind::Count, true, "CPUs that the process may use."),
            ("load_average", Kind::Number, true, "Of one minute, before the run."),
        ],
    },
    Object {
        name: "totals",
        doc: "All requests of a part of the run.",
        has_counts: true,
        fields: &[
            ("response", Kind::Of("distribution"), true, "From when a request was due, of ok, timeout and unfinished."),
            ("service", Kind::Of("distribution"), true, "From when it was sent, of the same."),
            (
                "failed",
                Kind::Of("distribution"),
                true,
                "From when it was due to the end, of errors and of refusals that were expected.",
            ),
            ("lateness", Kind::Of("distribution"), true, "From when it was due to when it was sent, of all sent."),
            ("first_byte", Kind::Of("distribution"), true, "From when it was due to the answer's first byte, of ok."),
            ("connect", Kind::Of("distribution"), true, "Making connections; part of the service time."),
            (
                "censored_from_ns",
                Kind::Count,
                false,
                "Quantiles of response from here on are lower bounds, because of timeouts and unfinished requests.",
            ),
            ("saturated", Kind::Count, true, "Times longer than an hour, which are in the histograms as an hour."),
            ("statuses", Kind::Statuses, true, "Answers by status."),
            ("errors", Kind::Errors, true, "Connection errors by kind."),
        ],
    },
    Object {
        name: "target",
        doc: "The requests to one target that were sent and have ended, the warm-up left out.",
        has_counts: true,
        fields: &[
            ("name", Kind::Text, true, "Method and URL, or the name of the route."),
            ("response", Kind::Of("distribution"), true, "As in the totals."),
        ],
    },
    Object {
        name: "second",
        doc: "The requests that were due in one second. Also a line of the NDJSON report.",
        has_counts: true,
        fields: &[
            ("second", Kind::Count, true, "Since the start of the run."),
            ("warm_up", Kind::Flag, false, "Whether it is left out of the totals."),
            ("during", Kind::Of("during"), true, "What happened in this second, whenever it was due."),
            ("response", Kind::Of("distribution"), true, "As in the totals."),
            ("service", Kind::Of("distribution"), true, "As in the totals."),
            ("failed", Kind::Of("distribution"), true, "As in the totals."),
            ("lateness", Kind::Of("distribution"), true, "As in the totals."),
            ("censored_from_ns", Kind::Count, false, "As in the totals."),
        ],
    },
    Object {
        name: "during",
        doc: "What happened within a second of the clock.",
        has_counts: false,
        fields: &[
            ("sent", Kind::Count, true, "Requests sent."),
            ("ended", Kind::Count, true, "Requests ended."),
            ("in_flight_ns", Kind::Count, true, "Requests in flight, integrated: divided by 1e9 their mean number."),
        ],
    },
    Object {
        name: "distribution",
        doc: "Times in nanoseconds.",
        has_counts: false,
        fields: &[
            ("count", Kind::Count, true, "How many there are."),
            ("mean_ns", Kind::Number, true, "From the exact sum."),
            ("min_ns", Kind::Count, true, "The least."),
            ("p50_ns", Kind::Count, true, "At least half of all do not exceed it."),
            ("p90_ns", Kind::Count, true, "90 %."),
            ("p95_ns", Kind::Count, true, "95 %."),
            ("p99_ns", Kind::Count, true, "99 %."),
            ("p999_ns", Kind::Count, true, "99.9 %."),
            ("max_ns", Kind::Count, true, "The greatest."),
            ("hdr", Kind::Text, false, "All of it: HdrHistogram V2, deflated, base64. Left out if the count is 0."),
        ],
    },
    Object {
        name: "generator",
        doc: "What the generator says of itself.",
        has_counts: false,
        fields: &[
            ("user_cpu_s", Kind::Number, true, "CPU time of the process in user mode."),
            ("system_cpu_s", Kind::Number, true, "CPU time of the process in the kernel."),
            ("busiest_worker", Kind::Number, true, "Share of the run in which its busiest thread was on a CPU."),
            ("precise", Kind::Flag, true, "Whether it spun instead of sleeping, so that its CPU time says nothing."),
            ("stalls", Kind::List("stall"), true, "Times at which it did not run itself."),
        ],
    },
    Object {
        name: "stall",
        doc: "The generator stood still.",
        has_counts: false,
        fields: &[
            ("at_s", Kind::Number, true, "Since the start of the run."),
            ("length_s", Kind::Number, true, "For how long."),
        ],
    },
    Object {
        name: "little",
        doc: "Little's law over the whole run: N = X R.",
        has_counts: false,
        fields: &[
            ("in_flight_mean", Kind::Number, true, "N, counted at every change."),
            ("throughput_per_s", Kind::Number, true, "X."),
            ("service_mean_s", Kind::Number, true, "R."),
            ("difference", Kind::Number, true, "|N - X R|."),
            ("bound", Kind::Number, true, "How large it may be."),
        ],
    },
    Object {
        name: "waterfall",
        doc: "Where the time of the requests went that are in the response times, as the generator and the sidecar saw it.",
        has_counts: false,
        fields: &[
            ("log", Kind::Text, true, "The sidecar's access log."),
            ("requests", Kind::Count, true, "joined + missing + dropped + disagreeing."),
            ("joined", Kind::Count, true, "Requests whose line was found."),
            ("missing", Kind::Count, true, "Requests whose line was not there within 2 s after the run."),
            ("dropped", Kind::Count, true, "Requests for which there was no room until their line came."),
            ("disagreeing", Kind::Count, true, "Requests that arrived before they were sent: another machine's clock."),
            ("identified", Kind::Count, true, "Requests whose answer named the id that the log has."),
            ("lines", Kind::Count, true, "Lines that came into the log during the run."),
            ("unreadable", Kind::Count, true, "Those that were not understood."),
            ("cut_max_ns", Kind::Count, true, "The longest time of a sidecar's work after the client's end, cut off."),
            ("cohorts", Kind::List("cohort"), true, "All requests first, then parts of them, the fastest first."),
            ("slowest", Kind::List("slow"), true, "The slowest requests, one by one."),
        ],
    },
    Object {
        name: "cohort",
        doc: "Requests from one share of the fastest to another: from 0.99 to 1 are the slowest 1 %.",
        has_counts: false,
        fields: &[
            ("from", Kind::Number, true, "Share of requests that are faster."),
            ("to", Kind::Number, true, "Share of requests up to the slowest of these."),
            ("count", Kind::Count, true, "How many there are."),
            ("fastest_ns", Kind::Count, true, "The least response time among them, 0.8 % exact."),
            ("response_ns", Kind::Number, true, "Mean response time: the sum of the segments."),
            ("segments", Kind::Of("segments"), true, "Means."),
        ],
    },
    Object {
        name: "slow",
        doc: "One request.",
        has_counts: false,
        fields: &[
            ("number", Kind::Count, true, "Its place in the run."),
            ("request_id", Kind::Text, true, "As the access log has it."),
            ("response_ns", Kind::Count, true, "Response time: the sum of the segments, exactly."),
            ("segments", Kind::Of("segments"), true, "Its own."),
        ],
    },
    Object {
        name: "segments",
        doc: "The pieces of a request's way in order, in nanoseconds.",
        has_counts: false,
        fields: &[
            ("late_ns", Kind::Number, true, "From when it was due to when it was sent: the generator."),
            ("connecting_ns", Kind::Number, true, "Making a connection to the sidecar for it."),
            ("accepting_ns", Kind::Number, true, "From then to the first byte that the sidecar read."),
            ("sidecar_ns", Kind::Number, true, "What the sidecar itself took."),
            ("rate_delay_ns", Kind::Number, true, "Held by a rate limit in delay mode."),
            ("queue_ns", Kind::Number, true, "Waiting for a permit in flight."),
            ("fault_delay_ns", Kind::Number, false, "Delayed by a fault that the sidecar's configuration asks for."),
            ("upstream_connecting_ns", Kind::Number, true, "Making a connection to the upstream for it."),
            ("first_byte_ns", Kind::Number, true, "From then to the first byte of the upstream's answer."),
            ("body_ns", Kind::Number, true, "From there to its last byte; a slow client as well."),
            ("delivery_ns", Kind::Number, true, "From the sidecar's last byte to when the client had it."),
        ],
    },
    Object {
        name: "answers",
        doc: "How the answers of a replay compare with the recorded ones.",
        has_counts: false,
        fields: &[
            ("compared", Kind::Count, true, "Answers to requests whose recorded status is known: equal + different."),
            ("equal", Kind::Count, true, "As far as could be compared."),
            ("different", Kind::Count, true, "Those with another status, or another body."),
            ("bodies", Kind::Count, true, "Those whose bodies were compared, too."),
            (
                "incomparable",
                Kind::Count,
                true,
                "Bodies recorded in part, too long, or in a coding that is not understood.",
            ),
            ("dropped", Kind::Count, true, "Bodies for which there was no room to wait."),
            ("differences", Kind::List("difference"), true, "By path and kind, the most frequent first."),
            ("others", Kind::Count, true, "Differences at further paths."),
            ("ignored", Kind::Texts, true, "Paths that were not compared, as told."),
            ("learned", Kind::Texts, true, "Paths that were not compared because they differ each time."),
        ],
    },
    Object {
        name: "difference",
        doc: "One thing that differs.",
        has_counts: false,
        fields: &[
            ("path", Kind::Text, true, "Into the JSON, * for the elements of lists; or status, or (whole body)."),
            ("kind", Kind::Words(&["status", "missing", "added", "type", "value"]), true, "In what way."),
            ("answers", Kind::Count, true, "In how many answers."),
            ("request", Kind::Text, true, "The first of them: method and path."),
            ("place", Kind::Text, true, "The exact path in its answer."),
            ("recorded", Kind::Text, true, "What was there then, cut."),
            ("replayed", Kind::Text, true, "What is there now, cut."),
        ],
    },
    Object {
        name: "verdict",
        doc: "Whether the numbers mean something.",
        has_counts: false,
        fields: &[
            ("outcome", Kind::Words(&["complete", "interrupted", "void"]), true, "Numbers of a void run mean nothing."),
            ("reasons", Kind::List("reason"), true, "Why it is void, or would be."),
            ("gates_missed", Kind::Texts, true, "The gates that were missed, in a void run as well."),
        ],
    },
    Object {
        name: "reason",
        doc: "One reason not to believe a run.",
        has_counts: false,
        fields: &[
            (
                "rule",
                Kind::Words(&[
                    "lateness",
                    "rate_not_reached",
                    "little",
                    "cpu_saturated",
                    "own_stall",
                    "empty",
                    "accounting",
                ]),
                true,
                "Which rule was broken.",
            ),
            ("text", Kind::Text, true, "In words, with what to do."),
        ],
    },
    Object {
        name: "gate",
        doc: "A condition and whether the run met it.",
        has_counts: false,
        fields: &[
            ("gate", Kind::Text, true, "As it was written."),
            ("passed", Kind::Flag, true, "null if it was not evaluated."),
            ("measured", Kind::Text, true, "In words."),
        ],
    },
];

const RUN: &[Field] = &[
    ("schema", Kind::Words(&[SCHEMA]), true, "Names this schema and its version."),
    ("version", Kind::Text, true, "Of the program."),
    ("started_unix", Kind::Number, true, "Start of the run, in seconds since 1970."),
    ("command_line", Kind::Texts, true, "As typed, secrets masked."),
    ("plan", Kind::Of("plan"), true, "What was to be done."),
    ("environment", Kind::Of("environment"), true, "Where it ran."),
    ("totals", Kind::Of("totals"), true, "All requests but those of the warm-up."),
    ("warm_up", Kind::Of("totals"), false, "The requests of the warm-up."),
    ("targets", Kind::List("target"), true, "By target."),
    ("seconds", Kind::List("second"), true, "Every second in order, warm-up and drain included."),
    ("generator", Kind::Of("generator"), true, "What the generator says of itself."),
    ("little", Kind::Of("little"), true, "Little's law."),
    ("waterfall", Kind::Of("waterfall"), false, "Where the time went, if that was asked for."),
    ("answers", Kind::Of("answers"), false, "How answers compare with recorded ones, in a replay that has any."),
    ("verdict", Kind::Of("verdict"), true, "Whether the numbers mean something."),
    ("gates", Kind::List("gate"), true, "What the run had to fulfil."),
    ("notes", Kind::Texts, true, "Remarks for the reader."),
];

/// The whole schema.
pub fn schema() -> Value {
    let definitions: Map<String, Value> =
        OBJECTS.iter().map(|object| (object.name.to_owned(), define(object))).collect();
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "Result of a Forebay load run".into());
    if let Value::Object(body) = object("One run.", RUN.iter()) {
        schema.extend(body);
    }
    schema.insert("$defs".to_owned(), definitions.into());
    Value::Object(schema)
}

fn define(definition: &Object) -> Value {
    let counts = if definition.has_counts { COUNTS } else { &[] };
    object(definition.doc, definition.fields.iter().chain(counts))
}

fn object<'a>(doc: &str, fields: impl Iterator<Item = &'a Field> + Clone) -> Value {
    let required: Vec<&str> = fields.clone().filter(|(_, _, always, _)| *always).map(|(name, ..)| *name).collect();
    let properties: Map<String, Value> = fields.map(|field| (field.0.to_owned(), property(field))).collect();
    json!({ "type": "object", "description": doc, "properties": properties, "required": required })
}

fn property((name, kind, _, doc): &Field) -> Value {
    let mut schema = match kind {
        Kind::Count => json!({ "type": "integer", "minimum": 0 }),
        Kind::Number => json!({ "type": "number", "minimum": 0 }),
        // The only flag that may be unknown.
        Kind::Flag if *name == "passed" => json!({ "type": ["boolean", "null"] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Words(words) => json!({ "type": "string", "enum": words }),
        Kind::Of(definition) => json!({ "$ref": format!("#/$defs/{definition}") }),
        Kind::List(definition) => json!({ "type": "array", "items": { "$ref": format!("#/$defs/{definition}") } }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Statuses => counts_by("^[1-9][0-9]{2}$"),
        Kind::Errors => counts_by(&format!("^({})$", ErrorKind::ALL.map(ErrorKind::as_str).join("|"))),
    };
    schema["description"] = (*doc).into();
    schema
}

fn counts_by(pattern: &str) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": pattern },
        "additionalProperties": { "type": "integer", "minimum": 0 },
    })
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
