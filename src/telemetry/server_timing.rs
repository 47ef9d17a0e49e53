//! `Server-Timing` (<https://www.w3.org/TR/server-timing/>): the sources of an aggregate in a browser's developer tools.
//!
//! ```text
//! user1;dur=1002.3, user2;dur=2000;desc="source_timeout"
//! ```
//!
//! It says how long each source took and, in the words of `docs/reasons.md`, why one failed: no address and no detail.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::Duration;

use crate::aggregate::{Ending, Outcome};
use crate::config::model::aggregate::Aggregate;

/// Proxies and clients refuse heads beyond some 8 KiB, of which this may take its part. An entry has at most 110 bytes: a
/// name of 64, a duration and a reason.
const MAX_BYTES: usize = 4096;
const MAX_ENTRIES: usize = 32;
/// Stands for the sources that are left out. No source is called so by accident.
const OMITTED: &str = "_omitted";

/// The value of the field; empty when no source was called or failed. Of more sources than fit, the failed and the slowest
/// are named, and `_omitted;desc="968"` says how many are not.
pub fn server_timing(aggregate: &Aggregate, outcomes: &[Outcome]) -> String {
    let named = most_telling(outcomes, MAX_ENTRIES);
    let mut value = String::new();
    for outcome in &named {
        // A source that stands by and was not needed has nothing to show.
        let idle = outcome.ending == Ending::NotNeeded && !outcome.was_called();
        if let (false, Some(source)) = (idle, aggregate.sources.get(outcome.source)) {
            write_entry(&mut value, &source.name, outcome);
        }
    }
    if named.len() < outcomes.len() {
        separate(&mut value);
        put(&mut value, format_args!("{OMITTED};desc=\"{}\"", outcomes.len() - named.len()));
    }
    debug_assert!(value.len() <= MAX_BYTES, "{} bytes", value.len());
    value
}

fn write_entry(value: &mut String, name: &str, outcome: &Outcome) {
    // RFC 9110 §5.6.2. The configuration allows letters, digits, `-` and `_` in names.
    debug_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{name:?}");
    separate(value);
    value.push_str(name);
    put(value, format_args!(";dur={}", Milliseconds(outcome.took)));
    match outcome.ending {
        Ending::Ok => {}
        Ending::NotNeeded => put(value, format_args!(";desc=\"{}\"", outcome.ending.code())),
        Ending::Partial | Ending::Fallback(_) | Ending::Failed => {
            put(value, format_args!(";desc=\"{}\"", outcome.reason));
        }
    }
}

fn separate(value: &mut String) {
    if !value.is_empty() {
        value.push_str(", ");
    }
}

fn put(value: &mut String, arguments: std::fmt::Arguments<'_>) {
    value.write_fmt(arguments).expect("writing to a string cannot fail");
}

/// With one decimal, unless it is zero.
struct Milliseconds(Duration);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = self.0.as_micros() / 100;
        match tenths % 10 {
            0 => write!(f, "{}", tenths / 10),
            tenth => write!(f, "{}.{tenth}", tenths / 10),
        }
    }
}

/// At most `max` of the outcomes, in the order of the file: all when they are not more, else those that failed and then
/// the slowest.
pub(super) fn most_telling(outcomes: &[Outcome], max: usize) -> Vec<&Outcome> {
    let mut chosen: Vec<&Outcome> = outcomes.iter().collect();
    if chosen.len() > max {
        let went_well = |outcome: &Outcome| matches!(outcome.ending, Ending::Ok | Ending::NotNeeded);
        chosen.sort_by_key(|outcome| (went_well(outcome), Reverse(outcome.took), outcome.source));
        chosen.truncate(max);
        chosen.sort_by_key(|outcome| outcome.source);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Fallback;
    use crate::telemetry::Reason;
    use crate::telemetry::test_support::{aggregate, failed, ok};

    #[test]
    fn sources_show_their_time_and_why_they_failed() {
        let aggregate = aggregate(&["user1", "user2", "user-3", "spare"]);
        let mut outcomes = [ok(0, 1002), failed(1, 2000, Reason::SourceTimeout), ok(2, 7), ok(3, 0)];
        outcomes[0].took += Duration::from_micros(390);
        outcomes[2].ending = Ending::Fallback(Fallback::Value);
        outcomes[2].reason = Reason::Upstream5xx;
        (outcomes[3].ending, outcomes[3].attempts) = (Ending::NotNeeded, 0);

        let value = server_timing(&aggregate, &outcomes);

        assert_eq!(
            value,
            "user1;dur=1002.3, user2;dur=2000;desc=\"source_timeout\", user-3;dur=7;desc=\"upstream_5xx\""
        );
    }

    #[test]
    fn a_cancelled_source_says_so() {
        let mut loser = ok(1, 20);
        loser.ending = Ending::NotNeeded;

        let value = server_timing(&aggregate(&["fast", "slow"]), &[ok(0, 20), loser]);

        assert_eq!(value, "fast;dur=20, slow;dur=20;desc=\"not_needed\"");
    }

    #[test]
    fn of_many_sources_the_failed_and_the_slowest_are_named_within_bounds() {
        let names: Vec<String> = (0..1000).map(|index| format!("{}-{index:03}", "n".repeat(60))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut outcomes: Vec<Outcome> = (0..1000).map(|index| ok(index, index as u64)).collect();
        outcomes[3] = failed(3, 1, Reason::DeadlineFirstByte);

        let value = server_timing(&aggregate(&names), &outcomes);

        assert!(value.len() <= MAX_BYTES, "{}", value.len());
        let entries: Vec<&str> = value.split(", ").collect();
        assert_eq!(entries.len(), MAX_ENTRIES + 1);
        assert!(entries[0].starts_with(names[3]) && entries[1].starts_with(names[969]), "{}", entries[1]);
        assert_eq!(entries[MAX_ENTRIES], "_omitted;desc=\"968\"");
    }

    #[test]
    fn every_entry_fits_whatever_its_reason() {
        let longest = Reason::ALL.iter().max_by_key(|reason| reason.code().len()).unwrap();
        let name = "n".repeat(64);
        let names = [name.as_str(); 100];
        let day = 86_400_000;
        let outcomes: Vec<Outcome> = (0..100).map(|index| failed(index, day, *longest)).collect();

        assert!(server_timing(&aggregate(&names), &outcomes).len() <= MAX_BYTES);
    }

    #[test]
    fn nothing_called_is_nothing_said() {
        assert_eq!(server_timing(&aggregate(&[]), &[]), "");
    }
}
