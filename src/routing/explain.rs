//! Why a route was or was not chosen, and which routes can never be.

use std::borrow::Borrow;

use super::pattern::Pattern;
use super::{by_precedence, header_holds, header_precedence, host_matches, method_matches, method_precedence};
use crate::config::model::{HeaderMatch, HostPattern, Route};
use crate::message::{Fields, Method};

/// What became of one route for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Chosen,
    /// It is for other hosts.
    Host,
    Path,
    Method,
    /// This header condition does not hold.
    Header(HeaderMatch),
    /// It matches, but the route with this index is more specific.
    LessSpecific(usize),
}

pub(super) fn verdict(
    route: &Route,
    index: usize,
    chosen: Option<usize>,
    method: Method,
    host: &str,
    path: &[u8],
    fields: &Fields,
) -> Verdict {
    let matches = &route.matches;
    if chosen == Some(index) {
        return Verdict::Chosen;
    }
    if !matches.hosts.is_empty() && !matches.hosts.iter().any(|pattern| host_matches(pattern, host)) {
        return Verdict::Host;
    }
    if Pattern::new(&matches.path).matches(path).is_none() {
        return Verdict::Path;
    }
    if !method_matches(matches, method) {
        return Verdict::Method;
    }
    if let Some(failed) = matches.headers.iter().find(|header| !header_holds(header, fields)) {
        return Verdict::Header(failed.clone());
    }
    // Every route that matches comes after the chosen one, and there is one when any matches.
    chosen.map_or(Verdict::Path, Verdict::LessSpecific)
}

/// How a route stands in the shade of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Some requests match both, and nothing but the names decides between the two.
    Duplicate,
    /// Every request that it matches goes to other routes.
    Shadowed,
}

/// Routes that get fewer requests than they seem to: `(shadowed, by, kind)`, in the order of `shadowed`.
///
/// Only routes with the same path pattern can do this to each other: of two different patterns the more specific one is
/// never the wider one. The same holds for hosts and for headers.
pub fn shadowed<R: Borrow<Route>>(routes: &[R]) -> Vec<(usize, usize, Kind)> {
    let order = by_precedence(routes);
    let mut found = Vec::new();
    for (rank, &index) in order.iter().enumerate() {
        let route = routes[index].borrow();
        let rivals: Vec<usize> =
            order[..rank].iter().copied().filter(|rival| same_place(route, routes[*rival].borrow())).collect();
        let duplicate = rivals.iter().find(|rival| {
            let rival = routes[**rival].borrow();
            method_precedence(&route.matches, &rival.matches).is_eq() && share_method(route, rival)
        });
        if let Some(by) = duplicate {
            found.push((index, *by, Kind::Duplicate));
        } else if let Some(by) = covering(route, &rivals, routes) {
            found.push((index, by, Kind::Shadowed));
        }
    }
    found.sort_unstable_by_key(|(index, by, _)| (*index, *by));
    found
}

/// The same pattern and conditions, and at least one host pattern in common.
fn same_place(route: &Route, rival: &Route) -> bool {
    let (a, b) = (&route.matches, &rival.matches);
    let hosts = host_keys(route).any(|host| host_keys(rival).any(|other| other == host));
    hosts
        && Pattern::new(&a.path) == Pattern::new(&b.path)
        && header_precedence(a, b).is_eq()
        && a.headers.iter().all(|header| b.headers.contains(header))
}

/// The host patterns, or `None` once for any host.
fn host_keys(route: &Route) -> impl Iterator<Item = Option<&HostPattern>> {
    let any = route.matches.hosts.is_empty().then_some(None);
    any.into_iter().chain(route.matches.hosts.iter().map(Some))
}

fn share_method(route: &Route, rival: &Route) -> bool {
    let (a, b) = (&route.matches.methods, &rival.matches.methods);
    a.is_empty() || b.is_empty() || a.iter().any(|method| b.contains(method))
}

/// The first rival, when the rivals together take every host and method of `route`.
fn covering<R: Borrow<Route>>(route: &Route, rivals: &[usize], routes: &[R]) -> Option<usize> {
    let methods = &route.matches.methods;
    let taken = |host: Option<&HostPattern>, method: &String| {
        rivals.iter().any(|rival| {
            let rival = routes[*rival].borrow();
            host_keys(rival).any(|other| other == host) && rival.matches.methods.contains(method)
        })
    };
    let covered = !methods.is_empty() && host_keys(route).all(|host| methods.iter().all(|method| taken(host, method)));
    if covered { rivals.first().copied() } else { None }
}
