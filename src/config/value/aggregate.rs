//! Values of `[route.NAME.aggregate]`: what a source sends, what stands for a source that failed, the words for how
//! answers become one.

use serde_json::Value as Json;

use super::http::{header_table, parse_header_name, refuse_framing};
use super::json_path::parse_json_path;
use super::path::{check_absolute, check_segments};
use super::secret::HeaderValue;
use super::template::{FixedJson, Layout, Piece, TemplateText, WrittenPiece, parse};
use super::{TextError, Value, choice, from_text, not_a_word, report_text};
use crate::config::decode::{Decoder, Spot};
use crate::config::describe::Shape;
use crate::config::diagnostic::{Code, Problem};
use crate::config::model::Secret;
use crate::config::model::aggregate::{CoalesceKey, Collision, Format, JsonPath, Step, TooMany};
use crate::config::source::Span;
use crate::config::tree::{Entry, Kind, Node, Text};

/// When an aggregate has what it needs; how many are a quorum is a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyWord {
    All,
    First,
    Quorum,
    Fallback,
}

/// The shape of a body that is not laid out with `respond`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    Keyed,
    Flat,
}

choice!(StrategyWord {
    "all" => StrategyWord::All,
    "first" => StrategyWord::First,
    "quorum" => StrategyWord::Quorum,
    "fallback" => StrategyWord::Fallback,
});
choice!(Merge { "keyed" => Merge::Keyed, "flat" => Merge::Flat });
choice!(Collision { "error" => Collision::Error, "first" => Collision::First, "last" => Collision::Last });
choice!(TooMany { "cut" => TooMany::Cut, "refuse" => TooMany::Refuse });
choice!(Format { "json" => Format::Json, "text" => Format::Text, "auto" => Format::Auto, "raw" => Format::Raw });

/// `"path"`, `"query"`, `"body"` or `"header.NAME"`: what tells requests apart that may share one answer.
impl Value for CoalesceKey {
    fn shape() -> Shape {
        Shape::Text {
            what: "\"path\", \"query\", \"body\" or \"header.NAME\"",
            pattern: Some(r"^(path|query|body|header\..+|.*\$\{.*)$"),
        }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| match text.split_once(['.', ':']) {
            None if text == "path" => Ok(Self::Path),
            None if text == "query" => Ok(Self::Query),
            None if text == "body" => Ok(Self::Body),
            Some(("header", name)) if text.starts_with("header.") => {
                parse_header_name(name).map(Self::Header).map_err(|error| error.at(7..text.len()))
            }
            Some(("header", name)) => {
                Err(TextError::new("is not known here").help(format!("write \"header.{name}\", as in a template")))
            }
            Some(("query", _)) => {
                Err(TextError::new("names a part of the query").help("write \"query\" for all of it"))
            }
            _ => Err(not_a_word(text, &["path", "query", "body", "header"])),
        })
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            CoalesceKey::Path => "path".into(),
            CoalesceKey::Query => "query".into(),
            CoalesceKey::Body => "body".into(),
            CoalesceKey::Header(name) => format!("header.{name}").into(),
        })
    }
}

/// The path that a source asks for. A reference is a part of one segment, or whole segments for `{rest}`.
#[derive(Debug, Clone)]
pub struct SourcePath(pub TemplateText);

impl Value for SourcePath {
    fn shape() -> Shape {
        Shape::Text { what: "a path such as \"/users/{id}\"", pattern: Some("^(/|.*\\$\\{)") }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        TemplateText::decode_with(cx, node, &Self::shape(), check_source_path).map(Self)
    }

    fn show(&self) -> Option<Json> {
        self.0.show()
    }
}

/// The upstream says where a request goes: a path can only be a path, whatever values come into it.
fn check_source_path(text: &Text, pieces: &[Piece]) -> Result<(), TextError> {
    let value = text.value.as_str();
    if value.contains("://") {
        return Err(TextError::new("is not a path").help("host and port are the upstream's `endpoints`"));
    }
    if let Some(Piece::Reference { at, .. }) = pieces.first() {
        return Err(TextError::new("does not begin with a slash")
            .help(format!("write \"/{value}\": a request cannot choose where it goes"))
            .at(at.clone()));
    }
    // Each reference stands for letters of the same length, so that the places of what is wrong stay right.
    let mut plain = value.to_owned();
    for piece in pieces {
        if let Piece::Reference { at, .. } = piece {
            plain.replace_range(at.clone(), &"x".repeat(at.len()));
        }
    }
    if let Some(at) = plain.find(['{', '}']) {
        return Err(TextError::new("has a brace").help("write \"%7B\" and \"%7D\" in a path").at(at..at + 1));
    }
    if let Some(at) = plain.find('?') {
        return Err(TextError::new("has a query")
            .help("use `query`: query = { name = \"value\" }")
            .at(at..value.len()));
    }
    if let Some(at) = plain.find('#') {
        return Err(TextError::new("has a fragment").help("write \"%23\" for `#`").at(at..value.len()));
    }
    if plain.starts_with("//") {
        return Err(TextError::new("begins with two slashes").help("write one").at(0..2));
    }
    check_absolute(&plain)?;
    check_segments(&plain)
}

