//! The command line: what can be asked for, and the help texts. `commands` does it.
//!
//! Exit codes belong to [`exit_code`](crate::exit_code); clap's own code for a usage error (2) is replaced by 64,
//! because 2 means something else to half of the tools that would run this.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::compare;
use crate::demo;
use crate::exit_code::Exit;
use crate::load::options::LoadOptions;
use crate::output;
use crate::replay::options::ReplayOptions;
use crate::rules;
use crate::top;
use crate::units;

const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);

const AFTER_HELP: &str = "\
Start here:
  forebay demo                          try it: simulated slow upstreams and the sidecar, no file needed
  forebay check -c forebay.toml         is this file right?
  forebay run -c forebay.toml           serve
  forebay load http://127.0.0.1:8080/   how fast is it? 50 requests per second for 10 s, honestly measured

Exit codes:
  0 fine, 1 runtime failure, 3 a gate was missed, 4 the run is void, 64 wrong usage, 78 bad configuration,
  130 interrupted by a second signal";

const LOAD_EXAMPLES: &str = "\
Examples:
  forebay load http://127.0.0.1:8080/fast
  forebay load http://127.0.0.1:8080/users -r 200/s -d 30s --fail 'p99<250ms' --fail 'errors<1%'
  forebay load http://127.0.0.1:8080/users --arrivals ramp:10/s..500/s -d 2m --report-html ramp.html
  forebay load -c forebay.toml --route users -r 100/s      the deployed file: what it promises is checked
  forebay load --targets requests.txt -r 50/s --warm-up 5s --report-json before.json

Exit codes: 0 fine, 3 a gate was missed, 4 the run is void, 64 wrong usage, 130 interrupted";

/// A sidecar in front of slow HTTP services: bounds every request, observes it, and says why it ended.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = AFTER_HELP, max_term_width = 110)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the sidecar.
    ///
    /// SIGTERM and SIGINT stop it in order: not ready, still accepting for shutdown.accept_grace, then draining
    /// for at most shutdown.drain_timeout; a second signal ends it at once. SIGHUP reads the configuration again.
    /// SIGUSR2 starts the binary on disk with the same arguments, passes the listening sockets on and drains.
    #[command(after_help = "Example:\n  forebay run -c /etc/forebay/forebay.toml")]
    Run(ConfigFile),

    /// Check a configuration file and report every mistake at once.
    #[command(after_help = "\
Examples:
  forebay check -c forebay.toml && systemctl reload forebay
  forebay check --effective              also print every setting as it will be used, secrets hidden")]
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// Print the effective configuration as JSON, with the origin of each value; secrets are hidden.
        #[arg(long)]
        effective: bool,
    },

    /// Say what would happen to a request: its route, each setting with the line it comes from, the worst-case time.
    #[command(after_help = "\
Examples:
  forebay explain GET /users/7
  forebay explain -c forebay.toml -H 'host: api.example.com' -H 'x-tenant: blue' POST '/orders?dry=1'")]
    Explain {
        #[command(flatten)]
        file: ConfigFile,
        /// A header of the request, `name: value`; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
        headers: Vec<(String, String)>,
        /// GET, POST, ...
        #[arg(value_parser = method)]
        method: String,
        /// The path as the client sends it, with its query.
        #[arg(value_parser = path)]
        path: String,
    },

    /// Try Forebay: simulated slow upstreams and the sidecar on loopback; Ctrl-C ends both.
    #[command(after_help = "\
Examples:
  forebay demo                           then, in a second terminal, the curl lines it prints
  forebay demo --listen 127.0.0.1:0 --admin 127.0.0.1:0
  forebay demo --access-log access.log   for `forebay load --waterfall access.log`")]
    Demo(demo::Options),

    /// Run simulated slow upstreams alone.
    #[command(after_help = "\
Examples:
  forebay simulate                       the upstreams of the demo
  forebay simulate -c upstreams.toml
  forebay simulate --check -c upstreams.toml      only say what is wrong with the file")]
    Simulate {
        /// The upstreams to simulate; without it, those of the demo.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Check the file and end.
        #[arg(long, requires = "config")]
        check: bool,
    },

    /// Load a target at a fixed rate and measure latency from the instant at which each request was due.
    ///
    /// The rate does not wait for answers, so a target that stalls cannot slow the test down and look fast. Requests
    /// that could not be sent, timed out or were never answered are counted and stay in the percentiles. A run in
    /// which this program itself was the bottleneck is void, and says so. Ctrl-C ends the sending and reports; a
    /// second one ends everything.
    #[command(after_help = LOAD_EXAMPLES)]
    Load(Box<LoadOptions>),

    /// Send recorded requests again, at the times at which they came.
    ///
    /// Reads recordings, HAR files, access logs of Forebay, nginx and Envoy, vegeta's targets and timing scripts of h2load.
    /// Only methods that change nothing are sent unless asked, and recorded credentials are dropped. Latency counts from the
    /// instant at which each request was due, and the report is that of `forebay load`; there, "ok" is an answer that
    /// succeeds or has the status that was recorded, so that a 503 which was a 503 then is no error.
    #[command(after_help = "\
