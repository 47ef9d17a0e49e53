//! When requests are due: an iterator of instants that is fixed before the run starts.
//!
//! A [`Profile`] says how many requests per second there shall be over time, a [`Spacing`] how they fall around that
//! rate. Both meet in the integral of the rate: the instants are the inverse of it at 0, 1, 2, ... for even spacing,
//! and at the points of a Poisson process of rate one for random arrivals (the time-change theorem; Lewis and
//! Shedler 1979 give it as the inversion method for nonhomogeneous Poisson processes). So every profile can have
//! every spacing, counts of even arrivals are exact, and nothing is thinned or approximated by steps.
//!
//! A draw is a function of the seed and the number of the draw. Two runs of the same seed have the same instants,
//! whatever the number of workers among which they are dealt.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;

use super::SECOND;

/// When requests (or sessions) are due.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    Shaped {
        profile: Profile,
        spacing: Spacing,
    },
    /// Instants from a recording, ascending.
    Recorded(Arc<[u64]>),
}

/// Requests per second over time.
#[derive(Debug, Clone, PartialEq)]
pub enum Profile {
    /// Straight lines, one after the other; after the last one its last rate goes on.
    Lines(Vec<Line>),
    /// `mean + amplitude * sin(2 pi t / period)`, the period in seconds.
    Sine { mean: f64, amplitude: f64, period: f64 },
}

/// The rate goes from one value to another in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub from: f64,
    pub to: f64,
    pub seconds: f64,
}

/// How arrivals fall around their rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// One after the other, as far apart as the rate says. Kind to queues: real users are not like that.
    Even,
    /// Independent users.
    Poisson,
    /// `size` at once, as often as the rate says.
    Burst { size: u32 },
}

impl Arrivals {
    pub fn constant(rate: f64, spacing: Spacing) -> Self {
        Arrivals::Shaped { profile: Profile::constant(rate), spacing }
    }

