//! The sources of an aggregate within its line of the access log.
//!
//! ```json
//! "completeness":"1/2","sources":[{"name":"user1","outcome":"ok","status":200,"begun_ms":0.040,"ms":1002.310,"attempts":1},
//! {"name":"user2","outcome":"failed","reason":"source_timeout","begun_ms":0.041,"ms":2000.105,"attempts":1}]
//! ```
//!
//! The line stays bounded: of an aggregate with more sources than [`MAX_SOURCES`] it names the most telling ones, and
//! `sources_omitted` says how many it leaves out.

use super::SourcesRecord;
use super::access_line::{cut, key, milliseconds, number, text, word, write_integer};
use super::server_timing::most_telling;
use crate::aggregate::{Ending, Fallback, Items, Outcome};
use crate::config::model::aggregate::Aggregate;

const MAX_SOURCES: usize = 32;
/// Shorter than a request's own: there may be one for each source.
const MAX_DETAIL: usize = 128;

/// Appends the fields of `record` to a line that has fields already.
pub(super) fn write(out: &mut Vec<u8>, record: &SourcesRecord) {
    key(out, "completeness");
    out.push(b'"');
    write_integer(out, record.usable as u64);
    out.push(b'/');
    write_integer(out, record.asked as u64);
    out.push(b'"');

    let outcomes = most_telling(record.outcomes, MAX_SOURCES);
    key(out, "sources");
    out.push(b'[');
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_source(out, record.aggregate, outcome);
    }
    out.push(b']');
    if outcomes.len() < record.outcomes.len() {
        number(out, "sources_omitted", (record.outcomes.len() - outcomes.len()) as u64);
    }
}

fn write_source(out: &mut Vec<u8>, aggregate: &Aggregate, outcome: &Outcome) {
    out.extend_from_slice(b"{\"name\":\"");
    // A checked name of the configuration: nothing in it needs escaping.
    out.extend_from_slice(name(aggregate, outcome.source).as_bytes());
    out.push(b'"');
    word(out, "outcome", outcome.ending.code());
    if !matches!(outcome.ending, Ending::Ok | Ending::NotNeeded) {
        word(out, "reason", outcome.reason.code());
    }
    if let Ending::Fallback(Fallback::Source(other)) = outcome.ending {
        word(out, "fallback_source", name(aggregate, other));
    }
    if let Some(detail) = &outcome.detail {
        text(out, "detail", cut(detail, MAX_DETAIL));
    }
    if let Some(status) = outcome.status {
        number(out, "status", u64::from(status));
    }
    if outcome.was_called() {
        milliseconds(out, "begun_ms", Some(outcome.begun));
        milliseconds(out, "ms", Some(outcome.took));
        milliseconds(out, "queue_ms", Some(outcome.queue).filter(|queue| !queue.is_zero()));
        number(out, "attempts", u64::from(outcome.attempts));
    }
    if let Some(items) = &outcome.items {
        write_items(out, items);
    }
    if outcome.coalesced {
        key(out, "coalesced");
        out.extend_from_slice(b"true");
    }
    out.push(b'}');
}

fn write_items(out: &mut Vec<u8>, items: &Items) {
    key(out, "items");
    out.extend_from_slice(b"{\"total\":");
    write_integer(out, items.total as u64);
    number(out, "failed", items.failed as u64);
    number(out, "distinct", items.distinct as u64);
    number(out, "cut", items.cut as u64);
    out.push(b'}');
}

fn name(aggregate: &Aggregate, source: usize) -> &str {
    aggregate.sources.get(source).map_or("", |source| &source.name)
}

#[cfg(test)]
mod tests;
