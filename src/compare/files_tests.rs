//! Reading runs and writing reports.

use clap::Parser;

use super::super::bootstrap::Random;
use super::super::testing::{SERVER, Server};
use super::*;
use crate::load::result::{Reason, Rule, Verdict as RunVerdict};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

struct Folder(tempfile::TempDir);

impl Folder {
    /// With `fast.json`, `slow.json`, `void.json`, `other.json` of another format and `text.json` of none.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let mut random = Random::new(1);
        let server = Server { seconds: 30, ..SERVER };
        let fast = server.input("", &mut random).result;
        let slow = Server { median_ns: 2.0 * server.median_ns, ..server }.input("", &mut random).result;
        let reason = Reason { rule: Rule::Lateness, text: "late".into() };
        let void = RunResult { verdict: RunVerdict::new(false, vec![reason]), ..fast.clone() };
        for (name, result) in [("fast.json", fast), ("slow.json", slow), ("void.json", void)] {
            folder.write(name, &serde_json::to_string(&result).expect("has a JSON form"));
        }
        folder.write("other.json", "{\"schema\": \"forebay-load/9\"}");
        folder.write("text.json", "{}");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("can be written");
    }

    /// The words that end in `.json` or `.html` are files of this folder.
    fn run(&self, line: &str) -> Result<(String, Exit), (Exit, String)> {
        let words = line.split_whitespace().map(|word| match word.ends_with(".json") || word.ends_with(".html") {
            true => self.0.path().join(word).display().to_string(),
            false => word.to_owned(),
        });
        let words = ["compare", "--resamples", "200"].map(String::from).into_iter().chain(words);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(&Line::parse_from(words).options, false))
    }

    fn exit(&self, line: &str) -> Exit {
        self.run(line).map_or_else(|(exit, _)| exit, |(_, exit)| exit)
    }
}

#[test]
fn the_exit_code_says_what_was_asked_for() {
    let folder = Folder::new();
    let table = [
        ("fast.json slow.json", Exit::Done),
        ("--fail-on-worse fast.json slow.json", Exit::GateMissed),
        ("--fail-on-worse slow.json fast.json", Exit::Done),
        ("--fail-on-undecided fast.json slow.json", Exit::GateMissed),
        ("--fail-on-undecided --metrics p50 fast.json slow.json", Exit::Done),
        ("fast.json void.json", Exit::Void),
        ("--allow-void fast.json void.json", Exit::Done),
        ("fast.json", Exit::Usage),
        ("fast.json none.json", Exit::Usage),
        ("fast.json text.json", Exit::Usage),
        ("--report-html no/such.html fast.json fast.json", Exit::Failed),
    ];
    for (line, expected) in table {
        assert_eq!(folder.exit(line), expected, "{line}");
    }
}

#[test]
fn reports_are_written_and_the_json_is_the_comparison() {
    let folder = Folder::new();

    let line = "--json --report-json c.json --report-html c.html fast.json fast.json -- slow.json";
    let (shown, _) = folder.run(line).expect("compares");

    let written = std::fs::read_to_string(folder.0.path().join("c.json")).expect("written");
    let comparison: Comparison = serde_json::from_str(&written).expect("parses");
    assert_eq!(shown, written);
    assert_eq!((comparison.verdict, comparison.before.runs.len()), (Verdict::Worse, 2));
    assert!(folder.0.path().join("c.html").exists());
}

#[test]
fn a_file_of_another_kind_is_named_with_what_to_do() {
    let folder = Folder::new();
    let message = |line| folder.run(line).expect_err("is no result").1;

    assert!(
        message("fast.json other.json").ends_with("is of the format forebay-load/9, this program reads forebay-load/1")
    );
    // An object, lines of JSON, no JSON, nothing.
    for text in ["{}", "{\"a\": 1}\n{\"a\": 2}\n", "#[Mean    =", ""] {
        folder.write("text.json", text);
        let message = message("text.json fast.json");
        assert!(
            message.contains("is no report of a load test: write one with `forebay load --report-json"),
            "{message}"
        );
    }
    assert!(message("--report-json no/such.json fast.json fast.json").ends_with("; make the folder first"));
    assert!(message("none.json fast.json").starts_with("cannot read "));
}
