//! The file as written, and from there to what is used: each value by itself while it is read, which gives its error the
//! line and the caret, then the combinations.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;

use super::{Capacity, Change, Discipline, Factor, Fault, Schedule, ScheduleFrom, Settings, SettingsError, Upstream};
use crate::config::secrets::shows_secret;
use crate::latency::Latency;
use crate::latency::written::{ReadFile, WrittenLatency, duration};

/// How many connections Python's `http.server` leaves waiting in the backlog (`request_queue_size`).
const SYNC_QUEUE: usize = 5;
const DEFAULT_QUEUE: usize = 1024;
/// A body is in memory, for each request.
const LARGEST_BODY: u64 = 64 << 20;
/// Far beyond any use, and far from where nanoseconds overflow.
const LONGEST_TIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest period of a change: work is reckoned from one change to the next.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

const DEFAULT_BODY: &str = "{\"upstream\": \"{upstream}\", \"path\": \"{path}\", \"n\": {n}}\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    seed: u64,
    metrics: Option<Metrics>,
    #[serde(default)]
    upstream: BTreeMap<String, Spanned<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { address = \"127.0.0.1:9910\" }")]
struct Metrics {
    address: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    address: SocketAddr,
    latency: Option<Spanned<WrittenLatency>>,
    workers: Option<NonZeroUsize>,
    queue: Option<usize>,
    discipline: Option<WrittenDiscipline>,
    sync: bool,
    #[serde(deserialize_with = "status")]
    status: StatusCode,
    #[serde(deserialize_with = "errors")]
    errors: Vec<(StatusCode, f64)>,
    faults: Vec<Fault>,
    schedule: Vec<Spanned<WrittenChange>>,
    schedule_from: ScheduleFrom,
    body: Option<String>,
    #[serde(deserialize_with = "body_size")]
    body_size: usize,
    #[serde(deserialize_with = "header_value")]
    content_type: HeaderValue,
    allow_control: bool,
}

/// With the word for an upstream in which there is nothing to choose.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenDiscipline {
    Fifo,
    Lifo,
    Ps,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenChange {
    #[serde(deserialize_with = "bounded_time")]
    at: Duration,
    #[serde(default, rename = "for", deserialize_with = "some_time")]
    lasts: Option<Duration>,
    #[serde(default, deserialize_with = "some_time")]
    every: Option<Duration>,
    #[serde(default)]
    stall: bool,
    latency: Option<WrittenLatency>,
    factor: Option<WrittenFactor>,
    workers: Option<NonZeroUsize>,
    errors: Option<Errors>,
    faults: Option<Vec<Fault>>,
}

#[derive(Deserialize)]
struct Errors(#[serde(deserialize_with = "errors")] Vec<(StatusCode, f64)>);

impl Default for Written {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            latency: None,
            workers: None,
            queue: None,
            discipline: None,
            sync: false,
            status: StatusCode::OK,
            errors: Vec::new(),
            faults: Vec::new(),
            schedule: Vec::new(),
            schedule_from: ScheduleFrom::Start,
            body: None,
            body_size: 0,
            content_type: HeaderValue::from_static("application/json"),
            allow_control: false,
        }
    }
}

pub fn parse(text: &str, read: ReadFile<'_>) -> Result<Settings, SettingsError> {
    let file: File = toml::from_str(text).map_err(|error| of_sidecar(text).unwrap_or_else(|| syntax(text, error)))?;
    if file.upstream.is_empty() {
        return Err(SettingsError::Empty);
    }
    let resolve = |(name, written): (String, Spanned<Written>)| {
        let place = Place { upstream: &name, line: line_of(text, written.span().start) };
        written.into_inner().resolve(place, text, read)
    };
    let upstreams = file.upstream.into_iter().map(resolve).collect::<Result<_, _>>()?;
    Ok(Settings { seed: file.seed, metrics: file.metrics.map(|metrics| metrics.address), upstreams })
}

/// The parser's error, which quotes the line unless that may hold a secret.
fn syntax(text: &str, error: toml::de::Error) -> SettingsError {
    match error.span() {
        Some(span) if shows_secret(text, span.start) => {
            SettingsError::NotQuoted { line: line_of(text, span.start), problem: error.message().to_owned() }
        }
        _ => SettingsError::Syntax(error),
    }
}

/// Says it once where the file is one for the sidecar, instead of calling the first of its keys unknown.
fn of_sidecar(text: &str) -> Option<SettingsError> {
    let tables: toml::Table = text.parse().ok()?;
    let upstreams = tables.get("upstream").and_then(toml::Value::as_table).into_iter().flatten();
    let has_endpoints = upstreams.into_iter().any(|(_, upstream)| upstream.get("endpoints").is_some());
    let table = ["route", "listener"].into_iter().find(|table| tables.contains_key(*table));
    let telling = table.map(|table| format!("has [{table}]"));
    let telling = telling.or_else(|| has_endpoints.then(|| "has upstreams with `endpoints`".to_owned()))?;
    Some(SettingsError::ForSidecar { telling })
}

