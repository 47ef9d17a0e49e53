//! Heads to HTTP/1.1 bytes.
//!
//! Host and framing are arguments, not fields: there is one place that writes `Host`, `Content-Length` and
//! `Transfer-Encoding`, and it writes each once.

use super::parse::status_has_no_body;
use super::rules;
use super::{Body, Fields, Known, Method, ResponseBody};

/// Appends a request head. `fields` must be stripped of hop-by-hop fields already; `Host`, `Content-Length` and
/// `Transfer-Encoding` among them are replaced by `host` and `body`.
///
/// Bytes that cannot stand in a target are percent-encoded and those that cannot stand in a field are left out, so no
/// argument can start a new line; callers pass checked bytes, and for them nothing changes.
pub fn write_request_head(out: &mut Vec<u8>, method: Method, target: &[u8], host: &[u8], fields: &Fields, body: Body) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    write_target(out, target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend(host.iter().filter(|b| rules::is_value_byte(**b)));
    out.extend_from_slice(b"\r\n");
    write_fields(out, fields, |known| !is_framing(known) && known != Known::Host);
    match body {
        // RFC 9110 §8.6: where a body is expected, its absence is said; some servers answer 411 otherwise.
        Body::None if matches!(method, Method::Post | Method::Put | Method::Patch) => write_length(out, 0),
        Body::None => {}
        Body::Length(length) => write_length(out, length),
        Body::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head. `Content-Length` and `Transfer-Encoding` follow from `body`; with `ResponseBody::None` the
/// upstream's `Content-Length` is kept where it describes the body that a GET would have had (HEAD and 304).
pub fn write_response_head(out: &mut Vec<u8>, status: u16, fields: &Fields, body: ResponseBody) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let keeps_length = body == ResponseBody::None && (status == 304 || !status_has_no_body(status));
    write_fields(out, fields, |known| !is_framing(known) || (keeps_length && known == Known::ContentLength));
    match body {
        ResponseBody::None | ResponseBody::UntilClose => {}
        ResponseBody::Length(length) => write_length(out, length),
        ResponseBody::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn is_framing(known: Known) -> bool {
    matches!(known, Known::ContentLength | Known::TransferEncoding)
}

/// Appends the fields that `keep` admits, one line each, without the final empty line.
pub fn write_fields(out: &mut Vec<u8>, fields: &Fields, keep: impl Fn(Known) -> bool) {
    for (name, value, known) in fields.iter() {
        if keep(known) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_target(out: &mut Vec<u8>, target: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if rules::is_target(target) {
        out.extend_from_slice(target);
        return;
    }
    for byte in target {
        if rules::is_target_byte(*byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// The phrase of RFC 9110 §15 and the IANA registry; empty for codes without one, which the grammar allows.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        499 => "Client Closed Request",
        _ => http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or(""),
    }
}
