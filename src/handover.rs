//! Replacing the binary without refusing a connection: the listening sockets pass to the new process.
//!
//! On SIGUSR2 the old process starts the program again, with the same arguments, and gives it the listening
//! sockets in the way systemd gives sockets to a service: descriptors from 3 up, counted in `LISTEN_FDS`, named in
//! `LISTEN_FDNAMES`. The new process therefore has one way of inheriting sockets for both. One more descriptor,
//! named [`READY`], is the line on which it says that it serves; only then does the old one stop accepting and
//! drain. Both accept on the same sockets meanwhile, so nothing is refused. If the new process ends or says
//! nothing for too long, it is ended, and the old one goes on as if nothing had been asked.
//!
//! What this does not do: in a container, where the process is PID 1, the container ends with it, so a hand-over is
//! refused; there the pods are rolled. A supervisor other than systemd (which is told the new `MAINPID`) would take
//! the old process's exit for a crash: use its own restart there, with socket activation if it has it.

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;

/// How long the new process may take until it serves: it reads its configuration and certificates.
pub const READY_LIMIT: Duration = Duration::from_secs(30);

/// The name of the admin socket among the passed ones. `@` cannot begin a listener's name.
pub const ADMIN: &str = "@admin";

/// The name of the datagram socket on which the new process says that it serves.
const READY: &str = "@ready";

/// What it says there.
const READY_MESSAGE: &[u8] = b"READY=1";

/// The protocol's first descriptor, after stdin, stdout and stderr.
const FIRST_FD: i32 = 3;

/// Sockets that this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
    ready: Option<UnixDatagram>,
}

#[derive(Debug)]
struct InheritedSocket {
    name: String,
    address: SocketAddr,
    socket: TcpListener,
}

impl Inherited {
    /// Takes what the environment announces, and the announcement itself, so that no child process believes it.
    /// To be called once, before there are other threads.
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut descriptors = ListenFd::from_env();
        let mut inherited = Self::default();
        let mut names = names.split(':');
        for index in 0..descriptors.len() {
            let name = names.next().unwrap_or_default();
            if let Err(error) = inherited.adopt(&mut descriptors, index, name) {
                tracing::warn!(name, index, %error, "an inherited descriptor is of no use here");
            }
        }
        inherited
    }

    fn adopt(&mut self, descriptors: &mut ListenFd, index: usize, name: &str) -> io::Result<()> {
        if name == READY {
            self.ready = descriptors.take_unix_datagram(index)?;
        } else if let Some(socket) = descriptors.take_tcp_listener(index)? {
            self.add(name, socket)?;
        }
        Ok(())
    }

    /// A socket that was bound beforehand.
    pub fn add(&mut self, name: &str, socket: TcpListener) -> io::Result<()> {
        // The other side may have passed it in blocking mode, on which tokio would hang.
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        self.sockets.push(InheritedSocket { name: name.to_owned(), address, socket });
        Ok(())
    }

    /// The socket for a listener: the one with its address, whatever it is called, because the address is what
    /// clients know. Port 0 asks for any port, so there the name must match, and the rest of the address.
    pub fn take(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let fits = |candidate: &InheritedSocket| {
            candidate.address == address
                || (address.port() == 0 && candidate.name == name && candidate.address.ip() == address.ip())
        };
        let index = self.sockets.iter().position(fits)?;
        Some(self.sockets.swap_remove(index).socket)
    }

    /// Addresses of the sockets that no listener took; they are closed with `self`.
    pub fn unused(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.address).collect()
    }

    /// Says to the process before this one, if there is one, that this one serves now.
    pub fn announce_ready(&mut self) {
        let Some(socket) = self.ready.take() else { return };
        if let Err(error) = socket.send(READY_MESSAGE) {
            tracing::warn!(%error, "the process that handed over could not be told that this one serves");
        }
    }
}

/// How this process was started, and so how its successor is.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

impl Invocation {
    /// From the process's own arguments. The name that it was called by is kept, not the file which that name led
    /// to: an upgrade may replace the file or point a link elsewhere, and the successor should be the new one.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let called = arguments.next().map(PathBuf::from);
        let program = match called {
            Some(path) if path.components().count() > 1 => path,
            Some(name) => search_path(&name, std::env::var_os("PATH")).map_or_else(std::env::current_exe, Ok)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { program, arguments: arguments.collect() })
    }
}

