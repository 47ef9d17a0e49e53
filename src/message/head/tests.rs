//! One test for each rule of the heads.

use super::*;

fn request(text: &str) -> Result<RequestHead, HeadError> {
    request_bytes(text.as_bytes())
}

fn request_bytes(bytes: &[u8]) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    match parse_request(bytes, &HeadLimits::default(), &mut head)? {
        Parsed::Complete { .. } => Ok(head),
        Parsed::Incomplete => panic!("incomplete: {}", bytes.escape_ascii()),
    }
}

fn response(text: &str, method: Method) -> Result<ResponseHead, ResponseError> {
    let mut head = ResponseHead::default();
    match parse_response(text.as_bytes(), &HeadLimits::default(), method, &mut head)? {
        Parsed::Complete { .. } => Ok(head),
        Parsed::Incomplete => panic!("incomplete: {text:?}"),
    }
}

/// A GET with these lines after `Host`.
fn with(lines: &str) -> Result<RequestHead, HeadError> {
    request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}

#[track_caller]
fn refused(result: Result<RequestHead, HeadError>, status: u16) {
    match result {
        Ok(head) => panic!("accepted: {head:?}"),
        Err(error) => assert_eq!(error.status(), status, "{error}"),
    }
}

#[test]
fn a_plain_request_is_read() {
    let text = "GET /a/b?c=d&e HTTP/1.1\r\nHost: Example.COM:8080\r\nAccept:  x \r\nEmpty:\r\n\r\nbody";
    let mut head = RequestHead::default();

    let parsed = parse_request(text.as_bytes(), &HeadLimits::default(), &mut head);

    assert_eq!(parsed, Ok(Parsed::Complete { head_len: text.len() - 4 }));
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.target(), b"/a/b?c=d&e");
    assert_eq!(head.path(), b"/a/b");
    assert_eq!(head.query(), Some(&b"c=d&e"[..]));
    assert_eq!(head.authority(), b"Example.COM:8080");
    assert_eq!(head.host(), "example.com");
    assert_eq!(head.fields.get_name("accept"), Some(&b"x"[..]));
    assert_eq!(head.fields.get_name("empty"), Some(&b""[..]));
    assert_eq!(head.framing(), Body::None);
    assert!(head.keep_alive());
}

#[test]
fn a_head_is_reused_without_traces_of_the_last_one() {
    let mut head = RequestHead::default();
    let first = b"POST /long/path?q HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let second = b"GET / HTTP/1.0\r\n\r\n";

    parse_request(first, &HeadLimits::default(), &mut head).expect("valid");
    parse_request(second, &HeadLimits::default(), &mut head).expect("valid");

    assert_eq!((head.path(), head.query(), head.authority(), head.host()), (&b"/"[..], None, &b""[..], ""));
    assert_eq!(head.framing(), Body::None);
    assert!(!head.expects_continue() && head.fields.is_empty() && !head.keep_alive());
}

#[test]
fn a_dripped_head_gives_the_same_as_a_whole_one() {
    let text = b"\r\nGET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    let mut head = RequestHead::default();
    for end in 0..text.len() {
        assert_eq!(parse_request(&text[..end], &HeadLimits::default(), &mut head), Ok(Parsed::Incomplete), "{end}");
    }

    let parsed = parse_request(text, &HeadLimits::default(), &mut head);

    assert_eq!(parsed, Ok(Parsed::Complete { head_len: text.len() }));
    assert_eq!(head.path(), b"/x");
}

