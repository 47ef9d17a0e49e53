//! The views through the admin listener, in every form, and their streams.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::views::Name;
use super::{MAX_STREAMS, assets, sample};
use crate::admin::tests::{Bench, bench, serve};
use crate::admin::{Ends, MAX_VIEWS};
use crate::telemetry::Reason;
use crate::telemetry::test_support::record;

/// Of a route with a name of the configuration's kind, five requests of which two failed.
fn busy() -> Bench {
    let bench = bench(None);
    let telemetry = &bench.admin.telemetry;
    let mut record = record(telemetry, "slow");
    sample::take(&bench.admin);
    (0..3).for_each(|_| telemetry.finish(&record));
    record.reason = Reason::FirstByteTimeout;
    record.status = 504;
    record.target = "/evil/<script>alert(1)</script>?token=hunter2";
    telemetry.finish(&record);
    record.reason = Reason::QueueFull;
    telemetry.finish(&record);
    sample::take(&bench.admin);
    bench
}

#[tokio::test]
async fn a_view_is_rendered_once_for_all_who_watch_it() {
    let bench = busy();
    let get =
        |name, route: Option<&str>| bench.admin.page.rendered.get(&bench.admin, &(name, route.map(str::to_owned)));

    let first = get(Name::Overview, None);
    let one_route = get(Name::Latency, Some("slow"));
    assert!(Arc::ptr_eq(&first, &get(Name::Overview, None)));
    assert!(Arc::ptr_eq(&one_route, &get(Name::Latency, Some("slow"))));
    assert!(!Arc::ptr_eq(&one_route, &get(Name::Latency, None)));

    sample::take(&bench.admin);
    assert!(!Arc::ptr_eq(&first, &get(Name::Overview, None)), "it shows the newest reading");
    assert_eq!(Arc::strong_count(&one_route), 1, "nobody has asked for it since");
}

#[tokio::test]
async fn each_view_has_three_forms_and_none_shows_markup_or_queries() {
    let bench = busy();
    for name in Name::ALL {
        for (format, expected) in [("html", "text/html"), ("json", "application/json"), ("text", "text/plain")] {
            let path = format!("/{}?format={format}", name.as_str());
            let (status, content_type, body) = bench.get(&path).await;

            assert_eq!(status, StatusCode::OK, "{path}");
            assert!(content_type.starts_with(expected), "{path}: {content_type}");
            assert!(!body.contains("hunter2"), "{path}: {body}");
            match format {
                "html" => assert!(!body.contains("<script>"), "{path}: {body}"),
                "json" => assert!(serde_json::from_str::<Value>(&body).unwrap()["state"]["ready"] == true, "{body}"),
                _ => assert!(body.starts_with("Forebay "), "{body}"),
            }
        }
    }
    let (status, _, body) = bench.get("/overview?format=xml").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("?format=json"), "{body}");
}

#[tokio::test]
async fn the_overview_has_the_numbers_of_the_metrics() {
    let bench = busy();

    let (_, _, body) = bench.get("/overview?format=json").await;

    let shown: Value = serde_json::from_str(&body).unwrap();
    let slow = shown["routes"].as_array().unwrap().iter().find(|route| route["name"] == "slow").unwrap();
    assert_eq!((&slow["total"], &slow["failed"], &slow["window"]["ended"]), (&5.into(), &2.into(), &5.into()));
    assert!((1250.0 / 1.091..1250.0 * 1.091).contains(&slow["window"]["p99_ms"].as_f64().unwrap()), "{slow}");
    let metrics = bench.get("/metrics").await.2;
    assert!(metrics.contains("forebay_requests_total{route=\"slow\",reason=\"queue_full\"} 1"), "{metrics}");
}

