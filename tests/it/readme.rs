//! The README's commands are run, and what they print is what the README shows.
//!
//! Blocks marked `sh` are commands, the `text` block after each is its output. `sh not-run` is for what changes the
//! machine. They run in order, with the demo behind them and the first `toml` block as `forebay.toml`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::process::{Process, command};
use crate::support::repository;

/// Commands with the output that the document shows.
#[derive(Debug, PartialEq)]
struct Example {
    commands: String,
    output: String,
}

/// The code blocks of a document: the words after the fence, and the text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let text: String = lines.by_ref().take_while(|line| *line != "```").flat_map(|line| [line, "\n"]).collect();
            blocks.push((kind.to_owned(), text));
        }
    }
    blocks
}

fn examples(blocks: &[(String, String)]) -> Vec<Example> {
    let commands = blocks.iter().enumerate().filter(|(_, (kind, _))| kind == "sh");
    let example = |(index, (_, commands)): (usize, &(String, String))| {
        let (kind, output) = blocks.get(index + 1).expect("commands are followed by what they print");
        assert_eq!(kind, "text", "after the commands {commands}");
        Example { commands: commands.clone(), output: output.clone() }
    };
    commands.map(example).collect()
}

/// The same words; ids may be any, and times may be longer by what a busy machine adds.
fn shows(expected: &str, actual: &str) -> bool {
    let (expected, actual): (Vec<_>, Vec<_>) =
        (expected.split_whitespace().collect(), actual.split_whitespace().collect());
    expected.len() == actual.len() && expected.iter().zip(&actual).all(|(expected, actual)| same(expected, actual))
}

fn same(expected: &str, actual: &str) -> bool {
    if let (Some(expected), Some(actual)) = (seconds(expected), seconds(actual)) {
        return (expected - 0.1..expected + 2.0).contains(&actual);
    }
    without_ids(expected) == without_ids(actual)
}

fn seconds(word: &str) -> Option<f64> {
    word.contains('.').then(|| word.parse().ok())?
}

/// Each run of 32 hexadecimal digits becomes a `*`.
fn without_ids(word: &str) -> String {
    let is_id = |part: &str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    word.split('"').map(|part| if is_id(part) { "*" } else { part }).collect::<Vec<_>>().join("\"")
}

/// `forebay demo` and where it listens.
async fn demo() -> (Process, SocketAddr, SocketAddr) {
    let mut run = command(env!("CARGO_BIN_EXE_forebay"));
    run.arg("demo");
    let mut demo = Process::start("forebay demo", run);
    let (sidecar, admin) = demo
        .output("says where it listens", |lines| {
            let address = |name: &str| {
                let line = lines.iter().find(|line| line.contains("listening on") && line.ends_with(name))?;
                line.split_once("http://")?.1.split_once(' ')?.0.parse().ok()
            };
            Some((address("(main)")?, address("(admin)")?))
        })
        .await;
    (demo, sidecar, admin)
}

fn run(commands: &str, folder: &Path) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_forebay")).parent().expect("a file is in a folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash").arg("-c").arg(commands).current_dir(folder).env("PATH", path).output();
    let output = output.expect("bash runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn the_commands_of_the_readme_print_what_it_shows() {
    let readme = std::fs::read_to_string(repository("README.md")).expect("the README");
    let blocks = blocks(&readme);
    let examples = examples(&blocks);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_, file) = blocks.iter().find(|(kind, _)| kind == "toml").expect("a configuration");
    std::fs::write(folder.path().join("forebay.toml"), file).expect("the folder is writable");
    let (_demo, sidecar, admin) = demo().await;

    assert!(examples.len() >= 8, "{examples:?}");
    for Example { commands, output } in examples {
        // The demo takes other ports when these are in use.
        let commands =
            commands.replace("127.0.0.1:8080", &sidecar.to_string()).replace("127.0.0.1:9901", &admin.to_string());
        let printed = run(&commands, folder.path());

        assert!(shows(&output, &printed), "{commands}\nprinted\n{printed}\nand the README shows\n{output}");
    }
}

#[test]
fn links_of_the_documents_lead_to_files() {
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "docs/operations.md",
        "docs/aggregation.md",
        "docs/runbooks.md",
    ] {
        let text = std::fs::read_to_string(repository(document)).expect(document);
        let folder = repository(document).parent().expect("a file is in a folder").to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let (file, _) = link.split_once('#').unwrap_or((link, ""));
            assert!(folder.join(file).exists(), "{document} links to {link}");
        }
    }
}

#[test]
fn output_is_compared_by_its_words() {
    assert!(shows("504 after 1.002 s", "504 after 1.4 s\n"));
    assert!(!shows("504 after 1.002 s", "504 after 3.4 s"));
    assert!(!shows("504 after 1.002 s", "503 after 1.002 s"));
    assert!(!shows("1", "2"));
    let id = |digit: &str| format!("{{\"request_id\":\"{}\"}}", digit.repeat(32));
    assert!(shows(&id("a"), &id("7")));
    assert!(!shows(&id("a"), &id("x")));
}

#[test]
fn commands_are_found_with_their_output() {
    let document = "```sh not-run\nx\n```\n\n```sh\na\nb\n```\ntext\n```text\nc\n```\n";

    let found = examples(&blocks(document));

    assert_eq!(found, [Example { commands: "a\nb\n".into(), output: "c\n".into() }]);
}

/// `SECURITY.md` names files and, after each, tests in it.
#[test]
fn tests_named_in_the_security_document_exist() {
    let document = std::fs::read_to_string(repository("SECURITY.md")).expect("the document");
    let rows = document.lines().filter(|line| line.starts_with("| ")).filter_map(|row| row.rsplit(" | ").next());
    let mut named = 0;
    for row in rows {
        let mut text = String::new();
        for word in row.split('`').skip(1).step_by(2) {
            if word.contains('/') {
                text = std::fs::read_to_string(repository(word)).unwrap_or_else(|error| panic!("{word}: {error}"));
            } else {
                assert!(text.contains(&format!("fn {word}(")), "there is no test {word} in {row}");
                named += 1;
            }
        }
    }

    assert!(named > 20, "{named}");
}
