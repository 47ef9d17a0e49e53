//! An own forwarding loop over pingora-core's HTTP/1 sessions and connector, each request under one absolute deadline.
//!
//! GET with a `Content-Length` or chunked answer is enough to compare the cost; see `docs/decisions/0001-data-path.md`.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use forebay_comparators::{Options, accept_loop, block_on};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::v1::Connector;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession as ClientSession;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// At least the largest number of requests in flight: a smaller pool reconnects all the time.
const POOL_SIZE: usize = 1024;
const KEEP_ALIVE_SECONDS: u64 = 60;

struct Forwarder {
    connector: Connector,
    peer: HttpPeer,
    deadline: Duration,
    head_deadline: Duration,
}

fn main() -> std::io::Result<()> {
    let options = Options::from_args();
    let forwarder = Arc::new(Forwarder {
        connector: Connector::new(Some(ConnectorOptions::new(POOL_SIZE))),
        peer: HttpPeer::new(options.upstream(), false, String::new()),
        deadline: options.deadline(),
        head_deadline: options.head_deadline(),
    });
    block_on(accept_loop(options.listen(), move |stream| serve(stream, Arc::clone(&forwarder))))
}

async fn serve(stream: TcpStream, forwarder: Arc<Forwarder>) {
    let mut stream: Stream = Box::new(L4Stream::from(stream));
    loop {
        let mut downstream = ServerSession::new(stream);
        downstream.set_server_keepalive(Some(KEEP_ALIVE_SECONDS));
        match timeout(forwarder.head_deadline, downstream.read_request()).await {
            Ok(Ok(Some(_))) => {}
            _ => return,
        }
        downstream.respect_keepalive();
        let deadline = Instant::now() + forwarder.deadline;
        match timeout_at(deadline, exchange(&mut downstream, &forwarder)).await {
            Ok(Some(())) => {}
            Ok(None) => return refuse(downstream, 502).await,
            Err(_) => return refuse(downstream, 504).await,
        }
        match downstream.reuse().await {
            Ok(Some(reusable)) => stream = reusable.into_parts().0,
            _ => return,
        }
    }
}

async fn exchange(downstream: &mut ServerSession, forwarder: &Forwarder) -> Option<()> {
    let (mut upstream, _reused) = forwarder.connector.get_http_session(&forwarder.peer).await.ok()?;
    upstream.write_request_header(Box::new(downstream.req_header().clone())).await.ok()?;
    upstream.read_response().await.ok()?;
    let head = Box::new(upstream.resp_header()?.clone());
    downstream.write_response_header(head).await.ok()?;
    stream_body(downstream, &mut upstream).await?;
    forwarder.connector.release_http_session(upstream, &forwarder.peer, None).await;
    Some(())
}

async fn stream_body(downstream: &mut ServerSession, upstream: &mut ClientSession) -> Option<()> {
    while let Some(part) = upstream.read_body_ref().await.ok()? {
        downstream.write_body(part).await.ok()?;
    }
    downstream.finish_body().await.ok()?;
    Some(())
}

/// Before the head is sent the client gets a status; after it, only a broken connection tells the truth.
async fn refuse(mut downstream: ServerSession, status: u16) {
    if downstream.response_written().is_some() {
        return;
    }
    let Ok(mut head) = ResponseHeader::build(status, Some(2)) else { return };
    let _ = head.insert_header("Content-Length", "0");
    let _ = head.insert_header("Connection", "close");
    let _ = downstream.write_response_header(Box::new(head)).await;
    let _ = downstream.finish_body().await;
}
