//! The HTTP client of a load test: what [`Protocol`] is for HTTP/1.1 and HTTP/2, with or without TLS, over TCP or a
//! unix socket.
//!
//! It stands on hyper's connections and on nothing above them, since what a load test measures must not be done behind
//! its back: no redirect is followed, nothing is sent twice, no request waits in a pool for somebody else's connection.
//! What is repeated is only what the target cannot have seen: a request of which nothing was sent, because the idle
//! connection picked for it had been closed, and an HTTP/2 request that was refused unseen.
//!
//! A [`Blueprint`] makes a [`Client`] for each worker. Clients share what was counted and no connection: a connection
//! belongs to the runtime in which it was made.

pub mod failure;
mod http1;
mod http2;
pub mod origin;
mod pool;
#[cfg(test)]
mod tests;
pub mod tls;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use self::origin::{Origin, Resolved};
use self::pool::{Pool, Pools};
use super::checks::{Answer, Expectation, Tally};
use super::waterfall::{RequestKey, RunId};
use super::{CallEnd, Connected, End, ErrorKind, Protocol};

/// Bytes of an answer that are kept for a check, which a longer one fails, or a comparison.
pub const MOST_KEPT: usize = 16 << 20;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

type RequestBody = Full<Bytes>;

/// How requests travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    /// After so many requests a connection is closed; 1 is a new connection for each request.
    pub requests_per_connection: u32,
    /// Making a connection, the TLS handshake included.
    pub connect_timeout: Duration,
    pub tls: tls::Settings,
    /// Each request has an id and a trace of its own, and the ids in the answers are noted.
    pub ids: Option<RunId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http2: false,
            requests_per_connection: u32::MAX,
            connect_timeout: Duration::from_secs(5),
            tls: tls::Settings::default(),
            ids: None,
        }
    }
}

/// A request to be made again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub origin: Origin,
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// As given; `Host` and the framing are added when they are missing.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// All that the clients of a run have in common.
pub struct Blueprint {
    targets: Vec<Arc<Prepared>>,
    resolved: Vec<Resolved>,
    tls: Option<Arc<rustls::ClientConfig>>,
    settings: Settings,
}

/// A target as it is known before the run, and what was counted there.
struct Prepared {
    origin: Origin,
    request: Request<RequestBody>,
    expectation: Expectation,
    tally: Tally,
    ids: Option<RunId>,
}

impl Blueprint {
    /// Connects to nothing yet. `resolved` holds the origins of all requests.
    ///
    /// # Errors
    ///
    /// When files of TLS cannot be used, or a request cannot be put into words.
    pub fn new(
        requests: impl IntoIterator<Item = (Template, Expectation)>,
        resolved: Vec<Resolved>,
        settings: Settings,
    ) -> io::Result<Self> {
        let prepare = |(template, expectation): (Template, Expectation)| {
            let (origin, tally) = (template.origin.clone(), Tally::of(&expectation));
            let request = request(template, &settings)?;
            Ok(Arc::new(Prepared { origin, request, expectation, tally, ids: settings.ids }))
        };
        let targets = requests.into_iter().map(prepare).collect::<io::Result<Vec<_>>>()?;
        let needs_tls = targets.iter().any(|target| target.origin.tls);
        let tls = if needs_tls { Some(tls::config(&settings.tls, settings.http2)?) } else { None };
        Ok(Self { targets, resolved, tls, settings })
    }

    /// A client for one worker.
    ///
    /// # Errors
    ///
    /// When an origin has a name that TLS cannot check.
    pub fn client(&self) -> io::Result<Client> {
        let mut pools = Pools::new(&self.resolved, self.tls.as_ref(), &self.settings);
        let with_pool = |target: &Arc<Prepared>| Ok((Arc::clone(target), pools.of(&target.origin)?));
        Ok(Client { targets: self.targets.iter().map(with_pool).collect::<io::Result<_>>()? })
    }

    /// What was expected and how often it did not happen, by target.
    pub fn tallies(&self) -> impl Iterator<Item = (&Expectation, &Tally)> {
        self.targets.iter().map(|target| (&target.expectation, &target.tally))
    }
}

/// The client of one worker, for all targets.
pub struct Client {
    targets: Vec<(Arc<Prepared>, Arc<Pool>)>,
}

/// The request as it is cloned for each call.
fn request(template: Template, settings: &Settings) -> io::Result<Request<RequestBody>> {
    let Template { origin, method, path, mut headers, body } = template;
    let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    let authority = match headers.get(HOST) {
        Some(host) => host.to_str().map_err(|error| invalid(&error))?.to_owned(),
        None => origin.authority(),
    };
    let mut request = Request::new(Full::new(body));
    if settings.http2 {
        headers.remove(HOST);
        let uri = Uri::builder().scheme(origin.scheme()).authority(authority).path_and_query(path);
        *request.uri_mut() = uri.build().map_err(|error| invalid(&error))?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|error| invalid(&error))?);
        if settings.requests_per_connection == 1 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *request.uri_mut() = path.parse().map_err(|error| invalid(&error))?;
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Says whose requests these are, to whoever wonders about them; the sidecar counts them apart. A header of the user's
/// takes its place.
const AGENT: &str = concat!("forebay-load/", env!("CARGO_PKG_VERSION"));

/// An answer that was kept.
#[derive(Debug)]
pub struct Received {
    pub headers: HeaderMap,
    /// As it came; `None` if it was longer than [`MOST_KEPT`].
    pub body: Option<Vec<u8>>,
}

