//! What must hold for any input: the bodies of the fuzz targets, which ordinary tests run over the committed corpora.
//!
//! Each function takes arbitrary bytes and panics when a promise of `message`, `routing`, `config` or `aggregate` is broken.

mod aggregate;

use std::net::IpAddr;

use crate::config::model::Cidr;
use crate::message::chunked::{self, ChunkError, Decoder};
use crate::message::forwarded::{self, Arrival};
use crate::message::head::http2::trailers_from_http;
use crate::message::head::{
    Body, HeadLimits, Parsed, ResponseBody, parse_request, parse_response, write_request_head, write_response_head,
};
use crate::message::hop::{Keep, strip_hop_by_hop};
use crate::message::path::{Normalised, normalise, query_value};
use crate::message::{Fields, Known, Method, RequestHead, ResponseHead};
use crate::routing::{Found, Router, rewrite};

pub use aggregate::{aggregate_merge, aggregate_template};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 4096, max_headers: 32 };

/// A normalised path is a fixed point, has no dot segments, means the same to a receiver that decodes it once, and is read
/// back unchanged from the wire, so that what was matched is what is forwarded.
pub fn path(data: &[u8]) {
    let mut out = Vec::new();
    let Ok(result) = normalise(data, &mut out) else { return };
    let normal = result.path(data, &out).to_vec();

    assert_eq!(normalise(&normal, &mut Vec::new()), Ok(Normalised::Unchanged), "{}", normal.escape_ascii());
    let decoded = decode(&normal);
    let slashes = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'/').count();
    assert_eq!(slashes(&decoded), slashes(&normal), "{}", normal.escape_ascii());
    assert!(!decoded.contains(&0) && !decoded.contains(&b'\\'));
    for segment in decoded.split(|b| *b == b'/') {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b"..", "{}", normal.escape_ascii());
    }
    let _ = query_value(data, b"a");

    let mut wire = Vec::new();
    write_request_head(&mut wire, Method::Get, &normal, b"a", &Fields::new(), Body::None);
    let mut head = RequestHead::default();
    let limits = HeadLimits { max_bytes: wire.len(), ..LIMITS };
    assert_eq!(parse_request(&wire, &limits, &mut head), Ok(Parsed::Complete { head_len: wire.len() }));
    assert_eq!(head.path(), normal);
}

/// One decoding, as an upstream does it.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// What we accept, `httparse` accepts with the same length; a dripped head gives the same; and what we write from it is one
/// request with the same meaning.
pub fn request_head(data: &[u8]) {
    let mut head = RequestHead::default();
    let result = parse_request(data, &LIMITS, &mut head);
    let head_len = dripped(data, &result, |part, head| parse_request(part, &LIMITS, head));
    let Some(head_len) = head_len else { return };
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let theirs = httparse::Request::new(&mut slots).parse(&data[..head_len]);
    assert_eq!(theirs, Ok(httparse::Status::Complete(head_len)));

    let host = if head.authority().is_empty() { &b"a"[..] } else { head.authority() };
    // What HTTP/1.0 ignores would mean something in the HTTP/1.1 that we write.
    let mut fields = head.fields.clone();
    if head.version == crate::message::head::Version::Http10 {
        strip_hop_by_hop(&mut fields, Keep::default());
        fields.remove(Known::Expect);
    }
    let mut wire = Vec::new();
    write_request_head(&mut wire, head.method, head.target(), host, &fields, head.framing());
    assert_lines(&wire);
    let mut again = RequestHead::default();
    let limits = HeadLimits { max_bytes: wire.len(), max_headers: 64 };
    let reparsed = parse_request(&wire, &limits, &mut again);
    assert_eq!(reparsed, Ok(Parsed::Complete { head_len: wire.len() }), "{}", wire.escape_ascii());
    assert_eq!(again.method, head.method);
    assert_eq!((again.path(), again.query()), (head.path(), head.query()));
    let absence_is_said = head.framing() == Body::None && again.framing() == Body::Length(0);
    assert!(again.framing() == head.framing() || absence_is_said, "{:?}", again.framing());
    assert_eq!(again.authority(), host);
    remove_written(&mut fields);
    remove_written(&mut again.fields);
    assert_eq!(again.fields, fields);
}

/// Lines: flags, method, target, authority, then `name:value` fields. A request that we take over HTTP/2 is one request
/// with the same meaning when it is written for an HTTP/1 upstream.
pub fn http2_head(data: &[u8]) {
    let Some((parts, end_of_stream)) = http2_parts(data) else { return };
    let Ok(head) = RequestHead::from_http2(&parts, end_of_stream) else { return };

    let mut fields = head.fields.clone();
    strip_or_keep(&mut fields);
    let mut wire = Vec::new();
    write_request_head(&mut wire, head.method, head.target(), head.authority(), &fields, head.framing());
    assert_lines(&wire);
    let mut again = RequestHead::default();
    let limits = HeadLimits { max_bytes: wire.len(), max_headers: 256 };
    let reparsed = parse_request(&wire, &limits, &mut again);
    assert_eq!(reparsed, Ok(Parsed::Complete { head_len: wire.len() }), "{}", wire.escape_ascii());
    assert_eq!((again.method, again.path(), again.query()), (head.method, head.path(), head.query()));
    assert_eq!((again.authority(), again.host()), (head.authority(), head.host()));
    let absence_is_said = head.framing() == Body::None && again.framing() == Body::Length(0);
    assert!(again.framing() == head.framing() || absence_is_said);
    remove_written(&mut fields);
    remove_written(&mut again.fields);
    assert_eq!(again.fields, fields);
}

