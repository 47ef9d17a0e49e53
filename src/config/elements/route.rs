//! `[route.NAME]`: which requests go where, and within what bounds.

use std::sync::Arc;
use std::time::Duration;

use super::aggregate::{Aggregate, Around};
use super::fault::{self, Fault};
use super::limits::{
    ClientInFlight, MOST_IN_FLIGHT, Queue, RateLimit, check_queue, no_effect, resolve_in_flight, resolve_rate_limits,
};
use super::mirror::Mirror;
use super::objective::Objective;
use crate::config::decode::{Decoder, Field, element};
use crate::config::describe::{DAY, GIB, MILLISECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model::{self, HostPattern, PathPattern, Segment};
use crate::config::value::container::OneOrMany;
use crate::config::value::http::{HeaderMatches, HeaderName, HeaderValues, Method, UpgradeProtocol};
use crate::config::value::path::{PathTemplate, PlainPath, parameters};
use crate::config::value::quantity::Size;

element! {
    /// Which requests go where, and within what bounds. The most specific route takes a request, whatever the order.
    pub struct Route {
        /// "/users" is that path only, "/users/*" also everything below, "/users/{id}" any one segment.
        path: PathPattern = required, instead_of(&["prefix", "location", "match"]), example("\"/users/*\"");
        /// Host name, "*.example.com" for all below, or a list of them. By default every host.
        host: OneOrMany<HostPattern> = none, instead_of(&["hosts", "hostname", "domain"]), example("\"api.example.com\"");
        /// Methods. By default every one.
        methods: Vec<Method> = none, instead_of(&["method"]), example("[\"GET\", \"HEAD\"]");
        /// Headers the request must have: the exact value, or `true` for any.
        headers: HeaderMatches = none, instead_of(&["header"]), example("{ \"x-tenant\" = \"a\", \"x-debug\" = true }");
        /// The upstream that gets the requests.
        upstream: String = none, instead_of(&["backend", "cluster", "proxy_pass", "to"]), example("\"users\"");
        /// Answer at once, without an upstream.
        respond: Respond = none, instead_of(&["response", "return"]), example("{ status = 200, body = \"ok\" }");
        /// Answer from several upstreams at once.
        aggregate: Aggregate = none, instead_of(&["aggregation", "fan_out", "compose"]), example("{ source = { user1 = { upstream = \"users\", path = \"/users/1\" } } }");
        /// Give the results of that route, which works in the background. The path has one parameter, the id.
        results_of: String = none, instead_of(&["results"]), example("\"report\"");
        /// The time for everything: queue, connection, every attempt, the whole body. "none" for streams.
        deadline: model::Deadline = "15s", between(MILLISECOND, DAY), instead_of(&["timeout", "request_timeout"]);
        /// What the route promises, for alerts and dashboards.
        objective: Objective = none, instead_of(&["slo", "objectives"]), example("{ availability = \"99.9%\", latency = \"300ms\" }");
        /// A limit on the rate, or a list of them. The strictest decides.
        rate_limit: OneOrMany<RateLimit> = none, instead_of(&["rate_limits", "ratelimit", "limit_req", "rate"]), example("{ rate = \"100/s\", burst = 20, key = \"client_ip\" }");
        /// Requests in flight on this route.
        max_in_flight: usize = none, between(1, MOST_IN_FLIGHT), advice("leave the key out to have no limit"), instead_of(&["concurrency", "limit_conn"]), example("100");
        /// Where requests beyond `max_in_flight` wait.
        queue: Queue = {};
        /// Requests in flight for each client.
        client_in_flight: ClientInFlight = none, example("{ max = 10, key = \"client_ip\" }");
        /// "cancel" stops the upstream's work when the client leaves, "finish" lets it run to its end.
        on_client_gone: model::ClientGone = "cancel", instead_of(&["on_client_close", "on_disconnect"]);
        /// Bytes of a request's body. Beyond it 413.
        max_body: Size = "1MiB", between(0, 1024 * GIB), instead_of(&["max_body_size", "client_max_body_size"]);
        /// Protocols that a client may switch to. By default none.
        upgrades: Vec<UpgradeProtocol> = [], instead_of(&["upgrade", "websocket"]), example("[\"websocket\"]");
        /// A switched connection is closed when no byte passes for this long.
        upgrade_idle_timeout: Duration = "5m", between(MILLISECOND, 7 * DAY);
        /// Take these first segments off the path.
        strip_prefix: PlainPath = none, example("\"/api\"");
        /// A new path; `{name}` and `{rest}` come from the route's own.
        rewrite_path: PathTemplate = none, instead_of(&["rewrite"]), example("\"/v2/users/{rest}\"");
        /// Change the request's headers on their way to the upstream.
        request_headers: HeaderEdits = {};
        /// Change the answer's headers on their way to the client.
        response_headers: HeaderEdits = {};
        /// What the upstream sees in `Host`: "upstream" (its own name), "preserve" (the client's) or a name.
        host_header: model::HostPolicy = "upstream", instead_of(&["preserve_host", "upstream_host"]);
        /// Copies of the requests go to another upstream as well.
        mirror: Mirror = none, instead_of(&["shadow", "mirroring", "tee"]), example("{ upstream = \"users-next\", copies = 0.1 }");
        /// Something done to requests on purpose, or a list: a request meets the first that takes it.
        fault: OneOrMany<Fault> = none, instead_of(&["faults", "fault_injection", "chaos"]), example("{ delay = \"200ms\", fraction = 0.1, end_after = \"10m\" }");
        /// Tell clients their limits in `RateLimit` and `RateLimit-Policy`.
        rate_limit_headers: bool = true;
    }
}

element! {
    /// An answer that Forebay gives itself.
    pub struct Respond {
        /// Status of the answer.
        status: u16 = 200, between(200, 599), instead_of(&["code"]);
        /// What the body is.
        content_type: String = "text/plain; charset=utf-8";
        /// The body.
        body: String = "";
    }
}

element! {
    /// Changes of headers, in this order: remove, set, add.
    pub struct HeaderEdits {
        /// Headers to take out.
        remove: Vec<HeaderName> = [], instead_of(&["delete", "unset", "hide"]), example("[\"x-internal\"]");
        /// Headers to write, in place of what is there. Secrets as "${NAME}", { env = "NAME" } or { file = "PATH" }.
        set: HeaderValues = {}, instead_of(&["replace"]), example("{ \"x-tenant\" = \"a\", \"authorization\" = \"${TOKEN}\" }");
        /// Headers to write beside what is there.
        add: HeaderValues = {}, instead_of(&["append"]), example("{ \"via\" = \"forebay\" }");
    }
}

impl Route {
    /// The route as used. `None` when something in it is wrong, or its upstream is.
    pub fn resolve(
        &self,
        cx: &mut Decoder<'_>,
        name: &str,
        upstreams: &[Arc<model::Upstream>],
        results: Option<&PathPattern>,
    ) -> Option<model::Route> {
        let path = format!("route.{name}");
        let rate_limits = resolve_rate_limits(cx, &path, &format!("route/{name}"), &self.rate_limit);
        let client_in_flight =
            if self.client_in_flight.is_written() { Some(self.client_in_flight.get()?.resolve()?) } else { None };
        let objective =
            if self.objective.is_written() { self.objective.get()?.resolve()? } else { model::Objective::default() };
        Some(model::Route {
            name: name.to_owned(),
            matches: self.resolve_match()?,
            action: self.resolve_action(upstreams, results)?,
            deadline: self.deadline.copied()?,
            objective,
            rate_limits: rate_limits?.into_iter().map(Arc::new).collect(),
            in_flight: resolve_in_flight(&self.max_in_flight, &self.queue)?,
            client_in_flight,
            on_client_gone: self.on_client_gone.copied()?,
            max_body_bytes: self.max_body.copied()?.0,
            upgrades: model::Upgrades {
                protocols: self.upgrades.get()?.iter().map(|protocol| protocol.0.clone()).collect(),
                idle_timeout: self.upgrade_idle_timeout.copied()?,
            },
            rewrite: self.resolve_rewrite()?,
            request_headers: self.request_headers.get()?.resolve()?,
            response_headers: self.response_headers.get()?.resolve()?,
            host: self.host_header.cloned()?,
            rate_limit_headers: self.rate_limit_headers.copied()?,
            mirror: self.resolve_mirror(upstreams)?,
            faults: fault::resolve(&self.fault)?,
        })
    }

    fn resolve_mirror(&self, upstreams: &[Arc<model::Upstream>]) -> Option<Option<Arc<model::Mirror>>> {
        if !self.mirror.is_written() {
            return Some(None);
        }
        self.mirror.get()?.resolve(upstreams).map(|mirror| Some(Arc::new(mirror)))
    }

    /// What the route matches.
    pub fn resolve_match(&self) -> Option<model::RouteMatch> {
        let hosts = written_or_empty(&self.host, |hosts| hosts.items.iter().map(|spot| spot.value.clone()).collect())?;
        let methods =
            written_or_empty(&self.methods, |methods| methods.iter().map(|method| method.0.clone()).collect())?;
        let headers = written_or_empty(&self.headers, |headers| headers.0.clone())?;
        Some(model::RouteMatch { hosts, path: self.path.cloned()?, methods, headers })
    }

    fn resolve_action(
        &self,
        upstreams: &[Arc<model::Upstream>],
        results: Option<&PathPattern>,
    ) -> Option<model::RouteAction> {
        if self.respond.is_written() {
            return self.respond.get()?.resolve();
        }
        if self.aggregate.is_written() {
            let around = Around { path: self.path.get(), upstreams, results };
            let aggregate = self.aggregate.get()?.resolve(&around)?;
            return Some(model::RouteAction::Aggregate(Arc::new(aggregate)));
        }
        if self.results_of.is_written() {
            return Some(model::RouteAction::Results { of: self.results_of.cloned()? });
        }
        let name = self.upstream.get()?;
        let upstream = upstreams.iter().find(|upstream| upstream.name == *name)?;
        Some(model::RouteAction::Proxy { upstream: Arc::clone(upstream) })
    }

    /// The upstreams that this route calls: its own, or those of its sources.
    pub fn upstreams(&self) -> impl Iterator<Item = (&Field<String>, &str)> {
        let sources = self.aggregate.get().map_or(&[][..], Aggregate::sources);
        let fields = std::iter::once(&self.upstream).chain(sources.iter().map(|source| &source.value.upstream));
        fields.filter_map(|field| Some((field, field.get()?.as_str())))
    }

    /// These, and the one that gets copies.
    pub fn named_upstreams(&self) -> impl Iterator<Item = (&Field<String>, &str)> {
        let mirror = self.mirror.get().map(|mirror| &mirror.upstream);
        self.upstreams().chain(mirror.and_then(|field| Some((field, field.get()?.as_str()))))
    }

    pub fn calls(&self, upstream: &str) -> bool {
        self.upstreams().any(|(_, name)| name == upstream)
    }

    fn resolve_rewrite(&self) -> Option<model::Rewrite> {
        if self.strip_prefix.is_written() {
            return Some(model::Rewrite::StripPrefix(self.strip_prefix.cloned()?.0));
        }
        if self.rewrite_path.is_written() {
            return Some(model::Rewrite::Path(self.rewrite_path.cloned()?.0));
        }
        Some(model::Rewrite::None)
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        self.check_match(cx);
        self.check_rewrite(cx);
        self.check_limits(cx);
        self.check_upgrades(cx);
        if let Some(objective) = self.objective.get() {
            objective.check(cx, self.objective.key_span(), &self.deadline, &self.upgrades);
        }
        if self.respond.is_written() {
            self.check_respond(cx);
        } else if self.aggregate.is_written() || self.results_of.is_written() {
            self.check_forwarding(cx, "the route passes no request on");
        }
        if let Some(mirror) = self.mirror.get() {
            mirror.check(cx);
            self.check_mirror(cx);
        }
        for edits in [&self.request_headers, &self.response_headers].into_iter().filter_map(Field::get) {
            edits.check(cx);
        }
    }

    /// An empty list would match nothing, or everything, depending on the reader.
    fn check_match(&self, cx: &mut Decoder<'_>) {
        if let Some((methods, span)) = self.methods.written() {
            if methods.is_empty() {
                let problem = Problem::error(Code::InvalidValue, span.clone(), "`methods` is empty");
                cx.report(problem.help("leave it out to match every method"));
            }
            report_repeated(cx, span, methods.iter().map(|method| method.0.as_str()));
        }
        if let Some((hosts, span)) = self.host.written() {
            if hosts.items.is_empty() {
                let problem = Problem::error(Code::InvalidValue, span, "`host` is empty");
                cx.report(problem.help("leave it out to match every host"));
            }
            for (index, host) in hosts.items.iter().enumerate() {
                if let Some(first) = hosts.items[..index].iter().find(|first| first.value == host.value) {
                    let problem = Problem::error(Code::Duplicate, host.span.clone(), "this host is written twice");
                    cx.report(problem.related(Some(first.span.clone()), "first here"));
                }
            }
        }
    }

    fn check_rewrite(&self, cx: &mut Decoder<'_>) {
        if self.strip_prefix.is_written() && self.rewrite_path.is_written() {
            let message = "`strip_prefix` and `rewrite_path` exclude each other";
            let problem = Problem::error(Code::Conflict, self.rewrite_path.key_span(), message)
                .related(self.strip_prefix.key_span(), "the other one");
            cx.report(problem.help("keep `rewrite_path`: it can do both"));
        }
        let Some(path) = self.path.get() else { return };
        if let Some((prefix, span)) = self.strip_prefix.written()
            && !begins_with(path, &prefix.0)
        {
            let message = format!("no path of this route begins with {:?}", prefix.0);
            let problem = Problem::error(Code::Conflict, span, message).related(self.path.span(), "the route's path");
            cx.report(problem.help("take off a part that the route's path has"));
        }
        if let Some((template, span)) = self.rewrite_path.written() {
            self.check_template(cx, path, &template.0, span);
        }
    }

    fn check_template(&self, cx: &mut Decoder<'_>, path: &PathPattern, template: &str, span: std::ops::Range<usize>) {
        let known = known_parameters(path);
        for (name, at) in parameters(template).unwrap_or_default() {
            if known.contains(&name) {
                continue;
            }
            let at = cx.inside(template, &span, &at);
            let message = format!("the route's path has no `{{{name}}}`");
            let problem = Problem::error(Code::UnknownName, at, message).related(self.path.span(), "the route's path");
            cx.report(match (name, known.as_slice()) {
                ("rest", _) => problem.help("`{rest}` is what a `/*` at the end of the path matches"),
                (_, []) => problem.help("name a segment in the path, as in \"/users/{id}\""),
                (_, known) => {
                    let known: Vec<String> = known.iter().map(|name| format!("`{{{name}}}`")).collect();
                    problem.expected(known.join(" or "))
                }
            });
        }
    }

    fn check_mirror(&self, cx: &mut Decoder<'_>) {
        if !self.upstream.is_written() {
            let message = "only a route with an `upstream` can be mirrored";
            let problem = Problem::error(Code::Conflict, self.mirror.key_span(), message);
            cx.report(problem.help("mirror the routes whose requests go to one upstream, or take `mirror` out"));
        }
        let Some((copies_to, span)) = self.mirror.get().and_then(|mirror| mirror.upstream.written()) else { return };
        if self.upstream.get() == Some(copies_to) {
            let message =
                format!("the copies go to `{copies_to}` as well, and take its permits from the requests themselves");
            let problem = Problem::warning(Code::Conflict, span, message);
            cx.report(problem.related(self.upstream.span(), "the route's own upstream").help(
                "name another upstream; for the same service, one with the same `endpoints` and its own `max_in_flight`",
            ));
        }
    }

    fn check_limits(&self, cx: &mut Decoder<'_>) {
        check_queue(cx, &self.max_in_flight, &self.queue);
        if let Some(limit) = self.client_in_flight.get() {
            limit.check(cx);
            self.check_client_limit(cx, limit);
        }
        if let Some((limits, span)) = self.rate_limit.written()
            && limits.items.is_empty()
        {
            let problem = Problem::error(Code::InvalidValue, span, "`rate_limit` is empty: nothing is limited");
            cx.report(problem.help("write a limit, or take `rate_limit` out"));
        }
    }

    /// A request that waits in the route's queue counts for its client, too (`limits/admission.rs`).
    fn check_client_limit(&self, cx: &mut Decoder<'_>, limit: &ClientInFlight) {
        let (Some(max), Some(all)) = (limit.max.copied(), self.max_in_flight.copied()) else { return };
        let Some(waiting) = self.queue.get().and_then(|queue| queue.capacity.copied()) else { return };
        if max <= all.saturating_add(waiting) {
            return;
        }
        let places = if waiting == 0 { all.to_string() } else { format!("{all}, and {waiting} that wait") };
        let message = format!("no client can have {max} in flight: the whole route has {places}");
        let problem = Problem::error(Code::NeverFires, limit.max.span(), message)
            .related(self.max_in_flight.span(), "the limit of the route");
        cx.report(problem.help("make the limit for a client the smaller one"));
    }

    fn check_upgrades(&self, cx: &mut Decoder<'_>) {
        if self.upgrades.get().is_some_and(Vec::is_empty) && self.upgrade_idle_timeout.is_set() {
            let message = "`upgrade_idle_timeout` can never fire: the route allows no upgrade";
            let problem = Problem::error(Code::NeverFires, self.upgrade_idle_timeout.key_span(), message);
            cx.report(problem.help("add upgrades = [\"websocket\"], or take it out"));
        }
    }

    /// Keys about an upstream that a fixed answer does not read.
    fn check_respond(&self, cx: &mut Decoder<'_>) {
        let why = "the route answers itself";
        self.check_forwarding(cx, why);
        no_effect(cx, "on_client_gone", &self.on_client_gone, why);
        if let Some(respond) = self.respond.get() {
            respond.check(cx);
        }
    }

    /// Keys about a request on its way to an upstream.
    fn check_forwarding(&self, cx: &mut Decoder<'_>, why: &str) {
        no_effect(cx, "strip_prefix", &self.strip_prefix, why);
        no_effect(cx, "rewrite_path", &self.rewrite_path, why);
        if let Some(edits) = self.request_headers.get() {
            no_effect(cx, "remove", &edits.remove, why);
            no_effect(cx, "set", &edits.set, why);
            no_effect(cx, "add", &edits.add, why);
        }
        no_effect(cx, "host_header", &self.host_header, why);
        no_effect(cx, "upgrades", &self.upgrades, why);
    }
}

/// Empty when the key is not written, `None` when it is wrong.
fn written_or_empty<T, U>(field: &Field<T>, items: impl FnOnce(&T) -> Vec<U>) -> Option<Vec<U>> {
    if field.is_written() { field.get().map(items) } else { Some(Vec::new()) }
}

fn report_repeated<'a>(cx: &mut Decoder<'_>, span: std::ops::Range<usize>, words: impl Iterator<Item = &'a str>) {
    let mut seen = Vec::new();
    for word in words {
        if seen.contains(&word) {
            let problem = Problem::error(Code::Duplicate, span.clone(), format!("{word:?} is written twice"));
            cx.report(problem.help("keep one"));
        }
        seen.push(word);
    }
}

