//! Why was this slow, why did this fail: single requests with their stages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Now;
use super::super::draw::{self, Bar};
use super::super::table::{Cell, Column, Kind, Row, Table, Tone};
use super::{Millis, Part};
use crate::telemetry::{Notable, Reason, ReasonClass, Sought, SourceSpan, Timings, utc};

/// Of each list; a route keeps no more than eight of either.
const MOST: usize = 40;
/// Of each route where all are shown, or the slowest route would fill the list.
const OF_A_ROUTE: usize = 3;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Only of this route.
    pub route: Option<String>,
    /// Of the last ten minutes, the slowest first.
    pub slowest: Vec<Request>,
    /// What did not end with `ok`, the latest first.
    pub failed: Vec<Request>,
    /// Not kept since the start, because too many came at once.
    pub left_out: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it ended, RFC 3339.
    pub at: String,
    pub route: String,
    pub method: String,
    /// Without its query.
    pub path: String,
    pub status: u16,
    pub reason: String,
    pub detail: Option<String>,
    /// What was done on purpose: `delay`, `abort`, ...
    pub fault: Option<String>,
    pub upstream: Option<String>,
    pub endpoint: Option<String>,
    pub attempts: u32,
    pub reused: bool,
    pub request_id: String,
    pub trace_id: Option<String>,
    pub total_ms: Millis,
    /// One after the other; what they leave of the total is Forebay's own time and the client's.
    pub stages: Vec<Stage>,
    /// Of an aggregate, beside each other.
    pub sources: Vec<Source>,
    pub sources_omitted: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// `rate_delay`, `queue`, `fault` (a delay on purpose), `connect`, `first_byte`, `body` or `sources`.
    pub name: String,
    pub start_ms: Millis,
    pub ms: Millis,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub name: String,
    pub outcome: String,
    pub reason: String,
    pub status: Option<u16>,
    pub start_ms: Millis,
    pub ms: Millis,
    /// Of `ms`: waiting for the in-flight limit of its upstream.
    pub queue_ms: Millis,
}

impl Requests {
    pub fn of(now: &Now<'_>, route: Option<&str>) -> Self {
        let sought = |sought| {
            let mut all = now.telemetry.notable(sought);
            all.retain(|(name, _)| route.is_none_or(|route| route == name));
            match sought {
                Sought::Slowest => all.sort_by_key(|(_, notable)| std::cmp::Reverse(notable.timings.total)),
                Sought::Failed => all.sort_by_key(|(_, notable)| std::cmp::Reverse(notable.at)),
            }
            if route.is_none() {
                let mut seen = BTreeMap::<String, usize>::new();
                all.retain(|(name, _)| {
                    let count = seen.entry(name.clone()).or_default();
                    *count += 1;
                    *count <= OF_A_ROUTE
                });
            }
            all.truncate(MOST);
            all.iter().map(|(route, notable)| Request::of(route, notable)).collect()
        };
        Self {
            route: route.map(str::to_owned),
            slowest: sought(Sought::Slowest),
            failed: sought(Sought::Failed),
            left_out: now.telemetry.notable_left_out(),
        }
    }

    pub fn parts(&self) -> Vec<Part> {
        let of = self.route.as_ref().map_or_else(String::new, |route| format!(" of route {route}"));
        let all = if self.route.is_some() {
            " <a href=\"/requests\">All routes</a>."
        } else {
            " Three of each route are shown: its name leads to all of it."
        };
        let note = format!(
            "Kept are the eight slowest of each route within ten minutes, and its latest eight that did not end with ok; {} \
             were left out because too many came at once. Queries, hosts, headers and clients are not kept: the access log \
             has the rest under the id.",
            self.left_out
        );
        let key = "<p class=\"key\"><i class=\"k rate_delay\"></i> rate delay <i class=\"k queue\"></i> queue \
                   <i class=\"k connect\"></i> connect <i class=\"k first_byte\"></i> first byte <i class=\"k body\"></i> body \
                   <i class=\"k source\"></i> source <i class=\"k failed\"></i> source that failed, or a fault on purpose</p>";
        vec![
            Part::Block { id: "about", html: format!("<p class=\"note\">{note}{all}</p>{key}"), text: note },
            Part::Table(table("slowest", format!("Slowest requests{of}"), &self.slowest)),
            Part::Table(table("failed", format!("Latest requests{of} that did not end with ok"), &self.failed)),
        ]
    }
}

fn table(id: &'static str, title: String, requests: &[Request]) -> Table {
    let column = |title, help, kind| Column { title, help, kind };
    let columns = vec![
        column("Request", "Method and path, without the query.", Kind::Text),
        column("Route", "As the configuration names it.", Kind::Text),
        column("Status", "Sent to the client; 0 when no answer was.", Kind::Number),
        column("Reason", "Why it ended: docs/reasons.md.", Kind::Text),
        column("Took", "From its first byte to the last of its answer.", Kind::Number),
        column("Where the time went", "Stages one after the other, then the sources of an aggregate.", Kind::Text),
    ];
    let mut rows: Vec<Row> = requests.iter().map(Request::row).collect();
    tell_apart(&mut rows);
    Table { id, title, empty: "None.", columns, rows }
}

