//! The client leaves: all sources are cancelled at once, or all of them finish, as the route says.

use tokio::time::Instant;

use super::upstream::{Gate, Reply, Upstream};
use super::{at_rest, forebay, get, ms};
use crate::support::eventually;
use crate::support::http::{self, quantile};

fn three(settings: &str) -> String {
    format!(
        r#"
        [route.three]
        path = "/three"
        deadline = "30s"
        max_in_flight = 8
        {settings}
        [route.three.aggregate.source]
        a = {{ upstream = "app", path = "/a" }}
        b = {{ upstream = "app", path = "/b" }}
        c = {{ upstream = "app", path = "/c" }}
        "#
    )
}

#[tokio::test]
async fn a_client_that_leaves_cancels_every_source_at_once() {
    const ROUNDS: usize = 20;
    let app = Upstream::start(|_| Reply::never()).await;
    let forebay = forebay(app.address, &three("on_client_gone = \"cancel\"")).await;

    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        let client = http::hold(forebay.address(), "/three").await;
        app.working_on(3).await;
        let left = Instant::now();
        drop(client);
        app.until("all three are cancelled", |seen| seen.abandoned == 3 * round).await;
        times.push(left.elapsed());
    }

    println!("cancelled after {times:?}");
    // 20 of 20 on a quiet machine; a busy one may hold up a few.
    assert!(quantile(&times, 0.75) < ms(200), "{times:?}");
    assert_eq!(app.seen().answered, 0);
    let log = forebay.access_log_of(ROUNDS).await;
    assert!(log.iter().all(|line| line["reason"] == "client_gone"), "{log:?}");
    let scrape = at_rest(&forebay).await;
    let gone = [("route", "three"), ("reason", "client_gone")];
    assert_eq!(scrape.sum("forebay_requests_total", &gone), ROUNDS as f64);
    assert_eq!(scrape.sum("forebay_upstream_in_flight", &[]), 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_a_route_that_finishes_leaves_all_sources_to_their_end() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("1").when(&opened)).await;
    let forebay = forebay(app.address, &three("on_client_gone = \"finish\"")).await;

    drop(http::hold(forebay.address(), "/three").await);
    app.working_on(3).await;
    let detached = async || forebay.scrape().await.sum("forebay_detached_tasks", &[]);
    eventually("the work is counted as detached", async || (detached().await == 1.0).then_some(())).await;
    gate.open();
    app.until("all three are answered", |seen| seen.answered == 3).await;

    let log = forebay.access_log_of(1).await;
    assert_eq!((&log[0]["reason"], &log[0]["completeness"]), (&"client_gone".into(), &"3/3".into()), "{}", log[0]);
    let scrape = at_rest(&forebay).await;
    assert_eq!(app.seen().abandoned, 0);
    assert_eq!(scrape.sum("forebay_detached_tasks_ended_total", &[("result", "finished")]), 1.0);
}

/// The route's limit bounds work that goes on without clients, too.
#[tokio::test]
async fn work_without_a_client_keeps_its_place_in_the_limit() {
    let gate = Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("1").when(&opened)).await;
    let settings = "on_client_gone = \"finish\"";
    let forebay = forebay(app.address, &three(settings).replace("max_in_flight = 8", "max_in_flight = 1")).await;

    drop(http::hold(forebay.address(), "/three").await);
    app.working_on(3).await;
    let refused = get(&forebay, "/three").await;
    gate.open();

    assert_eq!((refused.status, refused.reason()), (503, Some("queue_full")));
    at_rest(&forebay).await;
    assert_eq!(get(&forebay, "/three").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_the_places_of_its_sources_in_the_queue() {
    let app = Upstream::start(|_| Reply::never()).await;
    let upstream = "max_in_flight = 1\nqueue = { capacity = 10, timeout = \"20s\" }\n";
    let forebay = forebay(app.address, &(upstream.to_owned() + &three("on_client_gone = \"cancel\""))).await;
    let depth = async || forebay.scrape().await.sum("forebay_queue_depth", &[("name", "app")]);

    let client = http::hold(forebay.address(), "/three").await;
    eventually("two sources wait for the third", async || (depth().await == 2.0).then_some(())).await;
    drop(client);

    app.until("the third is cancelled", |seen| seen.abandoned == 1).await;
    at_rest(&forebay).await;
    assert_eq!(app.seen().requests.len(), 1, "those who waited were never sent");
}

#[tokio::test]
async fn shared_work_is_cancelled_when_the_last_of_its_clients_has_left() {
    let app = Upstream::start(|_| Reply::never()).await;
    let shared = three("on_client_gone = \"cancel\"\n[route.three.aggregate]\ncoalesce = [\"path\"]");
    let forebay = forebay(app.address, &shared).await;

    let first = http::hold(forebay.address(), "/three").await;
    app.working_on(3).await;
    let second = http::hold(forebay.address(), "/three").await;
    eventually("two clients wait", async || {
        (forebay.scrape().await.sum("forebay_requests_in_flight", &[]) == 2.0).then_some(())
    })
    .await;
    drop(first);
    forebay.access_log_of(1).await;
    assert_eq!(app.seen().working, 3, "the other client still waits");
    drop(second);

    app.until("all three are cancelled", |seen| seen.abandoned == 3).await;
    at_rest(&forebay).await;
}

/// Everything is given back after every kind of failure.
#[tokio::test]
async fn nothing_stays_in_flight_after_failures() {
    use crate::support::fault_upstream::{FaultUpstream, scripts};

    let late = "timeout = \"200ms\"";
    for (name, script) in [
        ("reset", scripts::reset_before_head()),
        ("garbage", scripts::garbage()),
        ("broken off", scripts::close_mid_body()),
        ("stalled", scripts::stall_mid_body()),
        ("huge head", scripts::huge_head()),
        ("upgrade", scripts::unasked_upgrade()),
    ] {
        let app = FaultUpstream::start([script]).await;
        let routes = three("").replace(" }", &format!(", {late} }}"));
        let forebay = forebay(app.address, &routes).await;

        for _ in 0..3 {
            let response = get(&forebay, "/three").await;
            assert!([502, 504].contains(&response.status), "{name}: {response:?}");
            assert!(response.reason().is_some(), "{name}: {response:?}");
            assert!(!response.text().contains("127.0.0.1"), "{name}: {}", response.text());
        }
        let scrape = at_rest(&forebay).await;
        assert_eq!(scrape.sum("forebay_panics_total", &[]), 0.0, "{name}");
        app.abandoned().await;
    }
}
