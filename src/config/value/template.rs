//! Text with references: `"/users/{id}"`, `"{user1.name}"`. `{{` and `}}` are literal braces. What came from the
//! environment means only itself, whatever braces are in it. Which names there are is known to the aggregate, which
//! looks them up in [`crate::config::aggregate::names`].

use serde_json::Value as Json;

use super::{TextError, Value, report_text};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::source::Span;
use crate::config::tree::{Kind, Node, Text};

/// A text as it is written, taken apart.
#[derive(Debug, Clone)]
pub struct TemplateText {
    pub pieces: Vec<WrittenPiece>,
    /// As it may be shown: what came from the environment is `***`.
    pub shown: String,
    pub span: Span,
    /// Some of it came from the environment.
    pub secret: bool,
}

#[derive(Debug, Clone)]
pub enum WrittenPiece {
    Literal(String),
    Reference(WrittenReference),
}

/// `{head.tail}` before anybody has looked up what `head` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenReference {
    /// The name: `user1`, `query`, `id`.
    pub head: String,
    /// What follows it, with the dot or slash it begins with; may be empty.
    pub tail: String,
    /// In the file, with its braces.
    pub at: Span,
}

impl WrittenReference {
    /// As written, with its braces.
    pub fn text(&self) -> String {
        format!("{{{}{}}}", self.head, self.tail)
    }
}

impl TemplateText {
    pub fn references(&self) -> impl Iterator<Item = &WrittenReference> {
        self.pieces.iter().filter_map(|piece| match piece {
            WrittenPiece::Reference(reference) => Some(reference),
            WrittenPiece::Literal(_) => None,
        })
    }

    /// The reference that is the whole text.
    pub fn only_reference(&self) -> Option<&WrittenReference> {
        match self.pieces.as_slice() {
            [WrittenPiece::Reference(reference)] => Some(reference),
            _ => None,
        }
    }

    /// The text itself, when nothing in it is a reference.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [WrittenPiece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Reads a text that may hold references; `check` says what else has to hold.
    pub fn decode_with(
        cx: &mut Decoder<'_>,
        node: &Node,
        shape: &Shape,
        check: impl FnOnce(&Text, &[Piece]) -> Result<(), TextError>,
    ) -> Option<Self> {
        let Kind::Text(text) = &node.kind else {
            cx.wrong_type(node, &shape.what());
            return None;
        };
        let parsed = parse(&text.value, &text.filled).and_then(|pieces| check(text, &pieces).map(|()| pieces));
        let pieces = match parsed {
            Ok(pieces) => pieces,
            Err(error) => {
                report_text(cx, node, text, error, shape);
                return None;
            }
        };
        if text.substituted {
            let path = cx.path();
            cx.settings.add_secret(path, &text.value);
        }
        let written = pieces.into_iter().map(|piece| match piece {
            Piece::Literal(literal) => WrittenPiece::Literal(literal),
            Piece::Reference { head, tail, at } => {
                // Offsets in a text with filled-in parts are not offsets in the file.
                let at = if text.substituted { node.span.clone() } else { cx.inside(&text.value, &node.span, &at) };
                WrittenPiece::Reference(WrittenReference { head, tail, at })
            }
        });
        Some(Self { pieces: written.collect(), shown: mask(text), span: node.span.clone(), secret: text.substituted })
    }
}

impl Value for TemplateText {
    fn shape() -> Shape {
        Shape::Text { what: "text, with references such as \"{id}\" or \"{query.page}\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        Self::decode_with(cx, node, &Self::shape(), |_, _| Ok(()))
    }

    fn show(&self) -> Option<Json> {
        Some(self.shown.as_str().into())
    }
}

/// The text with `***` for what came from the environment.
fn mask(text: &Text) -> String {
    let mut shown = String::new();
    let mut at = 0;
    for part in &text.filled {
        shown.push_str(&text.value[at..part.start]);
        shown.push_str("***");
        at = part.end;
    }
    shown.push_str(&text.value[at..]);
    shown
}

/// A part of a text, with the place of references in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    Reference { head: String, tail: String, at: Span },
}

