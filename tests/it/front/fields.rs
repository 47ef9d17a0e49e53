//! What of a request's and an answer's head goes through, what is rewritten, and where the request goes.

use super::recorder::{Recorder, values};
use super::{listener, proxied};
use crate::support::forebay::Forebay;
use crate::support::http::{Connection, Response, get, request};

/// Row 8, both ways.
#[tokio::test]
async fn hop_by_hop_fields_stop_here_in_both_directions() {
    let upstream = Recorder::start(
        "HTTP/1.1 200 OK\r\nconnection: x-secret, keep-alive\r\nx-secret: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-authenticate: basic\r\nte: trailers\r\nupgrade: h2c\r\nproxy-connection: keep-alive\r\nx-kept: 1\r\n\
         content-length: 2\r\n\r\nok",
    )
    .await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;

    let hops = [
        ("connection", "x-mine, te"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "basic x"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers, gzip"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("x-kept", "1"),
    ];
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    let fields: String = hops.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    connection.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await.unwrap();
    let answer = connection.response().await.unwrap();

    let sent = upstream.request();
    for (name, _) in hops.iter().filter(|(name, _)| *name != "x-kept") {
        assert!(values(&sent, name).is_empty(), "{name} in {sent}");
    }
    assert_eq!(values(&sent, "x-kept"), ["1"]);
    let stripped = ["connection", "x-secret", "keep-alive", "proxy-authenticate", "te", "upgrade", "proxy-connection"];
    for name in stripped {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
    assert_eq!((answer.header("x-kept"), answer.text().as_str()), (Some("1"), "ok"));
}

const SPOOFED: [(&str, &str); 7] = [
    ("x-forwarded-for", "198.51.100.7, 203.0.113.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "public.example"),
    ("forwarded", "for=198.51.100.7, for=203.0.113.9;proto=https;host=public.example"),
    ("x-forwarded-port", "444"),
    ("x-real-ip", "198.51.100.7"),
    ("x-request-id", "an-id-of-the-clients"),
];

/// Row 11: what a stranger says about the client is dropped.
#[tokio::test]
async fn forwarding_fields_of_an_untrusted_peer_are_written_anew() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;

    let answer = request(forebay.address(), "GET", "/", &SPOOFED, b"").await.unwrap();

    let sent = upstream.request();
    assert_eq!(values(&sent, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&sent, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&sent, "x-forwarded-host"), [forebay.address().to_string()]);
    assert!(values(&sent, "forwarded")[0].starts_with("for=127.0.0.1;"), "{sent}");
    assert!(values(&sent, "x-forwarded-port").is_empty() && values(&sent, "x-real-ip").is_empty(), "{sent}");
    let id = answer.header("x-request-id").unwrap();
    assert_ne!(id, "an-id-of-the-clients");
    assert_eq!(values(&sent, "x-request-id"), [id]);
    assert_eq!(forebay.access_log_of(1).await[0]["client"], "127.0.0.1");
}

#[tokio::test]
async fn forwarding_fields_of_a_trusted_peer_are_continued() {
    let upstream = Recorder::ok().await;
    let settings = "trusted_proxies = [\"127.0.0.0/8\"]";
    let forebay = Forebay::start(&(listener(settings) + &proxied(upstream.address))).await;

    let answer = request(forebay.address(), "GET", "/", &SPOOFED, b"").await.unwrap();

    let sent = upstream.request();
    assert_eq!(values(&sent, "x-forwarded-for").join(", "), "198.51.100.7, 203.0.113.9, 127.0.0.1");
    assert_eq!(values(&sent, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&sent, "x-forwarded-host"), ["public.example"]);
    assert_eq!(answer.header("x-request-id"), Some("an-id-of-the-clients"));
    // The rightmost address that is not a trusted proxy's.
    assert_eq!(forebay.access_log_of(1).await[0]["client"], "203.0.113.9");
}

#[tokio::test]
async fn a_trace_is_continued_or_begun() {
    let upstream = Recorder::ok().await;
    let forebay = Forebay::start(&proxied(upstream.address)).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    let headers = [("traceparent", parent), ("tracestate", "a=1")];
    request(forebay.address(), "GET", "/", &headers, b"").await.unwrap();
    request(forebay.address(), "GET", "/", &[("traceparent", "nonsense"), ("tracestate", "a=1")], b"").await.unwrap();

    let sent = upstream.requests();
    let child = values(&sent[0], "traceparent")[0];
    assert!(child.starts_with(&parent[..36]) && child.ends_with("-01") && child != parent, "{child}");
    assert_eq!(values(&sent[0], "tracestate"), ["a=1"]);
    assert_eq!((values(&sent[1], "traceparent").len(), values(&sent[1], "tracestate").len()), (1, 0));
}

/// Row 36 of the fault list: the bytes that were matched are the bytes that are forwarded.
#[tokio::test]
async fn what_is_matched_is_what_is_forwarded() {
    let upstream = Recorder::ok().await;
    let config =
        format!("{}\n[route.admin]\npath = \"/admin/*\"\nrespond = {{ status = 403 }}\n", proxied(upstream.address));
    let forebay = Forebay::start(&config).await;

    let bypasses = [
        "/admin/x",
        "//admin/x",
        "/./admin/x",
        "/a/../admin/x",
        "/%61dmin/x",
        "/a/%2e%2e/admin/x",
        "/a/.%2E/admin/x",
        "/admin",
        "/admin/",
        "/admin?x=/",
        "/a/b/../../admin",
        "http://HOST/admin/x",
        "http://HOST//admin",
    ];
    for target in bypasses {
        let target = target.replace("HOST", &forebay.address().to_string());
        assert_eq!(get(forebay.address(), &target).await.unwrap().status, 403, "{target}");
    }
    let refused = [
        "/a%2fadmin",
        "/%2Fadmin",
        "/a%5c..%5cadmin",
        "/a\\admin",
        "/admin%00",
        "/../admin",
        "/a/../../admin",
        "/a/..;x/admin",
        "/a/%2e%2e;/admin",
        "/%",
        "/%zz",
        "/a#/admin",
    ];
    for target in refused {
        let answer = get(forebay.address(), target).await.unwrap();
        assert_eq!((answer.status, answer.reason()), (400, Some("bad_request")), "{target}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());

    let forwarded = [
        ("/%41%2d%7e?q=%41/../%2f", "/A-~?q=%41/../%2f"),
        ("/a/./b//c/../d", "/a/b/d"),
        ("/x%c3%a9", "/x%C3%A9"),
        ("/a%252e%252e/b", "/a%252e%252e/b"),
        ("/Admin/x", "/Admin/x"),
        ("/?a=1&&b", "/?a=1&&b"),
    ];
    for (target, expected) in forwarded {
        assert_eq!(get(forebay.address(), target).await.unwrap().status, 200, "{target}");
        let sent = upstream.requests().pop().unwrap();
        assert_eq!(sent.split(' ').nth(1), Some(expected), "{target}");
    }
}

const ROUTES: &str = r#"
    [route.any]
    path = "/*"
    respond = { body = "any" }
    [route.users]
    path = "/users/*"
    respond = { body = "users" }
    [route.user]
    path = "/users/{id}"
    respond = { body = "user" }
    [route.me]
    path = "/users/me"
    respond = { body = "me" }
    [route.delete_me]
    path = "/users/me"
    methods = ["DELETE"]
    respond = { body = "delete" }
    [route.tenant]
    path = "/users/me"
    headers = { "x-tenant" = true }
    respond = { body = "tenant" }
    [route.tenant_a]
    path = "/users/me"
    headers = { "x-tenant" = "a" }
    respond = { body = "tenant-a" }
    [route.sub]
    path = "/users/*"
    host = "*.example.com"
    respond = { body = "sub" }
    [route.host]
    path = "/users/*"
    host = "api.example.com"
    respond = { body = "host" }
    [route.only_get]
    path = "/get"
    methods = ["GET"]
    host = "methods.test"
    respond = { body = "get" }
"#;

async fn ask(forebay: &Forebay, method: &str, host: &str, target: &str, fields: &str) -> Response {
    let mut connection = Connection::open(forebay.address()).await.unwrap();
    connection.send(format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n")).await.unwrap();
    connection.response_to(method).await.unwrap()
}

#[tokio::test]
async fn the_most_specific_route_takes_the_request() {
    let forebay = Forebay::start(ROUTES).await;

    for (method, host, target, fields, expected) in [
        ("GET", "a", "/", "", "any"),
        ("GET", "a", "/users", "", "users"),
        ("GET", "a", "/users/1/x", "", "users"),
        ("GET", "a", "/users/1", "", "user"),
        ("GET", "a", "/users/me", "", "me"),
        ("DELETE", "a", "/users/me", "", "delete"),
        ("GET", "a", "/users/me", "X-Tenant: b\r\n", "tenant"),
        ("GET", "a", "/users/me", "x-tenant: a\r\n", "tenant-a"),
        ("GET", "x.example.com", "/users/me", "", "sub"),
        ("GET", "API.Example.com.:8080", "/users/me", "", "host"),
        ("GET", "a.b.example.com", "/other", "", "any"),
        ("GET", "example.com", "/users/me", "", "me"),
    ] {
        assert_eq!(ask(&forebay, method, host, target, fields).await.text(), expected, "{method} {host} {target}");
    }
}

#[tokio::test]
async fn without_a_route_the_answer_is_404_or_405_with_allow() {
    let forebay = Forebay::start("[route.a]\npath = \"/a\"\nmethods = [\"GET\"]\nrespond = { status = 204 }\n").await;

    let missing = ask(&forebay, "GET", "a", "/b", "").await;
    let wrong = ask(&forebay, "PUT", "a", "/a", "").await;

    assert_eq!((missing.status, missing.reason()), (404, Some("no_route")));
    assert_eq!((wrong.status, wrong.reason()), (405, Some("method_not_allowed")));
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("GET")), "{wrong:?}");
    // A 204 has no length (RFC 9110 §8.6).
    let empty = ask(&forebay, "GET", "a", "/a", "").await;
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
}

#[tokio::test]
async fn paths_hosts_and_fields_are_rewritten_as_the_route_says() {
    let answer = "HTTP/1.1 200 OK\r\nx-internal: 1\r\nserver: old\r\ncontent-length: 2\r\n\r\nok";
    let upstream = Recorder::start(answer).await;
    let config = format!(
        r#"
        [upstream.app]
        endpoints = ["{}"]
        [route.stripped]
        path = "/api/*"
        upstream = "app"
        strip_prefix = "/api"
        [route.rewritten]
        path = "/old/{{id}}/*"
        upstream = "app"
        rewrite_path = "/new/{{rest}}/by/{{id}}"
        host_header = "preserve"
        [route.edited]
        path = "/edited"
        upstream = "app"
        host_header = "fixed.example"
        request_headers = {{ remove = ["x-drop"], set = {{ "x-set" = "ours" }}, add = {{ "x-add" = "ours" }} }}
        response_headers = {{ remove = ["x-internal"], set = {{ "server" = "new" }}, add = {{ "x-more" = "1" }} }}
        "#,
        upstream.address
    );
    let forebay = Forebay::start(&config).await;
    let host = "client.example:81";

    ask(&forebay, "GET", host, "/api/a/b?q=1", "").await;
    ask(&forebay, "GET", host, "/api", "").await;
    ask(&forebay, "GET", host, "/old/7/x/y%20z", "").await;
    let edited = ask(&forebay, "GET", host, "/edited", "x-drop: 1\r\nx-set: 1\r\nx-set: 2\r\nx-add: theirs\r\n").await;

    let sent = upstream.requests();
    let lines: Vec<_> = sent.iter().map(|request| request.split("\r\n").next().unwrap()).collect();
    assert_eq!(
        lines,
        ["GET /a/b?q=1 HTTP/1.1", "GET / HTTP/1.1", "GET /new/x/y%20z/by/7 HTTP/1.1", "GET /edited HTTP/1.1"]
    );
    let hosts: Vec<_> = sent.iter().map(|request| values(request, "host").join(", ")).collect();
    let own = upstream.address.to_string();
    assert_eq!(hosts, [&own, &own, host, "fixed.example"]);
    assert!(values(&sent[3], "x-drop").is_empty());
    assert_eq!(values(&sent[3], "x-set"), ["ours"]);
    assert_eq!(values(&sent[3], "x-add"), ["theirs", "ours"]);
    assert_eq!((edited.header("x-internal"), edited.header("server")), (None, Some("new")));
    assert_eq!(edited.header("x-more"), Some("1"));
}