impl Protocol for Client {
    async fn call(&self, target: usize, number: u64, connected: &Connected) -> CallEnd {
        self.fetch(target, number, false, connected).await.0
    }
}

impl Client {
    /// [`Protocol::call`], of which the answer is kept as well if asked for and if there is one.
    pub async fn fetch(
        &self,
        target: usize,
        number: u64,
        keep: bool,
        connected: &Connected,
    ) -> (CallEnd, Option<Received>) {
        let (target, pool) = &self.targets[target];
        let keeps_body = keep || target.expectation.needs_body();
        let mut progress = Progress { first_byte: None, bytes: 0, connected, answered: None, keep: keeps_body };
        let request = target.request(number);
        let answer = match &**pool {
            Pool::Http1(pool) => target.exchange_http1(pool, request, &mut progress).await,
            Pool::Http2(pool) => target.exchange_http2(pool, request, &mut progress).await,
        };
        let end = match &answer {
            Ok((answer, body)) => target.judge(answer, body),
            Err(kind) => End::ConnectionError(*kind),
        };
        let Progress { first_byte, bytes, answered, .. } = progress;
        let kept = answer.ok().filter(|_| keep).map(|(head, body)| Received {
            headers: head.headers,
            body: if let Kept::All(body) = body { Some(body) } else { None },
        });
        (CallEnd { end, bytes, first_byte, answered }, kept)
    }
}

/// What is known of a call, also when it fails half-way.
struct Progress<'a> {
    first_byte: Option<Instant>,
    bytes: u64,
    connected: &'a Connected,
    answered: Option<RequestKey>,
    /// Whether the body is wanted.
    keep: bool,
}

/// The body as far as it is needed.
enum Kept {
    Nothing,
    All(Vec<u8>),
    TooLong,
}

impl Prepared {
    fn request(&self, number: u64) -> Request<RequestBody> {
        let mut request = self.request.clone();
        if let Some(run) = self.ids {
            let value = |text: String| HeaderValue::try_from(text).expect("hex digits and hyphens");
            let headers = request.headers_mut();
            headers.insert(REQUEST_ID, value(run.request(number)));
            headers.insert(TRACE_PARENT, value(run.traceparent(number)));
        }
        request
    }

    /// Notes the first byte of the answer, and what the target calls the request.
    fn answered(&self, head: &http::response::Parts, progress: &mut Progress<'_>) {
        progress.first_byte = Some(Instant::now());
        if self.ids.is_some() {
            progress.answered = head.headers.get(REQUEST_ID).map(|id| RequestKey::of(id.as_bytes()));
        }
    }

    async fn exchange_http1(
        &self,
        pool: &pool::Http1,
        mut request: Request<RequestBody>,
        progress: &mut Progress<'_>,
    ) -> Result<(http::response::Parts, Kept), ErrorKind> {
        loop {
            let (mut connection, connect) = pool.take().await?;
            connect.into_iter().for_each(|took| progress.connected.note(took));
            // Runs until the answer is read, or until it is given up.
            let _promise = self.tally.promise(&self.expectation);
            let answer = match connection.send(request).await {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    // Ends: each round uses up an idle connection, and a new one is not tried again.
                    Some(unsent) if connect.is_none() => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(failure::of_exchange(error.error())),
                },
            };
            let (parts, body) = answer.into_parts();
            self.answered(&parts, progress);
            let kept = connection.drive(self.read(body, progress)).await?;
            pool.put(connection).await;
            return Ok((parts, kept));
        }
    }

    async fn exchange_http2(
        &self,
        pool: &http2::Connections,
        mut request: Request<RequestBody>,
        progress: &mut Progress<'_>,
    ) -> Result<(http::response::Parts, Kept), ErrorKind> {
        let again = request.clone();
        let mut refusals = 0;
        loop {
            let (place, connect) = pool.place().await?;
            connect.into_iter().for_each(|took| progress.connected.note(took));
            let _promise = self.tally.promise(&self.expectation);
            let answer: Response<Incoming> = match place.sender().try_send_request(request).await {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    Some(unsent) if connect.is_none() => {
                        request = unsent;
                        continue;
                    }
                    _ if failure::is_refused_stream(error.error()) && refusals < http2::MOST_REFUSALS => {
                        refusals += 1;
                        request = again.clone();
                        continue;
                    }
                    _ => return Err(failure::of_exchange(error.error())),
                },
            };
            let (parts, body) = answer.into_parts();
            self.answered(&parts, progress);
            let kept = self.read(body, progress).await?;
            return Ok((parts, kept));
        }
    }

    /// Reads a body to its end and counts it.
    async fn read(&self, mut body: Incoming, progress: &mut Progress<'_>) -> Result<Kept, ErrorKind> {
        let mut kept = if progress.keep { Kept::All(Vec::new()) } else { Kept::Nothing };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| failure::of_exchange(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            progress.bytes += data.len() as u64;
            if let Kept::All(bytes) = &mut kept {
                if bytes.len() + data.len() > MOST_KEPT {
                    kept = Kept::TooLong;
                } else {
                    bytes.extend_from_slice(data);
                }
            }
        }
        Ok(kept)
    }

    fn judge(&self, parts: &http::response::Parts, kept: &Kept) -> End {
        let status = parts.status.as_u16();
        let body = match kept {
            Kept::All(bytes) => Some(bytes.as_slice()),
            Kept::Nothing | Kept::TooLong => None,
        };
        let answer = Answer { status, headers: &parts.headers, body };
        match self.expectation.judge(&answer, &self.tally) {
            true => End::Ok { status },
            false => End::HttpError { status },
        }
    }
}
