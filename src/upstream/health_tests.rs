//! The thresholds without sockets, the task under the paused clock, the probe over loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use rand::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::*;
use crate::config::model::{EndpointAddress, StatusRange};
use crate::telemetry::Telemetry;

const SECOND: Duration = Duration::from_secs(1);

fn check() -> HealthCheck {
    HealthCheck {
        path: "/healthz".into(),
        interval: 10 * SECOND,
        timeout: SECOND,
        unhealthy_after: 3,
        healthy_after: 2,
        expect: vec![StatusRange { first: 200, last: 299 }],
    }
}

fn transitions(outcomes: &[bool]) -> Vec<Option<Transition>> {
    let mut health = Health::default();
    outcomes.iter().map(|healthy| health.observe(*healthy, &check())).collect()
}

#[test]
fn failures_in_a_row_take_an_endpoint_out() {
    assert_eq!(transitions(&[false, false, false]), [None, None, Some(Transition::Down)]);
    assert_eq!(transitions(&[false, false, true, false, false]), [None; 5], "a success begins the count anew");
}

#[test]
fn successes_in_a_row_bring_it_back() {
    let outcomes = [false, false, false, true, false, true, true, true];

    let changes = transitions(&outcomes);

    assert_eq!(changes[6], Some(Transition::Up));
    assert_eq!(changes.iter().flatten().count(), 2);
}

/// Statuses by the port of the endpoint; a port that is missing never answers.
#[derive(Default)]
struct Fake {
    statuses: Mutex<HashMap<u16, u16>>,
    asked: Mutex<Vec<Instant>>,
}

impl Probe for Fake {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, path: &'a str) -> BoxFuture<'a, Result<u16, ProbeError>> {
        assert_eq!(path, "/healthz");
        self.asked.lock().unwrap().push(Instant::now());
        let status = self.statuses.lock().unwrap().get(&endpoint.address.port()).copied();
        Box::pin(async move {
            match status {
                Some(status) => Ok(status),
                None => std::future::pending().await,
            }
        })
    }
}

fn endpoints(ports: &[u16]) -> Arc<EndpointSet> {
    let configured: Vec<_> =
        ports.iter().map(|port| EndpointAddress::Socket(SocketAddr::from(([127, 0, 0, 1], *port)))).collect();
    EndpointSet::new(&configured, Vec::new())
}

fn up(set: &EndpointSet) -> Vec<bool> {
    set.status().iter().map(|status| status.up).collect()
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_fail_or_hang_are_taken_out_and_come_back() {
    let (set, fake, stop) = (endpoints(&[1, 2, 3]), Arc::new(Fake::default()), CancellationToken::new());
    fake.statuses.lock().unwrap().extend([(1, 200), (2, 503)]);
    let probe: Arc<dyn Probe> = Arc::clone(&fake) as _;
    let rng = SmallRng::seed_from_u64(1);
    let task = tokio::spawn(run(Telemetry::quiet().upstream("u"), Arc::clone(&set), check(), probe, rng, stop.clone()));

    sleep(5 * SECOND).await;
    assert_eq!(up(&set), [true, true, true], "one failure is not enough");
    sleep(25 * SECOND).await;
    assert_eq!(up(&set), [true, false, false], "refused by status and by timeout");

    fake.statuses.lock().unwrap().extend([(2, 204), (3, 200)]);
    sleep(25 * SECOND).await;
    assert_eq!(up(&set), [true, true, true]);

    stop.cancel();
    tokio::time::timeout(SECOND, task).await.expect("ends at once").unwrap();
}

#[tokio::test(start_paused = true)]
async fn rounds_are_spread_by_a_tenth_of_the_interval() {
    let (set, fake, stop) = (endpoints(&[1]), Arc::new(Fake::default()), CancellationToken::new());
    fake.statuses.lock().unwrap().insert(1, 200);
    let probe: Arc<dyn Probe> = Arc::clone(&fake) as _;
    let _guard = stop.clone().drop_guard();
    tokio::spawn(run(Telemetry::quiet().upstream("u"), set, check(), probe, SmallRng::seed_from_u64(2), stop));

    sleep(500 * SECOND).await;

    let asked = fake.asked.lock().unwrap();
    let gaps: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (8990..=11_010).contains(&gap.as_millis())), "{gaps:?}");
    assert!(gaps.iter().min() != gaps.iter().max());
}

/// Answers one connection with these bytes; returns what was asked.
async fn answering(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let length = stream.read(&mut asked).await.unwrap();
        asked.truncate(length);
        stream.write_all(answer).await.unwrap();
        asked
    });
    (address, task)
}

async fn probe(address: SocketAddr) -> Result<u16, ProbeError> {
    let set = EndpointSet::new(&[EndpointAddress::Socket(address)], Vec::new());
    HttpProbe { http2: false }.probe(&set.endpoints()[0], "/healthz?deep=1").await
}

#[tokio::test]
async fn the_probe_asks_in_plain_http_and_returns_the_status() {
    let (address, server) = answering(b"HTTP/1.1 204 No Content\r\n\r\n").await;

    assert_eq!(probe(address).await.unwrap(), 204);

    let asked = String::from_utf8(server.await.unwrap()).unwrap().to_lowercase();
    assert!(asked.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {address}\r\n")), "{asked}");
}

#[tokio::test]
async fn a_probe_that_gets_no_answer_says_why() {
    let (address, _server) = answering(b"nonsense\r\n\r\n").await;
    assert!(matches!(probe(address).await, Err(ProbeError::Failed(_))));

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = probe(closed).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot connect"), "{error}");
}
