//! Routes and upstreams: how many, how fast, how full, and how it came to be within the last two minutes.

use serde::{Deserialize, Serialize};

use super::super::Now;
use super::super::history::{RATE_SECONDS, Recent, Ring, SPARK_SECONDS, Second, WINDOW_SECONDS};
use super::super::table::{Cell, Column, Kind, Row, Table, Tone};
use super::{Millis, Part, or_dash};
use crate::load::report::format;
use crate::telemetry::UNMATCHED;
use crate::telemetry::reading::{Ends, Faults, InFlightLimit};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Over so many seconds `rate` is taken,
    pub rate_seconds: usize,
    /// and so many `window`.
    pub window_seconds: usize,
    pub routes: Vec<Line>,
    pub upstreams: Vec<Line>,
    /// What is done on purpose, where `[faults]` are enabled.
    pub faults: Vec<Faults>,
}

/// A route, or an upstream, whose attempts are counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    /// Since the start; the sum over the reasons in `/metrics`.
    pub total: u64,
    /// Of `total`: neither successes nor ended by the client's leaving.
    pub failed: u64,
    /// Per second.
    pub rate: f64,
    pub window: Window,
    pub in_flight: Level,
    pub queue: Option<Level>,
    /// Of a route.
    pub deadline_ms: Option<Millis>,
    /// Of an upstream: endpoints that take requests, of so many.
    pub endpoints: Option<[usize; 2]>,
    pub history: Past,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub ended: u64,
    pub failed: u64,
    pub p50_ms: Option<Millis>,
    pub p99_ms: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    pub now: u64,
    /// In flight: of the window of `metrics.peak_window`. Waiting: the most seen once a second, in a minute.
    pub peak: u64,
    pub limit: Option<u64>,
}

/// One value for each of the last seconds, the oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub ended_per_second: Vec<f64>,
    pub failed_per_second: Vec<f64>,
    pub in_flight_mean: Vec<f64>,
    pub p99_ms: Vec<Option<Millis>>,
}

