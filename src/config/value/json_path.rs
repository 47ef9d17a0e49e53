//! Ways into a JSON value: `a.b.*.c`, or a JSON Pointer such as `/a/b/0`.

use serde_json::Value as Json;

use super::{TextError, Value, from_text};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::model::aggregate::{JsonPath, Step};
use crate::config::tree::Node;

/// Deeper than any answer may be nested.
const MOST_STEPS: usize = 128;

impl Value for JsonPath {
    fn shape() -> Shape {
        Shape::Text { what: "a path such as \"items.*.name\", or a JSON Pointer such as \"/items/0\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_json_path)
    }

    fn show(&self) -> Option<Json> {
        Some(show_json_path(self).into())
    }
}

/// A path to some part: a pointer when it begins with a slash, else names between dots.
pub fn parse_json_path(text: &str) -> Result<JsonPath, TextError> {
    let steps = match text.strip_prefix('/') {
        _ if text.is_empty() => {
            return Err(TextError::new("names no part").help("for the whole value leave the key out"));
        }
        Some(pointer) => pointer_steps(pointer)?,
        None => dotted_steps(text)?,
    };
    if steps.len() > MOST_STEPS {
        return Err(TextError::new(format!("has more than {MOST_STEPS} steps")));
    }
    Ok(JsonPath { steps })
}

fn dotted_steps(text: &str) -> Result<Vec<Step>, TextError> {
    if text == "$" || text.starts_with("$.") || text.contains('[') {
        let plain = text.trim_start_matches("$.").replace("[*]", ".*").replace('[', ".").replace(']', "");
        return Err(
            TextError::new("is written as JSONPath").help(format!("write names between dots, as in \"{plain}\""))
        );
    }
    let mut at = 0;
    let step = |name: &str| {
        let place = at..at + name.len();
        at = place.end + 1;
        match name {
            "" => Err(TextError::new("has an empty step").help("write one dot between two names").at(place)),
            "*" => Ok(Step::Each),
            _ => Ok(Step::Key(name.to_owned())),
        }
    };
    text.split('.').map(step).collect()
}

/// RFC 6901 §3 and §4; a `*` is a name there like any other.
fn pointer_steps(pointer: &str) -> Result<Vec<Step>, TextError> {
    let step = |token: &str| {
        let escaped = token.split('~').skip(1);
        if escaped.clone().any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(TextError::new("has a `~` that is no escape").help("in a JSON Pointer write `~0` for `~`"));
        }
        Ok(Step::Key(token.replace("~1", "/").replace("~0", "~")))
    };
    pointer.split('/').map(step).collect()
}

/// As it can be written in the file; a pointer where a name would be misread between dots.
pub fn show_json_path(path: &JsonPath) -> String {
    let dotted = path.steps.iter().all(|step| match step {
        Step::Each => true,
        Step::Key(name) => {
            !name.is_empty() && name != "*" && !name.contains(['.', '[']) && !name.starts_with(['/', '$'])
        }
    });
    let step = |step: &Step| match step {
        Step::Each => "*".to_owned(),
        Step::Key(name) if dotted => name.clone(),
        Step::Key(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
    };
    let steps: Vec<String> = path.steps.iter().map(step).collect();
    steps.join(if dotted { "." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn names_between_dots_and_pointers() {
        let cases = [
            ("data", vec![key("data")]),
            ("items.*.name", vec![key("items"), Step::Each, key("name")]),
            ("items.0", vec![key("items"), key("0")]),
            ("/a.b/m~1n/~01/*", vec![key("a.b"), key("m/n"), key("~1"), key("*")]),
            ("/", vec![key("")]),
        ];

        for (text, steps) in cases {
            let path = parse_json_path(text).expect(text);
            assert_eq!(path, JsonPath { steps }, "{text}");
            assert_eq!(show_json_path(&path), text);
        }
        assert_eq!(parse_json_path("/items/0"), parse_json_path("items.0"));
    }

    #[test]
    fn other_notations_are_refused_with_what_to_write() {
        for text in ["", "a..b", ".a", "a.", "/~2", "/a~"] {
            assert!(parse_json_path(text).is_err(), "{text}");
        }
        let error = parse_json_path("$.items[*].name").expect_err("JSONPath");
        assert!(error.help.is_some_and(|help| help.contains("\"items.*.name\"")));
    }
}
