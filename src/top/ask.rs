//! Asking the admin listener for a view.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use super::TOKEN;
use crate::admin::page::table::printable;
use crate::admin::page::views::latency::Latency;
use crate::admin::page::views::limits::Limits;
use crate::admin::page::views::overview::Overview;
use crate::admin::page::views::requests::Requests;
use crate::admin::page::views::state::State;
use crate::admin::page::views::{Name, Part};

const TIMEOUT: Duration = Duration::from_secs(5);
/// The overview of thousands of routes.
const MAX_ANSWER: usize = 64 << 20;

/// What is asked for each time.
#[derive(Debug)]
pub struct Question {
    address: SocketAddr,
    name: Name,
    /// As it stands in the query.
    route: String,
    token: Option<String>,
}

impl Question {
    pub fn new(address: SocketAddr, name: Name, route: Option<&str>, token: Option<String>) -> Self {
        let route = route.map_or_else(String::new, |route| format!("&route={route}"));
        Self { address, name, route, token }
    }

    /// From now on another view is asked for.
    pub fn turn_to(&mut self, name: Name) {
        self.name = name;
    }

    fn path(&self) -> String {
        format!("/{}?format=json{}", self.name.as_str(), self.route)
    }

    /// The view as what is shown of it; or why not, as a sentence.
    pub async fn ask(&self) -> Result<Vec<Part>, String> {
        let asked = tokio::time::timeout(TIMEOUT, self.exchange()).await;
        let (status, body) = asked.map_err(|_| self.failed(format!("no answer within {TIMEOUT:?}")))??;
        match status {
            StatusCode::OK => self.parts(&body),
            StatusCode::UNAUTHORIZED if self.token.is_some() => {
                Err(self.failed(format!("it refused the token in {TOKEN}")))
            }
            StatusCode::UNAUTHORIZED => Err(self.failed(format!("it wants the admin token: set {TOKEN}"))),
            StatusCode::NOT_FOUND => {
                Err(self.failed("it has no such view: it is older than this program, or no Forebay"))
            }
            other => {
                let body = printable(String::from_utf8_lossy(&body).trim_end());
                Err(self.failed(format!("{other}: {body}")))
            }
        }
    }

    async fn exchange(&self) -> Result<(StatusCode, Bytes), String> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| self.failed(format!("cannot connect: {error}; name it with --admin")))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(error))?;
        let mut request = Request::get(self.path()).header(HOST, self.address.to_string()).header(CONNECTION, "close");
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            request = request.header(AUTHORIZATION, value.map_err(|_| format!("{TOKEN} is not a token"))?);
        }
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|_| "--route is not the name of a route".to_owned())?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| self.failed(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| self.failed(error))?.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = answer.as_mut() => answer,
            // The connection may end first, with the answer already in hand.
            _ = connection => answer.await,
        }
    }

    fn parts(&self, body: &[u8]) -> Result<Vec<Part>, String> {
        let json: Value = serde_json::from_slice(body).map_err(|error| self.failed(format!("no JSON: {error}")))?;
        let state: State = self.read(json.get("state").cloned().unwrap_or_default())?;
        let parts = match self.name {
            Name::Overview => self.read::<Overview>(json)?.parts(),
            Name::Latency => self.read::<Latency>(json)?.parts(),
            Name::Requests => self.read::<Requests>(json)?.parts(),
            Name::Limits => self.read::<Limits>(json)?.parts(),
            Name::Config => Vec::new(),
        };
        Ok(std::iter::once(state.part()).chain(parts).collect())
    }

    fn read<T: DeserializeOwned>(&self, json: Value) -> Result<T, String> {
        serde_json::from_value(json).map_err(|error| self.failed(format!("its JSON is of another version: {error}")))
    }

    fn failed(&self, why: impl std::fmt::Display) -> String {
        format!("http://{}{}: {why}", self.address, self.path())
    }
}
