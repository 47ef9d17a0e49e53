//! Makes one answer from the outcomes of the sources.
//!
//! Pure: the bytes depend on the outcomes, which are in the order of the file, and never on who answered first. Values are
//! copied as they are, straight into one buffer.
//!
//! What counts: every source that is not on standby has a place in the answer. A standby source's answer stands in the
//! place of the source that fell back to it, which is the one that counts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;

use super::json::{Json, content, each_member, separate, write_string};
use super::shape;
use super::template::{Inputs, Lookup, Scope, write_node};
use super::{Ending, Fallback, Outcome, Value};
use crate::config::model::aggregate::{
    Aggregate, BodyShape, Collision, Format, JsonPath, Node, OnError, Reference, Source, Step, Strategy,
};
use crate::telemetry::{Reason, ReasonClass};

const JSON: &str = "application/json";
const META: &str = "_meta";

/// An answer, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    pub status: u16,
    /// `Ok`, `Partial`, or what the request failed with.
    pub reason: Reason,
    /// Of the body.
    pub content_type: Cow<'static, str>,
    /// `None` when the request failed; the answer is made from the reason then.
    pub body: Option<Bytes>,
    /// Sources that gave something usable, of those that were `asked` for.
    pub usable: usize,
    pub asked: usize,
    /// Sources whose list was cut, with the number of items that were not called for.
    pub truncated: Vec<(usize, usize)>,
    pub retry_after: Option<Duration>,
    /// The source whose reason the request failed with.
    pub failed_source: Option<usize>,
    /// More about a failure, for the log.
    pub detail: Option<String>,
}

impl Merged {
    /// For the field `x-forebay-completeness` and for `_meta`.
    pub fn completeness(&self) -> String {
        format!("{}/{}", self.usable, self.asked)
    }
}

/// The answer to a request. `outcomes` has one for each source, in the order of the file.
pub fn merge(aggregate: &Aggregate, inputs: &Inputs, outcomes: &[Outcome]) -> Merged {
    let merge = Merge { aggregate, inputs, outcomes };
    let mut merged = merge.count();
    match merge.failure() {
        Some(failure) => failure.apply(&mut merged),
        None => match merge.body(&merged) {
            Ok((content_type, body)) => {
                merged.content_type = content_type;
                merged.body = Some(body);
            }
            Err(failure) => failure.apply(&mut merged),
        },
    }
    merged
}

/// One line of NDJSON without its end, or the data of one event: what became of a source, and its value.
pub fn part(aggregate: &Aggregate, outcome: &Outcome) -> Bytes {
    let mut out = b"{\"source\":".to_vec();
    write_string(&aggregate.sources[outcome.source].name, &mut out);
    out.push(b',');
    write_ending(aggregate, outcome, &mut out);
    if let Some(value) = json_of(&outcome.value) {
        out.extend_from_slice(b",\"value\":");
        // White space around values may hold line ends, which end a line here. Strings hold none.
        out.extend(value.as_bytes().iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    }
    out.push(b'}');
    out.into()
}

/// The last line or event: how the whole went.
pub fn summary(aggregate: &Aggregate, outcomes: &[Outcome], merged: &Merged) -> Bytes {
    let mut out =
        format!("{{\"summary\":{{\"status\":{},\"reason\":\"{}\",", merged.status, merged.reason).into_bytes();
    write_sources(aggregate, outcomes, merged, &mut out);
    out.extend_from_slice(b"}}");
    out.into()
}

/// What stands for a failed source with `on_error = "embed"`: `{"error": "..."}`. The text says nothing of addresses.
pub fn embedded_error(source: &Source, reason: Reason) -> Json {
    let title = reason.title().trim_end_matches('.');
    let mut text = String::new();
    let mut rest = source.error_message.as_str();
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (replaced, length) = match rest {
            _ if rest.starts_with("{name}") => (source.name.as_str(), "{name}".len()),
            _ if rest.starts_with("{error}") => (title, "{error}".len()),
            _ => ("{", 1),
        };
        text.push_str(replaced);
        rest = &rest[length..];
    }
    text.push_str(rest);
    let mut out = b"{\"error\":".to_vec();
    write_string(&text, &mut out);
    out.push(b'}');
    Json::written(out)
}

