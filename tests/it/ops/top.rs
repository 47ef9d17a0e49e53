//! `forebay top` against a running sidecar.

use std::net::SocketAddr;
use std::process::Output;

use rustix::process::{Signal, kill_process};
use tokio::process::Command;

use crate::support::forebay::Forebay;
use crate::support::process::{Process, command, only_child};
use crate::support::{eventually, http};

const CONFIG: &str =
    "[route.quick]\npath = \"/quick\"\ndeadline = \"1s\"\nrespond = { status = 200, body = \"here\" }\n";

async fn top(admin: SocketAddr, arguments: &[&str], token: Option<&str>) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_forebay"));
    run.arg("top").arg("--once").args(arguments).args(["--admin", &admin.to_string()]);
    run.env_remove("FOREBAY_ADMIN_TOKEN");
    if let Some(token) = token {
        run.env("FOREBAY_ADMIN_TOKEN", token);
    }
    run.kill_on_drop(true).output().await.expect("it runs")
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[tokio::test]
async fn each_view_is_shown_as_the_page_has_it() {
    let forebay = Forebay::start(CONFIG).await;
    for _ in 0..5 {
        http::get(forebay.address(), "/quick").await.expect("an answer");
    }
    eventually("the overview counts them", async || {
        let shown = text(&top(forebay.admin(), &[], None).await.stdout);
        let row = shown.lines().find(|line| line.trim_start().starts_with("quick "))?.to_owned();
        let words: Vec<&str> = row.split_whitespace().collect();
        (words[1] == "5" && row.ends_with("1.00 s")).then_some(())
    })
    .await;

    for (view, wanted) in [("latency", "1.00 s (deadline)"), ("requests", "GET /quick"), ("limits", "No rate_limit")] {
        let output = top(forebay.admin(), &[view, "--route", "quick"], None).await;
        let (shown, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && shown.contains(wanted), "{view}: {shown}{errors}");
        assert!(!shown.contains('\u{1b}'), "no colours into a pipe: {shown:?}");
    }
}

/// `script` gives it a terminal of 24 lines and 80 columns.
fn in_a_terminal(kind: &str, admin: SocketAddr) -> Process {
    let mut run = command("script");
    let top = format!("stty cols 80 rows 24; exec {} top --admin {admin}", env!("CARGO_BIN_EXE_forebay"));
    run.args(["--quiet", "--return", "--command", &top, "/dev/null"]).env("TERM", kind);
    Process::start("forebay top", run)
}

fn shows(what: &'static str) -> impl Fn(&[String]) -> Option<()> {
    move |lines| lines.iter().any(|line| line.contains(what)).then_some(())
}

#[tokio::test]
async fn told_to_end_it_gives_the_terminal_back_and_a_dumb_one_gets_lines() {
    let forebay = Forebay::start(CONFIG).await;
    let mut top = in_a_terminal("xterm", forebay.admin());
    top.output("shows the overview", shows("Upstreams")).await;
    kill_process(only_child(top.id()), Signal::TERM).expect("it runs");
    let status = top.ended().await;
    let shown = top.stdout.all().join("\n");
    assert!(status.success() && shown.trim_end().ends_with("\u{1b}[?1049l"), "{status}: {shown:?}");

    let mut top = in_a_terminal("dumb", forebay.admin());
    top.output("shows it twice", |lines| {
        (lines.iter().filter(|line| line.contains("Upstreams")).count() == 2).then_some(())
    })
    .await;
    assert!(!top.stdout.all().concat().contains('\u{1b}'), "{:?}", top.stdout.all());
}

#[tokio::test]
async fn in_a_terminal_keys_turn_to_other_views_and_end_it() {
    let forebay = Forebay::start(CONFIG).await;
    let mut top = in_a_terminal("xterm", forebay.admin());

    top.output("shows the overview", shows("Upstreams")).await;
    top.types("\t");
    top.output("shows the latency", shows("deadline")).await;
    top.types("4");
    top.output("shows the limits", shows("No rate_limit")).await;
    top.types("q");
    let status = top.ended().await;

    let shown = top.stdout.all().join("\n");
    assert!(status.success(), "{status}: {shown}");
    assert!(shown.contains("\u{1b}[?1049h") && shown.trim_end().ends_with("\u{1b}[?1049l"), "{shown:?}");
    // The peak and the limit are there, since the lines of the past have given way.
    assert!(shown.contains("In flight now") && !shown.contains("2 min"), "{shown}");
}

#[tokio::test]
async fn it_says_what_to_do_when_there_is_nobody_or_a_token_is_wanted() {
    let nobody = top("127.0.0.1:1".parse().unwrap(), &[], None).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("name it with --admin"), "{}", text(&nobody.stderr));

    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&secret, "t0ken").expect("written");
    let token = format!("token = {{ file = \"{}\" }}", secret.path().display());
    let forebay = Forebay::start(&format!("[admin]\naddress = \"127.0.0.1:0\"\n{token}\n\n{CONFIG}")).await;
    let refused = top(forebay.admin(), &[], None).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("set FOREBAY_ADMIN_TOKEN"), "{}", text(&refused.stderr));
    let wrong = top(forebay.admin(), &[], Some("other")).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("refused the token in FOREBAY_ADMIN_TOKEN"), "{}", text(&wrong.stderr));
    let shown = top(forebay.admin(), &[], Some("t0ken")).await;
    assert!(shown.status.success() && text(&shown.stdout).contains("Routes"), "{}", text(&shown.stderr));
}
