//! HTTP/2 on either side.

use serde_json::json;

use super::upstream::{Reply, Upstream};
use super::{at_rest, forebay, ms, post};
use crate::front::h2_client::H2Client;
use crate::front::h2_upstream::H2Upstream;
use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http;

const THREE: &str = r#"
    [route.three]
    path = "/three"
    deadline = "30s"
    on_client_gone = "cancel"
    [route.three.aggregate.source]
    a = { upstream = "app", path = "/a" }
    b = { upstream = "app", path = "/b" }
"#;

#[tokio::test]
async fn an_http2_client_gets_the_same_answer_and_parts_in_data_frames() {
    let app = Upstream::start(|request| match request.starts_with("GET /a ") {
        true => Reply::json("1").after(ms(50)),
        false => Reply::with(500, "", ""),
    })
    .await;
    let forebay = forebay(app.address, THREE).await;
    let client = H2Client::open(forebay.address()).await;

    let whole = client.get("/three").await.expect("an answer");
    let mut request = crate::front::h2_client::request(http_method(), "/three");
    request.headers_mut().insert("accept", "application/x-ndjson".parse().unwrap());
    let parts = client.request(request, b"", None).await.expect("an answer");

    let error = r#"{"error":"Failed to fetch b: The upstream answered with a server error"}"#;
    assert_eq!((whole.status(), &*whole.body), (200, format!(r#"{{"a":1,"b":{error}}}"#).as_bytes()));
    assert_eq!(whole.header("x-forebay-completeness"), Some("1/2"));
    let lines: Vec<serde_json::Value> =
        std::str::from_utf8(&parts.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["source"], &lines[1]["source"]), (3, &json!("b"), &json!("a")));
    assert_eq!(lines[2]["summary"]["completeness"], "1/2");
    at_rest(&forebay).await;
}

fn http_method() -> ::http::Method {
    ::http::Method::GET
}

/// A reset stream is a client that has left; the connection stays.
#[tokio::test]
async fn a_reset_stream_cancels_its_sources_and_no_others() {
    let app = Upstream::start(|_| Reply::never()).await;
    let forebay = forebay(app.address, THREE).await;
    let client = H2Client::open(forebay.address()).await;
    let request = || crate::front::h2_client::request(http_method(), "/three");

    let (first, mut stream) = client.send.clone().send_request(request(), true).unwrap();
    let (second, _stream) = client.send.clone().send_request(request(), true).unwrap();
    app.working_on(4).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(first);

    app.until("two calls are cancelled", |seen| (seen.abandoned, seen.working) == (2, 2)).await;
    drop((second, client));
    app.until("all calls are cancelled", |seen| seen.abandoned == 4).await;
    at_rest(&forebay).await;
}

#[tokio::test]
async fn an_http2_upstream_is_a_source_like_any_other() {
    let app = H2Upstream::start(None).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.app]
        endpoints = ["{}"]
        protocol = "http2"

        [route.echo]
        path = "/echo/{{id}}"
        [route.echo.aggregate.source]
        a = {{ upstream = "app", method = "POST", path = "/v1/{{id}}", body = {{ id = "{{id}}", n = "{{body.n}}" }} }}
        b = {{ upstream = "app", method = "POST", path = "/v1/b", body = ["{{a.n}}"] }}

        [route.wait]
        path = "/wait"
        on_client_gone = "cancel"
        [route.wait.aggregate.source]
        a = {{ upstream = "app", path = "/wait" }}
        b = {{ upstream = "app", path = "/wait", query = {{ n = "2" }} }}
        "#,
        app.address
    ))
    .await;

    let response = post(&forebay, "/echo/a@b", &json!({ "n": 7 })).await;
    let client = http::hold(forebay.address(), "/wait").await;
    eventually("both wait", async || (app.waiting() == 2).then_some(())).await;
    drop(client);
    eventually("both are reset", async || (app.resets() == 2).then_some(())).await;

    assert_eq!((response.status, response.text().as_str()), (200, r#"{"a":{"id":"a@b","n":7},"b":[7]}"#));
    let seen = app.seen();
    assert_eq!(seen[0].head.uri.path(), "/v1/a%40b");
    assert_eq!(seen[0].head.uri.authority().map(ToString::to_string), Some(app.address.to_string()));
    at_rest(&forebay).await;
}
