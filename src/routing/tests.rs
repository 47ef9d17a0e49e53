//! The router against single cases and against a naive reference.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::{ClientGone, Deadline, HeaderEdits, HostPolicy, Objective, RouteAction, Segment, Upgrades};

fn host(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(text.to_owned()),
    }
}

fn path(text: &str) -> PathPattern {
    let (body, rest) = text.strip_suffix("/*").map_or((text, false), |body| (body, true));
    if body.contains('{') {
        let segments = body[1..].split('/').map(|part| match part.strip_prefix('{') {
            Some(name) => Segment::Parameter(name.trim_end_matches('}').to_owned()),
            None => Segment::Literal(part.to_owned()),
        });
        PathPattern::Template { segments: segments.collect(), rest }
    } else if rest {
        PathPattern::Prefix(body.to_owned())
    } else {
        PathPattern::Exact(body.to_owned())
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

/// `route("name", "hosts", "METHODS", "/path", "header header=value")`
fn route(name: &str, hosts: &str, methods: &str, pattern: &str, headers: &str) -> Arc<Route> {
    let header = |text: &str| match text.split_once('=') {
        Some((name, value)) => HeaderMatch { name: name.to_owned(), value: Some(value.to_owned()) },
        None => HeaderMatch { name: text.to_owned(), value: None },
    };
    Arc::new(Route {
        name: name.to_owned(),
        matches: RouteMatch {
            hosts: words(hosts).map(host).collect(),
            path: path(pattern),
            methods: words(methods).map(str::to_owned).collect(),
            headers: words(headers).map(header).collect(),
        },
        action: RouteAction::Respond { status: 200, content_type: String::new(), body: String::new() },
        deadline: Deadline::After(Duration::from_secs(1)),
        objective: Objective::default(),
        rate_limits: Vec::new(),
        in_flight: None,
        client_in_flight: None,
        on_client_gone: ClientGone::Cancel,
        max_body_bytes: 0,
        upgrades: Upgrades { protocols: Vec::new(), idle_timeout: Duration::from_secs(1) },
        rewrite: Rewrite::None,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        host: HostPolicy::Preserve,
        rate_limit_headers: false,
        mirror: None,
        faults: Vec::new(),
    })
}

fn paths(patterns: &[&str]) -> Vec<Arc<Route>> {
    patterns.iter().map(|pattern| route(pattern, "", "", pattern, "")).collect()
}

fn fields(text: &str) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in words(text).filter_map(|word| word.split_once('=')) {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

fn found<'r>(routes: &'r [Arc<Route>], method: Method, host: &str, path: &str, headers: &str) -> Option<&'r str> {
    match Router::new(routes).find(method, host, path.as_bytes(), &fields(headers)) {
        Found::Route(index, _) => Some(&routes[index].name),
        _ => None,
    }
}

#[test]
fn the_most_specific_path_wins() {
    let routes = paths(&["/*", "/{a}/list", "/files/*", "/files/{name}", "/files/list", "/files/{name}/*", "/"]);
    for (path, expected) in [
        ("/files/list", "/files/list"),
        ("/files/x", "/files/{name}"),
        ("/files/x/y", "/files/{name}/*"),
        ("/files", "/files/*"),
        ("/files/", "/files/*"),
        ("/other/list", "/{a}/list"),
        ("/other", "/*"),
        ("/", "/"),
        ("/filesystem", "/*"),
    ] {
        assert_eq!(found(&routes, Method::Get, "a", path, ""), Some(expected), "{path}");
    }
}

#[test]
fn exact_paths_and_templates_take_whole_segments() {
    let routes = paths(&["/users", "/users/{id}", "/users/{id}/posts/{post}"]);
    assert_eq!(found(&routes, Method::Get, "a", "/users", ""), Some("/users"));
    assert_eq!(found(&routes, Method::Get, "a", "/users/", ""), None);
    assert_eq!(found(&routes, Method::Get, "a", "/users/7/", ""), None);
    assert_eq!(found(&routes, Method::Get, "a", "/users/7/posts/8", ""), Some("/users/{id}/posts/{post}"));
    assert_eq!(found(&routes, Method::Get, "a", "/Users", ""), None);
}

#[test]
fn hosts_come_before_paths() {
    let routes = [
        route("any", "", "", "/a", ""),
        route("wide", "*.example.com", "", "/a", ""),
        route("narrow", "*.api.example.com", "", "/*", ""),
        route("exact", "x.api.example.com", "", "/*", ""),
    ];
    let at = |host: &str| found(&routes, Method::Get, host, "/a", "");

    assert_eq!(at("x.api.example.com"), Some("exact"));
    assert_eq!(at("y.api.example.com"), Some("narrow"));
    assert_eq!(at("a.b.example.com"), Some("wide"));
    assert_eq!(at("example.com"), Some("any"));
    assert_eq!(at("badexample.com"), Some("any"));
    assert_eq!(at(""), Some("any"));
}

#[test]
fn more_conditions_win_and_a_route_that_fails_one_is_passed_over() {
    let routes = [
        route("plain", "", "", "/a", ""),
        route("present", "", "", "/a", "x-v"),
        route("valued", "", "", "/a", "x-v=2"),
        route("two", "", "", "/a", "x-v x-w"),
        route("post", "", "POST", "/a", ""),
    ];
    let with = |headers: &str| found(&routes, Method::Get, "", "/a", headers);

    assert_eq!(with(""), Some("plain"));
    assert_eq!(with("x-v=1"), Some("present"));
    assert_eq!(with("x-v=1 X-V=2"), Some("valued"));
    assert_eq!(with("x-v=2 x-w=1"), Some("two"));
    assert_eq!(found(&routes, Method::Post, "", "/a", ""), Some("post"));
}

#[test]
fn a_wrong_method_names_the_right_ones() {
    let routes = [
        route("a", "", "GET HEAD", "/a", ""),
        route("b", "", "POST GET", "/{x}", ""),
        route("c", "", "PUT", "/a", "x-v"),
    ];
    let router = Router::new(&routes);

    let refused = router.find(Method::Delete, "", b"/a", &Fields::new());
    assert_eq!(refused, Found::MethodNotAllowed { allow: "GET, HEAD, POST".to_owned() });
    assert_eq!(router.find(Method::Delete, "", b"/a/b", &Fields::new()), Found::NoRoute);
}

#[test]
fn explain_says_why_each_route_was_passed_over() {
    let routes = [
        route("rest", "", "", "/*", ""),
        route("host", "b", "", "/a", ""),
        route("path", "", "", "/b", ""),
        route("method", "", "PUT", "/a", ""),
        route("header", "", "", "/a", "x-v=1"),
        route("chosen", "", "", "/a", ""),
    ];

    let verdicts = Router::new(&routes).explain(Method::Get, "a", b"/a", &Fields::new());

    let header = HeaderMatch { name: "x-v".to_owned(), value: Some("1".to_owned()) };
    let expected = [
        Verdict::LessSpecific(5),
        Verdict::Host,
        Verdict::Path,
        Verdict::Method,
        Verdict::Header(header),
        Verdict::Chosen,
    ];
    assert_eq!(verdicts, expected.into_iter().enumerate().collect::<Vec<_>>());
}

#[test]
fn duplicates_and_shadowed_routes_are_found() {
    let routes = [
        route("b", "", "", "/users/{id}", ""),
        route("a", "", "", "/users/{name}", ""),
        route("other", "a", "", "/users/{id}", ""),
        route("more", "", "", "/users/{id}", "x"),
        route("both", "", "GET POST", "/x", ""),
        route("get", "", "GET", "/x", ""),
        route("post", "", "POST", "/x", ""),
        route("any", "", "", "/x", ""),
        route("put", "", "PUT", "/x", ""),
    ];

    assert_eq!(shadowed(&routes), [(0, 1, Kind::Duplicate), (4, 5, Kind::Shadowed)]);
}

#[test]
fn parameters_and_rest_are_found_and_rewritten() {
    let rewritten = |pattern: &str, template: &str, text: &str| {
        let routes = paths(&[pattern]);
        let Found::Route(0, params) = Router::new(&routes).find(Method::Get, "", text.as_bytes(), &Fields::new())
        else {
            panic!("{pattern} does not match {text}");
        };
        let mut out = Vec::new();
        let new = Rewrite::Path(template.to_owned());
        assert!(rewrite(&new, &routes[0].matches.path, &params, text.as_bytes(), &mut out));
        String::from_utf8(out).expect("ASCII")
    };

    assert_eq!(rewritten("/users/{id}", "/u/{id}.json", "/users/7"), "/u/7.json");
    assert_eq!(rewritten("/{a}/{b}/*", "/{b}/{a}/{rest}", "/1/2/3/4"), "/2/1/3/4");
    assert_eq!(rewritten("/v1/*", "/v2/{rest}", "/v1"), "/v2");
    assert_eq!(rewritten("/v1/*", "/v2/{rest}", "/v1/"), "/v2/");
    assert_eq!(rewritten("/*", "/{rest}", "/"), "/");
    assert_eq!(rewritten("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}", "/{h}{a}{g}{f}", "/1/2/3/4/5/6/7/8"), "/8176");
}

#[test]
fn a_prefix_is_stripped_by_whole_segments() {
    let stripped = |prefix: &str, path: &str| {
        let mut out = Vec::new();
        let strip = Rewrite::StripPrefix(prefix.to_owned());
        let changed =
            rewrite(&strip, &PathPattern::Prefix(String::new()), &Params::default(), path.as_bytes(), &mut out);
        changed.then(|| String::from_utf8(out).expect("ASCII"))
    };

    assert_eq!(stripped("/api", "/api/x").as_deref(), Some("/x"));
    assert_eq!(stripped("/api", "/api").as_deref(), Some("/"));
    assert_eq!(stripped("/api", "/api/").as_deref(), Some("/"));
    assert_eq!(stripped("/api", "/apis"), None);
    assert_eq!(stripped("", "/x"), None);
}

/// The definition in the module's comment, written down as plainly as possible.
mod reference {
    use super::*;

    fn pattern_parts(path: &PathPattern) -> (Vec<Option<String>>, bool) {
        let literals = |path: &str| path.split('/').skip(1).map(|part| Some(part.to_owned())).collect();
        match path {
            PathPattern::Exact(path) => (literals(path), false),
            PathPattern::Prefix(path) => (literals(path), true),
            PathPattern::Template { segments, rest } => {
                let part = |segment: &Segment| match segment {
                    Segment::Literal(text) => Some(text.clone()),
                    Segment::Parameter(_) => None,
                };
                (segments.iter().map(part).collect(), *rest)
            }
        }
    }

    fn path_matches(pattern: &PathPattern, path: &str) -> bool {
        let (parts, rest) = pattern_parts(pattern);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let length = if rest { segments.len() >= parts.len() } else { segments.len() == parts.len() };
        length
            && parts.iter().zip(&segments).all(|(part, segment)| match part {
                Some(literal) => literal == segment,
                None => !segment.is_empty(),
            })
    }

    /// The smaller, the more specific.
    fn key(route: &Route, host_name: &str, path: &str) -> Option<impl Ord> {
        let m = &route.matches;
        let host = if m.hosts.is_empty() {
            Some((2, 0))
        } else {
            let rank = |pattern: &HostPattern| match pattern {
                HostPattern::Exact(name) => (name == host_name).then_some((0, 0)),
                HostPattern::Suffix(suffix) => {
                    (host_name != suffix && host_name.ends_with(suffix.as_str())).then_some((1, 1000 - suffix.len()))
                }
            };
            m.hosts.iter().filter_map(rank).min()
        }?;
        if !path_matches(&m.path, path) {
            return None;
        }
        let (parts, rest) = pattern_parts(&m.path);
        let mut ranks: Vec<u8> = parts.iter().map(|part| if part.is_some() { 0 } else { 1 }).collect();
        if rest {
            ranks.push(2);
        }
        let valued = m.headers.iter().filter(|header| header.value.is_some()).count();
        let methods = if m.methods.is_empty() { 1000 } else { m.methods.len() };
        Some((host, ranks, (100 - m.headers.len(), 100 - valued), methods, route.name.clone()))
    }

    pub fn find<'r>(
        routes: &'r [Arc<Route>],
        method: &str,
        host: &str,
        path: &str,
        fields: &Fields,
    ) -> Option<&'r str> {
        routes
            .iter()
            .filter(|route| route.matches.methods.is_empty() || route.matches.methods.iter().any(|m| m == method))
            .filter(|route| {
                route.matches.headers.iter().all(|header| {
                    fields.iter().any(|(name, value, _)| {
                        name.eq_ignore_ascii_case(header.name.as_bytes())
                            && header.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == value)
                    })
                })
            })
            .filter_map(|route| Some((key(route, host, path)?, route)))
            .min_by(|a, b| a.0.cmp(&b.0))
            .map(|(_, route)| route.name.as_str())
    }
}

