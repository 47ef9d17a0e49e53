//! Upgraded connections: who may switch, what flows, and how they end.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::certificates::Authority;
use super::listener;
use super::recorder::{Recorder, values};
use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http::{Connection, get};
use crate::support::{SLACK, eventually};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Accepts every handshake, greets, and sends back what comes, until the client ends its side; then says goodbye.
struct Echo {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        Self::serve(|stream| tokio::spawn(echo(stream))).await
    }

    /// Over TLS, by ALPN also an HTTP/2 server, which answers 204 to everything.
    async fn secure(tls: TlsAcceptor) -> Self {
        Self::serve(move |stream| {
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream = tls.accept(stream).await?;
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => no_content(stream).await.map_err(std::io::Error::other),
                    _ => echo(stream).await,
                }
            })
        })
        .await
    }

    async fn serve(each: impl Fn(TcpStream) -> JoinHandle<std::io::Result<()>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                each(stream);
            }
        });
        Self { address, task }
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert_eq!(values(&head, "connection"), ["upgrade"], "{head}");
    assert_eq!(values(&head, "upgrade"), ["websocket"], "{head}");
    // The greeting comes in one packet with the head.
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
                  sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello ";
    stream.write_all(answer.as_bytes()).await?;
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await?;
    write.write_all(b" goodbye").await?;
    write.shutdown().await
}

async fn no_content(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let answer = http::Response::builder().status(204).body(()).expect("a head");
        respond.send_response(answer, true)?;
    }
    Ok(())
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn upgrading(upstream: SocketAddr, more: &str) -> String {
    format!(
        "[upstream.app]\nendpoints = [\"{upstream}\"]\n\n[route.ws]\npath = \"/*\"\nupstream = \"app\"\n\
         upgrades = [\"websocket\"]\n{more}\n"
    )
}

/// Switches and reads the greeting.
async fn switched(forebay: &Forebay) -> Connection {
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send(HANDSHAKE).await.unwrap();
    let answer = connection.response().await.unwrap();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!((answer.header("upgrade"), answer.header("connection")), (Some("WebSocket"), Some("upgrade")));
    assert!(answer.header("sec-websocket-accept").is_some());
    connection
}

/// Everything up to the end, with what was read already.
async fn rest(mut connection: Connection) -> String {
    String::from_utf8(connection.rest().await.unwrap()).unwrap()
}

#[tokio::test]
async fn bytes_flow_both_ways_and_each_side_may_end_first() {
    let upstream = Echo::start().await;
    let forebay = Forebay::start(&upgrading(upstream.address, "deadline = \"1s\"\n")).await;
    let mut connection = switched(&forebay).await;
    let scrape = forebay.scrape().await;
    assert_eq!(scrape.sum("forebay_requests_in_flight", &[("route", "ws")]), 1.0, "it is one request until it ends");
    assert!(forebay.access_log().is_empty());
    let big = "x".repeat(300_000);

    let (mut read, mut write) = connection.stream.split();
    let sending = async {
        write.write_all(big.as_bytes()).await.unwrap();
        // The client ends its side; the upstream's goodbye still comes.
        write.shutdown().await.unwrap();
    };
    let mut received = String::new();
    let receiving = async { read.read_to_string(&mut received).await.unwrap() };
    tokio::join!(sending, receiving);

    let received = rest(connection).await + &received;
    assert!(received.starts_with("hello x") && received.ends_with("x goodbye"), "{}", received.len());
    assert_eq!(received.len(), "hello ".len() + big.len() + " goodbye".len());
    let log = forebay.access_log_of(1).await;
    assert_eq!((&log[0]["status"], &log[0]["reason"]), (&101.into(), &"ok".into()), "{log:?}");
    assert_eq!(log[0]["bytes_in"], big.len(), "{log:?}");
    assert_eq!(log[0]["bytes_out"], received.len(), "{log:?}");
    forebay.idle().await;
    assert_eq!(forebay.access_log().len(), 1);
}

/// The upgraded connection may be the last request that the connection was allowed.
#[tokio::test]
async fn the_last_request_of_a_connection_can_switch() {
    let upstream = Echo::start().await;
    let forebay =
        Forebay::start(&(listener("max_requests_per_connection = 1") + &upgrading(upstream.address, ""))).await;

    switched(&forebay).await;
}

/// `Upgrade` is a mechanism of HTTP/1.1: a connection that agreed on HTTP/2 cannot be switched, a new one can.
#[tokio::test]
async fn an_upstream_that_prefers_http2_switches_on_a_connection_of_http1() {
    let authority = Authority::new();
    let tls = Authority::server(&authority.issue("upstream.example"), &["h2", "http/1.1"]);
    let upstream = Echo::secure(tls).await;
    let tls = format!("tls = {{ server_name = \"upstream.example\", ca = \"{}\" }}", authority.ca_path().display());
    let config =
        upgrading(upstream.address, "").replace("endpoints", &format!("protocol = \"auto\"\n{tls}\nendpoints"));
    let forebay = Forebay::start(&config).await;
    // A connection of HTTP/2 is at hand, before and after.
    assert_eq!(get(forebay.address(), "/x").await.unwrap().status, 204);

    let mut connection = switched(&forebay).await;
    connection.send("over TLS").await.unwrap();
    connection.stream.shutdown().await.unwrap();

    assert_eq!(rest(connection).await, "hello over TLS goodbye");
    assert_eq!(get(forebay.address(), "/x").await.unwrap().status, 204);
    let opened = forebay.scrape().await.sum("forebay_upstream_connections_opened_total", &[("upstream", "app")]);
    assert_eq!(opened, 2.0, "other requests share the connection of HTTP/2");
}