/// Requests that could not be read have no id, and clients that are trusted may give the same one twice.
fn tell_apart(rows: &mut [Row]) {
    let mut seen = BTreeMap::<String, usize>::new();
    for row in rows {
        let count = seen.entry(row.key.clone()).or_default();
        *count += 1;
        if *count > 1 {
            row.key = format!("{} {count}", row.key);
        }
    }
}

impl Request {
    fn of(route: &str, notable: &Arc<Notable>) -> Self {
        let offset = waited(&notable.timings);
        Self {
            at: utc(notable.at),
            route: route.to_owned(),
            method: notable.method.clone(),
            path: notable.path.clone(),
            status: notable.status,
            reason: notable.reason.code().to_owned(),
            detail: notable.detail.clone(),
            fault: notable.fault.map(str::to_owned),
            upstream: notable.upstream.as_deref().map(str::to_owned),
            endpoint: notable.endpoint.map(|endpoint| endpoint.to_string()),
            attempts: notable.attempts,
            reused: notable.reused,
            request_id: notable.request_id.clone(),
            trace_id: notable.trace_id.clone(),
            total_ms: Millis::of(notable.timings.total),
            stages: stages(&notable.timings, notable.reason, !notable.sources.is_empty()),
            sources: notable.sources.iter().map(|span| Source::of(span, offset)).collect(),
            sources_omitted: notable.sources_omitted,
        }
    }

    fn row(&self) -> Row {
        let time = self.at.get(11..).unwrap_or_default();
        let id = match self.request_id.as_str() {
            "" => time.to_owned(),
            id => format!("{time} id {id}"),
        };
        let via = self.upstream.as_ref().map(|upstream| {
            let reused = if self.reused { ", connection reused" } else { "" };
            let attempts = if self.attempts == 1 { "" } else { "s" };
            let endpoint = self.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" {endpoint}"));
            format!("{upstream}{endpoint}, {} attempt{attempts}{reused}", self.attempts)
        });
        // Its head was no HTTP.
        let unread = "(unreadable)".to_owned();
        let mut path = self.path.clone();
        if path.chars().count() > 60 {
            path = path.chars().take(59).chain(['…']).collect();
        }
        let fault = self.fault.as_ref().map(|fault| format!("on purpose: {fault}"));
        let about = fault.into_iter().chain(self.detail.clone()).collect::<Vec<_>>().join("; ");
        let mut fall = Cell::text("").note(self.in_words());
        fall.drawing = draw::waterfall(&self.bars(), self.total_ms.0);
        let cells = vec![
            Cell::text(if self.method.is_empty() { unread } else { format!("{} {path}", self.method) }).note(id),
            Cell { link: Some(format!("/requests?route={}", self.route)), ..Cell::text(&self.route) }
                .note(via.unwrap_or_default()),
            Cell::text(self.status.to_string()),
            Cell::text(&self.reason).tone(self.tone()).note(about),
            Cell::text(self.total_ms.to_string()),
            fall,
        ];
        Row { key: format!("{} {}", self.at, self.request_id), cells }
    }

    fn tone(&self) -> Tone {
        let reason = Reason::ALL.iter().find(|reason| reason.code() == self.reason);
        match reason.map(|reason| reason.class()) {
            Some(ReasonClass::Success) if self.reason == "ok" => Tone::Plain,
            Some(ReasonClass::Success | ReasonClass::ClientError | ReasonClass::ClientGone) | None => Tone::Warn,
            Some(_) => Tone::Bad,
        }
    }

    /// `queue 3.00 ms, connect 1.00 ms, first byte 1.20 s, body 3.00 ms; user 20 ms, orders 2.00 s source_timeout`.
    fn in_words(&self) -> String {
        let stages = self.stages.iter().map(|stage| format!("{} {}", stage.name.replace('_', " "), stage.ms));
        let mut words = stages.collect::<Vec<_>>().join(", ");
        let sources = self.sources.iter().map(|source| {
            let reason = if source.reason == "ok" { String::new() } else { format!(" {}", source.reason) };
            format!("{} {}{reason}", source.name, source.ms)
        });
        let sources = sources.collect::<Vec<_>>().join(", ");
        if !sources.is_empty() {
            words = format!("{words}: {sources}");
        }
        if self.sources_omitted > 0 {
            words = format!("{words}, and {} more", self.sources_omitted);
        }
        if words.is_empty() { "never sent to an upstream".to_owned() } else { words }
    }

    fn bars(&self) -> Vec<Vec<Bar>> {
        let class = |name: &str| match name {
            "rate_delay" => "rate_delay",
            "queue" => "queue",
            "fault" => "failed",
            "connect" => "connect",
            "first_byte" => "first_byte",
            _ => "body",
        };
        let bar = |class, start: Millis, ms: Millis| Bar { class, start: start.0, length: ms.0 };
        let stages = self.stages.iter().filter(|stage| stage.name != "sources");
        let stages: Vec<Bar> = stages.map(|stage| bar(class(&stage.name), stage.start_ms, stage.ms)).collect();
        let mut rows = Vec::new();
        if !stages.is_empty() || self.sources.is_empty() {
            rows.push(stages);
        }
        for source in &self.sources {
            let ended = if matches!(source.outcome.as_str(), "ok" | "not_needed") { "source" } else { "failed" };
            let mut row = vec![bar(ended, source.start_ms, source.ms)];
            if source.queue_ms.0 > 0.0 {
                row.push(bar("queue", source.start_ms, source.queue_ms));
            }
            rows.push(row);
        }
        rows
    }
}

