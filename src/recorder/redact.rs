//! What a recording must not hold: values of fields, query parameters and body members whose names say that they let
//! somebody in.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::path::decode_percent;
use crate::replay::is_secret_name;

/// Stands for what was taken out: valid wherever it stands, so that the request can be sent again.
const REDACTED: &str = "redacted";
/// Deeper JSON is not looked into, and so not recorded.
const DEEPEST: usize = 64;
/// What stands between the pairs of queries, forms and fragments, of careless writers as well.
const SEPARATORS: [char; 6] = ['&', ';', '?', '#', '\r', '\n'];

/// Which names are secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Besides those that everybody keeps secret. Lower-case.
    pub redact: Vec<String>,
    /// Although everybody keeps them secret. Lower-case.
    pub keep: Vec<String>,
}

impl Names {
    /// Of a path such as `user[iban]` or `user.iban` each part counts as well.
    pub fn is_secret(&self, name: &str) -> bool {
        let name = name.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').to_ascii_lowercase();
        let is_named = |name: &str| self.redact.iter().any(|redacted| redacted == name);
        !self.keep.contains(&name)
            && (is_named(&name) || name.split(['[', ']', '.']).any(is_named) || is_secret_name(&name))
    }

    /// The value of a field as it may be recorded.
    pub fn field<'v>(&self, name: &str, value: &'v str) -> Cow<'v, str> {
        if self.is_secret(name) {
            return REDACTED.into();
        }
        self.value(value, DEEPEST).unwrap_or(REDACTED.into())
    }

    /// A target with its query.
    pub fn target<'t>(&self, target: &'t str) -> Cow<'t, str> {
        self.pairs_after_path(target, DEEPEST)
    }

    /// A body of this type; `None` when it cannot be looked into. One without secrets stays as it is, byte for byte.
    pub fn body<'b>(&self, content_type: &str, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let text = std::str::from_utf8(body).ok()?;
        let is_json = essence == "application/json" || essence.ends_with("+json");
        let is_form = essence == "application/x-www-form-urlencoded";
        let shown = if is_json || (is_form && text.trim_start().starts_with(['{', '[', '"'])) {
            // JSON as a form is what `curl -d` says of it when nobody tells it better.
            self.json_text(text, DEEPEST)?
        } else if is_form && text.split(SEPARATORS).all(|pair| is_plain(&decoded(split(pair).0))) {
            self.pairs(text, DEEPEST)
        } else {
            return None;
        };
        Some(match shown {
            Cow::Borrowed(_) => body.into(),
            Cow::Owned(text) => text.into_bytes().into(),
        })
    }

    /// A value under a name that does not tell: it may be JSON or an URL. `None` when it is too deep to tell.
    fn value<'t>(&self, text: &'t str, deepest: usize) -> Option<Cow<'t, str>> {
        let deepest = deepest.checked_sub(1)?;
        let is_json = text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<&RawValue>(text).is_ok();
        if is_json { self.json_text(text, deepest) } else { Some(self.pairs_after_path(text, deepest)) }
    }

    /// An URL, or a part of one: what follows its path.
    fn pairs_after_path<'t>(&self, url: &'t str, deepest: usize) -> Cow<'t, str> {
        let Some(at) = url.find(['?', '#']) else { return url.into() };
        let (path, pairs) = url.split_at(at + 1);
        match self.pairs(pairs, deepest) {
            Cow::Borrowed(_) => url.into(),
            Cow::Owned(pairs) => format!("{path}{pairs}").into(),
        }
    }

    /// `a=1&b=2`, of a query or a form.
    fn pairs<'t>(&self, text: &'t str, deepest: usize) -> Cow<'t, str> {
        let mut shown = String::new();
        let mut changed = false;
        for part in text.split_inclusive(SEPARATORS) {
            let pair = part.strip_suffix(SEPARATORS).unwrap_or(part);
            let redacted = self.redacted_pair(pair, deepest);
            changed |= redacted.is_some();
            shown.push_str(redacted.as_deref().unwrap_or(pair));
            shown.push_str(&part[pair.len()..]);
        }
        if changed { shown.into() } else { text.into() }
    }

    /// `None` when nothing in it is secret.
    fn redacted_pair(&self, pair: &str, deepest: usize) -> Option<String> {
        let (name, value) = split(pair);
        let decoded_name = decoded(name);
        let hides = |text: &str| !matches!(self.value(text, deepest), Some(Cow::Borrowed(_)));
        let is_secret = self.is_secret(&decoded_name);
        // Something else than a name may hold the value itself.
        if (is_secret && (value.is_none() || !is_plain(&decoded_name))) || hides(&decoded_name) {
            return Some(REDACTED.to_owned());
        }
        (is_secret || hides(&decoded(value?))).then(|| format!("{name}={REDACTED}"))
    }

    fn json_text<'t>(&self, text: &'t str, deepest: usize) -> Option<Cow<'t, str>> {
        let mut shown = Vec::new();
        let changed = self.json(serde_json::from_str(text).ok()?, deepest, &mut shown)?;
        if changed { String::from_utf8(shown).ok().map(Cow::Owned) } else { Some(text.into()) }
    }

    /// Writes it without its secrets; says whether something was taken out, or `None` when it is too deep to tell. Every
    /// member is looked at: which of two with the same name counts is the service's business.
    fn json(&self, value: &RawValue, deepest: usize, out: &mut Vec<u8>) -> Option<bool> {
        let deepest = deepest.checked_sub(1)?;
        let mut changed = false;
        match value.get().as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(value.get()).ok()?;
                out.push(b'{');
                for (index, (name, member)) in members.into_iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    serde_json::to_writer(&mut *out, &name).ok()?;
                    out.push(b':');
                    if self.is_secret(&name) {
                        serde_json::to_writer(&mut *out, REDACTED).ok()?;
                        changed = true;
                    } else {
                        changed |= self.json(member, deepest, out)?;
                    }
                }
                out.push(b'}');
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
                out.push(b'[');
                for (index, item) in items.into_iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    changed |= self.json(item, deepest, out)?;
                }
                out.push(b']');
            }
            Some(b'"') => {
                let text: String = serde_json::from_str(value.get()).ok()?;
                match self.value(&text, deepest)? {
                    Cow::Borrowed(_) => out.extend_from_slice(value.get().as_bytes()),
                    Cow::Owned(text) => {
                        serde_json::to_writer(&mut *out, &text).ok()?;
                        changed = true;
                    }
                }
            }
            _ => out.extend_from_slice(value.get().as_bytes()),
        }
        Some(changed)
    }
}

