//! What must hold for the pure parts of aggregation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::decode;
use crate::aggregate::json::{Json, JsonError};
use crate::aggregate::merge::{merge, part, summary};
use crate::aggregate::shape::shape;
use crate::aggregate::template::{Inputs, Scope, build_call};
use crate::aggregate::{Call, Ending, Fallback, Outcome, Value};
use crate::config::model::aggregate::{
    Aggregate, BodyShape, Collision, Format, HeaderTemplate, JsonPath, Node, OnError, Piece, Reference, RequestBody,
    Source, Step, Strategy, Template,
};
use crate::config::model::{StatusRange, Upstream, UpstreamProtocol, UpstreamTimeouts};
use crate::message::path::{Normalised, normalise};
use crate::telemetry::Reason;

/// Between the parts of an input: no UTF-8 text has this byte.
const SEPARATOR: u8 = 0xff;
const MAX_DEPTH: usize = 32;

/// Parts: a path parameter, a query value, a field value, a JSON body. Whatever they hold, each lands in its own place.
pub fn aggregate_template(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == SEPARATOR);
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).ok().map(str::to_owned);
    let (Some(parameter), Some(query)) = (text(), text()) else { return };
    let field = parts.next().unwrap_or_default().to_vec();
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let inputs = Inputs {
        parameters: vec![("id".to_owned(), parameter.clone()), ("rest".to_owned(), parameter.clone())],
        query: vec![("q".to_owned(), query.clone())],
        headers: vec![("h".to_owned(), field.clone())],
        body: Json::parse(body, MAX_DEPTH).ok(),
    };
    stays_in_its_segment(&inputs, &parameter);
    stays_in_its_parameter(&inputs, &query);
    stays_in_its_string(&inputs, &query);
    stays_in_its_field(&inputs, &field);
    stays_as_it_came(&inputs);
}

fn stays_in_its_segment(inputs: &Inputs, parameter: &str) {
    let value = |name: &str| Piece::Value(Reference::Parameter(name.to_owned()));
    let pieces = [literal("/a/x"), value("id"), literal("/"), value("id"), literal("/b")];
    if let Some(path) = call_of(inputs, |source| source.path = template(pieces)) {
        let segments: Vec<Vec<u8>> = path.target.split('/').map(|segment| decode(segment.as_bytes())).collect();
        let joined = format!("x{parameter}");
        assert_eq!(segments, [b"", &b"a"[..], joined.as_bytes(), parameter.as_bytes(), b"b"], "{}", path.target);
        assert_normal(path.target.as_bytes());
    }
    if let Some(path) = call_of(inputs, |source| source.path = template([literal("/files/"), value("rest")])) {
        assert_eq!(decode(path.target.as_bytes()), format!("/files/{parameter}").into_bytes());
        assert_normal(path.target.as_bytes());
    }
}

fn stays_in_its_parameter(inputs: &Inputs, query: &str) {
    let value = template([Piece::Value(Reference::Query("q".to_owned()))]);
    let call = call_of(inputs, |source| {
        source.query = vec![("a".to_owned(), value), ("b".to_owned(), template([literal("1")]))];
    });
    let target = call.expect("a query value is never refused").target;
    let parts: Vec<Vec<u8>> = target.split(['?', '&']).map(|part| decode(part.as_bytes())).collect();
    assert_eq!(parts, [b"/".to_vec(), format!("a={query}").into_bytes(), b"b=1".to_vec()]);
}

fn stays_in_its_string(inputs: &Inputs, query: &str) {
    let value = Reference::Query("q".to_owned());
    let text = template([literal("<"), Piece::Value(value.clone()), literal(">")]);
    let node = Node::List(vec![Node::Value(value), Node::Text(text)]);
    let call = call_of(inputs, |source| source.body = Some(RequestBody::Json(node)));
    let body = call.and_then(|call| call.body).expect("nothing is missing");
    let list = Json::parse(body, 1).expect("a body is JSON").items().expect("a list");
    let texts: Vec<_> = list.iter().map(|item| item.text().map(std::borrow::Cow::into_owned)).collect();
    assert_eq!(texts, [Some(query.to_owned()), Some(format!("<{query}>"))]);
}

