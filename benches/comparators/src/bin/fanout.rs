//! The same aggregation as Forebay's, written directly with hyper-util and nothing else, and the upstream of both.
//!
//! `fanout upstream --listen A` answers `/after/MILLIS` with 1 KiB of JSON so much later, and anything else at once.
//! `fanout serve --listen A --upstream B` answers `/N/PATH` with an object of the answers to `/PATH?n=0` … `/PATH?n=N-1`,
//! all asked at once over kept connections. It checks nothing, limits nothing and counts nothing: it is the price of the
//! calls themselves on hyper.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use forebay_comparators::{Options, accept_loop, block_on, usage};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::sleep;

/// With its quotes and braces the answer has 1024 bytes.
const PADDING: usize = 1024 - r#"{"data":""}"#.len();

type Calls = Client<HttpConnector, Empty<Bytes>>;
type Failed = Box<dyn Error + Send + Sync>;

fn main() -> io::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_else(|| usage("a mode is missing"));
    let options = Options::from_args_after(1);
    match mode.as_str() {
        "upstream" => serve(options.listen(), answer_late),
        "serve" => {
            let upstream = options.upstream();
            let calls = client();
            serve(options.listen(), move |request| {
                let calls = calls.clone();
                async move { Ok(aggregate(&calls, upstream, &request).await.unwrap_or_else(|error| failed(&*error))) }
            })
        }
        other => usage(&format!("`{other}` is not one of upstream, serve")),
    }
}

fn serve<F, Work>(listen: SocketAddr, answer: F) -> io::Result<()>
where
    F: Fn(Request<Incoming>) -> Work + Clone + Send + 'static,
    Work: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    block_on(accept_loop(listen, move |stream| {
        let answer = answer.clone();
        async move {
            // The peer hanging up is how every connection ends.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        }
    }))
}

async fn answer_late(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(millis) = request.uri().path().strip_prefix("/after/").and_then(|text| text.parse().ok()) {
        sleep(Duration::from_millis(millis)).await;
    }
    Ok(json(format!(r#"{{"data":"{}"}}"#, ".".repeat(PADDING))))
}

fn client() -> Calls {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(250)).build(connector)
}

async fn aggregate(
    calls: &Calls,
    upstream: SocketAddr,
    request: &Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Failed> {
    let (count, path) = request.uri().path()[1..].split_once('/').ok_or("the path is not /N/PATH")?;
    let count: usize = count.parse()?;
    let parts = try_join_all((0..count).map(|nth| call(calls, format!("http://{upstream}/{path}?n={nth}")))).await?;
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.len() + 16).sum());
    for (nth, part) in parts.iter().enumerate() {
        body.push(if nth == 0 { b'{' } else { b',' });
        body.extend_from_slice(format!("\"s{nth}\":").as_bytes());
        body.extend_from_slice(part);
    }
    body.push(b'}');
    Ok(json(body))
}

async fn call(calls: &Calls, uri: String) -> Result<Bytes, Failed> {
    let answer = calls.get(Uri::try_from(uri)?).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the upstream answered {}", answer.status()).into());
    }
    Ok(answer.into_body().collect().await?.to_bytes())
}

fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, const { hyper::header::HeaderValue::from_static("application/json") });
    response
}

fn failed(error: &(dyn Error + Send + Sync)) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(error.to_string().into()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
