//! What the commands print and how they end.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

const GOOD: &str = "\
[upstream.users]
endpoints = [\"127.0.0.1:9001\"]

[route.users]
path = \"/users/{id}\"
upstream = \"users\"
";

struct Folder(TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("forebay.toml"), text).expect("written");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("forebay.toml")
    }

    /// Runs a command in this folder.
    fn forebay(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path()).env("NO_COLOR", "1");
        command
    }

    /// The same where files end at 512 bytes, as on a disk that is nearly full.
    fn with_little_space(&self, arguments: &str) -> Output {
        let script = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_forebay")]).args(arguments.split_whitespace());
        command.current_dir(self.0.path()).env("NO_COLOR", "1").output().expect("the shell runs")
    }

    /// What is in it, apart from the configuration.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<_> = names.filter(|name| name != "forebay.toml").collect();
        names.sort();
        names
    }
}

/// Where nothing can be written any more.
fn full_disk() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_good_file_is_checked_with_exit_code_0() {
    let output = Folder::with(GOOD).forebay("check");

    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("no mistakes; routes: 1, upstreams: 1"), "{}", stdout(&output));
}

#[test]
fn every_mistake_is_reported_with_its_line_and_exit_code_78() {
    let folder =
        Folder::with(&format!("{GOOD}deadlin = \"3s\"\n\n[route.orders]\npath = \"/orders\"\nupstream = \"user\"\n"));
    for command in ["check", "run"] {
        let output = folder.forebay(command);

        let report = stderr(&output);
        assert_eq!(code(&output), 78, "forebay {command}: {report}");
        for part in ["forebay.toml:7", "deadlin = \"3s\"", "^", "deadline", "forebay.toml:11", "users"] {
            assert!(report.contains(part), "forebay {command} does not say {part}:\n{report}");
        }
    }
}

#[test]
fn the_same_mistake_has_the_same_words_in_check_and_run() {
    let folder = Folder::with("[listener]\naddress = \"localhost\"\n");

    assert_eq!(stderr(&folder.forebay("check")), stderr(&folder.forebay("run")));
}

#[test]
fn a_missing_file_is_a_bad_configuration() {
    let output = Folder::with(GOOD).forebay("check -c missing.toml");

    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("missing.toml"), "{}", stderr(&output));
}

#[test]
fn a_wrong_log_filter_is_a_bad_configuration() {
    let output = Folder::with("[log]\nlevel = \"forebay=loud\"\n").forebay("check");

    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("forebay=loud"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_is_64_and_help_is_0() {
    let folder = Folder::with(GOOD);
    for (arguments, expected) in [("--help", 0), ("run --help", 0), ("--version", 0), ("version", 0), ("schema", 0)] {
        let output = folder.forebay(arguments);
        assert_eq!(code(&output), expected, "forebay {arguments}");
        assert!(!output.stdout.is_empty(), "forebay {arguments} prints to stdout");
    }
    for arguments in ["", "frobnicate", "run --frobnicate", "explain GET", "healthcheck --timeout soon"] {
        let output = folder.forebay(arguments);
        assert_eq!(code(&output), 64, "forebay {arguments}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "forebay {arguments} prints to stderr");
    }
}

#[test]
fn explain_names_the_route_and_the_lines() {
    let output = Folder::with(GOOD).forebay("explain GET /users/7");

    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("users") && stdout(&output).contains("deadline"), "{}", stdout(&output));
}

#[test]
fn the_effective_configuration_hides_secrets() {
    let folder = Folder::with(GOOD);
    std::fs::write(folder.0.path().join("token"), "t0p-secret-token").expect("written");
    let text = format!("{GOOD}\n[admin]\ntoken = {{ file = \"token\" }}\n");
    std::fs::write(folder.file(), text).expect("written");

    let output = folder.forebay("check --effective");

    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let shown: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert!(shown.is_object());
    assert!(!stdout(&output).contains("t0p-secret-token"));
}

#[test]
fn the_schema_is_json_and_the_metrics_are_a_table() {
    let folder = Folder::with(GOOD);

    let schema: serde_json::Value = serde_json::from_str(&stdout(&folder.forebay("schema"))).expect("JSON");
    assert!(schema["properties"]["route"].is_object());

    let metrics = stdout(&folder.forebay("metrics --markdown"));
    assert!(metrics.contains("| `forebay_requests_total` |"), "{metrics}");
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = Folder::with(GOOD);
    let script = stdout(&folder.forebay("completions bash"));
    let completed = |words: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words} \"\")\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _forebay forebay \"\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let bash = Command::new("bash").arg("-c").arg(ask).output().expect("bash is there");
        assert!(bash.status.success() && bash.stderr.is_empty(), "{}", String::from_utf8_lossy(&bash.stderr));
        stdout(&bash)
    };

    assert!(completed("forebay").lines().any(|word| word == "explain"));
    assert!(completed("forebay check").lines().any(|word| word == "--effective"));
    assert!(completed("forebay replay --format").lines().any(|word| word == "envoy"));
    for (shell, begin) in [("zsh", "#compdef forebay"), ("fish", "# Print an optspec")] {
        let script = stdout(&folder.forebay(&format!("completions {shell}")));
        assert!(script.starts_with(begin) && script.contains("effective"), "{shell}: {script}");
    }
}

