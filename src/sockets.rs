//! Listening sockets: bound before anything else starts, so that a port in use ends the start with a clear message
//! instead of leaving a process that serves nothing; and the limit on open files that they live under.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// Connections waiting to be accepted, for each listener; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Each downstream connection may need one upstream, and pools, logs, certificates and DNS need some as well:
/// so connections may take up to half of what the process may open.
const CONNECTION_SHARE: u64 = 2;

/// Why a socket could not be bound, in terms of the configuration.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    /// The listener's name, or "admin".
    pub name: String,
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, name, source } = self;
        write!(f, "cannot listen on {address} ({name}): {source}; ")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "another process has this port (see which with `ss -ltnp 'sport = :{}'`): stop it or change the address",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => f.write_str(
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant it, take a higher port, or let \
                 systemd pass the socket",
            ),
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("no interface of this machine has this address: use one that it has, or 0.0.0.0 for all")
            }
            _ => f.write_str("change the address in the configuration"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A listening socket, not blocking.
pub fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| BindError { address, name: name.to_owned(), source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the process before this one that linger in TIME_WAIT must not keep it from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Raises the soft limit on open files to the hard one and returns what holds then; `u64::MAX` when there is none.
///
/// The soft limit is 1024 nearly everywhere, for programs that use `select`; this one does not.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, soft = ?limit.current, hard = ?limit.maximum, "cannot raise the limit on open files");
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

/// The configuration with connection limits that fit the limit on open files, and a warning when they had to be
/// lowered. Running out of files would stop accepting, connecting and logging all at once; a lower connection limit
/// refuses the connection that is too many, and says so.
pub fn fit_connections(config: Arc<Config>, file_limit: u64) -> (Arc<Config>, Option<String>) {
    let wanted: u64 = config.listeners.iter().map(|listener| listener.max_connections as u64).sum();
    let budget = file_limit / CONNECTION_SHARE;
    if wanted <= budget {
        return (config, None);
    }
    let mut fitted = Config::clone(&config);
    for listener in &mut fitted.listeners {
        let share = listener.max_connections as u128 * u128::from(budget) / u128::from(wanted);
        // Not more than before, so it fits; at least one, or the listener could as well be left out.
        Arc::make_mut(listener).max_connections = usize::try_from(share).unwrap_or(usize::MAX).max(1);
    }
    let warning = format!(
        "max_connections lowered from {wanted} to {budget} in total: half of the {file_limit} files that this process \
         may open; raise the limit (systemd: LimitNOFILE={}, shell: ulimit -n) or lower max_connections",
        wanted * CONNECTION_SHARE
    );
    (Arc::new(fitted), Some(warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_explained() {
        let holder = bind("first", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = holder.local_addr().unwrap();

        let message = bind("second", address).unwrap_err().to_string();

        assert!(message.starts_with(&format!("cannot listen on {address} (second): ")), "{message}");
        assert!(message.contains(&format!("sport = :{}", address.port())), "{message}");
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let message = bind("main", "192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();

        assert!(message.contains("no interface of this machine"), "{message}");
    }

    #[test]
    fn the_file_limit_is_raised_to_the_hard_one() {
        let limit = raise_file_limit();

        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
