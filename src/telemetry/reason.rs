//! Why a request ended: the closed list shared by the metric label, the access log, the
//! `x-forebay-reason` header and the JSON error code.
//!
//! Adding a reason is one line in the table below; everything else follows by exhaustive match.

use std::fmt::Write as _;

/// What kind of end a reason is; for error rates, a `ClientGone` is neither success nor failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonClass {
    Success,
    /// The client sent something that is refused, or sent it too slowly.
    ClientError,
    /// Shed by a limit of Forebay's.
    Limited,
    /// The upstream failed.
    UpstreamError,
    /// A timeout or the deadline ended it.
    Timeout,
    ClientGone,
    /// Forebay itself failed or is going away.
    Internal,
}

impl ReasonClass {
    /// In words, for the documentation.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client error",
            Self::Limited => "limit",
            Self::UpstreamError => "upstream error",
            Self::Timeout => "timeout",
            Self::ClientGone => "client gone",
            Self::Internal => "internal",
        }
    }
}

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $class:ident, $title:literal; )*) => {
        /// Why a request ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $( $(#[$doc])* $variant, )* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];
            pub const COUNT: usize = Self::ALL.len();

            /// The word used everywhere: label, log field, header, JSON code.
            pub const fn code(self) -> &'static str {
                match self { $( Reason::$variant => $code, )* }
            }

            /// The status of the answer when Forebay makes it; for `ok` and `upstream_5xx` the upstream's own is used.
            pub const fn status(self) -> u16 {
                match self { $( Reason::$variant => $status, )* }
            }

            pub const fn class(self) -> ReasonClass {
                match self { $( Reason::$variant => ReasonClass::$class, )* }
            }

            /// One sentence for the client and for `docs/reasons.md`; it names no address and no internals.
            pub const fn title(self) -> &'static str {
                match self { $( Reason::$variant => $title, )* }
            }

            pub const fn index(self) -> usize { self as usize }
        }
    };
}

