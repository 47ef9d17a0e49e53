//! `forebay explain`: which route a request takes and why, what holds for it and where that is written, and the
//! longest time it can take. Uses the same normalisation and route table as the proxy.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use super::Loaded;
use super::model::{HeaderMatch, InFlight, RateLimit, RateMode, Route, RouteAction, Upstream};
use super::settings::Setting;
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
                self.line(format!("  is answered from {} sources", aggregate.sources.len()));
            }
            RouteAction::Results { of } => self.line(format!("  gives the results of route {of}")),
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

    /// Every setting of the route, of its upstream and of all routes, with its origin.
    fn settings(&mut self, loaded: &Loaded, route: &Route) {
        let mut places = vec![format!("route.{}", route.name)];
        if let RouteAction::Proxy { upstream } = &route.action {
            places.push(format!("upstream.{}", upstream.name));
        }
        places.push("limits".to_owned());
        for place in places {
            // A queue without a limit before it has no effect.
            let limited = loaded.settings.get(&format!("{place}.max_in_flight")).is_some();
            let settings = loaded.settings.below(&place).filter(|(name, _)| limited || !name.starts_with("queue."));
            let settings: Vec<(&str, &Setting)> = settings.collect();
            if settings.is_empty() {
                continue;
            }
            let shown = settings.iter().map(|(name, setting)| (*name, show(setting), setting.origin.to_string()));
            let rows: Vec<(&str, String, String)> = shown.collect();
            let name_width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
            let value_width = rows.iter().map(|row| row.1.chars().count()).max().unwrap_or(0).min(40);
            self.line(format!("\n[{place}]"));
            for (name, value, origin) in rows {
                self.line(format!("  {name:name_width$}  {value:value_width$}  {origin}"));
            }
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

    fn end(&mut self, deadline: Duration, between: Duration) {
        if between < deadline {
            self.line(format!("  a silence of {} inside the answer ends it", show_duration(between)));
        }
        self.line(format!("  everything is over after {}, the deadline", show_duration(deadline)));
    }
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