/// Where a shell would have found `name`.
fn search_path(name: &Path, path: Option<OsString>) -> Option<PathBuf> {
    std::env::split_paths(&path?).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Why a hand-over did not happen. The old process serves on in every case.
#[derive(Debug)]
pub enum HandOverError {
    /// This process is PID 1.
    Container,
    /// The descriptors could not be prepared, or the program not be started.
    Start { program: PathBuf, source: io::Error },
    /// The new process ended before it served; its own log says why.
    Ended(ExitStatus),
    /// The new process did not serve in time, and was ended.
    Silent(Duration),
    /// This process was told to stop meanwhile.
    Cancelled,
    /// Waiting for the new process failed.
    Wait(io::Error),
}

impl fmt::Display for HandOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => f.write_str(
                "this process is PID 1, its container ends with it: \
                 deploy the new image and let the orchestrator roll the pods, with /readyz as readiness probe",
            ),
            Self::Start { program, source } => write!(f, "cannot start {}: {source}", program.display()),
            Self::Ended(status) => write!(f, "the new process ended ({status}) before it served; see its log"),
            Self::Silent(limit) => write!(f, "the new process did not serve within {limit:?} and was ended"),
            Self::Cancelled => f.write_str("this process was told to stop; the new one was ended"),
            Self::Wait(source) => write!(f, "cannot wait for the new process: {source}"),
        }
    }
}

impl std::error::Error for HandOverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. } | Self::Wait(source) => Some(source),
            Self::Container | Self::Ended(_) | Self::Silent(_) | Self::Cancelled => None,
        }
    }
}

/// Starts the successor with `sockets` (name and socket) and returns its process id once it serves; `cancelled` ends
/// the attempt.
pub async fn hand_over(
    invocation: &Invocation,
    sockets: Vec<(String, TcpListener)>,
    limit: Duration,
    cancelled: impl Future<Output = ()>,
) -> Result<u32, HandOverError> {
    if std::process::id() == 1 {
        return Err(HandOverError::Container);
    }
    let cannot_start = |source| HandOverError::Start { program: invocation.program.clone(), source };
    let (ours, theirs) = UnixDatagram::pair().map_err(cannot_start)?;
    let mut command = successor(invocation, sockets, theirs).map_err(cannot_start)?;
    let mut child = command.spawn().map_err(cannot_start)?;
    // The command still owns this process's copies of what was passed on.
    drop(command);
    let pid = child.id().unwrap_or_default();
    tracing::info!(pid, program = %invocation.program.display(), "handing over: the new process is starting");

    tokio::select! {
        served = serves(ours) => served.map(|()| pid).map_err(HandOverError::Wait),
        ended = child.wait() => Err(ended.map_or_else(HandOverError::Wait, HandOverError::Ended)),
        () = tokio::time::sleep(limit) => end(&mut child, HandOverError::Silent(limit)).await,
        () = cancelled => end(&mut child, HandOverError::Cancelled).await,
    }
}

async fn end(child: &mut tokio::process::Child, reason: HandOverError) -> Result<u32, HandOverError> {
    child.kill().await.map_err(HandOverError::Wait)?;
    Err(reason)
}

