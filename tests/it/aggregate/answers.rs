//! What comes back from the sources: encodings, sizes, shapes that are no JSON, and what never changes on the way.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::upstream::{Reply, Upstream};
use super::{at_rest, forebay, get, ms};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams::default();
    brotli::BrotliCompress(&mut &text[..], &mut out, &parameters).expect("memory takes all");
    out
}

fn encoded(coding: &str, body: Vec<u8>) -> Reply {
    Reply::with(200, &format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n"), body)
}

const ENCODED: &str = r#"
    [route.all]
    path = "/all"
    [route.all.aggregate]
    meta = true
    [route.all.aggregate.source]
    gzip = { upstream = "app", path = "/gzip" }
    br = { upstream = "app", path = "/br" }
    bomb = { upstream = "app", path = "/bomb", max_body = "100MiB" }
    large = { upstream = "app", path = "/large", max_body = "64KiB" }
    unknown = { upstream = "app", path = "/unknown" }
    broken = { upstream = "app", path = "/broken" }
"#;

#[tokio::test]
async fn gzip_and_br_are_decoded_and_a_bomb_is_refused() {
    let app = Upstream::start(|request| match request.split(' ').nth(1).unwrap_or_default() {
        "/gzip" => encoded("gzip", gzip(br#"{"was":"gzip"}"#)),
        "/br" => encoded("br", brotli(br#"{"was":"br"}"#)),
        "/bomb" => encoded("gzip", gzip(&vec![b' '; 50_000_000])),
        "/large" => encoded("gzip", gzip(&vec![b' '; 65 * 1024])),
        "/unknown" => encoded("zstd", b"(/".to_vec()),
        _ => encoded("gzip", b"no gzip at all".to_vec()),
    })
    .await;
    let forebay = forebay(app.address, ENCODED).await;

    let response = get(&forebay, "/all").await;

    let body = response.json();
    assert_eq!((response.status, response.header("x-forebay-completeness")), (200, Some("2/6")));
    assert_eq!((&body["gzip"]["was"], &body["br"]["was"]), (&"gzip".into(), &"br".into()));
    let reason = |name: &str| body["_meta"]["sources"][name]["reason"].clone();
    assert_eq!((reason("bomb"), reason("large")), ("upstream_too_large".into(), "upstream_too_large".into()));
    assert_eq!((reason("unknown"), reason("broken")), ("upstream_bad_body".into(), "upstream_bad_body".into()));
    assert_eq!(response.header("content-encoding"), None);
    at_rest(&forebay).await;
}

/// Numbers beyond every machine type, repeated keys, escapes and white space of the sources.
#[tokio::test]
async fn what_is_not_touched_passes_byte_by_byte() {
    const EXACT: &str = r#"{"big": 9223372036854775808, "huge":1e400,"price" :0.10, "twice":1,"twice":2, "text":"\u00e9é\ud83d\ude00\/"}"#;
    let app = Upstream::json(EXACT).await;
    let forebay = forebay(
        app.address,
        r#"
        [route.exact]
        path = "/exact"
        [route.exact.aggregate]
        respond = { a = "{a}", price = "{a.price}" }
        [route.exact.aggregate.source]
        a = { upstream = "app", path = "/a" }
        "#,
    )
    .await;

    let response = get(&forebay, "/exact").await;

    assert_eq!(response.text(), format!(r#"{{"a":{EXACT},"price":0.10}}"#));
}

#[tokio::test]
async fn bodies_that_are_too_large_or_no_json_fail_their_source_alone() {
    let app = Upstream::start(|request| match request.split(' ').nth(1).unwrap_or_default() {
        "/large" => Reply::json(format!("\"{}\"", "x".repeat(2000))),
        "/deep" => Reply::json(format!("{}{}", "[".repeat(100), "]".repeat(100))),
        "/html" => Reply::with(200, "content-type: text/html\r\n", "<p>hello</p>"),
        "/none" => Reply::with(204, "", ""),
        "/invalid" => Reply::with(200, "", b"\"\xff\""),
        _ => Reply::json("1"),
    })
    .await;
    let forebay = forebay(
        app.address,
        r#"
        [route.all]
        path = "/all"
        [route.all.aggregate]
        meta = true
        partial_status = 206
        [route.all.aggregate.source]
        large = { upstream = "app", path = "/large", max_body = "1KiB", on_error = "omit" }
        deep = { upstream = "app", path = "/deep", on_error = { value = [] } }
        html = { upstream = "app", path = "/html" }
        invalid = { upstream = "app", path = "/invalid", on_error = { source = "spare" } }
        spare = { upstream = "app", path = "/spare" }
        none = { upstream = "app", path = "/none" }
        text = { upstream = "app", path = "/html", format = "text", headers = { accept = "text/html" } }
        "#,
    )
    .await;

    let response = get(&forebay, "/all").await;

    let body = response.text();
    let (before, _) = body.split_once(",\"_meta\":").expect("metadata");
    let html = "Failed to fetch html: The upstream's answer cannot be read: it is not what its format promises";
    let expected = format!(r#"{{"deep":[],"html":{{"error":"{html}"}},"invalid":1,"none":null,"text":"<p>hello</p>""#);
    assert_eq!((response.status, before), (206, expected.as_str()));
    let meta = &response.json()["_meta"]["sources"];
    let reason = |name: &str| meta[name]["reason"].as_str().unwrap_or("none").to_owned();
    assert_eq!((reason("large").as_str(), reason("deep").as_str()), ("upstream_too_large", "upstream_too_deep"));
    assert_eq!((reason("html").as_str(), reason("invalid").as_str()), ("upstream_bad_body", "upstream_bad_body"));
}

#[tokio::test]
async fn all_answers_together_are_bounded_too() {
    let app = Upstream::start(|request| {
        let reply = Reply::json(format!("\"{}\"", "x".repeat(600)));
        // One after the other, so that it is clear who comes too late.
        reply.after(ms(if request.starts_with("GET /b ") { 300 } else { 0 }))
    })
    .await;
    let forebay = forebay(
        app.address,
        r#"
        [route.both]
        path = "/both"
        [route.both.aggregate]
        max_bytes = "1KiB"
        meta = true
        [route.both.aggregate.source]
        a = { upstream = "app", path = "/a" }
        b = { upstream = "app", path = "/b" }
        "#,
    )
    .await;

    let response = get(&forebay, "/both").await;

    let body = response.json();
    assert_eq!((response.status, response.header("x-forebay-completeness")), (200, Some("1/2")));
    assert_eq!(body["a"].as_str().map(str::len), Some(600));
    assert_eq!(body["_meta"]["sources"]["b"]["reason"], "upstream_too_large");
}

/// A source that is to name a list and does not fails the source over the list.
#[tokio::test]
async fn a_list_that_is_none_fails_its_source_alone() {
    let app = Upstream::start(|request| match request.split(' ').nth(1) {
        Some("/teams/object") => Reply::json(r#"{"members":{"a":1}}"#),
        Some("/teams/none") => Reply::json("{}"),
        Some("/teams/empty") => Reply::json(r#"{"members":[]}"#),
        Some("/teams/mixed") => Reply::json(r#"{"members":[1,null,{"a":1},"x","1"]}"#),
        _ => Reply::json("true"),
    })
    .await;
    let forebay = forebay(
        app.address,
        r#"
        [route.team]
        path = "/team/{name}"
        [route.team.aggregate]
        respond = { team = "{team}", members = "{members}" }
        meta = true
        [route.team.aggregate.source]
        team = { upstream = "app", path = "/teams/{name}" }
        members = { upstream = "app", path = "/users/{item}", for_each = "{team.members}" }
        "#,
    )
    .await;

    let missing = r#"{"error":"Failed to fetch members: A value that this call needs is not there"}"#;
    for (name, members, reason) in [
        ("object", missing.to_owned(), Some("missing_value")),
        ("none", missing.to_owned(), Some("missing_value")),
        ("empty", "[]".to_owned(), None),
        // Each item on its own: two have no text that could stand in a path.
        ("mixed", format!("[true,{missing},{missing},true,true]"), Some("partial")),
    ] {
        let response = get(&forebay, &format!("/team/{name}")).await;

        let body = response.text();
        assert_eq!(response.status, 200, "{name}: {body}");
        assert!(body.contains(&format!(r#""members":{members},"_meta""#)), "{name}: {body}");
        assert_eq!(response.json()["_meta"]["sources"]["members"]["reason"].as_str(), reason, "{name}: {body}");
    }
    let mut called = app.lines();
    called.retain(|line| line.contains("/users/"));
    called.sort();
    assert_eq!(called, ["GET /users/1 HTTP/1.1", "GET /users/x HTTP/1.1"], "1 and \"1\" are the same call");
}
