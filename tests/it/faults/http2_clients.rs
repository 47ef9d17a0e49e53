//! Clients that speak HTTP/2: a broken answer is a reset stream, never a clean end, and the connection lives on.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::server::Server;
use super::{about, at_rest, logged, ms};
use crate::support::eventually;
use crate::support::fault_upstream::{FaultUpstream, Step, scripts};
use crate::support::forebay::Forebay;

struct Client {
    sender: SendRequest<Empty<Bytes>>,
    /// The connection's own, to break it: hyper keeps it open as long as an answer is held.
    socket: std::net::TcpStream,
}

impl Client {
    async fn open(forebay: &Forebay) -> Self {
        let stream = TcpStream::connect(forebay.address()).await.unwrap().into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, socket }
    }

    async fn get(&mut self, path: &str) -> hyper::Result<hyper::Response<Incoming>> {
        let request = Request::get(format!("http://forebay.test{path}")).body(Empty::new()).unwrap();
        self.sender.send_request(request).await
    }
}

async fn forebay(upstream: std::net::SocketAddr, settings: &str) -> Forebay {
    Forebay::start(&format!(
        r#"
        [listener]
        address = "127.0.0.1:0"
        timeouts = {{ write = "500ms" }}
        [upstream.up]
        endpoints = ["{upstream}"]
        timeouts = {{ first_byte = "600ms", between_bytes = "400ms" }}
        [route.up]
        path = "/*"
        upstream = "up"
        deadline = "1500ms"
        {settings}
        "#
    ))
    .await
}

#[tokio::test]
async fn broken_answers_are_reset_streams_and_the_connection_lives_on() {
    let server = Server::start().await;
    let forebay = forebay(server.address, "").await;
    let mut client = Client::open(&forebay).await;

    for (path, reason, at) in [
        ("/drip", "deadline_in_body", 1500),
        ("/silent", "between_bytes_timeout", 600),
        ("/reset", "upstream_closed", 100),
    ] {
        let started = Instant::now();
        let response = client.get(path).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await;
        assert!(body.is_err(), "{path}: a part is not the whole");
        assert!(about(ms(at)).contains(&started.elapsed()), "{path}: {:?}", started.elapsed());
        assert_eq!(logged(&forebay, path).await["reason"], reason);
    }
    let refused = client.get("/stall").await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["x-forebay-reason"]),
        (504, &"first_byte_timeout".parse().unwrap())
    );

    let body = client.get("/ok").await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&*body, b"ok", "on the same connection");
    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_by_its_client_cancels_the_upstreams_work() {
    let server = Server::start().await;
    let forebay = forebay(server.address, "").await;

    // The stream is reset while it waits, and inside the answer; then the whole connection goes.
    let mut client = Client::open(&forebay).await;
    {
        let mut waiting = std::pin::pin!(client.get("/stall"));
        eventually("the upstream works", async || {
            let answered = futures_util::poll!(waiting.as_mut()).is_ready();
            (!answered && server.running() == 1).then_some(())
        })
        .await;
    }
    eventually("its work was cancelled", async || (server.running() == 0).then_some(())).await;
    assert_eq!(logged(&forebay, "/stall").await["reason"], "client_gone");
    let answer = client.get("/drip").await.unwrap();
    drop(answer);
    eventually("its work was cancelled", async || (server.running() == 0).then_some(())).await;
    assert_eq!(logged(&forebay, "/drip").await["reason"], "client_gone");
    let answer = client.get("/drip").await.unwrap();
    client.socket.shutdown(std::net::Shutdown::Both).unwrap();
    eventually("its work was cancelled", async || (server.running() == 0).then_some(())).await;
    drop(answer);
    let log = forebay.access_log_of(3).await;
    assert!(log.iter().all(|line| line["reason"] == "client_gone"), "{log:?}");
    at_rest(&forebay).await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_ends_at_the_write_limit() {
    let large = [b"HTTP/1.1 200 OK\r\ncontent-length: 8000000\r\n\r\n".to_vec(), vec![b'x'; 8_000_000]].concat();
    let upstream = FaultUpstream::start([vec![Step::ReadHead, Step::Send(large), Step::Stall]]).await;
    let forebay = forebay(upstream.address, "").await;
    let mut client = Client::open(&forebay).await;

    // Hyper opens the window as the body is read, which it is not.
    let started = Instant::now();
    let answer = client.get("/deaf").await.unwrap();

    assert_eq!(logged(&forebay, "/deaf").await["reason"], "write_timeout");
    assert!((ms(498)..ms(2500)).contains(&started.elapsed()), "{:?}", started.elapsed());
    upstream.abandoned().await;
    assert!(answer.into_body().collect().await.is_err());
    at_rest(&forebay).await;
}

#[tokio::test]
async fn work_that_is_to_be_finished_outlives_the_stream() {
    let script = vec![Step::ReadHead, Step::Pause(ms(300)), Step::Send(scripts::OK.to_vec()), Step::Repeat];
    let upstream = FaultUpstream::start([script]).await;
    let forebay = forebay(upstream.address, "on_client_gone = \"finish\"").await;
    let mut client = Client::open(&forebay).await;
    {
        let mut waiting = std::pin::pin!(client.get("/work"));
        eventually("the upstream has the request", async || {
            let answered = futures_util::poll!(waiting.as_mut()).is_ready();
            (!answered && upstream.heads().len() == 1).then_some(())
        })
        .await;
    }

    let line = logged(&forebay, "/work").await;

    assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &200.into()), "{line}");
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_detached_tasks_ended_total", &[("result", "finished")]), 1.0);
    assert_eq!(upstream.accepted(), 1);
}
