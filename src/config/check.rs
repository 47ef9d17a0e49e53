//! Checks between tables: names that must exist, addresses that must differ, times that must fit into each other.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::aggregate;
use super::decode::{Decoder, Field};
use super::diagnostic::{Code, Problem};
use super::elements::Root;
use super::elements::fault;
use super::elements::limits::{Queue, check_queue};
use super::elements::route::Route;
use super::elements::upstream::Upstream;
use super::model::{
    self, ClientGone, Deadline, EndpointAddress, HeaderEdits, HostPolicy, Objective, Rewrite, RouteAction, RouteMatch,
    Upgrades, UpstreamProtocol,
};
use super::source::Span;
use super::suggest::nearest;
use super::value::container::NamedItem;
use crate::routing;
use crate::units::show_duration;

/// All checks on what is written.
pub fn check(cx: &mut Decoder<'_>, root: &Root) {
    check_tables(cx, root);
    check_addresses(cx, root);
    check_actions(cx, root);
    aggregate::check::check_results(cx, root);
    check_unused(cx, root);
    check_times(cx, root);
    check_limit_sizes(cx, root);
    check_limit_names(cx, root);
    check_shadowed(cx, root);
}

fn check_tables(cx: &mut Decoder<'_>, root: &Root) {
    if let Some(admin) = root.admin.get() {
        admin.check(cx);
    }
    if let Some(log) = root.log.get() {
        log.check(cx);
    }
    if let Some(metrics) = root.metrics.get() {
        metrics.check(cx);
    }
    if let Some(limits) = root.limits.get() {
        check_queue(cx, &limits.max_in_flight, &limits.queue);
    }
    if let Some(record) = root.record.get() {
        record.check(cx, &root.routes().iter().map(|route| route.name.as_str()).collect::<Vec<_>>());
    }
    for listener in root.listener.get().into_iter().flat_map(|listeners| &listeners.items) {
        listener.value.check(cx);
    }
    for upstream in root.upstreams() {
        upstream.value.check(cx);
    }
    for route in root.routes() {
        route.value.check(cx);
        fault::check(cx, &route.value.fault, &root.faults);
        aggregate::check::check(cx, root, route);
    }
}

/// Every address Forebay listens on, with what listens there and where that is written.
fn listening(root: &Root) -> Vec<(SocketAddr, String, Option<Span>)> {
    let mut all = Vec::new();
    for listener in root.listener.get().into_iter().flat_map(|listeners| &listeners.items) {
        if let Some(address) = listener.value.address.copied() {
            all.push((address, format!("listener {}", listener.name), listener.value.address.span()));
        }
    }
    if let Some(field) = root.admin.get().map(|admin| &admin.address)
        && let Some(address) = field.copied().and_then(|address| address.0)
    {
        all.push((address, "the admin listener".to_owned(), field.span()));
    }
    all
}

fn check_addresses(cx: &mut Decoder<'_>, root: &Root) {
    let all = listening(root);
    for (index, second) in all.iter().enumerate() {
        let Some(first) = all[..index].iter().find(|first| overlap(first.0, second.0)) else { continue };
        // What is written is marked; the other one may be a default, which has no place.
        let (marked, other) = if second.2.is_some() { (second, first) } else { (first, second) };
        let message = format!("the address {} is taken: {} has {}", marked.0, other.1, other.0);
        let problem =
            Problem::error(Code::Duplicate, marked.2.clone(), message).related(other.2.clone(), other.1.as_str());
        cx.report(problem.help(format!("give {} another port", marked.1)));
    }
    check_loops(cx, root, &all);
}

/// Two sockets cannot both be bound. Port 0 is any free port.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = |ip: IpAddr| ip.is_unspecified();
    let same_family = a.is_ipv4() == b.is_ipv4();
    a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || (same_family && (everywhere(a.ip()) || everywhere(b.ip()))))
}

