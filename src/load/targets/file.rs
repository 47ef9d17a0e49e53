//! Files of targets as vegeta has them, its `http` and its `json` format, told apart by the first character.
//!
//! ```text
//! # a comment
//! GET http://127.0.0.1:8080/users weight=3
//! Accept: application/json
//!
//! POST http://127.0.0.1:8080/orders
//! Content-Type: application/json
//! @order.json
//! ```
//!
//! JSON is one object per line: `{"method": "GET", "url": "...", "header": {"Accept": ["*/*"]}, "body": "<base64>"}`.
//! `weight` is this program's own, in both. Without any weight the targets are walked through in order, as vegeta does.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::Target;

/// Reads a file of targets. `read` reads the bodies that it names, relative to `folder`.
///
/// # Errors
///
/// What is wrong, with its line.
pub fn parse(
    text: &str,
    folder: &Path,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<Vec<Target>, String> {
    let is_json = text.trim_start().starts_with('{');
    let mut targets = if is_json { json(text)? } else { Text { folder, read, targets: Vec::new() }.parse(text)? };
    if targets.is_empty() {
        return Err("holds no target: write lines such as `GET http://127.0.0.1:8080/users`".into());
    }
    // A weight anywhere makes all of them shares.
    if targets.iter().any(|target| target.weight.is_some()) {
        targets.iter_mut().for_each(|target| target.weight = target.weight.or(Some(1.0)));
    }
    Ok(targets)
}

fn at(line: usize, problem: impl std::fmt::Display) -> String {
    format!("line {}: {problem}", line + 1)
}

fn json(text: &str) -> Result<Vec<Target>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| json_target(line).map_err(|problem| at(number, problem))).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonTarget {
    method: String,
    url: String,
    #[serde(default)]
    header: std::collections::BTreeMap<String, Vec<String>>,
    #[serde(default)]
    body: String,
    weight: Option<f64>,
    /// When it was due, in files for `forebay replay`. Here the rate says when.
    #[serde(default, rename = "at")]
    _at: serde::de::IgnoredAny,
}

fn json_target(line: &str) -> Result<Target, String> {
    let raw: JsonTarget = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    for (name, values) in &raw.header {
        for value in values {
            add(&mut headers, name, value)?;
        }
    }
    let body = BASE64.decode(&raw.body).map_err(|error| format!("the body is not base64: {error}"))?;
    let mut target = Target::new(method(&raw.method)?, &raw.url.parse()?, headers, Bytes::from(body));
    target.weight = raw.weight.map(weight).transpose()?;
    Ok(target)
}

struct Text<'a> {
    folder: &'a Path,
    read: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
    targets: Vec<Target>,
}

impl Text<'_> {
    fn parse(mut self, text: &str) -> Result<Vec<Target>, String> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.line(line).map_err(|problem| at(number, problem))?;
            }
        }
        Ok(self.targets)
    }

    /// A line begins a target, or belongs to the one before it.
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(file) = line.strip_prefix('@') {
            return self.body(Path::new(file));
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') && line.split_whitespace().nth(1).is_some_and(|word| word.contains("://")) {
            let target = text_target(line)?;
            self.targets.push(target);
            return Ok(());
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err("expected `METHOD URL`, `Name: value` or `@file`".into());
        };
        add(&mut self.last()?.template.headers, name, value)
    }

    fn body(&mut self, file: &Path) -> Result<(), String> {
        let path = self.folder.join(file);
        let bytes = (self.read)(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        self.last()?.template.body = Bytes::from(bytes);
        Ok(())
    }

    fn last(&mut self) -> Result<&mut Target, String> {
        self.targets.last_mut().ok_or_else(|| "a target begins with `METHOD URL`".to_owned())
    }
}

fn text_target(line: &str) -> Result<Target, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, url, rest) = match words.as_slice() {
        [verb, url, rest @ ..] => (verb, url, rest),
        _ => return Err("expected `METHOD URL`".into()),
    };
    let mut target = Target::new(method(verb)?, &url.parse()?, HeaderMap::new(), Bytes::new());
    target.weight = match rest {
        [] => None,
        [word] => {
            let number = word.strip_prefix("weight=").and_then(|number| number.parse().ok());
            Some(weight(number.ok_or_else(|| format!("`{word}` after the URL: only `weight=3` can stand there"))?)?)
        }
        _ => return Err("a URL has no spaces: write %20".into()),
    };
    Ok(target)
}

fn method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not a method"))
}

fn weight(weight: f64) -> Result<f64, String> {
    if weight.is_finite() && weight > 0.0 {
        Ok(weight)
    } else {
        Err(format!("a weight of {weight}: write a number above 0"))
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let name: HeaderName = name.trim().parse().map_err(|_| format!("`{name}` is not a header name"))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("the value of {name} cannot be sent"))?;
    headers.append(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Target>, String> {
        parse(text, Path::new("folder"), &|path| match path.to_str() {
            Some("folder/order.json") => Ok(b"{}".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn text_targets_have_fields_bodies_and_weights() {
        let text = "\
# comment
GET http://127.0.0.1:8080/users weight=3
Accept: text/html
accept: */*

POST http://127.0.0.1:8080/orders
@order.json
";
        let targets = read(text).expect("targets");

        assert_eq!(targets.len(), 2);
        assert_eq!(targets[0].name, "GET http://127.0.0.1:8080/users");
        assert_eq!(targets[0].template.headers.get_all("accept").iter().count(), 2);
        assert_eq!((targets[0].weight, targets[1].weight), (Some(3.0), Some(1.0)));
        assert_eq!(targets[1].template.body, "{}");
    }

    #[test]
    fn json_targets_are_those_of_vegeta() {
        let text = r#"
{"method":"POST","url":"http://127.0.0.1:1/a","header":{"X":["1","2"]},"body":"aGk="}
{"at":1500000,"method":"GET","url":"http://127.0.0.1:1/b"}"#;

        let targets = read(text).expect("targets");

        assert_eq!(targets[0].template.body, "hi");
        assert_eq!(targets[0].template.headers.get_all("x").iter().count(), 2);
        assert_eq!(targets[1].weight, None);
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, part) in [
            ("", "no target"),
            ("\nGET 127.0.0.1/", "line 2: "),
            ("Accept: x", "line 1: a target begins with"),
            ("GET http://a/\n@missing", "line 2: folder/missing"),
            ("GET http://a/ wait=3", "weight=3"),
            ("GET http://a/ weight=0", "above 0"),
            ("{\"method\":\"GET\"}", "url"),
            ("{\"method\":\"GET\",\"url\":\"http://a\",\"body\":\"?\"}", "base64"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
