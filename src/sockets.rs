//! Listening sockets: bound before anything else starts, so that a port in use ends the start with a clear message
//! instead of leaving a process that serves nothing; and the limit on open files that they live under.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::model::Listener;

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
                "the port is taken: see by whom with `ss -ltnp 'sport = :{}'`, then stop it or change the address",
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

impl BindError {
    /// The message at a reload, when the port may be taken by this very process.
    pub fn at_reload(&self) -> String {
        let hint = match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                " (a reload cannot move a listener between one address and all addresses of its own port: restart)"
            }
            _ => "",
        };
        format!("{self}{hint}")
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

/// A listening socket with the handle that ends its accept loop.
#[derive(Debug)]
pub struct Listening {
    pub name: String,
    /// As configured: the port may be 0.
    pub configured: SocketAddr,
    /// The address that clients connect to.
    pub address: SocketAddr,
    /// Kept for a hand-over, and for a listener that takes over this address at a reload. The kernel's socket is
    /// closed when this one and the accept loop's are.
    pub socket: TcpListener,
    pub stop: CancellationToken,
}

impl Listening {
    /// With a second handle to the socket, for the accept loop.
    pub fn new(name: &str, configured: SocketAddr, socket: TcpListener) -> Result<(Self, TcpListener), BindError> {
        let parts = || Ok((socket.local_addr()?, socket.try_clone()?));
        let (address, accepting) =
            parts().map_err(|source| BindError { address: configured, name: name.to_owned(), source })?;
        let stop = CancellationToken::new();
        Ok((Self { name: name.to_owned(), configured, address, socket, stop }, accepting))
    }

    /// The same listener, by name and address, as one of a configuration.
    pub fn is(&self, listener: &Listener) -> bool {
        self.name == listener.name && self.configured == listener.address
    }
}

/// What a reload does for one listener of the new configuration.
#[derive(Debug)]
pub enum Next {
    /// The one of this name goes on as it is.
    Keep(String),
    /// A new accept loop, on a new socket or on that of an address which changes its name.
    Start(Listening, TcpListener),
}

impl Next {
    /// Everything here that can fail does so before anything has changed.
    pub fn of(listener: &Listener, open: &[Listening]) -> Result<Self, BindError> {
        if let Some(same) = open.iter().find(|open| open.is(listener)) {
            return Ok(Self::Keep(same.name.clone()));
        }
        // Port 0 asks for a port of its own each time.
        let same_address = |open: &&Listening| open.configured == listener.address && listener.address.port() != 0;
        let socket = match open.iter().find(same_address) {
            Some(open) => open.socket.try_clone().map_err(|source| BindError {
                address: listener.address,
                name: listener.name.clone(),
                source,
            })?,
            None => bind(&listener.name, listener.address)?,
        };
        let (listening, accepting) = Listening::new(&listener.name, listener.address, socket)?;
        Ok(Self::Start(listening, accepting))
    }
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

        let error = bind("second", address).unwrap_err();

        let message = error.to_string();
        assert!(!message.contains("reload") && error.at_reload().contains("reload"), "{message}");
        assert!(message.starts_with(&format!("cannot listen on {address} (second): ")), "{message}");
        assert!(message.contains(&format!("sport = :{}", address.port())), "{message}");
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let message = bind("main", "192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();

        assert!(message.contains("no interface of this machine"), "{message}");
    }

    fn listener(name: &str, address: SocketAddr) -> Listener {
        let defaults = crate::config::defaults().config;
        Listener { name: name.to_owned(), address, ..Listener::clone(&defaults.listeners[0]) }
    }

    fn listening(name: &str, configured: &str) -> Listening {
        let configured: SocketAddr = configured.parse().unwrap();
        Listening::new(name, configured, bind(name, configured).unwrap()).unwrap().0
    }

    #[test]
    fn an_unchanged_listener_is_kept_also_on_port_zero() {
        let open = [listening("main", "127.0.0.1:0")];

        let next = Next::of(&listener("main", open[0].configured), &open).unwrap();

        assert!(matches!(next, Next::Keep(name) if name == "main"));
    }

    #[test]
    fn a_renamed_listener_takes_over_the_socket_of_its_address() {
        let mut open = [listening("old", "127.0.0.1:0")];
        open[0].configured = open[0].address;

        let Next::Start(next, accepting) = Next::of(&listener("new", open[0].address), &open).unwrap() else {
            panic!("kept")
        };

        assert_eq!((next.name.as_str(), next.address), ("new", open[0].address));
        assert_eq!(accepting.local_addr().unwrap(), open[0].address);
    }

    #[test]
    fn another_port_zero_is_another_port() {
        let open = [listening("one", "127.0.0.1:0")];

        let Next::Start(next, _) = Next::of(&listener("two", open[0].configured), &open).unwrap() else {
            panic!("kept")
        };

        assert_ne!(next.address, open[0].address);
    }

    #[test]
    fn connections_fit_in_half_of_the_files() {
        let config = Arc::new(crate::config::defaults().config);
        assert_eq!(config.listeners[0].max_connections, 10_000);

        let (roomy, none) = fit_connections(Arc::clone(&config), 20_000);
        assert!(none.is_none() && Arc::ptr_eq(&roomy, &config));

        let (fitted, warning) = fit_connections(config, 1_024);
        assert_eq!(fitted.listeners[0].max_connections, 512);
        assert!(warning.unwrap().contains("LimitNOFILE=20000"));
    }

    #[test]
    fn the_file_limit_is_raised_to_the_hard_one() {
        let limit = raise_file_limit();

        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
