//! The admin listener over real sockets and a data path that is ready or not.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::Config;
use crate::config::model::Secret;
use crate::shutdown::Phase;
use crate::telemetry::exposition::Format;

#[derive(Default)]
struct FakePath {
    unready: AtomicBool,
}

impl DataPath for FakePath {
    fn reload(&self, _config: Arc<Config>) -> Result<(), String> {
        Ok(())
    }

    fn serve(&self, _socket: TcpListener, _listener: &str, _stop: CancellationToken) {}

    fn open_requests(&self) -> usize {
        0
    }

    fn open_connections(&self) -> usize {
        0
    }

    fn ready(&self) -> bool {
        !self.unready.load(Ordering::Relaxed)
    }
}

pub(super) struct Bench {
    pub(super) admin: Arc<Admin>,
    path: Arc<FakePath>,
    lifecycle: Lifecycle,
}

pub(super) fn bench(token: Option<&str>) -> Bench {
    let mut config = crate::config::defaults().config;
    config.admin.token = token.map(Secret::secret);
    let version = ConfigVersion {
        config: Arc::new(config),
        effective: json!({ "listener.default.address": "127.0.0.1:8080" }),
        warnings: vec!["be careful".into()],
        watched_files: Vec::new(),
    };
    let view = View { version, last_reload: None, pending_restart: vec!["runtime.threads"] };
    let (path, lifecycle) = (Arc::new(FakePath::default()), Lifecycle::new());
    lifecycle.advance(Phase::Serving);
    let admin = Admin::new(
        "127.0.0.1:9901".parse().unwrap(),
        lifecycle.clone(),
        Arc::clone(&path) as Arc<dyn DataPath>,
        Telemetry::quiet(),
        Arc::new(ArcSwap::from_pointee(view)),
    );
    Bench { admin, path, lifecycle }
}

impl Bench {
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = pages::answer(&self.admin, request, Ends::default()).await;
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()["cache-control"], "no-store");
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, String::from_utf8_lossy(&body).into_owned())
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String, String) {
        self.ask(Method::GET, path, &[]).await
    }
}

#[tokio::test]
async fn readiness_follows_the_phase_and_the_data_path() {
    let bench = bench(None);
    assert_eq!(bench.get("/readyz").await.0, StatusCode::OK);

    bench.path.unready.store(true, Ordering::Relaxed);
    assert_eq!(bench.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    bench.path.unready.store(false, Ordering::Relaxed);

    for (phase, word) in [(Phase::Lame, "stopping"), (Phase::Draining, "draining")] {
        bench.lifecycle.advance(phase);
        let (status, _, body) = bench.get("/readyz").await;
        assert_eq!((status, body), (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {word}\n")));
        assert_eq!(bench.get("/livez").await.0, StatusCode::OK, "a draining process is alive");
    }
}

#[tokio::test]
async fn metrics_are_negotiated() {
    let bench = bench(None);

    let (status, content_type, body) = bench.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    assert!(body.contains("# TYPE "), "{body}");

    let accept = [("accept", "application/openmetrics-text;version=1.0.0")];
    let (_, content_type, body) = bench.ask(Method::GET, "/metrics", &accept).await;
    assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test(start_paused = true)]
async fn a_scrape_that_waits_too_long_is_told_so() {
    let bench = bench(None);
    let _encoding = bench.admin.scrapes.turns[Format::Text as usize].last.lock().await;

    let (status, content_type, _) = bench.get("/metrics").await;

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(content_type, "application/problem+json");
}

#[tokio::test]
async fn the_configuration_is_shown_with_what_waits_for_a_restart() {
    let bench = bench(None);

    let (status, content_type, body) = bench.get("/config").await;

    assert_eq!((status, content_type.as_str()), (StatusCode::OK, "application/json"));
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(shown["effective"]["listener.default.address"], "127.0.0.1:8080");
    assert_eq!(shown["pending_restart"], json!(["runtime.threads"]));
    assert_eq!(shown["warnings"], json!(["be careful"]));
    assert_eq!(shown["last_reload"], Value::Null);
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_a_problem() {
    let bench = bench(None);
    for (method, path, expected) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, "/metrics/", 404),
        (Method::POST, "/metrics", 405),
        (Method::DELETE, "/nothing", 405),
    ] {
        let (status, content_type, body) = bench.ask(method.clone(), path, &[]).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}");
        assert_eq!(content_type, "application/problem+json");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], expected);
    }
}

