//! TLS: handshakes, client certificates, new certificates on reload, and the upstream's side.

use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{Authority, Issued};
use super::h2_client::H2Client;
use super::h2_upstream::H2Upstream;
use super::proxied;
use super::recorder::{OK, Recorder, values};
use crate::support::forebay::Forebay;
use crate::support::http::{Connection, get};
use crate::support::{PATIENCE, SLACK, eventually};

/// A listener with a certificate for this name.
fn listening(authority: &Authority, issued: &Issued, more: &str, more_tls: &str) -> String {
    let files = authority.install(issued);
    format!("[listener]\naddress = \"127.0.0.1:0\"\n{more}\n[listener.tls]\n{files}{more_tls}\n\n")
}

pub async fn connect(forebay: &Forebay, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(forebay.address()).await?;
    let name = ServerName::try_from("proxy.example").expect("a name");
    timeout(PATIENCE, connector.connect(name, tcp)).await.expect("the handshake ends")
}

/// One GET over HTTP/1 and its answer, whose body is `ok`.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    ask_until(stream, "\r\n\r\nok").await
}

/// One GET over HTTP/1 and its answer up to these words.
pub async fn ask_until(stream: &mut TlsStream<TcpStream>, end: &str) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: proxy.example\r\n\r\n").await?;
    // What is written is encrypted, but not always sent: with many connections in one task, tokio's budget for it may be
    // used up at that moment, and reading sends nothing.
    stream.flush().await?;
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(end) {
        if timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer")? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The certificate that a new connection sees.
async fn shown(forebay: &Forebay, connector: &TlsConnector) -> Option<Vec<u8>> {
    let stream = connect(forebay, connector).await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.to_vec())
}

