//! The units in `packaging/systemd`, judged by systemd's own tools and run by a real systemd.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::eventually;
use crate::support::http::get;
use crate::support::load::Load;
use crate::support::repository;
use crate::support::systemd::Manager;

/// An address that no other test has: the units need one that is known beforehand, and a socket unit cannot ask for any.
fn own_address(test: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let own: SocketAddr = ([127, 64 + test, high, low], 0).into();
    TcpListener::bind(own).and_then(|socket| socket.local_addr()).expect("all of 127.0.0.0/8 is this machine")
}

fn config(address: SocketAddr, status: u16) -> String {
    format!(
        "[listener]\naddress = \"{address}\"\n[admin]\naddress = \"127.0.0.1:0\"\n[shutdown]\naccept_grace = \"0s\"\n\
         [reload]\nwatch = false\n[route.here]\npath = \"/here\"\nrespond = {{ status = {status}, body = \"here\" }}\n"
    )
}

fn analyze(arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).current_dir(folder).output();
    let output = output.expect("systemd-analyze is missing: run scripts/setup.sh");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_units_have_no_mistakes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["forebay.service", "forebay.socket"] {
        let unit = std::fs::read_to_string(repository("packaging/systemd").join(name)).expect("a unit");
        // The program has to be there.
        let unit = unit.replace("/usr/bin/forebay", env!("CARGO_BIN_EXE_forebay"));
        std::fs::write(folder.path().join(name), unit).expect("writable");
    }

    let (valid, said) = analyze(&["verify", "--man=no", "./forebay.service", "./forebay.socket"], folder.path());

    assert!(valid && said.trim().is_empty(), "{said}");
}

#[test]
fn the_service_is_exposed_to_little() {
    let units = repository("packaging/systemd");

    // 2.0 in tenths; systemd's own word for up to that is OK.
    let options = ["security", "--no-pager", "--offline=true", "--threshold=20", "./forebay.service"];
    let (little, said) = analyze(&options, &units);

    assert!(little && said.contains("Overall exposure level"), "{said}");
}

#[tokio::test]
async fn it_runs_as_nobody_reloads_and_refuses_a_wrong_file() {
    let address = own_address(0);
    let systemd = Manager::start(&config(address, 201), address).await;

    systemd.told(&["start", "forebay.service"]).await;

    // Type=notify: `start` returns when it serves.
    assert_eq!(get(address, "/here").await.expect("an answer").status, 201);
    assert_eq!(systemd.told(&["show", "--property=StatusText", "--value", "forebay.service"]).await, "serving");
    let status = systemd.of_main_process("status").await;
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or(key).trim().to_owned();
    assert_ne!(of("Uid:").split_whitespace().next(), Some("0"), "{status}");
    assert_eq!((of("CapBnd:").as_str(), of("NoNewPrivs:").as_str()), ("0000000000000000", "1"), "{status}");
    assert_eq!(of("Seccomp:"), "2", "system calls are filtered: {status}");
    let log = systemd.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    std::fs::write(systemd.config_path(), config(address, 202)).expect("writable");
    systemd.told(&["reload", "forebay.service"]).await;
    eventually("the new status", async || {
        (get(address, "/here").await.expect("an answer").status == 202).then_some(())
    })
    .await;

    std::fs::write(systemd.config_path(), config(address, 203).replace("respond", "resopnd")).expect("writable");
    let refused = systemd.systemctl(&["reload", "forebay.service"]).await;
    assert!(!refused.status.success(), "a wrong file is no reload");
    assert!(systemd.log().contains("did you mean `respond`?"), "{}", systemd.log());
    assert_eq!(get(address, "/here").await.expect("an answer").status, 202);

    systemd.told(&["stop", "forebay.socket", "forebay.service"]).await;
    assert!(get(address, "/here").await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn restarts_with_socket_activation_lose_no_connection() {
    let address = own_address(1);
    let systemd = Manager::start(&config(address, 200), address).await;
    systemd.told(&["start", "forebay.socket"]).await;
    let main_process = async || systemd.told(&["show", "--property=MainPID", "--value", "forebay.service"]).await;
    assert_eq!(main_process().await, "0", "only the socket is there");

    // The first connection starts the service.
    assert_eq!(get(address, "/here").await.expect("an answer").text(), "here");
    let first = main_process().await;
    assert_ne!(first, "0");

    let load = Load::start(address, "/here", 4, 4, Duration::from_millis(5));
    // Five starts within ten seconds are what systemd allows.
    for _ in 0..4 {
        let before = load.answered();
        systemd.told(&["restart", "forebay.service"]).await;
        eventually("all clients are served again", async || (load.answered() > before + 400).then_some(())).await;
    }
    let tally = load.stop().await;

    assert!(tally.failures.is_empty(), "{:?} of {}\n{}", tally.failures, tally.answered, systemd.log());
    assert_ne!(main_process().await, first, "it was restarted");
    println!("{} requests during four restarts, none lost", tally.answered);
    systemd.told(&["stop", "forebay.socket", "forebay.service"]).await;
}
