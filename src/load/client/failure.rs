//! Why there is no answer: from the errors of sockets, TLS and HTTP to the closed list that is counted.
//!
//! The names are for someone who reads a report, so the split follows what he would do next: look whether the target
//! runs (refused), at the network (unreachable, timeout), at its log (reset, closed), or at his own limits (file
//! descriptors, ports).

use std::error::Error as StdError;
use std::io;

use rustix::io::Errno;

use crate::load::ErrorKind;

/// An error while a connection was made.
pub fn of_connect(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            ErrorKind::Refused
        }
        io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
        // A unix socket whose backlog is full says so instead of waiting.
        io::ErrorKind::WouldBlock => ErrorKind::Refused,
        _ => of_io(error),
    }
}

/// An error of a socket in use, or one that both phases share.
pub fn of_io(error: &io::Error) -> ErrorKind {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => return ErrorKind::TooManyFiles,
        // What Linux answers to `connect` when every local port towards this address is taken.
        Some(Errno::ADDRNOTAVAIL) => return ErrorKind::PortsExhausted,
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            ErrorKind::Reset
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => ErrorKind::Closed,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkDown => {
            ErrorKind::Unreachable
        }
        // The kernel gave up sending: the peer has gone without a word.
        io::ErrorKind::TimedOut => ErrorKind::Unreachable,
        _ if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => ErrorKind::Tls,
        _ => ErrorKind::Other,
    }
}

/// An error during a TLS handshake: that of the socket when it is one, else TLS.
pub fn of_handshake(error: &io::Error) -> ErrorKind {
    match of_io(error) {
        ErrorKind::Other | ErrorKind::Closed => ErrorKind::Tls,
        kind => kind,
    }
}

/// An error of an exchange. The cause decides where there is one: the HTTP layers only wrap what happened below.
pub fn of_exchange(error: &hyper::Error) -> ErrorKind {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    for cause in causes {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return of_io(error);
        }
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return of_http2(error);
        }
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        ErrorKind::Closed
    } else {
        // What is left are heads and bodies that cannot be read.
        ErrorKind::Protocol
    }
}

/// Whether the target says that it did not look at the request, so that it may be sent again.
pub fn is_refused_stream(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn of_http2(error: &h2::Error) -> ErrorKind {
    match error.get_io() {
        Some(error) => of_io(error),
        None if error.is_remote() && error.is_reset() => ErrorKind::Reset,
        None if error.is_remote() && error.is_go_away() => ErrorKind::Closed,
        None => ErrorKind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn failures_to_connect_are_told_apart() {
        let table = [
            (Errno::CONNREFUSED, ErrorKind::Refused),
            (Errno::NOENT, ErrorKind::Refused),
            (Errno::AGAIN, ErrorKind::Refused),
            (Errno::TIMEDOUT, ErrorKind::ConnectTimeout),
            (Errno::NETUNREACH, ErrorKind::Unreachable),
            (Errno::HOSTUNREACH, ErrorKind::Unreachable),
            (Errno::MFILE, ErrorKind::TooManyFiles),
            (Errno::NFILE, ErrorKind::TooManyFiles),
            (Errno::ADDRNOTAVAIL, ErrorKind::PortsExhausted),
            (Errno::CONNRESET, ErrorKind::Reset),
            (Errno::NOMEM, ErrorKind::Other),
        ];
        for (errno, kind) in table {
            assert_eq!(of_connect(&os(errno)), kind, "{errno:?}");
        }
    }

    #[test]
    fn failures_of_an_open_connection_are_told_apart() {
        let table = [
            (Errno::CONNRESET, ErrorKind::Reset),
            (Errno::PIPE, ErrorKind::Reset),
            (Errno::TIMEDOUT, ErrorKind::Unreachable),
        ];
        for (errno, kind) in table {
            assert_eq!(of_io(&os(errno)), kind, "{errno:?}");
        }
        assert_eq!(of_io(&io::ErrorKind::UnexpectedEof.into()), ErrorKind::Closed);
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        assert_eq!(of_io(&tls), ErrorKind::Tls);
    }

    #[test]
    fn a_handshake_that_ends_early_is_a_failure_of_tls() {
        assert_eq!(of_handshake(&io::ErrorKind::UnexpectedEof.into()), ErrorKind::Tls);
        assert_eq!(of_handshake(&os(Errno::CONNRESET)), ErrorKind::Reset);
    }
}
