//! The licences of everything that is compiled in, tests and build scripts included: each must be on the list, so that a
//! new dependency with another one is noticed before it is shipped.

use std::process::Command;

use serde_json::Value;

/// What may be in a binary that is given away under Apache-2.0 with its notices: permissive ones only.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression can be satisfied with the list: one side of each `OR`, both of each `AND`. `AND` binds
/// more strongly; `/` is how `OR` was written in old manifests.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    any(&expression)
}

fn any(expression: &str) -> bool {
    split(expression, " OR ").iter().any(|part| all(part))
}

fn all(expression: &str) -> bool {
    split(expression, " AND ").iter().all(|part| match part.strip_prefix('(').and_then(|part| part.strip_suffix(')')) {
        Some(inner) => any(inner),
        None => ALLOWED.contains(part),
    })
}

/// The parts between this word, where it is outside of parentheses.
fn split<'a>(expression: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && expression[at..].starts_with(word) => {
                parts.push(expression[start..at].trim());
                start = at + word.len();
            }
            _ => {}
        }
    }
    parts.push(expression[start..].trim());
    parts
}

#[test]
fn every_dependency_has_a_licence_of_the_list() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    metadata.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = metadata.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");

    let wrong: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();

    assert!(packages.len() > 100, "only {} packages", packages.len());
    assert!(wrong.is_empty(), "licences that are not on the list: {wrong:#?}");
}

#[test]
fn expressions_are_understood() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 / MIT",
        "GPL-3.0 OR MIT",
        "Apache-2.0 AND ISC",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "GPL-3.0 AND MIT OR ISC",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in
        ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT AND GPL-3.0) OR AGPL-3.0", "ISC AND (GPL-3.0 OR SSPL-1.0)", "MITx"]
    {
        assert!(!is_allowed(refused), "{refused}");
    }
}
