//! What goes out to the sources: values stay where the configuration puts them, and nothing is sent that it does not name.

use serde_json::json;

use super::upstream::{Reply, Upstream};
use super::{forebay, get, post};
use crate::support::forebay::Forebay;
use crate::support::http;

/// What clients try, as text.
const HOSTILE: [&str; 19] = [
    "a/b",
    "../admin",
    "..",
    ".",
    "",
    "%2f",
    "..%2fadmin",
    "%2e%2e",
    "a@evil.example",
    "a#fragment",
    "a?b=c",
    "a;b=c",
    "http://evil.example/",
    "//evil.example",
    "a\r\nx-evil: 1",
    "a\r\n\r\nGET /admin HTTP/1.1\r\n",
    "a b",
    "a\\b",
    "a\0b",
];

async fn by_path_query_header_and_body(app: &Upstream) -> Forebay {
    forebay(
        app.address,
        r#"
        [route.path]
        path = "/path/{id}"
        [route.path.aggregate.source]
        a = { upstream = "app", path = "/v1/{id}/profile" }

        [route.query]
        path = "/query"
        [route.query.aggregate.source]
        a = { upstream = "app", path = "/v1/profile", query = { q = "{query.q}", fixed = "1" } }

        [route.body]
        path = "/body"
        [route.body.aggregate.source]
        path = { upstream = "app", path = "/v1/{body.id}/profile" }

        [route.body_to_query]
        path = "/body-to-query"
        [route.body_to_query.aggregate.source]
        a = { upstream = "app", path = "/v1/profile", query = { q = "{body.id}", fixed = "1" } }

        [route.body_to_header]
        path = "/body-to-header"
        [route.body_to_header.aggregate.source]
        a = { upstream = "app", path = "/v1/profile", headers = { x-tenant = "{body.id}" } }

        [route.body_to_body]
        path = "/body-to-body"
        [route.body_to_body.aggregate.source]
        a = { upstream = "app", method = "POST", path = "/v1/profile", body = { id = "{body.id}" } }
        "#,
    )
    .await
}

/// The bytes of `text` with `%XX` for those that a request line cannot hold, as a client that plays by the grammar sends it.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"#?%".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'%' => (u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap(), &after[2..]),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).unwrap()
}

/// The only `/v1/SEGMENT/profile` of a request, if that is what it asks for. Everything but unreserved characters must be
/// encoded in it (RFC 3986 §2.3).
#[track_caller]
fn segment(request: &str) -> String {
    let line = request.lines().next().expect("a request line");
    let segment = line.strip_prefix("GET /v1/").and_then(|rest| rest.strip_suffix("/profile HTTP/1.1"));
    let segment = segment.unwrap_or_else(|| panic!("{request:?}"));
    assert!(segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{segment}");
    let plain = percent_decoded(segment);
    assert!(!plain.is_empty() && ![".", ".."].contains(&plain.as_str()), "{request:?}");
    assert!(!plain.contains(['/', '\\', '\0']), "{request:?}");
    plain
}

/// As `Host` and as the fields of the head, every call is what the configuration says.
#[track_caller]
fn assert_head(request: &str, app: &Upstream) {
    let (head, _) = request.split_once("\r\n\r\n").expect("a whole head");
    let hosts: Vec<&str> = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("host:")).collect();
    assert_eq!(hosts, [format!("host: {}", app.address)], "{request:?}");
    assert!(!head.lines().any(|line| line.to_ascii_lowercase().starts_with("x-evil")), "{request:?}");
}

#[tokio::test]
async fn values_of_a_json_body_reach_one_segment_of_the_path_or_are_refused() {
    let app = Upstream::json(r#"{"ok":true}"#).await;
    let forebay = by_path_query_header_and_body(&app).await;

    let mut reached = Vec::new();
    for text in HOSTILE {
        let before = app.seen().requests.len();
        let response = post(&forebay, "/body", &json!({ "id": text })).await;
        match &app.seen().requests[before..] {
            [] => {
                assert_eq!((response.status, response.reason()), (400, Some("bad_request")), "{text:?}: {response:?}")
            }
            [request] => {
                assert_head(request, &app);
                assert_eq!((segment(request).as_str(), response.status), (text, 200));
                reached.push(text);
            }
            more => panic!("{text:?} made {more:?}"),
        }
    }

    assert!(reached.contains(&"a@evil.example") && reached.contains(&"a?b=c"), "{reached:?}");
    assert!(!reached.iter().any(|text| text.contains(['/', '\\', '\0'])), "{reached:?}");
}

#[tokio::test]
async fn path_parameters_reach_one_segment_of_the_path_or_are_refused() {
    let app = Upstream::json(r#"{"ok":true}"#).await;
    let forebay = by_path_query_header_and_body(&app).await;

    // As they are, as far as a request line can hold them, and encoded once more.
    let raw =
        HOSTILE.iter().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())).map(|text| text.to_string());
    let encoded = HOSTILE.iter().map(|text| percent_encoded(text));
    let slashes = ["%2F", "a%2Fb", "..%2F..%2Fadmin", "%2e%2e%2fadmin", "http:%2F%2Fevil.example"].map(str::to_owned);
    for parameter in raw.chain(encoded).chain(slashes) {
        let before = app.seen().requests.len();
        let response = get(&forebay, &format!("/path/{parameter}")).await;
        match &app.seen().requests[before..] {
            // A path of more segments, or of fewer, is not this route's.
            [] => assert!([400, 404].contains(&response.status), "{parameter}: {response:?}"),
            [request] => {
                assert_head(request, &app);
                // Empty segments are left out of every path before it is matched.
                let path = parameter.split(['?', '#']).next().unwrap().trim_start_matches('/');
                assert_eq!((segment(request), response.status), (percent_decoded(path), 200), "{parameter}");
            }
            more => panic!("{parameter} made {more:?}"),
        }
    }
    let lines = app.lines();
    assert!(lines.iter().any(|line| line.contains("a%40evil.example")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("a%23fragment")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("/admin")), "{lines:?}");
}