impl Overview {
    pub fn of(now: &Now<'_>) -> Self {
        let Some(reading) = now.history.newest() else {
            return Self {
                rate_seconds: RATE_SECONDS,
                window_seconds: WINDOW_SECONDS,
                routes: vec![],
                upstreams: vec![],
                faults: vec![],
            };
        };
        let config = &now.view.version.config;
        let limit = |scope: &str, name: &str| {
            reading.in_flight_limits.iter().find(|limit| limit.scope == scope && limit.name == name)
        };
        let routes = last(&reading.routes, UNMATCHED).map(|(name, ends)| {
            let route = config.routes.iter().find(|route| route.name == *name);
            let mut line = Line::of(now, "route", name, ends, now.history.routes.get(name), limit("route", name));
            line.deadline_ms = route.and_then(|route| route.deadline.after()).map(Millis::of);
            line
        });
        let upstreams = reading.upstreams.iter().map(|(name, ends)| {
            let past = now.history.upstreams.get(name);
            let mut line = Line::of(now, "upstream", name, ends, past, limit("upstream", name));
            let upstream = config.upstreams.iter().find(|upstream| upstream.name == *name);
            line.endpoints = upstream.map(|upstream| {
                let up = |endpoint: &&_| now.telemetry.endpoint_up(name, endpoint).get() == 1;
                [upstream.endpoints.iter().filter(up).count(), upstream.endpoints.len()]
            });
            line
        });
        Self {
            rate_seconds: RATE_SECONDS,
            window_seconds: WINDOW_SECONDS,
            routes: routes.collect(),
            upstreams: upstreams.collect(),
            faults: reading.faults.clone(),
        }
    }

    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Table(self.route_table()), Part::Table(self.upstream_table())];
        if !self.faults.is_empty() {
            parts.push(Part::Table(self.fault_table()));
        }
        parts
    }

    fn route_table(&self) -> Table {
        let mut columns = vec![Column { title: "Route", help: "As the configuration names it.", kind: Kind::Text }];
        columns.extend(columns_of("Requests"));
        columns.push(Column { title: "Deadline", help: "The longest time a request may take.", kind: Kind::Number });
        let row = |line: &Line| {
            let mut name = Cell::text(&line.name);
            name.link = Some(format!("/requests?route={}", line.name));
            let mut cells = vec![name];
            cells.extend(line.cells());
            cells.push(Cell::text(or_dash(line.deadline_ms)));
            Row { key: line.name.clone(), cells }
        };
        Table {
            id: "routes",
            title: "Routes".into(),
            empty: "No numbers yet: the first come within a second.",
            columns,
            rows: self.routes.iter().map(row).collect(),
        }
    }

    fn fault_table(&self) -> Table {
        let number = |title, help| Column { title, help, kind: Kind::Number };
        let columns = vec![
            Column { title: "Route", help: "Whose requests meet faults.", kind: Kind::Text },
            number("Armed", "Faults that have not ended."),
            number("Active", "Requests that meet one now."),
            number("Delayed", "Since the start, as the following."),
            number("Aborted", "Answered with a failure."),
            number("Reset", "Broken off."),
            number("Slowed", "Sent at a bandwidth."),
            number("Skipped", "Would have met one, but max_active did."),
        ];
        let row = |faults: &Faults| {
            let armed = Cell::text(faults.armed.to_string());
            let mut cells = vec![Cell::text(&faults.route)];
            cells.push(armed.tone(if faults.armed > 0 { Tone::Warn } else { Tone::Plain }));
            cells.push(Cell::text(faults.active.to_string()));
            let counts = [faults.delayed, faults.aborted, faults.reset, faults.slowed, faults.skipped];
            cells.extend(counts.map(|count| Cell::text(format::count(count))));
            Row { key: faults.route.clone(), cells }
        };
        Table {
            id: "faults",
            title: "Faults on purpose".into(),
            empty: "None.",
            columns,
            rows: self.faults.iter().map(row).collect(),
        }
    }

    fn upstream_table(&self) -> Table {
        let mut columns = vec![Column { title: "Upstream", help: "As the configuration names it.", kind: Kind::Text }];
        columns.extend(columns_of("Attempts"));
        columns.push(Column { title: "Endpoints", help: "Those that take requests, of all.", kind: Kind::Number });
        let row = |line: &Line| {
            let mut cells = vec![Cell::text(&line.name)];
            cells.extend(line.cells());
            cells.push(match line.endpoints {
                None => Cell::text("-"),
                Some([up, all]) => {
                    let tone = if up == all { Tone::Plain } else { Tone::Bad };
                    Cell::text(format!("{up} / {all}")).tone(tone)
                }
            });
            Row { key: line.name.clone(), cells }
        };
        Table {
            id: "upstreams",
            title: "Upstreams".into(),
            empty: "The configuration has none.",
            columns,
            rows: self.upstreams.iter().map(row).collect(),
        }
    }
}

/// This name after all others.
pub fn last<'r>(all: &'r [(String, Ends)], name: &'static str) -> impl Iterator<Item = &'r (String, Ends)> {
    let is_last = move |(found, _): &&(String, Ends)| found == name;
    all.iter().filter(move |entry| !is_last(entry)).chain(all.iter().filter(is_last))
}

fn columns_of(total: &'static str) -> Vec<Column> {
    let number = |title, help| Column { title, help, kind: Kind::Number };
    let line = |title, help| Column { title, help, kind: Kind::Line };
    vec![
        number(total, "Ended since the start."),
        number("Rate", "Ended per second, over the last 10 s."),
        line("2 min", "Ended per second in each of the last 120 s."),
        number("Failed", "Of those that ended in the last 60 s; clients that left do not count."),
        number("p50", "Half of the last 60 s took at most so long (to 9 %)."),
        number("p99", "All but 1 % of the last 60 s took at most so long (to 9 %)."),
        line("2 min p99", "The p99 of each of the last 120 s."),
        number("In flight now / peak / limit", "Now / the peak of metrics.peak_window / the limit of max_in_flight."),
        number("Queue now / peak / limit", "Waiting now / the most seen in the last 60 s / how many may."),
    ]
}

