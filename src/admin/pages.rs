//! What the admin listener answers on each path.

use std::sync::Arc;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::page::format::{Format, parameter};
use super::page::table::unpainted;
use super::page::views::{self, Name};
use super::page::{self, assets, events};
use super::problem::Problem;
use super::{Admin, Body, Ends, guard};
use crate::shutdown::Phase;
use crate::telemetry::exposition;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

const INDEX: &str = "\
Forebay

  /          for browsers: the page
  /overview  routes and upstreams: rate, failures, latency, in flight, queue
  /latency   latency of each route beside its limits; ?route=NAME for one
  /requests  the slowest and the latest failed requests with their stages; ?route=NAME for one
  /limits    in-flight limits, queues and rate limits
  /config    the effective configuration with the origin of each value, and how the last reload went
  /events    a view as server-sent events, once a second: ?view=overview

  Views are text by default (/config JSON), HTML for browsers, and in the form of ?format=html, json or text.

  /metrics   metrics: Prometheus text, or OpenMetrics by Accept
  /livez     200 while the process runs
  /readyz    200 while requests should be sent here, 503 while starting, stopping or without a usable configuration
  /version   the version
";

/// What a page of ours may do in a browser: load its own files and ask its own origin, nothing else, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers one request.
pub async fn answer<B>(admin: &Arc<Admin>, request: Request<B>, ends: Ends) -> Response<Body> {
    let mut response = match checked(admin, request, ends).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let own = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(own, HeaderValue::from_static("same-origin"));
    response
}

async fn checked<B>(admin: &Arc<Admin>, request: Request<B>, ends: Ends) -> Result<Response<Body>, Problem> {
    let view = admin.view.load_full();
    let token = view.version.config.admin.token.as_ref();
    guard::check(guard::Rules { loopback: admin.loopback, token }, &request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this listener is read-only: use GET or HEAD"));
    }
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    match path {
        "/" => root(admin, query, request.headers(), ends).await,
        "/livez" => Ok(page(StatusCode::OK, TEXT, "alive\n")),
        "/readyz" => Ok(readiness(admin)),
        "/metrics" => metrics(admin, request.headers(), ends).await,
        "/events" => stream(admin, query, ends),
        "/version" => Ok(json_page(&json!({ "name": "forebay", "version": env!("CARGO_PKG_VERSION") }))),
        _ => match (Name::parse(&path[1..]), assets::find(path)) {
            (Some(name), _) => {
                // What programs got before there were other forms.
                let default = if name == Name::Config { Format::Json } else { Format::Text };
                show(admin, name, query, Format::of(query, &accept(request.headers()), default)?, ends).await
            }
            (None, Some((content_type, content))) => Ok(page(StatusCode::OK, content_type, content)),
            (None, None) => Err(Problem::new(StatusCode::NOT_FOUND, "no such page: `/` lists them")),
        },
    }
}

fn readiness(admin: &Admin) -> Response<Body> {
    match admin.lifecycle.phase() {
        Phase::Serving if admin.data_path.ready() => page(StatusCode::OK, TEXT, "ready\n"),
        Phase::Serving => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: the data path is not\n"),
        phase => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {}\n", phase.as_str())),
    }
}

async fn metrics(admin: &Admin, headers: &HeaderMap, ends: Ends) -> Result<Response<Body>, Problem> {
    let format = exposition::Format::negotiate(&accept(headers));
    let content = admin.scrapes.get(format, &admin.telemetry, &admin.held).await?;
    Ok(page(StatusCode::OK, format.content_type(), content.read(ends.cut)))
}

/// All `Accept` fields as one list, which they are (RFC 9110 section 5.3).
fn accept(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}

/// Terminals get the list of pages, browsers the overview.
async fn root(admin: &Arc<Admin>, query: &str, headers: &HeaderMap, ends: Ends) -> Result<Response<Body>, Problem> {
    match Format::of(query, &accept(headers), Format::Text)? {
        Format::Text => Ok(page(StatusCode::OK, TEXT, INDEX)),
        format => show(admin, Name::Overview, query, format, ends).await,
    }
}

/// A view of hundreds of routes takes milliseconds, so it leaves the event loop.
async fn show(
    admin: &Arc<Admin>,
    name: Name,
    query: &str,
    format: Format,
    ends: Ends,
) -> Result<Response<Body>, Problem> {
    const FAILED: Problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this view cannot be made: see the log");
    const FULL: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many views are being made: try again");

    let place = Arc::clone(&admin.views).try_acquire_owned().map_err(|_| FULL)?;
    let (maker, route) = (Arc::clone(admin), parameter(query, "route"));
    let made = tokio::task::spawn_blocking(move || {
        let view = page::view(&maker, name, route.as_deref());
        let (content_type, content) = match format {
            Format::Html => (HTML, page::html::document(name, route.as_deref(), &view)),
            Format::Json => (JSON, format!("{:#}\n", view.json)),
            Format::Text => (TEXT, views::text(&view.parts, usize::MAX, &unpainted)),
        };
        // Kept until the view is made, also when the client has left and nobody waits for it.
        (content_type, content, place)
    });
    let (content_type, content, _place) = made.await.map_err(|error| {
        tracing::error!(%error, view = name.as_str(), "making a view panicked");
        FAILED
    })?;
    let content = admin.held.hold(content.into_bytes()).await;
    Ok(page(StatusCode::OK, content_type, content.read(ends.cut)))
}

fn stream(admin: &Arc<Admin>, query: &str, ends: Ends) -> Result<Response<Body>, Problem> {
    const UNKNOWN: Problem =
        Problem::new(StatusCode::BAD_REQUEST, "write ?view=overview, latency, requests, limits or config");
    const FULL: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many are watching: close another page");

    let name = parameter(query, "view").as_deref().map_or(Some(Name::Overview), Name::parse).ok_or(UNKNOWN)?;
    let events = events::open(admin, name, parameter(query, "route"), ends).ok_or(FULL)?;
    Ok(page(StatusCode::OK, "text/event-stream", Body::Events(events)))
}

fn json_page(value: &Value) -> Response<Body> {
    page(StatusCode::OK, JSON, format!("{value:#}\n"))
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
