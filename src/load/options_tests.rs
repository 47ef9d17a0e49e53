//! Command lines of `load`, as they come to models and as they are refused.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    options: LoadOptions,
}

fn parse(line: &str) -> Result<LoadOptions, String> {
    let arguments = std::iter::once("load").chain(line.split_whitespace());
    Cli::try_parse_from(arguments).map(|cli| cli.options).map_err(|error| error.to_string())
}

fn model(line: &str) -> Result<Model, String> {
    parse(&format!("http://127.0.0.1:1/ {line}")).and_then(|options| options.load.model())
}

#[test]
fn the_url_alone_is_fifty_independent_requests_per_second_for_ten_seconds() {
    let options = parse("http://127.0.0.1:1/").expect("a URL is enough");

    assert_eq!(options.load.model(), Ok(Model::Open(Arrivals::constant(50.0, Spacing::Poisson))));
    assert_eq!(options.load.total(), Duration::from_secs(10));
    assert!(options.load.is_default());
}

#[test]
fn models_are_what_was_asked_for() {
    let even = |rate| Arrivals::constant(rate, Spacing::Even);
    for (line, expected) in [
        ("-r 200/s --arrivals even", Model::Open(even(200.0))),
        ("-r 200 --arrivals even", Model::Open(even(200.0))),
        ("-r 30/min --arrivals even", Model::Open(even(0.5))),
        ("-r 10/s --arrivals burst:5", Model::Open(Arrivals::constant(10.0, Spacing::Burst { size: 5 }))),
        ("--users 7 --think 1s", Model::Closed { users: 7, think: Think::Fixed(1_000_000_000) }),
        ("--users 7 --think ~1ms", Model::Closed { users: 7, think: Think::Exponential(1_000_000) }),
        (
            "-r 5/s --sessions 2.5 --arrivals even",
            Model::Sessions { starts: even(5.0), mean_requests: 2.5, think: Think::Fixed(0) },
        ),
    ] {
        assert_eq!(model(line), Ok(expected), "{line}");
    }
}

#[test]
fn shapes_spread_over_the_run() {
    let profile = |line: &str| match model(line).expect(line) {
        Model::Open(Arrivals::Shaped { profile, .. }) => profile,
        other => panic!("{other:?}"),
    };

    assert_eq!(profile("-d 20s --arrivals ramp:0/s..100/s"), Profile::ramp(0.0, 100.0, 20.0));
    assert_eq!(profile("-d 20s --arrivals even+steps:10/s,30/s"), Profile::steps([(10.0, 10.0), (30.0, 10.0)]));
    assert_eq!(profile("--arrivals sine:20/s,10/s,5s"), Profile::Sine { mean: 20.0, amplitude: 10.0, period: 5.0 });
    // The first rate holds until it counts.
    let warmed = profile("-d 10s --warm-up 5s --arrivals ramp:10/s..20/s");
    assert!((warmed.rate(4.0) - 10.0).abs() < 1e-9 && (warmed.rate(10.0) - 15.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_meant_is_told_with_what_to_write() {
    for (line, part) in [
        ("", "<URL>"),
        ("127.0.0.1:8080/", "http://127.0.0.1:8080/"),
        ("http://a/ -r 0.5", "5/min"),
        ("http://a/ -r 200/s --users 3", "--users"),
        ("http://a/ -d 10", "10s"),
        ("http://a/ -d 0s", "more than zero"),
        ("http://a/ --arrivals random", "poisson"),
        ("http://a/ --arrivals even+poisson", "twice"),
        ("http://a/ --arrivals ramp:5/s", "ramp:0/s..500/s"),
        ("http://a/ --arrivals ramp:a..9", "100/s"),
        ("http://a/ --users 0", "0"),
        ("http://a/ --sessions 0.5", "1 or more"),
        ("http://a/ --warm-up 500ms", "whole seconds"),
        ("http://a/ -H nocolon", "name: value"),
        ("http://a/ --check latency", "status=200"),
        ("http://a/ --targets b", "--targets"),
        ("http://a/ --no-reuse --requests-per-connection 3", "--no-reuse"),
        ("http://a/ --cert c", "--key"),
        ("--config a", "--route"),
        ("http://a/ --abort-on-fail", "--fail"),
    ] {
        let error = parse(line).map(|_| ()).expect_err(line);
        assert!(error.contains(part), "{line}: {error}");
    }
    for (line, part) in [
        ("-r 5/s --arrivals ramp:0/s..9/s", "--rate"),
        ("-r 0", "sends nothing"),
        ("-r 0/s", "sends nothing"),
        ("--think 1s", "--users"),
        ("--arrivals sine:10/s,20/s,5s", "below 0"),
    ] {
        let error = model(line).expect_err(line);
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn the_highest_rate_is_known_beforehand() {
    for (line, peak) in [
        ("-r 5/s", Some(5.0)),
        ("--arrivals ramp:9/s..3/s", Some(9.0)),
        ("--arrivals sine:9/s,3/s,5s", Some(12.0)),
        ("-r 5/s --sessions 3", Some(15.0)),
        ("--users 3", None),
    ] {
        let options = parse(&format!("http://a/ {line}")).expect(line);
        assert_eq!(options.load.peak_rate(&options.load.model().unwrap()), peak, "{line}");
    }
}

#[test]
fn a_body_makes_it_a_post() {
    let method = |line: &str| parse(&format!("http://a/ {line}")).expect(line).request.method_or_default();

    assert_eq!(method(""), Method::GET);
    assert_eq!(method("--body x"), Method::POST);
    assert_eq!(method("-X put --body x"), Method::PUT);
}

#[test]
fn credentials_do_not_reach_reports() {
    let line = ["load", "-H", "Authorization: Bearer x", "-Hcookie: a=b", "--header=x-api-key: k", "-H", "accept: y"];

    assert_eq!(
        masked(line.map(str::to_owned)),
        ["load", "-H", "Authorization: ***", "-Hcookie: ***", "--header=x-api-key: ***", "-H", "accept: y"]
    );
}
