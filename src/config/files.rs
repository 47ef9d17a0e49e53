//! The files that a configuration names: read, checked, listed for watching. The only part of the configuration that
//! touches the file system.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::decode::{Decoder, Field};
use super::diagnostic::{Code, Diagnostic, Problem};
use super::elements::Root;
use super::model::{Config, LogOutput};

/// What to do about a file that is not there; with the least that serves requests, which a test keeps valid.
const MISSING: &str = "\
name it with `-c FILE`, or make one; this is enough to begin with:

[upstream.app]
endpoints = [\"127.0.0.1:9001\"]

[route.all]
path = \"/*\"
upstream = \"app\"

`forebay demo` needs no file; `forebay schema` is for editors that complete keys";

/// What to do about a folder in which no file can be made.
pub const FOLDER_FIRST: &str = "make the folder first, where the user that Forebay runs as can write";

/// The text of the configuration file.
pub fn read_configuration(path: &Path, limit: u64) -> Result<String, Box<Diagnostic>> {
    let name = path.display().to_string();
    let fail = |message: String, help: &str| Box::new(Diagnostic::of_file(&name, message, help));
    let file = File::open(path).map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => MISSING,
            _ => "name a readable file with `-c FILE`",
        };
        fail(format!("cannot open the file: {error}"), help)
    })?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(format!("cannot read the file: {error}"), "it has to be a plain, readable file"))?;
    if bytes.len() as u64 > limit {
        return Err(fail(format!("the file is larger than {limit} bytes"), "this cannot be a configuration"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        fail(format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// What a PEM file has to hold.
#[derive(Clone, Copy)]
enum Content {
    Certificates,
    PrivateKey,
}

/// Reports the TLS files that are missing or hold something else, an access log that cannot be opened, and a recording that
/// cannot begin.
pub fn check(cx: &mut Decoder<'_>, root: &Root) {
    for listener in root.listener.get().into_iter().flat_map(|listeners| &listeners.items) {
        let Some(tls) = listener.value.tls.get() else { continue };
        check_file(cx, &tls.certificate, Content::Certificates);
        check_file(cx, &tls.key, Content::PrivateKey);
        check_file(cx, &tls.client_ca, Content::Certificates);
    }
    for upstream in root.upstream.get().into_iter().flat_map(|upstreams| &upstreams.items) {
        if let Some(tls) = upstream.value.tls.get().and_then(|tls| tls.0.as_ref()) {
            check_file(cx, &tls.ca, Content::Certificates);
        }
    }
    if let Some((LogOutput::File(file), span)) = root.access_log.get().and_then(|log| log.output.written())
        && let Err(problem) = can_be_appended_to(file)
    {
        let problem = Problem::error(Code::File, span, format!("the access log cannot be opened: {problem}"));
        cx.report(problem.help(format!("{FOLDER_FIRST}, or write \"stdout\"")));
    }
    if let Some((file, span)) = root.record.get().and_then(|record| record.file.written())
        && let Err(problem) = can_be_made(file)
    {
        // Requests are served all the same, so it is no reason to refuse a start.
        let problem = Problem::warning(Code::File, span, format!("nothing will be recorded: {problem}"));
        cx.report(
            problem.help("the folder has to be there, and the user that Forebay runs as has to be able to write in it"),
        );
    }
}

/// Whether this process may append to a file of this name, there or not.
pub fn can_be_appended_to(file: &Path) -> Result<(), String> {
    match file.metadata() {
        Ok(found) if found.is_dir() => Err(format!("{} is a folder", file.display())),
        Ok(_) => rustix::fs::access(file, Access::WRITE_OK)
            .map_err(|error| format!("the file {} cannot be written: {error}", file.display())),
        Err(_) => can_be_made(file),
    }
}

/// Whether this process may make a file of this name. One that is there already may be what is being recorded.
fn can_be_made(file: &Path) -> Result<(), String> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let fail = |error: &dyn std::fmt::Display| format!("the folder {} {error}", folder.display());
    let found = folder.metadata().map_err(|error| fail(&format_args!("cannot be used: {error}")))?;
    if !found.is_dir() {
        return Err(fail(&"is a file"));
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| fail(&format_args!("cannot be written: {error}")))
}

fn check_file(cx: &mut Decoder<'_>, field: &Field<PathBuf>, content: Content) {
    let Some((path, span)) = field.written() else { return };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let problem = Problem::error(Code::File, span, format!("cannot read this file: {error}"));
            cx.report(problem.help(format!("it was looked for at {}", path.display())));
            return;
        }
    };
    let (found, what) = match content {
        Content::Certificates => (holds_certificates(&bytes), "a PEM file with `-----BEGIN CERTIFICATE-----`"),
        Content::PrivateKey => {
            (PrivateKeyDer::from_pem_slice(&bytes).is_ok(), "a PEM file with a private key, not encrypted")
        }
    };
    if !found {
        cx.report(Problem::error(Code::File, span, "this file holds something else").expected(what));
    }
}

fn holds_certificates(bytes: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(bytes).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

/// The TLS files of a configuration.
pub fn named_in(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for tls in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        files.extend([tls.certificate.clone(), tls.key.clone()]);
        files.extend(tls.client_ca.clone());
    }
    for tls in config.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref()) {
        files.extend(tls.ca.clone());
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_proposed_is_valid() {
        let proposed =
            MISSING.split_once("\n\n").and_then(|(_, text)| text.rsplit_once("\n\n")).expect("three parts").0;

        let loaded = crate::config::parse("f", proposed, &|_| None).unwrap_or_else(|report| panic!("{report}"));

        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(loaded.config.routes.len(), 1);
    }
}
