//! JSON as the bytes that arrived: checked once, cut into parts, never read into numbers.
//!
//! A value that is read into a number and written again is another one: `9223372036854775808`, `1e400`, `0.10` and `-0` do
//! not survive it. So nothing is read here. `serde_json` checks the grammar and says where each part begins and ends (its
//! [`RawValue`]); what is kept are those bytes, in the shared memory of the body they came in.
//!
//! Names that stand twice in one object are kept. [`Json::get`] takes the last of them, as do the parsers that RFC 8259
//! §4 speaks of ("many implementations report the last name/value pair only"), so that a template sees what the client
//! will see.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::model::aggregate::{JsonPath, Step};

/// One JSON value (RFC 8259), valid UTF-8, without surrounding white space. Clones and parts share memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Json(Bytes);

/// Why bytes are no JSON value that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON, or not UTF-8; the offset of the first byte that is wrong.
    Invalid(usize),
    TooDeep,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Invalid(offset) => write!(f, "not JSON at byte {offset}"),
            JsonError::TooDeep => f.write_str("nested more deeply than allowed"),
        }
    }
}

impl std::error::Error for JsonError {}

impl Json {
    /// Checks that `bytes` are one JSON value with at most `max_depth` arrays and objects inside each other. A byte order
    /// mark is refused (RFC 8259 §8.1). Half of a surrogate pair (`"\ud800"`) is grammatical and passes.
    pub fn parse(bytes: Bytes, max_depth: usize) -> Result<Json, JsonError> {
        if let Err(error) = std::str::from_utf8(&bytes) {
            return Err(JsonError::Invalid(error.valid_up_to()));
        }
        if depth(&bytes) > max_depth {
            return Err(JsonError::TooDeep);
        }
        let value: &RawValue =
            serde_json::from_slice(&bytes).map_err(|error| JsonError::Invalid(offset_of(&error, &bytes)))?;
        Ok(Json(bytes.slice_ref(value.get().as_bytes())))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same memory.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    pub fn null() -> Json {
        Json(Bytes::from_static(b"null"))
    }

    /// A string with this content.
    pub fn string(text: &str) -> Json {
        let mut out = Vec::with_capacity(text.len() + 2);
        write_string(text, &mut out);
        Json(out.into())
    }

    /// An array of these, in order.
    pub fn array<'a>(items: impl IntoIterator<Item = &'a Json>) -> Json {
        let mut out = vec![b'['];
        for item in items {
            separate(&mut out);
            out.extend_from_slice(item.as_bytes());
        }
        out.push(b']');
        Json(out.into())
    }

    /// JSON text of the configuration, which has been checked when that was read.
    pub fn raw_literal(text: &str) -> Json {
        Json::written(text.trim().as_bytes().to_vec())
    }

    /// Bytes that this program has put together out of JSON values.
    pub(super) fn written(bytes: Vec<u8>) -> Json {
        debug_assert!(is_valid(&bytes), "{}", bytes.escape_ascii());
        Json(bytes.into())
    }

    /// The part at the end of `path`, if all of the way is there. `*` gives an array of what is found inside each element;
    /// elements without it are passed over.
    pub fn get(&self, path: &JsonPath) -> Option<Json> {
        match find(&self.0, &path.steps)? {
            Cow::Borrowed(part) => Some(Json(self.0.slice_ref(part))),
            Cow::Owned(written) => Some(Json::written(written)),
        }
    }

    /// A scalar as the text that a path, query or field has for it: a string's content, a number or boolean as written.
    /// `None` for `null`, arrays, objects, and strings that are no Unicode text (half of a surrogate pair).
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self.0.first()? {
            b'"' => content(&self.0),
            b'n' | b'[' | b'{' => None,
            _ => std::str::from_utf8(&self.0).ok().map(Cow::Borrowed),
        }
    }

    pub fn is_null(&self) -> bool {
        self.0[..] == b"null"[..]
    }

    pub fn is_object(&self) -> bool {
        self.0.first() == Some(&b'{')
    }

    pub fn is_array(&self) -> bool {
        self.0.first() == Some(&b'[')
    }

    /// An array's elements.
    pub fn items(&self) -> Option<Vec<Json>> {
        let mut items = Vec::new();
        each_item(&self.0, &mut |item| items.push(Json(self.0.slice_ref(item)))).then_some(items)
    }

    /// An object's members, duplicates included. The names are strings as they are written, with their quotes.
    pub fn members(&self) -> Option<Vec<(Json, Json)>> {
        let mut members = Vec::new();
        let part = |bytes| Json(self.0.slice_ref(bytes));
        each_member(&self.0, &mut |name, value| members.push((part(name), part(value)))).then_some(members)
    }
}

/// Arrays and objects inside each other, counted without recursion: a million brackets cost a million steps. Of bytes that
/// are no JSON it is some number at least as large as any JSON in front of the mistake has.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut most) = (0usize, 0);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            b'"' => at += string_len(&bytes[at..]),
            _ => {}
        }
    }
    most
}

