//! What `forebay explain` says of an aggregate: what is called when, how long that may take, what it may hold.

use std::time::Duration;

use serde_json::Value as Json;

use super::super::model::aggregate::{
    Aggregate, BodyShape, Collision, ForEach, Format, OnError, Source, Strategy, TooMany,
};
use super::super::settings::Settings;
use super::fit::show_bytes;
use super::graph::Graph;
use super::memory;
use crate::units::show_duration;

/// Longer texts are cut.
const MOST_SHOWN: usize = 44;

/// An aggregate, and what of it may be shown: templates may hold secrets, which are masked in the settings.
pub struct Shown<'a> {
    pub route: &'a str,
    pub aggregate: &'a Aggregate,
    pub settings: &'a Settings,
}

impl Shown<'_> {
    /// A setting of a source, as it may be shown.
    fn setting(&self, source: &Source, key: &str) -> Option<&Json> {
        let path = format!("route.{}.aggregate.source.{}.{key}", self.route, source.name);
        self.settings.get(&path).map(|setting| &setting.value)
    }

    fn text(&self, source: &Source, key: &str) -> String {
        self.setting(source, key).and_then(Json::as_str).unwrap_or_default().to_owned()
    }
}

/// What is called when, laid out in columns.
pub fn plan(shown: &Shown<'_>, deadline: Option<Duration>) -> Vec<String> {
    let aggregate = shown.aggregate;
    let graph = Graph::of(aggregate);
    let begins = graph.begins();
    let row = |source: usize| Row::new(shown, source, left(deadline, begins[source]));
    let mut groups: Vec<(String, Vec<Row>)> = Vec::new();
    if graph.in_turn {
        let turns = graph.stages().into_iter().flatten().map(row).collect();
        groups.push(("one after the other, until one gives a usable answer".to_owned(), turns));
    } else {
        let stages = graph.stages();
        let count = stages.len();
        for (index, stage) in stages.into_iter().enumerate() {
            let title = stage_title(aggregate.strategy, index, count, stage.len());
            groups.push((title, stage.into_iter().map(row).collect()));
        }
    }
    let standby: Vec<Row> = (0..aggregate.sources.len()).filter(|source| graph.is_standby(*source)).map(row).collect();
    if !standby.is_empty() {
        groups.push(("only when another one fails".to_owned(), standby));
    }
    lay_out(&groups)
}

fn stage_title(strategy: Strategy, index: usize, count: usize, size: usize) -> String {
    let at_once = match (size, count) {
        (1, _) => String::new(),
        (2, 1) => "both at once".to_owned(),
        (2, 2..) => ", both at once".to_owned(),
        (_, 2..) => format!(", all {size} at once"),
        _ => "all at once".to_owned(),
    };
    let enough = match strategy {
        Strategy::First => "; the first usable answer is enough".to_owned(),
        Strategy::Quorum(wanted) => format!("; {wanted} usable answers are enough"),
        Strategy::All | Strategy::Fallback => String::new(),
    };
    match (count, size) {
        (1, 1) => "one call".to_owned(),
        (1, _) => format!("{at_once}{enough}"),
        _ => format!("stage {}{at_once}{enough}", index + 1),
    }
}

/// What is left of the deadline for a source that begins as late as possible.
fn left(deadline: Option<Duration>, begin: Duration) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_sub(begin))
}

/// A source in columns, with lines below it.
struct Row {
    columns: [String; 5],
    below: Vec<String>,
}

impl Row {
    fn new(shown: &Shown<'_>, index: usize, left: Option<Duration>) -> Self {
        let aggregate = shown.aggregate;
        let source = &aggregate.sources[index];
        let mut below = Vec::new();
        if let Some(for_each) = &source.for_each {
            below.push(items(shown, source, for_each));
        }
        if !source.after.is_empty() {
            let names: Vec<&str> = source.after.iter().map(|other| aggregate.sources[*other].name.as_str()).collect();
            below.push(format!("waits for {}", names.join(" and ")));
        }
        let columns = [
            source.name.clone(),
            source.upstream.name.clone(),
            cut(&request(shown, source)),
            within(source.timeout, left),
            failing(shown, source),
        ];
        Self { columns, below }
    }
}

fn items(shown: &Shown<'_>, source: &Source, for_each: &ForEach) -> String {
    let beyond = match for_each.too_many {
        TooMany::Cut => "the first",
        TooMany::Refuse => "at most",
    };
    format!(
        "for each of {}: {} at once, {beyond} {}",
        shown.text(source, "for_each"),
        for_each.concurrency,
        for_each.max_items
    )
}

/// `GET /users/{id}?page={query.page}`.
fn request(shown: &Shown<'_>, source: &Source) -> String {
    let mut text = format!("{} {}", source.method, shown.text(source, "path"));
    let query = shown.setting(source, "query").and_then(Json::as_object);
    for (index, (name, value)) in query.into_iter().flatten().enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("{mark}{name}={value}"));
    }
    text
}