/// `{ page = "{query.page}", tag = ["a", "b"] }`: in the order of the file, a list once for each value.
#[derive(Debug, Clone)]
pub struct QueryTemplates(pub Vec<(String, TemplateText)>);

impl Value for QueryTemplates {
    fn shape() -> Shape {
        let plain = || Shape::Either(vec![TemplateText::shape(), Shape::Number, Shape::Boolean]);
        let value = Shape::Either(vec![plain(), Shape::List(Box::new(plain()))]);
        Shape::Map { names: "names", value: Box::new(value) }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let Kind::Table(entries) = &node.kind else {
            cx.wrong_type(node, "a table such as { page = \"{query.page}\" }");
            return None;
        };
        let mut values = Vec::new();
        for entry in entries {
            let nodes = match &entry.value.kind {
                Kind::List(nodes) => nodes.as_slice(),
                _ => std::slice::from_ref(&entry.value),
            };
            for node in nodes {
                let value = cx.within(entry.key.clone(), |cx| query_value(cx, node));
                values.push(value.map(|value| (entry.key.clone(), value)));
            }
        }
        values.into_iter().collect::<Option<_>>().map(Self)
    }

    fn show(&self) -> Option<Json> {
        let mut shown = serde_json::Map::new();
        for (name, value) in &self.0 {
            let text = Json::from(value.shown.as_str());
            match shown.get_mut(name) {
                Some(Json::Array(values)) => values.push(text),
                Some(first) => *first = Json::Array(vec![first.take(), text]),
                None => {
                    shown.insert(name.clone(), text);
                }
            }
        }
        Some(Json::Object(shown))
    }
}

fn query_value(cx: &mut Decoder<'_>, node: &Node) -> Option<TemplateText> {
    if matches!(node.kind, Kind::List(_) | Kind::Table(_)) {
        cx.wrong_type(node, "text, a number, true or false");
        return None;
    }
    match Layout::decode(cx, node)? {
        Layout::Text(text) => Some(text),
        Layout::Literal(text) => Some(TemplateText {
            pieces: vec![WrittenPiece::Literal(text.clone())],
            shown: text,
            span: node.span.clone(),
            secret: false,
        }),
        Layout::Object(_) | Layout::List(_) => None,
    }
}

/// A field that a source sends.
#[derive(Debug, Clone)]
pub struct SourceHeader {
    pub name: String,
    pub name_span: Span,
    pub value: SourceHeaderValue,
}

#[derive(Debug, Clone)]
pub enum SourceHeaderValue {
    Template(TemplateText),
    /// From the environment or a file, or text without references.
    Fixed(Secret),
}

/// `{ "x-tenant" = "{header.x-tenant}", authorization = "${TOKEN}" }`.
#[derive(Debug, Clone)]
pub struct SourceHeaders(pub Vec<SourceHeader>);

impl Value for SourceHeaders {
    fn shape() -> Shape {
        Shape::Map { names: "header names", value: Box::new(HeaderValue::shape()) }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        const WHAT: &str = "a table such as { \"x-tenant\" = \"{header.x-tenant}\" }";
        header_table(cx, node, WHAT, refuse_in_source, |cx, name, entry| {
            let value = header_value(cx, name, entry)?;
            Some(SourceHeader { name: name.to_owned(), name_span: entry.key_span.clone(), value })
        })
        .map(Self)
    }

    fn show(&self) -> Option<Json> {
        let shown = |header: &SourceHeader| {
            let text = match &header.value {
                SourceHeaderValue::Template(text) => text.shown.as_str(),
                SourceHeaderValue::Fixed(value) if value.is_secret() => "***",
                SourceHeaderValue::Fixed(value) => value.reveal(),
            };
            (header.name.clone(), text.into())
        };
        Some(Json::Object(self.0.iter().map(shown).collect()))
    }
}

