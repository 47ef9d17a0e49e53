//! `forebay demo`: what it simulates, the configuration that stands in front of it, and what it tells the reader to try.
//!
//! Text and settings only. Starting the two is `server`'s business; the demo's configuration goes through the same
//! reader as any file, so what the demo shows can be copied into one.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use http::StatusCode;

use crate::config::address_option;
use crate::simulate::settings::{Capacity, Fault, FaultKind, Latency};
use crate::simulate::{Settings, Simulator, Upstream};

/// What of the demo can be chosen.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the sidecar listens; port 0 takes a free one. The default is 127.0.0.1:8080, or a free port when that is taken.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address_option)]
    pub listen: Option<SocketAddr>,
    /// Where its metrics and its page are, on loopback; port 0 takes a free one. The default is 127.0.0.1:9901, or a free port
    /// when that is taken.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub admin: Option<SocketAddr>,
    /// Append the access log to this file instead of printing it.
    #[arg(long, value_name = "FILE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub access_log: Option<String>,
}

/// There is no token that would protect it elsewhere.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = address_option(text)?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err("the demo's admin listener has no token: it is on 127.0.0.1 or [::1] only".to_owned()),
    }
}

/// Where the demo's parts listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub listener: SocketAddr,
    pub admin: SocketAddr,
}

/// The demo's upstreams, by name with their addresses; as bound, since they take free ports.
pub type UpstreamAddresses = Vec<(String, SocketAddr)>;

/// The simulated upstreams of `forebay demo`, and of `forebay simulate` without a file, on free loopback ports.
pub fn upstreams() -> Settings {
    let after =
        |name: &str, millis| Upstream { latency: Latency::Fixed(Duration::from_millis(millis)), ..Upstream::new(name) };
    Settings {
        seed: 1,
        upstreams: vec![
            after("fast", 10),
            after("slow", 2_000),
            Upstream {
                errors: vec![(StatusCode::INTERNAL_SERVER_ERROR, 0.25)],
                faults: vec![Fault { kind: FaultKind::ResetBeforeHead, probability: 0.4 }],
                ..after("flaky", 50)
            },
            Upstream { capacity: Capacity::Sync { queue: 5 }, ..after("sync", 2_000) },
            after("late", 5_000),
            Upstream {
                faults: vec![Fault {
                    kind: FaultKind::Drip { bytes: NonZeroUsize::MIN, interval: Duration::from_millis(500) },
                    probability: 1.0,
                }],
                ..after("drip", 0)
            },
            // How long an answer takes is up to the source that asks.
            Upstream {
                body: r#"{"id":{last},"name":"User {last}"}"#.to_owned(),
                allow_control: true,
                ..after("users", 1_000)
            },
            Upstream { body: r#"{"team":"{last}","members":[3,1,2]}"#.to_owned(), ..after("teams", 1_000) },
        ],
        ..Settings::default()
    }
}

/// The addresses of bound upstreams, for [`config_text`].
pub fn addresses_of(simulator: &Simulator) -> UpstreamAddresses {
    simulator.handles().map(|handle| (handle.name.clone(), handle.address)).collect()
}

/// The sidecar's configuration: each route shows one thing. The access log goes to stdout, or to this file.
pub fn config_text(addresses: Addresses, upstreams: &UpstreamAddresses, access_log: Option<&str>) -> String {
    let mut text = format!(
        "[listener]\naddress = \"{}\"\n\n[admin]\naddress = \"{}\"\n\n[shutdown]\naccept_grace = \"0s\"\ndrain_timeout = \"5s\"\n",
        addresses.listener, addresses.admin
    );
    if let Some(file) = access_log {
        // The name means itself: no variables.
        let output = toml::Value::String(format!("file:{}", file.replace("${", "$${")));
        write!(text, "\n[access_log]\noutput = {output}\n").expect("a string takes all");
    }
    for (name, address) in upstreams {
        let settings = upstream_settings(name);
        write!(text, "\n[upstream.{name}]\nendpoints = [\"{address}\"]\n{settings}").expect("a string takes all");
    }
    text.push_str(ROUTES);
    text
}

/// What the configuration says about an upstream besides its address.
fn upstream_settings(name: &str) -> &'static str {
    match name {
        "slow" => "timeouts = { first_byte = \"2500ms\" }\n",
        // One worker is all that it has: more than one request there only waits where nobody sees it.
        "sync" => "max_in_flight = 1\nqueue = { capacity = 3, timeout = \"4500ms\" }\n",
        _ => "",
    }
}

const ROUTES: &str = r#"
[route.fast]
path = "/fast"
upstream = "fast"
deadline = "1s"

