//! The simulator over loopback sockets. Waits are conditions with a deadline; lower bounds of times are exact, upper
//! ones generous.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::settings::{Fault, FaultKind, Latency};
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A running simulator; stops when dropped.
struct Running {
    handle: Handle,
    cancel: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    fn start(upstream: Upstream) -> Self {
        let name = upstream.name.clone();
        let simulator = Simulator::bind(Settings { seed: 1, upstreams: vec![upstream], ..Settings::default() })
            .expect("a free port");
        let handle = simulator.handle(&name).expect("the only upstream");
        let (cancel, cancelled) = oneshot::channel();
        let task = tokio::spawn(simulator.run(async { drop(cancelled.await) }));
        Self { handle, cancel: Some(cancel), task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.handle.address).await.expect("the simulator listens")
    }

    /// Sends a request and returns all that comes until the connection ends, and how it ended.
    async fn exchange(&self, target: &str) -> (String, io::Result<()>) {
        let mut stream = self.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut received = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut received)).await.expect("the answer ends");
        (String::from_utf8_lossy(&received).into_owned(), ended.map(drop))
    }

    async fn get(&self, target: &str) -> String {
        let (answer, ended) = self.exchange(target).await;
        ended.expect("an orderly end");
        answer
    }

    async fn wait_for(&self, what: &str, is: impl Fn(Stats) -> bool) {
        let reached = async {
            while !is(self.handle.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.handle.stats()));
    }
}

fn slow(name: &str, millis: u64) -> Upstream {
    Upstream { latency: Latency::Fixed(Duration::from_millis(millis)), ..Upstream::new(name) }
}

fn faulty(kind: FaultKind) -> Upstream {
    Upstream { body: "abcdefgh".to_owned(), faults: vec![Fault { kind, probability: 1.0 }], ..Upstream::new("faulty") }
}

#[tokio::test]
async fn answers_after_its_latency_with_its_template() {
    let sim = Running::start(slow("users", 100));

    let started = Instant::now();
    let answer = sim.get("/users/7?x=1").await;

    assert!(started.elapsed() >= Duration::from_millis(100));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json"), "{answer}");
    assert!(answer.ends_with("{\"upstream\": \"users\", \"path\": \"/users/7\", \"n\": 0}\n"), "{answer}");
}

#[tokio::test]
async fn without_a_limit_requests_do_not_wait_for_each_other() {
    let sim = Running::start(slow("wide", 300));

    let started = Instant::now();
    futures_util::future::join_all((0..50).map(|_| sim.get("/"))).await;

    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(sim.handle.stats().requests, 50);
    assert!(sim.handle.stats().peak_in_service > 10, "{:?}", sim.handle.stats());
}

#[tokio::test]
async fn a_sync_server_serves_one_after_the_other() {
    let sim = Running::start(Upstream { capacity: Capacity::Sync { queue: 5 }, ..slow("sync", 50) });

    let started = Instant::now();
    let answers = futures_util::future::join_all((0..5).map(|_| sim.get("/"))).await;

    assert!(started.elapsed() >= Duration::from_millis(5 * 50));
    assert!(answers.iter().all(|answer| answer.contains("connection: close")), "{answers:?}");
    let stats = sim.handle.stats();
    assert_eq!((stats.requests, stats.peak_in_service), (5, 1));
    assert!(stats.peak_queued >= 2, "{stats:?}");
}

#[tokio::test]
async fn a_silent_client_of_a_sync_server_keeps_the_others_waiting() {
    let sim = Running::start(Upstream { capacity: Capacity::Sync { queue: 5 }, ..slow("sync", 0) });

    let silent = sim.connect().await;
    sim.wait_for("the silent client is served", |stats| stats.in_service == 1).await;
    let other = sim.get("/");
    tokio::pin!(other);
    tokio::select! {
        _ = &mut other => panic!("served while the worker was taken"),
        () = sim.wait_for("the other waits", |stats| stats.queued == 1) => {}
    }
    drop(silent);

    assert!(other.await.contains("200 OK"));
}

#[tokio::test]
async fn a_full_queue_refuses_with_503() {
    let capacity = Capacity::Workers { workers: NonZeroUsize::MIN, queue: 1 };
    let sim = Running::start(Upstream { capacity, ..slow("narrow", 60_000) });

    let served = sim.get("/1");
    let waiting = sim.get("/2");
    let third = async {
        sim.wait_for("one works, one waits", |stats| (stats.in_service, stats.queued) == (1, 1)).await;
        sim.get("/3").await
    };
    let answer = tokio::select! {
        _ = served => unreachable!("it takes a minute"),
        _ = waiting => unreachable!("it waits for a minute"),
        answer = third => answer,
    };

    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    assert_eq!(sim.handle.stats().refused, 1);
    sim.wait_for("clients that left give their places back", |s| (s.in_service, s.queued) == (0, 0)).await;
}

