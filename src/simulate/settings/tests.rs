//! What is understood, and what mistakes say.

use std::sync::Arc;

use super::*;

fn parse_one(body: &str) -> Upstream {
    Settings::parse(&format!("[upstream.a]\n{body}")).expect("valid settings").upstreams.remove(0)
}

fn mistake(text: &str) -> String {
    Settings::parse(text).expect_err("a mistake is found").to_string()
}

#[test]
fn every_key_is_understood() {
    let settings = Settings::parse(
        r#"
        seed = 7
        metrics = { address = "127.0.0.1:9910" }

        [upstream.slow]
        address = "127.0.0.1:9001"
        latency = { uniform = { min = "100ms", max = "2s" } }
        workers = 4
        queue = 8
        discipline = "ps"
        schedule_from = "first_request"
        body_size = "4KiB"
        status = 201
        errors = { 500 = 0.25, 503 = 0.5 }
        faults = [
            { kind = "truncate", probability = 0.1 },
            { kind = { drip = { bytes = 1, interval = "1s" } }, probability = 0.2 },
        ]
        schedule = [
            { at = "4s", for = "1s", stall = true },
            { at = "9s", for = "10s", factor = { from = 1, to = 3.5 }, errors = { 503 = 0.5 } },
            { at = "1m", for = "1s", every = "10s", workers = 1, latency = "1s", faults = [{ kind = "bad_json", probability = 1.0 }] },
        ]
        body = "{path}"
        content_type = "text/plain"
        allow_control = true
        "#,
    )
    .expect("valid settings");

    assert_eq!(settings.seed, 7);
    assert_eq!(settings.metrics, Some("127.0.0.1:9910".parse().unwrap()));
    assert_eq!(
        settings.upstreams,
        [Upstream {
            name: "slow".to_owned(),
            address: "127.0.0.1:9001".parse().unwrap(),
            latency: Latency::Uniform { min: Duration::from_millis(100), max: Duration::from_secs(2) },
            capacity: Capacity::Workers { workers: NonZeroUsize::new(4).unwrap(), queue: 8 },
            discipline: Discipline::Ps,
            schedule: Schedule { changes: schedule() },
            schedule_from: ScheduleFrom::FirstRequest,
            body_size: 4096,
            status: StatusCode::CREATED,
            errors: vec![(StatusCode::INTERNAL_SERVER_ERROR, 0.25), (StatusCode::SERVICE_UNAVAILABLE, 0.5)],
            faults: vec![
                Fault { kind: FaultKind::Truncate, probability: 0.1 },
                Fault {
                    kind: FaultKind::Drip { bytes: NonZeroUsize::MIN, interval: Duration::from_secs(1) },
                    probability: 0.2
                },
            ],
            body: "{path}".to_owned(),
            content_type: HeaderValue::from_static("text/plain"),
            allow_control: true,
        }]
    );
}

#[test]
fn a_fixed_latency_is_just_a_duration() {
    assert_eq!(parse_one("latency = \"250ms\"").latency, Latency::Fixed(Duration::from_millis(250)));
    assert_eq!(parse_one("latency = { fixed = \"2s\" }").latency, Latency::Fixed(Duration::from_secs(2)));
}

#[test]
fn a_sync_server_has_the_queue_of_pythons_http_server_unless_told_otherwise() {
    assert_eq!(parse_one("sync = true").capacity, Capacity::Sync { queue: 5 });
    assert_eq!(parse_one("sync = true\nqueue = 1").capacity, Capacity::Sync { queue: 1 });
}

#[test]
fn an_empty_table_is_an_upstream_that_answers_at_once() {
    assert_eq!(parse_one(""), Upstream::new("a"));
}

#[test]
fn mistakes_show_their_line_and_what_to_write() {
    let unknown = mistake("[upstream.a]\nlatancy = \"1s\"");
    assert!(unknown.contains("line 2") && unknown.contains("latancy") && unknown.contains("`latency`"), "{unknown}");

    let unit = mistake("[upstream.a]\nlatency = \"1 second\"");
    assert!(unit.contains("line 2") && unit.contains("\"1 second\""), "{unit}");

    let range = mistake("[upstream.a]\nerrors = { 500 = 1.5 }");
    assert!(range.contains("between 0 and 1"), "{range}");

    let status = mistake("[upstream.a]\nstatus = 101");
    assert!(status.contains("200 to 599"), "{status}");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    assert!(mistake("").contains("[upstream.NAME]"));
    assert!(mistake("[upstream.a]\nqueue = 3").contains("add `workers`"));
    assert!(mistake("[upstream.a]\nsync = true\nworkers = 2").contains("remove `workers`"));
    assert!(mistake("[upstream.a]\nerrors = { 500 = 0.6, 503 = 0.6 }").contains("more than 1"));
    assert!(
        mistake("[upstream.a]\nlatency = { uniform = { min = \"2s\", max = \"1s\" } }").contains("above its `max`")
    );
}

