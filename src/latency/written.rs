//! A latency as written: a duration, a distribution by its numbers, or the name of a file with a measured one.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::Latency;
use super::recorded::{self, Selection, Unit};

/// Gives the text of a file that is named.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Files that are named are still to be read.
#[derive(Debug)]
pub enum WrittenLatency {
    Known(Latency),
    Mix(Vec<WrittenPart>),
    Empirical { file: PathBuf, unit: Option<Unit> },
    Prometheus { file: PathBuf, since: Option<PathBuf>, selection: Selection },
    Hdr { file: PathBuf, unit: Unit },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenPart {
    weight: f64,
    latency: WrittenLatency,
}

/// What is wrong with a file that was named.
#[derive(Debug)]
pub struct FileMistake {
    pub file: PathBuf,
    pub problem: String,
}

impl WrittenLatency {
    pub fn resolve(self, read: ReadFile<'_>) -> Result<Latency, FileMistake> {
        let text = |file: &Path| read(file).map_err(|error| mistake(file, error.to_string()));
        let table = match self {
            Self::Known(latency) => return Ok(latency),
            Self::Mix(parts) => {
                let resolve = |part: WrittenPart| Ok((part.weight, part.latency.resolve(read)?));
                return Ok(Latency::mix(parts.into_iter().map(resolve).collect::<Result<Vec<_>, _>>()?));
            }
            Self::Empirical { file, unit } => {
                recorded::empirical(&text(&file)?, unit).map_err(|problem| mistake(&file, problem))?
            }
            Self::Prometheus { file, since, selection } => {
                let buckets = |file: &Path| {
                    recorded::prometheus(&text(file)?, &selection).map_err(|problem| mistake(file, problem))
                };
                let before = since.as_deref().map(buckets).transpose()?;
                let table = buckets(&file)?.into_table(before, &selection);
                table.map_err(|problem| mistake(&file, problem))?
            }
            Self::Hdr { file, unit } => {
                recorded::hdr(&text(&file)?, unit).map_err(|problem| mistake(&file, problem))?
            }
        };
        Ok(Latency::Recorded(Arc::new(table)))
    }
}

fn mistake(file: &Path, problem: impl fmt::Display) -> FileMistake {
    FileMistake { file: file.to_owned(), problem: problem.to_string() }
}

#[derive(Deserialize)]
#[serde(
    rename_all = "snake_case",
    deny_unknown_fields,
    expecting = "a table of its parameters, as in { uniform = { min = \"1ms\", max = \"5ms\" } } or \
                 { empirical = { file = \"latencies.txt\" } }"
)]
enum Distribution {
    #[serde(deserialize_with = "duration")]
    Fixed(Duration),
    Uniform {
        #[serde(deserialize_with = "duration")]
        min: Duration,
        #[serde(deserialize_with = "duration")]
        max: Duration,
    },
    Normal {
        #[serde(deserialize_with = "duration")]
        mean: Duration,
        #[serde(deserialize_with = "duration")]
        sd: Duration,
        #[serde(default, deserialize_with = "duration")]
        min: Duration,
    },
    Lognormal {
        #[serde(deserialize_with = "duration")]
        median: Duration,
        #[serde(deserialize_with = "duration")]
        p99: Duration,
    },
    Pareto {
        #[serde(deserialize_with = "duration")]
        min: Duration,
        alpha: f64,
        #[serde(deserialize_with = "duration")]
        max: Duration,
    },
    Exponential {
        #[serde(deserialize_with = "duration")]
        mean: Duration,
    },
    Mix(Vec<WrittenPart>),
    Empirical {
        file: PathBuf,
        unit: Option<Unit>,
    },
    Prometheus {
        file: PathBuf,
        since: Option<PathBuf>,
        metric: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        #[serde(default, deserialize_with = "some_duration")]
        max: Option<Duration>,
        #[serde(default = "seconds")]
        unit: Unit,
    },
    Hdr {
        file: PathBuf,
        unit: Unit,
    },
}

