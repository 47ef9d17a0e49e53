//! What a recording must not hold: values of fields, query parameters and body members whose names say that they let
//! somebody in.

use std::borrow::Cow;

use serde_json::Value;

use crate::message::path::decode_percent;
use crate::replay::is_secret_name;

/// Stands for what was taken out: valid wherever it stands, so that the request can be sent again.
const REDACTED: &str = "redacted";
/// Deeper JSON is not looked into, and so not recorded.
const DEEPEST: usize = 64;

/// Which names are secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Besides those that everybody keeps secret. Lower-case.
    pub redact: Vec<String>,
    /// Although everybody keeps them secret. Lower-case.
    pub keep: Vec<String>,
}

impl Names {
    pub fn is_secret(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        !self.keep.contains(&name) && (self.redact.contains(&name) || is_secret_name(&name))
    }

    /// The value of a field as it may be recorded.
    pub fn field<'v>(&self, name: &str, value: &'v str) -> &'v str {
        if self.is_secret(name) { REDACTED } else { value }
    }

    /// A target with its query.
    pub fn target<'t>(&self, target: &'t str) -> Cow<'t, str> {
        match target.split_once('?') {
            Some((path, query)) => match self.form(query) {
                Cow::Borrowed(_) => Cow::Borrowed(target),
                Cow::Owned(query) => Cow::Owned(format!("{path}?{query}")),
            },
            None => Cow::Borrowed(target),
        }
    }

    /// `a=1&b=2`, of a query or a form.
    fn form<'f>(&self, form: &'f str) -> Cow<'f, str> {
        let secret = |pair: &str| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            self.is_secret(&String::from_utf8_lossy(&decode_percent(name.replace('+', " ").as_bytes())))
        };
        if !form.split('&').any(secret) {
            return Cow::Borrowed(form);
        }
        let shown = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if secret(pair) => format!("{name}={REDACTED}"),
            _ => pair.to_owned(),
        };
        Cow::Owned(form.split('&').map(shown).collect::<Vec<_>>().join("&"))
    }

    /// A body of this type; `None` when it cannot be looked into. One without secrets stays as it is, byte for byte.
    pub fn body<'b>(&self, content_type: &str, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence == "application/x-www-form-urlencoded" {
            return Some(match self.form(std::str::from_utf8(body).ok()?) {
                Cow::Borrowed(_) => Cow::Borrowed(body),
                Cow::Owned(form) => Cow::Owned(form.into_bytes()),
            });
        }
        if essence != "application/json" && !essence.ends_with("+json") {
            return None;
        }
        let mut value: Value = serde_json::from_slice(body).ok()?;
        if self.json(&mut value, DEEPEST)? {
            serde_json::to_vec(&value).ok().map(Cow::Owned)
        } else {
            Some(body.into())
        }
    }

    /// Whether something was taken out; `None` when it is too deep to tell.
    fn json(&self, value: &mut Value, deepest: usize) -> Option<bool> {
        let deepest = deepest.checked_sub(1)?;
        let mut changed = false;
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if self.is_secret(name) {
                        *member = REDACTED.into();
                        changed = true;
                    } else {
                        changed |= self.json(member, deepest)?;
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    changed |= self.json(item, deepest)?;
                }
            }
            _ => {}
        }
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
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
            r#"{"cards":[{"n":2,"ssn":"redacted"}],"password":"redacted","user":"a"}"#
        );
        let plain = r#"{ "n": 1.0e5, "s": "\u0041" }"#;
        assert_eq!(body("application/problem+json", plain).unwrap(), plain, "nothing is secret, so nothing changes");
        assert_eq!(body("application/x-www-form-urlencoded", "user=a&password=b").unwrap(), "user=a&password=redacted");
        assert_eq!(body(json, "{"), None);
        assert_eq!(body("text/plain", "password"), None);
        assert_eq!(body(json, &("[".repeat(100) + &"]".repeat(100))), None, "too deep");
    }
}
