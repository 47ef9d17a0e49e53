//! `forebay explain`: which route a request takes and why, what holds for it and where that is written, and the
//! longest time it can take. Uses the same normalisation and route table as the proxy.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::Loaded;
use super::aggregate::explain as aggregate;
use super::model::aggregate::Aggregate;
use super::model::{HeaderMatch, InFlight, RateLimit, RateMode, Route, RouteAction, Upstream};
use super::settings::{Origin, Setting};
use super::value::path::show_pattern;
use crate::message::path::normalise;
use crate::message::{Fields, Method};
use crate::routing::{Found, Router, Verdict};
use crate::units::show_duration;

/// The request to explain.
#[derive(Debug, Clone, Default)]
pub struct ExplainRequest {
    /// `GET` when empty.
    pub method: String,
    /// Without a port.
    pub host: String,
    /// A query may follow; it does not count in matching.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// The explanation, laid out for a terminal; or why there can be none, as a fragment.
pub fn explain(loaded: &Loaded, request: &ExplainRequest) -> Result<String, String> {
    let method_name = if request.method.is_empty() { "GET" } else { &request.method };
    let method =
        Method::from_bytes(method_name.as_bytes()).ok_or_else(|| format!("{method_name:?} is not a method"))?;
    let raw = request.path.split(['?', '#']).next().unwrap_or_default();
    let mut buffer = Vec::new();
    let normalised = normalise(raw.as_bytes(), &mut buffer).map_err(|error| format!("answered with 400: {error}"))?;
    let path = normalised.path(raw.as_bytes(), &buffer).to_vec();
    let host = request.host.to_ascii_lowercase();
    let mut fields = Fields::new();
    for (name, value) in &request.headers {
        fields.push(name.to_ascii_lowercase().as_bytes(), value.as_bytes());
    }

    let router = Router::new(&loaded.config.routes);
    let found = router.find(method, &host, &path, &fields);
    let verdicts = router.explain(method, &host, &path, &fields);
    let mut out = Page::default();
    out.request(method_name, request, &String::from_utf8_lossy(&path), raw);
    match &found {
        Found::Route(index, _) => out.route(loaded, &loaded.config.routes[*index]),
        Found::NoRoute => out.line("no route: answered with 404"),
        Found::MethodNotAllowed { allow } => {
            out.line(format!("no route for this method: answered with 405, Allow: {allow}"))
        }
    }
    out.others(loaded, &verdicts);
    if let Found::Route(index, _) = &found {
        let route = &loaded.config.routes[*index];
        out.settings(loaded, route);
        out.worst_case(loaded, route);
    }
    Ok(out.text)
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref().trim_end());
        self.text.push('\n');
    }

    fn request(&mut self, method: &str, request: &ExplainRequest, path: &str, raw: &str) {
        let host = if request.host.is_empty() { String::new() } else { format!("  on {}", request.host) };
        self.line(format!("{method} {}{host}", request.path));
        if path != raw {
            self.line(format!("  matched and forwarded as {path}"));
        }
        self.line("");
    }

    fn route(&mut self, loaded: &Loaded, route: &Route) {
        self.line(format!("route {}{}", route.name, place(loaded, route)));
        self.line(format!("  {}", conditions(route)));
        match &route.action {
            RouteAction::Proxy { upstream } => {
                let endpoints: Vec<String> = upstream.endpoints.iter().map(endpoint).collect();
                self.line(format!("  goes to upstream {}: {}", upstream.name, endpoints.join(", ")));
            }
            RouteAction::Respond { status, .. } => self.line(format!("  is answered at once with {status}")),
            RouteAction::Aggregate(aggregate) => {
                self.line(format!("  is answered from {}", counted_sources(aggregate)));
                self.aggregate(loaded, route, aggregate);
            }
            RouteAction::Results { of } => self.line(format!("  gives the results of route {of}")),
        }
    }

    fn aggregate(&mut self, loaded: &Loaded, route: &Route, aggregate: &Aggregate) {
        let shown = aggregate::Shown { route: &route.name, aggregate, settings: &loaded.settings };
        self.line("\nsources");
        self.lines(aggregate::plan(&shown, route.deadline.after()));
        self.line("\nanswer");
        self.lines(aggregate::answer(aggregate));
    }

    fn lines(&mut self, lines: Vec<String>) {
        for line in lines {
            self.line(line);
        }
    }

    /// Why each other route does not take the request.
    fn others(&mut self, loaded: &Loaded, verdicts: &[(usize, Verdict)]) {
        let routes = &loaded.config.routes;
        let width = routes.iter().map(|route| route.name.len()).max().unwrap_or(0);
        let mut others = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Chosen).peekable();
        if others.peek().is_some() {
            self.line("\nother routes");
        }
        for (index, verdict) in others {
            let route = &routes[*index];
            let why = match verdict {
                Verdict::Chosen => continue,
                Verdict::Host => "is for other hosts".to_owned(),
                Verdict::Path => format!("is for {}", show_pattern(&route.matches.path)),
                Verdict::Method => format!("is for {}", route.matches.methods.join(", ")),
                Verdict::Header(header) => format!("needs the header {}", show_header(header)),
                Verdict::LessSpecific(by) => format!("matches too, but {} is more specific", routes[*by].name),
            };
            self.line(format!("  {:width$}  {why}", route.name));
        }
    }

    /// Every setting of the route, of its upstreams and of all routes, with its origin.
    fn settings(&mut self, loaded: &Loaded, route: &Route) {
        let own = format!("route.{}", route.name);
        match &route.action {
            RouteAction::Proxy { upstream } => {
                self.table(loaded, &own, |_| true);
                self.table(loaded, &format!("upstream.{}", upstream.name), |_| true);
            }
            RouteAction::Aggregate(aggregate) => {
                self.table(loaded, &own, |name| !name.starts_with("aggregate."));
                let own = format!("{own}.aggregate");
                self.table(loaded, &own, |name| !name.starts_with("source."));
                let sources = aggregate.sources.iter().map(|source| format!("{own}.source.{}", source.name));
                self.alike(loaded, &format!("{own}.source"), &sources.collect::<Vec<_>>());
                let upstreams = aggregate.sources.iter().map(|source| format!("upstream.{}", source.upstream.name));
                let upstreams: BTreeSet<String> = upstreams.collect();
                self.alike(loaded, "upstream", &upstreams.into_iter().collect::<Vec<_>>());
            }
            RouteAction::Respond { .. } | RouteAction::Results { .. } => self.table(loaded, &own, |_| true),
        }
        self.table(loaded, "limits", |_| true);
    }

    /// Tables of one kind: what is written in each, then once what holds where nothing is written.
    fn alike(&mut self, loaded: &Loaded, kind: &str, places: &[String]) {
        let mut defaults = BTreeMap::new();
        for place in places {
            let (left_out, written): (Vec<_>, Vec<_>) =
                effective(loaded, place).into_iter().partition(|(_, setting)| setting.origin == Origin::Default);
            defaults.extend(left_out);
            self.rows(place, &written);
        }
        self.rows(&format!("{kind}.*"), &defaults.into_iter().collect::<Vec<_>>());
    }

    /// The settings below a place that are wanted.
    fn table(&mut self, loaded: &Loaded, place: &str, wanted: impl Fn(&str) -> bool) {
        let mut settings = effective(loaded, place);
        settings.retain(|(name, _)| wanted(name));
        self.rows(place, &settings);
    }

    fn rows(&mut self, place: &str, settings: &[(&str, &Setting)]) {
        let shown = settings.iter().map(|(name, setting)| (*name, show(setting), setting.origin.to_string()));
        let rows: Vec<(&str, String, String)> = shown.collect();
        if rows.is_empty() {
            return;
        }
        let name_width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
        let value_width = rows.iter().map(|row| row.1.chars().count()).max().unwrap_or(0).min(40);
        self.line(format!("\n[{place}]"));
        for (name, value, origin) in rows {
            self.line(format!("  {name:name_width$}  {value:value_width$}  {origin}"));
        }
    }

    fn worst_case(&mut self, loaded: &Loaded, route: &Route) {
        let steps = steps(loaded, route);
        self.line("\nworst case");
        let width = steps.iter().map(|step| step.what.chars().count()).max().unwrap_or(0);
        for step in &steps {
            self.line(format!("  {:width$}  {:>7}", step.what, show_duration(step.time)));
        }
        let begin: Duration = steps.iter().map(|step| step.time).fold(Duration::ZERO, Duration::saturating_add);
        let between = match &route.action {
            RouteAction::Proxy { upstream } => Some(upstream.timeouts.between_bytes),
            RouteAction::Respond { .. } | RouteAction::Aggregate(_) | RouteAction::Results { .. } => None,
        };
        if let RouteAction::Aggregate(aggregate) = &route.action {
            self.aggregate_end(aggregate, begin, route.deadline.after());
            let of_all = loaded.config.in_flight.as_ref().map(|limit| limit.max);
            let in_flight = [route.in_flight.as_ref().map(|limit| limit.max), of_all].into_iter().flatten().min();
            self.line("\nmemory");
            return self.lines(aggregate::memory(aggregate, in_flight));
        }
        match (route.deadline.after(), between) {
            (_, None) => self.line(format!("  the answer begins after at most {}", show_duration(begin))),
            (Some(deadline), Some(between)) if begin == deadline => {
                let begin = show_duration(begin);
                self.line(format!(
                    "  these could take {begin} together, as long as the deadline: either may come first"
                ));
                self.end(deadline, between);
            }
            (Some(deadline), Some(between)) if begin > deadline => {
                self.line(format!("  these could take {} together; the deadline ends them", show_duration(begin)));
                self.end(deadline, between);
            }
            (Some(deadline), Some(between)) => {
                self.line(format!("  the answer begins after at most {}", show_duration(begin)));
                self.end(deadline, between);
            }
            (None, Some(between)) => {
                self.line(format!("  the answer begins after at most {}", show_duration(begin)));
                self.line(format!(
                    "  then it may go on for ever, as long as no silence lasts {}",
                    show_duration(between)
                ));
            }
        }
    }

    /// When an aggregate is over: its longest way has been written out.
    fn aggregate_end(&mut self, aggregate: &Aggregate, time: Duration, deadline: Option<Duration>) {
        let unlimited = aggregate::unlimited(aggregate);
        if !unlimited.is_empty() {
            let (names, have) = (unlimited.join(", "), if unlimited.len() == 1 { "has" } else { "have" });
            self.line(format!("  {names} {have} no `timeout`: only the deadline and the upstream's own end them"));
        }
        match deadline {
            Some(deadline) if time > deadline => {
                self.line(format!("  these could take {} together; the deadline ends them", show_duration(time)));
                self.line(format!("  everything is over after {}, the deadline", show_duration(deadline)));
            }
            Some(deadline) if !unlimited.is_empty() => {
                self.line(format!("  everything is over after {}, the deadline", show_duration(deadline)));
            }
            _ if unlimited.is_empty() => {
                self.line(format!("  the answer is complete after at most {}", show_duration(time)));
            }
            _ => self.line("  there is no deadline: the answer may take for ever"),
        }
    }

    fn end(&mut self, deadline: Duration, between: Duration) {
        if between < deadline {
            self.line(format!("  a silence of {} inside the answer ends it", show_duration(between)));
        }
        self.line(format!("  everything is over after {}, the deadline", show_duration(deadline)));
    }
}

