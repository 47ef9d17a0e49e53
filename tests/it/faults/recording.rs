//! Recorded traffic: what clients sent comes back by `forebay replay`, and never at the expense of a request.

use std::path::PathBuf;

use rustix::process::Signal;

use super::at_rest;
use super::server::Server;
use crate::support::eventually;
use crate::support::forebay::Forebay;
use crate::support::http;
use crate::support::process::{Process, command};

struct Recorded {
    folder: tempfile::TempDir,
    forebay: Forebay,
}

impl Recorded {
    async fn start(server: &Server, record: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("traffic.ndjson");
        let forebay = Forebay::start(&format!(
            "[record]\nfile = \"{}\"\n{record}\n\
             [upstream.api]\nendpoints = [\"{}\"]\n\
             [route.api]\npath = \"/*\"\nupstream = \"api\"\nrewrite_path = \"/{{rest}}\"\nrequest_headers = {{ set = {{ x-added = \"by-us\" }} }}\n\
             [route.fixed]\npath = \"/fixed\"\nrespond = {{ body = \"{{}}\", content_type = \"application/json\" }}\n",
            file.display(),
            server.address
        ))
        .await;
        Self { folder, forebay }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("traffic.ndjson")
    }

    async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        eventually(&format!("{count} requests are recorded"), async || {
            let text = std::fs::read_to_string(self.file()).ok()?;
            let lines: Option<Vec<_>> = text.lines().skip(1).map(|line| serde_json::from_str(line).ok()).collect();
            lines.filter(|lines| lines.len() >= count)
        })
        .await
    }
}

#[tokio::test]
async fn a_recording_holds_what_clients_sent_and_is_sent_again() {
    let server = Server::start().await;
    let mut recorded = Recorded::start(&server, "answers = true").await;
    let address = recorded.forebay.address();
    let fields = [("content-type", "application/json"), ("authorization", "Bearer x"), ("x-kept", "yes")];

    http::request(address, "POST", "/read?token=t&page=1", &fields, b"{\"password\":\"p\",\"n\":1}").await.unwrap();
    http::get(address, "/fixed").await.unwrap();
    http::get(address, "/error").await.unwrap();

    let lines = recorded.lines(3).await;
    let by_path = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("{lines:?}"));
    let posted = by_path("/read?token=redacted&page=1");
    assert_eq!((&posted["method"], &posted["status"]), (&"POST".into(), &200.into()));
    assert_eq!(posted["headers"]["authorization"][0], "redacted");
    assert_eq!(posted["headers"]["x-kept"][0], "yes");
    assert!(posted["headers"].get("x-added").is_none(), "it is the client's request, not the upstream's: {posted}");
    assert_eq!(by_path("/error")["status"], 500);
    assert_eq!(by_path("/fixed")["answer"]["body_base64"], "e30=");

    recorded.forebay.signal(Signal::TERM);
    recorded.forebay.process.ended().await;
    let before = server.requests();
    let mut replay = command(env!("CARGO_BIN_EXE_forebay"));
    replay.arg("replay").arg(recorded.file()).arg(format!("http://{}/", server.address)).arg("--unsafe-methods");
    let mut replay = Process::start("replay", replay);
    let status = replay.ended().await;

    assert_eq!(server.requests() - before, 3, "{status:?}");
    assert_eq!(server.field("x-kept"), None, "the last one was a GET");
}

#[tokio::test]
async fn the_last_requests_before_the_end_are_in_the_file() {
    let server = Server::start().await;
    let mut recorded = Recorded::start(&server, "").await;
    for _ in 0..200 {
        http::get(recorded.forebay.address(), "/fixed").await.unwrap();
    }

    recorded.forebay.signal(Signal::TERM);
    recorded.forebay.process.ended().await;

    let text = std::fs::read_to_string(recorded.file()).unwrap();
    assert_eq!(text.lines().count(), 201);
}

#[tokio::test]
async fn a_file_in_the_way_is_moved_away_and_a_reload_begins_the_recording() {
    let server = Server::start().await;
    let recorded = Recorded::start(&server, "").await;
    let (forebay, file) = (&recorded.forebay, recorded.file());
    let is_recording = async || forebay.scrape().await.get("forebay_recording", &[]);
    let reload = async |change: bool| {
        let text = std::fs::read_to_string(forebay.config_path()).unwrap();
        let result = if change { "success" } else { "unchanged" };
        if change {
            std::fs::write(forebay.config_path(), text.replace("[record]\n", "[record]\nmax_body = \"1KiB\"\n"))
                .unwrap();
        } else {
            forebay.signal(Signal::HUP);
        }
        let reloads = [("result", result)];
        eventually(&format!("the reload is {result}"), async || {
            (forebay.scrape().await.sum("forebay_config_reloads_total", &reloads) >= 1.0).then_some(())
        })
        .await;
    };
    http::get(forebay.address(), "/fixed").await.unwrap();
    recorded.lines(1).await;

    reload(true).await;
    eventually("the first recording has ended", async || (is_recording().await == Some(0.0)).then_some(())).await;
    std::fs::rename(&file, file.with_extension("first")).unwrap();
    reload(false).await;

    eventually("the second records", async || (is_recording().await == Some(1.0)).then_some(())).await;
    http::get(forebay.address(), "/fixed").await.unwrap();
    recorded.lines(1).await;
}

#[tokio::test]
async fn a_disk_that_is_full_ends_the_recording_and_not_the_service() {
    let server = Server::start().await;
    let forebay = Forebay::start(&format!(
        "[record]\nfile = \"/dev/full\"\n[upstream.api]\nendpoints = [\"{}\"]\n[route.api]\npath = \"/*\"\nupstream = \"api\"\n",
        server.address
    ))
    .await;

    for _ in 0..20 {
        assert_eq!(http::get(forebay.address(), "/").await.unwrap().status, 200);
    }

    let scrape = at_rest(&forebay).await;
    assert_eq!(scrape.get("forebay_recording", &[]), Some(0.0));
    assert!(forebay.process.stderr.all().iter().any(|line| line.contains("nothing is recorded")));
}
