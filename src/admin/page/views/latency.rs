//! How long requests take: of each route beside its limits, and a heat map of one.

use serde::{Deserialize, Serialize};

use super::super::Now;
use super::super::draw;
use super::super::history::{KEEP, Recent, Second, WINDOW_SECONDS};
use super::super::table::{Cell, Column, Kind, Row, Table, Tone};
use super::overview::last;
use super::{Millis, Part, or_dash};
use crate::config::model::{Config, RouteAction};
use crate::load::report::format;
use crate::load::report::svg::escape;
use crate::telemetry::{Latencies, UNMATCHED};

/// Of a column of the heat map.
const COLUMN_SECONDS: usize = 3;
/// Of a heat map, each a quarter of an octave: from 1 ms to 16 s at least; what is faster counts in the lowest.
const MAX_ROWS: i32 = 56;
const MIN_ROWS: i32 = 16;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub window_seconds: usize,
    pub routes: Vec<Quantiles>,
    /// Of the route that was asked for, or of the one with the most requests.
    pub heat: Option<Heat>,
}

/// Of a route, over the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub route: String,
    pub ended: u64,
    pub p50_ms: Option<Millis>,
    pub p90_ms: Option<Millis>,
    pub p99_ms: Option<Millis>,
    pub max_ms: Option<Millis>,
    pub limits: Vec<Limit>,
}

/// A time that ends requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    pub name: String,
    pub ms: Millis,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    pub route: String,
    pub seconds_per_column: usize,
    /// Rows, the lowest first: each from the bound before it, a quarter of an octave below.
    pub upper_ms: Vec<Millis>,
    /// Columns, the oldest first, each with the requests that ended in it by row.
    pub columns: Vec<Vec<u64>>,
    /// Of the lowest row: its bound is 2^(first/4) s.
    first: i32,
}

impl Latency {
    pub fn of(now: &Now<'_>, wanted: Option<&str>) -> Self {
        let config = &now.view.version.config;
        let all = now.history.newest().map_or(&[][..], |reading| &reading.routes);
        let routes: Vec<Quantiles> = last(all, UNMATCHED).map(|(name, _)| quantiles(now, config, name)).collect();
        let shown = match wanted {
            Some(wanted) => routes.iter().find(|route| route.route == wanted),
            // Of those that had equally many, the first.
            None => routes.iter().rev().max_by_key(|route| kept(now, &route.route)),
        };
        let heat = shown.map(|shown| {
            let ring = now.history.routes.get(&shown.route);
            let seconds: Vec<&Second> = ring.into_iter().flat_map(|ring| ring.last(KEEP)).collect();
            Heat::of(&shown.route, &seconds, &shown.limits)
        });
        Self { window_seconds: WINDOW_SECONDS, routes, heat }
    }

    pub fn parts(&self) -> Vec<Part> {
        let heat = self.heat.as_ref().map_or_else(|| (String::new(), String::new()), |heat| self.drawn(heat));
        vec![Part::Block { id: "heat", html: heat.0, text: heat.1 }, Part::Table(self.table())]
    }

    fn drawn(&self, heat: &Heat) -> (String, String) {
        let row = self.routes.iter().find(|row| row.route == heat.route);
        let limits = row.map_or(&[][..], |row| &row.limits);
        let lines: Vec<(String, f64)> =
            limits.iter().map(|limit| (format!("{} {}", limit.name, limit.ms), limit.ms.seconds())).collect();
        let label = row.map_or_else(String::new, |row| {
            format!(
                "Durations of route {} over the last {KEEP} s; of the last {WINDOW_SECONDS} s p50 {}, p99 {}",
                row.route,
                or_dash(row.p50_ms),
                or_dash(row.p99_ms)
            )
        });
        let drawn = draw::heat(&draw::Heat {
            first: heat.first,
            columns: &heat.columns,
            room: KEEP / COLUMN_SECONDS,
            seconds_per_column: COLUMN_SECONDS as u64,
            lines: &lines,
            label: &label,
        });
        let title = format!("<h2>Route {}: how long requests took</h2>", escape(&heat.route));
        let key = "<p class=\"key\">Few <i class=\"k h1\"></i><i class=\"k h3\"></i><i class=\"k h5\"></i>\
                   <i class=\"k h8\"></i> many; the line is what ends a request. Another route: its name below.</p>";
        (format!("{title}<figure>{drawn}</figure>{key}"), format!("{label}\n"))
    }

    fn table(&self) -> Table {
        let number = |title, help| Column { title, help, kind: Kind::Number };
        let columns = vec![
            Column { title: "Route", help: "Leads to its heat map.", kind: Kind::Text },
            number("Requests", "Ended in the last 60 s."),
            number("p50", "Half took at most so long (to 9 %)."),
            number("p90", "All but 10 % took at most so long."),
            number("p99", "All but 1 % took at most so long."),
            number("Longest", "None took longer."),
            number("Limit", "The shortest of what ends a request by time."),
            number("p99 of limit", "Below 100 %, or the limit ends requests."),
        ];
        Table {
            id: "latencies",
            title: format!("Durations of the last {WINDOW_SECONDS} s"),
            empty: "No numbers yet: the first come within a second.",
            columns,
            rows: self.routes.iter().map(Quantiles::row).collect(),
        }
    }
}

