//! The latency distributions, each by its inverse: a number from 0 to 1 becomes a latency.
//!
//! One number for each request, whatever the distribution: two runs with the same seed hold each request for equally
//! long, and with another distribution the slow requests stay the slow ones (common random numbers).

mod normal;
pub mod recorded;
pub mod table;
pub mod written;

use std::sync::Arc;
use std::time::Duration;

use table::Table;

/// No request is held for longer: the tail of a distribution may reach beyond any use.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long a request is held once a worker has it. What is possible is checked where it is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Latency {
    Fixed(Duration),
    Uniform {
        min: Duration,
        max: Duration,
    },
    /// The normal distribution above `min`: what lies below it is left out (not moved to it, which would make `min` the
    /// most frequent latency).
    Normal {
        mean: Duration,
        sd: Duration,
        min: Duration,
    },
    /// By the two numbers that one knows of a service: half of the answers take longer than `median`, one in a hundred
    /// longer than `p99`.
    Lognormal {
        median: Duration,
        p99: Duration,
    },
    /// The bounded Pareto distribution: `min` to `max`, the tail falls with the power `alpha`. The bound keeps mean and
    /// variance finite; without it no number of requests would be enough for `alpha` up to 2.
    Pareto {
        min: Duration,
        alpha: f64,
        max: Duration,
    },
    Exponential {
        mean: Duration,
    },
    /// One of several, as often as its weight says.
    Mix(Arc<[Part]>),
    /// Measured somewhere.
    Recorded(Arc<Table>),
}

/// One distribution of a mix.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The probability of this part and of those before it; 1 for the last one.
    pub up_to: f64,
    pub latency: Latency,
}

impl Default for Latency {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl Latency {
    /// A mix by weights, of which at least one is above zero.
    pub fn mix(parts: impl IntoIterator<Item = (f64, Self)>) -> Self {
        let parts = parts.into_iter().filter(|(weight, _)| *weight > 0.0);
        let mut parts: Vec<Part> = parts.map(|(up_to, latency)| Part { up_to, latency }).collect();
        let total: f64 = parts.iter().map(|part| part.up_to).sum();
        let mut sum = 0.0;
        for part in &mut parts {
            sum += part.up_to;
            part.up_to = sum / total;
        }
        Self::Mix(parts.into())
    }

    /// The latency below which this part (from 0 to 1) of the requests lies. Never falls when the part grows, except
    /// between the parts of a mix.
    pub fn quantile(&self, part: f64) -> Duration {
        let nanos = match self {
            Self::Fixed(latency) => return (*latency).min(LONGEST),
            Self::Uniform { min, max } => return (*min + (*max - *min).mul_f64(part)).min(LONGEST),
            Self::Normal { mean, sd, min } => truncated_normal(nanos(*mean), nanos(*sd), nanos(*min), part),
            Self::Lognormal { median, p99 } => {
                let sigma = (nanos(*p99) / nanos(*median)).ln() / normal::quantile(0.99);
                nanos(*median) * (sigma * normal::quantile(part)).exp()
            }
            Self::Pareto { min, alpha, max } => bounded_pareto(nanos(*min), *alpha, nanos(*max), part),
            Self::Exponential { mean } => -nanos(*mean) * (-part).ln_1p(),
            Self::Mix(parts) => return of_mix(parts, part),
            Self::Recorded(table) => table.quantile(part),
        };
        duration(nanos)
    }

    /// Whether it was measured as a response time, which contains the waiting of the measured service.
    pub fn is_recorded(&self) -> bool {
        match self {
            Self::Recorded(_) => true,
            Self::Mix(parts) => parts.iter().any(|part| part.latency.is_recorded()),
            _ => false,
        }
    }
}

fn truncated_normal(mean: f64, sd: f64, min: f64, part: f64) -> f64 {
    let below = normal::probability_below((min - mean) / sd);
    (mean + sd * normal::quantile(below + part * (1.0 - below))).max(min)
}

fn bounded_pareto(min: f64, alpha: f64, max: f64, part: f64) -> f64 {
    let beyond = (min / max).powf(alpha);
    (min * (1.0 - part * (1.0 - beyond)).powf(-1.0 / alpha)).min(max)
}

/// The same number decides which part and where in it: given the part, what is left of it is as evenly spread.
fn of_mix(parts: &[Part], part: f64) -> Duration {
    let index = parts.partition_point(|candidate| candidate.up_to <= part).min(parts.len() - 1);
    let before = if index == 0 { 0.0 } else { parts[index - 1].up_to };
    let within = (part - before) / (parts[index].up_to - before);
    parts[index].latency.quantile(within.clamp(0.0, 1.0))
}

fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// Whole nanoseconds; the conversion takes what is no number for zero and ends at [`LONGEST`].
pub fn duration(nanos: f64) -> Duration {
    Duration::from_nanos(nanos.round() as u64).min(LONGEST)
}

#[cfg(test)]
mod tests;
