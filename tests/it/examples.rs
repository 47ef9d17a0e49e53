//! The examples in `config/examples`: each is started as it stands, with only ports and services from the environment, and
//! does what its comments promise. Services are simulated, or FastAPI on PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use futures_util::future::join_all;

use super::support::forebay::Forebay;
use super::support::http::{self, Response};
use super::support::postgres::Postgres;
use super::support::process::command;
use super::support::repository;
use super::support::services::Service;
use super::support::simulator::Simulator;

/// So many requests at once, each on a connection of its own, and how long each took.
async fn at_once(forebay: &Forebay, target: &str, count: usize) -> Vec<(Response, Duration)> {
    let timed = join_all((0..count).map(|_| http::timed_get(forebay.address(), target))).await;
    timed.into_iter().map(|(response, took)| (response.expect("an answer"), took)).collect()
}

fn of_status(answers: &[(Response, Duration)], status: u16) -> Vec<&(Response, Duration)> {
    answers.iter().filter(|(answer, _)| answer.status == status).collect()
}

/// The files of the examples, but those for the simulator.
fn sidecar_files() -> Vec<PathBuf> {
    let folders = ["config/examples", "config/examples/rehearsal"].map(repository);
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder of examples"));
    let files = entries.map(|entry| entry.expect("a file").path());
    let files = files.filter(|file| file.extension().is_some_and(|ending| ending == "toml"));
    let files: Vec<PathBuf> = files.filter(|file| !file.ends_with("upstreams.toml")).collect();
    assert_eq!(files.len(), 4, "each example has tests below: {files:?}");
    files
}

#[test]
fn every_example_is_checked_by_the_command_it_names() {
    for file in sidecar_files() {
        let mut check = command(env!("CARGO_BIN_EXE_forebay"));
        check.arg("check").arg("-c").arg(&file);

        let Output { status, stdout, stderr } = check.output().expect("it runs");

        assert!(status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&stderr));
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(said.contains("no mistakes") && !said.contains("warning"), "{}: {said}", file.display());
    }
}

mod slow_api {
    use super::*;

    const FILE: &str = "config/examples/slow-api.toml";

    #[tokio::test]
    async fn the_api_gets_eight_at_a_time_some_wait_and_the_rest_learns_at_once() {
        // It refuses the ninth request at once, and says so in its own numbers.
        let api = Simulator::start("[upstream.api]\nlatency = \"2s\"\nworkers = 8\nqueue = 0\n").await;
        let forebay = Forebay::start_example(FILE, &[("GEOCODER", &api.address("api"))]).await;

        let answers = at_once(&forebay, "/geocode?q=Ulm", 36).await;

        let (served, shed) = (of_status(&answers, 200), of_status(&answers, 503));
        assert_eq!((served.len(), shed.len()), (8, 28), "{answers:?}");
        assert!(shed.iter().all(|(answer, _)| answer.header("retry-after").is_some()));
        // Sixteen waited for half a second in vain, since the API needs 2 s for each; twelve found the queue full.
        let reason = |reason| shed.iter().filter(|(answer, _)| answer.reason() == Some(reason)).count();
        assert_eq!((reason("queue_full"), reason("queue_timeout")), (12, 16));
        assert_eq!(api.scrape().await.sum("simulated_refused_total", &[]), 0.0);
    }

    #[tokio::test]
    async fn an_api_that_hangs_holds_nobody_for_longer_than_the_deadline() {
        let hangs = "[upstream.api]\nfaults = [{ kind = \"stall_before_head\", probability = 1.0 }]\n";
        let api = Simulator::start(hangs).await;
        let forebay = Forebay::start_example(FILE, &[("GEOCODER", &api.address("api"))]).await;

        let answers = at_once(&forebay, "/geocode?q=Ulm", 4).await;

        for (answer, took) in answers {
            assert_eq!((answer.status, answer.reason()), (504, Some("first_byte_timeout")));
            // 2.5 s for the first byte, 3 s in all; the rest is the machine.
            assert!((Duration::from_millis(2500)..Duration::from_secs(6)).contains(&took), "{took:?}");
        }
    }

    #[tokio::test]
    async fn the_contract_is_kept_and_callers_learn_when_to_come_back() {
        let api = Simulator::start("[upstream.api]\nlatency = \"0s\"\n").await;
        let forebay = Forebay::start_example(FILE, &[("GEOCODER", &api.address("api"))]).await;
        let started = tokio::time::Instant::now();

        let mut answers = Vec::new();
        while of_status(&answers, 429).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(30), "no limit after {} requests", answers.len());
            answers.extend(at_once(&forebay, "/geocode?q=Ulm", 8).await);
        }

        // The burst of 40, and 20 for each second.
        let allowed = 40.0 + 20.0 * started.elapsed().as_secs_f64();
        let asked = api.scrape().await.sum("simulated_requests_total", &[]);
        assert!((40.0..=allowed).contains(&asked), "{asked} of {allowed}");
        let (refused, _) = of_status(&answers, 429)[0];
        assert_eq!((refused.reason(), refused.header("retry-after")), (Some("rate_limited"), Some("1")));
    }
}