#[tokio::test]
async fn query_values_stay_one_parameter() {
    let app = Upstream::json(r#"{"ok":true}"#).await;
    let forebay = by_path_query_header_and_body(&app).await;
    let hostile = ["a&fixed=2", "a=b", "a+b", "100%"].into_iter().chain(HOSTILE);

    for text in hostile {
        for by_body in [true, false] {
            let before = app.seen().requests.len();
            let response = if by_body {
                post(&forebay, "/body-to-query", &json!({ "id": text })).await
            } else {
                let value: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
                get(&forebay, &format!("/query?q={value}")).await
            };
            match &app.seen().requests[before..] {
                [] => assert_eq!(response.status, 400, "{text:?}"),
                [request] => {
                    assert_head(request, &app);
                    let line = request.lines().next().unwrap();
                    let query =
                        line.strip_prefix("GET /v1/profile?q=").and_then(|rest| rest.strip_suffix("&fixed=1 HTTP/1.1"));
                    let query = query.unwrap_or_else(|| panic!("{line:?}"));
                    assert!(!query.contains(['&', '=', '#', '+', '?', '/']), "{line:?}");
                    assert_eq!((percent_decoded(query).as_str(), response.status), (text, 200));
                }
                more => panic!("{text:?} made {more:?}"),
            }
        }
    }
    assert!(app.seen().requests.len() > 30, "most of them are harmless in a query: {:?}", app.lines());
}

#[tokio::test]
async fn header_values_cannot_end_their_line_and_body_values_stay_strings() {
    let app = Upstream::json(r#"{"ok":true}"#).await;
    let forebay = by_path_query_header_and_body(&app).await;

    for text in HOSTILE {
        let before = app.seen().requests.len();
        let response = post(&forebay, "/body-to-header", &json!({ "id": text })).await;
        match &app.seen().requests[before..] {
            [] => {
                assert!(text.contains(['\r', '\n', '\0']), "{text:?} is harmless in a header");
                assert_eq!(response.status, 400, "{text:?}");
            }
            [request] => {
                assert_head(request, &app);
                let sent = request.lines().filter_map(|line| line.strip_prefix("x-tenant: ")).collect::<Vec<_>>();
                // An empty field says what an empty value says.
                assert!(sent == [text] || text.is_empty(), "{text:?}: {request:?}");
            }
            more => panic!("{text:?} made {more:?}"),
        }

        let before = app.seen().requests.len();
        assert_eq!(post(&forebay, "/body-to-body", &json!({ "id": text })).await.status, 200);
        let request = app.seen().requests[before].clone();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_head(&request, &app);
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), json!({ "id": text }));
    }
}