/// The settings below a place that have an effect.
fn effective<'l>(loaded: &'l Loaded, place: &str) -> Vec<(&'l str, &'l Setting)> {
    let written = |key: &str| loaded.settings.get(&format!("{place}.{key}")).is_some();
    // A queue without a limit before it has none; neither have the bounds of a list without the list, nor the target
    // of a latency that nobody promises.
    let limited = written("max_in_flight");
    let list = written("for_each") || !place.contains(".aggregate.source.");
    let promises_latency = written("objective.latency");
    let about_list = |name: &str| matches!(name, "concurrency" | "max_items" | "too_many");
    let settings = loaded.settings.below(place);
    let has_effect = |name: &str| {
        (limited || !name.starts_with("queue."))
            && (list || !about_list(name))
            && (promises_latency || name != "objective.latency_target")
    };
    settings.filter(|(name, _)| has_effect(name)).collect()
}

/// One wait on the way to the answer's first byte.
struct Step {
    what: String,
    time: Duration,
}

fn steps(loaded: &Loaded, route: &Route) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut queue = |limit: &Option<InFlight>, of: &str| {
        if let Some(limit) = limit.as_ref().filter(|limit| limit.queue.capacity > 0) {
            steps.push(Step { what: format!("queue of {of}"), time: limit.queue.timeout });
        }
    };
    queue(&loaded.config.in_flight, "all routes");
    queue(&route.in_flight, "the route");
    if let RouteAction::Proxy { upstream } = &route.action {
        queue(&upstream.in_flight, "the upstream");
        steps.extend(upstream_steps(upstream));
    }
    if let RouteAction::Aggregate(aggregate) = &route.action {
        steps.extend(aggregate::longest_way(aggregate).into_iter().map(|(what, time)| Step { what, time }));
    }
    let limits = loaded.config.rate_limits.iter().chain(&route.rate_limits);
    let delays = limits.filter(|limit| limit.mode == RateMode::Delay).map(|limit| delay(limit));
    delays.chain(steps).collect()
}

