//! HTTP/2 floods, frame by frame: each is absorbed or ends its connection, and others are served meanwhile. (There is no
//! h2spec to be had where these tests run; the codec is h2's, whose own tests hold the rest of the protocol.)

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::h2_client::probe;
use super::h2_upstream::H2Upstream;
use super::proxied;
use crate::support::forebay::Forebay;
use crate::support::{PATIENCE, SLACK, eventually};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// `GET http /wait`, `:authority: a`, as literals without indexing where the static table has no entry.
const GET: &[u8] = b"\x82\x86\x04\x05/wait\x01\x01a";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a flood has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The peer ends the connection by itself.
    Ended,
    /// The peer may also take all of it.
    Absorbed,
}

/// Sends the frames and reads what comes, until the peer has ended the connection.
async fn flood(forebay: &Forebay, outcome: Outcome, frames: impl Iterator<Item = Vec<u8>>) {
    let mut stream = TcpStream::connect(forebay.address()).await.expect("a connection");
    let (mut read, mut write) = stream.split();
    let sending = async {
        let mut batch = PREFACE.to_vec();
        for frame in frames {
            batch.extend_from_slice(&frame);
            if batch.len() > 16_000 {
                if write.write_all(&batch).await.is_err() {
                    return;
                }
                batch.clear();
            }
        }
        let _ = write.write_all(&batch).await;
        if outcome == Outcome::Absorbed {
            let _ = write.shutdown().await;
        }
    };
    let ended = async {
        let mut sink = vec![0; 64 * 1024];
        while read.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    };
    let over = timeout(PATIENCE, async { tokio::join!(sending, ended) });
    over.await.expect("the connection has ended");
}

async fn flooded(outcome: Outcome, frames: impl Iterator<Item = Vec<u8>>) {
    let upstream = H2Upstream::start(None).await;
    let config = proxied(upstream.address).replace("endpoints", "protocol = \"http2\"\nendpoints");
    let forebay = Forebay::start(&config).await;
    probe(forebay.address()).await;
    let probes = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            slowest = slowest.max(probe(forebay.address()).await);
        }
        slowest
    };

    let ((), slowest) = tokio::join!(flood(&forebay, outcome, frames), probes);

    // The mark is 250 ms on a machine of its own; here many tests share a few cores.
    assert!(slowest < SLACK, "another client waited for {slowest:?}");
    let scrape = eventually("nothing of it stays", async || {
        let scrape = forebay.scrape().await;
        let busy = scrape.sum("forebay_connections_open", &[]) + scrape.sum("forebay_requests_in_flight", &[]);
        (busy == 0.0).then_some(scrape)
    })
    .await;
    assert_eq!(scrape.sum("forebay_panics_total", &[]), 0.0);
    let allocated = scrape.sum("forebay_allocator_allocated_peak_bytes", &[]);
    assert!(allocated < 64e6, "{allocated} bytes at the peak");
}

#[tokio::test]
async fn rapid_reset() {
    let streams = (0..20_000u32).flat_map(|n| {
        let id = 2 * n + 1;
        [frame(HEADERS, END_HEADERS | 1, id, GET), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])]
    });
    flooded(Outcome::Ended, streams).await;
}

#[tokio::test]
async fn continuation_without_end() {
    let first = std::iter::once(frame(HEADERS, 0, 1, GET));
    // Literal without indexing, a name and a value of 100 bytes.
    let field = [b"\x00\x01x\x64".as_slice(), &[b'v'; 100]].concat();
    let more = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &field.repeat(100)), 2_000);
    flooded(Outcome::Ended, first.chain(more)).await;
}

#[tokio::test]
async fn empty_continuation_without_end() {
    let first = std::iter::once(frame(HEADERS, 0, 1, GET));
    let more = std::iter::repeat_n(frame(CONTINUATION, 0, 1, b""), 200_000);
    flooded(Outcome::Ended, first.chain(more)).await;
}

#[tokio::test]
async fn settings() {
    flooded(Outcome::Absorbed, std::iter::repeat_n(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), 50_000)).await;
}

#[tokio::test]
async fn pings() {
    flooded(Outcome::Absorbed, std::iter::repeat_n(frame(PING, 0, 0, b"12345678"), 50_000)).await;
}

#[tokio::test]
async fn empty_data() {
    let head = std::iter::once(frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x04\x02/x\x01\x01a"));
    flooded(Outcome::Ended, head.chain(std::iter::repeat_n(frame(DATA, 0, 1, b""), 200_000))).await;
}
