//! Which answers are enough, and what becomes of the others; the deadline over all of them.

use super::upstream::{Reply, Upstream};
use super::{at_rest, forebay, get, ms};
use crate::support::forebay::Forebay;
use crate::support::http::{self, timed_get};

fn three(strategy: &str) -> String {
    format!(
        r#"
        [route.three]
        path = "/three"
        deadline = "20s"
        [route.three.aggregate]
        {strategy}
        [route.three.aggregate.source]
        a = {{ upstream = "app", path = "/a" }}
        b = {{ upstream = "app", path = "/b" }}
        c = {{ upstream = "app", path = "/c" }}
        "#
    )
}

/// `a` fails, `b` answers after a while, `c` never.
async fn app() -> Upstream {
    Upstream::start(|request| match request.split(' ').nth(1) {
        Some("/a") => Reply::with(500, "", ""),
        Some("/b") => Reply::json(r#"{"from":"b"}"#).after(ms(100)),
        _ => Reply::never(),
    })
    .await
}

#[tokio::test]
async fn the_first_usable_answer_wins_and_the_losers_are_cancelled() {
    let app = app().await;
    let forebay = forebay(app.address, &three("strategy = \"first\"")).await;

    let response = get(&forebay, "/three").await;

    assert_eq!((response.status, response.text().as_str()), (200, r#"{"from":"b"}"#));
    app.until("the loser is cancelled", |seen| seen.abandoned == 1).await;
    let scrape = at_rest(&forebay).await;
    let outcome = |source, outcome| {
        let labels = [("route", "three"), ("source", source), ("outcome", outcome)];
        scrape.sum("forebay_source_outcomes_total", &labels)
    };
    assert_eq!((outcome("a", "failed"), outcome("b", "ok"), outcome("c", "not_needed")), (1.0, 1.0, 1.0));
}

#[tokio::test]
async fn a_quorum_is_enough() {
    let app = Upstream::start(|request| match request.split(' ').nth(1) {
        Some("/c") => Reply::never(),
        _ => Reply::json("1").after(ms(50)),
    })
    .await;
    let forebay = forebay(app.address, &three("strategy = \"quorum\"\nquorum = 2")).await;

    let response = get(&forebay, "/three").await;

    let body = response.json();
    assert_eq!((response.status, response.header("x-forebay-completeness")), (200, Some("2/2")));
    assert_eq!((&body["a"], &body["b"]), (&1.into(), &1.into()));
    app.until("the third is cancelled", |seen| seen.abandoned == 1).await;
    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_fallback_chain_asks_one_after_the_other_and_stops_at_the_first_answer() {
    let app = app().await;
    let forebay = forebay(app.address, &three("strategy = \"fallback\"")).await;

    let response = get(&forebay, "/three").await;

    assert_eq!((response.status, response.text().as_str()), (200, r#"{"from":"b"}"#));
    assert_eq!(app.lines(), ["GET /a HTTP/1.1", "GET /b HTTP/1.1"]);
    assert_eq!(app.seen().most_working, 1);
    at_rest(&forebay).await;
}

/// The second stage gets what the first has left of the deadline; what is there at the deadline is answered.
#[tokio::test]
async fn one_deadline_is_over_all_stages_and_each_is_told_what_is_left() {
    let app = Upstream::start(|request| match request.starts_with("GET /first ") {
        true => Reply::json("1").after(ms(400)),
        false => Reply::never(),
    })
    .await;
    let forebay = forebay(
        app.address,
        r#"
        [route.chain]
        path = "/chain"
        deadline = "3s"
        [route.chain.aggregate]
        meta = true
        [route.chain.aggregate.source]
        first = { upstream = "app", path = "/first" }
        second = { upstream = "app", path = "/second/{first}" }
        "#,
    )
    .await;

    let (response, took) = timed_get(forebay.address(), "/chain").await;

    let response = response.expect("an answer");
    let told = |index: usize| {
        let request = app.seen().requests[index].clone();
        let line = request.lines().find_map(|line| line.strip_prefix("x-forebay-deadline-ms: ")).map(str::to_owned);
        line.expect("what is left of the deadline").parse::<u64>().expect("a number")
    };
    assert!((2500..=3000).contains(&told(0)) && told(1) <= 2600, "{} and {}", told(0), told(1));
    assert!((ms(2998)..ms(6000)).contains(&took), "{took:?}");
    assert_eq!((response.status, response.header("x-forebay-completeness")), (200, Some("1/2")), "{}", response.text());
    assert_eq!(response.json()["first"], 1);
    app.until("the second is cancelled", |seen| seen.abandoned == 1).await;
    at_rest(&forebay).await;
}

/// A client with less time leaves the shared work alone: its deadline ends its own wait and nobody else's.
#[tokio::test]
async fn each_follower_of_shared_work_has_its_own_deadline() {
    let gate = super::upstream::Gate::new();
    let opened = gate.clone();
    let app = Upstream::start(move |_| Reply::json("1").when(&opened)).await;
    let forebay = Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        trusted_proxies = ["127.0.0.1"]

        [upstream.app]
        endpoints = ["{}"]
        {}"#,
        app.address,
        three("coalesce = [\"path\"]")
    ))
    .await;

    let mut leader = http::hold(forebay.address(), "/three").await;
    app.working_on(3).await;
    let hurried = [("x-forebay-deadline-ms", "200")];
    let hurried = http::request(forebay.address(), "GET", "/three", &hurried, b"").await.unwrap();
    assert_eq!(app.seen().working, 3);
    gate.open();
    let leader = leader.response().await.unwrap();

    assert_eq!(hurried.status, 504, "{hurried:?}");
    assert_eq!((leader.status, leader.text().as_str()), (200, r#"{"a":1,"b":1,"c":1}"#));
    assert_eq!(app.seen().requests.len(), 3);
    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_failed_connect_is_tried_at_another_endpoint() {
    let app = Upstream::json("1").await;
    let refusing = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    refusing.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let nobody = refusing.local_addr().expect("it is bound").as_socket().expect("an IP socket");
    let forebay = Forebay::start(&format!(
        "[upstream.app]\nendpoints = [\"{nobody}\", \"{}\"]\n{}",
        app.address,
        three("meta = true")
    ))
    .await;

    let mut attempts = 0;
    for _ in 0..4 {
        let response = get(&forebay, "/three").await;
        let body = response.json();
        assert_eq!((response.status, &body["_meta"]["completeness"]), (200, &"3/3".into()), "{}", response.text());
        attempts += ["a", "b", "c"]
            .map(|name| body["_meta"]["sources"][name]["attempts"].as_u64().unwrap())
            .iter()
            .sum::<u64>();
    }

    assert!(attempts > 12, "{attempts}");
    at_rest(&forebay).await;
}
