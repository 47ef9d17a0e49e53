//! Parts as they complete, for clients that ask for NDJSON or for events.

use tokio::io::AsyncReadExt;

use super::upstream::{Gate, Reply, Upstream};
use super::{at_rest, forebay};
use crate::support::forebay::Forebay;
use crate::support::http::Connection;
use crate::support::{PATIENCE, eventually};

const THREE: &str = r#"
    [route.three]
    path = "/three"
    deadline = "30s"
    [route.three.aggregate.source]
    a = { upstream = "app", path = "/a" }
    b = { upstream = "app", path = "/b" }
    c = { upstream = "app", path = "/c" }
"#;

/// Three sources, and a gate for each. `b` has bad news.
async fn three() -> (Upstream, [Gate; 3]) {
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let [a, b, c] = gates.clone();
    let app = Upstream::start(move |request| match request.split(' ').nth(1) {
        Some("/a") => Reply::json("{\n\"n\": 1}").when(&a),
        Some("/b") => Reply::with(500, "", "").when(&b),
        _ => Reply::json("3").when(&c),
    })
    .await;
    (app, gates)
}

async fn ask(forebay: &Forebay, accept: &str) -> Connection {
    let mut client = Connection::open(forebay.address()).await.expect("a connection");
    let request = format!("GET /three HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    client.send(request).await.expect("the request is sent");
    client
}

/// Reads on until this text has come.
async fn read_until(client: &mut Connection, read: &mut String, text: &str) {
    while !read.contains(text) {
        let mut piece = [0; 4096];
        let n = tokio::time::timeout(PATIENCE, client.stream.read(&mut piece)).await.expect("in time").expect("bytes");
        assert_ne!(n, 0, "it ended without {text:?} after {read:?}");
        read.push_str(std::str::from_utf8(&piece[..n]).expect("UTF-8"));
    }
}

/// The content of a chunked message.
fn dechunked(message: &str) -> String {
    let (_, mut rest) = message.split_once("\r\n\r\n").expect("a head");
    let mut content = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a chunk");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return content;
        }
        content.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
}

#[tokio::test]
async fn lines_come_in_the_order_of_completion_and_the_summary_last() {
    let (app, [a, b, c]) = three().await;
    let forebay = forebay(app.address, THREE).await;
    let mut client = ask(&forebay, "application/x-ndjson").await;
    let mut read = String::new();

    // The head does not wait for a source, and no part for another one.
    read_until(&mut client, &mut read, "\r\n\r\n").await;
    c.open();
    read_until(&mut client, &mut read, "\"source\":\"c\"").await;
    a.open();
    read_until(&mut client, &mut read, "\"source\":\"a\"").await;
    b.open();
    read_until(&mut client, &mut read, "\r\n0\r\n\r\n").await;

    let head = read.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 ") && head.contains("\r\ncontent-type: application/x-ndjson\r\n"), "{read}");
    let content = dechunked(&read);
    let lines: Vec<serde_json::Value> = content
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let [third, first, second, summary] = &lines[..] else { panic!("{content}") };
    assert_eq!((&third["source"], &third["outcome"], &third["value"]), (&"c".into(), &"ok".into(), &3.into()));
    assert_eq!((&first["source"], &first["status"], &first["value"]["n"]), (&"a".into(), &200.into(), &1.into()));
    assert_eq!((&second["outcome"], &second["reason"]), (&"failed".into(), &"upstream_5xx".into()));
    assert_eq!(second["value"]["error"], "Failed to fetch b: The upstream answered with a server error");
    let summary = &summary["summary"];
    assert_eq!((&summary["status"], &summary["reason"]), (&200.into(), &"partial".into()));
    assert_eq!(summary["completeness"], "2/3");
    assert_eq!(summary["sources"]["b"]["reason"], "upstream_5xx");
    let line = &forebay.access_log_of(1).await[0];
    assert_eq!((&line["reason"], &line["bytes_out"]), (&"partial".into(), &content.len().into()), "{line}");
    assert_eq!((&line["completeness"], &line["attempts"]), (&"2/3".into(), &3.into()), "{line}");
    at_rest(&forebay).await;
}

#[tokio::test]
async fn events_come_in_the_order_of_completion_and_the_summary_last() {
    let (app, [a, b, c]) = three().await;
    let forebay = forebay(app.address, THREE).await;
    let mut client = ask(&forebay, "text/event-stream").await;
    let mut read = String::new();

    b.open();
    read_until(&mut client, &mut read, "\"source\":\"b\"").await;
    c.open();
    read_until(&mut client, &mut read, "\"source\":\"c\"").await;
    a.open();
    read_until(&mut client, &mut read, "\r\n0\r\n\r\n").await;

    assert!(read.to_ascii_lowercase().contains("\r\ncontent-type: text/event-stream\r\n"), "{read}");
    let content = dechunked(&read);
    let events: Vec<(&str, &str)> = content
        .split_terminator("\n\n")
        .map(|event| {
            let (kind, data) = event.split_once('\n').expect("two lines");
            (kind.strip_prefix("event: ").expect("a kind"), data.strip_prefix("data: ").expect("data"))
        })
        .collect();
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["part", "part", "part", "summary"]);
    let json = |index: usize| serde_json::from_str::<serde_json::Value>(events[index].1).expect("one line of JSON");
    let sources: Vec<_> = (0..3).map(|index| json(index)["source"].clone()).collect();
    assert_eq!(sources, ["b", "c", "a"]);
    assert_eq!(json(3)["summary"]["completeness"], "2/3");
}

