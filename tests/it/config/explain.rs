//! `forebay explain` on the committed examples: each `explain/NAME.txt` is what it says.

use forebay::config::{ExplainRequest, explain, parse};

use super::{assert_golden, repository};

#[test]
fn aggregates_are_explained_with_their_graph_and_their_bounds() {
    let text = std::fs::read_to_string(repository("config/aggregate.toml")).expect("a readable file");
    let loaded = parse("aggregate.toml", &text, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.warnings, [], "the example is free of warnings");

    for (name, method, path) in [
        ("product", "GET", "/products/7"),
        ("search", "GET", "/search?q=pump"),
        ("report", "POST", "/reports"),
        ("results", "GET", "/reports/7"),
    ] {
        let request = ExplainRequest { method: method.into(), path: path.into(), ..ExplainRequest::default() };
        let explained = explain(&loaded, &request).expect("a valid path");
        assert_golden(&repository(&format!("tests/it/config/explain/{name}.txt")), &explained);
    }
}

#[test]
fn no_explanation_shows_a_secret() {
    let text = "
[upstream.users]
endpoints = [\"127.0.0.1:9001\"]
[route.users]
path = \"/users\"
[route.users.aggregate]
respond = { user = \"{user1}\", key = \"${TOKEN}\" }
[route.users.aggregate.source.user1]
upstream = \"users\"
method = \"POST\"
path = \"/${TOKEN}/users\"
query = { key = \"${TOKEN}\" }
headers = { x-key = \"${TOKEN}\", x-other = \"{query.a} ${TOKEN}\" }
body = { key = \"a ${TOKEN}\" }
on_error = { value = [\"${TOKEN}\"] }
";
    let loaded = parse("f", text, &|_| Some("s3cr3t".to_owned())).unwrap_or_else(|report| panic!("{report}"));
    let request = ExplainRequest { path: "/users".into(), ..ExplainRequest::default() };

    let explained = explain(&loaded, &request).expect("a valid path");

    assert!(explained.contains("POST /***/users?key=***"), "{explained}");
    assert!(!explained.contains("s3cr3t"), "{explained}");
    assert!(!forebay::config::effective(&loaded).to_string().contains("s3cr3t"));
}
