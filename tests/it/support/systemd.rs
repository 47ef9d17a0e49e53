//! A real systemd that manages the units in `packaging/systemd`, in namespaces of the test's own; needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::process::{Process, command, only_child};
use super::repository;

/// A running service manager. Dropped, it is killed with all that it runs.
#[derive(Debug)]
pub struct Manager {
    process: Process,
    folder: TempDir,
}

impl Manager {
    /// With the units of the repository, which find the program and this configuration in `/opt`. The socket listens on
    /// `address`.
    pub async fn start(config: &str, address: std::net::SocketAddr) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "a service manager of one's own needs root: run this test as root"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (units, program) = (folder.path().join("units"), folder.path().join("program"));
        for path in [&units, &program] {
            std::fs::create_dir(path).expect("an empty folder");
            open_to_all(path);
        }
        std::fs::copy(env!("CARGO_BIN_EXE_forebay"), program.join("forebay")).expect("the program is copied");
        std::fs::write(program.join("forebay.toml"), config).expect("the configuration is written");
        for name in ["forebay.service", "forebay.socket"] {
            let unit = std::fs::read_to_string(repository("packaging/systemd").join(name)).expect("a unit");
            let unit = unit.replace("/usr/bin/forebay", "/opt/forebay").replace("/etc/forebay/", "/opt/");
            let unit = unit.replace("127.0.0.1:8080", &address.to_string());
            std::fs::write(units.join(name), unit).expect("the unit is written");
        }
        let log = format!("[Service]\nStandardError=append:{}\n", folder.path().join("log").display());
        std::fs::create_dir(units.join("forebay.service.d")).expect("an empty folder");
        std::fs::write(units.join("forebay.service.d/log.conf"), log).expect("the unit is written");
        open_to_all(folder.path());

        let mut run = command("unshare");
        run.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        run.arg(repository("tests/services/user-manager.sh")).arg(&units).arg(&program);
        let mut process = Process::start("systemd", run);
        process.output("manages", |lines| lines.iter().any(|line| line == "managing").then_some(())).await;
        Self { process, folder }
    }

    /// `systemctl` with these arguments.
    pub async fn systemctl(&self, arguments: &[&str]) -> Output {
        let mut systemctl = self.inside("systemctl");
        systemctl.env("XDG_RUNTIME_DIR", "/run/manager").arg("--user").args(arguments);
        tokio::task::spawn_blocking(move || systemctl.output()).await.expect("no panic").expect("systemctl runs")
    }

    /// `systemctl` that has to succeed; what it printed.
    pub async fn told(&self, arguments: &[&str]) -> String {
        let output = self.systemctl(arguments).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        assert!(output.status.success(), "systemctl {arguments:?}: {said}\n{}", self.log());
        said
    }

    /// A file of `/proc/PID` of the service's main process.
    pub async fn of_main_process(&self, file: &str) -> String {
        let pid = self.told(&["show", "--property=MainPID", "--value", "forebay.service"]).await;
        let output = self.inside("cat").arg(format!("/proc/{pid}/{file}")).output().expect("cat runs");
        assert!(output.status.success(), "the process {pid} is there");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("program/forebay.toml")
    }

    /// What the service has written to stderr, in all its processes.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn inside(&self, program: &str) -> Command {
        let first = only_child(self.process.id()).as_raw_pid().to_string();
        let mut enter = command("nsenter");
        enter.args(["--target", &first, "--mount", "--pid", "--"]);
        enter.arg(program);
        enter
    }
}

/// The service runs as a user that nobody knows beforehand.
fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("our own folder");
}
