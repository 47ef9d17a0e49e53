//! The client against real sockets: what it reuses, what it says when things break, and every way to reach a target.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::origin::{Io, resolve};
use super::*;

/// How many connections a server has accepted.
type Accepted = Arc<AtomicUsize>;

fn origin(address: SocketAddr) -> Origin {
    Origin { tls: false, host: address.ip().to_string(), port: address.port(), unix: None }
}

fn get(origin: Origin) -> Template {
    Template { origin, method: Method::GET, path: "/a?b=c".into(), headers: HeaderMap::new(), body: Bytes::new() }
}

async fn client(template: Template, expectation: Expectation, settings: &Settings) -> Client {
    let resolved = vec![resolve(&template.origin).await.expect("an address")];
    let blueprint = Blueprint::new([(template, expectation)], resolved, settings.clone());
    blueprint.and_then(|blueprint| blueprint.client()).expect("the settings are right")
}

async fn plain(address: SocketAddr) -> Client {
    client(get(origin(address)), Expectation::default(), &Settings::default()).await
}

/// What came of a request, and the connection that was made for it.
struct Call {
    told: CallEnd,
    connect: Option<Duration>,
}

impl std::ops::Deref for Call {
    type Target = CallEnd;

    fn deref(&self) -> &CallEnd {
        &self.told
    }
}

async fn ask(client: &Client, number: u64) -> Call {
    let connected = Connected::default();
    let told = client.call(0, number, &connected).await;
    Call { told, connect: connected.took() }
}

/// A server for any protocol that answers each request with its version, method and target. The path `/slow` waits
/// for ever.
async fn serve<T: Io + 'static>(stream: T) {
    let answer = service_fn(|request: Request<Incoming>| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        let text = format!("{:?} {} {}", request.version(), request.method(), request.uri().path());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(3);
    // It ends with an error when the client leaves.
    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
}

async fn server_at(address: &str, tls: Option<TlsAcceptor>) -> (SocketAddr, Accepted) {
    let listener = TcpListener::bind(address).await.expect("a free port");
    let (address, accepted) = (listener.local_addr().unwrap(), Accepted::default());
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => serve(stream).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream).await;
                        }
                    }
                }
            });
        }
    });
    (address, accepted)
}

async fn server() -> (SocketAddr, Accepted) {
    server_at("127.0.0.1:0", None).await
}

/// What a raw server does with a connection after it has read a request head.
#[derive(Clone, Copy)]
enum After {
    Close,
    Reset,
    /// Nothing; says over the channel when the client has gone.
    Stall,
}

/// For each connection: reads a request head, sends these bytes, and then `after`. The receiver yields once for each
/// connection that has ended.
async fn raw(answer: &'static str, after: After) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().unwrap();
    let (ended, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            let ended = ended.clone();
            match after {
                After::Close => drop(stream),
                After::Reset => {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    drop(stream);
                }
                After::Stall => {
                    tokio::spawn(async move {
                        let _ = stream.read(&mut [0; 64]).await;
                        let _ = ended.send(());
                    });
                }
            }
        }
    });
    (address, receiver)
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
}

fn failed(call: &Call) -> ErrorKind {
    match call.end {
        End::ConnectionError(kind) => kind,
        other => panic!("not an error: {other:?}"),
    }
}

const OK: End = End::Ok { status: 200 };