#[test]
fn dashboards_are_written_where_asked() {
    let folder = Folder::with(GOOD);
    assert_eq!(code(&folder.forebay("dashboards --out .")), 0);
    assert!(folder.0.path().join("overview.json").is_file());

    let refused = folder.forebay("dashboards --out nowhere");
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("writing nowhere/overview.json"), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("make the folder first"), "{}", stderr(&refused));
}

#[test]
fn rules_are_printed_or_written_and_lead_to_the_runbooks_that_were_named() {
    let folder = Folder::with(GOOD);
    assert_eq!(code(&folder.forebay("rules --out .")), 0);
    let written = std::fs::read_to_string(folder.0.path().join("forebay.yaml")).expect("the rules");

    assert_eq!(stdout(&folder.forebay("rules")), written);
    let elsewhere = stdout(&folder.forebay("rules --runbooks https://wiki.example.com/forebay"));
    assert!(elsewhere.contains("runbook_url: \"https://wiki.example.com/forebay#forebaydown\""), "{elsewhere}");
    assert_eq!(code(&folder.forebay("rules --out nowhere")), 1);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::with(GOOD);
    assert_eq!(code(&folder.forebay("man --out .")), 0);

    let page = |name: &str| std::fs::read_to_string(folder.0.path().join(name)).expect(name);
    assert_eq!(page("forebay.1"), stdout(&folder.forebay("man")));
    for name in ["run", "check", "explain", "demo", "simulate", "load", "replay", "compare", "healthcheck"] {
        assert!(page(&format!("forebay-{name}.1")).contains(".SH NAME"), "{name}");
    }

    let refused = folder.forebay("man --out nowhere");
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("make the folder first"), "{}", stderr(&refused));
}

#[test]
fn a_health_check_of_nobody_fails_in_one_line() {
    // Bound and not listening to HTTP: connecting works, an answer never comes.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address");
    let folder = Folder::with(&format!("{GOOD}\n[admin]\naddress = \"127.0.0.1:1\"\n"));
    let asked = [
        "healthcheck".to_owned(),
        "healthcheck --url https://127.0.0.1:1/".to_owned(),
        "healthcheck -c missing.toml".to_owned(),
        format!("healthcheck --timeout 100ms --url http://{silent}/readyz"),
    ];
    for arguments in asked {
        let output = folder.forebay(&arguments);
        assert_eq!(code(&output), 1, "forebay {arguments}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("forebay: "), "forebay {arguments}: {}", stderr(&output));
        let names_no_address = arguments.ends_with("missing.toml");
        assert_eq!(stderr(&output).contains("name it, as in `--url http://"), names_no_address, "{}", stderr(&output));
    }
}

#[test]
fn a_port_in_use_is_a_runtime_failure_that_says_what_to_do() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("an address");
    let folder =
        Folder::with(&format!("[admin]\naddress = \"127.0.0.1:0\"\n[listener]\naddress = \"{address}\"\n{GOOD}"));

    let output = folder.forebay("run");

    assert_eq!(code(&output), 1);
    let message = stderr(&output);
    assert!(message.contains(&format!("cannot listen on {address} (main): ")), "{message}");
    assert!(message.contains("ss -ltnp"), "{message}");
}

