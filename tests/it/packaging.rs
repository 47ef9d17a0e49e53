//! The files in `packaging`, judged by the tools that know them: hadolint, kubectl's kustomize, the schemas of Kubernetes
//! and of the Prometheus operator, promtool. The units are in `e2e/systemd.rs`; image and package are built and run by
//! `make package-test`. Each judge is shown a mistake as well, so that a judge who sees nothing is found out.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::config::assert_golden;
use super::support::forebay::Forebay;
use super::support::http;
use super::support::simulator::Simulator;
use super::support::{installed, repository};

/// Whether the command succeeds, and what it says.
fn run(command: &mut Command, input: &str) -> (bool, String) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // What does not read its input ends before it is written; that is its own affair.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_dockerfile_has_no_lint() {
    let hadolint = |text: &str| {
        let mut hadolint = Command::new(installed("target/packaging-venv/bin/hadolint"));
        run(hadolint.args(["--no-color", "--failure-threshold", "style", "-"]), text)
    };

    let (clean, said) = hadolint(&read("packaging/docker/Dockerfile"));
    assert!(clean && said.trim().is_empty(), "{said}");

    let (clean, said) = hadolint("FROM debian:latest\nRUN apt-get install curl\n");
    assert!(!clean && said.contains("DL3007"), "{said}");
}

/// What kustomize makes of a folder.
fn kustomized(folder: &str) -> String {
    let mut kubectl = Command::new(installed("target/tools/bin/kubectl"));
    kubectl.args(["kustomize", "--load-restrictor", "LoadRestrictionsNone"]);
    let (made, said) = run(kubectl.arg(repository("packaging/kubernetes").join(folder)), "");
    assert!(made, "{folder}: {said}");
    said
}

/// By the schemas of each of these versions of Kubernetes.
fn judged(manifests: &str, versions: &[&str]) -> (bool, String) {
    let mut judge = Command::new(installed("target/packaging-venv/bin/python"));
    run(judge.arg(repository("tests/packaging/manifests.py")).args(versions), manifests)
}

#[test]
fn manifests_are_what_kubernetes_and_the_operator_take() {
    // From the first version with native sidecars to the newest that the schemas know.
    let with_sidecars = ["1.29", "1.37"];
    let (valid, said) = judged(&kustomized("base"), &with_sidecars);
    assert!(valid && said.contains("Deployment application"), "{said}");
    let (valid, said) = judged(&kustomized("overlays/production"), &with_sidecars);
    assert!(valid, "{said}");
    for kind in [
        "PodDisruptionBudget application",
        "PodMonitor forebay",
        "PrometheusRule forebay",
        "ConfigMap forebay-dashboards",
    ] {
        assert!(said.contains(kind), "no {kind} in {said}");
    }
    let old = kustomized("overlays/before-1.29");
    let (valid, said) = judged(&old, &["1.27"]);
    assert!(valid, "{said}");
    assert!(!old.contains("initContainers") && !old.contains("restartPolicy"), "{old}");
    assert!(old.contains("FOREBAY_ACCEPT_GRACE"), "{old}");
}

#[test]
fn a_misspelt_key_of_a_manifest_is_found() {
    let production = kustomized("overlays/production");
    let mistakes = [
        ("periodSeconds", "periodSecs"),
        ("restartPolicy: Always", "restartPolicies: Always"),
        ("scrapeProtocols", "scrapeWords"),
        ("interval: 15s", "intervall: 15s"),
        ("- alert: ", "- alarm: "),
    ];
    let wrong = mistakes.map(|(key, wrong)| {
        assert!(production.contains(key), "{key}");
        production.replace(key, wrong)
    });

    let (valid, said) = judged(&wrong.join("\n---\n"), &["1.37"]);

    assert!(!valid, "{said}");
    for (_, wrong) in mistakes {
        let key = wrong.trim_start_matches("- ").split(':').next().expect("a key");
        assert!(said.contains(key), "{key} is taken: {said}");
    }
}

