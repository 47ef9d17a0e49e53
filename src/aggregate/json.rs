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
    /// Not JSON, or not UTF-8; the offset of the first byte that is wrong (of a control character in a string: of the byte
    /// before it).
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
        let text = std::str::from_utf8(&bytes).map_err(|error| JsonError::Invalid(error.valid_up_to()))?;
        if depth(&bytes) > max_depth {
            return Err(JsonError::TooDeep);
        }
        let value: &RawValue =
            serde_json::from_str(text).map_err(|error| JsonError::Invalid(offset_of(&error, &bytes)))?;
        if value.get().len() == bytes.len() {
            return Ok(Json(bytes));
        }
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
        self.first_items(usize::MAX).map(|(items, _)| items)
    }

    /// The first `max` of an array's elements, and how many there are. Not all: each one that is taken out is larger than the two
    /// bytes that it may have been.
    pub fn first_items(&self, max: usize) -> Option<(Vec<Json>, usize)> {
        let (mut items, mut total) = (Vec::new(), 0);
        let take = &mut |item| {
            if total < max {
                items.push(Json(self.0.slice_ref(item)));
            }
            total += 1;
        };
        each_item(&self.0, take).then_some((items, total))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::testing::json_path;
    use proptest::prelude::*;

    fn json(text: &str) -> Json {
        Json::parse(Bytes::copy_from_slice(text.as_bytes()), 64).expect(text)
    }

    fn error(bytes: &[u8]) -> JsonError {
        Json::parse(Bytes::copy_from_slice(bytes), 64).expect_err("it is wrong")
    }

    fn got(text: &str, path: &str) -> Option<String> {
        let found = json(text).get(&json_path(path))?;
        Some(String::from_utf8(found.as_bytes().to_vec()).expect("JSON is UTF-8"))
    }

    #[test]
    fn the_first_elements_of_an_array_and_their_number() {
        let first = |text: &str, max| json(text).first_items(max).map(|(items, total)| (items.len(), total));

        assert_eq!(first("[1,[2],3]", 2), Some((2, 3)));
        assert_eq!(first("[1]", 2), Some((1, 1)));
        assert_eq!(first("[]", 0), Some((0, 0)));
        assert_eq!(first("{}", 1), None);
    }

    #[test]
    fn what_is_grammatical_passes_byte_for_byte() {
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "1e400",
            "-1E+2",
            "0.10",
            "-0",
            "1.0e-999",
            "123456789012345678901234567890.123456789012345678901234567890",
            "null",
            "\"\"",
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            r#""\u0000\/\b""#,
            "\"\u{7f}\u{2028}\u{10ffff}\"",
            r#"{"a":1,"a":2}"#,
            r#"{"b":1,"a":2,"":3}"#,
            "{ }",
            "[ 1 ,\r\n\t2 ]",
        ] {
            assert_eq!(json(text).as_bytes(), text.as_bytes());
            assert_eq!(json(&format!(" \r\n\t{text}\n ")).as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_goes_wrong() {
        for (bytes, offset) in [
            (&b""[..], 0),
            (b"  ", 2),
            (b"\xef\xbb\xbf1", 0),
            (b"{\"a\":\"\xff\"}", 6),
            (b"\"\xed\xa0\x80\"", 1),
            (b"1 2", 2),
            (b"{}\n{}", 3),
            (b"[1,]", 3),
            (b"[1\n,\n\n x]", 7),
            (b"[1", 2),
            (b"{\"a\" 1}", 5),
            (b"{a:1}", 1),
            (b"01", 1),
            (b"+1", 0),
            (b".5", 0),
            (b"NaN", 0),
            (b"'a'", 0),
            (b"\"a\nb\"", 1),
            (b"\"\\x\"", 2),
            (b"1\0", 1),
            (b"]", 0),
        ] {
            assert_eq!(error(bytes), JsonError::Invalid(offset), "{}", bytes.escape_ascii());
        }
        for broken in ["1.", "1e", "-", "\"\\u12\"", "\"", "tru", "nulll", "{\"a\":1,}", "{\"a\"}", "/**/1"] {
            assert!(matches!(error(broken.as_bytes()), JsonError::Invalid(at) if at <= broken.len()), "{broken}");
        }
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);

        assert_eq!(Json::parse(nested(3).into(), 3).map(|json| json.as_bytes().len()), Ok(6));
        assert_eq!(Json::parse(nested(4).into(), 3), Err(JsonError::TooDeep));
        assert_eq!(Json::parse("[".repeat(1_000_000).into(), 64), Err(JsonError::TooDeep));
        assert_eq!(Json::parse("{\"a\":".repeat(1_000_000).into(), 64), Err(JsonError::TooDeep));
        assert!(Json::parse(nested(1_000_000).into(), 1_000_000).is_ok_and(|json| json.items().is_some()));
        assert!(Json::parse("1".into(), 0).is_ok());
        assert_eq!(Json::parse("[]".into(), 0), Err(JsonError::TooDeep));
    }

    #[test]
    fn brackets_inside_strings_are_no_nesting() {
        for text in [r#""[[[[""#, r#"["\"[[[","\\"]"#, r#"{"[{":"\\\"[["}"#] {
            assert!(Json::parse(text.into(), 1).is_ok(), "{text}");
        }
    }

    #[test]
    fn large_values_pass_whole() {
        let numbers = format!("[{}]", vec!["0.10"; 100_000].join(","));
        let text = format!("\"{}\"", "\\ud800 \u{e4}".repeat(50_000));
        for part in [numbers, text] {
            let object = json(&format!("{{\"a\":1,\"big\":{part},\"b\":2}}"));
            let found = object.get(&json_path("big")).expect("it is there");
            assert!(found.as_bytes() == part.as_bytes());
            assert!(found.items().is_none_or(|items| items.len() == 100_000));
        }
    }

    #[test]
    fn parts_are_found_by_path() {
        let text = r#"{"a":{"b":[10,{"c":1e400}]},"\u0061\/b":5,"0":6,"":7}"#;
        for (path, part) in [
            ("", Some(text)),
            ("a.b.0", Some("10")),
            ("a.b.1.c", Some("1e400")),
            ("a.b.2", None),
            ("a.b.01", None),
            ("a.b.-1", None),
            ("a.b.c", None),
            ("a.x", None),
            ("a.b.0.x", None),
            ("a/b", Some("5")),
            ("0", Some("6")),
            ("a.b.*", Some(r#"[10,{"c":1e400}]"#)),
            ("a.b.*.c", Some("[1e400]")),
            ("a.*", Some(r#"[[10,{"c":1e400}]]"#)),
            ("a.*.*.c", Some("[[1e400]]")),
            ("0.*", None),
        ] {
            assert_eq!(got(text, path).as_deref(), part, "{path}");
        }
    }

    #[test]
    fn the_last_of_equal_names_counts_as_it_does_for_most_readers() {
        assert_eq!(got(r#"{"a":1,"\u0061":2}"#, "a").as_deref(), Some("2"));
        assert_eq!(json(r#"{"a":1,"a":2}"#).members().map(|members| members.len()), Some(2));
    }

    #[test]
    fn a_name_that_is_half_a_surrogate_pair_is_no_key_and_harms_nothing() {
        assert_eq!(got(r#"{"\ud800":1,"a":2}"#, "a").as_deref(), Some("2"));
        assert_eq!(got(r#"{"\ud800":1}"#, "\u{fffd}"), None);
    }

    #[test]
    fn scalars_have_a_text() {
        for (text, expected) in [
            (r#""a\"\u00e4\n""#, Some("a\"\u{e4}\n")),
            (r#""\ud83d\ude00""#, Some("\u{1f600}")),
            ("0.10", Some("0.10")),
            ("true", Some("true")),
            ("null", None),
            ("[1]", None),
            ("{}", None),
            (r#""\ud800""#, None),
        ] {
            assert_eq!(json(text).text().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn parts_share_the_memory_of_the_whole() {
        let body = Bytes::from_static(br#" {"a":["long enough to be seen"]}"#);
        let part = Json::parse(body.clone(), 64).expect("valid").get(&json_path("a.0")).expect("there");

        assert!(body.as_ptr_range().contains(&part.as_bytes().as_ptr()));
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(Json::string("a\"\\\u{1}\u{e4}").text().as_deref(), Some("a\"\\\u{1}\u{e4}"));
        assert_eq!(Json::array([&Json::null(), &json("-0")]).as_bytes(), b"[null,-0]");
        assert_eq!(Json::array([]).as_bytes(), b"[]");
        assert_eq!(Json::raw_literal(" 0.10 "), json("0.10"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_as_serde_json_judges_them(text in r#"[\[\]{}",:\\ua0-9eE.+ntrl\n -]{0,40}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            match Json::parse(text.clone().into(), usize::MAX) {
                Ok(_) => prop_assert!(theirs.is_ok()),
                Err(JsonError::Invalid(at)) => prop_assert!(theirs.is_err() && at <= text.len(), "{at}"),
                Err(JsonError::TooDeep) => prop_assert!(false),
            }
        }

        #[test]
        fn strings_of_any_content_come_back(text in any::<String>()) {
            let json = Json::string(&text);
            prop_assert!(json.text().is_some_and(|content| content == text));
            let object = Json::written(format!("{{{}:1}}", String::from_utf8_lossy(json.as_bytes())).into_bytes());
            let path = JsonPath { steps: vec![Step::Key(text)] };
            prop_assert_eq!(object.get(&path), Some(Json::raw_literal("1")));
        }
    }
}