/// Each who waits is one interval of the rate behind the one before.
fn delay(limit: &RateLimit) -> Step {
    let waiting = u32::try_from(limit.max_delayed).unwrap_or(u32::MAX);
    let time = limit.rate.per.saturating_mul(waiting) / limit.rate.count.max(1);
    Step { what: format!("delay by the rate limit {}", limit.name), time }
}

fn upstream_steps(upstream: &Upstream) -> Vec<Step> {
    let timeouts = &upstream.timeouts;
    let attempts = upstream.connect_retries + 1;
    let tls = if upstream.tls.is_some() { timeouts.tls } else { Duration::ZERO };
    let what = match (attempts, upstream.tls.is_some()) {
        (1, false) => "connect".to_owned(),
        (1, true) => "connect and TLS handshake".to_owned(),
        (_, false) => format!("connect, {attempts} attempts of {}", show_duration(timeouts.connect)),
        (_, true) => {
            format!(
                "connect and TLS, {attempts} attempts of {} + {}",
                show_duration(timeouts.connect),
                show_duration(tls)
            )
        }
    };
    vec![
        Step { what, time: timeouts.connect.saturating_add(tls).saturating_mul(attempts) },
        Step { what: "first byte of the answer".to_owned(), time: timeouts.first_byte },
    ]
}

