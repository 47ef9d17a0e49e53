//! Who may ask the admin listener: pure checks of a request's head.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::model::Secret;

/// What a request must meet. `token` is `None` where none is needed.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The listener is bound to loopback, so only this machine's own names may be in `Host`.
    pub loopback: bool,
    pub token: Option<&'a Secret>,
}

/// Paths that a probe asks without a token: they say nothing but yes or no.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// Why this request is refused, if it is.
pub fn check<B>(rules: Rules<'_>, request: &Request<B>) -> Result<(), Problem> {
    if rules.loopback && !host_is_local(request) {
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "this listener answers to localhost only"));
    }
    if is_foreign(request.headers()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "pages of other origins may not ask this listener"));
    }
    if has_body(request.headers()) {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "requests to this listener have no body"));
    }
    match rules.token {
        Some(token) if !OPEN_PATHS.contains(&request.uri().path()) => check_token(token, request.headers()),
        _ => Ok(()),
    }
}

/// A page in a browser on this machine may make its own name resolve to 127.0.0.1 (DNS rebinding) and would then be
/// allowed to read our answers; its requests still carry its name. Requests without `Host` are HTTP/1.0 tools.
fn host_is_local<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(is_local_authority),
        (Some(_), Some(_)) => false,
    }
}

fn is_local_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// A browser asks on behalf of a page that is not ours. It would keep the answer from that page, but a stream would take a
/// place and each answer time. Following a link to here is fine.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = |origin: &HeaderValue| {
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        host.is_some() && host.map(str::as_bytes) == headers.get(HOST).map(HeaderValue::as_bytes)
    };
    let elsewhere = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"));
    let visit = text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
    headers.get_all(ORIGIN).iter().any(|origin| !own(origin)) || (elsewhere && !visit)
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

fn check_token(token: &Secret, headers: &HeaderMap) -> Result<(), Problem> {
    let field = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = field.and_then(|field| bearer(field).map(<[u8]>::to_vec).or_else(|| password(field)));
    // In constant time, so that the answer's delay does not tell how much of a guess was right. The length may leak.
    match given {
        Some(given) if bool::from(given.as_slice().ct_eq(token.reveal().as_bytes())) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "send the admin token as `authorization: Bearer TOKEN`, or as the password of any user",
        )),
    }
}

/// The credentials of `Bearer`, a scheme whose name ignores case (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The password of `Basic` (RFC 7617), which is how a browser can send the token: it asks its user, whose name may be any.
fn password(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    let decoded = scheme.eq_ignore_ascii_case(b"basic ").then(|| STANDARD.decode(encoded.trim_ascii()))?.ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::get(path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn status(rules: Rules<'_>, request: &Request<()>) -> u16 {
        check(rules, request).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_loopback_listener_answers_to_local_names_only() {
        let rules = Rules { loopback: true, token: None };
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1", "127.8.8.8:9901", "[::1]:9901", "[::ffff:127.0.0.1]"] {
            assert_eq!(status(rules, &request("/config", &[("host", host)])), 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:9901", "10.0.0.1", "a b", "", "localhost.evil.example"] {
            assert_eq!(status(rules, &request("/config", &[("host", host)])), 421, "{host}");
        }
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status(rules, &request("/config", &twice)), 421);
        assert_eq!(status(rules, &request("/config", &[])), 200);
    }

    #[test]
    fn any_host_may_be_asked_for_where_a_token_protects() {
        let token = Secret::secret("t0ken");
        let rules = Rules { loopback: false, token: Some(&token) };
        let headers = [("host", "forebay.internal"), ("authorization", "Bearer t0ken")];

        assert_eq!(status(rules, &request("/config", &headers)), 200);
    }

    #[test]
    fn the_token_is_needed_on_all_paths_but_the_probes() {
        let token = Secret::secret("t0ken");
        let rules = Rules { loopback: true, token: Some(&token) };
        for path in ["/livez", "/readyz"] {
            assert_eq!(status(rules, &request(path, &[])), 200, "{path}");
        }
        for path in ["/", "/metrics", "/config", "/version", "/nothing"] {
            assert_eq!(status(rules, &request(path, &[])), 401, "{path}");
        }
    }

    #[test]
    fn only_the_right_token_counts() {
        let token = Secret::secret("t0ken");
        let rules = Rules { loopback: true, token: Some(&token) };
        for right in ["Bearer t0ken", "bearer t0ken", "BEARER  t0ken "] {
            assert_eq!(status(rules, &request("/config", &[("authorization", right)])), 200, "{right}");
        }
        for wrong in ["", "t0ken", "Bearer", "Bearer ", "Bearer t0ke", "Bearer t0ken1", "Bearer T0KEN", "Basic t0ken"] {
            assert_eq!(status(rules, &request("/config", &[("authorization", wrong)])), 401, "{wrong}");
        }
    }

    #[test]
    fn a_browser_sends_the_token_as_a_password() {
        let token = Secret::secret("t0:ken");
        let rules = Rules { loopback: true, token: Some(&token) };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for right in ["me:t0:ken", ":t0:ken"] {
            assert_eq!(status(rules, &request("/", &[("authorization", &basic(right))])), 200, "{right}");
        }
        for wrong in ["t0:ken", "me:", "me", "", "t0:ken:"] {
            assert_eq!(status(rules, &request("/", &[("authorization", &basic(wrong))])), 401, "{wrong}");
        }
        assert_eq!(status(rules, &request("/", &[("authorization", "Basic !")])), 401);
    }

    #[test]
    fn pages_of_other_origins_are_refused_and_links_are_not() {
        let rules = Rules { loopback: true, token: None };
        let ask = |headers: &[(&str, &str)]| {
            let host = [("host", "localhost:9901")];
            status(rules, &request("/events", &[&host, headers].concat()))
        };
        for foreign in ["http://evil.example", "http://localhost:9902", "null", "http://localhost"] {
            assert_eq!(ask(&[("origin", foreign)]), 403, "{foreign}");
        }
        assert_eq!(ask(&[("origin", "http://localhost:9901")]), 200);
        assert_eq!(ask(&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]), 200);
        for site in ["cross-site", "same-site"] {
            assert_eq!(
                ask(&[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
                403
            );
            let link = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
            assert_eq!(ask(&link), 200);
            let frame = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
            assert_eq!(ask(&frame), 403);
        }
    }

    #[test]
    fn a_body_is_refused() {
        let rules = Rules { loopback: true, token: None };
        assert_eq!(status(rules, &request("/config", &[("content-length", "0")])), 200);
        assert_eq!(status(rules, &request("/config", &[("content-length", "1")])), 413);
        assert_eq!(status(rules, &request("/config", &[("transfer-encoding", "chunked")])), 413);
    }
}
