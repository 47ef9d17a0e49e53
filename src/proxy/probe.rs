//! Health checks over TLS: the same connector, names and certificates as the requests use.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora::protocols::ALPN;
use tokio::time::Instant;

use super::connector::{Connector, Need};
use super::generation::host_name;
use super::timer::StageClock;
use crate::upstream::{Endpoint, Probe, ProbeError};

#[derive(Debug)]
pub struct SecureProbe {
    connector: Arc<Connector>,
}

impl SecureProbe {
    pub fn new(connector: Arc<Connector>) -> Self {
        Self { connector }
    }

    async fn ask(&self, endpoint: &Endpoint, path: &str) -> Result<u16, ProbeError> {
        // The caller holds the time limit; the clock's own are for the data path.
        let clock = StageClock::new(Instant::now(), None);
        let host = host_name(endpoint);
        let stream = self.connector.dial(endpoint.address, &host, Need::Any, &clock).await;
        let stream = stream.map_err(|error| ProbeError::Failed(error.detail))?;
        let http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
        let io = TokioIo::new(stream);
        let request = http::Request::get(if http2 { format!("https://{host}{path}") } else { path.to_owned() })
            .header("host", host)
            .header("user-agent", concat!("forebay-health/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| ProbeError::Failed(error.to_string()))?;
        let failed = |error: hyper::Error| ProbeError::Failed(error.to_string());
        let status = if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
            let driver = tokio::spawn(connection);
            let answer = sender.send_request(request).await;
            driver.abort();
            answer
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
            let driver = tokio::spawn(connection);
            let answer = sender.send_request(request).await;
            driver.abort();
            answer
        };
        Ok(status.map_err(failed)?.status().as_u16())
    }
}

impl Probe for SecureProbe {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, path: &'a str) -> BoxFuture<'a, Result<u16, ProbeError>> {
        Box::pin(self.ask(endpoint, path))
    }
}
