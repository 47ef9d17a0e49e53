//! Where values land, and what is refused.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::aggregate::testing::{aggregate, for_each, json_path, reference, source, template};
use crate::config::model::Secret;

fn json(text: &str) -> Json {
    Json::parse(Bytes::copy_from_slice(text.as_bytes()), 64).expect(text)
}

fn parameter(name: &str, value: &str) -> Inputs {
    Inputs { parameters: vec![(name.into(), value.into())], ..Inputs::default() }
}

/// The call of the last source; those before it have the given answers.
fn call(sources: Vec<Source>, inputs: &Inputs, values: &[Option<Json>]) -> Result<Call, MissingValue> {
    let aggregate = aggregate(sources);
    build_call(&aggregate, aggregate.sources.len() - 1, &Scope::new(inputs, values))
}

fn target(path: &str, inputs: &Inputs) -> Result<String, MissingValue> {
    call(vec![source("user", path)], inputs, &[]).map(|call| call.target)
}

fn refusal(reference: &str, from_client: bool, problem: Problem) -> MissingValue {
    MissingValue { reference: reference.into(), from_client, problem }
}

#[test]
fn a_value_in_a_path_stays_in_its_segment() {
    for (value, segment) in [
        ("7", "7"),
        ("a b", "a%20b"),
        ("%2f", "%252f"),
        ("..%2f", "..%252f"),
        ("user@evil", "user%40evil"),
        ("a#b", "a%23b"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a\r\nx: y", "a%0D%0Ax%3A%20y"),
        ("\u{e4}", "%C3%A4"),
        ("...", "..."),
        ("-._~", "-._~"),
        (";x&y", "%3Bx%26y"),
        (":8080", "%3A8080"),
    ] {
        assert_eq!(target("/users/{id}", &parameter("id", value)).as_deref(), Ok(&*format!("/users/{segment}")));
        assert_eq!(target("/u-{id}.json/x", &parameter("id", value)).as_deref(), Ok(&*format!("/u-{segment}.json/x")));
    }
}

/// A list sends the value of one body with each of its calls.
#[test]
fn a_part_of_a_body_in_a_head_has_a_limit_and_in_a_body_none() {
    let with_text = |length: usize| {
        let text = format!("{{\"text\":\"{}\"}}", "x".repeat(length));
        Inputs { body: Some(json(&text)), ..Inputs::default() }
    };
    let in_path = source("search", "/search/{body.text}");
    let mut in_query = source("search", "/search");
    in_query.query = vec![("q".into(), template("x {body.text}"))];
    let mut in_field = source("search", "/search");
    in_field.headers = vec![("x-q".into(), HeaderTemplate::Template(template("{body.text}")))];
    let mut in_body = source("search", "/search");
    in_body.body = Some(RequestBody::Text(template("{body.text}")));

    for source in [in_path, in_query, in_field] {
        assert!(call(vec![source.clone()], &with_text(8 << 10), &[]).is_ok());
        let refused = call(vec![source], &with_text((8 << 10) + 1), &[]);
        assert_eq!(refused, Err(refusal("body.text", true, Problem::TooLong)));
    }
    assert!(call(vec![in_body], &with_text(1 << 20), &[]).is_ok());
}

#[test]
fn a_value_that_would_make_another_path_is_refused() {
    for value in ["..", ".", "a/b", "/", "../admin", "http://evil", "//evil", "a\\b", "a\0b", "..;x", ".;"] {
        let refused = target("/users/{id}", &parameter("id", value)).expect_err(value);

        assert!(refused.from_client && refused.reference == "id", "{refused}");
        assert!(matches!(refused.problem, Problem::Forbidden(_)), "{value}: {refused}");
    }
    assert_eq!(target("/users/{id}", &parameter("id", "")), Err(refusal("id", true, Problem::Empty)));
    assert_eq!(target("/users/{id}", &Inputs::default()), Err(refusal("id", true, Problem::Missing)));
}

#[test]
fn values_and_literals_together_make_no_dot_segment() {
    for (path, value) in [("/{id}{id}", "."), ("/a/.{id}", "."), ("/{id}./b", "."), ("/%2e{id}/b", ".")] {
        let refused = target(path, &parameter("id", value)).expect_err(path);
        assert_eq!(refused.problem, Problem::Forbidden(DOT_SEGMENT), "{path}");
    }
    assert_eq!(target("/a{id}/b", &parameter("id", "..")).as_deref(), Ok("/a../b"));
}

#[test]
fn the_rest_of_a_path_keeps_its_slashes_only() {
    for (value, path) in [
        ("a/b c", Ok("/files/a/b%20c")),
        ("a/", Ok("/files/a/")),
        ("", Ok("/files/")),
        ("a/b?c#d@e", Ok("/files/a/b%3Fc%23d%40e")),
        ("a%2fb", Ok("/files/a%252fb")),
        ("a/../b", Err(())),
        ("..", Err(())),
        ("./a", Err(())),
        ("a//b", Err(())),
        ("/a", Err(())),
        ("a/..;/b", Err(())),
        ("a\\..\\b", Err(())),
        ("http://evil", Err(())),
    ] {
        let got = target("/files/{rest}", &parameter("rest", value));
        assert_eq!(got.as_deref().map_err(drop), path, "{value}");
    }
}

#[test]
fn an_empty_rest_in_the_middle_makes_no_empty_segment() {
    for (value, path) in [("a", Ok("/files/a/meta")), ("", Err(Problem::Empty)), ("a/", Err(Problem::Empty))] {
        let got = target("/files/{rest}/meta", &parameter("rest", value));
        assert_eq!(got.as_deref().map_err(|refused| refused.problem), path, "{value}");
    }
}

#[test]
fn a_value_in_a_query_is_no_further_parameter() {
    let mut user = source("user", "/users");
    user.query = vec![
        ("id".into(), template("{query.id}")),
        ("a b".into(), template("x-{query.id}-y")),
        ("gone".into(), template("{query.gone}")),
        ("fixed".into(), template("1")),
        ("flag".into(), template("")),
    ];
    let inputs = Inputs { query: vec![("id".into(), "a&b=c#d/../e+ %\r\n".into())], ..Inputs::default() };
    let value = "a%26b%3Dc%23d%2F..%2Fe%2B%20%25%0D%0A";

    let target = call(vec![user], &inputs, &[]).map(|call| call.target);

    let expected = format!("/users?id={value}&a%20b=x-{value}-y&fixed=1&flag=");
    assert_eq!(target, Ok(expected));
}

#[test]
fn only_a_parameter_that_is_one_reference_may_be_missing() {
    let mut user = source("user", "/users");
    user.query = vec![("id".into(), template("x{query.id}"))];
    assert_eq!(call(vec![user.clone()], &Inputs::default(), &[]), Err(refusal("query.id", true, Problem::Missing)));

    user.query = vec![("id".into(), template("{body.id}"))];
    for (body, expected) in [
        ("{}", Ok("/users")),
        (r#"{"id":null}"#, Ok("/users")),
        (r#"{"id":""}"#, Ok("/users?id=")),
        (r#"{"id":1.50}"#, Ok("/users?id=1.50")),
        (r#"{"id":{}}"#, Err(Problem::NoText)),
    ] {
        let inputs = Inputs { body: Some(json(body)), ..Inputs::default() };
        let got = call(vec![user.clone()], &inputs, &[]).map(|call| call.target);
        assert_eq!(got.as_deref().map_err(|missing| missing.problem), expected, "{body}");
    }
}

#[test]
fn no_value_ends_a_field() {
    let mut user = source("user", "/");
    user.headers = vec![("x-user".into(), HeaderTemplate::Template(template("{header.x-from}")))];
    for (value, fine) in [
        (&b"plain"[..], true),
        (b"", true),
        (b"a\tb", true),
        (b"latin \xe4", true),
        (b"a\rb", false),
        (b"a\nx-admin: 1", false),
        (b"a\0", false),
        (b"\x7f", false),
        (b"\x1b[0m", false),
    ] {
        let inputs = Inputs { headers: vec![("x-from".into(), value.to_vec())], ..Inputs::default() };

        match call(vec![user.clone()], &inputs, &[]) {
            Ok(call) => assert!(fine && call.headers == [("x-user".to_owned(), value.to_vec())]),
            Err(refused) => assert!(!fine && matches!(refused.problem, Problem::Forbidden(_)), "{refused}"),
        }
    }
    assert_eq!(call(vec![user], &Inputs::default(), &[]).map(|call| call.headers), Ok(vec![]));
}

#[test]
fn a_fixed_field_is_never_a_template() {
    let mut user = source("user", "/");
    user.headers = vec![("authorization".into(), HeaderTemplate::Fixed(Secret::secret("Bearer {id}")))];

    let call = call(vec![user], &parameter("id", "x"), &[]).expect("nothing is needed");

    assert_eq!(call.headers, [("authorization".to_owned(), b"Bearer {id}".to_vec())]);
}

#[test]
fn values_go_into_a_json_body_as_json() {
    let mut user = source("user", "/");
    user.method = "POST".into();
    user.body = Some(RequestBody::Json(Node::Object(vec![
        ("id".into(), Node::Value(reference("id"))),
        ("n".into(), Node::Value(reference("#0.n"))),
        ("all".into(), Node::List(vec![Node::Value(reference("#0")), Node::Literal("0.10".into())])),
        ("text".into(), Node::Text(template("<{id}> {#0.n} \"{#0.half}\"\n"))),
    ])));
    let answer = json(r#"{"n":1e400,"half":"\ud800\n"}"#);

    let call = call(vec![source("first", "/"), user], &parameter("id", "\",\"admin\":\"1"), &[Some(answer), None])
        .expect("all is there");

    let body = call.body.expect("it has one");
    let expected = concat!(
        r#"{"id":"\",\"admin\":\"1","n":1e400,"all":[{"n":1e400,"half":"\ud800\n"},0.10],"#,
        r#""text":"<\",\"admin\":\"1> 1e400 \"\ud800\n\"\n"}"#
    );
    assert_eq!(String::from_utf8_lossy(&body), expected);
    assert_eq!(call.headers, [("content-type".to_owned(), b"application/json".to_vec())]);
}

#[test]
fn a_json_body_without_a_value_that_it_needs_is_not_sent() {
    let mut user = source("user", "/");
    user.body = Some(RequestBody::Json(Node::Object(vec![("id".into(), Node::Value(reference("#0.id.*.x")))])));
    let sources = vec![source("first", "/"), user];

    let result = call(sources.clone(), &Inputs::default(), &[Some(json("{}")), None]);
    assert_eq!(result, Err(refusal("first.id.*.x", false, Problem::Missing)));

    let null = call(sources, &Inputs::default(), &[Some(json(r#"{"id":[{"x":null}]}"#)), None]);
    assert_eq!(null.map(|call| call.body), Ok(Some(Bytes::from_static(br#"{"id":[null]}"#))));
}

#[test]
fn a_text_body_has_its_type_unless_the_configuration_has_another() {
    let mut user = source("user", "/");
    user.body = Some(RequestBody::Text(template("id={id}")));
    let inputs = parameter("id", "a\nb");

    let plain = call(vec![user.clone()], &inputs, &[]).expect("all is there");
    assert_eq!(plain.body.as_deref(), Some(&b"id=a\nb"[..]));
    assert_eq!(plain.headers, [("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec())]);

    user.headers = vec![("content-type".into(), HeaderTemplate::Template(template("text/csv")))];
    let other = call(vec![user], &inputs, &[]).expect("all is there");
    assert_eq!(other.headers, [("content-type".to_owned(), b"text/csv".to_vec())]);
}

#[test]
fn items_may_be_objects_and_belong_to_whom_their_list_belongs() {
    let mut user = source("user", "/users/{item.id}");
    user.for_each = Some(for_each("body.users", 1, 10));
    let mut fan = aggregate(vec![source("first", "/"), user]);
    let (inputs, item) = (Inputs::default(), json(r#"{"id":9223372036854775808}"#));
    let with = |item| Scope { item: Some(item), ..Scope { values: &[], inputs: &inputs, item: None, winner: None } };

    let call = build_call(&fan, 1, &with(&item)).expect("all is there");
    assert_eq!((call.target.as_str(), call.source), ("/users/9223372036854775808", 1));

    let text = json("\"7\"");
    assert_eq!(build_call(&fan, 1, &with(&text)), Err(refusal("item.id", true, Problem::Missing)));

    let mut of_source = (*fan.sources[1]).clone();
    of_source.for_each = Some(for_each("#0.users", 1, 10));
    fan.sources[1] = of_source.into();
    assert_eq!(build_call(&fan, 1, &with(&text)), Err(refusal("item.id", false, Problem::Missing)));
}

#[test]
fn a_value_of_another_answer_is_trusted_no_more_than_a_clients() {
    let sources = vec![source("first", "/"), source("user", "/users/{#0.id}")];
    for (answer, expected) in [
        (r#"{"id":7}"#, Ok("/users/7")),
        (r#"{"id":-1E+2}"#, Ok("/users/-1E%2B2")),
        (r#"{"id":true}"#, Ok("/users/true")),
        (r#"{"id":"a\u0026b"}"#, Ok("/users/a%26b")),
        (
            r#"{"id":"..\u002f"}"#,
            Err("the value of `first.id` cannot be used: the path holds an encoded slash, backslash or NUL"),
        ),
        (r#"{"id":"\u002e."}"#, Err("the value of `first.id` cannot be used: it makes a dot segment")),
        (r#"{"id":null}"#, Err("the value of `first.id` is missing")),
        (r#"{"id":[7]}"#, Err("the value of `first.id` is no string, number or boolean")),
        (r#"{"id":"\ud800"}"#, Err("the value of `first.id` is no string, number or boolean")),
        (r#"{"id":""}"#, Err("the value of `first.id` is empty")),
    ] {
        let got = call(sources.clone(), &Inputs::default(), &[Some(json(answer)), None]).map(|call| call.target);
        let got = got.map_err(|refused| {
            assert!(!refused.from_client);
            refused.to_string()
        });
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{answer}");
    }
}

#[test]
fn a_request_is_asked_only_for_what_is_used() {
    let mut user = source("user", "/{id}");
    user.headers = vec![
        ("b".into(), HeaderTemplate::Template(template("{header.b} {header.a}"))),
        ("c".into(), HeaderTemplate::Fixed(Secret::plain("{header.c}"))),
    ];
    let mut aggregate = aggregate(vec![user]);
    assert_eq!(Needs::of(&aggregate), Needs { query: false, headers: vec!["a".into(), "b".into()], body: false });

    aggregate.body =
        BodyShape::Respond(Node::List(vec![Node::Text(template("{query.q}")), Node::Value(reference("body"))]));
    assert_eq!(Needs::of(&aggregate), Needs { query: true, headers: vec!["a".into(), "b".into()], body: true });
}

#[test]
fn references_are_described_as_they_are_written() {
    for (reference, text) in [
        (reference("id"), "id"),
        (reference("header.x-a"), "header.x-a"),
        (reference("#1.a.*.b"), "second.a.*.b"),
        (Reference::Winner(json_path("")), "winner"),
    ] {
        assert_eq!(describe(&reference, &["first", "second"]), text);
    }
}

/// One decoding, as the upstream does it.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                u8::from_str_radix(std::str::from_utf8(&digits).expect("ASCII"), 16).expect("digits")
            }
            _ => byte,
        });
    }
    out
}

proptest! {
    #[test]
    fn a_value_never_leaves_its_place(value in prop_oneof![any::<String>(), "[./%\\\\?#&=;@:a2fe\r\n\0]{0,8}"]) {
        let mut user = source("user", "/a/x{id}/{id}/b");
        user.query = vec![("q".into(), template("{id}")), ("r".into(), template("1"))];
        user.headers = vec![("h".into(), HeaderTemplate::Template(template("<{query.id}>")))];
        user.body = Some(RequestBody::Json(Node::List(vec![
            Node::Value(reference("id")),
            Node::Text(template("<{id}>")),
        ])));
        let inputs = Inputs { query: vec![("id".into(), value.clone())], ..parameter("id", &value) };
        let Ok(call) = call(vec![user], &inputs, &[]) else { return Ok(()) };

        let (path, query) = call.target.split_once('?').expect("there is a query");
        prop_assert_eq!(normalise(path.as_bytes(), &mut Vec::new()), Ok(crate::message::path::Normalised::Unchanged));
        let segments: Vec<Vec<u8>> = path.split('/').map(decoded).collect();
        let x = format!("x{value}");
        let expected = [&b""[..], b"a", x.as_bytes(), value.as_bytes(), b"b"];
        prop_assert_eq!(&segments, &expected);
        let pairs: Vec<Vec<u8>> = query.split('&').map(decoded).collect();
        let q = format!("q={value}");
        prop_assert_eq!(&pairs, &[q.as_bytes(), b"r=1"]);
        prop_assert!(call.target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
        let field = format!("<{value}>");
        prop_assert_eq!(&call.headers[0].1, field.as_bytes());
        prop_assert!(!field.contains(['\r', '\n', '\0']));
        let body = Json::parse(call.body.expect("there is one"), 2).expect("JSON").items().expect("a list");
        let texts: Vec<String> = body.iter().map(|item| item.text().expect("text").into_owned()).collect();
        prop_assert_eq!(&texts, &[value, field]);
    }

    #[test]
    fn the_rest_of_a_path_never_climbs(value in "[./%\\\\?#;a2fe]{0,10}") {
        let Ok(target) = target("/files/{rest}", &parameter("rest", &value)) else { return Ok(()) };
        prop_assert_eq!(normalise(target.as_bytes(), &mut Vec::new()), Ok(crate::message::path::Normalised::Unchanged));
        let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
        prop_assert_eq!(slashes(&decoded(&target)), 2 + slashes(value.as_bytes()));
    }
}