impl Source {
    fn of(span: &SourceSpan, offset: Duration) -> Self {
        Self {
            name: span.name.clone(),
            outcome: span.outcome.to_owned(),
            reason: span.reason.code().to_owned(),
            status: span.status,
            start_ms: Millis::of(offset + span.begun),
            ms: Millis::of(span.took),
            queue_ms: Millis::of(span.queue),
        }
    }
}

fn waited(timings: &Timings) -> Duration {
    [timings.rate_delay, timings.queue, timings.fault_delay].into_iter().flatten().sum()
}

/// One after the other. What an attempt did before its last connect is part of `connect`, as is choosing the endpoint.
fn stages(timings: &Timings, reason: Reason, aggregate: bool) -> Vec<Stage> {
    let mut at = Duration::ZERO;
    let mut stages = Vec::new();
    let mut stage = |name: &str, took: Option<Duration>| {
        let Some(took) = took.filter(|took| !took.is_zero()) else { return };
        stages.push(Stage { name: name.to_owned(), start_ms: Millis::of(at), ms: Millis::of(took) });
        at += took;
    };
    stage("rate_delay", timings.rate_delay);
    stage("queue", timings.queue);
    stage("fault", timings.fault_delay);
    if aggregate {
        let rest = timings.total.saturating_sub(waited(timings));
        stage("sources", Some(timings.upstream.unwrap_or(rest)));
        return stages;
    }
    stage("connect", timings.connect);
    match (timings.first_byte, timings.upstream) {
        (Some(first_byte), upstream) => {
            stage("first_byte", Some(first_byte));
            let before = first_byte + timings.connect.unwrap_or_default();
            stage("body", upstream.map(|upstream| upstream.saturating_sub(before)));
        }
        (None, upstream) => {
            let rest = upstream.map(|upstream| upstream.saturating_sub(timings.connect.unwrap_or_default()));
            stage(if ended_in_connect(reason) { "connect" } else { "first_byte" }, rest);
        }
    }
    stages
}

fn ended_in_connect(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoEndpoint
            | Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::TlsFailed
            | Reason::TlsTimeout
            | Reason::DeadlineConnect
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    fn shown(timings: &Timings, reason: Reason) -> Vec<(String, f64, f64)> {
        stages(timings, reason, false).into_iter().map(|stage| (stage.name, stage.start_ms.0, stage.ms.0)).collect()
    }

    fn stage(name: &str, start: f64, took: f64) -> (String, f64, f64) {
        (name.to_owned(), start, took)
    }

    #[test]
    fn stages_follow_each_other() {
        let timings = Timings {
            total: Duration::from_millis(100),
            rate_delay: ms(10),
            queue: ms(20),
            fault_delay: None,
            connect: ms(5),
            first_byte: ms(40),
            upstream: ms(60),
            response_started: ms(76),
        };

        let expected = [
            stage("rate_delay", 0.0, 10.0),
            stage("queue", 10.0, 20.0),
            stage("connect", 30.0, 5.0),
            stage("first_byte", 35.0, 40.0),
            stage("body", 75.0, 15.0),
        ];
        assert_eq!(shown(&timings, Reason::Ok), expected);
    }

    #[test]
    fn what_was_not_reached_is_not_shown() {
        let late = Timings { total: Duration::from_secs(1), queue: ms(0), upstream: ms(999), ..Timings::default() };
        assert_eq!(shown(&late, Reason::DeadlineFirstByte), [stage("first_byte", 0.0, 999.0)]);
        assert_eq!(shown(&late, Reason::ConnectTimeout), [stage("connect", 0.0, 999.0)]);

        let shed = Timings { total: Duration::from_millis(1), queue: ms(1), ..Timings::default() };
        assert_eq!(shown(&shed, Reason::QueueTimeout), [stage("queue", 0.0, 1.0)]);
    }
}
