//! Paths: what a route matches, and what a request's path becomes.

use serde_json::Value as Json;

use super::{TextError, Value, from_text};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::model::{PathPattern, Segment};
use crate::config::tree::Node;
use crate::message::path::{Normalised, normalise};

impl Value for PathPattern {
    fn shape() -> Shape {
        Shape::Text {
            what: "a path: \"/users\" (only that), \"/users/*\" (and below), \"/users/{id}\"",
            pattern: Some("^(/|.*\\$\\{)"),
        }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_pattern)
    }

    fn show(&self) -> Option<Json> {
        Some(show_pattern(self).into())
    }
}

/// The pattern as it is written in the file.
pub fn show_pattern(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(prefix) => format!("{prefix}/*"),
        PathPattern::Template { segments, rest } => {
            let mut text = String::new();
            for segment in segments {
                match segment {
                    Segment::Literal(literal) => text.push_str(&format!("/{literal}")),
                    Segment::Parameter(name) => text.push_str(&format!("/{{{name}}}")),
                }
            }
            if *rest { text + "/*" } else { text }
        }
    }
}

pub fn parse_pattern(text: &str) -> Result<PathPattern, TextError> {
    check_absolute(text)?;
    let (path, rest) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if rest && path.ends_with('/') {
        let empty = path.len() - 1..path.len() + 1;
        return Err(TextError::new("has an empty segment").help("write one slash").at(empty));
    }
    if let Some(at) = path.find('*') {
        return Err(TextError::new("has a `*` in the middle")
            .help("`*` can only be the last segment; for one segment write \"{name}\"")
            .at(at..at + 1));
    }
    if !path.contains(['{', '}']) {
        check_segments(path)?;
        return Ok(if rest { PathPattern::Prefix(path.to_owned()) } else { PathPattern::Exact(path.to_owned()) });
    }
    check_segments(path)?;
    let segments = parse_segments(path)?;
    Ok(PathPattern::Template { segments, rest })
}

pub(super) fn check_absolute(text: &str) -> Result<(), TextError> {
    if !text.starts_with('/') {
        let help = format!("begin with a slash: \"/{}\"", text.trim_start_matches("*/"));
        return Err(TextError::new("is not a path").help(help));
    }
    if let Some(at) = text.find(['?', '#']) {
        return Err(TextError::new("has a query or fragment").help("routes match the path only").at(at..text.len()));
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        return Err(TextError::new(format!("has the character {c:?}"))
            .help("write it percent-encoded, as it stands in a request")
            .at(at..at + c.len_utf8()));
    }
    Ok(())
}

/// A pattern is compared with the normalised path, so it must be one: otherwise it would never match.
pub(super) fn check_segments(path: &str) -> Result<(), TextError> {
    let mut at = 0;
    for (index, segment) in path.split('/').enumerate() {
        let place = at..at + segment.len();
        at = place.end + 1;
        let last = at > path.len();
        if segment.is_empty() && index > 0 && !last {
            return Err(TextError::new("has an empty segment")
                .help("write one slash")
                .at(place.start - 1..place.end + 1));
        }
        if matches!(segment, "." | "..") {
            return Err(TextError::new("has a dot segment").help("write the path it leads to").at(place));
        }
        check_escapes(segment).map_err(|error| error.at(place))?;
    }
    check_normal(path)
}

/// What the checks before this one have not said in their own words.
fn check_normal(path: &str) -> Result<(), TextError> {
    // Parameters stand for whole segments, so their braces do not matter here.
    let literal = path.replace(['{', '}'], "");
    if literal.is_empty() {
        return Ok(());
    }
    let mut normal = Vec::new();
    match normalise(literal.as_bytes(), &mut normal) {
        Ok(Normalised::Unchanged) => Ok(()),
        Ok(Normalised::Written) => Err(TextError::new("is not in the form that requests are matched in")
            .help(format!("write \"{}\"", String::from_utf8_lossy(&normal)))),
        Err(error) => {
            Err(TextError::new(format!("can never match: {error}")).help("such requests are answered with 400"))
        }
    }
}

/// Escapes stay in the normalised path only where they are needed, in capitals.
fn check_escapes(segment: &str) -> Result<(), TextError> {
    for (at, _) in segment.match_indices('%') {
        let hex = segment.get(at + 1..at + 3).unwrap_or("");
        let Ok(byte) = u8::from_str_radix(hex, 16) else {
            return Err(
                TextError::new("has a `%` without two hexadecimal digits").help("write \"%25\" for a percent sign")
            );
        };
        if matches!(byte, b'/' | b'\\' | 0) {
            return Err(TextError::new(format!("has the escape `%{hex}`, which is refused in requests")));
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            let help = format!("write `{}` as itself", char::from(byte));
            return Err(TextError::new(format!("has the needless escape `%{hex}`")).help(help));
        }
        if hex.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(TextError::new(format!("has the escape `%{hex}` in small letters"))
                .help(format!("write `%{}`", hex.to_ascii_uppercase())));
        }
    }
    Ok(())
}