impl Line {
    fn of(
        now: &Now<'_>,
        scope: &'static str,
        name: &str,
        ends: &Ends,
        past: Option<&Ring<Second>>,
        limit: Option<&InFlightLimit>,
    ) -> Self {
        let recent = Recent::of(past);
        let quantile = |q| recent.quantile(q).map(Millis::of_seconds);
        Self {
            name: name.to_owned(),
            total: ends.total(),
            failed: ends.failed(),
            rate: rounded(recent.rate),
            window: Window {
                ended: recent.ended,
                failed: recent.failed,
                p50_ms: quantile(0.5),
                p99_ms: quantile(0.99),
            },
            in_flight: Level {
                now: ends.in_flight.now,
                peak: ends.in_flight.peak,
                limit: limit.map(|limit| whole(limit.limit)),
            },
            queue: limit.map(|limit| Level {
                now: whole(limit.depth),
                peak: u64::from(now.history.deepest(scope, name)),
                limit: Some(whole(limit.capacity)),
            }),
            deadline_ms: None,
            endpoints: None,
            history: Past::of(past),
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let window = &self.window;
        let share = window.failed as f64 / window.ended.max(1) as f64;
        let failing = match share {
            share if share >= 0.05 => Tone::Bad,
            share if share >= 0.01 => Tone::Warn,
            _ => Tone::Plain,
        };
        let failed = if window.failed == 0 { "0".into() } else { format::percent(window.failed, window.ended) };
        let late = match (window.p99_ms, self.deadline_ms) {
            (Some(p99), Some(deadline)) if p99.0 >= 0.9 * deadline.0 => Tone::Warn,
            _ => Tone::Plain,
        };
        let p99 = self.history.p99_ms.iter().map(|p99| p99.map_or(f64::NAN, |p99| p99.0)).collect();
        vec![
            Cell::text(format::count(self.total)),
            Cell::text(format::per_second(self.rate)),
            Cell::line(self.history.ended_per_second.clone()),
            Cell::text(failed).tone(failing),
            Cell::text(or_dash(window.p50_ms)),
            Cell::text(or_dash(window.p99_ms)).tone(late),
            Cell::line(p99),
            level(Some(&self.in_flight), |level| match level.limit {
                Some(limit) if level.now >= limit => Tone::Warn,
                _ => Tone::Plain,
            }),
            level(self.queue.as_ref(), |level| match level.limit {
                Some(limit) if limit > 0 && level.now >= limit => Tone::Bad,
                _ if level.now > 0 => Tone::Warn,
                _ => Tone::Plain,
            }),
        ]
    }
}

fn level(level: Option<&Level>, tone: impl Fn(&Level) -> Tone) -> Cell {
    let Some(level) = level else { return Cell::text("-") };
    Cell::text(format!("{} / {} / {}", level.now, level.peak, or_dash(level.limit))).tone(tone(level))
}

impl Past {
    fn of(ring: Option<&Ring<Second>>) -> Self {
        let seconds: Vec<&Second> = ring.into_iter().flat_map(|ring| ring.last(SPARK_SECONDS)).collect();
        let per_second =
            |count: u32, second: &Second| rounded(f64::from(count) / second.length.as_secs_f64().max(0.001));
        Self {
            ended_per_second: seconds.iter().map(|second| per_second(second.ended, second)).collect(),
            failed_per_second: seconds.iter().map(|second| per_second(second.failed, second)).collect(),
            in_flight_mean: seconds.iter().map(|second| rounded(f64::from(second.in_flight))).collect(),
            p99_ms: seconds.iter().map(|second| second.quantile(0.99).map(Millis::of_seconds)).collect(),
        }
    }
}

fn whole(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// To two decimals: more are noise, and there are many of them.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