#[test]
fn an_address_is_explained_as_in_the_file() {
    let folder = Folder::with(GOOD);
    let wrong = [
        ("demo --listen 8180", "it is not an IP address with a port; write \"127.0.0.1:8180\""),
        ("top --admin 9901", "it is not an IP address with a port; write \"127.0.0.1:9901\""),
        ("demo --admin localhost:1", "write \"127.0.0.1:1\" or \"[::1]:1\""),
        ("load http://127.0.0.1:1/ --metrics nohost", "expected an IP address and a port such as \"127.0.0.1:8080\""),
    ];
    for (arguments, expected) in wrong {
        let output = folder.forebay(arguments);

        assert_eq!(code(&output), 64, "forebay {arguments}");
        assert!(stderr(&output).contains(expected), "forebay {arguments}: {}", stderr(&output));
    }
}

#[test]
fn a_log_of_the_demo_that_cannot_be_opened_is_told_by_its_option() {
    let output = Folder::with(GOOD).forebay("demo --access-log nowhere/x.log");

    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("forebay: --access-log: the folder nowhere "), "{}", stderr(&output));
    assert!(stderr(&output).contains("make the folder first"), "{}", stderr(&output));
}

/// A load test of nobody: every request fails at once, and the report says so.
fn short_load(outputs: &str) -> String {
    format!("load http://127.0.0.1:1/ -r 20/s -d 1s {outputs}")
}

/// It ended by itself; on a busy machine, perhaps void.
fn measured(output: &Output) {
    assert!([0, 4].contains(&code(output)), "{}", stderr(output));
}

#[test]
fn output_that_does_not_arrive_is_a_runtime_failure() {
    let folder = Folder::with(GOOD);
    measured(&folder.forebay(&short_load("--report-json a.json")));
    let load = short_load("--quiet --report-json b.json");
    let commands = [
        "schema",
        "metrics",
        "man",
        "completions bash",
        "rules",
        "check",
        "check --effective",
        "explain GET /users/7",
        "version",
        "--version",
        "--help",
        "run --help",
        "compare a.json a.json",
        "demo --listen 127.0.0.1:0 --admin 127.0.0.1:0",
        "simulate",
        load.as_str(),
    ];
    for arguments in commands {
        let output = folder.command(arguments).stdout(full_disk()).output().expect("the binary runs");

        assert_eq!(code(&output), 1, "forebay {arguments}: {}", stderr(&output));
        let message = "forebay: cannot write to standard output: No space left on device";
        assert!(stderr(&output).contains(message), "forebay {arguments}: {}", stderr(&output));
    }
    // What was asked for beside it is whole.
    assert_eq!(code(&folder.forebay("compare --allow-void a.json b.json")), 0);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let folder = Folder::with(GOOD);
    for arguments in ["schema", "--help", "check"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);

        let output = folder.command(arguments).stdout(writer).output().expect("the binary runs");

        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "forebay {arguments}");
    }
}

#[test]
fn a_report_that_cannot_be_written_leaves_the_old_one_alone() {
    let folder = Folder::with(GOOD);
    let load = |name: &str| short_load(&format!("--quiet {name}"));
    measured(&folder.forebay(&load("--report-json a.json")));
    let writes = [
        (load("--report-json old"), "old"),
        (load("--report-html old"), "old"),
        (load("--report-ndjson old"), "old"),
        ("compare a.json a.json --report-json old".to_owned(), "old"),
        ("compare a.json a.json --report-html old".to_owned(), "old"),
        ("dashboards --out .".to_owned(), "overview.json"),
        ("rules --out .".to_owned(), "forebay.yaml"),
        ("man --out .".to_owned(), "forebay.1"),
    ];
    for (arguments, name) in writes {
        let file = folder.0.path().join(name);
        std::fs::write(&file, "what was there").expect("written");

        let output = folder.with_little_space(&arguments);

        assert_eq!(code(&output), 1, "forebay {arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains("File too large"), "forebay {arguments}: {}", stderr(&output));
        assert_eq!(std::fs::read_to_string(&file).expect("still there"), "what was there", "forebay {arguments}");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(folder.names(), ["a.json"], "forebay {arguments} leaves nothing behind");
    }
}
