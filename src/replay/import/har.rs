//! HTTP Archive 1.2, as browsers save it: one user's requests, with everything, in any order.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use serde::Deserialize;

use super::{Found, instant, request_of};
use crate::replay::{Answer, Record, add_field, recording, status};

#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    started_date_time: String,
    /// Milliseconds, also below 0 where a browser does not know.
    #[serde(default)]
    time: f64,
    request: Request,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Header>,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct PostData {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Response {
    /// 0 for a request that got no answer, and -1 in some exports.
    status: i64,
    #[serde(default)]
    headers: Vec<Header>,
    content: Option<Content>,
}

/// Of the content coding it was freed; browsers leave it out when they have thrown it away.
#[derive(Deserialize)]
struct Content {
    text: Option<String>,
    encoding: Option<String>,
}

pub(super) fn parse(text: &str, found: &mut Found) -> Result<(), String> {
    // Some tools begin with a byte-order mark.
    let text = text.trim_start_matches('\u{feff}');
    let har: Har = serde_json::from_str(text).map_err(|error| format!("this is not a HAR file: {error}"))?;
    for (entry, number) in har.log.entries.into_iter().zip(1..) {
        let Some(at) = instant::rfc3339(&entry.started_date_time) else {
            found.leave_out("entries whose startedDateTime is no date", number);
            continue;
        };
        match record(&entry, at) {
            Ok((host, record)) => found.take(host, record),
            // `data:`, `blob:`, extensions of the browser.
            Err(_) => found.leave_out("entries that are not requests over HTTP", number),
        }
    }
    Ok(())
}

fn record(entry: &Entry, at: u64) -> Result<(Option<String>, Record), String> {
    let request = &entry.request;
    if !request.url.starts_with("http") {
        return Err("another scheme".to_owned());
    }
    // A fragment is never sent.
    let url = request.url.split('#').next().unwrap_or_default();
    let (host, mut record) = request_of(&request.method, url, at)?;
    request.headers.iter().try_for_each(|field| add_field(&mut record.headers, &field.name, &field.value))?;
    record.body = request.post_data.as_ref().map(|data| Bytes::from(data.text.clone())).unwrap_or_default();
    let answer = entry.response.as_ref().and_then(|response| u16::try_from(response.status).ok());
    record.status = answer.and_then(status);
    record.answer = entry.response.as_ref().filter(|_| record.status.is_some()).and_then(read_answer);
    record.duration = (entry.time > 0.0).then_some((entry.time * 1e6) as u64);
    Ok((host, record))
}

/// `None` when there is no body to compare with. Fields that nobody could send are left out.
fn read_answer(response: &Response) -> Option<Answer> {
    let content = response.content.as_ref()?;
    let text = content.text.as_ref()?;
    let body = match content.encoding.as_deref() {
        Some("base64") => recording::decode(text).ok()?,
        _ => Bytes::from(text.clone()),
    };
    let mut headers = HeaderMap::new();
    for field in &response.headers {
        let _ = add_field(&mut headers, &field.name, &field.value);
    }
    headers.remove(CONTENT_ENCODING);
    Some(Answer { headers, body, is_cut: false })
}