/// From behind the opening quote to behind the closing one.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += next + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Where `serde_json` stopped: it counts lines from 1 and columns as bytes that it has taken.
fn offset_of(error: &serde_json::Error, bytes: &[u8]) -> usize {
    if error.is_eof() {
        return bytes.len();
    }
    let line = match error.line().checked_sub(2) {
        None => 0,
        Some(nth) => memchr::memchr_iter(b'\n', bytes).nth(nth).map_or(0, |newline| newline + 1),
    };
    (line + error.column()).saturating_sub(1)
}

fn is_valid(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

/// Calls `take` for each element; false when `json` is no array.
pub(super) fn each_item<'a>(json: &'a [u8], take: &mut dyn FnMut(&'a [u8])) -> bool {
    struct Items<'t, 'a>(&'t mut dyn FnMut(&'a [u8]));

    impl<'a> Visitor<'a> for Items<'_, 'a> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<S: SeqAccess<'a>>(self, mut items: S) -> Result<(), S::Error> {
            while let Some(item) = items.next_element::<&RawValue>()? {
                (self.0)(item.get().as_bytes());
            }
            Ok(())
        }
    }

    json.first() == Some(&b'[') && serde_json::Deserializer::from_slice(json).deserialize_seq(Items(take)).is_ok()
}

/// Calls `take` for each member with its name, quotes included, and its value; false when `json` is no object.
pub(super) fn each_member<'a>(json: &'a [u8], take: &mut dyn FnMut(&'a [u8], &'a [u8])) -> bool {
    struct Members<'t, 'a>(&'t mut dyn FnMut(&'a [u8], &'a [u8]));

    impl<'a> Visitor<'a> for Members<'_, 'a> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<(), M::Error> {
            while let Some((name, value)) = members.next_entry::<&RawValue, &RawValue>()? {
                (self.0)(name.get().as_bytes(), value.get().as_bytes());
            }
            Ok(())
        }
    }

    json.first() == Some(&b'{') && serde_json::Deserializer::from_slice(json).deserialize_map(Members(take)).is_ok()
}

/// The recursion is as deep as the path, which the configuration bounds, never as deep as the value.
fn find<'a>(json: &'a [u8], steps: &[Step]) -> Option<Cow<'a, [u8]>> {
    let Some((step, rest)) = steps.split_first() else { return Some(Cow::Borrowed(json)) };
    match step {
        Step::Key(key) => find(child(json, key)?, rest),
        Step::Each if rest.is_empty() && json.first() == Some(&b'[') => Some(Cow::Borrowed(json)),
        Step::Each => {
            let mut out = vec![b'['];
            each_child(json, &mut |value| {
                if let Some(found) = find(value, rest) {
                    separate(&mut out);
                    out.extend_from_slice(&found);
                }
            })
            .then_some(())?;
            out.push(b']');
            Some(Cow::Owned(out))
        }
    }
}

/// Each element, or each member's value; false when it can have none.
fn each_child<'a>(json: &'a [u8], take: &mut dyn FnMut(&'a [u8])) -> bool {
    match json.first() {
        Some(b'[') => each_item(json, take),
        _ => each_member(json, &mut |_, value| take(value)),
    }
}

fn child<'a>(json: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut found = None;
    if json.first() == Some(&b'[') {
        let index = index(key)?;
        let mut at = 0;
        each_item(json, &mut |item| {
            if at == index {
                found = Some(item);
            }
            at += 1;
        });
    } else {
        each_member(json, &mut |name, value| {
            if is_name(name, key) {
                found = Some(value);
            }
        });
    }
    found
}

/// An array's index as RFC 6901 §4 has it: decimal, without leading zeros.
pub(super) fn index(key: &str) -> Option<usize> {
    let plain = key.bytes().all(|byte| byte.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
    plain.then(|| key.parse().ok())?
}

/// Whether a name as it is written, quotes and escapes included, means `key`.
pub(super) fn is_name(written: &[u8], key: &str) -> bool {
    let inside = &written[1..written.len() - 1];
    inside == key.as_bytes()
        || (memchr::memchr(b'\\', inside).is_some() && content(written).is_some_and(|name| name == key))
}

/// What a string says. `None` when that is no Unicode text.
pub(super) fn content(written: &[u8]) -> Option<Cow<'_, str>> {
    let inside = &written[1..written.len() - 1];
    if memchr::memchr(b'\\', inside).is_none() {
        return std::str::from_utf8(inside).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(written).ok().map(Cow::Owned)
}

/// Appends a string with its quotes.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

/// Appends what stands between a string's quotes.
pub(super) fn write_string_content(text: &str, out: &mut Vec<u8>) {
    let quote = out.len();
    write_string(text, out);
    out.pop();
    out.remove(quote);
}

/// A comma, unless the array or object has just begun.
pub(super) fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'[' | b'{')) {
        out.push(b',');
    }
}
