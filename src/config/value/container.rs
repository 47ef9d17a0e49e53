//! Values made of values: lists, tables with names of the user's choice, `true` for a table of defaults.

use serde_json::Value as Json;

use super::Value;
use crate::config::decode::{Decoder, Element, Spot};
use crate::config::describe::Shape;
use crate::config::diagnostic::{Code, Problem};
use crate::config::source::Span;
use crate::config::tree::{Kind, Node};

impl<T: Value> Value for Vec<T> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let Kind::List(nodes) = &node.kind else {
            let brackets = if Kind::is_plain(&node.kind) { ", in square brackets" } else { "" };
            cx.wrong_type(node, &format!("a list{brackets}"));
            return None;
        };
        // Every item is looked at, also after a wrong one.
        let items: Vec<Option<T>> = nodes.iter().map(|node| T::decode(cx, node)).collect();
        items.into_iter().collect()
    }

    fn show(&self) -> Option<Json> {
        self.iter().map(Value::show).collect::<Option<Vec<_>>>().map(Json::Array)
    }
}

/// The place of a value inside a list.
impl<T: Value> Value for Spot<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        T::decode(cx, node).map(|value| Self { value, span: node.span.clone() })
    }

    fn show(&self) -> Option<Json> {
        self.value.show()
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T> {
    pub items: Vec<Spot<T>>,
    /// Written as a list, so that the paths of the settings count.
    pub many: bool,
}

impl<T: Value> Value for OneOrMany<T> {
    fn shape() -> Shape {
        Shape::Either(vec![T::shape(), Shape::List(Box::new(T::shape()))])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let Kind::List(nodes) = &node.kind else {
            return Spot::decode(cx, node).map(|item| Self { items: vec![item], many: false });
        };
        let decode = |(index, node): (usize, &Node)| cx.within(index.to_string(), |cx| Spot::decode(cx, node));
        let items: Vec<Option<Spot<T>>> = nodes.iter().enumerate().map(decode).collect();
        Some(Self { items: items.into_iter().collect::<Option<_>>()?, many: true })
    }

    fn show(&self) -> Option<Json> {
        let shown: Option<Vec<Json>> = self.items.iter().map(Value::show).collect();
        let mut shown = shown.filter(|shown| !shown.is_empty() || self.many)?;
        Some(if self.many { Json::Array(shown) } else { shown.remove(0) })
    }
}

/// `true` for a table with all its defaults, `false` for none, or the table.
#[derive(Debug, Clone)]
pub struct Switch<T>(pub Option<T>);

impl<T: Element + Value> Value for Switch<T> {
    fn shape() -> Shape {
        Shape::Either(vec![T::shape(), Shape::Boolean])
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        match node.kind {
            Kind::Boolean(false) => Some(Self(None)),
            Kind::Boolean(true) => {
                let empty = Node { span: node.span.clone(), kind: Kind::Table(Vec::new()) };
                Some(Self(Some(<T as Element>::decode(cx, &empty))))
            }
            Kind::Table(_) => Some(Self(Some(<T as Element>::decode(cx, node)))),
            _ => {
                cx.wrong_type(node, &Self::shape().what());
                None
            }
        }
    }
}

/// A table of tables: `[upstream.NAME]`.
#[derive(Debug, Clone)]
pub struct Named<T> {
    pub items: Vec<NamedItem<T>>,
}

#[derive(Debug, Clone)]
pub struct NamedItem<T> {
    pub name: String,
    /// Where the name is written.
    pub span: Span,
    pub value: T,
}

impl<T: Value> Value for Named<T> {
    fn shape() -> Shape {
        Shape::Map { names: "names", value: Box::new(T::shape()) }
    }

    fn decode(cx: &mut Decoder<'_>, node: &Node) -> Option<Self> {
        let Kind::Table(entries) = &node.kind else {
            cx.wrong_type(node, &Self::shape().what());
            return None;
        };
        let mut items = Vec::new();
        for entry in entries {
            if !check_name(cx, &entry.key, &entry.key_span) {
                continue;
            }
            let value = cx.within(entry.key.clone(), |cx| T::decode(cx, &entry.value));
            items.extend(value.map(|value| NamedItem { name: entry.key.clone(), span: entry.key_span.clone(), value }));
        }
        Some(Self { items })
    }
}

/// Names become metric labels, log fields and parts of setting paths: short and plain.
pub fn check_name(cx: &mut Decoder<'_>, name: &str, span: &Span) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain && (1..=64).contains(&name.len()) {
        return true;
    }
    let problem = Problem::error(Code::InvalidValue, span.clone(), "this cannot be a name");
    cx.report(problem.expected("1 to 64 letters, digits, `-` or `_`"));
    false
}

impl Kind {
    /// A single value that may have been meant as a list of one.
    fn is_plain(kind: &Kind) -> bool {
        matches!(kind, Kind::Text(_) | Kind::Integer(_) | Kind::Float(_))
    }
}
