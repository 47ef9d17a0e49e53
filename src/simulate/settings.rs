//! What `forebay simulate -c upstreams.toml` reads: the simulated upstreams as written and as used (one type, because
//! every value has a plain default).
//!
//! Strict: an unknown key, a wrong unit or an impossible combination is an error that shows the line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::value::MapAccessDeserializer};

/// How many connections Python's `http.server` leaves waiting in the backlog (`request_queue_size`).
const SYNC_QUEUE: usize = 5;
const DEFAULT_QUEUE: usize = 1024;

/// All simulated upstreams of one process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Every draw (latency, error, fault) is a function of this, the upstream's name and the request's number.
    pub seed: u64,
    pub upstreams: Vec<Upstream>,
}

/// One simulated upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: String,
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    pub latency: Latency,
    pub capacity: Capacity,
    pub status: StatusCode,
    /// The part of the requests that is answered with another status.
    pub errors: Vec<(StatusCode, f64)>,
    pub faults: Vec<Fault>,
    /// A template: `{path}`, `{last}` (the last segment of the path), `{n}` (the number of the request, from 0) and
    /// `{upstream}` are replaced.
    pub body: String,
    pub content_type: HeaderValue,
    /// Obey `?delay=250ms&status=503` of a request.
    pub allow_control: bool,
}

impl Upstream {
    /// An upstream that answers at once with its name, on a free loopback port.
    pub fn new(name: impl Into<String>) -> Self {
        Self::from_raw(name.into(), RawUpstream::default()).expect("the defaults are valid together")
    }
}

/// How long a request is held once a worker has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    Fixed(Duration),
    Uniform { min: Duration, max: Duration },
}

/// How many requests are worked on at once, and what happens to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    Unlimited,
    /// `workers` requests at once, `queue` more wait, the next one is answered 503.
    Workers {
        workers: NonZeroUsize,
        queue: usize,
    },
    /// One connection at a time, as a synchronous server does it: the others are not even read. `queue` connections
    /// wait in the process, where they can be counted, about as many again in the kernel's backlog; the clients beyond
    /// them do not get through connecting.
    Sync {
        queue: usize,
    },
}

/// A way to answer wrongly, and how often it is taken.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    #[serde(deserialize_with = "probability")]
    pub probability: f64,
}

/// The ways to answer wrongly.
///
/// Over HTTP/2 the kinds that break a connection or write broken bytes reset the stream instead: the other streams of
/// the connection belong to other requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// RST in place of an answer.
    ResetBeforeHead,
    /// The head, half of the body, RST.
    ResetMidBody,
    /// The head, half of the body, and an orderly close.
    Truncate,
    /// No answer at all; the connection stays open.
    StallBeforeHead,
    /// The head, half of the body, then nothing more.
    StallMidBody,
    /// The body arrives `bytes` at a time, one piece per `interval`.
    Drip {
        bytes: NonZeroUsize,
        #[serde(deserialize_with = "duration")]
        interval: Duration,
    },
    /// Bytes that are no HTTP.
    Garbage,
    /// `Content-Length` says half of what follows, so that the rest looks like another answer.
    LengthTooShort,
}

impl Settings {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let raw: RawSettings = toml::from_str(text).map_err(SettingsError::Syntax)?;
        if raw.upstream.is_empty() {
            return Err(SettingsError::Empty);
        }
        let upstreams =
            raw.upstream.into_iter().map(|(name, raw)| Upstream::from_raw(name, raw)).collect::<Result<_, _>>()?;
        Ok(Self { seed: raw.seed, upstreams })
    }
}