fn header_value(cx: &mut Decoder<'_>, name: &str, entry: &Entry) -> Option<SourceHeaderValue> {
    let Kind::Text(_) = &entry.value.kind else { return fixed_header(cx, name, &entry.value) };
    let text = TemplateText::decode_with(cx, &entry.value, &HeaderValue::shape(), |_, pieces| check_line(pieces))?;
    // A credential with a reference comes from the request; without, it must not stand in the file.
    if text.references().next().is_none() {
        return fixed_header(cx, name, &entry.value);
    }
    Some(SourceHeaderValue::Template(text))
}

fn fixed_header(cx: &mut Decoder<'_>, name: &str, node: &Node) -> Option<SourceHeaderValue> {
    let value = HeaderValue::decode_for(cx, name, node)?;
    if let Some(secret) = value.secret() {
        let path = cx.path();
        cx.settings.add_secret(path, secret);
    }
    // Doubled braces are undone; what came from the environment stays as it is.
    let plain = match &node.kind {
        Kind::Text(text) if !value.0.is_secret() => parse(&text.value, &text.filled).ok(),
        _ => None,
    };
    match plain.as_deref() {
        Some([Piece::Literal(text)]) => Some(SourceHeaderValue::Fixed(Secret::plain(text.clone()))),
        _ => Some(SourceHeaderValue::Fixed(value.0)),
    }
}

/// Nothing that could end a field may stand in one (RFC 9110 §5.5).
fn check_line(pieces: &[Piece]) -> Result<(), TextError> {
    let ends = |c: char| c.is_control() && c != '\t';
    let bad = pieces.iter().any(|piece| matches!(piece, Piece::Literal(text) if text.contains(ends)));
    if bad {
        return Err(TextError::new("holds a line end or control character").help("write text for one header line"));
    }
    Ok(())
}

/// What a source cannot send: fields that belong to the connection, to the upstream, or to Forebay.
fn refuse_in_source(name: &str) -> Result<(), TextError> {
    match name {
        "host" => Err(TextError::new("cannot be set here").help("a source's host is that of its upstream")),
        name if name.starts_with("x-forebay-") => {
            Err(TextError::new("cannot be set").help("it is Forebay's own; take it out"))
        }
        name => refuse_framing(name),
    }
}

/// The name of a field that is sent on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedHeader(pub String);