fn counted_sources(aggregate: &Aggregate) -> String {
    match aggregate.sources.len() {
        1 => "one source".to_owned(),
        count => format!("{count} sources"),
    }
}

/// ` (line 12)` of the route's path.
fn place(loaded: &Loaded, route: &Route) -> String {
    let setting = loaded.settings.get(&format!("route.{}.path", route.name));
    setting.map_or(String::new(), |setting| format!(" ({})", setting.origin))
}

/// `path /users/* on api.example.com, GET or HEAD, with x-tenant = "a"`.
fn conditions(route: &Route) -> String {
    let matches = &route.matches;
    let mut text = format!("takes {}", show_pattern(&matches.path));
    if !matches.hosts.is_empty() {
        let hosts: Vec<String> = matches.hosts.iter().map(host).collect();
        let _ = write!(text, " on {}", hosts.join(", "));
    }
    if !matches.methods.is_empty() {
        let _ = write!(text, ", {}", matches.methods.join(" or "));
    }
    if !matches.headers.is_empty() {
        let headers: Vec<String> = matches.headers.iter().map(show_header).collect();
        let _ = write!(text, ", with {}", headers.join(" and "));
    }
    text
}

fn host(pattern: &super::model::HostPattern) -> String {
    match pattern {
        super::model::HostPattern::Exact(name) => name.clone(),
        super::model::HostPattern::Suffix(suffix) => format!("*{suffix}"),
    }
}

fn show_header(header: &HeaderMatch) -> String {
    match &header.value {
        Some(value) => format!("{} = {value:?}", header.name),
        None => header.name.clone(),
    }
}

fn endpoint(address: &super::model::EndpointAddress) -> String {
    match address {
        super::model::EndpointAddress::Socket(address) => address.to_string(),
        super::model::EndpointAddress::Name { host, port } => format!("{host}:{port}"),
    }
}

/// A setting's value as it is written in the file, on one line.
fn show(setting: &Setting) -> String {
    let text = match &setting.value {
        serde_json::Value::String(text) if !text.contains(char::is_control) => Cow::Borrowed(text.as_str()),
        other => Cow::Owned(other.to_string()),
    };
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into_owned(),
    }
}
