//! One form for all path patterns: segments, and perhaps a rest.

use std::cmp::Ordering;

use crate::config::model::{PathPattern, Segment};

/// A path pattern as segments; `/users/{id}/*` is two segments and a rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Part>,
    rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Parameter,
}

/// Parameters kept without allocating.
const INLINE: usize = 6;

/// Where in the path the parameters of a pattern were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params {
    inline: [(u32, u32); INLINE],
    len: usize,
    more: Vec<(u32, u32)>,
    /// Where the rest begins, after its slash; `None` when the path ends with the pattern.
    rest: Option<u32>,
}

impl Params {
    fn push(&mut self, start: usize, end: usize) {
        // Paths lie within a head, which is far smaller than 4 GiB.
        let span = (start as u32, end as u32);
        match self.inline.get_mut(self.len) {
            Some(slot) => *slot = span,
            None => self.more.push(span),
        }
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of the `index`th parameter of the pattern.
    pub fn value<'p>(&self, index: usize, path: &'p [u8]) -> Option<&'p [u8]> {
        let span = if index < self.len.min(INLINE) {
            self.inline.get(index)
        } else {
            self.more.get(index.checked_sub(INLINE)?)
        };
        span.map(|(start, end)| &path[*start as usize..*end as usize])
    }

    /// The value of a parameter by its name in `pattern`.
    pub fn get<'p>(&self, pattern: &PathPattern, name: &str, path: &'p [u8]) -> Option<&'p [u8]> {
        let PathPattern::Template { segments, .. } = pattern else { return None };
        let mut names = segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name),
            Segment::Literal(_) => None,
        });
        self.value(names.position(|known| known == name)?, path)
    }

    /// What follows the pattern, without its leading slash; `None` when the path ends with the pattern.
    pub fn rest<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        self.rest.map(|start| &path[start as usize..])
    }
}

impl Pattern {
    pub fn new(path: &PathPattern) -> Self {
        let literals = |path: &str| match path.strip_prefix('/') {
            None => Vec::new(),
            Some(rest) => rest.split('/').map(|segment| Part::Literal(segment.into())).collect(),
        };
        match path {
            PathPattern::Exact(path) => Self { segments: literals(path), rest: false },
            PathPattern::Prefix(path) => Self { segments: literals(path), rest: true },
            PathPattern::Template { segments, rest } => Self {
                segments: segments
                    .iter()
                    .map(|segment| match segment {
                        Segment::Literal(text) => Part::Literal(text.as_str().into()),
                        Segment::Parameter(_) => Part::Parameter,
                    })
                    .collect(),
                rest: *rest,
            },
        }
    }

    /// The one path that this pattern matches, if it is only one.
    pub fn exact(&self) -> Option<String> {
        if self.rest {
            return None;
        }
        let mut path = String::new();
        for part in &self.segments {
            let Part::Literal(text) = part else { return None };
            path.push('/');
            path.push_str(text);
        }
        Some(path)
    }

    pub fn first_literal(&self) -> Option<&str> {
        match self.segments.first() {
            Some(Part::Literal(text)) => Some(text),
            _ => None,
        }
    }

    /// Matches a normalised path. A parameter takes one segment that is not empty.
    pub fn matches(&self, path: &[u8]) -> Option<Params> {
        let mut params = Params::default();
        // Always at a slash or at the end of the path.
        let mut at = 0;
        for part in &self.segments {
            if path.get(at) != Some(&b'/') {
                return None;
            }
            let start = at + 1;
            let end = memchr::memchr(b'/', &path[start..]).map_or(path.len(), |len| start + len);
            match part {
                Part::Literal(text) if text.as_bytes() == &path[start..end] => {}
                Part::Parameter if end > start => params.push(start, end),
                _ => return None,
            }
            at = end;
        }
        if at < path.len() {
            if !self.rest {
                return None;
            }
            params.rest = Some(at as u32 + 1);
        }
        Some(params)
    }

    /// `Less` comes first: literal before parameter before rest, from the left.
    ///
    /// Literals among each other are ordered by their text only to make the order total; no path matches both.
    pub fn precedence(&self, other: &Self) -> Ordering {
        for position in 0.. {
            let (left, right) = (self.segments.get(position), other.segments.get(position));
            let order = match (left, right) {
                (None, None) => return self.rest.cmp(&other.rest),
                (Some(Part::Literal(a)), Some(Part::Literal(b))) => a.cmp(b),
                (left, right) => Self::rank(left).cmp(&Self::rank(right)),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    }

    /// The end of a pattern comes last: where another pattern goes on, a path can match both only through the rest.
    fn rank(part: Option<&Part>) -> u8 {
        match part {
            Some(Part::Literal(_)) => 0,
            Some(Part::Parameter) => 1,
            None => 2,
        }
    }
}
