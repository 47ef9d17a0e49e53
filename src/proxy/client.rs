//! The client's side of one exchange: where the answer's head is written, and how its body is framed there.

use std::io;
use std::sync::PoisonError;

use super::body::SharedRespond;
use super::io::Io;
use super::sink::{Framing, Http1Sink, Http2Sink, Sink};
use crate::message::head::http2::to_http_response_parts;
use crate::message::head::{Known, ResponseBody, ResponseHead, Version, write_response_head};
use crate::tap::Tap;

/// Who is answered.
pub enum Client<'c> {
    Http1(Http1Client<'c>),
    Http2(SharedRespond),
    /// We ourselves, for a part of an aggregate: the body goes here, the head stays where it was read.
    Memory(&'c mut Vec<u8>),
    /// Nobody: the body is read to its end, and copied as far as the tap takes it.
    Copy(&'c Tap),
}

pub struct Http1Client<'c> {
    pub io: &'c Io,
    /// Bytes of the answer that were not written yet.
    pub out: &'c mut Vec<u8>,
    pub version: Version,
    /// Whether the connection can serve another request after this one. Goes to false when an answer can only be ended
    /// by closing, or when the request's body was not read to its end.
    pub keep_alive: bool,
}

impl<'c> Client<'c> {
    /// Takes the answer's head and gives the sink for its body. The head leaves with the first flush, together with
    /// what there is of the body by then.
    pub fn begin(&mut self, head: &mut ResponseHead, body: ResponseBody) -> io::Result<Sink<'_>> {
        match self {
            Client::Http1(client) => Ok(Sink::Http1(client.begin(head, body))),
            Client::Http2(respond) => {
                let ends = matches!(body, ResponseBody::None | ResponseBody::Length(0));
                let parts = to_http_response_parts(head.status, &head.fields, body);
                let response = http::Response::from_parts(parts, ());
                let mut respond = respond.lock().unwrap_or_else(PoisonError::into_inner);
                let stream = respond.send_response(response, ends).map_err(io::Error::other)?;
                Ok(Sink::Http2(Http2Sink::new(stream, ends)))
            }
            Client::Copy(tap) => Ok(Sink::Copy(tap)),
            Client::Memory(kept) => {
                if let ResponseBody::Length(length) = body {
                    // The length was compared with the limit when the head arrived.
                    kept.reserve_exact(usize::try_from(length).unwrap_or_default());
                }
                Ok(Sink::Memory(kept))
            }
        }
    }

    /// Where a `100 Continue` can be written while the answer itself has not begun.
    pub fn interim(&self) -> Interim<'c> {
        match self {
            Client::Http1(client) => Interim::Http1(client.io),
            Client::Http2(respond) => Interim::Http2(respond.clone()),
            Client::Memory(_) | Client::Copy(_) => Interim::Nobody,
        }
    }

    pub fn close_after(&mut self) {
        if let Client::Http1(client) = self {
            client.keep_alive = false;
        }
    }

    pub fn keeps_alive(&self) -> bool {
        match self {
            Client::Http1(client) => client.keep_alive,
            Client::Http2(_) | Client::Memory(_) | Client::Copy(_) => true,
        }
    }
}

/// Says to a client that waits with its body (`Expect: 100-continue`) that somebody will read it.
pub enum Interim<'c> {
    Http1(&'c Io),
    Http2(SharedRespond),
    Nobody,
}

impl Interim<'_> {
    /// A failure shows in the next read or write, so that there is nothing to report here.
    pub async fn send(self) {
        match self {
            Interim::Http1(io) => {
                let _ = io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            Interim::Http2(respond) => {
                let (mut parts, ()) = http::Response::new(()).into_parts();
                parts.status = http::StatusCode::CONTINUE;
                let mut respond = respond.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = respond.send_informational(http::Response::from_parts(parts, ()));
            }
            Interim::Nobody => {}
        }
    }
}

impl Http1Client<'_> {
    fn begin(&mut self, head: &mut ResponseHead, body: ResponseBody) -> Http1Sink<'_> {
        let (body, framing) = match body {
            ResponseBody::Chunked | ResponseBody::UntilClose if self.version == Version::Http10 => {
                self.keep_alive = false;
                (ResponseBody::UntilClose, Framing::UntilClose)
            }
            ResponseBody::Chunked | ResponseBody::UntilClose => (ResponseBody::Chunked, Framing::Chunked),
            ResponseBody::None | ResponseBody::Length(_) => (body, Framing::Length),
        };
        match (self.keep_alive, self.version) {
            // The connection is no longer one of HTTP: `Connection: upgrade` stands there already.
            _ if head.status == 101 => {}
            (false, _) => head.fields.set_known(Known::Connection, b"close"),
            (true, Version::Http10) => head.fields.set_known(Known::Connection, b"keep-alive"),
            _ => {}
        }
        write_response_head(self.out, head.status, &head.fields, body);
        Http1Sink::new(self.io, self.out, framing)
    }
}
