//! Request methods.

/// The longest method name accepted; the longest registered one has 17 bytes.
const MAX_LEN: usize = 24;

/// A request method. Names are case-sensitive (RFC 9110 §9.1): `get` is an unknown method, not GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    Other(OtherMethod),
}

/// The name of a method without a variant of its own, kept inline so that no request allocates for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OtherMethod {
    len: u8,
    bytes: [u8; MAX_LEN],
}

impl Method {
    /// `None` when `name` is not a token or is longer than any method in use.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            other => {
                if other.len() > MAX_LEN || !super::rules::is_token(other) {
                    return None;
                }
                let mut bytes = [0; MAX_LEN];
                bytes[..other.len()].copy_from_slice(other);
                // The cast cannot cut: the length was just compared with 24.
                Method::Other(OtherMethod { len: other.len() as u8, bytes })
            }
        })
    }

    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Trace => "TRACE",
            Method::Connect => "CONNECT",
            Method::Other(name) => std::str::from_utf8(&name.bytes[..usize::from(name.len)]).expect("a token is ASCII"),
        }
    }

    /// Safe methods ask for nothing to be changed (RFC 9110 §9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }

    /// Idempotent methods may be sent twice without more effect than once (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Method::Put | Method::Delete)
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_case_sensitive() {
        for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"]
        {
            assert_eq!(Method::from_bytes(name.as_bytes()).expect("a method").as_str(), name);
        }
        assert_ne!(Method::from_bytes(b"get"), Some(Method::Get));
        assert_eq!(Method::from_bytes(b"A B"), None);
        assert_eq!(Method::from_bytes(b""), None);
        assert_eq!(Method::from_bytes(&[b'A'; 25]), None);
    }
}