/// The schedule of the test of all keys.
fn schedule() -> Vec<Change> {
    let second = Duration::from_secs(1);
    vec![
        Change { at: 4 * second, lasts: Some(second), stall: true, ..Change::default() },
        Change {
            at: 9 * second,
            lasts: Some(10 * second),
            factor: Some(Factor { from: 1.0, to: 3.5 }),
            errors: Some(vec![(StatusCode::SERVICE_UNAVAILABLE, 0.5)]),
            ..Change::default()
        },
        Change {
            at: 60 * second,
            lasts: Some(second),
            every: Some(10 * second),
            workers: Some(NonZeroUsize::MIN),
            latency: Some(Latency::Fixed(second)),
            faults: Some(vec![Fault { kind: FaultKind::BadJson, probability: 1.0 }]),
            ..Change::default()
        },
    ]
}

#[test]
fn every_distribution_is_understood() {
    let millis = Duration::from_millis;
    let fixed = |count| Latency::Fixed(millis(count));
    let table = [
        (
            "{ normal = { mean = \"90ms\", sd = \"9ms\" } }",
            Latency::Normal { mean: millis(90), sd: millis(9), min: millis(0) },
        ),
        (
            "{ lognormal = { median = \"40ms\", p99 = \"2s\" } }",
            Latency::Lognormal { median: millis(40), p99: millis(2000) },
        ),
        (
            "{ pareto = { min = \"1ms\", alpha = 1.5, max = \"1s\" } }",
            Latency::Pareto { min: millis(1), alpha: 1.5, max: millis(1000) },
        ),
        ("{ exponential = { mean = \"25ms\" } }", Latency::Exponential { mean: millis(25) }),
        (
            "{ mix = [{ weight = 3, latency = \"1ms\" }, { weight = 1, latency = { fixed = \"9ms\" } }] }",
            Latency::mix([(3.0, fixed(1)), (1.0, fixed(9))]),
        ),
    ];
    for (written, expected) in table {
        assert_eq!(parse_one(&format!("latency = {written}")).latency, expected, "{written}");
    }
}

#[test]
fn distributions_that_cannot_be_show_their_line() {
    let table = [
        ("normal = { mean = \"1s\", sd = \"0s\" }", "write { fixed = "),
        ("normal = { mean = \"1s\", sd = \"1ms\", min = \"2s\" }", "more than five times `sd` above `mean`"),
        ("lognormal = { median = \"2s\", p99 = \"1s\" }", "below its `p99`"),
        ("lognormal = { median = \"2s\" }", "missing field `p99`"),
        ("pareto = { min = \"1s\", alpha = 1.5, max = \"1s\" }", "below its `max`"),
        ("pareto = { min = \"1s\", alpha = 0.0, max = \"2s\" }", "between 0.01 and 100"),
        ("mix = [{ weight = -1, latency = \"1s\" }]", "not negative"),
        ("mix = []", "a part with a weight above zero"),
        ("hdr = { file = \"a\" }", "missing field `unit`"),
        ("gamma = { mean = \"1s\" }", "expected one of"),
    ];
    for (written, expected) in table {
        let error = mistake(&format!("[upstream.a]\nlatency = {{ {written} }}"));
        assert!(error.contains("line 2") && error.contains(expected), "{written}: {error}");
    }
}

#[test]
fn schedules_that_cannot_be_show_their_line() {
    let table = [
        ("at = \"1s\"", "a change that changes nothing"),
        ("at = \"1s\"\nstall = true\nfactor = 2", "nothing is worked on during a stall"),
        ("at = \"1s\"\nworkers = 2", "give the upstream itself `workers`"),
        ("at = \"1s\"\nfactor = { from = 1, to = 2 }", "add `for`"),
        ("at = \"1s\"\nfactor = -1.0", "between 0 and 1000000"),
        ("at = \"1s\"\nfor = \"2s\"\nevery = \"2s\"\nstall = true", "a `for` that is shorter"),
        ("at = \"1s\"\nfor = \"1us\"\nevery = \"2us\"\nstall = true", "at least \"1ms\""),
        ("at = \"1s\"\nfor = \"0s\"\nstall = true", "more than zero"),
        ("at = \"9999d\"\nstall = true", "at most \"365d\""),
        ("at = \"1s\"\nerrors = { 500 = 0.6, 503 = 0.6 }", "more than 1"),
        ("stall = true", "missing field `at`"),
    ];
    for (written, expected) in table {
        let error = mistake(&format!("[upstream.a]\n\n[[upstream.a.schedule]]\n{written}"));
        let shows_line = (3..=6).any(|line| error.contains(&format!("line {line}")));
        assert!(shows_line && error.contains(expected), "{written}: {error}");
    }
    let stall = "[[upstream.a.schedule]]\nat = \"1s\"\nfor = \"1s\"\nevery = \"9s\"\nstall = true\n";
    assert!(mistake(&format!("{stall}{stall}")).contains("only one stall may come again"));
}