fn http2_parts(data: &[u8]) -> Option<(http::request::Parts, bool)> {
    let mut lines = data.split(|b| *b == b'\n');
    let flags = *lines.next()?.first()?;
    let (method, target, authority) = (lines.next()?, lines.next()?, lines.next()?);
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if flags & 1 == 0 { http::uri::Scheme::HTTP } else { http::uri::Scheme::HTTPS });
    uri.path_and_query = Some(target.try_into().ok()?);
    uri.authority = Some(authority.try_into().ok()?);
    let mut request = http::Request::builder()
        .version(http::Version::HTTP_2)
        .method(http::Method::from_bytes(method).ok()?)
        .uri(http::Uri::from_parts(uri).ok()?);
    for line in lines {
        let colon = memchr::memchr(b':', line)?;
        request = request.header(&line[..colon], &line[colon + 1..]);
    }
    Some((request.body(()).ok()?.into_parts().0, flags & 2 == 0))
}

/// The same for responses; the first byte chooses the request's method.
pub fn response_head(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let method = if choice & 1 == 0 { Method::Get } else { Method::Head };
    let mut head = ResponseHead::default();
    let result = parse_response(data, &LIMITS, method, &mut head);
    let head_len = dripped(data, &result, |part, head| parse_response(part, &LIMITS, method, head));
    let Some(head_len) = head_len else { return };
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let theirs = httparse::Response::new(&mut slots).parse(&data[..head_len]);
    assert_eq!(theirs, Ok(httparse::Status::Complete(head_len)));

    let mut fields = head.fields.clone();
    strip_or_keep(&mut fields);
    let mut wire = Vec::new();
    write_response_head(&mut wire, head.status, &fields, head.framing());
    assert_lines(&wire);
    let mut again = ResponseHead::default();
    let limits = HeadLimits { max_bytes: wire.len(), max_headers: 64 };
    let reparsed = parse_response(&wire, &limits, method, &mut again);
    assert_eq!(reparsed, Ok(Parsed::Complete { head_len: wire.len() }), "{}", wire.escape_ascii());
    assert_eq!((again.status, again.framing()), (head.status, head.framing()));
    assert_eq!(head.framing() == ResponseBody::UntilClose, !again.keep_alive());
    remove_written(&mut fields);
    remove_written(&mut again.fields);
    assert_eq!(again.fields, fields);
}

/// Parses again from the front in two growing parts, with one reused head: nothing may depend on how the bytes arrive.
/// Gives the length of the head when it is complete.
fn dripped<H: Default, E: PartialEq + std::fmt::Debug>(
    data: &[u8],
    whole: &Result<Parsed, E>,
    mut parse: impl FnMut(&[u8], &mut H) -> Result<Parsed, E>,
) -> Option<usize> {
    let mut head = H::default();
    let first = parse(&data[..data.len() / 2], &mut head);
    if first == Ok(Parsed::Incomplete) {
        assert_eq!(&parse(data, &mut head), whole);
    } else {
        // Seen earlier, the same head or the same mistake; only the size limit may be noticed before it.
        assert!(first == *whole || first.is_err(), "{first:?} {whole:?}");
        assert_eq!(first.is_ok(), whole.is_ok());
    }
    match whole {
        Ok(Parsed::Complete { head_len }) => Some(*head_len),
        _ => None,
    }
}

fn strip_or_keep(fields: &mut Fields) {
    strip_hop_by_hop(fields, Keep::default());
    for known in [Known::Connection, Known::KeepAlive, Known::TransferEncoding, Known::Upgrade, Known::Te] {
        assert!(!fields.contains(known));
    }
}

/// Host and framing are written from elsewhere than the fields.
fn remove_written(fields: &mut Fields) {
    fields.retain(|_, _, known| !matches!(known, Known::Host | Known::ContentLength | Known::TransferEncoding));
}

/// Every CR and LF belongs to a CRLF, and the empty line is the last one.
fn assert_lines(wire: &[u8]) {
    let text = wire.strip_suffix(b"\r\n\r\n").expect("a head ends in an empty line");
    for line in text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        assert!(!line.is_empty() && !line.contains(&b'\r') && !line.contains(&0), "{}", wire.escape_ascii());
    }
    assert_eq!(memchr::memchr_iter(b'\n', text).count(), memchr::memmem::find_iter(text, b"\r\n").count());
}

