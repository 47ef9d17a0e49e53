//! What is bounded, and what is shared: lists, identical requests of many clients, the upstream's limit.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::upstream::{Gate, Reply, Upstream};
use super::{at_rest, forebay, get, ms, post};
use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http::{self, Connection};

/// The number at the end of a request's path, as JSON.
fn echo(request: &str) -> Reply {
    let path = request.split(' ').nth(1).unwrap_or_default();
    Reply::json(format!(r#"{{"id":{}}}"#, path.rsplit('/').next().unwrap_or_default()))
}

const LIST: &str = r#"
    [route.list]
    path = "/list"
    deadline = "30s"
    [route.list.aggregate]
    respond = { users = "{users}" }
    [route.list.aggregate.source]
    users = { upstream = "app", path = "/users/{item}", for_each = "{body.ids}", concurrency = 16, max_items = 500 }
"#;

#[tokio::test]
async fn a_list_of_500_at_a_concurrency_of_16_never_has_17_in_flight() {
    let app = Upstream::start(|request| echo(request).after(ms(10))).await;
    let forebay = forebay(app.address, LIST).await;

    // Descending, so that the order of the answer is that of the list and not of anything else.
    let ids: Vec<u32> = (0..500).rev().collect();
    let response = post(&forebay, "/list", &json!({ "ids": ids })).await;

    let expected: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
    assert_eq!((response.status, response.json()), (200, json!({ "users": expected })));
    let seen = app.seen();
    assert_eq!((seen.requests.len(), seen.most_working), (500, 16));
    let scrape = at_rest(&forebay).await;
    let items = [("route", "list"), ("source", "users"), ("result", "ok")];
    assert_eq!(scrape.sum("forebay_source_items_total", &items), 500.0);
}

#[tokio::test]
async fn one_call_is_made_for_each_distinct_value_and_what_is_beyond_the_limit_is_cut_and_said() {
    let app = Upstream::start(echo).await;
    let cut = LIST.replace("max_items = 500", "max_items = 3");
    let refuse = LIST.replace("list", "refuse").replace("max_items = 500", "max_items = 3, too_many = \"refuse\"");
    let forebay = forebay(app.address, &(cut + &refuse)).await;
    let ids = json!({ "ids": [7, 5, 7, 6, 5, 8, 9] });

    let cut = post(&forebay, "/list", &ids).await;
    let mut lines = app.lines();
    let refused = post(&forebay, "/refuse", &ids).await;

    assert_eq!(cut.status, 200);
    assert!(cut.header("x-forebay-truncated").is_some_and(|value| value.starts_with("users;")), "{cut:?}");
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), app.lines().len(), "no value is asked for twice: {lines:?}");
    assert!(lines.len() <= 3, "{lines:?}");
    assert_eq!((refused.status, refused.reason()), (422, Some("too_many_items")));
    assert_eq!(app.lines().len(), lines.len(), "refused before any call");
}

#[tokio::test]
async fn a_failed_item_stands_in_its_place() {
    let app = Upstream::start(|request| match request.contains("/users/2 ") {
        true => Reply::with(503, "", ""),
        false => echo(request),
    })
    .await;
    let forebay = forebay(app.address, LIST).await;

    let response = post(&forebay, "/list", &json!({ "ids": [1, 2, 3] })).await;

    let error = json!({ "error": "Failed to fetch users: The upstream answered with a server error" });
    assert_eq!(response.json(), json!({ "users": [{ "id": 1 }, error, { "id": 3 }] }));
    assert_eq!((response.status, response.reason()), (200, Some("partial")));
}

const SHARED: &str = r#"
    [listener]
    address = "127.0.0.1:0"
    max_connections = 3000

    [route.shared]
    path = "/shared"
    deadline = "30s"
    [route.shared.aggregate]
    coalesce = ["path", "query"]
    [route.shared.aggregate.source]
    a = { upstream = "app", path = "/a" }
"#;

/// So many clients have sent their requests and wait.
async fn waiting(forebay: &Forebay, headers: &str, count: usize) -> Vec<Connection> {
    let request = format!("GET /shared HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let open = async || {
        let mut client = Connection::open(forebay.address()).await.expect("a connection");
        client.send(&request).await.expect("the request is sent");
        client
    };
    join_all((0..count).map(|_| open())).await
}

