//! The waterfall of real requests: a delay put into one stage shows up in that one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use forebay::load::waterfall::record::Waterfall;
use forebay::load::waterfall::segments::{Segments, TITLES};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::time::sleep;

use super::super::support::eventually;
use super::super::support::fault_upstream::{FaultUpstream, Script, Step, scripts};
use super::super::support::forebay::Forebay;
use super::{Ended, Load, slow, url};

/// The injected delay; what else happens on a busy machine is shorter, most of the time.
const DELAY: Duration = Duration::from_millis(400);
const MS: f64 = 1e6;

struct Sidecar {
    forebay: Forebay,
    folder: TempDir,
}

impl Sidecar {
    async fn start(upstream: SocketAddr, of_upstream: &str, of_route: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = format!(
            "[access_log]\noutput = \"file:{}\"\n\n[upstream.slow]\nendpoints = [\"{upstream}\"]\n{of_upstream}\n\n\
             [route.slow]\npath = \"/\"\nupstream = \"slow\"\ndeadline = \"20s\"\n{of_route}\n",
            folder.path().join("access.log").display()
        );
        Self { forebay: Forebay::start(&config).await, folder }
    }

    fn load(&self, arguments: &[&str]) -> Load {
        let (address, log) = (url(self.forebay.address()), self.folder.path().join("access.log"));
        let common = [&address, "--waterfall", log.to_str().expect("UTF-8")];
        Load::start(&[&common, arguments].concat())
    }
}

fn waterfall(ended: &Ended) -> Waterfall {
    let found = ended.result.waterfall.clone().expect("asked for");
    assert_eq!(found.joined + found.missing + found.dropped + found.disagreeing, found.requests);
    for slow in &found.slowest {
        assert_eq!(slow.segments.parts().iter().sum::<u64>(), slow.response_ns, "{slow:?}");
    }
    found
}

/// All requests were joined, and each took so long in this segment in the mean. None of the others comes near it.
#[track_caller]
fn assert_only(ended: &Ended, segment: usize, least: Duration) {
    let found = waterfall(ended);
    assert_eq!((found.joined, found.requests), (ended.result.totals.response.count, found.joined), "{}", ended.text);
    let parts = found.all().expect("some were joined").segments.parts();
    let least = least.as_secs_f64() * 1e9;
    assert!(parts[segment] >= 0.95 * least, "{}: {parts:?}", TITLES[segment]);
    for (other, part) in parts.iter().enumerate().filter(|(other, _)| *other != segment) {
        assert!(*part < 0.5 * least, "{} although the delay was in {}: {parts:?}", TITLES[other], TITLES[segment]);
    }
    assert!(ended.text.contains(TITLES[segment]), "{}", ended.text);
}

/// Where a segment stands among the others.
fn place(segment: fn(&Segments<usize>) -> usize) -> usize {
    segment(&Segments::of([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
}

#[tokio::test]
async fn a_slow_upstream_is_its_first_byte() {
    let upstream = FaultUpstream::start([slow(DELAY)]).await;
    let sidecar = Sidecar::start(upstream.address, "", "").await;

    let ended = sidecar.load(&["-r", "20/s", "-d", "1s"]).ended().await;

    assert_only(&ended, place(|all| all.first_byte_ns), DELAY);
    // The ids in the report are those of the log.
    let log = std::fs::read_to_string(sidecar.folder.path().join("access.log")).expect("a log");
    assert!(log.contains(&waterfall(&ended).slowest[0].request_id));
    assert!(upstream.heads()[0].contains("\r\ntraceparent: 00-"), "{}", upstream.heads()[0]);
}

#[tokio::test]
async fn a_slow_body_is_the_rest_of_the_answer() {
    let script: Script = vec![
        Step::ReadHead,
        Step::Send(scripts::HALF.to_vec()),
        Step::Pause(DELAY),
        Step::Send(b"world".to_vec()),
        Step::Repeat,
    ];
    let upstream = FaultUpstream::start([script]).await;
    let sidecar = Sidecar::start(upstream.address, "", "").await;

    let ended = sidecar.load(&["-r", "20/s", "-d", "1s"]).ended().await;

    assert_only(&ended, place(|all| all.body_ns), DELAY);
}

/// Ten requests at once, one at a time: they wait for 0, 100, .. 900 ms.
#[tokio::test]
async fn a_limit_in_flight_is_the_queue() {
    let upstream = FaultUpstream::start([slow(Duration::from_millis(100))]).await;
    let limit = "max_in_flight = 1\nqueue = { capacity = 100, timeout = \"10s\" }";
    let sidecar = Sidecar::start(upstream.address, limit, "").await;

    let ended = sidecar.load(&["-r", "10/s", "-d", "1s", "--arrivals", "burst:10"]).ended().await;

    assert_only(&ended, place(|all| all.queue_ns), Duration::from_millis(450));
}

#[tokio::test]
async fn a_rate_limit_that_delays_is_its_own() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let limit = "rate_limit = { rate = \"10/s\", burst = 1, mode = \"delay\", max_delayed = 100 }";
    let sidecar = Sidecar::start(upstream.address, "", limit).await;

    let ended = sidecar.load(&["-r", "10/s", "-d", "1s", "--arrivals", "burst:10"]).ended().await;

    assert_only(&ended, place(|all| all.rate_delay_ns), Duration::from_millis(450));
}

#[tokio::test]
async fn a_fault_that_delays_is_neither_the_sidecars_time_nor_the_upstreams() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let fault = "fault = { delay = \"400ms\" }\n[faults]\nenabled = true";
    let sidecar = Sidecar::start(upstream.address, "", fault).await;

    let ended = sidecar.load(&["-r", "20/s", "-d", "1s"]).ended().await;

    assert_only(&ended, place(|all| all.fault_delay_ns), DELAY);
}

/// Its backlog is full, so the first packet is dropped, and sent again after a second.
#[tokio::test]
async fn a_slow_connection_to_the_upstream_is_its_own() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("it is bound").as_socket().expect("of the internet");
    let sidecar = Sidecar::start(address, "timeouts = { connect = \"5s\" }", "").await;
    let filling = std::net::TcpStream::connect(address).expect("the one place that there is");

    let load = sidecar.load(&["-r", "1/s", "-d", "1s", "--arrivals", "even"]);
    eventually("the request waits for a connection", async || {
        let busy = sidecar.forebay.scrape().await.sum("forebay_upstream_in_flight", &[]);
        (busy > 0.0).then_some(())
    })
    .await;
    eventually("the first try to connect was lost", async || connects_in_vain(address).then_some(())).await;
    let (first, _) = listener.accept().expect("the one that filled it");
    let answering = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().expect("the sidecar's");
        std::io::Write::write_all(&mut stream, scripts::OK).expect("it is read");
        stream
    });
    let ended = load.ended().await;
    drop((filling, first, answering.await));

    assert_only(&ended, place(|all| all.upstream_connecting_ns), Duration::from_millis(900));
}

