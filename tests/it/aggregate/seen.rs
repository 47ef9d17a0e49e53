//! What is seen of an aggregate: metrics, its line in the access log, `Server-Timing`.

use serde_json::json;

use super::upstream::{Reply, Upstream};
use super::{at_rest, forebay, get, ms};

const FOUR: &str = r#"
    [route.four]
    path = "/four"
    deadline = "5s"
    [route.four.aggregate]
    server_timing = true
    [route.four.aggregate.source]
    good = { upstream = "app", path = "/good" }
    bad = { upstream = "app", path = "/bad", on_error = { value = 0 } }
    late = { upstream = "app", path = "/late", timeout = "300ms" }
    after = { upstream = "app", path = "/after/{late.id}", on_error = "omit" }
"#;

async fn app() -> Upstream {
    Upstream::start(|request| match request.split(' ').nth(1).unwrap_or_default() {
        "/good" => Reply::json("1").after(ms(100)),
        "/bad" => Reply::with(418, "", "secret"),
        _ => Reply::never(),
    })
    .await
}

#[tokio::test]
async fn a_partial_answer_is_seen_in_fields_log_and_metrics() {
    let app = app().await;
    let forebay = forebay(app.address, FOUR).await;

    let response = get(&forebay, "/four").await;

    assert_eq!((response.status, response.reason()), (200, Some("partial")));
    assert_eq!(response.header("x-forebay-completeness"), Some("2/4"), "a value in its place counts");
    let late = r#"{"error":"Failed to fetch late: The source took longer than its timeout"}"#;
    assert_eq!(response.text(), format!(r#"{{"good":1,"bad":0,"late":{late}}}"#));

    let line = &forebay.access_log_of(1).await[0];
    assert_eq!((&line["route"], &line["status"], &line["reason"]), (&json!("four"), &json!(200), &json!("partial")));
    assert_eq!((&line["completeness"], &line["path"]), (&json!("2/4"), &json!("/four")));
    let sources = line["sources"].as_array().expect("its sources");
    let names: Vec<_> = sources.iter().map(|source| source["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["good", "bad", "late", "after"]);
    let fields = |index: usize, names: [&str; 3]| names.map(|name| sources[index][name].clone());
    assert_eq!(fields(0, ["outcome", "status", "attempts"]), [json!("ok"), json!(200), json!(1)]);
    assert_eq!(fields(1, ["outcome", "status", "reason"]), [json!("fallback"), json!(418), json!("upstream_status")]);
    assert_eq!(fields(2, ["outcome", "status", "reason"]), [json!("failed"), json!(null), json!("source_timeout")]);
    assert_eq!(fields(3, ["outcome", "ms", "reason"]), [json!("failed"), json!(null), json!("dependency_failed")]);
    assert!(sources[0]["ms"].as_f64().unwrap() >= 100.0, "{line}");
    assert!((300.0..2000.0).contains(&sources[2]["ms"].as_f64().unwrap()), "{line}");
    assert!(line["total_ms"].as_f64() >= sources[2]["ms"].as_f64(), "{line}");
    assert!(!response.text().contains("secret"));

    let scrape = at_rest(&forebay).await;
    let four = [("route", "four")];
    let count = |name: &str, labels: &[(&str, &str)]| scrape.sum(name, &[&four, labels].concat());
    assert_eq!(count("forebay_requests_total", &[("reason", "partial")]), 1.0);
    assert_eq!(count("forebay_aggregate_answers_total", &[("completeness", "partial")]), 1.0);
    assert_eq!(count("forebay_aggregate_answers_total", &[]), 1.0);
    for (source, outcome) in [("good", "ok"), ("bad", "fallback"), ("late", "failed"), ("after", "failed")] {
        let labels = [("source", source), ("outcome", outcome)];
        assert_eq!(count("forebay_source_outcomes_total", &labels), 1.0, "{source}");
    }
    for (source, reason) in [("bad", "upstream_status"), ("late", "source_timeout"), ("after", "dependency_failed")] {
        let labels = [("source", source), ("reason", reason)];
        assert_eq!(count("forebay_source_failures_total", &labels), 1.0, "{source}");
    }
    assert_eq!(count("forebay_source_last_total", &[("source", "late")]), 1.0);
    assert_eq!(count("forebay_source_duration_seconds_count", &[]), 3.0, "one was never called");
    let (sum, elapsed) =
        (count("forebay_aggregate_source_seconds_total", &[]), count("forebay_aggregate_elapsed_seconds_total", &[]));
    assert!(elapsed >= 0.3 && sum >= elapsed + 0.09, "{sum} s of work in {elapsed} s");
}

#[tokio::test]
async fn server_timing_shows_each_source_where_the_route_allows_it() {
    let app = app().await;
    let quiet = FOUR.replace("four", "quiet").replace("server_timing = true", "");
    let forebay = forebay(app.address, &format!("{FOUR}{quiet}")).await;

    let shown = get(&forebay, "/four").await;
    let hidden = get(&forebay, "/quiet").await;

    let timing = shown.header("server-timing").expect("the field");
    let entries: Vec<&str> = timing.split(", ").collect();
    assert_eq!(entries.len(), 4, "{timing}");
    let [good, bad, late, after] = entries[..] else { unreachable!() };
    let milliseconds: f64 = good.strip_prefix("good;dur=").expect("name and duration").parse().expect("a number");
    assert!((100.0..2000.0).contains(&milliseconds), "{timing}");
    assert!(bad.starts_with("bad;dur=") && bad.ends_with(";desc=\"upstream_status\""), "{timing}");
    assert!(late.starts_with("late;dur=") && late.ends_with(";desc=\"source_timeout\""), "{timing}");
    assert!(after.starts_with("after") && after.ends_with("desc=\"dependency_failed\""), "{timing}");
    assert_eq!(hidden.header("server-timing"), None);
}

/// The status says why: all were late, all were refused, or something else.
#[tokio::test]
async fn without_a_usable_source_the_status_says_why() {
    let app = Upstream::start(|request| match request.split(' ').nth(1).unwrap_or_default() {
        "/late1" | "/late2" => Reply::never(),
        "/bad" => Reply::with(404, "", ""),
        _ => Reply::with(500, "", ""),
    })
    .await;
    let route = |name: &str, first: &str, second: &str| {
        format!(
            r#"
            [route.{name}]
            path = "/{name}"
            [route.{name}.aggregate.source]
            a = {{ upstream = "app", path = "/{first}", timeout = "200ms" }}
            b = {{ upstream = "app", path = "/{second}", timeout = "200ms" }}
            "#
        )
    };
    let routes = [
        route("timed-out", "late1", "late2"),
        route("same", "bad", "bad"),
        route("mixed", "bad", "broken"),
        route("late-and-bad", "late1", "bad"),
        route("needed", "broken", "late1").replacen("200ms\" }", "200ms\", required = true }", 1),
    ];
    let forebay = forebay(app.address, &routes.concat()).await;

    for (path, status, reason) in [
        ("/timed-out", 504, "sources_timed_out"),
        ("/same", 502, "upstream_status"),
        ("/mixed", 502, "sources_failed"),
        ("/late-and-bad", 502, "sources_failed"),
        ("/needed", 502, "upstream_5xx"),
    ] {
        let response = get(&forebay, path).await;
        assert_eq!((response.status, response.reason()), (status, Some(reason)), "{path}: {}", response.text());
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
    }
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_aggregate_answers_total", &[("completeness", "failed")]), 5.0);
}
