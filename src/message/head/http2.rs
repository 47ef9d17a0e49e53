//! Heads from and to the `http` crate's types, which the HTTP/2 codecs speak.
//!
//! Requests that come over HTTP/2 obey the same rules as those over HTTP/1: what an HTTP/1 upstream would read in another
//! way is refused here, before the protocol is changed under it.

use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};

use super::parse::accepted_method;
use super::rules;
use super::{
    Body, Fields, HeadError, Known, Method, RequestHead, ResponseBody, ResponseError, ResponseHead, TargetForm, Version,
};

impl RequestHead {
    /// A new head from an HTTP/2 request; see [`RequestHead::fill_from_http2`].
    pub fn from_http2(parts: &http::request::Parts, end_of_stream: bool) -> Result<Self, HeadError> {
        let mut head = Self::default();
        head.fill_from_http2(parts, end_of_stream)?;
        Ok(head)
    }

    /// Fills this head from an HTTP/2 request. `end_of_stream`: the HEADERS frame ended the stream, there is no body.
    ///
    /// `:authority` becomes the authority, and `Host` must agree with it where both are there. Cookie crumbs are joined
    /// (RFC 9113 §8.2.3). `fields` holds neither `Host` nor pseudo fields.
    pub fn fill_from_http2(&mut self, parts: &http::request::Parts, end_of_stream: bool) -> Result<(), HeadError> {
        self.reset();
        self.version = Version::Http2;
        self.method = accepted_method(parts.method.as_str().as_bytes())?;
        self.take_http2_target(&parts.uri).map_err(HeadError::BadRequest)?;
        self.take_http2_authority(parts).map_err(HeadError::BadRequest)?;
        self.take_http2_fields(&parts.headers)?;
        let body = self.http2_body(end_of_stream).map_err(HeadError::BadRequest)?;
        self.set_body(body);
        self.expects_continue = super::parse::expectation(&self.fields, Version::Http2, body)?;
        Ok(())
    }

    fn take_http2_target(&mut self, uri: &http::Uri) -> Result<(), &'static str> {
        if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
            return Err("the scheme is neither http nor https");
        }
        let target = uri.path_and_query().map(PathAndQuery::as_str).unwrap_or_default();
        if !target.starts_with('/') && target != "*" {
            return Err("the path does not begin with a slash");
        }
        let span = self.fields.store(target.as_bytes());
        self.adopt_target(span).map(|_| ())
    }

    fn take_http2_authority(&mut self, parts: &http::request::Parts) -> Result<(), &'static str> {
        let mut hosts = parts.headers.get_all(http::header::HOST).iter();
        let host = hosts.next().map(HeaderValue::as_bytes);
        if hosts.next().is_some() {
            return Err("there is more than one host field");
        }
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        let chosen = match (authority, host) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                return Err("the host field and :authority name different hosts");
            }
            (Some(authority), _) => authority,
            (None, Some(host)) => host,
            (None, None) => return Err("the authority is missing"),
        };
        let span = self.fields.store(chosen);
        self.adopt_authority(span)
    }

    fn take_http2_fields(&mut self, headers: &http::HeaderMap) -> Result<(), HeadError> {
        let mut cookies = Vec::new();
        for (name, value) in headers {
            let known = Known::classify(name.as_str().as_bytes());
            match known {
                Known::Host => {}
                Known::Cookie => {
                    if !cookies.is_empty() {
                        cookies.extend_from_slice(b"; ");
                    }
                    cookies.extend_from_slice(value.as_bytes());
                }
                known if is_connection_specific(known) => {
                    return Err(HeadError::BadRequest("a field of HTTP/1 connections has no place in HTTP/2"));
                }
                Known::Te if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                    return Err(HeadError::BadRequest("te may only be trailers in HTTP/2"));
                }
                _ if name.as_str().contains('_') => {
                    return Err(HeadError::BadRequest("a field name holds an underscore"));
                }
                _ => self.fields.push(name.as_str().as_bytes(), value.as_bytes()),
            }
        }
        if !cookies.is_empty() {
            self.fields.push_known(Known::Cookie, &cookies);
        }
        Ok(())
    }

    fn http2_body(&self, end_of_stream: bool) -> Result<Body, &'static str> {
        let length = single_length(&self.fields)?;
        match (end_of_stream, length) {
            (true, None | Some(0)) => Ok(length.map_or(Body::None, Body::Length)),
            (true, Some(_)) => Err("content-length announces a body that does not come"),
            (false, Some(length)) => Ok(Body::Length(length)),
            (false, None) => Ok(Body::Chunked),
        }
    }
}

