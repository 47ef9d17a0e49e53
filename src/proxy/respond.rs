//! The one place where a reason becomes an answer: status, fields and a JSON body (`application/problem+json`, RFC 9457).

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use super::client::Client;
use super::prepare::{self, RequestId};
use super::sink::Sink;
use crate::limits::{RateFields, retry_after_seconds};
use crate::message::grpc;
use crate::message::head::{Fields, Known, Method, RequestHead, ResponseBody, ResponseHead, Version};
use crate::telemetry::Reason;

/// An end without an answer of the upstream's: what the client is told, and what the log says besides.
#[derive(Debug)]
pub struct Failure {
    pub reason: Reason,
    /// For the client: names what is wrong with the request, never an address. `None`: the reason's own sentence.
    pub public: Option<Cow<'static, str>>,
    /// For the log.
    pub detail: Option<Cow<'static, str>>,
    /// A status other than the reason's own (505, 417).
    pub status: Option<u16>,
    pub retry_after: Option<Duration>,
    pub rate_fields: Option<Box<RateFields>>,
    /// For 405: the methods that would be allowed.
    pub allow: Option<String>,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, public: None, detail: None, status: None, retry_after: None, rate_fields: None, allow: None }
    }
}

impl Failure {
    pub fn detailed(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..reason.into() }
    }

    /// A request that is refused for what it says.
    pub fn refused(reason: Reason, public: &'static str) -> Self {
        Self { public: Some(public.into()), detail: Some(public.into()), ..reason.into() }
    }

    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.reason.status())
    }
}

/// Sends the answer for `failure`; gives the status and the number of body bytes that were sent.
pub async fn send_failure(
    client: &mut Client<'_>,
    request: Option<&RequestHead>,
    request_id: Option<&RequestId>,
    failure: &Failure,
) -> io::Result<(u16, u64)> {
    let mut head = ResponseHead::default();
    head.status = failure.status();
    push_common(&mut head, request_id, failure);
    // gRPC is spoken over HTTP/2 only: over HTTP/1 this answer would have no end.
    if request.is_some_and(|request| request.version == Version::Http2 && prepare::is_grpc(&request.fields)) {
        // A gRPC client looks for the status in the trailers of a 200, here those of a body-less answer.
        head.status = 200;
        head.fields.set_known(Known::ContentType, b"application/grpc");
        let status = itoa::Buffer::new().format(grpc::status(failure.reason)).to_owned();
        head.fields.push_known(Known::GrpcStatus, status.as_bytes());
        head.fields.push_with(Known::GrpcMessage, |out| {
            grpc::write_message(out, failure.public.as_deref().unwrap_or(failure.reason.title()));
        });
        client.begin(&mut head, ResponseBody::None)?.flush().await?;
        return Ok((200, 0));
    }
    head.fields.set_known(Known::ContentType, b"application/problem+json");
    let body = problem(failure, request_id);
    send(client, request, &mut head, body.as_bytes()).await
}

/// Sends an answer whose whole body is at hand.
async fn send(
    client: &mut Client<'_>,
    request: Option<&RequestHead>,
    head: &mut ResponseHead,
    body: &[u8],
) -> io::Result<(u16, u64)> {
    let status = head.status;
    let (mut sink, rest) = begin(client, request, head, body)?;
    let (mut rest, sent) = (rest, rest.len() as u64);
    while !rest.is_empty() {
        let n = std::future::poll_fn(|cx| sink.poll_write(cx, rest)).await?;
        rest = &rest[n..];
    }
    sink.finish(None)?;
    sink.flush().await?;
    Ok((status, sent))
}

/// Begins an answer whose whole body is at hand; gives what of the body is to be sent.
pub fn begin<'s, 'b>(
    client: &'s mut Client<'_>,
    request: Option<&RequestHead>,
    head: &mut ResponseHead,
    body: &'b [u8],
) -> io::Result<(Sink<'s>, &'b [u8])> {
    if matches!(head.status, 204 | 304) {
        return Ok((client.begin(head, ResponseBody::None)?, b""));
    }
    if head.status == 205 {
        // It has an end to be told, and no content (RFC 9110 §15.3.6).
        return Ok((client.begin(head, ResponseBody::Length(0))?, b""));
    }
    if request.is_some_and(|request| request.method == Method::Head) {
        head.fields.set_known(Known::ContentLength, itoa::Buffer::new().format(body.len()).as_bytes());
        return Ok((client.begin(head, ResponseBody::None)?, b""));
    }
    Ok((client.begin(head, ResponseBody::Length(body.len() as u64))?, body))
}

/// Of an answer that we make ourselves (RFC 9110 §6.6.1).
pub fn push_date(fields: &mut Fields) {
    fields.push_known(Known::Date, httpdate::fmt_http_date(std::time::SystemTime::now()).as_bytes());
}

fn push_common(head: &mut ResponseHead, request_id: Option<&RequestId>, failure: &Failure) {
    let fields = &mut head.fields;
    fields.push_known(Known::ForebayReason, failure.reason.code().as_bytes());
    fields.push_known(Known::CacheControl, b"no-store");
    push_date(fields);
    if let Some(id) = request_id {
        fields.push_known(Known::XRequestId, id.as_bytes());
    }
    if let Some(wait) = failure.retry_after {
        fields.push_known(Known::RetryAfter, itoa::Buffer::new().format(retry_after_seconds(wait)).as_bytes());
    }
    if let Some(rate) = &failure.rate_fields {
        fields.push(b"ratelimit-policy", rate.policy.as_bytes());
        fields.push(b"ratelimit", rate.rate_limit.as_bytes());
    }
    if let Some(allow) = &failure.allow {
        fields.push(b"allow", allow.as_bytes());
    }
}

/// The problem types that IANA has registered; everything else is told apart by `reason`.
fn problem_type(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimited | Reason::DelayQueueFull => {
            "https://iana.org/assignments/http-problem-types#quota-exceeded"
        }
        Reason::QueueFull | Reason::QueueTimeout | Reason::TooManyConnections => {
            "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
        }
        _ => "about:blank",
    }
}

fn problem(failure: &Failure, request_id: Option<&RequestId>) -> String {
    let reason = failure.reason;
    let mut body = serde_json::json!({
        "type": problem_type(reason),
        "title": reason.title(),
        "status": failure.status(),
        "reason": reason.code(),
    });
    if let Some(public) = &failure.public {
        body["detail"] = public.as_ref().into();
    }
    if let Some(id) = request_id {
        body["request_id"] = id.as_str().into();
    }
    let mut text = body.to_string();
    text.push('\n');
    text
}
