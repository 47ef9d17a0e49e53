//! What is limited, how full it is, and what was turned away.

use serde::{Deserialize, Serialize};

use super::super::Now;
use super::super::table::{Cell, Column, Kind, Row, Table, Tone};
use super::{Millis, Part, or_dash};
use crate::config::model::{self, Config, RateMode};
use crate::load::report::format;
use crate::telemetry::reading;
use crate::units::show_rate;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub in_flight: Vec<InFlight>,
    pub rates: Vec<Rate>,
    pub clients: Vec<Clients>,
}

/// Counts are since the start, as in `/metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// `global`, `route` or `upstream`.
    pub scope: String,
    pub name: String,
    pub in_use: i64,
    pub limit: i64,
    pub waiting: i64,
    /// The most seen once a second, in a minute.
    pub waiting_peak: u32,
    pub capacity: i64,
    pub admitted: u64,
    pub full: u64,
    pub timeout: u64,
    pub abandoned: u64,
    /// Of all waits since the start, zero ones included.
    pub wait_p50_ms: Option<Millis>,
    pub wait_p99_ms: Option<Millis>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub name: String,
    /// `100/s`, as configured.
    pub rate: Option<String>,
    pub burst: Option<u32>,
    /// `reject`, `delay` or `shadow`.
    pub mode: Option<String>,
    pub admitted: u64,
    pub delayed: u64,
    pub rejected: u64,
    pub shadow_rejected: u64,
    pub waiting: i64,
    pub keys: i64,
    pub evictions: u64,
    pub overflows: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    pub route: String,
    /// In flight for each client, as configured.
    pub limit: Option<usize>,
    pub admitted: u64,
    pub rejected: u64,
    pub keys: i64,
    pub overflows: u64,
}

impl Limits {
    pub fn of(now: &Now<'_>) -> Self {
        let Some(reading) = now.history.newest() else {
            return Self { in_flight: vec![], rates: vec![], clients: vec![] };
        };
        let config = &now.view.version.config;
        let in_flight = |limit: &reading::InFlightLimit| InFlight {
            scope: limit.scope.to_owned(),
            name: limit.name.clone(),
            in_use: limit.in_use,
            limit: limit.limit,
            waiting: limit.depth,
            waiting_peak: now.history.deepest(limit.scope, &limit.name),
            capacity: limit.capacity,
            admitted: limit.admitted,
            full: limit.full,
            timeout: limit.timeout,
            abandoned: limit.abandoned,
            wait_p50_ms: limit.waits.quantile(0.5).map(Millis::of_seconds),
            wait_p99_ms: limit.waits.quantile(0.99).map(Millis::of_seconds),
        };
        Self {
            in_flight: reading.in_flight_limits.iter().map(in_flight).collect(),
            rates: reading.rate_limits.iter().map(|limit| Rate::of(config, limit)).collect(),
            clients: reading.client_limits.iter().map(|limit| Clients::of(config, limit)).collect(),
        }
    }

    pub fn parts(&self) -> Vec<Part> {
        vec![
            Part::Table(in_flight_table(&self.in_flight)),
            Part::Table(rate_table(&self.rates)),
            Part::Table(client_table(&self.clients)),
        ]
    }
}

impl Rate {
    fn of(config: &Config, limit: &reading::RateLimit) -> Self {
        let of_routes = config.routes.iter().flat_map(|route| &route.rate_limits);
        let written = config.rate_limits.iter().chain(of_routes).find(|written| written.name == limit.name);
        let mode = |written: &std::sync::Arc<model::RateLimit>| match written.mode {
            RateMode::Reject => "reject".to_owned(),
            RateMode::Delay => "delay".to_owned(),
            RateMode::Shadow => "shadow".to_owned(),
        };
        Self {
            name: limit.name.clone(),
            rate: written.map(|written| show_rate(written.rate.count, written.rate.per)),
            burst: written.map(|written| written.burst),
            mode: written.map(mode),
            admitted: limit.admitted,
            delayed: limit.delayed,
            rejected: limit.rejected,
            shadow_rejected: limit.shadow_rejected,
            waiting: limit.waiting,
            keys: limit.keys,
            evictions: limit.evictions,
            overflows: limit.overflows,
        }
    }
}

impl Clients {
    fn of(config: &Config, limit: &reading::ClientLimit) -> Self {
        let route = config.routes.iter().find(|route| route.name == limit.route);
        Self {
            route: limit.route.clone(),
            limit: route.and_then(|route| route.client_in_flight.as_ref()).map(|limit| limit.max),
            admitted: limit.admitted,
            rejected: limit.rejected,
            keys: limit.keys,
            overflows: limit.overflows,
        }
    }
}

