//! Values with a unit: durations, sizes, rates.

use std::time::Duration;

use serde_json::Value as Json;

use super::{TextError, Value, from_text};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::diagnostic::{Code, Problem};
use crate::config::model::{Deadline, Rate};
use crate::config::tree::{Kind, Node};
use crate::units;

const DURATION: Shape = Shape::Text {
    what: "a duration such as \"250ms\", \"3s\" or \"1m30s\"",
    pattern: Some(r"^\s*(([0-9]+(\.[0-9]+)?(d|h|m|min|s|sec|ms|us|µs|ns))+|.*\$\{.*)\s*$"),
};
const SIZE: Shape = Shape::Text {
    what: "a size such as \"64KiB\" or \"1MiB\"",
    pattern: Some(r"^\s*([0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)|.*\$\{.*)\s*$"),
};

impl Value for Duration {
    fn shape() -> Shape {
        DURATION
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        refuse_bare_number(cx, node, |n| [format!("{n}s"), format!("{n}ms")])?;
        from_text(cx, node, |text| Ok(units::parse_duration(text)?))
    }

    fn show(&self) -> Option<Json> {
        Some(units::show_duration(*self).into())
    }

    /// Milliseconds, rounded up, so that only zero is zero.
    fn magnitude(&self) -> Option<u64> {
        Some(u64::try_from(self.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    fn show_magnitude(magnitude: u64) -> String {
        units::show_duration(Duration::from_millis(magnitude))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl Value for Size {
    fn shape() -> Shape {
        SIZE
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        refuse_bare_number(cx, node, |n| {
            let whole = n.parse().ok().map(units::show_size).filter(|shown| *shown != format!("{n}B"));
            [format!("{n}B"), whole.unwrap_or_else(|| format!("{n}KiB"))]
        })?;
        from_text(cx, node, |text| Ok(Self(units::parse_size(text)?)))
    }

    fn show(&self) -> Option<Json> {
        Some(units::show_size(self.0).into())
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.0)
    }

    fn show_magnitude(magnitude: u64) -> String {
        units::show_size(magnitude)
    }
}

/// Bytes in each second; 0 is "off".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub u64);

impl Value for ByteRate {
    fn shape() -> Shape {
        Shape::Text { what: "a rate of bytes such as \"1KiB/s\", or \"off\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        refuse_bare_number(cx, node, |n| [format!("{n}B/s"), format!("{n}KiB/s")])?;
        from_text(cx, node, |text| Ok(Self(units::parse_byte_rate(text)?)))
    }

    fn show(&self) -> Option<Json> {
        Some(units::show_byte_rate(self.0).into())
    }
}

impl Value for Rate {
    fn shape() -> Shape {
        Shape::Text { what: "a rate such as \"100/s\" or \"5/min\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        refuse_bare_number(cx, node, |n| [format!("{n}/s"), format!("{n}/min")])?;
        from_text(cx, node, |text| {
            let (count, per) = units::parse_rate(text)?;
            // Beyond these the limiter's arithmetic in nanoseconds loses its meaning.
            if per > Duration::from_secs(86_400) || per.as_nanos() / u128::from(count) == 0 {
                return Err(TextError::new("is out of range").help("count over a day at most, and below 1000000000/s"));
            }
            Ok(Self { count, per })
        })
    }

    fn show(&self) -> Option<Json> {
        Some(units::show_rate(self.count, self.per).into())
    }
}

/// A duration or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalDuration(pub Option<Duration>);

impl Value for OptionalDuration {
    fn shape() -> Shape {
        Shape::Either(vec![DURATION, Shape::Choice(&["none"])])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        match node.as_text() {
            Some("none") => Some(Self(None)),
            Some("off" | "never" | "infinite" | "unlimited") => {
                from_text(cx, node, |_| Err(TextError::new("is not a duration").help("write \"none\" to go without")))
            }
            _ => Duration::decode(cx, node).map(|duration| Self(Some(duration))),
        }
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.map_or_else(|| "none".to_owned(), units::show_duration).into())
    }

    fn magnitude(&self) -> Option<u64> {
        self.0.as_ref().and_then(Value::magnitude)
    }

    fn show_magnitude(magnitude: u64) -> String {
        Duration::show_magnitude(magnitude)
    }
}

impl Value for Deadline {
    fn shape() -> Shape {
        OptionalDuration::shape()
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        Some(OptionalDuration::decode(cx, node)?.0.map_or(Self::None, Self::After))
    }

    fn show(&self) -> Option<Json> {
        OptionalDuration(self.after()).show()
    }

    fn magnitude(&self) -> Option<u64> {
        self.after().as_ref().and_then(Value::magnitude)
    }

    fn show_magnitude(magnitude: u64) -> String {
        Duration::show_magnitude(magnitude)
    }
}

/// The share of something, between 0 and 1 and neither, written as `"99.9%"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentage(pub f64);

impl Value for Percentage {
    fn shape() -> Shape {
        Shape::Text {
            what: "a percentage such as \"99.9%\"",
            pattern: Some(r"^\s*([0-9]+(\.[0-9]+)?\s*%|.*\$\{.*)\s*$"),
        }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        refuse_bare_number(cx, node, |n| {
            let percent = n.parse().map_or(0.0, |share: f64| if share < 1.0 { share * 100.0 } else { share });
            // Rounded, as 0.999 times 100 is a little more than 99.9.
            let shown = format!("{}%", (percent * 1e6).round() / 1e6);
            [shown.clone(), if shown == "99.9%" { "99%".to_owned() } else { "99.9%".to_owned() }]
        })?;
        from_text(cx, node, parse_percentage)
    }

    fn show(&self) -> Option<Json> {
        Some(format!("{}%", (self.0 * 1e8).round() / 1e6).into())
    }
}

fn parse_percentage(text: &str) -> Result<Percentage, TextError> {
    let Some(number) = text.trim().strip_suffix('%').map(str::trim_end) else {
        return Err(TextError::new("is not a percentage").help("write it as in \"99.9%\""));
    };
    let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    // Shifted as text: a hundredth of 99.9 as a binary number is not quite 0.999.
    match format!("{number}e-2").parse::<f64>() {
        Ok(share) if is_decimal && share > 0.0 && share < 1.0 => Ok(Percentage(share)),
        Ok(share) if is_decimal && share >= 1.0 => {
            Err(TextError::new("leaves no room for a single failure").help("promise less than 100%, as in \"99.9%\""))
        }
        Ok(_) if is_decimal => Err(TextError::new("promises nothing").help("write more than 0%, as in \"99.9%\"")),
        _ => Err(TextError::new("is not a percentage").help("write it as in \"99.9%\"")),
    }
}

/// A number without a unit is the commonest slip: both likely meanings are offered.
fn refuse_bare_number(cx: &mut Decoder<'_>, node: &Node, meanings: impl FnOnce(&str) -> [String; 2]) -> Option<()> {
    let number = match node.kind {
        Kind::Integer(number) => number.to_string(),
        Kind::Float(number) => number.to_string(),
        _ => return Some(()),
    };
    let [first, second] = meanings(&number);
    cx.report(
        Problem::error(Code::WrongType, node.span.clone(), format!("`{number}` has no unit"))
            .help(format!("write it with its unit, in quotes: \"{first}\" or \"{second}\"")),
    );
    None
}
