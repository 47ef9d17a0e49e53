//! The files in `config/` and the examples in the documents are what the code says and takes.

use std::path::Path;

use forebay::config::{parse, reference, schema};

use super::{assert_golden, repository};

#[test]
fn default_toml_is_what_the_code_does() {
    assert_golden(&repository("config/default.toml"), &reference::default_toml());
}

#[test]
fn schema_json_describes_the_keys_of_the_code() {
    let text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n";

    assert_golden(&repository("config/schema.json"), &text);
}

fn assert_loads(what: &str, text: &str) {
    // Examples may name variables; a number does for ports and for secrets.
    let variable = |_: &str| Some("9999".to_owned());
    if let Err(report) = parse(what, text, &variable) {
        panic!("{report}");
    }
}

#[test]
fn every_file_in_config_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository("config")).expect("the folder config") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|end| end == "toml") && !is_for_the_simulator(&path) {
            assert_loads(&path.display().to_string(), &std::fs::read_to_string(&path).expect("a readable file"));
            count += 1;
        }
    }

    assert!(count > 0);
}

/// `forebay simulate` has a file of its own kind.
fn is_for_the_simulator(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("upstreams"))
}

/// The TOML blocks of a document. Blocks marked `toml simulate` or `toml ignore` are not configurations of the sidecar.
fn toml_blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in document.lines() {
        match &mut current {
            None if line.trim() == "```toml" => current = Some(String::new()),
            Some(block) if line.trim() == "```" => {
                blocks.push(std::mem::take(block));
                current = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

#[test]
fn every_example_in_the_documents_loads() {
    let docs = std::fs::read_dir(repository("docs")).expect("the folder docs");
    let mut documents: Vec<_> = docs.map(|entry| entry.expect("a file").path()).collect();
    documents.push(repository("README.md"));
    let mut count = 0;
    for path in documents.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let document = std::fs::read_to_string(path).expect("a readable document");
        for (index, block) in toml_blocks(&document).iter().enumerate() {
            assert_loads(&format!("{}, TOML block {}", path.display(), index + 1), block);
            count += 1;
        }
    }

    assert!(count > 0);
}

#[test]
fn blocks_are_found_in_a_document() {
    let document = "text\n```toml\na = 1\n```\n```sh\nx\n```\n```toml\nb = 2\n```\n";

    assert_eq!(toml_blocks(document), ["a = 1\n", "b = 2\n"]);
}