fn stays_in_its_field(inputs: &Inputs, field: &[u8]) {
    let value = template([Piece::Value(Reference::Header("h".to_owned()))]);
    let change = |source: &mut Source| source.headers = vec![("h".to_owned(), HeaderTemplate::Template(value))];
    if let Some(call) = call_of(inputs, change) {
        assert_eq!(call.headers, [("h".to_owned(), field.to_vec())]);
        assert!(!field.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}

/// A part of a JSON body.
fn stays_as_it_came(inputs: &Inputs) {
    let member = Reference::Body(path(&["k"]));
    let call = call_of(inputs, |source| {
        source.path = template([literal("/"), Piece::Value(member.clone())]);
        source.body = Some(RequestBody::Json(Node::Value(member.clone())));
    });
    if let Some(call) = call {
        assert_normal(call.target.as_bytes());
        let sent = inputs.body.as_ref().and_then(|body| body.get(&path(&["k"])));
        assert_eq!(call.body.as_deref(), sent.as_ref().map(Json::as_bytes));
    }
}

fn call_of(inputs: &Inputs, change: impl FnOnce(&mut Source)) -> Option<Call> {
    let mut source = source("only");
    change(&mut source);
    let aggregate = aggregate(vec![source], Strategy::All, BodyShape::Keyed, false);
    let call = build_call(&aggregate, 0, &Scope::new(inputs, &[])).ok()?;
    assert!(call.target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{}", call.target);
    Some(call)
}

fn assert_normal(path: &[u8]) {
    assert_eq!(normalise(path, &mut Vec::new()), Ok(Normalised::Unchanged), "{}", path.escape_ascii());
}

/// Three bytes choose strategy, body and `_meta`; each further part is one source's end, a byte that chooses it and the
/// bytes of its answer. The answer is JSON, the same each time, with the values as they came.
pub fn aggregate_merge(data: &[u8]) {
    let Some((choice, data)) = data.split_first_chunk::<3>() else { return };
    let mut ends = data.splitn(3, |byte| *byte == SEPARATOR);
    let outcomes: Vec<Outcome> = (0..3).map(|index| outcome(index, ends.next().unwrap_or_default())).collect();
    let strategies = [Strategy::All, Strategy::First, Strategy::Quorum(2), Strategy::Fallback];
    let strategy = strategies[usize::from(choice[0]) % strategies.len()];
    let body = body_shape(choice[1]);
    let keyed = body == BodyShape::Keyed && matches!(strategy, Strategy::All | Strategy::Quorum(_));
    let aggregate = aggregate(["a", "b", "c"].map(source).into(), strategy, body, choice[2] & 1 == 1);

    let merged = merge(&aggregate, &Inputs::default(), &outcomes);

    assert_eq!(merge(&aggregate, &Inputs::default(), &outcomes), merged);
    assert!(merged.usable <= merged.asked);
    for outcome in &outcomes {
        let line = part(&aggregate, outcome);
        assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
        assert_json(line);
    }
    assert_json(summary(&aggregate, &outcomes, &merged));
    let Some(body) = merged.body else {
        assert_eq!(merged.status, merged.reason.status());
        return;
    };
    if keyed {
        for outcome in &outcomes {
            if let Value::Json(json) = &outcome.value {
                assert!(memchr::memmem::find(&body, json.as_bytes()).is_some(), "{}", body.escape_ascii());
            }
        }
    }
    assert_json(body);
}

fn assert_json(bytes: Bytes) {
    if let Err(error) = Json::parse(bytes.clone(), MAX_DEPTH + 8) {
        panic!("{error}: {}", bytes.escape_ascii());
    }
}

fn body_shape(choice: u8) -> BodyShape {
    let part = |index, steps: &[&str]| Node::Value(Reference::Source(index, path(steps)));
    match choice % 5 {
        0 => BodyShape::Keyed,
        1 => BodyShape::Flat(Collision::First),
        2 => BodyShape::Flat(Collision::Last),
        3 => BodyShape::Flat(Collision::Error),
        _ => BodyShape::Respond(Node::Object(vec![
            ("all".to_owned(), Node::List(vec![part(0, &[]), part(1, &["k"]), part(2, &["*", "k"])])),
            (
                "text".to_owned(),
                Node::Text(template([literal("<\""), Piece::Value(Reference::Source(0, path(&["k"])))])),
            ),
        ])),
    }
}

/// The answer is read and shaped as an upstream's is; one that cannot be read is a failure.
fn outcome(index: usize, part: &[u8]) -> Outcome {
    let (choice, body) = part.split_first().unwrap_or((&0, b""));
    let mut shaping = source("shaping");
    if choice & 8 != 0 {
        shaping.keep = vec![path(&["k"]), path(&["*", "a"])];
    }
    if choice & 16 != 0 {
        shaping.drop = vec![path(&["k", "*", "a"]), path(&["0"])];
    }
    if choice & 32 != 0 {
        shaping.rename = vec![(path(&["k"]), "n".to_owned()), (path(&["*", "k"]), "k".to_owned())];
    }
    let body = Bytes::copy_from_slice(body);
    let json = Json::parse(body.clone(), MAX_DEPTH);
    if json.is_ok() {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
    } else if let Err(JsonError::Invalid(offset)) = json {
        assert!(offset <= body.len());
    }
    let value = json.ok().and_then(|json| shape(&shaping, json).ok());
    let (ending, reason) = match (choice & 7, &value) {
        (_, None) => (Ending::Failed, Reason::UpstreamBadBody),
        (0..3, _) => (Ending::Ok, Reason::Ok),
        (3, _) => (Ending::Partial, Reason::Ok),
        (4, _) => (Ending::Fallback(Fallback::Value), Reason::ConnectFailed),
        (5, _) => (Ending::Fallback(Fallback::Source(0)), Reason::SourceTimeout),
        (6, _) => (Ending::Failed, Reason::SourceTimeout),
        _ => (Ending::NotNeeded, Reason::NotNeeded),
    };
    let value = value.filter(|_| ending != Ending::NotNeeded).map_or(Value::Absent, Value::Json);
    Outcome {
        source: index,
        ending,
        reason,
        detail: None,
        status: Some(200),
        attempts: 1,
        begun: Duration::ZERO,
        took: Duration::from_millis(1),
        queue: Duration::ZERO,
        coalesced: false,
        items: None,
        retry_after: None,
        value,
    }
}

fn path(steps: &[&str]) -> JsonPath {
    let step = |step: &&str| if *step == "*" { Step::Each } else { Step::Key((*step).to_owned()) };
    JsonPath { steps: steps.iter().map(step).collect() }
}

fn literal(text: &str) -> Piece {
    Piece::Literal(text.to_owned())
}

fn template<const N: usize>(pieces: [Piece; N]) -> Template {
    Template { pieces: pieces.into() }
}

fn aggregate(sources: Vec<Source>, strategy: Strategy, body: BodyShape, meta: bool) -> Aggregate {
    Aggregate {
        sources: sources.into_iter().map(Arc::new).collect(),
        strategy,
        body,
        partial_status: 206,
        meta,
        server_timing: false,
        stream: false,
        max_bytes: 1 << 20,
        coalesce: None,
        background: None,
    }
}

fn source(name: &str) -> Source {
    Source {
        name: name.to_owned(),
        upstream: Arc::new(upstream()),
        method: "GET".to_owned(),
        path: template([literal("/")]),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        timeout: None,
        required: false,
        on_error: OnError::Embed,
        error_message: "{name}: {error}".to_owned(),
        success: vec![StatusRange { first: 200, last: 299 }],
        max_body_bytes: 1 << 20,
        max_depth: MAX_DEPTH,
        format: Format::Json,
        for_each: None,
        select: None,
        keep: Vec::new(),
        drop: Vec::new(),
        rename: Vec::new(),
        after: Vec::new(),
        standby: false,
    }
}

fn upstream() -> Upstream {
    let time = Duration::from_secs(1);
    Upstream {
        name: "upstream".to_owned(),
        endpoints: Vec::new(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        timeouts: UpstreamTimeouts { connect: time, tls: time, first_byte: time, between_bytes: time, idle: time },
        in_flight: None,
        max_idle_connections: 0,
        health: None,
        dns_refresh: time,
        max_response_head_bytes: 1024,
        max_response_body_bytes: None,
        connect_retries: 0,
    }
}