#[tokio::test]
async fn a_silent_upgraded_connection_is_closed_and_one_that_talks_is_not() {
    let upstream = Echo::start().await;
    let forebay = Forebay::start(&upgrading(upstream.address, "upgrade_idle_timeout = \"1s\"")).await;
    let mut connection = switched(&forebay).await;
    let started = Instant::now();
    // Longer than the limit in all, never silent for as long.
    while started.elapsed() < Duration::from_millis(1500) {
        connection.send("x").await.unwrap();
        let mut byte = [0];
        let _ = tokio::time::timeout(Duration::from_millis(200), connection.stream.read(&mut byte)).await;
    }
    let silent = Instant::now();

    let _ = connection.rest().await;

    assert!(silent.elapsed() >= Duration::from_millis(700), "{:?}", silent.elapsed());
    assert_eq!(forebay.access_log_of(1).await[0]["reason"], "upgrade_idle");
    forebay.idle().await;
}

#[tokio::test]
async fn a_websocket_that_the_route_does_not_allow_is_refused() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&super::proxied(upstream.address)).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    connection.send(HANDSHAKE).await.unwrap();

    let answer = connection.response().await.unwrap();
    assert_eq!((answer.status, answer.reason()), (403, Some("upgrade_refused")));
    assert!(upstream.requests().is_empty());
}

/// Other protocols are not offered to the upstream; the request is an ordinary one.
#[tokio::test]
async fn an_upgrade_that_may_be_ignored_is_ignored() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&upgrading(upstream.address, "")).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    let fields = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    connection.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await.unwrap();

    assert_eq!(connection.response().await.unwrap().text(), "ok");
    assert!(values(&upstream.request(), "upgrade").is_empty());
}

/// Row 7.
#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_502() {
    let unasked = FaultUpstream::start([scripts::unasked_upgrade()]).await;
    let other = FaultUpstream::answering("HTTP/1.1 101 S\r\nupgrade: other\r\nconnection: upgrade\r\n\r\n").await;

    for (upstream, request) in [(&unasked, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"), (&other, HANDSHAKE)] {
        let forebay = Forebay::start(&upgrading(upstream.address, "")).await;
        let mut connection = Connection::open(forebay.address()).await.unwrap();
        connection.send(request).await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!((answer.status, answer.reason()), (502, Some("unexpected_upgrade")));
        upstream.abandoned().await;
    }
}

/// An upstream that does not want to switch answers, and the answer passes.
#[tokio::test]
async fn a_refusal_of_the_upstreams_passes() {
    let upstream = Recorder::start("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno").await;
    let forebay = Forebay::start(&upgrading(upstream.address, "")).await;
    let mut connection = Connection::open(forebay.address()).await.unwrap();

    for _ in 0..2 {
        connection.send(HANDSHAKE).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 426);
    }
}

#[tokio::test]
async fn an_open_websocket_holds_its_permit_and_ends_with_the_drain_limit() {
    let upstream = Echo::start().await;
    let shutdown = "[shutdown]\naccept_grace = \"0s\"\ndrain_timeout = \"1s\"\n";
    let mut forebay = Forebay::start(&(upgrading(upstream.address, "max_in_flight = 1") + shutdown)).await;
    let open = switched(&forebay).await;
    let mut second = Connection::open(forebay.address()).await.unwrap();
    second.send(HANDSHAKE).await.unwrap();
    assert_eq!(second.response().await.unwrap().reason(), Some("queue_full"));

    forebay.signal(Signal::TERM);
    let asked = Instant::now();
    forebay.process.ended().await;

    assert!(asked.elapsed() >= Duration::from_millis(900) && asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert!(rest(open).await.starts_with("hello "));
}

/// When either side breaks the connection, the other one is told and nothing stays.
#[tokio::test]
async fn a_client_that_breaks_off_ends_the_tunnel() {
    let upstream = Echo::start().await;
    let forebay = Forebay::start(&upgrading(upstream.address, "")).await;
    let connection = switched(&forebay).await;

    connection.stream.set_zero_linger().unwrap();
    drop(connection);

    let log = forebay.access_log_of(1).await;
    assert_eq!(log[0]["status"], 101, "{log:?}");
    forebay.idle().await;
    eventually("its connection is closed", async || {
        (forebay.scrape().await.sum("forebay_connections_open", &[]) == 0.0).then_some(())
    })
    .await;
}