/// The native sidecar: the order in which it starts and ends is what the documents say.
#[test]
fn the_sidecar_outlives_the_application_and_its_time_suffices() {
    let base = kustomized("base");
    let sidecar = base.split("initContainers:").nth(1).expect("a native sidecar");
    assert!(sidecar.contains("restartPolicy: Always") && sidecar.contains("startupProbe:"), "{sidecar}");
    let grace = base.split("terminationGracePeriodSeconds: ").nth(1).expect("a grace period");
    let grace: u64 = grace.split_whitespace().next().and_then(|number| number.parse().ok()).expect("seconds");

    for accept_grace in ["0s", "20s"] {
        let variable = |name: &str| match name {
            "FOREBAY_ACCEPT_GRACE" => Some(accept_grace.to_owned()),
            "FOREBAY_ADMIN_TOKEN" => Some("secret".to_owned()),
            _ => None,
        };
        let text = read("packaging/kubernetes/base/forebay.toml");
        let loaded =
            forebay::config::parse("forebay.toml", &text, &variable).unwrap_or_else(|report| panic!("{report}"));
        let shutdown = &loaded.config.shutdown;
        let needed = shutdown.accept_grace + shutdown.drain_timeout;
        assert!(needed.as_secs() + 5 <= grace, "{needed:?} of {grace} s");
    }
}

/// As kubelet, Prometheus and the application meet it.
#[tokio::test]
async fn the_sidecar_of_a_pod_shows_its_health_to_all_and_its_metrics_to_who_has_the_token() {
    let users = Simulator::start("[upstream.users]\nstatus = 203\n").await;
    let variables: [(&str, &dyn ToString); 3] =
        [("FOREBAY_ADMIN", &"127.0.0.1:0"), ("FOREBAY_ADMIN_TOKEN", &"secret"), ("USERS", &users.address("users"))];
    let forebay = Forebay::start_example("packaging/kubernetes/base/forebay.toml", &variables).await;
    let asked = async |path, token| {
        let header = [("authorization", token)];
        http::request(forebay.admin(), "GET", path, &header, b"").await.expect("an answer").status
    };

    assert_eq!((asked("/readyz", "").await, asked("/livez", "").await), (200, 200));
    assert_eq!(asked("/metrics", "Bearer guessed").await, 401);
    assert_eq!(asked("/metrics", "Bearer secret").await, 200);
    assert_eq!(http::get(forebay.address(), "/users/7").await.expect("an answer").status, 203);
}

#[tokio::test]
async fn the_sidecar_of_the_compose_file_serves_its_three_routes() {
    let services = "[upstream.users]\nlatency = \"10ms\"\n[upstream.reports]\nlatency = \"10ms\"\n";
    let services = Simulator::start(services).await;
    let variables: [(&str, &dyn ToString); 3] = [
        ("FOREBAY_ADDRESS", &"127.0.0.1:0"),
        ("USERS", &services.address("users")),
        ("REPORTS", &services.address("reports")),
    ];
    let forebay = Forebay::start_example("packaging/compose/forebay.toml", &variables).await;

    for path in ["/users/7", "/reports/latest", "/home"] {
        let answer = http::get(forebay.address(), path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}

/// `make bless` writes it anew.
mod rules {
    use super::*;

    #[test]
    fn those_of_prometheus_are_a_resource_of_the_operator() {
        let rules = read("dashboards/rules/forebay.yaml");
        let head = "# Made of dashboards/rules/forebay.yaml by `make bless`.\n\
                    apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: forebay\nspec:\n";
        let indented = rules.lines().filter(|line| !line.starts_with('#')).map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("  {line}\n"),
        });

        let path = repository("packaging/kubernetes/monitoring/prometheusrule.yaml");
        assert_golden(&path, &(head.to_owned() + &indented.collect::<String>()));
    }
}

#[test]
fn every_dashboard_is_in_the_config_map() {
    let listed = read("packaging/kubernetes/monitoring/kustomization.yaml");
    let listed: BTreeSet<_> =
        listed.lines().filter_map(|line| line.trim().strip_prefix("- ../../../dashboards/")).collect();
    let there: Vec<String> = std::fs::read_dir(repository("dashboards"))
        .expect("the folder of dashboards")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a plain name"))
        .filter(|name| name.ends_with(".json"))
        .collect();

    assert_eq!(
        listed,
        there.iter().map(String::as_str).collect(),
        "packaging/kubernetes/monitoring/kustomization.yaml"
    );
}

