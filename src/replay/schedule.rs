//! From records to a run: which are sent, when, and in what order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Record;
use crate::load::SECOND;
use crate::load::arrivals::{Stream, unit};
use crate::load::report::format::many;
use crate::units;

/// Requests of a run at most: each takes a few words of memory for its instant and its place.
const MOST_REQUESTS: usize = 20_000_000;
/// A copy falls at most so long after its record: after a pause of the night it belongs to the evening.
const MOST_SHIFT: u64 = SECOND;
/// Requests that have a line of their own in reports; the others share one, so that reports stay small.
const MOST_GROUPS: usize = 20;

/// What of a recording is sent, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Twice as fast at 2.
    pub speed: f64,
    /// How many of each record.
    pub multiply: u32,
    pub window: Window,
    /// Also send what may change something.
    pub unsafe_methods: bool,
    pub seed: u64,
}

/// A part of a recording, in time since its first record: `10s..2m`, `10s..`, `..2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: Duration,
    pub until: Option<Duration>,
}

impl Window {
    pub const ALL: Window = Window { from: Duration::ZERO, until: None };

    fn contains(&self, at: Duration) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| units::parse_duration(text).map_err(|error| format!("`{text}` {error}"));
        let (from, until) = text.split_once("..").ok_or("write a part such as `10s..2m`, `10s..` or `..2m`")?;
        let from = if from.is_empty() { Duration::ZERO } else { time(from)? };
        let until = if until.is_empty() { None } else { Some(time(until)?) };
        if until.is_some_and(|until| until <= from) {
            return Err("the part ends before it begins".to_owned());
        }
        Ok(Self { from, until })
    }
}

/// What is sent when.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Nanoseconds after the start, ascending.
    pub instants: Arc<[u64]>,
    /// The record that is sent at each of them.
    pub records: Vec<u32>,
    pub notes: Vec<String>,
}

impl Schedule {
    /// The time in which all requests are due: whole seconds, as reports have rows for.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.instants.last().map_or(0, |last| last / SECOND + 1))
    }

    /// The most requests in any second.
    pub fn peak_rate(&self) -> f64 {
        let mut first = 0;
        let counts = self.instants.iter().enumerate().map(|(index, at)| {
            while at - self.instants[first] >= SECOND {
                first += 1;
            }
            index - first + 1
        });
        counts.max().unwrap_or_default() as f64
    }
}

/// Lays out a run. `records` are in the order of time, as imports are.
///
/// # Errors
///
/// When nothing is left to be sent, or too much.
pub fn lay_out(records: &[Record], wish: &Wish) -> Result<Schedule, String> {
    let first = records.first().map_or(0, |record| record.at);
    let in_window = |record: &Record| wish.window.contains(Duration::from_nanos(record.at - first));
    let is_sent = |record: &Record| wish.unsafe_methods || record.method.is_safe();
    let part = records.iter().zip(0_u32..).filter(|(record, _)| in_window(record));
    let (sent, unsafe_ones): (Vec<_>, Vec<_>) = part.partition(|(record, _)| is_sent(record));

    let mut notes = Vec::new();
    if !unsafe_ones.is_empty() {
        notes.push(format!(
            "not sent: {} of methods that may change something; --unsafe-methods sends them",
            many(unsafe_ones.len() as u64, "request")
        ));
    }
    if sent.is_empty() {
        return Err(notes.pop().unwrap_or_else(|| "no record is in the window".to_owned()));
    }
    if sent.len().saturating_mul(wish.multiply as usize) > MOST_REQUESTS {
        return Err(format!("more than {MOST_REQUESTS} requests; choose a part with --window"));
    }
    // A window begins at its beginning, not at its first record; the recording at its first record.
    let zero = first + u64::try_from(wish.window.from.as_nanos()).unwrap_or(u64::MAX);
    let due: Vec<(u64, u32)> =
        sent.iter().map(|(record, index)| (scaled(record.at - zero, wish.speed), *index)).collect();
    let mut all = due.clone();
    for copy in 1..wish.multiply {
        all.extend(shifted(&due, copy, wish.seed));
    }
    if wish.multiply > 1 {
        all.sort_by_key(|(at, _)| *at);
        notes.push(format!(
            "each record is sent {} times: once when it was due, and the copies at random before the next one, so the \
             rate is a multiple while bursts do not become sharper",
            wish.multiply
        ));
    }
    let (instants, records): (Vec<u64>, Vec<u32>) = all.into_iter().unzip();
    Ok(Schedule { instants: instants.into(), records, notes })
}

fn scaled(nanoseconds: u64, speed: f64) -> u64 {
    // Whole nanoseconds stay what they are.
    if speed == 1.0 { nanoseconds } else { (nanoseconds as f64 / speed).round() as u64 }
}

/// One more of each, somewhere between it and the one after it.
fn shifted(due: &[(u64, u32)], copy: u32, seed: u64) -> impl Iterator<Item = (u64, u32)> {
    let gap = |index: usize| match due.get(index + 1) {
        Some((next, _)) => (next - due[index].0).min(MOST_SHIFT),
        None => 0,
    };
    due.iter().enumerate().map(move |(index, (at, record))| {
        let number = u64::from(copy) << 32 | index as u64;
        (at + (unit(seed, Stream::Copy, number) * gap(index) as f64) as u64, *record)
    })
}

/// Requests that are the same but for their time, and how reports name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// A record for each different request.
    pub different: Vec<u32>,
    /// For each record, its place in `different`.
    pub of_record: Vec<u32>,
    /// `GET /users`; the last is `other requests` if there are too many.
    pub groups: Vec<String>,
    /// For each record, its place in `groups`.
    pub group_of_record: Vec<u32>,
}

/// Finds out which records are the same request.
pub fn requests(records: &[Record]) -> Requests {
    let (mut different, mut of_record) = (Vec::new(), Vec::with_capacity(records.len()));
    let mut known: HashMap<_, u32> = HashMap::new();
    let mut group_counts: BTreeMap<String, u64> = BTreeMap::new();
    for (record, index) in records.iter().zip(0..) {
        let mut fields: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        fields.sort_unstable();
        let place = *known.entry((&record.method, &record.path, fields, &record.body)).or_insert_with(|| {
            different.push(index);
            different.len() as u32 - 1
        });
        of_record.push(place);
        *group_counts.entry(group(record)).or_default() += 1;
    }
    let mut ranked: Vec<(&String, &u64)> = group_counts.iter().collect();
    ranked.sort_by_key(|(_, count)| Reverse(**count));
    let mut groups: Vec<String> = ranked.iter().take(MOST_GROUPS).map(|(name, _)| (*name).clone()).collect();
    let named: HashMap<&str, u32> = groups.iter().map(String::as_str).zip(0..).collect();
    let others = groups.len() as u32;
    let place = |record: &Record| named.get(group(record).as_str()).copied().unwrap_or(others);
    let group_of_record = records.iter().map(place).collect();
    if group_counts.len() > groups.len() {
        groups.push("other requests".to_owned());
    }
    Requests { different, of_record, groups, group_of_record }
}

fn group(record: &Record) -> String {
    let path = record.path.split('?').next().unwrap_or_default();
    format!("{} {path}", record.method)
}

/// The records of a schedule, for conversions that send nothing.
pub fn part(records: &[Record], window: Window) -> Range<usize> {
    let first = records.first().map_or(0, |record| record.at);
    let place = |time: Duration| records.partition_point(|record| Duration::from_nanos(record.at - first) < time);
    place(window.from)..window.until.map_or(records.len(), place)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
