//! h2load's `--timing-script-file`: the offset in milliseconds with at most six decimals, a tab, the URI.
//!
//! h2load lets every client play the whole script; here it is played once, and `--multiply` is the number of clients.

use super::{Found, decimal, request_of};

pub(super) fn parse(text: &str, found: &mut Found) {
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let fields = line.split_once('\t').and_then(|(offset, uri)| Some((decimal(offset.trim(), 1_000_000)?, uri)));
        let request = fields.and_then(|(at, uri)| request_of("GET", uri.trim(), at).ok());
        match request {
            Some((host, record)) => found.take(host, record),
            None => found.leave_out("lines that are not `milliseconds<TAB>URI`", number),
        }
    }
}
