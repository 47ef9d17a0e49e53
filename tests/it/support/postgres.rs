//! A PostgreSQL server of the test's own: a new cluster in a temporary directory, reached by a Unix socket only.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use tempfile::TempDir;

use super::eventually;
use super::process::Process;

/// A running server with a table `users` of three rows; stopped when dropped.
#[derive(Debug)]
pub struct Postgres {
    /// Declared before the directory: the server is gone before its files are.
    process: Process,
    directory: TempDir,
}

impl Postgres {
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("fb-pg").tempdir().expect("a temporary directory");
        give_away(directory.path());
        let data = directory.path().join("data");
        let mut init = as_postgres("initdb");
        init.arg("-D").arg(&data).args([
            "-U",
            "forebay",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--no-locale",
        ]);
        succeed("initdb", init);

        let mut server = as_postgres("postgres");
        server.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40"]);
        server.arg("-c").arg(format!("unix_socket_directories={}", directory.path().display()));
        let postgres = Self { process: Process::start("postgres", server), directory };
        eventually("postgres accepts connections", async || {
            postgres.client("pg_isready").output().expect("pg_isready runs").status.success().then_some(())
        })
        .await;
        postgres.execute(
            "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL); \
             INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger')",
        );
        postgres
    }

    /// For `asyncpg.connect`.
    pub fn url(&self) -> String {
        format!("postgresql://forebay@/postgres?host={}", self.directory.path().display())
    }

    /// Runs SQL and returns what it printed.
    pub fn execute(&self, sql: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        String::from_utf8_lossy(&succeed("psql", psql).stdout).trim().to_owned()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(binary(program));
        command.arg("-h").arg(self.directory.path()).args(["-U", "forebay", "-d", "postgres"]);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // "Immediate shutdown": the server takes its own processes down, which a kill would leave to find out.
        self.process.signal(Signal::QUIT);
        for _ in 0..500 {
            if self.process.has_ended().is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The server refuses to run as root; then it runs as the user that its package made.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    // Where the test runs may be closed to that user.
    command.args(["--pdeathsig", "QUIT", "--"]).arg(binary(program)).current_dir("/");
    command
}

fn give_away(directory: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut id = Command::new("id");
    let uid = succeed("id", {
        id.args(["-u", "postgres"]);
        id
    })
    .stdout;
    let uid = String::from_utf8_lossy(&uid).trim().parse().expect("a user id");
    chown(directory, Some(uid), None).expect("root may give a directory away");
}

/// Debian keeps the server's programs out of the path, one directory for each version.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| panic!("{name} of PostgreSQL is missing: run scripts/setup.sh"))
}

fn succeed(name: &str, mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
