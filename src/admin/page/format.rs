//! In which form a view is wanted: `?format=html|json|text` decides, else `Accept`, else each path has its own.

use http::StatusCode;

use crate::admin::problem::Problem;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Html,
    Json,
    Text,
}

impl Format {
    /// `accept` is the whole field; its weights are not looked at, since nobody who wants one of these sends them in an
    /// order of their own.
    pub fn of(query: &str, accept: &str, default: Format) -> Result<Self, Problem> {
        match parameter(query, "format").as_deref() {
            Some("html") => return Ok(Format::Html),
            Some("json") => return Ok(Format::Json),
            Some("text") => return Ok(Format::Text),
            Some(_) => {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "write ?format=html, ?format=json or ?format=text"));
            }
            None => {}
        }
        let types = [("text/html", Format::Html), ("application/json", Format::Json), ("text/plain", Format::Text)];
        let named = types.iter().filter_map(|(name, format)| Some((accept.find(name)?, *format)));
        Ok(named.min_by_key(|(place, _)| *place).map_or(default, |(_, format)| format))
    }
}

/// The first value of this parameter, percent-decoded. Names of the configuration need no decoding, but browsers may do it.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::with_capacity(pair.len());
    let mut rest = pair.as_bytes();
    while let [first, after @ ..] = rest {
        (bytes, rest) = match (first, two_digits(after)) {
            (b'%', Some(value)) => (push(bytes, value), &after[2..]),
            _ => (push(bytes, *first), after),
        };
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

/// The value of the two hexadecimal digits at the beginning.
fn two_digits(text: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (high, low) = (digit(text.first()?)?, digit(text.get(1)?)?);
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_decides_before_accept_and_accept_before_the_default() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (query, accept, expected) in [
            ("", "*/*", Format::Text),
            ("", "", Format::Text),
            ("", browser, Format::Html),
            ("", "application/json", Format::Json),
            ("", "application/json, text/html", Format::Json),
            ("format=json", browser, Format::Json),
            ("route=a&format=text", browser, Format::Text),
            ("format=html", "*/*", Format::Html),
        ] {
            assert_eq!(Format::of(query, accept, Format::Text).unwrap(), expected, "{query} {accept}");
        }
        assert_eq!(Format::of("", "*/*", Format::Json).unwrap(), Format::Json);
        assert_eq!(Format::of("format=xml", "*/*", Format::Text).unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn parameters_are_found_and_decoded() {
        assert_eq!(parameter("format=json&route=a%2Db%5f", "route").as_deref(), Some("a-b_"));
        assert_eq!(parameter("route=100%&x=1", "route").as_deref(), Some("100%"));
        assert_eq!(parameter("myroute=a", "route"), None);
    }
}