#[test]
fn a_discipline_needs_someone_who_waits() {
    assert_eq!(parse_one("workers = 2\ndiscipline = \"lifo\"").discipline, Discipline::Lifo);
    assert_eq!(parse_one("discipline = \"none\"").capacity, Capacity::Unlimited);
    assert!(mistake("[upstream.a]\ndiscipline = \"ps\"").contains("add `workers`"));
    assert!(mistake("[upstream.a]\nworkers = 1\ndiscipline = \"none\"").contains("remove `workers`"));
    assert!(mistake("[upstream.a]\nsync = true\ndiscipline = \"lifo\"").contains("remove `discipline`"));
}

#[test]
fn files_are_found_beside_the_settings_and_their_mistakes_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("upstreams.toml");
    std::fs::write(&file, "[upstream.a]\nworkers = 1\nlatency = { empirical = { file = \"a.txt\" } }").unwrap();

    let missing = Settings::load(&file).expect_err("no such file").to_string();
    assert!(missing.starts_with("line 3: [upstream.a]: a.txt: No such file"), "{missing}");
    std::fs::write(folder.path().join("a.txt"), "10ms\n11\n").unwrap();
    let wrong = Settings::load(&file).expect_err("no unit").to_string();
    assert!(wrong.contains("a.txt: line 2: \"11\" has no unit"), "{wrong}");

    std::fs::write(folder.path().join("a.txt"), "10ms\n").unwrap();
    let settings = Settings::load(&file).expect("valid settings");
    assert_eq!(settings.upstreams[0].latency.quantile(0.5), Duration::from_millis(10));
    assert!(matches!(&settings.upstreams[0].latency, Latency::Recorded(table) if Arc::strong_count(table) == 1));
    assert!(settings.warnings()[0].contains("requests wait twice"), "{:?}", settings.warnings());
}

#[test]
fn a_file_for_the_sidecar_is_said_to_be_one() {
    for (file, telling) in [
        ("[listener]\naddress = \"127.0.0.1:0\"\n[route.a]\npath = \"/\"", "it has [route]"),
        ("[upstream.a]\nendpoints = [\"127.0.0.1:9001\"]", "it has upstreams with `endpoints`"),
    ] {
        let told = mistake(file);
        assert!(told.contains(telling) && told.contains("`forebay check -c FILE`"), "{told}");
    }
    let told = mistake("[admin]\ntoken: hunter2\n");
    assert!(told.contains("line 2") && !told.contains("hunter2"), "{told}");
    assert!(mistake("[upstream.a]\nlatncy = \"1s\"").contains("unknown field `latncy`"));
}

#[test]
fn numbers_are_finite() {
    for setting in [
        "errors = { 503 = nan }",
        "faults = [{ kind = \"truncate\", probability = inf }]",
        "schedule = [{ at = \"1s\", factor = nan }]",
        "schedule = [{ at = \"1s\", for = \"1s\", factor = { from = 1.0, to = inf } }]",
        "latency = { pareto = { min = \"1ms\", alpha = nan, max = \"1s\" } }",
        "latency = { mix = [{ weight = inf, latency = \"1ms\" }] }",
        "latency = { mix = [{ weight = nan, latency = \"1ms\" }] }",
        "latency = \"nanms\"",
        "workers = inf",
    ] {
        let told = mistake(&format!("[upstream.a]\n{setting}"));
        assert!(told.contains("line 2"), "{told}");
    }
}

#[test]
fn bodies_are_bounded() {
    assert!(mistake("[upstream.a]\nbody_size = \"1GiB\"").contains("at most \"64MiB\""));
    assert!(mistake("[upstream.a]\nbody_size = \"7\"").contains("line 2"));
}

#[test]
fn the_example_in_the_repository_is_right() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/upstreams.toml");

    let settings = Settings::load(&file).unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(settings.upstreams.len(), 8);
    assert_eq!(settings.warnings(), Vec::<String>::new());
}

#[test]
fn the_examples_in_the_readme_are_right() {
    let readme = include_str!("../../../README.md");
    let examples: Vec<&str> =
        readme.split("```toml simulate\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();

    assert!(!examples.is_empty());
    for example in examples {
        Settings::parse(example).unwrap_or_else(|error| panic!("{example}\n{error}"));
    }
}
