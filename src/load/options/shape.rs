//! Rates and shapes of arrivals as they are written.

use std::str::FromStr;

use super::{Arrivals, Profile, Spacing};
use crate::load::arrivals::Line;
use crate::units;

/// Requests per second, written `200`, `200/s` or `30/min`. The configuration file wants the unit always; on the command
/// line every load generator takes a bare number, and all of them mean the same by it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Nothing at all is a rate, too, at the end of a ramp.
        if text.split('/').next().is_some_and(|count| count.trim() == "0") {
            return Ok(Rate(0.0));
        }
        let in_seconds = text.trim().parse::<f64>().is_ok().then(|| format!("{}/s", text.trim()));
        let (count, per) =
            units::parse_rate(in_seconds.as_deref().unwrap_or(text)).map_err(|error| error.to_string())?;
        Ok(Rate(f64::from(count) / per.as_secs_f64()))
    }
}

/// The value of `--arrivals`.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrivalsOption {
    spacing: Spacing,
    shape: Option<Shape>,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Ramp {
        from: f64,
        to: f64,
    },
    /// Equal parts of the duration.
    Steps(Vec<f64>),
    Sine {
        mean: f64,
        amplitude: f64,
        period: f64,
    },
}

const HELP: &str = "write `poisson`, `even`, `burst:20`, `ramp:0/s..500/s`, `steps:100/s,200/s`, \
                    `sine:200/s,100/s,30s`, or two of them as in `even+ramp:0/s..500/s`";

impl FromStr for ArrivalsOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut spacing, mut shape) = (None, None);
        for part in text.split('+') {
            let (name, value) = part.split_once(':').unwrap_or((part, ""));
            match name {
                "poisson" | "even" | "burst" if spacing.is_some() => {
                    return Err(format!("says twice how requests fall; {HELP}"));
                }
                "poisson" => spacing = Some(Spacing::Poisson),
                "even" => spacing = Some(Spacing::Even),
                "burst" => spacing = Some(Spacing::Burst { size: burst(value)? }),
                "ramp" | "steps" | "sine" if shape.is_some() => return Err(format!("has two shapes; {HELP}")),
                "ramp" => shape = Some(ramp(value)?),
                "steps" => shape = Some(steps(value)?),
                "sine" => shape = Some(sine(value)?),
                _ => return Err(format!("`{part}` is no shape of arrivals; {HELP}")),
            }
        }
        Ok(Self { spacing: spacing.unwrap_or(Spacing::Poisson), shape })
    }
}

fn burst(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|size| *size > 0).ok_or_else(|| "a burst has a size: write `burst:20`".to_owned())
}

fn ramp(text: &str) -> Result<Shape, String> {
    let (from, to) = text.split_once("..").ok_or("a ramp goes from one rate to another: write `ramp:0/s..500/s`")?;
    Ok(Shape::Ramp { from: rate(from)?, to: rate(to)? })
}

fn steps(text: &str) -> Result<Shape, String> {
    Ok(Shape::Steps(text.split(',').map(rate).collect::<Result<_, _>>()?))
}

fn sine(text: &str) -> Result<Shape, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let [mean, amplitude, period] = parts.as_slice() else {
        return Err("a sine has mean, amplitude and period: write `sine:200/s,100/s,30s`".to_owned());
    };
    let period = units::parse_duration(period).map_err(|error| format!("the period `{period}` {error}"))?;
    Ok(Shape::Sine { mean: rate(mean)?, amplitude: rate(amplitude)?, period: period.as_secs_f64() })
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse::<Rate>().map(|Rate(rate)| rate).map_err(|error| format!("the rate `{text}` {error}"))
}

impl ArrivalsOption {
    /// Whether it says the rate, too.
    pub fn has_shape(&self) -> bool {
        self.shape.is_some()
    }

    /// The arrivals of a run. During the warm-up, before the shape begins, its first rate holds.
    pub fn arrivals(&self, Rate(rate): Rate, warm_up: f64, seconds: f64) -> Arrivals {
        let profile = match &self.shape {
            None => Profile::constant(rate),
            Some(Shape::Ramp { from, to }) => after(warm_up, vec![Line { from: *from, to: *to, seconds }]),
            Some(Shape::Steps(rates)) => {
                let seconds = seconds / rates.len() as f64;
                after(warm_up, rates.iter().map(|rate| Line { from: *rate, to: *rate, seconds }).collect())
            }
            Some(Shape::Sine { mean, amplitude, period }) => {
                Profile::Sine { mean: *mean, amplitude: *amplitude, period: *period }
            }
        };
        Arrivals::Shaped { profile, spacing: self.spacing }
    }
}

fn after(warm_up: f64, mut lines: Vec<Line>) -> Profile {
    if let Some(first) = lines.first().filter(|_| warm_up > 0.0) {
        let rate = first.from;
        lines.insert(0, Line { from: rate, to: rate, seconds: warm_up });
    }
    Profile::Lines(lines)
}