struct Failure {
    reason: Reason,
    source: Option<usize>,
    retry_after: Option<Duration>,
    detail: Option<String>,
}

impl Failure {
    fn of(outcome: &Outcome) -> Failure {
        Failure {
            reason: outcome.reason,
            source: Some(outcome.source),
            retry_after: outcome.retry_after,
            detail: outcome.detail.clone(),
        }
    }

    fn for_reason(reason: Reason) -> Failure {
        Failure { reason, source: None, retry_after: None, detail: None }
    }

    fn conflict(detail: String) -> Failure {
        Failure { detail: Some(detail), ..Failure::for_reason(Reason::MergeConflict) }
    }

    fn apply(self, merged: &mut Merged) {
        merged.status = self.reason.status();
        merged.reason = self.reason;
        merged.body = None;
        merged.retry_after = self.retry_after;
        merged.failed_source = self.source;
        merged.detail = self.detail;
    }
}

struct Merge<'a> {
    aggregate: &'a Aggregate,
    inputs: &'a Inputs,
    outcomes: &'a [Outcome],
}

impl<'a> Merge<'a> {
    fn source(&self, outcome: &Outcome) -> &'a Source {
        &self.aggregate.sources[outcome.source]
    }

    /// Those that have a place in the answer.
    fn counted(&self) -> impl Iterator<Item = &'a Outcome> {
        self.outcomes.iter().filter(|outcome| !self.source(outcome).standby)
    }

    fn count(&self) -> Merged {
        let asked = match self.aggregate.strategy {
            Strategy::All => self.counted().count(),
            Strategy::First | Strategy::Fallback => 1,
            Strategy::Quorum(enough) => enough,
        };
        let usable = self.counted().filter(|outcome| outcome.ending.is_usable()).count().min(asked);
        let cut = |outcome: &Outcome| Some((outcome.source, outcome.items?.cut)).filter(|(_, cut)| *cut > 0);
        let pieces_missing = self.counted().any(|outcome| outcome.ending == Ending::Partial);
        let whole = usable == asked && !pieces_missing;
        Merged {
            status: if whole { 200 } else { self.aggregate.partial_status },
            reason: if whole { Reason::Ok } else { Reason::Partial },
            content_type: Cow::Borrowed(JSON),
            body: None,
            usable,
            asked,
            truncated: self.outcomes.iter().filter_map(cut).collect(),
            retry_after: None,
            failed_source: None,
            detail: None,
        }
    }

    /// Why there can be no answer.
    fn failure(&self) -> Option<Failure> {
        let failed: Vec<&Outcome> = self.counted().filter(|outcome| outcome.ending == Ending::Failed).collect();
        // Also of a standby source that was called: what became of it counts.
        let needed = self.outcomes.iter().filter(|outcome| outcome.ending == Ending::Failed).find(|outcome| {
            let source = self.source(outcome);
            source.required || source.on_error == OnError::Fail
        });
        if let Some(outcome) = needed {
            return Some(Failure::of(outcome));
        }
        if self.counted().any(|outcome| outcome.ending.is_usable()) {
            return None;
        }
        Some(nothing_usable(&failed))
    }

    fn body(&self, merged: &Merged) -> Result<(Cow<'static, str>, Bytes), Failure> {
        if let Some(Value::Raw { content_type, body }) = self.alone().map(|outcome| &outcome.value) {
            let content_type = content_type.clone().map_or(Cow::Borrowed("application/octet-stream"), Cow::Owned);
            return Ok((content_type, body.clone()));
        }
        let mut out = Vec::with_capacity(self.expected_size());
        match &self.aggregate.body {
            BodyShape::Keyed => match self.alone() {
                Some(outcome) => self.write_alone(outcome, &mut out),
                None => self.write_keyed(&mut out),
            },
            BodyShape::Flat(collision) => self.write_flat(*collision, &mut out)?,
            BodyShape::Respond(node) => self.write_respond(node, &mut out),
        }
        if self.aggregate.meta {
            self.write_meta(merged, &mut out);
        }
        Ok((Cow::Borrowed(JSON), out.into()))
    }

    fn expected_size(&self) -> usize {
        let values = self.counted().map(|outcome| match &outcome.value {
            Value::Json(json) => json.as_bytes().len() + self.source(outcome).name.len() + 4,
            Value::Raw { body, .. } => body.len(),
            Value::Absent => 0,
        });
        values.sum::<usize>() + 64 + if self.aggregate.meta { 128 * self.outcomes.len() } else { 0 }
    }

    /// The outcome whose value is the body itself: the winner's, or that of the only source when it is passed through.
    fn alone(&self) -> Option<&'a Outcome> {
        match self.aggregate.strategy {
            Strategy::First | Strategy::Fallback => self.winner(),
            Strategy::All | Strategy::Quorum(_) => {
                let mut counted = self.counted();
                let only = counted.next().filter(|outcome| self.source(outcome).format == Format::Raw);
                only.filter(|_| counted.next().is_none())
            }
        }
    }

    fn winner(&self) -> Option<&'a Outcome> {
        match self.aggregate.strategy {
            Strategy::First | Strategy::Fallback => self.counted().find(|outcome| outcome.ending.is_usable()),
            Strategy::All | Strategy::Quorum(_) => None,
        }
    }

    fn write_alone(&self, outcome: &Outcome, out: &mut Vec<u8>) {
        let value = json_of(&outcome.value).unwrap_or(Cow::Owned(Json::null()));
        out.extend_from_slice(self.without_meta(&value).as_bytes());
    }

    /// Our `_meta` takes the place of one that came from upstream: twice in one object it would mean different things to
    /// different readers.
    fn without_meta<'j>(&self, value: &'j Json) -> Cow<'j, Json> {
        let path = JsonPath { steps: vec![Step::Key(META.to_owned())] };
        if self.aggregate.meta && value.is_object() && value.get(&path).is_some() {
            return Cow::Owned(shape::drop(value, &[path]));
        }
        Cow::Borrowed(value)
    }

    fn write_keyed(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for outcome in self.counted() {
            if let Some(value) = json_of(&outcome.value) {
                separate(out);
                write_string(&self.source(outcome).name, out);
                out.push(b':');
                out.extend_from_slice(value.as_bytes());
            }
        }
        out.push(b'}');
    }

    fn write_flat(&self, collision: Collision, out: &mut Vec<u8>) -> Result<(), Failure> {
        let parts = self.flat_parts()?;
        let owners = self.owners(&parts, collision)?;
        out.push(b'{');
        for (index, part) in parts.iter().enumerate() {
            part.each_member(&mut |name, value| {
                if owners.get(&name_of(name)) == Some(&index) {
                    separate(out);
                    out.extend_from_slice(name);
                    out.push(b':');
                    out.extend_from_slice(value);
                }
            });
        }
        out.push(b'}');
        Ok(())
    }

    /// The members that each source brings. `null`, the value of a 204, brings none; what stands for a failed source
    /// stands under the source's name.
    fn flat_parts(&self) -> Result<Vec<FlatPart<'a>>, Failure> {
        let mut parts = Vec::new();
        for outcome in self.counted() {
            let source = self.source(outcome);
            let Some(value) = json_of(&outcome.value) else { continue };
            let members = match outcome.ending.is_usable() {
                true if value.is_object() => Members::Of(value),
                true if value.is_null() => continue,
                true => return Err(Failure::conflict(format!("the answer of source `{}` is no object", source.name))),
                false => Members::Named(Json::string(&source.name), value),
            };
            parts.push(FlatPart { source, members });
        }
        Ok(parts)
    }

    /// Which part each name is taken from.
    fn owners<'p>(
        &self,
        parts: &'p [FlatPart<'_>],
        collision: Collision,
    ) -> Result<HashMap<Cow<'p, [u8]>, usize>, Failure> {
        let mut owners: HashMap<Cow<'_, [u8]>, usize> = HashMap::new();
        let mut conflict = None;
        if self.aggregate.meta {
            // Nobody's: see `without_meta`.
            owners.insert(Cow::Borrowed(META.as_bytes()), usize::MAX);
        }
        for (index, part) in parts.iter().enumerate() {
            part.each_member(&mut |name, _| {
                let owner = owners.entry(name_of(name)).or_insert(index);
                match collision {
                    _ if *owner == index || *owner == usize::MAX => {}
                    Collision::First => {}
                    Collision::Last => *owner = index,
                    Collision::Error => drop(conflict.get_or_insert((*owner, index, name))),
                }
            });
        }
        match conflict {
            None => Ok(owners),
            Some((first, second, name)) => Err(Failure::conflict(format!(
                "sources `{}` and `{}` both have a member {}",
                parts[first].source.name,
                parts[second].source.name,
                String::from_utf8_lossy(name)
            ))),
        }
    }

    fn write_respond(&self, node: &Node, out: &mut Vec<u8>) {
        let values: Vec<Option<Json>> =
            self.outcomes.iter().map(|outcome| json_of(&outcome.value).map(Cow::into_owned)).collect();
        let winner = self.winner().and_then(|outcome| values.get(outcome.source)?.as_ref());
        let scope = Scope { winner, ..Scope::new(self.inputs, &values) };
        let begin = out.len();
        let Ok(written) = write_node(node, &Places { merge: self, scope }, out);
        if !written {
            out.extend_from_slice(b"null");
        }
        if self.aggregate.meta {
            let body = Json::written(out.split_off(begin));
            out.extend_from_slice(self.without_meta(&body).as_bytes());
        }
    }

    fn write_meta(&self, merged: &Merged, out: &mut Vec<u8>) {
        if out.first() == Some(&b'{') {
            out.pop();
            // A member ends in anything but an opening brace.
            if out.iter().rfind(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
                out.push(b',');
            }
        } else {
            out.splice(..0, *b"{\"data\":");
            out.push(b',');
        }
        out.extend_from_slice(b"\"_meta\":{");
        write_sources(self.aggregate, self.outcomes, merged, out);
        out.extend_from_slice(b"}}");
    }
}