/// The parameters that a route's path has.
pub fn known_parameters(path: &PathPattern) -> Vec<&str> {
    let mut known = Vec::new();
    if let PathPattern::Template { segments, .. } = path {
        known.extend(segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        }));
    }
    if matches!(path, PathPattern::Prefix(_) | PathPattern::Template { rest: true, .. }) {
        known.push("rest");
    }
    known
}

/// True when paths of the pattern begin with these whole segments.
fn begins_with(path: &PathPattern, prefix: &str) -> bool {
    let literal = match path {
        PathPattern::Exact(path) => path.clone(),
        // Below a prefix there may be anything.
        PathPattern::Prefix(path) if prefix.starts_with(&format!("{path}/")) => return true,
        PathPattern::Prefix(path) => path.clone(),
        PathPattern::Template { segments, .. } => leading_literals(segments),
    };
    literal == prefix || literal.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

fn leading_literals(segments: &[Segment]) -> String {
    let literals = segments.iter().map_while(|segment| match segment {
        Segment::Literal(literal) => Some(format!("/{literal}")),
        Segment::Parameter(_) => None,
    });
    literals.collect()
}

impl Respond {
    fn resolve(&self) -> Option<model::RouteAction> {
        Some(model::RouteAction::Respond {
            status: self.status.copied()?,
            content_type: self.content_type.cloned()?,
            body: self.body.cloned()?,
        })
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some((text, span)) = self.content_type.written()
            && (text.is_empty() || !text.bytes().all(|b| (0x20..0x7f).contains(&b)))
        {
            let problem = Problem::error(Code::InvalidValue, span, "this cannot be a content type");
            cx.report(problem.expected("a type such as \"application/json\""));
        }
        let bodiless = self.status.copied().filter(|status| matches!(status, 204 | 205 | 304));
        if let (Some(status), Some((body, span))) = (bodiless, self.body.written())
            && !body.is_empty()
        {
            let problem = Problem::error(Code::Conflict, span, format!("an answer with status {status} has no body"));
            cx.report(problem.help("take `body` out, or use another status"));
        }
    }
}

impl HeaderEdits {
    pub fn resolve(&self) -> Option<model::HeaderEdits> {
        Some(model::HeaderEdits {
            remove: self.remove.get()?.iter().map(|name| name.0.clone()).collect(),
            set: self.set.cloned()?.0,
            add: self.add.cloned()?.0,
        })
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        let (Some(remove), Some(set)) = (self.remove.get(), self.set.get()) else { return };
        if let Some(name) = remove.iter().find(|name| set.0.iter().any(|(other, _)| *other == name.0)) {
            let message = format!("`{}` is removed and set: `set` alone does both", name.0);
            let problem = Problem::warning(Code::NoEffect, self.remove.span(), message);
            cx.report(problem.help(format!("take `{}` out of `remove`", name.0)));
        }
    }
}
