//! The kinds of values that a key can have: how each is read, what was expected when it cannot be, and how it is
//! shown again.

pub mod aggregate;
pub mod container;
pub mod http;
pub mod json_path;
pub mod latency;
pub mod network;
pub mod path;
pub mod quantity;
pub mod scalar;
pub mod secret;
pub mod template;

use serde_json::Value as Json;

use super::decode::Decoder;
use super::describe::Shape;
use super::diagnostic::{Code, Problem};
use super::source::Span;
use super::tree::{Kind, Node, Text};

/// A kind of value.
pub trait Value: Sized {
    /// For the schema and for "expected ...".
    fn shape() -> Shape;

    /// The value, or `None` after reporting why not.
    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self>;

    /// The value as it may be shown, a secret as `***`; `None` for containers, whose keys show themselves.
    fn show(&self) -> Option<Json> {
        None
    }

    /// The secret itself, for the hash of the configuration only.
    fn secret(&self) -> Option<&str> {
        None
    }

    /// The value on the scale of its key's bounds.
    fn magnitude(&self) -> Option<u64> {
        None
    }

    /// A bound, written as this kind of value.
    fn show_magnitude(magnitude: u64) -> String {
        magnitude.to_string()
    }
}

/// Why a text is not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// Reads after the quoted text: "has no unit".
    pub problem: String,
    pub help: Option<String>,
    /// The wrong part of the text.
    pub at: Option<Span>,
}

impl TextError {
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), help: None, at: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn at(mut self, at: Span) -> Self {
        self.at = Some(at);
        self
    }
}

impl From<crate::units::UnitError> for TextError {
    fn from(error: crate::units::UnitError) -> Self {
        Self::new(error.problem).help(error.help)
    }
}

/// Reads a value written as text.
pub fn from_text<T: Value>(
    cx: &mut Decoder<'_>,
    node: &Node,
    parse: impl FnOnce(&str) -> Result<T, TextError>,
) -> Option<T> {
    let Kind::Text(text) = &node.kind else {
        cx.wrong_type(node, &T::shape().what());
        return None;
    };
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(error) => {
            report_text(cx, node, text, error, &T::shape());
            None
        }
    }
}

/// Reports a text that is not the value it should be.
pub fn report_text(cx: &mut Decoder<'_>, node: &Node, text: &Text, error: TextError, shape: &Shape) {
    let span = match error.at.filter(|_| !text.substituted) {
        Some(at) => cx.inside(&text.value, &node.span, &at),
        None => node.span.clone(),
    };
    let message = format!("{} {}", name_of(text), error.problem);
    let mut problem = Problem::error(Code::InvalidValue, span, message);
    match error.help {
        Some(help) => {
            // A guess may be wrong: the few words that are possible are shown beside it.
            if help.starts_with("did you mean") && is_short(shape) {
                problem = problem.expected(shape.what());
            }
            problem = problem.help(help);
        }
        None => problem = problem.expected(shape.what()),
    }
    cx.report(problem);
}

fn is_short(shape: &Shape) -> bool {
    match shape {
        Shape::Choice(words) => words.len() <= 6,
        _ => true,
    }
}

/// The text in quotes; what came from the environment is not repeated, as it may be a secret.
fn name_of(text: &Text) -> String {
    const LONGEST: usize = 60;
    if text.substituted {
        return "the value after filling in ${...}".to_owned();
    }
    if text.value.chars().count() > LONGEST {
        return format!("{:?}...", text.value.chars().take(LONGEST).collect::<String>());
    }
    format!("{:?}", text.value)
}

/// Gives an enum of words its [`Value`].
macro_rules! choice {
    ($type:ty { $($word:literal => $variant:path),* $(,)? }) => {
        impl $crate::config::value::Value for $type {
            fn shape() -> $crate::config::describe::Shape {
                $crate::config::describe::Shape::Choice(&[$($word),*])
            }

            fn decode(
                cx: &mut $crate::config::decode::Decoder<'_>,
                node: &$crate::config::tree::Node,
            ) -> Option<Self> {
                $crate::config::value::from_text(cx, node, |text| match text {
                    $($word => Ok($variant),)*
                    _ => Err($crate::config::value::not_a_word(text, &[$($word),*])),
                })
            }

            fn show(&self) -> Option<serde_json::Value> {
                Some(match self { $($variant => $word,)* }.into())
            }
        }
    };
}
pub(crate) use choice;

/// A word that is not in the list.
pub fn not_a_word(text: &str, words: &[&'static str]) -> TextError {
    match super::suggest::nearest(text, words.iter().copied()) {
        Some(word) => TextError::new("is not known here").help(format!("did you mean \"{word}\"?")),
        None => TextError::new("is not known here"),
    }
}
