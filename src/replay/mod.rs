//! Sending recorded traffic again, at the times at which it came.
//!
//! `recording` is this program's own format, `import` reads what other tools leave behind, `schedule` turns records
//! into the instants and the order of a run, `difference` says in what two
//! answers differ. All of these are pure. `comparison` does so while a run goes on. `options` and `run` are the command: it is a load
//! test whose arrivals and requests are those of the recording, so the driver, the reports, the gates and the
//! verdicts are those of `forebay load`.
//!
//! Times are absolute: record `i` is due at `(t_i - t_0) / speed` after the start, whatever happened to the ones
//! before it. Nothing sleeps from one record to the next, so nothing adds up.

mod comparison;
pub mod difference;
pub mod import;
pub mod options;
pub mod recording;
pub mod run;
pub mod schedule;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it arrived, in nanoseconds; since 1970 or since anything else, for only differences matter.
    pub at: u64,
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Without those that belong to a connection or to the framing, which are made anew.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Of the answer that it got then.
    pub status: Option<u16>,
    /// How long the answer took then, in nanoseconds.
    pub duration: Option<u64>,
    /// What it said, if that was recorded.
    pub answer: Option<Answer>,
}

/// What was answered then, besides the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Without those that belong to a connection or to the framing.
    pub headers: HeaderMap,
    /// As it was sent, so in the content coding that the headers name.
    pub body: Bytes,
    /// Only the beginning of the body was kept.
    pub is_cut: bool,
}

impl Answer {
    /// Fields that belong to a connection are left out; secrets are the recorder's business, see [`is_secret`].
    pub fn new(headers: &HeaderMap, body: Bytes, is_cut: bool) -> Self {
        let kept = headers.iter().filter(|(name, _)| !is_of_connection(name));
        Self { headers: kept.map(|(name, value)| (name.clone(), value.clone())).collect(), body, is_cut }
    }
}

impl Record {
    pub fn new(at: u64, method: Method, path: String) -> Self {
        Self {
            at,
            method,
            path,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            status: None,
            duration: None,
            answer: None,
        }
    }
}

/// Fields of which the value lets somebody in. Those with a telling part in their names count as well.
const SECRET_FIELDS: [&str; 2] = ["cookie", "set-cookie"];
const SECRET_PARTS: [&str; 9] =
    ["authorization", "token", "secret", "password", "passwd", "credential", "api-key", "api_key", "apikey"];

pub fn is_secret(name: &HeaderName) -> bool {
    is_secret_name(name.as_str())
}

/// The same for parameters and members of bodies, in lower case.
pub fn is_secret_name(name: &str) -> bool {
    SECRET_FIELDS.contains(&name) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Whether a field belongs to the connection it was recorded on, or to where it was sent.
fn is_of_connection(name: &HeaderName) -> bool {
    [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, TE, TRAILER, UPGRADE].contains(name)
        || ["keep-alive", "proxy-connection", "http2-settings", "expect"].contains(&name.as_str())
}

/// Adds a field as it was recorded, unless it is one that must not be sent again.
pub fn add_field(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    // `:authority` and its like, which browsers write into HAR files.
    if name.starts_with(':') {
        return Ok(());
    }
    let name: HeaderName = name.trim().parse().map_err(|_| format!("`{name}` is not a header name"))?;
    if is_of_connection(&name) {
        return Ok(());
    }
    let value =
        HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| format!("the value of {name} cannot be sent"))?;
    headers.append(name, value);
    Ok(())
}

fn method(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT) | Err(_) => Err(format!("`{text}` is not a method that can be sent again")),
        Ok(method) => Ok(method),
    }
}

/// A path with its query, as it stands in a request.
fn path(text: &str) -> Result<String, String> {
    match text.parse::<PathAndQuery>() {
        Ok(path) if text.starts_with('/') => Ok(path.as_str().to_owned()),
        _ => Err(format!("`{text}` is not a path that can be sent: it begins with `/` and has no spaces")),
    }
}

fn status(number: u16) -> Option<u16> {
    (100..=999).contains(&number).then_some(number)
}
