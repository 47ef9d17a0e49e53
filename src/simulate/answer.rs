//! What a simulated upstream says: the body from its template, how fast it comes, and the requests that may ask for
//! something else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::settings::{final_status, parse_duration};
use super::workers::Held;

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

/// What a request asks for itself, with `?delay=250ms&status=503` or `x-forebay-delay: 250ms`. The query wins.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Control {
    pub delay: Option<Duration>,
    pub status: Option<StatusCode>,
}

impl Control {
    /// Reads query and headers; other parameters belong to the application and are left alone.
    pub fn parse(query: Option<&str>, headers: &HeaderMap) -> Result<Self, String> {
        let mut control = Self::default();
        for (header, parameter) in [("x-forebay-delay", "delay"), ("x-forebay-status", "status")] {
            if let Some(value) = headers.get(header) {
                control.set(parameter, value.to_str().map_err(|_| format!("{header} is not text"))?)?;
            }
        }
        for (name, value) in query.unwrap_or_default().split('&').filter_map(|part| part.split_once('=')) {
            control.set(name, value)?;
        }
        Ok(control)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "delay" => self.delay = Some(parse_duration(value)?.min(LONGEST_CONTROL_DELAY)),
            "status" => self.status = Some(final_status(value.parse().unwrap_or_default())?),
            _ => {}
        }
        Ok(())
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
    held: Option<Held>,
}

impl AnswerBody {
    pub fn new(mut bytes: Bytes, pace: Pace, held: Option<Held>) -> Self {
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
        Self { pieces, interval, timer: None, left, stalls: pace == Pace::StallMidway, held }
    }

    /// A body at once, filled up with spaces to `size` and a line break; a longer one stays as it is. The spaces are
    /// shared by all bodies, so that large ones cost no memory.
    pub fn padded(text: Bytes, size: usize, held: Option<Held>) -> Self {
        static SPACES: &[u8; 64 * 1024] = &[b' '; 64 * 1024];
        let mut body = Self::new(text, Pace::AtOnce, held);
        let mut missing = (size as u64).saturating_sub(body.left);
        body.left += missing;
        while missing > 1 {
            let piece = SPACES.len().min((missing - 1) as usize);
            body.pieces.push_back(Bytes::from_static(&SPACES[..piece]));
            missing -= piece as u64;
        }
        if missing == 1 {
            body.pieces.push_back(Bytes::from_static(b"\n"));
        }
        body
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
            self.held = None;
            return Poll::Ready(None);
        };
        self.left -= piece.len() as u64;
        if self.stalls {
            self.timer = Some(Box::pin(tokio::time::sleep(LONGEST_STALL)));
        } else if !self.pieces.is_empty() {
            if self.interval.is_zero() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            self.timer = Some(Box::pin(tokio::time::sleep(self.interval)));
        } else {
            self.held = None;
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
        let parse = |query| Control::parse(query, &HeaderMap::new());
        let control = parse(Some("x=1&delay=250ms&status=503")).expect("a valid query");
        assert_eq!(control.delay, Some(Duration::from_millis(250)));
        assert_eq!(control.status, Some(StatusCode::SERVICE_UNAVAILABLE));

        assert_eq!(parse(None), Ok(Control::default()));
        assert!(parse(Some("delay=250")).is_err());
        assert!(parse(Some("status=ok")).is_err());
        assert_eq!(parse(Some("delay=9000h")).unwrap().delay, Some(LONGEST_CONTROL_DELAY));
    }

    #[test]
    fn headers_ask_as_well_and_the_query_wins() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forebay-delay", "2s".parse().unwrap());
        headers.insert("x-forebay-status", "404".parse().unwrap());

        let control = Control::parse(Some("delay=1s"), &headers).expect("valid");

        assert_eq!(control.delay, Some(Duration::from_secs(1)));
        assert_eq!(control.status, Some(StatusCode::NOT_FOUND));
        headers.insert("x-forebay-delay", "soon".parse().unwrap());
        assert!(Control::parse(None, &headers).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_filled_up_with_spaces() {
        let body = AnswerBody::padded(Bytes::from_static(b"{}"), 200_000, None);
        assert_eq!(body.size_hint().exact(), Some(200_000));

        let collected = body.collect().await.expect("a whole body").to_bytes();

        assert!(collected.len() == 200_000 && collected.starts_with(b"{} ") && collected.ends_with(b" \n"));
        assert_eq!(AnswerBody::padded(Bytes::from_static(b"{}"), 1, None).size_hint().exact(), Some(2));
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
