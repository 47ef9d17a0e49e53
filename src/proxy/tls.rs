//! TLS on the client's side: rustls settings from the configuration, handed to pingora's acceptor.
//!
//! Pingora's own `TlsSettings::build` panics on a bad certificate, so the files are read and checked here. A reload
//! builds a new acceptor; connections that are open keep the one they began with.

use std::io;
use std::path::Path;
use std::sync::Arc;

use pingora::listeners::tls::Acceptor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::model::ListenerTls;

/// Reads certificate, key and client CAs. The error names the file and what is wrong with it.
pub fn acceptor(tls: &ListenerTls, http2: bool) -> Result<Acceptor, String> {
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| format!("the private key in {} cannot be read: {error}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match &tls.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("a CA in {} is not valid: {error}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("the client CAs in {} cannot be used: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} and {} do not fit: {error}", tls.certificate.display(), tls.key.display()))?;
    config.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(Acceptor::from_server_config(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("the certificates in {} cannot be read: {error}", path.display());
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))?.collect();
    let all = all.map_err(|e| unreadable(&e))?;
    if all.is_empty() {
        return Err(unreadable(&io::Error::other("there is no certificate in it")));
    }
    Ok(all)
}