/// With the binary of the tests; that of `make package` is static, and its package is installed by dpkg (`make package-test`).
#[test]
fn the_debian_package_has_what_it_should_and_its_configuration_is_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let strip = Command::new("strip").arg("-o").arg(path("forebay")).arg(env!("CARGO_BIN_EXE_forebay")).status();
    assert!(strip.expect("strip runs").success());
    std::fs::write(path("sbom.json"), "{}").expect("written");
    let mut build = Command::new(repository("packaging/debian/build.sh"));
    build.args([path("forebay"), path("sbom.json"), folder.path().to_owned()]);
    build.env("SOURCE_DATE_EPOCH", "1700000000").env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let (built, said) = run(&mut build, "");
    assert!(built, "{said}");
    let package = path(&format!("forebay_{}_amd64.deb", env!("CARGO_PKG_VERSION")));

    let tree = path("tree");
    let (extracted, said) = run(Command::new("dpkg-deb").arg("--extract").args([&package, &tree]), "");
    assert!(extracted, "{said}");
    for file in [
        "lib/systemd/system/forebay.service",
        "lib/systemd/system/forebay.socket",
        "usr/share/doc/forebay/copyright",
        "usr/share/doc/forebay/examples/rehearsal/rehearse.sh",
        "usr/share/forebay/dashboards/overview.json",
        "usr/share/forebay/dashboards/rules/forebay.yaml",
        "usr/share/man/man1/forebay-run.1.gz",
        "usr/share/bash-completion/completions/forebay",
        "usr/share/zsh/vendor-completions/_forebay",
        "usr/share/fish/vendor_completions.d/forebay.fish",
    ] {
        assert!(std::fs::metadata(tree.join(file)).is_ok_and(|found| found.len() > 0), "{file} is not there");
    }
    let (_, conffiles) = run(Command::new("dpkg-deb").args(["--info"]).arg(&package).arg("conffiles"), "");
    assert_eq!(conffiles, "/etc/forebay/forebay.toml\n");
    let mut check = Command::new(tree.join("usr/bin/forebay"));
    let (right, said) = run(check.arg("check").arg("-c").arg(tree.join("etc/forebay/forebay.toml")), "");
    assert!(right, "{said}");
}

#[test]
fn the_compose_file_and_what_it_mounts_are_right() {
    let judge = |file: &Path| {
        let mut judge = Command::new(installed("target/packaging-venv/bin/python"));
        run(judge.arg(repository("tests/packaging/compose.py")).arg(file), "")
    };
    let (valid, said) = judge(&repository("packaging/compose/compose.yaml"));
    assert!(valid, "{said}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrong = folder.path().join("compose.yaml");
    std::fs::write(&wrong, "services:\n  a:\n    imag: x\n    volumes: ['./gone:/x']\n    ports: ['80:80']\n")
        .expect("written");
    let (valid, said) = judge(&wrong);
    assert!(!valid, "{said}");
    for mistake in ["unknown key imag", "./gone is not there", "open to everybody"] {
        assert!(said.contains(mistake), "no `{mistake}` in {said}");
    }
}

#[test]
fn the_files_of_the_compose_set_up_are_taken_by_their_readers() {
    // As mounted: the dashboards and their rules are a folder beside the file.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prometheus = folder.path().join("prometheus.yaml");
    std::fs::copy(repository("packaging/compose/prometheus.yaml"), &prometheus).expect("copied");
    std::os::unix::fs::symlink(repository("dashboards"), folder.path().join("dashboards")).expect("linked");
    let mut promtool = Command::new(installed("target/tools/usr/bin/promtool"));
    let (valid, said) = run(promtool.args(["check", "config"]).arg(&prometheus), "");
    assert!(valid && said.contains("1 rule files found"), "{said}");

    for file in ["packaging/compose/forebay.toml", "packaging/debian/forebay.toml"] {
        let loaded = forebay::config::parse(file, &read(file), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.warnings.is_empty(), "{file}");
    }
    forebay::simulate::settings::Settings::load(&repository("packaging/compose/upstreams.toml"))
        .unwrap_or_else(|error| panic!("{error}"));
}
