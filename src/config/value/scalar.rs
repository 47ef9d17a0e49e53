//! Switches, numbers, plain text and file names.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{TextError, Value, choice, from_text};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::model::{ClientGone, LogFormat, LogOutput, QueueOrder, RateMode, UpstreamProtocol};
use crate::config::tree::{Kind, Node};

impl Value for bool {
    fn shape() -> Shape {
        Shape::Boolean
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        match &node.kind {
            Kind::Boolean(value) => Some(*value),
            Kind::Text(text) if text.substituted => {
                from_text(cx, node, |text| text.parse().map_err(|_| TextError::new("is not true or false")))
            }
            _ => {
                cx.wrong_type(node, "true or false, without quotes");
                None
            }
        }
    }

    fn show(&self) -> Option<Json> {
        Some((*self).into())
    }
}

macro_rules! integers {
    ($($type:ty)*) => { $(
        impl Value for $type {
            fn shape() -> Shape {
                Shape::Integer
            }

            fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
                let number = integer(cx, node)?;
                match <$type>::try_from(number) {
                    Ok(number) => Some(number),
                    Err(_) => {
                        let problem = if number < 0 { "a negative number" } else { "a number that large" };
                        let name = cx.path().rsplit('.').next().unwrap_or_default().to_owned();
                        cx.report(
                            crate::config::diagnostic::Problem::error(
                                crate::config::diagnostic::Code::OutOfRange,
                                node.span.clone(),
                                format!("`{name}` cannot be {problem}"),
                            )
                            .expected("a whole number"),
                        );
                        None
                    }
                }
            }

            fn show(&self) -> Option<Json> {
                Some((*self).into())
            }

            fn magnitude(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )* };
}
integers!(u16 u32 u64 usize);

/// A number, or a `"${NAME}"` that holds one.
fn integer(cx: &mut Decoder<'_>, node: &Node) -> Option<i64> {
    match &node.kind {
        Kind::Integer(number) => Some(*number),
        Kind::Text(text) if text.substituted => match text.value.trim().parse() {
            Ok(number) => Some(number),
            Err(_) => {
                super::report_text(cx, node, text, TextError::new("is not a whole number"), &Shape::Integer);
                None
            }
        },
        Kind::Text(text) if text.value.trim().parse::<i64>().is_ok() => {
            cx.wrong_type(node, "a whole number, without quotes");
            None
        }
        _ => {
            cx.wrong_type(node, "a whole number");
            None
        }
    }
}

impl Value for f64 {
    fn shape() -> Shape {
        Shape::Number
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        number(cx, node, "a number, without quotes")
    }

    fn show(&self) -> Option<Json> {
        Some((*self).into())
    }
}

/// A number, or a `"${NAME}"` that holds one; never NaN or infinite.
fn number(cx: &mut Decoder<'_>, node: &Node, expected: &str) -> Option<f64> {
    match &node.kind {
        Kind::Float(value) if value.is_finite() => Some(*value),
        Kind::Integer(value) => Some(*value as f64),
        Kind::Text(text) if text.substituted => from_text(cx, node, |text| match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(TextError::new("is not a number")),
        }),
        _ => {
            cx.wrong_type(node, expected);
            None
        }
    }
}

/// The part of something, from 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(pub f64);

impl Value for Fraction {
    fn shape() -> Shape {
        Shape::Number
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        const RANGE: &str = "from 0.0 (none) to 1.0 (all)";

        let number = number(cx, node, RANGE)?;
        if (0.0..=1.0).contains(&number) {
            return Some(Self(number));
        }
        cx.out_of_range(node, RANGE);
        None
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.into())
    }
}

impl Value for String {
    fn shape() -> Shape {
        Shape::Text { what: "a string", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| Ok(text.to_owned()))
    }

    fn show(&self) -> Option<Json> {
        Some(self.as_str().into())
    }
}

/// A file, relative to the folder of the configuration file.
impl Value for PathBuf {
    fn shape() -> Shape {
        Shape::Text { what: "the name of a file, relative to the configuration file", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let base = cx.inputs.base.to_owned();
        from_text(cx, node, |text| match text {
            "" => Err(TextError::new("names no file")),
            _ if text.contains('\0') => Err(TextError::new("cannot be the name of a file")),
            _ => Ok(base.join(text)),
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.display().to_string().into())
    }
}

/// `"stdout"`, `"stderr"`, `"off"` or `"file:PATH"`.
impl Value for LogOutput {
    fn shape() -> Shape {
        Shape::Text {
            what: "\"stdout\", \"stderr\", \"off\" or \"file:PATH\"",
            pattern: Some("^(stdout|stderr|off|file:.+)$"),
        }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let base = cx.inputs.base.to_owned();
        from_text(cx, node, |text| parse_output(text, &base))
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            LogOutput::Off => "off".into(),
            LogOutput::Stdout => "stdout".into(),
            LogOutput::Stderr => "stderr".into(),
            LogOutput::File(path) => format!("file:{}", path.display()).into(),
        })
    }
}

fn parse_output(text: &str, base: &Path) -> Result<LogOutput, TextError> {
    match text {
        "off" => Ok(LogOutput::Off),
        "stdout" => Ok(LogOutput::Stdout),
        "stderr" => Ok(LogOutput::Stderr),
        _ => match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() && !path.contains('\0') => Ok(LogOutput::File(base.join(path))),
            Some(_) => Err(TextError::new("names no file").help("write the path after `file:`")),
            None if text.contains(['/', '.']) => {
                Err(TextError::new("is not an output").help(format!("for a file write \"file:{text}\"")))
            }
            None => Err(super::not_a_word(text, &["stdout", "stderr", "off"])),
        },
    }
}

choice!(LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json });
choice!(QueueOrder { "fifo" => QueueOrder::Fifo, "lifo" => QueueOrder::Lifo });
choice!(RateMode { "reject" => RateMode::Reject, "delay" => RateMode::Delay, "shadow" => RateMode::Shadow });
choice!(ClientGone { "cancel" => ClientGone::Cancel, "finish" => ClientGone::Finish });
choice!(UpstreamProtocol {
    "http1" => UpstreamProtocol::Http1,
    "http2" => UpstreamProtocol::Http2,
    "auto" => UpstreamProtocol::Auto,
});
