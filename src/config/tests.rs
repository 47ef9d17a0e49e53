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