/// An upstream that is Forebay itself would send each request round until its deadline.
fn check_loops(cx: &mut Decoder<'_>, root: &Root, listening: &[(SocketAddr, String, Option<Span>)]) {
    for upstream in root.upstreams() {
        for endpoint in upstream.value.endpoints.get().into_iter().flatten() {
            let Some(address) = as_socket(&endpoint.value) else { continue };
            let Some((_, what, span)) = listening.iter().find(|(own, ..)| reaches(address, *own)) else { continue };
            let message = format!("this endpoint is {what} of this very file: requests would go round");
            let problem = Problem::error(Code::Conflict, endpoint.span.clone(), message);
            cx.report(problem.related(span.clone(), "it listens here").help("write where the service itself listens"));
        }
    }
}

fn as_socket(endpoint: &EndpointAddress) -> Option<SocketAddr> {
    match endpoint {
        EndpointAddress::Socket(address) => Some(*address),
        EndpointAddress::Name { host, port } if host == "localhost" => Some(([127, 0, 0, 1], *port).into()),
        EndpointAddress::Name { .. } => None,
    }
}

/// A connection to `endpoint` would end at the socket bound to `own`.
fn reaches(endpoint: SocketAddr, own: SocketAddr) -> bool {
    let same_machine = own.ip() == endpoint.ip() || (own.ip().is_unspecified() && endpoint.ip().is_loopback());
    endpoint.port() == own.port() && own.port() != 0 && same_machine
}

/// Each route does one thing, with upstreams that exist.
fn check_actions(cx: &mut Decoder<'_>, root: &Root) {
    for route in root.routes() {
        check_action(cx, route);
        if root.upstream.get().is_some() && !is_misspelt(cx, "upstream") {
            check_upstream_names(cx, root, route);
        }
    }
}

fn check_action(cx: &mut Decoder<'_>, route: &NamedItem<Route>) {
    let value = &route.value;
    let actions = [
        ("`upstream`", value.upstream.key_span()),
        ("`respond`", value.respond.key_span()),
        ("`aggregate`", value.aggregate.key_span()),
        ("`results_of`", value.results_of.key_span()),
    ];
    let written: Vec<_> = actions.iter().filter_map(|(name, span)| Some((*name, span.clone()?))).collect();
    match written.as_slice() {
        [(first, at), (second, span), ..] => {
            let message = match (*first, *second) {
                ("`upstream`", "`respond`") => {
                    "a route has an `upstream` or answers with `respond`, not both".to_owned()
                }
                _ => format!("a route has {first} or {second}, not both"),
            };
            let what = if *first == "`upstream`" { "the upstream" } else { "the other one" };
            let problem = Problem::error(Code::Conflict, span.clone(), message).related(Some(at.clone()), what);
            cx.report(problem.help("take one of the two out"));
        }
        [] if !["upstream", "respond", "aggregate", "results_of"].iter().any(|key| is_misspelt(cx, key)) => {
            let message = format!("route `{}` does nothing", route.name);
            let problem = Problem::error(Code::MissingKey, route.span.clone(), message);
            cx.report(problem.help("add `upstream = \"NAME\"`, `respond = { status = 200 }` or an `aggregate`"));
        }
        _ => {}
    }
}

fn check_upstream_names(cx: &mut Decoder<'_>, root: &Root, route: &NamedItem<Route>) {
    let names: Vec<&str> = root.upstreams().iter().map(|upstream| upstream.name.as_str()).collect();
    for (field, name) in route.value.named_upstreams() {
        if let Some(span) = field.span().filter(|_| !names.contains(&name)) {
            report_unknown_upstream(cx, name, span, &names);
        }
    }
}

/// A misspelt key was reported that may have been this one.
pub fn is_misspelt(cx: &Decoder<'_>, key: &str) -> bool {
    let named = format!("`{key}`");
    cx.problems.iter().any(|problem| {
        problem.code == Code::UnknownKey && problem.help.as_ref().is_some_and(|help| help.contains(&named))
    })
}