impl ResponseHead {
    /// A head from an HTTP/2 response. Connection-specific fields are left out rather than refused: nothing depends on
    /// them. `end_of_stream`: no DATA follows.
    pub fn from_http2(
        parts: &http::response::Parts,
        method: Method,
        end_of_stream: bool,
    ) -> Result<Self, ResponseError> {
        let mut head = Self { status: parts.status.as_u16(), version: Version::Http2, ..Self::default() };
        if !(100..600).contains(&head.status) || head.status == 101 {
            return Err(ResponseError::Bad("the status is not one that HTTP/2 allows"));
        }
        for (name, value) in &parts.headers {
            if !is_connection_specific(Known::classify(name.as_str().as_bytes())) {
                head.fields.push(name.as_str().as_bytes(), value.as_bytes());
            }
        }
        let length = single_length(&head.fields).map_err(ResponseError::Bad)?;
        let none = method == Method::Head || super::parse::status_has_no_body(head.status);
        head.body = match length {
            _ if none => ResponseBody::None,
            Some(length) => ResponseBody::Length(length),
            None if end_of_stream => ResponseBody::Length(0),
            None => ResponseBody::Chunked,
        };
        head.keep_alive = true;
        Ok(head)
    }
}

fn single_length(fields: &Fields) -> Result<Option<u64>, &'static str> {
    let mut values = fields.values(Known::ContentLength);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => rules::content_length(value).map(Some),
        (Some(_), Some(_)) => Err("there is more than one content-length field"),
    }
}

/// Fields that belong to one HTTP/1 connection (RFC 9113 §8.2.2).
fn is_connection_specific(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
    )
}

/// Request parts for an HTTP/2 upstream. `target` and `authority` are what is to be sent, after rewriting; `fields` must
/// be stripped of hop-by-hop fields, and `Host` among them gives way to `:authority`.
pub fn to_http_request_parts(
    method: Method,
    scheme: Scheme,
    authority: &[u8],
    target: &[u8],
    fields: &Fields,
    body: Body,
) -> Result<http::request::Parts, HeadError> {
    const BAD: HeadError = HeadError::BadRequest("the request cannot be written as HTTP/2");
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(Authority::try_from(authority).map_err(|_| BAD)?);
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| BAD)?);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = http::Method::from_bytes(method.as_str().as_bytes()).map_err(|_| BAD)?;
    parts.uri = http::Uri::from_parts(uri).map_err(|_| BAD)?;
    parts.version = http::Version::HTTP_2;
    copy_fields(fields, &mut parts.headers, |known| known != Known::Host && known != Known::ContentLength);
    if let Body::Length(length) = body {
        parts.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(parts)
}

/// Response parts for an HTTP/2 client; `fields` must be stripped of hop-by-hop fields.
pub fn to_http_response_parts(status: u16, fields: &Fields, body: ResponseBody) -> http::response::Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    parts.version = http::Version::HTTP_2;
    let keeps_length = body == ResponseBody::None && (status == 304 || !super::parse::status_has_no_body(status));
    copy_fields(fields, &mut parts.headers, |known| known != Known::ContentLength || keeps_length);
    if let ResponseBody::Length(length) = body {
        parts.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    parts
}

/// Trailers for HTTP/2.
pub fn to_http_trailers(fields: &Fields) -> http::HeaderMap {
    let mut map = http::HeaderMap::with_capacity(fields.len());
    copy_fields(fields, &mut map, |_| true);
    map
}

/// Trailers from HTTP/2, without those that must not come in a trailer.
pub fn trailers_from_http(map: &http::HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in map {
        if crate::message::hop::may_be_trailer(Known::classify(name.as_str().as_bytes())) {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    fields
}

fn copy_fields(fields: &Fields, map: &mut http::HeaderMap, keep: impl Fn(Known) -> bool) {
    map.reserve(fields.len());
    for (name, value, known) in fields.iter() {
        if is_connection_specific(known) || !keep(known) {
            continue;
        }
        // Both conversions succeed for every field that parsing and `push` let in.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
}

impl RequestHead {
    /// True for `OPTIONS *`, which is about Forebay itself and matches no route.
    pub fn is_asterisk(&self) -> bool {
        self.target_form == TargetForm::Asterisk
    }
}
