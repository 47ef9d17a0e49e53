//! The origin's rows, through the real binary: the weaknesses that the services show alone, and what Forebay makes of
//! them. Times are compared with each other or bounded generously: the machine may be busy.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{self, Response, quantile};
use crate::support::postgres::Postgres;
use crate::support::services::Service;
use crate::support::{PATIENCE, SLACK, eventually};

/// `count` requests at once, each on a connection of its own, and how long each took.
async fn at_once(address: SocketAddr, target: &str, count: usize) -> Vec<(Response, Duration)> {
    let timed = join_all((0..count).map(|_| http::timed_get(address, target))).await;
    timed.into_iter().map(|(response, took)| (response.expect("an answer"), took)).collect()
}

fn with_status(answers: &[(Response, Duration)], status: u16) -> Vec<&(Response, Duration)> {
    answers.iter().filter(|(response, _)| response.status == status).collect()
}

/// Row 1: a synchronous server of 1 s per request and ten clients; alone, the last one would wait 10 s.
#[tokio::test]
async fn a_synchronous_server_is_queued_for_within_bounds_and_the_rest_is_shed_at_once() {
    let server = Service::synchronous("1").await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.sync]
        endpoints = ["{}"]
        max_in_flight = 1
        queue = {{ capacity = 3, timeout = "20s" }}

        [route.sync]
        path = "/sync"
        upstream = "sync"
        deadline = "25s"
        "#,
        server.address
    ))
    .await;

    let clients = at_once(forebay.address(), "/sync", 10);
    let queueing = eventually_queued(&forebay, 3);
    let (answers, ()) = tokio::join!(clients, queueing);

    let (served, shed) = (with_status(&answers, 200), with_status(&answers, 503));
    assert_eq!((served.len(), shed.len()), (4, 6), "one in service and three in the queue");
    assert!(shed.iter().all(|(response, _)| response.header("retry-after").is_some()));
    assert!(shed.iter().all(|(response, _)| response.reason() == Some("queue_full")), "{shed:?}");
    // The last of four waits for three others, and the shed ones for none.
    let slowest_shed = shed.iter().map(|(_, took)| *took).max().unwrap();
    let slowest_served = served.iter().map(|(_, took)| *took).max().unwrap();
    assert!(slowest_served >= Duration::from_secs(4), "{slowest_served:?}");
    assert!(slowest_shed < slowest_served / 2, "{slowest_shed:?}");

    let scrape = forebay.idle().await;
    let queue = [("scope", "upstream"), ("name", "sync")];
    assert_eq!(scrape.get("forebay_queue_depth", &queue), Some(0.0));
    assert_eq!(scrape.sum("forebay_requests_total", &[("route", "sync"), ("reason", "queue_full")]), 6.0);
    // Three waited, for 1, 2 and 3 s.
    assert!(scrape.sum("forebay_queue_wait_seconds_sum", &queue) >= 5.9);
}

async fn eventually_queued(forebay: &Forebay, depth: usize) {
    eventually("the metrics show the queue", async || {
        let shown = forebay.scrape().await.sum("forebay_queue_depth", &[("name", "sync")]);
        (shown == depth as f64).then_some(())
    })
    .await;
}

/// Row 1, the other bound: a deadline below the service's time ends the wait of those it would reach too late.
#[tokio::test]
async fn the_deadline_bounds_each_clients_wait_for_a_synchronous_server() {
    let server = Service::synchronous("1").await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.sync]
        endpoints = ["{}"]
        timeouts = {{ first_byte = "1400ms" }}
        max_in_flight = 1
        queue = {{ capacity = 10, timeout = "1400ms" }}

        [route.sync]
        path = "/sync"
        upstream = "sync"
        deadline = "1500ms"
        "#,
        server.address
    ))
    .await;

    let answers = at_once(forebay.address(), "/sync", 5).await;

    assert!(!with_status(&answers, 200).is_empty());
    assert!(answers.iter().any(|(response, _)| response.status != 200), "5 s of work do not fit in 1.5 s");
    assert!(answers.iter().all(|(_, took)| *took < PATIENCE / 4), "{answers:?}");
    let late: Vec<_> = with_status(&answers, 504);
    assert!(late.iter().all(|(_, took)| *took >= Duration::from_millis(1390)), "{late:?}");
    forebay.idle().await;
}

/// Row 3: the table of 10, 100 and 1000 concurrent requests of 1 s each.
#[tokio::test]
async fn concurrent_requests_of_one_second_take_about_a_second_together() {
    let app = Service::app(&[]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        max_connections = 4000

        [upstream.app]
        endpoints = ["{}"]

        [route.one_second]
        path = "/one-second"
        upstream = "app"
        deadline = "30s"
        "#,
        app.address
    ))
    .await;

    println!("requests of 1 s   one after another   at once through Forebay");
    for (count, bound) in [(10, 8), (100, 25), (1000, 29)] {
        let started = Instant::now();
        let answers = at_once(forebay.address(), "/one-second", count).await;
        let took = started.elapsed();

        println!("{count:15}   {count:15} s   {:20.2} s", took.as_secs_f64());
        assert_eq!(with_status(&answers, 200).len(), count);
        assert!(took >= Duration::from_secs(1));
        // 1000 need a few seconds where the Python application, its clients and other builds share two cores.
        assert!(took < Duration::from_secs(bound), "{count}: {took:?}");
    }
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("route", "one_second"), ("reason", "ok")]), 1110.0);
}

