//! The services without Forebay: they work, and they have the weaknesses that it is to mend.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::fault_upstream::FaultUpstream;
use crate::support::http;
use crate::support::postgres::Postgres;
use crate::support::prometheus::Prometheus;
use crate::support::services::Service;

#[tokio::test]
async fn the_application_answers_slowly_and_fast_at_once() {
    let app = Service::app(&[]).await;

    let slow = http::timed_get(app.address, "/slow");
    let fast = http::timed_get(app.address, "/");
    let ((slow, slow_took), (fast, fast_took)) = tokio::join!(slow, fast);

    assert_eq!(fast.unwrap().json(), serde_json::json!({"message": "Hello World"}));
    assert_eq!(slow.unwrap().json(), serde_json::json!({"message": "slow"}));
    assert!(slow_took >= Duration::from_secs(2));
    assert!(fast_took < slow_took);
}

#[tokio::test]
async fn the_application_calls_another_service() {
    let called = Service::synchronous("0").await;
    let app = Service::app(&["--proxy-to", &format!("http://{}/", called.address)]).await;

    let response = http::get(app.address, "/proxy").await.unwrap();

    assert_eq!(response.json(), serde_json::json!({"proxy": {"message": "done"}}));
}

#[tokio::test]
async fn a_synchronous_server_makes_clients_wait_for_each_other() {
    let server = Service::synchronous("0.2").await;

    let started = Instant::now();
    let answers = join_all((0..4).map(|_| http::get(server.address, "/"))).await;

    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
    assert!(started.elapsed() >= Duration::from_millis(800), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_pool_smaller_than_the_load_shows_errors() {
    let database = Postgres::start().await;
    let app = Service::app(&["--database", &database.url(), "--pool", "5", "--acquire-timeout", "0.3"]).await;

    let one = http::get(app.address, "/users").await.unwrap();
    assert_eq!(one.json()[1], serde_json::json!({"id": 2, "name": "Grace"}));
    let answers = join_all((0..50).map(|_| http::get(app.address, "/users"))).await;

    let failed = answers.into_iter().filter(|answer| answer.as_ref().unwrap().status == 500).count();
    assert!(failed > 0, "50 requests of 0.2 s found their way through 5 connections within 0.3 s");
    let errors = http::get(app.address, "/pool-errors").await.unwrap().json();
    assert_eq!(errors["acquire_timeouts"], failed);
}

#[tokio::test]
async fn prometheus_scrapes_and_answers() {
    let body = "# TYPE answer gauge\nanswer{to=\"everything\"} 42\n";
    let target = FaultUpstream::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;

    let prometheus = Prometheus::scraping(target.address).await;

    assert_eq!(prometheus.number("sum by (to) (answer)").await, 42.0);
    let series = prometheus.query("answer").await;
    assert_eq!(series[0].labels["to"], "everything");
}