[route.slow]
path = "/slow"
upstream = "slow"
deadline = "3s"

[route.flaky]
path = "/flaky"
upstream = "flaky"
deadline = "1s"

[route.sync]
path = "/sync"
upstream = "sync"
deadline = "5s"

[route.limited]
path = "/limited"
upstream = "fast"
deadline = "1s"
rate_limit = { rate = "1/s", burst = 3 }

[route.late]
path = "/late"
upstream = "late"
deadline = "1s"

[route.drip]
path = "/drip"
upstream = "drip"
deadline = "3s"

[route.users-async]
path = "/users-async"
deadline = "3s"
[route.users-async.aggregate]
respond = { users = ["{user1}", "{user2}", "{user3}"] }
[route.users-async.aggregate.source]
user1 = { upstream = "users", path = "/users/1" }
user2 = { upstream = "users", path = "/users/2" }
user3 = { upstream = "users", path = "/users/3" }

[route.users-async-safe]
path = "/users-async-safe"
deadline = "3s"
[route.users-async-safe.aggregate]
respond = { users = ["{user1}", "{user2}", "{user3}"] }
[route.users-async-safe.aggregate.source]
user1 = { upstream = "users", path = "/users/1", timeout = "2s" }
user2 = { upstream = "users", path = "/users/2", timeout = "2s", query = { delay = "9s" } }
user3 = { upstream = "users", path = "/users/3", timeout = "2s" }

[route.tasks]
path = "/tasks"
deadline = "5s"
[route.tasks.aggregate.source]
a = { upstream = "users", path = "/users/1", query = { delay = "2s" }, select = "name" }
b = { upstream = "users", path = "/users/2", query = { delay = "1s" }, select = "name" }
c = { upstream = "users", path = "/users/3", query = { delay = "3s" }, select = "name" }

[route.team]
path = "/team/{name}"
deadline = "5s"
[route.team.aggregate]
respond = { team = "{team.team}", members = "{members}", other = "{other.upstream}" }
[route.team.aggregate.source]
team = { upstream = "teams", path = "/teams/{name}" }
members = { upstream = "users", path = "/users/{item}", for_each = "{team.members}" }
other = { upstream = "fast", path = "/" }

[route.proxy]
path = "/proxy"
deadline = "2s"
[route.proxy.aggregate]
respond = { proxy = "{data}" }
[route.proxy.aggregate.source]
data = { upstream = "teams", path = "/teams/blue" }

[route.shielded]
path = "/shielded"
deadline = "3s"
on_client_gone = "finish"
[route.shielded.aggregate.source]
user1 = { upstream = "users", path = "/users/1" }
user2 = { upstream = "users", path = "/users/2" }

[route.report]
path = "/start-background"
methods = ["POST"]
deadline = "5s"
[route.report.aggregate]
respond = { report = ["{user1.name}", "{user2.name}"] }
background = { keep = "10m" }
[route.report.aggregate.source]
user1 = { upstream = "users", path = "/users/1", query = { delay = "2s" } }
user2 = { upstream = "users", path = "/users/2", query = { delay = "2s" } }

[route.job]
path = "/jobs/{id}"
results_of = "report"
"#;

