//! The client's side, end to end with the real binary: how connections and heads are bounded, what is refused, what is
//! forwarded and how, HTTP/2, TLS and upgraded connections. A test for each defect of bare pingora that shows here.

mod bodies;
mod certificates;
mod connections;
mod fields;
mod floods;
pub mod h2_client;
pub mod h2_upstream;
mod heads;
mod http2;
mod memory;
mod recorder;
mod tls;
mod websocket;

use std::net::SocketAddr;

/// Every path to this upstream.
fn proxied(upstream: SocketAddr) -> String {
    format!(
        "[upstream.app]\nendpoints = [\"{upstream}\"]\n\n[route.app]\npath = \"/*\"\nupstream = \"app\"\ndeadline = \"10s\"\n"
    )
}

/// One listener with these settings.
fn listener(settings: &str) -> String {
    format!("[listener]\naddress = \"127.0.0.1:0\"\n{settings}\n\n")
}