/// Why a file of simulated upstreams cannot be used.
#[derive(Debug)]
pub enum SettingsError {
    /// Not TOML, an unknown key or a value of the wrong kind; shows the line.
    Syntax(toml::de::Error),
    /// Not a single `[upstream.NAME]`.
    Empty,
    /// Values that do not go together, in the upstream of this name.
    Conflict { upstream: String, problem: &'static str },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "{error}"),
            Self::Empty => f.write_str("no upstream; write at least one [upstream.NAME] table"),
            Self::Conflict { upstream, problem } => write!(f, "[upstream.{upstream}]: {problem}"),
        }
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Syntax(error) => Some(error),
            Self::Empty | Self::Conflict { .. } => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    upstream: BTreeMap<String, RawUpstream>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawUpstream {
    address: SocketAddr,
    latency: Latency,
    workers: Option<NonZeroUsize>,
    queue: Option<usize>,
    sync: bool,
    #[serde(deserialize_with = "status")]
    status: StatusCode,
    #[serde(deserialize_with = "errors")]
    errors: Vec<(StatusCode, f64)>,
    faults: Vec<Fault>,
    body: Option<String>,
    #[serde(deserialize_with = "header_value")]
    content_type: HeaderValue,
    allow_control: bool,
}

impl Default for RawUpstream {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            latency: Latency::Fixed(Duration::ZERO),
            workers: None,
            queue: None,
            sync: false,
            status: StatusCode::OK,
            errors: Vec::new(),
            faults: Vec::new(),
            body: None,
            content_type: HeaderValue::from_static("application/json"),
            allow_control: false,
        }
    }
}

const DEFAULT_BODY: &str = "{\"upstream\": \"{upstream}\", \"path\": \"{path}\", \"n\": {n}}\n";

impl Upstream {
    fn from_raw(name: String, raw: RawUpstream) -> Result<Self, SettingsError> {
        let conflict = |problem| SettingsError::Conflict { upstream: name.clone(), problem };
        let capacity = match (raw.sync, raw.workers, raw.queue) {
            (true, Some(_), _) => return Err(conflict("`sync` has exactly one worker; remove `workers`")),
            (true, None, queue) => Capacity::Sync { queue: queue.unwrap_or(SYNC_QUEUE) },
            (false, Some(workers), queue) => Capacity::Workers { workers, queue: queue.unwrap_or(DEFAULT_QUEUE) },
            (false, None, Some(_)) => {
                return Err(conflict("`queue` means nothing without a limit; add `workers` or `sync = true`"));
            }
            (false, None, None) => Capacity::Unlimited,
        };
        if raw.errors.iter().map(|(_, probability)| probability).sum::<f64>() > 1.0 {
            return Err(conflict("the probabilities of `errors` add up to more than 1"));
        }
        if raw.faults.iter().map(|fault| fault.probability).sum::<f64>() > 1.0 {
            return Err(conflict("the probabilities of `faults` add up to more than 1"));
        }
        if let Latency::Uniform { min, max } = raw.latency
            && min > max
        {
            return Err(conflict("`min` of the uniform latency is above its `max`"));
        }
        Ok(Self {
            name,
            address: raw.address,
            latency: raw.latency,
            capacity,
            status: raw.status,
            errors: raw.errors,
            faults: raw.faults,
            body: raw.body.unwrap_or_else(|| DEFAULT_BODY.to_owned()),
            content_type: raw.content_type,
            allow_control: raw.allow_control,
        })
    }
}

/// `"2s"`, or a table with the name of a distribution: `{ uniform = { min = "1s", max = "2s" } }`.
impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        enum Distribution {
            #[serde(deserialize_with = "duration")]
            Fixed(Duration),
            Uniform {
                #[serde(deserialize_with = "duration")]
                min: Duration,
                #[serde(deserialize_with = "duration")]
                max: Duration,
            },
        }

        struct LatencyVisitor;

        impl<'de> Visitor<'de> for LatencyVisitor {
            type Value = Latency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration such as \"2s\", or a distribution such as { uniform = { min = \"1s\", max = \"2s\" } }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Latency, E> {
                parse_duration(text).map(Latency::Fixed).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Latency, A::Error> {
                Ok(match Distribution::deserialize(MapAccessDeserializer::new(map))? {
                    Distribution::Fixed(latency) => Latency::Fixed(latency),
                    Distribution::Uniform { min, max } => Latency::Uniform { min, max },
                })
            }
        }

        deserializer.deserialize_any(LatencyVisitor)
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(de::Error::custom)
}

fn probability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(de::Error::custom("a probability lies between 0 and 1")) }
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
pub(super) fn final_status(number: u16) -> Result<StatusCode, &'static str> {
    if !(200..=599).contains(&number) {
        return Err(NOT_A_STATUS);
    }
    StatusCode::from_u16(number).map_err(|_| NOT_A_STATUS)
}

