//! Aggregates for tests, written in a line each: `source("user", "/users/{id}")`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::aggregate::{
    Aggregate, BodyShape, ForEach, Format, HeaderTemplate, JsonPath, Node, OnError, Piece, Reference, RequestBody,
    Source, Step, Strategy, Template, TooMany,
};
use crate::config::model::{StatusRange, Upstream, UpstreamProtocol, UpstreamTimeouts};

const MINUTE: Duration = Duration::from_secs(60);

/// All sources, keyed by name, no `_meta`, limits out of the way. Fills in [`Source::after`] and [`Source::standby`] from
/// what the sources mention.
pub(crate) fn aggregate(sources: Vec<Source>) -> Aggregate {
    let stand_ins: BTreeSet<usize> = sources.iter().filter_map(|source| stand_in(&source.on_error)).collect();
    let sources = sources.into_iter().enumerate().map(|(index, mut source)| {
        source.after = mentioned(&source).into_iter().collect();
        source.standby = stand_ins.contains(&index);
        Arc::new(source)
    });
    Aggregate {
        sources: sources.collect(),
        strategy: Strategy::All,
        body: BodyShape::Keyed,
        partial_status: 200,
        meta: false,
        server_timing: false,
        stream: false,
        max_bytes: 64 << 20,
        coalesce: None,
        background: None,
    }
}

/// A GET of JSON that embeds its errors and has no timeout, at an upstream of its own name.
pub(crate) fn source(name: &str, path: &str) -> Source {
    Source {
        name: name.into(),
        upstream: upstream(name),
        method: "GET".into(),
        path: template(path),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        timeout: None,
        required: false,
        on_error: OnError::Embed,
        error_message: "{name} failed: {error}".into(),
        success: vec![StatusRange { first: 200, last: 299 }],
        max_body_bytes: 1 << 20,
        max_depth: 64,
        format: Format::Json,
        for_each: None,
        select: None,
        keep: Vec::new(),
        drop: Vec::new(),
        rename: Vec::new(),
        after: Vec::new(),
        standby: false,
    }
}

pub(crate) fn upstream(name: &str) -> Arc<Upstream> {
    Arc::new(Upstream {
        name: name.into(),
        endpoints: Vec::new(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        timeouts: UpstreamTimeouts {
            connect: MINUTE,
            tls: MINUTE,
            first_byte: MINUTE,
            between_bytes: MINUTE,
            idle: MINUTE,
        },
        in_flight: None,
        max_idle_connections: 0,
        health: None,
        dns_refresh: MINUTE,
        max_response_head_bytes: 1024,
        max_response_body_bytes: None,
        connect_retries: 0,
    })
}

/// Up to `max_items` values of `list`, written as in [`reference`]; more are refused.
pub(crate) fn for_each(list: &str, concurrency: usize, max_items: usize) -> ForEach {
    ForEach { list: reference(list), concurrency, max_items, too_many: TooMany::Refuse }
}

/// Text with references in braces, as [`reference`] reads them.
pub(crate) fn template(text: &str) -> Template {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').expect("a brace is open");
        if !before.is_empty() {
            pieces.push(Piece::Literal(before.into()));
        }
        pieces.push(Piece::Value(reference(inside)));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.into()));
    }
    Template { pieces }
}

/// `id`, `query.NAME`, `header.NAME`, `body.a.b`, `item.a.b`, `winner.a.b`; a source by its index: `#0.a.b`.
pub(crate) fn reference(text: &str) -> Reference {
    let (head, tail) = text.split_once('.').unwrap_or((text, ""));
    match head {
        "query" => Reference::Query(tail.into()),
        "header" => Reference::Header(tail.into()),
        "body" => Reference::Body(json_path(tail)),
        "item" => Reference::Item(json_path(tail)),
        "winner" => Reference::Winner(json_path(tail)),
        _ => match head.strip_prefix('#') {
            Some(index) => Reference::Source(index.parse().expect("an index after #"), json_path(tail)),
            None => Reference::Parameter(head.into()),
        },
    }
}

/// `a.b.*.c`; empty: the whole value.
pub(crate) fn json_path(text: &str) -> JsonPath {
    let steps = text.split('.').filter(|step| !step.is_empty()).map(|step| match step {
        "*" => Step::Each,
        key => Step::Key(key.into()),
    });
    JsonPath { steps: steps.collect() }
}

fn stand_in(on_error: &OnError) -> Option<usize> {
    match on_error {
        OnError::Source(index) => Some(*index),
        _ => None,
    }
}

/// Sources that a source's templates and list take values from.
fn mentioned(source: &Source) -> BTreeSet<usize> {
    let mut references = Vec::new();
    let header_templates = source.headers.iter().filter_map(|(_, value)| match value {
        HeaderTemplate::Template(template) => Some(template),
        HeaderTemplate::Fixed(_) => None,
    });
    let query_templates = source.query.iter().map(|(_, template)| template);
    for template in std::iter::once(&source.path).chain(query_templates).chain(header_templates) {
        of_template(template, &mut references);
    }
    match &source.body {
        Some(RequestBody::Json(node)) => of_node(node, &mut references),
        Some(RequestBody::Text(template)) => of_template(template, &mut references),
        None => {}
    }
    references.extend(source.for_each.iter().map(|for_each| &for_each.list));
    let indices = references.into_iter().filter_map(|reference| match reference {
        Reference::Source(index, _) => Some(*index),
        _ => None,
    });
    indices.collect()
}

fn of_template<'a>(template: &'a Template, references: &mut Vec<&'a Reference>) {
    references.extend(template.pieces.iter().filter_map(|piece| match piece {
        Piece::Value(reference) => Some(reference),
        Piece::Literal(_) => None,
    }));
}

fn of_node<'a>(node: &'a Node, references: &mut Vec<&'a Reference>) {
    match node {
        Node::Object(members) => members.iter().for_each(|(_, node)| of_node(node, references)),
        Node::List(nodes) => nodes.iter().for_each(|node| of_node(node, references)),
        Node::Value(reference) => references.push(reference),
        Node::Text(template) => of_template(template, references),
        Node::Literal(_) => {}
    }
}
