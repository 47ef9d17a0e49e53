//! The origin's rows on many slow calls at once, through the real binary and the real application.
//!
//! What must take long enough is bounded exactly. What must be fast has to be faster than the same work done serially, which
//! holds on a busy machine, too; the numbers are printed.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http::{self, Response, timed_get};
use crate::support::services::Service;

const USERS: &str = r#"{"users":[{"id":1,"name":"User 1","manager":2},{"id":2,"name":"User 2","manager":3},{"id":3,"name":"User 3","manager":4}]}"#;

/// Three users at once, as the tutorial's `gather` does it.
const THREE_USERS: &str = r#"
    [route.users]
    path = "/users-async"
    deadline = "10s"
    [route.users.aggregate]
    respond = { users = ["{user1}", "{user2}", "{user3}"] }
    [route.users.aggregate.source]
    user1 = { upstream = "app", path = "/users/1", query = { seconds = "1" } }
    user2 = { upstream = "app", path = "/users/2", query = { seconds = "1" } }
    user3 = { upstream = "app", path = "/users/3", query = { seconds = "1" } }
"#;

async fn in_front_of(app: &Service, routes: &str) -> Forebay {
    let upstream = format!("[upstream.app]\nendpoints = [\"{}\"]\n", app.address);
    Forebay::start(&(upstream + routes)).await
}