/// A duration as everywhere in Forebay's files; the error says what to write.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::units::parse_duration(text).map_err(|error| format!("{text:?} {}; {}", error.problem, error.help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(body: &str) -> Upstream {
        Settings::parse(&format!("[upstream.a]\n{body}")).expect("valid settings").upstreams.remove(0)
    }

    fn mistake(text: &str) -> String {
        Settings::parse(text).expect_err("a mistake is found").to_string()
    }

    #[test]
    fn every_key_is_understood() {
        let settings = Settings::parse(
            r#"
            seed = 7

            [upstream.slow]
            address = "127.0.0.1:9001"
            latency = { uniform = { min = "100ms", max = "2s" } }
            workers = 4
            queue = 8
            status = 201
            errors = { 500 = 0.25, 503 = 0.5 }
            faults = [
                { kind = "truncate", probability = 0.1 },
                { kind = { drip = { bytes = 1, interval = "1s" } }, probability = 0.2 },
            ]
            body = "{path}"
            content_type = "text/plain"
            allow_control = true
            "#,
        )
        .expect("valid settings");

        assert_eq!(settings.seed, 7);
        assert_eq!(
            settings.upstreams,
            [Upstream {
                name: "slow".to_owned(),
                address: "127.0.0.1:9001".parse().unwrap(),
                latency: Latency::Uniform { min: Duration::from_millis(100), max: Duration::from_secs(2) },
                capacity: Capacity::Workers { workers: NonZeroUsize::new(4).unwrap(), queue: 8 },
                status: StatusCode::CREATED,
                errors: vec![(StatusCode::INTERNAL_SERVER_ERROR, 0.25), (StatusCode::SERVICE_UNAVAILABLE, 0.5)],
                faults: vec![
                    Fault { kind: FaultKind::Truncate, probability: 0.1 },
                    Fault {
                        kind: FaultKind::Drip { bytes: NonZeroUsize::MIN, interval: Duration::from_secs(1) },
                        probability: 0.2
                    },
                ],
                body: "{path}".to_owned(),
                content_type: HeaderValue::from_static("text/plain"),
                allow_control: true,
            }]
        );
    }

    #[test]
    fn a_fixed_latency_is_just_a_duration() {
        assert_eq!(parse_one("latency = \"250ms\"").latency, Latency::Fixed(Duration::from_millis(250)));
        assert_eq!(parse_one("latency = { fixed = \"2s\" }").latency, Latency::Fixed(Duration::from_secs(2)));
    }

    #[test]
    fn a_sync_server_has_the_queue_of_pythons_http_server_unless_told_otherwise() {
        assert_eq!(parse_one("sync = true").capacity, Capacity::Sync { queue: 5 });
        assert_eq!(parse_one("sync = true\nqueue = 1").capacity, Capacity::Sync { queue: 1 });
    }

    #[test]
    fn an_empty_table_is_an_upstream_that_answers_at_once() {
        assert_eq!(parse_one(""), Upstream::new("a"));
    }

    #[test]
    fn mistakes_show_their_line_and_what_to_write() {
        let unknown = mistake("[upstream.a]\nlatancy = \"1s\"");
        assert!(
            unknown.contains("line 2") && unknown.contains("latancy") && unknown.contains("`latency`"),
            "{unknown}"
        );

        let unit = mistake("[upstream.a]\nlatency = \"1 second\"");
        assert!(unit.contains("line 2") && unit.contains("\"1 second\""), "{unit}");

        let range = mistake("[upstream.a]\nerrors = { 500 = 1.5 }");
        assert!(range.contains("between 0 and 1"), "{range}");

        let status = mistake("[upstream.a]\nstatus = 101");
        assert!(status.contains("200 to 599"), "{status}");
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        assert!(mistake("").contains("[upstream.NAME]"));
        assert!(mistake("[upstream.a]\nqueue = 3").contains("add `workers`"));
        assert!(mistake("[upstream.a]\nsync = true\nworkers = 2").contains("remove `workers`"));
        assert!(mistake("[upstream.a]\nerrors = { 500 = 0.6, 503 = 0.6 }").contains("more than 1"));
        assert!(
            mistake("[upstream.a]\nlatency = { uniform = { min = \"2s\", max = \"1s\" } }").contains("above its `max`")
        );
    }
}
