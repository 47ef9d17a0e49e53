//! `[upstream.NAME]`: a service behind Forebay.

use std::path::PathBuf;
use std::time::Duration;

use super::limits::{MOST_IN_FLIGHT, Queue, check_queue, no_effect, resolve_in_flight};
use crate::config::decode::{Decoder, Spot, element};
use crate::config::describe::{DAY, GIB, HOUR, KIB, MIB, MILLISECOND, SECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model::{self, EndpointAddress, UpstreamProtocol};
use crate::config::value::container::Switch;
use crate::config::value::network::is_host_name;
use crate::config::value::path::RequestTarget;
use crate::config::value::quantity::Size;

element! {
    /// A service behind Forebay.
    pub struct Upstream {
        /// Where it listens: host and port of each instance. Requests go to the healthy ones in turn.
        endpoints: Vec<Spot<EndpointAddress>> = required, instead_of(&["endpoint", "address", "addresses", "servers", "url"]), example("[\"127.0.0.1:9001\"]");
        /// "http1", "http2" (prior knowledge without TLS) or "auto" (what TLS settles on).
        protocol: UpstreamProtocol = "http1";
        /// Speak TLS: `true`, or a table.
        tls: Switch<UpstreamTls> = none, example("true");
        /// How long it may take.
        timeouts: UpstreamTimeouts = {}, instead_of(&["timeout"]);
        /// Requests in flight to it, over all endpoints.
        max_in_flight: usize = none, between(1, MOST_IN_FLIGHT), advice("leave the key out to have no limit"), instead_of(&["max_conns", "max_requests"]), example("64");
        /// Where requests beyond `max_in_flight` wait.
        queue: Queue = {};
        /// Ask each endpoint regularly whether it is well.
        health: HealthCheck = none, instead_of(&["health_check", "healthcheck"]), example("{ path = \"/healthz\" }");
        /// Idle connections kept for reuse, over all endpoints. Fewer than the concurrency costs new connections.
        max_idle_connections: usize = 1024, between(0, 100_000), instead_of(&["keepalive"]);
        /// How often host names are looked up again.
        dns_refresh: Duration = "10s", between(SECOND, DAY);
        /// Further attempts, at another endpoint if there is one, when a connection cannot be made.
        connect_retries: u32 = 1, between(0, 10), instead_of(&["retries", "max_retries"]);
        /// Bytes of an answer's head. Beyond it 502.
        max_response_head: Size = "64KiB", between(KIB, 16 * MIB);
        /// Bytes of an answer's body. By default any number: bodies are streamed.
        max_response_body: Size = none, between(1, 1024 * GIB), example("\"64MiB\"");
    }
}

element! {
    /// How long an upstream may take. The route's deadline ends all of them.
    pub struct UpstreamTimeouts {
        /// Making a TCP connection.
        connect: Duration = "500ms", between(MILLISECOND, HOUR);
        /// The TLS handshake.
        tls: Duration = "2s", between(MILLISECOND, HOUR), instead_of(&["tls_handshake"]);
        /// From the end of the request to the first byte of the answer.
        first_byte: Duration = "10s", between(MILLISECOND, DAY), instead_of(&["read", "response", "request", "ttfb"]);
        /// The longest silence inside an answer. Its head, once begun, has to be complete within this time.
        between_bytes: Duration = "10s", between(MILLISECOND, DAY);
        /// How long an unused connection is kept. Shorter than the upstream keeps it, or requests meet closed ones.
        idle: Duration = "60s", between(MILLISECOND, DAY), instead_of(&["keepalive", "keep_alive"]);
    }
}

element! {
    /// TLS towards an upstream.
    pub struct UpstreamTls {
        /// Name to ask for and to check in the certificate. By default the endpoint's host name.
        server_name: String = none, instead_of(&["sni", "host"]), example("\"users.example.com\"");
        /// PEM file: trust these authorities instead of the system's.
        ca: PathBuf = none, instead_of(&["ca_file", "cacert", "root_ca"]), example("\"tls/ca.pem\"");
        /// Check the certificate. Without, anybody in between can read and change everything.
        verify: bool = true, instead_of(&["insecure", "skip_verify"]);
    }
}

element! {
    /// Ask each endpoint regularly whether it is well; unwell ones get no requests.
    pub struct HealthCheck {
        /// Path to ask for.
        path: RequestTarget = required, instead_of(&["uri", "url"]), example("\"/healthz\"");
        /// Time from one question to the next.
        interval: Duration = "5s", between(10 * MILLISECOND, DAY);
        /// How long the answer may take.
        timeout: Duration = "1s", between(MILLISECOND, HOUR);
        /// Failures in a row that take an endpoint out.
        unhealthy_after: u32 = 3, between(1, 1_000), instead_of(&["unhealthy_threshold", "fall"]);
        /// Successes in a row that bring it back.
        healthy_after: u32 = 2, between(1, 1_000), instead_of(&["healthy_threshold", "rise"]);
        /// Statuses that count as well: single ones or ranges.
        expect: Vec<model::StatusRange> = ["200-299"], instead_of(&["status", "statuses"]);
    }
}

impl Upstream {
    pub fn resolve(&self, name: &str) -> Option<model::Upstream> {
        let health = if self.health.is_written() { Some(self.health.get()?.resolve()?) } else { None };
        let max_body =
            if self.max_response_body.is_written() { Some(self.max_response_body.copied()?.0) } else { None };
        Some(model::Upstream {
            name: name.to_owned(),
            endpoints: self.endpoints.get()?.iter().map(|spot| spot.value.clone()).collect(),
            protocol: self.protocol.copied()?,
            tls: self.resolve_tls()?,
            timeouts: self.timeouts.get()?.resolve()?,
            in_flight: resolve_in_flight(&self.max_in_flight, &self.queue)?,
            max_idle_connections: self.max_idle_connections.copied()?,
            health,
            dns_refresh: self.dns_refresh.copied()?,
            max_response_head_bytes: usize::try_from(self.max_response_head.copied()?.0).ok()?,
            max_response_body_bytes: max_body,
            connect_retries: self.connect_retries.copied()?,
        })
    }

    fn resolve_tls(&self) -> Option<Option<model::UpstreamTls>> {
        if !self.tls.is_written() {
            return Some(None);
        }
        match &self.tls.get()?.0 {
            Some(tls) => tls.resolve().map(Some),
            None => Some(None),
        }
    }

    pub fn uses_tls(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.0.is_some())
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        self.check_endpoints(cx);
        self.check_tls(cx);
        check_queue(cx, &self.max_in_flight, &self.queue);
        if let Some(health) = self.health.get() {
            health.check(cx);
        }
        let names =
            self.endpoints.get().is_some_and(|all| all.iter().any(|e| matches!(e.value, EndpointAddress::Name { .. })));
        if self.endpoints.get().is_some() && !names {
            no_effect(cx, "dns_refresh", &self.dns_refresh, "every endpoint is an IP address");
        }
    }

    fn check_endpoints(&self, cx: &mut Decoder<'_>) {
        let Some((endpoints, span)) = self.endpoints.written() else { return };
        if endpoints.is_empty() {
            let problem = Problem::error(Code::InvalidValue, span, "an upstream needs an endpoint");
            cx.report(problem.help("write where it listens: endpoints = [\"127.0.0.1:9001\"]"));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let Some(first) = endpoints[..index].iter().find(|first| first.value == endpoint.value) else { continue };
            let problem = Problem::error(Code::Duplicate, endpoint.span.clone(), "this endpoint is written twice")
                .related(Some(first.span.clone()), "first here");
            cx.report(problem.help("keep one: endpoints get equal shares"));
        }
    }

    fn check_tls(&self, cx: &mut Decoder<'_>) {
        if let Some(timeouts) = self.timeouts.get()
            && timeouts.tls.is_set()
            && !self.uses_tls()
        {
            let message = "`tls` can never fire: the upstream has no `tls`";
            let problem = Problem::error(Code::NeverFires, timeouts.tls.key_span(), message);
            cx.report(problem.help("add `tls = true` to the upstream, or take this timeout out"));
        }
        if let Some(tls) = self.tls.get().and_then(|tls| tls.0.as_ref()) {
            tls.check(cx);
        }
        if self.protocol.copied() == Some(UpstreamProtocol::Auto) && !self.uses_tls() {
            let message = "\"auto\" without `tls` is always \"http1\": there is nothing to settle on";
            cx.report(
                Problem::warning(Code::NoEffect, self.protocol.span(), message).help("write \"http1\" or \"http2\""),
            );
        }
    }
}

