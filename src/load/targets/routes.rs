//! Targets from the configuration that is under test: where its routes listen, what they may answer, and by when.
//!
//! A route with a deadline promises an answer by then, whatever it says. So an answer that comes later is a broken
//! promise, and reported as one even when nobody wrote a gate for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Target, Url};
use crate::config::Config;
use crate::config::model::{
    HostPattern, Listener, PathPattern, RateLimit, RateMode, Route, RouteAction, Segment, StatusRange,
};
use crate::load::checks::Expectation;
use crate::load::client::origin::Origin;
use crate::units;

/// What the command line adds to a route.
#[derive(Debug, Clone, Default)]
pub struct RouteRequest {
    /// Instead of one that the route takes.
    pub method: Option<Method>,
    /// Instead of one made from the route's pattern.
    pub path: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The most requests per second that the run will ask for; unknown in a closed model.
    pub peak_rate: Option<f64>,
}

/// A target for each of these routes, and remarks on how they were made.
///
/// # Errors
///
/// For a route that is not there or that cannot be asked by itself.
pub fn of_routes(
    config: &Config,
    names: &[String],
    wanted: &RouteRequest,
) -> Result<(Vec<Target>, Vec<String>), String> {
    let listener = config.listeners.first().ok_or("the configuration has no listener")?;
    let mut remarks = Vec::new();
    let target = |name: &String| {
        let route = config.routes.iter().find(|route| route.name == *name).ok_or_else(|| unknown(config, name))?;
        of_route(listener, route, wanted, &mut remarks)
    };
    let targets = names.iter().map(target).collect::<Result<_, String>>()?;
    Ok((targets, remarks))
}

fn unknown(config: &Config, name: &str) -> String {
    let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    format!("there is no route `{name}`; the routes are {}", names.join(", "))
}

fn of_route(
    listener: &Listener,
    route: &Route,
    wanted: &RouteRequest,
    remarks: &mut Vec<String>,
) -> Result<Target, String> {
    if let RouteAction::Results { of } = &route.action {
        return Err(format!(
            "route `{}` fetches results of `{of}`, which must be asked for first; load `{of}`",
            route.name
        ));
    }
    let path = match &wanted.path {
        Some(path) => path.clone(),
        None => example_path(&route.matches.path),
    };
    if wanted.path.is_none() && matches!(route.matches.path, PathPattern::Template { .. }) {
        remarks.push(format!("route {}: the path is {path}; `--path` names another", route.name));
    }
    let method = match &wanted.method {
        Some(method) => method.clone(),
        None => example_method(route)?,
    };
    let url = Url { origin: origin_of(listener), path };
    let mut target = Target::new(method, &url, example_headers(route, &wanted.headers)?, wanted.body.clone());
    target.name = format!("{} ({})", route.name, target.name);
    target.expectation = expectation(route, wanted.peak_rate, remarks);
    // Several routes are asked alike.
    target.weight = Some(1.0);
    Ok(target)
}

/// Where a client on this machine reaches a listener.
fn origin_of(listener: &Listener) -> Origin {
    let host = match listener.address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.to_string(),
        address => address.to_string(),
    };
    Origin { tls: listener.tls.is_some(), host, port: listener.address.port(), unix: None }
}

/// A path that the pattern takes; parameters are `1`, which is a number as well as a name.
fn example_path(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(prefix) if prefix.is_empty() => "/".to_owned(),
        PathPattern::Prefix(prefix) => prefix.clone(),
        PathPattern::Template { segments, .. } => {
            let segment = |segment: &Segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                Segment::Parameter(_) => "/1".to_owned(),
            };
            segments.iter().map(segment).collect()
        }
    }
}

fn example_method(route: &Route) -> Result<Method, String> {
    let methods = &route.matches.methods;
    match methods.first() {
        Some(first) if !methods.iter().any(|method| method == "GET") => {
            first.parse().map_err(|_| format!("route `{}` takes the method {first}, which cannot be sent", route.name))
        }
        _ => Ok(Method::GET),
    }
}

/// What the route looks for in a request, unless the command line says it.
fn example_headers(route: &Route, given: &HeaderMap) -> Result<HeaderMap, String> {
    let mut headers = given.clone();
    let mut add = |name: HeaderName, value: &str| -> Result<(), String> {
        if !headers.contains_key(&name) {
            let value = HeaderValue::from_str(value).map_err(|_| format!("the value of {name} cannot be sent"))?;
            headers.insert(name, value);
        }
        Ok(())
    };
    match route.matches.hosts.first() {
        Some(HostPattern::Exact(host)) => add(HOST, host)?,
        Some(HostPattern::Suffix(suffix)) => add(HOST, &format!("load{suffix}"))?,
        None => {}
    }
    for wanted in &route.matches.headers {
        let name = wanted.name.parse().map_err(|_| format!("`{}` is not a header name", wanted.name))?;
        add(name, wanted.value.as_deref().unwrap_or("1"))?;
    }
    Ok(headers)
}