#[test]
fn every_line_must_end_in_crlf() {
    refused(request("GET / HTTP/1.1\nHost: a\r\n\r\n"), 400);
    refused(request("GET / HTTP/1.1\r\nHost: a\n\r\n"), 400);
    refused(request("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400);
    refused(request("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    refused(request("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"), 400);
    refused(request("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"), 400);
}

#[test]
fn one_empty_line_before_the_request_is_skipped() {
    assert!(request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    refused(request("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn what_is_no_request_is_refused_at_its_first_byte() {
    let mut head = RequestHead::default();
    for bytes in [&b"\x16\x03\x01\x02"[..], b" GET", b"\0", b":"] {
        assert!(parse_request(bytes, &HeadLimits::default(), &mut head).is_err());
    }
}

#[test]
fn request_lines_are_exact() {
    for line in [
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET HTTP/1.1",
        "G ET / HTTP/1.1",
        "GET / / HTTP/1.1",
        "GET / HTTP/1.1x",
        "G(T / HTTP/1.1",
        "AVERYLONGMETHODNAMETHATNOBODYUSES / HTTP/1.1",
    ] {
        refused(request(&format!("{line}\r\nHost: a\r\n\r\n")), 400);
    }
    for line in ["GET / HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/1.2", "PRI * HTTP/2.0"] {
        refused(request(&format!("{line}\r\nHost: a\r\n\r\n")), 505);
    }
}

#[test]
fn trace_and_connect_are_refused() {
    refused(request("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    refused(request("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), 405);
}

#[test]
fn field_lines_are_exact() {
    refused(with("X : y\r\n"), 400);
    refused(with(": y\r\n"), 400);
    refused(with(" X: y\r\n"), 400);
    refused(with("X: y\r\n folded\r\n"), 400);
    refused(with("X: y\r\n\tfolded\r\n"), 400);
    refused(with("X\r\n"), 400);
    refused(with("X: a\0b\r\n"), 400);
    refused(with("X: a\x01b\r\n"), 400);
    refused(with("X: a\x7fb\r\n"), 400);
    refused(with("X\0: a\r\n"), 400);
    refused(with("X_Y: a\r\n"), 400);
    refused(with("X\u{e4}: a\r\n"), 400);
    assert!(with("X: tab\tand \u{e4}\r\n").is_ok());
}

#[test]
fn host_is_there_once_and_is_a_host() {
    refused(request("GET / HTTP/1.1\r\n\r\n"), 400);
    refused(request("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    for host in ["", "a, b", "a/b", "user@a", "a:x", "a:99999", "a b", "a#b", "a?b", "a\\b", "[::1", "http://a"] {
        refused(request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400);
    }
    assert!(request("GET / HTTP/1.0\r\n\r\n").is_ok());
    refused(request("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    refused(request("GET / HTTP/1.0\r\nHost:\r\n\r\n"), 400);
}

#[test]
fn targets_are_paths_or_addresses_of_the_same_host() {
    for target in [
        "*",
        "a",
        "?q",
        "/a#b",
        "ftp://a/",
        "//",
        "http:/a",
        "http://",
        "http://b/",
        "http://u@a/",
        "http://a:1/",
        "a:80",
    ] {
        let result = request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        // Two slashes are an ordinary, if odd, path.
        if target == "//" { assert!(result.is_ok()) } else { refused(result, 400) }
    }
    for bytes in [&b"/a\0"[..], b"/\xff", b"/\xc3\xa4", b"/\x7f", b"/\x01", b"/\t"] {
        refused(request_bytes(&[b"GET ", bytes, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()), 400);
    }
    assert!(request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid").is_asterisk());
}

#[test]
fn absolute_form_gives_path_and_query() {
    for (target, path, query) in [
        ("http://A:80/x?y", "/x", Some("y")),
        ("HTTP://a/x", "/x", None),
        ("http://a", "/", None),
        ("http://a?q", "/", Some("q")),
    ] {
        let head = request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).expect(target);

        assert_eq!((head.path(), head.query()), (path.as_bytes(), query.map(str::as_bytes)), "{target}");
        assert_eq!(head.target_form, TargetForm::Absolute);
        assert_eq!(head.host(), "a");
    }
    assert!(request("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").expect("valid").is_asterisk());
    assert_eq!(request("GET http://b/ HTTP/1.0\r\n\r\n").expect("valid").host(), "b");
}

#[test]
fn content_length_is_one_plain_number() {
    for value in ["", "+5", "-1", "5, 5", "5,5", "003", "0x5", "5 5", "99999999999999999999", "five", "5;"] {
        refused(with(&format!("Content-Length: {value}\r\n")), 400);
    }
    refused(with("Content-Length: 5\r\nContent-Length: 5\r\n"), 400);
    assert_eq!(with("Content-Length: 5\r\n").expect("valid").framing(), Body::Length(5));
    assert_eq!(with("content-length: 0\r\n").expect("valid").framing(), Body::Length(0));
}

#[test]
fn transfer_encoding_is_exactly_chunked_and_alone() {
    for value in
        ["", "deflate, chunked", "chunked, chunked", "chunked,", "identity", "xchunked", "\"chunked\"", "chunked; q=1"]
    {
        refused(with(&format!("Transfer-Encoding: {value}\r\n")), 400);
    }
    refused(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
    refused(with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400);
    refused(with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400);
    refused(request("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_eq!(with("Transfer-Encoding: Chunked\r\n").expect("valid").framing(), Body::Chunked);
}

#[test]
fn connection_options_are_read_and_cannot_name_fields_that_matter() {
    assert!(!with("Connection: Close\r\n").expect("valid").keep_alive());
    assert!(!with("Connection: x, close\r\nConnection: keep-alive\r\n").expect("valid").keep_alive());
    assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect("valid").keep_alive());
    for option in ["host", "Content-Length", "transfer-encoding", "x-forwarded-for", "cookie", "a b", "a=b", "\"x\""] {
        refused(with(&format!("Connection: {option}\r\n")), 400);
    }
}

#[test]
fn upgrade_needs_its_connection_option() {
    assert_eq!(with("Upgrade: websocket\r\n").expect("valid").upgrade(), None);
    let head = with("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n").expect("valid");
    assert_eq!(head.upgrade(), Some(&b"websocket"[..]));
    refused(with("Upgrade: a\r\nUpgrade: b\r\nConnection: upgrade\r\n"), 400);
    let old = request("GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").expect("valid");
    assert_eq!(old.upgrade(), None);
}

#[test]
fn only_one_expectation_is_known() {
    assert!(with("Expect: 100-Continue\r\nContent-Length: 5\r\n").expect("valid").expects_continue());
    assert!(!with("Expect: 100-continue\r\n").expect("valid").expects_continue());
    refused(with("Expect: 200-ok\r\n"), 417);
    refused(with("Expect: 100-continue\r\nExpect: 100-continue\r\n"), 417);
    assert!(!request("POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\n").expect("valid").expects_continue());
}

#[test]
fn heads_are_bounded_in_bytes_and_fields() {
    let mut head = RequestHead::default();
    let small = HeadLimits { max_bytes: 64, max_headers: 2 };
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(64));

    assert_eq!(parse_request(&long.as_bytes()[..63], &small, &mut head), Ok(Parsed::Incomplete));
    let error = parse_request(&long.as_bytes()[..64], &small, &mut head).expect_err("too large");
    assert_eq!(error.status(), 431);

    assert_eq!(parse_request(long.as_bytes(), &small, &mut head).expect_err("too large").status(), 431);

    let three = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n";
    assert_eq!(parse_request(three, &small, &mut head).expect_err("too many").status(), 431);

    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(299));
    let wide = HeadLimits { max_bytes: 65536, max_headers: 300 };
    assert!(parse_request(many.as_bytes(), &wide, &mut head).is_ok());
    assert_eq!(head.fields.len(), 300);
}

#[test]
fn responses_are_framed_by_status_method_and_fields() {
    use ResponseBody::{Chunked, Length, None, UntilClose};
    for (head, method, body, keep_alive) in [
        ("200 OK\r\nContent-Length: 5", Method::Get, Length(5), true),
        ("200 OK\r\nContent-Length: 5", Method::Head, None, true),
        ("200 OK\r\nTransfer-Encoding: chunked", Method::Get, Chunked, true),
        ("200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close", Method::Get, Chunked, false),
        ("200\r\nX: y", Method::Get, UntilClose, false),
        ("204 No Content\r\nX: y", Method::Get, None, true),
        ("204 No Content\r\nContent-Length: 5", Method::Get, None, false),
        ("304 Not Modified\r\nContent-Length: 5", Method::Get, None, true),
        ("103 Early Hints\r\nLink: x", Method::Get, None, true),
        ("599 \r\nContent-Length: 0", Method::Get, Length(0), true),
    ] {
        let parsed = response(&format!("HTTP/1.1 {head}\r\n\r\n"), method).expect(head);

        assert_eq!((parsed.framing(), parsed.keep_alive()), (body, keep_alive), "{head}");
    }
    assert!(!response("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Method::Get).expect("valid").keep_alive());
    let kept = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
    assert!(response(kept, Method::Get).expect("valid").keep_alive());
}

#[test]
fn bad_responses_are_refused() {
    for text in [
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1 0200 X\r\n\r\n",
        "HTTP/1.1 2x0 X\r\n\r\n",
        "HTTP/1.1  200 X\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: content-length\r\n\r\n",
    ] {
        assert!(response(text, Method::Get).is_err(), "{text:?}");
    }
}

#[test]
fn written_heads_read_back() {
    let head = request("PUT /a?b HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\nX: y\r\nx: z\r\n\r\n").expect("valid");
    let mut out = Vec::new();

    write_request_head(&mut out, head.method, head.target(), head.authority(), &head.fields, head.framing());

    assert_eq!(out, b"PUT /a?b HTTP/1.1\r\nhost: h:1\r\nX: y\r\nx: z\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(request_bytes(&out).expect("valid").framing(), Body::Length(3));
}

#[test]
fn the_absence_of_an_expected_body_is_said() {
    for (method, expected) in [(Method::Post, Body::Length(0)), (Method::Get, Body::None)] {
        let mut out = Vec::new();
        write_request_head(&mut out, method, b"/", b"a", &Fields::new(), Body::None);
        assert_eq!(request_bytes(&out).expect("valid").framing(), expected);
    }
}

#[test]
fn written_responses_have_one_framing() {
    let head = response("HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nA: b\r\n\r\n", Method::Get).expect("valid");
    let mut out = Vec::new();
    write_response_head(&mut out, 200, &head.fields, ResponseBody::Chunked);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n");

    out.clear();
    write_response_head(&mut out, 304, &head.fields, ResponseBody::None);
    assert_eq!(out, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nA: b\r\n\r\n");

    out.clear();
    write_response_head(&mut out, 204, &head.fields, ResponseBody::None);
    assert_eq!(out, b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n");
}

#[test]
fn no_argument_of_a_writer_can_start_a_line() {
    let mut out = Vec::new();

    write_request_head(&mut out, Method::Get, b"/a b\r\nX: y", b"h\r\nY: z", &Fields::new(), Body::None);

    assert_eq!(out, b"GET /a%20b%0D%0AX:%20y HTTP/1.1\r\nhost: hY: z\r\n\r\n");
}

mod http2 {
    use super::super::http2::*;
    use super::*;

    fn parts(builder: http::request::Builder) -> http::request::Parts {
        builder.body(()).expect("valid").into_parts().0
    }

    fn get(uri: &str) -> http::request::Builder {
        http::Request::get(uri).version(http::Version::HTTP_2)
    }

    #[test]
    fn a_request_is_converted() {
        let parts = parts(
            get("https://Example.com/a?b")
                .header("host", "example.com")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .header("te", "trailers"),
        );

        let head = RequestHead::from_http2(&parts, true).expect("valid");

        assert_eq!(head.version, Version::Http2);
        assert_eq!((head.path(), head.query(), head.host()), (&b"/a"[..], Some(&b"b"[..]), "example.com"));
        assert_eq!(head.fields.get(Known::Cookie), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.framing(), Body::None);
        assert!(!head.fields.contains(Known::Host) && head.keep_alive());
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let at = || get("http://a/");
        for (what, builder, end) in [
            ("other host", at().header("host", "b"), true),
            ("two hosts", at().header("host", "a").header("host", "a"), true),
            ("connection", at().header("connection", "close"), true),
            ("transfer-encoding", at().header("transfer-encoding", "chunked"), true),
            ("upgrade", at().header("upgrade", "h2c"), true),
            ("te", at().header("te", "gzip"), true),
            ("underscore", at().header("a_b", "c"), true),
            ("content-length", at().header("content-length", "+5"), false),
            ("absent body", at().header("content-length", "5"), true),
            ("userinfo", get("http://u@a/"), true),
            ("no authority", get("/"), true),
        ] {
            let error = RequestHead::from_http2(&parts(builder), end).expect_err(what);
            assert_eq!(error.status(), 400, "{what}");
        }
        let connect = parts(http::Request::connect("a:1").version(http::Version::HTTP_2));
        assert_eq!(RequestHead::from_http2(&connect, true).expect_err("refused").status(), 405);
    }

    #[test]
    fn requests_and_responses_go_out_with_lower_case_names_and_one_length() {
        let head = request("POST /a HTTP/1.1\r\nHost: a\r\nX-Up: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")
            .expect("valid");

        let parts = to_http_request_parts(
            head.method,
            http::uri::Scheme::HTTP,
            b"up:81",
            b"/z?q",
            &head.fields,
            Body::Length(4),
        )
        .expect("valid");

        assert_eq!(parts.uri, "http://up:81/z?q");
        let names: Vec<_> = parts.headers.keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["x-up", "content-length"]);
        assert_eq!(parts.headers["content-length"], "4");

        let answer = to_http_response_parts(200, &head.fields, ResponseBody::Chunked);
        assert!(!answer.headers.contains_key("content-length") && !answer.headers.contains_key("connection"));
    }

    #[test]
    fn a_response_is_converted() {
        let parts =
            http::Response::builder().status(200).header("content-length", "7").body(()).expect("valid").into_parts().0;
        assert_eq!(
            ResponseHead::from_http2(&parts, Method::Get, false).expect("valid").framing(),
            ResponseBody::Length(7)
        );
        assert_eq!(ResponseHead::from_http2(&parts, Method::Head, true).expect("valid").framing(), ResponseBody::None);
    }
}