mod mobile {
    use super::*;

    const FILE: &str = "config/examples/mobile.toml";
    const ACCOUNTS: &str = r#"
[upstream.accounts]
latency = "200ms"
body = '{"id": 7, "name": "Ada", "email": "ada@example.org"}'
"#;
    const ORDERS: &str = r#"
[upstream.orders]
latency = "100ms"
body = '[{"id": 1, "state": "sent", "items": [1, 2]}, {"id": 2, "state": "paid", "items": []}]'
"#;
    const RECOMMENDATIONS: &str = "\n[upstream.recommendations]\nlatency = \"100ms\"\nbody = '[\"tea\"]'\n";
    const NEWS: &str = "\n[upstream.news]\nlatency = \"100ms\"\nbody = '\"Sale\"'\n";
    const HANGS: &str = "faults = [{ kind = \"stall_before_head\", probability = 1.0 }]\n";

    async fn behind(services: &[&str]) -> (Simulator, Forebay) {
        let simulator = Simulator::start(&services.concat()).await;
        let [accounts, orders, recommendations, news] =
            ["accounts", "orders", "recommendations", "news"].map(|name| simulator.address(name));
        let addresses: [(&str, &dyn ToString); 4] =
            [("ACCOUNTS", &accounts), ("ORDERS", &orders), ("RECOMMENDATIONS", &recommendations), ("NEWS", &news)];
        let forebay = Forebay::start_example(FILE, &addresses).await;
        (simulator, forebay)
    }

    #[tokio::test]
    async fn the_screen_is_one_answer_of_four_services_without_what_it_does_not_show() {
        let (_services, forebay) = behind(&[ACCOUNTS, ORDERS, RECOMMENDATIONS, NEWS]).await;

        let answer = http::get(forebay.address(), "/v1/home").await.expect("an answer");

        let screen = serde_json::json!({
            "name": "Ada",
            "orders": [{"id": 1, "state": "sent"}, {"id": 2, "state": "paid"}],
            "recommended": ["tea"],
            "news": "Sale",
        });
        assert_eq!((answer.status, answer.json()), (200, screen));
        assert_eq!(answer.header("x-forebay-completeness"), Some("4/4"));
    }

    #[tokio::test]
    async fn services_that_hang_cost_their_part_and_not_the_screen() {
        let (_services, forebay) = behind(&[ACCOUNTS, ORDERS, RECOMMENDATIONS, HANGS, NEWS, HANGS]).await;

        let (answer, took) = http::timed_get(forebay.address(), "/v1/home").await;

        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-forebay-completeness"), Some("3/4"));
        let screen = answer.json();
        assert_eq!((&screen["name"], &screen["recommended"]), (&"Ada".into(), &serde_json::json!([])));
        assert!(screen.get("news").is_none(), "{screen}");
        assert!(took >= Duration::from_millis(400), "they were waited for: {took:?}");
        assert!(took < Duration::from_millis(1500) + crate::support::SLACK, "the deadline and the machine: {took:?}");
        let reasons = forebay.idle().await;
        assert_eq!(reasons.sum("forebay_requests_total", &[("route", "home"), ("reason", "partial")]), 1.0);
    }

    #[tokio::test]
    async fn without_an_account_there_is_an_error_within_its_time_and_no_half_screen() {
        let (services, forebay) = behind(&[ACCOUNTS, HANGS, ORDERS, RECOMMENDATIONS, NEWS]).await;

        let (answer, took) = http::timed_get(forebay.address(), "/v1/home").await;

        let answer = answer.expect("an answer");
        assert!(answer.status >= 500, "{}", answer.text());
        assert!((Duration::from_millis(800)..Duration::from_secs(4)).contains(&took), "{took:?}");
        let orders = [("upstream", "orders")];
        assert_eq!(services.scrape().await.sum("simulated_requests_total", &orders), 0.0, "nobody's orders");
    }

    #[tokio::test]
    async fn a_phone_in_a_loop_is_stopped_and_another_is_not() {
        let (_services, forebay) = behind(&[ACCOUNTS, ORDERS, RECOMMENDATIONS, NEWS]).await;
        let ask = async |device| {
            let id = [("x-device-id", device)];
            http::request(forebay.address(), "GET", "/v1/home", &id, b"").await.expect("an answer").status
        };

        let looping = join_all((0..30).map(|_| ask("a"))).await;
        let other = ask("b").await;

        assert!(looping.iter().filter(|status| **status == 200).count() >= 10, "{looping:?}");
        assert!(looping.contains(&429), "{looping:?}");
        assert_eq!(other, 200);
    }
}

mod database {
    use super::*;

