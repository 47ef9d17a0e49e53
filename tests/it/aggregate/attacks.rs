//! What hostile clients and broken upstreams do: small requests that would make much of little, and answers that are not what
//! they say.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::{Reply, Upstream};
use super::{at_rest, forebay, get, post};
use crate::support::{eventually, http};

const KIB: usize = 1024;

/// A string of so many bytes.
fn text(length: usize) -> String {
    "x".repeat(length)
}

#[tokio::test]
async fn one_value_again_and_again_does_not_make_gigabytes() {
    let app = Upstream::start(|_| Reply::json(format!("\"{}\"", text(900 * KIB)))).await;
    let routes = r#"
        [route.list]
        path = "/list"
        [route.list.aggregate]
        meta = true
        [route.list.aggregate.source]
        same = { upstream = "app", path = "/users/{item}", for_each = "{query.ids}", max_items = 10_000 }
    "#;
    let forebay = forebay(app.address, routes).await;

    let fits = get(&forebay, &format!("/list?ids={}", ["1"; 10].join(","))).await;
    let beyond = get(&forebay, &format!("/list?ids={}", vec!["1"; 10_000].join(","))).await;

    assert_eq!((fits.status, fits.json()["same"].as_array().map(Vec::len)), (200, Some(10)));
    assert_eq!((beyond.status, beyond.reason()), (502, Some("upstream_too_large")));
    assert_eq!(app.lines().len(), 2, "each request made one call");
    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_part_of_a_body_does_not_swell_the_heads_of_many_calls() {
    let app = Upstream::json("1").await;
    let routes = r#"
        [route.search]
        path = "/search"
        [route.search.aggregate.source]
        all = { upstream = "app", path = "/{item}", query = { q = "{body.q}" }, for_each = "{body.ids}" }
        [route.notes]
        path = "/notes"
        [route.notes.aggregate.source]
        all = { upstream = "app", method = "POST", path = "/notes", body = { note = "{body.q}" } }
    "#;
    let forebay = forebay(app.address, routes).await;
    let ids: Vec<u32> = (0..100).collect();

    let large = json!({ "ids": ids, "q": text(900 * KIB) });
    let refused = post(&forebay, "/search", &large).await;
    assert!(app.lines().is_empty(), "refused before any call: {:?}", app.lines().len());
    let in_a_body = post(&forebay, "/notes", &large).await;
    let small = post(&forebay, "/search", &json!({ "ids": ids, "q": text(8 * KIB) })).await;

    assert_eq!((refused.status, refused.reason()), (400, Some("bad_request")));
    let line = forebay.access_log_of(1).await.remove(0);
    assert_eq!(line["sources"][0]["detail"], "the value of `body.q` is longer than 8 KiB");
    assert_eq!((in_a_body.status, small.status), (200, 200));
}

/// Undoing the first coding alone would give out the second as if it were the content.
#[tokio::test]
async fn codings_in_several_fields_are_one_list() {
    let app = Upstream::start(|_| {
        let fields = "content-type: text/plain\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n";
        Reply::with(200, fields, "no content, and no gzip either")
    })
    .await;
    let routes = r#"
        [route.raw]
        path = "/raw"
        [route.raw.aggregate.source]
        raw = { upstream = "app", path = "/", format = "raw" }
    "#;
    let forebay = forebay(app.address, routes).await;

    let response = get(&forebay, "/raw").await;

    assert_eq!((response.status, response.reason()), (502, Some("upstream_bad_body")));
}

/// Values of a hostile body, each where it can do most.
#[tokio::test]
async fn a_body_cannot_lead_a_call_elsewhere() {
    let app = Upstream::json("1").await;
    let routes = r#"
        [route.user]
        path = "/user"
        [route.user.aggregate.source]
        user = { upstream = "app", method = "POST", path = "/users/{body.id}/x", headers = { x-tenant = "{body.tenant}" }, body = { all = "{body}" } }
    "#;
    let forebay = forebay(app.address, routes).await;
    let refused = [
        r#"{"id":"1","tenant":"a\r\nx-admin: 1"}"#,
        r#"{"id":"1","tenant":"\u0000"}"#,
        r#"{"id":"a/b","tenant":"a"}"#,
        r#"{"id":"..","tenant":"a"}"#,
        r#"{"id":"","tenant":"a"}"#,
        r#"{"id":"\u0000","tenant":"a"}"#,
        r#"{"id":"\ud800","tenant":"a"}"#,
        r#"{"id":1,"id":"../2","tenant":"a"}"#,
        r#"{"id":{},"tenant":"a"}"#,
        r#"{"id":null,"tenant":"a"}"#,
        r#"{"id":"1","tenant":"a"} {}"#,
        "[1]",
        "",
    ];

    let send = async |body: &str| {
        let answer = http::request(forebay.address(), "POST", "/user", &[], body.as_bytes()).await;
        answer.expect("an answer")
    };
    for body in refused {
        let response = send(body).await;
        assert_eq!((response.status, response.reason()), (400, Some("bad_request")), "{body}");
    }
    let deep = format!(r#"{{"id":"1","tenant":"a","deep":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(send(&deep).await.status, 400);
    assert!(app.lines().is_empty(), "{:?}", app.lines());

    let taken = send(r#"{"\u0069d":"x@evil:80?a=b#c","tenant":true,"n":1e400}"#).await;
    assert_eq!(taken.status, 200);
    let request = app.seen().requests.concat();
    assert!(request.starts_with("POST /users/x%40evil%3A80%3Fa%3Db%23c/x HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\"n\":1e400"), "{request}");
}

/// Whoever is woken at night has the log and not the result.
#[tokio::test]
async fn what_a_job_lacks_is_in_the_log() {
    let app = Upstream::start(|_| Reply::with(500, "", "")).await;
    let routes = r#"
        [route.report]
        path = "/report"
        [route.report.aggregate]
        background = true
        [route.report.aggregate.source]
        sales = { upstream = "app", path = "/sales" }
        [route.results]
        path = "/results/{id}"
        results_of = "report"
    "#;
    let forebay = forebay(app.address, routes).await;

    let begun = get(&forebay, "/report").await;

    assert_eq!(begun.status, 202, "{begun:?}");
    let line = eventually("the end of the job is in the log", async || {
        forebay.process.stderr.all().into_iter().find(|line| line.contains("background job"))
    })
    .await;
    for word in ["WARN", "report", "upstream_5xx", "sales: upstream_5xx (status 500)"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert!(begun.header("x-request-id").is_none_or(|id| line.contains(id)), "{line}");
}

#[tokio::test]
async fn answers_that_cannot_be_merged_are_named_in_the_log_and_not_to_the_client() {
    let app = Upstream::json(r#"{"id":1}"#).await;
    let routes = r#"
        [route.flat]
        path = "/flat"
        [route.flat.aggregate]
        merge = "flat"
        [route.flat.aggregate.source]
        one = { upstream = "app", path = "/1" }
        two = { upstream = "app", path = "/2" }
    "#;
    let forebay = forebay(app.address, routes).await;

    let response = get(&forebay, "/flat").await;

    assert_eq!((response.status, response.reason()), (502, Some("merge_conflict")));
    assert_eq!(response.json().get("detail"), None);
    let line = forebay.access_log_of(1).await.remove(0);
    assert_eq!(line["detail"], "sources `one` and `two` both have a member \"id\"");
}

/// An answer is in memory until its client has taken it, so until then it counts.
#[tokio::test]
async fn who_does_not_read_an_answer_keeps_the_place_of_its_request() {
    let app = Upstream::start(|_| Reply::json(format!("\"{}\"", text(900 * KIB)))).await;
    let routes = r#"
        [route.list]
        path = "/list"
        max_in_flight = 1
        [route.list.aggregate.source]
        same = { upstream = "app", path = "/users/{item}", for_each = "{query.ids}" }
    "#;
    let forebay = forebay(app.address, routes).await;
    let large = format!("/list?ids={}", ["1"; 15].join(","));

    let mut client = TcpStream::connect(forebay.address()).await.expect("Forebay listens");
    client.write_all(format!("GET {large} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.expect("it is taken");
    client.read_u8().await.expect("the answer begins");
    let meanwhile = get(&forebay, "/list?ids=1").await;
    drop(client);
    at_rest(&forebay).await;
    let after = get(&forebay, "/list?ids=1").await;

    assert_eq!((meanwhile.status, meanwhile.reason()), (503, Some("queue_full")));
    assert_eq!(after.status, 200);
}
