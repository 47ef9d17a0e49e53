//! The boundaries of DESIGN.md, held by reading the source tree: what may know what, and where a kind of fact lives.
//!
//! Text is searched, not syntax: comments count as well, which is why each rule looks for something that has no place
//! in a comment either.

use std::fs;
use std::path::{Path, PathBuf};

use super::support::repository;

/// A longer file does more than one thing; the aim is 600.
const MAX_LINES: usize = 700;

struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The part before the unit tests; nothing of a file that has only tests or what they need.
    fn program(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if name.starts_with("test") || name.ends_with("tests") {
            return "";
        }
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }

    fn is_below(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// `path:line` of each line with one of these words.
    fn lines_with<'a>(&'a self, text: &'a str, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let has_word = |line: &str| words.iter().any(|word| line.contains(word));
        let numbered = text.lines().enumerate().filter(move |(_, line)| has_word(line));
        numbered.map(|(index, line)| format!("{}:{}: {}", self.path, index + 1, line.trim()))
    }
}

/// Every file below these folders with one of these endings.
fn sources(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in folders {
        collect(&repository(folder), &mut files);
    }
    files.retain(|file| file.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)));
    files.sort();
    assert!(!files.is_empty(), "no files below {folders:?}");
    files.into_iter().map(source).collect()
}

fn source(file: PathBuf) -> Source {
    let path = file.strip_prefix(repository("")).expect("below the repository").to_string_lossy().into_owned();
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    Source { path, text }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries {
        let entry = entry.expect("a readable folder");
        let path = entry.path();
        // Build output of the fuzz and bench packages.
        if entry.file_type().expect("a file type").is_dir() {
            if entry.file_name() != "target" {
                collect(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

fn rust() -> Vec<Source> {
    sources(&["src"], &["rs"])
}

#[track_caller]
fn none(rule: &str, violations: impl IntoIterator<Item = String>) {
    let violations: Vec<String> = violations.into_iter().collect();
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

/// Code that names a crate: a path or a `use`.
fn names_crate(name: &str) -> [String; 2] {
    [format!("{name}::"), format!("use {name}")]
}

#[track_caller]
fn does_not_name(folders: &[&str], crates: &[&str]) {
    for source in rust().iter().filter(|source| source.is_below(folders)) {
        for name in crates {
            let words = names_crate(name);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let rule = format!("{folders:?} know nothing of {name}");
            none(&rule, source.lines_with(source.program(), &words));
        }
    }
}

#[test]
fn pingora_is_named_below_proxy_only() {
    for source in rust().iter().filter(|source| !source.is_below(&["src/proxy/"])) {
        let words = ["pingora::", "use pingora", "pingora_"];
        none("pingora only under src/proxy/", source.lines_with(&source.text, &words));
    }
}

#[test]
fn the_configuration_is_pure() {
    does_not_name(&["src/config/", "src/units.rs"], &["tokio", "prometheus", "hyper", "tracing"]);
    does_not_name(&["src/config/"], &["crate::proxy", "crate::telemetry", "crate::server", "crate::admin"]);
}

#[test]
fn message_code_and_routing_are_pure() {
    // `crate::telemetry::Reason` is a list of words, and may be named anywhere.
    let others = ["crate::telemetry::Telemetry", "crate::telemetry::metrics", "crate::proxy"];
    does_not_name(&["src/message/", "src/routing"], &[&["tokio", "prometheus"], &others[..]].concat());
}

#[test]
fn the_simulator_never_meets_the_proxy() {
    let folders = ["src/simulate/", "src/load/", "src/tune/", "src/demo.rs"];
    does_not_name(&folders, &["crate::proxy", "super::proxy", "crate::limits", "crate::upstream"]);
}

#[test]
fn metric_names_stand_in_the_catalogue_only() {
    for source in rust().iter().filter(|source| source.path != "src/telemetry/catalogue.rs") {
        none("metric names only in the catalogue", source.lines_with(source.program(), &["\"forebay_"]));
    }
}

/// Two proxies can live in one process: no `static` holds anything that changes. `main.rs` has the allocator, which is
/// the process's own; a `Cell` can only be one thread's scratch memory, which belongs to no proxy.
#[test]
fn there_are_no_globals() {
    let words = ["static ref ", "lazy_static", "default_registry"];
    let changing = ["Mutex", "RwLock", "Atomic", "OnceLock", "Lazy", "ArcSwap", " mut "];
    for source in rust().iter().filter(|source| source.path != "src/main.rs") {
        none("no global state", source.lines_with(source.program(), &words));
        let statics = source.program().lines().filter(|line| {
            let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            line.starts_with("static ") && changing.iter().any(|word| line.contains(word))
        });
        none("no global state", statics.map(|line| format!("{}: {}", source.path, line.trim())));
    }
}

/// Elsewhere, an error would be forgotten or a report cut off. What is appended to is opened with options.
#[test]
fn results_are_written_by_output_only() {
    for source in rust().iter().filter(|source| source.path != "src/output.rs") {
        let words = ["fs::write(", "File::create(", "stdout().lock("];
        none("results are written by `output`", source.lines_with(source.program(), &words));
    }
}

#[test]
fn no_unsafe_code() {
    for root in ["src/lib.rs", "src/main.rs"] {
        let text = source(repository(root)).text;
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root} must forbid unsafe code");
    }
}

/// A test that sleeps its thread is slow when it waits for long and wrong when it does not. (A thread of the program
/// may sleep, if it is its own; what the tests share waits for conditions, also where nothing can be awaited.)
#[test]
fn no_test_sleeps_its_thread() {
    let word = ["thread::", "sleep"].concat();
    for source in sources(&["src", "tests"], &["rs"]).iter().filter(|source| !source.is_below(&["tests/it/support/"])) {
        let program = if source.is_below(&["src/"]) { source.program().len() } else { 0 };
        none("no sleeping tests", source.lines_with(&source.text[program..], &[word.as_str()]));
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"];
    for source in rust() {
        none("no unfinished code", source.lines_with(&source.text, &words));
    }
}

/// What works on one machine only does not belong here. Paths of the system are fine.
#[test]
fn no_paths_of_one_machine() {
    let words = ["/home/", "/root/", "/work/", "/Users/"].map(|folder| format!("{folder}{}", ""));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ours = format!("tests/it/{}.rs", "boundaries");
    let endings = ["rs", "toml", "md", "sh", "py", "json", "yaml", "service", "socket"];
    for source in sources(&["src", "tests", "scripts", "config", "docs", "benches", "fuzz", "packaging"], &endings) {
        if source.path != ours {
            none("no paths of one machine", source.lines_with(&source.text, &words));
        }
    }
}

#[test]
fn files_say_what_they_are_for_and_stay_readable() {
    let sources = sources(&["src", "tests/it"], &["rs"]);

    // A `tests.rs` has the unit tests of the file whose name its folder has.
    let silent = sources.iter().filter(|source| !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs"));
    none("each file begins with `//!`: what it is for", silent.map(|source| source.path.clone()));
    let long = sources.iter().map(|source| (source, source.text.lines().count())).filter(|(_, n)| *n > MAX_LINES);
    none("files that are too long do too much", long.map(|(source, n)| format!("{}: {n} lines", source.path)));
}

#[test]
fn the_binary_is_thin() {
    let lines = source(repository("src/main.rs")).text.lines().count();

    assert!(lines < 100, "src/main.rs has {lines} lines");
}