    const FILE: &str = "config/examples/database.toml";

    async fn service() -> (Postgres, Service, Forebay) {
        let database = Postgres::start().await;
        let service = Service::app(&["--database", &database.url(), "--pool", "5", "--acquire-timeout", "0.3"]).await;
        let forebay = Forebay::start_example(FILE, &[("SERVICE", &service.address)]).await;
        (database, service, forebay)
    }

    async fn pool_errors(service: &Service) -> serde_json::Value {
        http::get(service.address, "/pool-errors").await.expect("an answer").json()["acquire_timeouts"].clone()
    }

    async fn report(forebay: &Forebay, tenant: &str) -> Response {
        let header = [("x-tenant", tenant)];
        http::request(forebay.address(), "GET", "/reports/sales", &header, b"").await.expect("an answer")
    }

    /// The service alone fails under less (`e2e/services.rs`).
    #[tokio::test]
    async fn more_load_than_the_pool_bears_is_served_or_turned_away_and_never_an_error_of_the_pool() {
        let (_database, service, forebay) = service().await;

        let answers = at_once(&forebay, "/users", 60).await;

        let (served, shed) = (of_status(&answers, 200), of_status(&answers, 503));
        assert_eq!(served.len() + shed.len(), 60, "{answers:?}");
        // Five in the pool and twenty in the queue, at least; places that became free meanwhile are used again.
        assert!(served.len() >= 5 && !shed.is_empty(), "{} were served", served.len());
        assert!(shed.iter().all(|(answer, _)| answer.header("retry-after").is_some()), "{shed:?}");
        assert_eq!(pool_errors(&service).await, 0);
    }

    #[tokio::test]
    async fn reports_leave_the_pool_to_the_users() {
        let (_database, service, forebay) = service().await;

        let tenants = ["a", "b", "c", "d", "e", "f"];
        let reports = join_all(tenants.map(|tenant| report(&forebay, tenant)));
        let users = async {
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.extend(at_once(&forebay, "/users", 4).await);
            }
            answers
        };
        let (reports, users) = tokio::join!(reports, users);

        // One runs and two wait, each 1 s; the others are turned away.
        let with = |status| reports.iter().filter(|answer| answer.status == status).count();
        assert_eq!((with(200), with(503)), (3, 3), "{reports:?}");
        assert_eq!(of_status(&users, 200).len(), 20, "{users:?}");
        assert_eq!(pool_errors(&service).await, 0);
    }

    #[tokio::test]
    async fn one_tenant_has_two_reports_at_a_time() {
        let (_database, _service, forebay) = service().await;
        let (greedy, other) = tokio::join!(join_all((0..4).map(|_| report(&forebay, "a"))), report(&forebay, "b"));

        let refused = greedy.iter().filter(|answer| answer.reason() == Some("client_limit")).count();
        assert_eq!((refused, other.status), (2, 200), "{greedy:?}");
    }
}

mod rehearsal {
    use super::*;

    /// What `rehearse.sh` says and its exit code. On a machine that is too busy for any statement it says that
    /// the run is void; then it is tried again, and a machine that is always so is a failure.
    async fn rehearse(variables: &[(&str, &str)]) -> (i32, String) {
        let binary = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().expect("a file is in a folder");
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut said = String::new();
        for _ in 0..4 {
            let reports = tempfile::tempdir().expect("a temporary folder");
            let mut script = command(repository("config/examples/rehearsal/rehearse.sh"));
            script.arg(reports.path()).env("PATH", &path).env("DURATION", "3s").envs(variables.iter().copied());
            let output =
                tokio::task::spawn_blocking(move || script.output()).await.expect("no panic").expect("it runs");
            let text = [output.stdout, output.stderr].concat();
            said = String::from_utf8_lossy(&text).into_owned();
            match output.status.code().expect("it ends by itself") {
                4 => assert!(said.contains("VOID"), "{said}"),
                code => {
                    assert!(reports.path().join("peak.html").exists(), "{said}");
                    return (code, said);
                }
            }
        }
        panic!("void each time: {said}");
    }

    #[tokio::test]
    async fn three_times_of_what_the_service_bears_passes_every_gate_and_is_shed() {
        let (code, said) = rehearse(&[]).await;

        assert_eq!(code, 0, "{said}");
        assert!(said.contains(" queue_full"), "the peak was no peak: {said}");
    }

    #[tokio::test]
    async fn a_service_that_became_slower_misses_its_gates() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let slower = folder.path().join("upstreams.toml");
        std::fs::write(&slower, "[upstream.orders]\nlatency = \"2s\"\nworkers = 16\nqueue = 200\n").expect("written");

        let (code, said) = rehearse(&[("UPSTREAMS", slower.to_str().expect("a plain path"))]).await;

        assert_eq!(code, 3, "{said}");
        assert!(said.contains("MISS  p99<1500ms"), "{said}");
    }
}