/// Row 4: a hanging route does not slow the others down.
#[tokio::test]
async fn fast_requests_stay_fast_while_a_thousand_slow_ones_hang() {
    let app = Service::app(&[]).await;
    let hanging = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        max_connections = 4000

        [upstream.app]
        endpoints = ["{}"]

        [upstream.hanging]
        endpoints = ["{}"]
        timeouts = {{ connect = "30s", first_byte = "9m" }} # a thousand connects at once on a busy machine

        [route.fast]
        path = "/"
        upstream = "app"

        [route.slow]
        path = "/slow"
        upstream = "hanging"
        deadline = "10m"
        "#,
        app.address, hanging.address
    ))
    .await;

    fast_p99(forebay.address()).await; // warm: the application's first requests are its slowest
    let alone = fast_p99(forebay.address()).await;
    let slow = join_all((0..1000).map(|_| http::hold(forebay.address(), "/slow"))).await;
    let in_flight = [("route", "slow")];
    eventually("a thousand requests hang", async || {
        (forebay.scrape().await.sum("forebay_requests_in_flight", &in_flight) == 1000.0).then_some(())
    })
    .await;
    let beside = fast_p99(forebay.address()).await;

    println!("p99 of the fast route: alone {alone:?}, beside 1000 hanging requests {beside:?}");
    // "Does not move" on a quiet machine; a dozen builds may make a millisecond many, but a request that had to
    // wait for a slow one would take minutes.
    assert!(beside < alone * 10 + SLACK, "alone {alone:?}, beside {beside:?}");
    drop(slow);
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_requests_total", &[("route", "slow"), ("reason", "client_gone")]), 1000.0);
}

/// The p99 of 300 requests, one after the other.
async fn fast_p99(address: SocketAddr) -> Duration {
    let mut times = Vec::new();
    for _ in 0..300 {
        let (response, took) = http::timed_get(address, "/").await;
        assert_eq!(response.expect("an answer").status, 200);
        times.push(took);
    }
    quantile(&times, 0.99)
}

/// Row 6: the pool of five connections fails under this load when it meets it alone (`services` shows that).
#[tokio::test]
async fn a_database_pool_smaller_than_the_load_sees_no_more_than_it_can_take() {
    let database = Postgres::start().await;
    let app = Service::app(&["--database", &database.url(), "--pool", "5", "--acquire-timeout", "0.3"]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.app]
        endpoints = ["{}"]
        max_in_flight = 5
        queue = {{ capacity = 100, timeout = "25s" }}

        [route.users]
        path = "/users"
        upstream = "app"
        deadline = "30s"
        "#,
        app.address
    ))
    .await;

    let answers = at_once(forebay.address(), "/users", 50).await;

    let expected = serde_json::json!([
        {"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}, {"id": 3, "name": "Edsger"}
    ]);
    assert!(answers.iter().all(|(response, _)| response.status == 200 && response.json() == expected), "{answers:?}");
    let errors = http::get(app.address, "/pool-errors").await.unwrap().json();
    assert_eq!(errors["acquire_timeouts"], 0);
    // 50 requests of 0.2 s, five at a time: 2 s; the last may wait as long, and not without end.
    let slowest = answers.iter().map(|(_, took)| *took).max().unwrap();
    assert!((Duration::from_millis(1900)..Duration::from_secs(25)).contains(&slowest), "{slowest:?}");
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_queue_wait_seconds_count", &[("scope", "upstream"), ("name", "app")]), 50.0);
    assert!(scrape.sum("forebay_upstream_in_flight_peak", &[("upstream", "app")]) <= 5.0);
}

/// Row 14: one line per request, with reason and timings.
#[tokio::test]
async fn every_request_has_its_line_in_the_access_log() {
    let app = Service::app(&[]).await;
    let forebay = Forebay::start(&format!(
        r#"
        [upstream.app]
        endpoints = ["{}"]

        [route.root]
        path = "/"
        upstream = "app"

        [route.late]
        path = "/slow"
        upstream = "app"
        deadline = "300ms"
        "#,
        app.address
    ))
    .await;

    for target in ["/", "/slow", "/nowhere"] {
        http::get(forebay.address(), target).await.expect("an answer");
    }
    let log = forebay.access_log_of(3).await;

    let line = |path: &str| log.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("{path}: {log:?}"));
    let (root, late, nowhere) = (line("/"), line("/slow"), line("/nowhere"));
    assert_eq!((&root["route"], &root["reason"], &root["status"]), (&"root".into(), &"ok".into(), &200.into()));
    assert_eq!((&root["upstream"], &root["method"], &root["path"]), (&"app".into(), &"GET".into(), &"/".into()));
    assert!(root["upstream_ms"].as_f64().unwrap() <= root["total_ms"].as_f64().unwrap(), "{root}");
    assert_eq!((&late["reason"], &late["status"]), (&"deadline_in_first_byte".into(), &504.into()));
    assert!((300.0..2000.0).contains(&late["total_ms"].as_f64().unwrap()), "{late}");
    assert_eq!((&nowhere["reason"], &nowhere["status"]), (&"no_route".into(), &404.into()));
    assert!(log.iter().all(|line| line["request_id"].as_str().is_some_and(|id| !id.is_empty())), "{log:?}");
    assert_eq!(forebay.access_log().len(), 3);
}