async fn timed(forebay: &Forebay, target: &str) -> (Response, Duration) {
    let (response, took) = timed_get(forebay.address(), target).await;
    (response.expect("an answer"), took)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Not before `least`, and sooner than the same calls one after the other.
#[track_caller]
fn assert_time(took: Duration, least: f64, serial: f64) {
    println!("{took:?}: not less than {least} s, and one after the other {serial} s");
    assert!((seconds(least)..seconds(serial)).contains(&took), "{took:?}, not from {least} to {serial} s");
}

/// What the application has begun, finished and cancelled, in this order.
async fn journal(app: SocketAddr) -> Vec<(String, String)> {
    let journal = http::get(app, "/journal").await.expect("an answer").json();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    journal.as_array().expect("a list").iter().map(|entry| (text(&entry["event"]), text(&entry["path"]))).collect()
}

async fn eventually_noted(app: SocketAddr, event: &str, count: usize) {
    eventually(&format!("the application has {event} {count} requests"), async || {
        let noted = journal(app).await.iter().filter(|(noted, _)| noted == event).count();
        (noted == count).then_some(())
    })
    .await;
}

/// Row 2: tasks of 2, 1 and 3 s together take 3 s; tasks of 1 and 0.5 s take 1 s.
#[tokio::test]
async fn sources_take_as_long_as_the_slowest_of_them() {
    let app = Service::app(&[]).await;
    let forebay = in_front_of(
        &app,
        r#"
        [route.three]
        path = "/three"
        deadline = "20s"
        [route.three.aggregate.source]
        a = { upstream = "app", path = "/tasks/A", query = { seconds = "2" } }
        b = { upstream = "app", path = "/tasks/B", query = { seconds = "1" } }
        c = { upstream = "app", path = "/tasks/C", query = { seconds = "3" } }

        [route.two]
        path = "/two"
        deadline = "20s"
        [route.two.aggregate.source]
        a = { upstream = "app", path = "/tasks/A", query = { seconds = "1" } }
        b = { upstream = "app", path = "/tasks/B", query = { seconds = "0.5" } }
        "#,
    )
    .await;

    let (three, three_took) = timed(&forebay, "/three").await;

    assert_eq!((three.status, three.text().as_str()), (200, r#"{"a":"Task A","b":"Task B","c":"Task C"}"#));
    assert_eq!(three.header("x-forebay-completeness"), Some("3/3"));
    assert_time(three_took, 3.0, 6.0);

    // Half a second is not much on a busy machine: the best of some counts.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let (two, took) = timed(&forebay, "/two").await;
        assert_eq!((two.status, two.text().as_str()), (200, r#"{"a":"Task A","b":"Task B"}"#));
        best = best.min(took);
    }
    assert_time(best, 1.0, 1.5);
    let overheads =
        forebay.access_log_of(6).await.into_iter().map(|line| line["total_ms"].as_f64().unwrap() - slowest(&line));
    let least = overheads.reduce(f64::min).unwrap();
    println!("{least:.3} ms longer than the slowest source");
    assert!((0.0..1000.0).contains(&least), "{least}");
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_source_last_total", &[("route", "three"), ("source", "c")]), 1.0);
}

fn slowest(line: &Value) -> f64 {
    line["sources"].as_array().expect("its sources").iter().map(|s| s["ms"].as_f64().unwrap()).fold(0.0, f64::max)
}

/// Row 5: one upstream's JSON, wrapped.
#[tokio::test]
async fn one_answer_is_wrapped_by_a_response_template() {
    let app = Service::app(&[]).await;
    let forebay = in_front_of(
        &app,
        r#"
        [route.proxy]
        path = "/proxy"
        [route.proxy.aggregate]
        respond = { proxy = "{data}" }
        [route.proxy.aggregate.source]
        data = { upstream = "app", path = "/" }
        "#,
    )
    .await;

    let response = http::get(forebay.address(), "/proxy").await.unwrap();

    assert_eq!((response.status, response.text().as_str()), (200, r#"{"proxy":{"message":"Hello World"}}"#));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

/// Row 7: a later source uses an earlier answer and runs after it, three in a row in 3 s; one that needs nobody does not
/// wait.
#[tokio::test]
async fn sources_that_need_each_other_run_in_order_and_the_others_do_not_wait() {
    let app = Service::app(&[]).await;
    let forebay = in_front_of(
        &app,
        r#"
        [route.users]
        path = "/users-sync/{id}"
        deadline = "20s"
        [route.users.aggregate]
        respond = { users = ["{user1}", "{user2}", "{user3}"], greeting = "{greeting.greeting}" }
        [route.users.aggregate.source]
        user3 = { upstream = "app", path = "/users/{user2.manager}", query = { seconds = "1" } }
        user2 = { upstream = "app", path = "/users/{user1.manager}", query = { seconds = "1" } }
        user1 = { upstream = "app", path = "/users/{id}", query = { seconds = "1" } }
        greeting = { upstream = "app", path = "/greetings/Ada", query = { seconds = "2" } }
        "#,
    )
    .await;

    let (response, took) = timed(&forebay, "/users-sync/1").await;

    let expected = USERS.replace("]}", r#"],"greeting":"Hello Ada"}"#);
    assert_eq!((response.status, response.text()), (200, expected));
    assert_time(took, 3.0, 5.0);
    let order = journal(app.address).await;
    let at = |event: &str, path: &str| {
        let entry = (event.to_owned(), path.to_owned());
        order.iter().position(|noted| *noted == entry).unwrap_or_else(|| panic!("{entry:?} in {order:?}"))
    };
    assert!(at("finished", "/users/1") < at("started", "/users/2"), "{order:?}");
    assert!(at("finished", "/users/2") < at("started", "/users/3"), "{order:?}");
    assert!(at("started", "/greetings/Ada") < at("finished", "/users/1"), "{order:?}");
}

/// Row 8: `gather` of three: the same body, its order kept, in the time of one.
#[tokio::test]
async fn three_users_come_in_their_order_in_the_time_of_one() {
    let app = Service::app(&[]).await;
    let mixed = THREE_USERS.replace("users-async", "users-mixed").replace("[route.users", "[route.mixed");
    let mixed = mixed
        .replacen("seconds = \"1\"", "seconds = \"0.6\"", 1)
        .replace("/users/2\", query = { seconds = \"1\"", "/users/2\", query = { seconds = \"0.1\"");
    let forebay = in_front_of(&app, &format!("{THREE_USERS}\n{mixed}")).await;

    let (together, took) = timed(&forebay, "/users-async").await;
    let (mixed, _) = timed(&forebay, "/users-mixed").await;

    assert_eq!((together.status, together.text().as_str()), (200, USERS));
    assert_time(took, 1.0, 3.0);
    assert_eq!(mixed.text(), USERS, "the order is that of the template, whoever answers first");
}

/// Row 9: 2 s for each call. The one that is too late becomes an error in its place, the others are whole; so does one that
/// fails.
#[tokio::test]
async fn a_failed_user_is_stated_in_its_place_and_the_others_are_whole() {
    let app = Service::app(&[]).await;
    let route = |name: &str, query: &str| {
        format!(
            r#"
            [route.{name}]
            path = "/{name}"
            deadline = "10s"
            [route.{name}.aggregate]
            respond = {{ users = ["{{user1}}", "{{user2}}", "{{user3}}"] }}
            meta = true
            [route.{name}.aggregate.source]
            user1 = {{ upstream = "app", path = "/users/1", timeout = "2s", query = {{ seconds = "1" }} }}
            user2 = {{ upstream = "app", path = "/users/2", timeout = "2s", query = {query}, error_message = "Failed to fetch user 2: {{error}}" }}
            user3 = {{ upstream = "app", path = "/users/3", timeout = "2s", query = {{ seconds = "1" }} }}
            "#
        )
    };
    let late = route("late", r#"{ seconds = "9" }"#);
    let failing = route("failing", r#"{ seconds = "1", status = "500" }"#);
    let forebay = in_front_of(&app, &(late + &failing)).await;

    let ((late, late_took), (failing, failing_took)) =
        tokio::join!(timed(&forebay, "/late"), timed(&forebay, "/failing"));

    assert_without_user_2(&late, "The source took longer than its timeout", "source_timeout", Value::Null);
    assert_time(late_took, 2.0, 4.0);
    assert_without_user_2(&failing, "The upstream answered with a server error", "upstream_5xx", json!(500));
    assert_time(failing_took, 1.0, 3.0);
    eventually_noted(app.address, "cancelled", 1).await;
    let scrape = forebay.idle().await;
    let failures = [("route", "late"), ("source", "user2"), ("reason", "source_timeout")];
    assert_eq!(scrape.sum("forebay_source_failures_total", &failures), 1.0);
}

#[track_caller]
fn assert_without_user_2(response: &Response, title: &str, reason: &str, status: Value) {
    let error = format!(r#"{{"error":"Failed to fetch user 2: {title}"}}"#);
    let users = USERS.replace(r#"{"id":2,"name":"User 2","manager":3}"#, &error);
    let body = response.text();
    let (before, _) = body.split_once(r#","_meta":"#).expect("metadata");
    assert_eq!((response.status, before), (200, users.strip_suffix('}').unwrap()));
    assert_eq!(response.header("x-forebay-completeness"), Some("2/3"));
    assert_eq!(response.reason(), Some("partial"));
    let meta = &response.json()["_meta"];
    assert_eq!(meta["completeness"], "2/3");
    let user2 = &meta["sources"]["user2"];
    assert_eq!((&user2["outcome"], &user2["reason"], &user2["status"]), (&json!("failed"), &json!(reason), &status));
    for other in ["user1", "user3"] {
        let other = &meta["sources"][other];
        assert_eq!((&other["outcome"], &other["status"], &other["attempts"]), (&json!("ok"), &json!(200), &json!(1)));
    }
}

/// Row 10: merging many megabytes happens beside the event loop.
#[tokio::test]
async fn large_merges_hold_up_neither_small_requests_nor_the_event_loop() {
    let app = Service::app(&[]).await;
    let source = |name: &str, megabytes: usize| {
        format!(
            r#"{name} = {{ upstream = "app", path = "/list", query = {{ megabytes = "{megabytes}" }}, max_body = "16MiB", drop = ["*.note"] }}"#
        )
    };
    let forebay = in_front_of(
        &app,
        &format!(
            r#"
            [runtime]
            threads = 1

            [route.small]
            path = "/small"
            respond = {{ body = "small" }}

            [route.large]
            path = "/large"
            deadline = "29s"
            [route.large.aggregate]
            max_bytes = "64MiB"
            [route.large.aggregate.source]
            {}
            {}
            {}
            "#,
            source("a", 3),
            source("b", 4),
            source("c", 5)
        ),
    )
    .await;
    let small = async || {
        let answer = http::get(forebay.address(), "/small").await.unwrap();
        assert_eq!(answer.text(), "small");
    };
    let cpu = || {
        let threads = forebay.process.cpu_ticks_of_threads("forebay");
        let (event_loop, others) = threads.split_first().expect("the runtime's worker is its first thread");
        (*event_loop, others.iter().sum::<u64>())
    };
    small().await;
    let before = cpu();

    let over = Cell::new(false);
    let large = async {
        let large = join_all((0..3).map(|_| http::get(forebay.address(), "/large"))).await;
        over.set(true);
        large
    };
    let beside = async {
        let mut answered = 0;
        while !over.get() {
            small().await;
            answered += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        answered
    };
    let (large, beside) = tokio::join!(large, beside);
    let after = cpu();

    for response in large {
        let response = response.unwrap();
        let body = response.json();
        assert_eq!(response.status, 200);
        assert_eq!(body["b"][1], json!({"id": 123456789, "name": "Ada Lovelace"}));
        assert!(body["c"].as_array().unwrap().len() > 40_000);
    }
    // CPU and counts, so that a slow machine changes nothing. With everything on the loop the other threads have nothing to do,
    // and small requests get through between two merges only (22 of them, otherwise 120).
    let (event_loop, others) = (after.0 - before.0, after.1 - before.1);
    println!("ticks of CPU: {event_loop} on the loop, {others} beside it; {beside} small requests");
    assert!(others > event_loop, "{event_loop} on the loop, {others} beside it");
    assert!(beside > 40, "{beside}");
}

/// Row 11: as with `asyncio.shield`, the work runs to its end though the client went away; without it, it is cancelled.
#[tokio::test]
async fn work_is_finished_or_cancelled_when_the_client_goes_away() {
    for (policy, event, other) in [("finish", "finished", "cancelled"), ("cancel", "cancelled", "finished")] {
        let app = Service::app(&[]).await;
        let policy = format!("on_client_gone = \"{policy}\"");
        let routes = THREE_USERS.replace("deadline = \"10s\"", &format!("deadline = \"10s\"\n{policy}"));
        // Time enough to leave before the end, on any machine.
        let routes = routes.replace("seconds = \"1\"", "seconds = \"3\"");
        let forebay = in_front_of(&app, &routes).await;

        let client = http::hold(forebay.address(), "/users-async").await;
        eventually_noted(app.address, "started", 3).await;
        drop(client);
        eventually_noted(app.address, event, 3).await;

        let journal = journal(app.address).await;
        assert!(journal.iter().all(|(noted, _)| noted != other), "{policy}: {journal:?}");
        let log = forebay.access_log_of(1).await;
        assert_eq!(log[0]["reason"], "client_gone");
        let scrape = forebay.idle().await;
        assert_eq!(scrape.sum("forebay_detached_tasks", &[]), 0.0);
        let finished = scrape.sum("forebay_detached_tasks_ended_total", &[("result", "finished")]);
        assert_eq!(finished, if event == "finished" { 1.0 } else { 0.0 }, "{policy}");
    }
}

/// Row 12: `/start-background` answers at once; the result is fetched later, kept for its time, and then gone.
#[tokio::test]
async fn a_report_is_started_with_202_polled_fetched_and_gone_after_its_time() {
    let app = Service::app(&[]).await;
    let forebay = in_front_of(
        &app,
        r#"
        [route.report]
        path = "/start-background"
        methods = ["POST"]
        deadline = "20s"
        [route.report.aggregate]
        respond = { report = "{report}" }
        background = { keep = "2s" }
        [route.report.aggregate.source]
        report = { upstream = "app", path = "/report", query = { seconds = "6" } }

        [route.job]
        path = "/jobs/{id}"
        results_of = "report"
        "#,
    )
    .await;

    let started = Instant::now();
    let accepted = http::request(forebay.address(), "POST", "/start-background", &[], b"").await.unwrap();
    assert_eq!(accepted.status, 202);
    assert!(started.elapsed() < seconds(6.0), "{:?}", started.elapsed());
    let body = accepted.json();
    let (id, url) = (body["id"].as_str().expect("an id"), body["status_url"].as_str().expect("a status URL"));
    assert_eq!(url, format!("/jobs/{id}"));
    assert_eq!(accepted.header("location"), Some(url));
    assert_eq!(body["status"], "running");

    let running = http::get(forebay.address(), url).await.unwrap();
    assert_eq!((running.status, running.header("retry-after")), (202, Some("1")));
    assert_eq!(running.json()["status"], "running");

    let result = eventually("the result is there", async || {
        Some(http::get(forebay.address(), url).await.unwrap()).filter(|response| response.status != 202)
    })
    .await;
    assert!(started.elapsed() >= seconds(6.0), "{:?}", started.elapsed());
    assert_eq!((result.status, result.text().as_str()), (200, r#"{"report":{"rows":3}}"#));
    assert_eq!(result.header("x-forebay-completeness"), Some("1/1"));

    let gone = eventually("the result is gone", async || {
        Some(http::get(forebay.address(), url).await.unwrap()).filter(|response| response.status != 200)
    })
    .await;
    assert!(started.elapsed() >= seconds(5.0), "kept for 2 s after 3 s of work: {:?}", started.elapsed());
    assert_eq!((gone.status, gone.reason()), (410, Some("result_gone")));
    let never = http::get(forebay.address(), &format!("/jobs/{}", "0".repeat(id.len()))).await.unwrap();
    assert_eq!((never.status, never.reason()), (404, Some("no_result")));
    let scrape = forebay.idle().await;
    assert_eq!(scrape.sum("forebay_jobs_total", &[("route", "report"), ("outcome", "finished")]), 1.0);
    assert_eq!(scrape.sum("forebay_job_results", &[]), 0.0);
}