/// Takes a text apart. `filled` are the parts that came from the environment.
pub fn parse(text: &str, filled: &[Span]) -> Result<Vec<Piece>, TextError> {
    let is_filled = |at: usize| filled.iter().any(|part| part.contains(&at));
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let next = at + c.len_utf8();
        if !matches!(c, '{' | '}') || is_filled(at) {
            literal.push(c);
            at = next;
        } else if text[next..].starts_with(c) && !is_filled(next) {
            literal.push(c);
            at = next + 1;
        } else if c == '}' {
            return Err(TextError::new("has a `}` without its `{`").help("write `}}` for a brace").at(at..next));
        } else {
            let piece = reference(text, at, filled)?;
            if let Piece::Reference { at: place, .. } = &piece {
                at = place.end;
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// The reference whose brace is at `open`.
fn reference(text: &str, open: usize, filled: &[Span]) -> Result<Piece, TextError> {
    let inner = &text[open + 1..];
    let close = inner.find(['{', '}']).filter(|found| inner[*found..].starts_with('}'));
    let Some(close) = close.map(|close| open + 1 + close) else {
        return Err(TextError::new("has a `{` without its `}`")
            .help("close it, or write `{{` for a brace")
            .at(open..open + 1));
    };
    let place = open..close + 1;
    if filled.iter().any(|part| part.start < place.end && place.start < part.end) {
        return Err(TextError::new("takes a name in braces from the environment")
            .help("write the name itself: only literal text can come from there"));
    }
    let inner = &text[open + 1..close];
    let (head, tail) = inner.split_at(inner.find(['.', '/']).unwrap_or(inner.len()));
    let plain = !head.is_empty() && head.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !plain {
        return Err(TextError::new("has braces around something that is no name")
            .help("write a name, as in \"{id}\", or `{{` and `}}` for braces")
            .at(place));
    }
    Ok(Piece::Reference { head: head.to_owned(), tail: tail.to_owned(), at: place })
}

/// Any TOML value, its strings with references: what a body is made from.
#[derive(Debug, Clone)]
pub enum Layout {
    Object(Vec<(String, Layout)>),
    List(Vec<Layout>),
    Text(TemplateText),
    /// JSON text: a number or a boolean, as written.
    Literal(String),
}

const LAYOUT: &str = "text, a number, true or false, a list or a table";

impl Layout {
    /// Every reference, in the order of the file.
    pub fn references(&self) -> Vec<&WrittenReference> {
        match self {
            Layout::Object(members) => members.iter().flat_map(|(_, value)| value.references()).collect(),
            Layout::List(values) => values.iter().flat_map(Layout::references).collect(),
            Layout::Text(text) => text.references().collect(),
            Layout::Literal(_) => Vec::new(),
        }
    }
}

impl Value for Layout {
    fn shape() -> Shape {
        Shape::Any { what: LAYOUT }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        Some(match &node.kind {
            Kind::Text(_) => Self::Text(TemplateText::decode(cx, node)?),
            Kind::List(nodes) => {
                let decode = |(index, node): (usize, &Node)| cx.within(index.to_string(), |cx| Self::decode(cx, node));
                let values: Vec<Option<Self>> = nodes.iter().enumerate().map(decode).collect();
                Self::List(values.into_iter().collect::<Option<_>>()?)
            }
            Kind::Table(entries) => {
                let mut members = Vec::new();
                for entry in entries {
                    let value = cx.within(entry.key.clone(), |cx| Self::decode(cx, &entry.value));
                    members.push(value.map(|value| (entry.key.clone(), value)));
                }
                Self::Object(members.into_iter().collect::<Option<_>>()?)
            }
            _ => Self::Literal(scalar(cx, node)?),
        })
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            Layout::Object(members) => {
                let shown = |(name, value): &(String, Layout)| Some((name.clone(), value.show()?));
                Json::Object(members.iter().map(shown).collect::<Option<_>>()?)
            }
            Layout::List(values) => Json::Array(values.iter().map(Value::show).collect::<Option<_>>()?),
            Layout::Text(text) => text.show()?,
            Layout::Literal(json) => show_scalar(json),
        })
    }
}

/// A number or boolean as JSON text: the digits as they are in the file, not what a float makes of them.
fn scalar(cx: &mut Decoder<'_>, node: &Node) -> Option<String> {
    let written = cx.source.slice(&node.span).replace('_', "");
    let digits = written.trim_start_matches('+');
    let is_decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match &node.kind {
        Kind::Boolean(value) => Some(value.to_string()),
        Kind::Integer(number) => Some(number.to_string()),
        Kind::Float(_) if is_decimal => Some(digits.to_owned()),
        Kind::Other(_) if is_decimal && !digits.contains(['.', 'e', 'E']) && !digits[1..].contains('-') => {
            Some(digits.to_owned())
        }
        Kind::Float(_) => {
            cx.wrong_type(node, "a number that JSON has; infinity and NaN are none");
            None
        }
        _ => {
            cx.wrong_type(node, &format!("{LAYOUT}; JSON has no dates, so they go in quotes"));
            None
        }
    }
}

/// A fixed TOML value as JSON text: nothing in it is looked at for references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedJson {
    pub json: String,
    /// As it may be shown: what came from the environment is `***`.
    pub shown: Json,
}

