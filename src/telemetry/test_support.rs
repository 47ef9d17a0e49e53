//! Shared by the tests of this folder; what compares generated files serves others, too.

/// A generated file of the repository equals what the code generates; `FOREBAY_BLESS=1` writes it anew.
pub(crate) fn compare_with_file(path: &str, generated: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{} is out of date: run the tests with FOREBAY_BLESS=1", path.display());
}

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Protocol, Reason, RequestRecord, Telemetry, Timings};
use crate::aggregate::{Ending, Outcome, Value};
use crate::config::model::aggregate::{
    Aggregate, BodyShape, ForEach, Format, OnError, Reference, Source, Strategy, Template, TooMany,
};
use crate::config::model::{
    EndpointAddress, InFlight, Queue, QueueOrder, Upstream, UpstreamProtocol, UpstreamTimeouts,
};

/// A request of 1.25 s that went well.
pub(crate) fn record(telemetry: &Telemetry, route: &str) -> RequestRecord<'static> {
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
        started: Instant::now(),
        timings: Timings {
            total: Duration::from_millis(1250),
            rate_delay: None,
            queue: Some(Duration::from_micros(1500)),
            fault_delay: None,
            connect: None,
            first_byte: Some(Duration::from_millis(1200)),
            upstream: Some(Duration::from_millis(1248)),
            response_started: Some(Duration::from_millis(1202)),
        },
        fault: None,
        sources: None,
    }
}

/// With an endpoint at each of these ports.
pub(super) fn upstream(name: &str, ports: &[u16]) -> Arc<Upstream> {
    let minute = Duration::from_secs(60);
    let queue = Queue { capacity: 7, timeout: Duration::from_millis(200), order: QueueOrder::Fifo };
    Arc::new(Upstream {
        name: name.into(),
        endpoints: ports.iter().map(|port| EndpointAddress::Socket(([127, 0, 0, 1], *port).into())).collect(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        timeouts: UpstreamTimeouts {
            connect: Duration::from_millis(250),
            tls: minute,
            first_byte: minute,
            between_bytes: minute,
            idle: minute,
        },
        in_flight: Some(InFlight { max: 64, queue }),
        max_idle_connections: 10,
        health: None,
        dns_refresh: minute,
        max_response_head_bytes: 1024,
        max_response_body_bytes: None,
        connect_retries: 1,
    })
}

/// Of sources with these names, which do nothing special.
pub(super) fn aggregate(names: &[&str]) -> Aggregate {
    let upstream = upstream("users", &[9001]);
    let source = |name: &&str| {
        Arc::new(Source {
            name: String::from(*name),
            upstream: upstream.clone(),
            method: "GET".into(),
            path: Template::default(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            timeout: None,
            required: false,
            on_error: OnError::Embed,
            error_message: String::new(),
            success: Vec::new(),
            max_body_bytes: 1024,
            max_depth: 8,
            format: Format::Json,
            for_each: None,
            select: None,
            keep: Vec::new(),
            drop: Vec::new(),
            rename: Vec::new(),
            after: Vec::new(),
            standby: false,
        })
    };
    Aggregate {
        sources: names.iter().map(source).collect(),
        strategy: Strategy::All,
        body: BodyShape::Keyed,
        partial_status: 200,
        meta: false,
        server_timing: true,
        stream: false,
        max_bytes: 1024,
        coalesce: None,
        background: None,
    }
}

/// Gives this source a list.
pub(super) fn list(aggregate: &mut Aggregate, source: usize) {
    let list = Reference::Query("ids".into());
    let for_each = ForEach { list, concurrency: 16, max_items: 100, too_many: TooMany::Cut };
    let plain = Source::clone(&aggregate.sources[source]);
    aggregate.sources[source] = Arc::new(Source { for_each: Some(for_each), ..plain });
}

/// A source that answered after so many milliseconds.
pub(super) fn ok(source: usize, ms: u64) -> Outcome {
    Outcome {
        source,
        ending: Ending::Ok,
        reason: Reason::Ok,
        detail: None,
        status: Some(200),
        attempts: 1,
        begun: Duration::ZERO,
        took: Duration::from_millis(ms),
        queue: Duration::ZERO,
        coalesced: false,
        items: None,
        retry_after: None,
        value: Value::Absent,
    }
}

/// A source that failed after so many milliseconds.
pub(super) fn failed(source: usize, ms: u64, reason: Reason) -> Outcome {
    Outcome { ending: Ending::Failed, reason, status: None, ..ok(source, ms) }
}