/// An upstream that is not trusted any more than a client: its answer goes into the path of the next call.
#[tokio::test]
async fn values_of_an_answer_reach_one_segment_or_fail_that_source_alone() {
    let app = Upstream::start(|request| match request.starts_with("GET /first ") {
        true => Reply::json(json!({ "id": "../admin", "name": "a@b" }).to_string()),
        false => Reply::json(r#"{"ok":true}"#),
    })
    .await;
    let forebay = forebay(
        app.address,
        r#"
        [route.chain]
        path = "/chain"
        [route.chain.aggregate]
        meta = true
        [route.chain.aggregate.source]
        first = { upstream = "app", path = "/first" }
        bad = { upstream = "app", path = "/v1/{first.id}/profile" }
        good = { upstream = "app", path = "/v1/{first.name}/profile" }
        "#,
    )
    .await;

    let response = get(&forebay, "/chain").await;

    assert_eq!((response.status, response.header("x-forebay-completeness")), (200, Some("2/3")));
    let body = response.json();
    assert_eq!(
        (&body["good"]["ok"], &body["_meta"]["sources"]["bad"]["reason"]),
        (&json!(true), &json!("missing_value"))
    );
    assert_eq!(app.lines().len(), 2);
    assert_eq!(segment(&app.seen().requests[1]), "a@b");
}

#[tokio::test]
async fn only_headers_that_the_configuration_names_are_sent_on() {
    let app = Upstream::json(r#"{"ok":true}"#).await;
    let forebay = forebay(
        app.address,
        r#"
        [route.a]
        path = "/a"
        [route.a.aggregate.source]
        a = { upstream = "app", path = "/a", forward_headers = ["authorization"], headers = { x-tenant = "t-{header.x-customer}", x-fixed = "yes" } }
        "#,
    )
    .await;

    let headers = [
        ("authorization", "Bearer secret"),
        ("cookie", "session=1"),
        ("x-customer", "7"),
        ("x-internal", "1"),
        ("user-agent", "evil/1"),
        ("referer", "http://somewhere.example/"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
    ];
    let response = http::request(forebay.address(), "GET", "/a", &headers, b"").await.unwrap();

    assert_eq!(response.status, 200);
    let request = app.seen().requests[0].clone();
    let fields = request.trim_end().lines().skip(1).filter_map(|line| line.split_once(": "));
    let mut names: Vec<&str> = fields.clone().map(|(name, _)| name).collect();
    names.sort_unstable();
    let ours = ["accept-encoding", "host", "traceparent", "user-agent", "x-forebay-deadline-ms", "x-request-id"];
    let unexpected: Vec<&&str> = names
        .iter()
        .filter(|name| !ours.contains(name) && !["authorization", "x-tenant", "x-fixed"].contains(name))
        .filter(|name| {
            !["accept", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"].contains(name)
        })
        .collect();
    assert!(unexpected.is_empty(), "{request}");
    let value = |name: &str| fields.clone().find(|(field, _)| *field == name).map(|(_, value)| value);
    assert_eq!(
        (value("authorization"), value("x-tenant"), value("x-fixed")),
        (Some("Bearer secret"), Some("t-7"), Some("yes"))
    );
    assert_ne!(value("user-agent"), Some("evil/1"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Upstream::json("{}").await;
    let location = format!("location: http://{}/secret\r\n", elsewhere.address);
    let app = Upstream::start(move |_| Reply::with(302, &location, "")).await;
    let forebay = forebay(
        app.address,
        r#"
        [route.a]
        path = "/a"
        [route.a.aggregate.source]
        a = { upstream = "app", path = "/a" }
        "#,
    )
    .await;

    let response = get(&forebay, "/a").await;

    assert_eq!((response.status, response.reason()), (502, Some("upstream_status")));
    assert_eq!(response.header("location"), None);
    assert_eq!((app.lines().len(), elsewhere.lines().len()), (1, 0));
    assert!(!response.text().contains(&elsewhere.address.to_string()), "{}", response.text());
    assert!(!response.text().contains(&app.address.to_string()), "{}", response.text());
}

#[tokio::test]
async fn a_body_that_the_templates_cannot_read_is_refused_before_any_call() {
    let app = Upstream::json("1").await;
    let forebay = by_path_query_header_and_body(&app).await;
    let send = async |body: &[u8]| {
        let headers = [("content-type", "application/json")];
        http::request(forebay.address(), "POST", "/body", &headers, body).await.expect("an answer")
    };
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let bodies: [&[u8]; 8] =
        [b"", b"{", b"[]", b"{}", br#"{"id":null}"#, br#"{"id":{"a":1}}"#, b"{\"id\":\"\xff\"}", deep.as_bytes()];

    for body in bodies {
        let response = send(body).await;
        assert_eq!(
            (response.status, response.reason()),
            (400, Some("bad_request")),
            "{:?}",
            String::from_utf8_lossy(body)
        );
    }
    assert_eq!(app.lines(), Vec::<String>::new());
    assert_eq!(send(br#"{"id":1.50}"#).await.status, 200);
    assert_eq!(app.lines(), ["GET /v1/1.50/profile HTTP/1.1"], "a number is what the client wrote");
}

#[tokio::test]
async fn a_field_in_several_lines_is_sent_on_whole() {
    let app = Upstream::json("1").await;
    let route = r#"
        [route.a]
        path = "/a"
        [route.a.aggregate.source]
        a = { upstream = "app", path = "/a", forward_headers = ["cookie", "accept-language"] }
        "#;
    let forebay = forebay(app.address, route).await;
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("accept-language", "de"), ("accept-language", "en")];

    let answer = http::request(forebay.address(), "GET", "/a", &fields, b"").await.expect("an answer");

    assert_eq!(answer.status, 200);
    let sent = app.seen().requests[0].to_ascii_lowercase();
    assert!(sent.contains("\r\ncookie: a=1; b=2\r\n") && sent.contains("\r\naccept-language: de, en\r\n"), "{sent}");
}