reasons! {
    Ok = "ok", 200, Success, "The request was answered.";
    /// The upstream answered with a 5xx of its own, which was passed on.
    Upstream5xx = "upstream_5xx", 502, UpstreamError, "The upstream answered with a server error.";

    /// An aggregate in which at least one source failed and at least one did not.
    Partial = "partial", 200, Success, "The request was answered without some of its sources.";

    BadRequest = "bad_request", 400, ClientError, "The request is malformed or ambiguous.";
    HeadTooLarge = "head_too_large", 431, ClientError, "The request's head is larger than allowed.";
    BodyTooLarge = "body_too_large", 413, ClientError, "The request's body is larger than allowed.";
    HeadTimeout = "head_timeout", 408, ClientError, "The request's head took too long to arrive.";
    BodyTimeout = "body_timeout", 408, ClientError, "The request's body took too long to arrive.";
    BodyTooSlow = "body_too_slow", 408, ClientError, "The request's body arrived more slowly than the minimum rate.";
    WriteTimeout = "write_timeout", 408, ClientError, "The client stopped reading the answer.";
    NoRoute = "no_route", 404, ClientError, "No route matches this request.";
    MethodNotAllowed = "method_not_allowed", 405, ClientError, "This method is not allowed here.";
    /// Not 426, which asks the client to switch; nor is the request wrong: RFC 6455 §4.2.2 lets a server that does not
    /// want the connection answer 403.
    UpgradeRefused = "upgrade_refused", 403, ClientError, "This protocol upgrade is not allowed on this route.";
    TooManyItems = "too_many_items", 422, ClientError, "The request names more items than allowed.";
    NoResult = "no_result", 404, ClientError, "There is no result with this id.";
    ResultGone = "result_gone", 410, ClientError, "The result with this id is no longer kept.";
    ClientGone = "client_gone", 499, ClientGone, "The client left before the answer was complete.";

    RateLimited = "rate_limited", 429, Limited, "Too many requests: a rate limit was reached.";
    DelayQueueFull = "delay_queue_full", 429, Limited, "Too many requests are already waiting for a rate limit.";
    QueueFull = "queue_full", 503, Limited, "Too many requests are in flight and the queue is full.";
    QueueTimeout = "queue_timeout", 503, Limited, "The request waited in the queue for too long.";
    ClientLimit = "client_limit", 429, Limited, "This client has too many requests in flight.";
    TooManyConnections = "too_many_connections", 503, Limited, "Too many connections are open.";

    TooManyJobs = "too_many_jobs", 503, Limited, "Too many requests are being worked on in the background.";
    ResultTooLarge = "result_too_large", 507, Limited, "The result is larger than all kept results together may be.";

    NoEndpoint = "no_endpoint", 503, UpstreamError, "No endpoint of the upstream can be used now.";
    ConnectFailed = "connect_failed", 502, UpstreamError, "No connection to the upstream could be made.";
    TlsFailed = "tls_failed", 502, UpstreamError, "No secure connection to the upstream could be made.";
    UpstreamReset = "upstream_reset", 502, UpstreamError, "The upstream broke the connection.";
    UpstreamClosed = "upstream_closed", 502, UpstreamError, "The upstream closed the connection before its answer was complete.";
    UpstreamBadResponse = "upstream_bad_response", 502, UpstreamError, "The upstream's answer is not valid HTTP.";
    UpstreamTooLarge = "upstream_too_large", 502, UpstreamError, "The upstream's answer is larger than allowed.";
    UnexpectedUpgrade = "unexpected_upgrade", 502, UpstreamError, "The upstream switched protocols without being asked.";
    UpstreamStatus = "upstream_status", 502, UpstreamError, "The upstream answered with a status that does not count as success.";
    UpstreamBadBody = "upstream_bad_body", 502, UpstreamError, "The upstream's answer cannot be read: it is not what its format promises.";
    UpstreamTooDeep = "upstream_too_deep", 502, UpstreamError, "The upstream's answer is nested more deeply than allowed.";
    /// Of a source: its call could not be made, because what it needs from another answer is not there.
    MissingValue = "missing_value", 502, UpstreamError, "A value that this call needs is not there.";
    /// Of a source: another one, whose answer it needs, failed.
    DependencyFailed = "dependency_failed", 502, UpstreamError, "A source that this one needs failed.";
    /// Of a source or an attempt, never of a request.
    NotNeeded = "not_needed", 502, UpstreamError, "Nobody needed the answer any more: others were enough, or the client had left.";
    SourcesFailed = "sources_failed", 502, UpstreamError, "No source gave a usable answer.";
    MergeConflict = "merge_conflict", 502, UpstreamError, "The answers of the sources cannot be merged.";

    SourcesTimedOut = "sources_timed_out", 504, Timeout, "No source answered in time.";
    SourceTimeout = "source_timeout", 504, Timeout, "The source took longer than its timeout.";
    ConnectTimeout = "connect_timeout", 504, Timeout, "Connecting to the upstream took too long.";
    TlsTimeout = "tls_timeout", 504, Timeout, "The TLS handshake with the upstream took too long.";
    FirstByteTimeout = "first_byte_timeout", 504, Timeout, "The upstream took too long to begin its answer.";
    /// Also for a head that drips: once begun, it has as long as a silence may last, see `proxy/attempt.rs`.
    BetweenBytesTimeout = "between_bytes_timeout", 504, Timeout, "The upstream fell silent inside its answer, or took too long over its head.";
    UpgradeIdle = "upgrade_idle", 504, Timeout, "The upgraded connection was idle for too long.";
    DeadlineQueue = "deadline_in_queue", 504, Timeout, "The deadline passed while the request waited for its turn.";
    DeadlineConnect = "deadline_in_connect", 504, Timeout, "The deadline passed while connecting to the upstream.";
    DeadlineRequest = "deadline_in_request", 504, Timeout, "The deadline passed while the request was being sent.";
    DeadlineFirstByte = "deadline_in_first_byte", 504, Timeout, "The deadline passed before the upstream began its answer.";
    DeadlineBody = "deadline_in_body", 504, Timeout, "The deadline passed inside the upstream's answer.";

    /// Of the class of what it stands for, so that alerts and error rates see it.
    FaultAbort = "fault_abort", 503, UpstreamError, "A fault that the configuration asks for was answered in place of the upstream.";
    FaultReset = "fault_reset", 502, UpstreamError, "A fault that the configuration asks for broke the connection.";

    ShuttingDown = "shutting_down", 503, Internal, "The proxy is shutting down.";
    Internal = "internal", 500, Internal, "The proxy failed.";
}

