//! Nobody reads stderr any more, and its pipe is full: the proxy does not care.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;
use crate::support::http::get;

/// What a Linux pipe holds.
const PIPE: usize = 64 * 1024;

/// Its lines cannot be read, so the ports are chosen before.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn requests_reloads_and_the_exit_do_not_wait_for_a_reader_of_the_log() {
    let (listener, admin) = (free_address(), free_address());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("forebay.toml");
    let config = format!(
        "[listener]\naddress = \"{listener}\"\n[admin]\naddress = \"{admin}\"\n[shutdown]\naccept_grace = \"0s\"\n\
         [access_log]\noutput = \"off\"\n[route.here]\npath = \"/here\"\nrespond = {{ status = 200 }}\n"
    );
    std::fs::write(&file, config).unwrap();
    let (_unread, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b'.'; PIPE]).unwrap();
    let mut forebay = tokio::process::Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["run", "-c"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(full)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(forebay.id().unwrap().try_into().unwrap()).unwrap();
    eventually("it serves", async || get(listener, "/here").await.ok()).await;

    for reloads in 1..=5 {
        kill_process(pid, Signal::HUP).unwrap();
        let wanted = format!("forebay_config_reloads_total{{result=\"unchanged\"}} {reloads}\n");
        eventually("the reload is counted", async || {
            let metrics = get(admin, "/metrics").await.ok()?;
            String::from_utf8_lossy(&metrics.body).contains(&wanted).then_some(())
        })
        .await;
    }
    assert_eq!(get(listener, "/here").await.unwrap().status, 200);
    kill_process(pid, Signal::TERM).unwrap();

    let exit = tokio::time::timeout(Duration::from_secs(10), forebay.wait()).await.expect("it ends").unwrap();
    assert!(exit.success(), "{exit}");
}
