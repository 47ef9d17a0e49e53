//! Mirrored requests: the copies are what the upstream gets, and nothing about them reaches the client.

use rustix::process::Signal;

use super::server::Server;
use super::{at_rest, ms};
use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http;
use crate::support::metrics::Scrape;
use crate::support::{SLACK, eventually};

async fn forebay(primary: std::net::SocketAddr, shadow: std::net::SocketAddr, mirror: &str) -> Forebay {
    Forebay::start(&format!(
        "[listener]\naddress = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
         [upstream.api]\nendpoints = [\"{primary}\"]\n\
         [upstream.next]\nendpoints = [\"{shadow}\"]\ntimeouts = {{ first_byte = \"2s\" }}\n\
         [route.api]\npath = \"/*\"\nupstream = \"api\"\nmirror = {{ upstream = \"next\", {mirror} }}\n"
    ))
    .await
}

fn copies(scrape: &Scrape, result: &str) -> f64 {
    scrape.sum("forebay_mirror_copies_total", &[("route", "api"), ("result", result)])
}

async fn counted(forebay: &Forebay, result: &str, count: f64) {
    eventually(&format!("{count} copies are {result}"), async || {
        (copies(&forebay.scrape().await, result) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_copy_is_the_request_with_a_mark_and_a_span_of_its_own() {
    let (primary, shadow) = (FaultUpstream::answering(OK).await, FaultUpstream::answering(OK).await);
    let edits = "copies = 2, methods = [\"GET\", \"POST\"], request_headers = { remove = [\"authorization\"] }";
    let forebay = forebay(primary.address, shadow.address, edits).await;
    let fields = [("authorization", "Bearer s3cret"), ("x-kept", "yes")];

    let answer = http::request(forebay.address(), "POST", "/orders?a=1", &fields, b"{\"n\":1}").await.unwrap();
    assert_eq!(answer.status, 200);
    counted(&forebay, "answered", 2.0).await;

    let (sent, copied) = (primary.heads().remove(0), shadow.heads());
    assert_eq!(copied.len(), 2);
    let line = |head: &str, name: &str| {
        head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
    };
    for copy in &copied {
        assert!(copy.starts_with("POST /orders?a=1 HTTP/1.1\r\n"), "{copy}");
        assert_eq!(line(copy, "x-forebay-mirror").as_deref(), Some("true"));
        assert_eq!(line(copy, "authorization"), None);
        assert_eq!(line(copy, "content-length").as_deref(), Some("7"));
        for same in ["x-kept", "x-request-id", "x-forwarded-for"] {
            assert_eq!(line(copy, same), line(&sent, same), "{same}");
        }
        assert_ne!(line(copy, "traceparent"), line(&sent, "traceparent"));
        let trace = |head: &str| line(head, "traceparent").unwrap()[..35].to_owned();
        assert_eq!(trace(copy), trace(&sent));
    }
    assert_eq!(
        (line(&sent, "x-forebay-mirror"), line(&sent, "authorization").as_deref()),
        (None, Some("Bearer s3cret"))
    );
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn what_changes_something_is_not_mirrored_unless_it_is_named_nor_is_what_does_not_fit() {
    let (primary, shadow) = (Server::start().await, Server::start().await);
    let careful = forebay(primary.address, shadow.address, "copies = 1.0").await;
    let post = async |forebay: &Forebay, body: &[u8]| {
        http::request(forebay.address(), "POST", "/read", &[], body).await.unwrap().text()
    };
    assert_eq!(post(&careful, b"body").await, "4");
    http::get(careful.address(), "/").await.unwrap();
    counted(&careful, "answered", 1.0).await;
    assert_eq!(shadow.requests(), 1);

    let bounded =
        forebay(primary.address, shadow.address, "methods = [\"POST\"], max_body = \"10B\", max_bytes = \"15B\"").await;
    assert_eq!(post(&bounded, &[b'x'; 11]).await, "11");
    counted(&bounded, "no_body", 1.0).await;
    assert_eq!(post(&bounded, &[b'x'; 10]).await, "10");
    counted(&bounded, "answered", 1.0).await;

    let mut left = http::Connection::open(bounded.address()).await.unwrap();
    left.send("POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    eventually("the request is in flight", async || {
        (bounded.scrape().await.sum("forebay_mirror_in_flight", &[]) == 1.0).then_some(())
    })
    .await;
    drop(left);
    counted(&bounded, "no_body", 2.0).await;
    assert_eq!(at_rest(&bounded).await.sum("forebay_mirror_in_flight", &[]), 0.0);
}

#[tokio::test]
async fn a_copy_is_not_copied_again_though_its_upstream_leads_back_to_us() {
    let (primary, shadow) = (Server::start().await, Server::start().await);
    let forebay = forebay(primary.address, shadow.address, "copies = 2.0").await;

    http::request(forebay.address(), "GET", "/copy", &[("x-forebay-mirror", "true")], b"").await.unwrap();
    http::get(forebay.address(), "/original").await.unwrap();

    counted(&forebay, "answered", 2.0).await;
    assert_eq!((primary.requests(), shadow.requests()), (2, 2));
}

#[tokio::test]
async fn a_body_that_does_not_fit_gives_its_place_back_before_its_end() {
    let (primary, shadow) = (Server::start().await, Server::start().await);
    let mirror = "methods = [\"POST\"], max_body = \"10B\", max_in_flight = 1";
    let forebay = forebay(primary.address, shadow.address, mirror).await;

    let mut upload = http::Connection::open(forebay.address()).await.unwrap();
    upload.send("POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    upload.send("b\r\nelevenbytes\r\n").await.unwrap();

    counted(&forebay, "no_body", 1.0).await;
    assert_eq!(http::request(forebay.address(), "POST", "/read", &[], b"small").await.unwrap().text(), "5");
    counted(&forebay, "answered", 1.0).await;
    assert_eq!(copies(&forebay.scrape().await, "no_place"), 0.0);
}

#[tokio::test]
async fn a_mirror_that_stalls_or_is_gone_neither_delays_nor_fails_a_request_and_never_queues() {
    let primary = Server::start().await;
    let stalling = FaultUpstream::start([scripts::stall_before_head()]).await;
    let forebay = forebay(primary.address, stalling.address, "max_in_flight = 5, timeout = \"1s\"").await;

    let mut times = Vec::new();
    for _ in 0..50 {
        let (answer, took) = http::timed_get(forebay.address(), "/").await;
        assert_eq!(answer.unwrap().status, 200);
        times.push(took);
    }
    // The mirror holds each of its five places for a second.
    assert!(http::quantile(&times, 0.5) < ms(200), "{times:?}");
    let scrape = forebay.scrape().await;
    assert!(copies(&scrape, "no_place") >= 25.0, "{}", copies(&scrape, "no_place"));
    eventually("every copy has ended", async || {
        let scrape = forebay.scrape().await;
        let ended = copies(&scrape, "no_place") + copies(&scrape, "failed");
        (ended == 50.0 && scrape.sum("forebay_mirror_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
    let reasons = at_rest(&forebay).await;
    assert_eq!(reasons.sum("forebay_requests_total", &[("route", "api"), ("reason", "ok")]), 50.0);
    assert!(reasons.sum("forebay_upstream_attempts_total", &[("upstream", "next"), ("reason", "ok")]) == 0.0);
}

#[tokio::test]
async fn a_part_is_chosen_by_the_id_of_the_request() {
    let (primary, shadow) = (Server::start().await, Server::start().await);
    let forebay = forebay(primary.address, shadow.address, "copies = 0.5").await;
    let mirrored = async |id: &str| {
        let before = copies(&at_rest(&forebay).await, "answered");
        http::request(forebay.address(), "GET", "/", &[("x-request-id", id)], b"").await.unwrap();
        eventually("the copy has ended", async || {
            let scrape = forebay.scrape().await;
            let ended = scrape.sum("forebay_mirror_in_flight", &[]) == 0.0;
            ended.then(|| copies(&scrape, "answered") > before)
        })
        .await
    };

    let mut chosen = Vec::new();
    for n in 0..24 {
        chosen.push(mirrored(&format!("request-{n}")).await);
    }
    assert!(chosen.contains(&true) && chosen.contains(&false), "{chosen:?}");
    for (n, before) in chosen.iter().enumerate() {
        assert_eq!(mirrored(&format!("request-{n}")).await, *before, "{n}");
    }
}

#[tokio::test]
async fn copies_do_not_hold_up_a_shutdown() {
    let primary = Server::start().await;
    let stalling = FaultUpstream::start([scripts::stall_before_head()]).await;
    let mut forebay = forebay(primary.address, stalling.address, "timeout = \"60s\"").await;
    http::get(forebay.address(), "/").await.unwrap();
    eventually("the copy is on its way", async || {
        (forebay.scrape().await.sum("forebay_mirror_in_flight", &[]) == 1.0).then_some(())
    })
    .await;

    let asked = tokio::time::Instant::now();
    forebay.signal(Signal::TERM);
    let status = forebay.process.ended().await;

    assert!(status.success(), "{status:?}");
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn answers_are_compared_but_for_what_may_differ() {
    let json = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let primary = FaultUpstream::answering(json(r#"{"id":7,"meta":{"time":1}}"#)).await;
    let alike = FaultUpstream::answering(json(r#"{"meta":{"time":2},"id":7.0}"#)).await;
    let other = FaultUpstream::answering(json(r#"{"id":8,"meta":{"time":1}}"#)).await;
    let failing = FaultUpstream::answering("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
    let large = FaultUpstream::answering(json(&"1".repeat(100))).await;

    for (shadow, result) in [(&alike, "same"), (&other, "body"), (&failing, "status"), (&large, "skipped")] {
        let compare = "max_body = \"50B\", compare = { ignore = [\"meta.time\"] }";
        let forebay = forebay(primary.address, shadow.address, compare).await;
        http::request(forebay.address(), "GET", "/", &[("x-request-id", "seen-again")], b"").await.unwrap();
        eventually(&format!("the answers are {result}"), async || {
            let compared = [("route", "api"), ("result", result)];
            (forebay.scrape().await.sum("forebay_mirror_compared_total", &compared) == 1.0).then_some(())
        })
        .await;
        let told: Vec<_> =
            forebay.process.stderr.all().into_iter().filter(|line| line.contains("answers differ")).collect();
        match result {
            "body" => assert!(told[0].contains("how=\"id (1 in all)\"") && told[0].contains("seen-again"), "{told:?}"),
            "status" => assert!(told[0].contains("200 became 500"), "{told:?}"),
            _ => assert!(told.is_empty(), "{told:?}"),
        }
    }
}