    /// Says what is wrong with the numbers, as a fragment that reads after "the arrivals are wrong: ".
    ///
    /// # Errors
    ///
    /// For rates that are negative or not numbers, bursts of nothing, recordings out of order.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Arrivals::Shaped { profile, spacing } => {
                if *spacing == (Spacing::Burst { size: 0 }) {
                    return Err("a burst needs at least one request".into());
                }
                profile.check()
            }
            Arrivals::Recorded(instants) if instants.is_sorted() => Ok(()),
            Arrivals::Recorded(_) => Err("the recorded instants are not in order; sort the recording".into()),
        }
    }

    /// The instants before `duration`, ascending.
    pub fn starts(&self, duration: u64, seed: u64) -> Starts {
        let kind = match self {
            Arrivals::Shaped { profile, spacing } => {
                let limit = profile.integral(duration as f64 / SECOND as f64);
                Kind::Shaped { inverse: Inverse::of(profile), spacing: *spacing, limit, reached: 0.0 }
            }
            Arrivals::Recorded(instants) => Kind::Recorded(Arc::clone(instants)),
        };
        Starts { kind, duration, seed, number: 0 }
    }

    /// How many requests are planned before `duration`; for random arrivals their expectation.
    pub fn expected(&self, duration: u64) -> f64 {
        match self {
            Arrivals::Shaped { profile, .. } => profile.integral(duration as f64 / SECOND as f64),
            Arrivals::Recorded(instants) => instants.partition_point(|at| *at < duration) as f64,
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrivals::Shaped { profile, spacing: Spacing::Even } => write!(f, "even, {profile}"),
            Arrivals::Shaped { profile, spacing: Spacing::Poisson } => write!(f, "poisson, {profile}"),
            Arrivals::Shaped { profile, spacing: Spacing::Burst { size } } => write!(f, "bursts of {size}, {profile}"),
            Arrivals::Recorded(instants) => write!(f, "recorded, {} requests", instants.len()),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Profile::Sine { mean, amplitude, period } => {
                write!(f, "{mean}/s with a sine of {amplitude}/s in {period} s")
            }
            Profile::Lines(lines) => {
                for (index, line) in lines.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    match (line.from == line.to, index + 1 == lines.len()) {
                        (true, true) => write!(f, "{comma}{}/s", line.from)?,
                        (true, false) => write!(f, "{comma}{}/s for {} s", line.from, line.seconds)?,
                        (false, _) => write!(f, "{comma}{}/s to {}/s in {} s", line.from, line.to, line.seconds)?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Profile {
    pub fn constant(rate: f64) -> Self {
        Profile::Lines(vec![Line { from: rate, to: rate, seconds: 1.0 }])
    }

    pub fn ramp(from: f64, to: f64, seconds: f64) -> Self {
        Profile::Lines(vec![Line { from, to, seconds }])
    }

    /// One rate after the other, each for so many seconds.
    pub fn steps(steps: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Profile::Lines(steps.into_iter().map(|(rate, seconds)| Line { from: rate, to: rate, seconds }).collect())
    }

    fn check(&self) -> Result<(), String> {
        let rate = |rate: f64| match rate.is_finite() && rate >= 0.0 {
            true => Ok(()),
            false => Err(format!("{rate} is not a rate; write requests per second, 0 or more")),
        };
        let seconds = |seconds: f64| match seconds.is_finite() && seconds > 0.0 {
            true => Ok(()),
            false => Err(format!("{seconds} s is not a time; write seconds above 0")),
        };
        match self {
            Profile::Lines(lines) => lines.iter().try_for_each(|line| {
                rate(line.from)?;
                rate(line.to)?;
                seconds(line.seconds)
            }),
            Profile::Sine { mean, amplitude, period } => {
                rate(*mean)?;
                rate(*amplitude)?;
                seconds(*period)?;
                match amplitude <= mean {
                    true => Ok(()),
                    false => Err(format!("a sine of {amplitude}/s around {mean}/s goes below 0; lower the amplitude")),
                }
            }
        }
    }

    /// Requests per second at `t` seconds.
    pub fn rate(&self, t: f64) -> f64 {
        match self {
            Profile::Sine { mean, amplitude, period } => mean + amplitude * (TAU * t / period).sin(),
            Profile::Lines(lines) => {
                let mut start = 0.0;
                for line in lines {
                    if t < start + line.seconds {
                        return line.from + line.slope() * (t - start);
                    }
                    start += line.seconds;
                }
                lines.last().map_or(0.0, |line| line.to)
            }
        }
    }

    /// Requests from the start to `t` seconds.
    pub fn integral(&self, t: f64) -> f64 {
        match self {
            Profile::Sine { mean, amplitude, period } => {
                mean * t + amplitude * period / TAU * (1.0 - (TAU * t / period).cos())
            }
            Profile::Lines(lines) => {
                let (mut start, mut area) = (0.0, 0.0);
                for line in lines {
                    if t <= start + line.seconds {
                        return area + line.area_until(t - start);
                    }
                    start += line.seconds;
                    area += line.area();
                }
                area + lines.last().map_or(0.0, |line| line.to) * (t - start)
            }
        }
    }
}

impl Line {
    fn slope(&self) -> f64 {
        (self.to - self.from) / self.seconds
    }

    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    fn area_until(&self, t: f64) -> f64 {
        self.from * t + self.slope() / 2.0 * t * t
    }

    /// The time at which the area is `area`. In the form of the quadratic's solution that divides by a sum, so that
    /// nothing cancels, and which for a constant rate is just the quotient.
    fn time_of(&self, area: f64) -> f64 {
        if area == 0.0 {
            return 0.0;
        }
        let root = (self.from * self.from + 2.0 * self.slope() * area).max(0.0).sqrt();
        (2.0 * area / (self.from + root)).min(self.seconds)
    }
}

/// The inverse of a profile's integral, for values that ascend.
#[derive(Debug, Clone)]
enum Inverse {
    /// The lines not passed yet, the current one first, and what was passed before it.
    Lines {
        lines: Vec<Line>,
        current: usize,
        start: f64,
        area: f64,
    },
    Sine {
        profile: Profile,
        mean: f64,
        amplitude: f64,
        period: f64,
    },
}

impl Inverse {
    fn of(profile: &Profile) -> Self {
        match profile {
            Profile::Sine { mean, amplitude, period } => {
                Inverse::Sine { profile: profile.clone(), mean: *mean, amplitude: *amplitude, period: *period }
            }
            Profile::Lines(lines) => {
                let mut lines = lines.clone();
                let last = lines.last().map_or(0.0, |line| line.to);
                // What goes on after the last line, as a line: longer than any run, short enough for exact sums.
                lines.push(Line { from: last, to: last, seconds: 1e9 });
                Inverse::Lines { lines, current: 0, start: 0.0, area: 0.0 }
            }
        }
    }

    /// The time in seconds at which the integral is `area`.
    fn at(&mut self, wanted: f64) -> Option<f64> {
        match self {
            Inverse::Lines { lines, current, start, area } => loop {
                let line = lines.get(*current)?;
                // An arrival on the border belongs to the next line: after a pause it is the first, not one in it.
                if wanted - *area < line.area() {
                    return Some(*start + line.time_of(wanted - *area));
                }
                *start += line.seconds;
                *area += line.area();
                *current += 1;
            },
            Inverse::Sine { profile, mean, amplitude, period } => {
                if *mean == 0.0 {
                    return None;
                }
                // The integral is between `mean t` and `mean t` plus the area of a half-wave.
                let half_wave = *amplitude * *period / TAU * 2.0;
                let (mut low, mut high) = (((wanted - half_wave) / *mean).max(0.0), wanted / *mean);
                // Bisection: the derivative may touch 0, where Newton's steps go astray. 64 halvings exhaust an f64.
                for _ in 0..64 {
                    let middle = f64::midpoint(low, high);
                    if profile.integral(middle) < wanted {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                Some(high)
            }
        }
    }
}

/// The iterator of [`Arrivals::starts`].
#[derive(Debug, Clone)]
pub struct Starts {
    kind: Kind,
    duration: u64,
    seed: u64,
    number: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    /// `reached` is where the Poisson process of rate one stands, `limit` where the run ends.
    Shaped {
        inverse: Inverse,
        spacing: Spacing,
        limit: f64,
        reached: f64,
    },
    Recorded(Arc<[u64]>),
}

impl Iterator for Starts {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let number = self.number;
        self.number += 1;
        match &mut self.kind {
            Kind::Recorded(instants) => {
                instants.get(usize::try_from(number).ok()?).copied().filter(|at| *at < self.duration)
            }
            Kind::Shaped { inverse, spacing, limit, reached } => {
                let wanted = match spacing {
                    Spacing::Even => number as f64,
                    Spacing::Burst { size } => (number - number % u64::from(*size)) as f64,
                    Spacing::Poisson => {
                        *reached += exponential(self.seed, Stream::Arrival, number);
                        *reached
                    }
                };
                // By the count and not by the time, which may be rounded onto the end. Bursts are cut by it, too.
                let ordinal = if *spacing == Spacing::Poisson { wanted } else { number as f64 };
                if ordinal >= *limit {
                    return None;
                }
                let at = (inverse.at(wanted)? * SECOND as f64).round() as u64;
                Some(at.min(self.duration.saturating_sub(1)))
            }
        }
    }
}

/// What a number is drawn for. Each has a stream of its own, so that one more decision leaves the others as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Arrival = 0x10,
    Target = 0x11,
    SessionLength = 0x12,
    Think = 0x13,
    /// For simulated servers in tests.
    Service = 0x14,
    /// Where in its second a line of a log falls that has whole seconds only.
    Jitter = 0x15,
    /// Where the copy of a recorded request falls.
    Copy = 0x16,
}

/// A number in `[0, 1)` for decision `number` of a stream.
pub fn unit(seed: u64, stream: Stream, number: u64) -> f64 {
    let word = split_mix(split_mix(split_mix(seed) ^ stream as u64) ^ number);
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

/// A draw from the exponential distribution of mean 1.
pub fn exponential(seed: u64, stream: Stream, number: u64) -> f64 {
    -(1.0 - unit(seed, stream, number)).ln()
}

/// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
#[path = "arrivals_tests.rs"]
mod tests;