#[tokio::test]
async fn the_index_lists_every_page() {
    let bench = bench(None);
    let (_, _, index) = bench.get("/").await;
    for page in
        ["/metrics", "/livez", "/readyz", "/version", "/overview", "/latency", "/requests", "/limits", "/config"]
    {
        assert!(index.contains(page), "{page}");
        assert_eq!(bench.get(page).await.0, StatusCode::OK, "{page}");
    }
}

#[tokio::test]
async fn the_token_never_shows() {
    let bench = bench(Some("t0p-secret"));
    let headers = [("authorization", "Bearer t0p-secret")];
    for page in ["/", "/metrics", "/config", "/version", "/overview", "/requests", "/events", "/assets/page.js"] {
        if page == "/events" {
            assert_eq!(bench.get(page).await.0, StatusCode::UNAUTHORIZED, "a stream does not end");
            continue;
        }
        let (status, _, body) = bench.ask(Method::GET, page, &headers).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert!(!body.contains("t0p-secret"), "{page}");
        assert_eq!(bench.get(page).await.0, StatusCode::UNAUTHORIZED, "{page}");
    }
}

#[tokio::test]
async fn no_more_scrapes_wait_than_leave_room_for_probes() {
    let bench = bench(None);
    let _all = bench.admin.scrapes.places.acquire_many(MAX_SCRAPES as u32).await.unwrap();

    let (status, _, body) = bench.get("/metrics").await;

    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("too many scrapes at once"), "{body}");
}

/// A served admin listener.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

pub(super) fn serve(bench: &Bench) -> Served {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let (tasks, stop) = (Tasks::default(), CancellationToken::new());
    bench.admin.serve(socket, &tasks, stop.clone()).unwrap();
    Served { address, tasks, stop }
}

impl Served {
    /// The answer to a probe, which has a second.
    async fn probe(&self) -> String {
        let probe = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::time::timeout(Duration::from_secs(1), probe).await.expect("an answer within a second")
    }

    /// More connections than there are places, each of which has sent `request`.
    async fn crowd(&self, request: &[u8]) -> Vec<TcpStream> {
        let mut crowd = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request).await.unwrap();
            crowd.push(stream);
        }
        crowd
    }
}

#[tokio::test]
async fn a_probe_is_answered_though_silent_connections_take_every_place() {
    let bench = bench(None);
    let served = serve(&bench);
    for begun in ["", "GET /livez HT"] {
        let _crowd = served.crowd(begun.as_bytes()).await;
        for _ in 0..3 {
            let answer = served.probe().await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_probe_is_answered_though_nobody_reads_the_answers() {
    let bench = bench(None);
    let served = serve(&bench);
    let requests = "GET /config HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let _crowd = served.crowd(requests.as_bytes()).await;

    let answer = served.probe().await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn who_gets_no_place_is_told_so() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (stream, _) = socket.accept().await.unwrap();
    stream.readable().await.unwrap();

    refuse(&stream);
    drop(stream);

    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
}

/// Sends bytes to a served admin listener and returns all that comes back.
async fn exchange(bench: &Bench, request: &str) -> String {
    let Served { address, tasks, stop } = serve(bench);

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
    read.await.expect("the connection was closed").unwrap();
    stop.cancel();
    assert!(tasks.wait_idle(Duration::from_secs(10)).await, "everything ends with the listener");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn head_has_the_length_but_no_body() {
    let bench = bench(None);

    let answer = exchange(&bench, "HEAD /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 6\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_page_of_another_name_gets_nothing() {
    let bench = bench(None);

    let answer = exchange(&bench, "GET /config HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}
