//! Values of HTTP: methods, hosts, header names and values, statuses, what a limit is counted by.

use serde_json::Value as Json;

use super::network::is_host_name;
use super::secret::HeaderValue;
use super::{TextError, Value, from_text, not_a_word};
use crate::config::decode::Decoder;
use crate::config::describe::Shape;
use crate::config::diagnostic::{Code, Problem};
use crate::config::model::{HeaderMatch, HostPattern, HostPolicy, Secret, StatusRange};
use crate::config::source::Span;
use crate::config::tree::{Entry, Kind, Node};

/// A request method that a route can match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method(pub String);

/// The methods of the IANA registry that applications use; TRACE and CONNECT are refused by the proxy.
const METHODS: [&str; 18] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "PURGE",
];

impl Value for Method {
    fn shape() -> Shape {
        Shape::Choice(&METHODS)
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| match text {
            _ if METHODS.contains(&text) => Ok(Self(text.to_owned())),
            "TRACE" | "CONNECT" => Err(TextError::new("is always refused").help("take it out: no route can allow it")),
            "*" => Err(TextError::new("is not a method").help("leave `methods` out to match every method")),
            _ => {
                let error = not_a_word(text, &METHODS);
                Err(TextError { problem: "is not a known method".to_owned(), ..error })
            }
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

/// Leading `*.` for every name below.
impl Value for HostPattern {
    fn shape() -> Shape {
        Shape::Text { what: "a host name such as \"api.example.com\" or \"*.example.com\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_host_pattern)
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            HostPattern::Exact(host) => host.as_str().into(),
            HostPattern::Suffix(suffix) => format!("*{suffix}").into(),
        })
    }
}

fn parse_host_pattern(text: &str) -> Result<HostPattern, TextError> {
    let lower = text.to_ascii_lowercase();
    if text == "*" {
        return Err(TextError::new("matches everything").help("leave `host` out to match every host"));
    }
    if text.contains("://") || text.contains('/') {
        return Err(TextError::new("is not a host name").help("write the name only, without scheme and path"));
    }
    if let Some(suffix) = lower.strip_prefix('*') {
        return match suffix.strip_prefix('.') {
            Some(name) if is_host_name(name) => Ok(HostPattern::Suffix(suffix.to_owned())),
            _ => Err(TextError::new("is not a host pattern").help("`*` stands for whole labels: \"*.example.com\"")),
        };
    }
    if lower.contains('*') {
        return Err(TextError::new("is not a host pattern").help("`*` can only stand first: \"*.example.com\""));
    }
    let unbracketed = lower.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&lower);
    if unbracketed.parse::<std::net::IpAddr>().is_ok() || is_host_name(&lower) {
        return Ok(HostPattern::Exact(lower));
    }
    match lower.rsplit_once(':') {
        Some((host, _)) if is_host_name(host) => {
            Err(TextError::new("has a port").help(format!("write \"{host}\": the port does not count in matching")))
        }
        _ => Err(TextError::new("is not a host name")),
    }
}

/// `"preserve"`, `"upstream"` or a name.
impl Value for HostPolicy {
    fn shape() -> Shape {
        Shape::Text { what: "\"upstream\", \"preserve\" or a host name", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| match text {
            "preserve" => Ok(Self::Preserve),
            "upstream" => Ok(Self::Upstream),
            _ if is_authority(text) => match super::super::suggest::nearest(text, ["preserve", "upstream"]) {
                Some(word) => Err(TextError::new("is not known here").help(format!("did you mean \"{word}\"?"))),
                None => Ok(Self::Set(text.to_ascii_lowercase())),
            },
            _ => Err(TextError::new("is not a host")),
        })
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            HostPolicy::Preserve => "preserve".into(),
            HostPolicy::Upstream => "upstream".into(),
            HostPolicy::Set(host) => host.as_str().into(),
        })
    }
}

fn is_authority(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => text,
    };
    let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    is_host_name(host) || unbracketed.parse::<std::net::IpAddr>().is_ok()
}

/// A field name (RFC 9110 §5.1), lower-case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(pub String);

pub fn parse_header_name(text: &str) -> Result<String, TextError> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        let error = TextError::new("is not a header name");
        return Err(match text.strip_suffix(':') {
            Some(name) => error.help(format!("write \"{name}\", without the colon")),
            None => error.help("letters, digits and `-`, as in \"x-tenant\""),
        });
    }
    if text.len() > 256 {
        return Err(TextError::new("is longer than 256 bytes"));
    }
    Ok(text.to_ascii_lowercase())
}