fn parse_segments(path: &str) -> Result<Vec<Segment>, TextError> {
    let mut segments = Vec::new();
    let mut at = 1;
    for text in path.split('/').skip(1) {
        let place = at..at + text.len();
        at = place.end + 1;
        let segment = parse_segment(text).map_err(|error| error.at(place.clone()))?;
        if segments.contains(&segment) && matches!(segment, Segment::Parameter(_)) {
            return Err(TextError::new("has a parameter twice").help("give each its own name").at(place));
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn parse_segment(text: &str) -> Result<Segment, TextError> {
    if !text.contains(['{', '}']) {
        return Ok(Segment::Literal(text.to_owned()));
    }
    match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some("rest") => {
            Err(TextError::new("uses the name `rest`").help("`{rest}` is what `/*` matches; name it otherwise"))
        }
        Some(name) if is_parameter(name) => Ok(Segment::Parameter(name.to_owned())),
        Some(_) => Err(TextError::new("has a bad parameter name").help("letters, digits and `_`, as in \"{id}\"")),
        None => Err(TextError::new("has a parameter that is not a whole segment").help("write \"/{name}/\"")),
    }
}

fn is_parameter(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A new path with `{name}` in it. The names are checked against the route's own path in `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate(pub String);

impl Value for PathTemplate {
    fn shape() -> Shape {
        Shape::Text { what: "a path such as \"/v2/users/{id}\" or \"/v2/{rest}\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| {
            check_absolute(text)?;
            check_segments(text)?;
            if text.contains('*') {
                return Err(TextError::new("has a `*`").help("write \"{rest}\" for what the route's `/*` matched"));
            }
            parameters(text)?;
            Ok(Self(text.to_owned()))
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

/// The names in braces, each with its place.
pub fn parameters(template: &str) -> Result<Vec<(&str, std::ops::Range<usize>)>, TextError> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(open) = template[at..].find(['{', '}']).map(|found| at + found) {
        let rest = &template[open..];
        let close = rest.starts_with('{').then(|| rest.find('}')).flatten();
        let Some(close) = close.map(|close| open + close) else {
            return Err(TextError::new("has a brace without its partner").at(open..open + 1));
        };
        let name = &template[open + 1..close];
        if !is_parameter(name) {
            return Err(TextError::new("has a bad parameter name").at(open..close + 1));
        }
        names.push((name, open..close + 1));
        at = close + 1;
    }
    Ok(names)
}

/// A path of whole segments, without parameters: what `strip_prefix` takes off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainPath(pub String);

impl Value for PlainPath {
    fn shape() -> Shape {
        Shape::Text { what: "a path such as \"/api\"", pattern: Some("^(/|.*\\$\\{)") }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| {
            check_absolute(text)?;
            check_segments(text)?;
            if text.contains(['*', '{', '}']) {
                return Err(TextError::new("has a wildcard").help("write the segments themselves, as in \"/api\""));
            }
            let path = text.strip_suffix('/').unwrap_or(text);
            if path.is_empty() {
                return Err(TextError::new("is the whole path").help("name at least one segment, or take the key out"));
            }
            Ok(Self(path.to_owned()))
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

/// A path with a query, sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTarget(pub String);

impl Value for RequestTarget {
    fn shape() -> Shape {
        Shape::Text { what: "a path such as \"/healthz\"", pattern: Some("^(/|.*\\$\\{)") }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| {
            let path = text.split('?').next().unwrap_or(text);
            check_absolute(path)?;
            if text.contains('#') || !text.chars().all(|c| c.is_ascii_graphic()) {
                return Err(TextError::new("cannot be sent as a path").help("percent-encode it"));
            }
            Ok(Self(text.to_owned()))
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_kinds_of_pattern() {
        assert_eq!(parse_pattern("/users"), Ok(PathPattern::Exact("/users".into())));
        assert_eq!(parse_pattern("/users/"), Ok(PathPattern::Exact("/users/".into())));
        assert_eq!(parse_pattern("/users/*"), Ok(PathPattern::Prefix("/users".into())));
        assert_eq!(parse_pattern("/*"), Ok(PathPattern::Prefix(String::new())));
        let segments = vec![Segment::Literal("users".into()), Segment::Parameter("id".into())];
        assert_eq!(parse_pattern("/users/{id}/*"), Ok(PathPattern::Template { segments, rest: true }));
    }

    #[test]
    fn patterns_that_could_never_match_are_refused() {
        let wrong = [
            "users", "", "/a//b", "/a//*", "//*", "/a/../b", "/a/./b", "/a?b", "/a*", "/*/a", "/{a}/{a}", "/x{a}",
            "/{}", "/{1}", "/a b", "/%zz", "/..;x/a", "/a\\b", "/%2f", "/%41", "/%c3%a9", "/{rest}", "/é",
        ];

        for text in wrong {
            assert!(parse_pattern(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_shown_as_it_was_written(text in "(/[a-z{}*%.2F]{0,4}){1,4}") {
            if let Ok(pattern) = parse_pattern(&text) {
                prop_assert_eq!(show_pattern(&pattern), text);
            }
        }
    }
}
