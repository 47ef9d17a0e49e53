//! The compiled route table: finds the most specific route for a request, whatever order the file has.
//!
//! A route matches when all of host, path, headers and method match. Among those that match, the first difference decides:
//!
//! 1. **host**: an exact name, then a longer `*.suffix`, then a shorter one, then any host;
//! 2. **path**, segment by segment from the left: a literal before a `{parameter}` before the rest `/*` (so an exact path
//!    wins over any pattern, and `/files/*` over `/{tenant}/list`);
//! 3. **headers**: more conditions before fewer, and conditions on a value before those on mere presence;
//! 4. **methods**: a shorter list before a longer one before any method;
//! 5. what is still equal is decided by the route's name, and `check` reports it as a duplicate.
//!
//! Paths are matched in the form that `message::path` gives them, hosts in lower case without port.

mod explain;
mod pattern;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::{HeaderMatch, HostPattern, PathPattern, Rewrite, Route, RouteMatch};
use crate::message::{Fields, Method};

pub use explain::{Kind, Verdict, shadowed};
pub use pattern::Params;
use pattern::Pattern;

/// What a request found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Index into the routes that the router was made from.
    Route(usize, Params),
    NoRoute,
    /// Everything matched but the method; `allow` is the value for the `Allow` field.
    MethodNotAllowed {
        allow: String,
    },
}

/// All routes of a configuration, indexed.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    exact_hosts: HashMap<Box<str>, Group>,
    /// With the leading dot, longest first.
    suffixes: Vec<(Box<str>, Group)>,
    any_host: Group,
}

/// The routes of one host pattern. Each list is in order of precedence.
#[derive(Debug, Default)]
struct Group {
    /// Patterns without parameters and rest. They win over every other pattern that matches the same path.
    exact_paths: HashMap<Box<str>, Vec<Entry>>,
    /// Other patterns with a literal first segment, by that segment. They win over those that begin with a parameter or the rest.
    by_first_segment: HashMap<Box<str>, Vec<Entry>>,
    open: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    route: usize,
    pattern: Arc<Pattern>,
}

impl Router {
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let mut router = Self {
            routes: routes.to_vec(),
            exact_hosts: HashMap::new(),
            suffixes: Vec::new(),
            any_host: Group::default(),
        };
        for index in by_precedence(routes) {
            let entry = Entry { route: index, pattern: Arc::new(Pattern::new(&routes[index].matches.path)) };
            let hosts = &routes[index].matches.hosts;
            if hosts.is_empty() {
                router.any_host.add(entry.clone());
            }
            for host in hosts {
                router.group_mut(host).add(entry.clone());
            }
        }
        router.suffixes.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        router
    }

    fn group_mut(&mut self, host: &HostPattern) -> &mut Group {
        match host {
            HostPattern::Exact(name) => self.exact_hosts.entry(name.as_str().into()).or_default(),
            HostPattern::Suffix(suffix) => {
                let at = self.suffixes.iter().position(|(known, _)| **known == **suffix).unwrap_or_else(|| {
                    self.suffixes.push((suffix.as_str().into(), Group::default()));
                    self.suffixes.len() - 1
                });
                &mut self.suffixes[at].1
            }
        }
    }

    /// The route for a request. `host` is lower-case without port, `path` is normalised.
    pub fn find(&self, method: Method, host: &str, path: &[u8], fields: &Fields) -> Found {
        let candidates = self.groups(host).flat_map(|group| group.candidates(path));
        for entry in candidates {
            let matches = &self.routes[entry.route].matches;
            if !method_matches(matches, method) || !headers_match(matches, fields) {
                continue;
            }
            if let Some(params) = entry.pattern.matches(path) {
                return Found::Route(entry.route, params);
            }
        }
        self.without_route(host, path, fields)
    }

    /// The slow way, only for requests that end in an error: were there routes for other methods?
    #[cold]
    fn without_route(&self, host: &str, path: &[u8], fields: &Fields) -> Found {
        let mut methods: Vec<&str> = self
            .groups(host)
            .flat_map(|group| group.candidates(path))
            .filter(|entry| entry.pattern.matches(path).is_some())
            .map(|entry| &self.routes[entry.route].matches)
            .filter(|matches| headers_match(matches, fields))
            .flat_map(|matches| matches.methods.iter().map(String::as_str))
            .collect();
        methods.sort_unstable();
        methods.dedup();
        if methods.is_empty() { Found::NoRoute } else { Found::MethodNotAllowed { allow: methods.join(", ") } }
    }

    /// The groups whose host matches, most specific first.
    fn groups<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Group> {
        let suffixes = self.suffixes.iter().filter(|(suffix, _)| is_below(host, suffix)).map(|(_, group)| group);
        self.exact_hosts.get(host).into_iter().chain(suffixes).chain(std::iter::once(&self.any_host))
    }

    /// For each route, in the file's order, why it does or does not serve this request.
    pub fn explain(&self, method: Method, host: &str, path: &[u8], fields: &Fields) -> Vec<(usize, Verdict)> {
        let chosen = match self.find(method, host, path, fields) {
            Found::Route(index, _) => Some(index),
            _ => None,
        };
        let verdict = |(index, route): (usize, &Arc<Route>)| {
            (index, explain::verdict(route, index, chosen, method, host, path, fields))
        };
        self.routes.iter().enumerate().map(verdict).collect()
    }
}