/// The longest time it can have.
fn within(timeout: Option<Duration>, left: Option<Duration>) -> String {
    match (timeout, left) {
        (Some(timeout), Some(left)) if left.is_zero() => {
            format!("within {}, if any is left", show_duration(timeout))
        }
        (Some(timeout), Some(left)) if left < timeout => {
            format!("within {}, what is left of {}", show_duration(left), show_duration(timeout))
        }
        (Some(timeout), _) => format!("within {}", show_duration(timeout)),
        (None, Some(_)) => "within the deadline".to_owned(),
        (None, None) => "without a limit".to_owned(),
    }
}

/// What becomes of its place when it fails.
fn failing(shown: &Shown<'_>, source: &Source) -> String {
    let race = matches!(shown.aggregate.strategy, Strategy::First | Strategy::Fallback);
    match &source.on_error {
        // The others stand in for it.
        _ if race => String::new(),
        _ if source.required => "required".to_owned(),
        OnError::Embed => "else an error in its place".to_owned(),
        OnError::Omit => "else left out".to_owned(),
        OnError::Fail => "else the request fails".to_owned(),
        OnError::Value(_) => {
            let value = shown.setting(source, "on_error").and_then(|on_error| on_error.get("value"));
            format!("else {}", cut(&value.map(Json::to_string).unwrap_or_default()))
        }
        OnError::Source(other) => format!("else {}", shown.aggregate.sources[*other].name),
    }
}

fn lay_out(groups: &[(String, Vec<Row>)]) -> Vec<String> {
    let width = |column: usize| {
        let rows = groups.iter().flat_map(|(_, rows)| rows);
        rows.map(|row| row.columns[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut lines = Vec::new();
    for (title, rows) in groups {
        lines.push(format!("  {title}"));
        for row in rows {
            let padded = row.columns.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
            lines.push(format!("    {}", padded.collect::<Vec<_>>().join("  ")));
            let indent = 4 + widths[0] + 2 + widths[1] + 2;
            lines.extend(row.below.iter().map(|text| format!("{:indent$}{text}", "")));
        }
    }
    lines
}

/// How the answers become one.
pub fn answer(aggregate: &Aggregate) -> Vec<String> {
    let race = matches!(aggregate.strategy, Strategy::First | Strategy::Fallback);
    let raw = aggregate.sources.iter().any(|source| source.format == Format::Raw);
    let shape = match &aggregate.body {
        _ if raw => "the body is passed through with its content type",
        BodyShape::Respond(_) => "the body is laid out by `respond`",
        BodyShape::Keyed if race => "the body is the winner's answer",
        BodyShape::Keyed => "the body has a member for each source",
        BodyShape::Flat(Collision::Error) => "the body has all members; two of one name are a 502",
        BodyShape::Flat(Collision::First) => "the body has all members; of one name the first source's",
        BodyShape::Flat(Collision::Last) => "the body has all members; of one name the last source's",
    };
    let mut lines = vec![shape.to_owned()];
    if aggregate.partial_status != 200 {
        lines.push(format!("a partial answer has status {}", aggregate.partial_status));
    }
    if aggregate.meta {
        lines.push("`_meta` says what became of each source".to_owned());
    }
    if let Some(background) = &aggregate.background {
        lines.push(format!(
            "clients get 202 at once; results stay at {} for {}",
            super::super::value::path::show_pattern(&background.results),
            show_duration(background.keep)
        ));
    }
    lines.into_iter().map(|line| format!("  {line}")).collect()
}

/// A step of the longest way: a source, and its timeout.
pub fn longest_way(aggregate: &Aggregate) -> Vec<(String, Duration)> {
    let way = Graph::of(aggregate).longest();
    let step = |index: usize| {
        let source = &aggregate.sources[index];
        Some((format!("source {}", source.name), source.timeout?))
    };
    way.steps.into_iter().filter_map(step).collect()
}

/// The names of the sources that take what is left of the deadline.
pub fn unlimited(aggregate: &Aggregate) -> Vec<&str> {
    aggregate.sources.iter().filter(|source| source.timeout.is_none()).map(|source| source.name.as_str()).collect()
}

/// What answers can hold, for one request and for all in flight.
pub fn memory(aggregate: &Aggregate, in_flight: Option<usize>) -> Vec<String> {
    let bound = memory::of(aggregate);
    let limited = if bound.request < bound.sources {
        format!("`max_bytes`; while they arrive {} at most", show_bytes(bound.peak))
    } else {
        "the limits of its sources together".to_owned()
    };
    let mut rows = vec![("answers to one request".to_owned(), format!("{}, {limited}", show_bytes(bound.request)))];
    match in_flight.into_iter().chain(aggregate.background.as_ref().map(|background| background.max_running)).min() {
        Some(count) => {
            rows.push((format!("{count} requests in flight"), show_bytes(bound.peak.saturating_mul(count as u64))));
        }
        None => rows.push(("requests in flight".to_owned(), "any number; `max_in_flight` gives a bound".to_owned())),
    }
    if let Some(background) = &aggregate.background {
        rows.push(("results that are kept".to_owned(), show_bytes(background.max_bytes)));
    }
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.into_iter().map(|(what, bytes)| format!("  {what:width$}  {bytes}")).collect()
}

fn cut(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.char_indices().nth(MOST_SHOWN) {
        Some((at, _)) => format!("{}...", &plain[..at]),
        None => plain,
    }
}
