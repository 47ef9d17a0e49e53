//! An HTTP/2 upstream in this process, in the clear or over TLS, that shows what it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the upstream saw of one request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: Arc<http::request::Parts>,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

#[derive(Debug, Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    resets: AtomicUsize,
    waiting: AtomicUsize,
}

/// Answers with the request's body and the trailers `x-sum: 7` and `grpc-status: 0`; on `/wait`, never.
#[derive(Debug)]
pub struct H2Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl H2Upstream {
    pub async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no holder panics").clone()
    }

    /// Requests on `/wait` that the other side has cancelled.
    pub fn resets(&self) -> usize {
        self.state.resets.load(Ordering::Relaxed)
    }

    /// Requests on `/wait` so far.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::Relaxed)
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let state = Arc::clone(&state);
        // An error means that the peer has gone.
        tokio::spawn(async move { answer(request, respond, &state).await });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: &State,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    if head.uri.path() == "/wait" {
        state.waiting.fetch_add(1, Ordering::Relaxed);
        let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
        assert_eq!(reason, Reason::CANCEL);
        state.resets.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    let whole = Bytes::from(whole);
    let content_type = head.headers.get("content-type").cloned();
    state.seen.lock().expect("no holder panics").push(Seen { head: Arc::new(head), body: whole.clone(), trailers });
    let mut response = Response::new(());
    if let Some(content_type) = content_type {
        response.headers_mut().insert("content-type", content_type);
    }
    let mut sending = respond.send_response(response, false)?;
    sending.send_data(whole, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().expect("a value"));
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    sending.send_trailers(trailers)
}
