//! The floor: bytes from client to upstream and back, one upstream connection for each client, no HTTP at all.

#![forbid(unsafe_code)]

use forebay_comparators::{Options, accept_loop, block_on};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> std::io::Result<()> {
    let options = Options::from_args();
    let upstream = options.upstream();
    block_on(accept_loop(options.listen(), move |mut downstream| async move {
        let Ok(mut upstream) = TcpStream::connect(upstream).await else { return };
        if upstream.set_nodelay(true).is_err() {
            return;
        }
        // Either side leaving ends the pair; there is nobody to tell.
        let _ = copy_bidirectional_with_sizes(&mut downstream, &mut upstream, BUFFER_BYTES, BUFFER_BYTES).await;
    }))
}
