//! `forebay healthcheck`: asks a running process for `/readyz`, for containers that have no shell and no curl.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The answer is a line of text.
const MAX_ANSWER: usize = 1024;

/// Why the answer is "no".
#[derive(Debug)]
pub enum HealthError {
    /// The configuration leaves nothing to ask.
    NoAddress(&'static str),
    Url(&'static str),
    Connect(io::Error),
    Http(hyper::Error),
    TimedOut(Duration),
    /// It answered, but not with 200.
    NotReady {
        status: StatusCode,
        answer: String,
    },
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress(why) | Self::Url(why) => f.write_str(why),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Http(error) => write!(f, "no answer: {error}"),
            Self::TimedOut(limit) => write!(f, "no answer within {limit:?}"),
            Self::NotReady { status, answer } => write!(f, "{status}: {}", answer.trim_end()),
        }
    }
}

impl std::error::Error for HealthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Http(error) => Some(error),
            Self::NoAddress(_) | Self::Url(_) | Self::TimedOut(_) | Self::NotReady { .. } => None,
        }
    }
}

/// Where the process with this admin address is to be asked; `None` is one without an admin listener.
pub fn of_admin(address: Option<SocketAddr>) -> Result<Uri, HealthError> {
    let mut address =
        address.ok_or(HealthError::NoAddress("the admin listener is switched off: there is nothing to ask"))?;
    if address.port() == 0 {
        return Err(HealthError::NoAddress("admin.address has port 0, any port: name the real one with --url"));
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(format!("http://{address}/readyz").parse().expect("an address and a path make a URL"))
}

/// `Ok` when the answer is 200, within `timeout` altogether.
pub async fn ask(url: &Uri, timeout: Duration) -> Result<(), HealthError> {
    let asked = tokio::time::timeout(timeout, exchange(url)).await;
    let (status, answer) = asked.map_err(|_| HealthError::TimedOut(timeout))??;
    if status == StatusCode::OK { Ok(()) } else { Err(HealthError::NotReady { status, answer }) }
}

async fn exchange(url: &Uri) -> Result<(StatusCode, String), HealthError> {
    if url.scheme_str() != Some("http") {
        return Err(HealthError::Url("the URL must begin with http://"));
    }
    let authority = url.authority().ok_or(HealthError::Url("the URL has no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.map_err(HealthError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(HealthError::Http)?;
    let request = Request::get(url.path_and_query().map_or("/readyz", |path| path.as_str()))
        .header(HOST, authority.as_str())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("both header values come from a parsed URL");

    let answer = async {
        let response = sender.send_request(request).await.map_err(HealthError::Http)?;
        let status = response.status();
        // Only for the message: an answer that is too long, or breaks off, still has its status.
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok((status, text))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = answer.as_mut() => answer,
        // The connection may end first, with the answer already in hand.
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn asked(answer: &'static str) -> Result<(), HealthError> {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", socket.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut head = [0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..length]).into_owned()
        });

        let result = ask(&url, Duration::from_secs(10)).await;

        assert!(server.await.unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        result
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        asked("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n").await.unwrap();

        let no = asked("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 20\r\n\r\nnot ready: draining\n").await;
        assert_eq!(no.unwrap_err().to_string(), "503 Service Unavailable: not ready: draining");

        let garbage = asked("220 mail.example ESMTP\r\n").await.unwrap_err();
        assert!(garbage.to_string().starts_with("no answer: "), "{garbage}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_ready() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", socket.local_addr().unwrap()).parse().unwrap();

        let error = ask(&url, Duration::from_secs(2)).await.unwrap_err();

        assert_eq!(error.to_string(), "no answer within 2s");
    }

    #[tokio::test]
    async fn nobody_there_is_not_ready() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", socket.local_addr().unwrap()).parse().unwrap();
        drop(socket);

        assert!(matches!(ask(&url, Duration::from_secs(2)).await, Err(HealthError::Connect(_))));
    }

    #[test]
    fn the_address_comes_from_the_configuration() {
        let url = |address: Option<&str>| {
            of_admin(address.map(|address| address.parse().unwrap())).map(|url| url.to_string())
        };

        assert_eq!(url(Some("127.0.0.1:9901")).unwrap(), "http://127.0.0.1:9901/readyz");
        assert_eq!(url(Some("0.0.0.0:9901")).unwrap(), "http://127.0.0.1:9901/readyz");
        assert_eq!(url(Some("[::]:9901")).unwrap(), "http://[::1]:9901/readyz");
        assert!(url(Some("127.0.0.1:0")).is_err());
        assert!(url(None).is_err());
    }
}
