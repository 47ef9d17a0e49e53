//! Telling the service manager how the process is doing: the `sd_notify` protocol, a datagram of `KEY=value` lines.
//!
//! Written out here because it is one `sendto`; the protocol is described in `sd_notify(3)`. Without
//! `NOTIFY_SOCKET` in the environment nothing is sent.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager's socket, if there is one. Failing to reach it is logged and changes nothing else:
/// a process must not die because its supervisor is busy.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
}

impl ServiceManager {
    /// Connects to what `NOTIFY_SOCKET` names.
    pub fn from_env(name: Option<OsString>) -> Self {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Self::default() };
        match connect(&name) {
            Ok(socket) => Self { socket: Some(socket) },
            Err(error) => {
                tracing::warn!(socket = ?name, %error, "cannot reach the service manager; it will not be notified");
                Self::default()
            }
        }
    }

    /// Every socket is bound and requests are answered.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=serving");
    }

    /// A reload has begun; [`ready`](Self::ready) ends it. The time is what `Type=notify-reload` asks for.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading"));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// After a hand-over: the process to watch from now on.
    pub fn main_process(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}\nSTATUS=handed over to process {pid}"));
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!(%error, message, "the service manager was not notified");
        }
    }
}

/// A path, or a name in the abstract namespace, which the protocol writes with a leading `@`.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The kernel's queue holds some messages; when the service manager does not read, this process must not wait.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn each_state_is_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = ServiceManager::from_env(Some(path.into_os_string()));

        notifier.ready();
        notifier.reloading();
        notifier.stopping();
        notifier.main_process(42);

        assert_eq!(received(&manager), "READY=1\nSTATUS=serving");
        assert!(received(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=draining");
        assert!(received(&manager).starts_with("MAINPID=42\n"));
    }

    #[test]
    fn abstract_names_begin_with_an_at_sign() {
        let name = format!("forebay-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();

        ServiceManager::from_env(Some(format!("@{name}").into())).ready();

        assert!(received(&manager).starts_with("READY=1"));
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        for name in [None, Some("".into()), Some("/nowhere/at/all".into())] {
            ServiceManager::from_env(name).ready();
        }
    }
}
