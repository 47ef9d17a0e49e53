//! Aggregates on the wire: the real binary between raw clients and upstreams that do what each test says.
//!
//! What goes out (`calls`), what comes back (`answers`), what is enough (`strategies`), who leaves (`gone`), what is shared
//! and bounded (`limits`), parts as they complete (`streams`), work in the background (`jobs`), both versions of HTTP
//! (`http2`), reload and shutdown (`lifecycle`), what is seen of it (`seen`).

mod answers;
mod attacks;
mod calls;
mod gone;
mod http2;
mod jobs;
mod lifecycle;
mod limits;
mod seen;
mod strategies;
mod streams;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http::{self, Response};
use crate::support::metrics::Scrape;

/// Forebay with these routes in front of one upstream, `app`.
async fn forebay(app: SocketAddr, routes: &str) -> Forebay {
    Forebay::start(&config(app, routes)).await
}

fn config(app: SocketAddr, routes: &str) -> String {
    format!("[upstream.app]\nendpoints = [\"{app}\"]\n\n{routes}")
}

async fn get(forebay: &Forebay, target: &str) -> Response {
    http::get(forebay.address(), target).await.expect("an answer")
}

async fn post(forebay: &Forebay, target: &str, body: &Value) -> Response {
    let headers = [("content-type", "application/json")];
    http::request(forebay.address(), "POST", target, &headers, body.to_string().as_bytes()).await.expect("an answer")
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits until nothing is in flight, held, waited for or worked on without a client.
async fn at_rest(forebay: &Forebay) -> Scrape {
    eventually("everything has been given back", async || {
        let scrape = forebay.idle().await;
        let held = ["forebay_permits_in_use", "forebay_queue_depth", "forebay_detached_tasks", "forebay_jobs_running"];
        (held.iter().map(|name| scrape.sum(name, &[])).sum::<f64>() == 0.0).then_some(scrape)
    })
    .await
}