fn report_unknown_upstream(cx: &mut Decoder<'_>, name: &str, span: Span, names: &[&str]) {
    let problem = Problem::error(Code::UnknownName, span, format!("there is no upstream `{name}`"));
    cx.report(match (nearest(name, names.iter().copied()), names) {
        (Some(near), _) => problem.help(format!("did you mean `{near}`?")),
        (None, []) => problem.help(format!("add a table [upstream.{name}] with its `endpoints`")),
        (None, names) => {
            let listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            problem.expected(format!("one of {}", listed.join(", "))).help(format!("or add [upstream.{name}]"))
        }
    });
}

fn check_unused(cx: &mut Decoder<'_>, root: &Root) {
    for upstream in root.upstreams() {
        let used =
            root.routes().iter().any(|route| route.value.named_upstreams().any(|(_, name)| name == upstream.name));
        if !used {
            let message = format!("no route uses the upstream `{}`", upstream.name);
            let problem = Problem::warning(Code::Unused, upstream.span.clone(), message);
            cx.report(problem.help("point a route at it, or take it out"));
        }
    }
    if root.routes().is_empty() && !root.route.is_written() {
        let message = "there is no route: every request will be answered with 404";
        let problem = Problem::warning(Code::Unused, None, message);
        cx.report(problem.help("add a table [route.NAME] with `path` and `upstream`"));
    }
}

/// Every wait has to fit into the deadline of the routes that meet it.
fn check_times(cx: &mut Decoder<'_>, root: &Root) {
    for upstream in root.upstreams() {
        let users: Vec<&NamedItem<Route>> =
            root.routes().iter().filter(|route| route.value.calls(&upstream.name)).collect();
        check_phases(cx, upstream, &users);
        for route in &users {
            check_queue_wait(cx, &upstream.value.max_in_flight, &upstream.value.queue, route);
            check_attempts(cx, upstream, route);
            check_upgrade_protocol(cx, upstream, route);
        }
    }
    for route in root.routes() {
        check_queue_wait(cx, &route.value.max_in_flight, &route.value.queue, route);
        if let Some(limits) = root.limits.get() {
            check_queue_wait(cx, &limits.max_in_flight, &limits.queue, route);
        }
    }
}

/// A phase timeout that is not below the deadline of any of its routes can never fire. One that is below the deadline
/// of some is right for those; a default is cut by the deadline without a word.
fn check_phases(cx: &mut Decoder<'_>, upstream: &NamedItem<Upstream>, users: &[&NamedItem<Route>]) {
    let deadlines: Vec<Option<Duration>> =
        users.iter().filter_map(|route| Some(route.value.deadline.copied()?.after())).collect();
    let Some(longest) = deadlines.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
    else {
        return; // A route without a deadline, or no route.
    };
    let Some(timeouts) = upstream.value.timeouts.get() else { return };
    let phases = [
        ("connect", &timeouts.connect),
        ("tls", &timeouts.tls),
        ("first_byte", &timeouts.first_byte),
        ("between_bytes", &timeouts.between_bytes),
    ];
    for (name, field) in phases {
        let Some((timeout, span)) = field.written().filter(|(timeout, _)| **timeout >= longest) else { continue };
        let route = users.iter().find(|route| route.value.deadline.copied().and_then(|d| d.after()) == Some(longest));
        let message = format!(
            "`{name}` can never fire: {} is not below the deadline of {}",
            show_duration(*timeout),
            match users {
                [only] => format!("route `{}`, {}", only.name, show_duration(longest)),
                _ => format!("any route to this upstream, at most {}", show_duration(longest)),
            },
        );
        let problem = Problem::error(Code::NeverFires, span, message)
            .related(route.and_then(|route| route.value.deadline.span()), "the deadline");
        cx.report(problem.help(format!("make it shorter than {}, or the deadline longer", show_duration(longest))));
    }
}