/// Headers that the proxy itself makes: an edit would break the message or have no effect.
pub(super) fn refuse_framing(name: &str) -> Result<(), TextError> {
    match name {
        "host" => Err(TextError::new("cannot be edited here").help("use `host_header` of the route")),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        | "content-length" | "expect" => {
            Err(TextError::new("cannot be edited").help("it belongs to the connection; Forebay writes it itself"))
        }
        _ => Ok(()),
    }
}

impl Value for HeaderName {
    fn shape() -> Shape {
        Shape::Text { what: "a header name", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| {
            let name = parse_header_name(text)?;
            refuse_framing(&name)?;
            Ok(Self(name))
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

/// Decodes a table whose keys are header names; two spellings of one name are a mistake.
pub(super) fn header_table<T>(
    cx: &mut Decoder<'_>,
    node: &Node,
    what: &str,
    check_name: impl Fn(&str) -> Result<(), TextError>,
    mut decode: impl FnMut(&mut Decoder<'_>, &str, &Entry) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(entries) = node.as_table() else {
        cx.wrong_type(node, what);
        return None;
    };
    let mut seen: Vec<(String, Span)> = Vec::new();
    let mut values = Vec::new();
    for entry in entries {
        let name = match parse_header_name(&entry.key).and_then(|name| check_name(&name).map(|()| name)) {
            Ok(name) => name,
            Err(error) => {
                let message = format!("{:?} {}", entry.key, error.problem);
                let problem = Problem::error(Code::InvalidValue, entry.key_span.clone(), message);
                cx.report(match error.help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
                continue;
            }
        };
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name) {
            let message = format!("the header `{name}` is written twice");
            let problem = Problem::error(Code::Duplicate, entry.key_span.clone(), message)
                .related(Some(first.clone()), "first here")
                .help("case does not count in header names; keep one");
            cx.report(problem);
            continue;
        }
        seen.push((name.clone(), entry.key_span.clone()));
        values.extend(cx.within(name.clone(), |cx| decode(cx, &name, entry)));
    }
    Some(values)
}

/// `{ "x-tenant" = "a", "x-debug" = true }`: what a request's headers must be.
#[derive(Debug, Clone)]
pub struct HeaderMatches(pub Vec<HeaderMatch>);

impl Value for HeaderMatches {
    fn shape() -> Shape {
        let value = Shape::Either(vec![Shape::Text { what: "the exact value", pattern: None }, Shape::Boolean]);
        Shape::Map { names: "header names", value: Box::new(value) }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        const WHAT: &str = "a table such as { \"x-tenant\" = \"a\", \"x-debug\" = true }";
        header_table(
            cx,
            node,
            WHAT,
            |_| Ok(()),
            |cx, name, entry| match &entry.value.kind {
                Kind::Boolean(true) => Some(HeaderMatch { name: name.to_owned(), value: None }),
                Kind::Boolean(false) => {
                    let problem = Problem::error(
                        Code::InvalidValue,
                        entry.value.span.clone(),
                        "a route cannot ask for a header to be absent",
                    );
                    cx.report(problem.help("make a route that wants it with `true`; the other one takes the rest"));
                    None
                }
                Kind::Text(text) => Some(HeaderMatch { name: name.to_owned(), value: Some(text.value.clone()) }),
                _ => {
                    cx.wrong_type(&entry.value, "the exact value as a string, or true for any value");
                    None
                }
            },
        )
        .map(Self)
    }

    fn show(&self) -> Option<Json> {
        let shown =
            |header: &HeaderMatch| (header.name.clone(), header.value.as_deref().map_or(Json::Bool(true), Json::from));
        Some(Json::Object(self.0.iter().map(shown).collect()))
    }
}

/// `{ "x-tenant" = "a" }`: headers to write.
#[derive(Debug, Clone)]
pub struct HeaderValues(pub Vec<(String, Secret)>);

impl Value for HeaderValues {
    fn shape() -> Shape {
        Shape::Map { names: "header names", value: Box::new(HeaderValue::shape()) }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        const WHAT: &str = "a table such as { \"x-tenant\" = \"a\" }";
        header_table(cx, node, WHAT, refuse_framing, |cx, name, entry| {
            let value = HeaderValue::decode_for(cx, name, &entry.value)?;
            if let Some(secret) = value.secret() {
                let path = cx.path();
                cx.settings.add_secret(path, secret);
            }
            Some((name.to_owned(), value.0))
        })
        .map(Self)
    }

    fn show(&self) -> Option<Json> {
        let shown = |(name, value): &(String, Secret)| {
            let text = if value.is_secret() { "***" } else { value.reveal() };
            (name.clone(), text.into())
        };
        Some(Json::Object(self.0.iter().map(shown).collect()))
    }
}

/// A status, or a range of them: `404`, `"200-299"`.
impl Value for StatusRange {
    fn shape() -> Shape {
        Shape::Either(vec![Shape::Text { what: "a range such as \"200-299\"", pattern: None }, Shape::Integer])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        if let Kind::Integer(status) = node.kind {
            let range = u16::try_from(status).ok().and_then(|status| status_range(status, status));
            if range.is_none() {
                cx.out_of_range(node, "a status from 100 to 599");
            }
            return range;
        }
        from_text(cx, node, |text| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let bounds = first.trim().parse().ok().zip(last.trim().parse().ok());
            bounds.and_then(|(first, last)| status_range(first, last)).ok_or_else(|| {
                TextError::new("is not a range of statuses").help("write two statuses from 100 to 599: \"200-299\"")
            })
        })
    }

    fn show(&self) -> Option<Json> {
        if self.first == self.last {
            Some(self.first.into())
        } else {
            Some(format!("{}-{}", self.first, self.last).into())
        }
    }
}

fn status_range(first: u16, last: u16) -> Option<StatusRange> {
    let valid = (100..=599).contains(&first) && (100..=599).contains(&last) && first <= last;
    valid.then_some(StatusRange { first, last })
}

/// What a limit is counted by, as written; the address prefixes are keys of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    None,
    ClientIp,
    Header(String),
    Query(String),
}

impl Value for KeyKind {
    fn shape() -> Shape {
        Shape::Text {
            what: "\"none\", \"client_ip\", \"header:NAME\" or \"query:NAME\"",
            pattern: Some("^(none|client_ip|(header|query):.+)$"),
        }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, parse_key)
    }

    fn show(&self) -> Option<Json> {
        Some(match self {
            KeyKind::None => "none".into(),
            KeyKind::ClientIp => "client_ip".into(),
            KeyKind::Header(name) => format!("header:{name}").into(),
            KeyKind::Query(name) => format!("query:{name}").into(),
        })
    }
}

fn parse_key(text: &str) -> Result<KeyKind, TextError> {
    match text.split_once(':') {
        None if text == "none" => Ok(KeyKind::None),
        None if text == "client_ip" => Ok(KeyKind::ClientIp),
        _ if matches!(text, "header" | "query" | "header:" | "query:") => {
            Err(TextError::new("names nothing").help("write \"header:x-tenant\" or \"query:tenant\""))
        }
        Some(("header", name)) => parse_header_name(name).map(KeyKind::Header).map_err(|error| error.at(7..text.len())),
        Some(("query", name)) if !name.is_empty() => Ok(KeyKind::Query(name.to_owned())),
        _ => {
            let kind = text.split_once(':').map_or(text, |(kind, _)| kind);
            let error = not_a_word(kind, &["none", "client_ip", "header", "query"]);
            Err(TextError { problem: "is not a key to count by".to_owned(), ..error })
        }
    }
}

/// A protocol name for `Upgrade` (RFC 9110 §7.8), lower-case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeProtocol(pub String);

impl Value for UpgradeProtocol {
    fn shape() -> Shape {
        Shape::Text { what: "a protocol such as \"websocket\"", pattern: None }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        from_text(cx, node, |text| match text.to_ascii_lowercase().as_str() {
            "h2c" => Err(TextError::new("is not passed on").help("a client speaks HTTP/2 by prior knowledge or ALPN")),
            "ws" | "wss" | "websockets" => Err(TextError::new("is not a protocol").help("write \"websocket\"")),
            lower => {
                let parts: Vec<_> = lower.split('/').map(parse_header_name).collect();
                let valid = parts.len() <= 2 && parts.iter().all(Result::is_ok);
                if valid { Ok(Self(lower.to_owned())) } else { Err(TextError::new("is not a protocol name")) }
            }
        })
    }

    fn show(&self) -> Option<Json> {
        Some(self.0.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_are_names_or_a_leading_star() {
        assert_eq!(parse_host_pattern("API.example.com"), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!(parse_host_pattern("*.example.com"), Ok(HostPattern::Suffix(".example.com".into())));
        for text in ["*", "*example.com", "a.*.com", "http://a", "a:80", ""] {
            assert!(parse_host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_limit_key_is_never_a_limit_without_a_key() {
        assert_eq!(parse_key("header:X-Tenant"), Ok(KeyKind::Header("x-tenant".into())));
        for text in ["", "client-ip", "ip", "header:", "header", "query:", "heder:x", "none:x", "header:a b"] {
            assert!(parse_key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_host_policy_is_not_taken_for_a_host() {
        assert!(is_authority("api.internal:8080"));
        assert!(!is_authority("a b"));
    }
}