pub fn default_upstream(name: String) -> Upstream {
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let place = Place { upstream: &name, line: 0 };
    Written::default().resolve(place, "", &nothing).expect("the defaults are valid together and name no file")
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Where a mistake is.
#[derive(Clone, Copy)]
struct Place<'a> {
    upstream: &'a str,
    line: usize,
}

impl Place<'_> {
    fn conflict(self, problem: impl Into<String>) -> SettingsError {
        SettingsError::Conflict { upstream: self.upstream.to_owned(), line: self.line, problem: problem.into() }
    }

    fn latency(self, written: WrittenLatency, read: ReadFile<'_>) -> Result<Latency, SettingsError> {
        written.resolve(read).map_err(|mistake| SettingsError::Measured {
            upstream: self.upstream.to_owned(),
            line: self.line,
            file: mistake.file,
            problem: mistake.problem,
        })
    }
}

impl Written {
    fn resolve(self, place: Place<'_>, text: &str, read: ReadFile<'_>) -> Result<Upstream, SettingsError> {
        let capacity = self.capacity().map_err(|problem| place.conflict(problem))?;
        let discipline = self.discipline(capacity).map_err(|problem| place.conflict(problem))?;
        check_probabilities(&self.errors, &self.faults).map_err(|problem| place.conflict(problem))?;
        let resolve_change = |change: Spanned<WrittenChange>| {
            let place = Place { line: line_of(text, change.span().start), ..place };
            change.into_inner().resolve(place, capacity, read)
        };
        let changes = self.schedule.into_iter().map(resolve_change).collect::<Result<Vec<_>, _>>()?;
        if changes.iter().filter(|change| change.stall && change.every.is_some()).count() > 1 {
            return Err(place.conflict("only one stall may come again (`every`): several could leave no time to work"));
        }
        let resolve_latency = |latency: Spanned<WrittenLatency>| {
            let place = Place { line: line_of(text, latency.span().start), ..place };
            place.latency(latency.into_inner(), read)
        };
        let latency = self.latency.map(resolve_latency).transpose()?;
        Ok(Upstream {
            name: place.upstream.to_owned(),
            address: self.address,
            latency: latency.unwrap_or_default(),
            capacity,
            discipline,
            status: self.status,
            errors: self.errors,
            faults: self.faults,
            schedule: Schedule { changes },
            schedule_from: self.schedule_from,
            body: self.body.unwrap_or_else(|| DEFAULT_BODY.to_owned()),
            body_size: self.body_size,
            content_type: self.content_type,
            allow_control: self.allow_control,
        })
    }

    fn capacity(&self) -> Result<Capacity, &'static str> {
        match (self.sync, self.workers, self.queue) {
            (true, Some(_), _) => Err("`sync` has exactly one worker; remove `workers`"),
            (true, None, queue) => Ok(Capacity::Sync { queue: queue.unwrap_or(SYNC_QUEUE) }),
            (false, Some(workers), queue) => Ok(Capacity::Workers { workers, queue: queue.unwrap_or(DEFAULT_QUEUE) }),
            (false, None, Some(_)) => Err("`queue` means nothing without a limit; add `workers` or `sync = true`"),
            (false, None, None) => Ok(Capacity::Unlimited),
        }
    }

    fn discipline(&self, capacity: Capacity) -> Result<Discipline, &'static str> {
        let Some(written) = self.discipline else { return Ok(Discipline::Fifo) };
        match (written, capacity) {
            (WrittenDiscipline::Fifo, Capacity::Workers { .. } | Capacity::Sync { .. }) => Ok(Discipline::Fifo),
            (WrittenDiscipline::Lifo, Capacity::Workers { .. }) => Ok(Discipline::Lifo),
            (WrittenDiscipline::Ps, Capacity::Workers { .. }) => Ok(Discipline::Ps),
            (WrittenDiscipline::None, Capacity::Unlimited) => Ok(Discipline::Fifo),
            (WrittenDiscipline::None, _) => {
                Err("`discipline = \"none\"` is for an upstream in which nobody waits; remove `workers` and `sync`")
            }
            (_, Capacity::Unlimited) => Err("`discipline` means nothing without a limit; add `workers`"),
            (_, Capacity::Sync { .. }) => Err("a `sync` server takes connections as they come; remove `discipline`"),
        }
    }
}

impl WrittenChange {
    fn resolve(self, place: Place<'_>, capacity: Capacity, read: ReadFile<'_>) -> Result<Change, SettingsError> {
        self.check(capacity).map_err(|problem| place.conflict(problem))?;
        let Self { at, lasts, every, stall, latency, factor, workers, errors, faults } = self;
        let latency = latency.map(|latency| place.latency(latency, read)).transpose()?;
        let factor = factor.map(|WrittenFactor(factor)| factor);
        let errors = errors.map(|Errors(errors)| errors);
        Ok(Change { at, lasts, every, stall, latency, factor, workers, errors, faults })
    }