impl FixedJson {
    pub fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        Some(match &node.kind {
            Kind::Text(text) => {
                if text.substituted {
                    let path = cx.path();
                    cx.settings.add_secret(path, &text.value);
                }
                Self { json: json_string(&text.value), shown: mask(text).into() }
            }
            Kind::List(nodes) => {
                let decode = |(index, node): (usize, &Node)| cx.within(index.to_string(), |cx| Self::decode(cx, node));
                let values: Vec<Option<Self>> = nodes.iter().enumerate().map(decode).collect();
                let values: Vec<Self> = values.into_iter().collect::<Option<_>>()?;
                let (json, shown): (Vec<String>, _) = values.into_iter().map(|value| (value.json, value.shown)).unzip();
                Self { json: format!("[{}]", json.join(",")), shown: Json::Array(shown) }
            }
            Kind::Table(entries) => {
                let mut members = Vec::new();
                for entry in entries {
                    let value = cx.within(entry.key.clone(), |cx| Self::decode(cx, &entry.value));
                    members.push(value.map(|value| (entry.key.clone(), value)));
                }
                let members: Vec<(String, Self)> = members.into_iter().collect::<Option<_>>()?;
                let json = members.iter().map(|(name, value)| format!("{}:{}", json_string(name), value.json));
                let json = format!("{{{}}}", json.collect::<Vec<_>>().join(","));
                Self { json, shown: members.into_iter().map(|(name, value)| (name, value.shown)).collect() }
            }
            _ => {
                let json = scalar(cx, node)?;
                Self { shown: show_scalar(&json), json }
            }
        })
    }
}

/// A number that JSON libraries cannot hold is shown as text.
fn show_scalar(json: &str) -> Json {
    serde_json::from_str(json).unwrap_or_else(|_| json.into())
}

/// A string as JSON text.
pub fn json_string(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    fn reference(head: &str, tail: &str, at: Span) -> Piece {
        Piece::Reference { head: head.to_owned(), tail: tail.to_owned(), at }
    }

    #[test]
    fn text_is_taken_apart_at_its_references() {
        let cases = [
            ("", vec![]),
            ("plain", vec![literal("plain")]),
            ("{id}", vec![reference("id", "", 0..4)]),
            ("/u/{id}/x", vec![literal("/u/"), reference("id", "", 3..7), literal("/x")]),
            ("{a.b.*.c}{q/0}", vec![reference("a", ".b.*.c", 0..9), reference("q", "/0", 9..14)]),
            ("{{id}} {{{id}}}", vec![literal("{id} {"), reference("id", "", 9..13), literal("}")]),
        ];

        for (text, pieces) in cases {
            assert_eq!(parse(text, &[]), Ok(pieces), "{text}");
        }
    }

    #[test]
    fn braces_without_a_name_are_refused() {
        for text in ["{", "}", "{}", "{ id }", "{a{b}}", "{id", "id}", "{.a}", "{é}"] {
            assert!(parse(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn what_came_from_the_environment_is_literal() {
        let filled: Span = 0..4;

        assert_eq!(
            parse("{id}{id}", std::slice::from_ref(&filled)),
            Ok(vec![literal("{id}"), reference("id", "", 4..8)])
        );
        assert!(parse("{id}", std::slice::from_ref(&(1..3))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_can_be_written_with_doubled_braces(text in "[a{}.é]{0,12}") {
            let written = text.replace('{', "{{").replace('}', "}}");

            let pieces = parse(&written, &[]).expect("only literals");

            prop_assert_eq!(pieces, if text.is_empty() { vec![] } else { vec![literal(&text)] });
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,20}", start in 0usize..20, length in 0usize..5) {
            let _ = parse(&text, std::slice::from_ref(&(start..start + length)));
        }
    }
}