#[tokio::test]
async fn a_connection_is_used_again() {
    let (address, accepted) = server().await;
    let client = plain(address).await;

    let first = ask(&client, 0).await;
    let second = ask(&client, 1).await;

    assert_eq!((first.end, second.end), (OK, OK));
    assert_eq!(first.bytes, "HTTP/1.1 GET /a".len() as u64);
    assert!(first.connect.is_some() && second.connect.is_none());
    assert!(first.first_byte.is_some());
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn requests_at_the_same_time_have_a_connection_each() {
    let (address, accepted) = server().await;
    let client = plain(address).await;

    let calls = futures_util::future::join_all((0..5).map(|number| ask(&client, number))).await;

    assert!(calls.iter().all(|call| call.end == OK && call.connect.is_some()));
    assert_eq!(accepted.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_connection_serves_so_many_requests() {
    for (limit, connections) in [(1, 6), (2, 3), (4, 2)] {
        let (address, accepted) = server().await;
        let settings = Settings { requests_per_connection: limit, ..Settings::default() };
        let client = client(get(origin(address)), Expectation::default(), &settings).await;

        for number in 0..6 {
            assert_eq!(ask(&client, number).await.end, OK);
        }

        assert_eq!(accepted.load(Ordering::Relaxed), connections, "{limit} requests on each");
    }
}

#[tokio::test]
async fn a_connection_that_the_target_closed_while_idle_is_no_error() {
    let (address, _) = raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", After::Close).await;
    let client = plain(address).await;

    for number in 0..20 {
        assert_eq!(ask(&client, number).await.end, OK);
        // The end of the connection has to arrive: what comes later is an honest race.
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn failures_have_their_names() {
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(failed(&ask(&plain(refused).await, 0).await), ErrorKind::Refused);

    let table = [
        ("", After::Close, ErrorKind::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this", After::Close, ErrorKind::Closed),
        ("HTTP/1.1 200 OK\r\ncontent-le", After::Close, ErrorKind::Closed),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", After::Close, ErrorKind::Closed),
        ("", After::Reset, ErrorKind::Reset),
        ("this is not HTTP\r\n\r\n", After::Close, ErrorKind::Protocol),
    ];
    for (answer, after, kind) in table {
        let (address, _) = raw(answer, after).await;
        assert_eq!(failed(&ask(&plain(address).await, 0).await), kind, "{answer:?}");
    }
}

#[tokio::test]
async fn what_came_before_a_failure_is_counted() {
    let (address, _) = raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this", After::Close).await;

    let call = ask(&plain(address).await, 0).await;

    assert_eq!(call.bytes, "only this".len() as u64);
    assert!(call.first_byte.is_some() && call.connect.is_some());
}

#[tokio::test]
async fn dropping_a_call_abandons_the_request() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"] {
        let (address, mut ended) = raw(answer, After::Stall).await;
        let client = plain(address).await;

        let given_up = tokio::time::timeout(Duration::from_millis(50), ask(&client, 0)).await;

        assert!(given_up.is_err());
        tokio::time::timeout(Duration::from_secs(5), ended.recv()).await.expect("the connection ends").unwrap();
    }
}

#[tokio::test]
async fn a_target_that_takes_no_connection_is_a_connect_timeout() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Linux takes one connection more than the backlog says.
    let _taken = TcpStream::connect(address).await.unwrap();
    let settings = Settings { connect_timeout: Duration::from_millis(50), ..Settings::default() };
    let client = client(get(origin(address)), Expectation::default(), &settings).await;

    assert_eq!(failed(&ask(&client, 0).await), ErrorKind::ConnectTimeout);
}

#[tokio::test]
async fn redirects_are_answers() {
    let (address, _) = raw("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", After::Stall).await;

    assert_eq!(ask(&plain(address).await, 0).await.end, End::Ok { status: 302 });
}

#[tokio::test]
async fn an_unexpected_status_and_a_failed_check_are_http_errors() {
    let (address, _) = raw("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}", After::Stall).await;
    for (check, end) in
        [("status=404", End::HttpError { status: 200 }), ("json:a=2", End::HttpError { status: 200 }), ("json:a=1", OK)]
    {
        let expectation = Expectation::default().with_checks(&[check.parse().unwrap()]);
        let client = client(get(origin(address)), expectation, &Settings::default()).await;

        assert_eq!(ask(&client, 0).await.end, end, "{check}");
    }
}

#[tokio::test]
async fn ipv6_and_unix_sockets() {
    let (address, _) = server_at("[::1]:0", None).await;
    assert_eq!(ask(&plain(address).await, 0).await.end, OK);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let missing = Origin { tls: false, host: "target".into(), port: 80, unix: Some(path.clone()) };
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    let client = client(get(missing), Expectation::default(), &Settings::default()).await;
    assert_eq!(ask(&client, 0).await.end, OK);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn http2_requests_share_connections_as_far_as_the_target_allows() {
    let (address, accepted) = server().await;
    let settings = Settings { http2: true, ..Settings::default() };
    let client = client(get(origin(address)), Expectation::default(), &settings).await;

    let first = ask(&client, 0).await;
    assert_eq!((first.end, first.bytes), (OK, "HTTP/2.0 GET /a".len() as u64));
    assert!(first.connect.is_some());

    // By now the target has said that it allows 3 streams; the connection's own task has to read it.
    tokio::task::yield_now().await;
    let calls = futures_util::future::join_all((1..=9).map(|number| ask(&client, number))).await;
    assert!(calls.iter().all(|call| call.end == OK));
    assert!((2..=3).contains(&accepted.load(Ordering::Relaxed)), "{accepted:?}");
}

#[tokio::test]
async fn http2_requests_that_are_dropped_free_their_place() {
    let (address, accepted) = server().await;
    let settings = Settings { http2: true, ..Settings::default() };
    let template = Template { path: "/slow".into(), ..get(origin(address)) };
    let client = client(template, Expectation::default(), &settings).await;

    for number in 0..10 {
        let given_up = tokio::time::timeout(Duration::from_millis(10), ask(&client, number)).await;
        assert!(given_up.is_err());
    }

    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn http2_failures_have_their_names() {
    let settings = Settings { http2: true, ..Settings::default() };
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (garbage, _ended) = raw("HTTP/1.1 400 Bad Request\r\n\r\n", After::Stall).await;
    for (address, kind) in [(refused, ErrorKind::Refused), (garbage, ErrorKind::Protocol)] {
        let client = client(get(origin(address)), Expectation::default(), &settings).await;
        assert_eq!(failed(&ask(&client, 0).await), kind);
    }
}

/// A certificate for `localhost` in a folder, as `own.pem` and `own.key`.
fn certificate(folder: &Path) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    std::fs::write(folder.join("own.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("own.key"), made.signing_key.serialize_pem()).unwrap();
    made
}

fn acceptor(made: &rcgen::CertifiedKey<rcgen::KeyPair>, clients: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if clients {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn over_tls(address: SocketAddr, http2: bool, tls: tls::Settings) -> Call {
    let origin = Origin { tls: true, host: "localhost".into(), port: address.port(), unix: None };
    let settings = Settings { http2, tls, ..Settings::default() };
    ask(&client(get(origin), Expectation::default(), &settings).await, 0).await
}

#[tokio::test]
async fn tls_is_checked_and_settles_on_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let (address, _) = server_at("127.0.0.1:0", Some(acceptor(&made, false))).await;
    let trusting = tls::Settings { ca: Some(folder.path().join("own.pem")), ..tls::Settings::default() };
    let insecure = tls::Settings { insecure: true, ..tls::Settings::default() };

    let http1 = over_tls(address, false, trusting.clone()).await;
    assert_eq!((http1.end, http1.bytes), (OK, "HTTP/1.1 GET /a".len() as u64));
    assert_eq!(over_tls(address, true, trusting).await.end, OK);
    assert_eq!(over_tls(address, true, insecure).await.end, OK);
    assert_eq!(failed(&over_tls(address, false, tls::Settings::default()).await), ErrorKind::Tls);
    // Nobody speaks TLS there.
    let (clear, _) = server().await;
    assert_eq!(failed(&over_tls(clear, false, tls::Settings::default()).await), ErrorKind::Tls);
}

#[tokio::test]
async fn a_target_may_ask_for_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let (address, _) = server_at("127.0.0.1:0", Some(acceptor(&made, true))).await;
    let (own, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    let stranger = tls::Settings { ca: Some(own.clone()), ..tls::Settings::default() };
    let known = tls::Settings { identity: Some((own, key)), ..stranger.clone() };

    assert_eq!(over_tls(address, false, known).await.end, OK);
    assert_eq!(failed(&over_tls(address, false, stranger).await), ErrorKind::Tls);
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "nothing").unwrap();

    let error = tls::config(&tls::Settings { ca: Some(file), ..tls::Settings::default() }, false).expect_err("empty");

    assert!(error.to_string().contains("empty.pem"), "{error}");
}

#[tokio::test]
async fn the_fields_that_were_given_are_sent() {
    let (address, mut heads) = head_recorder().await;
    let mut template = get(origin(address));
    template.headers.insert("host", "other.example".parse().unwrap());
    template.headers.insert("x-tenant", "blue".parse().unwrap());
    template.method = Method::POST;
    template.body = Bytes::from_static(b"four");
    let client = client(template, Expectation::default(), &Settings::default()).await;

    ask(&client, 0).await;

    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{head}");
    for line in ["host: other.example\r\n", "x-tenant: blue\r\n", "content-length: 4\r\n"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
}

async fn head_recorder() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        sender.send(String::from_utf8(head).unwrap()).unwrap();
    });
    (address, receiver)
}
