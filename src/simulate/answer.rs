//! What a simulated upstream says: the body from its template, how fast it comes, and the requests that may ask for
//! something else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::settings::{final_status, parse_duration};
use super::workers::Service;

/// The longest delay that a request may ask for.
const LONGEST_CONTROL_DELAY: Duration = Duration::from_secs(3600);
/// A stall ends with the connection; this bound is for clients that never leave.
const LONGEST_STALL: Duration = Duration::from_secs(3600);

/// Replaces `{path}`, `{last}`, `{n}` and `{upstream}`; every other brace stays, so a template may be JSON.
pub fn fill_template(template: &str, upstream: &str, path: &str, n: u64) -> String {
    let last = path.rsplit('/').next().unwrap_or_default();
    let number = n.to_string();
    let values = [("{path}", path), ("{last}", last), ("{n}", number.as_str()), ("{upstream}", upstream)];
    let mut out = String::with_capacity(template.len() + path.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let (name, value) = values.into_iter().find(|(name, _)| rest.starts_with(name)).unwrap_or(("{", "{"));
        out.push_str(value);
        rest = &rest[name.len()..];
    }
    out.push_str(rest);
    out
}

/// `text` as the inside of a JSON string: a path may hold a quote.
pub fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// What a request asks for itself with `?delay=250ms&status=503`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Control {
    pub delay: Option<Duration>,
    pub status: Option<StatusCode>,
}

impl Control {
    /// Reads a query; other parameters belong to the application and are left alone.
    pub fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut control = Self::default();
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|part| part.split_once('=')) {
            match name {
                "delay" => control.delay = Some(parse_duration(value)?.min(LONGEST_CONTROL_DELAY)),
                "status" => control.status = Some(final_status(value.parse().unwrap_or_default())?),
                _ => {}
            }
        }
        Ok(control)
    }
}

/// How the bytes of a body come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    AtOnce,
    Drip {
        bytes: usize,
        interval: Duration,
    },
    /// Half of the body, then nothing more.
    StallMidway,
}

/// A body, which keeps its worker busy until its last byte has been taken or the client is gone.
#[derive(Debug)]
pub struct AnswerBody {
    pieces: VecDeque<Bytes>,
    /// Before each piece but the first.
    interval: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes still to come, the ones that a stall holds back included.
    left: u64,
    stalls: bool,
    service: Option<Service>,
}

impl AnswerBody {
    pub fn new(mut bytes: Bytes, pace: Pace, service: Option<Service>) -> Self {
        let left = bytes.len() as u64;
        let mut pieces = VecDeque::new();
        let mut interval = Duration::ZERO;
        match pace {
            Pace::AtOnce => pieces.push_back(bytes),
            Pace::StallMidway => pieces.push_back(bytes.split_to(bytes.len() / 2)),
            Pace::Drip { bytes: size, interval: pause } => {
                interval = pause;
                while !bytes.is_empty() {
                    pieces.push_back(bytes.split_to(size.clamp(1, bytes.len())));
                }
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        Self { pieces, interval, timer: None, left, stalls: pace == Pace::StallMidway, service }
    }

    /// Waits until the time of the next piece.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
        Poll::Ready(())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Stalled;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Stalled>>> {
        ready!(self.poll_timer(cx));
        let Some(piece) = self.pieces.pop_front() else {
            if self.stalls {
                // The bytes before the stall are out, and the longest stall has passed.
                return Poll::Ready(Some(Err(Stalled)));
            }
            self.service = None;
            return Poll::Ready(None);
        };
        self.left -= piece.len() as u64;
        if self.stalls {
            self.timer = Some(Box::pin(tokio::time::sleep(LONGEST_STALL)));
        } else if !self.pieces.is_empty() {
            self.timer = Some(Box::pin(tokio::time::sleep(self.interval)));
        } else {
            self.service = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The client has outwaited even the longest stall.
#[derive(Debug)]
pub struct Stalled;

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulated stall is over")
    }
}

impl std::error::Error for Stalled {}

/// Holds a request that gets no answer.
pub async fn stall() {
    tokio::time::sleep(LONGEST_STALL).await;
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_template_may_be_json() {
        let filled = fill_template(r#"{"up": "{upstream}", "at": "{path}", "n": {n}, "{x": {}}"#, "a", "/users", 7);

        assert_eq!(filled, r#"{"up": "a", "at": "/users", "n": 7, "{x": {}}"#);
    }

    #[test]
    fn the_last_segment_of_a_path_has_a_name() {
        assert_eq!(fill_template(r#"{"id": {last}}"#, "users", "/users/7", 0), r#"{"id": 7}"#);
        assert_eq!(fill_template("<{last}>", "users", "/", 0), "<>");
    }

    #[test]
    fn a_replaced_value_is_not_searched_again() {
        assert_eq!(fill_template("{path}", "a", "/{n}", 7), "/{n}");
    }

    #[test]
    fn a_path_with_quotes_stays_inside_its_json_string() {
        assert_eq!(json_escaped("/a\"b\\c"), "/a\\\"b\\\\c");
    }

    #[test]
    fn a_request_asks_for_delay_and_status() {
        let control = Control::parse(Some("x=1&delay=250ms&status=503")).expect("a valid query");
        assert_eq!(control.delay, Some(Duration::from_millis(250)));
        assert_eq!(control.status, Some(StatusCode::SERVICE_UNAVAILABLE));

        assert_eq!(Control::parse(None), Ok(Control::default()));
        assert!(Control::parse(Some("delay=250")).is_err());
        assert!(Control::parse(Some("status=ok")).is_err());
        assert_eq!(Control::parse(Some("delay=9000h")).unwrap().delay, Some(LONGEST_CONTROL_DELAY));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripped_body_takes_one_interval_between_pieces() {
        let started = Instant::now();
        let pace = Pace::Drip { bytes: 2, interval: Duration::from_secs(1) };

        let body = AnswerBody::new(Bytes::from_static(b"abcde"), pace, None);
        let collected = body.collect().await.expect("a whole body").to_bytes();

        assert_eq!(collected, "abcde");
        assert_eq!(started.elapsed().as_secs(), 2, "three pieces, two pauses");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalling_body_announces_what_it_never_sends() {
        let mut body = AnswerBody::new(Bytes::from_static(b"abcd"), Pace::StallMidway, None);
        assert_eq!(body.size_hint().exact(), Some(4));

        let first = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!(first, "ab");
        let next = tokio::time::timeout(Duration::from_secs(60), body.frame()).await;
        assert!(next.is_err(), "nothing more comes");
    }
}