Examples:
  forebay replay access.log http://127.0.0.1:8080
  forebay replay session.har http://127.0.0.1:8080 --speed 2 --multiply 10 --report-html replay.html
  forebay replay access.log http://127.0.0.1:8080 --window 10m..20m --fail 'errors<1%'
  forebay replay access.log --convert recording > morning.ndjson")]
    Replay(Box<ReplayOptions>),

    /// Compare results of load tests: better, worse, the same or undecided, with intervals.
    #[command(after_help = "\
Examples:
  forebay compare before.json after.json
  forebay compare --fail-on-worse b1.json b2.json b3.json -- a1.json a2.json a3.json
  forebay compare before.json after.json --metrics p99,errors --report-html diff.html
  forebay compare --ab http://127.0.0.1:8080/users http://127.0.0.1:8081/users -- -r 200/s -d 30s
  forebay compare --ab old.toml new.toml -- --route users -r 200/s -d 30s")]
    Compare(Box<compare::options::Options>),

    /// Ask a running Forebay whether it is ready; for containers without a shell or curl.
    #[command(after_help = "\
Examples:
  HEALTHCHECK CMD [\"forebay\", \"healthcheck\", \"-c\", \"/etc/forebay.toml\"]
  forebay healthcheck --url http://127.0.0.1:9901/readyz --timeout 500ms")]
    Healthcheck {
        /// The configuration of the running process, for its admin address.
        #[arg(short, long, value_name = "FILE", default_value = "forebay.toml", conflicts_with = "url")]
        config: PathBuf,
        /// Ask this address instead of the one in the configuration (http only).
        #[arg(long)]
        url: Option<String>,
        /// How long the answer may take.
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = timeout)]
        timeout: Duration,
    },

    /// Show what a running Forebay does: rates, failures, latencies, limits, the slowest requests.
    ///
    /// Reads the built-in page's views from the admin listener each second. The admin token, where one is set, comes from
    /// FOREBAY_ADMIN_TOKEN. Without a terminal, a picture follows the other.
    #[command(after_help = "\
Examples:
  forebay top
  forebay top requests --route slow
  forebay top limits --once --admin 127.0.0.1:9901")]
    Top(top::Options),

    /// List every metric: name, type, labels and meaning.
    Metrics {
        /// As a Markdown table, for documentation.
        #[arg(long)]
        markdown: bool,
    },

    /// Write the Grafana dashboards.
    #[command(after_help = "Example:\n  forebay dashboards --out /var/lib/grafana/dashboards")]
    Dashboards {
        /// The folder to write them into, which must be there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },

    /// Print the recording and alerting rules for Prometheus, or write them.
    ///
    /// They are the same for every configuration: what routes promise (`[route.NAME.objective]`) and what is limited is
    /// exported by Forebay itself.
    #[command(after_help = "\
Examples:
  forebay rules --out /etc/prometheus/rules      writes forebay.yaml; name it under `rule_files`
  forebay rules --runbooks https://wiki.example.com/forebay | promtool check rules")]
    Rules {
        /// Write forebay.yaml into this folder, which must be there.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Where docs/runbooks.md can be read: each alert links to its section there.
        #[arg(long, value_name = "URL", default_value = rules::RUNBOOKS, value_parser = runbooks)]
        runbooks: String,
    },

    /// Print the JSON Schema of the configuration file, for editors.
    #[command(after_help = "Example:\n  forebay schema > schema.json")]
    Schema,

    /// Print what makes a shell complete commands, options and their values.
    #[command(after_help = "\
Examples:
  forebay completions bash > /etc/bash_completion.d/forebay
  forebay completions zsh  > /usr/local/share/zsh/site-functions/_forebay
  forebay completions fish > /etc/fish/completions/forebay.fish")]
    Completions { shell: clap_complete::Shell },

    /// Print the manual page, or write those of all commands.
    #[command(after_help = "\
Examples:
  forebay man | man -l -
  forebay man --out /usr/local/share/man/man1")]
    Man {
        /// Write forebay.1, forebay-run.1 and so on into this folder, which must be there.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },

    /// Print the version.
    Version,
}

#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "forebay.toml")]
    pub config: PathBuf,
}