#[tokio::test]
async fn alpn_decides_between_http1_and_http2() {
    let authority = Authority::new();
    let upstream = Recorder::ok().await;
    let config = listening(&authority, &authority.issue("proxy.example"), "", "") + &proxied(upstream.address);
    let forebay = Forebay::start(&config).await;

    let mut h1 = connect(&forebay, &authority.client(&["http/1.1"], None)).await.unwrap();
    assert!(ask(&mut h1).await.unwrap().starts_with("HTTP/1.1 200 "));
    let mut none = connect(&forebay, &authority.client(&[], None)).await.unwrap();
    assert!(ask(&mut none).await.unwrap().starts_with("HTTP/1.1 200 "));
    let h2 = connect(&forebay, &authority.client(&["h2", "http/1.1"], None)).await.unwrap();
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(H2Client::over(h2).await.get("/").await.unwrap().status(), 200);

    assert!(upstream.requests().iter().all(|sent| values(sent, "x-forwarded-proto") == ["https"]));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_in_time_and_plain_http_is_refused() {
    let authority = Authority::new();
    let limits = "timeouts = { tls_handshake = \"400ms\" }";
    let forebay = Forebay::start(&listening(&authority, &authority.issue("proxy.example"), limits, "")).await;
    let started = Instant::now();
    let mut silent = Connection::open(forebay.address()).await.unwrap();
    let mut half = Connection::open(forebay.address()).await.unwrap();
    let mut plain = Connection::open(forebay.address()).await.unwrap();
    plain.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    half.send(b"\x16\x03\x01\x02\x00\x01").await.unwrap();

    let _ = plain.rest().await;
    let refused = started.elapsed();
    let _ = half.rest().await;
    let _ = silent.rest().await;

    let took = started.elapsed();
    assert!(took >= Duration::from_millis(390) && took < SLACK, "{took:?}");
    assert!(refused < took, "plain HTTP is not waited for: {refused:?}");
    eventually("all three are counted", async || {
        (forebay.scrape().await.sum("forebay_tls_handshake_failures_total", &[]) == 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_get_in() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let upstream = Recorder::ok().await;
    let ca = format!("client_ca = \"{}\"\n", clients.ca_path().display());
    let config = listening(&authority, &authority.issue("proxy.example"), "", &ca) + &proxied(upstream.address);
    let forebay = Forebay::start(&config).await;

    let known = clients.issue("client.example");
    let mut stream = connect(&forebay, &authority.client(&[], Some(&known))).await.unwrap();
    assert!(ask(&mut stream).await.unwrap().starts_with("HTTP/1.1 200 "));

    let stranger = strangers.issue("client.example");
    for own in [None, Some(&stranger)] {
        // In TLS 1.3 the client learns of it after its own part of the handshake.
        let answer = match connect(&forebay, &authority.client(&[], own)).await {
            Ok(mut stream) => ask(&mut stream).await,
            Err(error) => Err(error),
        };
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_new_certificate_is_used_without_ending_connections_and_a_bad_one_is_not_used() {
    let authority = Authority::new();
    let upstream = Recorder::ok().await;
    let first = authority.issue("proxy.example");
    let watch = "[reload]\nwatch = false\n\n";
    let config = listening(&authority, &first, "", "") + watch + &proxied(upstream.address);
    let forebay = Forebay::start(&config).await;
    let client = authority.client(&[], None);
    let mut open = connect(&forebay, &client).await.unwrap();
    ask(&mut open).await.unwrap();
    assert_eq!(shown(&forebay, &client).await.as_deref(), Some(&*first.certificate));

    let second = authority.issue("proxy.example");
    authority.install(&second);
    forebay.signal(Signal::HUP);
    eventually("the new certificate is shown", async || {
        (shown(&forebay, &client).await.as_deref() == Some(&*second.certificate)).then_some(())
    })
    .await;
    ask(&mut open).await.expect("the old connection goes on");

    authority.spoil();
    forebay.signal(Signal::HUP);
    eventually("the reload fails", async || {
        let failed = forebay.scrape().await.sum("forebay_config_reloads_total", &[("result", "failure")]);
        (failed == 1.0).then_some(())
    })
    .await;
    assert_eq!(shown(&forebay, &client).await.as_deref(), Some(&*second.certificate));
    ask(&mut open).await.expect("the old connection goes on");
    let said = forebay.process.stderr.all().join("\n");
    assert!(said.contains("cert.pem"), "{said}");
}

#[tokio::test]
async fn a_changed_certificate_file_is_noticed() {
    let authority = Authority::new();
    let first = authority.issue("proxy.example");
    let forebay = Forebay::start(&listening(&authority, &first, "", "")).await;
    let client = authority.client(&[], None);
    assert!(shown(&forebay, &client).await.is_some());

    let second = authority.issue("proxy.example");
    authority.install(&second);

    eventually("the new certificate is shown", async || {
        (shown(&forebay, &client).await.as_deref() == Some(&*second.certificate)).then_some(())
    })
    .await;
}

/// An upstream over TLS with this name, by its own authority; and its route.
async fn secure_upstream(authority: &Authority, alpn: &[&str], protocol: &str, name: &str) -> (H2Upstream, String) {
    let issued = authority.issue("upstream.example");
    let upstream = H2Upstream::start(Some(Authority::server(&issued, alpn))).await;
    let tls = format!("tls = {{ server_name = \"{name}\", ca = \"{}\" }}", authority.ca_path().display());
    let config =
        proxied(upstream.address).replace("endpoints", &format!("protocol = \"{protocol}\"\n{tls}\nendpoints"));
    (upstream, config)
}

#[tokio::test]
async fn upstreams_over_tls_are_verified_and_agree_on_a_protocol() {
    let authority = Authority::new();
    for protocol in ["http2", "auto"] {
        let (upstream, config) = secure_upstream(&authority, &["h2"], protocol, "upstream.example").await;
        let forebay = Forebay::start(&config).await;
        let answer = get(forebay.address(), "/x").await.unwrap();
        assert_eq!(answer.status, 200, "{protocol}: {answer:?}");
        assert_eq!(upstream.seen()[0].head.uri.scheme_str(), Some("https"));
    }
}

#[tokio::test]
async fn an_upstream_with_another_name_or_authority_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (upstream, wrong_name) = secure_upstream(&authority, &["h2"], "http2", "other.example").await;
    let (unknown, config) = secure_upstream(&authority, &["h2"], "http2", "upstream.example").await;
    let path = |of: &Authority| of.ca_path().display().to_string();
    let wrong_ca = config.replace(&path(&authority), &path(&other));
    let (no_h2, no_alpn) = secure_upstream(&authority, &["http/1.1"], "http2", "upstream.example").await;

    for config in [wrong_name, wrong_ca, no_alpn] {
        let forebay = Forebay::start(&config).await;
        let answer = get(forebay.address(), "/x").await.unwrap();
        assert_eq!((answer.status, answer.reason()), (502, Some("tls_failed")), "{config}");
    }
    assert!(upstream.seen().is_empty() && unknown.seen().is_empty() && no_h2.seen().is_empty());
}

/// `auto` with an upstream that speaks HTTP/1 only.
#[tokio::test]
async fn auto_falls_back_to_http1() {
    let authority = Authority::new();
    let acceptor = Authority::server(&authority.issue("upstream.example"), &["http/1.1"]);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (tcp, _) = socket.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        (String::from_utf8(head).unwrap(), stream)
    });
    let tls = format!("tls = {{ server_name = \"upstream.example\", ca = \"{}\" }}", authority.ca_path().display());
    let config = proxied(address).replace("endpoints", &format!("protocol = \"auto\"\n{tls}\nendpoints"));
    let forebay = Forebay::start(&config).await;

    assert_eq!(get(forebay.address(), "/x").await.unwrap().text(), "ok");

    let (head, _open) = server.await.unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
}
