//! Limits over the wire: what the client is told, that it is true, and that every permit comes back.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::server::Server;
use super::{about, at_rest, logged, ms};
use crate::support::eventually;
use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{self, Response};

async fn forebay(server: &Server, route: &str) -> Forebay {
    Forebay::start(&format!(
        "[upstream.api]\nendpoints = [\"{}\"]\n\
         [route.api]\npath = \"/*\"\nupstream = \"api\"\ndeadline = \"20s\"\n{route}\n",
        server.address
    ))
    .await
}

async fn get(forebay: &Forebay, path: &str) -> Response {
    http::get(forebay.address(), path).await.expect("an answer")
}

#[tokio::test]
async fn a_refused_request_is_admitted_after_exactly_the_time_it_was_told() {
    let server = Server::start().await;
    let forebay = forebay(&server, "rate_limit = { name = \"two\", rate = \"1/3s\", burst = 2 }").await;

    let first = get(&forebay, "/").await;
    assert_eq!((first.status, first.header("ratelimit-policy")), (200, Some("\"two\";q=2;w=6")), "{first:?}");
    assert!(first.header("ratelimit").unwrap().starts_with("\"two\";r=1;t="), "{first:?}");
    assert_eq!(get(&forebay, "/").await.status, 200);

    let refused_at = Instant::now();
    let refused = get(&forebay, "/").await;
    assert_eq!((refused.status, refused.reason()), (429, Some("rate_limited")));
    assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"two\";r=0;t="), "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(wait, 3, "the time of one token, in whole seconds");

    // Time is what is tested here, so time is what is waited for: a second before, and at, the time that was told.
    tokio::time::sleep_until(refused_at + Duration::from_secs(wait - 1)).await;
    let early = get(&forebay, "/").await;
    if refused_at.elapsed() < Duration::from_millis(2900) {
        assert_eq!((early.status, early.header("retry-after")), (429, Some("1")));
        tokio::time::sleep_until(refused_at + Duration::from_secs(wait)).await;
        assert_eq!(get(&forebay, "/").await.status, 200, "the promise is kept");
    }
    let scrape = at_rest(&forebay).await;
    let decisions = |decision| scrape.sum("forebay_rate_limit_decisions_total", &[("decision", decision)]);
    assert_eq!((decisions("admitted"), decisions("rejected")), (3.0, 2.0));
}

