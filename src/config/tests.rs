//! Properties of the whole way from text to configuration.

use super::*;

fn parse_plain(text: &str) -> Result<Loaded, Report> {
    parse("forebay.toml", text, &|_| None)
}

#[test]
fn an_empty_file_is_every_default() {
    let loaded = parse_plain("").expect("valid");

    assert_eq!(loaded.config.listeners.len(), 1);
    assert_eq!(loaded.config.listeners[0].name, "main");
}

const EXAMPLE: &str = r#"
[listener]
address = "127.0.0.1:${PORT:-8080}"

[upstream.users]
endpoints     = ["127.0.0.1:9001", "users.internal:9002"]
timeouts      = { connect = "250ms", first_byte = "2s", between_bytes = "2s" }
max_in_flight = 64
queue         = { capacity = 128, timeout = "200ms" }
health        = { path = "/healthz", expect = ["200-299", 404] }

[route.slow]
path       = "/slow"
upstream   = "users"
deadline   = "3s"
rate_limit = [{ rate = "100/s", burst = 20, key = "client_ip" }, { rate = "5/min" }]

[route.rest]
path     = "/users/{id}/*"
upstream = "users"
rewrite_path = "/v2/{id}/{rest}"
request_headers = { set = { "x-tenant" = "a", authorization = { env = "TOKEN" } } }
"#;

#[test]
fn a_usual_file_is_understood() {
    let loaded = parse("forebay.toml", EXAMPLE, &|name| (name == "TOKEN").then(|| "s3cr3t".to_owned()));

    let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
    let route = &loaded.config.routes[0];
    assert_eq!(route.rate_limits[0].burst, 20);
    assert_eq!(route.rate_limits[1].burst, 5);
    assert_eq!(route.rate_limits[1].name, "route/slow/2");
    assert_eq!(loaded.settings.get("route.slow.deadline").expect("noted").origin, Origin::Line(15));
    assert_eq!(loaded.warnings, []);
    assert!(!format!("{:?}{:?}", loaded.config, loaded.settings).contains("s3cr3t"));
}

#[test]
fn the_hash_follows_values_and_secrets_but_not_layout() {
    let hash = |text: &str, token: &str| {
        let token = token.to_owned();
        let loaded = parse("f", text, &move |name| (name == "TOKEN").then(|| token.clone()));
        loaded.unwrap_or_else(|report| panic!("{report}")).config.hash
    };
    let first = hash(EXAMPLE, "one");

    assert_eq!(first, hash(&format!("# moved\n\n{EXAMPLE}\n[reload]\nwatch = true\n"), "one"));
    assert_ne!(first, hash(EXAMPLE, "two"));
    assert_ne!(first, hash(&EXAMPLE.replace("64", "65"), "one"));
}