impl Value for ForwardedHeader {
    fn shape() -> Shape {
        Shape::Text { what: "a header name", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| {
            if text == "*" {
                let help = "name the headers that the source needs, as in [\"authorization\"]";
                return Err(TextError::new("would send everything on").help(help));
            }
            let name = parse_header_name(text)?;
            refuse_in_source(&name)?;
            Ok(Self(name))
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

/// One reference and nothing else: `"{body.ids}"`.
#[derive(Debug, Clone)]
pub struct ListReference(pub TemplateText);

impl Value for ListReference {
    fn shape() -> Shape {
        Shape::Text { what: "one reference, such as \"{body.ids}\" or \"{query.ids}\"", pattern: Some("^(\\{.+\\})$") }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let check = |_: &Text, pieces: &[Piece]| match pieces {
            [Piece::Reference { .. }] => Ok(()),
            _ => Err(TextError::new("is not one reference")),
        };
        TemplateText::decode_with(cx, node, &Self::shape(), check).map(Self)
    }

    fn show(&self) -> Option<Json> {
        self.0.show()
    }
}

/// The text in a failed source's place; `{name}` and `{error}` are replaced when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorMessage(pub String);

impl Value for ErrorMessage {
    fn shape() -> Shape {
        Shape::Text { what: "text, with \"{name}\" for the source and \"{error}\" for the reason", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let Kind::Text(text) = &node.kind else {
            cx.wrong_type(node, &Self::shape().what());
            return None;
        };
        match check_error_message(text) {
            Ok(()) => Some(Self(text.value.clone())),
            Err(error) => {
                report_text(cx, node, text, error, &Self::shape());
                None
            }
        }
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

fn check_error_message(text: &Text) -> Result<(), TextError> {
    for piece in parse(&text.value, &text.filled)? {
        match piece {
            Piece::Reference { head, tail, at } if !tail.is_empty() || !matches!(&*head, "name" | "error") => {
                return Err(TextError::new("has a reference that is not known here")
                    .help("only \"{name}\" and \"{error}\" are replaced: the source's name and why it failed")
                    .at(at));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What stands in the place of a source that failed, as written.
#[derive(Debug, Clone)]
pub enum WrittenOnError {
    Embed,
    Omit,
    Fail,
    Value(FixedJson),
    Source(Spot<String>),
}

const ON_ERROR_WORDS: [&str; 3] = ["embed", "omit", "fail"];
const ON_ERROR: &str = "\"embed\", \"omit\", \"fail\", { value = ... } or { source = \"NAME\" }";

impl Value for WrittenOnError {
    fn shape() -> Shape {
        let any = Box::new(Shape::Any { what: "" });
        Shape::Either(vec![Shape::Choice(&ON_ERROR_WORDS), Shape::Map { names: "`value` or `source`", value: any }])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        match &node.kind {
            Kind::Text(_) => from_text(cx, node, |text| match text {
                "embed" => Ok(Self::Embed),
                "omit" => Ok(Self::Omit),
                "fail" => Ok(Self::Fail),
                _ => Err(match not_a_word(text, &ON_ERROR_WORDS) {
                    TextError { help: None, problem, .. } => {
                        TextError::new(problem).help(format!("write {ON_ERROR}; a fallback is {{ value = {text:?} }}"))
                    }
                    error => error,
                }),
            }),
            Kind::Table(entries) => on_error_table(cx, node, entries),
            Kind::Broken => None,
            _ => {
                cx.wrong_type(node, &format!("{ON_ERROR}: a fallback value goes in braces"));
                None
            }
        }
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            WrittenOnError::Embed => "embed".into(),
            WrittenOnError::Omit => "omit".into(),
            WrittenOnError::Fail => "fail".into(),
            WrittenOnError::Value(value) => serde_json::json!({ "value": value.shown }),
            WrittenOnError::Source(name) => serde_json::json!({ "source": name.value }),
        })
    }
}

fn on_error_table(cx: &mut Decoder<'_>, node: &Node, entries: &[Entry]) -> Option<WrittenOnError> {
    match entries {
        [entry] if entry.key == "value" => FixedJson::decode(cx, &entry.value).map(WrittenOnError::Value),
        [entry] if entry.key == "source" => Spot::decode(cx, &entry.value).map(WrittenOnError::Source),
        _ => {
            let at = entries.iter().find(|entry| !matches!(&*entry.key, "value" | "source"));
            let span = at.map_or(node.span.clone(), |entry| entry.key_span.clone());
            let problem = Problem::error(Code::InvalidValue, span, "`on_error` has one key: `value` or `source`");
            cx.report(problem.expected(ON_ERROR));
            None
        }
    }
}

/// `{ "a.b" = "c" }`: the last name of each path becomes another.
#[derive(Debug, Clone)]
pub struct Renames(pub Vec<(JsonPath, String)>);

impl Value for Renames {
    fn shape() -> Shape {
        let value = Box::new(Shape::Text { what: "the new name", pattern: None });
        Shape::Map { names: "paths", value }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let Kind::Table(entries) = &node.kind else {
            cx.wrong_type(node, "a table such as { \"items.*.id\" = \"key\" }");
            return None;
        };
        let renames: Vec<Option<(JsonPath, String)>> = entries.iter().map(|entry| rename(cx, entry)).collect();
        renames.into_iter().collect::<Option<_>>().map(Self)
    }

    fn show(&self) -> Option<Json> {
        let shown = |(path, name): &(JsonPath, String)| (super::json_path::show_json_path(path), name.as_str().into());
        Some(Json::Object(self.0.iter().map(shown).collect()))
    }
}

fn rename(cx: &mut Decoder<'_>, entry: &Entry) -> Option<(JsonPath, String)> {
    let nested = matches!(entry.value.kind, Kind::Table(_));
    let path = parse_json_path(&entry.key).and_then(|path| match path.steps.last() {
        Some(Step::Each) => Err(TextError::new("ends with `*`, which has no name").help("end with a member's name")),
        // `a.b = "c"` without quotes makes a table in TOML.
        _ if nested => Err(TextError::new("is not in quotes").help("put the path in quotes: \"a.b\" = \"c\"")),
        _ => Ok(path),
    });
    let name = if nested { None } else { cx.within(entry.key.clone(), |cx| String::decode(cx, &entry.value)) };
    match path {
        Ok(path) => Some((path, name?)),
        Err(error) => {
            let problem = Problem::error(
                Code::InvalidValue,
                entry.key_span.clone(),
                format!("{:?} {}", entry.key, error.problem),
            );
            cx.report(match error.help {
                Some(help) => problem.help(help),
                None => problem.expected(JsonPath::shape().what()),
            });
            None
        }
    }
}