fn seconds() -> Unit {
    Unit::S
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl TryFrom<Distribution> for WrittenLatency {
    type Error = &'static str;

    fn try_from(distribution: Distribution) -> Result<Self, &'static str> {
        Ok(Self::Known(match distribution {
            Distribution::Fixed(latency) => Latency::Fixed(latency),
            Distribution::Uniform { min, max } => uniform(min, max)?,
            Distribution::Normal { mean, sd, min } => normal(mean, sd, min)?,
            Distribution::Lognormal { median, p99 } => lognormal(median, p99)?,
            Distribution::Pareto { min, alpha, max } => pareto(min, alpha, max)?,
            Distribution::Exponential { mean } => Latency::Exponential { mean },
            Distribution::Mix(parts) => return mix(parts),
            Distribution::Empirical { file, unit } => return Ok(Self::Empirical { file, unit }),
            Distribution::Prometheus { file, since, metric, labels, max, unit } => {
                return Ok(Self::Prometheus { file, since, selection: Selection { metric, labels, max, unit } });
            }
            Distribution::Hdr { file, unit } => return Ok(Self::Hdr { file, unit }),
        }))
    }
}

fn uniform(min: Duration, max: Duration) -> Result<Latency, &'static str> {
    if min > max {
        return Err("`min` of the uniform latency is above its `max`");
    }
    Ok(Latency::Uniform { min, max })
}

fn normal(mean: Duration, sd: Duration, min: Duration) -> Result<Latency, &'static str> {
    if sd.is_zero() {
        return Err("`sd` of the normal latency is zero; write { fixed = \"...\" } for a latency that does not vary");
    }
    if min > mean + 5 * sd {
        return Err("`min` of the normal latency leaves nothing: it lies more than five times `sd` above `mean`");
    }
    Ok(Latency::Normal { mean, sd, min })
}

fn lognormal(median: Duration, p99: Duration) -> Result<Latency, &'static str> {
    if median.is_zero() || median >= p99 {
        return Err("`median` of the lognormal latency lies above zero and below its `p99`");
    }
    Ok(Latency::Lognormal { median, p99 })
}

fn pareto(min: Duration, alpha: f64, max: Duration) -> Result<Latency, &'static str> {
    if min.is_zero() || min >= max {
        return Err("`min` of the Pareto latency lies above zero and below its `max`");
    }
    if !(0.01..=100.0).contains(&alpha) {
        return Err("`alpha` of the Pareto latency lies between 0.01 and 100; heavy tails have 1 to 2");
    }
    Ok(Latency::Pareto { min, alpha, max })
}

fn mix(parts: Vec<WrittenPart>) -> Result<WrittenLatency, &'static str> {
    if parts.iter().any(|part| !(0.0..=1e12).contains(&part.weight)) {
        return Err("a weight of a mix is a number that is not negative");
    }
    if parts.iter().all(|part| part.weight == 0.0) {
        return Err("a mix needs a part with a weight above zero, such as { weight = 0.9, latency = \"10ms\" }");
    }
    Ok(WrittenLatency::Mix(parts))
}

/// `"2s"`, or a table with the name of a distribution: `{ uniform = { min = "1s", max = "2s" } }`.
impl<'de> Deserialize<'de> for WrittenLatency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LatencyVisitor;

        impl<'de> Visitor<'de> for LatencyVisitor {
            type Value = WrittenLatency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration such as \"2s\", or a distribution such as { uniform = { min = \"1s\", max = \"2s\" } }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WrittenLatency, E> {
                parse_duration(text).map(|latency| WrittenLatency::Known(Latency::Fixed(latency))).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenLatency, A::Error> {
                Distribution::deserialize(MapAccessDeserializer::new(map))?.try_into().map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(LatencyVisitor)
    }
}

pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(de::Error::custom)
}

/// A duration as everywhere in Forebay's files; the error says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::units::parse_duration(text).map_err(|error| format!("{text:?} {}; {}", error.problem, error.help))
}
