//! Sockets from outside (systemd's protocol), and the process as PID 1 of a container.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Signal, kill_process};

use crate::support::eventually;
use crate::support::http::get;
use crate::support::process::{Process, command, only_child};

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("forebay.toml"), text).expect("written");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("forebay.toml")
    }
}

fn config(main: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "[listener]\naddress = \"{main}\"\n[admin]\naddress = \"{admin}\"\n[shutdown]\naccept_grace = \"0s\"\n\
         [route.here]\npath = \"/here\"\nrespond = {{ body = \"here\" }}\n"
    )
}

/// `forebay run` with these sockets as systemd passes them: descriptors from 3 up, with LISTEN_PID set by a shell that
/// becomes the program, since the process id is not known before.
fn activated(file: PathBuf, sockets: Vec<TcpListener>) -> Command {
    let script = "LISTEN_PID=$$ exec \"$0\" run -c \"$1\"";
    let mut run = command("sh");
    run.args(["-c", script, env!("CARGO_BIN_EXE_forebay")]).arg(file).env("NO_COLOR", "1");
    run.env("LISTEN_FDS", sockets.len().to_string());
    let mappings = sockets.into_iter().enumerate().map(|(index, socket)| FdMapping {
        parent_fd: OwnedFd::from(socket),
        child_fd: 3 + i32::try_from(index).expect("few sockets"),
    });
    run.fd_mappings(mappings.collect()).expect("each descriptor is mapped once");
    run
}

async fn ready(admin: SocketAddr) {
    eventually("ready", async || get(admin, "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn sockets_of_systemd_are_used_and_clients_wait_in_them_meanwhile() {
    let main = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, admin_address) = (main.local_addr().unwrap(), admin.local_addr().unwrap());
    let folder = Folder::with(&config(address, admin_address));
    // Connected before anybody serves: the kernel keeps it, which is what socket activation is for.
    let early = tokio::spawn(async move { get(address, "/here").await });

    let mut forebay = Process::start("forebay", activated(folder.file(), vec![main, admin]));
    ready(admin_address).await;

    assert_eq!(early.await.unwrap().expect("an answer").text(), "here");
    forebay.signal(Signal::TERM);
    assert_eq!(forebay.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_passed_socket_that_no_listener_wants_is_closed_with_a_warning() {
    let (main, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (address, unwanted) = (main.local_addr().unwrap(), other.local_addr().unwrap());
    let folder = Folder::with(&config(address, "127.0.0.1:0".parse().unwrap()));

    let mut forebay = Process::start("forebay", activated(folder.file(), vec![other, main]));

    forebay
        .output("warns", |lines| {
            let warned =
                |line: &String| line.contains("a passed socket is closed") && line.contains(&unwanted.to_string());
            lines.iter().any(warned).then_some(())
        })
        .await;
    assert_eq!(get(address, "/here").await.expect("an answer").status, 200);
    assert!(get(unwanted, "/here").await.is_err(), "refused, not left waiting");
}

/// As in a container: with a process-id namespace of its own, which needs root.
#[tokio::test]
async fn as_pid_1_it_refuses_a_hand_over_and_says_what_to_do_instead() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a process-id namespace cannot be made");
        return;
    }
    let any = "127.0.0.1:0".parse().unwrap();
    let folder = Folder::with(&config(any, any));
    let mut run = command("unshare");
    run.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    run.arg(env!("CARGO_BIN_EXE_forebay")).arg("run").arg("-c").arg(folder.file()).env("NO_COLOR", "1");
    let mut unshare = Process::start("forebay as PID 1", run);
    let admin = unshare
        .output("says where it listens", |lines| {
            let line = lines.iter().find(|line| line.contains("(admin)"))?;
            line.split_once("http://")?.1.split_once(' ')?.0.parse().ok()
        })
        .await;
    ready(admin).await;
    let forebay = only_child(unshare.id());

    kill_process(forebay, Signal::USR2).expect("it runs");
    unshare
        .output("refuses", |lines| {
            let refused = |line: &String| {
                line.contains("no hand-over, this process serves on")
                    && line.contains("let the orchestrator roll the pods")
            };
            lines.iter().any(refused).then_some(())
        })
        .await;
    ready(admin).await;

    // PID 1 has no default handlers: that SIGTERM ends it is the program's own doing.
    kill_process(forebay, Signal::TERM).expect("it runs");
    assert_eq!(unshare.ended().await.code(), Some(0));
}
