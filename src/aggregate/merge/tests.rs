//! Every rule of the answer: status, reason, body, completeness, `_meta`, parts.

use bytes::Bytes;
use proptest::prelude::{Just, Strategy as _, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::aggregate::Items;
use crate::aggregate::testing::{aggregate, json_path, reference, source, template};

fn json(text: &str) -> Json {
    Json::parse(Bytes::copy_from_slice(text.as_bytes()), 64).expect(text)
}

fn outcome(source: usize, ending: Ending, reason: Reason, value: Value) -> Outcome {
    Outcome {
        source,
        ending,
        reason,
        detail: (reason != Reason::Ok).then(|| "10.0.0.1:80 refused".to_owned()),
        status: (reason == Reason::Ok).then_some(200),
        attempts: 1,
        begun: Duration::ZERO,
        took: Duration::from_micros(12_900),
        queue: Duration::ZERO,
        coalesced: false,
        items: None,
        retry_after: None,
        value,
    }
}

fn ok(source: usize, value: &str) -> Outcome {
    outcome(source, Ending::Ok, Reason::Ok, Value::Json(json(value)))
}

fn omitted(source: usize, reason: Reason) -> Outcome {
    outcome(source, Ending::Failed, reason, Value::Absent)
}

fn embedded(source: usize, reason: Reason) -> Outcome {
    outcome(source, Ending::Failed, reason, Value::Json(json(r#"{"error":"sorry"}"#)))
}

fn not_needed(source: usize) -> Outcome {
    outcome(source, Ending::NotNeeded, Reason::NotNeeded, Value::Absent)
}

fn three() -> Aggregate {
    aggregate(vec![source("a", "/"), source("b", "/"), source("c", "/")])
}

fn merged(aggregate: &Aggregate, outcomes: &[Outcome]) -> Merged {
    merge(aggregate, &Inputs::default(), outcomes)
}

fn body(merged: &Merged) -> &str {
    std::str::from_utf8(merged.body.as_deref().expect("there is a body")).expect("JSON is UTF-8")
}

#[test]
fn all_sources_make_an_object_in_the_order_of_the_file() {
    let merged = merged(&three(), &[ok(0, "9223372036854775808"), ok(1, r#"{ "x" : 0.10 }"#), ok(2, "null")]);

    assert_eq!(body(&merged), r#"{"a":9223372036854775808,"b":{ "x" : 0.10 },"c":null}"#);
    assert_eq!((merged.status, merged.reason, merged.completeness().as_str()), (200, Reason::Ok, "3/3"));
    assert_eq!((merged.content_type.as_ref(), merged.failed_source), ("application/json", None));
}

#[test]
fn what_failed_is_embedded_or_left_out_and_the_answer_says_that_it_is_partial() {
    let mut aggregate = three();
    aggregate.partial_status = 206;

    let merged = merged(&aggregate, &[embedded(0, Reason::SourceTimeout), ok(1, "1"), omitted(2, Reason::Upstream5xx)]);

    assert_eq!(body(&merged), r#"{"a":{"error":"sorry"},"b":1}"#);
    assert_eq!((merged.status, merged.reason, merged.completeness().as_str()), (206, Reason::Partial, "1/3"));
}

#[test]
fn a_fallback_is_usable_and_a_list_with_failed_items_is_partial() {
    let fallback = outcome(0, Ending::Fallback(Fallback::Value), Reason::ConnectFailed, Value::Json(json("[]")));
    let whole = merged(&three(), &[fallback.clone(), ok(1, "1"), ok(2, "2")]);
    assert_eq!((whole.reason, whole.completeness().as_str()), (Reason::Ok, "3/3"));

    let list = outcome(1, Ending::Partial, Reason::Ok, Value::Json(json("[1]")));
    let items = Some(Items { total: 3, failed: 1, distinct: 2, cut: 7 });
    let partial = merged(&three(), &[fallback, Outcome { items, ..list }, ok(2, "2")]);
    assert_eq!((partial.reason, partial.completeness().as_str()), (Reason::Partial, "3/3"));
    assert_eq!(partial.truncated, [(1, 7)]);
}

#[test]
fn without_a_needed_source_there_is_no_answer() {
    let limited = Outcome { retry_after: Some(Duration::from_secs(3)), ..omitted(1, Reason::QueueFull) };
    for (required, on_error) in [(true, OnError::Embed), (false, OnError::Fail)] {
        let needed = Source { required, on_error, ..source("b", "/") };
        let aggregate = aggregate(vec![source("a", "/"), needed, source("c", "/")]);

        let merged = merged(&aggregate, &[ok(0, "1"), limited.clone(), not_needed(2)]);

        assert_eq!((merged.status, merged.reason, merged.body.as_ref()), (503, Reason::QueueFull, None));
        assert_eq!((merged.failed_source, merged.retry_after), (Some(1), Some(Duration::from_secs(3))));
        assert_eq!(merged.completeness(), "1/3");
        assert_eq!(merged.detail.as_deref(), Some("10.0.0.1:80 refused"));
    }
}

#[test]
fn with_nothing_usable_the_status_says_why() {
    use Reason::{
        ConnectFailed, FirstByteTimeout, QueueFull, RateLimited, SourceTimeout, Upstream5xx, UpstreamBadBody,
    };
    for (reasons, reason, status, source) in [
        ([SourceTimeout, SourceTimeout, SourceTimeout], Reason::SourcesTimedOut, 504, None),
        ([SourceTimeout, FirstByteTimeout, SourceTimeout], Reason::SourcesTimedOut, 504, None),
        ([RateLimited, QueueFull, QueueFull], RateLimited, 429, Some(0)),
        ([Upstream5xx, Upstream5xx, Upstream5xx], Upstream5xx, 502, Some(0)),
        ([Upstream5xx, ConnectFailed, SourceTimeout], Reason::SourcesFailed, 502, None),
        ([QueueFull, QueueFull, UpstreamBadBody], Reason::SourcesFailed, 502, None),
    ] {
        let outcomes: Vec<Outcome> = reasons.iter().enumerate().map(|(at, reason)| embedded(at, *reason)).collect();

        let merged = merged(&three(), &outcomes);

        assert_eq!((merged.reason, merged.status, merged.failed_source), (reason, status, source), "{reasons:?}");
        assert_eq!((merged.body.as_ref(), merged.usable, merged.asked), (None, 0, 3));
    }
    let one = merged(&aggregate(vec![source("a", "/")]), &[embedded(0, SourceTimeout)]);
    assert_eq!((one.reason, one.failed_source), (SourceTimeout, Some(0)));
}

#[test]
fn when_all_are_limited_the_earliest_return_counts() {
    let limited = |source, seconds: Option<u64>| Outcome {
        retry_after: seconds.map(Duration::from_secs),
        ..omitted(source, Reason::QueueFull)
    };

    let merged = merged(&three(), &[limited(0, Some(9)), limited(1, None), limited(2, Some(4))]);

    assert_eq!((merged.reason, merged.retry_after), (Reason::QueueFull, Some(Duration::from_secs(4))));
}

#[test]
fn the_winner_is_the_answer() {
    for strategy in [Strategy::First, Strategy::Fallback] {
        let aggregate = Aggregate { strategy, ..three() };

        let merged = merged(&aggregate, &[embedded(0, Reason::Upstream5xx), ok(1, "[ 1 ]"), not_needed(2)]);

        assert_eq!(body(&merged), "[ 1 ]");
        assert_eq!((merged.reason, merged.completeness().as_str()), (Reason::Ok, "1/1"));
    }
}

#[test]
fn a_quorum_is_whole_when_enough_answered() {
    let aggregate = Aggregate { strategy: Strategy::Quorum(2), ..three() };

    let enough = merged(&aggregate, &[ok(0, "1"), embedded(1, Reason::Upstream5xx), ok(2, "3")]);
    assert_eq!((enough.reason, enough.completeness().as_str()), (Reason::Ok, "2/2"));
    assert_eq!(body(&enough), r#"{"a":1,"b":{"error":"sorry"},"c":3}"#);

    let early = merged(&aggregate, &[ok(0, "1"), not_needed(1), ok(2, "3")]);
    assert_eq!((body(&early), early.reason), (r#"{"a":1,"c":3}"#, Reason::Ok));

    let short = merged(&aggregate, &[omitted(0, Reason::Upstream5xx), omitted(1, Reason::Upstream5xx), ok(2, "3")]);
    assert_eq!((short.reason, short.completeness().as_str()), (Reason::Partial, "1/2"));
}

#[test]
fn a_source_on_standby_has_no_place_of_its_own() {
    let mut first = source("a", "/");
    first.on_error = OnError::Source(1);
    let mut aggregate = aggregate(vec![first, source("b", "/"), source("c", "/")]);
    aggregate.meta = true;
    let stood_in = Ending::Fallback(Fallback::Source(1));

    let unused = merged(&aggregate, &[ok(0, "1"), not_needed(1), ok(2, "3")]);
    assert!(body(&unused).starts_with(r#"{"a":1,"c":3,"_meta":{"completeness":"2/2","sources":{"a":"#));
    assert!(!body(&unused).contains("\"b\""));

    let fallback = outcome(0, stood_in, Reason::SourceTimeout, Value::Json(json("2")));
    let used = merged(&aggregate, &[fallback, ok(1, "2"), ok(2, "3")]);
    assert!(body(&used).starts_with(r#"{"a":2,"c":3,"_meta":{"completeness":"2/2""#));
    assert!(body(&used).contains(r#""reason":"source_timeout","ms":12,"attempts":1,"fallback":{"source":"b"}},"b":{"#));
}

#[test]
fn flat_answers_collide_as_configured() {
    let outcomes =
        [ok(0, r#"{"x":1,"y":{ "deep":1 }}"#), ok(1, r#"{"\u0078":2,"z":2}"#), embedded(2, Reason::Upstream5xx)];
    for (collision, expected) in [
        (Collision::First, r#"{"x":1,"y":{ "deep":1 },"z":2,"c":{"error":"sorry"}}"#),
        (Collision::Last, r#"{"y":{ "deep":1 },"\u0078":2,"z":2,"c":{"error":"sorry"}}"#),
    ] {
        let aggregate = Aggregate { body: BodyShape::Flat(collision), ..three() };
        assert_eq!(body(&merged(&aggregate, &outcomes)), expected);
    }
    let strict = Aggregate { body: BodyShape::Flat(Collision::Error), ..three() };

    let conflict = merged(&strict, &outcomes);

    assert_eq!((conflict.status, conflict.reason, conflict.body), (502, Reason::MergeConflict, None));
    assert_eq!(conflict.detail.as_deref(), Some(r#"sources `a` and `b` both have a member "\u0078""#));
}

#[test]
fn a_flat_answer_is_made_of_objects() {
    let aggregate = Aggregate { body: BodyShape::Flat(Collision::Error), ..three() };

    let fine = merged(&aggregate, &[ok(0, r#"{"x":1,"x":2}"#), ok(1, "null"), ok(2, "{ }")]);
    assert_eq!(body(&fine), r#"{"x":1,"x":2}"#);

    let list = merged(&aggregate, &[ok(0, "{}"), ok(1, "[1]"), ok(2, "{}")]);
    assert_eq!(
        (list.reason, list.detail.as_deref()),
        (Reason::MergeConflict, Some("the answer of source `b` is no object"))
    );
}

fn respond(node: Node, outcomes: &[Outcome]) -> String {
    let aggregate = Aggregate { body: BodyShape::Respond(node), ..three() };
    let inputs = Inputs {
        parameters: vec![("id".into(), "7\"".into())],
        headers: vec![("x".into(), b"\xe4\"".to_vec())],
        body: Some(json(r#"{"k":[0.10]}"#)),
        ..Inputs::default()
    };
    body(&merge(&aggregate, &inputs, outcomes)).to_owned()
}

fn value(text: &str) -> Node {
    Node::Value(reference(text))
}

#[test]
fn a_response_template_places_the_parts() {
    let node = Node::Object(vec![
        ("users".into(), Node::List(vec![value("#0"), value("#1.name"), value("#1.gone"), value("#2")])),
        ("gone \"".into(), value("#2")),
        ("request".into(), Node::List(vec![value("id"), value("query.q"), value("header.x"), value("body.k")])),
        ("n".into(), Node::Literal("1e400".into())),
        ("text".into(), Node::Text(template("Hi {#1.name}, {#1.n}{#0}{#2}{#1.gone}{id}\t"))),
    ]);

    let answer =
        respond(node, &[ok(0, "[ 1 ]"), ok(1, r#"{"name":"\ud800\"","n":-0}"#), omitted(2, Reason::Upstream5xx)]);

    let expected = concat!(
        r#"{"users":[[ 1 ],"\ud800\"",null],"request":["7\"",null,""#,
        "\u{fffd}",
        r#"\"",[0.10]],"n":1e400,"text":"Hi \ud800\", -07\"\t"}"#
    );
    assert_eq!(answer, expected);
}

#[test]
fn an_embedded_error_stands_for_every_part_of_its_source() {
    let node = Node::List(vec![value("#0"), value("#0.name"), value("#0.error"), Node::Text(template("<{#0.name}>"))]);

    let answer = respond(node, &[embedded(0, Reason::Upstream5xx), ok(1, "1"), ok(2, "2")]);

    assert_eq!(answer, r#"[{"error":"sorry"},{"error":"sorry"},"sorry","<>"]"#);
}

#[test]
fn a_response_template_can_be_one_value_and_name_the_winner() {
    assert_eq!(respond(value("#2"), &[ok(0, "1"), ok(1, "1"), omitted(2, Reason::Upstream5xx)]), "null");

    let shape = BodyShape::Respond(Node::Object(vec![("w".into(), Node::Value(Reference::Winner(json_path("v"))))]));
    let aggregate = Aggregate { strategy: Strategy::First, body: shape, ..three() };
    let merged = merged(&aggregate, &[not_needed(0), ok(1, r#"{"v":2}"#), not_needed(2)]);
    assert_eq!(body(&merged), r#"{"w":2}"#);
}

#[test]
fn the_only_source_may_be_passed_through() {
    let raw = Source { format: Format::Raw, ..source("a", "/") };
    let aggregate = Aggregate { meta: true, ..aggregate(vec![raw]) };
    let value = |content_type: Option<&str>| Value::Raw {
        content_type: content_type.map(str::to_owned),
        body: Bytes::from_static(b"\xff\0"),
    };

    for (sent, got) in [(Some("image/png"), "image/png"), (None, "application/octet-stream")] {
        let merged = merged(&aggregate, &[outcome(0, Ending::Ok, Reason::Ok, value(sent))]);
        assert_eq!((merged.content_type.as_ref(), merged.body.as_deref()), (got, Some(&b"\xff\0"[..])));
    }
    let fallback = outcome(0, Ending::Fallback(Fallback::Value), Reason::Upstream5xx, Value::Json(json(r#"{"x":1}"#)));
    let merged = merged(&aggregate, &[fallback]);
    assert!(body(&merged).starts_with(r#"{"x":1,"_meta":{"#));
    assert_eq!(merged.content_type, "application/json");
}

#[test]
fn meta_says_what_became_of_each_source() {
    let aggregate = Aggregate { meta: true, ..three() };
    let items = Some(Items { total: 4, failed: 1, distinct: 3, cut: 2 });
    let list = Outcome { items, status: None, attempts: 3, ..outcome(1, Ending::Partial, Reason::Ok, Value::Absent) };
    let shared = Outcome { coalesced: true, ..ok(0, "1") };

    let merged = merged(&aggregate, &[shared, list, embedded(2, Reason::SourceTimeout)]);

    let expected = concat!(
        r#"{"a":1,"c":{"error":"sorry"},"_meta":{"completeness":"2/3","sources":{"#,
        r#""a":{"outcome":"ok","status":200,"ms":12,"attempts":1,"coalesced":true},"#,
        r#""b":{"outcome":"partial","ms":12,"attempts":3,"items":{"total":4,"failed":1,"distinct":3,"cut":2}},"#,
        r#""c":{"outcome":"failed","reason":"source_timeout","ms":12,"attempts":1}}}}"#
    );
    assert_eq!(body(&merged), expected);
}

#[test]
fn meta_finds_a_place_in_every_body() {
    for (value, expected) in [
        ("{ }", r#"{ "_meta":{"#),
        ("{}", r#"{"_meta":{"#),
        (r#"{"x":"{" }"#, r#"{"x":"{" ,"_meta":{"#),
        (r#"{"_meta":5,"x":1}"#, r#"{"x":1,"_meta":{"#),
        (r#"{"\u005fmeta":5}"#, r#"{"_meta":{"#),
        ("[ 1 ]", r#"{"data":[ 1 ],"_meta":{"#),
        ("\"{\"", r#"{"data":"{","_meta":{"#),
    ] {
        let respond = BodyShape::Respond(Node::Value(reference("#0")));
        for (strategy, shape) in [(Strategy::First, BodyShape::Keyed), (Strategy::All, respond)] {
            let aggregate = Aggregate { strategy, body: shape, meta: true, ..aggregate(vec![source("a", "/")]) };
            let merged = merged(&aggregate, &[ok(0, value)]);
            assert!(body(&merged).starts_with(expected), "{}", body(&merged));
            assert!(Json::parse(merged.body.clone().expect("there is one"), 8).is_ok());
        }
    }
    let flat = Aggregate { body: BodyShape::Flat(Collision::Error), meta: true, ..three() };
    let merged = merged(&flat, &[ok(0, r#"{"_meta":1}"#), ok(1, r#"{"_meta":2,"x":3}"#), ok(2, "{}")]);
    assert!(body(&merged).starts_with(r#"{"x":3,"_meta":{"completeness""#), "{}", body(&merged));
}

#[test]
fn a_part_is_one_line() {
    let aggregate = three();

    let fine = part(&aggregate, &ok(0, "{\n  \"x\": \"a\\nb\",\r\n  \"y\": 0.10\n}"));
    let failed = part(&aggregate, &omitted(1, Reason::SourceTimeout));
    let raw = Value::Raw { content_type: None, body: Bytes::from_static(b"a\nb") };
    let text = part(&aggregate, &outcome(2, Ending::Ok, Reason::Ok, raw));

    let expected =
        r#"{"source":"a","outcome":"ok","status":200,"ms":12,"attempts":1,"value":{   "x": "a\nb",    "y": 0.10 }}"#;
    assert_eq!(fine, expected);
    assert_eq!(failed, r#"{"source":"b","outcome":"failed","reason":"source_timeout","ms":12,"attempts":1}"#);
    assert_eq!(text, r#"{"source":"c","outcome":"ok","status":200,"ms":12,"attempts":1,"value":"a\nb"}"#);
}

#[test]
fn the_summary_is_one_line() {
    let outcomes = [ok(0, "1"), ok(1, "2"), omitted(2, Reason::Upstream5xx)];
    let aggregate = three();

    let summary = summary(&aggregate, &outcomes, &merged(&aggregate, &outcomes));

    let expected = concat!(
        r#"{"summary":{"status":200,"reason":"partial","completeness":"2/3","sources":{"#,
        r#""a":{"outcome":"ok","status":200,"ms":12,"attempts":1},"#,
        r#""b":{"outcome":"ok","status":200,"ms":12,"attempts":1},"#,
        r#""c":{"outcome":"failed","reason":"upstream_5xx","ms":12,"attempts":1}}}}"#
    );
    assert_eq!(summary, expected);
}

#[test]
fn an_embedded_error_says_the_configured_text_and_no_address() {
    for (message, expected) in [
        ("Fetching {name} failed: {error}", r#"{"error":"Fetching {error} failed: No source answered in time"}"#),
        ("\"{x}\" {", r#"{"error":"\"{x}\" {"}"#),
        ("", r#"{"error":""}"#),
        ("{{name}}", r#"{"error":"{{error}}"}"#),
    ] {
        let source = Source { error_message: message.into(), ..source("{error}", "/") };
        assert_eq!(embedded_error(&source, Reason::SourcesTimedOut).as_bytes(), expected.as_bytes());
    }
}

/// Words that are found again in the body, in JSON of many forms.
fn any_value() -> impl proptest::strategy::Strategy<Value = String> {
    let leaf = prop_oneof![
        "-?[1-9][0-9]{10,20}(\\.[0-9]{1,3}0)?([eE][+-]?[0-9]{3})?",
        "\"[a-z{}\\[,]{3,6}\"",
        Just("null".into())
    ];
    (leaf, 0..6).prop_map(move |(leaf, form)| match form {
        0 => format!("[ {leaf} ,{leaf}]"),
        1 => format!("{{\"k{}\" : {leaf}}}", leaf.len()),
        2 => "{ }".to_owned(),
        3 => format!("{{\"_meta\":{leaf},\"x\":[]}}"),
        _ => leaf,
    })
}

fn any_outcome() -> impl proptest::strategy::Strategy<Value = Outcome> {
    let endings = [
        (Ending::Ok, Reason::Ok),
        (Ending::Ok, Reason::Ok),
        (Ending::Partial, Reason::Ok),
        (Ending::Fallback(Fallback::Value), Reason::ConnectFailed),
        (Ending::Failed, Reason::SourceTimeout),
        (Ending::Failed, Reason::Upstream5xx),
        (Ending::NotNeeded, Reason::NotNeeded),
    ];
    (proptest::sample::select(endings.to_vec()), any_value()).prop_map(|((ending, reason), value)| match ending {
        Ending::Failed => embedded(0, reason),
        Ending::NotNeeded => not_needed(0),
        _ => outcome(0, ending, reason, Value::Json(json(&value))),
    })
}

proptest! {
    #[test]
    fn any_outcomes_give_json_with_every_value_as_it_came(
        outcomes in proptest::collection::vec(any_outcome(), 3),
        shape in 0..4usize, strategy in 0..3usize, meta: bool,
    ) {
        let outcomes: Vec<Outcome> =
            outcomes.into_iter().enumerate().map(|(source, outcome)| Outcome { source, ..outcome }).collect();
        let parts = Node::List(vec![value("#2"), Node::Object(vec![("k".into(), value("#0"))]), value("#1")]);
        let aggregate = Aggregate {
            meta,
            strategy: [Strategy::All, Strategy::First, Strategy::Quorum(2)][strategy],
            body: [
                BodyShape::Keyed,
                BodyShape::Flat(Collision::First),
                BodyShape::Flat(Collision::Error),
                BodyShape::Respond(parts),
            ][shape].clone(),
            ..three()
        };

        let answer = merged(&aggregate, &outcomes);

        prop_assert_eq!(&answer, &merged(&aggregate, &outcomes));
        for outcome in &outcomes {
            let line = part(&aggregate, outcome);
            prop_assert!(!line.contains(&b'\n') && Json::parse(line, 64).is_ok());
        }
        prop_assert!(Json::parse(summary(&aggregate, &outcomes, &answer), 64).is_ok());
        let Some(body) = answer.body else {
            prop_assert!(answer.reason.status() == answer.status && answer.status >= 500);
            return Ok(());
        };
        let text = String::from_utf8(body.to_vec()).expect("JSON is UTF-8");
        let body = Json::parse(body, 64).expect("JSON");
        prop_assert!(!meta || body.get(&json_path("_meta.sources")).is_some());
        if matches!(shape, 0 | 3) && strategy != 1 {
            for outcome in &outcomes {
                if let Value::Json(value) = &outcome.value {
                    prop_assert!(text.contains(std::str::from_utf8(value.as_bytes()).expect("UTF-8")), "{}", text);
                }
            }
        }
    }
}
