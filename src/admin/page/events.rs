//! Live data as server-sent events: after each reading, what of a view has changed. A stream ends when the life of its
//! connection does; a browser comes back. When the client leaves, the stream is dropped with its connection: it has no task
//! of its own.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::rendered::{Html, Piece, Rendered};
use super::views::Name;
use crate::admin::{Admin, Ends};

/// How soon a browser comes back.
const HELLO: &str = "retry: 1000\n\n";

pub type Events = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A stream of this view; `None` when too many are open.
pub fn open(admin: &Arc<Admin>, name: Name, route: Option<String>, ends: Ends) -> Option<Events> {
    let place = Arc::clone(&admin.page.streams).try_acquire_owned().ok()?;
    let viewer = Viewer {
        admin: Arc::clone(admin),
        watched: (name, route),
        readings: admin.page.readings.subscribe(),
        ends,
        sent: Sent::default(),
        greeted: false,
        _place: place,
    };
    Some(Box::pin(futures_util::stream::unfold(viewer, Viewer::next)))
}

struct Viewer {
    admin: Arc<Admin>,
    watched: (Name, Option<String>),
    readings: watch::Receiver<u64>,
    ends: Ends,
    sent: Sent,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    /// The next event; the first one at once.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if !self.greeted {
            self.greeted = true;
            // What the client shows may be older than a stream that it had before.
            return Some((Bytes::from_static(HELLO.as_bytes()), self));
        }
        self.ends.closing.run_until_cancelled(self.readings.changed()).await?.ok()?;
        let (admin, watched) = (Arc::clone(&self.admin), self.watched.clone());
        let mut sent = std::mem::take(&mut self.sent);
        let made = tokio::task::spawn_blocking(move || {
            let event = sent.event(&admin.page.rendered.get(&admin, &watched));
            (event, sent)
        });
        let (event, sent) = made.await.ok()?;
        self.sent = sent;
        let event = self.admin.held.hold(event.into_bytes()).await;
        Some((event.read(self.ends.cut.clone()), self))
    }
}

/// What a client has been sent, as hashes.
#[derive(Debug, Default)]
struct Sent {
    blocks: HashMap<&'static str, u64>,
    /// By table, and there by the keys of rows.
    tables: HashMap<&'static str, HashMap<String, u64>>,
}

impl Sent {
    /// `{"state": {"html": "..."}, "routes": {"keys": [...], "rows": {"slow": "<th>..."}}}`: changed blocks, and of each
    /// table all keys in order with the changed rows.
    fn event(&mut self, rendered: &Rendered) -> String {
        let mut changes = Map::new();
        for piece in &rendered.0 {
            match piece {
                Piece::Block { id, html } => {
                    if self.blocks.insert(id, html.hash) != Some(html.hash) {
                        changes.insert((*id).to_owned(), json!({ "html": html.text }));
                    }
                }
                Piece::Table { id, rows } => {
                    changes.insert((*id).to_owned(), self.table(id, rows));
                }
            }
        }
        format!("data: {}\n\n", Value::Object(changes))
    }

    fn table(&mut self, id: &'static str, rows: &[(String, Html)]) -> Value {
        let known = self.tables.entry(id).or_default();
        let changed = rows.iter().filter(|(key, html)| known.get(key) != Some(&html.hash));
        let changed: Map<String, Value> = changed.map(|(key, html)| (key.clone(), json!(html.text))).collect();
        // Rows that are gone are not remembered.
        *known = rows.iter().map(|(key, html)| (key.clone(), html.hash)).collect();
        let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
        json!({ "keys": keys, "rows": changed })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{Cell, Column, Kind, Row, Table};
    use super::super::views::{Part, View};
    use super::*;

    fn view(block: &str, rows: &[(&str, &str)]) -> Rendered {
        let columns = vec![Column { title: "a", help: "", kind: Kind::Text }];
        let rows = rows.iter().map(|(key, text)| Row { key: (*key).into(), cells: vec![Cell::text(*text)] });
        let table = Table { id: "t", title: String::new(), empty: "", columns, rows: rows.collect() };
        let block = Part::Block { id: "b", html: block.into(), text: String::new() };
        Rendered::of(View { json: Value::Null, parts: vec![block, Part::Table(table)] })
    }

    fn sent(sent: &mut Sent, view: &Rendered) -> Value {
        let event = sent.event(view);
        let data = event.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n")).expect("one event");
        assert!(!data.contains('\n'));
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn only_what_changed_is_sent_again() {
        let mut state = Sent::default();
        let row = |text: &str| format!("<th scope=\"row\" class=\"text\">{text}</th>");

        let first = sent(&mut state, &view("one\n", &[("x", "1"), ("y", "2")]));
        let second = sent(&mut state, &view("one\n", &[("y", "2"), ("x", "3")]));
        let third = sent(&mut state, &view("two", &[]));
        let fourth = sent(&mut state, &view("two", &[("y", "2")]));

        assert_eq!(first["b"]["html"], "one\n");
        assert_eq!(first["t"]["rows"], json!({ "x": row("1"), "y": row("2") }));
        assert_eq!(second, json!({ "t": { "keys": ["y", "x"], "rows": { "x": row("3") } } }));
        assert_eq!(third, json!({ "b": { "html": "two" }, "t": { "keys": [], "rows": {} } }));
        assert_eq!(fourth["t"]["rows"]["y"], row("2"), "it had gone in between");
    }
}