const fn text(title: &'static str, help: &'static str) -> Column {
    Column { title, help, kind: Kind::Text }
}

const fn number(title: &'static str, help: &'static str) -> Column {
    Column { title, help, kind: Kind::Number }
}

fn count(value: u64) -> Cell {
    Cell::text(format::count(value))
}

/// A count that should stay at nothing.
fn turned_away(value: u64) -> Cell {
    count(value).tone(if value == 0 { Tone::Plain } else { Tone::Warn })
}

fn in_flight_table(limits: &[InFlight]) -> Table {
    let columns = vec![
        text("Limit", "Its scope and name."),
        number("In use", "Permits given out now / there are."),
        number("Waiting", "Now / the most seen in the last 60 s / how many may."),
        number("Admitted", "Since the start, as the following."),
        number("Full", "Shed at once: the queue was full."),
        number("Timed out", "Shed after waiting for the queue's timeout."),
        number("Abandoned", "Left the queue: the client was gone or the deadline had passed."),
        number("Wait p50", "Of all since the start, those that did not wait included."),
        number("Wait p99", "Of all since the start."),
    ];
    let row = |limit: &InFlight| {
        let tone = match limit {
            limit if limit.capacity > 0 && limit.waiting >= limit.capacity => Tone::Bad,
            limit if limit.waiting > 0 => Tone::Warn,
            _ => Tone::Plain,
        };
        let cells = vec![
            Cell::text(format!("{} {}", limit.scope, limit.name)),
            Cell::text(format!("{} / {}", limit.in_use, limit.limit)),
            Cell::text(format!("{} / {} / {}", limit.waiting, limit.waiting_peak, limit.capacity)).tone(tone),
            count(limit.admitted),
            turned_away(limit.full),
            turned_away(limit.timeout),
            count(limit.abandoned),
            Cell::text(or_dash(limit.wait_p50_ms)),
            Cell::text(or_dash(limit.wait_p99_ms)),
        ];
        Row { key: format!("{} {}", limit.scope, limit.name), cells }
    };
    Table {
        id: "in_flight",
        title: "In flight and queues".into(),
        empty: "No max_in_flight is configured.",
        columns,
        rows: limits.iter().map(row).collect(),
    }
}

fn rate_table(limits: &[Rate]) -> Table {
    let columns = vec![
        text("Limit", "Its name in metrics and in RateLimit headers."),
        number("Rate", "As configured."),
        number("Burst", "As configured."),
        text("Mode", "What happens beyond it."),
        number("Admitted", "Since the start, as the following."),
        number("Delayed", "Let through after a wait."),
        number("Rejected", "Answered 429."),
        number("In shadow", "Would have been rejected."),
        number("Waiting", "Now, in delay mode."),
        number("Keys", "In its table now."),
        number("Overflows", "Shared a bucket because the table was full."),
    ];
    let row = |limit: &Rate| {
        let cells = vec![
            Cell::text(&limit.name),
            Cell::text(or_dash(limit.rate.as_ref())),
            Cell::text(or_dash(limit.burst)),
            Cell::text(or_dash(limit.mode.as_ref())),
            count(limit.admitted),
            count(limit.delayed),
            turned_away(limit.rejected),
            count(limit.shadow_rejected),
            Cell::text(limit.waiting.to_string()),
            Cell::text(limit.keys.to_string()),
            turned_away(limit.overflows),
        ];
        Row { key: limit.name.clone(), cells }
    };
    Table {
        id: "rates",
        title: "Rate limits".into(),
        empty: "No rate_limit is configured.",
        columns,
        rows: limits.iter().map(row).collect(),
    }
}

fn client_table(limits: &[Clients]) -> Table {
    let columns = vec![
        text("Route", "Limits what each of its clients has in flight."),
        number("Limit", "For each client, as configured."),
        number("Admitted", "Since the start, as the following."),
        number("Rejected", "Answered 429."),
        number("Clients", "With requests in flight now."),
        number("Overflows", "Shared a count because the table was full."),
    ];
    let row = |limit: &Clients| {
        let cells = vec![
            Cell::text(&limit.route),
            Cell::text(or_dash(limit.limit)),
            count(limit.admitted),
            turned_away(limit.rejected),
            Cell::text(limit.keys.to_string()),
            turned_away(limit.overflows),
        ];
        Row { key: limit.route.clone(), cells }
    };
    Table {
        id: "clients",
        title: "In flight per client".into(),
        empty: "No limit per client is configured.",
        columns,
        rows: limits.iter().map(row).collect(),
    }
}
