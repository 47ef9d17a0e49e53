//! Values that may be secrets. They come from the environment or from a file, never from the configuration's own
//! text, and are never shown.

use std::path::Path;

use serde_json::Value as Json;

use super::{TextError, Value};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::diagnostic::{Code, Problem};
use crate::config::model::Secret;
use crate::config::substitute;
use crate::config::tree::{Entry, Kind, Node};

const SOURCES: &str = "\"${NAME}\", { env = \"NAME\" } or { file = \"PATH\" }";

/// A value that is always a secret, such as a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretText(pub Secret);

/// The value of a header: plain, or from where secrets come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue(pub Secret);

impl Value for SecretText {
    fn shape() -> Shape {
        secret_shape("\"${NAME}\"", Some(r"\$\{.+\}"))
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let secret = match &node.kind {
            Kind::Text(text) if text.substituted => Secret::secret(text.value.clone()),
            Kind::Text(_) => return refuse_literal(cx, node, "a secret cannot be written in the file"),
            Kind::Table(entries) => from_source(cx, node, entries)?,
            _ => {
                cx.source.hide(node.span.clone());
                cx.wrong_type(node, SOURCES);
                return None;
            }
        };
        check_content(cx, node, &secret).map(Self)
    }

    fn show(&self) -> Option<Json> {
        Some("***".into())
    }

    fn secret(&self) -> Option<&str> {
        Some(self.0.reveal())
    }
}

impl Value for HeaderValue {
    fn shape() -> Shape {
        secret_shape("a string", None)
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        Self::decode_for(cx, "", node)
    }

    fn show(&self) -> Option<Json> {
        Some(if self.0.is_secret() { "***".into() } else { self.0.reveal().into() })
    }

    fn secret(&self) -> Option<&str> {
        self.0.is_secret().then(|| self.0.reveal())
    }
}

impl HeaderValue {
    /// The value of this header; a credential has to be a secret.
    pub fn decode_for(cx: &mut Decoder<'_>, header: &str, node: &Node) -> Option<Self> {
        let value = match &node.kind {
            Kind::Text(text) if text.substituted => Secret::secret(text.value.clone()),
            Kind::Text(text) if !is_credential(header) => Secret::plain(text.value.clone()),
            Kind::Text(_) => return refuse_literal(cx, node, "a credential cannot be written in the file"),
            Kind::Table(entries) => from_source(cx, node, entries)?,
            _ => {
                cx.wrong_type(node, &format!("a string, or for a secret {SOURCES}"));
                return None;
            }
        };
        check_content(cx, node, &value).map(Self)
    }
}

fn is_credential(header: &str) -> bool {
    matches!(header, "authorization" | "proxy-authorization" | "cookie" | "x-api-key" | "x-auth-token")
}

fn secret_shape(what: &'static str, pattern: Option<&'static str>) -> Shape {
    Shape::Either(vec![Shape::Text { what, pattern }, Shape::Table(source_table)])
}

/// For the schema; the keys exclude each other, so they are not an element.
fn source_table() -> crate::config::describe::Table {
    use crate::config::describe::{Key, Table};
    let file =
        Key::new("file", "File that holds the value; a line end at its end is cut off.", "none", String::shape())
            .example("\"/run/secrets/token\"");
    let env =
        Key::new("env", "Environment variable that holds the value.", "none", String::shape()).example("\"TOKEN\"");
    Table::new("Where a secret comes from.", vec![file, env])
}

fn refuse_literal<T>(cx: &mut Decoder<'_>, node: &Node, message: &str) -> Option<T> {
    cx.source.hide(node.span.clone());
    let problem = Problem::error(Code::Secret, node.span.clone(), message);
    cx.report(problem.help(format!("keep it in the environment or in a file of its own: {SOURCES}")));
    None
}

fn from_source(cx: &mut Decoder<'_>, node: &Node, entries: &[Entry]) -> Option<Secret> {
    let [entry] = entries else {
        cx.source.hide(node.span.clone());
        cx.wrong_type(node, SOURCES);
        return None;
    };
    let Some(text) = entry.value.as_text() else {
        cx.source.hide(entry.value.span.clone());
        cx.wrong_type(&entry.value, SOURCES);
        return None;
    };
    match entry.key.as_str() {
        "env" => from_variable(cx, entry, text),
        "file" => from_file(cx, entry, text),
        _ => {
            cx.source.hide(entry.value.span.clone());
            let message = format!("unknown key `{}` where a secret comes from", entry.key);
            cx.report(Problem::error(Code::UnknownKey, entry.key_span.clone(), message).expected(SOURCES));
            None
        }
    }
}

fn from_variable(cx: &mut Decoder<'_>, entry: &Entry, name: &str) -> Option<Secret> {
    if !substitute::is_name(name) {
        // Somebody may have put the secret itself here.
        return refuse_literal(cx, &entry.value, "this cannot be the name of an environment variable");
    }
    let value = (cx.inputs.variable)(name);
    if value.is_none() {
        let message = if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            // Variables have capitals: somebody may have put the secret itself here, as above.
            cx.source.hide(entry.value.span.clone());
            "the environment variable that is named here is not set".to_owned()
        } else {
            format!("the environment variable {name} is not set")
        };
        cx.report(Problem::error(Code::Environment, entry.value.span.clone(), message).help("set it before starting"));
    }
    value.map(Secret::secret)
}

fn from_file(cx: &mut Decoder<'_>, entry: &Entry, name: &str) -> Option<Secret> {
    let path = cx.inputs.base.join(Path::new(name));
    cx.files.push(path.clone());
    let Some(read) = cx.inputs.read else { return Some(Secret::secret("unread")) };
    match read(&path) {
        Ok(text) => Some(Secret::secret(text.trim_end_matches(['\n', '\r']))),
        Err(error) => {
            let message = format!("cannot read the secret's file: {error}");
            let problem = Problem::error(Code::File, entry.value.span.clone(), message);
            cx.report(problem.help(format!("it was looked for at {}", path.display())));
            None
        }
    }
}

/// Secrets end up in header fields: nothing that could end a field may be in them (RFC 9110 §5.5).
fn check_content(cx: &mut Decoder<'_>, node: &Node, value: &Secret) -> Option<Secret> {
    let problem = match value.reveal() {
        "" if value.is_secret() => "the value is empty",
        text if text.bytes().any(|b| b == 0x7f || (b < 0x20 && b != b'\t')) => {
            "the value holds a line end or control character"
        }
        text if text.trim() != text => "the value begins or ends with a space",
        _ => return Some(value.clone()),
    };
    let error = TextError::new(problem);
    cx.report(
        Problem::error(Code::InvalidValue, node.span.clone(), error.problem)
            .expected("text that can stand in one header line"),
    );
    None
}