#[test]
fn explain_names_the_route_the_origins_and_the_worst_case() {
    let loaded =
        parse("forebay.toml", EXAMPLE, &|_| Some("8080".to_owned())).unwrap_or_else(|report| panic!("{report}"));
    let request = ExplainRequest { path: "/users/7/./orders?x=1".into(), ..ExplainRequest::default() };

    let text = explain(&loaded, &request).expect("a valid path");

    for part in [
        "matched and forwarded as /users/7/orders",
        "route rest (line 19)",
        "slow  is for /slow",
        "connect, 2 attempts of 250ms    500ms",
        "everything is over after 15s, the deadline",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn explain_refuses_what_the_proxy_refuses() {
    let loaded = defaults();
    let explain = |path: &str| explain(&loaded, &ExplainRequest { path: path.into(), ..ExplainRequest::default() });

    assert!(explain("/a%2fb").is_err());
    assert!(explain("/a").expect("a path").contains("answered with 404"));
}

#[test]
fn the_admin_address_is_found_in_a_wrong_file() {
    let found = |text: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        admin_address(file.path(), &|_| None).map(|address| address.0.map_or("off".to_owned(), |at| at.to_string()))
    };
    let admin = "[admin]\naddress = \"127.0.0.1:7\"\n";
    let cases = [
        (format!("{admin}token = \"${{NOT_SET}}\"\n"), Some("127.0.0.1:7")),
        (format!("{admin}[route.a]\npath = 3\n"), Some("127.0.0.1:7")),
        (format!("{admin}[route.a\npath = \"/\n"), Some("127.0.0.1:7")),
        ("[admin]\naddress = \"off\"\n[route.a]\n".to_owned(), Some("off")),
        // The default, where nothing else can have been meant.
        ("[route.a\n".to_owned(), Some("127.0.0.1:9901")),
        ("[admin\naddress = \"127.0.0.1:7\"\n".to_owned(), None),
        ("[admin]\naddress = 127.0.0.1:7\n".to_owned(), None),
        ("[admin]\naddress = \"here\"\n".to_owned(), None),
    ];
    for (text, expected) in cases {
        assert_eq!(found(&text).as_deref(), expected, "{text}");
    }
}

/// Where the sum of the waits is exactly the deadline, either may come first.
#[test]
fn explain_of_waits_that_are_as_long_as_the_deadline() {
    let worst = |deadline: &str| {
        let text = EXAMPLE.replace("\"3s\"", &format!("{deadline:?}"));
        let loaded = parse("f", &text, &|_| Some("8080".to_owned())).unwrap_or_else(|report| panic!("{report}"));
        let request = ExplainRequest { path: "/slow".into(), ..ExplainRequest::default() };
        explain(&loaded, &request).expect("a valid path")
    };
    for (deadline, expected) in [
        ("2699ms", "these could take 2700ms together; the deadline ends them"),
        ("2700ms", "these could take 2700ms together, as long as the deadline: either may come first"),
        ("2701ms", "the answer begins after at most 2700ms"),
    ] {
        let text = worst(deadline);
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

/// Cuts a piece out of a text and puts another in, on character boundaries.
fn mutate(text: &str, at: usize, length: usize, insert: &str) -> String {
    let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (from, to) = (boundary(at % (text.len() + 1)), boundary(at % (text.len() + 1) + length));
    format!("{}{insert}{}", &text[..from], &text[to..])
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Whatever the text, there is an answer; and what is accepted agrees with itself.
    #[test]
    fn a_damaged_file_never_panics(at in 0usize..4_000, length in 0usize..30, insert in "[\\[\\]{}\"'=#\n0-9a-z$é.,/ -]{0,8}") {
        let whole = format!("{EXAMPLE}{}", reference::default_toml().replace("[listener]", "[listener.b]"));
        let texts = [EXAMPLE, AGGREGATE, &whole];
        for text in texts.map(|text| mutate(text, at, length, &insert)) {
            match parse("f", &text, &|_| Some("8080".to_owned())) {
                Ok(loaded) => assert_consistent(&loaded),
                Err(report) => assert!(!report.diagnostics().is_empty() && !report.to_string().is_empty()),
            }
        }
    }
}

fn assert_consistent(loaded: &Loaded) {
    let config = &loaded.config;
    assert!(!config.listeners.is_empty());
    for route in &config.routes {
        if let model::RouteAction::Proxy { upstream } = &route.action {
            assert!(config.upstreams.iter().any(|known| Arc::ptr_eq(known, upstream)));
            assert!(!upstream.endpoints.is_empty());
        }
        assert!(route.rate_limits.iter().all(|limit| limit.burst >= 1 && limit.rate.count >= 1));
        assert!(route.in_flight.as_ref().is_none_or(|limit| limit.max >= 1));
        for (method, path) in [("GET", "/slow"), ("POST", "/users/7")] {
            let request = ExplainRequest { method: method.into(), path: path.into(), ..ExplainRequest::default() };
            assert!(explain(loaded, &request).is_ok());
        }
    }
}

/// Every example in the reference file is what its key takes.
#[test]
fn every_example_is_valid() {
    let mut wrong = Vec::new();
    elements::visit_tables(&mut |place, table| {
        let place = if place == "[listener]" { "[listener.NAME]" } else { place };
        let Some((header, inner)) = place.strip_prefix('[').and_then(|place| place.split_once(']')) else { return };
        let header = [header.replace("NAME", "a").as_str(), inner.trim()].join(".");
        for key in &table.keys {
            let Some(example) = key.example else { continue };
            let text = format!("[{}]\n{} = {example}\n", header.trim_end_matches('.'), key.name);
            let Err(report) = parse("f", &text, &|_| Some("value".to_owned())) else { continue };
            let about_values = [Code::WrongType, Code::InvalidValue, Code::OutOfRange, Code::UnknownKey, Code::Syntax];
            wrong.extend(
                report.diagnostics().iter().filter(|d| about_values.contains(&d.code)).map(|d| d.render(false)),
            );
        }
    });

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A megabyte of mistakes, on one line and on many, is answered soon.
#[test]
fn a_hostile_file_costs_little() {
    let many_lines = "x = 3s\n".repeat(20_000);
    let one_line = format!("a = [{}]\n", "\"${X\",".repeat(40_000));
    let started = std::time::Instant::now();

    let again = "[a]\nb = 1\n".repeat(20_000);
    let not_closed = "[a\nb = 1\n".repeat(20_000);

    for text in [many_lines, one_line, again, not_closed, "[[".repeat(100_000), "${".repeat(100_000)] {
        let report = parse("f", &text, &|_| None).expect_err("nonsense");
        assert!(report.diagnostics().len() <= MAX_REPORTED);
    }

    // Generous for a loaded machine without optimisation; the square of the size would take hours.
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}

const AGGREGATE: &str = r#"
[upstream.users]
endpoints = ["127.0.0.1:9001"]

[route.users]
path           = "/users/{id}"
methods        = ["POST"]
on_client_gone = "finish"

[route.users.aggregate]
respond    = { users = ["{user1}", "{friends.0.name}"], note = "Hello {{}} {user1.name}", n = 1_000, x = 0.10, big = 123456789012345678901234567890 }
coalesce   = ["path", "query", "body", "header.X-Tenant"]
background = { keep = "5m" }

[route.users.aggregate.source.user1]
upstream        = "users"
path            = "/users/{id}"
query           = { page = "{query.page}", tag = ["a", 3] }
headers         = { authorization = "Bearer ${TOKEN}", "x-literal" = "{{}}" }
forward_headers = ["X-Tenant"]
timeout         = "2s"
required        = true

[route.users.aggregate.source.friends]
upstream = "users"
method   = "POST"
path     = "/friends/{user1.next}/{item}"
body     = { who = "{item}", max = 1e400 }
for_each = "{body.ids}"
on_error = { value = { friends = ["{x}", 0.10] } }
rename   = { "items.*.id" = "key" }

[route.job]
path       = "/jobs/{id}"
results_of = "users"
"#;

fn aggregate_of(loaded: &Loaded) -> Arc<model::aggregate::Aggregate> {
    match &loaded.config.routes[0].action {
        model::RouteAction::Aggregate(aggregate) => Arc::clone(aggregate),
        other => panic!("not an aggregate: {other:?}"),
    }
}

#[test]
fn an_aggregate_is_understood() {
    use model::aggregate::{BodyShape, HeaderTemplate, Node, OnError, Piece, Reference, RequestBody};

    let loaded = parse("f", AGGREGATE, &|_| Some("s3cr3t{".to_owned())).unwrap_or_else(|report| panic!("{report}"));

    let aggregate = aggregate_of(&loaded);
    let (user1, friends) = (&aggregate.sources[0], &aggregate.sources[1]);
    let BodyShape::Respond(Node::Object(members)) = &aggregate.body else { panic!("{:?}", aggregate.body) };
    assert_eq!(members[2].1, Node::Literal("1000".into()));
    assert_eq!(members[3].1, Node::Literal("0.10".into()), "numbers stay as they are written");
    assert_eq!(members[4].1, Node::Literal("123456789012345678901234567890".into()));
    let Node::Text(note) = &members[1].1 else { panic!("{members:?}") };
    assert_eq!(note.pieces[0], Piece::Literal("Hello {} ".into()));
    assert_eq!(user1.path.pieces[1], Piece::Value(Reference::Parameter("id".into())));
    assert_eq!(user1.query.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["page", "tag", "tag"]);
    assert_eq!(user1.on_error, OnError::Fail, "what is required fails the request");
    let HeaderTemplate::Fixed(token) = &user1.headers[1].1 else { panic!("{:?}", user1.headers) };
    assert_eq!(token.reveal(), "Bearer s3cr3t{");
    let HeaderTemplate::Template(literal) = &user1.headers[2].1 else { panic!("{:?}", user1.headers) };
    assert_eq!(literal.pieces, [Piece::Literal("{}".into())]);
    assert_eq!(friends.after, [0]);
    assert_eq!(friends.on_error, OnError::Value(r#"{"friends":["{x}",0.10]}"#.into()));
    let Some(RequestBody::Json(Node::Object(body))) = &friends.body else { panic!("{:?}", friends.body) };
    assert_eq!(body[1].1, Node::Literal("1e400".into()));
    let background = aggregate.background.as_ref().expect("in the background");
    assert_eq!(value::path::show_pattern(&background.results), "/jobs/{id}");
    assert!(!format!("{:?}{:?}", loaded.config, effective(&loaded)).contains("s3cr3t"));
}
