//! Which sources might make the same call, as far as their configuration tells.
//!
//! Only calls of these are compared while a request runs. Most sources ask for different things, and their templates show
//! it: different literal text, another number of segments, another parameter.

use std::sync::Arc;

use super::template::is_rest;
use crate::config::model::aggregate::{Piece, Source, Template};

/// For each source: the number of its group, within which calls may be identical; `None` when it would be alone. And how
/// many groups there are.
pub(super) fn groups(sources: &[Arc<Source>]) -> (Vec<Option<usize>>, usize) {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let meets = |group: &mut Vec<usize>| group.iter().any(|other| may_meet(source, &sources[*other]));
        // What links two groups makes them one.
        let mut joined: Vec<usize> = groups.extract_if(.., meets).flatten().collect();
        joined.push(index);
        groups.push(joined);
    }
    // Items of one list may lead to the same call.
    groups.retain(|group| group.len() > 1 || sources[group[0]].for_each.is_some());
    let mut numbers = vec![None; sources.len()];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|member| numbers[*member] = Some(number));
    }
    (numbers, groups.len())
}

/// When in doubt they may: a wrong yes costs a comparison, a wrong no a second call.
fn may_meet(a: &Source, b: &Source) -> bool {
    a.upstream.name == b.upstream.name
        && a.method == b.method
        && a.max_body_bytes == b.max_body_bytes
        && paths_may_meet(&a.path, &b.path)
        && has_the_parameters_of(a, b)
        && has_the_parameters_of(b, a)
}

fn paths_may_meet(a: &Template, b: &Template) -> bool {
    let any_length =
        |path: &Template| path.pieces.iter().any(|piece| matches!(piece, Piece::Value(value) if is_rest(value)));
    texts_may_meet(a, b) && (any_length(a) || any_length(b) || segments(a) == segments(b))
}

/// A value is encoded into its segment and adds none.
fn segments(path: &Template) -> usize {
    let slashes = |piece: &Piece| match piece {
        Piece::Literal(text) => text.matches('/').count(),
        Piece::Value(_) => 0,
    };
    path.pieces.iter().map(slashes).sum()
}

/// Each parameter that `a` always sends with the same value is one that `b` may send.
fn has_the_parameters_of(a: &Source, b: &Source) -> bool {
    let mut fixed = a.query.iter().filter(|(_, value)| literal(value).is_some());
    fixed.all(|(name, value)| b.query.iter().any(|(other, may_be)| other == name && texts_may_meet(value, may_be)))
}

/// Values can be anything, so only the literal text in front and behind tells two templates apart.
fn texts_may_meet(a: &Template, b: &Template) -> bool {
    if let (Some(a), Some(b)) = (literal(a), literal(b)) {
        return a == b;
    }
    let (front_a, front_b) = (end(a.pieces.first()), end(b.pieces.first()));
    let (back_a, back_b) = (end(a.pieces.last()), end(b.pieces.last()));
    (front_a.starts_with(front_b) || front_b.starts_with(front_a))
        && (back_a.ends_with(back_b) || back_b.ends_with(back_a))
}

/// The whole text of a template without values.
fn literal(template: &Template) -> Option<&str> {
    match &template.pieces[..] {
        [] => Some(""),
        [Piece::Literal(text)] => Some(text),
        _ => None,
    }
}

fn end(piece: Option<&Piece>) -> &str {
    match piece {
        Some(Piece::Literal(text)) => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::testing::{for_each, source, template, upstream};

    fn at(path: &str, query: &[(&str, &str)]) -> Source {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), template(value))).collect();
        Source { upstream: upstream("users"), query, ..source("a", path) }
    }

    fn meet(a: &Source, b: &Source) -> bool {
        assert_eq!(may_meet(a, b), may_meet(b, a));
        may_meet(a, b)
    }

    #[test]
    fn paths_that_cannot_become_equal_are_told_apart() {
        for (a, b, expected) in [
            ("/users/1", "/users/1", true),
            ("/users/1", "/users/2", false),
            ("/users/1", "/users/{id}", true),
            ("/users/{id}", "/users/{other}", true),
            ("/users/{id}", "/users/u{id}", true),
            ("/users/{id}", "/teams/{id}", false),
            ("/users/{id}", "/users/{id}/orders", false),
            ("/users/{id}/orders", "/users/{id}/teams", false),
            ("/users/{id}.json", "/users/7.json", true),
            ("/users/{id}.json", "/users/7", false),
            ("/{rest}", "/users/1/orders", true),
            ("/users/{rest}", "/users/{id}/orders", true),
            ("/users/{rest}", "/teams/{id}", false),
        ] {
            assert_eq!(meet(&at(a, &[]), &at(b, &[])), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_fixed_parameter_that_the_other_does_not_send_tells_them_apart() {
        for (a, b, expected) in [
            (&[("page", "1")][..], &[("page", "1")][..], true),
            (&[("page", "1")], &[("page", "2")], false),
            (&[("page", "1")], &[("page", "{query.page}")], true),
            (&[("page", "1")], &[], false),
            (&[("page", "{query.page}")], &[], true),
            (&[("page", "{query.page}")], &[("size", "{query.size}")], true),
            (&[("page", "1")], &[("size", "1")], false),
        ] {
            assert_eq!(meet(&at("/users", a), &at("/users", b)), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn what_is_asked_of_another_upstream_or_with_another_limit_differs() {
        let users = at("/1", &[]);

        assert!(!meet(&users, &source("a", "/1")));
        assert!(!meet(&users, &Source { method: "HEAD".into(), ..users.clone() }));
        assert!(!meet(&users, &Source { max_body_bytes: 1, ..users.clone() }));
    }

    #[test]
    fn groups_are_joined_by_what_may_meet_both() {
        let list = Source { for_each: Some(for_each("ids", 1, 10)), ..at("/list/{item}", &[]) };
        let paths = ["/a/1", "/b", "/c/2", "/{one}/{two}"].map(|path| at(path, &[]));
        let sources: Vec<_> = paths.into_iter().chain([list]).map(Arc::new).collect();

        // The list meets "/{one}/{two}" as well.
        assert_eq!(groups(&sources), (vec![Some(0), None, Some(0), Some(0), Some(0)], 1));
        assert_eq!(groups(&sources[..3]), (vec![None; 3], 0));
        assert_eq!(groups(&sources[4..]), (vec![Some(0)], 1));
    }
}
