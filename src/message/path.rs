//! Path normalisation: one spelling for each path, used both to match a route and to forward.
//!
//! A route bypass needs two readers who disagree about what a path means. So the path is reduced to the form on which all
//! agree, that form is matched, and exactly its bytes are forwarded:
//!
//! * percent-encoded unreserved characters are decoded, other encodings get upper-case digits (RFC 3986 §6.2.2);
//! * `.` and `..` segments are removed, also encoded ones; climbing above the root is refused;
//! * runs of slashes become one. Keeping them would be closer to the RFC, but most servers merge them, and then
//!   `//admin` misses the route `/admin` here and reaches `/admin` there;
//! * an encoded `/`, `\` or NUL, a plain `\`, an incomplete encoding, and dot segments with parameters (`/..;x/`, which
//!   Java servers read as `/../`) are refused: readers disagree and no honest client sends them.
//!
//! Nothing is decoded twice: `%252e` stays `%252e`.

use std::borrow::Cow;

/// Where the normalised path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalised {
    /// The raw path was normal already; nothing was written.
    Unchanged,
    /// The normal form is in the output buffer.
    Written,
}

impl Normalised {
    /// The normalised path, out of the two buffers that [`normalise`] was called with.
    pub fn path<'a>(self, raw: &'a [u8], out: &'a [u8]) -> &'a [u8] {
        match self {
            Normalised::Unchanged => raw,
            Normalised::Written => out,
        }
    }
}

/// Why a path is refused (always 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    NotAbsolute,
    Character,
    Encoding,
    EncodedSeparator,
    Backslash,
    AboveRoot,
    DotParameters,
}

impl PathError {
    pub const fn detail(self) -> &'static str {
        match self {
            PathError::NotAbsolute => "the path does not begin with a slash",
            PathError::Character => "the path holds a space, a control, a non-ASCII character, `?` or `#`",
            PathError::Encoding => "the path holds a `%` without two hexadecimal digits",
            PathError::EncodedSeparator => "the path holds an encoded slash, backslash or NUL",
            PathError::Backslash => "the path holds a backslash",
            PathError::AboveRoot => "the path climbs above its root",
            PathError::DotParameters => "the path holds a dot segment with parameters",
        }
    }
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for PathError {}

/// Reduces a raw path (without query) to its one spelling. `out` is overwritten, and only when something changes.
pub fn normalise(raw_path: &[u8], out: &mut Vec<u8>) -> Result<Normalised, PathError> {
    if raw_path.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(raw_path)? {
        return Ok(Normalised::Unchanged);
    }
    out.clear();
    out.reserve(raw_path.len());
    let mut segments = raw_path[1..].split(|b| *b == b'/').peekable();
    while let Some(segment) = segments.next() {
        append_segment(segment, segments.peek().is_none(), out)?;
    }
    if out == raw_path { Ok(Normalised::Unchanged) } else { Ok(Normalised::Written) }
}

/// True when the path surely needs no change; most do not. A segment that begins with a dot takes the slow way.
fn is_normal(path: &[u8]) -> Result<bool, PathError> {
    let mut normal = true;
    let mut previous = 0;
    for &byte in path {
        match byte {
            b'%' => normal = false,
            b'/' | b'.' if previous == b'/' => normal = false,
            b'\\' => return Err(PathError::Backslash),
            b'?' | b'#' => return Err(PathError::Character),
            byte if !byte.is_ascii_graphic() => return Err(PathError::Character),
            _ => {}
        }
        previous = byte;
    }
    Ok(normal)
}

/// Appends `/segment`, or undoes what is before for `..`.
///
/// Between calls `out` holds whole segments without a trailing slash; only the last segment may leave one.
fn append_segment(segment: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), PathError> {
    let slash = out.len();
    out.push(b'/');
    decode_segment(segment, out)?;
    match dots(&out[slash + 1..])? {
        Dots::No if out.len() > slash + 1 => return Ok(()),
        Dots::No | Dots::One => out.truncate(slash),
        Dots::Two => {
            out.truncate(slash);
            let parent = out.iter().rposition(|b| *b == b'/').ok_or(PathError::AboveRoot)?;
            out.truncate(parent);
        }
    }
    if last {
        out.push(b'/');
    }
    Ok(())
}

enum Dots {
    No,
    One,
    Two,
}

fn dots(segment: &[u8]) -> Result<Dots, PathError> {
    match segment {
        b"." => Ok(Dots::One),
        b".." => Ok(Dots::Two),
        _ => {
            let rest = segment.strip_prefix(b"..").or_else(|| segment.strip_prefix(b"."));
            let parameters = rest.is_some_and(|rest| rest.starts_with(b";") || rest.starts_with(b"%3B"));
            if parameters { Err(PathError::DotParameters) } else { Ok(Dots::No) }
        }
    }
}

