//! Each `wrong/NAME.toml` gets exactly the message in `wrong/NAME.stderr`.

use std::path::PathBuf;

use forebay::config::{Severity, parse};

use super::{assert_golden, repository};

/// The environment that the wrong files see.
fn variable(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("s3cr3t-from-the-environment".to_owned()),
        "PORT" => Some("eighty".to_owned()),
        "SPLIT" => Some("two\r\nlines".to_owned()),
        _ => None,
    }
}

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(repository("tests/it/config/wrong")).expect("the folder of wrong files");
    let paths = folder.map(|entry| entry.expect("a file").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    files
}

/// The text of the messages, whether the file is refused or only warned of.
fn messages(path: &PathBuf) -> (String, Vec<Severity>) {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let name = path.file_name().expect("a name").to_string_lossy();
    let diagnostics = match parse(&name, &text, &variable) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report.into_diagnostics(),
    };
    let severities = diagnostics.iter().map(|diagnostic| diagnostic.severity).collect();
    (forebay::config::diagnostic::render_all(&diagnostics, false), severities)
}

#[test]
fn every_wrong_file_gets_its_message() {
    let mut differing = Vec::new();
    for path in files() {
        let (text, severities) = messages(&path);
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(!severities.is_empty(), "{name} is accepted without a word");
        let only_warned = !severities.contains(&Severity::Error);
        assert_eq!(only_warned, name.starts_with("warn_"), "{name}: warnings are named warn_*\n{text}");
        let golden = path.with_extension("stderr");
        if std::panic::catch_unwind(|| assert_golden(&golden, &text)).is_err() {
            differing.push(name);
        }
    }

    assert!(differing.is_empty(), "these messages differ: {differing:?}");
}

#[test]
fn there_are_at_least_sixty_wrong_files() {
    assert!(files().len() >= 60, "{}", files().len());
}

#[test]
fn no_message_shows_a_secret() {
    for path in files() {
        let (text, _) = messages(&path);

        assert!(!text.contains("s3cr3t"), "{}\n{text}", path.display());
    }
}

#[test]
fn every_message_says_what_to_write() {
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        if let Err(report) = parse("f", &text, &variable) {
            for diagnostic in report.diagnostics() {
                let useful = diagnostic.help.is_some() || diagnostic.expected.is_some();
                assert!(useful, "{}: {}", path.display(), diagnostic.message);
            }
        }
    }
}