const fn only(status: u16) -> StatusRange {
    StatusRange { first: status, last: status }
}

/// What the route may answer, and by when.
fn expectation(route: &Route, peak_rate: Option<f64>, remarks: &mut Vec<String>) -> Expectation {
    let mut statuses = match &route.action {
        RouteAction::Respond { status, .. } => vec![only(*status)],
        RouteAction::Proxy { .. } | RouteAction::Aggregate(_) | RouteAction::Results { .. } => {
            vec![StatusRange { first: 200, last: 299 }]
        }
    };
    if let Some(limit) = exceeded(route, peak_rate) {
        statuses.push(only(429));
        let rate = units::show_rate(limit.rate.count, limit.rate.per);
        remarks
            .push(format!("route {}: 429 is expected, since its limit {} lets {rate} through", route.name, limit.name));
    }
    Expectation { statuses, deadline: route.deadline.after(), ..Expectation::default() }
}

/// A rate limit that the run goes beyond. In a closed model anything can, so every limit counts.
fn exceeded(route: &Route, peak_rate: Option<f64>) -> Option<&RateLimit> {
    let limits = route.rate_limits.iter().map(|limit| &**limit).filter(|limit| limit.mode != RateMode::Shadow);
    limits.into_iter().find(|limit| {
        let allowed = f64::from(limit.rate.count) / limit.rate.per.as_secs_f64();
        peak_rate.is_none_or(|peak| peak > allowed)
    })
}

/// The longest deadline among targets: a time limit of the run below it would never see a promise broken.
pub fn longest_deadline(targets: &[Target]) -> Option<Duration> {
    targets.iter().filter_map(|target| target.expectation.deadline).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[listener]
address = "0.0.0.0:8080"

[upstream.users]
endpoints = ["127.0.0.1:9001"]

[route.users]
path = "/users/{id}"
host = "api.example"
upstream = "users"
deadline = "2s"
rate_limit = { rate = "100/s", burst = 5 }

[route.fixed]
path = "/fixed"
methods = ["PUT"]
respond = { status = 418, body = "tea" }

[route.all]
path = "/all"

[route.all.aggregate.source.one]
upstream = "users"
path = "/1"
"#;

    fn config() -> Config {
        crate::config::parse("test", CONFIG, &|_| None).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn one(name: &str, wanted: &RouteRequest) -> (Target, Vec<String>) {
        let (mut targets, remarks) = of_routes(&config(), &[name.to_owned()], wanted).expect(name);
        (targets.remove(0), remarks)
    }

    #[test]
    fn a_route_says_where_what_and_by_when() {
        let (target, remarks) = one("users", &RouteRequest { peak_rate: Some(50.0), ..RouteRequest::default() });

        assert_eq!(target.name, "users (GET http://127.0.0.1:8080/users/1)");
        assert_eq!(target.template.headers["host"], "api.example");
        assert_eq!(target.expectation.deadline, Some(Duration::from_secs(2)));
        assert_eq!(target.expectation.statuses, [StatusRange { first: 200, last: 299 }]);
        assert!(remarks.iter().any(|remark| remark.contains("--path")), "{remarks:?}");
    }

    #[test]
    fn above_the_rate_limit_429_is_expected() {
        for (peak_rate, expected) in [(Some(100.0), false), (Some(101.0), true), (None, true)] {
            let (target, _) = one("users", &RouteRequest { peak_rate, ..RouteRequest::default() });
            assert_eq!(target.expectation.statuses.contains(&only(429)), expected, "{peak_rate:?}");
        }
    }

    #[test]
    fn fixed_answers_and_aggregates_are_routes_too() {
        let (fixed, _) = one("fixed", &RouteRequest::default());
        assert_eq!((fixed.template.method.as_str(), fixed.expectation.statuses.as_slice()), ("PUT", &[only(418)][..]));

        let (all, _) = one("all", &RouteRequest::default());
        assert_eq!(all.template.path, "/all");
    }

    #[test]
    fn a_route_that_is_not_there_is_told_with_those_that_are() {
        let error = of_routes(&config(), &["user".to_owned()], &RouteRequest::default()).expect_err("no such route");

        assert!(error.contains("`user`") && error.contains("users, fixed, all"), "{error}");
    }
}