impl UpstreamTimeouts {
    fn resolve(&self) -> Option<model::UpstreamTimeouts> {
        Some(model::UpstreamTimeouts {
            connect: self.connect.copied()?,
            tls: self.tls.copied()?,
            first_byte: self.first_byte.copied()?,
            between_bytes: self.between_bytes.copied()?,
            idle: self.idle.copied()?,
        })
    }
}

impl UpstreamTls {
    fn resolve(&self) -> Option<model::UpstreamTls> {
        let ca = if self.ca.is_written() { Some(self.ca.cloned()?) } else { None };
        Some(model::UpstreamTls { server_name: self.server_name.cloned(), ca, verify: self.verify.copied()? })
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some((name, span)) = self.server_name.written()
            && !is_host_name(name)
        {
            let problem = Problem::error(Code::InvalidValue, span, "this is not a host name");
            cx.report(problem.expected("the name in the certificate, such as \"users.example.com\""));
        }
        if self.verify.copied() == Some(false) {
            let message = "the upstream's certificate is not checked";
            let problem = Problem::warning(Code::Exposed, self.verify.span(), message);
            cx.report(problem.help("give its authority with `ca` instead"));
            no_effect(cx, "ca", &self.ca, "`verify` is false");
        }
    }
}

impl HealthCheck {
    fn resolve(&self) -> Option<model::HealthCheck> {
        Some(model::HealthCheck {
            path: self.path.cloned()?.0,
            interval: self.interval.copied()?,
            timeout: self.timeout.copied()?,
            unhealthy_after: self.unhealthy_after.copied()?,
            healthy_after: self.healthy_after.copied()?,
            expect: self.expect.cloned()?,
        })
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        if let (Some(timeout), Some(interval)) = (self.timeout.copied(), self.interval.copied())
            && timeout > interval
        {
            let span = self.timeout.span().or(self.interval.span());
            let message = "a health check may take longer than the time to the next one";
            let problem = Problem::error(Code::Conflict, span, message);
            cx.report(problem.help("make `timeout` at most `interval`"));
        }
        if let Some((expect, span)) = self.expect.written()
            && expect.is_empty()
        {
            let problem = Problem::error(Code::InvalidValue, span, "no status would count as well");
            cx.report(problem.help("write the statuses: expect = [\"200-299\"]"));
        }
    }
}