/// Who waits in a queue until the deadline has no time left to be served.
fn check_queue_wait(cx: &mut Decoder<'_>, max: &Field<usize>, queue: &Field<Queue>, route: &NamedItem<Route>) {
    let Some(queue) = queue.get().filter(|_| max.is_written()) else { return };
    let (Some(wait), Some(deadline)) = (queue.timeout.copied(), route.value.deadline.copied()) else { return };
    let Some(deadline) = deadline.after().filter(|deadline| wait >= *deadline) else { return };
    if queue.capacity.copied() == Some(0) {
        return;
    }
    let message = format!(
        "waiting {} in the queue is not below the deadline of route `{}`, {}",
        show_duration(wait),
        route.name,
        show_duration(deadline)
    );
    let (place, related) = match queue.timeout.span() {
        Some(span) => (Some(span), route.value.deadline.span()),
        None => (route.value.deadline.span().or(queue.capacity.span()), None),
    };
    let problem = Problem::error(Code::Conflict, place, message).related(related, "the deadline");
    cx.report(problem.help("shorten the queue's `timeout`: what is left of the deadline is for the upstream"));
}

/// All attempts to connect have to fit into the deadline, when somebody has set them.
fn check_attempts(cx: &mut Decoder<'_>, upstream: &NamedItem<Upstream>, route: &NamedItem<Route>) {
    let Some(timeouts) = upstream.value.timeouts.get() else { return };
    let (retries, connect) = (&upstream.value.connect_retries, &timeouts.connect);
    let (Some(count), Some(time), Some(deadline)) =
        (retries.copied(), connect.copied(), route.value.deadline.copied().and_then(|deadline| deadline.after()))
    else {
        return;
    };
    let total = time.saturating_mul(count + 1);
    let set_by_hand = retries.is_written() || connect.is_written();
    // A single attempt that is too long is reported as a phase.
    if !set_by_hand || total < deadline || time >= deadline {
        return;
    }
    let message = format!(
        "{} attempts to connect of {} each take {}, which is not below the deadline of route `{}`, {}",
        count + 1,
        show_duration(time),
        show_duration(total),
        route.name,
        show_duration(deadline)
    );
    let place = retries.span().or(connect.span());
    let problem = Problem::error(Code::Conflict, place, message).related(route.value.deadline.span(), "the deadline");
    cx.report(problem.help("lower `connect_retries` or `connect`"));
}

/// `Upgrade` is a mechanism of HTTP/1.1 (RFC 9113 §8.6).
fn check_upgrade_protocol(cx: &mut Decoder<'_>, upstream: &NamedItem<Upstream>, route: &NamedItem<Route>) {
    let Some((protocols, span)) = route.value.upgrades.written() else { return };
    if !protocols.is_empty() && upstream.value.protocol.copied() == Some(UpstreamProtocol::Http2) {
        let message = "an HTTP/2 upstream cannot be upgraded";
        let problem = Problem::error(Code::Conflict, span, message)
            .related(upstream.value.protocol.span(), "the upstream's protocol");
        cx.report(problem.help("use an upstream with protocol = \"http1\" for this route"));
    }
}

