//! What a client is told about its limits: `RateLimit`, `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, in the
//! syntax of structured fields, RFC 9651) and `Retry-After` (RFC 9110, section 10.2.3).

use std::cmp::Reverse;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::rate::RateLimiter;

/// Where a request stands with one limit.
#[derive(Debug, Clone)]
pub struct Standing {
    pub limiter: Arc<RateLimiter>,
    /// Requests that could follow at once.
    pub remaining: u32,
    /// When the bucket is full again; for a rejected request, when the next one is let through.
    pub reset: Duration,
}

/// The values of both fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateFields {
    pub rate_limit: String,
    pub policy: String,
}

/// Both fields for the strictest limit: the one that leaves the fewest requests and, among equals, for the longest time.
pub fn rate_fields<'a>(standings: impl IntoIterator<Item = &'a Standing>) -> Option<RateFields> {
    let room = |standing: &Standing| (standing.remaining, standing.reset);
    let strictest = standings.into_iter().reduce(|a, b| if stricter(room(a), room(b)) { a } else { b })?;
    let mut rate_limit = quoted(&strictest.limiter.config().name);
    let _ = write!(rate_limit, ";r={};t={}", strictest.remaining, whole_seconds(strictest.reset));
    Some(RateFields { rate_limit, policy: strictest.limiter.policy().to_owned() })
}

/// True when the first limit (remaining requests, time to reset) leaves no more room than the second.
pub(super) fn stricter(a: (u32, Duration), b: (u32, Duration)) -> bool {
    (a.0, Reverse(a.1)) <= (b.0, Reverse(b.1))
}

/// The value of `Retry-After`: whole seconds, rounded up, so that a client which waits exactly this long is let through
/// (unless another takes its place); never 0, which would invite it to come back before that.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    whole_seconds(wait).max(1)
}

/// The value of `RateLimit-Policy`, the same for the life of a limit.
pub(super) fn policy_field(name: &str, burst: u32, window: Duration) -> String {
    let mut field = quoted(name);
    let _ = write!(field, ";q={burst};w={}", whole_seconds(window).max(1));
    field
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A structured-field string: ASCII only, `"` and `\` escaped. Other characters cannot be said and become `?`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 24);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::{limiter, rate};
    use super::*;

    fn standing(name: &str, remaining: u32, reset_ms: u64) -> Standing {
        let mut config = rate(100, 60, 100);
        config.name = name.into();
        Standing { limiter: limiter(config), remaining, reset: Duration::from_millis(reset_ms) }
    }

    #[test]
    fn both_fields_have_the_syntax_of_the_draft() {
        let fields = rate_fields([&standing("global/0", 50, 29_001)]).unwrap();

        assert_eq!(fields.rate_limit, r#""global/0";r=50;t=30"#);
        assert_eq!(fields.policy, r#""global/0";q=100;w=60"#);
    }

    #[test]
    fn the_limit_that_leaves_least_is_told() {
        let (wide, tight, longer) = (standing("wide", 9, 1), standing("tight", 2, 1), standing("longer", 2, 5000));

        let fields = rate_fields([&wide, &tight, &longer]).unwrap();

        assert!(fields.rate_limit.starts_with("\"longer\";r=2;t=5"), "{}", fields.rate_limit);
    }

    #[test]
    fn no_limit_no_field() {
        assert_eq!(rate_fields([]), None);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(policy_field("a\"b\\c\u{e9}\n", 1, Duration::ZERO), "\"a\\\"b\\\\c??\";q=1;w=1");
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        assert_eq!(retry_after_seconds(Duration::ZERO), 1);
        assert_eq!(retry_after_seconds(Duration::from_nanos(1)), 1);
        assert_eq!(retry_after_seconds(Duration::from_secs(2)), 2);
        assert_eq!(retry_after_seconds(Duration::from_millis(2001)), 3);
    }
}