fn any_routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    let hosts = prop::sample::select(vec!["", "a", "b.a", "*.a", "*.b.a", "a *.a"]);
    let methods = prop::sample::select(vec!["", "GET", "POST", "GET POST"]);
    let pattern = ("(/(a|b|\\{x\\})){0,3}", prop::sample::select(vec!["", "/*", "/"]))
        .prop_map(|(body, end)| if body.is_empty() && end.is_empty() { "/".to_owned() } else { body + end });
    let headers = prop::sample::select(vec!["", "", "h", "h=1", "h=1 k"]);
    prop::collection::vec((hosts, methods, pattern, headers), 0..8).prop_map(|all| {
        all.iter()
            .enumerate()
            .map(|(i, (host, methods, path, headers))| route(&format!("r{i}"), host, methods, path, headers))
            .collect()
    })
}

proptest! {
    #[test]
    fn every_order_of_the_routes_gives_the_answer_of_the_reference(
        (routes, shuffled) in any_routes().prop_flat_map(|routes| (Just(routes.clone()), Just(routes).prop_shuffle())),
        host in prop::sample::select(vec!["a", "b.a", "c.a", "c.b.a", "d", ""]),
        path in "(/(a|b|c)?){1,4}",
        headers in prop::sample::select(vec!["", "h=1", "h=2", "h=1 k=1"]),
    ) {
        for method in [Method::Get, Method::Post, Method::Put] {
            let expected = reference::find(&routes, method.as_str(), host, &path, &fields(headers));
            prop_assert_eq!(found(&routes, method, host, &path, headers), expected);
            prop_assert_eq!(found(&shuffled, method, host, &path, headers), expected);
        }
    }

    #[test]
    fn a_shadowed_route_is_never_found(routes in any_routes(), path in "(/(a|b|c)?){1,4}") {
        let never: Vec<usize> =
            shadowed(&routes).into_iter().filter(|(_, _, kind)| *kind == Kind::Shadowed).map(|(index, _, _)| index).collect();
        let router = Router::new(&routes);
        for host in ["a", "b.a", "c.a", "c.b.a", "d"] {
            for headers in ["", "h=1", "h=1 k=1"] {
                for method in [Method::Get, Method::Post, Method::Put] {
                    if let Found::Route(index, _) = router.find(method, host, path.as_bytes(), &fields(headers)) {
                        prop_assert!(!never.contains(&index));
                    }
                }
            }
        }
    }
}
