//! `load`: the file itself, secrets and certificates beside it.

use std::path::Path;

use forebay::config::{Loaded, Report, load};

const ROUTE: &str = "[route.ok]\npath = \"/*\"\nrespond = { body = \"ok\" }\n";

/// A folder with a configuration and what else it needs.
fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "forebay.toml", &format!("{config}\n{ROUTE}"));
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file can be written");
}

fn load_in(folder: &Path) -> Result<Loaded, Report> {
    load(&folder.join("forebay.toml"), &|_| None)
}

#[test]
fn a_missing_file_is_said_to_be_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");

    let report = load_in(folder.path()).expect_err("there is no file").to_string();

    assert!(report.contains("cannot open the file"), "{report}");
    for part in ["-c FILE", "forebay demo", "\n     [route.all]\n", "\n\n     [upstream.app]\n"] {
        assert!(report.contains(part), "{part:?} is not in\n{report}");
    }
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("forebay.toml"), b"# fine\n# \xff\n").expect("a file can be written");

    let report = load_in(folder.path()).expect_err("not UTF-8").to_string();

    assert!(report.contains("line 2 is not UTF-8"), "{report}");
}

#[test]
fn a_secret_is_read_from_a_file_beside_the_configuration() {
    let folder = folder("[admin]\ntoken = { file = \"token\" }");
    write(folder.path(), "token", "s3cr3t\n");

    let loaded = load_in(folder.path()).unwrap_or_else(|report| panic!("{report}"));

    assert_eq!(loaded.config.admin.token.as_ref().map(|token| token.reveal()), Some("s3cr3t"));
    assert!(!forebay::config::effective(&loaded).to_string().contains("s3cr3t"));
    assert_eq!(loaded.watched_files, [folder.path().join("forebay.toml"), folder.path().join("token")]);
}

#[test]
fn missing_and_wrong_files_are_all_reported() {
    let folder = folder(
        "[listener]\ntls = { certificate = \"cert.pem\", key = \"key.pem\" }\n[admin]\ntoken = { file = \"none\" }",
    );
    write(folder.path(), "cert.pem", "not a certificate");

    let report = load_in(folder.path()).expect_err("three wrong files");

    let messages: Vec<&str> = report.diagnostics().iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(messages.len(), 3, "{report}");
    assert_eq!(messages[0], "this file holds something else");
    assert!(messages[1].starts_with("cannot read this file"), "{report}");
    assert!(messages[2].starts_with("cannot read the secret's file"), "{report}");
}

#[test]
fn an_access_log_that_cannot_be_opened_is_a_mistake() {
    let report = |file: &str| {
        let folder = folder(&format!("[access_log]\noutput = \"file:{file}\""));
        write(folder.path(), "plain", "");
        load_in(folder.path()).map_err(|report| report.to_string())
    };

    for fine in ["access.log", "plain", "/dev/null"] {
        assert!(report(fine).is_ok(), "{fine}");
    }
    let wrong = [
        ("none/x.log", "none cannot be used: No such file"),
        ("plain/x.log", "plain is a file"),
        (".", ". is a folder"),
    ];
    for (file, expected) in wrong {
        let told = report(file).expect_err(file);
        assert!(told.starts_with("error[file]: the access log cannot be opened: "), "{told}");
        for part in [expected, "forebay.toml:2:10", "^^^", "make the folder first", "write \"stdout\""] {
            assert!(told.contains(part), "{part:?} is not in\n{told}");
        }
    }
}

#[test]
fn a_recording_that_cannot_begin_is_warned_of() {
    let warnings = |file: &str| {
        let folder = folder(&format!("[record]\nfile = \"{file}\""));
        write(folder.path(), "plain", "");
        let loaded = load_in(folder.path()).unwrap_or_else(|report| panic!("{report}"));
        loaded.warnings.iter().map(|warning| warning.render(false)).collect::<String>()
    };

    assert_eq!(warnings("traffic.ndjson"), "");
    for (file, expected) in
        [("none/traffic.ndjson", "none cannot be used: No such file"), ("plain/traffic.ndjson", "plain is a file")]
    {
        let told = warnings(file);
        assert!(told.starts_with("warning[file]: nothing will be recorded: the folder "), "{told}");
        assert!(told.contains(expected) && told.contains("has to be there"), "{told}");
    }
}

#[test]
fn good_certificates_are_accepted_and_watched() {
    let folder = folder("[listener]\ntls = { certificate = \"cert.pem\", key = \"key.pem\" }");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    write(folder.path(), "cert.pem", &made.cert.pem());
    write(folder.path(), "key.pem", &made.signing_key.serialize_pem());

    let loaded = load_in(folder.path()).unwrap_or_else(|report| panic!("{report}"));

    assert_eq!(loaded.watched_files.len(), 3);
}