#[tokio::test]
async fn speaks_http2_with_prior_knowledge() {
    let sim = Running::start(slow("h2", 0));
    let io = TokioIo::new(sim.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
    let connection = tokio::spawn(connection);

    let request = http::Request::get("http://sim/x").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.expect("an answer");

    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(response.into_body().collect().await.unwrap().to_bytes().starts_with(b"{\"upstream\": \"h2\""));
    connection.abort();
}

#[tokio::test]
async fn a_reset_before_the_head_sends_nothing() {
    let (answer, ended) = Running::start(faulty(FaultKind::ResetBeforeHead)).exchange("/").await;

    assert_eq!(answer, "");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_mid_body_sends_the_head_and_half() {
    let (answer, ended) = Running::start(faulty(FaultKind::ResetMidBody)).exchange("/").await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabcd"), "{answer}");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_truncated_answer_ends_in_an_orderly_way_too_early() {
    let answer = Running::start(faulty(FaultKind::Truncate)).get("/").await;

    assert!(answer.contains("content-length: 8\r\n") && answer.ends_with("\r\n\r\nabcd"), "{answer}");
}

#[tokio::test]
async fn a_length_too_short_leaves_bytes_over() {
    let answer = Running::start(faulty(FaultKind::LengthTooShort)).get("/").await;

    assert!(answer.contains("content-length: 4\r\n") && answer.ends_with("\r\n\r\nabcdefgh"), "{answer}");
}

#[tokio::test]
async fn garbage_is_no_http() {
    assert!(!Running::start(faulty(FaultKind::Garbage)).get("/").await.starts_with("HTTP"));
}

#[tokio::test]
async fn a_stall_mid_body_sends_half_and_keeps_the_worker() {
    let sim = Running::start(faulty(FaultKind::StallMidBody));
    let mut stream = sim.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: sim\r\n\r\n").await.unwrap();

    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\nabcd") {
        timeout(PATIENCE, stream.read_buf(&mut received)).await.expect("half of the body comes").unwrap();
    }

    assert_eq!(sim.handle.stats().in_service, 1);
    drop(stream);
    sim.wait_for("the client's leaving frees the worker", |stats| stats.in_service == 0).await;
}

#[tokio::test]
async fn a_stall_before_the_head_sends_nothing_and_ends_with_the_client() {
    let sim = Running::start(faulty(FaultKind::StallBeforeHead));
    let mut stream = sim.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: sim\r\n\r\n").await.unwrap();

    sim.wait_for("the request is taken", |stats| stats.in_service == 1).await;
    assert!(timeout(Duration::from_millis(50), stream.read_u8()).await.is_err());
    drop(stream);
    sim.wait_for("the client's leaving frees the worker", |stats| stats.in_service == 0).await;
}

#[tokio::test]
async fn a_drip_takes_its_time() {
    let interval = Duration::from_millis(20);
    let sim = Running::start(faulty(FaultKind::Drip { bytes: NonZeroUsize::new(2).unwrap(), interval }));

    let started = Instant::now();
    let answer = sim.get("/").await;

    assert!(answer.ends_with("\r\n\r\nabcdefgh"), "{answer}");
    assert!(started.elapsed() >= 3 * interval, "four pieces, three pauses");
}

#[tokio::test]
async fn a_fault_over_http2_leaves_the_connection_to_the_other_streams() {
    let sim = Running::start(faulty(FaultKind::ResetBeforeHead));
    let io = TokioIo::new(sim.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let request = || http::Request::get("http://sim/").body(Empty::<Bytes>::new()).unwrap();

    assert!(sender.send_request(request()).await.is_err());
    assert!(sender.ready().await.is_ok(), "the connection lives");
    assert!(sender.send_request(request()).await.is_err());

    assert_eq!(sim.handle.stats().accepted, 1);
    connection.abort();
}

#[tokio::test]
async fn requests_control_the_answer_only_where_that_is_allowed() {
    let closed = Running::start(slow("closed", 0));
    assert!(closed.get("/?status=503").await.starts_with("HTTP/1.1 200"));

    let open = Running::start(Upstream { allow_control: true, ..slow("open", 60_000) });
    assert!(open.get("/?delay=1ms&status=503").await.starts_with("HTTP/1.1 503"));
    assert!(open.get("/?delay=soon").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_request_says_in_its_headers_how_long_it_is_to_be_held() {
    let sim = Running::start(Upstream { allow_control: true, ..slow("open", 60_000) });
    let mut stream = sim.connect().await;

    let request =
        b"GET / HTTP/1.1\r\nhost: sim\r\nx-forebay-delay: 5ms\r\nx-forebay-status: 418\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the answer ends").unwrap();

    assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
}

#[tokio::test]
async fn bad_json_is_a_whole_answer() {
    let answer = Running::start(faulty(FaultKind::BadJson)).get("/").await;

    assert!(answer.contains("content-length: 4\r\n") && answer.ends_with("\r\n\r\nabcd"), "{answer}");
}

#[tokio::test]
async fn a_slow_head_comes_in_pieces_and_keeps_its_worker() {
    let (bytes, interval) = (NonZeroUsize::new(20).unwrap(), Duration::from_millis(20));
    let sim = Running::start(faulty(FaultKind::SlowHead { bytes, interval }));

    let started = Instant::now();
    let (answer, in_service) = tokio::join!(sim.get("/"), async {
        sim.wait_for("it is served", |stats| stats.in_service == 1).await;
        sim.handle.stats().in_service
    });

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nabcdefgh"), "{answer}");
    assert!(started.elapsed() >= 3 * interval, "more than 60 bytes");
    assert_eq!(in_service, 1);
    sim.wait_for("its worker is free again", |stats| stats.in_service == 0).await;
}

#[tokio::test]
async fn a_slow_head_over_http2_comes_late() {
    let (bytes, interval) = (NonZeroUsize::new(20).unwrap(), Duration::from_millis(20));
    let sim = Running::start(faulty(FaultKind::SlowHead { bytes, interval }));
    let io = TokioIo::new(sim.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
    let connection = tokio::spawn(connection);

    let started = Instant::now();
    let request = http::Request::get("http://sim/x").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.expect("an answer");

    assert!(started.elapsed() >= 3 * interval);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "abcdefgh");
    connection.abort();
}

#[tokio::test]
async fn large_bodies_have_their_size() {
    let answer = Running::start(Upstream { body_size: 300_000, ..slow("large", 0) }).get("/").await;

    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-length: 300000"), "{head}");
    assert_eq!(body.len(), 300_000);
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
}

#[tokio::test]
async fn a_stall_holds_requests_until_it_is_over() {
    let stall = settings::Change { lasts: Some(Duration::from_millis(150)), stall: true, ..Default::default() };
    let upstream = Upstream {
        schedule: settings::Schedule { changes: vec![stall] },
        schedule_from: settings::ScheduleFrom::FirstRequest,
        ..slow("stalls", 0)
    };
    let sim = Running::start(upstream);

    let started = Instant::now();
    sim.get("/").await;

    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(sim.handle.hold_error().count, 1);
}

#[tokio::test]
async fn shared_workers_slow_each_other_down() {
    let capacity = Capacity::Workers { workers: NonZeroUsize::MIN, queue: 10 };
    let sim = Running::start(Upstream { capacity, discipline: settings::Discipline::Ps, ..slow("shared", 60) });

    let started = Instant::now();
    futures_util::future::join_all((0..3).map(|_| sim.get("/"))).await;

    assert!(started.elapsed() >= Duration::from_millis(3 * 60), "the last one ends when all work is done");
    assert_eq!(sim.handle.stats().peak_in_service, 3);
}

#[tokio::test]
async fn the_numbers_are_shown_at_their_own_address() {
    let metrics = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let settings = Settings { metrics, upstreams: vec![slow("users", 0)], ..Settings::default() };
    let simulator = Simulator::bind(settings).expect("free ports");
    let address = simulator.metrics_address().expect("it listens");
    let task = tokio::spawn(simulator.run(std::future::pending()));

    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the answer ends").unwrap();

    assert!(answer.contains("simulated_requests_total{upstream=\"users\"} 0\n"), "{answer}");
    task.abort();
}

#[tokio::test]
async fn errors_come_in_the_order_that_the_seed_says() {
    let flaky = Upstream { errors: vec![(StatusCode::INTERNAL_SERVER_ERROR, 0.5)], ..slow("flaky", 0) };
    let sim = Running::start(flaky.clone());

    for n in 0..20 {
        let expected = format!("HTTP/1.1 {}", draw(1, &flaky, n).status);
        let answer = sim.get("/").await;
        assert!(answer.starts_with(&expected), "request {n}: {answer}");
    }
}

#[tokio::test]
async fn cancelling_cuts_what_is_in_service() {
    let mut sim = Running::start(slow("slow", 60_000));
    let mut stream = sim.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: sim\r\n\r\n").await.unwrap();
    sim.wait_for("the request is taken", |stats| stats.in_service == 1).await;

    sim.cancel.take().unwrap().send(()).unwrap();
    timeout(PATIENCE, &mut sim.task).await.expect("it stops").unwrap().unwrap();

    assert_eq!(sim.handle.stats().in_service, 0);
    assert!(TcpStream::connect(sim.handle.address).await.is_err());
}

#[test]
fn an_address_in_use_is_named_in_the_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = Upstream { address: taken.local_addr().unwrap(), ..Upstream::new("users") };

    let error = Simulator::bind(Settings { upstreams: vec![upstream], ..Settings::default() }).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("[upstream.users]: cannot listen on 127.0.0.1:"), "{error}");
}