fn decode_segment(segment: &[u8], out: &mut Vec<u8>) -> Result<(), PathError> {
    let mut rest = segment;
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            out.push(*first);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else { return Err(PathError::Encoding) };
        match hex_pair(*high, *low).ok_or(PathError::Encoding)? {
            b'/' | b'\\' | 0 => return Err(PathError::EncodedSeparator),
            byte if is_unreserved(byte) => out.push(byte),
            _ => out.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
        }
        rest = tail;
    }
    Ok(())
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

/// The first value of a query parameter, decoded as a form (`+` is a space). Allocates only when something is encoded.
/// A broken encoding is kept as it is. A parameter without `=` has the empty value.
pub fn query_value<'q>(query: &'q [u8], name: &[u8]) -> Option<Cow<'q, [u8]>> {
    raw_pairs(query).find(|(key, _)| *decode_form(key) == *name).map(|(_, value)| decode_form(value))
}

/// All parameters of a query in their order, decoded as `query_value` does.
pub fn query_pairs(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    raw_pairs(query).map(|(key, value)| (decode_form(key), decode_form(value)))
}

fn raw_pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    })
}

/// A part of a path, percent-decoded: `+` is a plus. A broken encoding is kept as it is.
pub fn decode_percent(text: &[u8]) -> Cow<'_, [u8]> {
    decode(text, false)
}

fn decode_form(text: &[u8]) -> Cow<'_, [u8]> {
    decode(text, true)
}

fn decode(text: &[u8], form: bool) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'+', _) if form => (b' ', tail),
            (b'%', [high, low, after @ ..]) => hex_pair(*high, *low).map_or((b'%', tail), |byte| (byte, after)),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = after;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(raw: &str) -> Result<String, PathError> {
        let mut out = b"left over".to_vec();
        let result = normalise(raw.as_bytes(), &mut out)?;
        Ok(String::from_utf8(result.path(raw.as_bytes(), &out).to_vec()).expect("ASCII"))
    }

    #[test]
    fn equal_paths_get_one_spelling() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("//a///b//", "/a/b/"),
            ("//", "/"),
            ("/a//../b", "/b"),
            ("/%61%7e%2D", "/a~-"),
            ("/%c3%a4%20", "/%C3%A4%20"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/.well-known/a", "/.well-known/a"),
            ("/...", "/..."),
            ("/a;x=1", "/a;x=1"),
            ("/a|b{c}", "/a|b{c}"),
        ] {
            assert_eq!(normal(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (raw, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/", PathError::AboveRoot),
            ("/a%2fb", PathError::EncodedSeparator),
            ("/a%2Fb", PathError::EncodedSeparator),
            ("/a%5cb", PathError::EncodedSeparator),
            ("/a%00", PathError::EncodedSeparator),
            ("/a\\b", PathError::Backslash),
            ("/a%", PathError::Encoding),
            ("/a%2", PathError::Encoding),
            ("/a%zz", PathError::Encoding),
            ("/a/..;/b", PathError::DotParameters),
            ("/a/.;x/b", PathError::DotParameters),
            ("/a/..%3bx/b", PathError::DotParameters),
            ("/a b", PathError::Character),
            ("/a#b", PathError::Character),
            ("/ä", PathError::Character),
        ] {
            assert_eq!(normal(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        let mut out = Vec::new();
        assert_eq!(normalise(b"/users/7/.well-known", &mut out), Ok(Normalised::Unchanged));
        assert_eq!(normalise(b"/users/7", &mut out), Ok(Normalised::Unchanged));
    }

    #[test]
    fn query_values_are_found_and_decoded() {
        let query = b"&a=1&b&%63=%41+%zz%&a=2&=x";
        let value =
            |name: &str| query_value(query, name.as_bytes()).map(|v| String::from_utf8(v.into_owned()).expect("ASCII"));

        assert_eq!(value("a").as_deref(), Some("1"));
        assert_eq!(value("b").as_deref(), Some(""));
        assert_eq!(value("c").as_deref(), Some("A %zz%"));
        assert_eq!(value("").as_deref(), Some("x"));
        assert_eq!(value("d"), None);
        assert!(matches!(query_value(b"a=1", b"a"), Some(Cow::Borrowed(b"1"))));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(raw in "/(\\.|/|%2e|%2E|%41|%c3|a|;|%25|%3b|\\.\\.){0,12}") {
            if let Ok(once) = normal(&raw) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
                prop_assert!(!once.contains("//"));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