async fn eventually_in_flight(forebay: &Forebay, count: usize) {
    eventually(&format!("{count} requests are in flight"), async || {
        let in_flight = forebay.scrape().await.sum("forebay_requests_in_flight", &[("route", "shared")]);
        (in_flight == count as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_clients_with_the_same_request_make_one_call() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json(r#"{"n":1}"#).when(&opened)).await;
    let forebay = forebay(app.address, SHARED).await;

    let first = waiting(&forebay, "", 1).await;
    app.working_on(1).await;
    let mut clients = waiting(&forebay, "", 999).await;
    eventually_in_flight(&forebay, 1000).await;
    // Whoever came first may leave: the work is nobody's.
    drop(first);
    eventually_in_flight(&forebay, 999).await;
    gate.open();
    let answers = join_all(clients.iter_mut().map(Connection::response)).await;

    for answer in answers {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"a":{"n":1}}"#));
    }
    assert_eq!(app.seen().requests.len(), 1);
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_aggregate_coalesced_total", &[("route", "shared")]), 999.0);
    assert_eq!(
        scrape.sum("forebay_aggregate_answers_total", &[("route", "shared"), ("completeness", "complete")]),
        1.0
    );
    // Nothing is kept: the next request is a new one.
    assert_eq!(get(&forebay, "/shared").await.status, 200);
    assert_eq!(app.seen().requests.len(), 2);
}

#[tokio::test]
async fn requests_of_different_people_are_never_shared() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("{}").when(&opened)).await;
    let forebay = forebay(app.address, SHARED).await;

    let kinds = ["", "authorization: a\r\n", "authorization: b\r\n", "cookie: a\r\n", "cookie: b\r\n"];
    let mut clients = Vec::new();
    for headers in kinds {
        clients.extend(waiting(&forebay, headers, 4).await);
    }
    eventually_in_flight(&forebay, 4 * kinds.len()).await;
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().await.unwrap().status, 200);
    }

    assert_eq!(app.seen().requests.len(), kinds.len());
    at_rest(&forebay).await;
}

#[tokio::test]
async fn identical_calls_of_one_request_are_made_once() {
    let app = Upstream::json(r#"{"n":1}"#).await;
    let forebay = forebay(
        app.address,
        r#"
        [route.twice]
        path = "/twice"
        [route.twice.aggregate.source]
        a = { upstream = "app", path = "/same" }
        b = { upstream = "app", path = "/same" }
        c = { upstream = "app", path = "/other" }
        "#,
    )
    .await;

    let response = get(&forebay, "/twice").await;

    assert_eq!(response.text(), r#"{"a":{"n":1},"b":{"n":1},"c":{"n":1}}"#);
    assert_eq!(app.lines().len(), 2);
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_source_coalesced_total", &[("route", "twice")]), 1.0);
}

#[tokio::test]
async fn sources_share_the_limit_of_their_upstream_with_proxied_requests() {
    let app = Upstream::start(|request| match request.starts_with("GET /proxied") {
        true => Reply::json(r#""proxied""#).after(ms(30)),
        false => Reply::json(r#""source""#).after(ms(30)),
    })
    .await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.app]
        endpoints = ["{}"]
        max_in_flight = 3
        queue = {{ capacity = 100, timeout = "20s" }}

        [route.proxied]
        path = "/proxied"
        upstream = "app"
        deadline = "25s"

        [route.four]
        path = "/four"
        deadline = "25s"
        [route.four.aggregate]
        server_timing = true
        [route.four.aggregate.source]
        a = {{ upstream = "app", path = "/a" }}
        b = {{ upstream = "app", path = "/b" }}
        c = {{ upstream = "app", path = "/c" }}
        d = {{ upstream = "app", path = "/d" }}
        "#,
        app.address
    ))
    .await;

    let (proxied, four) = tokio::join!(
        join_all((0..10).map(|_| http::get(forebay.address(), "/proxied"))),
        join_all((0..10).map(|_| http::get(forebay.address(), "/four"))),
    );

    for response in proxied {
        assert_eq!(response.unwrap().text(), r#""proxied""#);
    }
    for response in four {
        assert_eq!(response.unwrap().text(), r#"{"a":"source","b":"source","c":"source","d":"source"}"#);
    }
    let seen = app.seen();
    assert_eq!((seen.requests.len(), seen.most_working), (50, 3));
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_upstream_in_flight_peak", &[("upstream", "app")]), 3.0);
    let queued = forebay.access_log_of(20).await.iter().filter(|line| line["path"] == "/four").any(|line| {
        line["sources"].as_array().unwrap().iter().any(|source| source["queue_ms"].as_f64().is_some_and(|ms| ms > 0.0))
    });
    assert!(queued, "the log says which source waited");
}

#[tokio::test]
async fn a_full_upstream_fails_the_sources_that_find_no_room_and_says_when_to_come_back() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("1").when(&opened)).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.app]
        endpoints = ["{}"]
        max_in_flight = 2

        [route.three]
        path = "/three"
        [route.three.aggregate.source]
        a = {{ upstream = "app", path = "/a" }}
        b = {{ upstream = "app", path = "/b" }}
        c = {{ upstream = "app", path = "/c" }}
        "#,
        app.address
    ))
    .await;

    let mut first = http::hold(forebay.address(), "/three").await;
    app.working_on(2).await;
    let refused = get(&forebay, "/three").await;
    gate.open();
    let first = first.response().await.unwrap();

    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!((first.status, first.header("x-forebay-completeness")), (200, Some("2/3")));
    at_rest(&forebay).await;
}