/// The members of an object, those that come twice as well.
struct Members<'j>(Vec<(String, &'j RawValue)>);

impl<'de: 'j, 'j> Deserialize<'de> for Members<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

fn split(pair: &str) -> (&str, Option<&str>) {
    pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)))
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&decode_percent(text.replace('+', " ").as_bytes())).into_owned()
}

/// What a name is made of; a piece of JSON or XML is none.
fn is_plain(name: &str) -> bool {
    !name.contains(|c: char| c.is_control() || ['"', '<', '>', '{', '}', '\\'].contains(&c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names { redact: vec!["ssn".into()], keep: vec!["csrf-token".into()] }
    }

    fn body(content_type: &str, body: &str) -> Option<String> {
        names().body(content_type, body.as_bytes()).map(|body| String::from_utf8(body.into_owned()).unwrap())
    }

    #[test]
    fn fields_and_queries_lose_what_lets_somebody_in() {
        assert_eq!(names().field("authorization", "Bearer x"), "redacted");
        assert_eq!(names().field("X-Auth-Token", "x"), "redacted");
        assert_eq!(names().field("csrf-token", "x"), "x");
        assert_eq!(names().field("accept", "*/*"), "*/*");
        assert_eq!(
            names().target("/a?page=2&api_key=x&access%5Ftoken=y&SSN=1&"),
            "/a?page=2&api_key=redacted&access%5Ftoken=redacted&SSN=redacted&"
        );
        assert!(matches!(names().target("/a?page=2"), Cow::Borrowed("/a?page=2")));
    }

    #[test]
    fn bodies_are_looked_into_where_that_can_be_done() {
        let json = "application/json; charset=utf-8";
        assert_eq!(
            body(json, r#"{"user":"a","password":{"old":"x"},"cards":[{"ssn":1,"n":2}]}"#).unwrap(),
            r#"{"user":"a","password":"redacted","cards":[{"ssn":"redacted","n":2}]}"#
        );
        let plain = r#"{ "n": 1.0e5, "s": "\u0041" }"#;
        assert_eq!(body("application/problem+json", plain).unwrap(), plain, "nothing is secret, so nothing changes");
        assert_eq!(body("application/x-www-form-urlencoded", "user=a&password=b").unwrap(), "user=a&password=redacted");
        assert_eq!(body(json, "{"), None);
        assert_eq!(body("text/plain", "password"), None);
        assert_eq!(body(json, &("[".repeat(100) + &"]".repeat(100))), None, "too deep");
    }

    #[test]
    fn of_members_with_the_same_name_each_is_looked_into() {
        assert_eq!(
            body("application/json", r#"{"a":{"password":"x"},"n":12345678901234567890123,"a":1}"#).unwrap(),
            r#"{"a":{"password":"redacted"},"n":12345678901234567890123,"a":1}"#
        );
    }

    #[test]
    fn what_is_called_a_form_and_is_none_is_looked_into_or_left_out() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(body(form, r#"{"password":"a=b"}"#).unwrap(), r#"{"password":"redacted"}"#);
        assert_eq!(body(form, r#"{"password":"a=b"#), None);
        assert_eq!(body(form, r#"<a b="1"><password>x</password></a>"#), None);
        assert_eq!(body(form, "a=1;password=x\nssn=2").unwrap(), "a=1;password=redacted\nssn=redacted");
        assert_eq!(body(form, "user[ssn]=1&user.ssn=2").unwrap(), "user[ssn]=redacted&user.ssn=redacted");
        assert_eq!(body(form, "a=1&b=%3F%3D").unwrap(), "a=1&b=%3F%3D");
    }

    #[test]
    fn secrets_inside_of_values_that_are_json_or_urls_are_found() {
        assert_eq!(names().field("referer", "https://a/b?token=x&c=1#d"), "https://a/b?token=redacted&c=1#d");
        assert_eq!(names().field("location", "https://a/#access_token=x"), "https://a/#access_token=redacted");
        assert_eq!(names().field("x-client", r#"{"token":"x"}"#), r#"{"token":"redacted"}"#);
        assert_eq!(names().field("accept", "a;q=0.5, */*"), "a;q=0.5, */*");
        assert_eq!(names().target("/a?%7B%22token%22%3A%22x%22%7D"), "/a?redacted");
        assert_eq!(names().target("/a?payload=%7B%22token%22%3A%22x%22%7D&b"), "/a?payload=redacted&b");
        assert_eq!(names().target("/a?next=https%3A%2F%2Fb%3Ftoken%3Dx"), "/a?next=redacted");
        assert_eq!(names().target("/a?next=https%3A%2F%2Fb%3Fpage%3D2"), "/a?next=https%3A%2F%2Fb%3Fpage%3D2");
        assert_eq!(
            body("application/json", r#"{"body":"{\"password\":\"x\"}","to":"/?token=x"}"#).unwrap(),
            r#"{"body":"{\"password\":\"redacted\"}","to":"/?token=redacted"}"#
        );
        let deep = (0..100).fold("token=x".to_owned(), |text, _| {
            format!("a=?{}", text.replace('%', "%25").replace('?', "%3F").replace('=', "%3D"))
        });
        assert!(!names().target(&format!("/?{deep}")).contains("=x"));
    }

    proptest! {
        /// Wherever it is put, and whatever stands around it.
        #[test]
        fn a_secret_does_not_come_through(around in "[ -~]{0,12}", path in proptest::collection::vec(0..4_u8, 0..5)) {
            let mut json = serde_json::json!({ "password": "hunter2", "around": around.clone() });
            for step in path {
                json = match step {
                    0 => serde_json::json!({ around.clone(): json }),
                    1 => serde_json::json!([1, json, around.clone()]),
                    2 => serde_json::json!({ "a": json.to_string() }),
                    _ => serde_json::json!({ "url": format!("/?{}={}", percent(&around), percent(&json.to_string())) }),
                };
            }
            let json = json.to_string();
            for content_type in ["application/json", "application/x-www-form-urlencoded", "a/b+json"] {
                let shown = body(content_type, &json).expect("it can be looked into");
                prop_assert!(!shown.contains("hunter2"), "{}", shown);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{}", shown);
            }
            let target = format!("/a?{}&b={}", percent(&json), percent(&json));
            prop_assert!(!names().target(&target).contains("hunter2"));
            prop_assert!(!names().field("x-any", &json).contains("hunter2"));
        }

        #[test]
        fn nothing_is_a_panic(text in "\\PC{0,40}") {
            let _ = (names().target(&text), names().field("a", &text));
            let _ = (body("application/json", &text), body("application/x-www-form-urlencoded", &text));
        }
    }

    fn percent(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }
}
