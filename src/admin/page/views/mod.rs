//! The views: plain data, which is their JSON, and the tables and blocks that a browser and a terminal show of it.

pub mod config;
pub mod latency;
pub mod limits;
pub mod overview;
pub mod requests;
pub mod state;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Now;
use super::table::{Table, Tone, printable};
use crate::load::report::format;

/// Which view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    Overview,
    Latency,
    Requests,
    Limits,
    Config,
}

impl Name {
    pub const ALL: [Self; 5] = [Self::Overview, Self::Latency, Self::Requests, Self::Limits, Self::Config];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Latency => "latency",
            Self::Requests => "requests",
            Self::Limits => "limits",
            Self::Config => "config",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Latency => "Latency",
            Self::Requests => "Requests",
            Self::Limits => "Limits",
            Self::Config => "Configuration",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == word)
    }
}

/// A view as programs get it and as people do.
#[derive(Debug)]
pub struct View {
    pub json: Value,
    pub parts: Vec<Part>,
}

/// A piece of a view that is updated on its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Table(Table),
    Block { id: &'static str, html: String, text: String },
}

/// Makes the view of this name; of one route where it has a choice.
pub fn make(name: Name, route: Option<&str>, now: &Now<'_>) -> View {
    let mut state = state::State::of(now);
    if let (Name::Latency | Name::Requests, Some(route)) = (name, route) {
        state.notices.extend(state::unknown_route(now, route));
    }
    let (mut json, parts) = match name {
        Name::Overview => both(&overview::Overview::of(now), overview::Overview::parts),
        Name::Latency => both(&latency::Latency::of(now, route), latency::Latency::parts),
        Name::Requests => both(&requests::Requests::of(now, route), requests::Requests::parts),
        Name::Limits => both(&limits::Limits::of(now), limits::Limits::parts),
        Name::Config => (config::json(now.view), config::parts(now.view)),
    };
    json["state"] = to_json(&state);
    let mut all = vec![state.part()];
    all.extend(parts);
    View { json, parts: all }
}

/// For a terminal of this width; `paint` may colour what is not plain. Nothing that a value holds steers the terminal.
pub fn text(parts: &[Part], width: usize, paint: &dyn Fn(Tone, &str) -> String) -> String {
    let text = |part: &Part| match part {
        Part::Table(table) => table.text(width, paint),
        Part::Block { text, .. } => text.split('\n').map(printable).collect::<Vec<_>>().join("\n"),
    };
    parts.iter().map(text).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

fn both<V: Serialize>(view: &V, parts: impl Fn(&V) -> Vec<Part>) -> (Value, Vec<Part>) {
    (to_json(view), parts(view))
}

fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("views are plain data with text as keys")
}

/// Milliseconds to three decimals, so to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub f64);

impl Millis {
    pub fn of(time: std::time::Duration) -> Self {
        Self((time.as_secs_f64() * 1e6).round() / 1e3)
    }

    pub fn of_seconds(seconds: f64) -> Self {
        Self((seconds * 1e6).round() / 1e3)
    }

    pub fn seconds(self) -> f64 {
        self.0 / 1e3
    }
}

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format::time(self.0 * 1e6))
    }
}

/// `-` for what there is not.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