/// Whether somebody has sent a SYN to this address that was not answered: state 02 in proc_pid_net(5).
fn connects_in_vain(address: SocketAddr) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let port = format!(":{:04X}", address.port());
    sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().take(4).collect();
        matches!(fields[..], [_, _, remote, "02"] if remote.ends_with(&port))
    })
}

/// The kernel takes the requests for it, and it looks at them half a second later.
#[tokio::test]
async fn a_sidecar_that_stands_still_accepts_late() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let sidecar = Sidecar::start(upstream.address, "", "").await;

    let load = sidecar.load(&["-r", "100/s", "-d", "2s"]);
    eventually("the run is under way", async || (upstream.heads().len() > 20).then_some(())).await;
    sidecar.forebay.signal(Signal::STOP);
    sleep(DELAY).await;
    sidecar.forebay.signal(Signal::CONT);
    let found = waterfall(&load.ended().await);

    let late = found.slowest.iter().filter(|slow| slow.segments.accepting_ns as f64 > 250.0 * MS);
    assert!(late.count() > 5, "{:?}", found.slowest);
    assert!(found.all().expect("some").segments.late_ns < 100.0 * MS, "{found:?}");
}

#[tokio::test]
async fn a_generator_that_stands_still_sends_late() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let sidecar = Sidecar::start(upstream.address, "", "").await;

    let load = sidecar.load(&["-r", "100/s", "-d", "2s"]);
    eventually("the run is under way", async || (upstream.heads().len() > 20).then_some(())).await;
    load.process.signal(Signal::STOP);
    sleep(DELAY).await;
    load.process.signal(Signal::CONT);
    let found = waterfall(&load.ended().await);

    let late = found.slowest.iter().filter(|slow| slow.segments.late_ns as f64 > 250.0 * MS);
    assert!(late.count() > 5, "{:?}", found.slowest);
}

/// Nobody is trusted here, and no answer ever came: they are found by the trace that they were sent with.
#[tokio::test]
async fn requests_that_were_given_up_are_found_by_their_trace() {
    let upstream = FaultUpstream::start([scripts::stall_before_head()]).await;
    let sidecar = Sidecar::start(upstream.address, "", "").await;

    let ended = sidecar.load(&["-r", "20/s", "-d", "500ms", "--timeout", "400ms"]).ended().await;

    assert_eq!(ended.result.totals.counts.timeout, ended.result.totals.counts.sent);
    assert_only(&ended, place(|all| all.first_byte_ns), DELAY);
}

#[tokio::test]
async fn a_log_of_something_else_joins_nothing_and_says_why() {
    let upstream = FaultUpstream::start([scripts::ok()]).await;
    let sidecar = Sidecar::start(upstream.address, "", "").await;
    let log = sidecar.folder.path().join("access.log");
    let common = ["-r", "20/s", "-d", "300ms", "--waterfall", log.to_str().expect("UTF-8")];

    let ended = Load::start(&[&[url(upstream.address).as_str()], &common[..]].concat()).ended().await;

    assert_eq!((waterfall(&ended).joined, waterfall(&ended).missing), (0, ended.result.totals.counts.ok));
    assert!(ended.text.contains("no line came into"), "{}", ended.text);
}