#[tokio::test]
async fn a_delaying_limit_lets_requests_wait_their_turn_in_a_bounded_queue() {
    let server = Server::start().await;
    let limit = "rate_limit = { rate = \"10/s\", burst = 1, mode = \"delay\", max_delayed = 5 }";
    let forebay = forebay(&server, limit).await;

    let started = Instant::now();
    let answers = join_all((0..10).map(|_| http::timed_get(forebay.address(), "/"))).await;

    let (served, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().map(|(r, took)| (r.unwrap(), took)).partition(|(r, _)| r.status == 200);
    assert!((6..=8).contains(&served.len()), "one at once, five that wait, and what the time brought: {served:?}");
    assert!(refused.iter().all(|(r, _)| r.status == 429 && r.reason() == Some("delay_queue_full")), "{refused:?}");
    assert!(refused.iter().all(|(r, _)| r.header("retry-after").is_some()));
    let least = ms(100) * (served.len() as u32 - 1);
    assert!(about(least).contains(&started.elapsed()), "{:?} for {}", started.elapsed(), served.len());
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_rate_limit_waiting", &[]), 0.0);
    assert_eq!(scrape.sum("forebay_rate_limit_decisions_total", &[("decision", "delayed")]), served.len() as f64 - 1.0);
}

#[tokio::test]
async fn a_shadow_limit_counts_and_lets_everything_through() {
    let server = Server::start().await;
    let forebay = forebay(&server, "rate_limit = { rate = \"1/min\", burst = 1, mode = \"shadow\" }").await;

    for _ in 0..5 {
        let response = get(&forebay, "/").await;
        assert_eq!((response.status, response.header("retry-after")), (200, None));
    }

    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_rate_limit_decisions_total", &[("decision", "shadow_rejected")]), 4.0);
}

#[tokio::test]
async fn clients_are_told_apart_by_their_key() {
    let server = Server::start().await;
    let forebay = forebay(&server, "rate_limit = { rate = \"1/min\", burst = 1, key = \"header:x-tenant\" }").await;
    let ask = async |tenant: &str| {
        http::request(forebay.address(), "GET", "/", &[("x-tenant", tenant)], b"").await.unwrap().status
    };

    assert_eq!((ask("a").await, ask("b").await, ask("a").await), (200, 200, 429));
}

#[tokio::test]
async fn a_full_queue_and_a_long_wait_are_refused_with_the_time_to_come_back() {
    let server = Server::start().await;
    let forebay = forebay(&server, "max_in_flight = 1\nqueue = { capacity = 1, timeout = \"500ms\" }").await;
    let holding = http::hold(forebay.address(), "/stall").await;
    eventually("the permit is taken", async || (server.running() == 1).then_some(())).await;

    let waiting = http::timed_get(forebay.address(), "/waiting");
    let full = async {
        eventually("one waits", async || (forebay.scrape().await.sum("forebay_queue_depth", &[]) == 1.0).then_some(()))
            .await;
        http::timed_get(forebay.address(), "/full").await
    };
    let ((waited, waited_for), (full, _)) = tokio::join!(waiting, full);

    for (response, reason) in [(waited.unwrap(), "queue_timeout"), (full.unwrap(), "queue_full")] {
        assert_eq!((response.status, response.reason()), (503, Some(reason)));
        let wait: u64 = response.header("retry-after").expect("when to come back").parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert!(about(ms(500)).contains(&waited_for), "{waited_for:?}");
    assert!(logged(&forebay, "/waiting").await["queue_ms"].as_f64().unwrap() >= 499.0);
    drop(holding);
    let scrape = at_rest(&forebay).await;
    let results = |result| scrape.sum("forebay_queue_results_total", &[("scope", "route"), ("result", result)]);
    assert_eq!((results("admitted"), results("full"), results("timeout"), results("abandoned")), (1.0, 1.0, 1.0, 0.0));
}

#[tokio::test]
async fn one_client_has_so_many_places_and_no_more() {
    let server = Server::start().await;
    let limit = "client_in_flight = { max = 2, key = \"header:x-client\" }";
    let forebay = forebay(&server, limit).await;
    let mut holding = Vec::new();
    for n in 1..=2 {
        let mut connection = http::Connection::open(forebay.address()).await.unwrap();
        connection.send("GET /stall HTTP/1.1\r\nhost: x\r\nx-client: a\r\n\r\n").await.unwrap();
        eventually("it is in flight", async || (server.running() == n).then_some(())).await;
        holding.push(connection);
    }
    let ask =
        async |client: &str| http::request(forebay.address(), "GET", "/", &[("x-client", client)], b"").await.unwrap();

    let refused = ask("a").await;
    assert_eq!((refused.status, refused.reason()), (429, Some("client_limit")));
    assert_eq!(ask("b").await.status, 200, "another client has places of its own");

    holding.pop();
    eventually("the place is free again", async || (ask("a").await.status == 200).then_some(())).await;
    drop(holding);
    eventually("no key is kept", async || {
        (forebay.scrape().await.sum("forebay_client_limit_keys", &[]) == 0.0).then_some(())
    })
    .await;
    at_rest(&forebay).await;
}

/// Permits come back from every end: then as many as before are admitted at once, and not one more.
#[tokio::test]
async fn permits_come_back_after_every_kind_of_end() {
    let hostile =
        [scripts::reset_before_head(), scripts::close_mid_body(), scripts::garbage(), scripts::reset_mid_body()];
    let hostile = FaultUpstream::start(hostile.into_iter().cycle().take(40).chain([scripts::ok()])).await;
    let server = Server::start().await;
    let forebay = Forebay::start(&format!(
        r#"
        [limits]
        max_in_flight = 8
        [upstream.hostile]
        endpoints = ["{}"]
        max_in_flight = 4
        queue = {{ capacity = 100, timeout = "10s" }}
        [upstream.good]
        endpoints = ["{}"]
        max_in_flight = 4
        [route.hostile]
        path = "/hostile"
        upstream = "hostile"
        max_in_flight = 4
        queue = {{ capacity = 100, timeout = "10s" }}
        [route.good]
        path = "/*"
        upstream = "good"
        max_in_flight = 4
        client_in_flight = {{ max = 4, key = "client_ip" }}
        "#,
        hostile.address, server.address
    ))
    .await;

    join_all((0..40).map(|_| http::get(forebay.address(), "/hostile"))).await;
    at_rest(&forebay).await;
    for _ in 0..10 {
        drop(http::hold(forebay.address(), "/stall").await);
    }
    eventually("those who left are not in flight", async || (server.running() == 0).then_some(())).await;
    at_rest(&forebay).await;

    let mut holding = Vec::new();
    for n in 1..=4 {
        holding.push(http::hold(forebay.address(), "/stall").await);
        eventually("it is in flight", async || (server.running() == n).then_some(())).await;
    }
    assert_eq!(get(&forebay, "/one-more").await.reason(), Some("client_limit"));
    drop(holding);
    at_rest(&forebay).await;
    assert_eq!(get(&forebay, "/again").await.status, 200);
}

/// Little's law as an identity: over a drained run, the time integral of the requests in flight is the sum of their
/// durations, for each route and whatever became of the requests.
#[tokio::test]
async fn the_integral_of_in_flight_is_the_sum_of_durations() {
    let (server, hostile) = (Server::start().await, FaultUpstream::start([scripts::reset_mid_body()]).await);
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.good]
        endpoints = ["{}"]
        max_in_flight = 5
        queue = {{ capacity = 10, timeout = "300ms" }}
        [upstream.hostile]
        endpoints = ["{}"]
        [route.good]
        path = "/*"
        upstream = "good"
        deadline = "1s"
        rate_limit = {{ rate = "100/s", burst = 20 }}
        [route.hostile]
        path = "/hostile"
        upstream = "hostile"
        [route.static]
        path = "/static"
        respond = {{ status = 200, body = "hello" }}
        "#,
        server.address, hostile.address
    ))
    .await;

    let paths = ["/slow", "/hostile", "/static", "/drip", "/ok", "/stall"];
    join_all((0..60).map(|n| http::get(forebay.address(), paths[n % paths.len()]))).await;
    drop(http::hold(forebay.address(), "/stall").await);

    let scrape = at_rest(&forebay).await;
    for route in ["good", "hostile", "static"] {
        let labels = [("route", route)];
        let integral = scrape.sum("forebay_requests_in_flight_seconds_total", &labels);
        let durations = scrape.sum("forebay_request_duration_seconds_sum", &labels);
        assert!(durations > 0.0, "{route}");
        assert!((integral - durations).abs() < 1e-6 * durations.max(1.0), "{route}: {integral} and {durations}");
        let counted = scrape.sum("forebay_requests_total", &labels);
        assert_eq!(counted, scrape.sum("forebay_request_duration_seconds_count", &labels), "{route}");
    }
    for name in ["good", "hostile"] {
        let labels = [("upstream", name)];
        let integral = scrape.sum("forebay_upstream_in_flight_seconds_total", &labels);
        let durations = scrape.sum("forebay_upstream_attempt_duration_seconds_sum", &labels);
        assert!((integral - durations).abs() < 1e-6 * durations.max(1.0), "{name}: {integral} and {durations}");
    }
}