#[tokio::test]
async fn who_asks_for_anything_gets_the_whole_answer() {
    let (app, gates) = three().await;
    let forebay = forebay(app.address, THREE).await;
    gates.iter().for_each(Gate::open);

    for accept in ["*/*", "application/json", "text/event-stream;q=0"] {
        let response = ask(&forebay, accept).await.response().await.expect("an answer");
        assert_eq!(response.header("content-type"), Some("application/json"), "{accept}");
        assert_eq!(response.json()["c"], 3);
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_the_rest() {
    let (app, [a, ..]) = three().await;
    let forebay = forebay(app.address, &THREE.replace("deadline", "on_client_gone = \"cancel\"\ndeadline")).await;
    let mut client = ask(&forebay, "text/event-stream").await;
    let mut read = String::new();
    a.open();
    read_until(&mut client, &mut read, "\"source\":\"a\"").await;

    drop(client);

    app.until("the other two are cancelled", |seen| seen.abandoned == 2).await;
    let line = &forebay.access_log_of(1).await[0];
    assert_eq!(line["reason"], "client_gone", "{line}");
    eventually("nothing is in flight", async || {
        (forebay.scrape().await.sum("forebay_upstream_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_that_finishes_cancels_nothing() {
    let (app, [a, b, c]) = three().await;
    let forebay = forebay(app.address, &THREE.replace("deadline", "on_client_gone = \"finish\"\ndeadline")).await;
    let mut client = ask(&forebay, "application/x-ndjson").await;
    let mut read = String::new();
    a.open();
    read_until(&mut client, &mut read, "\"source\":\"a\"").await;

    drop(client);
    eventually("the work is counted as detached", async || {
        (forebay.scrape().await.sum("forebay_detached_tasks", &[]) == 1.0).then_some(())
    })
    .await;
    b.open();
    c.open();

    app.until("all three are answered", |seen| seen.answered == 3).await;
    let line = &forebay.access_log_of(1).await[0];
    assert_eq!(line["reason"], "client_gone", "{line}");
    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.sum("forebay_detached_tasks_ended_total", &[("result", "finished")]), 1.0);
}

/// HTTP/1.0 has no chunks: the end of the connection is the end of the stream.
#[tokio::test]
async fn an_http10_client_gets_the_parts_until_the_connection_ends() {
    let (app, gates) = three().await;
    let forebay = forebay(app.address, THREE).await;
    gates.iter().for_each(Gate::open);

    let mut client = Connection::open(forebay.address()).await.unwrap();
    client.send("GET /three HTTP/1.0\r\nhost: x\r\naccept: application/x-ndjson\r\n\r\n").await.unwrap();
    let response = client.response().await.expect("an answer");

    assert_eq!(response.header("transfer-encoding"), None);
    let text = response.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[3].starts_with(r#"{"summary":"#), "{text}");
}

/// The head of the whole answer, and no body: nothing is streamed to HEAD.
#[tokio::test]
async fn head_gets_the_fields_of_the_whole_answer() {
    let (app, gates) = three().await;
    let forebay = forebay(app.address, THREE).await;
    gates.iter().for_each(Gate::open);

    let mut client = Connection::open(forebay.address()).await.unwrap();
    for _ in 0..2 {
        client.send("HEAD /three HTTP/1.1\r\nhost: x\r\naccept: application/x-ndjson\r\n\r\n").await.unwrap();
        let response = client.response_to("HEAD").await.expect("an answer");
        assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
        assert_eq!(response.header("x-forebay-completeness"), Some("2/3"));
        assert!(response.header("content-length").is_some(), "{response:?}");
    }
}

/// Parts wait in memory for a client that does not read them, so he has only the listener's time for it.
#[tokio::test]
async fn a_client_that_does_not_read_is_given_up_and_the_rest_cancelled() {
    let large = format!("\"{}\"", "x".repeat(30_000_000));
    let app = Upstream::start(move |request| match request.starts_with("GET /a ") {
        true => Reply::json(&large),
        false => Reply::never(),
    })
    .await;
    let listener = "[listener]\naddress = \"127.0.0.1:0\"\ntimeouts = { write = \"500ms\" }\n";
    let routes = THREE.replace("path = \"/a\"", "path = \"/a\", max_body = \"40MiB\"");
    let routes = routes.replace(
        "[route.three.aggregate.source]",
        "[route.three.aggregate]\nmax_bytes = \"64MiB\"\n[route.three.aggregate.source]",
    );
    let routes = routes.replace("deadline = ", "on_client_gone = \"cancel\"\ndeadline = ");
    let forebay = forebay(app.address, &(routes + listener)).await;

    let _client = ask(&forebay, "application/x-ndjson").await;
    app.until("the other two are cancelled", |seen| seen.abandoned == 2).await;

    let line = &forebay.access_log_of(1).await[0];
    assert_eq!(line["reason"], "write_timeout", "{line}");
    at_rest(&forebay).await;
}