    fn check(&self, capacity: Capacity) -> Result<(), &'static str> {
        let Self { lasts, every, stall, latency, factor, workers, errors, faults, .. } = self;
        if !stall && latency.is_none() && factor.is_none() && workers.is_none() && errors.is_none() && faults.is_none()
        {
            return Err(
                "a change that changes nothing; add `stall`, `latency`, `factor`, `workers`, `errors` or `faults`",
            );
        }
        if *stall && (latency.is_some() || factor.is_some() || workers.is_some()) {
            return Err(
                "nothing is worked on during a stall; remove what else changes, or write a [[schedule]] of its own",
            );
        }
        if workers.is_some() && !matches!(capacity, Capacity::Workers { .. }) {
            return Err("`workers` of a change means nothing here; give the upstream itself `workers`");
        }
        if lasts.is_none() && factor.as_ref().is_some_and(|WrittenFactor(factor)| factor.from != factor.to) {
            return Err("a ramp needs its length; add `for`");
        }
        if let Some(every) = every {
            if lasts.is_none_or(|lasts| lasts >= *every) {
                return Err("`every` needs a `for` that is shorter");
            }
            if *every < SHORTEST_PERIOD {
                return Err("`every` is at least \"1ms\"");
            }
        }
        check_probabilities(errors.as_ref().map_or(&[], |Errors(errors)| errors), faults.as_deref().unwrap_or_default())
    }
}

fn check_probabilities(errors: &[(StatusCode, f64)], faults: &[Fault]) -> Result<(), &'static str> {
    if errors.iter().map(|(_, probability)| probability).sum::<f64>() > 1.0 {
        return Err("the probabilities of `errors` add up to more than 1");
    }
    if faults.iter().map(|fault| fault.probability).sum::<f64>() > 1.0 {
        return Err("the probabilities of `faults` add up to more than 1");
    }
    Ok(())
}

/// `3.0`, or a ramp: `{ from = 1.0, to = 3.0 }`.
struct WrittenFactor(Factor);

impl<'de> Deserialize<'de> for WrittenFactor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Ramp {
            from: f64,
            to: f64,
        }

        struct FactorVisitor;

        impl<'de> de::Visitor<'de> for FactorVisitor {
            type Value = Factor;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number such as 3.0, or a ramp such as { from = 1.0, to = 3.0 }")
            }

            fn visit_f64<E: de::Error>(self, factor: f64) -> Result<Factor, E> {
                Ok(Factor { from: factor, to: factor })
            }

            fn visit_i64<E: de::Error>(self, factor: i64) -> Result<Factor, E> {
                self.visit_f64(factor as f64)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Factor, A::Error> {
                let Ramp { from, to } = Ramp::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Factor { from, to })
            }
        }

        let factor = deserializer.deserialize_any(FactorVisitor)?;
        let is_possible = |value: f64| (0.0..=1e6).contains(&value);
        if !is_possible(factor.from) || !is_possible(factor.to) {
            return Err(de::Error::custom("a factor lies between 0 and 1000000"));
        }
        Ok(Self(factor))
    }
}

fn bounded_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time = duration(deserializer)?;
    if time > LONGEST_TIME { Err(de::Error::custom("a time of the schedule is at most \"365d\"")) } else { Ok(time) }
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let time = bounded_time(deserializer)?;
    if time.is_zero() { Err(de::Error::custom("a length is more than zero")) } else { Ok(Some(time)) }
}

pub fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(de::Error::custom("a probability lies between 0 and 1")) }
}

fn body_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = String::deserialize(deserializer)?;
    let size = crate::units::parse_size(&text)
        .map_err(|error| de::Error::custom(format!("{text:?} {}; {}", error.problem, error.help)))?;
    usize::try_from(size.min(LARGEST_BODY + 1))
        .ok()
        .filter(|size| *size as u64 <= LARGEST_BODY)
        .ok_or_else(|| de::Error::custom("a body has at most \"64MiB\""))
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    final_status(u16::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn errors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(StatusCode, f64)>, D::Error> {
    #[derive(Deserialize)]
    struct Probability(#[serde(deserialize_with = "probability")] f64);

    BTreeMap::<String, Probability>::deserialize(deserializer)?
        .into_iter()
        .map(|(status, Probability(probability))| {
            let number = status.parse().map_err(|_| NOT_A_STATUS).map_err(de::Error::custom)?;
            Ok((final_status(number).map_err(de::Error::custom)?, probability))
        })
        .collect()
}

fn header_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderValue, D::Error> {
    HeaderValue::try_from(String::deserialize(deserializer)?)
        .map_err(|_| de::Error::custom("not a header value: only visible ASCII characters are allowed"))
}

const NOT_A_STATUS: &str = "not the status of an answer; write a number from 200 to 599";

/// A status that ends an exchange: 1xx would leave the client waiting.
pub fn final_status(number: u16) -> Result<StatusCode, &'static str> {
    if !(200..=599).contains(&number) {
        return Err(NOT_A_STATUS);
    }
    StatusCode::from_u16(number).map_err(|_| NOT_A_STATUS)
}
