//! Several endpoints: failover, round robin, health checks and their metrics; and the pool of connections.

use futures_util::future::join_all;

use super::server::Server;
use super::{Refusing, at_rest, clean, logged, ms};
use crate::support::fault_upstream::{FaultUpstream, Step, scripts};
use crate::support::forebay::Forebay;
use crate::support::metrics::Scrape;
use crate::support::{eventually, http};

fn upstream(scrape: &Scrape, name: &str) -> f64 {
    scrape.sum(&format!("forebay_upstream_{name}"), &[("upstream", "api")])
}

fn config(endpoints: &[std::net::SocketAddr], settings: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    format!(
        "[route.api]\npath = \"/*\"\nupstream = \"api\"\ndeadline = \"20s\"\n\
         [upstream.api]\nendpoints = {endpoints:?}\n{settings}\n"
    )
}

#[tokio::test]
async fn a_refused_connection_moves_to_another_endpoint() {
    let (refusing, good) = (Refusing::new(), FaultUpstream::start([scripts::ok()]).await);
    let forebay = Forebay::start(&config(&[refusing.address, good.address], "connect_retries = 1")).await;

    for _ in 0..20 {
        assert_eq!(http::get(forebay.address(), "/").await.unwrap().status, 200);
    }
    // A request with a body may move, too: nothing of it was sent.
    eventually("the refusing endpoint is tried again", async || {
        let response = http::request(forebay.address(), "POST", "/moved", &[], b"body").await.unwrap();
        assert_eq!(response.status, 200);
        forebay.access_log().iter().any(|line| line["path"] == "/moved" && line["attempts"] == 2).then_some(())
    })
    .await;

    let scrape = at_rest(&forebay).await;
    let retries = upstream(&scrape, "connect_retries_total");
    assert!(retries >= 2.0, "{retries}");
    assert_eq!(scrape.sum("forebay_upstream_attempts_total", &[("reason", "connect_failed")]), retries);
    assert_eq!(scrape.sum("forebay_requests_total", &[("reason", "connect_failed")]), 0.0);
}

#[tokio::test]
async fn without_retries_or_without_any_endpoint_up_the_request_fails() {
    let dead = [Refusing::new(), Refusing::new()];
    let forebay = Forebay::start(&config(&dead.each_ref().map(|dead| dead.address), "connect_retries = 3")).await;

    let response = http::get(forebay.address(), "/down").await.unwrap();

    assert_eq!((response.status, response.reason()), (502, Some("connect_failed")));
    assert_eq!(logged(&forebay, "/down").await["attempts"], 4);
    assert_eq!(upstream(&at_rest(&forebay).await, "connect_retries_total"), 3.0);
}

#[tokio::test]
async fn endpoints_take_turns() {
    let servers = join_all((0..3).map(|_| Server::start())).await;
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let forebay = Forebay::start(&config(&addresses, "")).await;

    join_all((0..30).map(|n| async move { n }).map(|_| http::get(forebay.address(), "/"))).await;

    assert!(servers.iter().all(|server| server.requests() == 10), "{servers:?}");
}

