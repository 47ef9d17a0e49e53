//! An HTTP/2 client for the tests, over any stream.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::PATIENCE;

#[derive(Debug)]
pub struct H2Client {
    pub send: SendRequest<Bytes>,
    /// Ends when the server has closed the connection; with its error.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name)?.to_str().ok()
    }
}

impl H2Client {
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = within(h2::client::handshake(stream)).await.expect("a handshake");
        Self { send, connection: tokio::spawn(connection) }
    }

    /// With prior knowledge.
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a connection")).await
    }

    pub async fn get(&self, path: &str) -> Result<Answer, h2::Error> {
        self.request(request(Method::GET, path), b"", None).await
    }

    /// Sends body and trailers, and reads the whole answer.
    pub async fn request(
        &self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let mut send = within(self.send.clone().ready()).await?;
        let empty = body.is_empty() && trailers.is_none();
        let (response, mut stream) = send.send_request(request, empty)?;
        if !empty {
            // What is refused early is not taken any more; the answer tells why.
            let _ = stream.send_data(Bytes::copy_from_slice(body), trailers.is_none());
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(trailers);
            }
        }
        within(async {
            let (head, mut received) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(data) = received.data().await {
                let data = data?;
                received.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            let trailers = received.trailers().await?;
            Ok(Answer { head: Response::from_parts(head, ()), body: body.into(), trailers })
        })
        .await
    }

    /// Waits until the server has ended the connection.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.send);
        timeout(PATIENCE, self.connection).await.expect("the connection ends").expect("it does not panic")
    }
}

pub fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a.example{path}")).body(()).expect("a request")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("an answer in time")
}

/// How long one request on a connection of its own takes.
pub async fn probe(address: SocketAddr) -> Duration {
    let started = tokio::time::Instant::now();
    let answer = crate::support::http::get(address, "/").await.expect("an answer");
    assert_eq!(answer.status, 200);
    started.elapsed()
}