/// Reads the arguments. Help and the version are answered here, wrong usage is explained here; both end the
/// command with the returned code.
pub fn parse<I>(arguments: I) -> Result<Cli, Exit>
where
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| {
        let printed = error.print().and_then(|()| io::stdout().flush());
        match (usage_exit(&error), output::arrived(printed)) {
            (Exit::Done, Err(error)) => {
                let _ = writeln!(io::stderr(), "forebay: {error}");
                Exit::Failed
            }
            // What is wrong goes to stderr; nobody is left to be told that it is closed.
            (exit, _) => exit,
        }
    })
}

/// Help that was asked for is a success; help that stands in for a missing command is not.
fn usage_exit(error: &clap::Error) -> Exit {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    let name = http::HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| "this is not a header name")?;
    let value = value.trim();
    http::HeaderValue::from_str(value).map_err(|_| "this is not a header value")?;
    Ok((name.as_str().to_owned(), value.to_owned()))
}

fn method(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    http::Method::from_bytes(upper.as_bytes()).map_err(|_| "this is not an HTTP method")?;
    Ok(upper)
}

/// Stands between quotes in YAML, with a `#` and a section behind it.
fn runbooks(text: &str) -> Result<String, String> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\' | '#');
    if text.is_empty() || text.contains(is_odd) {
        return Err("expected an address without `#`, spaces, quotes and backslashes".to_owned());
    }
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with `/`".to_owned()) }
}

/// `500ms`, `2s`: the units of the configuration file.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text).map_err(|error| error.to_string())?;
    // A longer wait than a day is a typing error, and far longer ones overflow the clock.
    if time.is_zero() || time >= LONGEST_TIMEOUT {
        return Err("expected more than zero and less than a day".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn command(line: &str) -> Command {
        let arguments = std::iter::once("forebay").chain(line.split_whitespace());
        Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line}: {error}")).command
    }

    fn exit(line: &str) -> Exit {
        let arguments = std::iter::once("forebay").chain(line.split_whitespace());
        usage_exit(&Cli::try_parse_from(arguments).expect_err(line))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_file_has_a_default_name() {
        let Command::Run(file) = command("run") else { panic!("not run") };

        assert_eq!(file.config, PathBuf::from("forebay.toml"));
    }

    #[test]
    fn explain_takes_method_path_and_headers() {
        let Command::Explain { headers, method, path, .. } = command("explain -H X-Tenant:blue get /users/7?a=b")
        else {
            panic!("not explain")
        };

        assert_eq!(headers, [("x-tenant".to_owned(), "blue".to_owned())]);
        assert_eq!((method.as_str(), path.as_str()), ("GET", "/users/7?a=b"));
    }

    #[test]
    fn help_is_a_success_and_wrong_usage_is_64() {
        let table = [
            ("--help", Exit::Done),
            ("run --help", Exit::Done),
            ("--version", Exit::Done),
            ("", Exit::Usage),
            ("rum", Exit::Usage),
            ("run --frobnicate", Exit::Usage),
            ("explain GET users", Exit::Usage),
            ("explain GET", Exit::Usage),
            ("explain -H nocolon GET /", Exit::Usage),
            ("explain G@T /", Exit::Usage),
            ("rules --runbooks a#b", Exit::Usage),
            ("replay a.log", Exit::Usage),
            ("replay a.log http://127.0.0.1:1 --speed 0", Exit::Usage),
            ("replay a.log http://127.0.0.1:1 --window 2m..1m", Exit::Usage),
            ("healthcheck --timeout 5", Exit::Usage),
            ("healthcheck --timeout 0s", Exit::Usage),
            ("healthcheck -c a --url http://127.0.0.1:1/", Exit::Usage),
        ];
        for (line, expected) in table {
            assert_eq!(exit(line), expected, "forebay {line}");
        }
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        for code in Exit::ALL {
            assert!(AFTER_HELP.contains(&code.code().to_string()), "{code:?}");
            assert!(AFTER_HELP.replace('\n', " ").replace("  ", " ").contains(code.meaning()), "{code:?}");
        }
    }

    #[test]
    fn timeouts_are_read_with_their_unit() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(timeout("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["", "s", "2", "-1s", "0s", "1d", "99999999999999999999s"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }
}