/// The first four bytes choose how the rest is cut; no cut changes the result, and what is decoded survives encoding.
pub fn chunked(data: &[u8]) {
    let Some((cuts, body)) = data.split_at_checked(4) else { return };
    let whole = decode_chunks(body, &[]);
    assert_eq!(decode_chunks(body, cuts), whole);
    assert_eq!(decode_chunks(body, &vec![1; body.len()]), whole);
    let Ok(Some((content, _, trailers))) = whole else { return };

    let mut wire = Vec::new();
    for chunk in content.chunks(usize::from(cuts[0]) + 1) {
        chunked::write_chunk_header(&mut wire, chunk.len());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(chunked::CHUNK_END);
    }
    chunked::write_last_chunk(&mut wire, &trailers);
    assert_eq!(decode_chunks(&wire, &[]), Ok(Some((content, wire.len(), trailers.clone()))));
    let map = crate::message::head::http2::to_http_trailers(&trailers);
    assert_eq!(trailers_from_http(&map).len(), trailers.len());
}

type Decoded = Option<(Vec<u8>, usize, Fields)>;

/// Feeds pieces of these lengths, then the rest.
fn decode_chunks(body: &[u8], pieces: &[u8]) -> Result<Decoded, ChunkError> {
    let mut decoder = Decoder::new();
    let (mut content, mut used, mut end) = (Vec::new(), 0, 0);
    for piece in pieces.iter().map(|piece| usize::from(*piece)).chain([body.len()]) {
        end = (end + piece).min(body.len());
        while used < end && !decoder.is_done() {
            let step = decoder.decode(&body[used..end])?;
            assert!(step.consumed > 0 && step.data.end <= step.consumed, "{step:?}");
            content.extend_from_slice(&body[used..end][step.data]);
            used += step.consumed;
        }
    }
    Ok(decoder.is_done().then(|| (content, used, decoder.trailers().clone())))
}

/// The first byte chooses the peer; each further line is an `X-Forwarded-For` (`x...`) or a `Forwarded` (anything else). An
/// upstream that trusts us finds the client that we found.
pub fn forwarded(data: &[u8]) {
    let Some((choice, lines)) = data.split_first() else { return };
    let mut fields = Fields::new();
    for line in lines.split(|b| *b == b'\n') {
        match line.split_first() {
            Some((b'x', value)) => fields.push_known(Known::XForwardedFor, value),
            _ => fields.push_known(Known::Forwarded, line),
        }
    }
    let ours: IpAddr = IpAddr::from([127, 0, 0, 1]);
    let mut trusted = vec![Cidr { address: IpAddr::from([10, 0, 0, 0]), prefix: 8 }];
    let peer = if choice & 1 == 0 { IpAddr::from([10, 0, 0, 1]) } else { IpAddr::from([192, 0, 2, 1]) };
    let hops = fields.iter().map(|(_, value, _)| memchr::memchr_iter(b',', value).count() + 1).sum::<usize>();

    let arrival = Arrival { peer, trusted: &trusted, https: choice & 2 == 0, authority: b"[::1]:80" };
    let before = forwarded::client_address(peer, &trusted, &fields);
    let client = forwarded::rewrite(&mut fields, &arrival);

    assert_eq!(client, before);
    assert!(choice & 1 == 0 || client == peer, "a stranger chose the address");
    for (_, value, _) in fields.iter() {
        assert!(!value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')));
    }
    trusted.push(Cidr { address: ours, prefix: 32 });
    // Beyond the bound on hops the walk ends one earlier there than here.
    if hops < 30 {
        assert_eq!(forwarded::client_address(ours, &trusted, &fields), client);
        fields.remove(Known::XForwardedFor);
        if choice & 1 == 1 {
            assert_eq!(forwarded::client_address(ours, &trusted, &fields), client);
        }
    }
}

/// No text makes the reader of configurations panic or say nothing; what it accepts gives a working router, and reading it
/// again gives the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variable = |name: &str| (name == "SET").then(|| "127.0.0.1:1".to_owned());
    let loaded = match crate::config::parse("fuzz.toml", text, &variable) {
        Ok(loaded) => loaded,
        Err(report) => {
            assert!(!report.to_string().trim().is_empty());
            return;
        }
    };
    let again = crate::config::parse("fuzz.toml", text, &variable).expect("what was read once is read again");
    assert_eq!(again.config, loaded.config);
    let router = Router::new(&loaded.config.routes);
    for path in [&b"/"[..], b"/users/7", b"/a/b/c"] {
        if let Found::Route(index, params) = router.find(Method::Get, "a", path, &Fields::new()) {
            let route = &loaded.config.routes[index];
            let mut out = Vec::new();
            let rewritten = rewrite(&route.rewrite, &route.matches.path, &params, path, &mut out);
            assert!(!rewritten || out.first() == Some(&b'/'));
        }
    }
}