impl Quantiles {
    fn row(&self) -> Row {
        let mut name = Cell::text(&self.route);
        name.link = Some(format!("/latency?route={}", self.route));
        let shortest = self.limits.iter().min_by(|a, b| a.ms.0.total_cmp(&b.ms.0));
        let used = shortest.zip(self.p99_ms).map(|(limit, p99)| p99.0 / limit.ms.0);
        let tone = if used.is_some_and(|used| used >= 0.9) { Tone::Warn } else { Tone::Plain };
        let cells = vec![
            name,
            Cell::text(format::count(self.ended)),
            Cell::text(or_dash(self.p50_ms)),
            Cell::text(or_dash(self.p90_ms)),
            Cell::text(or_dash(self.p99_ms)),
            Cell::text(or_dash(self.max_ms)),
            Cell::text(or_dash(shortest.map(|limit| format!("{} ({})", limit.ms, limit.name)))),
            Cell::text(or_dash(used.map(|used| format!("{:.0} %", 100.0 * used)))).tone(tone),
        ];
        Row { key: self.route.clone(), cells }
    }
}

/// Requests that its heat map would show.
fn kept(now: &Now<'_>, route: &str) -> u64 {
    let ring = now.history.routes.get(route);
    ring.into_iter().flat_map(|ring| ring.last(KEEP)).map(|second| u64::from(second.ended)).sum()
}

fn quantiles(now: &Now<'_>, config: &Config, name: &str) -> Quantiles {
    let recent = Recent::of(now.history.routes.get(name));
    let quantile = |q| recent.quantile(q).map(Millis::of_seconds);
    Quantiles {
        route: name.to_owned(),
        ended: recent.ended,
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        max_ms: recent.longest().map(Millis::of),
        limits: limits(config, name),
    }
}

/// What ends a request of this route by time: its deadline, and how long its upstream may take to begin.
fn limits(config: &Config, name: &str) -> Vec<Limit> {
    let Some(route) = config.routes.iter().find(|route| route.name == name) else { return Vec::new() };
    let mut limits = Vec::new();
    if let Some(deadline) = route.deadline.after() {
        limits.push(Limit { name: "deadline".to_owned(), ms: Millis::of(deadline) });
    }
    if let RouteAction::Proxy { upstream } = &route.action {
        limits.push(Limit { name: "first_byte".to_owned(), ms: Millis::of(upstream.timeouts.first_byte) });
    }
    limits
}

impl Heat {
    fn of(route: &str, seconds: &[&Second], limits: &[Limit]) -> Self {
        let deadline = limits.iter().map(|limit| limit.ms.seconds()).reduce(f64::min);
        let all = Latencies::sum(seconds.iter().map(|second| &second.latencies));
        let hit = all.buckets().map(|(upper, _)| row_of(upper));
        // The line is seen also where nothing comes near it, and a map of nothing has a scale as well.
        let rows: Vec<i32> = hit.chain(deadline.map(row_of)).collect();
        // An octave above the line: what lies beyond it is to be seen.
        let last = rows.iter().copied().max().unwrap_or(0).max(deadline.map_or(0, row_of) + 4);
        let first = rows.iter().copied().min().unwrap_or(0).clamp(last - MAX_ROWS + 1, last - MIN_ROWS + 1);
        let bound = |row: i32| Millis::of_seconds(2f64.powf(f64::from(row) / 4.0));
        // From the newest backwards, so that a column keeps its seconds as long as it is shown whole.
        let mut columns: Vec<Vec<u64>> = seconds
            .rchunks(COLUMN_SECONDS)
            .map(|seconds| {
                let mut counts = vec![0; (last - first + 1) as usize];
                for (upper, count) in Latencies::sum(seconds.iter().map(|second| &second.latencies)).buckets() {
                    counts[(row_of(upper) - first).max(0) as usize] += count;
                }
                counts
            })
            .collect();
        columns.reverse();
        Self {
            route: route.to_owned(),
            seconds_per_column: COLUMN_SECONDS,
            upper_ms: (first..=last).map(bound).collect(),
            columns,
            first,
        }
    }
}

/// The row whose bound, 2^(row/4) s, is the next above. Native buckets end at eighths of an octave, so none is cut.
fn row_of(upper: f64) -> i32 {
    (upper.log2() * 4.0 - 1e-6).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;
    use std::time::Duration;

    #[test]
    fn rows_are_quarters_of_octaves_and_reach_beyond_the_limit() {
        let telemetry = Telemetry::quiet();
        let upstream = telemetry.upstream("u");
        for ms in [260, 700, 707, 710] {
            upstream.attempt(crate::telemetry::Reason::Ok, Duration::from_millis(ms), None, None);
        }
        let reading = telemetry.reading(tokio::time::Instant::now());
        let second = Second { latencies: reading.upstreams[0].1.latencies.clone(), ..Second::default() };
        let empty = Second::default();
        let seconds = [&empty, &second, &empty, &empty, &empty];
        let limits = [Limit { name: "deadline".into(), ms: Millis(3000.0) }];

        let heat = Heat::of("u", &seconds, &limits);

        assert_eq!(heat.upper_ms.last().map(|bound| bound.0.round()), Some(6727.0));
        assert_eq!(heat.columns.len(), 2, "two seconds, then the newest three");
        let row = |ms: f64| heat.upper_ms.iter().position(|bound| (bound.0 - ms).abs() < 0.2).unwrap();
        assert_eq!((heat.columns[0][row(297.3)], heat.columns[0][row(707.1)], heat.columns[0][row(840.9)]), (1, 2, 1));
        assert_eq!(heat.columns[1].iter().sum::<u64>(), 0);
    }
}