/// What the reader can try, and what it shows.
pub fn banner(addresses: Addresses, access_log: Option<&str>) -> String {
    let Addresses { listener, admin } = addresses;
    let log = access_log.map_or("here".to_owned(), |file| format!("in {file}"));
    let waterfall = match access_log {
        Some(file) => format!("--waterfall {file}"),
        None => "--waterfall access.log, with the demo started as `forebay demo --access-log access.log`,".to_owned(),
    };
    format!(
        "\
Forebay is running in front of eight simulated services. Each request writes a line of the access log {log}.
In a second terminal, one service at a time:

  curl -i http://{listener}/fast
      answered in about 10 ms

  curl -i http://{listener}/slow
      answered after 2 s, within the route's deadline of 3 s

  curl -i http://{listener}/late
      the service needs 5 s, the route's deadline is 1 s: 504 after exactly 1 s, x-forebay-reason says why

  curl -i http://{listener}/drip
      one byte each 0.5 s: never silent for long, but the deadline of 3 s counts the whole answer; broken off at 3 s

  for i in $(seq 20); do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{listener}/flaky; done | sort | uniq -c
      the service answers 500 to some and resets the connection of others: 200, the service's own 500, and 502 from
      Forebay when a second try met a reset, too

  for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{listener}/limited; done
      1/s with a burst of 3: two of them get 429; `curl -i` shows Retry-After

  for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -o /dev/null -w '%{{http_code}} after %{{time_total}} s\\n' http://{listener}/sync & done; wait
      a synchronous server takes one request of 2 s at a time; alone, the tenth client would wait 20 s. Here one is
      served, three wait, six are shed at once with 503 and Retry-After. Nobody waits longer than 5 s: of those who
      wait, the first is served after 4 s, one leaves at the queue's limit (503), one at the deadline (504)

Several services in one answer:

  curl -s http://{listener}/users-async
      three users of 1 s each, all of them after 1 s, in the order of the configuration

  curl -s http://{listener}/users-async-safe
      the second one is too late: after 2 s its place says so, the others are whole, and the log names the source

  curl -sN -H 'accept: text/event-stream' http://{listener}/tasks
      tasks of 2, 1 and 3 s: each as it completes, all after 3 s; without the header, one object

  curl -s http://{listener}/team/blue
      a team, then its three members at once: 2 s; what needs neither does not wait

  curl -s http://{listener}/proxy
      one answer, wrapped: {{\"proxy\": ...}}

  curl -s -m 0.5 http://{listener}/shielded
      curl leaves after 0.5 s, the work goes on: its log line comes after 1 s with completeness 2/2

  curl -i -X POST http://{listener}/start-background
      202 at once; http://{listener}/jobs/ID, the Location, says 202 until the report is there, after 2 s

And what all of it looks like from outside:

  curl -s http://{admin}/metrics | grep forebay_requests_total
      all of the above, counted by route and reason

  http://{admin}/ in a browser, or forebay top --admin {admin}
      live: rates, latencies, limits, and where the time of the slowest requests went

How does it hold under load? Honestly measured, from the instant at which each request was due:

  forebay load http://{listener}/sync -r 5 -d 10s --report-html load.html
      five users come each second, and the service takes one in two seconds: what the queue and the deadline let
      through, what was shed, and how long each took; load.html has the pictures;
      {waterfall} adds where the time went

Ctrl-C ends it.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::LogOutput;

    fn addresses() -> Addresses {
        Addresses { listener: "127.0.0.1:8080".parse().unwrap(), admin: "127.0.0.1:9901".parse().unwrap() }
    }

    #[test]
    fn the_configuration_names_every_upstream_with_its_address() {
        let simulator = Simulator::bind(upstreams()).expect("free ports");

        let text = config_text(addresses(), &addresses_of(&simulator), None);

        let parsed: toml::Table = text.parse().expect("TOML");
        for handle in simulator.handles() {
            let endpoint = parsed["upstream"][&handle.name]["endpoints"][0].as_str();
            assert_eq!(endpoint, Some(handle.address.to_string().as_str()));
        }
    }

    #[test]
    fn the_configuration_is_free_of_mistakes_and_warnings() {
        let simulator = Simulator::bind(upstreams()).expect("free ports");
        for file in [None, Some("access.log"), Some("a \"quoted\" \\ ${NAME}")] {
            let text = config_text(addresses(), &addresses_of(&simulator), file);

            let loaded = crate::config::parse("demo", &text, &|_| None).unwrap_or_else(|report| panic!("{report}"));

            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            let output = file.map_or(LogOutput::Stdout, |file| LogOutput::File(file.into()));
            assert_eq!(loaded.config.access_log.output, output);
        }
    }

    #[test]
    fn the_banner_tries_every_route_that_the_configuration_has() {
        let routes: toml::Table = ROUTES.parse().expect("TOML");
        let banner = banner(addresses(), None);

        for (name, route) in routes["route"].as_table().expect("a table") {
            let pattern = route["path"].as_str().expect("a path");
            let path = pattern.split('{').next().expect("what comes before a parameter");
            assert!(banner.contains(&format!("http://127.0.0.1:8080{path}")), "{name} is not in the banner");
        }
        assert!(banner.contains("http://127.0.0.1:9901/metrics"));
        assert!(banner.contains("forebay load http://127.0.0.1:8080/"));
    }

    #[test]
    fn every_route_of_the_demo_leads_to_a_simulated_upstream() {
        let routes: toml::Table = ROUTES.parse().expect("TOML");
        let names: Vec<String> = upstreams().upstreams.into_iter().map(|upstream| upstream.name).collect();

        let known = |upstream: &toml::Value| names.iter().any(|name| Some(name.as_str()) == upstream.as_str());
        for route in routes["route"].as_table().expect("a table").values() {
            let sources = route.get("aggregate").and_then(|aggregate| aggregate["source"].as_table());
            let sources = sources.into_iter().flat_map(toml::Table::values);
            let upstreams: Vec<_> = sources.chain([route]).filter_map(|from| from.get("upstream")).collect();
            assert!(upstreams.into_iter().all(known), "{route}");
        }
    }
}