/// The command that starts the successor, with its descriptors and the environment that describes them.
fn successor(
    invocation: &Invocation,
    sockets: Vec<(String, TcpListener)>,
    ready: UnixDatagram,
) -> io::Result<tokio::process::Command> {
    let (mut names, mut descriptors): (Vec<String>, Vec<OwnedFd>) =
        sockets.into_iter().map(|(name, socket)| (name, OwnedFd::from(socket))).unzip();
    names.push(READY.to_owned());
    descriptors.push(ready.into());

    let mut command = std::process::Command::new(&invocation.program);
    command
        .args(&invocation.arguments)
        .env("LISTEN_FDS", descriptors.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        // The successor's process id is not known before it runs; without this one the descriptors are for whoever
        // reads the rest.
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS_FIRST_FD");
    let mappings =
        (FIRST_FD..).zip(descriptors).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok(command.into())
}

async fn serves(line: UnixDatagram) -> io::Result<()> {
    line.set_nonblocking(true)?;
    let line = tokio::net::UnixDatagram::from_std(line)?;
    let mut message = [0; 64];
    loop {
        let length = line.recv(&mut message).await?;
        if &message[..length] == READY_MESSAGE {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn inherited(sockets: &[(&str, &TcpListener)]) -> Inherited {
        let mut inherited = Inherited::default();
        for (name, socket) in sockets {
            inherited.add(name, socket.try_clone().unwrap()).unwrap();
        }
        inherited
    }

    fn shell(script: &str) -> Invocation {
        Invocation { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
    }

    #[test]
    fn a_socket_is_found_by_its_address_whatever_its_name() {
        let socket = listener();
        let address = socket.local_addr().unwrap();
        let mut inherited = inherited(&[("forebay.socket", &socket)]);

        let taken = inherited.take("main", address).unwrap();

        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(inherited.take("main", address).is_none(), "each socket is given once");
    }

    #[test]
    fn any_port_is_found_by_name() {
        let (one, two) = (listener(), listener());
        let any = "127.0.0.1:0".parse().unwrap();
        let mut inherited = inherited(&[("one", &one), ("two", &two)]);

        let taken = inherited.take("two", any).unwrap();

        assert_eq!(taken.local_addr().unwrap(), two.local_addr().unwrap());
        assert!(inherited.take("three", any).is_none());
        assert!(inherited.take("one", "127.0.0.2:0".parse().unwrap()).is_none());
        assert_eq!(inherited.unused(), [one.local_addr().unwrap()]);
    }

    #[tokio::test]
    async fn the_successor_gets_the_sockets_and_names_in_order() {
        let (one, two) = (listener(), listener());
        let script = r#"
            test "$LISTEN_FDS" = 3 && test "$LISTEN_FDNAMES" = one:@admin:@ready && test -z "$LISTEN_PID" || exit 9
            test -S /proc/self/fd/3 && test -S /proc/self/fd/4 && test -S /proc/self/fd/5 || exit 8
            exit 7"#;

        let sockets = vec![("one".to_owned(), one), (ADMIN.to_owned(), two)];
        let error = hand_over(&shell(script), sockets, READY_LIMIT, pending()).await.unwrap_err();

        let HandOverError::Ended(status) = error else { panic!("{error}") };
        assert_eq!(status.code(), Some(7));
    }

    #[tokio::test]
    async fn a_successor_that_says_nothing_is_ended() {
        let error =
            hand_over(&shell("exec sleep 600"), vec![], Duration::from_millis(50), pending()).await.unwrap_err();

        assert!(matches!(error, HandOverError::Silent(_)), "{error}");
    }

    #[tokio::test]
    async fn a_stop_ends_the_attempt_and_the_successor() {
        let error = hand_over(&shell("exec sleep 600"), vec![], READY_LIMIT, async {}).await.unwrap_err();

        assert!(matches!(error, HandOverError::Cancelled), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let invocation = Invocation { program: "/nowhere/forebay".into(), arguments: vec![] };

        let error = hand_over(&invocation, vec![], READY_LIMIT, pending()).await.unwrap_err();

        assert!(error.to_string().starts_with("cannot start /nowhere/forebay: "), "{error}");
    }

    #[tokio::test]
    async fn only_the_right_word_counts_as_ready() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let mut successor = Inherited { ready: Some(theirs.try_clone().unwrap()), ..Inherited::default() };
        theirs.send(b"something else").unwrap();

        successor.announce_ready();

        tokio::time::timeout(Duration::from_secs(5), serves(ours)).await.expect("said ready").unwrap();
    }

    #[test]
    fn a_program_called_by_name_is_searched_where_the_shell_would() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("forebay"), "").unwrap();
        let path = std::env::join_paths(["/nowhere".into(), folder.path().to_path_buf()]).unwrap();

        let found = search_path(Path::new("forebay"), Some(path.clone()));

        assert_eq!(found, Some(folder.path().join("forebay")));
        assert_eq!(search_path(Path::new("other"), Some(path)), None);
        assert_eq!(search_path(Path::new("forebay"), None), None);
    }
}