/// A limit above one that holds for all can never be reached. What waits in the queue over all routes counts for its
/// route, but has not come to its upstream yet (`limits/admission.rs`). One request of an aggregate is many at its
/// upstreams, so nothing can be said about those.
fn check_limit_sizes(cx: &mut Decoder<'_>, root: &Root) {
    let Some(limits) = root.limits.get() else { return };
    let Some((all, all_span)) = limits.max_in_flight.written() else { return };
    let waiting = limits.queue.get().and_then(|queue| queue.capacity.copied()).unwrap_or(0);
    let of_routes = root.routes().iter().map(|route| (&route.value.max_in_flight, waiting));
    let called =
        |name: &str| root.routes().iter().any(|route| route.value.aggregate.is_written() && route.value.calls(name));
    let proxied = root.upstreams().iter().filter(|upstream| !called(&upstream.name));
    let of_upstreams = proxied.map(|upstream| (&upstream.value.max_in_flight, 0));
    for (field, waiting) in of_routes.chain(of_upstreams) {
        let most = all.saturating_add(waiting);
        let Some((max, span)) = field.written().filter(|(max, _)| **max > most) else { continue };
        let places = if waiting == 0 { all.to_string() } else { format!("{all}, and {waiting} that wait") };
        let message = format!("{max} in flight can never be reached: over all routes there are {places}");
        let problem =
            Problem::error(Code::NeverFires, span, message).related(Some(all_span.clone()), "the limit over all");
        cx.report(problem.help("lower it, or raise the limit over all"));
    }
}

/// Routes that get fewer requests than they seem to, or none.
fn check_shadowed(cx: &mut Decoder<'_>, root: &Root) {
    let mut written = Vec::new();
    let mut compared = Vec::new();
    for route in root.routes() {
        if let Some(compare) = route.value.resolve_match().map(|matches| matching_only(&route.name, matches)) {
            written.push(route);
            compared.push(compare);
        }
    }
    for (index, by, kind) in routing::shadowed(&compared) {
        // Of two equal ones the later in the file is the mistake.
        let swap = kind == routing::Kind::Duplicate && index < by;
        let (route, other) = if swap { (written[by], written[index]) } else { (written[index], written[by]) };
        let message = match kind {
            routing::Kind::Duplicate => format!("routes `{}` and `{}` take the same requests", other.name, route.name),
            routing::Kind::Shadowed => {
                format!("route `{}` gets no request: `{}` and the like are more specific", route.name, other.name)
            }
        };
        let code = if kind == routing::Kind::Duplicate { Code::Duplicate } else { Code::Shadowed };
        let place = route.value.path.span().or(Some(route.span.clone()));
        let problem = Problem::error(code, place, message).related(other.value.path.span(), "the other one");
        cx.report(problem.help("give one of them another path, host, method or header, or take it out"));
    }
}

/// A route of which only the match counts.
fn matching_only(name: &str, matches: RouteMatch) -> model::Route {
    model::Route {
        name: name.to_owned(),
        matches,
        action: RouteAction::Respond { status: 204, content_type: String::new(), body: String::new() },
        deadline: Deadline::None,
        objective: Objective::default(),
        rate_limits: Vec::new(),
        in_flight: None,
        client_in_flight: None,
        on_client_gone: ClientGone::Cancel,
        max_body_bytes: 0,
        upgrades: Upgrades { protocols: Vec::new(), idle_timeout: Duration::ZERO },
        rewrite: Rewrite::None,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        host: HostPolicy::Preserve,
        rate_limit_headers: false,
        mirror: None,
        faults: Vec::new(),
    }
}

/// The name of a rate limit is its metric label and its policy name.
fn check_limit_names(cx: &mut Decoder<'_>, root: &Root) {
    let global = root.limits.get().map(|limits| &limits.rate_limit);
    let of_routes = root.routes().iter().map(|route| &route.value.rate_limit);
    let limits = global.into_iter().chain(of_routes).filter_map(Field::get).flat_map(|limits| &limits.items);
    let mut seen: Vec<(&str, Span)> = Vec::new();
    for (name, span) in limits.filter_map(|limit| limit.value.name.written()) {
        if let Some((_, first)) = seen.iter().find(|(other, _)| other == name) {
            let message = format!("two rate limits are called {name:?}");
            let problem =
                Problem::error(Code::Duplicate, span.clone(), message).related(Some(first.clone()), "first here");
            cx.report(problem.help("give each its own `name`, or leave it out"));
        }
        seen.push((name, span));
    }
}
