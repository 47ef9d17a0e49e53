//! What is loaded: one URL, a file of requests, or routes of a deployed configuration.

mod file;
mod routes;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

pub use file::parse as parse_file;
pub use routes::{RouteRequest, longest_deadline, of_routes};

use super::checks::Expectation;
use super::client::Template;
use super::client::origin::Origin;

/// A request that is made again and again, and what is expected of its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// As it stands in reports: `GET http://127.0.0.1:8080/users`, or the route's name.
    pub name: String,
    /// Its share of the requests against the others'. `None` in a list that is walked through in order.
    pub weight: Option<f64>,
    pub template: Template,
    pub expectation: Expectation,
}

impl Target {
    pub fn new(method: Method, url: &Url, headers: HeaderMap, body: Bytes) -> Self {
        let template = Template { origin: url.origin.clone(), method, path: url.path.clone(), headers, body };
        let name = format!("{} {}{}", template.method, template.origin, template.path);
        Self { name, weight: None, template, expectation: Expectation::default() }
    }
}

/// The parts of a URL that matter to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub origin: Origin,
    /// Path and query.
    pub path: String,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Err(format!("`{text}` has no scheme: write `http://{text}`"));
        }
        let uri: Uri = text.parse().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{text}`: only http and https can be loaded")),
        };
        let authority = uri.authority().ok_or_else(|| format!("`{text}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err(
                "a URL with a user name: send it as `-H 'authorization: ...'`, which is kept out of reports".into()
            );
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("`{text}` names no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            origin: Origin { tls, host: host.to_owned(), port, unix: None },
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_the_ports_of_their_schemes() {
        for (text, shown, path) in [
            ("http://a.example", "http://a.example", "/"),
            ("http://a.example:8080/x?y=1", "http://a.example:8080", "/x?y=1"),
            ("https://a.example/x", "https://a.example", "/x"),
            ("http://[::1]:8080/", "http://[::1]:8080", "/"),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((url.origin.to_string().as_str(), url.path.as_str()), (shown, path));
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write() {
        for (text, part) in [
            ("127.0.0.1:8080/x", "write `http://127.0.0.1:8080/x`"),
            ("ftp://a.example", "only http and https"),
            ("http://user:secret@a.example/", "authorization"),
            ("http://a b/", "not a URL"),
        ] {
            let error = text.parse::<Url>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
