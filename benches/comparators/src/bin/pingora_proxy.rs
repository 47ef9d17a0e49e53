//! Bare pingora-proxy: the least code that forwards to one upstream, every default as it comes, one thread.
//!
//! `--deadline-ms` becomes the peer's `read_timeout`, the nearest thing that `ProxyHttp` has to a deadline.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use forebay_comparators::Options;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

struct Forward {
    upstream: SocketAddr,
    read_timeout: Duration,
}

#[async_trait::async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        peer.options.read_timeout = Some(self.read_timeout);
        Ok(Box::new(peer))
    }
}

fn main() {
    let options = Options::from_args();
    let conf = ServerConf { threads: 1, grace_period_seconds: Some(0), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let app = Forward { upstream: options.upstream(), read_timeout: options.deadline() };
    let mut service = http_proxy_service(&server.configuration, app);
    service.add_tcp(&options.listen().to_string());
    server.add_service(service);
    server.run_forever()
}