impl Group {
    fn add(&mut self, entry: Entry) {
        if let Some(path) = entry.pattern.exact() {
            self.exact_paths.entry(path.into()).or_default().push(entry);
        } else if let Some(first) = entry.pattern.first_literal() {
            self.by_first_segment.entry(first.into()).or_default().push(entry);
        } else {
            self.open.push(entry);
        }
    }

    fn candidates<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = &'a Entry> + use<'a> {
        // A normalised path is ASCII; anything else matches no literal.
        let path = std::str::from_utf8(path).unwrap_or_default();
        let first = path.get(1..).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let exact = self.exact_paths.get(path).into_iter().flatten();
        let literal = self.by_first_segment.get(first).into_iter().flatten();
        exact.chain(literal).chain(&self.open)
    }
}

/// True for hosts with at least one label before the suffix, which begins with a dot.
fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name == host,
        HostPattern::Suffix(suffix) => is_below(host, suffix),
    }
}

fn method_matches(matches: &RouteMatch, method: Method) -> bool {
    matches.methods.is_empty() || matches.methods.iter().any(|name| name == method.as_str())
}

fn headers_match(matches: &RouteMatch, fields: &Fields) -> bool {
    matches.headers.iter().all(|header| header_holds(header, fields))
}

/// The request has this header, with this value where one is wanted.
pub fn header_holds(header: &HeaderMatch, fields: &Fields) -> bool {
    let mut values = fields.values_of(&header.name);
    match &header.value {
        None => values.next().is_some(),
        Some(wanted) => values.any(|value| value == wanted.as_bytes()),
    }
}

/// Indices in the order of rules 2 to 5 of the module; rule 1 is the order of the groups.
fn by_precedence<R: Borrow<Route>>(routes: &[R]) -> Vec<usize> {
    let patterns: Vec<Pattern> = routes.iter().map(|route| Pattern::new(&route.borrow().matches.path)).collect();
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by(|a, b| {
        let (left, right) = (routes[*a].borrow(), routes[*b].borrow());
        patterns[*a]
            .precedence(&patterns[*b])
            .then_with(|| header_precedence(&left.matches, &right.matches))
            .then_with(|| method_precedence(&left.matches, &right.matches))
            .then_with(|| left.name.cmp(&right.name))
    });
    order
}

/// `Less` comes first.
fn header_precedence(left: &RouteMatch, right: &RouteMatch) -> Ordering {
    let rank = |matches: &RouteMatch| {
        let with_value = matches.headers.iter().filter(|header| header.value.is_some()).count();
        (matches.headers.len(), with_value)
    };
    rank(right).cmp(&rank(left))
}

fn method_precedence(left: &RouteMatch, right: &RouteMatch) -> Ordering {
    let rank = |matches: &RouteMatch| if matches.methods.is_empty() { usize::MAX } else { matches.methods.len() };
    rank(left).cmp(&rank(right))
}

/// Writes the path to forward. `path` is the normalised path that `params` were found in; `out` is overwritten. False
/// when the path is forwarded as it is, and then `out` is untouched.
pub fn rewrite(rewrite: &Rewrite, pattern: &PathPattern, params: &Params, path: &[u8], out: &mut Vec<u8>) -> bool {
    match rewrite {
        Rewrite::None => false,
        Rewrite::StripPrefix(prefix) => match path.strip_prefix(prefix.as_bytes()) {
            _ if prefix.is_empty() => false,
            Some(rest) if rest.is_empty() || rest[0] == b'/' => {
                out.clear();
                out.extend_from_slice(if rest.is_empty() { b"/" } else { rest });
                true
            }
            _ => false,
        },
        Rewrite::Path(template) => {
            out.clear();
            fill_template(template, pattern, params, path, out);
            true
        }
    }
}

/// Values of parameters are whole normalised segments, so they can add neither a `/` nor a dot segment of their own.
/// `{rest}` is what follows the pattern, without its leading slash; when there is none, the slash before `{rest}` goes, too.
fn fill_template(template: &str, pattern: &PathPattern, params: &Params, path: &[u8], out: &mut Vec<u8>) {
    let mut left = template;
    while let Some((literal, after)) = left.split_once('{') {
        let Some((name, tail)) = after.split_once('}') else { break };
        out.extend_from_slice(literal.as_bytes());
        match params.get(pattern, name, path) {
            Some(value) => out.extend_from_slice(value),
            None if name == "rest" => match params.rest(path) {
                Some(rest) => out.extend_from_slice(rest),
                None if out.len() > 1 && out.ends_with(b"/") => out.truncate(out.len() - 1),
                None => {}
            },
            // The configuration check refuses names that the pattern does not have.
            None => {}
        }
        left = tail;
    }
    out.extend_from_slice(left.as_bytes());
    if out.first() != Some(&b'/') {
        out.insert(0, b'/');
    }
}

#[cfg(test)]
mod tests;