/// What a source brings to a flat answer.
struct FlatPart<'a> {
    source: &'a Source,
    members: Members<'a>,
}

enum Members<'a> {
    /// Those of this object.
    Of(Cow<'a, Json>),
    /// This one, a name with its quotes and a value.
    Named(Json, Cow<'a, Json>),
}

impl FlatPart<'_> {
    fn each_member<'p>(&'p self, take: &mut dyn FnMut(&'p [u8], &'p [u8])) {
        match &self.members {
            Members::Of(object) => drop(each_member(object.as_bytes(), take)),
            Members::Named(name, value) => take(name.as_bytes(), value.as_bytes()),
        }
    }
}

/// What makes names equal: what they say; for one that says nothing (half of a surrogate pair), how it is written.
fn name_of(written: &[u8]) -> Cow<'_, [u8]> {
    match content(written) {
        Some(Cow::Borrowed(name)) => Cow::Borrowed(name.as_bytes()),
        Some(Cow::Owned(name)) => Cow::Owned(name.into_bytes()),
        None => Cow::Borrowed(written),
    }
}

/// The references of a response template.
struct Places<'a> {
    merge: &'a Merge<'a>,
    scope: Scope<'a>,
}

impl Lookup for Places<'_> {
    type Missing = Infallible;

    /// Of a source that is left out, its place is left out, too. What stands for a failed source stands in the place of
    /// each of its parts. A part that a usable answer does not have, and what the request did not send, is `null`: the
    /// answer keeps its form.
    fn value(&self, reference: &Reference) -> Result<Option<Json>, Infallible> {
        let found = self.scope.value(reference);
        let Reference::Source(index, _) = reference else { return Ok(Some(found.unwrap_or_else(Json::null))) };
        let stands = self.scope.values.get(*index).and_then(Option::as_ref);
        let failed = self.merge.outcomes.get(*index).is_some_and(|outcome| !outcome.ending.is_usable());
        Ok(found.or_else(|| stands.map(|value| if failed { value.clone() } else { Json::null() })))
    }

    fn no_text(&self, _: &Reference) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What a value looks like inside JSON. One that is passed through as it is only gets there when something else of the
