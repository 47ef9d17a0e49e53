//! What the admin listener answers on each path.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Admin, Body, guard};
use crate::shutdown::Phase;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// How long a scrape waits for the ones before it. Below Prometheus' own timeout of 10 s, so that it sees an answer.
const RENDER_WAIT: Duration = Duration::from_secs(5);

const INDEX: &str = "\
Forebay

  /metrics   metrics: Prometheus text, or OpenMetrics by Accept
  /livez     200 while the process runs
  /readyz    200 while requests should be sent here, 503 while starting, stopping or without a usable configuration
  /config    the effective configuration with the origin of each value, and how the last reload went
  /version   the version
";

/// Answers one request.
pub async fn answer<B>(admin: &Admin, request: Request<B>) -> Response<Body> {
    let mut response = match checked(admin, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn checked<B>(admin: &Admin, request: Request<B>) -> Result<Response<Body>, Problem> {
    let view = admin.view.load_full();
    let token = view.version.config.admin.token.as_ref();
    guard::check(guard::Rules { loopback: admin.loopback, token }, &request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this listener is read-only: use GET or HEAD"));
    }
    match request.uri().path() {
        "/" => Ok(page(StatusCode::OK, TEXT, INDEX)),
        "/livez" => Ok(page(StatusCode::OK, TEXT, "alive\n")),
        "/readyz" => Ok(readiness(admin)),
        "/metrics" => metrics(admin, request.headers()).await,
        "/config" => Ok(json_page(&config(admin))),
        "/version" => Ok(json_page(&json!({ "name": "forebay", "version": env!("CARGO_PKG_VERSION") }))),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no such page: `/` lists them")),
    }
}

fn readiness(admin: &Admin) -> Response<Body> {
    match admin.lifecycle.phase() {
        Phase::Serving if admin.data_path.ready() => page(StatusCode::OK, TEXT, "ready\n"),
        Phase::Serving => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: the data path is not\n"),
        phase => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {}\n", phase.as_str())),
    }
}

/// Encoding takes milliseconds, so it leaves the event loop, and few do it at once: a scrape more costs the data
/// path its share of the processor.
async fn metrics(admin: &Admin, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    const BUSY: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once: try again");
    const FAILED: Problem =
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded: see the log");

    let _scrape = admin.scrapes.try_acquire().map_err(|_| BUSY)?;
    let permit = tokio::time::timeout(RENDER_WAIT, Arc::clone(&admin.renders).acquire_owned()).await;
    let permit = permit.map_err(|_| BUSY)?.map_err(|_| BUSY)?;
    let telemetry = Arc::clone(&admin.telemetry);
    let accept = accept(headers);
    let rendered = tokio::task::spawn_blocking(move || {
        // Held until the work is done, also when the client has left and nobody waits for it.
        let _permit = permit;
        telemetry.render(&accept)
    });
    let (content_type, body) = rendered.await.map_err(|error| {
        tracing::error!(%error, "encoding the metrics panicked");
        FAILED
    })?;
    Ok(page(StatusCode::OK, content_type, body))
}

/// All `Accept` fields as one list, which they are (RFC 9110 section 5.3).
fn accept(headers: &HeaderMap) -> String {
    let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}

fn config(admin: &Admin) -> Value {
    let view = admin.view.load();
    json!({
        "hash": view.version.config.hash,
        "last_reload": view.last_reload.as_ref().map(|reload| reload.to_json()),
        "pending_restart": view.pending_restart,
        "warnings": view.version.warnings,
        "effective": view.version.effective,
    })
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