impl Reason {
    /// For a reason of time: the phase in which it ran out, and whether the phase's own timeout or the deadline ended
    /// it. The labels of the timeout metric.
    pub const fn expired(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Reason::HeadTimeout => ("request_head", "timeout"),
            Reason::BodyTimeout => ("request_body", "timeout"),
            Reason::BodyTooSlow => ("request_body", "min_rate"),
            Reason::WriteTimeout => ("response_write", "timeout"),
            Reason::QueueTimeout => ("queue", "timeout"),
            Reason::SourcesTimedOut => ("sources", "timeout"),
            Reason::SourceTimeout => ("source", "timeout"),
            Reason::ConnectTimeout => ("connect", "timeout"),
            Reason::TlsTimeout => ("tls", "timeout"),
            Reason::FirstByteTimeout => ("first_byte", "timeout"),
            Reason::BetweenBytesTimeout => ("response_body", "timeout"),
            Reason::UpgradeIdle => ("upgrade", "timeout"),
            Reason::DeadlineQueue => ("queue", "deadline"),
            Reason::DeadlineConnect => ("connect", "deadline"),
            Reason::DeadlineRequest => ("request_send", "deadline"),
            Reason::DeadlineFirstByte => ("first_byte", "deadline"),
            Reason::DeadlineBody => ("response_body", "deadline"),
            _ => return None,
        })
    }
}

impl Reason {
    /// For an objective of availability: whether the request was answered as promised. `None` when that was not
    /// Forebay's to keep: the client sent something wrong, wanted more than its share (429), left, or let an upgraded
    /// connection lie idle.
    pub const fn promise_kept(self) -> Option<bool> {
        match (self, self.class()) {
            (Reason::UpgradeIdle, _) => None,
            (_, ReasonClass::Success) => Some(true),
            (_, ReasonClass::ClientError | ReasonClass::ClientGone) => None,
            (_, ReasonClass::Limited) if self.status() == 429 => None,
            (_, ReasonClass::Limited | ReasonClass::UpstreamError | ReasonClass::Timeout | ReasonClass::Internal) => {
                Some(false)
            }
        }
    }
}

/// `docs/reasons.md`.
pub fn markdown_table() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         Generated from `src/telemetry/reason.rs`; `FOREBAY_BLESS=1 cargo test --lib telemetry` writes this file anew.\n\n\
         Each request ends for exactly one reason. The same word stands in the metric label `reason`, in the access log,\n\
         in the `x-forebay-reason` header and in the `reason` of the JSON body. The status is that of Forebay's own answer;\n\
         `ok` and `upstream_5xx` carry the upstream's. `client_gone` is neither a success nor a failure, so leave it out of\n\
         error rates.\n\n\
         | Reason | Status | Kind | Meaning | Ran out of time in |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let status = match reason {
            Reason::Ok | Reason::Upstream5xx => String::from("upstream's"),
            _ => reason.status().to_string(),
        };
        let expired = reason.expired().map_or_else(String::new, |(phase, limit)| format!("{phase} ({limit})"));
        let kind = reason.class().title();
        writeln!(text, "| `{reason}` | {status} | {kind} | {} | {expired} |", reason.title())
            .expect("writing to a string cannot fail");
    }
    text
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_snake_case_words() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(reason.code()), "{reason} twice");
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!((200..600).contains(&reason.status()));
        }
    }

    #[test]
    fn the_documentation_lists_every_reason() {
        crate::telemetry::test_support::compare_with_file("docs/reasons.md", &markdown_table());
    }

    /// It ends a dripped head as well as a silence, as the table of faults shows.
    #[test]
    fn between_bytes_says_both_of_its_causes() {
        let title = Reason::BetweenBytesTimeout.title();

        assert!(title.contains("silent") && title.contains("head"), "{title}");
    }

    #[test]
    fn every_expiry_of_time_on_the_upstream_side_is_a_504() {
        for reason in Reason::ALL.iter().filter(|r| r.class() == ReasonClass::Timeout) {
            assert_eq!(reason.status(), 504, "{reason}");
            assert!(reason.expired().is_some(), "{reason} has no phase");
        }
    }
}