/// configuration would not have it; then it is a string.
fn json_of(value: &Value) -> Option<Cow<'_, Json>> {
    match value {
        Value::Json(json) => Some(Cow::Borrowed(json)),
        Value::Raw { body, .. } => Some(Cow::Owned(Json::string(&String::from_utf8_lossy(body)))),
        Value::Absent => None,
    }
}

/// The reason of the whole when every source failed: the one that tells most.
fn nothing_usable(failed: &[&Outcome]) -> Failure {
    let Some((first, others)) = failed.split_first() else { return Failure::for_reason(Reason::SourcesFailed) };
    let all = |class| failed.iter().all(|outcome| outcome.reason.class() == class);
    if others.is_empty() {
        Failure::of(first)
    } else if all(ReasonClass::Timeout) {
        Failure::for_reason(Reason::SourcesTimedOut)
    } else if all(ReasonClass::Limited) {
        // One usable source is enough for an answer, so the earliest counts.
        let retry_after = failed.iter().filter_map(|outcome| outcome.retry_after).min();
        Failure { retry_after, ..Failure::of(first) }
    } else if others.iter().all(|outcome| outcome.reason == first.reason) {
        Failure::of(first)
    } else {
        Failure::for_reason(Reason::SourcesFailed)
    }
}

/// Appends `"completeness":...,"sources":{...}`. A standby source that was not called is not told about.
fn write_sources(aggregate: &Aggregate, outcomes: &[Outcome], merged: &Merged, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\"completeness\":\"{}\",\"sources\":{{", merged.completeness()).as_bytes());
    for outcome in outcomes {
        let source = &aggregate.sources[outcome.source];
        if source.standby && outcome.ending == Ending::NotNeeded {
            continue;
        }
        separate(out);
        write_string(&source.name, out);
        out.extend_from_slice(b":{");
        write_ending(aggregate, outcome, out);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the members that say what became of a source: never the detail, which may name addresses.
fn write_ending(aggregate: &Aggregate, outcome: &Outcome, out: &mut Vec<u8>) {
    let mut text = format!("\"outcome\":\"{}\"", outcome.ending.code());
    if let Some(status) = outcome.status {
        text.push_str(&format!(",\"status\":{status}"));
    }
    if outcome.reason != Reason::Ok {
        text.push_str(&format!(",\"reason\":\"{}\"", outcome.reason));
    }
    text.push_str(&format!(",\"ms\":{},\"attempts\":{}", outcome.took.as_millis(), outcome.attempts));
    if let Some(items) = outcome.items {
        text.push_str(&format!(
            ",\"items\":{{\"total\":{},\"failed\":{},\"distinct\":{},\"cut\":{}}}",
            items.total, items.failed, items.distinct, items.cut
        ));
    }
    if outcome.coalesced {
        text.push_str(",\"coalesced\":true");
    }
    out.extend_from_slice(text.as_bytes());
    match outcome.ending {
        Ending::Fallback(Fallback::Value) => out.extend_from_slice(b",\"fallback\":{\"value\":true}"),
        Ending::Fallback(Fallback::Source(index)) => {
            out.extend_from_slice(b",\"fallback\":{\"source\":");
            write_string(&aggregate.sources[index].name, out);
            out.push(b'}');
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