#[tokio::test]
async fn requests_are_shown_with_where_their_time_went() {
    let bench = busy();

    let (_, _, text) = bench.get("/requests?route=slow").await;
    let (_, _, html) = bench.ask(http::Method::GET, "/requests", &[("accept", "text/html")]).await;
    let (_, _, none) = bench.get("/requests?route=other").await;

    assert!(text.contains("queue 1.50 ms, first byte 1.20 s, body 48.0 ms"), "{text}");
    assert!(text.contains("first_byte_timeout !!"), "{text}");
    assert!(html.contains("GET /evil/&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
    assert!(html.contains("<rect class=\"first_byte\""), "{html}");
    assert!(!none.contains("/users/7"), "{none}");
}

#[tokio::test]
async fn faults_on_purpose_are_said_above_everything() {
    let bench = busy();
    let faults = bench.admin.telemetry.faults("slow");
    let hour = std::time::Duration::from_secs(3600);
    faults.set_ends(vec![tokio::time::Instant::now() + hour]);
    faults.begin(true, None, false);
    sample::take(&bench.admin);

    let text = bench.get("/limits").await.2;
    let shown: Value = serde_json::from_str(&bench.get("/overview?format=json").await.2).unwrap();

    assert!(text.contains("! Faults on purpose on route slow: 1 armed, 1 requests meet one now."), "{text}");
    assert_eq!((&shown["faults"][0]["delayed"], &shown["faults"][0]["active"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn terminals_get_the_list_of_pages_and_browsers_the_overview() {
    let bench = busy();

    assert!(bench.get("/").await.2.starts_with("Forebay\n"));
    let (_, content_type, page) = bench.ask(http::Method::GET, "/", &[("accept", "text/html,*/*")]).await;

    assert!(content_type.starts_with("text/html"), "{content_type}");
    assert!(page.contains("<tr data-key=\"slow\">"), "{page}");
}

#[tokio::test]
async fn the_page_is_small_and_names_no_other_origin() {
    let bench = busy();
    let mut all = GzEncoder::new(Vec::new(), Compression::default());
    for name in Name::ALL {
        let page = bench.get(&format!("/{}?format=html", name.as_str())).await.2;
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("style="), "{page}");
        all.write_all(page.as_bytes()).unwrap();
    }
    for (path, content_type, content) in assets::ALL {
        let (status, sent, body) = bench.get(path).await;
        assert_eq!((status, sent.as_str(), body.as_str()), (StatusCode::OK, content_type, content), "{path}");
        all.write_all(content.as_bytes()).unwrap();
    }

    let compressed = all.finish().unwrap().len();

    assert!(compressed < 60 << 10, "{compressed} bytes compressed");
}

#[tokio::test]
async fn browsers_are_told_to_load_nothing_else() {
    let bench = bench(None);
    let request = http::Request::get("/?format=html").body(http_body_util::Empty::<Bytes>::new()).unwrap();

    let answer = crate::admin::pages::answer(&bench.admin, request, Ends::default()).await;

    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}

async fn open(bench: &Bench, closing: &CancellationToken) -> http::Response<crate::admin::body::Body> {
    let request = http::Request::get("/events?view=overview").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let ends = Ends { closing: closing.clone(), ..Ends::default() };
    crate::admin::pages::answer(&bench.admin, request, ends).await
}

#[tokio::test]
async fn a_stream_tells_what_changed_at_each_reading_and_ends_with_its_connection() {
    let (bench, closing) = (busy(), CancellationToken::new());
    let mut stream = open(&bench, &closing).await.into_body();
    let mut next = async || stream.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
    assert_eq!(next().await.unwrap(), "retry: 1000\n\n");

    sample::take(&bench.admin);
    let first = next().await.unwrap();
    bench.admin.telemetry.finish(&record(&bench.admin.telemetry, "slow"));
    sample::take(&bench.admin);
    let second = next().await.unwrap();
    closing.cancel();

    assert_eq!(next().await, None);
    let data = |event: &Bytes| -> Value { serde_json::from_slice(event.strip_prefix(b"data: ").unwrap()).unwrap() };
    assert!(data(&first)["state"]["html"].as_str().unwrap().contains("Forebay"));
    assert!(data(&second)["routes"]["rows"]["slow"].as_str().unwrap().contains("<td>6</td>"), "{second:?}");
    assert!(data(&second)["routes"]["rows"].get("_unmatched").is_none_or(|row| row.as_str().unwrap().contains("svg")));
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let (bench, closing) = (busy(), CancellationToken::new());
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(open(&bench, &closing).await);
    }

    let refused = open(&bench, &closing).await;
    assert_eq!((refused.status(), bench.admin.page.viewers()), (StatusCode::SERVICE_UNAVAILABLE, MAX_STREAMS));

    streams.pop();
    assert_eq!(open(&bench, &closing).await.status(), StatusCode::OK);
    drop(streams);
    assert_eq!(bench.admin.page.viewers(), 0);
}

#[tokio::test]
async fn a_stream_ends_when_its_client_leaves() {
    let bench = busy();
    let served = serve(&bench);
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(b"GET /events?view=requests HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: ") {
        assert!(client.read_buf(&mut seen).await.unwrap() > 0, "{seen:?}");
    }
    assert_eq!(bench.admin.page.viewers(), 1);

    drop(client);

    let gone = async {
        while bench.admin.page.viewers() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("the stream ends");
    served.stop.cancel();
    assert!(served.tasks.wait_idle(std::time::Duration::from_secs(10)).await, "the reader ends with the listener");
}

#[tokio::test]
async fn requests_without_an_id_that_ended_together_have_rows_of_their_own() {
    let bench = busy();
    let mut record = record(&bench.admin.telemetry, "unread");
    (record.request_id, record.method, record.target) = ("", "", "");
    sample::take(&bench.admin);
    let at = std::time::SystemTime::now();
    (0..3).for_each(|_| bench.admin.telemetry.finish_at(&record, at));

    let html = bench.get("/requests?route=unread&format=html").await.2;
    let text = bench.get("/requests?route=unread").await.2;

    let slowest = html.split("<tbody id=\"slowest\">").nth(1).and_then(|rest| rest.split("</tbody>").next()).unwrap();
    let keys: Vec<&str> = slowest.split("data-key=\"").skip(1).map(|row| row.split('"').next().unwrap()).collect();
    let different: std::collections::BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!((keys.len(), different.len()), (3, 3), "{keys:?}");
    assert!(text.contains("(unreadable)") && !text.contains("id \n"), "{text}");
}

#[tokio::test]
async fn no_control_character_of_the_query_comes_back_in_text() {
    let text = busy().get("/requests?route=%1b%5b31m%c2%9b%e2%80%ae").await.2;

    assert!(text.contains("\u{fffd}[31m\u{fffd}\u{fffd}"), "{text:?}");
    assert!(text.chars().all(|char| char == '\n' || !(char.is_control() || char == '\u{202e}')), "{text:?}");
}

#[tokio::test]
async fn a_view_that_nobody_waits_for_counts_until_it_is_made() {
    let bench = busy();
    let held = bench.admin.page.history();
    let mut asked = Box::pin(bench.get("/overview"));
    assert!((&mut asked).now_or_never().is_none(), "it waits for the numbers");

    drop(asked);

    let places = bench.admin.views.available_permits();
    drop(held);
    assert_eq!(places, MAX_VIEWS - 1);
    let all = bench.admin.views.acquire_many(MAX_VIEWS as u32);
    let all = tokio::time::timeout(std::time::Duration::from_secs(10), all).await;
    drop(all.expect("its place is given back").unwrap());
}

#[tokio::test]
async fn a_route_that_there_is_not_is_said() {
    let bench = busy();
    for view in ["latency", "requests"] {
        let unknown = bench.get(&format!("/{view}?route=slwo")).await.2;
        let known = bench.get(&format!("/{view}?route=slow")).await.2;

        assert!(unknown.contains("! No route is named slwo: /overview lists them."), "{unknown}");
        assert!(!known.contains("No route is named"), "{known}");
    }
}
