//! Shared by the tests of this folder.

/// A generated file of the repository equals what the code generates; `FOREBAY_BLESS=1` writes it anew.
pub(super) fn compare_with_file(path: &str, generated: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{} is out of date: run the tests with FOREBAY_BLESS=1", path.display());
}

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Protocol, Reason, RequestRecord, Telemetry, Timings};

/// A request of 1.25 s that went well.
pub(super) fn record(telemetry: &Telemetry, route: &str) -> RequestRecord<'static> {
    RequestRecord {
        route: telemetry.route(route),
        upstream: Some(telemetry.upstream("users")),
        listener: "main".into(),
        endpoint: Some(([127, 0, 0, 1], 9001).into()),
        protocol: Protocol::Http11,
        method: "GET",
        host: "example.com",
        target: "/users/7?full=1",
        client: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
        request_id: "6f1d0f7c",
        trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
        status: 200,
        reason: Reason::Ok,
        detail: None,
        request_bytes: 12,
        response_bytes: 3456,
        attempts: 1,
        reused: true,
        timings: Timings {
            total: Duration::from_millis(1250),
            rate_delay: None,
            queue: Some(Duration::from_micros(1500)),
            connect: None,
            first_byte: Some(Duration::from_millis(1200)),
            upstream: Some(Duration::from_millis(1248)),
            response_started: Some(Duration::from_millis(1202)),
        },
    }
}