#[tokio::test]
async fn health_checks_take_an_endpoint_out_and_bring_it_back() {
    let (one, two) = (Server::start().await, Server::start().await);
    let checks = "[upstream.api.health]\npath = \"/healthz\"\ninterval = \"100ms\"\ntimeout = \"90ms\"\n\
                  unhealthy_after = 2\nhealthy_after = 2";
    let forebay = Forebay::start(&config(&[one.address, two.address], checks)).await;
    let up = async |server: &Server, expected: f64| {
        let endpoint = server.address.to_string();
        eventually(&format!("the metrics say {expected} for the endpoint"), async || {
            let labels = [("upstream", "api"), ("endpoint", &*endpoint)];
            (forebay.scrape().await.get("forebay_upstream_endpoint_up", &labels) == Some(expected)).then_some(())
        })
        .await;
    };
    up(&one, 1.0).await;
    up(&two, 1.0).await;

    two.set_health(503);
    up(&two, 0.0).await;
    let (before_one, before_two) = (one.requests(), two.requests());
    for _ in 0..10 {
        assert_eq!(http::get(forebay.address(), "/").await.unwrap().status, 200);
    }
    assert_eq!((one.requests() - before_one, two.requests() - before_two), (10, 0));

    one.set_health(500);
    up(&one, 0.0).await;
    for _ in 0..10 {
        assert_eq!(http::get(forebay.address(), "/").await.unwrap().status, 200, "none up: all are used");
    }
    assert!(two.requests() > before_two);

    two.set_health(204);
    up(&two, 1.0).await;
    let before = two.requests();
    for _ in 0..10 {
        assert_eq!(http::get(forebay.address(), "/").await.unwrap().status, 200);
    }
    assert_eq!(two.requests() - before, 10);
    let scrape = forebay.scrape().await;
    for result in ["passed", "failed"] {
        assert!(scrape.sum("forebay_upstream_health_checks_total", &[("result", result)]) >= 2.0, "{result}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_no_endpoint_and_counted() {
    let forebay = Forebay::start(
        "[upstream.api]\nendpoints = [\"no-such-host.invalid:80\"]\n[route.api]\npath = \"/*\"\nupstream = \"api\"\n",
    )
    .await;

    let response = http::get(forebay.address(), "/").await.unwrap();

    assert_eq!((response.status, response.reason()), (503, Some("no_endpoint")));
    eventually("the failed lookup is counted", async || {
        let scrape = forebay.scrape().await;
        assert_eq!(upstream(&scrape, "endpoint_up"), 0.0);
        (upstream(&scrape, "dns_failures_total") >= 1.0).then_some(())
    })
    .await;
}

/// One request whose connection rests when this returns: the client has its answer a moment before that.
async fn first(forebay: &Forebay) {
    assert_eq!(http::get(forebay.address(), "/first").await.unwrap().status, 200);
    assert_eq!(upstream(&at_rest(forebay).await, "connections_idle"), 1.0);
}

/// The upstream answers once on each connection and is gone when the second request comes.
#[tokio::test]
async fn a_stale_connection_is_retried_once_and_only_where_that_is_safe() {
    for end in [Step::Close, Step::Reset] {
        let once = vec![Step::ReadHead, Step::Send(scripts::OK.to_vec()), Step::ReadHead, end.clone()];
        let stale = FaultUpstream::start([once.clone(), scripts::ok()]).await;
        let forebay = Forebay::start(&config(&[stale.address], "")).await;
        first(&forebay).await;
        assert_eq!(http::get(forebay.address(), "/second").await.unwrap().status, 200, "{end:?}");
        let line = logged(&forebay, "/second").await;
        assert_eq!((&line["attempts"], &line["reused"]), (&2.into(), &false.into()), "{line}");

        let stale = FaultUpstream::start([once.clone(), scripts::ok()]).await;
        let forebay = Forebay::start(&config(&[stale.address], "")).await;
        first(&forebay).await;
        let post = http::request(forebay.address(), "POST", "/post", &[], b"body").await.unwrap();
        assert_eq!(post.status, 502, "{end:?}: it may have been acted upon");
        assert_eq!(logged(&forebay, "/post").await["attempts"], 1);
        assert_eq!(stale.accepted(), 1);

        // A new connection that ends is the upstream's answer, not a stale one.
        let always = FaultUpstream::start([once, vec![Step::ReadHead, end]]).await;
        let forebay = Forebay::start(&config(&[always.address], "")).await;
        first(&forebay).await;
        assert_eq!(http::get(forebay.address(), "/second").await.unwrap().status, 502);
        assert_eq!((logged(&forebay, "/second").await["attempts"].as_u64(), always.accepted()), (Some(2), 2));
        at_rest(&forebay).await;
    }
}

#[tokio::test]
async fn connections_are_used_again_and_counted_once() {
    let server = FaultUpstream::start([scripts::ok()]).await;
    let forebay = Forebay::start(&config(&[server.address], "")).await;

    clean(&forebay, "/").await;

    let scrape = at_rest(&forebay).await;
    assert_eq!(server.accepted(), 1);
    assert_eq!(upstream(&scrape, "connections_opened_total"), 1.0);
    assert_eq!(upstream(&scrape, "connections_reused_total"), 19.0);
    assert_eq!(upstream(&scrape, "connections_closed_total"), 0.0);
    assert_eq!(upstream(&scrape, "connections_idle"), 1.0);
}

#[tokio::test]
async fn no_more_connections_rest_than_are_allowed_and_none_for_longer() {
    let answer = vec![Step::ReadHead, Step::Pause(ms(300)), Step::Send(scripts::OK.to_vec()), Step::Repeat];
    let server = FaultUpstream::start([answer]).await;
    let settings = "max_idle_connections = 2\ntimeouts = { idle = \"1500ms\" }";
    let forebay = Forebay::start(&config(&[server.address], settings)).await;

    let answers = join_all((0..6).map(|_| http::get(forebay.address(), "/"))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
    assert_eq!(server.accepted(), 6);

    eventually("all but two are closed", async || (server.open() == 2).then_some(())).await;
    let scrape = at_rest(&forebay).await;
    assert_eq!((upstream(&scrape, "connections_idle"), upstream(&scrape, "connections_closed_total")), (2.0, 4.0));

    server.abandoned().await;
    let scrape = at_rest(&forebay).await;
    assert_eq!((upstream(&scrape, "connections_idle"), upstream(&scrape, "connections_closed_total")), (0.0, 6.0));
}
