//! Background work on the wire: what is kept, for whom, how much, and how it ends early.

use super::upstream::{Gate, Reply, Upstream};
use super::{at_rest, forebay, get};
use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http::{self, Response};

fn routes(background: &str) -> String {
    let job = |name: &str, background: &str| {
        format!(
            r#"
            [route.{name}]
            path = "/{name}"
            methods = ["POST"]
            deadline = "20s"
            [route.{name}.aggregate]
            background = {background}
            [route.{name}.aggregate.source]
            a = {{ upstream = "app", path = "/{name}/a" }}
            b = {{ upstream = "app", path = "/{name}/b", required = true }}

            [route.{name}-job]
            path = "/{name}-jobs/{{id}}"
            results_of = "{name}"
            "#
        )
    };
    job("report", background) + &job("other", "true")
}

async fn start(forebay: &Forebay, target: &str) -> Response {
    http::request(forebay.address(), "POST", target, &[], b"").await.expect("an answer")
}

/// Where the result of a new job will be.
async fn accepted(forebay: &Forebay, target: &str) -> String {
    let response = start(forebay, target).await;
    assert_eq!(response.status, 202, "{response:?}");
    response.header("location").expect("where the result will be").to_owned()
}

async fn ended(forebay: &Forebay, job: &str) -> Response {
    eventually("the job has ended", async || Some(get(forebay, job).await).filter(|response| response.status != 202))
        .await
}

#[tokio::test]
async fn a_result_is_known_under_its_own_route_only_and_ids_cannot_be_guessed() {
    let app = Upstream::json("1").await;
    let forebay = forebay(app.address, &routes("true")).await;

    let (first, second) = (accepted(&forebay, "/report").await, accepted(&forebay, "/report").await);
    let result = ended(&forebay, &first).await;
    let elsewhere = get(&forebay, &first.replace("report", "other")).await;
    let head = http::request(forebay.address(), "HEAD", &first, &[], b"").await.unwrap();
    let posted = start(&forebay, &first).await;

    let id = |job: &str| job.rsplit('/').next().expect("an id").to_owned();
    assert!(id(&first).len() >= 32 && id(&first) != id(&second), "{first} {second}");
    assert_eq!((result.status, result.text().as_str()), (200, r#"{"a":1,"b":1}"#));
    assert_eq!((elsewhere.status, elsewhere.reason()), (404, Some("no_result")));
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("13"), 0));
    assert_eq!(posted.status, 405);
    for wrong in ["x", "%00", "..%5c", &id(&first)[1..], &id(&first).to_uppercase()] {
        let response = get(&forebay, &format!("/report-jobs/{wrong}")).await;
        assert!([400, 404].contains(&response.status), "{wrong}: {response:?}");
    }
}

#[tokio::test]
async fn a_failed_job_says_why_when_it_is_fetched() {
    let app = Upstream::start(|request| match request.contains("/b ") {
        true => Reply::with(500, "", ""),
        false => Reply::json("1"),
    })
    .await;
    let forebay = forebay(app.address, &routes("true")).await;

    let job = accepted(&forebay, "/report").await;
    let result = ended(&forebay, &job).await;

    assert_eq!((result.status, result.reason()), (502, Some("upstream_5xx")));
    assert_eq!(result.header("content-type"), Some("application/problem+json"));
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_jobs_total", &[("route", "report"), ("outcome", "failed")]), 1.0);
}

#[tokio::test]
async fn a_deleted_job_cancels_its_calls_and_is_gone() {
    let app = Upstream::start(|_| Reply::never()).await;
    let forebay = forebay(app.address, &routes("true")).await;

    let job = accepted(&forebay, "/report").await;
    app.working_on(2).await;
    let deleted = http::request(forebay.address(), "DELETE", &job, &[], b"").await.unwrap();

    assert_eq!(deleted.status, 204);
    app.until("both calls are cancelled", |seen| seen.abandoned == 2).await;
    let gone = ended(&forebay, &job).await;
    assert_eq!((gone.status, gone.reason()), (410, Some("result_gone")));
    at_rest(&forebay).await;
}

#[tokio::test]
async fn running_jobs_are_bounded_and_the_next_one_is_told_when_to_come_back() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("1").when(&opened)).await;
    let forebay = forebay(app.address, &routes("{ max_running = 2 }")).await;

    let jobs = [accepted(&forebay, "/report").await, accepted(&forebay, "/report").await];
    let refused = start(&forebay, "/report").await;
    let other = accepted(&forebay, "/other").await;
    app.working_on(6).await;
    gate.open();

    assert_eq!((refused.status, refused.reason()), (503, Some("too_many_jobs")));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    for job in jobs.iter().chain([&other]) {
        assert_eq!(ended(&forebay, job).await.status, 200);
    }
    assert_eq!(start(&forebay, "/report").await.status, 202);
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_jobs_total", &[("route", "report"), ("outcome", "refused")]), 1.0);
}

#[tokio::test]
async fn the_oldest_results_make_room_for_new_ones_and_are_counted() {
    let app = Upstream::json("1").await;
    let forebay = forebay(app.address, &routes("{ max_results = 2 }")).await;

    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = accepted(&forebay, "/report").await;
        assert_eq!(ended(&forebay, &job).await.status, 200);
        jobs.push(job);
    }

    let mut statuses = Vec::new();
    for job in &jobs {
        statuses.push(get(&forebay, job).await.status);
    }
    assert_eq!(statuses, [410, 200, 200]);
    let scrape = at_rest(&forebay).await;
    let report = [("route", "report")];
    assert_eq!(scrape.sum("forebay_job_evictions_total", &report), 1.0);
    assert_eq!(scrape.sum("forebay_job_results", &report), 2.0);
    assert!(scrape.sum("forebay_job_result_bytes", &report) >= 26.0);
}

#[tokio::test]
async fn a_result_beyond_all_kept_bytes_is_said_and_not_kept() {
    let app = Upstream::start(|_| Reply::json(format!("\"{}\"", "x".repeat(5000)))).await;
    let forebay = forebay(app.address, &routes("{ max_bytes = \"4KiB\" }")).await;

    let job = accepted(&forebay, "/report").await;
    let result = ended(&forebay, &job).await;

    assert_eq!((result.status, result.reason()), (507, Some("result_too_large")));
    let scrape = at_rest(&forebay).await;
    assert!(scrape.sum("forebay_job_result_bytes", &[]) <= 4096.0);
}

#[tokio::test]
async fn head_begins_no_job() {
    let app = Upstream::json("1").await;
    let forebay = forebay(app.address, &routes("true").replace("methods = [\"POST\"]\n", "")).await;

    let answer = http::request(forebay.address(), "HEAD", "/report", &[], b"").await.expect("an answer");

    assert_eq!((answer.status, answer.reason()), (405, Some("method_not_allowed")));
    at_rest(&forebay).await;
    assert!(app.seen().requests.is_empty());
}
