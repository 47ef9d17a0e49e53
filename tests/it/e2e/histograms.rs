//! What Prometheus says about a distribution that is known: within 2 % with native histograms, within the bucket with
//! classic ones. Asked as the dashboards ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay::promql::Query;
use forebay::telemetry::catalogue::UPSTREAM_ATTEMPT_DURATION;
use forebay::telemetry::{DEFAULT_BUCKETS, Reason, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::eventually;
use crate::support::prometheus::{Format, Prometheus, Setup, Version};

const COUNT: u32 = 20_000;

/// The log-logistic distribution with a median of 200 ms and a long tail, in seconds.
fn quantile(p: f64) -> f64 {
    0.2 * (p / (1.0 - p)).powf(1.0 / 3.0)
}

/// Shows metrics as the admin listener does, whatever the path.
async fn serve(telemetry: Arc<Telemetry>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&telemetry)));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, telemetry: Arc<Telemetry>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let accept = head.lines().find_map(|line| line.strip_prefix("Accept: ")).expect("Prometheus says what it reads");
    let (content_type, body) = telemetry.render(accept);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // A scraper that has gone needs no answer.
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
}

#[tokio::test]
async fn quantiles_of_a_known_distribution_are_true() {
    let telemetry = Telemetry::quiet();
    let known = telemetry.upstream("known");
    let address = serve(Arc::clone(&telemetry)).await;
    let jobs: &[(&str, &[SocketAddr])] = &[("forebay", &[address])];
    let mut servers = Vec::new();
    for (version, format) in [
        (Version::Oldest, Format::Classic),
        (Version::Oldest, Format::Native),
        (Version::Newest, Format::Classic),
        (Version::Newest, Format::Native),
        (Version::Newest, Format::Text),
    ] {
        let prometheus = Prometheus::start(&Setup { version, format, jobs, rules: None }).await;
        servers.push((version, format, prometheus));
    }

    for number in 0..COUNT {
        let time = Duration::from_secs_f64(quantile((f64::from(number) + 0.5) / f64::from(COUNT)));
        known.attempt(Reason::Ok, time, None, None);
    }

    for (version, format, prometheus) in &servers {
        let is_native = *format == Format::Native;
        let name = UPSTREAM_ATTEMPT_DURATION.name;
        let count = if is_native { format!("histogram_count({name})") } else { format!("{name}_count") };
        eventually("all is scraped", async || {
            let counts = prometheus.query(&count).await;
            counts.iter().any(|series| series.value == f64::from(COUNT)).then_some(())
        })
        .await;
        for q in [0.5, 0.95, 0.99] {
            let expression = Query::over("1m").quantile(&q.to_string(), &UPSTREAM_ATTEMPT_DURATION, "upstream", "");
            let (seen, truth) = (prometheus.number(&expression).await, quantile(q));
            println!("{version:?} {format:?} p{}: {seen:.4} s, true {truth:.4} s", q * 100.0);
            if is_native {
                assert!((seen / truth - 1.0).abs() < 0.02, "{version:?} native q={q}: {seen} for {truth}");
            } else {
                let upper = DEFAULT_BUCKETS.iter().position(|bound| *bound >= truth).expect("within the buckets");
                let bucket = DEFAULT_BUCKETS[upper - 1]..=DEFAULT_BUCKETS[upper];
                assert!(bucket.contains(&seen), "{version:?} {format:?} q={q}: {seen} is not in {bucket:?}");
            }
        }
    }
}
